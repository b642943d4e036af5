"""The segmentation network of the disc paper on real spines: vb2, whose vertebrae stand for discs.

    python benchmarks/discs_spine.py ../shared/data WORK

Two tasks with the same scans, plan and number of steps. SpineWhole: the networks learn from whole scans. SpineInRegion:
the loss outside the predicted spine region is ignored, and what is predicted outside is background; the region comes
from `nnUNetTrainerSpineRegion`, out of fold for training scans, and of fold 0 for test scans. Models: nnU-Net's own 2D
plan, dense ASPP with focal loss, and with cross-entropy throughout. `nnunet_da.study` does the runs. Test cases alone
are evaluated: nothing was chosen on others.
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from spine_vb import SOURCE, read_cases, write_manifest, write_set

from nnunet_da.files import read_json
from nnunet_da.splits import FILE_NAME
from nnunet_da.study.command import main
from nnunet_da.study.declarations import Model, Task
from nnunet_da.workplace import Workplace

SCHEDULE = {"num_epochs": 10, "num_iterations_per_epoch": 50, "num_val_iterations_per_epoch": 5}
PLAN = {"plan.patch_size": "128,128"}
# The datasets that the region is learnt from and with, in the folder of the task that uses it.
LABELLED, REGION = 111, 112
REGION_CONFIGURATION = "2d_region"
REGION_TRAINER = "nnUNetTrainerSpineRegion"


def write_vb2(data, work):
    """Writes WORK/cases.csv of vb2's training cases, and its test cases as WORK/test."""
    write_set(data, work / "test", read_cases(data, "test", [SOURCE]))
    write_manifest(data, work, read_cases(data, "train", [SOURCE]), [SOURCE])


def restrict(place, task_folder, name, predictions, output):
    """Sets what a run predicted outside the region of a set of scans to background."""
    regions = task_folder / "regions" / name
    place.run("nnunet-da", "restrict", "-i", predictions, "--regions", regions, "-o", output, "-np", 1)


TASK = Task(
    name="SpineWhole",
    write=write_vb2,
    dataset_id=110,
    labels=("vertebra=1",),
    channels=("MR",),
    sets=("test",),
    settings={**SCHEDULE, **PLAN},
    slices=True,
)
REGION_TASK = replace(TASK, name="SpineInRegion", dataset_id=113, restrict=restrict)
SEEDS = (1, 2)
# A network that two cores train in minutes; cross-entropy before focal loss for a fifth of the epochs.
SMALL = {"dense_aspp.growth": 8, "dense_aspp.layers": 2, "dense_aspp.aspp_growth": 16, "focal.ce_epochs": 2}
MODELS = (
    Model("nnU-Net", "nnUNetTrainerUNet", seeds=SEEDS, baseline=True),
    Model("dense-ASPP-focal", "nnUNetTrainerDenseASPP", SMALL, seeds=SEEDS),
    Model("dense-ASPP-CE", "nnUNetTrainerDenseASPP", {**SMALL, "focal.loss": "ce"}, seeds=SEEDS),
)


def prepare_region(data, work, device="cpu"):
    """Makes the dataset of REGION_TASK: the region is learnt, predicted out of fold, and what is outside ignored.

    It marks as done what `nnunet_da.study` would do to prepare the task otherwise.
    """
    folder = Path(work).absolute() / REGION_TASK.name
    place = Workplace(folder, device, nnUNet_n_proc_DA="0" if device == "cpu" else "12")
    model = folder / "nnUNet_results" / f"Dataset{REGION}_Region"
    model = model / f"{REGION_TRAINER}__nnUNetPlans__{REGION_CONFIGURATION}"
    written = folder / "data"
    place.step("data", "writing the scans", partial(write_vb2, Path(data).absolute(), written))
    place.step("labelled", "converting", partial(_convert, place, written))
    place.step("region", "the region's dataset", partial(_region, place))
    splits = read_json(folder / "nnUNet_preprocessed" / f"Dataset{REGION}_Region" / FILE_NAME)
    for fold in range(len(splits)):
        place.step(f"region_{fold}", f"the region, fold {fold}", partial(_train, place, model, fold))
    for name in REGION_TASK.sets:
        scans = written / name / "images"
        place.step(
            f"regions_{name}", f"the region of {name}", partial(_predict, place, scans, folder / "regions" / name)
        )
    validated = [model / f"fold_{fold}" / "validation" for fold in range(len(splits))]
    place.step("convert", "labels inside the region", partial(_within, place, validated))


def _convert(place, written):
    place.run(
        *("nnunet-da", "convert", "manifest", written / "cases.csv", "-d", LABELLED, "--name", "Labelled"),
        *("--labels", *TASK.labels, "--channels", *TASK.channels, "--overwrite"),
    )


def _region(place):
    place.run(
        *("nnunet-da", "disc-dataset", "-d", LABELLED, "--as", REGION, "--name", "Region"),
        *("--labels", "spine-region", "--overwrite"),
    )
    place.run(*("nnUNetv2_plan_and_preprocess", "-d", REGION, "-c", "2d", "-npfp", 2, "-np", 2), nnUNet_n_proc_DA="1")
    settings = [word for key, value in {**SCHEDULE, **PLAN, "seed": 1}.items() for word in ("--set", f"{key}={value}")]
    place.run(
        *("nnunet-da", "configure", "-d", REGION, "-c", "2d", "--as", REGION_CONFIGURATION, "--preset", "cpu"),
        *settings,
    )


def _train(place, model, fold):
    begun = (model / f"fold_{fold}" / "checkpoint_latest.pth").exists()
    place.run(
        *("nnUNetv2_train", REGION, REGION_CONFIGURATION, fold, "-tr", REGION_TRAINER, "-device", place.device),
        *(["--c"] if begun else []),
    )


def _predict(place, scans, output):
    place.run(
        *("nnUNetv2_predict", "-d", REGION, "-c", REGION_CONFIGURATION, "-f", 0, "-tr", REGION_TRAINER),
        *("-i", scans, "-o", output, "-npp", 1, "-nps", 1, "-device", place.device),
        nnUNet_n_proc_DA="1",
    )


def _within(place, validated):
    place.run(
        *("nnunet-da", "disc-dataset", "-d", LABELLED, "--as", REGION_TASK.dataset_id, "--name", REGION_TASK.name),
        *("--labels", "discs-in-region", "--regions", *validated, "--overwrite"),
    )


if __name__ == "__main__":
    if len(sys.argv) > 2 and "--collect" not in sys.argv:
        device = sys.argv[sys.argv.index("-device") + 1] if "-device" in sys.argv else "cpu"
        prepare_region(*sys.argv[1:3], device)
    main([TASK, REGION_TASK], MODELS, description=__doc__)
