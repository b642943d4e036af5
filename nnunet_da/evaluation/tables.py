"""Tables laid out as those of the papers, as Markdown, LaTeX and CSV, and the folder of files that `evaluate` writes.

`mean_tables` (mean ± standard deviation over cases), `case_tables` (cases × structures) and `slice_tables` (2D slices
of all scans) lay out; `PRESETS` says which table of which paper each makes. `comparison_tables` and `interval_tables`
show what `statistics` computes. Each gives `typesetting.Table`s, which `to_markdown`, `to_latex` and `Table.csv` write.
"""

import dataclasses
import functools
import os
from pathlib import Path

from nnunet_da.errors import UserError, nearest
from nnunet_da.evaluation.metrics import METRICS as ALL_METRICS
from nnunet_da.evaluation.statistics import (
    ALPHA,
    MEAN,
    MIN_PAIRS,
    compare,
    kolmogorov_smirnov,
    slice_values,
    summarise,  # noqa: F401 (callers of `markdown` and `write_report` find it here)
)
from nnunet_da.evaluation.typesetting import Cell, Table, to_latex, to_markdown
from nnunet_da.files import atomic_file, atomic_folder

METRICS = [metric.key for metric in ALL_METRICS]
_METRIC = {metric.key: metric for metric in ALL_METRICS}
_COUNTS = {"n_cases": "Cases", "missed": "Missed", "false": "False"}
_FLAGS = ("missed", "false")
_NAMES = {"domain": "Domain", "model": "Model", "structure": "Structure", "case": "Case", "metric": "Metric"}

_MARK_LEGEND = (
    "*: differs from {reference}, p < {alpha:g}, Wilcoxon signed-rank test on the same cases with Holm's correction."
)
_UNDEFINED = {
    "distances": "distances where the reference or the prediction is empty",
    "dsc": "DSC where both are empty",
    "nsd": "NSD where both are empty",
    "sensitivity": "Sen where the reference is empty",
    "ravd": "RAVD where the reference is empty",
}
_CASE_LEGEND = (
    "Margins: mean ± standard deviation (ddof = 1) of a row over structures, of a column over cases, and at their"
    " corner of the cases' means. –: undefined. [k/n]: the mean holds only k of n values, because the others are."
)
_SLICE_LEGEND = (
    "Mean ± standard deviation (ddof = 1) over the 2D slices of all cases, a slice's value being its mean over"
    " structures. p: two-sample Kolmogorov–Smirnov test against {reference}, not adjusted; bold where p < {alpha:g}."
    " Slices of one scan are not independent, so p is too small. [k/n]: only k of n slices have a value."
)
_COMPARISON_LEGEND = (
    "Model − {reference} on the same cases: mean difference and bootstrap interval over cases. Left out: pairs of which"
    " a value is undefined. Wilcoxon: signed-rank test, two-sided. Holm: adjusted over the {family} tests of one metric"
    " in this table; bold where p < {alpha:g}. n < {least}: fewer than {least} differences other than 0, which cannot"
    " reach p < 0.05, so there is no test. KS: two-sample Kolmogorov–Smirnov test on 2D slices, not adjusted; slices of"
    " one scan are not independent, so p is too small."
)
_INTERVAL_LEGEND = "Mean over cases and its bootstrap interval. Left out: undefined values."


def _legend(keys, brackets=False, mean_of_structures=False):
    """What a reader of a table of the metrics and counts `keys` must know."""
    has_distances = any(key in _METRIC and _METRIC[key].is_distance for key in keys)
    reasons = [text for key, text in _UNDEFINED.items() if key in keys or (key == "distances" and has_distances)]
    sentences = [
        f"Mean {'(standard deviation)' if brackets else '± standard deviation'} (ddof = 1) over cases; the best mean of"
        " a domain is bold."
    ]
    if mean_of_structures:
        sentences.append(f"{MEAN.capitalize()}: each case's mean over its structures, then over cases.")
    if reasons:
        sentences.append(
            f"[k/n]: the mean holds only k of n values, because the others are undefined: {', '.join(reasons)}."
        )
    if has_distances:
        sentences.append("A distance over fewer values than another model's is never marked as the best.")
    if any(flag in keys for flag in _FLAGS):
        sentences.append(
            "Missed: structures of the reference whose prediction is empty. False: predicted structures that the"
            " reference lacks."
        )
    if "hd_voxels" in keys:
        sentences.append("HD (voxels): HD on unit spacing.")
    return " ".join(sentences)


LEGEND = _legend([*METRICS, *_COUNTS])

# Layouts


def mean_tables(
    summary,
    rows=("domain", "model"),
    columns=("metric",),
    metrics=None,
    *,
    percent=False,
    brackets=False,
    comparisons=None,
):
    """Mean ± standard deviation over cases, laid out by `rows` and `columns`.

    Args:
        summary: DataFrame of `statistics.summarise`.
        rows, columns: names among domain, model, structure and metric, outermost first; one or more each. What neither
            names makes a table of its own for each of its values.
        metrics: keys of metrics, and of the counts ``n_cases``, ``missed``, ``false``; by default all.
        percent: ratios × 100 with two decimals fewer.
        brackets: mean (std) in place of mean ± std.
        comparisons: DataFrame of `statistics.compare`, or several in one; what differs significantly is marked with *.

    The best model of a domain, structure and metric is bold. Raises UserError where a name or metric is unknown.
    """
    shown = list(metrics or ["n_cases", *(key for key in METRICS if f"{key}_mean" in summary), "missed", "false"])
    _require_layout(summary, rows, columns, shown)
    significant = _significant(comparisons)
    entries = {}
    for (structure, domain), block in summary.groupby(["structure", "domain"], sort=False):
        for key in shown:
            best = None if key in _COUNTS else _best(block, _METRIC[key])
            for record in block.to_dict("records"):
                place = (structure, domain, record["model"], key)
                if key in _COUNTS:
                    entries[place] = _count(record[key])
                else:
                    mark = "*" if place in significant else ""
                    entries[place] = _mean_cell(record, _METRIC[key], best, percent, brackets, mark)
    note = _legend(shown, brackets, MEAN in set(summary["structure"]))
    if comparisons is not None:
        reference = " and ".join(dict.fromkeys(comparisons["reference"]))
        note += f" {_MARK_LEGEND.format(reference=reference, alpha=ALPHA)}"
    return _pivot(entries, ("structure", "domain", "model", "metric"), rows, columns, note, percent)


def case_tables(rows, metric="dsc", *, percent=False):
    """Cases × structures in one metric, with margins; a table per model and domain.

    `rows`: DataFrame of `cases.evaluate_folders`. The margins are those of `statistics.summarise`: of a structure over
    cases, and, where there are several, of a case over structures and at the corner of the cases' means over cases.
    Raises UserError where the metric is unknown.
    """
    _require_metrics([metric], rows.columns)
    spec = _METRIC[metric]
    tables = []
    for (model, domain), block in rows.groupby(["model", "domain"], sort=False):
        structures = list(dict.fromkeys(block["structure"]))
        values = block.pivot(index="case", columns="structure", values=metric)[structures]
        expected = block.pivot(index="case", columns="structure", values="model")[structures].notna()
        several = len(structures) > 1
        body = []
        for case in dict.fromkeys(block["case"]):
            cells = [
                _number(values.loc[case, name], spec, percent) if expected.loc[case, name] else Cell("")
                for name in structures
            ]
            margin = [_margin(values.loc[case], int(expected.loc[case].sum()), spec, percent)] if several else []
            body.append(((case,), (*cells, *margin)))
        last = [_margin(values[name], int(expected[name].sum()), spec, percent) for name in structures]
        if several:
            n_defined = int(values.count().sum())
            corner = values.mean(axis=1)
            last.append(_margin(corner, int(expected.to_numpy().sum()), spec, percent, n_defined))
        body.append((("mean ± std",), tuple(last)))
        tables.append(
            Table(
                title=f"{_title(metric, percent)}: {model}, {domain}",
                stubs=("Case",),
                columns=tuple((name,) for name in [*structures, *(["mean ± std"] if several else [])]),
                rows=tuple(body),
                note=_CASE_LEGEND,
                rule_before=frozenset({len(body) - 1}),
            )
        )
    return tables


def slice_tables(slices, reference_model, metrics=("dsc",), *, percent=False):
    """Mean ± std over the 2D slices of all domains per model, and the Kolmogorov–Smirnov test against one of them.

    `slices`: DataFrame with columns model, domain, case, structure, slice and `metrics`. One table, models as columns.
    Raises UserError where the model or a metric is not in `slices`.
    """
    _require_metrics(metrics, slices.columns)
    models = list(dict.fromkeys(slices["model"]))
    if reference_model not in models:
        raise UserError(f"no model '{reference_model}' among {', '.join(models)}{nearest(reference_model, models)}")
    body = []
    for metric in metrics:
        values = {model: slice_values(slices[slices["model"] == model], metric) for model in models}
        body.append(
            (
                (f"{_title(metric, percent)} 2D",),
                tuple(_margin(values[model], len(values[model]), _METRIC[metric], percent) for model in models),
            )
        )
        tests = {
            model: kolmogorov_smirnov(values[model], values[reference_model])[1]
            for model in models
            if model != reference_model
        }
        body.append((("p",), tuple(_p_cell(tests[model]) if model in tests else Cell("–") for model in models)))
    note = _SLICE_LEGEND.format(reference=reference_model, alpha=ALPHA)
    return [Table("2D slices", ("Method",), tuple((model,) for model in models), tuple(body), note)]


def comparison_tables(comparisons):
    """The DataFrame of `statistics.compare` (or several in one) as tables, one per metric and structure."""

    def cells(record):
        spec = _METRIC[record["metric"]]
        return (
            _count(record["n_pairs"]),
            _count(record["n_left_out"]),
            _signed(record["difference"], spec),
            _interval(record["low"], record["high"], spec, "+"),
            _wilcoxon_cell(record["p_wilcoxon"], record["n_nonzero"], marks=False),
            _wilcoxon_cell(record["p_holm"], record["n_nonzero"], marks=True),
            _p_cell(record["p_ks"], marks=False),
        )

    titles = ("Pairs", "Left out", "Difference", _interval_title(comparisons), "p (Wilcoxon)", "p (Holm)", "p (KS)")
    references = " and ".join(dict.fromkeys(comparisons["reference"]))
    family = " or ".join(str(size) for size in dict.fromkeys(comparisons["n_family"]))
    note = _COMPARISON_LEGEND.format(reference=references, family=family, alpha=ALPHA, least=MIN_PAIRS)
    return _frame_tables(comparisons, titles, cells, note)


def interval_tables(intervals):
    """The DataFrame of `statistics.mean_intervals` (or several in one) as tables, one per metric and structure."""

    def cells(record):
        spec = _METRIC[record["metric"]]
        return (
            _count(record["n"]),
            _count(record["n_left_out"]),
            _number(record["mean"], spec, percent=False),
            _interval(record["low"], record["high"], spec, ""),
        )

    return _frame_tables(intervals, ("Cases", "Left out", "Mean", _interval_title(intervals)), cells, _INTERVAL_LEGEND)


PRESETS = {
    "intensity_da Table 1": functools.partial(mean_tables, metrics=("dsc", "hd_voxels", "sensitivity", "specificity")),
    "multidomain_contrastive Table 1": functools.partial(
        mean_tables, rows=("model",), columns=("domain", "metric"), metrics=("dsc", "assd_mm", "hd_mm"), percent=True
    ),
    "multidomain_contrastive Table 2": functools.partial(slice_tables, metrics=("dsc",), percent=True),
    "multidomain_contrastive Table S1": functools.partial(
        mean_tables,
        rows=("model",),
        columns=("domain", "metric"),
        metrics=("sensitivity", "specificity", "ravd"),
        percent=True,
    ),
    "multidomain_contrastive Table S2": functools.partial(
        slice_tables, metrics=("sensitivity", "specificity"), percent=True
    ),
    "ivd_dense_aspp Table 1": functools.partial(case_tables, metric="dsc"),
    "ivd_dense_aspp Table 2": functools.partial(case_tables, metric="aad_mm"),
    "ivd_dense_aspp Table 3": functools.partial(case_tables, metric="centroid_mm"),
    "crossmoda": functools.partial(
        mean_tables, rows=("model",), columns=("structure", "metric"), metrics=("dsc", "assd_mm")
    ),
}


def markdown(summary):
    """The tables of `summarise` as Markdown: one per structure, rows by domain and model, with the legend."""
    return to_markdown(mean_tables(summary))


# Cells


def _mean_cell(record, spec, best, percent, brackets, mark):
    mean, deviation, n = (record[f"{spec.key}_{part}"] for part in ("mean", "std", "n"))
    return _spread(mean, deviation, n, record["n_values"], spec, percent, brackets, mark, best)


def _spread(mean, deviation, n, expected, spec, percent=False, brackets=False, mark="", best=None):
    """Mean, standard deviation (NaN for none) and how many of the expected values there are."""
    factor, decimals = _scale(spec, percent)
    values = {"mean": mean * factor, "std": deviation * factor, "n": n, "of": expected}
    count = "" if n == expected else f"[{n}/{expected}]"
    if not n:
        return Cell("–", values, count)
    text = f"{mean * factor:.{decimals}f}"
    if deviation == deviation:
        spread = f"{deviation * factor:.{decimals}f}"
        text += f" ({spread})" if brackets else f" ± {spread}"
    return Cell(text + mark, values, count, is_best=_printed(mean, spec) == best)


def _margin(series, expected, spec, percent, n=None):
    """Mean ± std of a pandas Series; `n` defined values, where they are not those of the series itself."""
    n = int(series.count()) if n is None else n
    return _spread(series.mean(), series.std(ddof=1), n, expected, spec, percent)


def _number(value, spec, percent):
    factor, decimals = _scale(spec, percent)
    return Cell("–" if value != value else f"{value * factor:.{decimals}f}", {"": value * factor})


def _signed(value, spec):
    return Cell("–" if value != value else _minus(f"{value:+.{spec.decimals}f}"), {"": value})


def _interval(low, high, spec, sign):
    if low != low:
        return Cell("–", {"low": low, "high": high})
    texts = [_minus(f"{value:{sign}.{spec.decimals}f}") for value in (low, high)]
    return Cell(" to ".join(texts), {"low": low, "high": high})


def _wilcoxon_cell(p, n_nonzero, marks):
    return Cell(f"n < {MIN_PAIRS}", {"": p}) if n_nonzero < MIN_PAIRS else _p_cell(p, marks)


def _p_cell(p, marks=True):
    """A p-value with two significant digits, as 0.041, 0.0012 or 3.5e−6."""
    if p != p:
        return Cell("–", {"": p})
    return Cell(_minus(_p_text(p)), {"": p}, is_best=marks and p < ALPHA)


def _p_text(p):
    if p >= 1e-3:
        return f"{p:.3f}" if p >= 0.01 else f"{p:.4f}"
    mantissa, exponent = f"{p:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}" if p else "< 1e-300"


def _count(number):
    return Cell(str(int(number)), {"": int(number)})


def _minus(text):
    return text.replace("-", "−")


def _scale(spec, percent):
    return (100, spec.decimals - 2) if percent and not spec.is_distance else (1, spec.decimals)


def _title(key, percent):
    if key in _COUNTS:
        return _COUNTS[key]
    spec = _METRIC[key]
    return f"{spec.title} (%)" if percent and not spec.is_distance else spec.title


def _printed(mean, spec):
    return f"{mean:.{spec.decimals}f}"


def _best(block, spec):
    """The best mean of the models of `block` as it is printed, or None where there is nothing to compare."""
    if len(block) < 2:
        return None
    means, counts = block[f"{spec.key}_mean"], block[f"{spec.key}_n"]
    if spec.is_distance:
        # A model that misses the hard structures is spared their distances.
        means = means[counts == counts.max()]
    mean = means.max() if spec.better == "higher" else means.min()
    return None if mean != mean else _printed(mean, spec)


def _significant(comparisons):
    """(structure, domain, model, metric) of what `compare` found to differ."""
    if comparisons is None:
        return set()
    found = comparisons[comparisons["p_holm"] < ALPHA]
    return set(found[["structure", "domain", "model", "metric"]].itertuples(index=False, name=None))


# Rows and columns


def _pivot(entries, keys, rows, columns, note, percent):
    """`Table`s of `entries` (values of `keys` → cell), one per combination of the keys in neither rows nor columns.

    Labels have the order in which they appear, key by key, so that two domains with other structures still line up.
    """
    order = {key: list(dict.fromkeys(place[index] for place in entries)) for index, key in enumerate(keys)}
    apart = [key for key in keys if key not in (*rows, *columns)]

    def places(names):
        found = {tuple(place[keys.index(name)] for name in names) for place in entries}
        return sorted(
            found, key=lambda place: [order[name].index(part) for name, part in zip(names, place, strict=True)]
        )

    def labels(names, place):
        return tuple(
            _title(part, percent) if name == "metric" else part for name, part in zip(names, place, strict=True)
        )

    tables = []
    for outer in places(apart):
        fixed = dict(zip(apart, outer, strict=True))

        def cell(row, column, fixed=fixed):
            place = fixed | dict(zip((*rows, *columns), (*row, *column), strict=True))
            return entries.get(tuple(place[key] for key in keys))

        # A domain may lack a structure: lines and columns in which nothing stands are left out.
        lines = [row for row in places(rows) if any(cell(row, column) for column in places(columns))]
        used = [column for column in places(columns) if any(cell(row, column) for row in lines)]
        if lines:
            tables.append(
                Table(
                    title=", ".join(labels(apart, outer)),
                    stubs=tuple(_NAMES[name] for name in rows),
                    columns=tuple(labels(columns, column) for column in used),
                    rows=tuple((labels(rows, row), tuple(cell(row, c) or Cell("") for c in used)) for row in lines),
                    note=note,
                )
            )
    return tables


def _frame_tables(frame, titles, cells, note):
    """One table per metric and structure of a DataFrame, rows by domain and model, columns of one level."""
    return [
        Table(
            title=f"{_METRIC[metric].title}, {structure}",
            stubs=("Domain", "Model"),
            columns=tuple((title,) for title in titles),
            rows=tuple(((record["domain"], record["model"]), cells(record)) for record in block.to_dict("records")),
            note=note,
        )
        for (metric, structure), block in frame.groupby(["metric", "structure"], sort=False)
    ]


def _interval_title(frame):
    return " or ".join(f"{100 * confidence:g} %" for confidence in dict.fromkeys(frame["confidence"])) + " interval"


def _require_layout(summary, rows, columns, metrics):
    names = [*rows, *columns]
    unknown = [name for name in names if name not in ("domain", "model", "structure", "metric")]
    if unknown:
        raise UserError(f"rows and columns of a table are domain, model, structure or metric, not '{unknown[0]}'")
    if not rows or not columns or len(set(names)) < len(names):
        raise UserError("rows and columns of a table each need a name, and no name may stand twice")
    computed = [key for key in METRICS if f"{key}_mean" in summary]
    _require_metrics([key for key in metrics if key not in _COUNTS], computed)


def _require_metrics(metrics, computed):
    for key in metrics:
        if key not in _METRIC:
            raise UserError(f"no metric '{key}'{nearest(key, METRICS)}")
        if key not in computed:
            raise UserError(f"metric '{key}' was not computed for these results")


# The folder of files


PAGE = "report.html"
# Some are written where there is more than one model, or slices, or a page is asked for; a folder with others than
# these is not a report of our own.
REPORT_FILES = (
    *("cases.csv", "table.csv", "table.md"),
    *("table.tex", "by_case.md", "slices.csv", "comparison.csv", "comparison.md", "comparison.tex", PAGE),
)
_ALWAYS = frozenset(REPORT_FILES[:3])  # also in reports of version 0.1
_COMPARED = ("dsc", "assd_mm", "hd95_mm")
_BY_CASE = ("dsc", "aad_mm", "centroid_mm")


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


def report_texts(rows, summary, slices=None, note=""):
    """File name (of `REPORT_FILES`) → content of a report; the first model of `rows` is the reference of comparisons.

    ``cases.csv``, ``table.csv``, ``table.md``, ``table.tex`` and ``by_case.md`` always; ``slices.csv`` where there are
    `slices`; ``comparison.csv``, ``.md`` and ``.tex`` where there is more than one model. `note`: what else must stand
    under the tables, such as a penalty in place of undefined values.
    """

    def noted(tables):
        return [dataclasses.replace(table, note=f"{table.note} {note}".strip()) for table in tables]

    texts = {
        "cases.csv": _csv(rows),
        "table.csv": _csv(summary),
        "table.md": to_markdown(noted(mean_tables(summary))),
        "table.tex": to_latex(noted(_tables_for_a_page(summary))),
        "by_case.md": to_markdown(
            noted([table for key in _BY_CASE if key in rows for table in case_tables(rows, key)])
        ),
    }
    if slices is not None:
        texts["slices.csv"] = _csv(slices)
    comparisons, tables = compare_models(rows, slices)
    if tables:
        texts |= {
            "comparison.csv": _csv(comparisons),
            "comparison.md": to_markdown(noted(tables)),
            "comparison.tex": to_latex(noted(tables)),
        }
    return texts


def compare_models(rows, slices=None):
    """Every model against the first of `rows`: a DataFrame as of `statistics.compare`, and its tables; else two Nones.

    With `slices`, their tables follow. There is nothing to compare where there is one model.
    """
    import pandas

    models = list(dict.fromkeys(rows["model"]))
    if len(models) < 2:
        return None, None
    frames = [compare(rows, models[0], key, slices) for key in _COMPARED if key in rows]
    comparisons = pandas.concat(frames, ignore_index=True)
    tables = comparison_tables(comparisons)
    if slices is not None:
        tables += slice_tables(slices, models[0], [key for key in METRICS if key in slices])
    return comparisons, tables


def write_page(output, write_html):
    """Writes a report that is ``report.html`` alone, for predictions without references; `write_html` as above."""
    output = Path(output).resolve()
    if _holds_others(output):
        write_html(output / PAGE)
        return
    with atomic_folder(output) as folder:
        write_html(folder / PAGE)


def write_report(rows, summary, output, slices=None, note="", write_html=None):
    """Writes `report_texts` into the folder `output`. An earlier report is replaced as a whole.

    Beside files of others, which stay, each file is replaced on its own, and what only the earlier report had is
    removed. `write_html`: writes a page to the path that it is given, which is then ``report.html``.
    """
    output = Path(output).resolve()
    texts = report_texts(rows, summary, slices, note)
    if not _holds_others(output):
        with atomic_folder(output) as folder:
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8")
            if write_html:
                write_html(folder / PAGE)
        return
    for name, text in texts.items():
        with atomic_file(output / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if write_html:
        write_html(output / PAGE)
    for name in set(REPORT_FILES) - set(texts) - ({PAGE} if write_html else set()):
        (output / name).unlink(missing_ok=True)


def _tables_for_a_page(summary):
    """`mean_tables` by domain and model, ratios and distances apart: all of them in one are wider than a page."""
    keys = [key for key in METRICS if f"{key}_mean" in summary]
    ratios = [key for key in keys if not _METRIC[key].is_distance]
    distances = [key for key in keys if _METRIC[key].is_distance]
    counted = ["n_cases", *ratios, "missed", "false"]
    return [*mean_tables(summary, metrics=counted), *(mean_tables(summary, metrics=distances) if distances else [])]


def _csv(frame):
    return frame.to_csv(index=False, na_rep="nan")


def _holds_others(folder):
    if not folder.exists():
        return False
    names = {path.name for path in folder.iterdir()}
    return bool(names) and names != {PAGE} and not (_ALWAYS <= names <= set(REPORT_FILES))
