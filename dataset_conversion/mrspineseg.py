"""MRSpineSeg Challenge (Pang et al.): lumbar spines, the labelled source of the intensity pretext paper (intensity_da).

Pang et al., SpineParseNet: spine parsing for volumetric MR image by a two-stage segmentation framework with semantic
image representation, IEEE Transactions on Medical Imaging 40 (2021). 215 patients, sagittal T2w, Philips Ingenia 3 T;
the release has 172 cases for training with labels. Licence: on a signed agreement with the organisers, for research,
not for commercial use.

Layout: ``train/MR/CaseN.nii.gz`` and ``train/Mask/mask_caseN.nii.gz``. Labels: 1 sacrum, 2 to 6 vertebrae L5 to L1,
7 to 10 T12 to T9, 11 to 19 discs from L5/S1 up to T9/T10. Vertebrae are labelled whole, with arches and processes.

One domain, philips_3t; every case is a subject; one channel. Schemes: ``discs`` (one structure `disc`), ``vertebrae``,
``sacrum``, and both by level.
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
    anatomy="lumbar spine: discs, vertebrae, sacrum, by level",
    cases="172 labelled of 215 patients, T2w",
    domains="philips_3t",
    licence="on a signed agreement, for research, not commercial",
    source="MRSpineSeg Challenge (Pang et al. 2021)",
)
# Releases differ in how they spell the masks' names.
LAYOUTS = (
    Layout(
        "MRSpineSeg",
        {"image": "train/MR/{image}{n}.{nii}", "label": "train/Mask/{mask}{n}.{nii}"},
        fields={"image": "[Cc]ase_?", "mask": "(?:mask_)?[Cc]ase_?"},
        shown={"image": "Case", "mask": "mask_case"},
        also=(r"test\d*/.*",),
    ),
)
SCHEMES = {
    "discs": {"disc": tuple(range(11, 20))},
    "vertebrae": {"vertebra": tuple(range(2, 11))},
    "sacrum": {"sacrum": (1,)},
    "discs-numbered": by_level(DISC_LEVELS, range(11, 20)),
    "vertebrae-numbered": by_level(VERTEBRA_LEVELS, range(2, 11)),
}
DOMAIN = "philips_3t"


def add_arguments(parser):
    add_structures(parser, SCHEMES)


def cases(raw, arguments):
    from nnunet_da.raw_dataset import Conversion

    found = find_files(raw, LAYOUTS, "mrspineseg")
    found.require_role("image", "image")
    labels, label_values = labels_and_values(arguments.structures, SCHEMES, known=range(1, 20))
    return Conversion(
        cases=found.single_scans(lambda number: f"mrss_{int(number):03d}", DOMAIN, label_values, arguments.unlabelled),
        channel_names=["MR"],
        labels=labels,
        name="MRSpineSeg",
        extra=ABOUT.entries,
    )
