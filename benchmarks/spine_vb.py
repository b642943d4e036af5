"""Writes the manifest and the test folders of the spine experiment: source vb2, targets vb1 and vb3.

    python benchmarks/spine_vb.py ../shared/data WORK

WORK/cases.csv is what `nnunet-da convert manifest` reads: the training cases of splits.json, those of vb2 with labels.
WORK/test/images and WORK/test/labels hold the test cases of all three domains, WORK/test/cases.csv their domains;
WORK/dev likewise the cases that may guide a decision. They are training cases too: vb2's must be held out by the fold
(fold 0 does), vb3's are seen without labels.
"""

import argparse
import csv
import json
import shutil
from pathlib import Path

SOURCE, TARGETS = "vb2", ("vb1", "vb3")


def write_experiment(data, work, labelled=(SOURCE,)):
    """Writes what the head of this file says; `labelled`: the domains whose training cases have labels."""
    spine = data / "spine_vb"
    splits = json.loads((data / "splits.json").read_text())["spine_vb"]
    with open(spine / "cases.csv", newline="") as stream:
        subjects = {row["case"]: row["subject"] for row in csv.DictReader(stream)}
    training = []
    for domain in (SOURCE, *TARGETS):
        for case in splits[domain]["train"]:
            label = (spine / "labels" / f"{case}.nii.gz").resolve() if domain in labelled else ""
            training.append([case, domain, subjects[case], (spine / "images" / f"{case}.nii.gz").resolve(), label])
    for name in ("dev", "test"):
        folder = work / name
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        held_out = [(case, domain) for domain in (SOURCE, *TARGETS) for case in splits[domain][name]]
        for case, _ in held_out:
            shutil.copyfile(spine / "images" / f"{case}.nii.gz", folder / "images" / f"{case}_0000.nii.gz")
            shutil.copyfile(spine / "labels" / f"{case}.nii.gz", folder / "labels" / f"{case}.nii.gz")
        _write_csv(folder / "cases.csv", ["case", "domain"], held_out)
    _write_csv(work / "cases.csv", ["case", "domain", "subject", "image_0000", "label"], training)


def _write_csv(path, header, rows):
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    write_experiment(arguments.data, arguments.work)
