import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial.distance import cdist

from nnunet_da.evaluation import surfaces
from nnunet_da.evaluation.surfaces import surface, surface_distances


def brute_force(reference, prediction, spacing):
    """The two directed sets of distances, and the Hausdorff distance in voxels, from all pairs of surface voxels."""
    points = [np.argwhere(mask & ~binary_erosion(mask)) for mask in (reference, prediction)]
    pairs, voxels = cdist(*(p * spacing for p in points)), cdist(*points)
    return pairs.min(1), pairs.min(0), max(voxels.min(1).max(), voxels.min(0).max())


def require_equal(found, expected):
    np.testing.assert_allclose(found.from_reference, expected[0], rtol=1e-6)
    np.testing.assert_allclose(found.from_prediction, expected[1], rtol=1e-6)
    assert found.hausdorff_voxels == pytest.approx(expected[2], rel=1e-6)
    assert found.n_surface == len(expected[0]) + len(expected[1])


@given(st.integers(0, 2**32), st.integers(2, 3), st.sampled_from([0.003, 0.02, 0.1, 0.5, 0.9]), st.booleans())
@settings(max_examples=80, deadline=None)
def test_equals_brute_force(seed, n_axes, density, isotropic):
    generator = np.random.default_rng(seed)
    shape = generator.integers(1, 20, n_axes)
    spacing = np.ones(n_axes) if isotropic else generator.uniform(0.3, 5, n_axes).round(2)
    masks = generator.random((2, *shape)) < density
    for mask in masks:
        mask[tuple(generator.integers(0, shape))] = True
    require_equal(surface_distances(*masks, spacing), brute_force(*masks, spacing))


@pytest.mark.parametrize("engine", ["tree", "transform"])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (4, 0.7, 0.7), (0.5, 0.6, 3)])
def test_far_voxels_are_found_by_either_engine(monkeypatch, engine, spacing):
    # Two shells of very different size, and one voxel far from both.
    monkeypatch.setattr(surfaces, "VOXELS_PER_QUERY", 0 if engine == "tree" else 10**9)
    monkeypatch.setattr(surfaces, "VOXELS_PER_POINT", 0)
    radius = np.linalg.norm(np.indices((30, 34, 38)) - np.reshape([15, 17, 17], (3, 1, 1, 1)), axis=0)
    reference, prediction = radius <= 14, radius <= 4
    prediction[29, 33, 37] = True
    require_equal(surface_distances(reference, prediction, spacing), brute_force(reference, prediction, spacing))


def test_equals_the_distance_transform_on_a_large_grid():
    generator = np.random.default_rng(1)
    spacing = (3.3, 0.8, 0.9)
    masks = [np.zeros((24, 120, 110), bool) for _ in range(2)]
    for mask in masks:
        for centre in generator.uniform(5, 20, (4, 3)) * (1, 5, 5):
            offsets = (np.indices(mask.shape) - centre.reshape(3, 1, 1, 1)) * np.reshape(spacing, (3, 1, 1, 1))
            mask |= (offsets**2).sum(0) < generator.uniform(5, 15) ** 2
    found = surface_distances(*masks, spacing)
    first, second = (mask & ~binary_erosion(mask) for mask in masks)
    np.testing.assert_allclose(found.from_reference, distance_transform_edt(~second, spacing)[first], rtol=1e-6)
    np.testing.assert_allclose(found.from_prediction, distance_transform_edt(~first, spacing)[second], rtol=1e-6)
    voxels = max(distance_transform_edt(~second)[first].max(), distance_transform_edt(~first)[second].max())
    assert found.hausdorff_voxels == pytest.approx(voxels)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 1.0, 1.0), (4.4, 0.68, 0.68), (0.1, 5.0, 2.0)])
def test_no_displacement_is_skipped(spacing):
    shells = surfaces._shells(spacing)
    tried = {tuple(step) for shell in shells for step in shell.steps.tolist()}
    assert len(tried) == sum(len(shell.steps) for shell in shells)
    assert [shell.n_shorter for shell in shells] == np.cumsum([0, *(len(shell.steps) for shell in shells)])[
        :-1
    ].tolist()
    longest = shells[-1].mm
    reach = surfaces.REACH + 2
    for step in np.ndindex(*[2 * reach + 1] * len(spacing)):
        step = tuple(np.subtract(step, reach).tolist())
        if step not in tried:
            assert np.linalg.norm(np.multiply(step, spacing)) >= longest * (1 - 1e-9)


@pytest.mark.parametrize("shape", [(9, 10), (9, 10, 11)])
def test_surface_is_what_erosion_by_a_cross_takes_away(shape):
    mask = np.random.default_rng(2).random(shape) < 0.9
    np.testing.assert_array_equal(surface(mask), mask & ~binary_erosion(mask))


def test_the_rim_of_an_ignored_part_is_no_surface():
    # A bar that runs into the ignored half: its end there is unknown, and so is no surface.
    mask, valid = np.zeros((5, 10), bool), np.ones((5, 10), bool)
    mask[1:4, 2:] = True
    valid[:, 6:] = False
    found = surface(mask & valid, valid)
    assert not found[2, 5]
    assert found[1, 5]
    assert found[2, 2]


@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6)])
@pytest.mark.parametrize("which", [(False, False), (True, False), (False, True)])
def test_empty_surfaces(shape, which):
    masks = [np.full(shape, present) for present in which]
    found = surface_distances(*masks, (1,) * len(shape))
    assert found.from_reference.size == found.from_prediction.size == 0
    for value in (
        found.hausdorff,
        found.hausdorff_voxels,
        found.robust_hausdorff(95),
        found.assd,
        found.masd,
        found.aad,
    ):
        assert np.isnan(value)
    assert found.surface_dice(1) == pytest.approx(0 if any(which) else np.nan, nan_ok=True)
