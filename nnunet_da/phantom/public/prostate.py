"""Task05_Prostate of the Medical Segmentation Decathlon (MSD)."""

import struct
from dataclasses import replace

import numpy as np

from nnunet_da.files import write_json
from nnunet_da.phantom.prostate import Prostate
from nnunet_da.phantom.public.release import HIDDEN_LABELS, Part, Release
from nnunet_da.phantom.scanner import SCANNERS
from nnunet_da.phantom.study import write_nifti

TASK = "Task05_Prostate"
SCANNER = replace(SCANNERS["msd_prostate"], name="msd", spacing=(0.625, 0.625, 3.6))
VALUES = {"peripheral zone": 1, "transition zone": 2}
# The hidden files that macOS left in the archive: an AppleDouble header (RFC 1740) with an empty Finder record.
APPLE_DOUBLE = struct.pack(">II16sHIII32x", 0x00051607, 0x00020000, b"Mac OS X", 1, 9, 38, 32)


def _write_msd(case):
    """imagesTr/prostate_NN.nii.gz (X, Y, Z, channel) with labelsTr/prostate_NN.nii.gz, or imagesTs without labels.

    Every third number is a test case: 0, 1, 3, 4, 6, … are for training, 2, 5, 8, … for testing.
    """
    is_test = case.part == "Ts"
    index = case.number - 1
    name = f"prostate_{3 * index + 2 if is_test else index // 2 * 3 + index % 2:02d}.nii.gz"
    scan = case.scan(case.subject(Prostate), SCANNER)
    folder = case.folder / TASK
    write_nifti(np.moveaxis(scan.images, 0, -1), scan.affine, folder / f"images{case.part}" / name)
    label = scan.anatomy.label_map(VALUES)
    if not is_test:
        (folder / f"imagesTr/._{name}").write_bytes(APPLE_DOUBLE)
        write_nifti(label, scan.affine, folder / "labelsTr" / name)
    elif case.aside:
        write_nifti(label, scan.affine, case.aside / name)
    return case.part, name


def _finish_msd(folder, cases, _aside):
    training = [name for part, name in cases if part == "Tr"]
    test = [name for part, name in cases if part == "Ts"]
    content = {
        "name": "PROSTATE",
        "description": "Simulated prostates, in the layout of MSD Task05",
        "reference": "nnunet-da phantom",
        "licence": "none: simulated",
        "relase": "1.0",  # spelt as in the release
        "tensorImageSize": "4D",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": len(training),
        "numTest": len(test),
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in training],
        "test": [f"./imagesTs/{name}" for name in test],
    }
    write_json(content, folder / TASK / "dataset.json")
    (folder / TASK / "._dataset.json").write_bytes(APPLE_DOUBLE)


MSD = Release(
    "msd",
    anatomy="prostate, T2 and ADC (Task05_Prostate), 3 T",
    n="labelled training cases; half as many unlabelled test cases",
    labels="1 peripheral zone, 2 transition zone",
    parts=(Part("Tr", (SCANNER,)), Part("Ts", (SCANNER,), share=0.5)),
    write=_write_msd,
    finish=_finish_msd,
    scale=0.75,
    aside=HIDDEN_LABELS,
    to_convert=f"/{TASK}",
)

RELEASES = (MSD,)
