"""``python -m nnunet_da.workflow.step WORK KIND/NAME``: does one step of the run in the folder WORK.

This is what Snakemake starts, here or on a node of a cluster.
"""

import contextlib
import datetime
import os
import shlex
import signal
import subprocess
import sys
import traceback

from nnunet_da.errors import UserError
from nnunet_da.files import remove_leftovers
from nnunet_da.workflow.processes import end_tree
from nnunet_da.workflow.run_file import read_run_file
from nnunet_da.workplace import find_command

TRAINING = "nnUNetv2_train"
# nnU-Net's variable: processes that augment.
WORKERS = "nnUNet_n_proc_DA"


class Job:
    """What an action works with: commands whose output goes to the log `stream`, named `log`."""

    def __init__(self, stream, log, environment):
        self._stream = stream
        self._log = log
        self._environment = environment

    def note(self, text):
        """Writes a line into the log."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def run(self, *words):
        """Runs a command of this environment. Raises UserError, with its last line and the log, where it fails."""
        words = [str(word) for word in words]
        self.note(f"[{datetime.datetime.now():%Y-%m-%d %H:%M:%S}] {shlex.join(words)}")
        process = subprocess.Popen(
            [find_command(words[0]), *words[1:]],
            env=environment_of(words[0], self._environment),
            stdin=subprocess.DEVNULL,
            stdout=self._stream,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait()
        except BaseException:
            end_tree(process.pid)
            raise
        if code != 0:
            raise UserError(f"{words[0]} failed with exit code {code} (log: {self._log}): {last_line(self._log)}")


def environment_of(command, environment):
    """The variables of a command, where the user has set none of their own."""
    n_cores = os.cpu_count() or 1
    defaults = {"nnUNet_def_n_proc": min(8, n_cores), "nnUNet_npp": min(3, n_cores), "nnUNet_nps": min(3, n_cores)}
    # What reads the log sees lines as they come; threads that wait for others do not keep a core busy.
    defaults |= {"PYTHONUNBUFFERED": 1, "OMP_WAIT_POLICY": "passive"}
    environment = {**{name: str(value) for name, value in defaults.items()}, **environment}
    if command != TRAINING and environment.get(WORKERS) == "0":
        # It suits trainings on a CPU; nothing else of nnU-Net's runs with it.
        environment[WORKERS] = "1"
    return environment


def last_line(log):
    """The last line of a file that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def do_step(run, step):
    """Does `step` of `run`. Raises UserError where it fails, or works elsewhere already."""
    state, fingerprint = run.state, run.plan.fingerprint(step)
    log = state.log(step)
    log.parent.mkdir(parents=True, exist_ok=True)
    with state.lock(f"{step.kind}__{step.name}", f"step {step.id}"):
        started = state.begin(step, fingerprint)
        with open(log, "a", encoding="utf-8") as stream, _gpu(run, step) as variables:
            if run.device == "cpu" and step.gpu:
                # Processes that augment cost more than they give where they share the cores with the training.
                variables.setdefault(WORKERS, os.environ.get(WORKERS, "0"))
            try:
                for path in step.action.replaced():
                    remove_leftovers(path)
                step.action.do(Job(stream, log, {**os.environ, **variables}))
            except BaseException as error:
                said = str(error)
                if not isinstance(error, UserError):
                    traceback.print_exc(file=stream)
                    said = f"{type(error).__name__} (log: {log}): {said}"
                state.fail(step, fingerprint, started, said.splitlines()[0])
                raise
        state.finish(step, fingerprint, started)


@contextlib.contextmanager
def _gpu(run, step):
    """The variables (dict) that give a step a GPU of its own, where several on this machine share the work."""
    if run.device != "cuda" or not step.gpu or run.n_gpus < 2:
        yield {}
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(run.n_gpus)))
    with contextlib.ExitStack() as stack:
        for gpu in visible.split(",")[: run.n_gpus]:
            try:
                stack.enter_context(run.state.lock(f"gpu_{gpu}", f"GPU {gpu}", patience=0))
            except UserError:
                continue
            yield {"CUDA_VISIBLE_DEVICES": gpu}
            return
        raise UserError(f"{step.id}: all {run.n_gpus} GPUs are taken; is another run working on them?")


def main(words):
    """The exit code: 0 only when the step is done."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    work, step_id = words
    try:
        run = read_run_file(work)
        do_step(run, run.plan[step_id])
    except UserError as error:
        print(f"{step_id}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
