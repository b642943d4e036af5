"""Label maps in which everything outside a region is background (ivd_dense_aspp, 2.3)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_da.errors import UserError, nearest
from nnunet_da.files import atomic_folder, require_free_space
from nnunet_da.parallel import run_parallel
from nnunet_da.scan_folder import scans_by_stem
from nnunet_da.scans import integer_voxels, read_scan, same_grid, save_nifti


def restrict_folder(predictions, regions, output, *, n_processes=None):
    """Writes the label maps of the folder `predictions` to `output`, as CASE.nii.gz, 0 where those of `regions` are.

    "all the region outside the spine is set as background in the output of segmentation network". Returns the cases
    (list of str) whose region is empty, so that nothing is left of them, and the share of voxels above 0 that were
    outside (float, 0 where there are none at all).

    Raises UserError, before anything is written, where `output` holds something, or a label map has no region on its
    grid.
    """
    predictions, regions, output = Path(predictions), Path(regions), Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: exists already; label maps are written to a new or empty folder")
    paths, of_region = scans_by_stem(predictions), scans_by_stem(regions)
    for case, path in paths.items():
        if case not in of_region:
            raise UserError(f"{regions}: holds no region '{case}' for {path}{nearest(case, of_region)}")
    require_free_space(output.parent, sum(path.stat().st_size for path in paths.values()), "the label maps")
    with atomic_folder(output) as folder:
        tasks = [_Task(path, of_region[case], folder / f"{case}.nii.gz") for case, path in paths.items()]
        done = run_parallel(_restrict_file, tasks, n_processes, "Restricting")
    empty = [case for case, (has_region, _, _) in zip(paths, done, strict=True) if not has_region]
    n_before, n_after = (sum(counts) for counts in list(zip(*done, strict=True))[1:])
    return empty, 1 - n_after / n_before if n_before else 0.0


@dataclass(frozen=True)
class _Task:
    path: Path
    region: Path
    target: Path


def _restrict_file(task):
    """Whether there is a region, and the voxels above 0 before and after."""
    scan, region = read_scan(task.path), read_scan(task.region)
    if not same_grid(region.grid, scan.grid):
        raise UserError(f"{task.region}: not on the grid of {task.path}")
    labels, inside = integer_voxels(scan), integer_voxels(region) > 0
    kept = np.where(inside, labels, 0).astype(scan.voxels.dtype)
    save_nifti(kept, scan.grid, task.target)
    return bool(inside.any()), np.count_nonzero(labels), np.count_nonzero(kept)
