"""The demo: simulate, convert, plan, train two models, predict, evaluate, show."""

import shutil
import time
from pathlib import Path

from nnunet_da.demo.overview import write_overview
from nnunet_da.discovery import activate
from nnunet_da.errors import UserError
from nnunet_da.files import require_free_space
from nnunet_da.phantom.study import write_study
from nnunet_da.workplace import Workplace

DATASET_ID = 999
DATASET = f"Dataset{DATASET_ID}_Demo"
CONFIGURATION = "2d_demo"
SOURCE = "philips_3t"
TARGETS = ("siemens_1p5t", "ge_gre_3t")
# Table 1 of the paper calls them so.
TRAINERS = {"U-Net": "nnUNetTrainerUNet", "t1t2s-int": "nnUNetTrainerIntensityDA"}
N_BYTES = 400e6


def run_demo(
    output, device="cpu", keep=False, *, seed=0, n_cases=10, n_test=3, epochs=10, iterations=100, size=(12, 112, 136)
):
    """Runs the whole job into the folder `output`; run again after an interruption, it goes on where it stopped.

    Leaves overview.html, table.md, table.csv and cases.csv; with `keep`, also ``work`` with data, models and logs.

    Parameters
    ----------
    output : Path
    device : str
    keep : bool
    seed : int
        Of the simulated scans, the weights and the sampling.
    n_cases, n_test : int
        Scans per scanner to train on and to test on.
    epochs, iterations : int
    size : sequence of int, or None
        Voxels of a scan along right, anterior and superior; None: each scanner's own.

    Raises UserError where `output` holds other files, the disk is full, or a command fails.
    """
    output = Path(output)
    work = output / "work"
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not work.exists())):
        raise UserError(f"{output}: exists already; choose another folder with -o, or remove it")
    require_free_space(output, N_BYTES, "the demo")
    start = time.monotonic()
    activate()
    place = Workplace(work, device)
    study, predictions, report = work / "study", work / "predictions", work / "report"
    scanners = (SOURCE, *TARGETS)

    place.step(
        "simulate",
        f"Simulating {len(scanners)} scanners: {SOURCE} with labels; {', '.join(TARGETS)} without",
        lambda: _simulate(study, scanners, n_cases, n_test, seed, size),
    )
    place.step(
        "convert",
        "Making one multi-domain dataset of them",
        lambda: place.run(
            *("nnunet-da", "convert", "manifest", study / "cases.csv", "-d", DATASET_ID, "--name", "Demo"),
            *("--labels", "disc=1", "--channels", "MR", "-np", 2, "--overwrite"),
        ),
    )
    place.step(
        "plan",
        "Planning and preprocessing",
        lambda: place.run("nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-c", "2d", "-npfp", 2, "-np", 2),
    )
    settings = {"num_epochs": epochs, "num_iterations_per_epoch": iterations, "num_val_iterations_per_epoch": 2}
    settings |= {"seed": seed, "plan.features_per_stage": "16,32,64,64", "plan.batch_size": 4}
    assignments = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    place.step(
        "configure",
        "Writing a small configuration",
        lambda: place.run(
            *("nnunet-da", "configure", "-d", DATASET_ID, "-c", "2d", "--as", CONFIGURATION, "--preset", "cpu"),
            *assignments,
        ),
    )
    for model, trainer in TRAINERS.items():
        place.step(
            f"train_{model}", f"Training {model} on {SOURCE}", lambda trainer=trainer: _train(place, trainer, epochs)
        )
    for model, trainer in TRAINERS.items():
        place.step(
            f"predict_{model}",
            f"Predicting unseen scans of every scanner with {model}",
            lambda model=model, trainer=trainer: _predict(
                place, study / "test", predictions / model, trainer, n_test * len(scanners)
            ),
        )
    place.step(
        "evaluate",
        "Evaluating",
        lambda: place.run(
            *("nnunet-da", "evaluate", "-g", study / "test" / "labels", "-d", DATASET_ID, "-o", report),
            *("--cases", study / "test" / "cases.csv"),
            *(word for model in TRAINERS for word in ("--pred", f"{model}={predictions / model}")),
        ),
    )
    print((report / "table.md").read_text(encoding="utf-8"))
    write_overview(
        output / "overview.html",
        scanners=scanners,
        source=SOURCE,
        test_folder=study / "test",
        predictions={model: predictions / model for model in TRAINERS},
        report_folder=report,
        pretext_curves=_fold_folder(place, TRAINERS["t1t2s-int"]) / "pretext.png",
    )
    for name in ("table.md", "table.csv", "cases.csv"):
        shutil.copyfile(report / name, output / name)
    if not keep:
        shutil.rmtree(work)
    print(f"{output / 'overview.html'} shows the segmentations. {(time.monotonic() - start) / 60:.1f} minutes.")


def _fold_folder(place, trainer):
    return place.folder / "nnUNet_results" / DATASET / f"{trainer}__nnUNetPlans__{CONFIGURATION}" / "fold_0"


def _train(place, trainer, epochs):
    resume = ["--c"] if _fold_folder(place, trainer).exists() else []
    place.run(
        *("nnUNetv2_train", DATASET_ID, CONFIGURATION, 0, "-tr", trainer, "-device", place.device, *resume),
        count=r"Epoch time:",
        total=epochs,
        nnUNet_n_proc_DA="0" if place.device == "cpu" else "1",
    )


def _simulate(study, scanners, n_cases, n_test, seed, size):
    """Writes the study, after removing what an interrupted one may have left."""
    shutil.rmtree(study, ignore_errors=True)
    write_study(study, scanners, n_cases, seed, labelled=[SOURCE], n_test=n_test, size=size, progress=True)


def _predict(place, test_folder, output, trainer, n_scans):
    place.run(
        *("nnUNetv2_predict", "-d", DATASET_ID, "-c", CONFIGURATION, "-f", 0, "-tr", trainer),
        *("-i", test_folder / "images", "-o", output, "-npp", 1, "-nps", 1, "-device", place.device),
        count=r"^done with ",
        total=n_scans,
    )
