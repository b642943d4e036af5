"""A dataset as nnU-Net will find it: raw cases, splits, plans and preprocessed data, and whether they still agree."""

from nnunet_da import splits
from nnunet_da.doctor import prepared
from nnunet_da.doctor.findings import ok, problem, shortened, warning
from nnunet_da.doctor.raw import WRITE_AGAIN, check_files, read_raw
from nnunet_da.errors import UserError
from nnunet_da.paths import PREPROCESSED, RAW, find_dataset, nnunet_folder


def examine(dataset, plans_name):
    """Everything about the dataset of that id or name, with the plans `plans_name`."""
    try:
        name = find_dataset(dataset)
        raw_folder, preprocessed = (nnunet_folder(variable) / name for variable in (RAW, PREPROCESSED))
    except UserError as error:
        yield problem(str(error), "correct -d, or the environment variables")
        return
    has_raw = raw_folder.is_dir()
    if not has_raw:
        yield warning(f"{raw_folder}: no such folder; only preprocessed data are examined", f"copy {name} into {RAW}")
    raw, findings = read_raw(raw_folder if has_raw else preprocessed)
    yield from findings
    if raw is None:
        return
    if has_raw:
        yield from check_files(raw)
        yield from prepared.check_copy(raw, preprocessed / "dataset.json")
        yield from prepared.check_fingerprint(raw, preprocessed / "dataset_fingerprint.json")
    yield from check_splits(raw, preprocessed / splits.FILE_NAME)
    yield from prepared.examine_plans(raw, preprocessed / f"{plans_name}.json")


def check_splits(raw, path):
    """Whether the splits are over labelled cases only, part no subject, and leave no side empty."""
    try:
        folds = splits.read_splits(path)
    except UserError as error:
        yield problem(str(error), f"delete it, and {WRITE_AGAIN}")
        return
    if raw.domains is None:
        if folds is not None:
            yield ok(f"{path}: {len(folds)} folds")
        return
    if not folds:
        if raw.domains.labelled_cases:
            yield problem(f"{path}: no splits, so no fold can be trained", WRITE_AGAIN)
        return
    broken = [finding for number, fold in enumerate(folds) for finding in _check_fold(number, fold, raw.domains, path)]
    yield from broken
    in_splits = {case for fold in folds for side in splits.SIDES for case in fold[side]}
    forgotten = [case for case in raw.domains.labelled_cases if case not in in_splits]
    if forgotten:
        yield warning(f"{path}: labelled cases are in no fold: {shortened(forgotten)}", WRITE_AGAIN)
    if not broken and not forgotten:
        yield ok(f"{path}: {len(folds)} folds over {len(in_splits)} labelled cases")


def _check_fold(number, fold, domains, path):
    remedy = f"delete it, and {WRITE_AGAIN}"
    train, val = (fold[side] for side in splits.SIDES)
    for side in splits.SIDES:
        if not fold[side]:
            yield problem(f"{path}: fold {number} has no cases in '{side}'", remedy)
    unlabelled = sorted({*train, *val} & set(domains.unlabelled_cases))
    if unlabelled:
        yield problem(f"{path}: fold {number} holds unlabelled cases: {shortened(unlabelled)}", remedy)
    unknown = sorted({*train, *val} - set(domains.cases))
    if unknown:
        yield problem(f"{path}: fold {number} holds cases that the dataset has not: {shortened(unknown)}", remedy)
    if train and set(train) == set(val):
        yield warning(
            f"{path}: fold {number} validates on its own training cases, so its scores say nothing of new subjects",
            "label a second subject",
        )
        return
    parted = sorted({domains.subject_of(case) for case in train} & {domains.subject_of(case) for case in val})
    if parted:
        yield problem(f"{path}: fold {number} trains and validates on the same subjects: {shortened(parted)}", remedy)
