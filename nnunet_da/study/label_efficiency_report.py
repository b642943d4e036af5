"""Tables and figures of label efficiency: Dice against the number of labelled subjects, by initialisation."""

import re

from nnunet_da.evaluation.statistics import MEAN, bootstrap_interval, by_structure
from nnunet_da.evaluation.typesetting import Cell, Table, to_markdown
from nnunet_da.files import atomic_file

REFERENCE = "scratch"
METRIC = "dsc"
# Figure 3 of the paper: contrastive blue, random weights red. Markers and dashes tell them apart in grey too.
LOOKS = {
    "scratch": {"color": "#c8102e", "marker": "s", "linestyle": (0, (5, 2)), "label": "random initialisation"},
    "regression": {"color": "#8a8d00", "marker": "^", "linestyle": (0, (6, 2, 1, 2)), "label": "regression"},
    "contrastive": {"color": "#0050b5", "marker": "o", "linestyle": "solid", "label": "contrastive"},
}
PANELS = {"A": ("regression", "contrastive"), "B": ("scratch", "contrastive")}
DRAWS = "Dice, mean over test cases ± standard deviation (ddof = 1) over draws of the subjects [draws]."
PAIRS = (
    "Dice less Dice from scratch, of the same cases and draws. A case counts once, with its mean over draws; the"
    " interval is the percentile bootstrap over cases, which takes the draws as given. By draw: the mean over cases."
)


def write(results, n_all, title, folder):
    """Writes results.csv, table.md and the figures into `folder`; returns the text of table.md.

    Parameters
    ----------
    results : DataFrame
        A row per initialisation, number of ``subjects``, ``draw``, case and structure, with metrics.
    n_all : int
        The number of subjects of the supervised line.
    title : str
    folder : Path
    """
    text = f"# Label efficiency: {title}\n\n" + to_markdown([*mean_tables(results, n_all), *difference_tables(results)])
    with atomic_file(folder / "results.csv") as temporary:
        results.to_csv(temporary, index=False)
    with atomic_file(folder / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    blocks = by_structure(results)
    for structure, rows in blocks:
        stem = "label_efficiency"
        if len(blocks) > 1 and structure != MEAN:
            stem += "_" + re.sub(r"[^\w.-]+", "_", structure)
        draw(rows, n_all, structure, paths=[folder / f"{stem}.{ending}" for ending in ("svg", "png")])
    return text


def by_draw(rows):
    """Mean Dice over cases (of a case: over structures) by initialisation, number of subjects and draw: a Series."""
    keys = ["initialisation", "subjects", "draw"]
    return rows.groupby([*keys, "case"])[METRIC].mean().groupby(keys).mean()


def mean_tables(results, n_all):
    """A table per structure: rows by number of subjects, columns by initialisation."""
    tables = []
    for structure, rows in by_structure(results):
        over_draws = by_draw(rows).groupby(["initialisation", "subjects"]).agg(["mean", "std", "count"])
        names = [name for name in LOOKS if name in over_draws.index.get_level_values("initialisation")]
        body = []
        for n in sorted(set(rows["subjects"])):
            means = over_draws.xs(n, level="subjects")["mean"]
            best = means.max() if len(means) > 1 else None
            cells = [_cell(over_draws, name, n, best) for name in names]
            body.append(((f"{n} (all)" if n == n_all else str(n),), tuple(cells)))
        columns = tuple((LOOKS[name]["label"],) for name in names)
        n_cases = rows["case"].nunique()
        title = f"{structure}, {n_cases} test cases"
        tables.append(Table(title, ("Labelled subjects",), columns, tuple(body), DRAWS))
    return tables


def _cell(over_draws, name, n, best):
    if (name, n) not in over_draws.index:
        return Cell("–")
    mean, deviation, count = over_draws.loc[name, n]
    text = f"{mean:.3f}" + (f" ± {deviation:.3f}" if count > 1 else "")
    return Cell(text, {"mean": mean, "std": deviation, "draws": count}, f"[{count:.0f}]", is_best=mean == best)


def difference_tables(results):
    """A table per structure of the paired differences from scratch; none where there is nothing to compare."""
    tables = []
    for structure, rows in by_structure(results):
        values = rows.pivot_table(
            index=["case", "structure"], columns=["initialisation", "subjects", "draw"], values=METRIC
        )
        body = []
        for n in sorted(set(rows["subjects"])):
            for name in (name for name in LOOKS if name != REFERENCE):
                differences = _differences(values, name, n)
                if differences is not None:
                    body.append(((str(n), f"{name} − {REFERENCE}"), _difference_cells(differences)))
        if body:
            titles = ("Cases", "Draws", "Difference", "95 % interval", "By draw")
            columns = tuple((title,) for title in titles)
            stubs = ("Labelled subjects", "Initialisation")
            tables.append(Table(f"{structure}: difference from scratch", stubs, columns, tuple(body), PAIRS))
    return tables


def _differences(values, name, n):
    """Dice of an initialisation less that of scratch, by case and draw (DataFrame); None where no draw has both."""
    if not all((which, n) in {key[:2] for key in values.columns} for which in (name, REFERENCE)):
        return None
    ours, theirs = values[name][n], values[REFERENCE][n]
    shared = ours.columns.intersection(theirs.columns)
    differences = (ours[shared] - theirs[shared]).groupby("case").mean().dropna(how="all").dropna(axis=1, how="all")
    return None if differences.empty else differences


def _difference_cells(differences):
    by_case = differences.mean(axis=1).to_numpy()
    low, high = bootstrap_interval(by_case, method="percentile")
    interval = f"{low:+.3f} to {high:+.3f}" if len(by_case) > 1 else "–"
    texts = (
        str(len(by_case)),
        str(differences.shape[1]),
        f"{by_case.mean():+.3f}",
        interval,
        ", ".join(f"{value:+.3f}" for value in differences.mean()),
    )
    return tuple(map(Cell, texts))


def draw(rows, n_all, structure, *, paths):
    """Figures 3A and 3B of the paper side by side: Dice over the number of labelled subjects.

    Points: mean over draws; bars: their range; dotted: scratch on all subjects, where it was trained. `rows`: the
    results of a structure, or of all; `paths`: images to write, of which the ending says the format.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    over_draws = by_draw(rows).groupby(["initialisation", "subjects"]).agg(["mean", "min", "max"])
    trained = set(over_draws.index.get_level_values("initialisation"))
    panels = {letter: [name for name in names if name in trained] for letter, names in PANELS.items()}
    panels = {letter: names for letter, names in panels.items() if names}
    numbers = sorted(set(rows["subjects"]))
    settings = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "svg.fonttype": "none"}
    with rc_context(settings | {"svg.hashsalt": "nnunet_da"}):
        figure = Figure(figsize=(1 + 3.4 * len(panels), 3.6), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (letter, names) in zip(axes, panels.items(), strict=True):
            for place, name in enumerate(names):
                line = over_draws.loc[name]
                bars = [(line[upper] - line[lower]).clip(0) for lower, upper in (("min", "mean"), ("mean", "max"))]
                # Side by side, where they would hide one another.
                shift = 2 ** (0.06 * (place - (len(names) - 1) / 2))
                axis.errorbar(line.index * shift, line["mean"], bars, capsize=3, markersize=5, **LOOKS[name])
            if (REFERENCE, n_all) in over_draws.index:
                supervised = over_draws.loc[(REFERENCE, n_all), "mean"]
                axis.axhline(supervised, color="black", linestyle=":", label=f"supervised, all {n_all} subjects")
            axis.set_xscale("log", base=2)
            axis.set_xlim(numbers[0] / 1.25, numbers[-1] * 1.25)
            axis.xaxis.set_major_locator(FixedLocator(numbers))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xticks(numbers, list(map(str, numbers)))
            axis.set_title(letter, loc="left", fontweight="bold")
            axis.grid(axis="y", alpha=0.25)
            axis.legend(frameon=False, fontsize="small", loc="lower right")
        axes[0].set_ylabel("Dice")
        figure.supxlabel("labelled training subjects", fontsize=9)
        what = f"{structure}, {rows['case'].nunique()} test cases; bars: range over draws"
        figure.suptitle(what, fontsize=9)
        for path in paths:
            with atomic_file(path) as temporary:
                figure.savefig(temporary, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
