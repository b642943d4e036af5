"""The one writer of nnU-Net raw folders: cases of several domains become, or join, ``nnUNet_raw/DatasetXXX_Name``.

Everything is checked before anything is written. New files are staged in a hidden folder on the same disk and renamed;
dataset.json comes last, so that an interruption leaves the dataset as it was.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_da import splits
from nnunet_da.domains import BACKGROUND, Domain, Domains, check_domain_labels, check_name, label_values, structures
from nnunet_da.errors import UserError, nearest
from nnunet_da.files import atomic_file, atomic_folder, require_free_space, write_json
from nnunet_da.parallel import run_parallel, shared_processes
from nnunet_da.paths import PREPROCESSED, RAW, RESULTS, dataset_folder, nnunet_folder
from nnunet_da.raw_folder import RawFolder, new_folder, with_background
from nnunet_da.raw_tables import TEST_CASES, merge, read_table, write_table

if TYPE_CHECKING:
    from nnunet_da.scan_sources import Source

# The checks need numpy and nibabel, which the command line should not wait for: `scans` and `raw_cases` are imported
# where they are used.

# The domain that the cases of a dataset without domains become.
SOURCE = "source"

# nnU-Net's folders of images and labels.
TRAINING = ("imagesTr", "labelsTr")
TEST = ("imagesTs", "labelsTs")


@dataclass(frozen=True)
class Case:
    """One scan: an image per channel, and its label map (None: unlabelled); files, or sources of `scan_sources`.

    `subject` None means that the case is a subject of its own. `label_values` maps the values in the label file to the
    dataset's (0 stays 0 unless named; a part that is not annotated may be mapped to `ignore`); None: they are the same.
    `weight`: that of a pseudo-label, in (0, 1]; None: the label is a true one.
    """

    id: str
    domain: str
    subject: str | None
    images: "tuple[Path | Source, ...]"
    label: "Path | Source | None"
    label_values: Mapping[int, int] | None = None
    weight: float | None = None


@dataclass(frozen=True)
class Conversion:
    """What a converter makes of a public dataset's folder.

    `labels` maps structures to values from 1 (or, for regions, to lists of values), without `ignore`; `domain_labels`
    names the structures of the domains that do not have all; `extra` holds entries for dataset.json such as licence.
    `test_cases` are written to imagesTs (and labelsTs, where they have labels), and listed in test_cases.csv. `tables`
    are side files, written beside dataset.json: file name → case → column → text; `records` are such files with
    whatever JSON holds.
    """

    cases: Sequence[Case]
    channel_names: Sequence[str]
    labels: Mapping[str, int | Sequence[int]]
    test_cases: Sequence[Case] = ()
    tables: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    domain_labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    regions_class_order: Sequence[int] | None = None
    name: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    records: Mapping[str, Mapping] = field(default_factory=dict)

    def without_labels(self) -> "Conversion":
        """The same with every training case taken as unlabelled."""
        return replace(self, cases=[replace(case, label=None, label_values=None) for case in self.cases])

    def only(self, ids: Iterable[str]) -> "Conversion":
        """The same with the training cases `ids` alone. Raises UserError where one of them is none."""
        known = {case.id: case for case in self.cases}
        for id in ids:
            if id not in known:
                raise UserError(f"--cases: there is no case '{id}'{nearest(id, known)}")
        kept = {id: known[id] for id in ids}
        tables = {
            name: {case: row for case, row in table.items() if case in kept} for name, table in self.tables.items()
        }
        return replace(self, cases=list(kept.values()), tables=tables)


def read_case_list(path) -> list[str]:
    """The case ids in a text file, one per line. Raises UserError where it cannot be read or is empty."""
    try:
        ids = Path(path).read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not ids:
        raise UserError(f"{path}: names no case")
    return ids


@shared_processes()
def write_dataset(
    conversion: Conversion,
    dataset_id: int,
    name: str,
    *,
    into: bool = False,
    overwrite: bool = False,
    link: bool = False,
    n_processes: int | None = None,
    make_splits: Callable[[Domains], list] = splits.make_splits,
) -> Path:
    """Writes `conversion` as ``nnUNet_raw/DatasetXXX_Name``, splits into ``nnUNet_preprocessed``; returns the folder.

    `into` adds it to a dataset of that id and name, `overwrite` replaces it; without either, it must not exist. `link`
    makes hard links where files are taken as they are; `n_processes` as in `run_parallel`; `make_splits` makes the
    splits of a new dataset. Raises UserError, before anything is written, with the first rule that is broken.
    """
    folder = new_folder(dataset_id, name)
    domain_labels = dict(conversion.domain_labels)
    if into:
        labels = with_background(conversion.labels, folder.name)
        dataset = RawFolder.read(folder)
        # A domain that comes new has the labels of its own dataset, which may be fewer than those of this one.
        new_domains = {case.domain for case in conversion.cases if case.domain not in (dataset.domains or ())}
        adding = replace(
            conversion,
            cases=_in_labels_of(conversion.cases, labels, dataset),
            test_cases=_in_labels_of(conversion.test_cases, labels, dataset),
            domain_labels={name: structures(labels) for name in new_domains} | domain_labels,
        )
        _add(dataset, adding, SOURCE, link, n_processes)
        return folder
    if folder.exists() and not overwrite:
        raise UserError(f"{folder}: exists; add to it with --into, replace it with --overwrite, or choose another -d")
    dataset = RawFolder.new(
        folder, conversion.channel_names, conversion.labels, conversion.regions_class_order, conversion.extra
    )
    domains = _joined(Domains(()), conversion.cases, domain_labels, dataset)
    _check_test_ids(conversion.test_cases, domains, dataset)
    checked = _check_cases(conversion.cases, domains, dataset, n_processes)
    tests = _check_cases(conversion.test_cases, domains, dataset, n_processes)
    _check_no_scan_twice([*checked, *tests])
    tables = _tables_of(conversion)
    new_splits = make_splits(domains)
    _print_notes([*checked, *tests])
    _note_subjects_on_both_sides(conversion.test_cases, domains)

    _require_space([*checked, *tests], folder, link)
    with _named_write_errors(folder):
        with atomic_folder(folder) as temporary:
            _write_cases(checked, temporary, TRAINING, link, n_processes)
            _write_cases(tests, temporary, TEST, link, n_processes)
            for name, table in tables.items():
                write_table(table, temporary / name)
            for name, record in conversion.records.items():
                write_json(record, temporary / name)
            write_json(dataset.json_with(domains), temporary / "dataset.json")
        if new_splits:
            write_json(new_splits, nnunet_folder(PREPROCESSED) / folder.name / splits.FILE_NAME)
    return folder


@shared_processes()
def add_domain(
    dataset: str | int,
    cases: Iterable[Case],
    *,
    domain_labels: Mapping[str, Sequence[str]] | None = None,
    source_domain: str = SOURCE,
    link: bool = False,
    n_processes: int | None = None,
) -> tuple[str, ...]:
    """Adds `cases` to an existing nnU-Net dataset (id or name); returns the ids of those that were new or changed.

    A dataset without domains becomes one whose cases are the labelled domain `source_domain`. Cases that are there
    already, with the same content, are left; an unlabelled case that now comes with a label gets it.
    """
    raw = RawFolder.read(dataset_folder(RAW, dataset))
    adding = Conversion(list(cases), raw.channel_names, raw.labels, domain_labels=domain_labels or {})
    return _add(raw, adding, source_domain, link, n_processes)


def next_steps(dataset_name: str) -> str:
    """What the user has to run after scans were written or added, in one or two lines."""
    number = int(dataset_name[len("Dataset") :][:3])
    preprocessed = nnunet_folder(PREPROCESSED) / dataset_name
    planned = (preprocessed / "dataset_fingerprint.json").exists() or any(preprocessed.glob("*Plans*.json"))
    if not planned:
        return f"next (first run): nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity"
    text = (
        f"next (again, since fingerprint, plans and preprocessed data are of the dataset as it was): "
        f"nnUNetv2_plan_and_preprocess -d {number} --clean"
    )
    try:
        trained = any((nnunet_folder(RESULTS) / dataset_name).glob("*/fold_*"))
    except UserError:  # without results there is nothing to train again
        trained = False
    return text + ("\nthen train again: models trained so far have not seen the new scans" if trained else "")


def _in_labels_of(cases, labels, dataset):
    """`cases` of a conversion with its own `labels`, with label values as in `dataset`, matched by name."""
    existing = dataset.labels
    for name, value in labels.items():
        if name not in existing:
            raise UserError(
                f"{dataset.json_path}: has no label '{name}'{nearest(name, existing)}; labels cannot be added later"
            )
        if value != existing[name] and (isinstance(value, list) or isinstance(existing[name], list)):
            raise UserError(f"{dataset.json_path}: label '{name}' is {existing[name]} there, but {value} here")
    if all(value == existing[name] for name, value in labels.items()):
        return cases
    to_existing = {value: existing[name] for name, value in labels.items() if not isinstance(value, list)}
    with_ignore = {**to_existing, max(label_values(labels)) + 1: dataset.ignore}
    return [
        replace(
            case,
            label_values={
                value: with_ignore.get(target, target)
                for value, target in (case.label_values or {value: value for value in to_existing}).items()
            },
        )
        for case in cases
    ]


def _joined(domains, cases, domain_labels, dataset):
    """`domains` with `cases` added. Raises UserError where ids or names break a rule, or a case stands twice."""
    dataset_name = dataset.folder.name
    if not cases:
        raise UserError(f"{dataset_name}: there are no cases to write")
    blocks = {domain.name: domain for domain in domains}
    for name in dict.fromkeys(case.domain for case in cases):
        check_name(name, "domain", dataset_name)
        blocks.setdefault(name, Domain(name, _named_labels(name, domain_labels, dataset)))
    for name in domain_labels:
        if name not in blocks:
            raise UserError(
                f"{dataset_name}: labels are named for domain '{name}', which has no cases" + nearest(name, blocks)
            )
        if blocks[name].labels != _named_labels(name, domain_labels, dataset):
            raise UserError(f"{dataset_name}: domain '{name}' has the labels {', '.join(blocks[name].labels)} already")

    subjects = dict(domains.to_json()["subjects"])
    pseudo_labels = domains.pseudo_labels | {case.id: case.weight for case in cases if case.weight is not None}
    domain_of_existing = {case: domain.name for domain in domains for case in domain.cases}
    domain_of_new = {}
    for case in cases:
        _check_case_id(case.id)
        if case.id in domain_of_new:
            where = " and ".join(sorted({domain_of_new[case.id], case.domain}))
            raise UserError(f"{dataset_name}: case '{case.id}' is given twice (domain {where})")
        domain_of_new[case.id] = case.domain
        if domain_of_existing.get(case.id, case.domain) != case.domain:
            raise UserError(
                f"{dataset_name}: case '{case.id}' exists in domain '{domain_of_existing[case.id]}'; "
                f"rename the scan, or give the new ones a prefix (--prefix {case.domain}_)"
            )
        if case.subject is not None:
            if case.id in domain_of_existing and domains.subject_of(case.id) != case.subject:
                raise UserError(
                    f"{dataset_name}: case '{case.id}' is of subject '{domains.subject_of(case.id)}' already, "
                    f"not '{case.subject}'"
                )
            subjects[case.id] = case.subject
        block = blocks[case.domain]
        labelled = case.label is not None or case.id in block.labelled
        blocks[case.domain] = replace(
            block,
            labelled=_including(block.labelled, case.id) if labelled else block.labelled,
            unlabelled=_without(block.unlabelled, case.id) if labelled else _including(block.unlabelled, case.id),
        )
    return Domains(blocks.values(), subjects, dataset.json_path, pseudo_labels)


def _named_labels(domain, domain_labels, dataset):
    """The structures named for `domain`, all where none are, in the order of the dataset's labels."""
    if domain not in domain_labels:
        return structures(dataset.labels)
    check_domain_labels(domain, domain_labels[domain], dataset.labels, dataset.folder.name)
    return tuple(name for name in structures(dataset.labels) if name in domain_labels[domain])


def _including(cases, case):
    return cases if case in cases else (*cases, case)


def _without(cases, case):
    return tuple(other for other in cases if other != case)


def _check_case_id(case):
    check_name(case, "case id", "cases")
    if re.search(r"_\d{4}$", case):
        raise UserError(f"case '{case}': an id must not end like a channel (_0000); rename it")


def _check_test_ids(test_cases, domains, dataset):
    """Raises UserError where the id of a test case breaks a rule, or stands twice."""
    seen = set(domains.cases)
    for case in test_cases:
        _check_case_id(case.id)
        check_name(case.domain, "domain", dataset.folder.name)
        if case.id in seen:
            raise UserError(f"{dataset.folder.name}: case '{case.id}' is given twice, or for training and for test")
        seen.add(case.id)


def _tables_of(conversion):
    """Name → content of the side files of `conversion`, that of the test cases among them."""
    tables = dict(conversion.tables)
    if conversion.test_cases:
        tables[TEST_CASES] = {
            case.id: {"domain": case.domain, "subject": case.subject or case.id} for case in conversion.test_cases
        }
    return tables


def _check_cases(cases, domains, dataset, n_processes):
    """Reads and checks the files of all cases; a list of `CheckedCase` in their order."""
    from nnunet_da.raw_cases import check_case

    names_of_domain = {domain.name: _label_names(domain.labels, dataset.labels) for domain in domains}
    # The domain of a test case need not have training cases.
    all_names = _label_names(structures(dataset.labels), dataset.labels)
    tasks = [_task(case, names_of_domain.get(case.domain, all_names), dataset) for case in cases]
    return run_parallel(check_case, tasks, n_processes, "Checking scans")


def _read_existing(domains, dataset, new_ids, n_processes):
    """Case id → `CheckedCase` of the cases of `dataset`. Raises UserError where its files are not those cases."""
    from nnunet_da.raw_cases import check_existing_case

    on_disk = dataset.images_on_disk()
    # What an interrupted run left is written again; anything else would train without a domain.
    expected = new_ids.union(domains.cases)
    for case, images in on_disk.items():
        if case not in expected:
            raise UserError(
                f"{images[0]}: belongs to no domain of dataset.json; remove it, or add it to a domain there"
            )
    tasks = []
    for domain in domains:
        for id in domain.cases:
            images = on_disk.get(id, [])
            if len(images) != len(dataset.channel_names):
                raise UserError(
                    f"{dataset.folder / 'imagesTr'}: case '{id}' has {len(images)} images, but the dataset "
                    f"{len(dataset.channel_names)} channels"
                )
            if not dataset.label_path(id).exists():
                raise UserError(f"{dataset.label_path(id)}: no such file, but dataset.json or imagesTr has the case")
            label = dataset.label_path(id) if id in domain.labelled else None
            tasks.append(_task(Case(id, domain.name, None, tuple(images), label), {}, dataset))
    checked = run_parallel(check_existing_case, tasks, n_processes, f"Reading {dataset.folder.name}")
    return {case.task.id: case for case in checked}


def _read_existing_tests(dataset, n_processes):
    """Case id → `CheckedCase` of the test cases of `dataset`."""
    from nnunet_da.raw_cases import check_existing_case

    tasks = []
    for id, images in dataset.images_on_disk(TEST[0]).items():
        label = dataset.folder / TEST[1] / f"{id}{dataset.ending}"
        case = Case(id, TEST[0], None, tuple(images), label if label.exists() else None)
        tasks.append(_task(case, {}, dataset))
    checked = run_parallel(check_existing_case, tasks, n_processes, f"Reading {dataset.folder.name}")
    return {case.task.id: case for case in checked}


def _task(case, label_names, dataset):
    from nnunet_da.raw_cases import CaseTask

    return CaseTask(
        id=case.id,
        domain=case.domain,
        images=tuple(case.images),
        label=case.label,
        label_values=case.label_values,
        channel_names=dataset.channel_names,
        label_names=label_names,
        ignore=dataset.ignore,
        ending=dataset.ending,
    )


def _label_names(structures_of_domain, labels):
    """Value → name for the values that label maps with these structures may hold."""
    names = {0: BACKGROUND}
    for name in structures_of_domain:
        for value in labels[name] if isinstance(labels[name], list) else [labels[name]]:
            names.setdefault(value, name)
    return dict(sorted(names.items()))


def _check_no_scan_twice(new, existing=()):
    """Raises UserError where an image of a new case has the voxels of another image, whatever its name or format."""
    owner = {digest: (case.task.id, path) for case in existing for path, digest in _images(case)}
    for case in new:
        for path, digest in _images(case):
            if digest in owner:
                other, other_path = owner[digest]
                raise UserError(f"{path}: holds the same scan as {other_path} (cases '{case.task.id}' and '{other}')")
            owner[digest] = case.task.id, path


def _images(case):
    return zip(case.task.images, case.digests, strict=True)


def _is_unchanged(case, existing):
    """Whether the dataset has this case already. Raises UserError where it has another scan or label under its id."""
    from nnunet_da.scans import same_grid

    if existing is None:
        return False
    id, path = case.task.id, case.task.images[0]
    if case.digests != existing.digests or not same_grid(case.grid, existing.grid):
        raise UserError(f"{path}: case '{id}' exists already, with another scan ({existing.task.images[0]})")
    if existing.label_digest is None:
        return case.label_digest is None
    if case.label_digest not in (None, existing.label_digest):
        raise UserError(
            f"{case.task.label}: case '{id}' exists already, with another label map ({existing.task.label})"
        )
    return True


def _add(dataset, conversion, source_domain, link, n_processes):
    """Adds `conversion` to `dataset`. Returns the ids of the training cases that were new or changed."""
    json_before = dataset.json_path.read_bytes()
    cases = conversion.cases
    before = dataset.domains or dataset.as_one_domain(source_domain)
    after = _joined(before, cases, conversion.domain_labels, dataset)
    _check_test_ids(conversion.test_cases, after, dataset)
    tables = {
        name: merge(read_table(dataset.folder / name), table, dataset.folder / name)
        for name, table in _tables_of(conversion).items()
    }
    existing = _read_existing(before, dataset, {case.id for case in cases}, n_processes)
    existing_tests = _read_existing_tests(dataset, n_processes)
    for case in cases:
        if case.id in existing_tests:
            raise UserError(f"{dataset.folder / TEST[0]}: case '{case.id}' is there for test; it cannot be trained on")
    checked = _check_cases(cases, after, dataset, n_processes)
    tests = _check_cases(conversion.test_cases, after, dataset, n_processes)
    changed = [case for case in checked if not _is_unchanged(case, existing.get(case.task.id))]
    changed_tests = [case for case in tests if not _is_unchanged(case, existing_tests.get(case.task.id))]
    _check_no_scan_twice(
        [case for case in [*checked, *tests] if case.task.id not in existing and case.task.id not in existing_tests],
        [*existing.values(), *existing_tests.values()],
    )
    new_splits = _extended_splits(dataset.folder, after, [case.id for case in cases if case.label is not None])
    _print_notes([*changed, *changed_tests])
    _note_subjects_on_both_sides(conversion.test_cases, after)

    if changed or changed_tests or dataset.domains is None:
        _require_space([*changed, *changed_tests], dataset.folder, link)
        with _named_write_errors(dataset.folder), _staged(dataset.folder) as staging:
            _write_cases(changed, staging, TRAINING, link, n_processes)
            _write_cases(changed_tests, staging, TEST, link, n_processes)
            for name, table in tables.items():
                write_table(table, staging / name)
            if dataset.json_path.read_bytes() != json_before:
                raise UserError(f"{dataset.json_path}: was changed meanwhile; nothing was added, run the command again")
            if dataset.domains is None:
                # From here on the dataset knows which cases it had, so that a rerun can tell leftovers from them.
                write_json(dataset.json_with(before), dataset.json_path)
            _move_in(staging, dataset, after, json_before)
    with _named_write_errors(dataset.folder):
        for path, content in new_splits.items():
            write_json(content, path)
    return tuple(case.task.id for case in changed)


@contextmanager
def _named_write_errors(folder):
    """Turns what the disk refuses (full, read-only, not permitted) into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error


@contextmanager
def _staged(folder):
    """A hidden folder inside the dataset's, removed in the end. What a killed run left is removed first."""
    for leftover in folder.glob(".adding.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=".adding.", dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move_in(staging, dataset, domains, json_before):
    """Moves the staged files into `dataset` and replaces dataset.json last; all is put back where that fails."""
    moved = []
    # Labels first: nnU-Net takes what lies in imagesTr for a case.
    parts = [path for labels_then_images in (TRAINING, TEST) for path in reversed(labels_then_images)]
    files = [path for part in parts for path in sorted((staging / part).glob("*"))] + sorted(staging.glob("*.csv"))
    try:
        for path in files:
            target = dataset.folder / path.relative_to(staging)
            replaced = staging / "replaced" / path.relative_to(staging)
            for folder in (target.parent, replaced.parent):
                folder.mkdir(parents=True, exist_ok=True)
            if target.exists():
                shutil.copyfile(target, replaced)
            moved.append((target, replaced))
            path.replace(target)
        write_json(dataset.json_with(domains), dataset.json_path)
    except BaseException:
        for target, backup in moved:
            if backup.exists():
                backup.replace(target)
            else:
                target.unlink(missing_ok=True)
        with atomic_file(dataset.json_path) as temporary:
            temporary.write_bytes(json_before)
        raise


def _write_cases(checked, folder, parts, link, n_processes):
    """Writes `checked` into the two folders `parts` (TRAINING or TEST) of `folder`, made where there is something."""
    from nnunet_da.raw_cases import WriteTask, write_case

    images_folder, labels_folder = (folder / part for part in parts)
    is_training = parts == TRAINING
    if checked:
        images_folder.mkdir()
    if checked and (is_training or any(case.task.label is not None for case in checked)):
        labels_folder.mkdir()
    tasks = [WriteTask(case, images_folder, labels_folder, link, mark_unlabelled=is_training) for case in checked]
    run_parallel(write_case, tasks, n_processes, "Writing scans")


def _require_space(checked, folder, link):
    n_bytes = sum(case.n_bytes_written + (0 if link else case.n_bytes_copied) for case in checked)
    require_free_space(folder, n_bytes, "writing the scans")


def _extended_splits(folder, domains, new):
    """Path → content of the split files that adding the labelled cases `new` changes.

    nnU-Net reads the file in the preprocessed folder; one in the raw folder, where there is one, must agree with it.
    """
    paths = [nnunet_folder(PREPROCESSED) / folder.name / splits.FILE_NAME]
    if (folder / splits.FILE_NAME).exists():
        paths.append(folder / splits.FILE_NAME)
    old = {path: splits.read_splits(path) for path in paths}
    known = next((content for content in old.values() if content is not None), None)
    extended = splits.make_splits(domains) if known is None else splits.extend_splits(known, domains, new)
    return {path: extended for path in paths if extended and old[path] != extended}


def _note_subjects_on_both_sides(test_cases, domains):
    trained = {domains.subject_of(case): case for case in domains.cases}
    for case in test_cases:
        if case.subject in trained:
            print(
                f"note: test case '{case.id}' is of subject '{case.subject}', as is the training case "
                f"'{trained[case.subject]}': its scores will be too good"
            )


def _print_notes(checked):
    for case in checked:
        for note in case.notes:
            print(f"note: {note}")
