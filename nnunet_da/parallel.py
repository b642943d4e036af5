"""The same work on many items, in worker processes, with a progress bar."""

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from multiprocessing import get_context

from tqdm import tqdm

from nnunet_da.errors import UserError

# A bar is for work that takes longer than this.
BAR_AFTER_SECONDS = 1


def n_workers(n_processes, n_items):
    """The number of processes for `n_items`: `n_processes`, or where that is None one per core and at most eight."""
    if n_processes is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        n_processes = min(cores, 8)
    if n_processes < 1:
        raise UserError(f"-np {n_processes}: must be 1 or more processes")
    return max(1, min(n_processes, n_items))


_shared = ContextVar("executors", default=None)


@contextmanager
def shared_processes():
    """Within it, `run_parallel` keeps its worker processes for the next call: starting them costs about a second."""
    with ExitStack() as stack:
        executors = {}
        token = _shared.set((stack, executors))
        try:
            yield
        except BaseException:
            for executor in executors.values():
                executor.shutdown(cancel_futures=True)
            raise
        finally:
            _shared.reset(token)


@contextmanager
def _processes(n_processes):
    shared = _shared.get()
    if shared is None:
        with ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:
            yield pool
        return
    stack, executors = shared
    if n_processes not in executors:
        pool = ProcessPoolExecutor(n_processes, mp_context=get_context("spawn"))
        executors[n_processes] = stack.enter_context(pool)
    yield executors[n_processes]


def run_parallel(function, items, n_processes=None, description=""):
    """``[function(item) for item in items]`` in up to `n_processes` spawned processes (1: in this one).

    `function` must be importable by name and say what the user must mend with UserError: after all items, the error of
    the first item is raised, and how many more there are. Any other exception stops at once.
    """
    items = list(items)
    n_processes = n_workers(n_processes, len(items))
    results = [None] * len(items)
    with tqdm(total=len(items), desc=description, delay=BAR_AFTER_SECONDS, leave=False) as bar:
        if n_processes == 1:
            for index, item in enumerate(items):
                results[index] = _attempt(function, item)
                bar.update()
        else:
            with _processes(n_processes) as pool:
                futures = {pool.submit(_attempt, function, item): index for index, item in enumerate(items)}
                try:
                    for future in as_completed(futures):
                        results[futures[future]] = future.result()
                        bar.update()
                except BrokenProcessPool:
                    raise UserError(
                        f"{description}: a worker process was killed, perhaps for lack of memory; use fewer with -np"
                    ) from None
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    errors = [result for result in results if isinstance(result, UserError)]
    if errors:
        more = f" (and {len(errors) - 1} more like this or otherwise wrong)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{more}")
    return results


def _attempt(function, item):
    """The result, or the UserError as a value."""
    try:
        return function(item)
    except UserError as error:
        return error


def variables_of_jobs(jobs, device):
    """Environment variables (dict) of commands of which `jobs` run at once; those that are set already stay.

    On the CPU each gets its share of the cores: two trainings of one thread each do half as much again as one of two.
    And threads that wait for a turn sleep, since they would keep a core from the others.
    """
    wanted = {"OMP_WAIT_POLICY": "passive"}
    if device == "cpu" and jobs > 1:
        wanted["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    return {name: os.environ.get(name, value) for name, value in wanted.items()}
