"""What the channels of a network's output stand for."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import entr


@dataclass(frozen=True)
class Channels:
    """Classes (one channel per label value, background among them; softmax) or regions (one each; sigmoid).

    Attributes
    ----------
    structures : name → label values
        Several for a region; without background. Of regions: in the order of the channels.
    class_order : tuple of int or None
        Of regions: the value that each paints, one over the other (nnU-Net's ``regions_class_order``). None: classes.
    """

    structures: Mapping[str, tuple[int, ...]]
    class_order: tuple[int, ...] | None = None

    @property
    def values(self) -> tuple[int, ...]:
        """Every value that a label map may hold, ascending from 0."""
        return tuple(sorted({0}.union(*self.structures.values())))

    @property
    def n_channels(self) -> int:
        return len(self.values) if self.class_order is None else len(self.structures)

    def decide(self, probabilities):
        """The label map (*space), uint8, of `probabilities` (n_channels, *space), as nnU-Net decides it."""
        if self.class_order is None:
            return probabilities.argmax(0).astype(np.uint8)
        label_map = np.zeros(probabilities.shape[1:], np.uint8)
        for probability, value in zip(probabilities, self.class_order, strict=True):
            label_map[probability > 0.5] = value
        return label_map

    def one_hot(self, label_map):
        """`label_map` (*space) as probabilities 0 and 1: (n_channels, *space), float32."""
        if self.class_order is None:
            return np.stack([label_map == value for value in self.values]).astype(np.float32)
        return np.stack([np.isin(label_map, values) for values in self.structures.values()]).astype(np.float32)

    def foreground(self, probabilities):
        """The probability (*space) of any structure; of regions, of the likeliest."""
        return 1 - probabilities[0] if self.class_order is None else probabilities.max(0)

    def doubt(self, probabilities):
        """1 - the probability of what is decided (*space): within [0, 1 - 1/n] for n classes, [0, 1/2] for regions.

        Of regions: of that which is decided least surely.
        """
        if self.class_order is None:
            return 1 - probabilities.max(0)
        return np.minimum(probabilities, 1 - probabilities).max(0)

    def entropies(self, probabilities):
        """Shannon entropies (n, *space), as a share of the largest possible, so in [0, 1].

        n is 1 for classes, which are one random variable, and the number of regions, which are one each.
        """
        if self.class_order is None:
            return entr(probabilities).sum(0, keepdims=True) / np.log(self.n_channels)
        return (entr(probabilities) + entr(1 - probabilities)) / np.log(2)
