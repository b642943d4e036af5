"""Spines whose discs are where a formula says: on an arc of a circle in the sagittal plane."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nnunet_da.phantom.spine import DISC_HEIGHTS, HALF_DEPTHS, HALF_WIDTHS


@pytest.fixture(scope="session")
def make_spine():
    """``make_spine(n, pitch, curvature, turn, spacing, room, above)``: label_map (X, Y, Z), affine, centroids.

    Elliptic discs of the phantom's typical sizes, `pitch` mm apart on an arc of `curvature` (1/mm, bent forwards),
    turned by the rotation vector `turn` (degrees); the scan ends `room` mm below the lowest and `above` mm
    above the highest.
    """

    def make(n=6, pitch=37.0, curvature=0.003, turn=(0, 0, 0), spacing=2.5, room=50.0, above=30.0):
        angle = curvature * pitch * (np.arange(n) - (n - 1) / 2)
        if curvature:
            centres = np.stack([0 * angle, (np.cos(angle) - 1) / curvature, np.sin(angle) / curvature], axis=1)
        else:
            centres = np.stack([0 * angle, 0 * angle, pitch * (np.arange(n) - (n - 1) / 2)], axis=1)
        normals = np.stack([0 * angle, -np.sin(angle), np.cos(angle)], axis=1)
        rotation = Rotation.from_rotvec(turn, degrees=True)
        centres, normals, right = rotation.apply(centres), rotation.apply(normals), rotation.apply([1, 0, 0])
        low = centres.min(axis=0) - np.array([40, 40, room])
        high = centres.max(axis=0) + np.array([40, 40, above])
        affine = np.diag([spacing] * 3 + [1.0])
        affine[:3, 3] = low
        shape = np.ceil((high - low) / spacing).astype(int)
        points = np.indices(shape).reshape(3, -1).T * spacing + low
        label_map = np.zeros(len(points), np.uint8)
        for index, (centre, normal) in enumerate(zip(centres, normals, strict=True)):
            offset = points - centre
            across, along = offset @ right, offset @ normal
            forward = offset @ np.cross(normal, right)
            inside = (across / HALF_WIDTHS[index]) ** 2 + (forward / HALF_DEPTHS[index]) ** 2 <= 1
            label_map[inside & (np.abs(along) <= DISC_HEIGHTS[index] / 2)] = index + 1
        return SimpleNamespace(label_map=label_map.reshape(shape), affine=affine, centroids=centres, normals=normals)

    return make


@pytest.fixture(scope="session")
def add_ball():
    """``add_ball(mask, affine, centre, radius)``: a mask (X, Y, Z) with a ball, in mm."""

    def add(mask, affine, centre, radius):
        points = np.indices(mask.shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
        return mask | (np.linalg.norm(points - centre, axis=1) <= radius).reshape(mask.shape)

    return add
