"""Disc label maps of the phantom's spines: only the discs, which is far quicker than the whole anatomy."""

import numpy as np

from nnunet_da.phantom.raster import sample_points, superellipse
from nnunet_da.phantom.spine import (
    DISC_HEIGHTS,
    DISCS,
    HALF_DEPTHS,
    HALF_WIDTHS,
    TISSUES,
    VERTEBRA_HEIGHTS,
    Spine,
)

# Tilt of the line through the bodies at `Spine.ANGLE_POSITIONS`, in degrees: the means of `Spine.sample`.
MEAN_ANGLES = (-15, 14, 41, 35, 17, 3, -16, -8, 10)


def mean_spine():
    """The phantom's spine without what makes subjects differ: typical sizes, mean posture, healthy discs."""
    n = len(DISCS)
    return Spine(
        disc_heights=np.r_[3, DISC_HEIGHTS],
        vertebra_heights=np.r_[28, VERTEBRA_HEIGHTS],
        half_depths=np.r_[0.62 * HALF_DEPTHS[0], HALF_DEPTHS],
        half_widths=np.r_[20, HALF_WIDTHS],
        bulges=np.zeros(n + 1),
        grades=np.zeros(n + 1),
        angles=np.deg2rad(MEAN_ANGLES),
        bend=0.0,
        fat_thickness=10.0,
        marrow_fat=0.0,
        muscle_fat=0.0,
        seed=0,
        deviations=np.zeros((len(TISSUES), 3)),
    )


def draw_discs(spine, shape, affine):
    """The discs of a phantom's `Spine`, numbered from L5/S1 = 1 upwards: uint8 (X, Y, Z).

    `affine` (4, 4): voxel indices to RAS mm, with the origin in the middle of L3. A voxel belongs to the disc in which
    its centre lies.
    """
    u, v, s = np.broadcast_arrays(*spine.straighten(*sample_points(shape, np.asarray(affine, float), (1, 1, 1))))
    number = np.searchsorted(spine.vertebra_positions[:-1], s.ravel()).reshape(s.shape)
    height, depth, width = (
        np.asarray(values, np.float32)[number] for values in (spine.disc_heights, spine.half_depths, spine.half_widths)
    )
    radius = superellipse(u / width, v / depth)
    # Endplates are hollow: the disc is highest in its middle.
    half_height = height / 2 * (0.68 + 0.32 * np.clip(1 - radius**2, 0, 1))
    inside = (np.abs(s - spine.disc_positions[number]) <= half_height) & (
        radius <= 1 + np.asarray(spine.bulges, np.float32)[number]
    )
    # Number 0 is the remnant of the S1/S2 disc, which counts as sacrum.
    return np.where(inside, number, 0).astype(np.uint8)
