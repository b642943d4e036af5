"""Metrics of one structure: two boolean masks on one grid, and the spacing of that grid in mm.

R is the reference, P the prediction, both without the voxels that `valid` leaves out (the reference's ignore label).
TP = |R ∩ P|, FP = |P − R|, FN = |R − P|, TN = the other valid voxels. The definitions follow Taha and Hanbury, "Metrics
for evaluating 3D medical image segmentation", BMC Medical Imaging 15:29 (2015), unless a docstring says otherwise.

Empty masks. A ratio is NaN where its denominator is 0 and a distance is NaN where either surface is empty:

=================  ===========  ======  ===========  ===========  ===========
R / P              Dice         Sen     Spec         distances    flagged as
=================  ===========  ======  ===========  ===========  ===========
present / present  by formula   same    same         by formula
present / empty    0            0       1            NaN          ``missed``
empty / present    0            NaN     TN/(TN+FP)   NaN          ``false``
empty / empty      NaN          NaN     1            NaN
=================  ===========  ======  ===========  ===========  ===========
"""

from dataclasses import dataclass

import edt
import numpy as np


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of one structure and the ratios made of them, each in [0, 1] or NaN where its denominator is 0."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self):
        """DSC = 2 TP / (2 TP + FP + FN)."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def sensitivity(self):
        """Sen = TP / (TP + FN)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self):
        """Spec = TN / (TN + FP). It counts the whole volume, so it is near 1 for any small structure."""
        return _ratio(self.tn, self.tn + self.fp)


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance from each surface voxel to the nearest surface voxel of the other mask, in the units of the spacing.

    S(M) are the voxel centres of M's surface, see `surfaces`; d(x, S) = min over y in S of ‖x − y‖. Both arrays are 1D,
    float32 and ≥ 0, and both are empty where either surface is.
    """

    from_reference: np.ndarray
    from_prediction: np.ndarray

    @property
    def hausdorff(self):
        """HD = max(max over x in S(R) of d(x, S(P)), max over y in S(P) of d(y, S(R)))."""
        return self.robust_hausdorff(100)

    def robust_hausdorff(self, percent):
        """HD with the percentile `percent` of the two directed sets of distances in place of their maxima; 95 is HD95.

        The larger of the two directed percentiles (linear interpolation), as in MONAI's HausdorffDistanceMetric and,
        there weighted by the area of surface elements, in DeepMind's surface-distance. MedPy's hd95 takes one
        percentile of the pooled distances instead, which a large surface close to the other can pull down.
        """
        if not self.from_reference.size:
            return np.nan
        return float(max(np.percentile(self.from_reference, percent), np.percentile(self.from_prediction, percent)))

    @property
    def assd(self):
        """ASSD = (Σ over S(R) of d(x, S(P)) + Σ over S(P) of d(y, S(R))) / (|S(R)| + |S(P)|), pooled over both.

        As in Heimann et al., IEEE TMI 28(8) (2009), and MONAI's SurfaceDistanceMetric(symmetric=True).
        """
        if not self.from_reference.size:
            return np.nan
        total = self.from_reference.sum(dtype=np.float64) + self.from_prediction.sum(dtype=np.float64)
        return float(total / (self.from_reference.size + self.from_prediction.size))


def structure_metrics(reference, prediction, spacing, valid=None):
    """All metrics of one structure.

    Args:
        reference, prediction: boolean masks of one shape, 2D or 3D. A volume that is one slice thick is taken as 2D,
            since in 3D all its voxels would lie on the surface.
        spacing: mm per voxel, one number per axis, in the order of the masks' axes.
        valid: boolean mask of the voxels to evaluate; None for all.

    Returns a dict: ``dsc``, ``hd_mm``, ``hd_voxels`` (HD on unit spacing), ``hd95_mm``, ``assd_mm``, ``sensitivity``,
    ``specificity`` (floats), ``missed`` (reference present, prediction empty), ``false`` (prediction present, reference
    empty), ``n_reference_voxels``, ``n_predicted_voxels``.
    Raises ValueError where shapes or spacing do not fit.
    """
    reference, prediction, spacing, valid = _checked(reference, prediction, spacing, valid)
    n_valid = reference.size if valid is None else int(np.count_nonzero(valid))
    box = _joint_box(reference, prediction, valid)
    reference, prediction = reference[box], prediction[box]
    if valid is not None:
        valid = valid[box]
        reference, prediction = reference & valid, prediction & valid

    counts = overlap(reference, prediction, n_valid)
    reference_surface, prediction_surface = surface(reference, valid), surface(prediction, valid)
    distances = surface_distances(reference_surface, prediction_surface, spacing)
    if np.ptp(spacing) == 0:
        hd_voxels = distances.hausdorff / float(spacing[0])
    else:
        hd_voxels = surface_distances(reference_surface, prediction_surface, np.ones_like(spacing)).hausdorff
    n_reference, n_predicted = counts.tp + counts.fn, counts.tp + counts.fp
    return {
        "dsc": counts.dice,
        "hd_mm": distances.hausdorff,
        "hd_voxels": hd_voxels,
        "hd95_mm": distances.robust_hausdorff(95),
        "assd_mm": distances.assd,
        "sensitivity": counts.sensitivity,
        "specificity": counts.specificity,
        "missed": n_reference > 0 and n_predicted == 0,
        "false": n_reference == 0 and n_predicted > 0,
        "n_reference_voxels": n_reference,
        "n_predicted_voxels": n_predicted,
    }


def overlap(reference, prediction, n_voxels):
    """`Overlap` of two boolean masks that may be crops of a volume of `n_voxels` voxels, empty outside the crop."""
    tp = int(np.count_nonzero(reference & prediction))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(reference)) - tp
    return Overlap(tp, fp, fn, n_voxels - tp - fp - fn)


def surface(mask, valid=None):
    """The surface of a boolean mask: its voxels with a face neighbour (4 in 2D, 6 in 3D) outside the mask.

    What lies beyond the border of the array is outside. What lies where `valid` is False is unknown: it makes no
    surface, so that the rim of an ignored region is not mistaken for one. `mask` must be False wherever `valid` is.
    """
    inside = mask if valid is None else mask | ~valid
    interior = inside.copy()
    for axis in range(mask.ndim):
        core, neighbour = np.moveaxis(interior, axis, 0), np.moveaxis(inside, axis, 0)
        core[1:] &= neighbour[:-1]
        core[:-1] &= neighbour[1:]
        core[[0, -1]] = False
    return mask & ~interior


def surface_distances(reference_surface, prediction_surface, spacing):
    """`SurfaceDistances` between two boolean surfaces on one grid: one exact Euclidean distance transform per side."""
    if not (reference_surface.any() and prediction_surface.any()):
        return SurfaceDistances(np.empty(0, np.float32), np.empty(0, np.float32))
    return SurfaceDistances(
        from_reference=_distance_to(prediction_surface, spacing)[reference_surface],
        from_prediction=_distance_to(reference_surface, spacing)[prediction_surface],
    )


def _distance_to(target, spacing):
    return edt.edt(np.ascontiguousarray(~target), anisotropy=tuple(spacing))


def _ratio(numerator, denominator):
    return numerator / denominator if denominator else np.nan


def _joint_box(reference, prediction, valid):
    """Slices around both masks with one voxel of margin (less at the volume's border), where neighbours are seen."""
    either = reference | prediction
    if valid is not None:
        either &= valid
    box = []
    for axis in range(either.ndim):
        occupied = np.flatnonzero(either.any(axis=tuple(other for other in range(either.ndim) if other != axis)))
        if not occupied.size:
            return (slice(0, 1),) * either.ndim
        box.append(slice(max(int(occupied[0]) - 1, 0), int(occupied[-1]) + 2))
        # What the next axes look at shrinks with each axis.
        either = either[(slice(None),) * axis + (box[axis],)]
    return tuple(box)


def _checked(reference, prediction, spacing, valid):
    masks = [np.asarray(mask) for mask in (reference, prediction, valid) if mask is not None]
    spacing = np.asarray(spacing, dtype=float)
    shape = masks[0].shape
    if any(mask.shape != shape for mask in masks) or len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"masks must have one shape of 2 or 3 axes, not {[mask.shape for mask in masks]}")
    if any(mask.dtype != bool for mask in masks):
        raise ValueError(f"masks must be boolean, not {[str(mask.dtype) for mask in masks]}")
    if spacing.shape != (len(shape),) or not np.all(np.isfinite(spacing) & (spacing > 0)):
        raise ValueError(f"spacing must be {len(shape)} positive numbers, not {spacing}")
    if len(shape) == 3 and 1 in shape:
        slice_axis = shape.index(1)
        masks = [mask.squeeze(slice_axis) for mask in masks]
        spacing = np.delete(spacing, slice_axis)
    return masks[0], masks[1], spacing, masks[2] if valid is not None else None
