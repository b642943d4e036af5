import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.errors import UserError
from nnunet_da.pretraining.contrast import global_contrast, local_contrast, nt_xent, spread
from nnunet_da.pretraining.settings import ContrastSettings


def literal_loss(first, second, tau):
    """The loss of the paper for every anchor, in both directions, term by term; (n, features) each."""
    z = [*first, *second]
    n = len(first)

    def similarity(a, b):
        return float(a @ b / (a.norm() * b.norm()))

    total = 0.0
    for a in range(2 * n):
        partner = (a + n) % (2 * n)
        denominator = 0.0
        for other in range(2 * n):
            if other != a:
                denominator += math.exp(similarity(z[a], z[other]) / tau)
        total -= math.log(math.exp(similarity(z[a], z[partner]) / tau) / denominator)
    return total / (2 * n)


@st.composite
def pairs(draw, groups=1):
    n, features, seed = draw(st.integers(1, 6)), draw(st.integers(2, 9)), draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, groups, n, features, generator=generator, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(pairs(), st.floats(0.05, 3))
def test_global_contrast_is_the_loss_of_the_paper(embeddings, tau):
    first, second = embeddings[:, 0]
    expected = literal_loss(first, second, tau)
    assert float(global_contrast(first, second, tau)) == pytest.approx(expected, abs=1e-9)
    assert float(global_contrast(first.float(), second.float(), tau)) == pytest.approx(expected, abs=2e-5)


@settings(max_examples=20, deadline=None)
@given(pairs(groups=3), st.floats(0.05, 3))
def test_local_contrast_is_the_loss_of_the_regions_of_each_image(embeddings, tau):
    first, second = embeddings
    by_image = [literal_loss(*pair, tau) for pair in zip(first, second, strict=True)]
    assert float(local_contrast(first, second, tau)) == pytest.approx(sum(by_image) / 3, abs=1e-9)
    over_all = literal_loss(first.flatten(0, 1), second.flatten(0, 1), tau)
    assert float(local_contrast(first, second, tau, "batch")) == pytest.approx(over_all, abs=1e-9)


def test_its_gradient_is_right():
    z = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: nt_xent(x[0], x[1], 0.5), (z,))


def test_its_values_at_the_ends():
    # All alike: any of the 2 n - 1 others may be the partner.
    assert float(nt_xent(torch.ones(4, 3), torch.ones(4, 3), 0.1)) == pytest.approx(math.log(7), abs=1e-5)
    # Each its own direction, and partners alike: e^(1/τ) against 2 n - 2 ones.
    z = torch.eye(4)
    assert float(nt_xent(z, z, 0.1)) == pytest.approx(math.log1p(6 * math.exp(-10)), abs=1e-6)


def test_in_mixed_precision_it_is_computed_in_single():
    z = (100 * torch.randn(2, 5, 16)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(z[0], z[1], 0.1)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, nt_xent(*z.float(), 0.1))


def test_spread_tells_collapse_from_an_even_sphere():
    torch.manual_seed(0)
    assert float(spread(torch.randn(1, 32).expand(50, 32))) == pytest.approx(0, abs=1e-6)
    assert float(spread(torch.randn(2000, 32))) == pytest.approx(1, abs=0.02)
    # Lengths play no part, and a common direction lessens it.
    z = torch.randn(2000, 32)
    assert float(spread(z)) == pytest.approx(float(spread(z * torch.rand(2000, 1))), abs=1e-5)
    assert float(spread(z + 3)) < 0.4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tau": 0.0}, "tau: must be above 0"),
        ({"global_share": 1.0}, "global_share: must be between 0 and 1"),
        ({"regions": 1}, "regions: must be at least 2"),
        ({"region_size": 0}, "region_size: must be at least 1"),
        ({"n_features": 1}, "n_features: must be at least 2"),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        ContrastSettings(**values)
