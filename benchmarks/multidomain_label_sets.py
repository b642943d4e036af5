"""The schemes of the multi-domain paper on two domains with different structures: vertebrae (vb2), organs (CHAOS).

    python benchmarks/multidomain_label_sets.py ../shared/data WORK

vb2: vertebra, sagittal slices, 1 mm in plane, 2 mm apart. chaos: liver, kidneys, spleen, axial slices, 1.25 mm in
plane, 7.7 mm apart. The 2D network is to see the slices that were acquired, as in the paper, but nnU-Net takes the
slices of all scans across one axis of the patient: here the axial ones, so that a slice of vb2 would be 38 pixels of
2 mm wide. So the coordinates of vb2 are turned by a quarter, left–right to foot–head: its sagittal slices lie where
the axial ones of chaos do. Voxels and distances stay as they are.

Other than in multidomain_spine.py the augmentation is the paper's, with flips along rows only: left and right kidney
are two structures, which nnU-Net's mirroring would exchange. `nnunet_da.study` says what it does; the test cases alone
are evaluated.
"""

import json
from dataclasses import replace

import nibabel
import numpy as np
from multidomain_spine import TASK, base, schemes
from spine_vb import write_csv

from nnunet_da.study.command import main

# (left–right, posterior–anterior, foot–head) → (posterior–anterior, foot–head, left–right): a rotation.
QUARTER_TURNS = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
# Domain: folder of the scans, what turns their coordinates, and the value that their first structure has here.
DOMAINS = {"vb2": ("spine_vb", QUARTER_TURNS, 1), "chaos": ("chaos_t2spir", np.eye(4), 2)}
LABELS = ("vertebra", "liver", "right_kidney", "left_kidney", "spleen")


def write_experiment(data, work):
    """Writes WORK/cases.csv with WORK/train, the training cases of both domains, and WORK/test, their test cases."""
    splits = json.loads((data / "splits.json").read_text())
    splits = {"vb2": splits["spine_vb"]["vb2"], "chaos": splits["chaos_t2spir"]}
    for name in ("train", "test"):
        cases = [(case, domain) for domain in DOMAINS for case in splits[domain][name]]
        for kind in ("images", "labels"):
            (work / name / kind).mkdir(parents=True, exist_ok=True)
        for case, domain in cases:
            write_scan(data, work / name, case, domain)
        write_csv(work / name / "cases.csv", ["case", "domain"], cases)
    rows = [
        [case, domain, f"train/images/{case}_0000.nii.gz", f"train/labels/{case}.nii.gz"]
        for domain in DOMAINS
        for case in splits[domain]["train"]
    ]
    write_csv(work / "cases.csv", ["case", "domain", "image_0000", "label"], rows)


def write_scan(data, folder, case, domain):
    """Image and label map of a case, turned, and with the label values of all domains."""
    source, turn, first = DOMAINS[domain]
    image, label = (nibabel.load(data / source / kind / f"{case}.nii.gz") for kind in ("images", "labels"))
    values = np.asarray(label.dataobj).astype(np.uint8)
    values[values > 0] += first - 1
    turned = nibabel.Nifti1Image(values, turn @ label.affine)
    nibabel.save(turned, folder / "labels" / f"{case}.nii.gz")
    turned = nibabel.Nifti1Image(np.asarray(image.dataobj).astype(np.float32), turn @ image.affine)
    nibabel.save(turned, folder / "images" / f"{case}_0000.nii.gz")


TASK = replace(
    TASK,
    name="LabelSets",
    dataset_id=104,
    write=write_experiment,
    labels=tuple(f"{name}={value}" for value, name in enumerate(LABELS, start=1)),
    domain_labels=(f"vb2={LABELS[0]}", f"chaos={','.join(LABELS[1:])}"),
    settings=TASK.settings
    | {
        "augmentation.scheme": "simple",
        "augmentation.flips": "vertical",
        "augmentation.rotation": 45,
        "augmentation.translation": 0.25,
    },
)
MODELS = (*base("nnUNetTrainerBase", "Base", DOMAINS), *schemes())

if __name__ == "__main__":
    main([TASK], MODELS, description=__doc__)
