"""The number of threads of a training on the CPU."""

import pytest
import torch

from nnunet_da.training.threads import honour_thread_variable


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("value", "expected"), [("2", 2), ("2,4", 2), (" 1 ", 1), ("0", 3), ("many", 3), ("", 3)])
def test_cpu_has_as_many_as_the_variable_says(monkeypatch, value, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    honour_thread_variable(torch.device("cpu"))
    assert torch.get_num_threads() == expected


def test_without_the_variable_all_stays(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    honour_thread_variable(torch.device("cpu"))
    assert torch.get_num_threads() == 3


def test_a_gpu_does_not_need_them(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    honour_thread_variable(torch.device("cuda"))
    assert torch.get_num_threads() == 3
