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
