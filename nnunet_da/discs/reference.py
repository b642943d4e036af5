"""The reference that is laid over a prediction: another case's numbered discs, or the phantom's mean spine."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nnunet_da.discs.ground_truth import number_discs
from nnunet_da.discs.pieces import VoxelCloud
from nnunet_da.discs.simulation import draw_discs, mean_spine


@dataclass(frozen=True)
class Reference:
    """Numbered discs from the lowest upwards, in mm (RAS).

    points (N, 3): all their voxels; voxel_volume in mm³; centroids (n, 3); log_sizes (n, 3): logarithms of volume,
    depth and width, as `Pieces.log_sizes`.
    """

    points: np.ndarray
    voxel_volume: float
    centroids: np.ndarray
    log_sizes: np.ndarray

    @classmethod
    def from_label_map(cls, label_map, affine):
        """Of a label map (X, Y, Z) whose discs are 1, 2, … from the lowest upwards, or 1 everywhere.

        Raises ValueError where there are fewer than three discs, or where numbers do not rise from the lowest disc.
        """
        values = np.unique(label_map[label_map > 0])
        if len(values) == 0:
            raise ValueError("it is empty")
        if len(values) == 1:
            label_map = number_discs(label_map > 0, affine)
            values = np.unique(label_map[label_map > 0])
        if len(values) < 3:
            raise ValueError(f"it has {len(values)} disc(s); three or more are needed")
        if not np.array_equal(values, np.arange(1, len(values) + 1)):
            raise ValueError(f"discs must be numbered 1, 2, … without a gap, not {', '.join(map(str, values))}")
        cloud = VoxelCloud.of(label_map > 0, affine)
        pieces = cloud.pieces(label_map[tuple(cloud.indices.T)].astype(np.int64), len(values))
        if (np.diff(pieces.centroids[:, 2]) <= 0).any():
            raise ValueError("discs must be numbered from the lowest (1) upwards")
        volume = abs(np.linalg.det(cloud.affine[:3, :3]))
        return cls(cloud.points, volume, pieces.centroids, pieces.log_sizes)

    @property
    def positions(self):
        """Distance of each disc from the lowest, along the line through the centroids: (n,), in mm."""
        return np.r_[0, np.cumsum(np.linalg.norm(np.diff(self.centroids, axis=0), axis=1))]


@lru_cache(maxsize=1)
def default_reference():
    """The discs L5/S1 to T8/T9 of the phantom's mean spine, on a grid of 1.5 mm."""
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = (-34.5, -66, -120)
    return Reference.from_label_map(draw_discs(mean_spine(), (47, 66, 250), affine), affine)
