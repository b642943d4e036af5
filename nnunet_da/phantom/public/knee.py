"""The releases of knees: SKI10 and OAIZIB-CM."""

from dataclasses import replace

from nnunet_da.files import write_json
from nnunet_da.phantom.knee import Knee
from nnunet_da.phantom.public.itk import write_itk
from nnunet_da.phantom.public.release import Part, Release
from nnunet_da.phantom.scanner import SCANNERS
from nnunet_da.phantom.study import write_nifti

# ---- SKI10 ----------------------------------------------------------------------------------------------------------

SKI10_SCANNER = replace(SCANNERS["ski10_t1"], name="ski10", spacing=(1.0, 0.4, 0.4))
SKI10_VALUES = {
    "femur": 1,
    "femoral cartilage": 2,
    "tibia": 3,
    "medial tibial cartilage": 4,
    "lateral tibial cartilage": 4,
}


def _write_ski10(case):
    """image-NNN.mhd and labels-NNN.mhd, each with its .raw."""
    scan = case.scan(case.subject(Knee), SKI10_SCANNER)
    write_itk(scan.images[0], scan.affine, case.folder / f"image-{case.number:03d}.mhd")
    label = scan.anatomy.label_map(SKI10_VALUES)
    write_itk(label, scan.affine, case.folder / f"labels-{case.number:03d}.mhd")


SKI10 = Release(
    "ski10",
    anatomy="knee, fat-suppressed gradient echo, 1.5 T",
    n="knees",
    labels="1 femur, 2 femoral cartilage, 3 tibia, 4 tibial cartilage",
    parts=(Part("training", (SKI10_SCANNER,)),),
    write=_write_ski10,
    scale=0.5,
)

# ---- OAIZIB-CM ------------------------------------------------------------------------------------------------------

OAIZIB_SCANNER = replace(SCANNERS["oai_dess"], name="oaizib_cm", spacing=(0.7, 0.365, 0.365))
OAIZIB_VALUES = {
    "femur": 1,
    "femoral cartilage": 2,
    "tibia": 3,
    "medial tibial cartilage": 4,
    "lateral tibial cartilage": 5,
}
OAIZIB_FIRST_TEST = 405


def _write_oaizib_cm(case):
    """imagesTr/oaizib_NNN_0000.nii.gz and labelsTr/oaizib_NNN.nii.gz, or imagesTs and labelsTs."""
    scan = case.scan(case.subject(Knee), OAIZIB_SCANNER)
    name = f"oaizib_{case.number:03d}"
    write_nifti(scan.images[0], scan.affine, case.folder / f"images{case.part}" / f"{name}_0000.nii.gz")
    label = scan.anatomy.label_map(OAIZIB_VALUES)
    write_nifti(label, scan.affine, case.folder / f"labels{case.part}" / f"{name}.nii.gz")
    return case.part


def _finish_oaizib_cm(folder, parts, _aside):
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, **OAIZIB_VALUES},
        "numTraining": parts.count("Tr"),
        "file_ending": ".nii.gz",
    }
    write_json(content, folder / "dataset.json")


OAIZIB_CM = Release(
    "oaizib_cm",
    anatomy="knee, dual-echo steady state (DESS), 3 T",
    n="training knees; a quarter as many test knees, labelled as well",
    labels=", ".join(f"{value} {name}" for name, value in OAIZIB_VALUES.items()),
    parts=(Part("Tr", (OAIZIB_SCANNER,)), Part("Ts", (OAIZIB_SCANNER,), first=OAIZIB_FIRST_TEST, share=0.25)),
    write=_write_oaizib_cm,
    finish=_finish_oaizib_cm,
    scale=0.5,
    n_max=OAIZIB_FIRST_TEST - 1,
)

RELEASES = (SKI10, OAIZIB_CM)
