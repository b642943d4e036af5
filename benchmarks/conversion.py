"""Time and memory of a conversion, beside reading and writing the same files with SimpleITK in as many processes.

    python benchmarks/conversion.py [--volumes 200] [--processes 2] [--endings .nii.gz .nii .mha] [--json FILE]

The conversion also reads every label, checks intensities, grids and labels, and compares all scans with one another.
Memory is the largest of any process, at all volumes and at a quarter of them. Exits with 1 where the conversion takes
more than `LIMIT` times as long, or memory grows with the number of cases.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from nnunet_da.files import write_json

SHAPE, SPACING = (36, 256, 256), (4.0, 0.7, 0.7)
LIMIT = 1.3
# Memory of a process varies by some MB between runs, whatever it does.
MEMORY_TOLERANCE = 1.1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of these counts")
    parser.add_argument("--endings", nargs="+", default=[".nii.gz", ".nii", ".mha"])
    parser.add_argument("--work", type=Path, help="folder for some GB of scans (default: a temporary one)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "TABLE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, arguments)))
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        rows = [compare(ending, Path(folder), arguments) for ending in arguments.endings]
    print(table(rows))
    if arguments.json:
        write_json({"volumes": arguments.volumes, "processes": arguments.processes, "rows": rows}, arguments.json)
    return 0 if all(row["ratio"] <= LIMIT and row["memory_ratio"] <= MEMORY_TOLERANCE for row in rows) else 1


def compare(ending, folder, arguments):
    """The figures of one format."""
    scans = folder / ending.strip(".")
    few, many = scans / f"cases_{arguments.volumes // 4}.csv", scans / f"cases_{arguments.volumes}.csv"
    for path in (few, many):
        run("write", path, arguments)
    ours = [run("convert", many, arguments) for _ in range(arguments.repeats)]
    theirs = [run("simpleitk", many, arguments) for _ in range(arguments.repeats)]
    at_few = run("convert", few, arguments)
    row = {
        "ending": ending,
        "seconds": min(one["seconds"] for one in ours),
        "simpleitk_seconds": min(one["seconds"] for one in theirs),
        "memory_mb": ours[0]["memory_mb"],
        "memory_mb_quarter": at_few["memory_mb"],
        "simpleitk_memory_mb": theirs[0]["memory_mb"],
    }
    row["ratio"] = row["seconds"] / row["simpleitk_seconds"]
    row["memory_ratio"] = row["memory_mb"] / row["memory_mb_quarter"]
    shutil.rmtree(scans)
    return row


def write_scans(path):
    """FOLDER/ENDING/cases_N.csv, which `convert manifest` reads, and N scans with labels in files of that format."""
    import numpy as np
    import SimpleITK as sitk  # noqa: N813
    from scipy.ndimage import gaussian_filter

    folder, ending, n = path.parent, f".{path.parent.name}", int(path.stem.removeprefix("cases_"))
    folder.mkdir(parents=True, exist_ok=True)
    smooth = gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32), (1, 6, 6))
    label = (smooth > 1.5 * smooth.std()).astype(np.uint8)
    rows = [["case", "domain", "image_0000", "label"]]
    for index in range(n):
        case = f"case{index:04d}"
        names = (f"{case}{ending}", f"{case}_label{ending}")
        rows.append([case, f"domain_{index % 2}", *names])
        if (folder / names[0]).exists():
            continue
        voxels = 400 + 8000 * smooth + np.random.default_rng(index).normal(0, 15, SHAPE)
        for name, array in zip(names, (voxels.astype(np.int16), label), strict=True):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing(SPACING[::-1])
            sitk.WriteImage(image, str(folder / name))
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def run(what, path, arguments):
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, str(path), "--processes", str(arguments.processes)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def measure(what, path, arguments):
    """Seconds, and the memory in MB of the largest process.

    The system counts a child's memory from what its parent held when it began: so all work is done in children, and
    this file imports nothing large at its head.
    """
    if what == "write":
        return write_scans(Path(path))
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        start = time.perf_counter()
        {"convert": convert, "simpleitk": read_and_write}[what](Path(path), Path(folder), arguments.processes)
        seconds = time.perf_counter() - start
    memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"seconds": seconds, "memory_mb": memory / 1024}


def convert(path, folder, n_processes):
    from nnunet_da.cli import main as cli

    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir()
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    code = cli(["convert", "manifest", str(path), "-d", "1", "--labels", "structure=1", "-np", str(n_processes)])
    if code:
        raise SystemExit(code)


def read_and_write(path, folder, n_processes):
    with open(path, newline="") as stream:
        names = [row[column] for row in csv.DictReader(stream) for column in ("image_0000", "label")]
    tasks = [(path.parent / name, folder / f"{index}.nii.gz") for index, name in enumerate(names)]
    with ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(copy, tasks))


def copy(task):
    import SimpleITK as sitk  # noqa: N813

    # One thread per process on both sides.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    source, target = task
    sitk.WriteImage(sitk.ReadImage(str(source)), str(target))


def table(rows):
    lines = [
        "| format | conversion (s) | SimpleITK (s) | ratio | memory (MB) | at a quarter of cases | SimpleITK (MB) |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['ending']} | {row['seconds']:.1f} | {row['simpleitk_seconds']:.1f} | {row['ratio']:.2f} "
        f"| {row['memory_mb']:.0f} | {row['memory_mb_quarter']:.0f} | {row['simpleitk_memory_mb']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
