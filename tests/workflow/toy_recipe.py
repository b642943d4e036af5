"""A recipe of four quick steps in three stages, for tests of the machinery: each appends its name to a file."""

import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from nnunet_da.errors import UserError
from nnunet_da.workflow.actions import Action
from nnunet_da.workflow.config import WorkflowConfig
from nnunet_da.workflow.run_file import Recipe
from nnunet_da.workflow.steps import Plan, Step


@dataclass(frozen=True, kw_only=True)
class ToyConfig(WorkflowConfig):
    """`words`: what the steps write; `other`: a setting of the last step alone; `broken`: a step that fails."""

    words: tuple[str, ...] = ("a", "b")
    other: int = 0
    broken: str = ""
    wait: float = 0.0


@dataclass(frozen=True)
class Write(Action):
    """Appends a line to `path`, and as a command fails where it is told to. Killed where TOY_KILL names it."""

    name: str
    path: Path
    fails: bool
    wait: float

    def commands(self):
        return [("python", "-c", self.name)]

    def replaced(self):
        return (self.path,)

    def do(self, job):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(f"{self.name}\n")
        # As `atomic_folder` does.
        own = Path(tempfile.mkdtemp(prefix=f".{self.name}.", dir=self.path.parent))
        if os.environ.get("TOY_KILL") == self.name:
            os.killpg(0, signal.SIGKILL)
        time.sleep(self.wait)
        own.rmdir()
        if self.fails:
            job.run(Path(sys.executable).name, "-c", f"raise SystemExit('{self.name} is broken')")

    def discard(self):
        self.path.unlink(missing_ok=True)


def make_plan(config, place):
    def write(kind, name, stage, needs, settings):
        action = Write(name, place.work / "out" / name, config.broken == name, config.wait)
        return Step(kind, name, stage, action, tuple(needs), settings)

    first = [write("write", word, "first", [], {"words": word}) for word in config.words]
    middle = write("join", "both", "second", first, {})
    return Plan([*first, middle, write("write", "last", "third", [middle], {"other": config.other})])


def check(config, place):
    if "forbidden" in config.words:
        raise UserError("words: 'forbidden' is not a word")


RECIPE = Recipe(__name__, ToyConfig, make_plan, check, Path(__file__), one_at_a_time=("join",))
