"""What the report says of doubt: cases by doubt, how to read each sign, and how far doubt can be trusted."""

import math

import numpy as np

from nnunet_da.evaluation.report.doubt import MIN_VOLUMES, OUTLIER
from nnunet_da.evaluation.report.summary import mean_dice, number_cell

# Title, and the order that puts the worst first.
SIGNS = {
    "entropy": ("Entropy (bits)", "descending"),
    "agreement": ("Agreement", "ascending"),
    "volume_z": ("Volume z", "descending"),
}
NAMES = ("case", "domain", "model")


def doubt_context(rows, table, ranked, labelled_domains, *, has_folds):
    """What the template needs.

    rows: of `cases.evaluate_folders`, or None; table: of `doubt.indicators`; ranked: of `doubt.rank_cases`.
    """
    dice = {} if rows is None else mean_dice(rows)
    shown = [sign for sign in SIGNS if ranked[sign].notna().any()]
    return {
        "doubt": [_ranked_row(record, shown, dice) for record in ranked.to_dict("records")],
        "doubt_signs": _columns(shown, bool(dice)),
        "doubt_terms": _terms(table, labelled_domains, "the folds of a model" if has_folds else "the models"),
        "doubt_trust": _trust(ranked, dice, dict.fromkeys(table["model"])),
        "doubt_columns": ["Volume (ml)", *(SIGNS[sign][0] for sign in shown)],
        "doubt_by_structure": [_structure_row(record, shown) for record in table.to_dict("records")],
    }


def _columns(shown, has_dice):
    columns = [("Doubt", "descending", False)]
    columns += [(*SIGNS[sign], False) for sign in shown]
    columns.append(("Empty", "descending", True))
    if has_dice:
        columns.append(("Dice", "ascending", False))
    return [{"title": title, "worst_first": worst, "is_text": is_text} for title, worst, is_text in columns]


def _ranked_row(record, shown, dice):
    empty = ", ".join(record["empty"])
    cells = [_sign_cell(record, sign) for sign in shown]
    cells.append({"text": empty, "value": empty, "flag": True})
    if dice:
        cells.append(number_cell(dice.get((record["model"], record["case"]), math.nan), 3))
    columns = _columns(shown, bool(dice))[1:]
    cells = [{"is_text": column["is_text"]} | cell for cell, column in zip(cells, columns, strict=True)]
    return {name: record[name] for name in NAMES} | {"doubt": number_cell(record["doubt"], 2), "cells": cells}


def _structure_row(record, shown):
    volume = number_cell(record["size"] / 1000, 2, flag=record["empty"])
    names = {name: record[name] for name in (*NAMES, "structure")}
    return names | {"cells": [volume, *(_sign_cell(record, sign) for sign in shown)]}


def _sign_cell(record, sign):
    if sign != "volume_z":
        return number_cell(record[sign], 3)
    # What is farthest from 0 comes first, whatever its sign.
    cell = number_cell(record[sign], 1, flag=abs(record[sign]) > OUTLIER)
    return cell | {"text": cell["text"].replace("-", "−"), "value": cell["value"].lstrip("-")}


def _terms(table, labelled_domains, who):
    """How to read each sign, and of one that is absent what it needs."""
    has = {sign: table[sign].notna().any() for sign in SIGNS}
    compared = "in all domains"
    known = [domain for domain in dict.fromkeys(table["domain"]) if domain in labelled_domains]
    if known:
        compared = f"in {', '.join(known)} (labelled), or in all domains where those are fewer than {MIN_VOLUMES}"
    return {
        "Doubt": "The mean, over the signs below, of the share of the same model's other cases that look less doubtful:"
        " 1 for the most doubtful case of a model, 0 for the least. It ranks cases; it does not measure their error.",
        "Entropy": "How undecided the model is inside what it predicted: mean binary entropy of its probabilities, from"
        " 0 (certain) to 1 (a coin toss). High: the outline is a guess. Low is no proof: networks can be certain and"
        " wrong."
        if has["entropy"]
        else "Not available: it needs the probabilities that nnUNetv2_predict saves with --save_probabilities.",
        "Agreement": f"Mean Dice between the predictions of {who}; 1 if they are the same. Low: at least one of them is"
        " wrong. High is no proof: they can share an error."
        if has["agreement"]
        else "Not available: it needs two models, or two folds of one.",
        "Volume z": f"How unusual the predicted volume is against the same model's predictions {compared}: modified"
        f" z-score of its logarithm. Beyond ±{OUTLIER}: an outlier. Far below 0: too little was found, or the scan"
        " shows less of the body. Far above 0: the prediction leaks, or the scan shows more."
        if has["volume_z"]
        else f"Not available: it needs {MIN_VOLUMES} predictions of a structure that differ in volume.",
        "Empty": "Structures of the domain of which nothing was predicted. Such cases stand first.",
    }


def _trust(ranked, dice, models):
    """A sentence per model on how well doubt ranks the cases of which Dice is known."""
    from scipy.stats import spearmanr

    sentences = []
    for model in models:
        group = ranked[ranked["model"] == model]
        pairs = np.array([(row.doubt, dice.get((model, row.case), math.nan)) for row in group.itertuples()])
        pairs = pairs[~np.isnan(pairs).any(axis=1)]
        if len(pairs) >= MIN_VOLUMES and np.ptp(pairs, axis=0).all():
            rho = f"{spearmanr(*pairs.T).statistic:.2f}".replace("-", "−")
            sentences.append(
                f"{model}: over its {len(pairs)} cases with a reference, Spearman's correlation of doubt with Dice is"
                f" {rho} (−1: doubt ranks them perfectly; 0 or more: it is no help here)."
            )
    return sentences
