"""Whether nnU-Net finds the trainers of this package, and what in ``nnUNet_extTrainer`` keeps it from doing so."""

import contextlib
import importlib
import io
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nnunet_da.discovery import ENVIRONMENT_VARIABLE, FOLDER, OPT_OUT_VARIABLE, is_switched_off
from nnunet_da.doctor import entry_probe
from nnunet_da.doctor.findings import ok, problem, set_variable, shortened, warning
from nnunet_da.doctor.installation import PTH_NAME, site_folders

# A trainer of the user's imports nnU-Net and torch, which may take a minute from a network disk.
IMPORT_TIMEOUT_S = 180


def examine():
    yield from check_activation(site_folders())
    broken = False
    for entry in dict.fromkeys(entries()):
        for finding in check_entry(entry):
            broken |= finding.level == "problem"
            yield finding
    if FOLDER not in entries():
        return  # Said by check_activation; nothing can be found.
    if broken:
        yield problem(
            "nnU-Net's search for trainers was not tried, since it would fail", "mend the folders named above"
        )
        return
    yield from check_lookup(trainer_names())


def entries():
    """The folders in ``nnUNet_extTrainer``, in the order in which nnU-Net searches them."""
    return [entry for entry in os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep) if entry.strip()]


def check_activation(folders):
    """Whether a fresh interpreter has our folder in ``nnUNet_extTrainer``; `folders` are those that .pth lie in."""
    pth_files = [folder / PTH_NAME for folder in folders if (folder / PTH_NAME).is_file()]
    if is_switched_off():
        text = f"{OPT_OUT_VARIABLE} is set, so nnU-Net is not told of the trainers of this package"
        yield (
            ok(f"{text}, but {ENVIRONMENT_VARIABLE} names them")
            if FOLDER in entries()
            else warning(text, f"unset {OPT_OUT_VARIABLE}, if that is not meant")
        )
    elif FOLDER in _entries_of_fresh_interpreter():
        yield ok(f"every Python of this environment tells nnU-Net of the trainers ({shortened(pth_files) or PTH_NAME})")
    elif FOLDER in entries():
        yield ok(f"{ENVIRONMENT_VARIABLE}, set by hand, names the trainers ({FOLDER})")
    else:
        reason = f"{pth_files[0]} has no effect" if pth_files else f"{PTH_NAME} is not in {shortened(folders)}"
        yield problem(
            f"nnU-Net is not told of the trainers: {reason}",
            f"{set_variable(ENVIRONMENT_VARIABLE, os.pathsep.join([*entries(), FOLDER]))}, or install again with pip",
        )


def _entries_of_fresh_interpreter():
    """The folders in ``nnUNet_extTrainer`` of a new interpreter in another folder, whose parent has not our own."""
    environment = dict(os.environ)
    environment[ENVIRONMENT_VARIABLE] = os.pathsep.join(entry for entry in entries() if entry != FOLDER)
    code = f"import os; print(os.environ.get({ENVIRONMENT_VARIABLE!r}, ''))"
    with tempfile.TemporaryDirectory() as elsewhere:
        child = subprocess.run(
            [sys.executable, "-c", code],
            cwd=elsewhere,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
    return child.stdout.strip().split(os.pathsep)


def check_entry(entry, timeout_s=IMPORT_TIMEOUT_S):
    """Whether nnU-Net can search one folder of ``nnUNet_extTrainer``: it imports every module that lies there."""
    folder = Path(entry)
    remedy = f"remove it from {ENVIRONMENT_VARIABLE}"
    if entry == FOLDER:
        return
    if not folder.is_dir():
        yield warning(f"{ENVIRONMENT_VARIABLE}: {entry} is no folder, and is passed over", remedy)
    elif (folder / "nnunet_da_trainers.py").is_file():
        yield warning(f"{ENVIRONMENT_VARIABLE}: {entry} belongs to another installation of nnunet-da", remedy)
    elif folder.resolve() in _python_path():
        yield problem(
            f"{ENVIRONMENT_VARIABLE}: {entry} is on Python's own path: nnU-Net would import, and then forget, all "
            f"that lies there",
            f"{remedy}; name a folder that holds trainers only",
        )
    elif packages := [name for name in ("nnunet_da", "nnunetv2") if (folder / name / "__init__.py").is_file()]:
        yield problem(
            f"{ENVIRONMENT_VARIABLE}: {entry} is the parent of the package {packages[0]}: nnU-Net would import, "
            f"and then forget, all of it",
            f"{remedy}; name the folder that holds the trainers",
        )
    else:
        yield _probed(entry, timeout_s)


def _python_path():
    return {Path(path).resolve() for path in [*sys.path, *site_folders()] if path}


def _probed(entry, timeout_s):
    """The finding on a folder whose modules are imported as nnU-Net would, in a process of their own."""
    try:
        child = subprocess.run(
            [sys.executable, entry_probe.__file__, entry],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        output = child.stdout
        error = f"Python ended with exit code {child.returncode}"
    except subprocess.TimeoutExpired as expired:
        output, error = expired.stdout or b"", f"it takes longer than {timeout_s} s"
    tried = []
    for line in output.decode(errors="replace").splitlines():
        if line.startswith(entry_probe.MARK):
            report = json.loads(line.removeprefix(entry_probe.MARK))
            tried.append(report["module"])
            error = report["error"] or error
    if tried and tried[-1] == entry_probe.DONE:
        return ok(f"{ENVIRONMENT_VARIABLE}: {entry} can be searched ({len(tried) - 1} modules)")
    module = tried[-1] if tried else "its first module"
    text = f"{ENVIRONMENT_VARIABLE}: {entry}: {module} cannot be imported ({error})"
    remedy = f"mend or remove {module}, or take the folder out of {ENVIRONMENT_VARIABLE}"
    if FOLDER in entries()[entries().index(entry) :]:
        return problem(f"{text}, and with it no external trainer is found", remedy)
    return warning(f"{text}; trainers of this and later folders are not found", remedy)


def trainer_names():
    """The trainers of this package: the files of its folder `trainers`."""
    trainers = importlib.import_module("nnunet_da.trainers")
    return sorted(info.name for info in pkgutil.iter_modules(trainers.__path__) if not info.name.startswith("_"))


def check_lookup(names):
    """Whether nnU-Net's own search finds each of the trainers `names`, and finds ours."""
    try:
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find_trainer
    except Exception as error:  # whatever nnU-Net, or what it imports, raises
        yield problem(f"nnU-Net cannot be imported ({type(error).__name__}: {error})", 'pip install "nnunetv2>=2.8,<3"')
        return
    found = []
    for name in names:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                trainer = find_trainer(name)
        except Exception as error:  # nnU-Net lets through whatever an imported module raises
            yield problem(
                f"nnU-Net does not find {name} ({type(error).__name__}: {error})", "install nnunet-da again with pip"
            )
            continue
        if trainer.__module__ != f"nnunet_da.trainers.{name}":
            yield warning(
                f"-tr {name} takes another trainer of that name ({trainer.__module__})",
                f"rename yours, or put its folder behind {FOLDER} in {ENVIRONMENT_VARIABLE}",
            )
            continue
        found.append(name)
    if found:
        yield ok(f"nnU-Net finds {', '.join(found)}")
