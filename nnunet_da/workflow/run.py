"""Starting a workflow: everything is checked, then Snakemake does what is not done."""

import contextlib
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from nnunet_da.errors import UserError
from nnunet_da.parallel import variables_of_jobs
from nnunet_da.workflow.config import INSTALL, read_config
from nnunet_da.workflow.processes import end_tree
from nnunet_da.workflow.progress import Progress
from nnunet_da.workflow.run_file import Run
from nnunet_da.workflow.step import last_line

SNAKEFILE = Path(__file__).with_name("workflow.smk")
LOCAL = "local"
_PATIENCE = 30


def write_template(recipe, path):
    """Writes the commented config of a recipe. Raises UserError where there is a file already."""
    path = Path(path)
    if path.exists():
        raise UserError(f"{path}: is there already")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe.template.read_text(encoding="utf-8"), encoding="utf-8")


def run_workflow(
    recipe,
    path,
    *,
    device="cuda",
    jobs=1,
    n_gpus=1,
    executor=LOCAL,
    profile=None,
    stages=None,
    until=None,
    redo=None,
    dry_run=False,
    check_command=lambda words: None,
):
    """Does what is not done of the workflow that the config `path` describes.

    Parameters
    ----------
    recipe : Recipe
    path : path
    device : 'cpu', 'cuda' or 'mps'
    jobs : int
        Steps at once.
    n_gpus : int
        GPUs of this machine that they share: one each.
    executor : str
        'local', or that of a plugin of Snakemake, such as 'slurm'.
    profile : path, optional
        A profile of Snakemake, with the account and the partition of a cluster, say.
    stages : sequence of str, optional
        These alone; what they rest on must be done.
    until : str, optional
        Up to this stage.
    redo : str, optional
        A stage that is undone first, with all that rests on it: datasets, trainings and predictions are removed.
    dry_run : bool
        Prints what is to be done, and does nothing.
    check_command : callable (words)
        Raises UserError for a command that will not be understood.

    Raises UserError, before anything is written, for a config that breaks a rule or that has changed since a stage was
    begun with it; and where a step has failed, after those that do not rest on it.
    """
    run = _check(recipe, Path(path).absolute(), device, n_gpus if executor == LOCAL else 0, check_command)
    plan, state = run.plan, run.state
    chosen = plan.until(until) if until else stages or plan.stages
    plan.require_stages([*chosen, *([redo] if redo else [])])
    undone = plan.resting_on(plan.of_stages([redo])) if redo else []
    steps = plan.of_stages(chosen)
    if not redo:
        state.require_unchanged(plan, plan.needed_for(steps), path)
    to_do = [step for step in steps if step in undone or not state.is_done(step)]
    _require_rested_on(run, steps, undone)
    if dry_run:
        print(describe(run, steps, undone))
        return
    _require_snakemake()
    with state.lock("run", f"the workflow in {run.place.work}") as lock:
        state.clear(plan)
        state.discard(plan, undone)
        state.require_unchanged(plan, plan.needed_for(steps), path)
        for step in plan:
            if not state.record(step):
                step.action.require_free()
        run.write()
        if not to_do:
            print(f"{run.place.work}: all {len(steps)} steps were done before")
            return
        _run_snakemake(run, steps, to_do, lock, jobs, executor, profile)


def _check(recipe, path, device, n_gpus, check_command):
    """The `Run`, of which everything was checked that can be checked before it begins."""
    config, block = read_config(path, recipe.config_class)
    run = Run(recipe, path, block, device, n_gpus)
    try:
        recipe.check(config, run.place)
        plan = run.plan
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    unknown = set(config.resources) - set(plan.kinds)
    if unknown:
        raise UserError(f"{path}: setting resources.{min(unknown)}: no kind of step (kinds: {', '.join(plan.kinds)})")
    for step in plan:
        for words in step.action.commands():
            try:
                check_command([str(word) for word in words])
            except UserError as error:
                raise UserError(f"{path}: {error}") from None
    return run


def _require_snakemake():
    missing = [name for name in ("snakemake", "psutil") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{missing[0]} is not installed; {INSTALL}")


def _require_rested_on(run, steps, undone):
    chosen = {step.id for step in steps}
    for step in steps:
        for needed in step.needs:
            if needed.id not in chosen and (needed in undone or not run.state.is_done(needed)):
                raise UserError(
                    f"stage {step.stage} rests on stage {needed.stage}, which is not done; --until {step.stage} does "
                    f"both"
                )


def describe(run, steps, undone=()):
    """What is to be done, stage by stage, with the commands as a user would type them (str)."""
    lines = []
    stage = None
    for step in steps:
        if step.stage != stage:
            stage = step.stage
            lines.append(f"{stage}")
        record = run.state.record(step)
        mark = "undo, do" if step in undone and record else "done" if run.state.is_done(step) else "do"
        if mark == "do" and record:
            mark = "go on"
        lines.append(f"  [{mark}] {step.id}")
        lines += [f"      {shlex.join(map(str, words))}" for words in step.action.commands()]
    return "\n".join(lines)


def snakemake_command(run, steps, jobs, executor=LOCAL, profile=None):
    """How Snakemake is asked to do `steps` of `run`, in a process of its own: its Python interface changes."""
    local = executor == LOCAL
    limits = [f"{kind}_alone=1" for kind in run.recipe.one_at_a_time] + ([f"gpu={run.n_gpus}"] if local else [])
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(run.place.work)),
        *("--config", f"work={run.place.work}"),
        # Locks, and what is complete or out of date, are known better here.
        *("--nolock", "--ignore-incomplete", "--rerun-triggers", "mtime"),
        *("--keep-going", "--scheduler", "greedy", "--nocolor"),
        *(["--cores", str(jobs)] if local else ["--executor", executor, "--jobs", str(jobs), "--latency-wait", "60"]),
        *(["--resources", *limits] if limits else []),
        *(["--profile", str(Path(profile).absolute())] if profile else []),
        *("--", *(str(run.state.sentinel(step)) for step in steps)),
    ]


def _run_snakemake(run, steps, to_do, lock, jobs, executor, profile):
    """Raises UserError where a step, or Snakemake, fails."""
    log = run.place.work / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = snakemake_command(run, steps, jobs, executor, profile)
    variables = variables_of_jobs(jobs, run.device) if executor == LOCAL else {}
    with open(log, "a", encoding="utf-8") as stream, Progress(run.state, to_do) as progress:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            # Held as long as Snakemake lives, should this process be killed alone.
            pass_fds=[lock],
            env={**os.environ, **variables, "PYTHONUNBUFFERED": "1"},
        )
        try:
            while process.poll() is None:
                progress.update()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
            progress.update()
        finally:
            if process.poll() is None:
                end_tree(process.pid, signal_number=signal.SIGINT, patience=_PATIENCE)
    if progress.failed:
        (step_id, error), *others = progress.failed.items()
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{step_id}{more}: {error}")
    if process.returncode != 0:
        raise UserError(f"Snakemake failed with exit code {process.returncode} (log: {log}): {last_line(log)}")
