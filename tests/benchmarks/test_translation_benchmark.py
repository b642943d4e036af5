"""The benchmark of the translation: what it counts and how it says so."""

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of a source distribution")


@pytest.fixture
def benchmark_of_translation(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import translation

    yield translation
    for name in ("translation", "train_step"):
        sys.modules.pop(name)


def test_convolutions_are_counted_forward_and_backward(benchmark_of_translation):
    layer = torch.nn.Conv2d(3, 5, 3, padding=1)
    images = torch.rand(2, 3, 8, 8)
    forward = 2 * 8 * 8 * 9 * 3 * 5
    assert benchmark_of_translation.count(lambda: layer(images)) == forward
    # The gradient of the weights is as much work; that of the images is not asked for.
    assert benchmark_of_translation.count(lambda: layer(images).sum().backward()) == 2 * forward


def test_the_table_says_how_near_the_bound_it_is(benchmark_of_translation):
    row = {
        "work": "train",
        "slice": [160, 192],
        "multiply_adds_per_slice": 8.949e9,
        "slices_per_second": 12.04,
        "bound": 15.05,
        "share_of_bound": 0.8,
    }
    table = benchmark_of_translation.table([row]).splitlines()
    assert len(table) == 3
    assert table[-1] == "| train | 160 × 192 | 8.95 | 12.0 | 15.1 | 80% |"


def test_no_gpu_is_said(benchmark_of_translation, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(benchmark_of_translation.UserError, match="-device cuda: torch finds no CUDA device here"):
        benchmark_of_translation.choose_device("cuda")
