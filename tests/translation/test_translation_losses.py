"""The losses against their definitions, written out."""

import numpy as np
import pytest
import torch

from nnunet_da.translation.losses import consistency, convincing, discerning, kspace_consistency


def images(seed, shape=(2, 3, 5, 4)):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal_transform(image):
    """The orthonormal discrete Fourier transform of (rows, columns), as a double sum."""
    n, m = image.shape
    rows, columns = (np.exp(-2j * np.pi * np.outer(np.arange(k), np.arange(k)) / k) for k in (n, m))
    return rows @ image @ columns / np.sqrt(n * m)


def test_kspace_loss_is_the_mean_modulus_of_the_complex_difference():
    one, other = images(0), images(1)
    differences = [
        literal_transform(a.numpy()) - literal_transform(b.numpy())
        for a, b in zip(one.flatten(0, 1), other.flatten(0, 1), strict=True)
    ]
    assert float(kspace_consistency(one, other)) == pytest.approx(np.abs(differences).mean(), rel=1e-5)
    assert float(kspace_consistency(one, one)) == 0


def test_kspace_loss_sees_a_pattern_that_is_shifted_and_does_not_grow_with_the_slice():
    stripes = torch.arange(16.0).remainder(2).expand(1, 1, 16, 16)
    assert float(kspace_consistency(stripes.roll(1, -1), stripes)) > 0
    noise = [torch.randn(4, 1, size, size, generator=torch.Generator().manual_seed(2)) for size in (16, 64)]
    small, large = (float(kspace_consistency(image, torch.zeros_like(image))) for image in noise)
    assert small == pytest.approx(large, rel=0.05)


def test_kspace_loss_has_a_finite_gradient_where_nothing_differs():
    image = images(0).requires_grad_()
    kspace_consistency(image, image.detach()).backward()
    assert torch.isfinite(image.grad).all()


def test_kspace_loss_takes_half_precision_and_any_size():
    half = images(0, (1, 1, 7, 9)).half()
    assert kspace_consistency(half, half + 0.5).dtype == torch.float32


def test_consistency_is_the_mean_absolute_difference():
    one, other = images(0), images(1)
    assert float(consistency(one, other)) == pytest.approx(np.abs(one.numpy() - other.numpy()).mean(), rel=1e-5)


def test_adversarial_losses_are_least_squares():
    real, fake = torch.tensor([1.0, 0.5]), torch.tensor([0.0, 2.0])
    assert float(convincing(fake)) == (1 + 1) / 2
    assert float(discerning(real, fake)) == (0.25 / 2 + 4 / 2) / 2
    assert float(convincing(torch.ones(3))) == float(discerning(torch.ones(3), torch.zeros(3))) == 0
