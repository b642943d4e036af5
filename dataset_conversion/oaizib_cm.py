"""OAIZIB-CM: knees of the Osteoarthritis Initiative, femur and tibia with their cartilages.

Yao et al., CartiMorph: a framework for automated knee articular cartilage morphometrics, Medical Image Analysis 2024;
annotations after Ambellan et al., Automated segmentation of knee bone and cartilage […], Medical Image Analysis 2019.
507 scans, sagittal 3-D DESS, 3 T Siemens Trio, 0.36 × 0.36 × 0.7 mm: 404 for training, 103 for test. Licence:
CC BY-NC 4.0.

Layout, as nnU-Net's: ``imagesTr/oaizib_NNN_0000.nii.gz``, ``labelsTr/oaizib_NNN.nii.gz``, and ``imagesTs``,
``labelsTs``; its dataset.json is not read. Labels: 1 femur, 2 femoral cartilage, 3 tibia, 4 medial and 5 lateral tibial
cartilage.

One domain, oaizib; every case is a subject; one channel; the test part becomes test cases. Schemes:
``bones-cartilages``, ``bones``, ``cartilages``, with the same names as those of ski10 (4 and 5 are one there), and
``all`` with the tibial cartilages apart.
"""

from nnunet_da.dataset_conversion import About
from nnunet_da.dataset_conversion._layout import Layout, find_files
from nnunet_da.dataset_conversion._structures import add_structures, labels_and_values

ABOUT = About(
    anatomy="knee: femur, tibia, femoral, medial and lateral tibial cartilage",
    cases="404 labelled, 103 for test",
    domains="oaizib",
    licence="CC BY-NC 4.0",
    source="OAIZIB-CM, Zenodo 14934086 (Yao et al. 2024)",
)
LAYOUTS = (
    Layout(
        "OAIZIB-CM",
        {
            "image": "imagesTr/oaizib_{n}_0000.{nii}",
            "label": "labelsTr/oaizib_{n}.{nii}",
            "test_image": "imagesTs/oaizib_{n}_0000.{nii}",
            "test_label": "labelsTs/oaizib_{n}.{nii}",
        },
        also=(r"dataset\.json",),
    ),
)
SCHEMES = {
    "bones-cartilages": {"femur": (1,), "femoral_cartilage": (2,), "tibia": (3,), "tibial_cartilage": (4, 5)},
    "bones": {"femur": (1,), "tibia": (3,)},
    "cartilages": {"femoral_cartilage": (2,), "tibial_cartilage": (4, 5)},
    "all": {
        "femur": (1,),
        "femoral_cartilage": (2,),
        "tibia": (3,),
        "medial_tibial_cartilage": (4,),
        "lateral_tibial_cartilage": (5,),
    },
}
DOMAIN = "oaizib"


def add_arguments(parser):
    add_structures(parser, SCHEMES)


def cases(raw, arguments):
    from nnunet_da.raw_dataset import Case, Conversion

    found = find_files(raw, LAYOUTS, "oaizib_cm")
    found.require_role("image", "training image")
    labels, label_values = labels_and_values(arguments.structures, SCHEMES, known=range(1, 6))
    # Test images may come without labels; one that is missing among others was lost.
    tests_have_labels = bool(found.with_role("test_label"))

    def case(key, image, label):
        return Case(f"oaizib_{key[0]}", DOMAIN, None, tuple(found.require(key, [image])), label, label_values)

    return Conversion(
        cases=[
            case(key, "image", None if arguments.unlabelled else found.label(key))
            for key in found.with_role("image", "label")
        ],
        test_cases=[
            case(key, "test_image", *(found.require(key, ["test_label"]) if tests_have_labels else [None]))
            for key in found.with_role("test_image", "test_label")
        ],
        channel_names=["MR"],
        labels=labels,
        name="OAIZIB_CM",
        extra=ABOUT.entries,
    )
