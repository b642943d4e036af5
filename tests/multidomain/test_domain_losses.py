import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from nnunet_da.multidomain.heads import FILL
from nnunet_da.multidomain.losses import DomainBinaryCrossEntropy, DomainCrossEntropy

N_CHANNELS = 6
LABEL_SETS = {
    "disjoint": ((0, 1, 2), (0, 3, 4, 5)),
    "overlapping": ((0, 1, 2, 3), (0, 3, 4), (0, 5)),
    "equal": (tuple(range(N_CHANNELS)),) * 3,
}
IGNORE = N_CHANNELS


def case(channels, n_rounds=2, shape=(3, 4), seed=0, ignored=0.3):
    """Logits as heads give them, and label maps of each domain's classes, parts of them to be ignored."""
    generator = torch.Generator().manual_seed(seed)
    n = n_rounds * len(channels)
    logits = torch.full((n, N_CHANNELS, *shape), FILL)
    target = torch.empty(n, 1, *shape)
    for i in range(n):
        own = torch.tensor(channels[i % len(channels)])
        logits[i, own] = torch.randn(len(own), *shape, generator=generator)
        target[i, 0] = own[torch.randint(len(own), shape, generator=generator)].float()
    target[torch.rand(target.shape, generator=generator) < ignored] = IGNORE
    return logits.requires_grad_(), target


def literal_loss(logits, target, channels):
    """Eq. 2 of the paper, term by term; a mean over the voxels that are not to be ignored."""
    total = 0.0
    for domain, own in enumerate(channels):
        sums = count = 0
        for i in range(domain, len(logits), len(channels)):
            probabilities = logits[i, list(own)].softmax(dim=0)
            for place, c in enumerate(own):
                labelled = target[i, 0] == c
                sums += float(probabilities[place][labelled].log().sum())
                count += int(labelled.sum())
        total += sums / (max(count, 1) * len(own))
    return -total / len(channels)


@pytest.mark.parametrize("label_sets", LABEL_SETS)
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
@settings(max_examples=15, deadline=None)
@given(n_rounds=st.integers(1, 3), seed=st.integers(0, 1000), ignored=st.sampled_from([0.0, 0.3, 1.0]))
def test_it_is_eq_2(label_sets, shape, n_rounds, seed, ignored):
    channels = LABEL_SETS[label_sets]
    logits, target = case(channels, n_rounds, shape, seed, ignored)
    loss = DomainCrossEntropy(channels, IGNORE)(logits, target)
    assert loss.item() == pytest.approx(literal_loss(logits.detach(), target, channels), abs=1e-5)
    loss.backward()
    assert not logits.grad[(target == IGNORE).expand_as(logits)].any()


def test_domains_weigh_alike_whatever_their_voxels_and_classes():
    channels = ((0, 1), (0, 2, 3, 4))
    logits = torch.full((2, N_CHANNELS, 4, 4), FILL)
    logits[0, [0, 1]], logits[1, [0, 2, 3, 4]] = 0.0, 0.0
    target = torch.zeros(2, 1, 4, 4)
    target[1, 0, 1:] = IGNORE
    expected = (math.log(2) / 2 + math.log(4) / 4) / 2
    assert float(DomainCrossEntropy(channels, IGNORE)(logits, target)) == pytest.approx(expected)


def test_a_batch_of_one_domain_is_that_domains_term():
    channels = LABEL_SETS["overlapping"]
    logits, target = case(channels)
    loss = DomainCrossEntropy(channels, IGNORE)
    terms = [loss(logits[domain::3], target[domain::3], domain) for domain in range(3)]
    assert torch.allclose(sum(terms) / 3, loss(logits, target), atol=1e-6)


def test_without_an_ignore_label_every_voxel_counts():
    channels = LABEL_SETS["disjoint"]
    logits, target = case(channels, ignored=0)
    expected = DomainCrossEntropy(channels, IGNORE)(logits, target)
    assert torch.equal(DomainCrossEntropy(channels)(logits, target), expected)


def test_a_domain_that_is_all_ignored_adds_nothing():
    channels = LABEL_SETS["disjoint"]
    logits, target = case(channels, ignored=0)
    target[1::2] = IGNORE
    loss = DomainCrossEntropy(channels, IGNORE)(logits, target)
    assert loss.item() == pytest.approx(literal_loss(logits.detach(), target, channels), abs=1e-6)
    loss.backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[1::2].any()


def test_a_domain_has_no_gradient_from_another():
    channels = LABEL_SETS["overlapping"]
    logits, target = case(channels)
    terms = DomainCrossEntropy(channels, IGNORE)
    terms(logits[1::3], target[1::3], 1).backward()
    assert not logits.grad[0::3].any()
    assert not logits.grad[2::3].any()
    assert logits.grad[1::3, list(channels[1])].any()


@pytest.mark.parametrize("domain", [None, 1])
def test_under_deep_supervision_it_is_a_sum_over_resolutions(domain):
    channels = LABEL_SETS["disjoint"]
    fine, coarse = case(channels), case(channels, shape=(2, 2))
    loss = DomainCrossEntropy(channels, IGNORE)
    arguments = [list(pair) for pair in zip(fine, coarse, strict=True)]
    if domain is not None:
        arguments.append([domain] * 2)
    wrapped = DeepSupervisionWrapper(loss, (1, 0.5))(*arguments)
    assert torch.allclose(wrapped, loss(*fine, domain) + 0.5 * loss(*coarse, domain))


@pytest.mark.parametrize("regions", [False, True])
def test_mixed_precision_is_summed_in_single(regions):
    channels = LABEL_SETS["disjoint"]
    logits, target = region_case(shape=(64, 64)) if regions else case(channels, shape=(64, 64))
    loss = DomainBinaryCrossEntropy(REGIONS, 4, True) if regions else DomainCrossEntropy(channels, IGNORE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(logits.bfloat16(), target)
    assert half.dtype == torch.float32
    assert torch.allclose(half, loss(logits.bfloat16().float(), target), atol=1e-6)


def test_a_batch_that_lacks_a_domain_is_refused():
    logits, target = case(LABEL_SETS["overlapping"])
    with pytest.raises(ValueError, match="a batch of 5 samples does not hold 3 domains alike"):
        DomainCrossEntropy(LABEL_SETS["overlapping"], IGNORE)(logits[:5], target[:5])


REGIONS = ((0, 1, 2), (2, 3))


def region_case(n_rounds=2, shape=(3, 4), ignored=0.3):
    generator = torch.Generator().manual_seed(0)
    n = n_rounds * len(REGIONS)
    logits = torch.full((n, 4, *shape), FILL)
    target = torch.zeros(n, 5, *shape)
    for i in range(n):
        own = list(REGIONS[i % len(REGIONS)])
        logits[i, own] = torch.randn(len(own), *shape, generator=generator)
        target[i, own] = torch.randint(2, (len(own), *shape), generator=generator).float()
    target[:, 4] = (torch.rand(n, *shape, generator=generator) < ignored).float()
    return logits.requires_grad_(), target


@pytest.mark.parametrize("target_type", [torch.float32, torch.bool])
def test_of_regions_it_is_the_mean_over_each_domains_own(target_type):
    logits, target = region_case()
    loss = DomainBinaryCrossEntropy(REGIONS, 4, ignore_label=True)
    expected = 0.0
    for domain, own in enumerate(REGIONS):
        own = list(own)
        valid = target[domain::2, 4] == 0
        p = logits.detach()[domain::2, own].sigmoid()
        y = target[domain::2, own]
        terms = -(y * p.log() + (1 - y) * (1 - p).log())
        expected += float(terms.transpose(0, 1)[:, valid].mean()) / len(REGIONS)
    target = target.to(target_type)
    assert loss(logits, target).item() == pytest.approx(expected, abs=1e-6)
    alone = [loss(logits[domain::2], target[domain::2], domain) for domain in range(2)]
    assert sum(alone).item() / 2 == pytest.approx(expected, abs=1e-6)
    # A region that a domain does not annotate says nothing of it.
    target[1::2, 0] = 1
    assert loss(logits, target).item() == pytest.approx(expected, abs=1e-6)


def test_regions_without_an_ignore_label():
    logits, target = region_case(ignored=0)
    with_label = DomainBinaryCrossEntropy(REGIONS, 4, ignore_label=True)(logits, target)
    assert torch.equal(DomainBinaryCrossEntropy(REGIONS, 4)(logits, target[:, :4]), with_label)
