import numpy as np
import pytest

from nnunet_da.phantom.raster import Canvas, box, intersection, move, noise, superellipse
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
