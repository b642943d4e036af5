"""Known discs, spoilt in the ways in which segmentations are: to tune and to measure localisation."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

# A disc of which the scan holds less than this share need not be found.
REQUIRED = 0.25


@dataclass(frozen=True)
class Variant:
    """A spoilt case: mask (X, Y, Z), true inside discs and what is taken for such; affine (4, 4) to RAS mm; truth
    (X, Y, Z) uint8, numbers of the real discs that are left in it; complete: number → voxels of the disc before."""

    mask: np.ndarray
    truth: np.ndarray
    affine: np.ndarray
    complete: dict[int, int]

    @classmethod
    def unspoilt(cls, label_map, affine):
        """Of a label map (X, Y, Z) with discs numbered from the lowest."""
        counts = np.bincount(label_map.ravel())
        complete = {int(value): int(counts[value]) for value in np.flatnonzero(counts) if value}
        return cls(label_map > 0, label_map.astype(np.uint8), np.asarray(affine, float), complete)

    @cached_property
    def _voxels(self):
        """Indices (N, 3) of the voxels of discs, and their numbers (N,)."""
        indices = np.argwhere(self.truth)
        return indices, self.truth[tuple(indices.T)]

    @property
    def numbers(self):
        """The numbers of the discs that are left, rising."""
        return np.flatnonzero(np.bincount(self._voxels[1])).tolist()

    @property
    def centroids(self):
        """Number → centroid in mm of the discs that are left, the lowest first."""
        indices, values = self._voxels
        return {value: self.world(indices[values == value]).mean(axis=0) for value in self.numbers}

    @property
    def required(self):
        """The numbers that must be found: those of discs of which enough is there."""
        counts = np.bincount(self._voxels[1])
        return [value for value in self.numbers if counts[value] >= REQUIRED * self.complete[value]]

    def world(self, indices):
        """Voxel indices (N, 3) → mm."""
        return indices @ self.affine[:3, :3].T + self.affine[:3, 3]

    def add(self, inside, centre, reach):
        """With voxels that are no disc, within `reach` mm of `centre`: `inside` takes points (N, 3) to bool (N,)."""
        to_index = np.linalg.inv(self.affine)
        index = to_index[:3, :3] @ centre + to_index[:3, 3]
        # The box of indices around a ball.
        half = reach * np.linalg.norm(to_index[:3, :3], axis=1)
        low = np.maximum(np.floor(index - half).astype(int), 0)
        high = np.minimum(np.ceil(index + half).astype(int) + 1, self.mask.shape)
        box = tuple(map(slice, low, high))
        mask = self.mask.copy()
        points = self.world(np.indices(high - low).reshape(3, -1).T + low)
        mask[box] |= inside(points).reshape(mask[box].shape)
        return replace(self, mask=mask)


def remove_disc(variant, rng):
    """One disc is not segmented."""
    numbers = variant.numbers
    gone = variant.truth == rng.choice(numbers)
    return replace(variant, mask=variant.mask & ~gone, truth=np.where(gone, 0, variant.truth).astype(np.uint8))


def fuse(variant, rng):
    """A bridge, some 6 to 18 mm thick, joins two neighbouring discs."""
    centroids = variant.centroids
    pairs = [(a, b) for a, b in zip(variant.numbers, variant.numbers[1:], strict=False) if b == a + 1]
    if not pairs:
        return variant
    lower, upper = pairs[rng.integers(len(pairs))]
    shift = np.array([rng.uniform(-8, 8), rng.uniform(-8, 8), 0])
    start, way = centroids[lower] + shift, centroids[upper] - centroids[lower]
    radius = rng.uniform(3, 9)

    def inside(points):
        along = np.clip((points - start) @ way / (way @ way), 0, 1)
        return np.linalg.norm(points - start - along[:, None] * way, axis=1) <= radius

    return variant.add(inside, start + way / 2, np.linalg.norm(way) / 2 + radius)


def blob_beside(variant, rng):
    """A set of the size of a disc lies beside, before or behind the spine."""
    centroids = np.stack(list(variant.centroids.values()))
    for _ in range(20):
        angle = rng.uniform(0, 2 * np.pi)
        offset = rng.uniform(38, 60) * np.array([np.cos(angle), np.sin(angle), 0])
        spoilt = _with_blob(variant, centroids[rng.integers(len(centroids))] + offset, rng)
        if spoilt is not None:
            return spoilt
    return variant


def blob_above(variant, rng):
    """A set of the size of a disc lies above the highest disc, on the spine's line or up to 25 mm beside it."""
    centroids = np.stack(list(variant.centroids.values()))
    up = centroids[-1] - centroids[max(len(centroids) - 3, 0)]
    up = up / np.linalg.norm(up) if len(centroids) > 1 else np.array([0.0, 0, 1])
    for _ in range(20):
        offset = rng.uniform(15, 80) * up + np.array([*rng.uniform(-25, 25, 2), 0])
        spoilt = _with_blob(variant, centroids[-1] + offset, rng)
        if spoilt is not None:
            return spoilt
    return variant


def _with_blob(variant, centre, rng):
    """With an ellipsoid; None where it would lie outside the scan or touch a disc."""
    radii = rng.uniform(6, 16, 3)
    turn = Rotation.random(rng=rng)
    index = np.linalg.inv(variant.affine) @ np.r_[centre, 1]
    if ((index[:3] < 0) | (index[:3] > np.array(variant.mask.shape) - 1)).any():
        return None
    discs = variant.world(np.argwhere(variant.mask))
    if np.linalg.norm(turn.apply(discs - centre) / (radii + 4), axis=1).min() <= 1:
        return None
    return variant.add(lambda points: np.linalg.norm(turn.apply(points - centre) / radii, axis=1) <= 1, centre, 16)


def crop(variant, rng):
    """The field of view ends nearer on one or two sides.

    Below and above it cuts off up to one and a half distances of discs, on the other sides up to 35 % of the spine.
    """
    for direction in rng.choice(6, size=rng.integers(1, 3), replace=False):
        variant = _cropped(variant, *divmod(int(direction), 2), rng)
    return variant


def _cropped(variant, world_axis, at_end, rng):
    columns = variant.affine[:3, :3] / np.linalg.norm(variant.affine[:3, :3], axis=0)
    axis = int(np.abs(columns[world_axis]).argmax())
    from_start = bool(at_end) == (columns[world_axis, axis] < 0)
    hits = np.flatnonzero(variant.truth.any(axis=tuple(other for other in range(3) if other != axis)))
    low, high = int(hits[0]), int(hits[-1]) + 1
    if world_axis == 2:
        centroids = np.stack(list(variant.centroids.values()))
        span = np.linalg.norm(centroids[-1] - centroids[0]) / max(variant.numbers[-1] - variant.numbers[0], 1)
        depth = rng.uniform(-0.5, 1.5) * (span or 35.0) / np.linalg.norm(variant.affine[:3, axis])
    else:
        depth = rng.uniform(0, 0.35) * (high - low)
    depth = min(int(depth), high - low - 1)
    start, stop = (max(0, low + depth), None) if from_start else (0, min(variant.mask.shape[axis], high - depth))
    box = tuple(slice(start, stop) if other == axis else slice(None) for other in range(3))
    affine = variant.affine.copy()
    affine[:3, 3] += start * affine[:3, axis]
    spoilt = replace(variant, mask=variant.mask[box], truth=variant.truth[box], affine=affine)
    # A scan without two discs has nothing to count.
    return spoilt if len(spoilt.required) >= 2 else variant


def rotate(variant, rng):
    """The patient lies turned by up to 20° about any axis."""
    axis = rng.normal(size=3)
    turn = Rotation.from_rotvec(np.deg2rad(rng.uniform(-20, 20)) * axis / np.linalg.norm(axis)).as_matrix()
    centre = variant.world(np.array(variant.mask.shape)[None] / 2)[0]
    affine = variant.affine.copy()
    affine[:3] = turn @ affine[:3]
    affine[:3, 3] += centre - turn @ centre
    return replace(variant, affine=affine)


def reorient(variant, rng):
    """The voxels are stored along other axes, some of them backwards; every voxel stays where it was in the world."""
    order = rng.permutation(3)
    mask, truth = np.transpose(variant.mask, order), np.transpose(variant.truth, order)
    affine = variant.affine[:, [*order, 3]].copy()
    for axis in np.flatnonzero(rng.integers(0, 2, 3)):
        mask, truth = np.flip(mask, axis), np.flip(truth, axis)
        affine[:3, 3] += affine[:3, axis] * (mask.shape[axis] - 1)
        affine[:3, axis] *= -1
    return replace(variant, mask=mask, truth=truth, affine=affine)


# In the order in which they are applied: what is added must lie in what is left of the scan.
CORRUPTIONS = {
    "crop": crop,
    "missing": remove_disc,
    "fused": fuse,
    "beside": blob_beside,
    "above": blob_above,
    "rotated": rotate,
    "reoriented": reorient,
}


def corrupt(label_map, affine, names, rng):
    """The `Variant` of numbered discs (X, Y, Z) that is spoilt by the corruptions of these `names`."""
    variant = Variant.unspoilt(label_map, affine)
    for name, function in CORRUPTIONS.items():
        if name in names:
            variant = function(variant, rng)
    return variant


@dataclass(frozen=True)
class Agreement:
    """Of a localisation with what is true. discs: number → whether it is right; errors: number → distance of the
    centroids of right discs in mm; missed: numbers that should have been found."""

    discs: dict[int, bool]
    errors: dict[int, float]
    missed: tuple[int, ...]

    @property
    def is_right(self):
        """Whether every disc bears its number, and none is missed."""
        return all(self.discs.values()) and not self.missed


def compare(variant, label_map, centroids, n_discs=7):
    """`Agreement` of numbered discs (X, Y, Z) and their `centroids` (number → mm) with a `Variant`.

    A disc is right where at least half of its voxels are that disc, of which it must hold at least half; discs
    numbered above `n_discs` are not asked for.
    """
    seen = (label_map > 0) | (variant.truth > 0)
    both = np.bincount(label_map[seen].astype(int) * 256 + variant.truth[seen], minlength=65536).reshape(256, 256)
    found, true = both.sum(axis=1), both.sum(axis=0)
    discs = {
        int(number): bool(2 * both[number, number] >= max(found[number], true[number])) and number in variant.complete
        for number in centroids
    }
    real = variant.centroids
    errors = {n: float(np.linalg.norm(centroids[n] - real[n])) for n, is_right in discs.items() if is_right}
    missed = tuple(n for n in variant.required if n <= n_discs and not discs.get(n))
    return Agreement(discs, errors, missed)
