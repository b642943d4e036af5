import numpy as np
import pytest

from nnunet_da.discs.corruption import CORRUPTIONS, Variant, compare, corrupt
from nnunet_da.discs.pieces import VoxelCloud, connected_sets


@pytest.fixture
def spine(make_spine):
    return make_spine(6, spacing=3.0, room=80, above=100)


def n_sets(mask, affine):
    return connected_sets(VoxelCloud.of(mask, affine))[1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_a_corruption_does(spine, name, seed):
    whole = Variant.unspoilt(spine.label_map, spine.affine)
    spoilt = corrupt(spine.label_map, spine.affine, [name], np.random.default_rng(seed))
    again = corrupt(spine.label_map, spine.affine, [name], np.random.default_rng(seed))
    np.testing.assert_array_equal(spoilt.mask, again.mask)
    assert spoilt.mask[spoilt.truth > 0].all()
    sets = n_sets(spoilt.mask, spoilt.affine)
    if name == "crop":
        assert spoilt.mask.size < whole.mask.size
        assert len(spoilt.required) >= 2
        shift = np.linalg.inv(whole.affine) @ spoilt.affine
        low = np.rint(shift[:3, 3]).astype(int)
        box = tuple(slice(a, a + n) for a, n in zip(low, spoilt.mask.shape, strict=True))
        np.testing.assert_array_equal(whole.truth[box], spoilt.truth)
    elif name == "missing":
        assert (len(spoilt.numbers), sets) == (5, 5)
    elif name == "fused":
        assert (spoilt.numbers, sets) == (whole.numbers, 5)
    elif name in ("beside", "above"):
        assert (spoilt.numbers, sets) == (whole.numbers, 7)
        np.testing.assert_array_equal(spoilt.truth, whole.truth)
    elif name == "rotated":
        before, after = (np.stack(list(variant.centroids.values())) for variant in (whole, spoilt))
        assert not np.allclose(before, after, atol=0.1)
        np.testing.assert_allclose(np.linalg.norm(np.diff(before, axis=0), axis=1), 37, atol=1.5)
        np.testing.assert_allclose(
            np.linalg.norm(np.diff(after, axis=0), axis=1), np.linalg.norm(np.diff(before, axis=0), axis=1)
        )
        linear = spoilt.affine[:3, :3] @ np.linalg.inv(whole.affine[:3, :3])
        assert np.trace(linear) >= 1 + 2 * np.cos(np.deg2rad(20)) - 1e-9
    else:
        for number, centroid in whole.centroids.items():
            np.testing.assert_allclose(spoilt.centroids[number], centroid)


def test_agreement_with_what_is_true(spine):
    variant = Variant.unspoilt(spine.label_map, spine.affine)
    centroids = variant.centroids
    perfect = compare(variant, spine.label_map, centroids)
    assert perfect.is_right
    assert max(perfect.errors.values()) == 0
    one_up = np.where(spine.label_map > 0, spine.label_map + 1, 0)
    shifted = compare(variant, one_up, {number + 1: centroid for number, centroid in centroids.items()})
    assert not any(shifted.discs.values())
    assert shifted.missed == (1, 2, 3, 4, 5, 6)
    without = np.where(spine.label_map == 3, 0, spine.label_map)
    lacking = compare(variant, without, {n: c for n, c in centroids.items() if n != 3})
    assert all(lacking.discs.values())
    assert lacking.missed == (3,)
    assert not lacking.is_right
    assert compare(variant, np.where(without > 2, 0, without), {1: centroids[1], 2: centroids[2]}, n_discs=2).is_right
    # A disc of which little is left need not be found.
    few = spine.label_map.copy()
    few[tuple(np.argwhere(few == 6)[50:].T)] = 0
    rest = Variant(few > 0, few, spine.affine, variant.complete)
    assert rest.required == [1, 2, 3, 4, 5]
