"""Runs ``nnunet-da self-train`` on a simulated CrossMoDA 2022, twice: once in one go, once killed in every step.

    python tests/workflow/kill_each_stage.py FOLDER [--start predictions] [--after 3]

Each step is killed with SIGKILL, with the whole process group, some seconds after it began, and the same command is run
again. Both runs must end with the same cases, files, epochs and, since trainings are seeded and run on the CPU, bytes.
It takes an hour or two on two cores; FOLDER is used again where it is there.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

SCHEDULE = {
    "num_epochs": 2,
    "num_iterations_per_epoch": 2,
    "num_val_iterations_per_epoch": 1,
    "save_every": 1,
    "seed": 1,
}
PLANS = {
    "2d": {"plan": {"patch_size": [32, 32], "features_per_stage": [4, 8, 8], "batch_size": 2}},
    "3d_fullres": {"plan": {"patch_size": [8, 32, 32], "features_per_stage": [4, 8, 8], "batch_size": 2}},
}
CONFIG = {
    "work": "work",
    "preset": "cpu",
    "data": {"dataset": 100, "convert": "crossmoda2022", "raw": "../RAW", "name": "Phantom"},
    "translation": {
        "settings": {
            **SCHEDULE,
            "plan": PLANS["2d"]["plan"],
            "translation": {
                "source": "etz_ceT1",
                "target": "etz_hrT2",
                "features": [4, 8, 8],
                "discriminator_layers": 2,
            },
        }
    },
    "segmentation": {"configurations": PLANS, "folds": [0, 1], "settings": SCHEDULE},
    "pseudo_labels": {"no_volume_rule": True, "leave_out": 0},
    "test": {"labels": "../LABELS"},
    "package": {"challenge": "crossmoda2022", "scans": "../RAW/crossmoda2022_validation"},
}
# What tells of times and of the machine, not of the result.
TOLD_APART = re.compile(
    r"work/(steps|logs|done|locks|report|\.snakemake)/|/training_log|progress\.png|debug\.json|run\.json"
    # Names the folder of the run.
    r"|predict_from_raw_data_args\.json"
)


def write_scans(folder):
    """The release in RAW, and the labels of its validation scans in LABELS, named as the cases."""
    if (folder / "LABELS").is_dir():
        return
    for name in ("RAW", "HIDDEN"):
        shutil.rmtree(folder / name, ignore_errors=True)
    words = [
        "phantom",
        "crossmoda2022",
        folder / "RAW",
        "-n",
        4,
        "--size",
        40,
        40,
        16,
        "--hidden-labels",
        folder / "HIDDEN",
    ]
    subprocess.run(["nnunet-da", *map(str, words)], check=True)
    (folder / "new").mkdir(exist_ok=True)
    for scan in (folder / "RAW" / "crossmoda2022_validation").iterdir():
        case = scan.name.removesuffix("_hrT2.nii.gz")
        shutil.copyfile(folder / "HIDDEN" / f"{case}_Label.nii.gz", folder / "new" / f"{case}.nii.gz")
    (folder / "new").rename(folder / "LABELS")


def start(folder, config):
    """``nnunet-da self-train`` in `folder`, in a process group of its own."""
    variables = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    for path in map(Path, variables.values()):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(json.dumps(config))  # JSON is YAML.
    log = open(folder / "log.txt", "a")  # noqa: SIM115 (the child keeps it)
    command = ["nnunet-da", "self-train", str(folder / "run.yaml"), "-device", "cpu"]
    environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=log, stderr=log)


def running(folder):
    """The steps that work now."""
    found = []
    for path in (folder / "work" / "steps").glob("*/*.json"):
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            continue
        if record["state"] == "running":
            found.append(record["step"])
    return found


def run_killed(folder, config, after):
    """Runs to the end, killed once in each step, `after` seconds after it began."""
    killed = set()
    while True:
        process = start(folder, config)
        while process.poll() is None:
            time.sleep(0.2)
            new = [step for step in running(folder) if step not in killed]
            if new:
                time.sleep(after)
                killed |= set(new)
                print(f"kill: {', '.join(new)}", flush=True)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                break
        else:
            if process.returncode != 0:
                sys.exit(f"{folder / 'log.txt'}: failed:\n{(folder / 'log.txt').read_text()[-2000:]}")
            return killed


def contents(folder):
    """Path within `folder` → digest of the file, of every result."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        kept = name.startswith(
            ("raw/", "preprocessed/", "work/predictions/", "work/choice.json", "work/submission.zip")
        )
        if path.is_file() and kept and not TOLD_APART.search(name):
            found[name] = hashlib.sha256(compared(path)).hexdigest()
    return found


def compared(path):
    """The bytes of a file that tell of the result."""
    if path.suffix == ".b2nd":
        return voxels(path)
    if path.name == "plans.json" and "predictions" in path.parts:
        return plan_of_model(path)
    return path.read_bytes()


def voxels(path):
    """The bytes of what nnU-Net keeps compressed by several threads, whose blocks lie in the order of their ends."""
    import blosc2

    array = blosc2.open(str(path), mode="r")[:]
    return f"{array.dtype} {array.shape} ".encode() + array.tobytes()


def plan_of_model(path):
    """What the plans beside predictions say of the model, whose configuration the folder is named by.

    They are a copy from when its training began: whether the other configurations had been written by then depends on
    which of the steps side by side came first.
    """
    plans = json.loads(path.read_text())
    plans["configurations"] = {
        name: block for name, block in plans["configurations"].items() if name in path.parent.name
    }
    return json.dumps(plans, sort_keys=True).encode()


def epochs(folder):
    """Training → number of epochs in its final checkpoint."""
    from nnunet_da.training.checkpoints import read_checkpoint

    paths = sorted((folder / "results").rglob("checkpoint_final.pth"))
    return {path.parent.relative_to(folder).as_posix(): read_checkpoint(path)["current_epoch"] for path in paths}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", choices=["translation", "predictions"], default="translation")
    parser.add_argument("--configurations", nargs="+", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--after", type=float, default=3, help="seconds; default: %(default)s")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_scans(folder)
    plans = {name: PLANS[name] for name in arguments.configurations}
    config = {**CONFIG, "start": arguments.start, "segmentation": {**CONFIG["segmentation"], "configurations": plans}}

    process = start(folder / "reference", config)
    if process.wait() != 0:
        sys.exit(f"{folder / 'reference' / 'log.txt'}: failed")
    killed = run_killed(folder / "killed", config, arguments.after)
    expected, found = contents(folder / "reference"), contents(folder / "killed")
    # Plans name no folder, but results of a training may be compared by their predictions alone.
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    print(f"{len(killed)} steps were killed; {len(expected)} files, {len(differing)} differ: {differing[:20]}")
    same_epochs = epochs(folder / "reference") == epochs(folder / "killed")
    print(f"epochs: {'the same' if same_epochs else 'differ'}")
    sys.exit(bool(differing) or not same_epochs)


if __name__ == "__main__":
    main()
