"""Drawing with partial volumes: signed distances in mm (negative inside) become fractions of tissues per voxel."""

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from nnunet_da.phantom.tissues import INDEX, NAMES


class Canvas:
    """Fractions of tissues on a grid of `shape`, painted from front to back on samples, `splits` of them per voxel.

    tissues: those that occur, in the order of `fractions` (tissues, X, Y, Z). What is painted as part of a named
    structure is remembered for `labels`.
    """

    def __init__(self, shape, splits, softness, tissues=NAMES):
        self.splits = [int(split) for split in splits]
        self.shape = tuple(shape)
        self.softness = np.float32(softness)
        self.free = np.ones([n * split for n, split in zip(self.shape, self.splits, strict=True)], dtype=np.float32)
        self.fractions = np.zeros((len(tissues), *self.shape), dtype=np.float32)
        self.index = {tissue: index for index, tissue in enumerate(tissues)}
        self.shares = {}

    def occupancy(self, distance, width=None):
        """Share of each sample that lies inside a surface, from the signed distance to it in mm (negative inside)."""
        return np.clip(np.float32(0.5) - distance / np.float32(width or self.softness), 0, 1)

    def paint(self, tissue, distance, opacity=1, structure=None):
        """Fills what is still free inside a surface with `tissue`, or a share `opacity` of it."""
        self.mix({tissue: self.occupancy(distance) * opacity}, structure)

    def blend(self, shares, distance, structure=None):
        """Fills what is still free inside a surface with several tissues, shares (0 to 1) that sum to at most 1."""
        inside = self.occupancy(distance)
        self.mix({tissue: inside * np.float32(share) for tissue, share in shares.items()}, structure)

    def fill(self, tissue):
        """Gives all that is still free to `tissue`."""
        self.mix({tissue: np.float32(1)})

    def mix(self, shares, structure=None):
        """Gives each tissue its share (0 to 1, at most 1 together) of what is still free."""
        taken = 0
        for tissue, share in shares.items():
            painted = self.free * share
            self.fractions[self.index[tissue]] += self.average(painted)
            taken = taken + painted
        self.free -= taken
        if structure is not None:
            self.shares[structure] = self.shares.get(structure, 0) + self.average(taken)

    def labels(self, names):
        """Map of the structures `names`, numbered from 1 in that order: uint8 of `shape`.

        A voxel of which structures fill at least half belongs to the one that fills most.
        """
        shares = np.stack([np.broadcast_to(np.float32(self.shares.get(name, 0)), self.shape) for name in names])
        return np.where(shares.sum(axis=0) >= 0.5, shares.argmax(axis=0) + 1, 0).astype(np.uint8)

    def average(self, samples):
        """Mean over the samples of each voxel."""
        if max(self.splits) == 1:
            return samples
        (a, b, c), (i, j, k) = self.shape, self.splits
        return samples.reshape(a, i, b, j, c, k).mean(axis=(1, 3, 5))

    def middle(self, samples):
        """The sample nearest to the middle of each voxel."""
        return samples[tuple(slice(split // 2, None, split) for split in self.splits)]


def splits_of(affine, widest, most=None):
    """Samples per voxel along each axis, such that none is wider than `widest` mm; and their mean width in mm.

    most: upper limit of the samples along an axis, or None.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    splits = np.clip(np.ceil(spacing / widest - 1e-6), 1, most).astype(int)
    return splits, float(np.mean(spacing / splits))


def sample_points(shape, affine, splits):
    """World coordinates (x, y, z) of the samples of a grid, three float32 arrays: `splits` samples per voxel."""
    axes = [(np.arange(n * split) + 0.5) / split - 0.5 for n, split in zip(shape, splits, strict=True)]
    steps = np.ix_(*axes)
    return tuple(
        sum((row[axis] * steps[axis]).astype(np.float32) for axis in range(3)) + np.float32(row[3])
        for row in affine[:3]
    )


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


def union(*distances, radius):
    """Signed distance to what lies inside any of the surfaces, with the seams between them filled to `radius`.

    The quadratic smooth minimum.
    """
    result = distances[0]
    for distance in distances[1:]:
        seam = np.maximum(np.float32(radius) - np.abs(result - distance), 0)
        result = np.minimum(result, distance) - seam * seam / np.float32(4 * radius)
    return result


def ellipsoid(points, centre, radii):
    """Signed distance to an ellipsoid along the axes, exact on its surface and to first order beside it."""
    offsets = [(p - np.float32(c)) / np.float32(r) for p, c, r in zip(points, centre, radii, strict=True)]
    radius = np.sqrt(sum(offset**2 for offset in offsets))
    slope = np.sqrt(sum((offset / np.float32(r)) ** 2 for offset, r in zip(offsets, radii, strict=True)))
    # In the very middle, where both vanish, the shortest radius takes their place.
    tiny = np.float32(1e-6)
    return (radius - 1) * (radius + tiny) / (slope + tiny / np.float32(min(radii)))


def capsule(points, start, end, radius, end_radius=None):
    """Signed distance to a rod with round ends, whose radius runs from `radius` at `start` to `end_radius` at `end`."""
    axis = np.subtract(end, start, dtype=np.float32)
    offsets = [p - np.float32(s) for p, s in zip(points, start, strict=True)]
    along = sum(offset * a for offset, a in zip(offsets, axis, strict=True)) / (axis @ axis)
    along = np.clip(along, 0, 1)
    away = np.sqrt(sum((offset - along * a) ** 2 for offset, a in zip(offsets, axis, strict=True)))
    growth = 0 if end_radius is None else end_radius - radius
    return away - np.float32(radius) - along * np.float32(growth)


def rotate(points, degrees, pivot=(0, 0, 0)):
    """Coordinates in a frame that is turned by the angles `degrees` about x, y and z, in that order, around `pivot`."""
    matrix = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix().T.astype(np.float32)
    offsets = [p - np.float32(c) for p, c in zip(points, pivot, strict=True)]
    return tuple(
        sum(entry * offset for entry, offset in zip(row, offsets, strict=True)) + np.float32(c)
        for row, c in zip(matrix, pivot, strict=True)
    )


def waves(seed, points, length):
    """Very smooth noise of zero mean and unit variance at `points`, with details about `length` mm long."""
    rng = np.random.default_rng(seed)
    directions = (rng.normal(0, 1, (5, 3)) / length).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, 5).astype(np.float32)
    total = sum(
        np.cos(sum(k * p for k, p in zip(direction, points, strict=True)) + phase)
        for direction, phase in zip(directions, phases, strict=True)
    )
    return total * np.float32(np.sqrt(2 / 5))


def warp(seed, points, length, amplitude):
    """`points` moved by some `amplitude` mm, smoothly over `length` mm: makes drawn shapes irregular."""
    return tuple(p + np.float32(amplitude) * waves(seed + axis, points, length) for axis, p in enumerate(points))


def noise(seed, *coordinates):
    """Smooth noise of zero mean at `coordinates` (in correlation lengths); a seed gives the same on any grid."""
    lattice = np.random.default_rng(seed).standard_normal((24, 24, 24)).astype(np.float32)
    return map_coordinates(lattice, np.stack(list(coordinates)), order=1, mode="grid-wrap")


def move(fractions, source, target, share):
    """Turns the given share (clipped to 0…1) of tissue `source` into `target`."""
    moved = fractions[INDEX[source]] * np.clip(share, 0, 1)
    fractions[INDEX[source]] -= moved
    fractions[INDEX[target]] += moved
