"""Python, the packages that the installed distribution requires, nnU-Net's folders, and the device."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from nnunet_da.doctor.findings import ok, problem, set_variable, warning
from nnunet_da.paths import PREPROCESSED, RAW, RESULTS

DISTRIBUTION = "nnunet-da"
# Preprocessed data are several times as large as the scans; below this, preprocessing soon fails.
MIN_FREE_BYTES = 10e9


def examine():
    """Everything but the device, for which torch must be imported."""
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield warning(
            f"{DISTRIBUTION} is not installed, so the versions that it needs are unknown", "pip install nnunet-da"
        )
    else:
        yield from check_python(distribution.metadata.get("Requires-Python", ""))
        yield from check_requirements(distribution.requires or [])
    for variable in (RAW, PREPROCESSED, RESULTS):
        yield from check_folder(variable)


def check_python(specifier):
    """Whether the interpreter's version lies in `specifier` (PEP 440, such as ``>=3.10``)."""
    version = platform.python_version()
    if SpecifierSet(specifier).contains(version, prereleases=True):
        yield ok(f"Python {version}")
    else:
        yield problem(f"Python {version}, but {specifier} is needed", f"make an environment with Python {specifier}")


def check_requirements(requirements):
    """Whether each of `requirements` (PEP 508 strings; extras are passed over) is installed in a right version."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield problem(f"{requirement.name} is not installed", f'pip install "{wanted}"')
            continue
        if requirement.specifier.contains(version, prereleases=True):
            yield ok(f"{requirement.name} {version}")
        else:
            yield problem(f"{requirement.name} {version}, but {wanted} is needed", f'pip install "{wanted}"')


def check_folder(variable):
    """Whether one of nnU-Net's folders is set, exists, can be written, and (preprocessed) has space."""
    value = os.environ.get(variable)
    if not value:
        yield problem(f"the environment variable {variable} is not set", set_variable(variable, f"/path/to/{variable}"))
        return
    folder = Path(value)
    if not folder.is_dir():
        reason = "is not a folder" if folder.exists() else "does not exist"
        yield problem(f"{variable}: {folder} {reason}", f"mkdir -p '{folder}', or correct {variable}")
        return
    if not folder.is_absolute():
        yield warning(
            f"{variable}: {folder} is relative, so it is another folder wherever you start nnU-Net",
            set_variable(variable, folder.absolute()),
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        # Raw data may well be protected: training and prediction only read them.
        level = warning if variable == RAW else problem
        yield level(
            f"{variable}: {folder} cannot be written", f"change its permissions, or let {variable} name another"
        )
        return
    free = shutil.disk_usage(folder).free
    if variable == PREPROCESSED and free < MIN_FREE_BYTES:
        yield warning(
            f"{variable}: {folder} has only {free / 1e9:.1f} GB free, and preprocessed data are large",
            f"free some space, or let {variable} name a folder on another disk",
        )
        return
    yield ok(f"{variable}: {folder} ({free / 1e9:.0f} GB free)")


def check_devices():
    """Whether torch can be imported and has a GPU."""
    try:
        import torch
    except Exception as error:  # a broken binary raises whatever it likes
        yield problem(
            f"torch cannot be imported ({type(error).__name__}: {error})", "install torch as pytorch.org says"
        )
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            yield ok(f"GPU cuda:{index}: {device.name}, {device.total_memory / 2**30:.0f} GiB")
        return
    if torch.backends.mps.is_available():
        yield ok("GPU: Apple Silicon (train and predict with -device mps)")
        return
    if shutil.which("nvidia-smi"):
        if torch.version.cuda is None:
            reason = f"torch {torch.__version__} is a build without CUDA"
        else:
            reason = f"its driver does not run CUDA {torch.version.cuda}, for which torch {torch.__version__} is built"
        yield warning(
            f"there is an NVIDIA driver, but torch sees no GPU: {reason}", "install torch as pytorch.org says"
        )
        return
    yield warning(
        "no GPU: training on the CPU (-device cpu) is slow",
        "make a small plan: nnunet-da configure -d ID -c 2d --as 2d_small --preset cpu",
    )
