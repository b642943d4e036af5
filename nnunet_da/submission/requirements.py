"""The packages of a container: those that run here, in their versions, and a wheel of this one where it is needed."""

import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import nnunet_da
from nnunet_da.errors import UserError

# What the container's script imports itself, or copies of this package's files do.
_ROOTS = ("nnunetv2", "torch", "numpy", "SimpleITK", "nibabel", "scipy", "connected-components-3d")
_PLUGIN = "nnunet-da"
# What a wheel is built of.
_SOURCES = ("nnunet_da", "trainers", "dataset_conversion", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def pinned(with_plugin=False) -> list[str]:
    """``name==version`` of every package that the container needs, as installed here, sorted.

    `with_plugin`: what this package needs is among them (itself it is not). Builds for one platform (``+cu128``) are
    named without it, as the package index has them.
    """
    versions, to_do = {}, list(_ROOTS)
    if with_plugin:
        to_do += _required(_PLUGIN)
    while to_do:
        name = canonicalize_name(to_do.pop())
        if name in versions:
            continue
        try:
            versions[name] = Version(importlib.metadata.version(name)).public
        except importlib.metadata.PackageNotFoundError:
            raise UserError(f"{name}: is not installed here, so its version cannot be pinned") from None
        to_do += _required(name)
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


def _required(name):
    """The names of the packages that an installed one requires here, without its extras."""
    requirements = map(Requirement, importlib.metadata.requires(name) or ())
    return [entry.name for entry in requirements if entry.marker is None or entry.marker.evaluate({"extra": ""})]


def add_plugin_wheel(folder, given=None) -> Path:
    """Puts a wheel of this package into `folder`, and returns its path there.

    `given`: the wheel; None: it is built, without network, from the clone that is installed. Raises UserError where it
    cannot be built, or `given` is no wheel of this version.
    """
    if given is not None:
        given = Path(given)
        if not given.is_file() or not given.name.startswith(f"nnunet_da-{nnunet_da.__version__}-"):
            raise UserError(f"--plugin-wheel {given}: must be a wheel of nnunet-da {nnunet_da.__version__}")
        return Path(shutil.copy(given, folder))
    root = Path(nnunet_da.__file__).resolve().parents[1]
    if not all((root / name).exists() for name in _SOURCES):
        raise UserError(
            f"a network needs {_PLUGIN} in the container, but {root} is no clone to build it of; give --plugin-wheel "
            f"FILE"
        )
    with tempfile.TemporaryDirectory() as tree:
        # Of a copy, since building leaves files behind.
        for name in _SOURCES:
            if (root / name).is_dir():
                shutil.copytree(root / name, Path(tree, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(root / name, tree)
        words = ["-m", "pip", "--isolated", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
        built = subprocess.run(
            [sys.executable, *words, "--disable-pip-version-check", "--wheel-dir", str(folder), tree],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    wheels = list(Path(folder).glob("nnunet_da-*.whl"))
    if built.returncode != 0 or not wheels:
        reason = next((line for line in reversed(built.stderr.splitlines()) if line.strip()), "pip says nothing")
        raise UserError(
            f"a network needs {_PLUGIN} in the container, but its wheel cannot be built here ({reason.strip()}); give "
            f"--plugin-wheel FILE"
        )
    return wheels[0]
