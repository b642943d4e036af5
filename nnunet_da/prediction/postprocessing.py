"""A folder of predictions, postprocessed as a whole: complete or not at all."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_da import scans
from nnunet_da.errors import UserError
from nnunet_da.files import atomic_folder, require_free_space
from nnunet_da.parallel import run_parallel
from nnunet_da.postprocessing import RADIUS, postprocess
from nnunet_da.scan_folder import scans_by_stem


def postprocess_folder(predictions, output, *, radius=RADIUS, n_processes=None):
    """Writes the label maps of the folder `predictions`, postprocessed, to `output` under their names.

    Returns how many they are, and how many voxels changed in all. Raises UserError, before anything is written, where
    `output` holds something, a file is no NIfTI, or a label map holds anything but integers from 0.
    """
    predictions, output = Path(predictions), Path(output)
    if radius < 0:
        raise UserError(f"--radius {radius}: must not be negative")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already; postprocessed label maps are written to a new or empty folder")
    paths = list(scans_by_stem(predictions).values())
    for path in paths:
        if scans.ending_of(path) not in scans.NIFTI_ENDINGS:
            raise UserError(f"{path}: predictions must be {' or '.join(scans.NIFTI_ENDINGS)}")
    require_free_space(output.parent, sum(path.stat().st_size for path in paths), "postprocessing")
    with atomic_folder(output) as folder:
        tasks = [_Task(path, folder / path.name, radius) for path in paths]
        changed = run_parallel(_postprocess_file, tasks, n_processes, "Postprocessing")
    return len(paths), sum(changed)


@dataclass(frozen=True)
class _Task:
    path: Path
    target: Path
    radius: int


def _postprocess_file(task):
    scan = scans.read_scan(task.path)
    before = scans.integer_voxels(scan)
    if before.min() < 0:
        raise UserError(f"{task.path}: label values must be 0 or more, but one is {before.min()}")
    after = postprocess(before.astype(np.int32), task.radius)
    scans.save_nifti(after.astype(scan.voxels.dtype), scan.grid, task.target)
    return int(np.count_nonzero(after != before))
