"""How much of the gap between a source's labels and the target's own is closed without the latter.

    python benchmarks/close_the_gap.py ../shared/data WORK --tasks fat-opp vb2-vb3 --tested dev
    python benchmarks/close_the_gap.py ../shared/data WORK --arms adapted "source only" --seeds 1 2 3 --tested test

A task is a source with labels and a target without; its arms are trained on the same scans with the same plan, split
and number of steps. Of *supervised on target* the labels are the target's, and the cases `dev` are held out, as those
of the source are in the other arms. Gap closed = Σ (arm − source only) / Σ (supervised on target − source only) of the
mean Dice on the target, over the tasks whose gap is at least 0.1. Run again, it goes on.
"""

import argparse
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import cross_modality
import pandas
from cross_modality import discs, spines
from gap_datasets import prepare_pseudo_labelled, prepare_translated

from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file, read_json
from nnunet_da.study import runner
from nnunet_da.study.declarations import Model, Task, runs_of
from nnunet_da.study.scan_sets import read_rows
from nnunet_da.study.tables import read_results
from nnunet_da.workplace import Workplace

UNET, ADAPT, FINETUNE = "nnUNetTrainerUNet", "nnUNetTrainerAdapt", "nnUNetTrainerSSLFinetune"
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
    "plan.patch_size": "128,128",
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
# The cases `dev` of these alone may decide what the recipe is.
DEVELOPMENT = ("vb2-vb3", "fat-opp")
SMALLEST_GAP = 0.1


def of(part, **values):
    """Settings of a part of the adaptation."""
    return {f"adaptation.{part}.{name}": value for name, value in values.items()}


CONVOLUTIONS = of("randomisation", monotone=0, free=0, inversion=0, bias=0, resolution=0, noise=0)
NO_TEACHER = {**of("teacher", weight=0), "adaptation.weights": "student", **of("check", choose="last")}
NO_RANDOMISATION = {**of("randomisation", probability=0), **of("teacher", strength=0, views=1)}
# What a task of a pair is trained on, by the end of its name: the scans of both sides with the source's labels, or with
# the target's; with the source's translations to the target too; and with pseudo-labels of the target as well.
PLAIN, OF_TARGET, TRANSLATED, PSEUDO_LABELLED = "", "Supervised", "Translated", "PseudoLabelled"
TRANSLATION = Model("translation", UNET)
ARMS = {
    PLAIN: (
        Model(SOURCE_ONLY, UNET, baseline=True),
        Model("intensity pretext", "nnUNetTrainerIntensityDA", {"pretext.update": "joint", "pretext.weight": 0.1}),
        Model("pretrained, regression", FINETUNE, pretraining=Model("regression", "nnUNetTrainerSSLRegression")),
        Model("pretrained, contrast", FINETUNE, pretraining=Model("contrast", "nnUNetTrainerSSLContrastive")),
        Model("GIN", ADAPT, {**NO_TEACHER, **CONVOLUTIONS}),
        Model("maps", ADAPT, {**NO_TEACHER, **of("randomisation", convolution=0)}),
        Model("randomisation", ADAPT, NO_TEACHER),
        Model("mean teacher", ADAPT, NO_RANDOMISATION),
        Model("adapted", ADAPT),
        Model("adapted, one view", ADAPT, of("teacher", views=1)),
        Model("adapted, one threshold", ADAPT, of("teacher", keep=1e-6)),
        Model("adapted, last epoch", ADAPT, of("check", choose="last")),
        Model("adapted, a quarter randomised", ADAPT, of("randomisation", probability=0.25)),
        Model("adapted, half randomised", ADAPT, of("randomisation", probability=0.5)),
    ),
    OF_TARGET: (Model(SUPERVISED, UNET),),
    TRANSLATED: (
        TRANSLATION,
        Model("translation, adapted", ADAPT),
        Model("translation, adapted, half randomised", ADAPT, of("randomisation", probability=0.5)),
        Model("translation, mean teacher", ADAPT, of("randomisation", probability=0)),
    ),
    PSEUDO_LABELLED: (
        Model("translation, self-training", "nnUNetTrainerSelfTraining"),
        # Its own head for each domain, of which the target has pseudo-labels.
        Model("translation, heads and contrast", "nnUNetTrainerDSLContrastive", per_domain=True),
    ),
}
# Of the log of a training, what is said of the weights that it ends with; and what is worse than source only.
CHOSE = re.compile(r"checkpoint_final.pth has the weights of (.*)")
WORSE = 0.01
# Of dataset ids, between the tasks of a pair.
STEP_OF_IDS = 10
OF_CYCLE_GAN = {
    discs: cross_modality.TRANSLATE_CROPS,
    spines: {**cross_modality.TRANSLATE_SPINE, "plan.patch_size": "96,96"},
}


def tasks_of(name, data):
    """The tasks of a pair: what they are trained on (a key of ARMS) → Task. Each has a dataset id of its own."""
    scans, structure, configuration, settings, number = PAIRS[name]
    source, target = name.split("-")
    pair = cross_modality.Task(scans, source, target, structure, {})
    held_out = {case for domain in (source, target) for case, *_ in scans(data, domain)["dev"]}
    camel = "".join(part.capitalize() for part in (source, target))
    return {
        kind: Task(
            name=camel + kind,
            write=partial(write, pair, supervised=kind == OF_TARGET) if kind in (PLAIN, OF_TARGET) else None,
            dataset_id=number + place * STEP_OF_IDS,
            labels=(f"{structure}=1",),
            channels=("MR",),
            configuration=configuration,
            settings=settings,
            folds=partial(hold_out, cases=held_out, ending=f"_as_{target}"),
            probabilities=True,
        )
        for place, kind in enumerate(ARMS)
    }


def prepare(name, tasks, kinds, data, work, device):
    """Makes the first dataset of `tasks` (as of `tasks_of`), and of those that models make what `kinds` asks for."""
    runner.prepare(tasks[PLAIN], data, work / tasks[PLAIN].name, device)
    if TRANSLATED in kinds or PSEUDO_LABELLED in kinds:
        settings = {**OF_CYCLE_GAN[PAIRS[name][0]], "seed": 1}
        prepare_translated(tasks[TRANSLATED], tasks[PLAIN], settings, data, work, device)
    if PSEUDO_LABELLED in kinds:
        model = seeded(TRANSLATION, (1,))
        prepare_pseudo_labelled(tasks[PSEUDO_LABELLED], tasks[TRANSLATED], model, data, work, device)


def write(pair, data, folder, supervised=False):
    """The scans of a task; `supervised`: those of the target have labels, and those of the source have none."""
    cross_modality.write_scans(pair, data, folder)
    if supervised:
        shutil.copyfile(folder / "supervised.csv", folder / "cases.csv")


def hold_out(domains, cases, ending):
    """One split of the labelled cases (Domains), which holds out `cases`, and what has their name and the `ending`."""
    held_out = {case for case in domains.labelled_cases if case.removesuffix(ending) in cases}
    return [
        {
            "train": [case for case in domains.labelled_cases if case not in held_out],
            "val": [case for case in domains.labelled_cases if case in held_out],
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
    order = {model.name: place for place, model in enumerate(all_arms())}
    # The two bounds first.
    models = sorted(seeds.index, key=lambda model: (model not in (SOURCE_ONLY, SUPERVISED), order[model]))
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
    """The results (DataFrame) of what is evaluated, all tasks of a pair under its name."""
    frames = []
    for name, tasks in pairs.items():
        for kind, models in arms.items():
            frame = read_results([tasks[kind]], models, work)
            frames += [] if frame.empty else [frame[frame["set"] == tested].assign(task=name)]
    frames = [frame for frame in frames if not frame.empty]
    if not frames:
        raise UserError(f"{work}: nothing is evaluated on '{tested}' yet")
    return pandas.concat(frames, ignore_index=True)


def checks(pairs, arms, work):
    """What the check without labels chose in each run of `nnUNetTrainerAdapt` that is done (DataFrame).

    Columns task, model, seed, and `chose`: what its log says of checkpoint_final.pth.
    """
    rows = []
    for name, tasks in pairs.items():
        for kind, models in arms.items():
            task = tasks[kind]
            adapting = [model for model in models if model.trainer == ADAPT]
            for run in runs_of(task, adapting, work / task.name):
                logs = sorted(run.results(work / task.name).glob("training_log_*.txt"))
                found = [text for log in logs for text in CHOSE.findall(log.read_text(encoding="utf-8"))]
                if found:
                    rows.append({"task": name, "model": run.model.label, "seed": run.seed, "chose": found[-1]})
    return pandas.DataFrame(rows, columns=["task", "model", "seed", "chose"])


def compared_with_source_only(results, chosen):
    """`chosen` (DataFrame as of `checks`) with `gain`, the difference of mean Dice on the target from *source only*.

    That is of the same seed where there is one, else the mean over those that there are; NaN where one of both is not
    evaluated.
    """
    target = scores(results)["target"]
    bases = target.xs(SOURCE_ONLY, level="model") if SOURCE_ONLY in target.index.get_level_values("model") else {}
    means = bases.groupby("task").mean() if len(bases) else {}
    nan = float("nan")
    gains = [
        target.get((row.task, row.model, row.seed), nan) - bases.get((row.task, row.seed), means.get(row.task, nan))
        for row in chosen.itertuples()
    ]
    return chosen.assign(gain=gains)


def text_of_checks(compared):
    """What `compared_with_source_only` holds, as Markdown."""
    fell_back = compared["chose"].str.contains("fell back")
    implausible = compared["chose"].str.contains("plausible")
    below = compared["gain"] < -WORSE
    lines = [
        f"Of {len(compared)} runs {fell_back.sum()} fell back to before the teacher, {implausible.sum()} kept the last "
        f"epoch since none was plausible, and {below.sum()} lie more than {WORSE} below source only on the target.",
        "",
        "| Task | Arm | Seed | Gain on the target | Checkpoint |",
        "| --- | --- | ---: | ---: | --- |",
        *(
            f"| {row.task} | {row.model} | {row.seed} | {row.gain:+.3f} | {row.chose} |"
            for row in compared.itertuples()
        ),
    ]
    return "\n".join(lines) + "\n"


def rank_without_labels(name, tasks, arms, work, tested, seed):
    """How well `nnunet-da select` ranks what adapts in a pair: what it writes (dict), or None for fewer than three."""
    plain, target = tasks[PLAIN], name.split("-")[1]
    rows = [row for row in read_rows(work / plain.name / "data" / tested) if row["domain"] == target]
    folder = work / "selection" / f"{name}_s{seed}_{tested}"
    found = {}
    for kind, models in arms.items():
        for run in runs_of(tasks[kind], models if kind != OF_TARGET else (), work / tasks[kind].name):
            predictions = run.folder(work / tasks[kind].name) / tested
            if run.seed == seed and run.report(work / tasks[kind].name, tested).exists():
                found[run.model.name] = _only(predictions, folder / run.model.name, [row["case"] for row in rows])
    if len(found) < 3:
        return None
    place = Workplace(folder, "cpu", nnunet_folder=work / plain.name)
    place.run(
        *("nnunet-da", "select", "-d", plain.dataset_id, "--pred"),
        *(f"{model}={predictions}" for model, predictions in found.items()),
        *("--labels", work / plain.name / "data" / tested / "labels", "-o", folder / "ranking.json", "-np", 1),
    )
    return read_json(folder / "ranking.json")


def _only(predictions, output, cases):
    """The folder `output`, with what `predictions` holds of `cases` and of all."""
    output.mkdir(parents=True, exist_ok=True)
    for path in predictions.iterdir():
        if path.suffix == ".json" or path.name.split(".")[0] in cases:
            shutil.copyfile(path, output / path.name)
    return output


def text_of_rankings(rankings):
    """Rankings (pair → what `nnunet-da select` wrote) as a Markdown table, an indicator each row."""
    indicators = list(dict.fromkeys(key for ranking in rankings.values() for key in ranking["indicators"]))
    lines = [
        "| Indicator | " + " | ".join(f"{name} ({len(of['ranking'])})" for name, of in rankings.items()) + " |",
        "| --- |" + " ---: |" * len(rankings),
    ]
    for key in indicators:
        cells = [of["indicators"].get(key, {}) for of in rankings.values()]
        numbers = [
            "–" if of.get("correlation") is None else f"{of['correlation']:.2f} (−{of['lost']:.3f})" for of in cells
        ]
        lines.append(f"| {key} | " + " | ".join(numbers) + " |")
    return "\n".join(lines) + "\n"


def all_arms():
    return [arm for arms in ARMS.values() for arm in arms]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the scans")
    parser.add_argument("work", type=Path, help="folder of the study; run again, it goes on")
    parser.add_argument("--tasks", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="TASK", help="default: all")
    names = [arm.name for arm in all_arms()]
    parser.add_argument("--arms", nargs="+", choices=names, default=names, metavar="ARM", help="default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="N", help="default: 1")
    parser.add_argument("--tested", choices=["dev", "test"], default="dev", help="which scans; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once; they share the cores (1)")
    parser.add_argument("--collect", action="store_true", help="run nothing; write the table of what is done")
    parser.add_argument("-device", choices=["cpu", "cuda", "mps"], default="cpu")
    arguments = parser.parse_args()
    data, work = arguments.data.absolute(), arguments.work.absolute()
    wanted = set(arguments.arms)
    chosen = {kind: [seeded(arm, arguments.seeds) for arm in ARMS[kind] if arm.name in wanted] for kind in ARMS}
    arms = {kind: of_kind for kind, of_kind in chosen.items() if of_kind}
    try:
        pairs = {name: tasks_of(name, data) for name in arguments.tasks}
        if not arguments.collect:
            how = {"device": arguments.device, "jobs": arguments.jobs, "sets": [arguments.tested]}
            for name, tasks in pairs.items():
                prepare(name, tasks, arms, data, work, arguments.device)
                for kind, models in arms.items():
                    runner.run_study([tasks[kind]], models, data, work, **how)
        results = collect(pairs, arms, work, arguments.tested)
        with atomic_file(work / f"{arguments.tested}.csv") as temporary:
            results.to_csv(temporary, index=False)
        write_text(table_of(results), work / f"{arguments.tested}_table.md")
        compared = compared_with_source_only(results, checks(pairs, arms, work))
        write_text(text_of_checks(compared), work / f"{arguments.tested}_checks.md")
        # Last: it reads all predictions once more.
        rankings = {
            name: rank_without_labels(name, tasks, arms, work, arguments.tested, arguments.seeds[0])
            for name, tasks in pairs.items()
        }
        if rankings := {name: ranking for name, ranking in rankings.items() if ranking}:
            write_text(text_of_rankings(rankings), work / f"{arguments.tested}_selection.md")
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def write_text(text, path):
    """Writes a table into a file, and prints it."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def seeded(arm, seeds):
    """The arm with these seeds, under a name that is part of file names."""
    return replace(arm, name=slug(arm.name), seeds=tuple(seeds), row=arm.name)


def slug(name):
    return name.replace(",", "").replace(" ", "-")


if __name__ == "__main__":
    main()
