"""Lumbar spines of Chu et al.: Zenodo record 22304, the T1 target of the intensity pretext paper (intensity_da).

Chu et al., Fully automatic localization and segmentation of 3D vertebral bodies from CT/MR images via a learning-based
method, PLoS ONE 10(11):e0143327 (2015). 23 patients, one sagittal T2w turbo spin echo each, 1.5 T Siemens,
39 × 305 × 305 voxels of 2 × 1.25 × 1.25 mm. Licence: see the Zenodo record.

Layout: ``Img_NN.nii`` and ``Img_NN_Labels.nii``, NN = 01 to 23. Labels: one mask of the vertebral bodies (T11 to L5).
The paper segmented discs with masks of its own; a folder with such masks is taken with ``--disc-masks``. Without
labels, the scans serve as an unlabelled domain (``--unlabelled``).

One domain, siemens_1p5t; every case is a subject; one channel.
"""

from pathlib import Path

from nnunet_da.dataset_conversion import About
from nnunet_da.dataset_conversion._layout import Layout, find_files
from nnunet_da.dataset_conversion._structures import add_structures, labels_and_values

ABOUT = About(
    anatomy="lumbar spine: vertebral bodies (discs with masks of your own)",
    cases="23 of 23 patients, T2w",
    domains="siemens_1p5t",
    licence="see the Zenodo record",
    source="Zenodo 22304 (Chu et al. 2015)",
)
LAYOUTS = (Layout("Zenodo 22304", {"image": "Img_{n}.{nii}", "label": "Img_{n}_Labels.{nii}"}),)
DISC_MASKS = (
    Layout(
        "disc masks",
        {"label": "Img_{n}{what}.{nii}"},
        fields={"what": r"(?:_Discs|_IVD|_Labels)?"},
        shown={"what": "_Discs"},
    ),
)
SCHEMES = {"vertebrae": {"vertebra": (1,)}, "discs": {"disc": (1,)}}
DOMAIN = "siemens_1p5t"


def add_arguments(parser):
    add_structures(parser, SCHEMES)
    parser.add_argument(
        "--disc-masks", type=Path, metavar="DIR", help="masks of the discs, Img_NN_Discs.nii, for --structures discs"
    )


def cases(raw, arguments):
    from nnunet_da.errors import UserError
    from nnunet_da.raw_dataset import Conversion

    found = find_files(raw, LAYOUTS, "zenodo22304")
    found.require_role("image", "image")
    if len(arguments.structures) > 1:
        raise UserError("--structures: vertebrae and discs are masks of different files; choose one")
    labels, label_values = labels_and_values(arguments.structures, SCHEMES, known=(1,))
    labels_of = found
    if "disc" in labels and not arguments.unlabelled:
        if arguments.disc_masks is None:
            raise UserError(
                f"{raw}: the release has masks of vertebral bodies only; give disc masks with --disc-masks, or "
                f"take the scans as --unlabelled"
            )
        labels_of = find_files(arguments.disc_masks, DISC_MASKS, "the disc masks")
    return Conversion(
        cases=found.single_scans("chu_{}".format, DOMAIN, label_values, arguments.unlabelled, labels_of),
        channel_names=["MR"],
        labels=labels,
        name="Zenodo22304",
        extra=ABOUT.entries,
    )
