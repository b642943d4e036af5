"""Scans on the scale [0, 1]."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScanRange:
    """The intensities of a scan that become 0 and 1 ("min-max normalization for input images").

    They are those of the whole scan, so that all of its slices and patches have one scale. A linear change of the scan
    beforehand, such as z-scores, makes no difference.

    Attributes
    ----------
    low, high : ndarray, (channels,)
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, voxels, outside, percentiles):
        """That of a scan.

        Parameters
        ----------
        voxels : array, (channels, *space)
        outside : array of bool, (*space)
            Where there is no image; counted as the darkest that there is.
        percentiles : (float, float)
        """
        low, high = [], []
        for channel in voxels:
            inside = channel[~outside] if not outside.all() else channel
            bounds = np.percentile(np.where(outside, inside.min(), channel), percentiles)
            low.append(bounds[0])
            high.append(bounds[1])
        return cls(np.array(low, np.float32), np.array(high, np.float32))

    def to_unit(self, images, outside):
        """Images (channels, *space) of the scan in [0, 1], clipped; 0 `outside` (1, *space), or where all is equal."""
        shape = (-1, *[1] * (images.ndim - 1))
        extent = np.where(self.high > self.low, self.high - self.low, np.inf)
        low, extent = self.low.reshape(shape), extent.astype(np.float32).reshape(shape)
        return np.where(outside, np.float32(0), np.clip((images - low) / extent, 0, 1))
