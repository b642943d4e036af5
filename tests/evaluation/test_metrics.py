import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from nnunet_da.evaluation.metrics import COUNTS, METRICS, label_map_metrics, mask_pairs, structure_metrics

DISTANCES = tuple(metric.key for metric in METRICS if metric.is_distance)
SYMMETRIC = ("dsc", "hd_mm", "hd_voxels", "hd95_mm", "assd_mm", "masd_mm", "centroid_mm", "nsd")
PROPORTIONS = ("dsc", "sensitivity", "specificity", "nsd")

spacings = st.floats(0.25, 4).map(lambda x: round(x, 3))


@st.composite
def random_masks(draw, min_side=2):
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
    n_surface = len(points[0]) + len(points[1])
    expected["nsd"] = 0 if n_surface else np.nan
    if len(points[0]) and len(points[1]):
        pairs = cdist(points[0] * spacing, points[1] * spacing)
        directed = pairs.min(1), pairs.min(0)
        voxel_pairs = cdist(*points)
        expected = {
            "hd_mm": max(d.max() for d in directed),
            "hd_voxels": max(voxel_pairs.min(1).max(), voxel_pairs.min(0).max()),
            "hd95_mm": max(np.quantile(d, 0.95) for d in directed),
            "assd_mm": np.concatenate(directed).mean(),
            "masd_mm": np.mean([d.mean() for d in directed]),
            "aad_mm": directed[1].mean(),
            "nsd": np.mean(np.concatenate(directed) <= 1),
        }
    centres = [(np.argwhere(mask) * spacing).mean(0) for mask in (reference, prediction) if mask.any()]
    expected["centroid_mm"] = np.linalg.norm(centres[0] - centres[1]) if len(centres) == 2 else np.nan
    r, p = set(map(tuple, np.argwhere(reference))), set(map(tuple, np.argwhere(prediction)))
    negatives = int(valid.sum()) - len(r)
    expected["dsc"] = 2 * len(r & p) / (len(r) + len(p)) if r or p else np.nan
    expected["sensitivity"] = len(r & p) / len(r) if r else np.nan
    expected["specificity"] = 1 - len(p - r) / negatives if negatives else np.nan
    expected["ravd"] = abs(len(r) - len(p)) / len(r) if r else np.nan
    return expected


@given(random_masks(), st.data())
@settings(max_examples=150, deadline=None)
def test_equals_brute_force(pair, data):
    reference, prediction, spacing = pair
    valid = data.draw(st.one_of(st.none(), hnp.arrays(bool, reference.shape)))
    found = structure_metrics(reference, prediction, spacing, valid)
    everything = np.ones_like(reference) if valid is None else valid
    assert list(found) == [*(metric.key for metric in METRICS), *COUNTS]
    expected = brute_force(reference, prediction, spacing, everything)
    assert expected.keys() == {metric.key for metric in METRICS}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize("shape", [(60, 50), (24, 40, 32)])
def test_equals_brute_force_on_sparse_masks_with_wide_gaps(shape):
    generator = np.random.default_rng(3)
    reference, prediction = generator.random((2, *shape)) < 0.003
    spacing = (3.0, 0.7, 1.3)[: len(shape)]
    found = structure_metrics(reference, prediction, spacing)
    for name, value in brute_force(reference, prediction, spacing, np.ones(shape, bool)).items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


@given(random_masks())
@settings(max_examples=60, deadline=None)
def test_bounds_and_symmetry(pair):
    reference, prediction, spacing = pair
    forth = structure_metrics(reference, prediction, spacing)
    back = structure_metrics(prediction, reference, spacing)
    for name in SYMMETRIC:
        assert forth[name] == pytest.approx(back[name], rel=1e-6, nan_ok=True)
    assert (forth["missed"], forth["n_reference_voxels"]) == (back["false"], back["n_predicted_voxels"])
    assert all(np.isnan(forth[name]) or 0 <= forth[name] <= 1 for name in PROPORTIONS)
    assume(reference.any() and prediction.any())
    assert forth["masd_mm"] == pytest.approx((forth["aad_mm"] + back["aad_mm"]) / 2)
    assert 0 <= forth["assd_mm"] <= forth["hd_mm"] * (1 + 1e-6)
    assert 0 <= forth["hd95_mm"] <= forth["hd_mm"]
    lowest, highest = np.multiply([min(spacing), max(spacing)], forth["hd_voxels"])
    assert lowest * (1 - 1e-6) <= forth["hd_mm"] <= highest * (1 + 1e-6)


@given(random_masks(), st.integers(0, 3), st.data())
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


@given(random_masks(), st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_scaling_the_spacing_scales_distances_in_mm_alone(pair, factor):
    reference, prediction, spacing = pair
    before = structure_metrics(reference, prediction, spacing, tolerance_mm=1.7)
    after = structure_metrics(reference, prediction, np.multiply(spacing, factor), tolerance_mm=1.7 * factor)
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
    assert found["centroid_mm"] == pytest.approx(6)
    assert found["ravd"] == 0
    assert (found["n_reference_voxels"], found["n_predicted_voxels"]) == (192, 192)
    assert (found["missed"], found["false"]) == (False, False)


def test_two_lines_one_beside_the_other():
    # Each of the ten voxels is 2 mm from the other line: all distances are 2 mm.
    reference, prediction = np.zeros((2, 5, 10), bool)
    reference[1], prediction[2] = True, True
    found = structure_metrics(reference, prediction, (2.0, 0.5))
    assert {name: found[name] for name in DISTANCES} == pytest.approx({**dict.fromkeys(DISTANCES, 2), "hd_voxels": 1})
    for tolerance_mm, nsd in ((1.99, 0), (2, 1), (2.01, 1)):
        assert structure_metrics(reference, prediction, (2.0, 0.5), tolerance_mm=tolerance_mm)["nsd"] == nsd


def test_hd95_is_the_larger_directed_percentile_and_means_are_pooled_or_not():
    # Reference: 99 voxels on the prediction's line of 99; and the prediction has one voxel 50 mm away.
    reference, prediction = np.zeros((2, 60, 99), bool)
    reference[0], prediction[0] = True, True
    prediction[50, 10] = True
    found = structure_metrics(reference, prediction, (1, 1))
    assert found["hd_mm"] == 50
    assert found["hd95_mm"] == 0
    assert found["assd_mm"] == pytest.approx(50 / (99 + 100))
    assert found["masd_mm"] == pytest.approx((0 + 50 / 100) / 2)
    assert found["aad_mm"] == pytest.approx(50 / 100)
    assert found["nsd"] == pytest.approx(198 / 199)
    assert found["ravd"] == pytest.approx(1 / 99)
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
    assert found["ravd"] == pytest.approx(1 - (18 / 24) ** 3, rel=0.02)
    assert found["centroid_mm"] == pytest.approx(0, abs=1e-9)
    for name in ("hd_mm", "hd95_mm", "assd_mm", "masd_mm", "aad_mm"):
        assert found[name] == pytest.approx(6, abs=spacing.max()), name
    assert found["nsd"] == 0
    assert structure_metrics(radius <= 24, radius <= 18, spacing, tolerance_mm=8)["nsd"] == 1


EMPTY_MASKS = {
    # reference, prediction: what is not NaN, and of the rest what is not NaN with a penalty.
    ("some", "none"): (
        {"dsc": 0, "sensitivity": 0, "specificity": 1, "ravd": 1, "nsd": 0},
        {"distances": "diagonal"},
    ),
    ("none", "some"): (
        {"dsc": 0, "specificity": "rest", "nsd": 0},
        {"distances": "diagonal", "sensitivity": 0, "ravd": 1},
    ),
    ("none", "none"): ({"specificity": 1}, {}),
    ("all", "all"): ({"dsc": 1, "sensitivity": 1, "ravd": 0, "nsd": 1, "distances": 0}, {}),
    ("all", "none"): ({"dsc": 0, "sensitivity": 0, "ravd": 1, "nsd": 0}, {"distances": "diagonal"}),
    ("none", "all"): ({"dsc": 0, "specificity": 0, "nsd": 0}, {"distances": "diagonal", "sensitivity": 0, "ravd": 1}),
}


@pytest.mark.parametrize("empty", ["nan", "penalty"])
@pytest.mark.parametrize("shape", [(6, 7), (6, 5, 7), (6, 1, 7)])
@pytest.mark.parametrize("content", EMPTY_MASKS, ids="-".join)
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_empty_masks(metric, content, shape, empty):
    spacing = (1.5, 3, 2)[: len(shape)]
    masks = np.zeros((2, *shape), bool)
    for mask, what in zip(masks, content, strict=True):
        mask[{"none": slice(0, 0), "some": slice(2, 4), "all": slice(None)}[what]] = True
    if 1 in shape:
        shape, spacing = (6, 7), (1.5, 2)
    found = structure_metrics(*masks, (1.5, 3, 2)[: masks.ndim - 1], empty=empty)
    defined, penalties = EMPTY_MASKS[content]
    if empty == "penalty":
        defined = defined | penalties
    value = defined.get("distances" if metric.is_distance else metric.key, np.nan)
    if value == "diagonal":
        lengths = shape if metric.key == "hd_voxels" else np.multiply(shape, spacing)
        value = np.sqrt(np.sum(np.square(lengths)))
    elif value == "rest":
        value = 1 - 2 / 6
    assert found[metric.key] == pytest.approx(value, nan_ok=True)
    n_reference, n_predicted = (np.count_nonzero(mask) for mask in masks)
    assert [found[key] for key in COUNTS] == [
        content[0] != "none" and content[1] == "none",
        content[0] == "none" and content[1] != "none",
        n_reference,
        n_predicted,
    ]


def test_what_is_present_is_never_penalised():
    reference, prediction = np.random.default_rng(8).random((2, 6, 7)) < 0.5
    plain = structure_metrics(reference, prediction, (1, 2))
    assert structure_metrics(reference, prediction, (1, 2), empty="penalty") == plain


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
        shifted = np.roll(mask, 1, axis=1)
        shifted[:, :2] = False
        # Nine and seven voxels of surface: the bars have ends on the left alone. Three of one and one of the other
        # are 1 away from the other surface.
        found = structure_metrics(mask, shifted, (1, 1), valid)
        assert found["hd_mm"] == 1
        assert found["assd_mm"] == pytest.approx(4 / (9 + 7))

    @pytest.mark.parametrize("shape", [(9, 8), (9, 8, 7)])
    def test_masks_that_end_where_the_ignored_part_begins(self, shape):
        # Nothing is marked beyond, so that the masks' own box ends there too.
        generator = np.random.default_rng(9)
        reference, prediction = generator.random((2, *shape)) < 0.8
        valid = np.ones(shape, bool)
        reference[:2] = prediction[:2] = reference[6:] = prediction[6:] = valid[6:] = valid[:, :1] = False
        reference &= valid
        prediction &= valid
        spacing = (2, 1, 3)[: len(shape)]
        found = structure_metrics(reference, prediction, spacing, valid)
        expected = brute_force(reference, prediction, spacing, valid)
        assert {name: found[name] for name in expected} == pytest.approx(expected)

    def test_everything_ignored_is_undefined(self):
        mask = np.ones((4, 4), bool)
        found = structure_metrics(mask, mask, (1, 1), ~mask)
        assert all(np.isnan(found[metric.key]) for metric in METRICS)
        assert (found["missed"], found["false"]) == (False, False)


def test_a_volume_of_one_slice_is_a_2d_image():
    reference, prediction = np.random.default_rng(1).random((2, 9, 8)) < 0.5
    flat = structure_metrics(reference, prediction, (2, 3))
    for axis in range(3):
        spacing = np.insert([2.0, 3.0], axis, 99)
        volume = structure_metrics(np.expand_dims(reference, axis), np.expand_dims(prediction, axis), spacing)
        assert volume == flat


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"empty": "zero"}, "empty must be one of nan, penalty"),
        ({"tolerance_mm": -1}, "tolerance_mm must be"),
        ({"tolerance_mm": np.nan}, "tolerance_mm must be"),
        ({"valid": np.ones((4, 4), int)}, "valid must be boolean"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        structure_metrics(*np.zeros((2, 4, 4), bool), (1, 1), **options)


def test_refuses_signed_label_maps():
    with pytest.raises(ValueError, match="unsigned"):
        label_map_metrics(*np.zeros((2, 4, 4), int), (1, 1), {"a": (1,)})


class TestLabelMaps:
    """Structures of label maps, found together, against each structure alone."""

    @pytest.mark.parametrize(("dtype", "factor"), [(np.uint8, 1), (np.uint8, 19), (np.uint16, 1), (np.uint16, 301)])
    @pytest.mark.parametrize("shape", [(21, 18), (12, 13, 14), (1, 13, 14)])
    def test_equal_structures_alone(self, dtype, factor, shape):
        # Twelve labels: more than one pass. Structure 13 is not there; a region overlaps with its parts.
        generator = np.random.default_rng(5)
        labels = generator.integers(0, 13, shape) * (generator.random(shape) < 0.2)
        noisy = np.where(generator.random(shape) < 0.3, 0, labels)
        structures = {f"s{value}": (value * factor,) for value in range(1, 14)} | {"some": (2 * factor, 5 * factor)}
        spacing, valid = (2, 1.5, 1)[: len(shape)], generator.random(shape) < 0.9
        maps = [(array * factor).astype(dtype) for array in (labels, noisy)]
        found = label_map_metrics(*maps, spacing, structures, valid)
        assert list(found) == list(structures)
        for name, values in structures.items():
            alone = structure_metrics(*(np.isin(array, values) for array in maps), spacing, valid)
            assert found[name] == pytest.approx(alone, nan_ok=True), name

    def test_maps_without_any_structure(self):
        found = label_map_metrics(*np.zeros((2, 4, 5, 6), np.uint8), (1, 1, 1), {"a": (1,), "b": (2, 3)})
        assert [found[name]["dsc"] for name in "ab"] == pytest.approx([np.nan] * 2, nan_ok=True)
        assert [found[name]["specificity"] for name in "ab"] == [1, 1]

    def test_crops_hold_the_structure_and_say_where_it_is(self):
        labels = np.zeros((9, 8, 7), np.uint8)
        labels[2:4, 3:6, 1:5], labels[7, 0, 6] = 1, 2
        pairs = dict(mask_pairs(labels, np.roll(labels, 1, axis=0), (1, 1, 1), {"a": (1,), "b": (2,)}))
        assert (pairs["a"].start, pairs["a"].reference.shape) == ((2, 3, 1), (3, 3, 4))
        assert (pairs["b"].start, pairs["b"].reference.shape) == ((7, 0, 6), (2, 1, 1))


class TestSlices:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("ignored", [False, True])
    def test_equal_slices_alone(self, axis, ignored):
        generator = np.random.default_rng(6)
        reference, prediction = generator.random((2, 7, 8, 9)) < 0.4
        valid = generator.random(reference.shape) < 0.7 if ignored else None
        reference[:, :, 4] = reference[:, 2] = reference[0] = False
        prediction[:, :, 4] = prediction[:, 2] = prediction[0] = False
        maps = [mask.astype(np.uint8) for mask in (reference, prediction)]
        ((_, pair),) = mask_pairs(*maps, (1, 2, 3), {"a": (1,)}, valid)
        found = pair.slice_metrics(axis)
        seen = []
        for index in range(reference.shape[axis]):
            each = [None if mask is None else mask.take(index, axis) for mask in (reference, prediction, valid)]
            alone = structure_metrics(*each[:2], (1, 1), each[2])
            if alone["n_reference_voxels"] or alone["n_predicted_voxels"]:
                row = {key: values[len(seen)] for key, values in found.items()}
                seen.append(index)
                assert row.pop("slice") == index
                assert row == pytest.approx({key: alone[key] for key in row}, nan_ok=True)
        assert found["slice"].tolist() == seen
        assert 0 not in found["slice"] or axis != 0

    def test_slices_that_one_mask_lacks(self):
        reference, prediction = np.zeros((2, 4, 2, 2), np.uint8)
        reference[:2], prediction[1:3] = 1, 1
        ((_, pair),) = mask_pairs(reference, prediction, (1, 1, 1), {"a": (1,)})
        found = {key: values.tolist() for key, values in pair.slice_metrics(0).items()}
        assert found["slice"] == [0, 1, 2]
        assert found["dsc"] == [0, 1, 0]
        assert found["sensitivity"] == pytest.approx([0, 1, np.nan], nan_ok=True)
        assert found["specificity"] == pytest.approx([np.nan, np.nan, 0], nan_ok=True)

    @pytest.mark.parametrize("shape", [(6, 7), (1, 6, 7), (6, 7, 1)])
    def test_a_2d_image_is_one_slice(self, shape):
        reference, prediction = (np.random.default_rng(7).random((2, *shape)) < 0.5).astype(np.uint8)
        ((_, pair),) = mask_pairs(reference, prediction, (1,) * len(shape), {"a": (1,)})
        found = pair.slice_metrics(0)
        metrics = pair.metrics()
        assert {key: values.tolist() for key, values in found.items()} == {
            "slice": [0],
            **{key: [metrics[key]] for key in ("dsc", "sensitivity", "specificity")},
        }

    @pytest.mark.parametrize("shape", [(6, 7), (5, 6, 7)])
    def test_empty_masks_have_no_slices(self, shape):
        ((_, pair),) = mask_pairs(*np.zeros((2, *shape), np.uint8), (1,) * len(shape), {"a": (1,)})
        assert all(not values.size for values in pair.slice_metrics(0).values())
