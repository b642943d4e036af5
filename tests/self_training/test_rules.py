import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nnunet_da.self_training import rules

SHAPE = (4, 4, 3)
LABEL_MAPS = arrays(np.uint8, SHAPE, elements=st.integers(0, 2))
UNCERTAINTIES = arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
STRUCTURES = {"disc": (1,), "both": (1, 2)}


@given(LABEL_MAPS, UNCERTAINTIES, st.floats(0, 1), st.floats(0, 1))
def test_masking_holds_predicted_classes_and_ignore_and_more_of_it_the_lower_the_threshold(label_map, unsure, one, two):
    low, high = sorted((one, two))
    masked = {threshold: rules.mask_uncertain(label_map, unsure, threshold, 3) for threshold in (low, high)}
    for result in masked.values():
        assert result.dtype == np.uint8
        assert np.all((result == label_map) | (result == 3))
    assert np.all((masked[high] != 3) | (masked[low] == 3))
    assert np.array_equal(rules.mask_uncertain(label_map, unsure, 1, 3), label_map)


@given(LABEL_MAPS)
def test_largest_component_of_a_structure_leaves_the_others_alone(label_map):
    kept = rules.keep_largest(label_map, (1,))
    assert np.array_equal(kept == 2, label_map == 2)
    pieces, n_pieces = ndimage.label(label_map == 1, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=1)[1:]
    assert np.count_nonzero(kept == 1) == (sizes.max() if n_pieces else 0)
    assert ndimage.label(kept == 1, np.ones((3, 3, 3)))[1] == min(n_pieces, 1)
    assert np.all((kept == label_map) | (kept == 0))


def test_volumes_and_their_ranges():
    label_map = np.array([[[0, 1, 1, 2]]], np.uint8)
    volumes = rules.volumes(
        label_map, STRUCTURES, np.array([[0, -2.5, 0, 7], [1, 0, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]])
    )
    assert volumes == {"disc": 5.0, "both": 7.5}
    assert rules.volumes(np.zeros(SHAPE, np.uint8), STRUCTURES, np.eye(4)) == {"disc": 0.0, "both": 0.0}
    ranges = rules.volume_ranges([volumes, {"disc": 10.0}], 0.5)
    assert ranges == {"disc": (2.5, 15.0), "both": (3.75, 11.25)}
    assert rules.volume_ranges([{"disc": 10.0}], 2)["disc"] == (0.0, 30.0)
    assert rules.implausible({"disc": 15.0, "both": 3.75}, ranges) is None
    assert rules.implausible({"disc": 15.1}, ranges) == "volume of disc: 15.1 mm³, not within 2.5 to 15"
    assert rules.implausible({"spine": 1e9}, ranges) is None


@given(st.dictionaries(st.text("abc", min_size=1), st.floats(0, 1), min_size=1, max_size=12), st.floats(0, 0.99))
def test_the_least_certain_are_left_out(uncertainties, share):
    left = rules.least_certain(uncertainties, share)
    assert len(left) == int(share * len(uncertainties) + 0.5)
    kept = [value for case, value in uncertainties.items() if case not in left]
    assert all(uncertainties[case] >= value for case in left for value in kept)
    assert rules.least_certain(uncertainties, 0) == []


@pytest.mark.parametrize(("n", "expected"), [(105, 7), (7, 0), (8, 1), (100, 7), (30, 2)])
def test_the_papers_share(n, expected):
    assert len(rules.least_certain({f"{i:03d}": i / n for i in range(n)}, rules.LEAVE_OUT)) == expected


def test_cases_that_volumes_leave_out_count():
    uncertainties = {"a": 0.9, "b": 0.8, "c": 0.1, "d": 0.7}
    assert rules.least_certain(uncertainties, 0.5, {"a": "volume"}) == ["b"]
    assert rules.least_certain(uncertainties, 0.5, {"c": "volume", "d": "volume"}) == []
    assert rules.least_certain({"b": 0.5, "a": 0.5}, 0.5) == ["a"]
