"""The folder of results: on the scans' own grids, with a record (prediction.json) of how they were made."""

import os
import tempfile
from pathlib import Path

import numpy as np

from nnunet_da import scans
from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file, read_json
from nnunet_da.prediction.inputs import CheckedScan, write_itk

RECORD = "prediction.json"
# What of a record must be equal for results to stand in one folder; each verb records some of them.
_SAME = ("model", "mirroring", "reverse", "adapted_to_each_scan")


def open_output(folder, scans_folder, record, results, overwrite, record_name=RECORD) -> dict:
    """The entries of scans that an earlier, equal run finished in `folder`: name → entry of its record.

    Args:
        folder: where results go; it need not exist.
        scans_folder: where the scans lie; `folder` must not be in it.
        record: content of the record for this run.
        results: file names of this run's results.
        overwrite: make them again, and leave what else lies in the folder.
        record_name: file name of the record.

    Raises UserError where the folder holds other files, or results of another model.
    """
    folder = Path(folder)
    if folder.resolve().is_relative_to(Path(scans_folder).resolve()):
        raise UserError(f"-o {folder}: lies among the scans of -i; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"-o {folder}: is a file; choose a folder")
    present = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()
    if overwrite or not present:
        return {}
    if record_name not in present:
        raise UserError(f"-o {folder}: holds other files; choose another folder, or --overwrite (they stay)")
    earlier = read_json(folder / record_name)
    entries = earlier.get("scans") if isinstance(earlier, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise UserError(f"{folder / record_name}: not a record of results; choose another folder, or --overwrite")
    for key in _SAME:
        if earlier.get(key) != record.get(key):
            raise UserError(f"-o {folder}: holds results made with another {key}; choose another, or --overwrite")
    own = {record_name, *results, *(entry.get("result") for entry in entries.values())}
    for name in sorted(present - own):
        if Path(name).suffix not in (".raw", ".zraw"):
            raise UserError(f"{folder / name}: is no result of this model; choose another folder, or --overwrite")
    return {name: entry for name, entry in entries.items() if entry.get("result") in present}


def write_result(prediction, scan: CheckedScan, folder) -> None:
    """Writes `prediction` (X, Y, Z), integers, as the result of `scan`: its format, its geometry, complete or not."""
    write_like(prediction, scan.files.images[0], scan.grid, Path(folder) / scan.files.result)


def write_like(voxels, image, grid, target) -> None:
    """Writes `voxels` (X, Y, Z) to the file `target`, with the geometry of the scan `image` on `grid`; complete or not.

    The ending of `target` is that of `image`, or of NIfTI for a DICOM series.
    """
    ending = scans.ending_of(target)
    if ending in scans.NIFTI_ENDINGS:
        with atomic_file(target) as temporary:
            scans.save_nifti(voxels, grid, temporary)
        return
    geometry = _stored_geometry(image)
    if ending != ".mhd":
        with atomic_file(target) as temporary:
            write_itk(voxels, *geometry, temporary)
        return
    # A header that names its file of voxels: both come by their own names, the header last.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".result.") as temporary:
        write_itk(voxels, *geometry, Path(temporary) / target.name)
        for path in sorted(Path(temporary).iterdir(), key=lambda path: path.suffix == ".mhd"):
            os.replace(path, target.with_name(path.name))


def read_result(path) -> np.ndarray | None:
    """The voxels (X, Y, Z) of a label map that nnU-Net wrote; None where it is absent or not yet complete."""
    try:
        return scans.integer_voxels(scans.read_scan(path))
    except UserError:
        return None


def _stored_geometry(path):
    """Spacing, origin and direction exactly as the file has them, which an affine in single precision has not."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    n = reader.GetDimension()
    return reader.GetSpacing()[:3], reader.GetOrigin()[:3], np.reshape(reader.GetDirection(), (n, n))[:3, :3]
