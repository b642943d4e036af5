import numpy as np
import pytest

from nnunet_da.errors import UserError
from nnunet_da.submission.challenges import CHALLENGES
from nnunet_da.submission.label_values import label_values

TWO = CHALLENGES["crossmoda2022"].labels
THREE = CHALLENGES["crossmoda2023"].labels


def values(labels, in_dataset, given=(), challenge="crossmoda2022"):
    content = None if in_dataset is None else {"labels": in_dataset}
    return label_values(labels, content, "dataset.json", given, challenge)


def test_values_are_the_challenges_where_nothing_says_otherwise():
    found = values(TWO, None)
    assert found.to_challenge == {0: 0, 1: 1, 2: 2}
    assert found.is_identity
    assert not found.notes


def test_labels_are_matched_by_name_whatever_their_values_and_case():
    found = values(TWO, {"background": 0, "Cochlea": 1, "VS": 2, "ignore": 3})
    assert found.to_challenge == {0: 0, 1: 2, 2: 1}
    np.testing.assert_array_equal(found.apply(np.array([0, 1, 2, 1], np.int16)), np.array([0, 2, 1, 2], np.uint8))
    assert found.apply(np.array([0])).dtype == np.uint8


def test_parts_of_a_structure_become_one():
    found = values(TWO, {"background": 0, "intrameatal": 1, "extrameatal": 2, "cochlea": 3})
    assert found.to_challenge == {0: 0, 1: 1, 2: 1, 3: 2}
    numbered = values(CHALLENGES["ivdm3seg"].labels, {"background": 0, "L5-S1": 1, "L4-L5": 2, "L5": 3})
    assert numbered.to_challenge == {0: 0, 1: 1, 2: 1}


def test_what_is_given_goes_first():
    found = values(TWO, {"background": 0, "tumour": 1, "ears": 2, "nerve": 3}, ["tumour=1", "ears=2", "3=0"])
    assert found.to_challenge == {0: 0, 1: 1, 2: 2, 3: 0}
    assert values(TWO, None, ["7=1"]).to_challenge == {0: 0, 1: 1, 2: 2, 7: 1}


def test_a_structure_that_the_dataset_lacks_is_noted():
    (note,) = values(THREE, {"background": 0, "extrameatal": 1, "cochlea": 2}).notes
    assert "has no label 'intrameatal' (1 in crossmoda2022)" in note
    (note,) = values(TWO, {"background": 0, "whole": [1, 2], "vs": 1}).notes
    assert "regions, so values are taken as they are" in note


@pytest.mark.parametrize(
    ("in_dataset", "given", "message"),
    [
        ({"background": 0, "disc": 1}, [], r"none of its labels \(disc\) has a name of crossmoda2022 \(1 vs, 2 coch"),
        ({"background": 0, "vs": 1}, ["tumor=1"], "the dataset has no label 'tumor'"),
        ({"background": 0, "vs": 1}, ["vs"], "must be LABEL=VALUE"),
        ({"background": 0, "vs": 1}, ["vs=9"], "crossmoda2022 has no label 9"),
        ("labels", [], "no 'labels'"),
    ],
)
def test_refusals(in_dataset, given, message):
    with pytest.raises(UserError, match=message):
        values(TWO, in_dataset, given)
