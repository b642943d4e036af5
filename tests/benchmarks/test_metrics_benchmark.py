"""The benchmark of the metrics: its label maps, that the tools agree, and what it complains about."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of a source distribution")
MODULES = {"MONAI": "monai", "MedPy": "medpy", "surface-distance": "surface_distance"}


@pytest.fixture
def benchmark_module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import metrics

    yield metrics
    sys.modules.pop("metrics")


@pytest.fixture
def size(benchmark_module):
    return benchmark_module.Size((12, 40, 40), (3.0, 1.0, 1.0), 1)


def test_label_maps(benchmark_module, size):
    for seed in (0, 1):
        reference, prediction = benchmark_module.simulate(size, seed)
        again = benchmark_module.simulate(size, seed)
        np.testing.assert_array_equal([reference, prediction], again)
        assert reference.shape == size.shape
        assert set(np.unique(reference)) == set(np.unique(prediction)) == set(range(6))
        assert (reference != prediction).any()
        assert (prediction[1, 2, 2] == 1) == (seed == 1)


@pytest.mark.parametrize("tool", MODULES)
def test_tools_agree(benchmark_module, size, tool):
    if importlib.util.find_spec(MODULES[tool]) is None:
        pytest.skip(f"{tool} is not installed")
    found, passes = benchmark_module.time_tools(size, [benchmark_module.OURS, tool])
    assert found[benchmark_module.OURS]["n_metrics"] == 12
    assert found[tool]["n_metrics"] >= len(benchmark_module.COMPARED[tool])
    assert found[tool]["difference"] <= benchmark_module.RELATIVE_TOLERANCE
    assert len(found[tool]["seconds"]) == len(passes) == 1


def test_difference(benchmark_module):
    ours = {1: {"a": 1.0, "b": 0.0}, 2: {"a": 2.0, "b": 3.0}}
    others = {1: {"a": 1.0, "b": 0.0}, 2: {"a": 2.5, "b": 1.0}}
    assert benchmark_module.difference(others, ours, ("a",)) == pytest.approx(0.2)
    assert benchmark_module.difference(ours, ours, ("a", "b")) == 0


def test_complaints(benchmark_module):
    def row(tool, times_ours, difference=0.0):
        return {"size": "8×8×8", "tool": tool, "times_ours": times_ours, "difference": difference}

    rows = [row("nnunet-da 1.0", 1.0), row("fast 2.0", 6.0), row("slow 3.0", 60.0)]
    assert benchmark_module.complaints(rows, 5) == []
    assert benchmark_module.complaints(rows, 7) == ["8×8×8: only 6.0 times as fast as fast 2.0"]
    rows.append(row("wrong 4.0", 9.0, 1e-3))
    assert benchmark_module.complaints(rows, 5) == ["wrong 4.0, 8×8×8: values differ by 1.0e-03"]
