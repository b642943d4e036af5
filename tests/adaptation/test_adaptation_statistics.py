"""Statistics of the target in batch norms, and adaptation to one scan, which never changes the model."""

import copy

import pytest
import torch
from torch import nn

from nnunet_da.adaptation.randomisation import RandomisationSettings, randomise
from nnunet_da.adaptation.statistics import TestTimeSettings, adapt_to_scan, divergence, entropy, reestimate
from nnunet_da.errors import UserError


def network(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm, nn.LeakyReLU(), nn.Conv2d(4, 2, 1))


def test_batch_norms_take_the_statistics_of_the_target():
    ours = network(nn.BatchNorm2d(4, momentum=0.1)).eval()
    ours[1].running_mean.fill_(50.0)
    ours[3].train()
    weights = {name: value.clone() for name, value in ours.named_parameters()}
    batches = [5 + 2 * torch.randn(3, 1, 8, 8) for _ in range(4)]
    reestimate(ours, batches)
    features = ours[0](torch.cat(batches))
    assert torch.allclose(ours[1].running_mean, features.mean((0, 2, 3)), atol=1e-4)
    by_batch = torch.stack([ours[0](batch).var((0, 2, 3)) for batch in batches]).mean(0)
    assert torch.allclose(ours[1].running_var, by_batch, rtol=1e-4)
    assert all(torch.equal(value, weights[name]) for name, value in ours.named_parameters())
    assert (ours[1].training, ours[3].training, ours[1].momentum) == (False, True, 0.1)


def test_nothing_to_estimate():
    with pytest.raises(ValueError, match="no batch norm"):
        reestimate(network(nn.InstanceNorm2d(4)), [torch.zeros(1, 1, 4, 4)])
    with pytest.raises(ValueError, match="no batch to estimate"):
        reestimate(network(nn.BatchNorm2d(4)), [])


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(4, affine=True), nn.BatchNorm2d(4)])
def test_adaptation_lowers_the_loss_on_the_scan_and_leaves_the_model(norm):
    ours = network(norm).eval()
    before = copy.deepcopy(ours.state_dict())
    scan = [torch.randn(2, 1, 16, 16)]
    settings = TestTimeSettings(steps=40, lr=0.1, consistency=0.0)
    adapted = adapt_to_scan(ours, scan, settings, RandomisationSettings())

    def doubt(of):
        return entropy(of(scan[0]).log_softmax(1).movedim(1, 0)).item()

    assert doubt(adapted) < 0.8 * doubt(ours)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
    changed = {name for name, value in adapted.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.weight", "1.bias"}
    assert not adapted.training
    assert not any(parameter.requires_grad for parameter in adapted.parameters())
    assert all(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.parametrize("exclusive", [True, False])
def test_consistency_draws_views_together(exclusive):
    ours = network(nn.InstanceNorm2d(4, affine=True)).eval()
    torch.manual_seed(0)
    scan, drawn = torch.randn(2, 1, 16, 16), RandomisationSettings()
    settings = TestTimeSettings(steps=30, lr=0.03, entropy=0.0)
    adapted = adapt_to_scan(ours, [scan], settings, drawn, exclusive)

    def apart(of):
        """How far views are from the scan, in the logits that both kinds of probability follow from."""
        torch.manual_seed(1)
        views = [of(randomise(scan, drawn, 1.0)) for _ in range(8)]
        return torch.stack([(view - of(scan)).diff(dim=1).abs().mean() for view in views]).mean().item()

    assert apart(adapted) < 0.8 * apart(ours)


def test_no_norm_to_adapt():
    with pytest.raises(ValueError, match="no norm"):
        adapt_to_scan(network(nn.Identity()), [torch.zeros(1, 1, 4, 4)], TestTimeSettings(), RandomisationSettings())


def test_entropy_weighs_rare_structures_as_much():
    probabilities = torch.full((2, 100), 0.001)
    probabilities[0] = 0.999
    probabilities[:, 0] = torch.tensor([0.4, 0.6])
    rare = -(0.4 * torch.tensor(0.4).log() + 0.6 * torch.tensor(0.6).log())
    sure = -(0.999 * torch.tensor(0.999).log() + 0.001 * torch.tensor(0.001).log())
    assert entropy(probabilities.log()).item() == pytest.approx((rare + sure).item() / 2, rel=1e-4)


def test_divergence_is_that_of_kullback_and_leibler():
    torch.manual_seed(0)
    one, other = torch.randn(2, 3, 50).log_softmax(1)
    expected = nn.functional.kl_div(other.T, one.T, log_target=True, reduction="batchmean")
    assert divergence(one, other).item() == pytest.approx(expected.item(), rel=1e-5)
    assert divergence(one, one).item() == 0


def test_rules():
    for wrong in ({"steps": -1}, {"lr": 0.0}, {"entropy": -1.0}, {"consistency": -0.1}):
        with pytest.raises(UserError, match=f"test_time.{next(iter(wrong))}"):
            TestTimeSettings(**wrong)
