"""Surfaces of two masks on one grid, and the exact distances between them.

Distances are looked up where they are needed: at the voxels of one surface, in the other. Near neighbours, which most
voxels of a usable segmentation have, are found by trying all displacements in the order of their length. For the rest a
k-d tree of the other surface is asked, or, where that would take longer, a distance transform of the crop.
"""

import functools
from dataclasses import dataclass

import edt
import numpy as np
from scipy.spatial import KDTree

# How many displacements are tried at first, and at most, and how many voxels they reach along an axis. Those beyond the
# first are worth it while few voxels are left: then they cost less than building a tree.
FIRST_DISPLACEMENTS = 128
N_DISPLACEMENTS = 512
REACH = 6
# What a query of the tree, and a point in building it, cost in voxels of a distance transform.
VOXELS_PER_QUERY = 30
VOXELS_PER_POINT = 4
# Indices that are looked up at once: more would not stay in the cache.
BLOCK = 8192
# Candidates for the largest distance in voxels that are looked at first; they rule most others out.
FIRST_CANDIDATES = 64


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance in mm from each surface voxel to the nearest surface voxel of the other mask.

    S(M) are the voxel centres of M's surface, see `surface`; d(x, S) = min over y in S of ‖x − y‖. Both arrays are 1D,
    float64 and ≥ 0, and both are empty where either surface is. `n_surface` is |S(R)| + |S(P)|; `hausdorff_voxels` is
    the Hausdorff distance on unit spacing (NaN where either surface is empty).
    """

    from_reference: np.ndarray
    from_prediction: np.ndarray
    n_surface: int
    hausdorff_voxels: float

    @property
    def hausdorff(self):
        """HD = max(max over x in S(R) of d(x, S(P)), max over y in S(P) of d(y, S(R))), in mm.

        The Hausdorff distance of the intensity pretext paper, and the maximum symmetric surface distance (MSSD) of the
        supplementary material of the multi-domain contrastive paper.
        """
        return float(max(self.from_reference.max(), self.from_prediction.max())) if self.from_reference.size else np.nan

    def robust_hausdorff(self, percent):
        """HD with the percentile `percent` of the two directed sets of distances in place of their maxima; 95 is HD95.

        The larger of the two directed percentiles (linear interpolation), in mm, as in MONAI's HausdorffDistanceMetric
        and, there weighted by the area of surface elements, in DeepMind's surface-distance. MedPy's hd95 takes one
        percentile of the pooled distances instead, which a large surface close to the other can pull down.
        """
        if not self.from_reference.size:
            return np.nan
        return float(max(np.percentile(self.from_reference, percent), np.percentile(self.from_prediction, percent)))

    @property
    def assd(self):
        """ASSD = (Σ over S(R) of d(x, S(P)) + Σ over S(P) of d(y, S(R))) / (|S(R)| + |S(P)|), in mm.

        Pooled over both surfaces, as in the supplementary material of the multi-domain contrastive paper, in Heimann et
        al., IEEE TMI 28(8) (2009), in MONAI's SurfaceDistanceMetric(symmetric=True) and in MedPy's `assd` (from 0.5).
        """
        if not self.from_reference.size:
            return np.nan
        return float((self.from_reference.sum() + self.from_prediction.sum()) / self.n_surface)

    @property
    def masd(self):
        """MASD = (mean over S(R) of d(x, S(P)) + mean over S(P) of d(y, S(R))) / 2, in mm.

        The alternative to ASSD in which both surfaces weigh the same, however large: the mean average surface distance
        of Maier-Hein et al., "Metrics reloaded", Nature Methods 21 (2024).
        """
        if not self.from_reference.size:
            return np.nan
        return float((self.from_reference.mean() + self.from_prediction.mean()) / 2)

    @property
    def aad(self):
        """AAD = mean over S(P) of d(y, S(R)), in mm: the average absolute distance (ASD) of the dense ASPP paper, §3.2.

        The paper leaves the direction open, and so does the challenge that it is about (IVDM3Seg, MICCAI 2018). It is
        taken as from the segmentation to the reference, between surface voxels.
        """
        return float(self.from_prediction.mean()) if self.from_prediction.size else np.nan

    def surface_dice(self, tolerance_mm):
        """NSD = (|{x in S(R): d(x, S(P)) ≤ τ}| + |{y in S(P): d(y, S(R)) ≤ τ}|) / (|S(R)| + |S(P)|), in [0, 1].

        Nikolov et al., JMIR 23(7):e26151 (2021), with voxels of the surface in place of the area of its elements, as in
        MONAI's SurfaceDiceMetric. 0 where one surface is empty, NaN where both are. τ is `tolerance_mm`, and 1e-6 of it
        more, since headers hold spacings in single precision.
        """
        if not self.n_surface:
            return np.nan
        limit = tolerance_mm * (1 + 1e-6)
        near = np.count_nonzero(self.from_reference <= limit) + np.count_nonzero(self.from_prediction <= limit)
        return float(near / self.n_surface)


def surface(mask, valid=None):
    """The surface of a boolean mask: its voxels with a face neighbour (4 in 2D, 6 in 3D) outside the mask.

    What lies beyond the border of the array is outside. What lies where `valid` is False is unknown: it makes no
    surface, so that the rim of an ignored region is not mistaken for one. `mask` must be False wherever `valid` is.
    """
    shape = tuple(n + 1 for n in mask.shape)
    unknown = None if valid is None else _padded(~valid, shape)
    return _surface(_padded(mask, shape), unknown, shape).reshape(shape)[tuple(slice(n) for n in mask.shape)]


def surface_distances(reference, prediction, spacing, valid=None):
    """`SurfaceDistances` of two boolean masks of one shape, 2D or 3D, and the `spacing` in mm per axis.

    `valid` as in `surface`; both masks must be False where it is. Distances are exact: in double precision, or where a
    distance transform finds them, in single.
    """
    grid = _Grid.around(reference.shape, tuple(map(float, spacing)))
    unknown = None if valid is None else grid.pad(~valid)
    first, second = (_Side.of(_surface(grid.pad(mask), unknown, grid.shape)) for mask in (reference, prediction))
    n_surface = first.indices.size + second.indices.size
    if not (first.indices.size and second.indices.size):
        return SurfaceDistances(np.empty(0), np.empty(0), n_surface, np.nan)
    pairs = ((first.indices, second), (second.indices, first))
    distances, bounds = zip(*(_directed(queries, target, grid) for queries, target in pairs), strict=True)
    voxels = max(d.max() for d in distances) / max(grid.spacing)
    if min(grid.spacing) != max(grid.spacing):
        for (queries, target), bound in zip(pairs, bounds, strict=True):
            voxels = _largest_in_voxels(queries, target, bound, grid, voxels)
    return SurfaceDistances(*distances, n_surface, float(voxels))


@dataclass(frozen=True)
class _Shell:
    """Displacements of one length: `steps` (n, axes) in voxels, the length in mm and voxels, how many are shorter."""

    steps: np.ndarray
    mm: float
    voxels: float
    n_shorter: int


@functools.lru_cache(maxsize=256)
def _shells(spacing):
    """The displacements that are shortest in mm, as `_Shell`s in rising order; none left out is shorter than these."""
    reach = range(-REACH, REACH + 1)
    steps = np.stack(np.meshgrid(*[reach] * len(spacing), indexing="ij"), axis=-1).reshape(-1, len(spacing))
    mm, voxels = np.linalg.norm(steps * np.asarray(spacing), axis=1), np.linalg.norm(steps, axis=1)
    lengths = np.round(np.stack([mm / min(spacing), voxels]), 9)
    # Sorted by length in mm, equals by that in voxels.
    order = np.lexsort(lengths[::-1])
    order = order[mm[order] < (REACH + 1) * min(spacing)][:N_DISPLACEMENTS]
    starts = [0, *(np.flatnonzero(np.any(np.diff(lengths[:, order], axis=1), axis=0)) + 1).tolist()]
    groups = np.split(order, starts[1:])
    return tuple(
        _Shell(steps[group], mm[group[0]], voxels[group[0]], start) for group, start in zip(groups, starts, strict=True)
    )


@dataclass(frozen=True)
class _Grid:
    """A crop with empty voxels behind the end of each axis, as a flat array.

    Displacements may be added to indices into that array: whatever leaves a row on either side ends in those voxels.
    """

    crop: tuple[int, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]

    @classmethod
    def around(cls, crop, spacing):
        unit = (1.0,) * len(spacing)
        widths = np.max([np.abs(shell.steps).max(0) for each in (spacing, unit) for shell in _shells(each)], axis=0)
        return cls(crop, tuple(np.add(crop, widths).tolist()), spacing)

    @property
    def unit(self):
        """The same grid with spacing 1."""
        return _Grid(self.crop, self.shape, (1.0,) * len(self.shape))

    def pad(self, mask):
        return _padded(mask, self.shape)

    def points(self, indices):
        """Flat indices as points (n, axes) in the units of the spacing."""
        return np.stack(np.unravel_index(indices, self.shape), axis=1) * np.asarray(self.spacing)


@dataclass(frozen=True)
class _Side:
    """A surface: a flat boolean array, and the indices where it is True."""

    flat: np.ndarray
    indices: np.ndarray

    @classmethod
    def of(cls, flat):
        return cls(flat, np.flatnonzero(flat))


def _padded(mask, shape):
    """`mask` at the origin of a flat array of `shape` that is False elsewhere."""
    padded = np.zeros(shape, bool)
    padded[tuple(slice(n) for n in mask.shape)] = mask
    return padded.ravel()


def _surface(mask, unknown, shape):
    """`surface` of flat padded arrays: neighbours are a constant step apart, and padding is what lies outside."""
    inside = mask if unknown is None else mask | unknown
    interior = inside.copy()
    step = inside.size
    for n in shape:
        step //= n
        interior[:step] = False
        interior[step:] &= inside[:-step]
        interior[:-step] &= inside[step:]
    return mask > interior


def _directed(queries, target, grid):
    """From each of the flat indices `queries`: the distance to `target`, and a bound from above on that in voxels."""
    distances, bounds = np.empty((2, queries.size))
    strides = np.cumprod((1, *grid.shape[:0:-1]))[::-1]
    pending = np.arange(queries.size)
    for shell in _shells(grid.spacing):
        if shell.n_shorter >= FIRST_DISPLACEMENTS and 4 * pending.size > target.indices.size:
            break
        hit = _hits(target.flat, queries, shell.steps @ strides)
        found = pending[hit]
        if found.size:
            distances[found], bounds[found] = shell.mm, shell.voxels
            missed = ~hit
            queries, pending = queries[missed], pending[missed]
            if not pending.size:
                return distances, bounds
    distances[pending], bounds[pending] = _nearest(queries, target, grid)
    return distances, bounds


def _hits(flat, queries, steps):
    """Whether any of the `steps` from each query leads to True."""
    if queries.size * steps.size <= BLOCK:
        return flat.take(queries + steps[:, None], mode="wrap").any(axis=0)
    hit = flat.take(queries + steps[0], mode="wrap")
    for step in steps[1:]:
        hit |= flat.take(queries + step, mode="wrap")
    return hit


def _nearest(queries, target, grid):
    """As `_directed`, for voxels however far: by a tree, or by a distance transform where that is faster."""
    if queries.size * VOXELS_PER_QUERY + target.indices.size * VOXELS_PER_POINT > target.flat.size:
        # The transform of bytes is twice as fast as that of booleans.
        squared = edt.edtsq((~target.flat).view(np.uint8).reshape(grid.shape), anisotropy=grid.spacing)
        distances = np.sqrt(squared.ravel()[queries])
        return distances, distances / min(grid.spacing)
    tree = KDTree(grid.points(target.indices), leafsize=32, compact_nodes=False, balanced_tree=False)
    distances, found = tree.query(grid.points(queries))
    steps = grid.unit.points(target.indices[found]) - grid.unit.points(queries)
    return distances, np.linalg.norm(steps, axis=1)


def _largest_in_voxels(queries, target, bounds, grid, largest):
    """The larger of `largest` and the largest distance in voxels from `queries`, of which none exceeds its bound."""
    candidates = np.flatnonzero(bounds > largest)
    candidates = candidates[np.argsort(-bounds[candidates])]
    for chosen in (candidates[:FIRST_CANDIDATES], candidates[FIRST_CANDIDATES:]):
        chosen = chosen[bounds[chosen] > largest]
        if chosen.size:
            largest = max(largest, _directed(queries[chosen], target, grid.unit)[0].max())
    return largest
