import argparse

import pytest

from nnunet_da.dataset_conversion import converters
from nnunet_da.dataset_conversion._structures import DISC_LEVELS, add_structures, by_level, labels_and_values
from nnunet_da.errors import UserError

SCHEMES = {
    "discs": {"disc": (11, 12)},
    "vertebrae": {"vertebra": (2, 3)},
    "discs-numbered": by_level(DISC_LEVELS, (11, 12)),
}


def test_values_of_no_chosen_structure_are_background_or_ignored():
    labels, values = labels_and_values(["discs"], SCHEMES, known=(2, 3, 11, 12), ignored=(3,))
    assert labels == {"disc": 1}
    assert values == {11: 1, 12: 1, 2: 0, 3: 2}


def test_schemes_are_joined_unless_they_claim_the_same_values():
    labels, values = labels_and_values(["discs", "vertebrae"], SCHEMES, known=(2, 3, 11, 12))
    assert labels == {"disc": 1, "vertebra": 2}
    assert values == {11: 1, 12: 1, 2: 2, 3: 2}
    with pytest.raises(UserError, match="--structures discs discs-numbered: two of them use the same structures"):
        labels_and_values(["discs", "discs-numbered"], SCHEMES, known=(11, 12))


def test_levels_are_named_from_below():
    assert by_level(DISC_LEVELS, (11, 12)) == {"L5-S1": (11,), "L4-L5": (12,)}


def test_the_first_scheme_is_the_default():
    parser = argparse.ArgumentParser()
    add_structures(parser, SCHEMES)
    assert parser.parse_args([]).structures == ["discs"]
    assert parser.parse_args(["--structures", "discs", "vertebrae"]).structures == ["discs", "vertebrae"]


def test_datasets_that_share_a_scheme_share_its_structures():
    """Else `--into` could not join them."""
    levels = {}
    for module in converters().values():
        for scheme, structures in getattr(module, "SCHEMES", {}).items():
            levels.setdefault(scheme, []).append(set(structures))
    assert len(levels["discs"]) >= 4
    for scheme, all_structures in levels.items():
        widest = max(all_structures, key=len)
        assert all(structures <= widest for structures in all_structures), scheme
