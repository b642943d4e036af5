"""SKI10: knees of many scanners (Heimann et al.), femur and tibia with their cartilages.

Heimann et al., Segmentation of knee images: a grand challenge, MICCAI workshop Medical Image Analysis for the Clinic
2010. Sagittal MR for the planning of knee surgery, of many centres and scanners, about 0.4 × 0.4 × 1 mm; 100 scans with
labels (60 in the first release). Licence: the challenge's rules, which allow neither redistribution nor commercial use;
a redistribution as NIfTI names CC BY-NC-SA 4.0 all the same.

Layout: ``image-NNN.mhd`` and ``labels-NNN.mhd``, each with its ``.raw``, in one folder; or the redistribution's
``image/image-NNN.nii`` and ``label/labels-NNN.nii``. Labels: 1 femur, 2 femoral cartilage, 3 tibia, 4 tibial cartilage.

One domain, ski10 (the release does not say which scan is of which scanner); every case is a subject; one channel.
Schemes: ``bones-cartilages``, ``bones``, ``cartilages``, with the same names as those of oaizib_cm.
"""

from nnunet_da.dataset_conversion import About
from nnunet_da.dataset_conversion._layout import Layout, find_files
from nnunet_da.dataset_conversion._structures import add_structures, labels_and_values

ABOUT = About(
    anatomy="knee: femur, tibia, femoral and tibial cartilage",
    cases="100 labelled (60 in the first release)",
    domains="ski10",
    licence="the challenge's rules: no redistribution, no commercial use",
    source="SKI10 challenge (Heimann et al. 2010)",
)
LAYOUTS = (
    Layout(
        "SKI10",
        {
            "image": "image-{n}.mhd",
            "image_voxels": "image-{n}.raw",
            "label": "labels-{n}.mhd",
            "label_voxels": "labels-{n}.raw",
        },
    ),
    Layout("SKI10 as NIfTI", {"image": "image/image-{n}.{nii}", "label": "label/labels-{n}.{nii}"}),
)
SCHEMES = {
    "bones-cartilages": {"femur": (1,), "femoral_cartilage": (2,), "tibia": (3,), "tibial_cartilage": (4,)},
    "bones": {"femur": (1,), "tibia": (3,)},
    "cartilages": {"femoral_cartilage": (2,), "tibial_cartilage": (4,)},
}
DOMAIN = "ski10"


def add_arguments(parser):
    add_structures(parser, SCHEMES)


def cases(raw, arguments):
    from nnunet_da.raw_dataset import Case, Conversion

    found = find_files(raw, LAYOUTS, "ski10", endings=(".raw",))
    found.require_role("image", "image")
    labels, label_values = labels_and_values(arguments.structures, SCHEMES, known=range(1, 5))

    return Conversion(
        cases=[
            Case(
                id=f"ski10_{key[0]}",
                domain=DOMAIN,
                subject=None,
                images=(_file(found, key, "image"),),
                label=None if arguments.unlabelled else _file(found, key, "label"),
                label_values=label_values,
            )
            for key in found.cases
        ],
        channel_names=["MR"],
        labels=labels,
        name="SKI10",
        extra=ABOUT.entries,
    )


def _file(found, key, role):
    """The file of `role`, or what is missing: itself, or a second file with its voxels where the layout has one."""
    from nnunet_da.scan_sources import Missing

    files = [found.label(key)] if role == "label" else found.require(key, [role])
    files += found.require(key, [name for name in (f"{role}_voxels",) if name in found.layout.files])
    return next((file for file in files if isinstance(file, Missing)), files[0])
