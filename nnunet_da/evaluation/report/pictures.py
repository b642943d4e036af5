"""Which cases the report draws: the worst, the median and the best of every domain."""

from nnunet_da.evaluation.report import overlays
from nnunet_da.evaluation.report.summary import mean_dice
from nnunet_da.parallel import run_parallel

SIDES = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}


def pictures_context(rows, sources, ranked, model, n_processes=None):
    """What the template needs: per domain up to three cases with their panels.

    Cases are ranked by their mean Dice of `model` where a domain has references, elsewhere by its doubt about them.
    rows: of `cases.evaluate_folders`, or None; ranked: of `doubt.rank_cases`.
    """
    dice = {} if rows is None else mean_dice(rows)
    doubt = {row.case: row.doubt for row in ranked.itertuples() if row.model == model and row.doubt == row.doubt}
    chosen, bases = [], []
    for domain in dict.fromkeys(sources.domain_of_case.values()):
        cases = [case for case, its_domain in sources.domain_of_case.items() if its_domain == domain]
        scores = {case: dice[model, case] for case in cases if (model, case) in dice}
        names, basis = ("Worst", "Median", "Best"), f"their mean Dice of {model}"
        if not scores:
            scores = {case: -doubt.get(case, 0.0) for case in cases}
            names, basis = ("Most doubtful", "Median doubt", "Least doubtful"), f"the doubt about {model}"
        # Dice is named first.
        bases.insert(0 if basis.startswith("their") else len(bases), basis)
        chosen += [(domain, rank, case) for rank, case in extremes(scores, names)]
    drawn = run_parallel(overlays.draw, [sources.case_files(case) for *_, case in chosen], n_processes, "Drawing cases")
    by_domain = {}
    for number, ((domain, rank, case), panels) in enumerate(zip(chosen, drawn, strict=True)):
        models = [
            {"name": name, "text": f"Dice {dice[name, case]:.3f}" if (name, case) in dice else ""}
            for name in sources.predictions_of(case)
        ]
        picture = {"id": f"picture-{number}", "name": case, "rank": rank, "models": models, "panels": panels}
        picture["aspect"] = sum(panel.width for panel in panels) / max(panel.height for panel in panels)
        by_domain.setdefault(domain, []).append(picture)
    return {
        "pictures": [{"name": domain, "cases": cases} for domain, cases in by_domain.items()],
        "pictures_basis": f"Cases of a domain are ranked by {', without references by '.join(dict.fromkeys(bases))}.",
        "has_reference": any(panel.reference for panels in drawn for panel in panels),
        "side": SIDES,
    }


def extremes(scores, names):
    """(name, case) of the lowest, the (lower) median and the highest score; fewer where there are fewer cases."""
    ordered = sorted(scores, key=scores.get)
    if len(ordered) == 1:
        return [("Only case", ordered[0])]
    worst, median, best = names
    middle = [(median, ordered[(len(ordered) - 1) // 2])] if len(ordered) > 2 else []
    return [(worst, ordered[0]), *middle, (best, ordered[-1])]
