"""Runs a study: prepares each task once, then configures, trains, predicts and evaluates run after run.

A run that was interrupted goes on at its last checkpoint; one that is done is not done again; a model that is added
later is trained then.
"""

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError
from nnunet_da.files import read_json, write_json
from nnunet_da.parallel import variables_of_jobs
from nnunet_da.splits import SIDES, write_splits
from nnunet_da.study.declarations import SPLITS, runs_of
from nnunet_da.study.scan_sets import domains_of, read_rows, scans_of_domain, scans_of_fold
from nnunet_da.workplace import Workplace

# What nnU-Net's --c goes on from. Where there is none, it would begin anew, without pretrained weights.
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
# nnU-Net's variable: processes that augment.
WORKERS = "nnUNet_n_proc_DA"


def run_study(tasks, models, data, work, *, device="cpu", jobs=1, sets=None, folds=None):
    """Does all runs of `tasks` and `models` that are not done.

    Parameters
    ----------
    tasks : sequence of Task
    models : sequence of Model
    data, work : Path
        The folder that the tasks write their scans from, and that of the study, with a folder per task.
    device : str
        'cpu', 'cuda' or 'mps'.
    jobs : int
        Runs at once; they share the cores.
    sets : sequence of str or None
        Only these sets of scans are predicted.
    folds : sequence of int or None
        Only these folds are run.

    A run that fails does not keep the others from being done; then the first error is raised (UserError, naming the log
    of the command that failed). Raises UserError for a set or a fold that there is not.
    """
    data, work = Path(data).absolute(), Path(work).absolute()
    _require_known("set", sets, {name for task in tasks for name in task.sets})
    for task in tasks:
        prepare(task, data, work / task.name, device)
    runs = [run for task in tasks for run in runs_of(task, models, work / task.name)]
    _require_known("fold", folds, {run.fold for run in runs})
    runs = [run for run in runs if folds is None or run.fold in folds]
    do_runs(runs, lambda task: work / task.name, device=device, jobs=jobs, sets=sets)


def do_runs(runs, folder_of, *, device="cpu", jobs=1, sets=None):
    """Does what of `runs` is not done, and before them the pretrainings that they start from.

    `folder_of`: the folder of a Task, which is prepared; others as for `run_study`.
    """
    pretrainings = {(run.task.name, run.name): run for run in (run.pretraining for run in runs) if run}
    for run in (*pretrainings.values(), *runs):
        configure(run, folder_of(run.task))
    # Worker processes cost more than they give where they share the cores with the training.
    workers = "0" if device == "cpu" else os.environ.get(WORKERS, str(min(12, os.cpu_count())))
    environment = {WORKERS: workers, **variables_of_jobs(jobs, device)}

    def work_on(run, do, *arguments):
        folder = folder_of(run.task)
        place = Workplace(run.folder(folder), device, nnunet_folder=folder, show=jobs == 1, **environment)
        do(run, place, *arguments)

    errors = []
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=len(pretrainings) + len(runs), desc="runs", unit="run") as bar,
    ):
        try:
            for several, *what in ((pretrainings.values(), pretrain), (runs, execute, sets)):
                for future in as_completed([pool.submit(work_on, run, *what) for run in several]):
                    errors += [error] if (error := future.exception()) else []
                    bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if errors:
        raise errors[0]


def _require_known(kind, names, known):
    unknown = sorted(set(names or ()) - known)
    if unknown:
        raise UserError(f"{kind} {unknown[0]}: not in this study ({', '.join(map(str, sorted(known)))})")


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
            *(["--domain-labels", *task.domain_labels] if task.domain_labels else []),
        ),
    )
    if task.folds is not None:
        place.step("folds", f"{task.name}: splitting", lambda: split(task, folder))
    place.step(
        "plan",
        f"{task.name}: planning and preprocessing",
        lambda: place.run(
            *("nnUNetv2_plan_and_preprocess", "-d", task.dataset_id, "-c", task.configuration, "-npfp", 2, "-np", 2)
        ),
    )


def split(task, folder):
    """Writes the splits of a task with folds for nnU-Net, and with the cases that each tests into `folder`.

    Raises UserError where a case to test is in none of its sets.
    """
    splits = task.folds(read_domains(read_json(folder / "nnUNet_raw" / task.dataset / "dataset.json")))
    tested = {case for fold in splits for case in fold.get("test", ())}
    for table in (folder / "data" / name / "cases.csv" for name in task.sets):
        absent = tested - {row["case"] for row in read_rows(table.parent)}
        if absent:
            raise UserError(f"{table}: case '{min(absent)}' is absent, which a fold is to test")
    sides = [{side: fold[side] for side in SIDES} for fold in splits]
    write_splits(sides, folder / "nnUNet_preprocessed" / task.dataset)
    write_json(splits, folder / SPLITS)


def configure(run, folder):
    """The run's custom configuration, as `nnunet-da configure` writes it."""
    from nnunet_da.training.configurations import configure

    task = run.task
    settings = {**task.settings, **run.model.settings, "seed": run.seed}
    configure(
        folder / "nnUNet_preprocessed" / task.dataset / f"{task.plans}.json",
        folder / "nnUNet_results" / task.dataset,
        task.configuration,
        run.configuration,
        [f"{key}={value}" for key, value in settings.items()],
        preset=task.preset,
        trainer=run.model.trainer,
    )


def pretrain(run, place):
    """Trains a run that others start from, to its very end, where its weights are written."""
    place.step("train", f"{run}: pretraining", lambda: train(run, place, until=None))


def execute(run, place, sets=None):
    """Trains, predicts and evaluates a run in its Workplace `place`."""
    folder = place.nnunet_folder
    place.step("train", f"{run}: training", partial(train, run, place))
    if run.model.per_domain:
        place.step("export", f"{run}: exporting a model per domain", partial(export, run, place))
    for name in run.task.sets:
        if sets is not None and name not in sets:
            continue
        scans, predictions = scans_of(run, folder / "data" / name), place.folder / name
        place.step(f"predict_{name}", f"{run}: predicting {name}", partial(predict, run, place, scans, predictions))
        if run.task.restrict is not None:
            predicted, predictions = predictions, place.folder / f"{name}_restricted"
            work = partial(run.task.restrict, place, folder, name, predicted, predictions)
            place.step(f"restrict_{name}", f"{run}: restricting {name}", work)
        # A mark of its own: what was evaluated without slices is evaluated again.
        mark = f"evaluate_{name}_slices" if run.task.slices else f"evaluate_{name}"
        evaluation = partial(evaluate, run, place, scans, predictions, run.report(folder, name))
        place.step(mark, f"{run}: evaluating {name}", evaluation)


def scans_of(run, scans):
    """Those of a set of scans that a run predicts."""
    if run.test is not None:
        scans = scans_of_fold(scans, run.fold, run.test)
    return scans_of_domain(scans, run.model.domain) if run.model.domain else scans


def train(run, place, until=r"Training done\."):
    """Begins a training, or goes on with it.

    What nnU-Net does after `until`, predicting the held-out cases whole, costs minutes, and no study uses it.
    """
    task, folder = run.task, place.nnunet_folder
    begun = any((run.results(folder) / name).exists() for name in CHECKPOINTS)
    start = ["--c"] if begun else []
    if run.pretraining and not begun:
        start = ["-pretrained_weights", pretrained_weights(run.pretraining, folder)]
    place.run(
        *("nnUNetv2_train", task.dataset_id, run.configuration, run.fold, "-tr", run.model.trainer, *start),
        *(*plans_of(task), "-device", place.device),
        until=until,
    )


def pretrained_weights(run, folder):
    """The file that a pretraining has left. Raises UserError where it was not done."""
    from nnunet_da.training.ssl_trainer import RESULT

    path = run.results(folder) / RESULT
    if not path.exists():
        raise UserError(f"{path}: no such file; {run} must be done first")
    return path


def plans_of(task):
    """The arguments of nnU-Net's commands that name other plans than its own."""
    return () if task.plans == "nnUNetPlans" else ("-p", task.plans)


def export(run, place):
    place.run(
        *("nnunet-da", "export", "-d", run.task.dataset_id, "-c", run.configuration, "-tr", run.model.trainer),
        *("-f", run.fold, "-chk", run.model.checkpoint, "-o", place.folder / "export", "--allow-plugin", "--overwrite"),
    )


def predict(run, place, scans, output):
    """Predicts a set of scans; with a model per domain, domain by domain."""
    if not run.model.per_domain:
        model = ("-tr", run.model.trainer, *plans_of(run.task), "-chk", run.model.checkpoint)
        _predict(run, place, scans, output, *model)
        return
    exported = {"nnUNet_results": str(place.folder / "export")}
    for domain in domains_of(scans):
        stock = ("-tr", "nnUNetTrainer", "-p", f"nnUNetPlans_{domain}")
        _predict(run, place, scans_of_domain(scans, domain), output, *stock, **exported)


def _predict(run, place, scans, output, *model, **environment):
    task = run.task
    place.run(
        *("nnUNetv2_predict", "-d", task.dataset_id, "-c", run.configuration, "-f", run.fold, *model),
        # Mirrored predictions would cost as much again per axis, for every model alike.
        *("-i", scans / "images", "-o", output, "--disable_tta", "-npp", 1, "-nps", 1, "-device", place.device),
        *(["--save_probabilities"] if task.probabilities else []),
        nnUNet_n_proc_DA="1",
        **environment,
    )


def evaluate(run, place, scans, predictions, report):
    place.run(
        *("nnunet-da", "evaluate", "-g", scans / "labels", "--pred", f"{run.model.label}={predictions}"),
        *("-d", run.task.dataset_id, "--cases", scans / "cases.csv", "-o", report, "-np", 1, "--overwrite"),
        *(["--slices"] if run.task.slices else []),
    )
