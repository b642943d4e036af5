"""The linear probe of pretrained weights: what it draws, and that it learns what the maps tell."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of a source distribution")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("probe_pretraining")
    sys.modules.pop("probe_pretraining", None)


class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.seg_layers = torch.nn.ModuleList([torch.nn.Identity()])

    def forward(self, skips):
        return self.seg_layers[-1](skips[0])


def network(tells):
    """Whose last map is the image where it `tells`, else nothing; the bottleneck is the image at half the size."""
    return SimpleNamespace(
        encoder=lambda images: [images if tells else 0 * images, torch.nn.functional.avg_pool2d(images, 2)],
        decoder=Decoder(),
    )


@pytest.fixture
def scans():
    """Case → slices in which structure k has the intensity k, and noise of another seed."""
    cases = {}
    for seed, case in enumerate(("a", "b", "c")):
        rng = np.random.default_rng(seed)
        labels = np.zeros((3, 32, 32), int)
        labels[:, 4:12, 4:12], labels[:, 18:28, 18:28] = 1, 2
        images = labels + rng.normal(0, 0.05, labels.shape)
        cases[case] = torch.from_numpy(images[:, None].astype(np.float32)), labels
    return cases


def test_a_map_that_shows_the_structures_tells_them_and_an_empty_one_does_not(benchmark, scans):
    draws = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["b"], "val": ["c"]}]
    told, silent = (benchmark.probe(network(tells), draws, scans) for tells in (True, False))
    assert min(told["decoder"]) > 0.99
    assert silent["decoder"] == pytest.approx([1 / 3, 1 / 3])
    # Coarse, so that borders are blurred.
    assert all(0.85 < value <= 1 for value in told["bottleneck"])


def test_pixels_are_drawn_from_every_class_of_every_slice(benchmark, scans):
    values, labels = benchmark.samples(network(True), [scans["a"], scans["b"]], np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(labels), 6 * np.array([benchmark.PIXELS] * 3))
    assert values["decoder"].shape == values["bottleneck"].shape == (len(labels), 1)
    np.testing.assert_allclose(values["decoder"][:, 0], labels, atol=0.3)


def test_slices_are_fitted_to_the_patch(benchmark):
    array = np.arange(2 * 5 * 8).reshape(2, 5, 8)
    fitted = benchmark._fitted(array, [6, 4])
    assert fitted.shape == (2, 6, 4)
    np.testing.assert_array_equal(fitted[:, :5], array[:, :, 2:6])
