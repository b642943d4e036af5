import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.discs.ground_truth import number_discs, spine_region

RAS = np.diag([1.0, 1.0, 1.0, 1.0])


def discs(n, shape=(12, 16, 60)):
    """`n` boxes one above the other along z, with the value of their place from below."""
    truth = np.zeros(shape, np.uint8)
    for index in range(n):
        truth[3:9, 3:13, 4 + 7 * index : 7 + 7 * index] = index + 1
    return truth


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3), st.integers(1, 7))
def test_discs_are_numbered_from_below_however_the_axes_are_stored(order, flips, n):
    truth = np.transpose(discs(n), order)
    affine = RAS[:, [*order, 3]].copy()
    for axis in np.flatnonzero(flips):
        truth = np.flip(truth, axis)
        affine[:, 3] += affine[:, axis] * (truth.shape[axis] - 1)
        affine[:, axis] *= -1
    np.testing.assert_array_equal(number_discs(truth > 0, affine), truth)


def test_a_crumb_belongs_to_the_nearest_disc():
    truth = discs(3)
    truth[1, 8, 12] = 2  # beside the second disc, not touching it
    np.testing.assert_array_equal(number_discs(truth > 0, RAS), truth)


def test_discs_that_touch_at_corners_are_one():
    mask = np.zeros((6, 6, 6), bool)
    mask[:3, :3, :3] = mask[3:, 3:, 3:] = True
    assert number_discs(mask, RAS).max() == 1


def test_an_empty_mask_has_neither_discs_nor_region():
    empty = np.zeros((4, 4, 4), bool)
    with pytest.raises(ValueError, match="empty"):
        number_discs(empty, RAS)
    with pytest.raises(ValueError, match="empty"):
        spine_region(empty, (1, 1, 1))


def test_the_region_of_one_voxel_is_the_hull_of_a_ball():
    mask = np.zeros((31, 21, 21), bool)
    mask[15, 10, 10] = True
    region = spine_region(mask, (1.0, 2.0, 2.0), margin=10)
    x, y, z = np.ogrid[-15:16, -10:11, -10:11]
    ball = x**2 + (2 * y) ** 2 + (2 * z) ** 2 <= 100
    assert region[ball].all()
    # Its hull reaches no further, up to the corners of the lattice.
    assert not region[x**2 + (2 * y) ** 2 + (2 * z) ** 2 > 100].any()


def test_the_region_fills_what_lies_between_discs_and_is_convex():
    mask = np.zeros((20, 20, 60), bool)
    mask[5:15, 5:15, 5:8] = mask[5:15, 5:15, 50:53] = True
    region = spine_region(mask, (1, 1, 1), margin=2)
    assert region[10, 10].sum() == 3 + 42 + 3 + 2 * 2
    assert region[mask].all()
    points = np.argwhere(region)
    rng = np.random.default_rng(0)
    pairs = points[rng.integers(len(points), size=(200, 2))]
    middles = pairs.sum(axis=1)
    exact = middles[(middles % 2 == 0).all(axis=1)] // 2
    assert len(exact) > 10
    assert region[tuple(exact.T)].all()


def test_a_single_slice_has_a_flat_region():
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 5:8, 5:8] = mask[0, 14:16, 5:8] = True
    region = spine_region(mask, (1, 1, 1), margin=1)
    assert region.shape == mask.shape
    assert region[0, 11, 6]
    row = np.zeros((1, 1, 20), bool)
    row[0, 0, 5] = True
    with pytest.raises(ValueError, match="one row"):
        spine_region(row, (1, 1, 1))
