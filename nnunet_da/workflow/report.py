"""The report of a run: what each stage gained, where there are labels; which folds were chosen; how long it took."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from nnunet_da.files import atomic_folder, read_json
from nnunet_da.workflow.actions import Action, remove
from nnunet_da.workflow.progress import duration
from nnunet_da.workflow.state import State

METRICS = {"dsc": "Dice", "assd_mm": "ASSD (mm)"}


@dataclass(frozen=True)
class Report(Action):
    """Writes ``report.md``, ``stages.csv`` and ``steps.csv`` into `folder`.

    Attributes
    ----------
    folder : Path
    arms : tuple of str
        What is compared, in the order of the stages.
    evaluation : Path or None
        What ``nnunet-da evaluate`` wrote about them.
    work : Path
    steps : tuple of Step
        Those before this one.
    chosen : Path or None
        What ``nnunet-da choose-folds`` wrote.
    """

    folder: Path
    arms: tuple[str, ...]
    evaluation: Path | None
    work: Path
    steps: tuple
    chosen: Path | None = None

    def replaced(self):
        return (self.folder / "tables",)

    def do(self, job):
        parts = ["# Report", ""]
        files = {"steps.csv": self._durations()}
        if self.evaluation is not None:
            table = stage_table(self.evaluation / "cases.csv", self.arms)
            files["stages.csv"] = table.to_csv(index=False)
            parts += [*_markdown(table), ""]
            parts += [f"Per case, with statistics and pictures: `{self.evaluation / 'report.html'}`.", ""]
        else:
            parts += ["No labels were given (`test.labels`), so gains were not measured.", ""]
        if self.chosen is not None:
            content = read_json(self.chosen)
            parts += [f"Folds in the ensemble, ranked by {content['by']}:", ""]
            parts += [f"- {name}: {', '.join(map(str, folds))}" for name, folds in content["chosen"].items()] + [""]
        parts += ["| stage | time |", "|---|---|"]
        parts += [f"| {stage} | {duration(seconds)} |" for stage, seconds in self._seconds_of_stages().items()]
        files["report.md"] = "\n".join(parts) + "\n"
        with atomic_folder(self.folder / "tables") as temporary:
            for name, text in files.items():
                (temporary / name).write_text(text, encoding="utf-8")
        job.note(files["report.md"])

    def discard(self):
        remove(self.folder / "tables")

    def _seconds(self):
        """(step, seconds from its first start to its end), of those that are done."""
        state = State(self.work)
        for step in self.steps:
            record = state.record(step)
            if record and "ended" in record:
                yield step, record["ended"] - record["started"]

    def _seconds_of_stages(self):
        seconds = defaultdict(float)
        for step, of_step in self._seconds():
            seconds[step.stage] += of_step
        return seconds

    def _durations(self):
        rows = [f"{step.stage},{step.id},{seconds:.0f}" for step, seconds in self._seconds()]
        return "\n".join(["stage,step,seconds", *rows]) + "\n"


def stage_table(cases_csv, arms):
    """Mean and standard deviation over cases of each metric, structure and arm, and the gain over the arm before.

    DataFrame with the columns stage, structure, metric, mean, std, n, gain; the gain is a mean over the cases in which
    both are defined.
    """
    import pandas as pd

    rows = pd.read_csv(cases_csv)
    found = []
    for structure in rows["structure"].drop_duplicates():
        for metric, title in METRICS.items():
            before = None
            for arm in arms:
                of_arm = rows[(rows["model"] == arm) & (rows["structure"] == structure)].set_index("case")[metric]
                gain = None if before is None else (of_arm - before).mean()
                entry = {"stage": arm, "structure": structure, "metric": title, "mean": of_arm.mean()}
                found.append({**entry, "std": of_arm.std(), "n": of_arm.count(), "gain": gain})
                before = of_arm
    return pd.DataFrame(found)


def _markdown(table):
    """The lines of a table: stages down, structures and metrics across."""
    columns = list(dict.fromkeys(zip(table["structure"], table["metric"], strict=True)))
    lines = [
        "| stage | " + " | ".join(f"{structure}: {metric}" for structure, metric in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for stage, of_stage in table.groupby("stage", sort=False):
        cells = of_stage.set_index(["structure", "metric"])
        lines.append(f"| {stage} | " + " | ".join(_cell(cells.loc[column]) for column in columns) + " |")
    return lines


def _cell(entry):
    if entry["mean"] != entry["mean"]:
        return "–"
    gain = entry["gain"]
    change = "" if gain is None or gain != gain else f" ({gain:+.3f})"
    return f"{entry['mean']:.3f} ± {entry['std']:.3f}{change}"
