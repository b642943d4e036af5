"""One case of a raw dataset at a time, as worker processes do it: checked first, written later.

Knows nothing of datasets; `nnunet_da.raw_dataset` says what a case must be like and where it goes.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_da import scans
from nnunet_da.errors import UserError
from nnunet_da.scan_sources import Source

COPY, RECODE, CONVERT = "copy", "recode", "convert"


@dataclass(frozen=True)
class CaseTask:
    """A case, and what the dataset asks of it.

    `label_names` maps the values that its domain's label maps may hold to names; `ending` is that of dataset's files.
    """

    id: str
    domain: str
    images: tuple[Path | Source, ...]
    label: Path | Source | None
    label_values: Mapping[int, int] | None
    channel_names: tuple[str, ...]
    label_names: Mapping[int, str]
    ignore: int
    ending: str


@dataclass(frozen=True)
class CheckedCase:
    """What the check found, enough to write the case and to compare it with others.

    `digests` of the channels' voxels, `label_digest` of the label map as it will be written (None: unlabelled),
    `actions` how each image, and `label_action` how the label, gets into the dataset; how many bytes are copied (or
    linked), and at most written.
    """

    task: CaseTask
    grid: scans.Grid
    digests: tuple[str, ...]
    label_digest: str | None
    actions: tuple[str, ...]
    label_action: str
    n_bytes_copied: int
    n_bytes_written: int
    notes: tuple[str, ...]


def check_case(task: CaseTask) -> CheckedCase:
    """Reads every file of a case. Raises UserError with the first rule that one of them breaks."""
    _check_channels(task)
    grid, digests, actions, notes, n_copied, n_written = None, [], [], [], 0, 0
    for path in task.images:
        scan = scans.read_scan(path)
        scans.check_intensities(scan)
        grid = grid or scan.grid
        _check_channel_grid(scan, grid, task)
        digests.append(scans.voxel_digest(scan.voxels))
        actions.append(_action(scan, grid, task.ending))
        if actions[-1] == COPY:
            n_copied += path.stat().st_size
        else:
            n_written += scan.voxels.nbytes
    if not grid.has_orientation:
        notes.append(f"{task.images[0]}: the header does not say how the scan lies in space; nnU-Net takes it for LAS")
    n_voxels = int(np.prod(grid.shape))
    label_digest, label_action = None, CONVERT
    if task.label is not None:
        label, label_action, label_notes = _prepare_label(task, grid)
        label_digest = scans.voxel_digest(label)
        notes += label_notes
    # Label maps compress at least tenfold.
    n_written += n_voxels if task.ending == ".nii" else n_voxels // 10
    return CheckedCase(
        task, grid, tuple(digests), label_digest, tuple(actions), label_action, n_copied, n_written, tuple(notes)
    )


def check_existing_case(task: CaseTask) -> CheckedCase:
    """A case that the dataset has: read, but trusted except for a label that lies on another grid than its image.

    nnU-Net takes such a label as it is until it reorients images and labels, each by its own header.
    """
    images = [scans.read_scan(path) for path in task.images]
    label_digest = None
    if task.label is not None:
        label = scans.read_scan(task.label)
        if not scans.same_grid(label.grid, images[0].grid):
            raise UserError(f"{task.label}: does not lie on the grid of its image {task.images[0].name}")
        label_digest = scans.voxel_digest(label.voxels)
    digests = tuple(scans.voxel_digest(image.voxels) for image in images)
    return CheckedCase(task, images[0].grid, digests, label_digest, (), "", 0, 0, ())


@dataclass(frozen=True)
class WriteTask:
    """A checked case, the folders it is written into, and whether files may be hard links rather than copies.

    `mark_unlabelled`: a case without a label gets a label map that is `ignore` everywhere; else it gets none.
    """

    checked: CheckedCase
    images_folder: Path
    labels_folder: Path
    link: bool
    mark_unlabelled: bool = True


def write_case(write_task: WriteTask) -> None:
    """Writes the images as ``ID_0000.nii.gz``, … and the label map."""
    checked, link = write_task.checked, write_task.link
    task = checked.task
    for channel, (path, action) in enumerate(zip(task.images, checked.actions, strict=True)):
        target = write_task.images_folder / f"{task.id}_{channel:04d}{task.ending}"
        if action == COPY:
            _copy(path, target, link)
        elif action == RECODE:
            scans.copy_nifti(path, target)
        else:
            scans.save_nifti(scans.read_scan(path).voxels, checked.grid, target)
    target = write_task.labels_folder / f"{task.id}{task.ending}"
    if task.label is None:
        if not write_task.mark_unlabelled:
            return
        scans.save_nifti(np.full(checked.grid.shape, task.ignore, np.uint8), checked.grid, target)
    elif checked.label_action == COPY:
        _copy(task.label, target, link)
    else:
        scans.save_nifti(_prepare_label(task, checked.grid)[0], checked.grid, target)


def values_in_label(path) -> tuple[int, ...]:
    """The values in a label map, ascending. Raises UserError where they are no integers."""
    return tuple(int(value) for value in scans.values_in(scans.integer_voxels(scans.read_scan(path))))


def _check_channels(task):
    expected, found = len(task.channel_names), len(task.images)
    if found != expected:
        raise UserError(
            f"case '{task.id}': has {found} of the dataset's {expected} channels ({', '.join(task.channel_names)}): "
            f"{', '.join(path.name for path in task.images)}"
        )


def _check_channel_grid(scan, grid, task):
    if scan.grid.shape != grid.shape:
        raise UserError(
            f"{scan.path}: has the shape {scan.grid.shape}, its first channel {task.images[0].name} has {grid.shape}"
        )
    if not scans.same_grid(scan.grid, grid):
        displacement = scans.corner_displacement(scan.grid.affine, grid.affine, grid.shape)
        raise UserError(
            f"{scan.path}: lies up to {displacement:.2f} mm off the case's first channel {task.images[0].name} "
            f"(allowed: {scans.GRID_TOLERANCE} mm); register and resample it first"
        )


def _action(scan, grid, ending):
    """How a file gets into the dataset: its bytes, its bytes (un)compressed, or its voxels on `grid`."""
    if not scan.is_plain or not scans.same_to_nnunet(scan.grid, grid):
        return CONVERT
    return COPY if scan.is_gzipped == (ending == ".nii.gz") else RECODE


def _prepare_label(task, grid):
    """The label map (X, Y, Z) uint8 on `grid` in the dataset's values, how it gets there, and what to tell the user."""
    scan = scans.read_scan(task.label)
    label = _to_dataset_values(scans.integer_voxels(scan), task)
    notes = []
    if not label.any():
        notes.append(
            f"{task.label}: the label map is empty; case '{task.id}' counts as labelled, with none of {_names(task)}"
        )
    if scans.same_grid(scan.grid, grid):
        is_unchanged = scan.voxels.dtype == np.uint8 and np.array_equal(label, scan.voxels)
        action = _action(scan, grid, task.ending) if is_unchanged else CONVERT
        return label, COPY if action == COPY else CONVERT, notes

    resampled = scans.resample_nearest(label, scan.grid.affine, grid)
    if label.any():
        millilitres = [
            np.count_nonzero(voxels) * abs(np.linalg.det(affine[:3, :3])) / 1000
            for voxels, affine in ((label, scan.grid.affine), (resampled, grid.affine))
        ]
        if not resampled.any():
            raise UserError(f"{task.label}: nothing of what is labelled lies inside its image {task.images[0]}")
        notes.append(
            f"{task.label}: lay on another grid than its image and was resampled "
            f"({millilitres[0]:.3g} ml labelled before, {millilitres[1]:.3g} ml after)"
        )
    else:
        notes.append(f"{task.label}: lay on another grid than its image and was resampled")
    return resampled, CONVERT, notes


def _to_dataset_values(voxels, task):
    """`voxels` in the dataset's values, uint8. Raises UserError where one is not a label of the case's domain."""
    found = scans.values_in(voxels)
    mapping = task.label_values
    targets = []
    for value in found.tolist():
        target = value if mapping is None else mapping.get(value, 0 if value == 0 else None)
        if mapping is None and value == task.ignore:
            raise UserError(f"{task.label}: holds the value {value}, which the dataset keeps for 'ignore'")
        # A mapping may declare parts of a scan as not annotated.
        if target not in task.label_names and (mapping is None or target != task.ignore):
            raise UserError(
                f"{task.label}: holds the value {value}, which is no label of domain '{task.domain}' ({_names(task)})"
            )
        targets.append(target)
    if targets == found.tolist() and voxels.dtype == np.uint8:
        return voxels
    return np.array(targets, np.uint8)[np.searchsorted(found, voxels)]


def _names(task):
    return ", ".join(f"{value} {name}" for value, name in task.label_names.items() if value != 0)


def _copy(path, target, link):
    if link:
        try:
            os.link(path.resolve(), target)
            return
        except OSError:  # another file system, or one without hard links
            pass
    shutil.copyfile(path, target)
