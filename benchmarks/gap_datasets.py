"""Datasets of `close_the_gap` that models make: sources translated to their target, and targets with pseudo-labels.

Each stands in the folder of the task that is trained on it, and is made once; what `nnunet_da.study` would do to
prepare that task otherwise is marked as done.
"""

import shutil
from functools import partial

from nnunet_da.domains import read_domains
from nnunet_da.files import read_json
from nnunet_da.splits import write_splits
from nnunet_da.study.declarations import runs_of
from nnunet_da.study.runner import run_study
from nnunet_da.workplace import Workplace

# The dataset that a CycleGAN learns from, in the folder of the task with translated scans; and its configuration.
UNTRANSLATED, UNTRANSLATED_NAME = 290, "Untranslated"
TRANSLATION, CYCLE_GAN = "2d_translation", "nnUNetTrainerCycleGAN"
# Flags of `nnunet-da pseudo-label` beside its defaults.
PSEUDO_LABELS = ()


def prepare_translated(task, plain, settings, data, work, device):
    """The dataset of `task`: that of `plain`, and the labelled scans of its source translated as well.

    `settings`: of the CycleGAN (dict). It learns from the training cases of `plain`'s split, with their labels.
    """
    folder = work / task.name
    place = Workplace(folder, device)
    name = f"Dataset{UNTRANSLATED}_{UNTRANSLATED_NAME}"
    place.step("data", f"{task.name}: writing the scans", partial(plain.write, data, folder / "data"))
    place.step("untranslated", "converting", partial(_convert, place, plain))
    place.step("split", "holding out", partial(_split, plain, folder, name))
    place.step(
        "plan_translation",
        "planning in 2D",
        lambda: place.run("nnUNetv2_plan_and_preprocess", "-d", UNTRANSLATED, "-c", "2d", "-npfp", 2, "-np", 2),
    )
    place.step("configure_translation", "configuring", partial(_configure, place, settings))
    results = folder / "nnUNet_results" / name / f"{CYCLE_GAN}__nnUNetPlans__{TRANSLATION}" / "fold_0"
    place.step("translation", "learning to translate", partial(_train, place, results))
    place.step(
        "convert",
        "translating",
        lambda: place.run(
            *("nnunet-da", "translate", "-d", UNTRANSLATED, "-c", TRANSLATION, "-f", 0, "--as", task.dataset_id),
            *("--name", task.name, "--keep-source", "--overwrite", "-device", device),
        ),
    )


def _convert(place, plain):
    place.run(
        *("nnunet-da", "convert", "manifest", place.folder / "data" / "cases.csv", "-d", UNTRANSLATED),
        *("--name", UNTRANSLATED_NAME, "--labels", *plain.labels, "--channels", *plain.channels, "--overwrite"),
    )


def _split(plain, folder, name):
    domains = read_domains(read_json(folder / "nnUNet_raw" / name / "dataset.json"))
    write_splits(plain.folds(domains), folder / "nnUNet_preprocessed" / name)


def _configure(place, settings):
    words = (word for key, value in settings.items() for word in ("--set", f"{key}={value}"))
    place.run(
        *("nnunet-da", "configure", "-d", UNTRANSLATED, "-c", "2d", "--as", TRANSLATION, "--preset", "cpu"), *words
    )


def _train(place, results):
    begun = (results / "checkpoint_latest.pth").exists()
    place.run(
        *("nnUNetv2_train", UNTRANSLATED, TRANSLATION, 0, "-tr", CYCLE_GAN, "-device", place.device),
        *(["--c"] if begun else []),
        # Worker processes would cost more than they give where they share the cores with the training.
        **({"nnUNet_n_proc_DA": "0"} if place.device == "cpu" else {}),
    )


def prepare_pseudo_labelled(task, labelled, model, data, work, device):
    """The dataset of `task`: that of `labelled`, whose unlabelled scans have what `model` finds as pseudo-labels.

    `labelled`: a prepared Task. `model`: a Model of one seed, trained on it before where it is not yet.
    """
    run_study([labelled], [model], data, work, device=device, sets=[])
    (run,) = runs_of(labelled, [model], work / labelled.name)
    folder, others = work / task.name, work / labelled.name
    place = Workplace(folder, device)
    raw = others / "nnUNet_raw" / labelled.dataset
    scans, predictions = folder / "unlabelled", folder / "predictions"
    place.step(
        "data",
        f"{task.name}: the scans of {labelled.name}",
        lambda: shutil.copytree(others / "data", folder / "data", dirs_exist_ok=True),
    )
    place.step(
        "labelled",
        "its dataset",
        lambda: shutil.copytree(raw, folder / "nnUNet_raw" / labelled.dataset, dirs_exist_ok=True),
    )
    place.step("unlabelled", "unlabelled scans", partial(_copy_unlabelled, raw, scans))
    place.step(
        "pseudo_labels",
        "predicting them",
        lambda: place.run(
            *("nnUNetv2_predict", "-d", labelled.dataset_id, "-c", run.configuration, "-f", run.fold),
            *("-tr", model.trainer, "-i", scans, "-o", predictions, "--save_probabilities", "-npp", 1, "-nps", 1),
            *("-device", device),
            nnUNet_results=str(others / "nnUNet_results"),
        ),
    )
    place.step(
        "convert",
        "pseudo-labels",
        lambda: place.run(
            *("nnunet-da", "pseudo-label", "-d", labelled.dataset_id, "--predictions", predictions),
            *("--as", task.dataset_id, "--name", task.name, "--overwrite", "-np", 1),
            *PSEUDO_LABELS,
        ),
    )


def _copy_unlabelled(raw, output):
    output.mkdir(parents=True, exist_ok=True)
    for case in read_domains(read_json(raw / "dataset.json")).unlabelled_cases:
        for path in (raw / "imagesTr").glob(f"{case}_[0-9][0-9][0-9][0-9].*"):
            shutil.copyfile(path, output / path.name)
