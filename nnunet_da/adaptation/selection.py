"""Which of several models does best on a domain without labels.

Checkpoints, folds and trainers are compared by their predictions of the same unlabelled cases, with the indicators of
`nnunet_da.self_training.choice` and two more:

- ``agreement``: Dice with the decision of all models together;
- ``confidence``: 1 - Σ doubt / Σ probability of foreground, where probabilities were saved;
- ``plausibility``: the share of volumes within the range of the true labels';
- ``volume``: how near the median volume of each structure is to that of the true labels;
- ``reverse``: Dice on the true labels of what was trained on each model's predictions in their place (reverse
  validation: Zhong et al., "Cross validation framework to choose amongst models and datasets for transfer learning",
  ECML PKDD 2010). It takes a training for each model, and so is known only where these were done.

No indicator is right everywhere: agreement favours what most models do, confidence a network that errs surely. So the
default is the mean of the ranks by each of them (Borda's count), which no single one decides. Where labels are known
after all, as in a benchmark, `judge` says how well each indicator ranks.
"""

import numpy as np
from scipy.stats import rankdata, spearmanr

from nnunet_da import scans
from nnunet_da.adaptation.check import volume_plausibility
from nnunet_da.errors import UserError
from nnunet_da.parallel import run_parallel
from nnunet_da.self_training import choice, rules
from nnunet_da.self_training.members import open_members
from nnunet_da.self_training.pseudo_labels import true_volumes

INDICATORS = (*choice.LABEL_FREE, "volume", "reverse")
MEAN_RANK = "mean_rank"


def compare_for_domain(folders, raw, channels, domain=None, margin=0.5, n_processes=None, *, reverse=None):
    """`compare` on the cases of a domain (name; None: all that are predicted), with the volumes of the true labels.

    `margin`: by which plausible volumes may lie outside those of the true labels. `reverse`: model → predictions of
    cases with true labels by what was trained on its predictions. Raises UserError for an unknown domain, one of whose
    cases none is predicted, or `reverse` of other models than `folders`.
    """
    reversed_dice = _reversed_dice(folders, reverse, raw, channels, n_processes) if reverse else {}
    volumes = true_volumes(raw, channels, n_processes)
    medians = {
        name: float(np.median([of_case[name] for of_case in volumes if name in of_case]))
        for name in channels.structures
        if any(name in of_case for of_case in volumes)
    }
    cases = None
    if domain is not None:
        if raw.domains is None:
            raise UserError(f"--domain {domain}: the dataset has no domains")
        (chosen,) = raw.domains.select([domain])
        first = next(iter(folders.values()))
        predicted = {path.name.split(".")[0] for path in first.glob("*.nii*")}
        cases = [case for case in chosen.cases if case in predicted]
        if not cases:
            raise UserError(f"{first}: holds no prediction of a case of domain '{domain}'")
    ranges = rules.volume_ranges(volumes, margin)
    how = {"cases": cases, "reverse": reversed_dice, "n_processes": n_processes}
    return compare(folders, raw, channels, ranges, medians, **how)


def _reversed_dice(folders, reverse, raw, channels, n_processes):
    """Model → Dice of its `reverse` on the cases with true labels."""
    differing = sorted(folders.keys() ^ reverse.keys())
    if differing:
        raise UserError(f"--reverse: model '{differing[0]}' is in --pred or --reverse, but not in both")
    domains = raw.domains
    cases = None if domains is None else set(domains.labelled_cases) - set(domains.pseudo_labels)
    scores = choice.dice_by_model(reverse, raw.folder / "labelsTr", raw, channels, n_processes, cases=cases)
    predicted = {
        frozenset(case for case in member.cases() if cases is None or case in cases)
        for name, folder in reverse.items()
        for member in open_members({name: folder}, raw.content["labels"], [])
    }
    if len(predicted) > 1:
        raise UserError("--reverse: every model must have predicted the same cases with true labels")
    return {name: dice for name, (dice, _) in scores.items()}


def compare(folders, raw, channels, ranges, medians, *, cases=None, tolerance=1.5, reverse=None, n_processes=None):
    """Model → its INDICATORS and MEAN_RANK (dict of float), the best first by the mean rank.

    Parameters
    ----------
    folders : dict of str to Path
        Predictions of each model, as nnU-Net writes them.
    raw : RawFolder
    channels : Channels
    ranges : dict
        Structure → (min, max) in mm³, of `plausibility`.
    medians : dict
        Structure → median volume in mm³ of the true labels.
    cases : sequence of str or None
        Only these count; None: all, which must then be the same for every model.
    tolerance : float
        Of `check.volume_plausibility`.
    reverse : dict or None
        Model → Dice, of the indicator ``reverse``.

    Raises UserError for fewer than two models, or predictions that are missing.
    """
    found, _ = choice.compare_by_consensus(folders, raw, channels, ranges, n_processes, cases=cases)
    for name, folder in folders.items():
        volumes = predicted_volumes(name, folder, raw, channels, cases, n_processes)
        found[name]["volume"] = nearness(volumes, medians, tolerance)
        found[name]["reverse"] = (reverse or {}).get(name, float("nan"))
    for name, rank in mean_ranks(found).items():
        found[name][MEAN_RANK] = rank
    return dict(sorted(found.items(), key=lambda item: item[1][MEAN_RANK]))


def predicted_volumes(name, folder, raw, channels, cases=None, n_processes=None):
    """Structure → volumes in mm³ (list) of the predictions in `folder`."""
    (member,) = open_members({name: folder}, raw.content["labels"], cases)
    tasks = [(member.label_path(case), channels.structures) for case in (cases or member.cases())]
    of_cases = run_parallel(_volumes, tasks, n_processes, f"Volumes of {name}")
    return {structure: [volumes[structure] for volumes in of_cases] for structure in channels.structures}


def _volumes(task):
    path, structures = task
    scan = scans.read_scan(path)
    return rules.volumes(scans.integer_voxels(scan), structures, scan.grid.affine)


def nearness(volumes, medians, tolerance):
    """How near median volumes are to `medians` (structure → mm³), in [0, 1]; NaN where there is none to compare with.

    As `check.volume_plausibility` has it. `volumes`: structure → mm³ of each case.
    """
    known = [name for name in medians if name in volumes]
    if not known:
        return float("nan")
    ours = np.array([np.median(volumes[name]) for name in known])
    return volume_plausibility(ours, np.array([medians[name] for name in known]), tolerance)


def mean_ranks(found):
    """Model → mean of its ranks (1: the best; ties share theirs) by INDICATORS; those not known for all do not count.

    `found`: model → indicators (dict of float).
    """
    names = list(found)
    table = np.array([[found[name][key] for key in INDICATORS] for name in names])
    known = ~np.isnan(table).any(0)
    if not known.any():
        return dict.fromkeys(names, float("nan"))
    ranks = rankdata(-table[:, known], axis=0)
    return dict(zip(names, ranks.mean(1).tolist(), strict=True))


def judge(found, truth):
    """How well each indicator ranks models whose Dice is known.

    Parameters
    ----------
    found : dict
        Model → INDICATORS and MEAN_RANK.
    truth : dict
        Model → Dice.

    Returns indicator → (Spearman's correlation with the Dice; how far the Dice of its first choice lies below the best
    one). Both are NaN for an indicator that is not known for all models; the correlation, where it is constant.
    """
    names = list(found)
    dice = np.array([truth[name] for name in names])
    judged = {}
    for key in (*INDICATORS, MEAN_RANK):
        # The mean rank is the lower the better.
        values = np.array([found[name][key] for name in names]) * (-1 if key == MEAN_RANK else 1)
        if np.isnan(values).any():
            judged[key] = (float("nan"), float("nan"))
            continue
        constant = np.ptp(values) == 0 or np.ptp(dice) == 0
        correlation = float("nan") if constant else float(spearmanr(values, dice).statistic)
        judged[key] = (correlation, float(dice.max() - dice[values.argmax()]))
    return judged
