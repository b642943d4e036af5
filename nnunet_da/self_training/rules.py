"""What becomes of an ensemble's label maps: islands, volumes, doubtful voxels, and cases left out."""

import math

import numpy as np

from nnunet_da.postprocessing import largest_component

# Of the paper's 105 unlabelled scans 98 were trained on (Fig. 5: 203 in all, 105 generated); it does not say why.
LEAVE_OUT = 7 / 105


def keep_largest(label_map, values):
    """`label_map` (X, Y, Z) in which of the voxels with one of `values` the largest connected set is left alone."""
    mask = np.isin(label_map, values)
    islands = mask & ~largest_component(mask)
    return np.where(islands, label_map.dtype.type(0), label_map)


def mask_uncertain(label_map, uncertainty, threshold, ignore):
    """`label_map` (*space) with the value `ignore` where `uncertainty` (*space) lies above `threshold`."""
    return np.where(uncertainty > threshold, label_map.dtype.type(ignore), label_map)


def voxel_mm3(affine):
    """The volume of a voxel of a grid with this affine (4, 4), in mm³."""
    return abs(float(np.linalg.det(affine[:3, :3])))


def volumes(label_map, structures, affine):
    """Structure → volume in mm³ of its values in a label map (X, Y, Z) of small integers with this affine (4, 4)."""
    counts = np.bincount(label_map.ravel(), minlength=1 + max(max(values) for values in structures.values()))
    # Affines leave voxels of one size with volumes that differ in their last digits.
    return {
        name: round(float(counts[list(values)].sum() * voxel_mm3(affine)), 6) for name, values in structures.items()
    }


def volume_ranges(volumes_of_cases, margin):
    """Structure → (smallest, largest volume in mm³) of any case (structure → volume), widened by the share `margin`."""
    found = {}
    for of_case in volumes_of_cases:
        for name, volume in of_case.items():
            found.setdefault(name, []).append(volume)
    return {name: (min(all_) * max(0.0, 1 - margin), max(all_) * (1 + margin)) for name, all_ in found.items()}


def implausible(volumes_of_case, ranges):
    """Why a case's volumes (structure → mm³) are not within `ranges` (structure → (min, max)), or None."""
    for name, volume in volumes_of_case.items():
        low, high = ranges.get(name, (0.0, math.inf))
        if not low <= volume <= high:
            return f"volume of {name}: {volume:.4g} mm³, not within {low:.4g} to {high:.4g}"
    return None


def least_certain(uncertainties, share, already=()):
    """The cases to leave out so that, with those of `already`, they are round(`share` · n), halves rounded up.

    `uncertainties`: case → number, for all n cases. The most uncertain come first; of equal ones, by name.
    """
    n_wanted = math.floor(share * len(uncertainties) + 0.5) - len(already)
    others = sorted((case for case in uncertainties if case not in already), key=lambda c: (-uncertainties[c], c))
    return others[: max(0, n_wanted)]
