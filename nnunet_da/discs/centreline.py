"""The line through the middles of the discs, from below the lowest to above the highest."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

STEP = 0.5  # mm between samples
BEYOND = 90.0  # mm by which the line is drawn on beyond the outermost disc


@dataclass(frozen=True)
class Centreline:
    """Samples of the line, `STEP` apart or a little more: points (M, 3) in mm (RAS), arc (M,) in mm, rising upwards."""

    points: np.ndarray
    arc: np.ndarray

    @classmethod
    def fit(cls, reference, centroids):
        """The reference's line, moved onto the discs that were found.

        `reference` (n, 3): the registered reference's centroids from below; `centroids` (m, 3) of discs, in any order.
        Over the height along the chord of the reference, its two lateral coordinates are fitted by polynomials of
        order 3 (n − 1 where there are fewer discs), and what the centroids differ from them by one of order ⌊m / 2⌋,
        at most 3. Outside the range of their points, both go on straight.
        """
        up = reference[-1] - reference[0]
        up = up / np.linalg.norm(up)
        across = np.linalg.svd(up[None])[2][1:]
        origin = reference[0]

        def split(points):
            return (points - origin) @ up, (points - origin) @ across.T

        height, lateral = split(reference)
        line = _Polynomial(height, lateral, min(3, len(height) - 1))
        lines = [line]
        ends = [height]
        if len(centroids):
            found, offset = split(np.asarray(centroids))
            lines.append(_Polynomial(found, offset - line(found), min(3, len(found) // 2)))
            ends.append(found)
        ends = np.concatenate(ends)
        h = np.arange(ends.min() - BEYOND, ends.max() + BEYOND, STEP)
        points = origin + h[:, None] * up + sum(each(h) for each in lines) @ across
        return cls(points, np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])

    def project(self, points):
        """Arc length of, and distance in mm to, the nearest sample of the line: two arrays (N,)."""
        distance, index = self._tree.query(points)
        return self.arc[index], distance

    @cached_property
    def _tree(self):
        return cKDTree(self.points)

    def tangents(self, arc):
        """Unit vectors along the line, upwards, at arc lengths (N,): (N, 3)."""
        direction = self.at(np.asarray(arc) + STEP) - self.at(np.asarray(arc) - STEP)
        return direction / np.linalg.norm(direction, axis=1, keepdims=True)

    def at(self, arc):
        """Points (N, 3) of the line at arc lengths (N,)."""
        return np.stack([np.interp(arc, self.arc, self.points[:, axis]) for axis in range(3)], axis=-1)

    def met(self, cloud, numbers):
        """The numbers, from 1, that occur in voxels of a `VoxelCloud` that the line passes through: sorted."""
        voxels = self._voxels(cloud.affine)
        shape = np.array(cloud.shape)
        voxels = voxels[((voxels >= 0) & (voxels < shape)).all(axis=1)]
        passed = np.ravel_multi_index(tuple(voxels.T), cloud.shape)
        hit = np.isin(np.ravel_multi_index(tuple(cloud.indices.T), cloud.shape), passed)
        return np.setdiff1d(numbers[hit], [0])

    def room_below(self, arc, cloud):
        """How far, in mm, the line runs down from the arc length `arc` before it leaves the scan."""
        outside = self._outside(cloud) & (self.arc < arc)
        return arc - (self.arc[outside].max() if outside.any() else self.arc[0])

    def room_above(self, arc, cloud):
        """How far, in mm, the line runs up from the arc length `arc` before it leaves the scan."""
        outside = self._outside(cloud) & (self.arc > arc)
        return (self.arc[outside].min() if outside.any() else self.arc[-1]) - arc

    def _outside(self, cloud):
        """Which points of the line lie outside the scan: bool (N,)."""
        voxels = self._voxels(cloud.affine)
        return ((voxels < 0) | (voxels >= np.array(cloud.shape))).any(axis=1)

    def _voxels(self, affine):
        to_index = np.linalg.inv(affine)
        return np.rint(self.points @ to_index[:3, :3].T + to_index[:3, 3]).astype(int)


class _Polynomial:
    """Least-squares polynomials of `y` (n, k) over `x` (n,), of an `order`; beyond the ends of `x` straight on."""

    def __init__(self, x, y, order):
        self.low, self.high = x.min(), x.max()
        self.scale = max(self.high - self.low, 1.0)
        self.coefficients = np.polynomial.polynomial.polyfit((x - self.low) / self.scale, y, order)
        self.slopes = np.polynomial.polynomial.polyder(self.coefficients) if order else np.zeros((1, y.shape[1]))

    def __call__(self, x):
        inside = np.clip(x, self.low, self.high)
        t = (inside - self.low) / self.scale
        value = np.polynomial.polynomial.polyval(t, self.coefficients)
        slope = np.polynomial.polynomial.polyval(t, self.slopes)
        return (value + slope * ((x - inside) / self.scale)).T
