import importlib.metadata
import json
import os
import platform
import re
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from nnunet_da import discovery, splits
from nnunet_da.doctor import dataset as dataset_checks
from nnunet_da.doctor import discovery as discovery_checks
from nnunet_da.doctor import environment, installation, prepared
from nnunet_da.doctor.findings import Finding, set_variable, shortened
from nnunet_da.doctor.raw import check_files, read_raw
from nnunet_da.files import read_json, write_json
from nnunet_da.raw_folder import READER
from nnunet_da.settings import TRAINED_DOMAINS

VARIABLE, OURS = discovery.ENVIRONMENT_VARIABLE, discovery.FOLDER


def only(findings):
    """The one finding of a check; it must be one line, with a remedy unless all is well."""
    (finding,) = findings
    assert "\n" not in str(finding)
    assert bool(finding.remedy) == (finding.level != "ok")
    return finding


def levels(findings):
    return [finding.level for finding in findings]


@pytest.fixture(autouse=True)
def discovery_on(monkeypatch):
    monkeypatch.setenv(VARIABLE, OURS)
    monkeypatch.delenv(discovery.OPT_OUT_VARIABLE, raising=False)


def test_a_finding_is_one_line():
    assert str(Finding("problem", "a\nb", "do c")) == "problem  a b -> do c"
    assert str(Finding("ok", "a")) == "ok       a"
    assert shortened("abcde") == "a, b, c and 2 more"
    assert shortened("abc") == "a, b, c"
    assert set_variable("A", "/with space") == "export A='/with space'"


# ---------------------------------------------------------------------------------------------------- environment


def test_python_version():
    assert only(environment.check_python(">=3.10")).text == f"Python {platform.python_version()}"
    finding = only(environment.check_python(">=4"))
    assert (finding.level, finding.text) == ("problem", f"Python {platform.python_version()}, but >=4 is needed")


@pytest.mark.parametrize(
    ("requirement", "installed", "level", "remedy"),
    [
        ("nnunetv2<3,>=2.8", "2.8.1", "ok", ""),
        ("nnunetv2<3,>=2.8", "2.7.0", "problem", 'pip install "nnunetv2<3,>=2.8"'),
        ("nnunetv2<3,>=2.8", "3.0", "problem", 'pip install "nnunetv2<3,>=2.8"'),
        ("torch!=2.9.*,>=2.4", "2.9.1+cu128", "problem", 'pip install "torch!=2.9.*,>=2.4"'),
        ("torch!=2.9.*,>=2.4", "2.10.0+cpu", "ok", ""),
        ("torch!=2.9.*,>=2.4", "2.11.0.dev20260101", "ok", ""),
        ("edt>=3.0", None, "problem", 'pip install "edt>=3.0"'),
    ],
)
def test_requirements(monkeypatch, requirement, installed, level, remedy):
    def version(name):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    finding = only(environment.check_requirements([requirement]))
    assert (finding.level, finding.remedy) == (level, remedy)


def test_requirements_of_extras_and_other_pythons_are_passed_over():
    requirements = ['absent-a; extra == "test"', 'absent-b; python_version < "3"', "numpy>=1"]
    assert only(environment.check_requirements(requirements)).text.startswith("numpy ")


def test_requirements_are_those_of_the_distribution(monkeypatch):
    asked = []
    monkeypatch.setattr(environment, "check_requirements", lambda requirements: asked.extend(requirements) or [])
    list(environment.examine())
    names = [requirement.split(">")[0].split("<")[0].split("!")[0].split(";")[0] for requirement in asked]
    assert {"nnunetv2", "torch", "numpy", "SimpleITK"} <= set(names)


def test_package_without_a_distribution(monkeypatch):
    monkeypatch.setattr(environment, "DISTRIBUTION", "nnunet-da-absent")
    assert next(iter(environment.examine())) == Finding(
        "warning",
        "nnunet-da-absent is not installed, so the versions that it needs are unknown",
        "pip install nnunet-da",
    )


def test_folder_that_is_well(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    finding = only(environment.check_folder("nnUNet_results"))
    assert finding.level == "ok"
    assert str(tmp_path) in finding.text


@pytest.mark.parametrize(
    ("value", "level", "text", "remedy"),
    [
        (None, "problem", "nnUNet_raw is not set", "export nnUNet_raw="),
        ("", "problem", "nnUNet_raw is not set", "export nnUNet_raw="),
        ("absent", "problem", "does not exist", "mkdir -p"),
        ("file", "problem", "is not a folder", "correct nnUNet_raw"),
    ],
)
def test_folder_that_is_not_there(monkeypatch, tmp_path, value, level, text, remedy):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("nnUNet_raw", raising=False)
    if value is not None:
        monkeypatch.setenv("nnUNet_raw", value and str(tmp_path / value))
    finding = only(environment.check_folder("nnUNet_raw"))
    assert finding.level == level
    assert text in finding.text
    assert remedy in finding.remedy


def test_relative_folder(monkeypatch, tmp_path):
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_raw", "raw")
    finding, _ = environment.check_folder("nnUNet_raw")
    assert (finding.level, finding.remedy) == ("warning", f"export nnUNet_raw={tmp_path / 'raw'}")


@pytest.mark.parametrize(("variable", "level"), [("nnUNet_raw", "warning"), ("nnUNet_results", "problem")])
def test_folder_that_cannot_be_written(monkeypatch, tmp_path, variable, level):
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    finding = only(environment.check_folder(variable))
    assert finding.level == level
    assert "cannot be written" in finding.text


@pytest.mark.parametrize(
    ("variable", "free", "level"),
    [("nnUNet_preprocessed", 9.9e9, "warning"), ("nnUNet_preprocessed", 10e9, "ok"), ("nnUNet_results", 1e9, "ok")],
)
def test_free_space(monkeypatch, tmp_path, variable, free, level):
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("Usage", "free")(free))
    assert only(environment.check_folder(variable)).level == level


class FakeTorch:
    """As much of torch as the check of devices asks for."""

    __version__ = "2.10.0"

    def __init__(self, n_gpus=0, mps=False, cuda="12.8"):
        properties = namedtuple("Properties", "name total_memory")("NVIDIA H200", 140 * 2**30)
        self.cuda = namedtuple("Cuda", "is_available device_count get_device_properties")(
            lambda: n_gpus > 0, lambda: n_gpus, lambda index: properties
        )
        self.backends = namedtuple("Backends", "mps")(namedtuple("Mps", "is_available")(lambda: mps))
        self.version = namedtuple("Version", "cuda")(cuda)


@pytest.mark.parametrize(
    ("torch", "driver", "expected"),
    [
        (FakeTorch(n_gpus=2), True, [("ok", "cuda:0: NVIDIA H200, 140 GiB"), ("ok", "cuda:1: NVIDIA H200")]),
        (FakeTorch(mps=True, cuda=None), False, [("ok", "Apple Silicon")]),
        (FakeTorch(cuda=None), True, [("warning", "a build without CUDA")]),
        (FakeTorch(), True, [("warning", "its driver does not run CUDA 12.8")]),
        (FakeTorch(), False, [("warning", "training on the CPU (-device cpu) is slow")]),
        (None, False, [("problem", "torch cannot be imported (ModuleNotFoundError")]),
    ],
)
def test_devices(monkeypatch, torch, driver, expected):
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr("shutil.which", lambda name: "/bin/nvidia-smi" if driver and name == "nvidia-smi" else None)
    findings = list(environment.check_devices())
    assert levels(findings) == [level for level, _ in expected]
    assert all(text in finding.text for finding, (_, text) in zip(findings, expected, strict=True))


def test_no_gpu_shows_the_preset(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", FakeTorch())
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "configure" in only(environment.check_devices()).remedy
    assert "--preset cpu" in only(environment.check_devices()).remedy


# --------------------------------------------------------------------------------------------------- installation


def make_installation(folder, version="0.1.0", source=None, files=("nnunet_da/__init__.py", installation.PTH_NAME)):
    """A dist-info in `folder`, as pip leaves it; `source` makes it editable."""
    info = folder / f"nnunet_da-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: nnunet-da\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    if source is not None:
        content = {"url": source.as_uri(), "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(content))
    return importlib.metadata.PathDistribution(info)


def test_normal_and_editable_installation(monkeypatch, tmp_path):
    packages = tmp_path / "site packages"
    monkeypatch.setattr(installation, "PACKAGE_FOLDER", packages / "nnunet_da")
    assert "0.1.0, in " in only(installation.check_installations([make_installation(packages)])).text
    editable = make_installation(tmp_path / "other", source=packages)
    finding = only(installation.check_installations([editable]))
    assert (finding.level, finding.text) == ("ok", f"nnunet-da 0.1.0, editable, from {packages}")


def test_imported_package_is_another_than_the_installed(tmp_path):
    finding = only(installation.check_installations([make_installation(tmp_path)]))
    assert finding.level == "warning"
    assert f"{tmp_path / 'nnunet_da'} is installed" in finding.text


def test_two_installations(monkeypatch, tmp_path):
    for name, version in (("a", "0.1.0"), ("b", "0.0.9")):
        make_installation(tmp_path / name, version)
        monkeypatch.syspath_prepend(str(tmp_path / name))
    # The same folder twice on the path is one installation; what a build leaves in a source folder is none.
    monkeypatch.syspath_prepend(str(tmp_path / "a" / ".." / "a"))
    (tmp_path / "source" / "nnunet_da.egg-info").mkdir(parents=True)
    (tmp_path / "source" / "nnunet_da.egg-info" / "PKG-INFO").write_text("Name: nnunet-da\nVersion: 9\n")
    monkeypatch.syspath_prepend(str(tmp_path / "source"))
    found = [distribution for distribution in installation.installations() if tmp_path in distribution._path.parents]
    assert sorted(distribution.version for distribution in found) == ["0.0.9", "0.1.0"]
    finding = only(installation.check_installations(found))
    assert finding.level == "problem"
    assert f"0.0.9 in {tmp_path / 'b'}" in finding.text
    assert "pip uninstall nnunet-da" in finding.remedy


def test_leftover_pth_files(tmp_path):
    installed = make_installation(tmp_path / "packages")
    owned, other = tmp_path / "packages" / installation.PTH_NAME, tmp_path / "user" / "__editable__.nnunet_da-0.0.9.pth"
    other.parent.mkdir()
    owned.write_text("import nnunet_da")
    other.write_text("/a/folder/that/is/gone\n")
    (tmp_path / "user" / "unrelated.pth").write_text("")
    assert list(installation.check_leftovers([installed], [owned.parent])) == []
    finding = only(installation.check_leftovers([installed], [owned.parent, other.parent]))
    assert (finding.level, finding.remedy) == ("problem", f"delete it: rm '{other}'")
    assert len(list(installation.check_leftovers([], [owned.parent, other.parent]))) == 2


# ------------------------------------------------------------------------------------------------------ discovery


@pytest.fixture
def fresh(monkeypatch):
    """Sets what a fresh interpreter has in the variable."""

    def set_entries(*entries):
        monkeypatch.setattr(discovery_checks, "_entries_of_fresh_interpreter", lambda: list(entries))

    return set_entries


def test_fresh_interpreter_is_one_without_our_own_entry(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, os.pathsep.join(["/own", OURS]))
    monkeypatch.setenv(discovery.OPT_OUT_VARIABLE, "1")
    assert discovery_checks._entries_of_fresh_interpreter() == ["/own"]


def test_activation(fresh, tmp_path):
    (tmp_path / installation.PTH_NAME).write_text("")
    fresh("/own", OURS)
    finding = only(discovery_checks.check_activation([tmp_path]))
    assert finding.level == "ok"
    assert str(tmp_path / installation.PTH_NAME) in finding.text


@pytest.mark.parametrize(("present", "reason"), [(False, "is not in"), (True, "has no effect")])
def test_no_activation_prints_the_folder_to_set(monkeypatch, fresh, tmp_path, present, reason):
    if present:
        (tmp_path / installation.PTH_NAME).write_text("")
    monkeypatch.setenv(VARIABLE, "/own")
    fresh("/own")
    finding = only(discovery_checks.check_activation([tmp_path]))
    assert finding.level == "problem"
    assert reason in finding.text
    assert finding.remedy.startswith(f"export {VARIABLE}=/own{os.pathsep}{OURS}")


def test_variable_set_by_hand(fresh, tmp_path):
    fresh()
    finding = only(discovery_checks.check_activation([tmp_path]))
    assert (finding.level, finding.text) == ("ok", f"{VARIABLE}, set by hand, names the trainers ({OURS})")


def test_opting_out(monkeypatch, fresh, tmp_path):
    fresh()
    monkeypatch.setenv(discovery.OPT_OUT_VARIABLE, "1")
    assert only(discovery_checks.check_activation([tmp_path])).level == "ok"
    monkeypatch.setenv(VARIABLE, "")
    finding = only(discovery_checks.check_activation([tmp_path]))
    assert finding.level == "warning"
    assert discovery.OPT_OUT_VARIABLE in finding.remedy


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """A user's folder before ours in the variable."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(folder), OURS]))
    return folder


def check_entry(folder, **options):
    return only(discovery_checks.check_entry(str(folder), **options))


def test_entry_that_can_be_searched(entry):
    (entry / "a.py").write_text("import b; print('nnunet-da', flush=True)")
    (entry / "b.py").write_text("import sys; assert 'nnunet_da.doctor' not in sys.modules")
    (entry / "package").mkdir()
    (entry / "package" / "__init__.py").write_text("")
    (entry / "package" / "c.py").write_text("import a, package")
    assert check_entry(entry) == Finding("ok", f"{VARIABLE}: {entry} can be searched (3 modules)")
    assert list(discovery_checks.check_entry(OURS)) == []


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import a_package_that_is_absent", "ModuleNotFoundError: No module named 'a_package_that_is_absent'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("import os; os._exit(7)", "Python ended with exit code 7"),
        ("import os; os._exit(0)", "Python ended with exit code 0"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
    ],
)
def test_entry_with_a_module_that_fails(entry, source, error):
    (entry / "a_good.py").write_text("")
    (entry / "broken.py").write_text(source)
    finding = next(iter(discovery_checks.check_entry(str(entry))))
    assert finding.level == "problem"
    assert f"broken cannot be imported ({error}" in str(finding)
    assert "\n" not in str(finding)
    assert "mend or remove broken" in finding.remedy


def test_broken_entry_behind_ours_is_a_warning(entry, monkeypatch):
    (entry / "broken.py").write_text("1 / 0")
    monkeypatch.setenv(VARIABLE, os.pathsep.join([OURS, str(entry)]))
    assert check_entry(entry).level == "warning"


def test_entry_with_a_module_that_hangs(entry):
    (entry / "hangs.py").write_text("import time; time.sleep(600)")
    finding = check_entry(entry, timeout_s=1)
    assert finding.level == "problem"
    assert "hangs cannot be imported (it takes longer than 1 s)" in finding.text


def test_entry_that_is_absent(entry):
    assert check_entry(entry / "absent").level == "warning"


def test_entry_of_another_installation(entry):
    (entry / "nnunet_da_trainers.py").write_text("")
    assert "another installation" in check_entry(entry).text


def test_entry_that_is_site_packages(monkeypatch, entry):
    monkeypatch.syspath_prepend(str(entry))
    finding = check_entry(entry / ".." / "own")
    assert finding.level == "problem"
    assert "Python's own path" in finding.text


def test_entry_that_is_the_parent_of_a_package(entry):
    (entry / "nnunet_da").mkdir()
    (entry / "nnunet_da" / "__init__.py").write_text("")
    finding = check_entry(entry)
    assert finding.level == "problem"
    assert "the parent of the package nnunet_da" in finding.text


def test_lookup_finds_every_trainer():
    names = discovery_checks.trainer_names()
    assert "nnUNetTrainerIntensityDA" in names
    finding = only(discovery_checks.check_lookup(names))
    assert (finding.level, finding.text) == ("ok", f"nnU-Net finds {', '.join(names)}")


def test_lookup_of_a_trainer_that_is_absent_or_another_one(entry):
    source = "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as nnUNetTrainerUNet"
    (entry / "own_trainers.py").write_text(source)
    absent, other = discovery_checks.check_lookup(["nnUNetTrainerAbsent", "nnUNetTrainerUNet"])
    assert absent.level == "problem"
    assert "does not find nnUNetTrainerAbsent (RuntimeError" in absent.text
    assert other.level == "warning"
    assert "takes another trainer of that name" in other.text


def test_search_is_not_tried_where_a_folder_would_break_it(monkeypatch, fresh, entry):
    (entry / "broken.py").write_text("1 / 0")
    fresh(OURS)
    monkeypatch.setattr(discovery_checks, "check_lookup", lambda names: pytest.fail("tried"))
    assert levels(discovery_checks.examine()) == ["ok", "problem", "problem"]


def test_nothing_is_searched_where_nothing_is_set(monkeypatch, fresh):
    monkeypatch.delenv(VARIABLE)
    fresh()
    assert levels(discovery_checks.examine()) == ["problem"]


# -------------------------------------------------------------------------------------------------------- dataset

LABELLED, UNLABELLED = ("s1", "s2", "s3"), ("t1",)
CASES = LABELLED + UNLABELLED
PREPARE = "nnUNetv2_plan_and_preprocess -d 101"


@pytest.fixture
def dataset(nnunet_folders):
    """A dataset of two channels and two domains, planned and preprocessed; s1 and s2 are scans of one subject."""
    raw, preprocessed = (folder / "Dataset101_Spine" for folder in (nnunet_folders.raw, nnunet_folders.preprocessed))
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "disc": 1, "ignore": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": READER,
        "domains": {
            "s": {"labels": ["disc"], "labelled": list(LABELLED), "unlabelled": []},
            "t": {"labels": ["disc"], "labelled": [], "unlabelled": list(UNLABELLED)},
        },
        "subjects": {"s1": "anna", "s2": "anna"},
    }
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed / "nnUNetPlans_2d"):
        folder.mkdir(parents=True)
    for case in CASES:
        for name in (f"imagesTr/{case}_0000", f"imagesTr/{case}_0001", f"labelsTr/{case}"):
            (raw / f"{name}.nii.gz").write_bytes(b"")
        (preprocessed / "nnUNetPlans_2d" / f"{case}.pkl").write_bytes(b"")
    for folder in (raw, preprocessed):
        write_json(content, folder / "dataset.json")
    write_json({"shapes_after_crop": [[1, 1, 1]] * 4}, preprocessed / "dataset_fingerprint.json")
    write_json(
        [{"train": ["s1", "s2"], "val": ["s3"]}, {"train": ["s3"], "val": ["s1", "s2"]}],
        preprocessed / splits.FILE_NAME,
    )
    plans = {
        "image_reader_writer": READER,
        "configurations": {
            "2d": {"data_identifier": "nnUNetPlans_2d"},
            "2d_small": {"inherits_from": "2d", "nnunet_da": {"seed": 1, TRAINED_DOMAINS: {"s": ["disc"]}}},
        },
    }
    write_json(plans, preprocessed / "nnUNetPlans.json")
    return Dataset(raw, preprocessed)


class Dataset:
    def __init__(self, raw, preprocessed):
        self.raw_folder, self.preprocessed = raw, preprocessed

    @property
    def raw(self):
        return read_raw(self.raw_folder)[0]

    def change(self, file, **entries):
        """Overwrites (None: removes) entries of a JSON file."""
        content = {**read_json(file), **entries}
        write_json({key: value for key, value in content.items() if value is not None}, file)

    def change_raw(self, **entries):
        self.change(self.raw_folder / "dataset.json", **entries)

    def examine(self, plans_name="nnUNetPlans"):
        return list(dataset_checks.examine("101", plans_name))

    def trouble(self):
        return [finding for finding in self.examine() if finding.level != "ok"]


def test_sound_dataset(dataset):
    findings = dataset.examine()
    assert set(levels(findings)) == {"ok"}
    text = "\n".join(map(str, findings))
    for part in (
        "3 + 0 of s, 0 + 1 of t",
        "files of all 4 cases",
        "taken of all 4",
        "2 folds over 3",
        "2d_small, on 2d",
    ):
        assert part in text


def test_unknown_dataset(dataset):
    finding = only(dataset_checks.examine("102", "nnUNetPlans"))
    assert finding.level == "problem"
    assert "-d 102: no such dataset" in finding.text


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        ({"labels": None}, "'labels' is missing"),
        ({"file_ending": None}, "'file_ending' is missing"),
        ({"channel_names": None}, "'channel_names' must map"),
        ({"domains": {"s": {"labels": ["disk"], "labelled": ["s1"]}}}, "did you mean 'disc'"),
        ({"domains": {"s": {"labelled": []}}}, "domain 's' has no cases"),
    ],
)
def test_dataset_json_that_breaks_a_rule(dataset, entries, rule):
    dataset.change_raw(**entries)
    finding = only(dataset.examine())
    assert finding.level == "problem"
    assert finding.text.startswith(f"{dataset.raw_folder / 'dataset.json'}: ")
    assert rule in finding.text


@pytest.mark.parametrize("content", ["", "[]", "3"])
@pytest.mark.parametrize(
    "file", ["dataset.json", "dataset_fingerprint.json", splits.FILE_NAME, "nnUNetPlans.json", "raw/dataset.json"]
)
def test_files_that_are_no_json_objects(dataset, file, content):
    folder = dataset.raw_folder if file.startswith("raw/") else dataset.preprocessed
    path = folder / Path(file).name
    path.write_text(content)
    (finding,) = dataset.trouble()
    assert finding.level == "problem"
    assert finding.text.startswith(f"{path}: ")
    assert finding.remedy


def test_dataset_without_domains(dataset):
    for folder in (dataset.raw_folder, dataset.preprocessed):
        dataset.change(folder / "dataset.json", domains=None, subjects=None)
    (finding,) = dataset.trouble()
    assert (finding.level, finding.remedy) == ("warning", "nnunet-da add-domain adds scans of another domain")
    (dataset.preprocessed / splits.FILE_NAME).unlink()
    assert len(dataset.trouble()) == 1


def test_dataset_that_is_only_preprocessed(dataset):
    for path in sorted(dataset.raw_folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    dataset.raw_folder.rmdir()
    (finding,) = dataset.trouble()
    assert finding.level == "warning"
    assert "only preprocessed data are examined" in finding.text


@pytest.mark.parametrize("name", ["imagesTr/s1_0001", "imagesTr/t1_0000", "labelsTr/t1"])
def test_missing_files(dataset, name):
    path = dataset.raw_folder / f"{name}.nii.gz"
    path.unlink()
    finding = only(check_files(dataset.raw))
    assert (finding.level, finding.text) == ("problem", f"1 files are missing: {path}")


def test_case_that_belongs_to_no_domain(dataset):
    (dataset.raw_folder / "imagesTr" / "x1_0000.nii.gz").write_bytes(b"")
    finding = only(check_files(dataset.raw))
    assert finding.level == "problem"
    assert finding.text.endswith("nnU-Net plans with them: x1")


def test_number_of_cases(dataset):
    dataset.change_raw(numTraining=3)
    finding, _ = check_files(dataset.raw)
    assert (finding.level, "numTraining is 3, but there are 4 cases" in finding.text) == ("problem", True)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"labels": {"background": 0, "disc": 1, "bone": 2, "ignore": 3}}, "labels"),
        ({"channel_names": {"0": "T1", "1": "CT"}}, "channel_names"),
        ({"subjects": {"s1": "anna"}}, "subjects"),
        ({"regions_class_order": [1]}, "regions_class_order"),
    ],
)
def test_copy_that_differs(dataset, entries, named):
    dataset.change_raw(**entries)
    finding = only(prepared.check_copy(dataset.raw, dataset.preprocessed / "dataset.json"))
    assert (finding.level, finding.remedy) == ("problem", f"{PREPARE} --clean")
    assert finding.text.endswith(f"different: {named}")


def test_copy_with_other_domains_or_another_order(dataset):
    path = dataset.preprocessed / "dataset.json"
    domains = read_json(path)["domains"]
    dataset.change(path, domains=dict(reversed(domains.items())))
    assert only(prepared.check_copy(dataset.raw, path)).text.endswith("different: order of the domains")
    dataset.change(path, domains={"s": domains["s"]})
    assert only(prepared.check_copy(dataset.raw, path)).text.endswith("different: domains")


def test_fingerprint_of_fewer_cases(dataset):
    write_json({"shapes_after_crop": [[1, 1, 1]] * 3}, dataset.preprocessed / "dataset_fingerprint.json")
    (finding,) = dataset.trouble()
    assert (finding.level, finding.remedy) == ("problem", f"{PREPARE} --clean")
    assert "was taken of 3 cases, but the dataset has 4" in finding.text


def test_files_that_changed_since(dataset):
    def touch(path):
        after = max(file.stat().st_mtime for file in dataset.preprocessed.rglob("*")) + 10
        os.utime(path, (after, after))

    touch(dataset.raw_folder / "labelsTr" / "s2.nii.gz")
    (finding,) = dataset.trouble()
    assert (finding.level, finding.text[-23:]) == ("warning", "of cases changed since: s2"[-23:])
    touch(dataset.raw_folder / "imagesTr" / "s3_0001.nii.gz")
    fingerprint, data = dataset.trouble()
    assert "dataset_fingerprint.json: is older than" in fingerprint.text
    assert data.text.endswith("since: s2, s3")


def folds(*pairs):
    return [{"train": list(train), "val": list(val)} for train, val in pairs]


@pytest.mark.parametrize(
    ("content", "level", "text"),
    [
        (None, "problem", "no splits, so no fold can be trained"),
        ([], "problem", "no splits, so no fold can be trained"),
        (folds((["s1", "s2", "s3"], [])), "problem", "fold 0 has no cases in 'val'"),
        (folds(([], ["s1", "s2", "s3"])), "problem", "fold 0 has no cases in 'train'"),
        (folds((["s1", "s2", "t1"], ["s3"])), "problem", "fold 0 holds unlabelled cases: t1"),
        (folds((["s1", "s2", "x"], ["s3"])), "problem", "fold 0 holds cases that the dataset has not: x"),
        (folds((["s1", "s3"], ["s2"])), "problem", "trains and validates on the same subjects: anna"),
        (folds((["s1"], ["s3"])), "warning", "labelled cases are in no fold: s2"),
        (folds((CASES[:3], CASES[:3])), "warning", "fold 0 validates on its own training cases"),
    ],
)
def test_splits_that_break_a_rule(dataset, content, level, text):
    path = dataset.preprocessed / splits.FILE_NAME
    path.unlink()
    if content is not None:
        write_json(content, path)
    finding = only(dataset_checks.check_splits(dataset.raw, path))
    assert finding.level == level
    assert text in finding.text


def test_dataset_that_is_not_planned(dataset):
    (finding,) = [finding for finding in dataset.examine("nnUNetResEncUNetLPlans") if finding.level != "ok"]
    assert (finding.level, finding.remedy) == ("warning", PREPARE)
    assert "nnUNetResEncUNetLPlans.json: no such file" in finding.text


@pytest.mark.parametrize(
    ("wanted", "planned", "level", "text"),
    [
        (READER, "SimpleITKIO", "problem", f"reads images with SimpleITKIO, but .*dataset.json says {READER}"),
        ("SimpleITKIO", "SimpleITKIO", "warning", "different orientations look transposed"),
        (None, "NibabelIO", "warning", "different orientations look transposed"),
        (None, READER, "ok", READER),
    ],
)
def test_reader(dataset, wanted, planned, level, text):
    dataset.change_raw(overwrite_image_reader_writer=wanted)
    plans_file = dataset.preprocessed / "nnUNetPlans.json"
    finding = only(prepared.check_reader(dataset.raw, {"image_reader_writer": planned}, plans_file))
    assert finding.level == level
    assert re.search(text, finding.text)


@pytest.mark.parametrize(
    ("configuration", "text"),
    [
        ({"inherits_from": "3d_fullres"}, "rests on 3d_fullres, which the plans have not"),
        ({"inherits_from": "custom"}, "rests on custom, which the plans have not, or on itself"),
        ({"inherits_from": "2d", "nnunet_da": {"sede": 1}}, "setting sede: unknown; did you mean 'seed'?"),
        ({"inherits_from": "2d", "nnunet_da": {"num_epochs": "many"}}, "setting num_epochs: must be of type int"),
        ({"inherits_from": "2d", "nnunet_da": {"pretext": {"batch": 1}}}, "setting pretext.batch: unknown"),
    ],
)
def test_custom_configuration_that_cannot_be_used(configuration, text):
    configurations = {"2d": {}, "custom": configuration}
    finding = only(prepared.check_configurations(configurations, Path("plans.json")))
    assert finding.level == "problem"
    assert finding.text.startswith("plans.json: configuration custom")
    assert text in finding.text


def test_configurations_inherit_along_a_chain_but_not_in_a_circle():
    configurations = {"a": {"x": 1, "y": 1}, "b": {"inherits_from": "a", "y": 2}, "c": {"inherits_from": "b", "z": 3}}
    assert prepared.resolve("c", configurations) == {"x": 1, "y": 2, "z": 3, "inherits_from": "b"}
    configurations["a"]["inherits_from"] = "c"
    assert prepared.resolve("c", configurations) is None
    assert prepared.resolve("d", configurations) is None


def test_cases_that_are_not_preprocessed(dataset):
    (dataset.preprocessed / "nnUNetPlans_2d" / "t1.pkl").unlink()
    (finding,) = dataset.trouble()
    assert (finding.level, finding.remedy) == ("problem", f"{PREPARE} --clean")
    assert finding.text.endswith("nnUNetPlans_2d (of 2d, 2d_small): 1 cases are not preprocessed: t1")


def test_preprocessed_cases_that_the_dataset_has_no_more(dataset):
    (dataset.preprocessed / "nnUNetPlans_2d" / "old.pkl").write_bytes(b"")
    (finding,) = dataset.trouble()
    assert finding.level == "warning"
    assert finding.text.endswith("holds cases that the dataset has not: old")


def test_configuration_that_is_not_preprocessed(dataset):
    path = dataset.preprocessed / "nnUNetPlans.json"
    configurations = read_json(path)["configurations"]
    dataset.change(path, configurations={**configurations, "3d_fullres": {"data_identifier": "nnUNetPlans_3d_fullres"}})
    (finding,) = dataset.trouble()
    assert finding.level == "warning"
    assert finding.remedy == "nnUNetv2_preprocess -d 101 -plans_name nnUNetPlans -c 3d_fullres"
