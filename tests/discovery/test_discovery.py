"""nnU-Net's own search, with this package's folder in ``nnUNet_extTrainer``."""

import contextlib
import io
import multiprocessing
import os
import pickle
import pkgutil
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from nnunet_da import trainers
from nnunet_da.discovery import ENVIRONMENT_VARIABLE, FOLDER, OPT_OUT_VARIABLE, activate

TRAINERS = sorted(info.name for info in pkgutil.iter_modules(trainers.__path__))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, FOLDER)
    monkeypatch.delenv(OPT_OUT_VARIABLE, raising=False)


def find(name):
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    with contextlib.redirect_stdout(io.StringIO()):
        return recursive_find_trainer_class_by_name(name)


@pytest.fixture
def own_folder(tmp_path):
    """A user's folder with the trainer OwnTrainer."""
    source = (
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\nclass OwnTrainer(nnUNetTrainer): pass"
    )
    (tmp_path / "own_trainers.py").write_text(source)
    return str(tmp_path)


@pytest.mark.parametrize("name", TRAINERS)
def test_trainer_is_found(name):
    trainer = find(name)
    assert trainer.__name__ == name
    assert trainer.__module__ == f"nnunet_da.trainers.{name}"


def test_unknown_trainer_is_reported_as_ever():
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer nnUNetTrainerUnknown"):
        find("nnUNetTrainerUnknown")


@pytest.mark.parametrize("order", ["before", "after"])
def test_own_folder_beside_ours(monkeypatch, own_folder, order):
    folders = [own_folder, FOLDER] if order == "before" else [FOLDER, own_folder]
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, os.pathsep.join(folders))
    assert find("OwnTrainer").__module__ == "own_trainers"
    assert find(TRAINERS[0]).__module__ == f"nnunet_da.trainers.{TRAINERS[0]}"


def test_a_broken_trainer_hurts_no_other(monkeypatch, tmp_path, own_folder):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "aBrokenTrainer.py").write_text("import a_package_that_is_absent")
    monkeypatch.setattr(trainers, "__path__", [str(tmp_path / "ours"), *trainers.__path__])
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, os.pathsep.join([FOLDER, own_folder]))
    assert find(TRAINERS[0]).__name__ == TRAINERS[0]
    assert find("OwnTrainer").__name__ == "OwnTrainer"
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_absent"):
        find("aBrokenTrainer")


def test_trainers_pickle_into_spawned_processes():
    classes = [find(name) for name in TRAINERS]
    assert [pickle.loads(pickle.dumps(trainer)) for trainer in classes] == classes
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(getattr, classes, ["__name__"] * len(classes))) == TRAINERS


def test_nothing_but_the_shim_lies_in_the_folder():
    """nnU-Net imports every module that it finds there, under a top-level name."""
    assert [info.name for info in pkgutil.iter_modules([FOLDER])] == ["nnunet_da_trainers"]


@pytest.fixture
def shim():
    loader = SourceFileLoader("shim_under_test", str(Path(FOLDER, "nnunet_da_trainers.py")))
    module = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def test_shim_hands_out_trainers_only(shim):
    assert getattr(shim, TRAINERS[0]).__name__ == TRAINERS[0]
    for name in ("nnUNetTrainerUnknown", "_private", "__path__", "nnUNetTrainer", TRAINERS[0].lower()):
        assert not hasattr(shim, name)


def test_shim_is_silent_where_the_package_is_absent(shim, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "nnunet_da"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(
        sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not hasattr(shim, TRAINERS[0])
    # What an uninstallation may leave, and what a clone looks like from the folder around it.
    (tmp_path / "nnunet_da" / "__pycache__").mkdir(parents=True)
    assert not hasattr(shim, TRAINERS[0])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, [FOLDER]),
        ("", [FOLDER]),
        ("/own", ["/own", FOLDER]),
        (f"/own{os.pathsep}{os.pathsep}/other", ["/own", "/other", FOLDER]),
        (FOLDER, [FOLDER]),
        (f"{FOLDER}{os.pathsep}/own", [FOLDER, "/own"]),
    ],
)
def test_activation_appends_the_folder_once(monkeypatch, before, after):
    if before is None:
        monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    else:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, before)
    activate()
    assert os.environ[ENVIRONMENT_VARIABLE].split(os.pathsep) == after
    activate()
    assert os.environ[ENVIRONMENT_VARIABLE].split(os.pathsep) == after


@pytest.mark.parametrize(("value", "active"), [("1", False), ("yes", False), ("0", True), ("False", True), ("", True)])
def test_opting_out(monkeypatch, value, active):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "/own")
    monkeypatch.setenv(OPT_OUT_VARIABLE, value)
    activate()
    assert os.environ[ENVIRONMENT_VARIABLE].split(os.pathsep) == (["/own", FOLDER] if active else ["/own"])
