"""IVDM3Seg (MICCAI 2018): lumbar discs in Dixon MR of four contrasts, the data of the disc pipeline (ivd_dense_aspp).

16 sets of 8 subjects, two time points each: 36 × 256 × 256 voxels of 2 × 1.25 × 1.25 mm, 1.5 T Siemens, with fat,
in-phase (inn), opposed-phase (opp) and water (wat) images on one grid. Licence: the challenge's agreement form.

Layout: ``NN/NN_{fat,inn,opp,wat}.nii`` and ``NN/NN_Labels.nii``, NN = 01 to 16; two re-arrangements that circulate are
read as well (``train/NN/…`` with ``train/labels/``, and ``data/train/images/A1/…`` with ``data/train/labels/A1/``).
Labels: one mask of at least seven discs, T11/T12 to L5/S1. Schemes: ``discs``; ``discs-numbered``, by level from below;
``spine-region``, the hull around the discs (both made of the mask as ivd_dense_aspp makes them).

Domain: dixon_1p5t. Channels: the four contrasts, or with ``--contrasts`` some of them; a single one serves beside T2w
sets. Which two sets are of one subject is not published: ``--subjects`` takes a CSV with the columns case, subject; by
default 01 and 02 are one subject, 03 and 04, and so on, and A1 and A2.

Known defect: the label of 16 lies up to 10 mm off its images; it is resampled, as any label on another grid.
"""

import re
from pathlib import Path

from nnunet_da.dataset_conversion import About
from nnunet_da.dataset_conversion._layout import Layout, find_files
from nnunet_da.dataset_conversion._structures import DISC_LEVELS, add_structures, by_level, labels_and_values
from nnunet_da.errors import UserError

ABOUT = About(
    anatomy="lumbar spine: discs T11/T12 to L5/S1",
    cases="16 sets of 8 subjects, Dixon, four channels",
    domains="dixon_1p5t",
    licence="the challenge's agreement form",
    source="IVDM3Seg (MICCAI 2018)",
)
CONTRASTS = ("fat", "inn", "opp", "wat")
LAYOUTS = (
    Layout(
        "the challenge's release",
        {**{c: f"{{n}}/{{n}}_{c}.{{nii}}" for c in CONTRASTS}, "label": "{n}/{n}_Labels.{nii}"},
        shown={"n": "NN"},
    ),
    Layout(
        "train/ and valid/",
        {**{c: f"{{part}}/{{n}}/{{n}}_{c}.{{nii}}" for c in CONTRASTS}, "label": "{part}/labels/{n}_Labels.{nii}"},
        fields={"part": "train|valid|test"},
        shown={"part": "train", "n": "NN"},
    ),
    Layout(
        "data/, subjects as letters",
        {
            **{c: f"data/{{part}}/images/{{n}}/{{n}}_{c}.{{nii}}" for c in CONTRASTS},
            "label": "data/{part}/labels/{n}/{n}-Labels.{nii}",
        },
        fields={"part": "train|valid|test", "n": r"[A-Z]\d"},
        shown={"part": "train", "n": "A1"},
    ),
)
SCHEMES = {
    "discs": {"disc": (1,)},
    "discs-numbered": by_level(DISC_LEVELS, range(1, len(DISC_LEVELS) + 1)),
    "spine-region": {"spine": (1,)},
}
DOMAIN = "dixon_1p5t"


def add_arguments(parser):
    add_structures(parser, SCHEMES)
    parser.add_argument(
        "--contrasts",
        nargs="+",
        choices=CONTRASTS,
        default=CONTRASTS,
        help="the channels, in this order (default: all)",
    )
    parser.add_argument(
        "--subjects", type=Path, metavar="CSV", help="columns case,subject (default: 01 + 02, 03 + 04, …)"
    )


def cases(raw, arguments):
    from nnunet_da.discs.derived_labels import NumberedDiscs, SpineRegion
    from nnunet_da.raw_dataset import Case, Conversion
    from nnunet_da.scan_folder import read_subjects

    if len(arguments.structures) > 1:
        raise UserError("--structures: the label maps of IVDM3Seg exclude one another; choose one")
    scheme = arguments.structures[0]
    found = find_files(raw, LAYOUTS, "ivdm3seg")
    found.require_role(CONTRASTS[0], "image")
    if not arguments.unlabelled:
        found.require_role("label", "label", "get the labels, or take the scans as --unlabelled")
    labels, label_values = labels_and_values([scheme], SCHEMES, known=range(1, len(DISC_LEVELS) + 1))
    # Sets of the part that is kept for testing have no labels.
    held_out = [key for key in found.cases if found.fields[key].get("part") in ("valid", "test")]
    ids = {key: f"ivdm3seg_{key[0]}" for key in found.cases}
    subjects = _subjects(found.cases, ids, arguments.subjects and read_subjects(arguments.subjects, set(ids.values())))

    def label(key):
        if arguments.unlabelled or (key in held_out and "label" not in found.cases[key]):
            return None
        path = found.label(key)
        if scheme == "discs-numbered":
            return NumberedDiscs(path, most=len(DISC_LEVELS))
        return SpineRegion(path) if scheme == "spine-region" else path

    def case(key):
        images = tuple(found.require(key, arguments.contrasts))
        return Case(ids[key], DOMAIN, subjects[key], images, label(key), label_values)

    return Conversion(
        cases=[case(key) for key in found.cases if key not in held_out],
        test_cases=[case(key) for key in held_out],
        channel_names=list(arguments.contrasts),
        labels=labels,
        name="IVDM3Seg",
        extra=ABOUT.entries,
    )


def _subjects(keys, ids, given):
    """Key → subject: as given, or the default pairs with a warning."""
    if given:
        return {key: given.get(ids[key]) for key in keys}
    print(
        "note: IVDM3Seg does not say which two sets are of one subject; taken: 01 + 02, 03 + 04, … (A1 + A2); "
        "give --subjects if you know better, since a subject on both sides of a split makes scores too good"
    )
    subjects = {}
    for key in keys:
        letter = re.match("[A-Z]", key[0])
        subjects[key] = f"ivdm3seg_s{letter[0]}" if letter else f"ivdm3seg_s{(int(key[0]) + 1) // 2}"
    return subjects
