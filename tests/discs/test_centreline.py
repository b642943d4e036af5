import numpy as np
import pytest

from nnunet_da.discs.centreline import BEYOND, Centreline
from nnunet_da.discs.pieces import VoxelCloud

LINE = np.stack([np.zeros(6), np.zeros(6), 36.0 * np.arange(6)], axis=1)
SHIFT = np.array([5, -8, 0])


def test_a_straight_spine_has_a_straight_line():
    tilted = LINE @ np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    line = Centreline.fit(tilted, tilted)
    arc, distance = line.project(tilted)
    np.testing.assert_allclose(distance, 0, atol=0.26)
    np.testing.assert_allclose(np.diff(arc), 36, atol=0.5)
    np.testing.assert_allclose(line.tangents(arc), np.tile(tilted[1] / 36, (6, 1)), atol=1e-6)
    assert line.arc[-1] == pytest.approx(180 + 2 * BEYOND, abs=1)


def test_an_arc_of_a_circle_has_its_length():
    angle = np.linspace(-0.5, 0.5, 8)
    points = 200 * np.stack([0 * angle, np.cos(angle), np.sin(angle)], axis=1)
    line = Centreline.fit(points, points)
    arc, distance = line.project(points)
    assert arc[-1] - arc[0] == pytest.approx(200, abs=1)
    assert distance.max() < 1


@pytest.mark.parametrize("n", [1, 2, 5])
def test_discs_move_the_line_of_the_reference(n):
    moved = LINE[:n] + SHIFT
    line = Centreline.fit(LINE, moved)
    _, distance = line.project(np.vstack([moved, LINE + SHIFT]))
    np.testing.assert_allclose(distance, 0, atol=0.26)


def test_sets_are_met_where_the_line_passes_through_voxels():
    mask = np.zeros((20, 20, 80), bool)
    mask[8:12, 8:12, 10:14] = mask[0:3, 0:3, 40:44] = True
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-20, -20, -10)
    cloud = VoxelCloud.of(mask, affine)
    numbers = np.where(cloud.indices[:, 2] < 30, 1, 2)
    line = Centreline.fit(LINE, [])
    np.testing.assert_array_equal(line.met(cloud, numbers), [1])
    np.testing.assert_array_equal(line.met(cloud, np.zeros_like(numbers)), [])


def test_room_below_and_above_ends_with_the_scan():
    mask = np.zeros((20, 20, 40), bool)
    mask[10, 10, 20] = True
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-20, -20, -10)  # z from -11 to 69
    line = Centreline.fit(LINE, [])
    arc, _ = line.project(np.array([[0, 0, 30.0]]))
    assert line.room_below(arc[0], VoxelCloud.of(mask, affine)) == pytest.approx(41, abs=1)
    assert line.room_above(arc[0], VoxelCloud.of(mask, affine)) == pytest.approx(39, abs=1)
