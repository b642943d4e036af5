"""What the report says from the metrics: summary, warnings, box plots, and the table of cases."""

import math

from nnunet_da.evaluation.metrics import METRICS
from nnunet_da.evaluation.report.plots import box_plot
from nnunet_da.evaluation.statistics import summarise
from nnunet_da.evaluation.tables import mean_tables

# What a reader sees first; the other metrics are one click away.
PRIMARY = ("dsc", "nsd", "hd95_mm", "assd_mm")
COUNTS = ("n_cases", "missed", "false")
PLOTTED = ("dsc", "hd95_mm", "assd_mm")
TERMS = {
    "dsc": ("DSC, Dice", "Overlap of prediction and reference, 2 |R ∩ P| / (|R| + |P|); 1 is perfect, 0 no overlap."),
    "nsd": ("NSD", "Share of both surfaces that lies within a tolerance of the other; 1 is perfect."),
    "hd_mm": ("HD", "Hausdorff distance: the farthest that any surface point lies from the other surface."),
    "hd95_mm": ("HD95", "The same for the 95th percentile, so that single stray voxels count less."),
    "assd_mm": ("ASSD", "Average distance between the surfaces, over the points of both."),
    "masd_mm": ("MASD", "Mean of the two directed average surface distances."),
    "aad_mm": ("AAD", "Average distance of the prediction's surface points from the reference's surface."),
    "centroid_mm": ("Localisation", "Distance between the centroids of prediction and reference."),
    "sensitivity": ("Sen", "Sensitivity: share of the reference that was found."),
    "specificity": (
        "Spec",
        "Specificity: share of the other voxels that were left alone; near 1 for small structures.",
    ),
    "ravd": ("RAVD", "Relative absolute volume difference, | |P| − |R| | / |R|; 0 is perfect."),
}
GENERAL_TERMS = {
    "Missed": "Structures of the reference of which nothing was predicted. Read distances together with their number.",
    "False": "Predicted structures that the reference does not have.",
    "–": "Undefined, for instance a distance where a mask is empty.",
}


def summary_context(rows, models):
    """What the template needs of the rows of `cases.evaluate_folders`; `models` in the order of their colours."""
    metrics = [metric for metric in METRICS if metric.key in rows]
    tables = mean_tables(summarise(rows), metrics=[*COUNTS, *(metric.key for metric in metrics)])
    return {
        "metrics": [_column(metric) for metric in metrics],
        "has_extra": any(metric.key not in PRIMARY for metric in metrics),
        "summaries": [_summary(table, metrics) for table in tables],
        "warnings": _warnings(rows),
        "plots": [_boxes(rows, "domain", metric, models) for metric in metrics if metric.key in PLOTTED],
        "structure_plots": _structure_plots(rows, metrics[0], models),
        "cases": [_case(record, metrics) for record in rows.to_dict("records")],
        "terms": dict(TERMS[metric.key] for metric in metrics if metric.key in TERMS) | GENERAL_TERMS,
    }


def _column(metric):
    worst_first = "ascending" if metric.better == "higher" else "descending"
    return {"title": metric.title, "primary": metric.key in PRIMARY, "worst_first": worst_first}


def _summary(table, metrics):
    """A `tables.Table` of domains × models as the template wants it."""
    domains = {}
    for (domain, model), (n_cases, missed, false, *cells) in table.rows:
        domains.setdefault(domain, []).append(
            {
                "model": model,
                "n_cases": n_cases.text,
                "cells": [
                    {"cell": cell, "primary": metric.key in PRIMARY}
                    for cell, metric in zip(cells, metrics, strict=True)
                ],
                "missed": missed.values[""],
                "false": false.values[""],
            }
        )
    structure = table.title[:1].upper() + table.title[1:]
    return {"structure": structure, "domains": [{"name": name, "rows": rows} for name, rows in domains.items()]}


def _warnings(rows):
    """A sentence for every domain and model with structures that are missed or made up."""
    sentences = []
    for (domain, model), group in rows.groupby(["domain", "model"], sort=False):
        for column, what in (("missed", "missed"), ("false", "predicted where the reference has none")):
            affected = group[group[column].astype(bool)]
            if len(affected):
                cases = list(dict.fromkeys(affected["case"]))
                named = ", ".join(cases[:3]) + (f" and {len(cases) - 3} more" if len(cases) > 3 else "")
                sentences.append(f"{domain}, {model}: {len(affected)} of {len(group)} structures {what} ({named})")
    return sentences


def _boxes(rows, group, metric, models, prefix=""):
    """A box plot by the column `group`, of one value per case: the mean over its structures that have a value."""
    values = {
        names: block.groupby("case", sort=False)[metric.key].mean().to_numpy(dtype=float)
        for names, block in rows.groupby([group, "model"], sort=False)
    }
    title = prefix + metric.title
    return {"title": title, "plot": box_plot(values, models, title, metric.decimals, metric.better)}


def _structure_plots(rows, metric, models):
    """By structure, a plot per domain; none where there is only one structure."""
    if rows["structure"].nunique() == 1:
        return []
    by_domain = rows.groupby("domain", sort=False)
    return [_boxes(block, "structure", metric, models, f"{domain}: ") for domain, block in by_domain]


def _case(record, metrics):
    remark = "missed" if record["missed"] else "false" if record["false"] else ""
    cells = [
        number_cell(record[metric.key], metric.decimals) | {"primary": metric.key in PRIMARY} for metric in metrics
    ]
    return {name: record[name] for name in ("case", "domain", "model", "structure")} | {
        "cells": cells,
        "remark": remark,
    }


def number_cell(value, decimals, flag=False):
    """A number as it is printed and as it is sorted; a dash, sorted last, for NaN."""
    if math.isnan(value):
        return {"text": "–", "value": "", "flag": False}
    return {"text": f"{value:.{decimals}f}", "value": f"{value:.10g}", "flag": bool(flag)}


def mean_dice(rows):
    """(model, case) → mean Dice over its structures, where it has one."""
    return rows.groupby(["model", "case"])["dsc"].mean().dropna().to_dict()
