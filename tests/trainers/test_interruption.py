"""Real commands: killed in mid-epoch and mid-checkpoint, resumed with --c; prediction here and without the package."""

import os
import signal
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args

from nnunet_da import cli
from nnunet_da.training.checkpoints import read_checkpoint

TRAINER = "nnUNetTrainerIntensityDA"
CONFIGURATION = "tiny_killed"

# nnUNetv2_train, killed at its n-th training step.
KILLED_IN_MID_EPOCH = """
import os, signal, sys
from nnunetv2.run.run_training import run_training_entry
from nnunet_da.trainers.nnUNetTrainerIntensityDA import nnUNetTrainerIntensityDA as trainer

original, count = trainer.train_step, [0]

def train_step(self, batch):
    count[0] += 1
    if count[0] == int(os.environ["KILL_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, batch)

trainer.train_step = train_step
run_training_entry()
"""

# nnUNetv2_train, killed when half of its first checkpoint is written.
KILLED_IN_MID_CHECKPOINT = """
import io, os, signal, torch
from nnunetv2.run.run_training import run_training_entry

original = torch.save

def save(content, path):
    whole = io.BytesIO()
    original(content, whole)
    with open(path, "wb") as stream:
        stream.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)

torch.save = save
run_training_entry()
"""

# An interpreter that starts with this has no nnunet_da.
WITHOUT_PACKAGE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nnunet_da":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
# The .pth file of this environment was read before.
for name in [name for name in sys.modules if name.split(".")[0] == "nnunet_da"]:
    del sys.modules[name]
"""


@pytest.fixture(autouse=True)
def _fresh(fresh_results):
    """Each test starts without models."""


def run_script(script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
    )


def test_killed_training_resumes_to_equal_weights_and_predicts(spine, command, tmp_path, monkeypatch, host_name):
    words = ["configure", "-d", spine.id, "-c", "tiny_2d", "--as", CONFIGURATION, "--set", "num_epochs=3"]
    assert cli.main(words) == 0
    model_folder = spine.results / f"{TRAINER}__nnUNetPlans__{CONFIGURATION}"
    fold = model_folder / "fold_0"
    torch.set_num_threads(os.cpu_count())  # As nnUNetv2_train does on a CPU: the order of sums depends on it.
    uninterrupted = get_trainer_from_args(spine.id, CONFIGURATION, 0, TRAINER, device=torch.device("cpu"))
    uninterrupted.run_training()
    torch.set_num_threads(1)
    expected = read_checkpoint(fold / "checkpoint_final.pth")["network_weights"]
    for path in fold.glob("checkpoint_*"):
        path.unlink()

    # Two steps an epoch: the third is the first of the second epoch.
    arguments = [spine.id, CONFIGURATION, "0", "-tr", TRAINER, "-device", "cpu"]
    killed = run_script(KILLED_IN_MID_EPOCH, *arguments, KILL_AT="3")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_checkpoint(fold / "checkpoint_latest.pth")["current_epoch"] == 1

    killed = run_script(KILLED_IN_MID_CHECKPOINT, *arguments, "--c")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_checkpoint(fold / "checkpoint_latest.pth")["current_epoch"] == 1
    assert list(fold.glob(".checkpoint_*"))

    monkeypatch.chdir(tmp_path)
    command("nnUNetv2_train", *arguments, "--c")
    assert not list(fold.glob(".checkpoint_*"))
    weights = read_checkpoint(fold / "checkpoint_final.pth")["network_weights"]
    assert all(torch.equal(weights[name], expected[name]) for name in expected)

    images = spine.test / "images"
    predict = ["nnUNetv2_predict", "-d", spine.id, "-c", CONFIGURATION, "-f", 0, "-i", images]
    settings = ["-device", "cpu", "-npp", 0, "-nps", 0]
    command(*predict, "-tr", TRAINER, "-o", tmp_path / "ours", *settings)

    archive = tmp_path / "model.zip"
    assert cli.main(["export", "-d", spine.id, "-c", CONFIGURATION, "-tr", TRAINER, "-o", str(archive)]) == 0
    assert_names_nothing(archive, spine, host_name)
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(WITHOUT_PACKAGE)
    elsewhere = {
        "PYTHONPATH": str(blocker),
        "nnUNet_results": str(tmp_path / "results"),
        "nnUNet_extTrainer": "",
        "NNUNET_DA_NO_DISCOVERY": "1",
    }
    (tmp_path / "results").mkdir()
    command("nnUNetv2_install_pretrained_model_from_zip", archive, **elsewhere)
    absent = run_script("import nnunet_da", **elsewhere)
    assert "ModuleNotFoundError" in absent.stderr
    command(*predict, "-o", tmp_path / "stock", *settings, **elsewhere)
    names = [path.name for path in (tmp_path / "ours").glob("*.nii.gz")]
    assert len(names) == 6
    for name in names:
        ours, stock = (np.asarray(nibabel.load(tmp_path / kind / name).dataobj) for kind in ("ours", "stock"))
        assert np.array_equal(ours, stock)


def assert_names_nothing(archive, spine, host_name):
    """No case, host, user or folder of this machine is named anywhere in the archive (which is not compressed)."""
    content = archive.read_bytes()
    secrets = ["philips_3t_001", "siemens_1p5t", "ge_t1", str(spine.raw), str(spine.preprocessed)]
    for secret in (*(text.encode() for text in secrets), *host_name):
        assert secret not in content, secret
