"""Tiny simulated datasets, converted, planned and preprocessed once, that the tests of this folder share."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest
import torch
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.utilities import find_objects

from nnunet_da import cli
from nnunet_da.phantom.study import write_study

SCANNERS = ("philips_3t", "siemens_1p5t", "ge_t1")
SOURCE = SCANNERS[0]
SIZE = (8, 48, 48)  # voxels along right, anterior, superior
SCHEDULE = ("num_epochs=2", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1", "save_every=1", "seed=3")
# Networks that stand in the plans by their own settings.
SMALL = (
    *("dense_aspp.growth=2", "dense_aspp.layers=1", "dense_aspp.aspp_growth=2", "dense_aspp.rates=1,2"),
    *("focal.ce_epochs=1", "vnet.features=2,4,4", "vnet.convolutions=1,2,1", "vnet.kernel_size=3"),
)
FIND_CLASS = functools.cache(find_objects.recursive_find_python_class)


@pytest.fixture(scope="session")
def command():
    """``command(name, *arguments, **environment)`` runs an installed command to its end; raises where it fails."""

    def run(*words, check=True, **environment):
        script = Path(sysconfig.get_path("scripts"), words[0])
        return subprocess.run(
            [script, *map(str, words[1:])],
            env={**os.environ, **environment},
            check=check,
            capture_output=True,
            text=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """nnU-Net's variables, for this process and those it starts, as long as the tests of the session run."""
    root = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (root / name).mkdir()
            patch.setenv(f"nnUNet_{name}", str(root / name))
        # No worker processes: quicker for work this small, and the only way to equal weights.
        patch.setenv("nnUNet_n_proc_DA", "0")
        patch.setenv("nnUNet_def_n_proc", "1")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield SimpleNamespace(root=root, raw=root / "raw", preprocessed=root / "preprocessed", results=root / "results")
        torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _in_short(monkeypatch, nnunet_in_process):
    """Spares what takes most of the time of a training this small."""
    nnunet_in_process(monkeypatch)
    # nnU-Net imports its trainers anew for each that it looks up: once for each name does.
    monkeypatch.setattr(find_objects, "recursive_find_python_class", FIND_CLASS)
    # And it draws its curves after every epoch, 30 by 54 inches: smaller, and not after the first.
    monkeypatch.setitem(matplotlib.rcParams, "figure.dpi", 10)
    draw = LocalLogger.plot_progress_png

    def draw_from_second_epoch(logger, folder):
        if len(logger.my_fantastic_logging["epoch_end_timestamps"]) > 1:
            draw(logger, folder)

    monkeypatch.setattr(LocalLogger, "plot_progress_png", draw_from_second_epoch)


@pytest.fixture(scope="session")
def spine(environment, run_command, tmp_path_factory):
    """Dataset 501: four labelled scans of one scanner, three unlabelled ones of two others each; planned in 2D and 3D.

    With the configurations `tiny_2d` and `tiny_3d`, and in `test` two scans of each scanner with labels.
    """
    study = tmp_path_factory.mktemp("study") / "spine"
    counts = {scanner: 4 if scanner == SOURCE else 3 for scanner in SCANNERS}
    manifest = write_study(study, SCANNERS, counts, 0, n_test=2, size=SIZE)
    convert = ["convert", "manifest", str(manifest), "-d", "501", "--name", "Spine"]
    assert cli.main([*convert, "--labels", "disc=1", "--channels", "MR", "-np", "1"]) == 0
    plan(run_command, 501, "2d", "3d_fullres")
    for base, name, patch_size in (("2d", "tiny_2d", "32,32"), ("3d_fullres", "tiny_3d", "8,32,32")):
        configure(
            "501", base, name, f"plan.patch_size={patch_size}", "plan.features_per_stage=4,8,8", *SCHEDULE, *SMALL
        )
    return SimpleNamespace(
        id="501",
        name="Dataset501_Spine",
        raw=environment.raw / "Dataset501_Spine",
        preprocessed=environment.preprocessed / "Dataset501_Spine",
        results=environment.results / "Dataset501_Spine",
        test=study / "test",
    )


def plan(run_command, dataset, *configurations):
    words = ("nnUNetv2_plan_and_preprocess", "-d", dataset, "-c", *configurations, "--verify_dataset_integrity")
    run_command(*words, nnUNet_n_proc_DA="1")


def configure(dataset, base, name, *assignments):
    words = [word for assignment in ("plan.batch_size=2", *assignments) for word in ("--set", assignment)]
    assert cli.main(["configure", "-d", dataset, "-c", base, "--as", name, *words]) == 0


@pytest.fixture(scope="session")
def regions(environment, run_command, tmp_path_factory):
    """Dataset 502: four channels, regions as labels; planned in 2D, with `tiny_2d`."""
    from nnunet_da.raw_dataset import Case, Conversion, write_dataset

    study = tmp_path_factory.mktemp("study") / "dixon"
    write_study(study, ["dixon_3t"], 5, 1, size=(6, 40, 40), numbered=True)
    cases = []
    for index in range(1, 6):
        case = f"dixon_3t_{index:03d}"
        images = tuple(study / "dixon_3t" / "images" / f"{case}_{channel:04d}.nii.gz" for channel in range(4))
        label = study / "dixon_3t" / "labels" / f"{case}.nii.gz" if index < 5 else None
        # One domain's scans stand for two: what is tested is channels and regions.
        values = {value: 1 if value < 3 else 2 for value in range(1, 10)}
        cases.append(Case(case, "first" if index < 3 else "second", case, images, label, values))
    regions = Conversion(
        cases, ["fat", "inn", "opp", "wat"], {"disc": [1, 2], "upper": [2]}, regions_class_order=[1, 2]
    )
    write_dataset(regions, 502, "Regions", n_processes=1)
    plan(run_command, 502, "2d")
    configure(
        "502",
        "2d",
        "tiny_2d",
        "plan.patch_size=32,32",
        "plan.features_per_stage=4,8,8",
        "multidomain.domain=first",
        *SCHEDULE,
        *SMALL,
    )
    return SimpleNamespace(id="502", results=environment.results / "Dataset502_Regions")


@pytest.fixture(scope="session")
def joints(environment, run_command, tmp_path_factory):
    """Dataset 503: two domains with labels, of other structures each, and one that both have; as `spine` otherwise."""
    from nnunet_da.raw_dataset import Case, Conversion, write_dataset

    study = tmp_path_factory.mktemp("study") / "joints"
    scanners = SCANNERS[:2]
    write_study(study, scanners, 3, 2, labelled=scanners, n_test=1, size=SIZE, numbered=True)
    # L5-S1 in both, the discs above it as a structure of each domain's own.
    values = {
        scanners[0]: {1: 1, **dict.fromkeys(range(2, 10), 2)},
        scanners[1]: {1: 1, **dict.fromkeys(range(2, 10), 3)},
    }
    cases = [
        Case(path.name.removesuffix(".nii.gz"), scanner, None, (), path, values[scanner])
        for scanner in scanners
        for path in sorted((study / scanner / "labels").iterdir())
    ]
    cases = [
        dataclasses.replace(case, images=(study / case.domain / "images" / f"{case.id}_0000.nii.gz",)) for case in cases
    ]
    conversion = Conversion(
        cases,
        ["MR"],
        {"lowest": 1, "first": 2, "second": 3},
        domain_labels={scanners[0]: ("lowest", "first"), scanners[1]: ("lowest", "second")},
    )
    write_dataset(conversion, 503, "Joints", n_processes=1)
    plan(run_command, 503, "2d", "3d_fullres")
    for base, name, patch_size in (("2d", "tiny_2d", "32,32"), ("3d_fullres", "tiny_3d", "8,32,32")):
        changes = (f"plan.patch_size={patch_size}", "plan.features_per_stage=4,8,8")
        configure("503", base, name, *changes, f"multidomain.domain={scanners[0]}", *SCHEDULE)
    return SimpleNamespace(
        id="503",
        name="Dataset503_Joints",
        domains=scanners,
        preprocessed=environment.preprocessed / "Dataset503_Joints",
        results=environment.results / "Dataset503_Joints",
        test=study / "test",
    )


@pytest.fixture
def edited_dataset(spine):
    """``edited_dataset(change)`` lets `change` alter the preprocessed dataset.json; restored after the test."""
    path = spine.preprocessed / "dataset.json"
    kept = path.read_bytes()

    def edit(change):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    yield edit
    path.write_bytes(kept)


@pytest.fixture
def fresh_results(environment):
    """No trained model of any dataset at the start of the test, none left at its end."""

    def clear():
        for folder in environment.results.iterdir():
            shutil.rmtree(folder)

    clear()
    yield
    clear()
