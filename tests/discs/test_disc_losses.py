import numpy as np
import pytest
import torch
from torch.nn import functional

from nnunet_da.discs.losses import FocalLoss

IGNORE = 3


def sample(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, 3, 4, 5, generator=generator), torch.randint(0, 4, (2, 1, 4, 5), generator=generator)


def expected(logits, target, alpha, gamma):
    """Eq. 1 in numpy, voxel by voxel."""
    logits, target = logits.double().numpy(), target.numpy()[:, 0]
    exponentials = np.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    values = []
    for n, y, x in np.argwhere(target != IGNORE):
        p = probabilities[n, target[n, y, x], y, x]
        values.append(-alpha * (1 - p) ** gamma * np.log(p))
    return np.mean(values)


@pytest.mark.parametrize(("alpha", "gamma"), [(1.0, 0.0), (0.25, 2.0), (1.0, 0.5)])
def test_it_is_equation_1_over_what_is_not_ignored(alpha, gamma):
    logits, target = sample()
    loss = FocalLoss(alpha, gamma, ignore_label=IGNORE)(logits, target)
    assert loss.item() == pytest.approx(expected(logits, target, alpha, gamma), rel=1e-5)


def test_without_gamma_it_is_cross_entropy():
    logits, target = sample()
    target[target == IGNORE] = 0
    assert torch.allclose(FocalLoss()(logits, target), functional.cross_entropy(logits, target[:, 0]))


def test_what_is_ignored_has_no_gradient():
    logits, target = sample()
    logits.requires_grad_()
    FocalLoss(1.0, 2.0, ignore_label=IGNORE)(logits, target).backward()
    ignored = (target == IGNORE).expand_as(logits)
    assert ignored.any()
    assert not logits.grad[ignored].any()
    assert (logits.grad[~ignored] != 0).all()


@pytest.mark.parametrize("regions", [False, True])
def test_a_patch_that_is_ignored_everywhere_costs_nothing(regions):
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    target = torch.ones(2, 4, 4, 5) if regions else torch.full((2, 1, 4, 5), IGNORE)
    loss = FocalLoss(1.0, 2.0, ignore_label=IGNORE, regions=regions)(logits, target)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_regions():
    logits, _ = sample()
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, 2, (2, 4, 4, 5), generator=generator)
    loss = FocalLoss(0.5, 2.0, ignore_label=IGNORE, regions=True)(logits, target)
    p = torch.where(target[:, :3] == 1, logits.sigmoid(), 1 - logits.sigmoid())
    values = -0.5 * (1 - p) ** 2 * p.log()
    keep = (target[:, 3:] == 0).expand_as(values)
    assert torch.allclose(loss, values[keep].mean())


def test_it_weighs_what_is_hard():
    """The share of the loss that well-classified voxels have falls with γ."""
    logits = torch.tensor([[[[4.0, -0.5]], [[0.0, 0.0]]]])
    target = torch.zeros(1, 1, 1, 2, dtype=torch.long)
    easy, hard = (functional.cross_entropy(logits[..., i], target[:, 0, :, i]) for i in (0, 1))
    for gamma in (0.0, 1.0, 2.0):
        p_easy, p_hard = torch.exp(-easy), torch.exp(-hard)
        both = ((1 - p_easy) ** gamma * easy + (1 - p_hard) ** gamma * hard) / 2
        assert torch.allclose(FocalLoss(1.0, gamma)(logits, target), both)


def test_gradients_are_finite_where_the_network_is_sure():
    logits = torch.tensor([[[100.0, -100.0]], [[0.0, 0.0]]]).reshape(1, 2, 1, 2).requires_grad_()
    FocalLoss(1.0, 0.5)(logits, torch.zeros(1, 1, 1, 2, dtype=torch.long)).backward()
    assert torch.isfinite(logits.grad).all()
