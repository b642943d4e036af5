"""A toy recipe under Snakemake: done once, killed and gone on with, refused, undone, and never run twice at a time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_recipe

from nnunet_da.errors import UserError
from nnunet_da.workflow.run import LOCAL, run_workflow, snakemake_command, write_template
from nnunet_da.workflow.run_file import Run
from nnunet_da.workflow.step import _gpu, main

pytest.importorskip("snakemake")
pytest.importorskip("psutil")

START = """
import sys, toy_recipe
from nnunet_da import cli
from nnunet_da.workflow import run
import signal
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    run.run_workflow(toy_recipe.RECIPE, sys.argv[1], device="cpu")
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The config of a toy run, as a path; ``toy.write`` and ``toy.lines`` beside it."""
    monkeypatch.setenv("PYTHONPATH", str(Path(toy_recipe.__file__).parent))
    return Toy(tmp_path)


class Toy:
    def __init__(self, folder):
        self.config = folder / "run.yaml"
        self.out = folder / "W" / "out"
        self.write()

    def write(self, text=""):
        self.config.write_text(f"work: W\n{text}", encoding="utf-8")

    def run(self, **options):
        run_workflow(toy_recipe.RECIPE, self.config, device="cpu", **options)

    def start(self, **environment):
        """The same in a process group of its own."""
        command = [sys.executable, "-c", START, str(self.config)]
        return subprocess.Popen(
            command,
            env={**os.environ, **environment},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def counts(self):
        """Step → how many times it was begun."""
        names = ("a", "b", "both", "last")
        return {name: len((self.out / name).read_text().split()) for name in names if (self.out / name).exists()}

    def wait_for(self, name):
        deadline = time.monotonic() + 120
        while not (self.out / name).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)


ONCE = {"a": 1, "b": 1, "both": 1, "last": 1}


def test_done_once_then_refused_when_changed_then_undone(toy, capsys):
    toy.run(jobs=2)
    assert toy.counts() == ONCE
    printed = capsys.readouterr()
    assert "[4/4] third: write/last done" in printed.out + printed.err
    toy.run()
    assert "all 4 steps were done before" in capsys.readouterr().out

    toy.write("other: 1\n")
    before = {path: path.read_bytes() for path in toy.out.parent.rglob("*.json")}
    with pytest.raises(UserError, match=r"run.yaml: other is 1, was 0: stage third .* --redo third"):
        toy.run()
    assert {path: path.read_bytes() for path in toy.out.parent.rglob("*.json")} == before
    toy.run(redo="third", dry_run=True)
    assert "[undo, do] write/last" in capsys.readouterr().out
    toy.run(redo="third")
    # The file was removed, and written anew; the others were left alone.
    assert toy.counts() == ONCE


def test_killed_at_one_step_after_the_other_and_gone_on_with(toy):
    for name in ("a", "both", "last"):
        killed = toy.start(TOY_KILL=name)
        killed.communicate(timeout=300)
        assert killed.returncode == -signal.SIGKILL
        assert not (toy.out.parent / "done" / ("join" if name == "both" else "write") / f"{name}.json").exists()
    toy.run()
    # What was killed was begun again, and nothing else.
    assert toy.counts() == {"a": 2, "b": 1, "both": 2, "last": 2}
    # Nor is anything left of what was not whole.
    assert {path.name for path in toy.out.iterdir()} == set(ONCE)


def test_a_step_that_fails_is_named_with_its_log_and_the_others_are_done(toy):
    toy.write("broken: b\n")
    with pytest.raises(
        UserError, match=r"write/b: .* failed with exit code 1 \(log: .*W/logs/write/b.log\): b is broken"
    ):
        toy.run()
    assert toy.counts() == {"a": 1, "b": 1}
    # Nothing depends on that setting, so that a mended cause is enough.
    toy.write()
    toy.run(until="second")
    assert toy.counts() == {"a": 1, "b": 2, "both": 1}
    with pytest.raises(UserError, match="stage thrd: not in this plan; did you mean 'third'"):
        toy.run(stages=["thrd"])


def test_stages_alone_need_what_they_rest_on(toy):
    with pytest.raises(UserError, match="stage second rests on stage first, which is not done"):
        toy.run(stages=["second"])
    assert not toy.out.parent.exists()


def test_killed_alone_it_is_not_started_twice_and_asked_to_end_it_ends_all(toy):
    psutil = pytest.importorskip("psutil")
    toy.write("wait: 100\n")
    first = toy.start()
    family = []
    try:
        toy.wait_for("a")
        family = psutil.Process(first.pid).children(recursive=True)
        os.kill(first.pid, signal.SIGKILL)
        first.communicate(timeout=60)
        with pytest.raises(UserError, match=f"process {first.pid} or a child of it still works on the workflow"):
            toy.run()
    finally:
        os.killpg(first.pid, signal.SIGKILL)
    psutil.wait_procs(family, timeout=60)

    second = toy.start()
    try:
        deadline = time.monotonic() + 120
        while toy.counts().get("a") != 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        family = psutil.Process(second.pid).children(recursive=True)
        second.terminate()
        second.communicate(timeout=120)
        assert second.returncode == 130
        assert psutil.wait_procs(family, timeout=10)[1] == []
    finally:
        if second.poll() is None:
            os.killpg(second.pid, signal.SIGKILL)
    toy.write()
    toy.run()
    assert toy.counts() == {"a": 3, "b": 1, "both": 1, "last": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words: [a, forbidden]", "words: 'forbidden' is not a word"),
        ("wrods: [a]", "wrods: unknown; did you mean 'words'"),
        ("resources: {jion: {runtime: 3}}", "resources.jion: no kind of step"),
    ],
)
def test_a_config_is_refused_before_anything_is_written(toy, text, message):
    toy.write(text)
    with pytest.raises(UserError, match=message):
        toy.run()
    assert list(toy.config.parent.iterdir()) == [toy.config]


def test_a_command_that_is_not_understood_is_refused(toy):
    def refuse(words):
        raise UserError(f"{words[0]}: not understood")

    with pytest.raises(UserError, match=r"run.yaml: python: not understood"):
        toy.run(check_command=refuse)


def test_without_snakemake_it_says_what_to_install(toy, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'snakemake is not installed; pip install "nnunet-da\[workflow\]"'):
        toy.run()


def test_a_dry_run_writes_nothing(toy, capsys):
    toy.run(dry_run=True)
    assert capsys.readouterr().out.splitlines()[:3] == ["first", "  [do] write/a", "      python -c a"]
    assert list(toy.config.parent.iterdir()) == [toy.config]


def toy_run(toy, device="cpu", n_gpus=1):
    return Run(toy_recipe.RECIPE, toy.config, {"work": "W", "resources": {"join": {"runtime": 7}}}, device, n_gpus)


def test_what_snakemake_is_told(toy, tmp_path):
    run = toy_run(toy)
    words = snakemake_command(run, list(run.plan), 3)
    assert words[words.index("--cores") + 1] == "3"
    assert words[words.index("--resources") + 1 :][:2] == ["join_alone=1", "gpu=1"]
    words = snakemake_command(run, [run.plan["join/both"]], 20, "slurm", tmp_path / "profile")
    assert words[words.index("--executor") + 1] == "slurm"
    assert words[words.index("--jobs") + 1] == "20"
    assert words[words.index("--profile") + 1] == str(tmp_path / "profile")
    assert "gpu=1" not in words
    assert words[-2:] == ["--", str(tmp_path / "W" / "done" / "join" / "both.json")]
    assert run.resources("join") == {"runtime": 7, "mem_mb": 16000, "cpus_per_task": 4, "join_alone": 1}
    assert LOCAL == "local"


def test_steps_side_by_side_get_a_gpu_each(toy, monkeypatch):
    import dataclasses

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    run = toy_run(toy, "cuda", 2)
    step = dataclasses.replace(run.plan["write/a"], gpu=True)
    with _gpu(run, step) as first, _gpu(run, step) as second:
        assert (first, second) == ({"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"})
        with pytest.raises(UserError, match="all 2 GPUs are taken"), _gpu(run, step):
            pass
    with _gpu(toy_run(toy, "cuda", 1), step) as alone:
        assert alone == {}


def test_a_step_can_be_done_by_hand(toy, capsys):
    assert main([str(toy.out.parent), "write/a"]) == 1
    assert "run.json: no such file" in capsys.readouterr().err
    toy_run(toy).write()
    assert main([str(toy.out.parent), "write/a"]) == 0
    assert toy.counts() == {"a": 1}


def test_a_template_is_written_once(tmp_path):
    write_template(toy_recipe.RECIPE, tmp_path / "new" / "run.yaml")
    with pytest.raises(UserError, match="is there already"):
        write_template(toy_recipe.RECIPE, tmp_path / "new" / "run.yaml")
