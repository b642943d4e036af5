import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_da.self_training.channels import Channels
from nnunet_da.self_training.uncertainty import Ensemble, dice, foreground_uncertainty, pairwise_disagreement

CLASSES = Channels({"disc": (1,), "vertebra": (2,)})
REGIONS = Channels({"whole": (1, 2), "core": (2,)}, (1, 2))


def members(channels, n=3, shape=(3, 4, 5), seed=0):
    """Probabilities of `n` members, (n_channels, *shape) each."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, channels.n_channels, *shape))
    if channels is REGIONS:
        return list(1 / (1 + np.exp(-logits)))
    return list(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))


def ensemble_of(channels, probabilities, measure="probability"):
    ensemble = Ensemble(channels, measure)
    for each in probabilities:
        ensemble.add(each)
    return ensemble


def literal_entropy(distribution):
    return -sum(p * math.log(p) for p in distribution if p > 0)


def test_mutual_information_of_classes_voxel_by_voxel():
    several = members(CLASSES)
    found = ensemble_of(CLASSES, several, "mutual_information").voxel_uncertainty()
    for voxel in np.ndindex(found.shape):
        each = [[float(p[(c, *voxel)]) for c in range(3)] for p in several]
        mean = [sum(one[c] for one in each) / len(each) for c in range(3)]
        expected = literal_entropy(mean) - sum(map(literal_entropy, each)) / len(each)
        assert found[voxel] == pytest.approx(expected / math.log(3), abs=1e-6)


def test_mutual_information_of_regions_is_that_of_the_most_disputed():
    several = members(REGIONS)
    found = ensemble_of(REGIONS, several, "mutual_information").voxel_uncertainty()
    for voxel in np.ndindex(found.shape):
        of_regions = []
        for region in range(2):
            each = [float(p[(region, *voxel)]) for p in several]
            mean = sum(each) / len(each)
            entropies = [literal_entropy([p, 1 - p]) for p in each]
            of_regions.append(literal_entropy([mean, 1 - mean]) - sum(entropies) / len(each))
        assert found[voxel] == pytest.approx(max(of_regions) / math.log(2), abs=1e-6)


@pytest.mark.parametrize("channels", [CLASSES, REGIONS])
def test_decision_is_that_of_nnunet_and_doubt_its_complement(channels):
    labels = {"background": 0, "disc": 1, "vertebra": 2} if channels is CLASSES else None
    manager = LabelManager(labels or {"background": 0, "whole": [1, 2], "core": [2]}, None if labels else [1, 2])
    several = members(channels)
    ensemble = ensemble_of(channels, several)
    mean = np.mean(several, axis=0)
    np.testing.assert_array_equal(ensemble.label_map(), manager.convert_probabilities_to_segmentation(mean))
    expected = 1 - mean.max(0) if labels else np.minimum(mean, 1 - mean).max(0)
    np.testing.assert_allclose(ensemble.voxel_uncertainty(), expected, atol=1e-6)


def test_members_that_agree_leave_no_information_and_sure_ones_no_doubt():
    (one,) = members(CLASSES, 1)
    agreeing = ensemble_of(CLASSES, [one, one], "mutual_information")
    assert agreeing.voxel_uncertainty().max() < 1e-6
    sure = CLASSES.one_hot(CLASSES.decide(one))
    assert ensemble_of(CLASSES, [sure, sure]).voxel_uncertainty().max() == 0
    # Two that are sure of different classes: half the votes, and the most that two can disagree.
    other = np.roll(sure, 1, axis=0)
    assert ensemble_of(CLASSES, [sure, other]).voxel_uncertainty() == pytest.approx(0.5)
    information = ensemble_of(CLASSES, [sure, other], "mutual_information").voxel_uncertainty()
    assert information == pytest.approx(math.log(2) / math.log(3))


def label_maps_of(n):
    return st.lists(arrays(np.uint8, (3, 3, 2), elements=st.integers(0, 2)), min_size=n, max_size=n)


@given(label_maps_of(3))
def test_disagreement_is_one_minus_dice_over_pairs(label_maps):
    found = pairwise_disagreement(label_maps, CLASSES.structures)
    for name, (value,) in CLASSES.structures.items():
        scores = []
        for one, other in itertools.combinations(label_maps, 2):
            ones, others = set(map(tuple, np.argwhere(one == value))), set(map(tuple, np.argwhere(other == value)))
            if ones or others:
                scores.append(2 * len(ones & others) / (len(ones) + len(others)))
        if scores:
            assert found[name] == pytest.approx(1 - sum(scores) / len(scores))
        else:
            assert math.isnan(found[name])


@given(label_maps_of(2))
def test_dice_of_a_region_is_that_of_its_union(label_maps):
    one, other = label_maps
    found = dice(one, other, REGIONS.structures)["whole"]
    united = dice((one > 0).astype(np.uint8), (other > 0).astype(np.uint8), {"whole": (1,)})["whole"]
    assert found == united or (math.isnan(found) and math.isnan(united))


def test_a_case_in_which_nothing_is_found_is_the_least_certain():
    nothing = CLASSES.one_hot(np.zeros((3, 4, 5), np.uint8))
    ensemble = ensemble_of(CLASSES, [nothing, nothing])
    assert ensemble.case_uncertainty("disagreement") == 1
    assert ensemble.case_uncertainty("voxels") == 1


def test_voxels_uncertainty_is_relative_to_the_foreground():
    several = members(CLASSES)
    ensemble = ensemble_of(CLASSES, several)
    mean = np.mean(several, axis=0)
    expected = min(1, (1 - mean.max(0)).sum() / (1 - mean[0]).sum())
    assert ensemble.case_uncertainty("voxels") == pytest.approx(expected, rel=1e-5)
    assert foreground_uncertainty(np.full(10, 0.1), np.full(10, 0.5)) == pytest.approx(0.2)
    assert REGIONS.foreground(np.array([[0.2, 0.9], [0.4, 0.1]])).tolist() == [0.4, 0.9]
