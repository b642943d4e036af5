"""SPIDER: lumbar spines of four hospitals in T1w, T2w and T2 SPACE (van der Graaf et al.).

van der Graaf et al., Lumbar spine segmentation in MR images: a dataset and a public benchmark, Scientific Data 2024.
447 series of 218 patients. Licence: CC BY 4.0.

Layout: ``images/N_{t1,t2,t2_SPACE}.mha``, ``masks/`` with the same names, ``overview.csv``, N the patient. Labels:
vertebrae 1 to 25 from below (101 to 125: seen in part), 100 spinal canal, discs 201 to 225 from below. The lowest
vertebra is taken for L5; the release does not say so of spines with a transitional vertebra. The sacrum is not
labelled.

Domains: the sequences t1, t2, t2_SPACE; one channel. Subjects: patients, whose series never part. Levels above T9/T10
become `ignore` in the numbered schemes.
"""

from nnunet_da.dataset_conversion import About
from nnunet_da.dataset_conversion._layout import Layout, find_files
from nnunet_da.dataset_conversion._structures import (
    DISC_LEVELS,
    VERTEBRA_LEVELS,
    add_structures,
    by_level,
    labels_and_values,
)

ABOUT = About(
    anatomy="lumbar spine: vertebrae, discs, spinal canal, by level",
    cases="447 series of 218 patients",
    domains="t1, t2, t2_SPACE",
    licence="CC BY 4.0",
    source="Zenodo 10159290 (van der Graaf et al. 2024)",
)
SEQUENCES = ("t1", "t2", "t2_SPACE")
LAYOUTS = (
    Layout(
        "SPIDER",
        {"image": "images/{n}_{sequence}.mha", "label": "masks/{n}_{sequence}.mha"},
        key=("n", "sequence"),
        fields={"sequence": "|".join(SEQUENCES[::-1])},
        shown={"sequence": "t2"},
    ),
)
CANAL = 100
WHOLE, PARTLY, DISCS = range(1, 26), range(101, 126), range(201, 226)
VERTEBRAE_BY_LEVEL = {
    level: (whole, partly) for level, whole, partly in zip(VERTEBRA_LEVELS, WHOLE, PARTLY, strict=False)
}
SCHEMES = {
    "discs": {"disc": tuple(DISCS)},
    "vertebrae": {"vertebra": (*WHOLE, *PARTLY)},
    "canal": {"canal": (CANAL,)},
    "discs-numbered": by_level(DISC_LEVELS, DISCS),
    "vertebrae-numbered": VERTEBRAE_BY_LEVEL,
}
# What a numbered scheme has no name for is neither structure nor background.
UNNAMED = {
    "discs-numbered": DISCS[len(DISC_LEVELS) :],
    "vertebrae-numbered": (*WHOLE[len(VERTEBRA_LEVELS) :], *PARTLY[len(VERTEBRA_LEVELS) :]),
}


def add_arguments(parser):
    add_structures(parser, SCHEMES)
    parser.add_argument(
        "--sequences", nargs="+", choices=SEQUENCES, default=SEQUENCES, help="only these domains (default: all)"
    )


def cases(raw, arguments):
    from nnunet_da.errors import UserError
    from nnunet_da.raw_dataset import Case, Conversion

    found = find_files(raw, LAYOUTS, "spider")
    found.require_role("image", "image")
    keys = [key for key in found.cases if key[1] in arguments.sequences]
    if not keys:
        raise UserError(f"{raw}: holds no series of {', '.join(arguments.sequences)}")
    labels, label_values = labels_and_values(
        arguments.structures,
        SCHEMES,
        known=(*WHOLE, CANAL, *PARTLY, *DISCS),
        ignored=[value for scheme in arguments.structures for value in UNNAMED.get(scheme, ())],
    )
    return Conversion(
        cases=[
            Case(
                id=f"spider_{int(number):03d}_{sequence}",
                domain=sequence,
                subject=f"spider_{int(number):03d}",
                images=tuple(found.require((number, sequence), ["image"])),
                label=None if arguments.unlabelled else found.label((number, sequence)),
                label_values=label_values,
            )
            for number, sequence in sorted(keys, key=lambda key: (SEQUENCES.index(key[1]), int(key[0])))
        ],
        channel_names=["MR"],
        labels=labels,
        name="SPIDER",
        extra=ABOUT.entries,
    )
