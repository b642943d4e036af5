"""A folder of scans, as a user has it, as a list of cases."""

import csv
import re
from collections import defaultdict
from pathlib import Path

from nnunet_da.errors import UserError, nearest
from nnunet_da.raw_dataset import Case
from nnunet_da.scans import ENDINGS, ending_of, stem_of

# Files that stand beside scans without being any: voxels of .mhd, sidecars, notes.
_COMPANIONS = (".raw", ".zraw", ".json", ".csv", ".tsv", ".txt", ".md", ".bval", ".bvec", ".xml", ".pdf")


def cases_in_folder(folder, domain, *, labels_folder=None, prefix="", subjects_file=None) -> list[Case]:
    """The scans of `folder` as cases of `domain`, by name; labelled where `labels_folder` has a file of the same name.

    Names are ``CASE_0000.nii.gz``, ``CASE_0001.nii.gz``, … where every file is named so, else ``CASE.nii.gz``, one
    channel each. The case id is `prefix` and CASE. Raises UserError where files do not fit together.
    """
    images = _images_of_cases(scans_by_stem(folder), folder)
    labels = {} if labels_folder is None else scans_by_stem(labels_folder)
    for name, path in labels.items():
        if name not in images:
            raise UserError(f"{path}: there is no scan '{name}' in {folder}{nearest(name, images)}")
    if labels and len(labels) < len(images):
        print(f"note: {len(images) - len(labels)} of {len(images)} scans have no file in {labels_folder}: unlabelled")
    subjects = {} if subjects_file is None else read_subjects(subjects_file, images)
    return [Case(prefix + name, domain, subjects.get(name), paths, labels.get(name)) for name, paths in images.items()]


def scans_by_stem(folder):
    """Name without ending → path of every scan, sorted by name; a folder inside is a DICOM series.

    Raises UserError where there is no scan, a file is none, or two have one name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    scans = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower().endswith(_COMPANIONS):
            continue
        if path.is_file() and ending_of(path) is None:
            raise UserError(f"{path}: cannot read this format; give {', '.join(ENDINGS)} or a folder per DICOM series")
        if stem_of(path) in scans:
            raise UserError(f"{path}: has the same name as {scans[stem_of(path)]}; remove one of them")
        scans[stem_of(path)] = path
    if not scans:
        raise UserError(f"{folder}: holds no scans ({', '.join(ENDINGS)} or a folder per DICOM series)")
    return scans


def _images_of_cases(scans, folder):
    """Name of the case → its images in the order of their channels."""
    matches = {stem: re.fullmatch(r"(.+)_(\d{4})", stem) for stem in scans}
    if not all(matches.values()):
        return {stem: (path,) for stem, path in scans.items()}
    channels = defaultdict(dict)
    for stem, match in matches.items():
        channels[match[1]][int(match[2])] = scans[stem]
    for name, paths in channels.items():
        for index in range(len(paths)):
            if index not in paths:
                raise UserError(
                    f"{folder}: case '{name}' has no channel _{index:04d}, but {min(set(paths) - set(range(index)))}"
                )
    return {name: tuple(paths[index] for index in sorted(paths)) for name, paths in channels.items()}


def read_subjects(path, images):
    """Case → subject from a table with the columns case and subject, by the names of the scans."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for column in ("case", "subject"):
                if column not in (reader.fieldnames or ()):
                    raise UserError(f"{path}, line 1: the column '{column}' is missing")
            rows = [(reader.line_num, row["case"], row["subject"]) for row in reader]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    subjects = {}
    for line, case, subject in rows:
        if case not in images:
            raise UserError(f"{path}, line {line}: there is no scan '{case}'{nearest(case, images)}")
        if not subject:
            raise UserError(f"{path}, line {line}: the subject of '{case}' is empty")
        if subjects.setdefault(case, subject) != subject:
            raise UserError(f"{path}, line {line}: case '{case}' has the subject '{subjects[case]}' already")
    return subjects
