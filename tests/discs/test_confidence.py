from dataclasses import replace

import numpy as np
import pytest

from nnunet_da.discs.confidence import (
    CUT,
    FEW,
    FLAGGED,
    GAP,
    LEFT_OUT,
    LESS,
    LEVEL,
    LOCALISER,
    MORE,
    OFF_LINE,
    REGISTRATION,
    ROOM,
    SCALE,
    SPACING,
    VOLUME,
    Found,
    judge,
)
from nnunet_da.discs.numbering import Spacing
from nnunet_da.discs.pieces import Pieces
from nnunet_da.discs.reference import default_reference

REFERENCE = default_reference()


@pytest.fixture
def found():
    """Five discs as in the reference."""
    sizes = np.exp(REFERENCE.log_sizes[:5])
    frames = np.tile(np.eye(3), (5, 1, 1))
    pieces = Pieces(
        REFERENCE.centroids[:5],
        sizes[:, 0],
        frames,
        np.c_[np.full(5, 3.0), sizes[:, 1:]],
        np.zeros((5, 3), bool),
        frames,
    )
    numbers = np.arange(1, 6)
    spacing = Spacing(np.arange(5), 1.0, np.zeros(4))
    return Found(numbers, 1.0, spacing, pieces, np.zeros(5, bool), np.zeros(5), numbers, 0 * numbers, 0, 1.0)


def test_without_doubt_all_is_sure(found):
    discs, case = judge(found, REFERENCE)
    assert case == (1.0, ())
    assert discs == [(1.0, ())] * 5


def doubted(found, doubt):
    """Which discs are doubted for this, none for another reason."""
    discs, (confidence, doubts) = judge(found, REFERENCE)
    assert doubts == (doubt,)
    assert confidence == min(disc[0] for disc in discs) < 1
    assert all((disc[0] < 1) == (disc[1] == (doubt,)) for disc in discs)
    return [bool(disc[1]) for disc in discs]


@pytest.mark.parametrize(
    ("doubt", "change"),
    [
        (LEVEL, lambda f: {"level_probability": 0.7}),
        (SCALE, lambda f: {"spacing": replace(f.spacing, scale=1.4)}),
        (REGISTRATION, lambda f: {"by_registration": f.numbers + 1}),
        (LOCALISER, lambda f: {"by_localiser": f.numbers + 1}),
        (ROOM, lambda f: {"room": 2.6}),
        (LEFT_OUT, lambda f: {"n_left_out": 1}),
        (LESS, lambda f: {"n_lacking": 1}),
        (MORE, lambda f: {"n_lacking": -1}),
    ],
)
def test_some_doubts_concern_all_discs(found, doubt, change):
    assert all(doubted(replace(found, **change(found)), doubt))


def test_registration_counts_for_more_where_discs_are_missing_at_an_end(found):
    less, disagrees = {"n_lacking": 1}, {"by_registration": found.numbers + 1}
    alone, apart, both = (
        judge(replace(found, **change), REFERENCE)[1][0] for change in (less, disagrees, less | disagrees)
    )
    assert both < alone * apart < min(alone, apart) < 1


def test_numbers_are_in_doubt_from_a_doubtful_distance_upwards(found):
    spacing = Spacing(found.spacing.steps, 1.0, np.array([0, 0, 0.4, 0]))
    assert doubted(replace(found, spacing=spacing), SPACING) == [False, False, False, True, True]
    spacing = Spacing(np.array([0, 1, 3, 4, 5]), 1.0, np.zeros(4))
    gap = replace(found, spacing=spacing, numbers=1 + spacing.steps, by_registration=1 + spacing.steps)
    pieces = replace(found.pieces, volumes=np.exp(REFERENCE.log_sizes[spacing.steps, 0]))
    assert doubted(replace(gap, pieces=pieces), GAP) == [False, False, True, True, True]


def test_a_disc_is_doubted_for_its_own_faults(found):
    off_line = replace(found, off_line=np.array([0, 0, 12.0, 0, 0]))
    assert doubted(off_line, OFF_LINE) == [False, False, True, False, False]
    pieces = replace(found.pieces, volumes=found.pieces.volumes * [1, 1, 1, 5, 1])
    assert doubted(replace(found, pieces=pieces), VOLUME) == [False, False, False, True, False]
    # Of a disc that the border cuts, nothing is said of the volume.
    pieces = replace(pieces, ends=np.eye(5, 3, -3, dtype=bool))
    assert doubted(replace(found, pieces=pieces), CUT) == [False, False, False, True, True]


def test_discs_that_are_not_kept_cast_no_doubt(found):
    spacing = Spacing(found.spacing.steps, 1.0, np.array([0, 0, 0, 0.5]))
    assert judge(replace(found, spacing=spacing).up_to(4), REFERENCE)[1] == (1.0, ())
    assert doubted(found.up_to(2), FEW) == [True, True]
    assert len(found.up_to(None).numbers) == 5


def test_a_lowest_disc_that_is_a_guess_is_flagged(found):
    assert judge(replace(found, level_probability=0.85), REFERENCE)[1][0] < FLAGGED
    assert judge(replace(found, level_probability=0.9), REFERENCE)[1][0] > FLAGGED
