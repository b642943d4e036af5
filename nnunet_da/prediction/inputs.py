"""The scans to predict, in any format and under any names: listed, checked, and staged for nnU-Net."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_da import scans
from nnunet_da.errors import UserError
from nnunet_da.prediction.profiles import Look, Scale, look
from nnunet_da.scan_folder import cases_in_folder, scans_by_stem


@dataclass(frozen=True)
class ScanFiles:
    """A scan to predict: its name, an image per channel, and how the model standardises each channel."""

    name: str
    images: tuple[Path, ...]
    scales: tuple[Scale, ...]

    @property
    def result(self) -> str:
        """The file name of the prediction: the scan's own, NIfTI for a DICOM series."""
        return f"{self.name}{scans.ending_of(self.images[0]) or '.nii.gz'}"


@dataclass(frozen=True)
class CheckedScan:
    """A scan that was read whole: the grid of its first channel, a hash of voxels and grid, what it is like."""

    files: ScanFiles
    grid: scans.Grid
    digest: str
    look: Look
    n_bytes: int


def list_scans(folder, scales) -> list[ScanFiles]:
    """The scans in `folder`, sorted by name; `scales` has one entry per channel of the model.

    Several channels are told by ``_0000``, ``_0001``, … at the end of the names. A model of one channel takes every
    file for a scan, and drops ``_0000`` where every name ends so. Raises UserError where there is none, a file is of
    another kind, or a scan has another number of channels than the model.
    """
    n_channels = len(scales)
    if n_channels == 1:
        images = {stem: (path,) for stem, path in scans_by_stem(folder).items()}
        if all(len(stem) > 5 and stem.endswith("_0000") for stem in images):
            images = {stem.removesuffix("_0000"): paths for stem, paths in images.items()}
    else:
        images = {case.id: case.images for case in cases_in_folder(folder, domain="")}
    for name, paths in images.items():
        if len(paths) != n_channels:
            raise UserError(
                f"{paths[0]}: the model takes {n_channels} channels, but scan '{name}' has {len(paths)}; name them "
                f"{name}_0000, …, {name}_{n_channels - 1:04d}"
            )
    return [ScanFiles(name, paths, tuple(scales)) for name, paths in images.items()]


def check_scan(files: ScanFiles) -> CheckedScan:
    """Reads every channel. Raises UserError where one is damaged, constant, not finite, or on a grid of its own."""
    channels = [scans.read_scan(path) for path in files.images]
    grid = channels[0].grid
    digest = hashlib.blake2b(grid.affine.tobytes(), digest_size=16)
    for channel in channels:
        scans.check_intensities(channel)
        if not scans.same_grid(channel.grid, grid):
            raise UserError(
                f"{channel.path}: does not lie on the grid of {files.images[0].name}; bring the channels onto one grid"
            )
        digest.update(scans.voxel_digest(channel.voxels).encode())
    voxels = [channel.voxels for channel in channels]
    n_bytes = sum(array.nbytes for array in voxels)
    return CheckedScan(files, grid, digest.hexdigest(), look(voxels, grid.affine, files.scales), n_bytes)


def stage(scan: CheckedScan, folder, name, ending) -> list[Path]:
    """Writes the channels as ``NAME_0000ENDING``, … into `folder`, on the grid of the first; returns the paths."""
    paths = []
    for channel, image in enumerate(scan.files.images):
        path = Path(folder) / f"{name}_{channel:04d}{ending}"
        voxels = scans.read_scan(image).voxels
        if ending in scans.NIFTI_ENDINGS:
            scans.save_nifti(voxels, scan.grid, path)
        else:
            write_itk(voxels, *itk_geometry(scan.grid.affine), path)
        paths.append(path)
    return paths


def itk_geometry(affine):
    """Spacing (3,), origin (3,) and direction (3, 3) of ITK, whose world is LPS+, for an affine to RAS+."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return spacing, affine[:3, 3], affine[:3, :3] / spacing


def write_itk(voxels, spacing, origin, direction, path):
    """Writes `voxels` (X, Y, Z) in a format of ITK's, compressed."""
    import SimpleITK as sitk  # noqa: N813

    if voxels.dtype.kind == "f":
        voxels = voxels.astype(np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing([float(value) for value in spacing])
    image.SetOrigin([float(value) for value in origin])
    image.SetDirection([float(value) for value in np.ravel(direction)])
    sitk.WriteImage(image, str(path), useCompression=True)
