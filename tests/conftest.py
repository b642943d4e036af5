"""What tests of several folders share: nnU-Net's folders in a temporary place, and tiny scans."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch):
    """nnU-Net's three folders, empty, with the variables set: `raw`, `preprocessed`, `results`, and `snapshot`.

    `snapshot()` is path → bytes of all that lies in them.
    """
    folders = {name: tmp_path / "nnunet" / name for name in ("raw", "preprocessed", "results")}
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(folder))

    def snapshot():
        return {
            str(path.relative_to(tmp_path)): path.read_bytes() if path.is_file() else None
            for folder in folders.values()
            for path in folder.rglob("*")
        }

    return SimpleNamespace(**folders, snapshot=snapshot)


@pytest.fixture
def write_scan():
    """``write_scan(path, voxels, affine)`` writes a NIfTI; voxels default to noise of their own for every path."""

    def write(path, voxels=None, affine=None, shape=(8, 9, 10)):
        import nibabel

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if voxels is None:
            seed = list(path.name.encode())
            voxels = np.random.default_rng(seed).integers(1, 1000, shape).astype(np.int16)
        affine = np.diag([2.0, 1.5, 1.0, 1.0]) if affine is None else affine
        nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
        return path

    return write


@pytest.fixture
def box_label():
    """``box_label(value=1, shape=…)``: a label map (X, Y, Z) uint8 with a box of `value` in the middle."""

    def make(value=1, shape=(8, 9, 10), dtype=np.uint8):
        label = np.zeros(shape, dtype)
        label[2:5, 3:6, 4:8] = value
        return label

    return make


@pytest.fixture
def write_dicom():
    """``write_dicom(paths, voxels)``: a DICOM series of `voxels` (X, Y, Z), a file per slice, 2 × 1.5 × 3 mm.

    `uid` tells series apart; slice 0 lies at `origin` (mm, LPS) in the first of the `paths`.
    """

    def write(paths, voxels, uid="1.2.826.0.1.3", origin=(0, 0, 0)):
        import SimpleITK as sitk  # noqa: N813

        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        for z, path in enumerate(paths):
            image = sitk.GetImageFromArray(voxels[:, :, z : z + 1].T)
            image.SetSpacing((2.0, 1.5, 3.0))
            x, y, first = origin
            tags = {
                "0008|0060": "MR",
                "0008|0018": f"{uid}.{int(origin[2])}.{z}",
                "0020|000d": "1.2.826.0.1.2",
                "0020|000e": uid,
                "0020|0013": str(z),
                "0020|0032": f"{x}\\{y}\\{first + 3 * z}",
                "0020|0037": "1\\0\\0\\0\\1\\0",
            }
            for tag, value in tags.items():
                image.SetMetaData(tag, value)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            writer.SetFileName(str(path))
            writer.Execute(image)

    return write
