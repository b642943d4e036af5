import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from nnunet_da.errors import UserError
from nnunet_da.pretext.histogram import HistogramSettings, HistogramTask, histograms


def task(n_channels=2, **settings):
    return HistogramTask(HistogramSettings(**settings), (1.0, 1.0), n_channels)


def test_histograms_are_numpys():
    images = np.random.default_rng(0).gamma(2.0, size=(3, 2, 17, 19)).astype(np.float32)
    found = histograms(torch.from_numpy(images), 16, 3.0).numpy()
    for image, of_image in zip(images, found, strict=True):
        for channel, of_channel in zip(image, of_image, strict=True):
            standardised = (channel - channel.mean()) / channel.std(ddof=1)
            expected, _ = np.histogram(np.clip(standardised, -2.9999, 2.9999), bins=16, range=(-3, 3))
            assert np.abs(of_channel - expected / channel.size).max() < 2 / channel.size


@given(st.floats(0.01, 100), st.floats(-50, 50), st.integers(2, 30))
def test_histograms_know_neither_brightness_nor_linear_contrast(scale, shift, n_bins):
    images = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = histograms(scale * images + shift, n_bins, 3.0)
    assert found.sum() == pytest.approx(1)
    # A value on the edge of two bins may fall into either.
    assert float((found - histograms(images, n_bins, 3.0)).abs().sum()) <= 4 / 144


def test_a_constant_image_stands_in_the_middle():
    found = histograms(torch.full((1, 1, 4, 4), 7.0), 16, 3.0)[0, 0]
    assert found[8] == 1


def test_loss_and_score_are_those_of_distributions():
    torch.manual_seed(0)
    histogram_task = task(n_bins=4)
    assert histogram_task.n_outputs == 8
    images, answers = histogram_task.sample(torch.randn(3, 2, 9, 9))
    assert images.shape == (3, 2, 9, 9)
    outputs = torch.randn(3, 8)
    predicted = outputs.reshape(3, 2, 4).softmax(dim=2).numpy()
    expected = np.mean([entropy(answers[i, c].numpy(), predicted[i, c]) for i in range(3) for c in range(2)])
    assert float(histogram_task.loss(outputs, answers)) == pytest.approx(expected, rel=1e-5)
    overlap = np.minimum(predicted, answers.numpy()).sum(axis=2).mean(axis=1)
    assert np.allclose(histogram_task.score(outputs, answers).numpy(), overlap)
    perfect = answers.clamp_min(1e-9).log().flatten(1)
    assert float(histogram_task.loss(perfect, answers)) == pytest.approx(0, abs=1e-5)
    assert np.allclose(histogram_task.score(perfect, answers).numpy(), 1)
    assert histogram_task.chance(4) is None


@pytest.mark.parametrize("settings", [{"n_bins": 1}, {"limit": 0.0}])
def test_bad_values_are_refused(settings):
    with pytest.raises(UserError, match="setting histogram"):
        HistogramSettings(**settings)
