"""CHAOS: abdomens of healthy people in T1 in phase, T1 out of phase and T2-SPIR, the MR part of the challenge.

Kavur et al., CHAOS challenge: combined (CT-MR) healthy abdominal organ segmentation, Medical Image Analysis 2021. 40
people, 1.5 T Philips, 20 with labels. Licence: CC BY-NC-SA 4.0.

Layout: ``Train_Sets/MR/ID/T1DUAL/DICOM_anon/{InPhase,OutPhase}/*.dcm``, ``Train_Sets/MR/ID/T2SPIR/DICOM_anon/*.dcm``, a
picture per slice in ``T1DUAL/Ground/*.png`` and ``T2SPIR/Ground/*.png``, and ``Test_Sets/MR`` without pictures. The CT
part is passed over. Labels: the greys 63 liver, 126 right kidney, 189 left kidney, 252 spleen, or as the organisers
count, 55 to 70, 110 to 135, 175 to 200, 240 to 255.

Domains t1_in, t1_out, t2_spir, of one channel each; or, with ``--dual-channels``, the phases of T1 as the two channels
of the domain t1_dual. Subjects: people, whose series never part. Test series become test cases. Schemes: ``organs``,
``liver``, ``kidneys``.

Known defects: in-phase and out-of-phase files are numbered evenly and oddly, and the pictures of T1DUAL as one of them,
so pictures belong to slices by their order.
"""

from nnunet_da.dataset_conversion import About
from nnunet_da.dataset_conversion._layout import Layout, find_files
from nnunet_da.dataset_conversion._structures import add_structures, labels_and_values

ABOUT = About(
    anatomy="abdomen: liver, kidneys, spleen",
    cases="20 people with labels, 20 for test, three MR series each",
    domains="t1_in, t1_out, t2_spir; or t1_dual",
    licence="CC BY-NC-SA 4.0",
    source="Zenodo 3431873 (Kavur et al. 2021)",
)
LAYOUTS = (
    Layout(
        "CHAOS",
        {
            "t1_in": "Train_Sets/MR/{n}/T1DUAL/DICOM_anon/InPhase/*.dcm",
            "t1_out": "Train_Sets/MR/{n}/T1DUAL/DICOM_anon/OutPhase/*.dcm",
            "t1_label": "Train_Sets/MR/{n}/T1DUAL/Ground/*.png",
            "t2_spir": "Train_Sets/MR/{n}/T2SPIR/DICOM_anon/*.dcm",
            "t2_label": "Train_Sets/MR/{n}/T2SPIR/Ground/*.png",
            "test_t1_in": "Test_Sets/MR/{n}/T1DUAL/DICOM_anon/InPhase/*.dcm",
            "test_t1_out": "Test_Sets/MR/{n}/T1DUAL/DICOM_anon/OutPhase/*.dcm",
            "test_t2_spir": "Test_Sets/MR/{n}/T2SPIR/DICOM_anon/*.dcm",
        },
        also=(r"(Train|Test)_Sets/CT/.*",),
    ),
)
TRAINING = [role for role in LAYOUTS[0].files if not role.startswith("test_")]
TEST = [role for role in LAYOUTS[0].files if role.startswith("test_")]
LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = range(55, 71), range(110, 136), range(175, 201), range(240, 256)
SCHEMES = {
    "organs": {
        "liver": tuple(LIVER),
        "right_kidney": tuple(RIGHT_KIDNEY),
        "left_kidney": tuple(LEFT_KIDNEY),
        "spleen": tuple(SPLEEN),
    },
    "liver": {"liver": tuple(LIVER)},
    "kidneys": {"right_kidney": tuple(RIGHT_KIDNEY), "left_kidney": tuple(LEFT_KIDNEY)},
}
# Domain → roles of its channels, role of its pictures.
SEQUENCES = {
    "t1_in": (("t1_in",), "t1_label"),
    "t1_out": (("t1_out",), "t1_label"),
    "t2_spir": (("t2_spir",), "t2_label"),
}
DUAL = {"t1_dual": (("t1_in", "t1_out"), "t1_label")}


def add_arguments(parser):
    add_structures(parser, SCHEMES)
    series = parser.add_mutually_exclusive_group()
    series.add_argument(
        "--sequences",
        nargs="+",
        choices=list(SEQUENCES),
        default=list(SEQUENCES),
        help=f"only these domains (default: {', '.join(SEQUENCES)})",
    )
    series.add_argument(
        "--dual-channels", action="store_true", help="only T1, in phase and out of phase as two channels of one domain"
    )


def cases(raw, arguments):
    from nnunet_da.raw_dataset import Case, Conversion
    from nnunet_da.scan_sources import Missing, SlicePictures

    found = find_files(raw, LAYOUTS, "chaos", endings=(".dcm", ".png"))
    labels, label_values = labels_and_values(
        arguments.structures, SCHEMES, known=(*LIVER, *RIGHT_KIDNEY, *LEFT_KIDNEY, *SPLEEN)
    )
    sequences = DUAL if arguments.dual_channels else {name: SEQUENCES[name] for name in arguments.sequences}

    def case(key, domain, series, label_role=None):
        series = tuple(found.require(key, series))
        label = found.label(key, role=label_role) if label_role else None
        if label and not isinstance(label, Missing):
            label = SlicePictures(label, series[0])
        subject = f"chaos_{key[0]}"
        return Case(f"{subject}_{domain}", domain, subject, series, label, label_values if label else None)

    for role in (role for series, _ in sequences.values() for role in series):
        found.require_role(role, "training series")
    return Conversion(
        cases=[
            case(key, domain, series, None if arguments.unlabelled else label_role)
            for domain, (series, label_role) in sequences.items()
            for key in found.with_role(*TRAINING)
        ],
        test_cases=[
            case(key, domain, [f"test_{role}" for role in series])
            for domain, (series, _) in sequences.items()
            for key in found.with_role(*TEST)
        ],
        channel_names=["T1_in_phase", "T1_out_of_phase"] if arguments.dual_channels else ["MR"],
        labels=labels,
        name="CHAOS",
        extra=ABOUT.entries,
    )
