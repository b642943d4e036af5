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
DOMAINS = (SOURCE, *TARGETS)


def write_experiment(data, work, labelled=(SOURCE,)):
    """Writes what the head of this file says; `labelled`: the domains whose training cases have labels."""
    splits = json.loads((data / "splits.json").read_text())["spine_vb"]
    for name in ("dev", "test"):
        write_set(data, work / name, _cases(splits, name))
    write_manifest(data, work, _cases(splits, "train"), labelled)


def write_all(data, work):
    """Writes all scans with their labels as training cases, and the same as WORK/test: each fold tests some of them."""
    with open(data / "spine_vb" / "cases.csv", newline="") as stream:
        domains = {row["case"]: row["domain"] for row in csv.DictReader(stream)}
    cases = [(case, domain) for domain in DOMAINS for case in domains if domains[case] == domain]
    write_set(data, work / "test", cases)
    write_manifest(data, work, cases, DOMAINS)


def write_manifest(data, work, cases, labelled):
    """Writes WORK/cases.csv of `cases`, pairs (case, domain); those of the domains `labelled` have labels there."""
    spine = data / "spine_vb"
    with open(spine / "cases.csv", newline="") as stream:
        subjects = {row["case"]: row["subject"] for row in csv.DictReader(stream)}
    rows = []
    for case, domain in cases:
        label = (spine / "labels" / f"{case}.nii.gz").resolve() if domain in labelled else ""
        rows.append([case, domain, subjects[case], (spine / "images" / f"{case}.nii.gz").resolve(), label])
    write_csv(work / "cases.csv", ["case", "domain", "subject", "image_0000", "label"], rows)


def write_set(data, folder, cases):
    """Writes a set of scans to evaluate on into `folder`; `cases`: pairs (case, domain)."""
    spine = data / "spine_vb"
    for kind, ending in (("images", "_0000.nii.gz"), ("labels", ".nii.gz")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for case, _ in cases:
            shutil.copyfile(spine / kind / f"{case}.nii.gz", folder / kind / f"{case}{ending}")
    write_csv(folder / "cases.csv", ["case", "domain"], cases)


def write_csv(path, header, rows):
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def read_cases(data, part, domains=DOMAINS):
    """Pairs (case, domain) of a part of splits.json, of some `domains`."""
    splits = json.loads((data / "splits.json").read_text())["spine_vb"]
    return [(case, domain) for case, domain in _cases(splits, part) if domain in domains]


def _cases(splits, part):
    return [(case, domain) for domain in DOMAINS for case in splits[domain][part]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    write_experiment(arguments.data, arguments.work)
