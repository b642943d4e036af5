"""Public datasets in small: folders with the names of a release and tiny files, and what becomes of them."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from nnunet_da.cli import build_parser, main

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NNUNET_DA_REAL_DATA", ROOT.parent / "shared" / "data"))
SHAPE = (6, 7, 8)
# Not a symmetry of the scan, so that a mistaken axis shows: I-P-R, as sagittal scans are often stored.
AFFINE = np.array([[0, 0, 3.0, -5], [0, -1.5, 0, 10], [-2.0, 0, 0, 7], [0, 0, 0, 1]])
DATASET_ID = "7"


@pytest.fixture
def real_data():
    """``real_data(name)``: a folder of real scans; skips where it is not here."""

    def find(name):
        if not (DATA / name).is_dir():
            pytest.skip(f"the real scans {name} are not here; NNUNET_DA_REAL_DATA names their folder")
        return DATA / name

    return find


@pytest.fixture
def listing():
    """``listing(name)``: the paths of a release, as listed independently of the code; skips where that is not here."""

    def read(name):
        path = DATA.parent / "layouts" / f"{name}.txt"
        if not path.exists():
            pytest.skip(f"the listing {path.name} is not here; it lies in layouts/ beside NNUNET_DA_REAL_DATA")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line and not line.startswith("#")]

    return read


@pytest.fixture
def release(tmp_path, write_dicom):
    """``release(paths, labels={"_Label": (1, 2)})``: a `Release` in tmp_path/download (``folder=`` for another)."""

    def make(paths, labels=(), *, folder=tmp_path / "download", **options):
        made = Release(folder, dict(labels), write_dicom, **options)
        made.add(*paths)
        return made

    return make


class Release:
    """A folder of tiny files.

    `labels` maps regular expressions to values: a path in which one is found is a label map of these values, any other
    an image of random int16. `volumes`: of images, 4-D where there are several. `texts`: the content of files that are
    no scans (else empty). .dcm and .png files of one folder are the slices of one scan, ordered by name, whose path is
    the folder. `voxels` maps paths to what was written, (X, Y, Z).
    """

    def __init__(self, folder, labels, write_dicom, *, volumes=1, texts=None):
        self.folder, self.labels, self.volumes, self.texts = folder, labels, volumes, texts or {}
        self.write_dicom, self.voxels = write_dicom, {}

    def __truediv__(self, path):
        return self.folder / path

    def add(self, *paths):
        slices = {}
        for path in paths:
            (self / path).parent.mkdir(parents=True, exist_ok=True)
            if Path(path).name.startswith("."):
                (self / path).write_bytes(b"\0\5\x16\7 left by a Mac")
            elif path.endswith((".dcm", ".png")):
                slices.setdefault(str(Path(path).parent), []).append(path)
            elif path.endswith((".nii", ".nii.gz")):
                _write_nifti(self / path, self._new_voxels(path, SHAPE))
            elif path.endswith((".mha", ".mhd", ".nrrd")):
                _write_itk(self / path, self._new_voxels(path, SHAPE))
            elif not (path.endswith(".raw") and path[:-4] + ".mhd" in paths):  # written with its header
                (self / path).write_text(self.texts.get(path, ""), encoding="utf-8", newline="")
        for folder, files in slices.items():
            voxels = self._new_voxels(folder, (*SHAPE[:2], len(files)))
            write = _write_pictures if files[0].endswith(".png") else self.write_dicom
            write([self / path for path in sorted(files)], voxels)

    def remove(self, *paths):
        for path in paths:
            (self / path).unlink()

    def cut(self, path):
        """Leaves the first half of a file."""
        content = (self / path).read_bytes()
        (self / path).write_bytes(content[: len(content) // 2])

    def _new_voxels(self, path, shape):
        random = np.random.default_rng(list(str(path).encode()))
        values = next((values for pattern, values in self.labels.items() if re.search(pattern, str(path))), None)
        if values is None:
            volumes = (self.volumes,) if self.volumes > 1 else ()
            self.voxels[path] = random.integers(-50, 1000, (*shape, *volumes)).astype(np.int16)
        else:
            label = random.choice([0, *values], shape)
            label[:2].flat[: len(values)] = values  # each value occurs
            self.voxels[path] = label.astype(np.uint8)
        return self.voxels[path]


def _write_nifti(path, voxels):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), path)


def _write_itk(path, voxels):
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(voxels.T)
    image.SetSpacing((2.0, 1.5, 3.0))
    sitk.WriteImage(image, str(path))


def _write_pictures(paths, voxels):
    import SimpleITK as sitk  # noqa: N813

    for z, path in enumerate(paths):
        sitk.WriteImage(sitk.GetImageFromArray(voxels[:, :, z].T.astype(np.uint8)), str(path))


@pytest.fixture
def names(tmp_path):
    """``names(paths, texts={})``: a folder of empty files, for what is decided by names alone."""

    def make(paths, texts=None, folder=tmp_path / "download"):
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text((texts or {}).get(path, ""), encoding="utf-8")
        return folder

    return make


@pytest.fixture
def read():
    """``read(converter, folder, *options)``: the Conversion of a folder whose scans are not looked at."""
    from nnunet_da.dataset_conversion import converters

    def call(converter, folder, *options):
        arguments = build_parser().parse_args(["convert", converter, str(folder), "-d", DATASET_ID, *options])
        return converters()[converter].cases(arguments.raw, arguments)

    return call


@pytest.fixture
def convert(nnunet_folders):
    """``convert(converter, folder, *options)`` on the command line; gives the `Written` dataset."""

    def call(converter, folder, *options):
        assert main(["convert", converter, str(folder), "-d", DATASET_ID, "-np", "1", *options]) == 0
        (written,) = nnunet_folders.raw.glob("Dataset007_*")
        return Written(written, nnunet_folders)

    return call


class Written:
    """A raw dataset: `folder`, `json` (dataset.json), `splits`, and its files."""

    def __init__(self, folder, nnunet_folders):
        self.folder, self.snapshot = folder, nnunet_folders.snapshot
        self.json = json.loads((folder / "dataset.json").read_text())
        splits = nnunet_folders.preprocessed / folder.name / "splits_final.json"
        self.splits = json.loads(splits.read_text()) if splits.exists() else None

    def files(self, part):
        return sorted(path.name[: -len(".nii.gz")] for path in (self.folder / part).glob("*.nii.gz"))

    def voxels(self, part, name):
        import nibabel

        return np.asarray(nibabel.load(self.folder / part / f"{name}.nii.gz").dataobj)


@pytest.fixture
def verified(verify_dataset):
    """``verified(written)``: whether nnU-Net's own check of the dataset ends, with no error and no warning."""

    def check(written):
        out = verify_dataset(written.folder)
        return "verify_dataset_integrity Done" in out and not re.search("Error|Warning|WARNING", out)

    return check


@pytest.fixture
def refused(nnunet_folders, capfd):
    """``refused(converter, folder, *options)``: the one line of the error, after which nothing was written."""

    def call(converter, folder, *options):
        before = nnunet_folders.snapshot()
        capfd.readouterr()
        assert main(["convert", converter, str(folder), "-d", DATASET_ID, "-np", "1", *options]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert nnunet_folders.snapshot() == before
        return line.removeprefix("nnunet-da convert: error: ")

    return call


@pytest.fixture(params=["archive", "folder of archives", "one level too deep", "not ended", "empty", "absent"])
def general_defect(request, tmp_path):
    """``general_defect(release)``: what the user gives in place of the folder, and what the answer must hold.

    The ways in which the download of any dataset goes wrong; a test with this fixture runs once for each.
    """

    def spoil(release):
        folder = release.folder
        if request.param == "archive":
            (tmp_path / "download.zip").write_bytes(b"PK")
            return tmp_path / "download.zip", "download.zip: is an archive; unpack it and give the folder"
        if request.param == "folder of archives":
            (tmp_path / "archives").mkdir()
            (tmp_path / "archives" / "train.zip").write_bytes(b"PK")
            return tmp_path / "archives", "the archive train.zip; unpack it first"
        if request.param == "one level too deep":
            return folder.parent, f"in a folder further down; give {folder}"
        if request.param == "not ended":
            path = folder / f"{next(iter(release.voxels))}.part"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            return folder, f"{path}: is a download that has not ended; get the file again"
        if request.param == "empty":
            (tmp_path / "empty").mkdir()
            return tmp_path / "empty", "empty: no file is named as in"
        return tmp_path / "absent", f"{tmp_path / 'absent'}: no such folder"

    return spoil
