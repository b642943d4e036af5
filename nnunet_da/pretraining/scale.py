"""Images on the scale [0, 1], and back."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class UnitScale:
    """The scale on which each channel of each image spans [0, 1].

    Attributes
    ----------
    low, extent : Tensor, (batch, channels, 1, …)
        Lowest value, and the difference of the highest to it. A constant channel has the extent 0.
    """

    low: torch.Tensor
    extent: torch.Tensor

    @classmethod
    def of(cls, images):
        """That of `images` (batch, channels, *space)."""
        space = tuple(range(2, images.ndim))
        low = images.amin(dim=space, keepdim=True)
        return cls(low, images.amax(dim=space, keepdim=True) - low)

    def to_unit(self, images):
        """Images in [0, 1]; 0 where a channel is constant."""
        return (images - self.low) / torch.where(self.extent > 0, self.extent, 1)

    def from_unit(self, images):
        return self.low + self.extent * images
