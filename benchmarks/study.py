"""Runs a study: tasks × models × seeds, each an ordinary nnU-Net run, and collects what came out into one table.

A study is a file that names its tasks and models and calls `main`; see intensity_table1.py. Its command

    python benchmarks/STUDY.py DATA WORK [--jobs N] [--models …] [--sets …] [--collect]

prepares each task once (data, conversion, planning), then configures, trains, predicts and evaluates run after run. A
run that was interrupted goes on at its last checkpoint; one that is done is not done again; a model that is added later
is trained then. WORK/results.csv holds every metric of every case; table.md and differences.md are made of it.
"""

import argparse
import csv
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from nnunet_da.errors import UserError
from nnunet_da.evaluation.statistics import bootstrap_interval
from nnunet_da.files import atomic_file, atomic_folder
from nnunet_da.workplace import Workplace


@dataclass(frozen=True)
class Task:
    """A dataset with domains, its plan, and sets of scans with labels to evaluate on.

    Attributes
    ----------
    name : str
    write : callable (data, folder)
        Writes ``cases.csv``, which `nnunet-da convert manifest` reads, and per set ``SET/images``, ``SET/labels`` and
        ``SET/cases.csv`` into `folder`.
    dataset_id : int
    labels, channels : tuple of str
        As ``--labels`` and ``--channels`` of `nnunet-da convert manifest`.
    sets : tuple of str
    configuration, preset : str
        What the configurations of the models inherit from, and the preset of `nnunet-da configure`.
    settings : dict
        Settings of every model: schedule, plan.
    fold : int
    """

    name: str
    write: Callable
    dataset_id: int
    labels: tuple[str, ...]
    channels: tuple[str, ...]
    sets: tuple[str, ...] = ("dev", "test")
    configuration: str = "2d"
    preset: str = "cpu"
    settings: dict = field(default_factory=dict)
    fold: int = 0


@dataclass(frozen=True)
class Model:
    """A trainer with settings: a row of the table.

    `seeds`: one run each. `checkpoint`: the file that predicts, as ``-chk`` of nnUNetv2_predict takes it. `baseline`:
    differences of all other models from it are reported. `domain`: it predicts the scans of this domain alone.
    `per_domain`: it is exported, and each domain's scans are predicted with the model of their domain. `row`: of the
    tables, where several models make one; default: the name.
    """

    name: str
    trainer: str
    settings: dict = field(default_factory=dict)
    seeds: tuple[int, ...] = (1,)
    checkpoint: str = "checkpoint_final.pth"
    baseline: bool = False
    domain: str | None = None
    per_domain: bool = False
    row: str | None = None

    @property
    def label(self):
        return self.row or self.name


@dataclass(frozen=True)
class Run:
    task: Task
    model: Model
    seed: int

    @property
    def configuration(self):
        return f"{self.task.configuration}_{self.model.name}_s{self.seed}"

    def __str__(self):
        return f"{self.task.name}, {self.model.name}, seed {self.seed}"


def main(tasks, models, *, description):
    """The command line of a study. Exit code 1 with one line where something is wrong."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the scans")
    parser.add_argument("work", type=Path, help="folder of the study; run again, it goes on")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once; they share the cores (1)")
    parser.add_argument("--models", nargs="+", metavar="NAME", choices=[m.name for m in models], help="only these")
    parser.add_argument("--sets", nargs="+", metavar="SET", help="predict only these sets of scans")
    parser.add_argument("--collect", action="store_true", help="run nothing; write the tables of what is done")
    parser.add_argument("-device", choices=["cpu", "cuda", "mps"], default="cpu")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error("--jobs: must be at least 1")
    chosen = [model for model in models if arguments.models is None or model.name in arguments.models]
    try:
        work = arguments.work.absolute()
        if not arguments.collect:
            run_study(tasks, chosen, arguments.data.absolute(), work, arguments)
        collect(tasks, models, work)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def run_study(tasks, models, data, work, arguments):
    for task in tasks:
        prepare(task, data, work / task.name, arguments.device)
    runs = [Run(task, model, seed) for task in tasks for model in models for seed in model.seeds]
    for run in runs:
        configure(run, work / run.task.name)
    environment = {"nnUNet_n_proc_DA": "0"} if arguments.device == "cpu" else {}
    # nnU-Net takes all cores; where threads of several runs share them, those that wait must not keep a core busy.
    environment.setdefault("OMP_WAIT_POLICY", os.environ.get("OMP_WAIT_POLICY", "passive"))
    errors = []
    with ThreadPoolExecutor(arguments.jobs) as pool, tqdm(total=len(runs), desc="runs", unit="run") as bar:
        futures = [pool.submit(execute, run, work / run.task.name, arguments, environment) for run in runs]
        try:
            for future in as_completed(futures):
                # A run that fails does not keep the others from being done.
                errors += [error] if (error := future.exception()) else []
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if errors:
        raise errors[0]


def prepare(task, data, folder, device):
    """Data, conversion and planning of a task, once."""
    place = Workplace(folder, device)
    written = folder / "data"
    place.step("data", f"{task.name}: writing the scans", lambda: task.write(data, written))
    place.step(
        "convert",
        f"{task.name}: converting",
        lambda: place.run(
            *("nnunet-da", "convert", "manifest", written / "cases.csv", "-d", task.dataset_id, "--name", task.name),
            *("--labels", *task.labels, "--channels", *task.channels, "--overwrite"),
        ),
    )
    place.step(
        "plan",
        f"{task.name}: planning and preprocessing",
        lambda: place.run(
            *("nnUNetv2_plan_and_preprocess", "-d", task.dataset_id, "-c", task.configuration, "-npfp", 2, "-np", 2)
        ),
    )


def configure(run, folder):
    """The run's custom configuration, as `nnunet-da configure` writes it."""
    from nnunet_da.training.configurations import configure

    settings = {**run.task.settings, **run.model.settings, "seed": run.seed}
    dataset = f"Dataset{run.task.dataset_id:03d}_{run.task.name}"
    configure(
        folder / "nnUNet_preprocessed" / dataset / "nnUNetPlans.json",
        folder / "nnUNet_results" / dataset,
        run.task.configuration,
        run.configuration,
        [f"{key}={value}" for key, value in settings.items()],
        preset=run.task.preset,
    )


def execute(run, folder, arguments, environment):
    """Trains, predicts and evaluates a run."""
    task, model = run.task, run.model
    place = Workplace(
        run_folder(run, folder), arguments.device, nnunet_folder=folder, show=arguments.jobs == 1, **environment
    )
    name = ("-d", task.dataset_id, "-c", run.configuration, "-f", task.fold, "-tr", model.trainer)
    results = folder / "nnUNet_results" / f"Dataset{task.dataset_id:03d}_{task.name}"
    fold = results / f"{model.trainer}__nnUNetPlans__{run.configuration}" / f"fold_{task.fold}"

    def train():
        resume = ["--c"] if fold.exists() else []
        command = ("nnUNetv2_train", task.dataset_id, run.configuration, task.fold, "-tr", model.trainer, *resume)
        # What nnU-Net does then, predicting the held-out cases whole, costs minutes, and nothing here uses it.
        place.run(*command, "-device", place.device, until=r"Training done\.")

    place.step("train", f"{run}: training", train)
    exported = place.folder / "export"
    if model.per_domain:
        export = ("nnunet-da", "export", "-d", task.dataset_id, "-c", run.configuration, "-tr", model.trainer)
        place.step(
            "export",
            f"{run}: exporting a model per domain",
            lambda: place.run(*export, "-chk", model.checkpoint, "-o", exported, "--overwrite"),
        )
    for name_of_set in task.sets:
        if arguments.sets is not None and name_of_set not in arguments.sets:
            continue
        scans, predictions = folder / "data" / name_of_set, place.folder / name_of_set
        report = report_of(run, folder, name_of_set)
        if model.domain:
            scans = scans_of_domain(scans, model.domain, folder / "data")
        jobs = [(scans, name, {})]
        if model.per_domain:
            stock = (*name[:-1], "nnUNetTrainer")
            jobs = [
                (
                    scans_of_domain(scans, domain, folder / "data"),
                    (*stock, "-p", f"nnUNetPlans_{domain}"),
                    {"nnUNet_results": str(exported)},
                )
                for domain in domains_of(scans)
            ]

        def predict(jobs=jobs, predictions=predictions):
            for of_job, which, environment in jobs:
                # Mirrored predictions would cost as much again per axis, for every model alike.
                place.run(
                    *("nnUNetv2_predict", *which, "-i", of_job / "images", "-o", predictions, "--disable_tta"),
                    *("-chk", "checkpoint_final.pth" if model.per_domain else model.checkpoint),
                    *("-npp", 1, "-nps", 1, "-device", place.device),
                    nnUNet_n_proc_DA="1",
                    **environment,
                )

        place.step(f"predict_{name_of_set}", f"{run}: predicting {name_of_set}", predict)
        place.step(
            f"evaluate_{name_of_set}",
            f"{run}: evaluating {name_of_set}",
            lambda scans=scans, predictions=predictions, report=report: place.run(
                *("nnunet-da", "evaluate", "-g", scans / "labels", "--pred", f"{model.label}={predictions}"),
                *("-d", task.dataset_id, "--cases", scans / "cases.csv", "-o", report, "-np", 1, "--overwrite"),
            ),
        )


def domains_of(scans):
    """The domains of a set of scans, in the order of its table."""
    with open(scans / "cases.csv", newline="") as stream:
        return list(dict.fromkeys(row["domain"] for row in csv.DictReader(stream)))


def scans_of_domain(scans, domain, folder):
    """A set of scans of one domain alone, as links in `folder`; made once."""
    target = folder / f"{scans.name}_{domain}"
    if not target.exists():
        with open(scans / "cases.csv", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["domain"] == domain]
        with atomic_folder(target) as temporary:
            for kind, ending in (("images", "_*"), ("labels", ".*")):
                (temporary / kind).mkdir()
                for path in (path for row in rows for path in (scans / kind).glob(row["case"] + ending)):
                    (temporary / kind / path.name).symlink_to(path.resolve())
            with open(temporary / "cases.csv", "w", newline="") as stream:
                writer = csv.DictWriter(stream, ["case", "domain"], lineterminator="\n")
                writer.writeheader()
                writer.writerows({key: row[key] for key in ("case", "domain")} for row in rows)
    return target


def run_folder(run, folder):
    return folder / "runs" / f"{run.model.name}_s{run.seed}"


def report_of(run, folder, name_of_set):
    return run_folder(run, folder) / f"{name_of_set}_report"


def collect(tasks, models, work):
    """Writes results.csv, table.md and differences.md of what is evaluated."""
    import pandas

    frames = []
    for task in tasks:
        for model in models:
            for seed in model.seeds:
                run = Run(task, model, seed)
                for name_of_set in task.sets:
                    cases = report_of(run, work / task.name, name_of_set) / "cases.csv"
                    if cases.exists():
                        frame = pandas.read_csv(cases)
                        frames.append(frame.assign(task=task.name, set=name_of_set, seed=seed))
    if not frames:
        raise UserError(f"{work}: nothing is evaluated yet")
    results = pandas.concat(frames, ignore_index=True)
    with atomic_file(work / "results.csv") as temporary:
        results.to_csv(temporary, index=False)
    baselines = list(dict.fromkeys(model.label for model in models if model.baseline))
    for name, text in (("table.md", tables(results)), ("differences.md", differences(results, baselines))):
        with atomic_file(work / name) as temporary:
            Path(temporary).write_text(text, encoding="utf-8")
        print(text)


def tables(results):
    """A table per task and set, in which a case counts once: with the mean over the seeds."""
    from nnunet_da.evaluation.tables import METRICS, markdown, summarise

    parts = []
    for (task, name_of_set), rows in results.groupby(["task", "set"], sort=False):
        keys = ["model", "domain", "case", "structure"]
        how = {key: "mean" for key in METRICS if key in rows} | {"missed": "sum", "false": "sum"}
        means = rows.groupby(keys, sort=False).agg(how).reset_index()
        seeds = rows.groupby("model", sort=False)["seed"].nunique()
        note = ", ".join(f"{model} {n}" for model, n in seeds.items())
        parts.append(f"## {task}, {name_of_set}\n\nSeeds: {note}.\n\n{markdown(summarise(means))}\n")
    return "\n".join(parts)


def differences(results, baselines, metric="dsc"):
    """Per domain, each model's difference from the `baselines` in the same cases and seeds, with a 95 % interval.

    The difference of a case is the mean over the seeds that both models have; the interval is the percentile bootstrap
    over cases. With a handful of cases it is an indication, no more.
    """
    lines = ["| Task | Set | Domain | Model | Cases | Seeds | Difference | 95 % interval | By seed |"]
    lines.append("| --- | --- | --- | --- | ---: | ---: | ---: | --- | --- |")
    for (task, name_of_set, domain), rows in results.groupby(["task", "set", "domain"], sort=False):
        values = rows.pivot_table(index=["case", "structure"], columns=["model", "seed"], values=metric, sort=False)
        for reference, model in itertools.product(baselines, values.columns.unique("model")):
            if reference == model or reference not in values:
                continue
            shared = values[model].columns.intersection(values[reference].columns)
            by_seed = (values[model][shared] - values[reference][shared]).dropna()
            if by_seed.empty:
                continue
            by_case = by_seed.mean(axis=1).groupby("case").mean().to_numpy()
            low, high = bootstrap_interval(by_case, method="percentile")
            interval = f"{low:+.3f} to {high:+.3f}" if len(by_case) > 1 else "–"
            per_seed = ", ".join(f"{value:+.3f}" for value in by_seed.mean())
            lines.append(
                f"| {task} | {name_of_set} | {domain} | {model} − {reference} | {len(by_seed)} | {len(shared)} "
                f"| {by_seed.to_numpy().mean():+.3f} | {interval} | {per_seed} |"
            )
    return "\n".join(lines) + "\n"
