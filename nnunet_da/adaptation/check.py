"""Whether a network does well on images without labels, by what can be seen without.

Each indicator is in [0, 1], and 1 where nothing speaks against the network:

- ``agreement``: Dice of what teacher and student find (student and running mean drift apart where labels are noise);
- ``invariance``: Dice of what the teacher finds in images as they are and with other intensities;
- ``confidence``: 1 - Σ doubt / Σ probability of foreground, as `nnunet_da.self_training.uncertainty` has it per case;
- ``volume``: how near the share of each structure is to its share in images of the source, within a tolerance.

Confidence and agreement alone favour a network that finds nothing, or everything: the product of all does not. That
consistent, confident predictions are the right ones is a hope (Garg et al., "Leveraging unlabeled data to predict
out-of-distribution performance", ICLR 2022, show where it fails), which volumes check from another side.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from nnunet_da.settings import require

INDICATORS = ("agreement", "invariance", "confidence", "volume")


@dataclass(frozen=True)
class CheckSettings:
    """How epochs are checked, and one of them chosen.

    Attributes
    ----------
    choose : 'score' or 'last'
        Which weights the finished model has: those of the epoch with the highest score, or the last ones.
    batches : int or None
        Batches of patches for the check of an epoch; None: as many as validation has.
    tolerance : float
        A structure's share of the target may lie between 1 / this and this times its share of the source, and counts
        in full.
    least_volume : float
        An epoch whose indicator `volume` is below this is not chosen, whatever its score.
    """

    choose: Literal["score", "last"] = "score"
    batches: int | None = None
    tolerance: float = 1.5
    least_volume: float = 0.3

    def __post_init__(self):
        require(self.batches is None or self.batches >= 1, "adaptation.check.batches", "must be at least 1")
        require(self.tolerance >= 1, "adaptation.check.tolerance", "must be at least 1")
        require(0 <= self.least_volume <= 1, "adaptation.check.least_volume", "must be from 0 to 1")


def decide(probabilities, exclusive):
    """What is found, (batch, n_structures, *space) bool, of probabilities (batch, n_outputs, *space).

    Of classes (`exclusive`) the first output is the background, which is none of the structures.
    """
    if not exclusive:
        return probabilities > 0.5
    classes = probabilities.argmax(1)
    values = torch.arange(1, probabilities.shape[1], device=probabilities.device)
    return classes[:, None] == values.reshape(1, -1, *[1] * (classes.ndim - 1))


class Evidence:
    """Sums over images, from which the indicators follow; those of several processes add up.

    Parameters
    ----------
    exclusive : bool
        As `decide` takes it.
    n_structures : int
    """

    # Rows of `sums`: of each structure 2 · overlap and total of the two comparisons, and voxels by domain.
    _ROWS = ("agreement", "agreement_total", "invariance", "invariance_total", "target", "source")

    def __init__(self, exclusive, n_structures):
        self.exclusive = exclusive
        self.sums = np.zeros((len(self._ROWS), n_structures))
        # Doubt, foreground, voxels of the target, and of the source.
        self.totals = np.zeros(4)

    def _add(self, row, values):
        self.sums[self._ROWS.index(row)] += values.double().cpu().numpy()

    def add_target(self, teacher, student, otherwise):
        """Probabilities (batch, n_outputs, *space) of the same target images: of the teacher, of the student, and of
        the teacher on other intensities (not mirrored)."""
        found = decide(teacher, self.exclusive)
        axes = (0, *range(2, found.ndim))
        for name, other in (("agreement", student), ("invariance", otherwise)):
            other = decide(other, self.exclusive)
            self._add(name, 2 * (found & other).sum(axes))
            self._add(f"{name}_total", found.sum(axes) + other.sum(axes))
        self._add("target", found.sum(axes))
        if self.exclusive:
            doubt, foreground = 1 - teacher.amax(1), 1 - teacher[:, 0]
        else:
            doubt, foreground = torch.minimum(teacher, 1 - teacher).amax(1), teacher.amax(1)
        self.totals[:3] += [doubt.double().sum().item(), foreground.double().sum().item(), doubt.numel()]

    def add_source(self, teacher):
        """Probabilities of images of the source, drawn in the same way."""
        found = decide(teacher, self.exclusive)
        self._add("source", found.sum((0, *range(2, found.ndim))))
        self.totals[3] += found[:, 0].numel()

    def __add__(self, other):
        both = Evidence(self.exclusive, self.sums.shape[1])
        both.sums, both.totals = self.sums + other.sums, self.totals + other.totals
        return both

    def indicators(self, tolerance):
        """INDICATORS (dict of float), and ``score``, their geometric mean.

        A structure that is found nowhere in source and target does not count; without any, all are 0.
        """
        rows = dict(zip(self._ROWS, self.sums, strict=True))
        doubt, foreground, n_target, n_source = self.totals
        found = {}
        for name in ("agreement", "invariance"):
            total = rows[f"{name}_total"]
            found[name] = float((rows[name][total > 0] / total[total > 0]).mean()) if (total > 0).any() else 0.0
        found["confidence"] = float(max(0.0, 1 - doubt / foreground)) if foreground > 0 else 0.0
        shares = [rows[name] / max(n, 1) for name, n in (("target", n_target), ("source", n_source))]
        found["volume"] = volume_plausibility(*shares, tolerance)
        found["score"] = float(np.prod([found[name] for name in INDICATORS]) ** (1 / len(INDICATORS)))
        return found


def volume_plausibility(target, source, tolerance):
    """How near volumes are, in [0, 1]: the mean over structures of the lesser over the larger one, times `tolerance`,
    at most 1. 0 where no structure has a volume.

    `target`, `source`: ndarray (n_structures,); where both are 0, the structure does not count.
    """
    lesser, larger = np.minimum(target, source), np.maximum(target, source)
    known = larger > 0
    return float(np.minimum(1, tolerance * lesser[known] / larger[known]).mean()) if known.any() else 0.0


def best_epoch(scores, volumes, least_volume):
    """The epoch (int) with the highest score, the first of equals, among those whose volumes are plausible.

    None where there is none. `scores`, `volumes`: sequences of float, one per epoch; NaN is never chosen.
    """
    scores = np.where(np.asarray(volumes, float) >= least_volume, np.asarray(scores, float), np.nan)
    if np.isnan(scores).all():
        return None
    return int(np.nanargmax(scores))
