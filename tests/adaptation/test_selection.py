"""Ranking without labels: ranks and their mean, the nearness of volumes, and how well indicators rank."""

import math

import pytest

from nnunet_da.adaptation.selection import INDICATORS, MEAN_RANK, judge, mean_ranks, nearness

NAN = float("nan")


def indicators(**values):
    return dict.fromkeys(INDICATORS, 0.5) | {"reverse": NAN} | values


def test_the_mean_of_the_ranks():
    found = {
        "a": indicators(agreement=0.9, confidence=0.2, volume=0.1),
        "b": indicators(agreement=0.8, confidence=0.9, volume=0.9),
        "c": indicators(agreement=0.7, confidence=0.5, volume=0.5),
    }
    # Plausibility is a tie of all: rank 2 each.
    assert mean_ranks(found) == {"a": (1 + 3 + 2 + 3) / 4, "b": (2 + 1 + 2 + 1) / 4, "c": (3 + 2 + 2 + 2) / 4}


def test_what_is_not_known_of_all_does_not_count():
    found = {"a": indicators(confidence=NAN, agreement=0.1), "b": indicators(confidence=0.9, agreement=0.9)}
    assert mean_ranks(found) == {"a": pytest.approx(5 / 3), "b": pytest.approx(4 / 3)}
    nothing = dict.fromkeys(INDICATORS, NAN)
    assert math.isnan(mean_ranks({"a": nothing, "b": nothing})["a"])


def test_nearness_of_median_volumes():
    medians = {"disc": 100.0, "bone": 50.0}
    volumes = {"disc": [10.0, 140.0, 400.0], "bone": [25.0, 20.0, 30.0], "other": [1.0]}
    assert nearness(volumes, medians, 1.0) == pytest.approx((100 / 140 + 25 / 50) / 2)
    assert nearness(volumes, medians, 1.5) == pytest.approx((1 + 0.75) / 2)
    assert math.isnan(nearness(volumes, {}, 1.5))


def test_how_well_indicators_rank():
    found = {
        "a": indicators(agreement=0.9, volume=0.1, reverse=0.7, confidence=NAN) | {MEAN_RANK: 1.0},
        "b": indicators(agreement=0.5, volume=0.5, reverse=0.3) | {MEAN_RANK: 3.0},
        "c": indicators(agreement=0.1, volume=0.9, reverse=0.5) | {MEAN_RANK: 2.0},
    }
    judged = judge(found, {"a": 0.8, "b": 0.6, "c": 0.7})
    assert judged["agreement"] == (pytest.approx(0.5), 0)
    assert judged["volume"] == (pytest.approx(-0.5), pytest.approx(0.1))
    assert judged["reverse"] == (pytest.approx(1.0), 0)
    assert judged[MEAN_RANK] == (pytest.approx(1.0), 0)
    assert all(math.isnan(value) for value in judged["confidence"])
    assert math.isnan(judged["plausibility"][0])
