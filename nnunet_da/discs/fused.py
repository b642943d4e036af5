"""Discs that were segmented as one set, parted at the waist between them."""

import numpy as np
from scipy import ndimage

# A set is looked at where it is longer along the line than this share of the distance of two discs; one disc takes
# half of it at most, two take one and a half.
LONGEST_DISC = 0.85
THICKNESS = 12.0  # mm, of one disc along the line
WAIST = 0.7  # a waist is narrower than this share of both sides
BIN = 1.0  # mm


def split_fused(cloud, numbers, n, line, pitch):
    """`numbers` (N,) of voxels with the sets from 1 to `n` that hold several discs parted; how many there are now; and
    the numbers of the parts.

    `line`: the `Centreline`; `pitch`: distance of two discs in mm. A set is parted by planes across the line, where its
    cross-section between two discs is smallest.
    """
    numbers, parts = numbers.copy(), []
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(1, n + 2))
    diagonal = np.linalg.norm(cloud.affine[:3, :3], axis=0).sum()
    for number in range(1, n + 1):
        voxels = order[starts[number - 1] : starts[number]]
        if len(voxels) * diagonal < LONGEST_DISC * pitch:  # too few to reach so far
            continue
        points = cloud.points[voxels]
        middle, _ = line.project(points.mean(axis=0, keepdims=True))
        # Most sets are one disc, which the tangent tells sooner than the line.
        if np.ptp(points @ line.tangents(middle)[0]) < LONGEST_DISC * pitch:
            continue
        arc, _ = line.project(points)
        waists = _waists(arc, pitch)
        if len(waists):
            part = np.searchsorted(waists, arc)
            numbers[voxels[part > 0]] = n + part[part > 0]
            parts += [number, *range(n + 1, n + len(waists) + 1)]
            n += len(waists)
    return numbers, n, parts


def _waists(arc, pitch):
    """Arc lengths at which a set with voxels at `arc` (N,) is parted; none where it is one disc, or no discs."""
    low, high = np.percentile(arc, [1, 99])
    n_discs = 1 + round((high - low - THICKNESS) / pitch) if high - low > LONGEST_DISC * pitch else 1
    if n_discs < 2:
        return np.array([])
    low, high = arc.min(), arc.max()
    edges = np.arange(low, high + BIN, BIN)
    profile = ndimage.gaussian_filter1d(np.histogram(arc, edges)[0].astype(float), 1.5, mode="nearest")
    middles = (edges[:-1] + edges[1:]) / 2
    step = (high - low) / n_discs
    waists = []
    for border in range(1, n_discs):
        near = np.abs(middles - low - border * step) < 0.3 * step
        sides = [
            profile[(middles > low + (border + side) * step) & (middles < low + (border + side + 1) * step)].max()
            for side in (-1, 0)
        ]
        narrowest = profile[near].min()
        if narrowest > WAIST * min(sides):
            return np.array([])
        # Where a bridge is even, in its middle.
        waists.append(middles[near & (profile <= narrowest + 0.1 * min(sides))].mean())
    return np.array(waists)
