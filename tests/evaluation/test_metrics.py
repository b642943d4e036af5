import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from nnunet_da.evaluation.metrics import structure_metrics, surface

DISTANCES = ("hd_mm", "hd_voxels", "hd95_mm", "assd_mm")
OVERLAPS = ("dsc", "sensitivity", "specificity")
NAN = pytest.approx(np.nan, nan_ok=True)

spacings = st.floats(0.25, 4).map(lambda x: round(x, 3))


@st.composite
def mask_pairs(draw, min_side=2):
    """Two random masks of one 2D or 3D shape, and a spacing."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=min_side, max_side=7))
    masks = [draw(hnp.arrays(bool, shape)) for _ in range(2)]
    return *masks, tuple(draw(spacings) for _ in shape)


def brute_force(reference, prediction, spacing, valid):
    """The definitions, written down once more: loops over neighbours and all pairwise distances."""
    reference, prediction = reference & valid, prediction & valid

    def surface_points(mask):
        points = []
        for index in np.argwhere(mask):
            neighbours = [index + step * unit for unit in np.eye(mask.ndim, dtype=int) for step in (-1, 1)]
            beyond = [n for n in neighbours if (n < 0).any() or (n >= mask.shape).any()]
            within = [tuple(n) for n in neighbours if (n >= 0).all() and (n < mask.shape).all()]
            if beyond or any(valid[n] and not mask[n] for n in within):
                points.append(index)
        return np.array(points, float).reshape(-1, mask.ndim)

    expected = dict.fromkeys(DISTANCES, np.nan)
    points = surface_points(reference), surface_points(prediction)
    if len(points[0]) and len(points[1]):
        pairs = cdist(points[0] * spacing, points[1] * spacing)
        directed = pairs.min(1), pairs.min(0)
        voxel_pairs = cdist(*points)
        expected = {
            "hd_mm": max(d.max() for d in directed),
            "hd_voxels": max(voxel_pairs.min(1).max(), voxel_pairs.min(0).max()),
            "hd95_mm": max(np.quantile(d, 0.95) for d in directed),
            "assd_mm": np.concatenate(directed).mean(),
        }
    r, p = set(map(tuple, np.argwhere(reference))), set(map(tuple, np.argwhere(prediction)))
    negatives = int(valid.sum()) - len(r)
    expected["dsc"] = 2 * len(r & p) / (len(r) + len(p)) if r or p else np.nan
    expected["sensitivity"] = len(r & p) / len(r) if r else np.nan
    expected["specificity"] = 1 - len(p - r) / negatives if negatives else np.nan
    return expected


@given(mask_pairs(), st.data())
@settings(max_examples=150, deadline=None)
def test_equals_brute_force(pair, data):
    reference, prediction, spacing = pair
    valid = data.draw(st.one_of(st.none(), hnp.arrays(bool, reference.shape)))
    found = structure_metrics(reference, prediction, spacing, valid)
    everything = np.ones_like(reference) if valid is None else valid
    for name, value in brute_force(reference, prediction, spacing, everything).items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize("shape", [(60, 50), (24, 40, 32)])
def test_equals_brute_force_on_sparse_masks_with_wide_gaps(shape):
    generator = np.random.default_rng(3)
    reference, prediction = generator.random((2, *shape)) < 0.003
    spacing = (3.0, 0.7, 1.3)[: len(shape)]
    found = structure_metrics(reference, prediction, spacing)
    for name, value in brute_force(reference, prediction, spacing, np.ones(shape, bool)).items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


@given(mask_pairs())
@settings(max_examples=60, deadline=None)
def test_bounds_and_symmetry(pair):
    reference, prediction, spacing = pair
    forth = structure_metrics(reference, prediction, spacing)
    back = structure_metrics(prediction, reference, spacing)
    for name in ("dsc", *DISTANCES):
        assert forth[name] == pytest.approx(back[name], rel=1e-6, nan_ok=True)
    assert (forth["missed"], forth["n_reference_voxels"]) == (back["false"], back["n_predicted_voxels"])
    assert all(np.isnan(forth[name]) or 0 <= forth[name] <= 1 for name in OVERLAPS)
    assume(reference.any() and prediction.any())
    assert 0 <= forth["assd_mm"] <= forth["hd_mm"] * (1 + 1e-6)
    assert 0 <= forth["hd95_mm"] <= forth["hd_mm"]
    lowest, highest = np.multiply([min(spacing), max(spacing)], forth["hd_voxels"])
    assert lowest * (1 - 1e-6) <= forth["hd_mm"] <= highest * (1 + 1e-6)


@given(mask_pairs(), st.integers(0, 3), st.data())
@settings(max_examples=60, deadline=None)
def test_padding_flipping_and_turning_change_nothing(pair, width, data):
    reference, prediction, spacing = pair
    axis = data.draw(st.integers(0, reference.ndim - 1))
    order = data.draw(st.permutations(range(reference.ndim)))

    def moved(mask):
        return np.flip(np.pad(mask, width), axis).transpose(order)

    before = structure_metrics(reference, prediction, spacing)
    after = structure_metrics(moved(reference), moved(prediction), [spacing[i] for i in order])
    for name in before.keys() - {"specificity"}:
        assert after[name] == pytest.approx(before[name], rel=1e-5, nan_ok=True), name
    negatives = [np.count_nonzero(~mask) for mask in (reference, np.pad(reference, width))]
    if negatives[0]:
        false_positives = (1 - before["specificity"]) * negatives[0]
        assert after["specificity"] == pytest.approx(1 - false_positives / negatives[1])


@given(mask_pairs(), st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_scaling_the_spacing_scales_distances_in_mm_alone(pair, factor):
    reference, prediction, spacing = pair
    before = structure_metrics(reference, prediction, spacing)
    after = structure_metrics(reference, prediction, np.multiply(spacing, factor))
    for name, value in before.items():
        expected = value * factor if name.endswith("_mm") else value
        assert after[name] == pytest.approx(expected, rel=1e-5, nan_ok=True), name


def test_boxes_with_anisotropic_spacing():
    # A box of 4×6×8 voxels, shifted by 2 voxels of 3 mm.
    reference, prediction = np.zeros((2, 20, 20, 20), bool)
    reference[4:8, 5:11, 6:14] = True
    prediction[6:10, 5:11, 6:14] = True
    found = structure_metrics(reference, prediction, (3, 1, 0.5))
    assert found["dsc"] == 0.5
    assert found["sensitivity"] == 0.5
    assert found["specificity"] == 1 - 96 / (8000 - 192)
    assert found["hd_mm"] == pytest.approx(6)
    assert found["hd_voxels"] == pytest.approx(2)
    assert (found["n_reference_voxels"], found["n_predicted_voxels"]) == (192, 192)
    assert (found["missed"], found["false"]) == (False, False)


def test_two_lines_one_beside_the_other():
    # Each of the ten voxels is 2 mm from the other line: all distances are 2 mm.
    reference, prediction = np.zeros((2, 5, 10), bool)
    reference[1], prediction[2] = True, True
    found = structure_metrics(reference, prediction, (2.0, 0.5))
    assert [found[name] for name in DISTANCES] == pytest.approx([2, 1, 2, 2])


def test_hd95_is_the_larger_directed_percentile_and_assd_is_pooled():
    # Reference: 99 voxels on the prediction's line of 99; and the prediction has one voxel 50 mm away.
    reference, prediction = np.zeros((2, 60, 99), bool)
    reference[0], prediction[0] = True, True
    prediction[50, 10] = True
    found = structure_metrics(reference, prediction, (1, 1))
    assert found["hd_mm"] == 50
    assert found["hd95_mm"] == 0
    assert found["assd_mm"] == pytest.approx(50 / (99 + 100))
    # Ten voxels of 109 lie 50 mm away: over 5 % of the prediction's surface, under 5 % of both.
    prediction[50, 10:20] = True
    assert structure_metrics(reference, prediction, (1, 1))["hd95_mm"] == 50


def test_concentric_balls():
    # In mm both are balls, whatever the spacing; each surface is within a voxel of the true sphere.
    spacing = np.array([2.0, 1.0, 0.8])
    points = (np.indices((32, 64, 80)) - np.reshape([16, 32, 40], (3, 1, 1, 1))) * spacing.reshape(3, 1, 1, 1)
    radius = np.sqrt((points**2).sum(0))
    found = structure_metrics(radius <= 24, radius <= 18, spacing)
    assert found["dsc"] == pytest.approx(2 * 18**3 / (24**3 + 18**3), rel=0.01)
    assert found["sensitivity"] == pytest.approx((18 / 24) ** 3, rel=0.01)
    assert found["specificity"] == 1
    for name in ("hd_mm", "hd95_mm", "assd_mm"):
        assert found[name] == pytest.approx(6, abs=spacing.max()), name


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 7)])
class TestEmptyMasks:
    def metrics(self, shape, reference, prediction):
        masks = np.zeros((2, *shape), bool)
        masks[0][reference], masks[1][prediction] = True, True
        return structure_metrics(*masks, (1.5,) * len(shape))

    nothing, something = slice(0, 0), slice(2, 4)

    def test_empty_prediction_is_missed(self, shape):
        found = self.metrics(shape, self.something, self.nothing)
        assert (found["missed"], found["false"]) == (True, False)
        assert (found["dsc"], found["sensitivity"], found["specificity"]) == (0, 0, 1)
        assert all(np.isnan(found[name]) for name in DISTANCES)

    def test_empty_reference_is_false(self, shape):
        found = self.metrics(shape, self.nothing, self.something)
        assert (found["missed"], found["false"]) == (False, True)
        assert (found["dsc"], found["sensitivity"]) == (0, NAN)
        assert found["specificity"] == pytest.approx(1 - 2 / shape[0])
        assert all(np.isnan(found[name]) for name in DISTANCES)

    def test_both_empty_is_neither(self, shape):
        found = self.metrics(shape, self.nothing, self.nothing)
        assert (found["missed"], found["false"]) == (False, False)
        assert (found["dsc"], found["sensitivity"], found["specificity"]) == (NAN, NAN, 1)
        assert all(np.isnan(found[name]) for name in DISTANCES)

    def test_full_reference_leaves_no_negatives(self, shape):
        found = self.metrics(shape, slice(None), slice(None))
        assert (found["dsc"], found["sensitivity"], found["specificity"]) == (1, 1, NAN)
        assert all(found[name] == 0 for name in DISTANCES)


class TestIgnore:
    def test_what_lies_in_the_ignored_part_does_not_count(self):
        generator = np.random.default_rng(0)
        reference, prediction = generator.random((2, 12, 9, 9)) < 0.4
        valid = np.ones_like(reference)
        valid[8:] = False
        before = structure_metrics(reference, prediction, (1, 2, 3), valid)
        for mask in (reference, prediction):
            mask[8:] = generator.random((4, 9, 9)) < 0.5
        assert structure_metrics(reference, prediction, (1, 2, 3), valid) == before
        assert before["n_reference_voxels"] == np.count_nonzero(reference[:8])
        assert before["specificity"] == 1 - np.count_nonzero((prediction & ~reference)[:8]) / np.count_nonzero(
            ~reference[:8]
        )

    def test_the_rim_of_an_ignored_part_is_no_surface(self):
        # A bar that runs into the ignored half: its end there is unknown, and so is no surface.
        mask, valid = np.zeros((5, 10), bool), np.ones((5, 10), bool)
        mask[1:4, 2:] = True
        valid[:, 6:] = False
        found = surface(mask & valid, valid)
        assert not found[2, 5]
        assert found[1, 5]
        assert found[2, 2]

    def test_everything_ignored_is_undefined(self):
        mask = np.ones((4, 4), bool)
        found = structure_metrics(mask, mask, (1, 1), ~mask)
        assert all(np.isnan(found[name]) for name in (*OVERLAPS, *DISTANCES))
        assert (found["missed"], found["false"]) == (False, False)


def test_a_volume_of_one_slice_is_a_2d_image():
    reference, prediction = np.random.default_rng(1).random((2, 9, 8)) < 0.5
    flat = structure_metrics(reference, prediction, (2, 3))
    for axis in range(3):
        spacing = np.insert([2.0, 3.0], axis, 99)
        volume = structure_metrics(np.expand_dims(reference, axis), np.expand_dims(prediction, axis), spacing)
        assert volume == flat


def test_surface_is_what_erosion_by_a_cross_takes_away():
    mask = np.random.default_rng(2).random((9, 10, 11)) < 0.9
    np.testing.assert_array_equal(surface(mask), mask & ~binary_erosion(mask))


def test_arguments_are_left_as_they_are():
    reference, prediction, valid = np.random.default_rng(4).random((3, 6, 6, 6)) < 0.5
    copies = reference.copy(), prediction.copy(), valid.copy()
    structure_metrics(reference, prediction, (1, 2, 3), valid)
    for mask, copy in zip((reference, prediction, valid), copies, strict=True):
        np.testing.assert_array_equal(mask, copy)


@pytest.mark.parametrize(
    ("shapes", "spacing", "dtype", "message"),
    [
        (((4, 4), (4, 5)), (1, 1), bool, "one shape"),
        (((4,), (4,)), (1,), bool, "2 or 3 axes"),
        (((2, 2, 2, 2),) * 2, (1,) * 4, bool, "2 or 3 axes"),
        (((0, 4),) * 2, (1, 1), bool, "2 or 3 axes"),
        (((4, 4),) * 2, (1, 1), np.uint8, "boolean"),
        (((4, 4),) * 2, (1, 1, 1), bool, "2 positive"),
        (((4, 4),) * 2, (1, 0), bool, "2 positive"),
        (((4, 4),) * 2, (1, np.nan), bool, "2 positive"),
    ],
)
def test_refuses(shapes, spacing, dtype, message):
    with pytest.raises(ValueError, match=message):
        structure_metrics(*(np.zeros(shape, dtype) for shape in shapes), spacing)
