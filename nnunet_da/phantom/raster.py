"""Drawing with partial volumes: signed distances in mm (negative inside) become fractions of tissues per voxel."""

import numpy as np
from scipy.ndimage import map_coordinates

from nnunet_da.phantom.tissues import INDEX, NAMES


class Canvas:
    """Fractions of tissues on a grid of `shape`, painted from front to back on samples, `splits` of them per voxel."""

    def __init__(self, shape, splits, softness):
        self.splits = [int(split) for split in splits]
        self.shape = tuple(shape)
        self.softness = np.float32(softness)
        self.free = np.ones([n * split for n, split in zip(self.shape, self.splits, strict=True)], dtype=np.float32)
        self.fractions = np.zeros((len(NAMES), *self.shape), dtype=np.float32)

    def occupancy(self, distance, width=None):
        """Share of each sample that lies inside a surface, from the signed distance to it in mm (negative inside)."""
        return np.clip(np.float32(0.5) - distance / np.float32(width or self.softness), 0, 1)

    def paint(self, tissue, distance, opacity=1):
        """Fills what is still free inside a surface with `tissue`, or a share `opacity` of it."""
        self.mix({tissue: self.occupancy(distance) * opacity})

    def mix(self, shares):
        """Gives each tissue its share (0 to 1, at most 1 together) of what is still free."""
        taken = 0
        for tissue, share in shares.items():
            painted = self.free * share
            self.fractions[INDEX[tissue]] += self.average(painted)
            taken = taken + painted
        self.free -= taken

    def average(self, samples):
        """Mean over the samples of each voxel."""
        if max(self.splits) == 1:
            return samples
        (a, b, c), (i, j, k) = self.shape, self.splits
        return samples.reshape(a, i, b, j, c, k).mean(axis=(1, 3, 5))

    def middle(self, samples):
        """The sample nearest to the middle of each voxel."""
        return samples[tuple(slice(split // 2, None, split) for split in self.splits)]


def superellipse(a, b):
    """Radius of the superellipse |a|^2.6 + |b|^2.6, 1 on its surface."""
    return (np.abs(a) ** 2.6 + np.abs(b) ** 2.6) ** (1 / 2.6)


def box(*sides, radius=0.5):
    """Signed distance to a box with rounded edges; each side is (coordinate, centre, half-length)."""
    return intersection(*[np.abs(coordinate - centre) - half for coordinate, centre, half in sides], radius=radius)


def intersection(*distances, radius):
    """Signed distance to what lies inside several surfaces, with edges rounded to `radius`."""
    over = [distance + np.float32(radius) for distance in distances]
    outside = sum(np.maximum(distance, 0) ** 2 for distance in over)
    return np.sqrt(outside) + np.minimum(np.maximum.reduce(over), 0) - np.float32(radius)


def noise(seed, *coordinates):
    """Smooth noise of zero mean at `coordinates` (in correlation lengths); a seed gives the same on any grid."""
    lattice = np.random.default_rng(seed).standard_normal((24, 24, 24)).astype(np.float32)
    return map_coordinates(lattice, np.stack(coordinates), order=1, mode="grid-wrap")


def move(fractions, source, target, share):
    """Turns the given share (clipped to 0…1) of tissue `source` into `target`."""
    moved = fractions[INDEX[source]] * np.clip(share, 0, 1)
    fractions[INDEX[source]] -= moved
    fractions[INDEX[target]] += moved
