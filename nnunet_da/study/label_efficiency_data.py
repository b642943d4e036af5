"""What a study of label efficiency is made on: a dataset that is planned and preprocessed already, and test scans.

Both are taken into the folder of the study as links; nothing of theirs is changed.
"""

import csv
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from nnunet_da.doctor.prepared import resolve
from nnunet_da.domains import Domains, check_name, read_domains
from nnunet_da.errors import UserError, nearest
from nnunet_da.files import atomic_folder, read_json
from nnunet_da.paths import PREPROCESSED, RAW, dataset_folder
from nnunet_da.raw_tables import TEST_CASES
from nnunet_da.splits import FILE_NAME, make_splits, read_splits
from nnunet_da.study.scan_sets import COLUMNS, read_rows

FINGERPRINT = "dataset_fingerprint.json"


@dataclass(frozen=True)
class Prepared:
    """A planned dataset: its folder in nnUNet_preprocessed, and what stands in it.

    `plan`: the resolved configuration (dict); `data`: the folder of its preprocessed `cases`.
    """

    folder: Path
    dataset_json: dict
    domains: Domains | None
    plans_file: Path
    plan: dict
    data: Path
    cases: tuple[str, ...]

    @property
    def name(self):
        return self.folder.name

    @property
    def ending(self):
        return self.dataset_json["file_ending"]

    @property
    def n_channels(self):
        return len(self.dataset_json.get("channel_names") or self.dataset_json["modality"])


@dataclass(frozen=True)
class TestScans:
    """Scans to evaluate on, named as nnU-Net names them, and their label maps.

    `domains`: case → domain, as far as it is known; `name`: of this set.
    """

    images: Path
    labels: Path
    domains: dict[str, str]
    name: str = "test"

    # For pytest, which would take it for a test.
    __test__ = False


def find_prepared(dataset, plans, configuration):
    """The `Prepared` dataset. Raises UserError where it is not planned and preprocessed.

    `dataset`: id or name; `plans`, `configuration`: names (str).
    """
    folder = dataset_folder(PREPROCESSED, dataset)
    plans_file, source = folder / f"{plans}.json", folder / "dataset.json"
    for path in (plans_file, source, folder / FINGERPRINT):
        if not path.exists():
            raise UserError(f"{path}: no such file; run nnUNetv2_plan_and_preprocess -d {dataset}")
    configurations = read_json(plans_file)["configurations"]
    plan = resolve(configuration, configurations)
    if plan is None:
        raise UserError(f"{plans_file}: no configuration {configuration}{nearest(configuration, configurations)}")
    if plan.get("previous_stage") is not None:
        raise UserError(f"-c {configuration}: the second stage of a cascade cannot be pretrained")
    data = folder / plan["data_identifier"]
    # Of a case's files nnU-Net writes the properties last.
    cases = tuple(sorted(path.stem for path in data.glob("*.pkl")))
    if not cases:
        raise UserError(f"{data}: no preprocessed cases; run nnUNetv2_preprocess -d {dataset} -plans_name {plans}")
    dataset_json = read_json(source)
    domains = read_domains(dataset_json, source) if "domains" in dataset_json else None
    return Prepared(folder, dataset_json, domains, plans_file, plan, data, cases)


def subjects_to_draw(prepared):
    """Subject → its labelled cases (dict), of all that fold 0 trains on; and the cases that it holds out (list).

    In a dataset without domains every case is a subject. Raises UserError where there are none, or one of the cases is
    not preprocessed.
    """
    splits = _splits(prepared)
    subject_of = prepared.domains.subject_of if prepared.domains else str
    held_out = sorted(splits[0]["val"])
    not_drawn = set(map(subject_of, held_out))
    subjects = {}
    for case in sorted(splits[0]["train"]):
        if subject_of(case) not in not_drawn:
            subjects.setdefault(subject_of(case), []).append(case)
    if not subjects:
        raise UserError(f"{prepared.folder}: fold 0 trains on no labelled subject beside those that it holds out")
    absent = {*splits[0]["train"], *held_out} - set(prepared.cases)
    if absent:
        raise UserError(f"{prepared.data}: case {min(absent)} is not preprocessed; run nnUNetv2_preprocess again")
    return dict(sorted(subjects.items())), held_out


def _splits(prepared):
    """The dataset's splits, or those that nnU-Net or the converter would make."""
    path = prepared.folder / FILE_NAME
    splits = read_splits(path)
    if splits is None and prepared.domains is not None:
        splits = make_splits(prepared.domains)
    if splits is None and len(prepared.cases) >= 5:
        from nnunetv2.utilities.crossval_split import generate_crossval_split

        made = generate_crossval_split(list(prepared.cases))
        splits = [{side: list(map(str, cases)) for side, cases in split.items()} for split in made]
    if not splits:
        raise UserError(f"{path}: no splits, and {len(prepared.cases)} cases are too few for nnU-Net to make some")
    return splits


def find_test_scans(dataset, images=None, labels=None, cases=None, name="test"):
    """The `TestScans` in two folders (Path), or in imagesTs and labelsTs of the raw dataset.

    `cases`: a CSV with the columns case and domain; default: that of the raw dataset, for its own test scans.
    Raises UserError where there is no such folder.
    """
    from nnunet_da.evaluation.membership import read_cases

    check_name(name, "set of test scans", "--tested")
    if (images is None) != (labels is None):
        raise UserError("--images and --labels: give both, or neither for imagesTs and labelsTs of the dataset")
    if images is None:
        raw = dataset_folder(RAW, dataset)
        images, labels = raw / "imagesTs", raw / "labelsTs"
        if not labels.is_dir():
            raise UserError(f"{labels}: no such folder; name test scans with --images and --labels")
        cases = cases or next(raw.glob(TEST_CASES), None)
    for folder in (images, labels):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    return TestScans(images, labels, read_cases(cases) if cases else {}, name)


def domains_of_test_cases(scans, prepared, held_out):
    """Test case → domain. Raises UserError where a scan is absent, or is one of the dataset's own cases.

    Those that all fine-tunings hold out may be tested on, with a note: pretraining has seen them.
    """
    from nnunet_da.evaluation.cases import DEFAULT_DOMAIN

    cases = sorted(path.name.removesuffix(prepared.ending) for path in scans.labels.glob(f"*{prepared.ending}"))
    if not cases:
        raise UserError(f"{scans.labels}: holds no label map with the dataset's ending {prepared.ending}")
    domains = prepared.domains or ()
    own = {*prepared.cases, *(case for domain in domains for case in domain.cases)}
    for case in cases:
        if case in own and case not in held_out:
            raise UserError(f"{scans.labels}: case '{case}' is one of {prepared.name}, which is trained on")
        for path in _images(scans, case, prepared):
            if not path.exists():
                raise UserError(f"{path}: no such file, but case '{case}' has a label map")
    n_seen = len(own.intersection(cases))
    if n_seen:
        print(f"note: pretraining sees {n_seen} of the {len(cases)} test cases, without labels: fold 0 holds them out")
    others = prepared.domains.names[0] if len(domains) == 1 else DEFAULT_DOMAIN
    return {case: scans.domains.get(case, others) for case in cases}


def require_same_cases(domain_of_case, folder):
    """Raises UserError where other test scans, or of other domains, stand in `folder` already."""
    if folder.exists() and {row["case"]: row["domain"] for row in read_rows(folder)} != domain_of_case:
        raise UserError(f"{folder}: holds other scans, or of other domains; name this set with --tested")


def link_dataset(prepared, target):
    """The dataset in the folder `target`: links to what is preprocessed, copies of plans and JSON files; made once."""
    if target.exists():
        return
    with atomic_folder(target) as folder:
        for source in (prepared.data, prepared.folder / "gt_segmentations"):
            (folder / source.name).mkdir()
            for path in source.glob("*"):
                link(path, folder / source.name / path.name)
        for path in (prepared.plans_file, *(prepared.folder / name for name in ("dataset.json", FINGERPRINT))):
            shutil.copyfile(path, folder / path.name)


def link_test_scans(scans, domain_of_case, prepared, target):
    """A set of scans as `scan_sets` describes it in the folder `target`, of links; made once."""
    if target.exists():
        return
    with atomic_folder(target) as folder:
        for kind in ("images", "labels"):
            (folder / kind).mkdir()
        for case in domain_of_case:
            for path in _images(scans, case, prepared):
                link(path, folder / "images" / path.name)
            link(scans.labels / (case + prepared.ending), folder / "labels" / (case + prepared.ending))
        with open(folder / "cases.csv", "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *domain_of_case.items()])


def _images(scans, case, prepared):
    """The files of a test case, one per channel."""
    return [scans.images / f"{case}_{channel:04d}{prepared.ending}" for channel in range(prepared.n_channels)]


def link(source, target):
    """A symbolic link to a file, or else a hard link, or else a copy: what the file system of `target` takes."""
    source = source.resolve()
    for make in (os.symlink, os.link):
        try:
            make(source, target)
        except OSError:
            continue
        return
    shutil.copyfile(source, target)
