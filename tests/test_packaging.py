"""What is built, what lies in an environment after installation, and what is left there after removal.

The environments are throw-away ones without pip; the heavy packages of the environment that runs the tests are made
visible in them through links, without this package, which may be installed beside them.
"""

import base64
import csv
import hashlib
import io
import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from nnunet_da.discovery import ENVIRONMENT_VARIABLE, OPT_OUT_VARIABLE
from nnunet_da.doctor.installation import PTH_NAME

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    *("nnunet_da", "trainers", "dataset_conversion", "tests", "pyproject.toml", "setup.py", "MANIFEST.in"),
    *("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"),
)
BESIDE = ("trainers", "dataset_conversion")
BUILD = """
import os, sys
sys.path.insert(0, os.path.join(os.getcwd(), "nnunet_da", "_packaging"))
import backend
name = getattr(backend, sys.argv[1])(sys.argv[2])
print("built", name)
"""


def run(command, **options):
    child = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        **options,
    )
    assert child.returncode == 0, f"{command}\n{child.stdout}\n{child.stderr}"
    return child


def copy_sources(target):
    target.mkdir()
    for source in map(ROOT.joinpath, SOURCES):
        if source.is_dir():
            shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target)
    return target


def build(hook, tree, folder):
    """Calls a hook of the tree's build backend as pip and build do: in a process of its own, in the tree."""
    folder.mkdir(exist_ok=True)
    output = run([sys.executable, "-c", BUILD, hook, folder], cwd=tree).stdout
    return folder / output.splitlines()[-1].removeprefix("built ")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return copy_sources(tmp_path_factory.mktemp("source") / "tree")


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory):
    """The archives: sdist, wheel, editable wheel, and the wheel that is built from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("built")
    archives = {name: build(f"build_{name}", tree, folder / name) for name in ("sdist", "wheel", "editable")}
    with tarfile.open(archives["sdist"]) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    archives["wheel of sdist"] = build("build_wheel", unpacked, folder / "from_sdist")
    return archives


WHEELS = ("wheel", "editable", "wheel of sdist")


@pytest.mark.parametrize("kind", ["wheel", "wheel of sdist"])
def test_wheel_holds_every_file_of_the_packages_and_no_other(built, tree, kind):
    expected = {path.relative_to(tree) for path in (tree / "nnunet_da").rglob("*") if path.is_file()}
    expected = {path for path in expected if path.parts[1] != "_packaging"}
    for name in BESIDE:
        expected |= {"nnunet_da" / path.relative_to(tree) for path in (tree / name).rglob("*") if path.is_file()}
    names = zipfile.ZipFile(built[kind]).namelist()
    packaged = {Path(name) for name in names if ".dist-info/" not in name and name != PTH_NAME}
    assert packaged == expected
    assert Path("nnunet_da/trainers/nnUNetTrainerIntensityDA.py") in packaged
    assert Path("nnunet_da/dataset_conversion/manifest.py") in packaged


def test_every_folder_with_modules_is_a_package(tree):
    folders = {path.parent for name in ("nnunet_da", *BESIDE) for path in (tree / name).rglob("*.py")}
    without = {folder.name for folder in folders if not (folder / "__init__.py").is_file()}
    assert without == {"_packaging"}


@pytest.mark.parametrize("kind", WHEELS)
def test_record_lists_every_member_with_its_hash_and_size(built, kind):
    with zipfile.ZipFile(built[kind]) as wheel:
        (record,) = [name for name in wheel.namelist() if name.endswith(".dist-info/RECORD")]
        rows = list(csv.reader(io.StringIO(wheel.read(record).decode())))
        assert sorted(name for name, _, _ in rows) == sorted(wheel.namelist())
        assert len(set(wheel.namelist())) == len(wheel.namelist())
        for name, digest, size in rows:
            content = wheel.read(name)
            encoded = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, size) == (("", "") if name == record else (f"sha256={encoded}", str(len(content))))


@pytest.mark.parametrize("kind", WHEELS)
def test_pth_file_is_one_line_that_site_executes(built, kind):
    with zipfile.ZipFile(built[kind]) as wheel:
        line, rest = wheel.read(PTH_NAME).decode().split("\n", 1)
        assert rest == ""
        assert line.startswith("import ")
        assert wheel.getinfo(PTH_NAME).external_attr >> 16 == 0o644


def test_wheel_of_the_sdist_is_the_wheel(built):
    with zipfile.ZipFile(built["wheel"]) as direct, zipfile.ZipFile(built["wheel of sdist"]) as indirect:
        assert {name: direct.read(name) for name in direct.namelist()} == {
            name: indirect.read(name) for name in indirect.namelist()
        }


def test_sdist_can_be_tested(built):
    with tarfile.open(built["sdist"]) as archive:
        names = {
            PurePosixPath(name).relative_to(PurePosixPath(name).parts[0]).as_posix() for name in archive.getnames()
        }
    assert {"setup.py", "pyproject.toml", "nnunet_da/_packaging/backend.py", "tests/test_packaging.py"} <= names
    assert not [name for name in names if "__pycache__" in name]


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """A folder with links to everything that is installed here but this package."""
    folder = tmp_path_factory.mktemp("heavy")
    for packages in map(Path, [*site.getsitepackages(), site.getusersitepackages()]):
        for path in packages.iterdir() if packages.is_dir() else ():
            link = folder / path.name
            if "nnunet_da" not in path.name and not link.exists():
                link.symlink_to(path)
    return folder


class Environment:
    """A virtual environment in `folder`."""

    def __init__(self, folder, heavy):
        run([sys.executable, "-m", "venv", "--without-pip", folder])
        self.executable = folder / "bin" / "python"
        (self.packages,) = (folder / "lib").glob("python*/site-packages")
        (self.packages / "heavy.pth").write_text(f"import site; site.addsitedir({str(heavy)!r})\n")
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self.folder = folder

    def pip(self, *arguments):
        pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "--python", self.executable]
        run([*pip, *arguments])

    def install(self, wheel):
        self.pip("install", "--no-deps", "--no-index", wheel)
        return self

    def python(self, code, *arguments, **variables):
        """Runs `code` in another folder, with `variables`; returns what it printed. Nothing may go to stderr."""
        known = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("nnUNet_", "NNUNET_DA_", "PYTHON"))
        }
        child = run([self.executable, "-c", code, *arguments], cwd=self.elsewhere, env={**known, **variables})
        assert child.stderr == ""
        return child.stdout

    def entries(self, **variables):
        """The folders in nnUNet_extTrainer of a fresh interpreter."""
        code = f"import os; print(os.environ.get({ENVIRONMENT_VARIABLE!r}))"
        return self.python(code, **variables).strip().split(os.pathsep)

    def files(self):
        return sorted(path for path in self.folder.rglob("*") if "heavy" not in path.parts)


@pytest.fixture
def environment(tmp_path, heavy):
    return Environment(tmp_path / "environment", heavy)


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, built, heavy, tmp_path_factory):
    """An environment with the package in it, and the folder that nnU-Net should search."""
    environment = Environment(tmp_path_factory.mktemp("installed") / request.param, heavy).install(built[request.param])
    tree = request.getfixturevalue("tree") if request.param == "editable" else environment.packages
    return environment, str(tree / "nnunet_da" / "discovery")


def test_every_interpreter_has_the_folder_behind_the_users_own(installed):
    environment, folder = installed
    assert environment.entries() == [folder]
    assert environment.entries(nnUNet_extTrainer="/own") == ["/own", folder]
    # A child inherits the variable, and adds nothing.
    assert environment.entries(nnUNet_extTrainer=folder) == [folder]


@pytest.mark.parametrize(("value", "off"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_opting_out(installed, value, off):
    environment, folder = installed
    variables = {OPT_OUT_VARIABLE: value, ENVIRONMENT_VARIABLE: "/own"}
    assert environment.entries(**variables) == (["/own"] if off else ["/own", folder])


def test_start_imports_nothing_but_the_package_itself(installed):
    environment, _ = installed
    code = "import sys; print(*sorted(name for name in sys.modules if name.split('.')[0] == 'nnunet_da'))"
    assert environment.python(code).split() == ["nnunet_da", "nnunet_da.discovery"]


def test_packages_beside_are_imported_from_inside_only(installed):
    environment, _ = installed
    code = """
import importlib.util
import nnunet_da.dataset_conversion.manifest, nnunet_da.trainers
print([importlib.util.find_spec(name) for name in ("trainers", "dataset_conversion", "setup")])
"""
    assert environment.python(code) == "[None, None, None]\n"


def test_console_script(installed):
    environment, _ = installed
    assert run([environment.folder / "bin" / "nnunet-da", "--version"]).stdout.startswith("nnunet-da ")


SEARCH = """
import contextlib, io, pickle, sys, warnings
warnings.simplefilter("ignore")
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
for name in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = recursive_find_trainer_class_by_name(name)
    print(trainer.__module__)
"""


def test_nnunet_finds_ours_and_the_users_own(installed, tmp_path):
    environment, _ = installed
    source = "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\nclass Own(nnUNetTrainer): pass"
    (tmp_path / "own_trainers.py").write_text(source)
    names = ["nnUNetTrainerIntensityDA", "nnUNetTrainerUNet", "Own"]
    assert environment.python(SEARCH, *names, nnUNet_extTrainer=str(tmp_path)).split() == [
        "nnunet_da.trainers.nnUNetTrainerIntensityDA",
        "nnunet_da.trainers.nnUNetTrainerUNet",
        "own_trainers",
    ]


@pytest.mark.parametrize("leftover", [None, "nnunet_da/__pycache__", "nnunet_da/trainers"])
def test_other_environments_are_not_disturbed(installed, environment, leftover):
    """A child process of another environment, which lacks the package, inherits the variable."""
    _, folder = installed
    if leftover is not None:
        (environment.elsewhere / leftover).mkdir(parents=True)
    assert environment.python("print('started')", nnUNet_extTrainer=folder) == "started\n"
    code = """
import sys
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
print(recursive_find_python_class(sys.argv[1], "nnUNetTrainerUNet", None, sys.argv[1], False, True))
"""
    assert environment.python(code, folder, nnUNet_extTrainer=folder) == "None\n"


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_uninstalling_leaves_nothing(environment, built, kind):
    before = environment.files()
    environment.install(built[kind])
    assert environment.entries() != ["None"]
    environment.python("import nnunet_da.settings, nnunet_da.trainers, nnunet_da.dataset_conversion.manifest")
    environment.pip("uninstall", "--yes", "nnunet-da")
    assert environment.files() == before
    assert environment.entries() == ["None"]


def test_python_starts_where_the_package_was_deleted_by_hand(environment, built):
    environment.install(built["wheel"])
    shutil.rmtree(environment.packages / "nnunet_da")
    assert environment.entries() == ["None"]
    (environment.packages / "nnunet_da").mkdir()
    assert environment.entries() == ["None"]


def test_python_starts_where_the_source_of_an_editable_installation_was_deleted(environment, tmp_path):
    source = copy_sources(tmp_path / "source")
    environment.install(build("build_editable", source, tmp_path / "wheels"))
    assert environment.entries() == [str(source / "nnunet_da" / "discovery")]
    shutil.rmtree(source)
    assert environment.entries() == ["None"]
