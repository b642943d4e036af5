"""Randomised intensities: closed forms of each change, samples that are drawn for themselves, and what stays."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.adaptation import randomisation
from nnunet_da.adaptation.randomisation import RandomisationSettings, randomise
from nnunet_da.errors import UserError

SHAPES = ((3, 1, 24, 20), (3, 2, 8, 12, 10))
OFF = {"convolution": 0.0, "monotone": 0.0, "inversion": 0.0, "bias": 0.0, "resolution": 0.0, "noise": 0.0}


def images(shape, seed=0):
    return 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moments(values):
    axes = tuple(range(2, values.ndim))
    return values.mean(axes), values.std(axes, correction=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_convolutions_keep_the_norm_and_are_drawn_for_each_sample(shape):
    torch.manual_seed(0)
    same = images((1, *shape[1:])).expand(shape).clone()
    made = randomisation.random_convolutions(same)
    norms = [torch.linalg.vector_norm(values.flatten(1), dim=1) for values in (same, made)]
    assert torch.allclose(*norms, rtol=1e-4)
    assert not torch.allclose(made[0], made[1], atol=1e-2)
    assert not torch.allclose(made[0], same[0], atol=1e-2)


@pytest.mark.parametrize("shape", SHAPES)
def test_convolutions_of_a_batch_are_those_of_its_samples(shape, monkeypatch):
    """Grouped convolutions against one network per sample, with the same draws."""
    batch = images(shape)
    draws, drawn = [], torch.randn

    def keep(*arguments, **keywords):
        draws.append(drawn(*arguments, **keywords))
        return draws[-1]

    monkeypatch.setattr(torch, "randn", keep)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, 0.25))
    torch.manual_seed(1)
    made = randomisation.random_convolutions(batch, n_layers=3, n_channels=4)
    kernels, shifts = draws[::2], draws[1::2]
    assert len(kernels) == 3
    convolve = {4: F.conv2d, 5: F.conv3d}[batch.ndim]
    for sample, image in enumerate(batch):
        found = image[None]
        for layer, (kernel, shift) in enumerate(zip(kernels, shifts, strict=True)):
            own = slice(sample * len(kernel) // len(batch), (sample + 1) * len(kernel) // len(batch))
            found = convolve(found, kernel[own], shift[own], padding=kernel.shape[-1] // 2)
            found = F.leaky_relu(found, 0.01) if layer < 2 else found
        blend = 0.25 * found * image.norm() / found.norm() + 0.75 * image
        expected = blend * image.norm() / blend.norm()
        assert torch.allclose(made[sample], expected[0], atol=1e-4)


@given(knots=st.integers(2, 9), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_map_is_numpy_s_interpolation(knots, seed):
    batch = images((2, 2, 6, 5), seed)
    torch.manual_seed(seed)
    values = randomisation.free_values(batch, knots)
    mapped = randomisation.map_intensities(batch, values, span=2.0)
    mean, std = moments(batch)
    for sample in range(2):
        for channel in range(2):
            m, s = mean[sample, channel].item(), std[sample, channel].item()
            places = np.linspace(m - 2 * s, m + 2 * s, knots)
            expected = np.interp(batch[sample, channel], places, values[sample, channel])
            scale = expected.std()
            if scale > 1e-3:
                expected = (expected - expected.mean()) / scale * s + m
                assert np.allclose(mapped[sample, channel], expected, atol=1e-3 * max(1, s / scale))


def test_monotone_maps_keep_the_order_and_free_ones_do_not():
    torch.manual_seed(0)
    ramp = torch.linspace(-2, 2, 64).reshape(1, 1, 8, 8).expand(40, 1, 8, 8)
    risen = randomisation.map_intensities(ramp, randomisation.monotone_values(ramp, 6), 2.5).flatten(1)
    assert (risen.diff(dim=1) >= -1e-5).all()
    freed = randomisation.map_intensities(ramp, randomisation.free_values(ramp, 6), 2.5).flatten(1).diff(dim=1)
    assert ((freed > 0.01).any(1) & (freed < -0.01).any(1)).float().mean() > 0.8


def test_inversion_is_about_the_mean():
    batch = images((2, 2, 6, 6))
    inverted = randomisation.invert(batch)
    assert torch.allclose(inverted + batch, 2 * batch.mean((2, 3), keepdim=True).expand_as(batch), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_bias_field_is_smooth_and_keeps_the_moments(shape):
    torch.manual_seed(0)
    batch = images(shape)
    biased = randomisation.bias_field(batch, 0.8)
    for ours, before in zip(moments(biased), moments(batch), strict=True):
        assert torch.allclose(ours, before, atol=1e-4)
    # What a constant image would show: the field itself, up to scale and shift.
    flat = torch.ones(shape)
    flat[..., 0] = 0
    field = randomisation.bias_field(flat, 0.8)[..., 1:]
    assert field.diff(dim=-1).abs().max() < 0.3 * (field.max() - field.min())
    assert (field.amax((-1, -2)) - field.amin((-1, -2))).max() > 0


def test_a_coarser_resolution_leaves_what_is_flat_and_smooths_the_rest():
    torch.manual_seed(0)
    assert torch.allclose(randomisation.coarsen(torch.full((1, 1, 9, 9), 2.0), 3.0), torch.tensor(2.0))
    noise = torch.randn(1, 1, 32, 32)
    assert randomisation.coarsen(noise, 4.0).std() < 0.9 * noise.std()
    assert torch.allclose(randomisation.coarsen(noise, 1.0), noise, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_together(shape):
    batch = images((8, *shape[1:]))
    kept = batch.clone()
    torch.manual_seed(3)
    changed = randomise(batch, RandomisationSettings(probability=0.5))
    assert torch.equal(batch, kept)
    assert changed.shape == batch.shape
    assert changed.isfinite().all()
    same = [torch.equal(one, other) for one, other in zip(changed, batch, strict=True)]
    assert 0 < sum(same) < len(same)
    torch.manual_seed(3)
    assert torch.equal(randomise(batch, RandomisationSettings(probability=0.5)), changed)
    assert torch.equal(randomise(batch, RandomisationSettings(), probability=0.0), batch)


def test_half_precision_stays():
    assert randomise(images((2, 1, 8, 8)).half(), RandomisationSettings()).dtype == torch.half


def test_flat_images_stay_finite():
    torch.manual_seed(0)
    for _ in range(10):
        assert randomise(torch.zeros(4, 1, 8, 8), RandomisationSettings(probability=1.0)).isfinite().all()


def test_one_kind_alone():
    """With free maps alone, each value of the image has one value in the result."""
    torch.manual_seed(0)
    batch = torch.randint(0, 4, (6, 1, 10, 10)).float()
    changed = randomise(batch, RandomisationSettings(probability=1.0, **OFF))
    for one, other in zip(changed, batch, strict=True):
        for value in range(4):
            assert one[other == value].std() < 1e-5
        assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"probability": 1.1}, "from 0 to 1"),
        ({"noise_sigma": -1.0}, "must not be negative"),
        ({"convolution": 0.0, "monotone": 0.0, "free": 0.0}, "must be above 0"),
        ({"knots": 1}, "at least 2"),
        ({"span": 0.0}, "above 0"),
        ({"coarsest": 0.5}, "at least 1"),
    ],
)
def test_rules(wrong, rule):
    with pytest.raises(UserError, match=rule):
        RandomisationSettings(**wrong)
