import numpy as np
import pytest

from nnunet_da.discs.pieces import VoxelCloud, connected_sets


def test_a_box_has_the_moments_of_a_box():
    mask = np.zeros((30, 20, 10), bool)
    mask[2:22, 5:13, 4:8] = True
    affine = np.diag([1.0, 2.0, 1.5, 1])
    affine[:3, 3] = (7, -3, 100)
    cloud = VoxelCloud.of(mask, affine)
    pieces = cloud.pieces(*connected_sets(cloud))
    np.testing.assert_allclose(pieces.centroids, [[7 + 11.5, -3 + 17, 100 + 8.25]])
    np.testing.assert_allclose(pieces.volumes, [20 * 16 * 6])
    np.testing.assert_allclose(pieces.spreads, [np.array([6, 16, 20]) / np.sqrt(12)])
    np.testing.assert_allclose(pieces.normals, [[0, 0, 1]], atol=1e-9)
    np.testing.assert_allclose(np.exp(pieces.log_sizes), [[1920, 16 / np.sqrt(12), 20 / np.sqrt(12)]])
    assert pieces.flatness[0] == pytest.approx(6 / 16)
    assert not pieces.cut[0]


def test_what_the_border_cuts_has_no_size_along_it():
    mask = np.zeros((30, 20, 10), bool)
    mask[0:20, 6:14, 4:8] = True
    pieces = (cloud := VoxelCloud.of(mask, np.eye(4))).pieces(*connected_sets(cloud))
    assert pieces.cut[0]
    np.testing.assert_array_equal(np.isnan(pieces.log_sizes), [[True, False, True]])


def test_sets_touch_at_corners():
    mask = np.zeros((6, 6, 9), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[4, 4, 4] = True
    cloud = VoxelCloud.of(mask, np.eye(4))
    numbers, n = connected_sets(cloud)
    assert n == 2
    assert numbers[0] == numbers[1] != numbers[2]


def test_of_speckle_the_largest_sets_alone_count():
    mask = np.zeros((40, 5, 5), bool)
    for start, length in ((0, 1), (4, 3), (10, 2), (15, 1), (20, 4)):
        mask[start : start + length, 2, 2] = True
    cloud = VoxelCloud.of(mask, np.eye(4))
    numbers, n = connected_sets(cloud, most=2)
    assert n == 2
    np.testing.assert_allclose(cloud.pieces(numbers, n).volumes, [3, 4])
    assert np.count_nonzero(numbers == 0) == 4


def test_voxels_numbered_zero_belong_to_no_set():
    cloud = VoxelCloud.of(np.ones((3, 3, 3), bool), np.eye(4))
    numbers = (cloud.indices[:, 0] == 1).astype(int)
    np.testing.assert_allclose(cloud.pieces(numbers, 1).centroids, [[1, 1, 1]])
    assert len(cloud.pieces(numbers * 0, 0)) == 0
