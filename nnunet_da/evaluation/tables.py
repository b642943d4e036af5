"""Tables of mean ± standard deviation by domain and model, laid out as Table 1 of the intensity pretext paper."""

import os
from dataclasses import dataclass
from pathlib import Path

from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file, atomic_folder

MEAN = "mean of structures"
REPORT_FILES = ("cases.csv", "table.csv", "table.md")


@dataclass(frozen=True)
class Column:
    """How a metric of `metrics.structure_metrics` stands in a table."""

    key: str
    title: str
    decimals: int
    is_distance: bool


TABLE_COLUMNS = (
    Column("dsc", "DSC", 3, is_distance=False),
    Column("hd_voxels", "HD (voxels)", 2, is_distance=True),
    Column("hd_mm", "HD (mm)", 2, is_distance=True),
    Column("hd95_mm", "HD95 (mm)", 2, is_distance=True),
    Column("assd_mm", "ASSD (mm)", 2, is_distance=True),
    Column("sensitivity", "Sen", 3, is_distance=False),
    Column("specificity", "Spec", 3, is_distance=False),
)
METRICS = [column.key for column in TABLE_COLUMNS]

LEGEND = (
    "Mean ± standard deviation (ddof = 1) over cases; the best mean of a domain is bold. [k/n]: the mean holds only k"
    " of n values, because the others are undefined: distances where the reference or the prediction is empty, DSC"
    " where both are, Sen where the reference is. A distance over fewer values than another model's is never marked as"
    " the best. Missed: structures of the reference whose prediction is empty. False: predicted structures that the"
    " reference lacks. HD (voxels): HD on unit spacing."
)


def summarise(rows):
    """Mean, standard deviation and counts of the rows of `cases.evaluate_folders`.

    Returns a DataFrame with a row per structure, domain and model: ``n_cases``, ``n_values`` (cases × structures),
    ``missed``, ``false`` (counts of structures) and, per metric, ``_mean``, ``_std`` (ddof = 1; NaN for one case) and
    ``_n``, the number of values that are not NaN and enter the mean. Where there are several structures, rows
    named `MEAN` come first: each case's mean over the structures for which it has a value, then mean and standard
    deviation over cases. Domains, models and structures keep their order of appearance.
    """
    import pandas

    structures = list(dict.fromkeys(rows["structure"]))
    blocks = [(MEAN, rows)] if len(structures) > 1 else []
    blocks += [(name, rows[rows["structure"] == name]) for name in structures]
    return pandas.DataFrame(
        {"domain": domain, "model": model, "structure": name, **_statistics(group)}
        for name, block in blocks
        for (domain, model), group in block.groupby(["domain", "model"], sort=False)
    )


def _statistics(group):
    cases = group.groupby("case", sort=False)[METRICS].mean()
    means, deviations, counts = cases.mean(), cases.std(ddof=1), group[METRICS].count()
    statistics = {"n_cases": len(cases), "n_values": len(group)}
    statistics |= {flag: int(group[flag].sum()) for flag in ("missed", "false")}
    for key in METRICS:
        statistics |= {f"{key}_mean": means[key], f"{key}_std": deviations[key], f"{key}_n": int(counts[key])}
    return statistics


def markdown(summary):
    """The tables of `summarise` as Markdown: one per structure, rows by domain and model, with the legend."""
    titles = ["Domain", "Model", "Cases", *(column.title for column in TABLE_COLUMNS), "Missed", "False"]
    lines = []
    for structure, block in summary.groupby("structure", sort=False):
        lines += [f"### {_escape(structure)}", "", _line(titles), _line(["---"] * 2 + ["---:"] * (len(titles) - 2))]
        for _, domain in block.groupby("domain", sort=False):
            best = {column.key: _best(domain, column) for column in TABLE_COLUMNS}
            for record in domain.to_dict("records"):
                values = [_cell(record, column, best[column.key]) for column in TABLE_COLUMNS]
                names = [_escape(record["domain"]), _escape(record["model"]), record["n_cases"]]
                lines.append(_line([*names, *values, record["missed"], record["false"]]))
        lines.append("")
    return "\n".join([*lines, LEGEND, ""])


def _best(domain, column):
    """The best mean of a domain as it is printed, or None where there is nothing to compare."""
    if len(domain) < 2:
        return None
    means, counts = domain[f"{column.key}_mean"], domain[f"{column.key}_n"]
    if column.is_distance:
        # A model that misses the hard structures is spared their distances.
        means = means[counts == counts.max()]
    mean = means.min() if column.is_distance else means.max()
    return None if mean != mean else f"{mean:.{column.decimals}f}"


def _cell(record, column, best):
    mean, deviation, n = (record[f"{column.key}_{part}"] for part in ("mean", "std", "n"))
    count = "" if n == record["n_values"] else f" [{n}/{record['n_values']}]"
    if not n:
        return f"–{count}"
    text = f"{mean:.{column.decimals}f}"
    is_best = text == best
    if deviation == deviation:
        text += f" ± {deviation:.{column.decimals}f}"
    return f"**{text}**{count}" if is_best else text + count


def _line(cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def _escape(text):
    return str(text).replace("|", "\\|")


def require_output(output, overwrite):
    """Raises UserError where no folder `output` can be made, or it holds files of others and `overwrite` is False."""
    output = Path(output).resolve()
    existing = next(path for path in (output, *output.parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"{existing}: is a file, not a folder")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{existing}: no permission to write here")
    if _holds_others(output) and not overwrite:
        raise UserError(f"{output}: holds files that evaluate did not write; choose another folder or add --overwrite")


def write_report(rows, summary, output):
    """Writes `REPORT_FILES` into the folder `output`. An earlier report is replaced as a whole.

    Beside files of others, which stay, each of the three is replaced on its own.
    """
    output = Path(output).resolve()
    texts = [rows.to_csv(index=False, na_rep="nan"), summary.to_csv(index=False, na_rep="nan"), markdown(summary)]
    if _holds_others(output):
        for name, text in zip(REPORT_FILES, texts, strict=True):
            with atomic_file(output / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return
    with atomic_folder(output) as folder:
        for name, text in zip(REPORT_FILES, texts, strict=True):
            (folder / name).write_text(text, encoding="utf-8")


def _holds_others(folder):
    if not folder.exists():
        return False
    names = {path.name for path in folder.iterdir()}
    return bool(names) and names != set(REPORT_FILES)
