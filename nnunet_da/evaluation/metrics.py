"""Metrics of the structures of two label maps on one grid, a reference and a prediction of it.

R is the reference, P the prediction of one structure, both without the voxels that are left out (the reference's ignore
label). TP = |R ∩ P|, FP = |P − R|, FN = |R − P|, TN = the other valid voxels. The definitions follow Taha and Hanbury,
"Metrics for evaluating 3D medical image segmentation", BMC Medical Imaging 15:29 (2015), unless a docstring says
otherwise; `Overlap` and `surfaces.SurfaceDistances` hold the formulas.

Empty masks. A ratio is NaN where its denominator is 0, and a distance where either surface is empty:

=================  =======  =======  ===========  =======  =======  =========  ==========
R / P              Dice     Sen      Spec         RAVD     NSD      distances  flagged as
=================  =======  =======  ===========  =======  =======  =========  ==========
present / present  formula  formula  formula      formula  formula  formula
present / empty    0        0        1            1        0        NaN        ``missed``
empty / present    0        NaN      TN/(TN+FP)   NaN      0        NaN        ``false``
empty / empty      NaN      NaN      1            NaN      NaN      NaN
=================  =======  =======  ===========  =======  =======  =========  ==========

With ``empty="penalty"``, what is NaN because a structure is missed or false becomes: a distance the diagonal of the
volume (in mm or voxels), Sen 0, RAVD 1. What is undefined for both empty stays NaN. The flags are the same either way.
"""

from dataclasses import dataclass

import numpy as np

from nnunet_da.evaluation.surfaces import surface_distances


@dataclass(frozen=True)
class Metric:
    """A metric as tables, plots and statistics show it.

    `decimals` are those of a table; `better` is "higher" or "lower"; `is_distance` is True for lengths, which are
    undefined where either mask is empty.
    """

    key: str
    title: str
    decimals: int
    better: str
    is_distance: bool


METRICS = (
    Metric("dsc", "DSC", 3, "higher", is_distance=False),
    Metric("hd_voxels", "HD (voxels)", 2, "lower", is_distance=True),
    Metric("hd_mm", "HD (mm)", 2, "lower", is_distance=True),
    Metric("hd95_mm", "HD95 (mm)", 2, "lower", is_distance=True),
    Metric("assd_mm", "ASSD (mm)", 2, "lower", is_distance=True),
    Metric("masd_mm", "MASD (mm)", 2, "lower", is_distance=True),
    Metric("aad_mm", "AAD (mm)", 2, "lower", is_distance=True),
    Metric("centroid_mm", "Localisation (mm)", 2, "lower", is_distance=True),
    Metric("nsd", "NSD", 3, "higher", is_distance=False),
    Metric("sensitivity", "Sen", 3, "higher", is_distance=False),
    Metric("specificity", "Spec", 3, "higher", is_distance=False),
    Metric("ravd", "RAVD", 3, "lower", is_distance=False),
)
COUNTS = ("missed", "false", "n_reference_voxels", "n_predicted_voxels")
TOLERANCE_MM = 1.0
EMPTY = ("nan", "penalty")

# A bit of a byte for each structure: so many are looked at in one pass over the label maps.
_STRUCTURES_PER_PASS = 8


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of one structure and the ratios made of them, NaN where the denominator is 0."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def n_reference(self):
        """|R|"""
        return self.tp + self.fn

    @property
    def n_predicted(self):
        """|P|"""
        return self.tp + self.fp

    @property
    def dice(self):
        """DSC = 2 |R ∩ P| / (|R| + |P|) = 2 TP / (2 TP + FP + FN), in [0, 1]."""
        return _ratio(2 * self.tp, self.n_reference + self.n_predicted)

    @property
    def sensitivity(self):
        """Sen = |R ∩ P| / |R| = TP / (TP + FN), in [0, 1]."""
        return _ratio(self.tp, self.n_reference)

    @property
    def specificity(self):
        """Spec = TN / (TN + FP), in [0, 1]. It counts the whole volume, so it is near 1 for any small structure."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def ravd(self):
        """RAVD = ||R| − |P|| / |R|, ≥ 0: the relative absolute volume difference.

        As in the supplementary material of the multi-domain contrastive paper, a ratio without unit (its Table S1
        gives percent).
        """
        return _ratio(abs(self.n_reference - self.n_predicted), self.n_reference)


@dataclass(frozen=True)
class MaskPair:
    """Both masks of one structure, cropped to the box that holds them; see `mask_pairs`.

    `reference` and `prediction` are boolean and False wherever `valid` (None: everywhere True) is. `start` is the index
    of the crop's first voxel in the volume of `shape`. `n_valid` holds, for each axis, how many voxels of each slice
    across it are evaluated. `spacing` is in mm.
    """

    reference: np.ndarray
    prediction: np.ndarray
    valid: np.ndarray | None
    start: tuple[int, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    n_valid: tuple[np.ndarray, ...]

    def metrics(self, *, tolerance_mm=TOLERANCE_MM, empty="nan"):
        """`METRICS` and `COUNTS` of the structure, as a dict; the arguments are those of `label_map_metrics`."""
        reference, prediction = _marginals(self.reference), _marginals(self.prediction)
        n_reference, n_predicted = int(reference[0].sum()), int(prediction[0].sum())
        tp = int(np.count_nonzero(self.reference & self.prediction))
        tn = int(self.n_valid[0].sum()) - n_reference - n_predicted + tp
        overlap = Overlap(tp, n_predicted - tp, n_reference - tp, tn)
        distances = surface_distances(self.reference, self.prediction, self.spacing, self.valid)
        found = {
            "dsc": overlap.dice,
            "hd_voxels": distances.hausdorff_voxels,
            "hd_mm": distances.hausdorff,
            "hd95_mm": distances.robust_hausdorff(95),
            "assd_mm": distances.assd,
            "masd_mm": distances.masd,
            "aad_mm": distances.aad,
            "centroid_mm": _localisation_distance(reference, prediction, self.spacing),
            "nsd": distances.surface_dice(tolerance_mm),
            "sensitivity": overlap.sensitivity,
            "specificity": overlap.specificity,
            "ravd": overlap.ravd,
            "missed": n_reference > 0 and n_predicted == 0,
            "false": n_reference == 0 and n_predicted > 0,
            "n_reference_voxels": n_reference,
            "n_predicted_voxels": n_predicted,
        }
        if empty == "penalty" and (found["missed"] or found["false"]):
            for key, value in self._penalties().items():
                if np.isnan(found[key]):
                    found[key] = value
        return found

    def _penalties(self):
        """What stands for each metric that a missed or false structure leaves undefined."""
        diagonals = {"mm": np.linalg.norm(np.multiply(self.shape, self.spacing)), "voxels": np.linalg.norm(self.shape)}
        distances = {m.key: float(diagonals[m.key.rpartition("_")[2]]) for m in METRICS if m.is_distance}
        return {**distances, "sensitivity": 0.0, "ravd": 1.0}

    def slice_metrics(self, axis):
        """2D metrics of the slices across `axis` in which either mask has a voxel; in the others, Dice is undefined.

        Returns a dict of arrays: ``slice``, the indices in the volume, and ``dsc``, ``sensitivity``, ``specificity`` in
        [0, 1] or NaN, by the formulas of `Overlap`. A volume that is 2D is one slice, 0.
        """
        masks = (self.reference, self.prediction, self.reference & self.prediction)
        if len(self.shape) == 2:
            n_reference, n_predicted, tp = (np.array([np.count_nonzero(mask)]) for mask in masks)
            start, n_valid = 0, self.n_valid[0].sum(keepdims=True)
        else:
            n_reference, n_predicted, tp = (_marginals(mask)[axis] for mask in masks)
            start = self.start[axis]
            n_valid = self.n_valid[axis][start : start + len(tp)]
        shown = np.flatnonzero(n_reference + n_predicted)
        n_reference, n_predicted, tp, n_valid = (each[shown] for each in (n_reference, n_predicted, tp, n_valid))
        with np.errstate(invalid="ignore"):
            return {
                "slice": shown + start,
                "dsc": 2 * tp / (n_reference + n_predicted),
                "sensitivity": tp / n_reference,
                "specificity": (n_valid - n_reference - n_predicted + tp) / (n_valid - n_reference),
            }


def structure_metrics(reference, prediction, spacing, valid=None, *, tolerance_mm=TOLERANCE_MM, empty="nan"):
    """`label_map_metrics` of one structure, given as two boolean masks.

    Raises ValueError where shapes, types or spacing do not fit.
    """
    masks = [np.asarray(mask) for mask in (reference, prediction)]
    if any(mask.dtype != bool for mask in masks):
        raise ValueError(f"masks must be boolean, not {[str(mask.dtype) for mask in masks]}")
    maps = [mask.view(np.uint8) for mask in masks]
    options = {"tolerance_mm": tolerance_mm, "empty": empty}
    return label_map_metrics(*maps, spacing, {"structure": (1,)}, valid, **options)["structure"]


def label_map_metrics(
    reference, prediction, spacing, structures, valid=None, *, tolerance_mm=TOLERANCE_MM, empty="nan"
):
    """All metrics of all structures of two label maps.

    Args:
        reference, prediction, spacing, structures, valid: as in `mask_pairs`.
        tolerance_mm: the tolerance of ``nsd`` in mm, ≥ 0.
        empty: "nan" or "penalty", see the head of this module.

    Returns a dict: structure → dict with the keys of `METRICS` (floats, lengths in mm or voxels by their names) and
    `COUNTS`: ``missed`` (reference present, prediction empty), ``false`` (prediction present, reference empty),
    ``n_reference_voxels``, ``n_predicted_voxels``.
    Raises ValueError where shapes, types, spacing or options do not fit.
    """
    if empty not in EMPTY:
        raise ValueError(f"empty must be one of {', '.join(EMPTY)}, not {empty!r}")
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ValueError(f"tolerance_mm must be a number ≥ 0, not {tolerance_mm}")
    pairs = mask_pairs(reference, prediction, spacing, structures, valid)
    return {name: pair.metrics(tolerance_mm=tolerance_mm, empty=empty) for name, pair in pairs}


def mask_pairs(reference, prediction, spacing, structures, valid=None):
    """Yields (structure, `MaskPair`) for each of `structures`.

    Args:
        reference, prediction: label maps of one shape, 2D or 3D, of any unsigned integer type. A volume that is one
            slice thick is taken as 2D, since in 3D all its voxels would lie on the surface.
        spacing: mm per voxel, one number per axis, in the order of the maps' axes.
        structures: name → label values, several for a region.
        valid: boolean mask of the voxels to evaluate; None for all.

    Both maps are read once for up to eight structures, whose boxes come out of that pass together; the rest of the work
    happens within the boxes. Raises ValueError where shapes, types or spacing do not fit.
    """
    reference, prediction, spacing, valid = _checked(reference, prediction, spacing, valid)
    shape = reference.shape
    n_valid = tuple(_marginals(valid) if valid is not None else [np.full(n, reference.size // n) for n in shape])
    # A voxel of margin around masks, where it is seen what is unknown.
    margin = 0 if valid is None else 1
    foreground = _box([r | p for r, p in zip(_occupied(reference), _occupied(prediction), strict=True)], margin)
    reference, prediction = reference[foreground], prediction[foreground]
    valid = None if valid is None else valid[foreground]
    names = list(structures)
    for first in range(0, len(names), _STRUCTURES_PER_PASS):
        chosen = names[first : first + _STRUCTURES_PER_PASS]
        bits = [
            _structure_bits(label_map, [structures[name] for name in chosen]) for label_map in (reference, prediction)
        ]
        if valid is not None:
            bits = [each * valid for each in bits]
        occupied = _occupied(bits[0] | bits[1])
        for index, name in enumerate(chosen):
            box = _box([each & (1 << index) for each in occupied], margin)
            masks = [(each[box] & (1 << index)) != 0 for each in bits]
            start = tuple(outer.start + inner.start for outer, inner in zip(foreground, box, strict=True))
            cropped = None if valid is None else valid[box]
            yield name, MaskPair(*masks, cropped, start, shape, spacing, n_valid)


def _structure_bits(label_map, values):
    """Bytes in which bit i is set where the label map holds one of ``values[i]``."""
    size = 256 if label_map.dtype == np.uint8 else int(label_map.max(initial=0)) + 1
    table = np.zeros(size, np.uint8)
    for index, several in enumerate(values):
        table[[value for value in several if value < size]] |= 1 << index
    if label_map.dtype != np.uint8:
        return table[label_map.astype(np.intp)]
    return np.frombuffer(label_map.tobytes().translate(table.tobytes()), np.uint8).reshape(label_map.shape)


def _occupied(array):
    """For each axis, the bits that are set anywhere in each slice across it."""
    first = np.bitwise_or.reduce(array.reshape(len(array), array[:1].size), axis=1)
    flat = np.bitwise_or.reduce(array, axis=0)
    return [first, flat] if array.ndim == 2 else [first, np.bitwise_or.reduce(flat, 1), np.bitwise_or.reduce(flat, 0)]


def _box(occupied, margin=0):
    """Slices from the first to the last nonzero entry of each axis, and a `margin` within the array; or empty ones."""
    box = []
    for along in occupied:
        indices = np.flatnonzero(along)
        if not indices.size:
            return (slice(0, 0),) * len(occupied)
        box.append(slice(max(int(indices[0]) - margin, 0), min(int(indices[-1]) + 1 + margin, len(along))))
    return tuple(box)


def _marginals(mask):
    """For each axis, the number of True voxels in each slice across it."""
    counts = mask.view(np.uint8)
    flat = counts.sum(axis=0, dtype=np.int64)
    first = counts.reshape(len(counts), mask[:1].size).sum(axis=1, dtype=np.int64)
    return [first, flat] if mask.ndim == 2 else [first, flat.sum(axis=1), flat.sum(axis=0)]


def _localisation_distance(reference, prediction, spacing):
    """R = √(Δx² + Δy² + Δz²) in mm between the centroids of both masks, from `_marginals`; NaN where one is empty.

    The localisation distance of the dense ASPP paper, Eq. 3.
    """
    if not (reference[0].any() and prediction[0].any()):
        return np.nan
    centres = [[np.arange(n.size) @ n / n.sum() for n in marginals] for marginals in (reference, prediction)]
    return float(np.linalg.norm(np.subtract(*centres) * spacing))


def _ratio(numerator, denominator):
    return numerator / denominator if denominator else np.nan


def _checked(reference, prediction, spacing, valid):
    arrays = [np.asarray(array) for array in (reference, prediction, valid) if array is not None]
    spacing = np.asarray(spacing, dtype=float)
    shape = arrays[0].shape
    if any(array.shape != shape for array in arrays) or len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"masks must have one shape of 2 or 3 axes, not {[array.shape for array in arrays]}")
    if any(array.dtype.kind != "u" for array in arrays[:2]):
        raise ValueError(f"label maps must be unsigned integers, not {[str(array.dtype) for array in arrays[:2]]}")
    if valid is not None and arrays[2].dtype != bool:
        raise ValueError(f"valid must be boolean, not {arrays[2].dtype}")
    if spacing.shape != (len(shape),) or not np.all(np.isfinite(spacing) & (spacing > 0)):
        raise ValueError(f"spacing must be {len(shape)} positive numbers, not {spacing}")
    if len(shape) == 3 and 1 in shape:
        slice_axis = shape.index(1)
        arrays = [array.squeeze(slice_axis) for array in arrays]
        spacing = np.delete(spacing, slice_axis)
    return arrays[0], arrays[1], tuple(spacing.tolist()), arrays[2] if valid is not None else None
