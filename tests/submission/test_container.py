"""The container's script: confined as in a container, and against nnU-Net's own commands, voxel by voxel."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from nnunet_da import cli
from nnunet_da.discs.simulation import draw_discs, mean_spine
from nnunet_da.prediction.model import open_model
from nnunet_da.prediction.workflow import predict

# An interpreter that starts with this has neither nnunet_da nor network, and may start no process.
CONFINED = """
import os, socket, subprocess, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nnunet_da":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for name in [name for name in sys.modules if name.split(".")[0] == "nnunet_da"]:
    del sys.modules[name]

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "os.fork", "os.posix_spawn", "subprocess.Popen"):
        raise PermissionError(f"{event} in a container")

sys.addaudithook(refuse)
"""
NOBODY = 65534
TURNED = np.array([[0, 0, 1.5, 3], [-1.1, 0, 0, 20], [0, 0.9, 0, -7], [0, 0, 0, 1]])


@pytest.fixture
def place():
    """A folder that every user may read, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="package."))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def confinement():
    """The words before a command: without network, rights, or many processes, as nobody, where root runs the tests."""
    if os.geteuid() != 0:
        return []
    words = ["unshare", "--net", "prlimit", "--nproc=32", "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}"]
    words += ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    if any(shutil.which(word) is None for word in ("unshare", "prlimit", "setpriv")):
        pytest.skip("util-linux is needed to leave root's rights")
    started = subprocess.run([*words, sys.executable, "-c", "import numpy"], capture_output=True, check=False)
    if started.returncode != 0:
        pytest.skip("this interpreter does not start without root's rights")
    return words


def run_confined(context, inputs, output, place):
    """Runs the script of `context` with read-only files, as a container does."""
    blocker = place / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(CONFINED)
    scratch = place / "tmp"
    for folder in (scratch, output):
        folder.mkdir()
        folder.chmod(0o777)
    for fonts in Path(matplotlib.get_cachedir()).glob("fontlist*.json"):
        shutil.copy(fonts, scratch)  # Spares the search for them.
    for folder in (context, inputs):
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(blocker),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NNUNET_DA_NO_DISCOVERY": "1",
        "TMPDIR": str(scratch),
        "HOME": "/nonexistent",
        "OMP_NUM_THREADS": "1",
    }
    words = ["--input", inputs, "--output", output]
    try:
        return subprocess.run(
            [*confinement(), sys.executable, str(context / "predict.py"), *map(str, words)],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
    finally:
        for folder in (context, inputs):
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755)


def package(*words):
    assert cli.main(["package", *map(str, words)]) == 0


def test_the_container_gives_what_the_commands_give(make_model, write_blobs, run_command, place, tmp_path, monkeypatch):
    """2D and 3D, the 3D of two folds, label values by name, post-processing: as predict, ensemble, postprocess, zip."""
    labels = {"labels": ("cochlea", "vs")}
    models = make_model("2d", **labels), make_model("3d_fullres", folds=(0, 1), **labels)
    inputs, context, output = place / "input", place / "context", place / "output"
    write_blobs(inputs / "crossmoda2021_ldn_211_hrT2.nii.gz", 1, (16, 14, 8))
    write_blobs(inputs / "crossmoda2022_etz_210_hrT2.nii.gz", 2, (10, 16, 14), TURNED)
    staged = tmp_path / "imagesTs"
    staged.mkdir()
    for path in inputs.iterdir():
        shutil.copy(path, staged / path.name.replace("_hrT2", "_0000"))

    folders = [tmp_path / name for name in ("2d", "3d", "ensemble", "postprocessed")]
    for model, folds, folder in zip(models, ([0], [1, 0]), folders, strict=False):
        words = ("-m", model, "-f", *folds, "-i", staged, "-o", folder, "-device", "cpu", "--save_probabilities")
        run_command("nnUNetv2_predict_from_modelfolder", *words)
    threads = SimpleNamespace(get_context=lambda method: SimpleNamespace(Pool=ThreadPool))
    monkeypatch.setattr("nnunetv2.ensembling.ensemble.multiprocessing", threads)
    run_command("nnUNetv2_ensemble", "-i", folders[0], folders[1], "-o", folders[2], "-np", 1)
    assert cli.main(["postprocess", "-np", "1", "--radius", "1", "-i", str(folders[2]), "-o", str(folders[3])]) == 0
    shutil.copy(models[0] / "dataset.json", folders[3])
    package("crossmoda2022", "-np", 1, "-i", folders[3], "--scans", inputs, "-o", tmp_path / "submission.zip")

    words = ("-m", models[0], f"{models[1]}:1,0", "--postprocess", "--radius", 1, "-o", context)
    package("crossmoda2022", "--container", *words)
    # A scan that is cut short costs its own case alone.
    broken = inputs / "crossmoda2022_etz_211_hrT2.nii.gz"
    broken.write_bytes((inputs / "crossmoda2022_etz_210_hrT2.nii.gz").read_bytes()[:2000])
    done = run_confined(context, inputs, output, place)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: crossmoda2022_etz_211: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("crossmoda2021_ldn_211 (1 of 3): ")
    assert "s on cpu, peak memory " in second

    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        archive.extractall(tmp_path / "expected")
    names = sorted(path.name for path in (tmp_path / "expected").iterdir())
    assert sorted(path.name for path in output.iterdir()) == names
    for name in names:
        expected, found = (nibabel.load(folder / name) for folder in (tmp_path / "expected", output))
        np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
        assert len(np.unique(found.dataobj)) == 3
        assert found.header.binaryblock == expected.header.binaryblock
    assert not list((place / "tmp").glob("tmp*"))


def run_here(context, monkeypatch, inputs, output, *words):
    """The exit code of the script, in this process."""
    spec = importlib.util.spec_from_file_location("container_predict", context / "predict.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr("sys.argv", ["predict.py", "--input", str(inputs), "--output", str(output), *words])
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    try:
        return script.main()
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


def test_grand_challenge_on_the_grid_of_the_image(make_model, write_blobs, tmp_path, monkeypatch):
    """Two channels of any names, oblique: voxels as of `nnunet-da predict`, on the grid of the first image."""
    model = make_model("2d", channels=("T1", "T2"))
    direction, _ = np.linalg.qr([[0.0, 0.1, -0.995], [1.0, 0.0, 0.0], [0.0, -0.995, -0.1]])
    for channel, (slug, uuid) in enumerate((("t1-mri", "b7"), ("t2-mri", "a3"))):
        image = sitk.ReadImage(str(write_blobs(tmp_path / "scan.nii.gz", channel, (14, 16, 5))))
        image.SetSpacing((1.234567890123, 0.7, 3.3))
        image.SetOrigin((-123.456789012, 45.6, 7.8901234567))
        image.SetDirection(direction.ravel())
        for path in (tmp_path / "input/images" / slug / f"{uuid}.mha", tmp_path / f"scans/case_000{channel}.mha"):
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(path))
    words = ("--input-slug", "t1-mri", "t2-mri", "--output-slug", "discs", "-o", tmp_path / "context")
    package("grand-challenge", "--container", "-m", model, *words)
    assert run_here(tmp_path / "context", monkeypatch, tmp_path / "input", tmp_path / "output") == 0
    (written,) = (path for path in (tmp_path / "output").rglob("*") if path.is_file())
    assert written == tmp_path / "output/images/discs/b7.mha"
    found = sitk.ReadImage(str(written))
    scan = sitk.ReadImage(str(tmp_path / "input/images/t1-mri/b7.mha"))
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(found, name)() == getattr(scan, name)()
    assert found.GetPixelID() == sitk.sitkUInt8
    predict(tmp_path / "scans", tmp_path / "predicted", open_model(model), device="cpu", n_preprocessing=0)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "predicted/case.mha")))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), expected)
    assert expected.any()


def test_discs_from_the_channels_of_the_model_in_their_order(make_model, write_blobs, tmp_path, monkeypatch):
    model = make_model("2d", channels=("wat", "fat"), labels=("L5-S1", "L4-L5"))
    for seed, contrast in enumerate(("fat", "inn", "opp", "wat")):
        write_blobs(tmp_path / f"input/{contrast}.nii.gz", seed)
    package("ivdm3seg", "--container", "-m", model, "--disable_tta", "-o", tmp_path / "context")
    assert run_here(tmp_path / "context", monkeypatch, tmp_path / "input", tmp_path / "output") == 0
    (tmp_path / "scans").mkdir()
    for channel, contrast in enumerate(("wat", "fat")):
        shutil.copy(tmp_path / f"input/{contrast}.nii.gz", tmp_path / f"scans/case_000{channel}.nii.gz")
    options = {"device": "cpu", "mirroring": False, "n_preprocessing": 0}
    predict(tmp_path / "scans", tmp_path / "predicted", open_model(model), **options)
    expected, found = (
        np.asarray(nibabel.load(tmp_path / name).dataobj) for name in ("predicted/case.nii.gz", "output/result.nii.gz")
    )
    # Every disc is a disc of the challenge's.
    assert set(np.unique(expected)) == {0, 1, 2}
    np.testing.assert_array_equal(found, expected > 0)


@pytest.fixture
def context(make_model, tmp_path):
    model = make_model("2d", labels=("intrameatal", "extrameatal", "cochlea"))
    package("crossmoda2023", "--container", "-m", model, "-o", tmp_path / "context")
    return tmp_path / "context"


@pytest.mark.parametrize("wrong", ["empty", "absent", "other names", "output", "settings"])
def test_what_keeps_the_container_from_starting(context, write_blobs, tmp_path, monkeypatch, capsys, wrong):
    inputs, output = tmp_path / "input", tmp_path / "output"
    write_blobs(inputs / "crossmoda2023_etz_1_T2.nii.gz")
    message = "holds no *_T2.nii.gz"
    if wrong == "empty":
        (inputs / "crossmoda2023_etz_1_T2.nii.gz").unlink()
    elif wrong == "absent":
        inputs = tmp_path / "absent"
    elif wrong == "other names":
        (inputs / "crossmoda2023_etz_1_T2.nii.gz").rename(inputs / "crossmoda2022_etz_1_hrT2.nii.gz")
    elif wrong == "output":
        output.write_text("a file")
        message = "File exists"
    else:
        (context / "settings.json").unlink()
        message = "No such file"
    assert run_here(context, monkeypatch, inputs, output) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_channels_that_do_not_belong_together(context, tmp_path):
    spec = importlib.util.spec_from_file_location("container_predict", context / "predict.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name in ("a/1.mha", "a/2.mha", "a/._1.mha", "b/2.mha", "b/1.mha"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    templates = ["a/{case}.mha", "b/{case}.mha"]
    assert script.find_cases(tmp_path, templates, "out/{case}.mha") == [
        (name, (tmp_path / f"a/{name}.mha", tmp_path / f"b/{name}.mha"), f"out/{name}.mha") for name in "12"
    ]
    (tmp_path / "b/1.mha").rename(tmp_path / "b/3.mha")
    with pytest.raises(script.Failure, match="case 1 lacks a channel"):
        script.find_cases(tmp_path, templates, "out/{case}.mha")
    (tmp_path / "a/2.mha").unlink()
    with pytest.raises(script.Failure, match="different numbers of scans"):
        script.find_cases(tmp_path, templates, "out/{case}.mha")
    (tmp_path / "b/2.mha").unlink()
    ((name, paths, _),) = script.find_cases(tmp_path, templates, "out/{case}.mha")
    assert (name, [path.name for path in paths]) == ("1", ["1.mha", "3.mha"])


def test_settings_are_all_the_script_needs(context):
    assert json.loads((context / "settings.json").read_text()) == {
        "inputs": ["{case}_T2.nii.gz"],
        "output": "{case}_Label.nii.gz",
        "members": [{"folder": "models/0_2d", "folds": ["0"]}],
        "mirroring": True,
        "closing": None,
        "values": {"0": 0, "1": 1, "2": 2, "3": 3},
    }


def test_region_and_localiser_leave_the_lowest_discs(tmp_path, monkeypatch, capsys):
    """Their models are played: the region ends below the eighth disc, and five discs are asked for."""
    source = Path(__file__).resolve().parents[2] / "nnunet_da" / "submission" / "container" / "predict.py"
    spec = importlib.util.spec_from_file_location("container_predict", source)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = (-33, -66, -115)
    numbered = draw_discs(mean_spine(), (23, 33, 84), affine)
    maps = {"discs": (numbered > 0).astype(np.uint8), "nothing": np.zeros_like(numbered)}
    maps["region"] = (np.arange(84) <= np.argwhere(numbered == 7)[:, 2].max()) * np.ones_like(numbered)
    maps["localizer"] = np.where(numbered > 7, 0, numbered)
    monkeypatch.setattr(script, "segment", lambda paths, settings, *_: maps[settings["members"]].copy())
    scan = tmp_path / "fat.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros(numbered.shape, np.int16), affine), scan)
    settings = {"members": "discs", "closing": None, "values": {"0": 0, "1": 1}, "n_discs": 5}

    def result(**more):
        script.process([scan], tmp_path / "result.nii.gz", {**settings, **more}, torch.device("cpu"))
        return np.asarray(nibabel.load(tmp_path / "result.nii.gz").dataobj)

    assert np.array_equal(result(region="region"), (numbered > 0) & (maps["region"] > 0))
    assert np.array_equal(result(region="region", localizer="localizer"), (numbered > 0) & (numbered <= 5))
    assert capsys.readouterr().err == ""
    assert np.array_equal(result(localizer="nothing"), numbered > 0)
    assert "warning: fat.nii.gz: discs were not told apart" in capsys.readouterr().err
