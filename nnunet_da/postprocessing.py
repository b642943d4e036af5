"""Largest connected set and closing of label maps.

After Boutillon et al. (2021, `nnunet_da.multidomain`), who do it to every prediction after its 2D masks are stacked
("Implementation Details"):

"we selected the 3D largest connected set as output prediction and we finally applied 3D morphological closing
(5 × 5 × 5 spherical kernel) to smooth the resulting boundaries."
"""

import cc3d
import numpy as np
from scipy import ndimage

RADIUS = 2  # voxels: a ball in 5 × 5 × 5


def ball(radius=RADIUS):
    """The voxels within `radius` of the centre: bool, (2 · radius + 1,) · 3."""
    offsets = np.ogrid[tuple(slice(-radius, radius + 1) for _ in range(3))]
    return sum(offset**2 for offset in offsets) <= radius**2


def largest_component(mask):
    """The largest connected set of `mask` (X, Y, Z), bool; of equal ones the first. Neighbours share a corner at least.

    The paper does not say which voxels are neighbours; 26 do not part a structure that is thin along a diagonal.
    """
    return cc3d.largest_k(np.asarray(mask, bool), k=1, connectivity=26) > 0


def close(mask, radius=RADIUS):
    """`mask` (X, Y, Z) after morphological closing with a ball: it never loses a voxel, at the border neither."""
    return ndimage.binary_closing(np.pad(mask, 2 * radius), ball(radius))[(slice(2 * radius, -2 * radius),) * 3]


def postprocess(label_map, radius=RADIUS):
    """A label map (X, Y, Z) of integers with each structure's largest connected set alone, closed.

    Closing takes voxels of the background only, so that no structure grows into another. `radius` 0: no closing.
    """
    kept = np.zeros_like(label_map)
    boxes = ndimage.find_objects(label_map)
    for label, box in enumerate(boxes, start=1):
        if box is not None:
            kept[box][largest_component(label_map[box] == label)] = label
    if radius == 0:
        return kept
    closed = kept.copy()
    for label, box in enumerate(ndimage.find_objects(kept), start=1):
        if box is not None:
            around = tuple(
                slice(max(0, axis.start - radius), min(size, axis.stop + radius))
                for axis, size in zip(box, kept.shape, strict=True)
            )
            grown = close(kept[around] == label, radius) & (closed[around] == 0)
            closed[around][grown] = label
    return closed
