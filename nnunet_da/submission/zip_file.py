"""A checked zip of label maps: complete, on the scans' grids, with the challenge's names and values, byte for byte the
same from the same input.
"""

import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np

from nnunet_da import scans
from nnunet_da.errors import UserError
from nnunet_da.evaluation.label_map import LabelMap, require_same_geometry
from nnunet_da.files import atomic_file, read_json, require_free_space
from nnunet_da.parallel import run_parallel
from nnunet_da.submission.challenges import Challenge
from nnunet_da.submission.found_cases import find_cases
from nnunet_da.submission.label_values import LabelValues, label_values
from nnunet_da.submission.output import check_new, writing_to

# The earliest time that a zip can hold: the real one would make every zip another.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def write_submission(
    challenge: Challenge,
    predictions,
    scans_folder,
    output,
    *,
    dataset_json=None,
    labels=(),
    task=None,
    overwrite=False,
    n_processes=None,
):
    """Writes the label maps in the folder `predictions`, of the scans in `scans_folder`, as a zip for `challenge`.

    Args:
        dataset_json: path of the dataset.json whose label names say which value is which; None: that beside the
            predictions, and where there is none, values are the challenge's.
        labels: words ``LABEL=VALUE`` that go before it.
        task: of a challenge with tasks, where the path of the scans does not say it.
        overwrite: replace a file that stands at `output`.

    Returns the number of label maps and a list of notes. Every label map is stored as unsigned 8-bit, on the grid of
    its scan as that has it, to the last bit. Raises UserError, and leaves nothing, where something is missing, left
    over, damaged, on another grid, or has values that the challenge does not know.
    """
    output = Path(output)
    if output.suffix != ".zip":
        raise UserError(f"-o {output}: must end in .zip")
    check_new(output, overwrite)
    cases = find_cases(challenge, scans_folder, predictions, task)
    values = _values(challenge, cases, predictions, dataset_json, labels)
    notes = list(dict.fromkeys(note for of_task in values.values() for note in of_task.notes))
    require_free_space(output.parent, 2 * sum(path.stat().st_size for _, path in cases.values()), "the submission")
    with (
        writing_to(output),
        atomic_file(output) as temporary,
        TemporaryDirectory(dir=output.parent, prefix=".package.") as staging,
    ):
        tasks = [
            _Task(scan, prediction, Path(staging) / f"{index}.nii.gz", values[_task(challenge, case)], challenge.name)
            for index, (case, (scan, prediction)) in enumerate(cases.items())
        ]
        converted = run_parallel(_convert, tasks, n_processes, "Checking")
        with zipfile.ZipFile(temporary, "w") as archive:
            for case, of_case in zip(cases, tasks, strict=True):
                _add(archive, challenge.result_of(case), of_case.target)
    return len(cases), notes + _notes(converted)


def _task(challenge, case):
    """What the labels of a case go by."""
    return case[0] if challenge.has_tasks else None


def _values(challenge, cases, predictions, dataset_json, given):
    """Task, or None → the LabelValues of its cases."""
    beside = Path(predictions) / "dataset.json"
    source = Path(dataset_json) if dataset_json else beside if beside.is_file() else None
    content = read_json(source) if source else None
    of_tasks = {_task(challenge, case): challenge.labels_of(case) for case in cases}
    return {
        task: label_values(labels, content, source or "the label maps", given, task or challenge.name)
        for task, labels in of_tasks.items()
    }


@dataclass(frozen=True)
class _Task:
    """A prediction to check and convert; `target`: where to."""

    scan: Path
    prediction: Path
    target: Path
    values: LabelValues
    challenge: str


@dataclass(frozen=True)
class _Converted:
    """What a prediction was: its type as stored, and whether it is nothing but background."""

    name: str
    dtype: np.dtype
    is_empty: bool


def _convert(task):
    prediction = scans.read_scan(task.prediction)
    grid = _grid_of(task.scan)
    require_same_geometry(_geometry(prediction.grid), _geometry(grid), task.prediction, task.scan)
    voxels = scans.integer_voxels(prediction)
    known = task.values.to_challenge
    for value in map(int, scans.values_in(voxels)):
        if value not in known:
            name = task.values.names.get(value)
            raise UserError(
                f"{task.prediction}: has the label value {value}{f' ({name})' if name else ''}, which is none of "
                f"{task.challenge} ({', '.join(map(str, sorted(known)))}); say what it is with --labels"
            )
    voxels = task.values.apply(voxels)
    scans.save_nifti(voxels, grid, task.target)
    return _Converted(task.prediction.name, prediction.grid.header.get_data_dtype(), not voxels.any())


def _grid_of(path):
    """The grid of a scan, from its header alone; of several channels in one file (4-D), that of each."""
    try:
        image = nibabel.load(path)
    except (OSError, EOFError, zlib.error, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise UserError(f"{path}: not a readable NIfTI file ({' '.join(str(error).split())})") from None
    if len(image.shape) not in (3, 4):
        raise UserError(
            f"{path}: must be a 3-D scan, or a 4-D one of several channels, but has the shape {image.shape}"
        )
    scans.check_affine(image.affine, path)
    return scans.Grid(image.shape[:3], image.affine, image.header)


def _geometry(grid):
    """`grid` as that of a label map, whose axes are (z, y, x)."""
    columns = grid.affine[:3, 2::-1]
    spacing = np.linalg.norm(columns, axis=0)
    voxels = np.broadcast_to(np.uint8(0), grid.shape[::-1])
    return LabelMap(voxels, tuple(spacing.tolist()), grid.affine[:3, 3], columns / spacing)


def _notes(converted):
    """What of the predictions the user should know."""
    types = Counter(entry.dtype.name for entry in converted if entry.dtype != np.uint8)
    notes = [
        f"stored as {name}, now as unsigned 8-bit: {n} of {len(converted)} label maps"
        for name, n in sorted(types.items())
    ]
    empty = [entry.name for entry in converted if entry.is_empty]
    if empty:
        notes.append(f"background alone: {', '.join(empty[:5])}{f' and {len(empty) - 5} more' * (len(empty) > 5)}")
    return notes


def _add(archive, name, path):
    """Adds a file, compressed already, with nothing in its entry that differs from run to run."""
    entry = zipfile.ZipInfo(name, _TIMESTAMP)
    entry.create_system = 3  # Unix: the default is that of the machine
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, path.read_bytes(), zipfile.ZIP_STORED)
