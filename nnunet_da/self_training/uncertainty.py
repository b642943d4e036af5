"""How far the members of an ensemble agree, per voxel and per case.

Per voxel. The ensemble's probabilities are the mean of its members' (Lakshminarayanan et al., "Simple and scalable
predictive uncertainty estimation using deep ensembles", NeurIPS 2017). ``probability``: 1 - the probability of the
ensemble's class, which is high where members doubt and where they contradict one another. ``mutual_information``: the
entropy of the mean - the mean of the entropies, which is high only where members contradict one another (BALD: Houlsby
et al., arXiv:1112.5745; Gal et al., "Deep Bayesian active learning with image data", ICML 2017), as a share of the
largest possible entropy. A member that gives label maps alone counts as one that is sure of every voxel: 1 - the share
of the votes, and the entropy of the votes.

Per case. ``disagreement``: 1 - Dice of every pair of members, averaged over pairs and then over structures. Of the
measures for a whole structure it follows the true Dice well (Roy et al., "Bayesian QuickNAT", NeuroImage 195, 2019,
where members are draws of dropout). ``voxels``: the sum of the voxels' uncertainty over the sum of the probabilities of
foreground; a mean over all voxels would mostly say how large the structure is (Jungo et al., "Analyzing the quality and
challenges of uncertainty estimations for brain tumor segmentation", Front. Neurosci. 14, 2020).
"""

import itertools

import numpy as np

VOXEL_MEASURES = ("probability", "mutual_information")
CASE_MEASURES = ("disagreement", "voxels")


class Ensemble:
    """The members' predictions of one case, added one after the other; only their sum is kept in full.

    Parameters
    ----------
    channels : Channels
    voxel_measure : one of VOXEL_MEASURES
    """

    def __init__(self, channels, voxel_measure="probability"):
        self.channels = channels
        self.voxel_measure = voxel_measure
        self.label_maps = []
        self._sum = None
        self._sum_of_entropies = None

    def add(self, probabilities, label_map=None):
        """A member's `probabilities` (n_channels, *space), and its `label_map` (*space) where that is known already."""
        probabilities = np.asarray(probabilities, np.float32)
        self.label_maps.append(self.channels.decide(probabilities) if label_map is None else label_map)
        self._sum = probabilities.copy() if self._sum is None else np.add(self._sum, probabilities, out=self._sum)
        if self.voxel_measure == "mutual_information":
            entropies = self.channels.entropies(probabilities)
            self._sum_of_entropies = entropies if self._sum_of_entropies is None else self._sum_of_entropies + entropies

    @property
    def mean(self):
        """The ensemble's probabilities (n_channels, *space)."""
        return self._sum / len(self.label_maps)

    def label_map(self):
        """The ensemble's decision (*space), uint8."""
        return self.channels.decide(self._sum / len(self.label_maps))

    def voxel_uncertainty(self):
        """The uncertainty (*space) that `voxel_measure` names, in [0, 1]. Of regions: the largest of any."""
        if self.voxel_measure == "probability":
            return self.channels.doubt(self.mean)
        information = self.channels.entropies(self.mean) - self._sum_of_entropies / len(self.label_maps)
        # Rounding may leave a little below 0.
        return np.clip(information, 0, 1).max(0)

    def disagreement(self):
        """Structure → mean of 1 - Dice over the pairs of members, in [0, 1]; NaN where none of them finds it."""
        return pairwise_disagreement(self.label_maps, self.channels.structures)

    def case_uncertainty(self, measure):
        """The uncertainty of the case that `measure`, one of CASE_MEASURES, names, in [0, 1].

        1 where no member finds anything: scans on which a network fails altogether look just so.
        """
        if measure == "disagreement":
            found = [value for value in self.disagreement().values() if not np.isnan(value)]
            return float(np.mean(found)) if found else 1.0
        return foreground_uncertainty(self.voxel_uncertainty(), self.channels.foreground(self.mean))


def foreground_uncertainty(uncertainty, foreground):
    """Σ `uncertainty` / Σ `foreground` (both (*space)), at most 1; 1 where there is no foreground."""
    total = float(foreground.sum(dtype=np.float64))
    return min(1.0, float(uncertainty.sum(dtype=np.float64)) / total) if total > 0 else 1.0


def pairwise_disagreement(label_maps, structures):
    """Structure → mean of 1 - Dice over all pairs of `label_maps` (*space); a pair that lacks it does not count.

    NaN where no label map has the structure, or there is no pair.
    """
    box = _foreground_box(label_maps)
    cropped = [label_map[box] for label_map in label_maps]
    pairs = [dice(one, other, structures) for one, other in itertools.combinations(cropped, 2)]
    return {name: 1 - nanmean([pair[name] for pair in pairs]) for name in structures}


def dice(one, other, structures):
    """Structure → Dice of two label maps (*space) of small integers; NaN where neither has it."""
    n = max(int(one.max(initial=0)), int(other.max(initial=0)), *(max(values) for values in structures.values())) + 1
    counts = np.bincount((one.astype(np.intp) * n + other).ravel(), minlength=n * n).reshape(n, n)
    scores = {}
    for name, values in structures.items():
        both = counts[np.ix_(values, values)].sum()
        total = counts[list(values)].sum() + counts[:, list(values)].sum()
        scores[name] = float(2 * both / total) if total else np.nan
    return scores


def nanmean(values):
    """The mean (float) of the numbers in `values` that are not NaN; NaN where there is none."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan


def _foreground_box(label_maps):
    """Slices around what any of the label maps marks."""
    box = []
    n_axes = label_maps[0].ndim
    marked = np.logical_or.reduce([label_map != 0 for label_map in label_maps])
    for axis in range(n_axes):
        found = np.flatnonzero(marked.any(axis=tuple(other for other in range(n_axes) if other != axis)))
        box.append(slice(found[0], found[-1] + 1) if found.size else slice(0, 0))
    return tuple(box)
