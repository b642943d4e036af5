"""The scans of a challenge and the predictions of them, found by the challenge's names and matched case by case."""

from pathlib import Path

from nnunet_da.errors import UserError
from nnunet_da.scans import NIFTI_ENDINGS, ending_of
from nnunet_da.submission.challenges import Challenge

Case = tuple[str, ...]


def find_cases(challenge: Challenge, scans_folder, predictions_folder, task=None) -> dict[Case, tuple[Path, Path]]:
    """Case → (its first scan, its prediction), sorted by the name of the result.

    `task`: of the scans whose path does not say it. Raises UserError where a scan has no prediction, a prediction no
    scan, a file no name of the challenge, or a case two predictions.
    """
    scans = _first_of_each(_scans(challenge, scans_folder, task))
    tasks = {case[0] for case in scans} if challenge.has_tasks else set()
    predictions = _predictions(challenge, predictions_folder, next(iter(tasks)) if len(tasks) == 1 else None)
    for case, path in predictions.items():
        if case not in scans:
            raise UserError(f"{path}: is of no scan in {scans_folder}; a submission holds those of its scans alone")
    missing = [case for case in scans if case not in predictions]
    if missing:
        more = f" (and {len(missing) - 1} more are missing)" if len(missing) > 1 else ""
        raise UserError(f"{predictions_folder}: no prediction of {scans[missing[0]].name}{more}")
    return {case: (scans[case], predictions[case]) for case in sorted(scans, key=challenge.result_of)}


def _first_of_each(found):
    """Case → its first path; further ones are its other channels."""
    cases = {}
    for case, path in found:
        cases.setdefault(case, path)
    return cases


def _scans(challenge, folder, task):
    """(case, path) of every scan in `folder`, sorted by path."""
    found = []
    for path in _nifti_files(folder, "--scans"):
        if challenge.parse(path, challenge.beside):
            continue
        fields = challenge.parse(path, challenge.scans)
        if fields is None:
            raise UserError(
                f"{path}: no scan of {challenge.name} is called so (expected: {challenge.example(challenge.scans)}); "
                f"give the folder of the scans that were to be segmented"
            )
        found.append((_case(challenge, fields, task, path), path))
    if not found:
        raise UserError(f"--scans {folder}: holds no scans (expected: {challenge.example(challenge.scans)})")
    return found


def _predictions(challenge, folder, task):
    """Case → path of every prediction in `folder`."""
    cases = {}
    for path in _nifti_files(folder, "-i"):
        fields = challenge.parse(path, challenge.predictions)
        if fields is None:
            raise UserError(
                f"{path}: no prediction of {challenge.name} is called so (expected: "
                f"{challenge.example(challenge.predictions)})"
            )
        case = _case(challenge, fields, task, path)
        if case in cases:
            raise UserError(f"{path}: is of the same case as {cases[case]}; remove one of them")
        cases[case] = path
    if not cases:
        raise UserError(f"-i {folder}: holds no predictions (expected: {challenge.example(challenge.predictions)})")
    return cases


def _case(challenge, fields, task, path):
    """The key of a case, with `task` where the path does not say it."""
    if challenge.has_tasks:
        name = fields.get("task") or task
        if name is None:
            raise UserError(f"{path}: which task? Give --task TaskNN_Name, or have it in a folder of that name")
        challenge.check_task(name)
        fields = {**fields, "task": name}
    return tuple(fields[name] for name in challenge.key)


def _nifti_files(folder, flag):
    """The absolute paths of NIfTI files below `folder`, sorted; hidden ones are passed over.

    Raises UserError where it is no folder, or holds label maps or scans in another format.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{flag} {folder}: no such folder")
    root = folder.resolve()
    files = []
    for path in sorted(root.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(root).parts) or not path.is_file():
            continue
        ending = ending_of(path)
        if ending in NIFTI_ENDINGS:
            files.append(path)
        elif ending:
            raise UserError(f"{path}: must be {' or '.join(NIFTI_ENDINGS)}, as the challenge's files are")
    return files
