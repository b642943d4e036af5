"""Mean teacher: the running mean of a network's weights labels unlabelled images for the network to learn from.

Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017; for segmentation across domains Perone et
al., "Unsupervised domain adaptation for medical imaging segmentation with self-ensembling", NeuroImage 194 (2019). The
teacher sees an image as it is, and the student with other intensities, mirrored: what both should find lies in the same
place. Only labels that the teacher is sure of count, with a threshold of each class's own (Zou et al., "Unsupervised
domain adaptation for semantic segmentation via class-balanced self-training", ECCV 2018): under one for all classes,
those that are small or hard would vanish from the labels, and then from the predictions.

Beyond these papers, the teacher may look at an image in several views, with other intensities too, and label the mean
of what it sees: a mistake that comes with one contrast is outvoted by the others.
"""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from nnunet_da.settings import require


@dataclass(frozen=True)
class TeacherSettings:
    """The papers leave open when the teacher begins in a training of any length; shares of the training are this
    package's.

    Attributes
    ----------
    weight : float
        Of the loss on unlabelled images, beside that of the segmentation; 0: none is learnt from.
    decay : float
        Of the running mean of the weights, for each step; less in the first steps (Tarvainen and Valpola).
    span : float
        Share of the training that the mean spans at most: 1 / (1 - decay) steps. In a short training the teacher would
        else be what the student was long ago.
    start, ramp : float
        The weight is 0 for the first `start` of the training and rises over the next `ramp` of it, as exp(-5 (1 - t)²).
    threshold : float
        A voxel counts where the teacher's probability is at least this, or the class's own threshold where that is
        less.
    keep : float
        Share of the voxels of each class that its own threshold lets pass.
    views : int
        How often the teacher looks at an image: as it is, and mirrored with other intensities in all further views.
    strength : float
        Chance that the intensities of what the student sees are randomised.
    rotation : float
        Unlabelled patches are rotated in plane by up to ± this many degrees, for teacher and student alike.
    """

    weight: float = 1.0
    decay: float = 0.99
    span: float = 0.05
    start: float = 0.5
    ramp: float = 0.15
    threshold: float = 0.9
    keep: float = 0.6
    views: int = 2
    strength: float = 0.8
    rotation: float = 20.0

    def __post_init__(self):
        require(self.weight >= 0, "adaptation.teacher.weight", "must not be negative")
        require(0 <= self.decay < 1, "adaptation.teacher.decay", "must be from 0 to below 1")
        for name in ("start", "ramp", "strength"):
            require(0 <= getattr(self, name) <= 1, f"adaptation.teacher.{name}", "must be from 0 to 1")
        for name in ("span", "threshold", "keep"):
            require(0 < getattr(self, name) <= 1, f"adaptation.teacher.{name}", "must be above 0, at most 1")
        require(self.views >= 1, "adaptation.teacher.views", "must be at least 1")
        require(0 <= self.rotation <= 180, "adaptation.teacher.rotation", "must be from 0 to 180 degrees")

    def weight_at(self, progress):
        """The weight of the loss (float) after the share `progress` of the training, in [0, 1]."""
        if progress < self.start or self.weight == 0:
            return 0.0
        risen = 1.0 if self.ramp == 0 else min(1.0, (progress - self.start) / self.ramp)
        return self.weight * math.exp(-5 * (1 - risen) ** 2)


class MeanTeacher:
    """The running mean of a network, and the thresholds of its labels.

    Parameters
    ----------
    network : Module
        Copied; gives logits (batch, n_outputs, *space) of images.
    settings : TeacherSettings
    n_outputs : int
    exclusive : bool
        True: outputs are classes, the first of them the background (softmax). False: structures that may overlap, one
        each (sigmoid).
    """

    # Of the running means of the classes' own thresholds.
    THRESHOLD_DECAY = 0.9

    def __init__(self, network, settings, n_outputs, exclusive=True):
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.settings = settings
        self.exclusive = exclusive
        self.n_steps = 0
        device = next(self.network.parameters()).device
        # Of regions two each: absent, and present.
        shape = (n_outputs,) if exclusive else (2, n_outputs)
        self.thresholds = torch.full(shape, settings.threshold, device=device)

    @torch.no_grad()
    def follow(self, network, n_training=math.inf):
        """Moves the weights towards those of `network` by one step; buffers, as those of batch norms, likewise.

        `n_training`: the number of steps of the whole training.
        """
        longest = max(1.0, self.settings.span * n_training)
        decay = min(self.settings.decay, 1 - 1 / min(longest, self.n_steps + 1))
        self.n_steps += 1
        theirs = network.state_dict()
        # Blocks alias their layers under several names: each tensor is moved once.
        moved = set()
        for name, value in self.network.state_dict().items():
            if value.data_ptr() in moved:
                continue
            moved.add(value.data_ptr())
            if value.is_floating_point():
                value.lerp_(theirs[name].to(value.dtype), 1 - decay)
            else:
                value.copy_(theirs[name])

    @torch.no_grad()
    def probabilities(self, images, views=()):
        """What the teacher finds: (batch, n_outputs, *space), float32, the mean over `images` and `views`.

        `views`: pairs (images, axes): the same images otherwise, mirrored along those axes, which is undone.
        """
        found = self._activate(self.network(images))
        for other, axes in views:
            seen = self._activate(self.network(other))
            found = found + (seen.flip(axes) if axes else seen)
        return found / (1 + len(views))

    def _activate(self, logits):
        return logits.float().softmax(1) if self.exclusive else logits.float().sigmoid()

    @torch.no_grad()
    def label(self, probabilities, average=lambda values: values):
        """Labels of the teacher's `probabilities` and where they count.

        `average`: brings a Tensor to its mean over processes. Moves the classes' own thresholds.

        Returns
        -------
        labels : Tensor
            Classes: (batch, *space), long. Structures: (batch, n_outputs, *space), float, 0 or 1.
        counts : Tensor, bool, of the same shape
        """
        if self.exclusive:
            confidence, labels = probabilities.max(1)
            classes, shape = labels, (probabilities.shape[1],)
        else:
            labels = (probabilities > 0.5).float()
            confidence = torch.maximum(probabilities, 1 - probabilities)
            index = torch.arange(probabilities.shape[1], device=labels.device)
            index = index.reshape(1, -1, *[1] * (labels.ndim - 2))
            classes, shape = labels.long() * probabilities.shape[1] + index, (2, probabilities.shape[1])
        current = self.thresholds.flatten()
        for value in range(len(current)):
            own = confidence[classes == value]
            if own.numel():
                own = _quantile(own, 1 - self.settings.keep)
                current[value] = torch.lerp(own, current[value], self.THRESHOLD_DECAY)
        self.thresholds = average(current).reshape(shape)
        limits = self.thresholds.flatten().clamp(max=self.settings.threshold)
        return labels, confidence >= limits[classes]

    def loss(self, logits, labels, counts):
        """Cross-entropy over the voxels that count, and 1 - Dice over them: a scalar, 0 where none counts.

        `logits`: (batch, n_outputs, *space) of the student; `labels`, `counts`: of `label`.
        """
        logits, mask = logits.float(), counts.float()
        if self.exclusive:
            entropy = F.cross_entropy(logits, labels, reduction="none")
            wanted = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).float()[:, 1:]
            found, of_structures = logits.softmax(1)[:, 1:], mask[:, None]
        else:
            entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            wanted, found, of_structures = labels, logits.sigmoid(), mask
        entropy = (entropy * mask).sum() / mask.sum().clamp(min=1)
        axes = (0, *range(2, logits.ndim))
        overlap = (found * wanted * of_structures).sum(axes)
        total = ((found + wanted) * of_structures).sum(axes)
        present = (wanted * of_structures).sum(axes) > 0
        dice = (2 * overlap + 1) / (total + 1)
        missing = ((1 - dice) * present).sum() / present.sum().clamp(min=1)
        return entropy + missing

    def state_dict(self):
        return {
            "weights": self.network.state_dict(),
            "thresholds": self.thresholds,
            "n_steps": self.n_steps,
        }

    def load_state_dict(self, state):
        self.network.load_state_dict(state["weights"])
        self.thresholds = state["thresholds"].to(self.thresholds.device)
        self.n_steps = state["n_steps"]


def _quantile(values, share):
    """The value (scalar Tensor) below which the `share` of `values` (n,) lies; exact for any n, unlike torch.quantile,
    which takes 2^24 values at most."""
    rank = min(values.numel(), max(1, math.ceil(share * values.numel())))
    return values.kthvalue(rank).values
