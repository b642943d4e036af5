"""What tests of several folders share: nnU-Net's folders in a temporary place, its commands, and tiny scans."""

import contextlib
import io
import re
import socket
import struct
import subprocess
import threading
from importlib.metadata import entry_points
from multiprocessing.pool import ThreadPool
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


@pytest.fixture(scope="session")
def host_name():
    """This machine's name as JSON and pickles hold it (two bytes): a short one alone stands in weights by chance."""
    name = socket.gethostname().encode()
    return b'"%s"' % name, struct.pack("<I", len(name)) + name


@pytest.fixture(scope="session")
def nnunet_in_process():
    """``nnunet_in_process(patch)``: what nnU-Net leaves to processes of its own is done in this one.

    Each process would import torch and nnU-Net, for seconds; scans this small take none.
    """
    from nnunetv2.evaluation import evaluate_predictions
    from nnunetv2.experiment_planning import verify_dataset_integrity
    from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor
    from nnunetv2.preprocessing.preprocessors import default_preprocessor
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities import utils

    threads = SimpleNamespace(get_context=lambda method: SimpleNamespace(Pool=ThreadPool))
    with_processes = (verify_dataset_integrity, fingerprint_extractor, default_preprocessor, nnUNetTrainer)
    fingerprint = fingerprint_extractor.DatasetFingerprintExtractor
    set_up = fingerprint.__init__

    def sample_few(extractor, *arguments, **keywords):
        set_up(extractor, *arguments, **keywords)
        extractor.num_foreground_voxels_for_intensitystats = 10_000

    def patch_all(patch):
        for module in (*with_processes, evaluate_predictions):
            patch.setattr(module, "multiprocessing", threads)
        patch.setattr(utils, "Pool", ThreadPool)
        patch.setattr(nnUNetTrainer, "default_num_processes", 1)
        # Of a dataset's foreground nnU-Net draws 10⁸ voxels, with replacement, however small it is.
        patch.setattr(fingerprint, "__init__", sample_few)

    return patch_all


@pytest.fixture(scope="session")
def run_command(nnunet_in_process):
    """``run_command(*words, **environment)``: a command of nnU-Net or this package, in this process.

    Returns what it printed. Raises CalledProcessError for another exit code than 0, and what nnU-Net raises.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from nnunet_da import cli

    def predict(predictor, scans, output, save_probabilities=False, overwrite=True, **_):
        return predictor.predict_from_files_sequential(scans, output, save_probabilities, overwrite)

    def run(*words, **environment):
        words = [str(word) for word in words]
        n_threads = torch.get_num_threads()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
            nnunet_in_process(patch)
            patch.setattr(nnUNetPredictor, "predict_from_files", predict)
            patch.setattr("sys.argv", words)
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                if words[0] == "nnunet-da":
                    code = cli.main(words[1:])
                else:
                    (entry,) = entry_points(group="console_scripts", name=words[0])
                    code = entry.load()()
            finally:
                torch.set_num_threads(n_threads)
        if code:
            raise subprocess.CalledProcessError(code, words, printed.getvalue())
        return printed.getvalue()

    return run


@pytest.fixture(scope="session")
def run_in_process(run_command):
    """``run_in_process(place, *command, …)``: as Workplace.run, but in this process, one at a time, and to its end.

    What should say that the work is done, `until`, must have been printed.
    """
    lock = threading.Lock()

    def run(place, *command, count=None, total=None, until=None, **environment):
        logs = place.folder / "logs"
        with lock:
            printed = run_command(*command, **{**place.environment, **environment})
            (logs / f"{len(list(logs.iterdir())):02d}_{command[0]}.log").write_text(printed, encoding="utf-8")
        assert until is None or any(re.search(until, line) for line in printed.splitlines())

    return run


@pytest.fixture
def workplace_in_process(monkeypatch, run_in_process):
    """The commands of every Workplace run in this process."""
    monkeypatch.setattr("nnunet_da.workplace.Workplace.run", run_in_process)


@pytest.fixture
def verify_dataset(monkeypatch, nnunet_in_process):
    """``verify_dataset(folder)``: nnU-Net's own check of a raw dataset, in this process; what it printed."""
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    nnunet_in_process(monkeypatch)

    def verify(folder):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            verify_dataset_integrity(str(folder), num_processes=1)
        return printed.getvalue()

    return verify


@pytest.fixture(scope="session")
def draw_coarsely():
    """``draw_coarsely(patch, side)``: phantoms are drawn with one sample in voxels up to `side` mm wide: quicker."""
    from nnunet_da.phantom import spine
    from nnunet_da.phantom.bodies import BODIES
    from nnunet_da.phantom.raster import splits_of

    def patch_all(patch, side):
        for body in set(BODIES.values()) - {spine.Spine}:
            patch.setattr(body, "WIDEST", side)
        patch.setattr(spine, "splits_of", lambda affine, widest: splits_of(affine, side))

    return patch_all


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
