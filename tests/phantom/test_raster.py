import numpy as np
import pytest

from nnunet_da.phantom.raster import (
    Canvas,
    box,
    capsule,
    ellipsoid,
    intersection,
    move,
    noise,
    rotate,
    sample_points,
    splits_of,
    superellipse,
    union,
    warp,
    waves,
)
from nnunet_da.phantom.tissues import INDEX


def test_a_sphere_keeps_its_volume_whatever_the_sampling():
    radius = 9.3
    for splits in [(1, 1, 1), (2, 1, 3)]:
        canvas = Canvas((24, 24, 24), splits, softness=1.0)
        axes = [(np.arange(24 * split) + 0.5) / split - 12.1 for split in splits]
        distance = np.sqrt(sum(axis**2 for axis in np.ix_(*axes))) - radius
        canvas.paint("muscle", distance)
        assert canvas.fractions.sum() == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.005)
        assert canvas.fractions.max() <= 1


def test_what_is_in_front_hides_what_is_behind():
    canvas = Canvas((1, 1, 4), (1, 1, 1), softness=1.0)
    along = np.arange(4.0).reshape(1, 1, 4)
    canvas.paint("csf", along - 1)
    canvas.mix({"fat": np.full((1, 1, 4), 0.25), "muscle": np.full((1, 1, 4), 0.75)})
    np.testing.assert_allclose(canvas.fractions[INDEX["csf"]][0, 0], [1, 0.5, 0, 0])
    np.testing.assert_allclose(canvas.fractions[INDEX["fat"]][0, 0], [0, 0.125, 0.25, 0.25])
    np.testing.assert_allclose(canvas.fractions.sum(axis=0), 1)
    np.testing.assert_allclose(canvas.free, 0)


def test_box_distance():
    x, y = np.array([0.0, 5.0, 4.0, 6.0]), np.array([0.0, 0.0, 2.0, 5.0])
    # Half-lengths 3 and 1, sharp edges: inside, beside, and diagonally off a corner.
    np.testing.assert_allclose(box((x, 0, 3), (y, 0, 1), radius=0), [-1, 2, np.sqrt(2), 5])
    # Rounding leaves the faces and takes the corner off.
    assert box((3.0, 0, 3), (0.0, 0, 1), radius=0.5) == pytest.approx(0)
    assert box((3.0, 0, 3), (1.0, 0, 1), radius=0.5) == pytest.approx(0.5 * (np.sqrt(2) - 1))


def test_intersection_is_the_farther_surface_away_from_edges():
    assert intersection(-5.0, -2.0, radius=1) == pytest.approx(-2)
    assert intersection(-5.0, 2.0, radius=1) == pytest.approx(2)


def test_superellipse_passes_through_its_ends():
    np.testing.assert_allclose(superellipse(np.array([1, 0, -1, 2]), np.array([0, -1, 0, 0])), [1, 1, 1, 2])


def test_noise_is_a_function_of_place_and_seed():
    x = np.linspace(-30, 30, 2000)
    first = noise(1, x, 0 * x, 0 * x + 0.5)
    np.testing.assert_array_equal(first[::5], noise(1, x[::5], 0 * x[::5], 0 * x[::5] + 0.5))
    assert np.abs(first - noise(2, x, 0 * x, 0 * x + 0.5)).mean() > 0.3
    assert np.abs(np.diff(first)).max() < 0.3


def test_move_keeps_the_sum_and_clips_the_share():
    canvas = Canvas((3, 1, 1), (1, 1, 1), softness=1.0)
    canvas.fractions[INDEX["muscle"]] = 0.5
    move(canvas.fractions, "muscle", "fat", np.array([-1, 0.5, 7]).reshape(3, 1, 1))
    np.testing.assert_allclose(canvas.fractions[INDEX["fat"]].ravel(), [0, 0.25, 0.5])
    np.testing.assert_allclose(canvas.fractions.sum(axis=0), 0.5)


def test_ellipsoid_is_a_sphere_when_round_and_passes_through_its_ends():
    x, y, z = np.random.default_rng(0).uniform(-20, 20, (3, 50))
    sphere = ellipsoid((x, y, z), (1, 2, 3), (6, 6, 6))
    np.testing.assert_allclose(sphere, np.sqrt((x - 1) ** 2 + (y - 2) ** 2 + (z - 3) ** 2) - 6, atol=1e-5)
    ends = np.array([[6.0, 0, 0], [0, 3, 0], [0, 0, -9], [7, 0, 0]])
    np.testing.assert_allclose(ellipsoid(ends.T, (0, 0, 0), (6, 3, 9)), [0, 0, 0, 1], atol=1e-5)
    assert ellipsoid(np.zeros((3, 1)), (0, 0, 0), (6, 3, 9))[0] == pytest.approx(-3)


def test_capsule_is_round_at_its_ends_and_tapers():
    points = np.array([[0.0, 0, -5], [0, 0, 14], [4, 0, 5], [2, 0, 0], [1, 0, 10]]).T
    np.testing.assert_allclose(capsule(points, (0, 0, 0), (0, 0, 10), 2), [3, 2, 2, 0, -1])
    np.testing.assert_allclose(capsule(points, (0, 0, 0), (0, 0, 10), 2, 1), [3, 3, 2.5, 0, 0])


def test_union_is_the_nearer_surface_away_from_seams():
    assert union(5.0, 1.0, radius=2) == pytest.approx(1)
    assert union(1.0, 1.0, radius=2) == pytest.approx(0.5)
    assert union(7.0, 5.0, -3.0, radius=1) == pytest.approx(-3)


def test_rotate_keeps_distances_and_its_pivot():
    points = np.random.default_rng(1).uniform(-20, 20, (3, 40))
    pivot = (3.0, -4.0, 5.0)
    turned = np.array(rotate(points, (20, -30, 40), pivot))
    np.testing.assert_allclose(
        np.linalg.norm(turned - np.array(pivot)[:, None], axis=0),
        np.linalg.norm(points - np.array(pivot)[:, None], axis=0),
        rtol=1e-5,
    )
    # A frame that is turned by a right angle about z has its x axis along y.
    np.testing.assert_allclose(np.ravel(rotate(np.array([[0.0], [1.0], [0.0]]), (0, 0, 90))), [1, 0, 0], atol=1e-6)


def test_waves_are_smooth_of_unit_variance_and_a_function_of_place():
    points = np.random.default_rng(2).uniform(-4000, 4000, (3, 40000)).astype(np.float32)
    values = waves(3, points, 10.0)
    assert values.mean() == pytest.approx(0, abs=0.03)
    assert values.std() == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(values[:9], waves(3, points[:, :9], 10.0))
    moved = np.array(warp(3, points, 10.0, 0.5)) - points
    assert 0.4 < moved.std() < 0.6


def test_samples_lie_in_their_voxels():
    affine = np.diag([3.0, 1.0, 5.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    splits, width = splits_of(affine, 2.0)
    assert splits.tolist() == [2, 1, 3]
    assert width == pytest.approx((1.5 + 1 + 5 / 3) / 3)
    assert splits_of(affine, 2.0, most=2)[0].tolist() == [2, 1, 2]
    x, y, z = sample_points((2, 2, 2), affine, splits)
    np.testing.assert_allclose(x[:, 0, 0], [9.25, 10.75, 12.25, 13.75])
    np.testing.assert_allclose(y[0, :, 0], [20, 21])
    np.testing.assert_allclose(z[0, 0, :3].mean(), 30, atol=1e-5)


def test_labels_go_to_the_structure_that_fills_most():
    canvas = Canvas((1, 1, 4), (1, 1, 1), 1.0, ("fat", "marrow", "cartilage"))
    along = np.arange(4.0).reshape(1, 1, 4)
    canvas.paint("marrow", along - 1.2, structure="bone")  # 1, 0.7, 0, 0
    canvas.paint("cartilage", along - 2.1, structure="layer")  # 0, 0.3, 0.6, 0
    canvas.fill("fat")
    np.testing.assert_array_equal(canvas.labels(("layer", "bone", "none"))[0, 0], [2, 2, 1, 0])
    np.testing.assert_allclose(canvas.fractions[0, 0, 0], [0, 0, 0.4, 1], atol=1e-6)


def test_blends_share_what_is_free():
    canvas = Canvas((1, 1, 2), (1, 1, 1), 1.0, ("fat", "muscle"))
    canvas.blend({"fat": 0.25, "muscle": np.full((1, 1, 2), 0.5)}, np.array([[[-3.0, 3.0]]]))
    np.testing.assert_allclose(canvas.fractions[:, 0, 0], [[0.25, 0], [0.5, 0]])
    np.testing.assert_allclose(canvas.free[0, 0], [0.25, 1])
