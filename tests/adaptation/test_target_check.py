"""The check without labels: each indicator on predictions of which it is known, and the choice of an epoch."""

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from nnunet_da.adaptation.check import CheckSettings, Evidence, best_epoch, decide, volume_plausibility
from nnunet_da.errors import UserError


def probabilities(labels, sureness=1.0, n=3):
    """Of classes, (1, n, *space), `sureness` for those of `labels` (*space)."""
    hot = one_hot(labels, n).movedim(-1, 0)[None].float()
    return sureness * hot + (1 - sureness) / (n - 1) * (1 - hot)


LABELS = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1], [0, 2, 2, 0], [0, 2, 2, 0]])


def test_decisions():
    assert torch.equal(decide(probabilities(LABELS), True), torch.stack([LABELS == 1, LABELS == 2])[None])
    assert decide(torch.tensor([[[0.6, 0.4]], [[0.1, 0.9]]])[None], False).flatten().tolist() == [1, 0, 0, 1]


def test_nothing_speaks_against_what_is_sure_and_stable_and_as_large():
    evidence = Evidence(True, 2)
    found = probabilities(LABELS)
    evidence.add_target(found, found, found)
    evidence.add_source(found)
    assert evidence.indicators(1.0) == pytest.approx(dict.fromkeys(Evidence(True, 2).indicators(1.0), 1.0))


def test_each_indicator():
    evidence = Evidence(True, 2)
    shifted = LABELS.clone()
    shifted[0, 3] = 0  # Of structure 1, two of three voxels are left.
    found = probabilities(LABELS, 0.8)
    evidence.add_target(found, probabilities(shifted), probabilities(torch.zeros_like(LABELS)))
    doubled = torch.where(LABELS == 0, 1, LABELS)
    evidence.add_source(probabilities(doubled))
    indicators = evidence.indicators(1.0)
    assert indicators["agreement"] == pytest.approx((0.8 + 1) / 2)
    assert indicators["invariance"] == 0
    foreground = 7 * 0.9 + 9 * 0.2
    assert indicators["confidence"] == pytest.approx(1 - 16 * 0.2 / foreground, rel=1e-5)
    assert indicators["volume"] == pytest.approx((3 / 12 + 1) / 2)
    assert indicators["score"] == 0


def test_evidence_of_processes_adds_up():
    torch.manual_seed(0)
    whole, parts = Evidence(True, 2), [Evidence(True, 2), Evidence(True, 2)]
    for part in parts:
        batches = torch.randn(4, 2, 3, 6, 6).softmax(2)
        for evidence in (whole, part):
            evidence.add_target(*batches[:3])
            evidence.add_source(batches[3])
    assert (parts[0] + parts[1]).indicators(1.5) == pytest.approx(whole.indicators(1.5))
    assert whole.indicators(1.5) != pytest.approx(parts[0].indicators(1.5))


def test_regions_are_judged_each():
    evidence = Evidence(False, 2)
    found = torch.tensor([[0.9, 0.9, 0.2], [0.7, 0.1, 0.1]])[None]
    evidence.add_target(found, found, found)
    evidence.add_source(found)
    indicators = evidence.indicators(1.0)
    assert indicators["agreement"] == indicators["volume"] == 1
    assert indicators["confidence"] == pytest.approx(1 - (0.3 + 0.1 + 0.2) / (0.9 + 0.9 + 0.2))


def test_a_network_that_finds_nothing_has_no_score():
    evidence = Evidence(True, 2)
    nothing = probabilities(torch.zeros_like(LABELS))
    evidence.add_target(nothing, nothing, nothing)
    evidence.add_source(nothing)
    assert set(evidence.indicators(2.0).values()) == {0.0}
    evidence.add_source(probabilities(LABELS))
    assert evidence.indicators(2.0)["volume"] == 0


def test_volumes_within_the_tolerance_count_in_full():
    source = np.array([0.1, 0.2, 0.0])
    assert volume_plausibility(np.array([0.14, 0.14, 0.0]), source, 1.5) == 1
    assert volume_plausibility(np.array([0.3, 0.05, 0.0]), source, 1.5) == pytest.approx((0.5 + 0.375) / 2)
    assert volume_plausibility(np.array([0.1, 0.2, 0.1]), source, 1.5) == pytest.approx(2 / 3)


def test_the_epoch_of_the_highest_score_among_plausible_ones():
    scores = [0.2, 0.9, 0.6, 0.6, float("nan")]
    assert best_epoch(scores, [1, 0.1, 1, 1, 1], 0.3) == 2
    assert best_epoch(scores, [1, 0.4, 1, 1, 1], 0.3) == 1
    assert best_epoch(scores, [0, 0, 0, 0, 1], 0.3) is None


def test_rules():
    for wrong in ({"batches": 0}, {"tolerance": 0.5}, {"least_volume": 2.0}):
        with pytest.raises(UserError, match=f"adaptation.check.{next(iter(wrong))}"):
            CheckSettings(**wrong)
