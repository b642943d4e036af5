import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.discs.numbering import SCALES, TURNS, count_steps, level_probabilities
from nnunet_da.discs.reference import default_reference

POSITIONS = default_reference().positions
SIZES = default_reference().log_sizes


@settings(deadline=None)
@given(st.floats(0.85, 1.15), st.sets(st.integers(1, 5), max_size=2), st.floats(-50, 300))
def test_steps_are_counted_whatever_the_scale_and_what_is_missing(scale, missing, start):
    there = np.array([step for step in range(8) if step not in missing])
    spacing = count_steps(start + scale * POSITIONS[there], POSITIONS)
    np.testing.assert_array_equal(spacing.steps, there)
    assert spacing.scale == pytest.approx(scale, abs=2 * (SCALES[1] - SCALES[0]))
    assert np.abs(spacing.errors).max() < 0.1


def test_beyond_the_reference_distances_stay_the_same():
    positions = np.r_[POSITIONS, POSITIONS[-1] + 28 * np.arange(1, 4)]
    np.testing.assert_array_equal(count_steps(positions, POSITIONS).steps, range(13))


def test_one_disc_has_no_distances():
    spacing = count_steps(np.array([12.0]), POSITIONS)
    assert spacing.steps.tolist() == [0]
    assert len(spacing.errors) == 0
    assert spacing.scale == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_sizes_tell_the_lowest_disc(level):
    steps = np.arange(5)
    probabilities = level_probabilities(steps, SIZES[level : level + 5] + 0.3, SIZES, room=0.4)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities.argmax() == level


def test_room_speaks_for_the_lowest_disc_and_its_lack_against_it():
    steps, unknown = np.arange(5), np.full((5, 3), np.nan)
    ample, none = (level_probabilities(steps, unknown, SIZES, room)[0] for room in (1.5, 0.4))
    assert ample > 0.94
    assert 0.5 < none < 0.75


def test_where_a_disc_lacks_it_may_be_the_lowest():
    steps, unknown = np.arange(4), np.full((4, 3), np.nan)
    unexpected = level_probabilities(steps, unknown, SIZES, 1.5)
    assert unexpected[0] > 0.94
    # There is room for a fifth both below and above: it may be either.
    lacking = level_probabilities(steps, unknown, SIZES, 1.5, expected=5, room_above=2.0)
    np.testing.assert_allclose(lacking[:2], 0.5, atol=0.01)
    # Its place is above the scan, or below it.
    assert level_probabilities(steps, unknown, SIZES, 1.5, expected=5, room_above=0.3)[0] > 0.94
    assert level_probabilities(steps, unknown, SIZES, 0.3, expected=5, room_above=2.0)[1] > 0.85
    # None lacks, or one lies between the others.
    assert level_probabilities(steps, unknown, SIZES, 1.5, expected=4, room_above=2.0)[0] > 0.99
    between = np.array([0, 1, 3, 4])
    assert level_probabilities(between, unknown, SIZES, 1.5, expected=5, room_above=2.0)[0] > 0.99


def test_votes_shift_the_number():
    steps, unknown = np.arange(5), np.full((5, 3), np.nan)
    assert level_probabilities(steps, unknown, SIZES, 0.4, votes=steps + 2).argmax() == 1
    assert level_probabilities(steps, unknown, SIZES, 0.4, votes=steps + 1)[0] > 0.95
    silent = level_probabilities(steps, unknown, SIZES, 0.4, votes=0 * steps)
    np.testing.assert_allclose(silent, level_probabilities(steps, unknown, SIZES, 0.4))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("askew", [-20, 0, 20])
def test_turns_tell_the_lowest_disc_however_the_patient_lies(level, askew):
    steps, unknown = np.arange(4), np.full((4, 3), np.nan)
    tilts = askew + 37 - np.cumsum(np.r_[0, TURNS, 0, 0])[level : level + 4]
    told = level_probabilities(steps, unknown, SIZES, 0.4, tilts=tilts)
    untold = level_probabilities(steps, unknown, SIZES, 0.4)
    assert (told / untold).argmax() == level
    assert (told / untold)[level] > 1.2


def test_turns_are_compared_across_a_missing_disc_and_not_with_one_of_unknown_tilt():
    unknown = np.full((3, 3), np.nan)
    facing = 37 - np.cumsum(np.r_[0, TURNS])
    across = level_probabilities(np.array([0, 2, 3]), unknown, SIZES, 0.4, tilts=facing[[0, 2, 3]])
    assert across[0] > level_probabilities(np.arange(3), unknown, SIZES, 0.4)[0]
    nothing = level_probabilities(np.arange(3), unknown, SIZES, 0.4, tilts=np.array([90, np.nan, 0]))
    np.testing.assert_allclose(nothing, level_probabilities(np.arange(3), unknown, SIZES, 0.4))
