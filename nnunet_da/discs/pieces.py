"""The connected sets of a mask in millimetres: where they lie, how large they are, which way they face."""

from dataclasses import dataclass

import cc3d
import numpy as np

# Cosine above which an axis of a set runs along one of the grid, so that the grid's end cuts its spread.
ALONG = 0.35
# Many more sets than a spine has discs; a mask of speckle would have thousands.
MOST_SETS = 100


@dataclass(frozen=True)
class Pieces:
    """Sets of voxels, numbered from 1 in the arrays they came from; all lengths in mm, world coordinates RAS.

    centroids (n, 3); volumes (n,) in mm³; axes (n, 3, 3): unit columns along which a set spreads least, second and
    most; spreads (n, 3): standard deviation of its voxels along them; ends (n, 3): whether it touches the first or last
    slice along each axis of the grid; grid_axes (n, 3, 3): the unit columns in which these run, the same for all sets.
    """

    centroids: np.ndarray
    volumes: np.ndarray
    axes: np.ndarray
    spreads: np.ndarray
    ends: np.ndarray
    grid_axes: np.ndarray

    def __len__(self):
        return len(self.volumes)

    def __getitem__(self, index):
        return Pieces(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @property
    def normals(self):
        """The direction in which each set is thinnest: unit vectors (n, 3) that point upwards."""
        thinnest = self.axes[:, :, 0]
        return thinnest * np.where(thinnest[:, 2:] < 0, -1, 1)

    @property
    def tilts(self):
        """How far forward each set faces, in degrees: (n,); 0 where it lies level, above where its front is lower."""
        return np.rad2deg(np.arctan2(self.normals[:, 1], self.normals[:, 2]))

    @property
    def flatness(self):
        """The smallest spread over the second: some 0.35 for a disc, 1 for a ball."""
        return self.spreads[:, 0] / np.maximum(self.spreads[:, 1], 1e-6)

    @property
    def cut(self):
        """Which sets the border of the scan may have cut: bool (n,)."""
        return self.ends.any(axis=1)

    @property
    def log_sizes(self):
        """Logarithms of volume, depth and width (n, 3), the latter two as spreads; NaN where the border cuts them."""
        along = np.abs(np.einsum("nij,nik->njk", self.axes, self.grid_axes)) > ALONG  # (set, own axis, grid's axis)
        is_cut = (along & self.ends[:, None, :]).any(axis=2)
        is_cut[:, 0] = self.cut
        sizes = np.log(np.column_stack([self.volumes, np.maximum(self.spreads[:, 1:], 1e-6)]))
        return np.where(is_cut, np.nan, sizes)


@dataclass(frozen=True)
class VoxelCloud:
    """The voxels of a mask: `indices` (N, 3) in a grid of `shape`, `points` (N, 3) in mm (RAS), `affine` (4, 4)."""

    indices: np.ndarray
    points: np.ndarray
    shape: tuple[int, ...]
    affine: np.ndarray

    @classmethod
    def of(cls, mask, affine):
        """All voxels where `mask` (X, Y, Z) is true."""
        affine = np.asarray(affine, float)
        indices = np.argwhere(mask)
        return cls(indices, indices @ affine[:3, :3].T + affine[:3, 3], mask.shape, affine)

    def pieces(self, numbers, n):
        """`Pieces` of the voxels whose `numbers` (N,) are 1 to `n`; 0 belongs to none. None may be empty."""
        inside = numbers > 0
        numbers, points = numbers[inside], self.points[inside]
        counts = np.bincount(numbers, minlength=n + 1)[1:]
        origin = points.mean(axis=0) if len(points) else np.zeros(3)
        x = points - origin

        def means(values):
            return np.bincount(numbers, values, minlength=n + 1)[1:] / counts

        centres = np.stack([means(x[:, i]) for i in range(3)], axis=1)
        squares = np.array([[means(x[:, i] * x[:, j]) for j in range(3)] for i in range(3)]).transpose(2, 0, 1)
        # A voxel is spread over its own box, not a point: flat sets of one slice keep a thickness.
        own = self.affine[:3, :3] @ self.affine[:3, :3].T / 12
        covariances = squares - centres[:, :, None] * centres[:, None, :] + own
        variances, axes = np.linalg.eigh(covariances)
        voxels = self.indices[inside]
        at_end = ((voxels == 0) | (voxels == np.array(self.shape) - 1)) & (np.array(self.shape) > 1)
        ends = np.stack([np.bincount(numbers, hits, minlength=n + 1)[1:] > 0 for hits in at_end.T], axis=1)
        columns = self.affine[:3, :3]
        grid_axes = np.broadcast_to(columns / np.linalg.norm(columns, axis=0), (n, 3, 3))
        volumes = counts * abs(np.linalg.det(columns))
        return Pieces(centres + origin, volumes, axes, np.sqrt(np.maximum(variances, 0)), ends, grid_axes)


def connected_sets(cloud, most=MOST_SETS):
    """Numbers (N,) from 1 of the sets of a `VoxelCloud` that are connected (26 neighbours), and how many there are.

    Of more than `most` sets the largest alone count; the voxels of the others have number 0.
    """
    low = cloud.indices.min(axis=0)
    inside = tuple((cloud.indices - low).T)
    box = np.zeros(cloud.indices.max(axis=0) - low + 1, bool)
    box[inside] = True
    labels, n = cc3d.connected_components(box, connectivity=26, return_N=True)
    numbers = labels[inside].astype(np.int64)
    if n <= most:
        return numbers, n
    sizes = np.bincount(numbers, minlength=n + 1)[1:]
    largest = np.sort(np.argsort(-sizes, kind="stable")[:most])
    table = np.zeros(n + 1, np.int64)
    table[1 + largest] = np.arange(1, most + 1)
    return table[numbers], most
