"""What the runs of a study have been evaluated to, joined into one table of cases, and the tables made of it."""

import itertools
from pathlib import Path

from nnunet_da.errors import UserError
from nnunet_da.evaluation.statistics import bootstrap_interval
from nnunet_da.files import atomic_file
from nnunet_da.study.declarations import runs_of

# Of 2D slices, in the paper's tables of them ("Table 2" and "Table S2" of multidomain_contrastive).
SLICE_METRICS = ("dsc", "sensitivity", "specificity")


def collect(tasks, models, work):
    """Writes results.csv, table.md and differences.md of what is evaluated into `work`; of slices, slices.csv and .md.

    Returns name → text of the tables. Raises UserError where nothing is evaluated.
    """
    work = Path(work)
    results = read_results(tasks, models, work)
    if results.empty:
        raise UserError(f"{work}: nothing is evaluated yet")
    baselines = list(dict.fromkeys(model.label for model in models if model.baseline))
    frames = {"results.csv": results}
    texts = {"table.md": tables(results), "differences.md": differences(results, baselines)}
    slices = read_results([task for task in tasks if task.slices], models, work, "slices.csv")
    if not slices.empty:
        frames["slices.csv"] = slices
        texts["slices.md"] = tables_of_slices(slices, baselines)
    for name, frame in frames.items():
        with atomic_file(work / name) as temporary:
            frame.to_csv(temporary, index=False)
    for name, text in texts.items():
        with atomic_file(work / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return texts


def read_results(tasks, models, work, name="cases.csv"):
    """The tables `name` that `nnunet-da evaluate` wrote of the runs in one DataFrame, with task, set, seed and fold.

    It is empty where nothing is evaluated.
    """
    import pandas

    frames = []
    for task in tasks:
        for run, name_of_set in itertools.product(runs_of(task, models, work / task.name), task.sets):
            path = run.report(work / task.name, name_of_set) / name
            if path.exists():
                frame = pandas.read_csv(path)
                frames.append(frame.assign(task=task.name, set=name_of_set, seed=run.seed, fold=run.fold))
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()


def tables(results):
    """A table per task and set, in which a case counts once: with the mean over the seeds, and folds, that test it."""
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

    The difference of a case is the mean over its structures, and over the seeds that both models have; the interval is
    the percentile bootstrap over cases. With a handful of cases it is an indication, no more.
    """
    lines = ["| Task | Set | Domain | Model | Cases | Seeds | Difference | 95 % interval | By seed |"]
    lines.append("| --- | --- | --- | --- | ---: | ---: | ---: | --- | --- |")
    for (task, name_of_set, domain), rows in results.groupby(["task", "set", "domain"], sort=False):
        values = rows.pivot_table(index=["case", "structure"], columns=["model", "seed"], values=metric, sort=False)
        for reference, model in itertools.product(baselines, values.columns.unique("model")):
            if reference == model or reference not in values:
                continue
            shared = values[model].columns.intersection(values[reference].columns)
            by_seed = (values[model][shared] - values[reference][shared]).dropna().groupby("case").mean()
            if by_seed.empty:
                continue
            by_case = by_seed.mean(axis=1).to_numpy()
            low, high = bootstrap_interval(by_case, method="percentile")
            interval = f"{low:+.3f} to {high:+.3f}" if len(by_case) > 1 else "–"
            per_seed = ", ".join(f"{value:+.3f}" for value in by_seed.mean())
            lines.append(
                f"| {task} | {name_of_set} | {domain} | {model} − {reference} | {len(by_case)} | {len(shared)} "
                f"| {by_case.mean():+.3f} | {interval} | {per_seed} |"
            )
    return "\n".join(lines) + "\n"


def tables_of_slices(slices, baselines):
    """2D slices and their Kolmogorov–Smirnov test against each of the `baselines`, by task, set and seed.

    Seeds stand apart: means over them are distributed otherwise than what one training gives. A model of which not all
    cases are evaluated yet is left out, since slices of other scans would be compared.
    """
    from nnunet_da.evaluation.tables import slice_tables
    from nnunet_da.evaluation.typesetting import to_markdown

    parts = []
    for (task, name_of_set, seed), rows in slices.groupby(["task", "set", "seed"], sort=False):
        n_cases = rows.groupby("model", sort=False)["case"].nunique()
        models = list(n_cases.index[n_cases == n_cases.max()])
        rows = rows[rows["model"].isin(models)]
        for reference in [name for name in baselines if name in models and len(models) > 1]:
            text = to_markdown(slice_tables(rows, reference, SLICE_METRICS, percent=True))
            parts.append(f"## {task}, {name_of_set}, seed {seed}, against {reference}\n\n{text}\n")
    return "\n".join(parts)
