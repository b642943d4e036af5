"""Which models to ensemble in the end.

"2 folds from 2D model and 3 folds from 3D model which showed good performance on validation data were ensembled for
final predictions" (the paper, 2.3).

With labels, models are ranked by Dice. Without, by what can be seen without: ``agreement``, the Dice of a model's label
maps with the decision of all models together; ``confidence``, 1 - `uncertainty.foreground_uncertainty` of its own
probabilities; ``plausibility``, the share of volumes within the range of the true labels'. Agreement favours models
that are like most others: where most fail alike, so does the ranking.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_da import scans
from nnunet_da.errors import UserError, nearest
from nnunet_da.parallel import run_parallel
from nnunet_da.self_training import rules
from nnunet_da.self_training.channels import Channels
from nnunet_da.self_training.members import Member, open_members
from nnunet_da.self_training.uncertainty import Ensemble, dice, foreground_uncertainty, nanmean

DICE = "dice"
LABEL_FREE = ("agreement", "confidence", "plausibility")


@dataclass(frozen=True)
class Score:
    """A model as it is ranked: CONFIGURATION/FOLD, and its indicators (name → number, NaN where it is not known)."""

    configuration: str
    fold: str
    indicators: Mapping[str, float]
    n_cases: int

    @property
    def name(self) -> str:
        return f"{self.configuration}/{self.fold}"


def rank_by_labels(folders, labels_folder, raw, channels, n_processes=None) -> list[Score]:
    """The models in `folders` (CONFIGURATION/FOLD → Path), the best first, by Dice on the cases that have a label.

    Each is scored on the cases that both its folder and `labels_folder` have, which may differ: nnU-Net's folders
    ``fold_X/validation`` hold those of their fold.
    """
    found = dice_by_model(folders, labels_folder, raw, channels, n_processes)
    return _sorted([_score(name, {DICE: value}, n_cases) for name, (value, n_cases) in found.items()], DICE)


def dice_by_model(folders, labels_folder, raw, channels, n_processes=None, *, cases=None):
    """Model → (mean Dice, number of cases with a label) of the models in `folders`; as `rank_by_labels`.

    `cases`: only these count; None: all that have a label.
    """
    scores = {}
    for name, folder in folders.items():
        (member,) = open_members({name: folder}, raw.content["labels"], [])
        known = [
            case
            for case in member.cases()
            if (cases is None or case in cases) and (labels_folder / f"{case}{member.ending}").is_file()
        ]
        if not known:
            raise UserError(f"{labels_folder}: has no label map ({member.ending}) of a case predicted in {folder}")
        tasks = [
            _LabelTask(
                member.label_path(case), labels_folder / f"{case}{member.ending}", channels, raw.labels["ignore"]
            )
            for case in known
        ]
        found = run_parallel(_dice_to_label, tasks, n_processes, f"Dice of {name}")
        scores[name] = (nanmean(found), len(known))
    return scores


def rank_by_consensus(folders, raw, channels, ranges, by=LABEL_FREE[0], n_processes=None) -> list[Score]:
    """The models in `folders` (CONFIGURATION/FOLD → Path), the best first by the indicator `by`, without labels.

    As `compare_by_consensus`. Raises UserError too where there is no `by` without probabilities.
    """
    found, n_cases = compare_by_consensus(folders, raw, channels, ranges, n_processes, needed=by)
    return _sorted([_score(name, indicators, n_cases) for name, indicators in found.items()], by)


def compare_by_consensus(folders, raw, channels, ranges, n_processes=None, *, cases=None, needed=None):
    """Model → LABEL_FREE indicators (dict of float), and the number of cases, of the models in `folders` (→ Path).

    `ranges`: structure → (min, max) in mm³. All must have predicted the same cases; `cases`: only these count, None:
    all. Raises UserError where there are fewer than two models, or where `needed` is ``confidence`` and there are no
    probabilities.
    """
    if len(folders) < 2:
        raise UserError("--predictions: to be ranked without labels takes two models at least")
    members = open_members(folders, raw.content["labels"], cases)
    if cases is None:
        cases = members[0].cases()
        for member in members:
            differing = sorted(set(cases) ^ set(member.cases()))
            if differing:
                raise UserError(
                    f"{member.folder}: case '{differing[0]}' is predicted here or in {members[0].folder}, but not in "
                    f"both"
                )
    if needed == "confidence" and not members[0].soft:
        raise UserError("--by confidence: needs probabilities; predict with --save_probabilities")
    tasks = [_ConsensusTask(case, tuple(members), channels, ranges) for case in cases]
    of_cases = run_parallel(_compare_to_consensus, tasks, n_processes, "Comparing models")
    found = {
        name: {key: nanmean([of_case[index][key] for of_case in of_cases]) for key in LABEL_FREE}
        for index, name in enumerate(folders)
    }
    return found, len(cases)


def choose(scores, pick) -> dict[str, list[str]]:
    """Configuration → the folds to ensemble: of `scores`, sorted, the first pick[configuration] of each."""
    folds = {}
    for score in scores:
        folds.setdefault(score.configuration, []).append(score.fold)
    for configuration, n in pick.items():
        if configuration not in folds:
            raise UserError(f"--pick: no model of configuration '{configuration}'{nearest(configuration, folds)}")
        if not 1 <= n <= len(folds[configuration]):
            raise UserError(f"--pick {configuration}={n}: there are {len(folds[configuration])} models to choose from")
    return {configuration: folds[configuration][:n] for configuration, n in pick.items()}


def _score(name, indicators, n_cases):
    configuration, _, fold = name.rpartition("/")
    return Score(configuration, fold, indicators, n_cases)


def _sorted(scores, by):
    """The highest first; what is not known last; equal ones as they were given."""
    return sorted(scores, key=lambda score: -np.nan_to_num(score.indicators[by], nan=-np.inf))


@dataclass(frozen=True)
class _LabelTask:
    prediction: Path
    label: Path
    channels: Channels
    ignore: int


def _dice_to_label(task):
    """The mean Dice over structures; NaN where neither has one."""
    predicted, label = (scans.read_scan(path) for path in (task.prediction, task.label))
    if not scans.same_grid(predicted.grid, label.grid):
        raise UserError(f"{task.prediction}: does not lie on the grid of {task.label}")
    predicted, label = scans.integer_voxels(predicted), scans.integer_voxels(label)
    valid = label != task.ignore
    return nanmean(dice(predicted * valid, label * valid, task.channels.structures).values())


@dataclass(frozen=True)
class _ConsensusTask:
    case: str
    members: tuple[Member, ...]
    channels: Channels
    ranges: Mapping[str, tuple[float, float]]


def _compare_to_consensus(task):
    """Per member, its indicators on one case (dict)."""
    ensemble, confidences, grid = Ensemble(task.channels), [], None
    for member in task.members:
        probabilities, label_map, grid = member.read(task.case, task.channels, grid)
        ensemble.add(probabilities, label_map)
        doubt, foreground = task.channels.doubt(probabilities), task.channels.foreground(probabilities)
        confidences.append(1 - foreground_uncertainty(doubt, foreground) if member.soft else np.nan)
    consensus = ensemble.label_map()
    found = []
    for label_map, confidence in zip(ensemble.label_maps, confidences, strict=True):
        volumes = rules.volumes(label_map, task.channels.structures, grid.affine)
        within = [low <= volumes[name] <= high for name, (low, high) in task.ranges.items()]
        found.append(
            {
                "agreement": nanmean(dice(label_map, consensus, task.channels.structures).values()),
                "confidence": confidence,
                "plausibility": float(np.mean(within)) if within else np.nan,
            }
        )
    return found
