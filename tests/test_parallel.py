import os

import pytest

from nnunet_da.errors import UserError
from nnunet_da.parallel import n_workers, run_parallel, shared_processes, variables_of_jobs


def square(number):
    if number < 0:
        raise UserError(f"{number}: must not be negative")
    return number * number


def die(_):
    os._exit(1)


def test_results_keep_the_order_of_the_items():
    assert run_parallel(square, range(9), n_processes=2) == [n * n for n in range(9)]
    assert run_parallel(square, [], n_processes=2) == []


def test_the_first_error_is_raised_after_all_items():
    with pytest.raises(UserError, match=r"^-1: must not be negative \(and 1 more"):
        run_parallel(square, [3, -1, -2], n_processes=1)


def test_a_worker_that_dies_is_an_error_that_says_what_to_do():
    with pytest.raises(UserError, match=r"Squaring: a worker process was killed.*-np"):
        run_parallel(die, [1, 2], n_processes=2, description="Squaring")


def test_no_more_workers_than_items():
    assert n_workers(8, 3) == 3
    assert n_workers(None, 100) >= 1
    assert n_workers(4, 0) == 1
    with pytest.raises(UserError, match="-np 0"):
        n_workers(0, 3)


def process_id(_):
    import os

    return os.getpid()


def test_processes_are_kept_within_a_block_and_not_beyond_it():
    with shared_processes():
        first = set(run_parallel(process_id, range(4), 2))
        second = set(run_parallel(process_id, range(4), 2))
    assert first & second
    assert not (first | second) & set(run_parallel(process_id, range(4), 2))


@pytest.mark.parametrize(
    ("cores", "jobs", "device", "threads"),
    [(8, 2, "cpu", "4"), (2, 3, "cpu", "1"), (8, 1, "cpu", None), (8, 2, "cuda", None)],
)
def test_jobs_share_the_cores(monkeypatch, cores, jobs, device, threads):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    variables = variables_of_jobs(jobs, device)
    assert variables.get("OMP_NUM_THREADS") == threads
    assert variables["OMP_WAIT_POLICY"] == "passive"


def test_variables_that_are_set_go_before(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert variables_of_jobs(2, "cpu") == {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "active"}
