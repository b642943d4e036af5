"""How much of the gap between a source's labels and the target's own is closed without the latter.

    python benchmarks/close_the_gap.py ../shared/data WORK --tasks fat-opp vb2-vb3 --tested dev
    python benchmarks/close_the_gap.py ../shared/data WORK --arms adapted "source only" --seeds 1 2 3 --tested test

A task is a source with labels and a target without; its arms are trained on the same scans with the same plan, split
and number of steps. Of *supervised on target* the labels are the target's, and the cases `dev` are held out, as those
of the source are in the other arms. Gap closed = Σ (arm − source only) / Σ (supervised on target − source only) of the
mean Dice on the target, over the tasks whose gap is at least 0.1. Run again, it goes on.
"""

import argparse
import shutil
from functools import partial
from pathlib import Path

import cross_modality
import pandas
from cross_modality import discs, spines

from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file
from nnunet_da.study.declarations import Model, Task
from nnunet_da.study.runner import run_study
from nnunet_da.study.tables import read_results

UNET, ADAPT = "nnUNetTrainerUNet", "nnUNetTrainerAdapt"
SOURCE_ONLY, SUPERVISED = "source only", "supervised on target"
SCHEDULE = {"num_iterations_per_epoch": 50, "num_val_iterations_per_epoch": 5, "save_every": 1}
CROPS = {
    **SCHEDULE,
    "num_epochs": 8,
    "plan.patch_size": "32,32,24",
    "plan.batch_size": 4,
    "plan.features_per_stage": "16,32,64",
}
SPINES = {
    **SCHEDULE,
    "num_epochs": 10,
    "plan.patch_size": "192,192",
    "plan.batch_size": 6,
    "plan.features_per_stage": "16,32,64,128",
}
# Pair → what of `cross_modality` reads its scans, the structure, the configuration and its settings, dataset ids.
PAIRS = {
    "vb2-vb3": (spines, "vertebra", "2d", SPINES, 201),
    "vb3-vb2": (spines, "vertebra", "2d", SPINES, 202),
    "fat-opp": (discs, "disc", "3d_fullres", CROPS, 203),
    "opp-fat": (discs, "disc", "3d_fullres", CROPS, 204),
    "inn-fat": (discs, "disc", "3d_fullres", CROPS, 205),
    "fat-inn": (discs, "disc", "3d_fullres", CROPS, 206),
}
# Ids of the same scans with the target's labels.
SUPERVISED_IDS = 10
# The cases `dev` of these alone may decide what the recipe is.
DEVELOPMENT = ("vb2-vb3", "fat-opp")
SMALLEST_GAP = 0.1

RANDOMISATION, TEACHER, CHECK = (f"adaptation.{name}" for name in ("randomisation", "teacher", "check"))
NO_TEACHER = {f"{TEACHER}.weight": 0, "adaptation.weights": "student", f"{CHECK}.choose": "last"}
CONVOLUTIONS = dict.fromkeys((f"{RANDOMISATION}.{name}" for name in ("monotone", "free", "inversion", "bias")), 0)
ARMS = (
    Model(SOURCE_ONLY, UNET, baseline=True),
    Model(SUPERVISED, UNET),
    Model("intensity pretext", "nnUNetTrainerIntensityDA", {"pretext.update": "joint", "pretext.weight": 0.1}),
    Model("GIN", ADAPT, {**NO_TEACHER, **CONVOLUTIONS, f"{RANDOMISATION}.resolution": 0, f"{RANDOMISATION}.noise": 0}),
    Model("maps", ADAPT, {**NO_TEACHER, f"{RANDOMISATION}.convolution": 0}),
    Model("randomisation", ADAPT, NO_TEACHER),
    Model("mean teacher", ADAPT, {f"{RANDOMISATION}.probability": 0, f"{TEACHER}.strength": 0, f"{TEACHER}.views": 1}),
    Model("adapted", ADAPT),
    Model("adapted, one view", ADAPT, {f"{TEACHER}.views": 1}),
    Model("adapted, one threshold", ADAPT, {f"{TEACHER}.keep": 1e-6}),
    Model("adapted, last epoch", ADAPT, {f"{CHECK}.choose": "last"}),
)


def tasks_of(name, data):
    """The task with the source's labels, and that with the target's; the dataset ids differ, the scans do not."""
    scans, structure, configuration, settings, number = PAIRS[name]
    source, target = name.split("-")
    pair = cross_modality.Task(scans, source, target, structure, {})
    held_out = {case for domain in (source, target) for case, *_ in scans(data, domain)["dev"]}
    common = {
        "labels": (f"{structure}=1",),
        "channels": ("MR",),
        "configuration": configuration,
        "settings": settings,
        "folds": partial(hold_out, cases=held_out),
    }
    camel = "".join(part.capitalize() for part in (source, target))
    return (
        Task(name=camel, write=partial(write, pair), dataset_id=number, **common),
        Task(
            name=f"{camel}Supervised",
            write=partial(write, pair, supervised=True),
            dataset_id=number + SUPERVISED_IDS,
            **common,
        ),
    )


def write(pair, data, folder, supervised=False):
    """The scans of a task; `supervised`: those of the target have labels, and those of the source have none."""
    cross_modality.write_scans(pair, data, folder)
    if supervised:
        shutil.copyfile(folder / "supervised.csv", folder / "cases.csv")


def hold_out(domains, cases):
    """One split of the labelled cases (Domains), which holds out `cases`."""
    labelled = domains.labelled_cases
    return [
        {
            "train": [case for case in labelled if case not in cases],
            "val": [case for case in labelled if case in cases],
        }
    ]


def scores(results):
    """Mean Dice by task, model and seed (DataFrame), columns ``source`` and ``target``; a case counts once."""
    pairs = results["task"].str.split("-", expand=True)
    sides = pandas.Series("other", index=results.index)
    for side, column in (("source", 0), ("target", 1)):
        sides[results["domain"] == pairs[column]] = side
    by_case = results.assign(side=sides).groupby(["task", "model", "seed", "side", "case"], sort=False)["dsc"].mean()
    return by_case.groupby(["task", "model", "seed", "side"], sort=False).mean().unstack("side")


def gap_closed(values, model):
    """Share of the gap (float) that `model` closes over the tasks that have it and both bounds, and these tasks (list).

    `values`: Dice on the target, by (task, model), the mean over seeds. NaN where no gap is as large as SMALLEST_GAP.
    """
    table = values.unstack("model")
    needed = [SOURCE_ONLY, SUPERVISED, model]
    if any(name not in table for name in needed):
        return float("nan"), []
    table = table.dropna(subset=list(dict.fromkeys(needed)))
    gaps = table[SUPERVISED] - table[SOURCE_ONLY]
    wide = gaps >= SMALLEST_GAP
    if not wide.any():
        return float("nan"), []
    gained = (table[model] - table[SOURCE_ONLY])[wide].sum()
    return float(gained / gaps[wide].sum()), list(table.index[wide])


def table_of(results):
    """The table (Markdown) of one set: Dice on target and source per task, and the gap closed."""
    found = scores(results).groupby(["task", "model"], sort=False).mean()
    seeds = results.groupby("model", sort=False)["seed"].nunique()
    tasks = list(dict.fromkeys(results["task"]))
    order = {model.name: place for place, model in enumerate(ARMS)}
    models = sorted(seeds.index, key=order.get)
    lines = [
        "| Arm | Seeds | " + " | ".join(f"{task}: target (source)" for task in tasks) + " | Gap closed | Of tasks |",
        "| --- | ---: |" + " ---: |" * len(tasks) + " ---: | --- |",
    ]
    for model in models:
        cells = []
        for task in tasks:
            known = (task, model) in found.index
            cells.append("{target:.3f} ({source:.3f})".format(**found.loc[(task, model)]) if known else "–")
        share, of_tasks = gap_closed(found["target"], model)
        cells += [f"{100 * share:.0f} %" if of_tasks else "–", ", ".join(of_tasks) or "–"]
        lines.append(f"| {model} | {seeds[model]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def collect(pairs, arms, work, tested):
    """The results (DataFrame) of what is evaluated, both tasks of a pair under its name."""
    frames = []
    for name, (task, ceiling) in pairs.items():
        for of_pair, models in ((task, of_source(arms)), (ceiling, of_target(arms))):
            frame = read_results([of_pair], models, work)
            frames += [] if frame.empty else [frame[frame["set"] == tested].assign(task=name)]
    frames = [frame for frame in frames if not frame.empty]
    if not frames:
        raise UserError(f"{work}: nothing is evaluated on '{tested}' yet")
    return pandas.concat(frames, ignore_index=True)


def of_source(arms):
    return [arm for arm in arms if arm.label != SUPERVISED]


def of_target(arms):
    return [arm for arm in arms if arm.label == SUPERVISED]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the scans")
    parser.add_argument("work", type=Path, help="folder of the study; run again, it goes on")
    parser.add_argument("--tasks", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="TASK", help="default: all")
    names = [arm.name for arm in ARMS]
    parser.add_argument("--arms", nargs="+", choices=names, default=names, metavar="ARM", help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="N", help="default: 1")
    parser.add_argument("--tested", choices=["dev", "test"], default="dev", help="which scans; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once; they share the cores (1)")
    parser.add_argument("--collect", action="store_true", help="run nothing; write the table of what is done")
    parser.add_argument("-device", choices=["cpu", "cuda", "mps"], default="cpu")
    arguments = parser.parse_args()
    data, work = arguments.data.absolute(), arguments.work.absolute()
    arms = [seeded(arm, arguments.seeds) for arm in ARMS if arm.name in arguments.arms]
    try:
        pairs = {name: tasks_of(name, data) for name in arguments.tasks}
        if not arguments.collect:
            how = {"device": arguments.device, "jobs": arguments.jobs, "sets": [arguments.tested]}
            for task, ceiling in pairs.values():
                for of_pair, models in ((task, of_source(arms)), (ceiling, of_target(arms))):
                    if models:
                        run_study([of_pair], models, data, work, **how)
        results = collect(pairs, arms, work, arguments.tested)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    text = table_of(results)
    with atomic_file(work / f"{arguments.tested}.csv") as temporary:
        results.to_csv(temporary, index=False)
    with atomic_file(work / f"{arguments.tested}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def seeded(arm, seeds):
    """The arm with these seeds, under a name that is part of file names."""
    return Model(slug(arm.name), arm.trainer, arm.settings, tuple(seeds), baseline=arm.baseline, row=arm.name)


def slug(name):
    return name.replace(",", "").replace(" ", "-")


if __name__ == "__main__":
    main()
