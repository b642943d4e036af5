import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnunet_da.multidomain.contrastive import contrastive_loss


def literal_loss(z, domains, tau):
    """Eq. 3 of the paper, term by term."""
    n = len(z)

    def similarity(i, j):
        return float(z[i] @ z[j] / (z[i].norm() * z[j].norm()))

    total = 0.0
    for i in range(n):
        positives = [p for p in range(n) if domains[p] == domains[i] and p != i]
        denominator = sum(math.exp(similarity(i, j) / tau) for j in range(n) if j != i)
        for p in positives:
            total += math.log(math.exp(similarity(i, p) / tau) / denominator) / len(positives)
    return -total / n


@st.composite
def samples(draw):
    """Domains, each of two samples or more, in any order, and embeddings."""
    counts = draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    domains = draw(st.permutations([domain for domain, count in enumerate(counts) for _ in range(count)]))
    seed, features = draw(st.integers(0, 2**31)), draw(st.integers(2, 12))
    return torch.randn(len(domains), features, generator=torch.Generator().manual_seed(seed)), domains


@settings(max_examples=60, deadline=None)
@given(samples(), st.floats(0.05, 5.0))
def test_it_is_eq_3(sample, tau):
    z, domains = sample
    expected = literal_loss(z.double(), domains, tau)
    assert float(contrastive_loss(z.double(), domains, tau)) == pytest.approx(expected, abs=1e-9)
    # In single precision a cosine, divided by τ, is itself known to some 1e-7 / τ.
    assert float(contrastive_loss(z, domains, tau)) == pytest.approx(expected, abs=1e-6 * max(1, 0.5 / tau))


@settings(max_examples=20, deadline=None)
@given(samples())
def test_its_gradient_is_that_of_eq_3(sample):
    z, domains = sample
    z = z.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: contrastive_loss(x, domains, 0.5), (z,))


def test_its_least_and_even_values():
    # All alike: every sample is as near as any other, log(n - 1).
    assert float(contrastive_loss(torch.ones(6, 3), [0, 1] * 3)) == pytest.approx(math.log(5))
    # One point per domain, opposite ones: what is left are the positives among themselves, log(|P|).
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).repeat(3, 1)
    assert float(contrastive_loss(z, [0, 1] * 3)) == pytest.approx(math.log(2), abs=1e-6)
    assert float(contrastive_loss(z[:4], [0, 1] * 2)) == pytest.approx(0, abs=1e-6)


def test_lengths_of_embeddings_play_no_part():
    z = torch.randn(6, 4)
    scaled = z * torch.tensor([1e-3, 1, 2, 5, 10, 1e3])[:, None]
    assert torch.allclose(contrastive_loss(z, [0, 1] * 3), contrastive_loss(scaled, [0, 1] * 3), atol=1e-5)


def test_it_draws_domains_together_and_apart():
    torch.manual_seed(0)
    z = torch.randn(8, 4, requires_grad=True)
    domains = [i % 2 for i in range(8)]
    optimiser = torch.optim.Adam([z], 0.1)
    before = float(contrastive_loss(z.detach(), domains))
    for _ in range(100):
        optimiser.zero_grad()
        contrastive_loss(z, domains).backward()
        optimiser.step()
    unit = nn.functional.normalize(z.detach(), dim=1)
    similarity = unit @ unit.T
    alike = torch.tensor(domains)[:, None] == torch.tensor(domains)
    assert float(contrastive_loss(z.detach(), domains)) < before
    assert similarity[alike].min() > similarity[~alike].max()


def test_in_mixed_precision_it_is_computed_in_single():
    z = (100 * torch.randn(6, 64)).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_loss(z, [0, 1] * 3)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, contrastive_loss(z.float(), [0, 1] * 3))
    loss.backward()
    assert z.grad.isfinite().all()
    nothing = torch.zeros(4, 8, requires_grad=True)
    contrastive_loss(nothing, [0, 1] * 2).backward()
    assert nothing.grad.isfinite().all()


def test_a_domain_with_one_sample_is_refused():
    with pytest.raises(ValueError, match="domain 2 has one sample; the contrastive loss needs at least two"):
        contrastive_loss(torch.randn(5, 4), [0, 1, 2, 0, 1])
    with pytest.raises(ValueError, match="5 embeddings, but 4 domains"):
        contrastive_loss(torch.randn(5, 4), [0, 1, 0, 1])
