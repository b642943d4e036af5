import numpy as np
import pytest

from nnunet_da.discs.centreline import Centreline
from nnunet_da.discs.fused import split_fused
from nnunet_da.discs.pieces import VoxelCloud, connected_sets

PITCH = 36.0


def column(heights, radii):
    """A mask of square slabs, one upon the other from z = 20 mm, with these heights and half-sides in mm; its cloud."""
    mask = np.zeros((60, 60, 180), bool)
    z = 20
    for height, radius in zip(heights, radii, strict=True):
        mask[30 - radius : 30 + radius, 30 - radius : 30 + radius, z : z + height] = True
        z += height
    affine = np.eye(4)
    affine[:3, 3] = (-29.5, -29.5, 0)
    return VoxelCloud.of(mask, affine)


@pytest.fixture
def line():
    points = np.stack([np.zeros(5), np.zeros(5), PITCH * np.arange(5)], axis=1)
    return Centreline.fit(points, points)


@pytest.mark.parametrize("n", [2, 3])
def test_discs_are_parted_in_the_middle_of_the_bridges(line, n):
    cloud = column(*zip(*([(10, 16), (26, 5)] * n)[:-1], strict=True))
    numbers, n_found, parts = split_fused(cloud, *connected_sets(cloud), line, PITCH)
    assert (n_found, parts) == (n, list(range(1, n + 1)))
    heights = cloud.points[:, 2] + 0.5
    borders = 20 + 10 + 13 + PITCH * np.arange(n - 1)
    near = np.abs(heights[:, None] - borders).min(axis=1) <= 4
    np.testing.assert_array_equal(numbers[~near], 1 + np.searchsorted(borders, heights[~near]))


@pytest.mark.parametrize(
    ("heights", "radii"),
    [((14,), (16,)), ((46,), (16,)), ((12, 14, 12), (16, 14, 16))],
    ids=["one disc", "no waist", "too short"],
)
def test_other_sets_stay_whole(line, heights, radii):
    cloud = column(heights, radii)
    numbers, n = connected_sets(cloud)
    found, n_found, parts = split_fused(cloud, numbers, n, line, 50.0 if len(heights) == 3 else PITCH)
    assert (n_found, parts) == (1, [])
    np.testing.assert_array_equal(found, numbers)
