"""Translation and self-training on real scans: from a contrast with labels to one without.

    python benchmarks/cross_modality.py ../shared/data WORK --tasks fat-opp opp-fat --seeds 1 2
    python benchmarks/cross_modality.py ../shared/data WORK --tasks vb2-vb3 --seeds 1
    python benchmarks/cross_modality.py ../shared/data WORK --tasks fat-opp --seeds 1 --without-segmenters
    python benchmarks/cross_modality.py ../shared/data WORK --tasks fat-opp --seeds 1 --tested dev

Each task and seed is one `nnunet-da self-train`, whose report compares the stages, and the ceiling beside it: the same
trainings on the target's own labels. All arms have the same configurations, folds and number of steps; pseudo-labelled
scans are additional training cases, not additional steps. Run again, it goes on.
"""

import argparse
import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pandas
from scipy import ndimage
from spine_vb import write_csv

from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file, read_json, write_json
from nnunet_da.study.tables import differences, tables
from nnunet_da.workflow.run_file import RUN_FILE
from nnunet_da.workplace import Workplace

SOURCE_ID, SUPERVISED_ID = 120, 180
SUPERVISED = "supervised"
# The arms of the report of `nnunet-da self-train`: arm → its predictions.
ARMS = {"source only": "source_only", "translation": "translation", "self-training": "self_training_round_1"}
TRAINER = "nnUNetTrainerUNet"
COLUMNS = ("case", "domain", "subject", "image", "label")


@dataclass(frozen=True)
class Task:
    """From the domain `source` to `target`.

    Attributes
    ----------
    scans : callable
        Called with the folder of the scans and a domain: the part of splits.json → rows (COLUMNS).
    structure : str
    configurations : dict
        Configuration → settings of its trainings.
    translation : dict
        Settings of the CycleGAN.
    """

    scans: Callable
    source: str
    target: str
    structure: str
    configurations: dict
    translation: dict = field(default_factory=dict)


def discs(data, contrast):
    """The crops of IVDM3Seg in one contrast."""
    splits, folder = read_splits(data, "ivdm3seg_crops"), data / "ivdm3seg_crops"
    subject_of = read_column(folder, "subject")
    return {
        part: [
            (
                f"{contrast}_{case}",
                contrast,
                subject_of[case],
                folder / contrast / f"{case}.nii.gz",
                label_of(folder, case),
            )
            for case in cases
        ]
        for part, cases in splits.items()
    }


def spines(data, domain):
    """The vertebral bodies of one source."""
    splits, folder = read_splits(data, "spine_vb")[domain], data / "spine_vb"
    subject_of = read_column(folder, "subject")
    return {
        part: [
            (case, domain, subject_of[case], folder / "images" / f"{case}.nii.gz", label_of(folder, case))
            for case in cases
        ]
        for part, cases in splits.items()
    }


def read_splits(data, name):
    return json.loads((data / "splits.json").read_text(encoding="utf-8"))[name]


def read_column(folder, column):
    with open(folder / "cases.csv", newline="", encoding="utf-8") as stream:
        return {row["case"]: row[column] for row in csv.DictReader(stream)}


def label_of(folder, case):
    return folder / "labels" / f"{case}.nii.gz"


SCHEDULE = {"num_epochs": 8, "num_iterations_per_epoch": 50, "num_val_iterations_per_epoch": 5, "save_every": 1}
# In 3D alone: a crop has 25 × 35 pixels in plane, of which a 2D network learns little in as many steps.
CROPS = {
    "3d_fullres": {
        **SCHEDULE,
        "plan.patch_size": "32,32,24",
        "plan.batch_size": 4,
        "plan.features_per_stage": "16,32,64",
    }
}
SPINE = {"2d": {**SCHEDULE, "plan.patch_size": "160,160"}}
# Of the trainings in every arm; each holds out other subjects.
FOLDS = (0, 1)
# With the paper's weights the discriminators of so few and small slices win, and discs stay as they were.
TRANSLATE_CROPS = {
    "num_epochs": 20,
    "num_iterations_per_epoch": 150,
    "num_val_iterations_per_epoch": 5,
    "plan.patch_size": "28,36",
    "plan.batch_size": 2,
    "translation.features": "16,32,64",
    "translation.discriminator_features": 16,
    "translation.discriminator_layers": 2,
    "translation.lr": 0.0005,
    "translation.weight_adversarial": 5,
    "translation.weight_kspace": 2,
    "translation.weight_identity": 1,
    "translation.weight_segmentation": 20,
    "translation.segment_fakes_after": 3,
    "translation.final_lr": 0.1,
}
TRANSLATE_SPINE = {**TRANSLATE_CROPS, "plan.patch_size": "128,128"}
TASKS = {
    "fat-opp": Task(discs, "fat", "opp", "disc", CROPS, TRANSLATE_CROPS),
    "opp-fat": Task(discs, "opp", "fat", "disc", CROPS, TRANSLATE_CROPS),
    "vb2-vb3": Task(spines, "vb2", "vb3", "vertebra", SPINE, TRANSLATE_SPINE),
}


def write_scans(task, data, folder):
    """Writes manifests into `folder`, with the labels of the source and with those of the target; and the test sets.

    The scans `dev` are training scans too, without labels but for the ceiling, which dev says nothing about.
    """
    data = data.resolve()
    rows = [task.scans(data, domain) for domain in (task.source, task.target)]
    for name, labelled in (("cases.csv", task.source), ("supervised.csv", task.target)):
        lines = [
            (case, domain, subject, image, label if domain == labelled else "")
            for parts in rows
            for case, domain, subject, image, label in parts["train"]
        ]
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / name, ["case", "domain", "subject", "image_0000", "label"], lines)
    for part in ("dev", "test"):
        tested = [row for parts in rows for row in parts[part]]
        for kind in ("images", "labels"):
            (folder / part / kind).mkdir(parents=True, exist_ok=True)
        for case, _, _, image, label in tested:
            shutil.copyfile(image, folder / part / "images" / f"{case}_0000.nii.gz")
            shutil.copyfile(label, folder / part / "labels" / f"{case}.nii.gz")
        write_csv(folder / part / "cases.csv", ["case", "domain"], [row[:2] for row in tested])


def config_of(task, seed, tested, weight_segmentation):
    """The config of `nnunet-da self-train`, a dict; JSON is YAML."""
    translation = {**task.translation, "seed": seed}
    if weight_segmentation is not None:
        translation["translation.weight_segmentation"] = weight_segmentation
    return {
        "work": "self_training",
        "preset": "cpu",
        "source_only": weight_segmentation is None,
        "data": {
            "dataset": SOURCE_ID,
            "convert": "manifest",
            "raw": "scans/cases.csv",
            "name": "Crossing",
            "options": {"labels": [f"{task.structure}=1"], "channels": ["MR"]},
        },
        "translation": {"settings": translation},
        "segmentation": {"configurations": task.configurations, "folds": FOLDS, "settings": {"seed": seed}},
        "ensemble": dict.fromkeys(task.configurations, len(FOLDS)),
        "test": {name: f"scans/{tested}/{name}" for name in ("images", "labels")}
        | {"cases": f"scans/{tested}/cases.csv"},
    }


def supervised(task, seed, place, scans, tested):
    """The ceiling: trains on the target's labels, predicts the scans `tested` into the folder that it returns."""
    name = "Ceiling"
    place.step(
        "convert",
        "converting with the target's labels",
        lambda: place.run(
            *("nnunet-da", "convert", "manifest", scans / "supervised.csv", "-d", SUPERVISED_ID, "--name", name),
            *("--labels", f"{task.structure}=1", "--channels", "MR", "--overwrite"),
        ),
    )
    planned = list(task.configurations)
    place.step(
        "plan",
        "planning",
        lambda: place.run(
            *("nnUNetv2_plan_and_preprocess", "-d", SUPERVISED_ID, "-c", *planned, "-npfp", 2),
            *("-np", *[2] * len(planned)),
        ),
    )
    members = []
    for base, settings in task.configurations.items():
        configuration, member = f"{base}_ceiling", place.folder / tested / base
        changes = {**settings, "seed": seed}
        words = ("nnunet-da", "configure", "-d", SUPERVISED_ID, "-c", base, "--as", configuration, "--preset", "cpu")
        place.run(*words, *(word for key, value in changes.items() for word in ("--set", f"{key}={value}")))
        results = place.nnunet_folder / "nnUNet_results" / f"Dataset{SUPERVISED_ID}_{name}"
        for fold in FOLDS:
            checkpoint = results / f"{TRAINER}__nnUNetPlans__{configuration}" / f"fold_{fold}" / "checkpoint_latest.pth"
            train = ["nnUNetv2_train", SUPERVISED_ID, configuration, fold, "-tr", TRAINER, "-device", place.device]
            train += ["--c"] if checkpoint.exists() else []
            step = f"train_{base}_{fold}"
            place.step(step, f"training {base}, fold {fold}", partial(place.run, *train, nnUNet_n_proc_DA="0"))
        predict = (
            *("nnUNetv2_predict", "-d", SUPERVISED_ID, "-c", configuration, "-f", *FOLDS, "-tr", TRAINER),
            *("-i", scans / tested / "images", "-o", member, "--save_probabilities", "-npp", 1, "-nps", 1),
            *("-device", place.device),
        )
        place.step(f"predict_{tested}_{base}", f"predicting with {base}", partial(place.run, *predict))
        members.append(member)
    if len(members) == 1:
        return members[0]
    output = place.folder / tested / "ensemble"
    ensemble = ("nnUNetv2_ensemble", "-i", *members, "-o", output, "-np", 2)
    place.step(f"ensemble_{tested}", "averaging", partial(place.run, *ensemble))
    return output


def run(name, seed, data, work, tested, device, segmenters):
    """One task and seed; returns the table of its cases, and that of `contrasts` (DataFrames)."""
    task = TASKS[name]
    folder = (work / f"{name}_s{seed}{'' if segmenters else '_without_segmenters'}").absolute()
    place = Workplace(folder, device, OMP_WAIT_POLICY=os.environ.get("OMP_WAIT_POLICY", "passive"))
    scans = folder / "scans"
    place.step("scans", f"{name}, seed {seed}: writing the scans", lambda: write_scans(task, data, scans))
    file = folder / f"run_{tested}.yaml"
    config = config_of(task, seed, tested, None if segmenters else 0)
    write_json(config, file)
    begun = folder / config["work"] / RUN_FILE
    # The same models on other scans.
    redo = ["--redo", "report"] if begun.exists() and read_json(begun)["config"]["test"] != config["test"] else []
    place.run("nnunet-da", "self-train", file, "-device", device, *redo, nnUNet_n_proc_DA="0")
    predicted = folder / "self_training" / "predictions" / "test"
    arms = {arm: predicted / label for arm, label in ARMS.items() if segmenters or arm != "source only"}
    if segmenters:
        ceiling = Workplace(folder / "supervised", device, nnunet_folder=folder)
        arms[SUPERVISED] = supervised(task, seed, ceiling, scans, tested)
    report = folder / f"report_{tested}"
    place.run(
        *("nnunet-da", "evaluate", "-g", scans / tested / "labels", "-d", SOURCE_ID, "-o", report),
        *("--cases", scans / tested / "cases.csv"),
        *(word for arm, of_arm in arms.items() for word in ("--pred", f"{arm}={of_arm}")),
    )
    of_run = {"task": name if segmenters else f"{name}, without segmenters", "seed": seed}
    results = pandas.read_csv(report / "cases.csv").assign(set=tested, fold=0, **of_run)
    return results, contrasts(folder, task).assign(**of_run)


def contrast(image, structure):
    """How bright a structure is against its surroundings, in standard deviations of the image (float).

    `image`: ndarray (*space). `structure`: bool, alike. The surroundings are what lies two to four voxels around it.
    """
    surroundings = ndimage.binary_dilation(structure, iterations=4) & ~ndimage.binary_dilation(structure)
    return float((image[structure].mean() - image[surroundings].mean()) / image.std())


def contrasts(folder, task):
    """Figure 4 of the paper in numbers: `contrast` in the training scans of a run (DataFrame: scans, case, contrast).

    Of the source as it is and translated, and of the target; its labels are those of the ceiling.
    """
    (translated,) = (folder / "nnUNet_raw").glob(f"Dataset{SOURCE_ID + 1}_*")
    with open(folder / "scans" / "supervised.csv", newline="", encoding="utf-8") as stream:
        of_target = [(row["case"], row["image_0000"], row["label"]) for row in csv.DictReader(stream) if row["label"]]
    with open(folder / "scans" / "cases.csv", newline="", encoding="utf-8") as stream:
        of_source = [(row["case"], row["image_0000"], row["label"]) for row in csv.DictReader(stream) if row["label"]]
    made = [(case, translated / "imagesTr" / f"{case}_0000.nii.gz", label) for case, _, label in of_source]
    kinds = {task.source: of_source, f"{task.source} as {task.target}": made, task.target: of_target}
    return pandas.DataFrame(
        {"scans": scans, "case": case, "contrast": contrast(_voxels(image), _voxels(label) > 0)}
        for scans, files in kinds.items()
        for case, image, label in files
    )


def _voxels(path):
    return np.asarray(nibabel.load(path).dataobj, dtype=np.float32)


def text_of_contrasts(rows):
    """Mean and standard deviation over cases of what `contrasts` gave, by task, seed and scans, as Markdown."""
    lines = ["| Task | Seed | Scans | Cases | Contrast |", "| --- | ---: | --- | ---: | ---: |"]
    for (task, seed, scans), values in rows.groupby(["task", "seed", "scans"], sort=False)["contrast"]:
        lines.append(f"| {task} | {seed} | {scans} | {len(values)} | {values.mean():+.2f} ± {values.std(ddof=1):.2f} |")
    return "\n".join(lines) + "\n"


def before_and_after(results, path):
    """Figure 5 of the paper in numbers: Dice of each target case before and after self-training, a panel per task.

    `results`: DataFrame as of `run`, of several tasks and seeds. Returns whether there was anything to draw.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    before, after = list(ARMS)[1:]
    rows = results[results["domain"] == results["task"].str.split("-").str[-1]]
    values = rows.pivot_table(index=["task", "seed", "case"], columns="model", values="dsc").get([before, after])
    if values is None or (values := values.dropna()).empty:
        return False
    with rc_context({"svg.hashsalt": "nnunet_da", "svg.fonttype": "none", "font.size": 9}):
        names = list(dict.fromkeys(values.index.get_level_values("task")))
        figure = Figure(figsize=(0.6 + 3.0 * len(names), 3.4), layout="constrained")
        for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            for seed, of_seed in values.loc[name].groupby("seed"):
                axis.plot(of_seed[before], of_seed[after], "o", markersize=4, alpha=0.7, label=f"seed {seed}")
            axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, zorder=0)
            axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=name, xlabel=f"Dice, {before}")
            axis.legend(frameon=False, loc="lower right")
        figure.axes[0].set_ylabel(f"Dice, {after}")
        with atomic_file(path) as temporary:
            figure.savefig(temporary, metadata={"Date": None})
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the scans")
    parser.add_argument("work", type=Path, help="folder of the study; run again, it goes on")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK", help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2], metavar="N", help="default: 1 2")
    parser.add_argument("--tested", choices=["dev", "test"], default="test", help="which scans; default: %(default)s")
    parser.add_argument(
        "--without-segmenters", action="store_true", help="a plain CycleGAN, as in the paper's Figure 4"
    )
    parser.add_argument("-device", choices=["cpu", "cuda", "mps"], default="cpu")
    arguments = parser.parse_args()
    of_all = (arguments.tested, arguments.device, not arguments.without_segmenters)
    try:
        found = [
            run(name, seed, arguments.data, arguments.work, *of_all)
            for name in arguments.tasks
            for seed in arguments.seeds
        ]
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    results, of_scans = map(pandas.concat, zip(*found, strict=True))
    texts = {
        "table.md": tables(results),
        "differences.md": differences(results, list(ARMS)),
        "contrast.md": text_of_contrasts(of_scans),
    }
    for name, text in texts.items():
        with atomic_file(arguments.work / f"{arguments.tested}_{name}") as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(text)
    before_and_after(results, arguments.work / f"{arguments.tested}_before_and_after.svg")


if __name__ == "__main__":
    main()
