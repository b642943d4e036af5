"""``run.json`` in the folder of a run: the config as it was checked, and how the run was started.

Snakemake and the steps read this, not the YAML file, which may be edited while they work.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nnunet_da.files import read_json, write_json
from nnunet_da.workflow.config import build_config
from nnunet_da.workflow.state import State

RUN_FILE = "run.json"
# What a step of any kind gets on a cluster unless the config says otherwise: minutes and MB.
RESOURCES = {"runtime": 240, "mem_mb": 16000, "cpus_per_task": 4}
GPU_RESOURCES = {"runtime": 2880, "mem_mb": 32000, "cpus_per_task": 12}


@dataclass(frozen=True)
class Recipe:
    """A pipeline: what it is configured by, and the steps that it makes of it.

    Attributes
    ----------
    module : str
        The module that holds it as ``RECIPE``.
    config_class : type
        Subclass of WorkflowConfig.
    make_plan : callable (config, Place)
        Gives the Plan. It is called in every step, so it must be cheap, and depend on nothing but its arguments.
    check : callable (config, Place)
        Raises UserError for what the dataclasses cannot know: paths, trainers, settings of trainings.
    template : Path
        A commented config.
    one_at_a_time : tuple of str
        Kinds of steps of which no two may run at once: they change one file.
    """

    module: str
    config_class: type
    make_plan: Callable
    check: Callable
    template: Path
    one_at_a_time: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a run takes place. `folder`: that of the config, which relative paths in it are relative to."""

    folder: Path
    work: Path
    device: str

    def path(self, text):
        """A path of the config."""
        return self.folder / text


@dataclass(frozen=True)
class Run:
    """A recipe with its config.

    source : the YAML file, for messages; block : what it holds; n_gpus : those that its steps share on this machine, 0
    where a cluster deals them out.
    """

    recipe: Recipe
    source: Path
    block: dict
    device: str
    n_gpus: int = 1

    @cached_property
    def config(self):
        return build_config(self.recipe.config_class, self.block, self.source)

    @cached_property
    def place(self):
        return Place(self.source.parent, self.source.parent / self.config.work, self.device)

    @cached_property
    def plan(self):
        return self.recipe.make_plan(self.config, self.place)

    @cached_property
    def state(self):
        return State(self.place.work)

    def resources(self, kind):
        """What Snakemake is told that a step of this kind needs (dict)."""
        on_gpu = self.device == "cuda" and any(step.gpu for step in self.plan if step.kind == kind)
        needed = {**GPU_RESOURCES, "gpu": 1} if on_gpu else RESOURCES
        alone = {f"{kind}_alone": 1} if kind in self.recipe.one_at_a_time else {}
        return {**needed, **self.config.resources.get(kind, {}), **alone}

    def write(self):
        content = {
            "recipe": self.recipe.module,
            "source": str(self.source),
            "config": self.block,
            "device": self.device,
            "n_gpus": self.n_gpus,
        }
        write_json(content, self.place.work / RUN_FILE)


def find_recipe(module):
    return importlib.import_module(module).RECIPE


def read_run_file(work):
    """The `Run` that was started in the folder `work`. Raises UserError where there is none."""
    content = read_json(Path(work) / RUN_FILE)
    return Run(
        find_recipe(content["recipe"]),
        Path(content["source"]),
        content["config"],
        content["device"],
        content["n_gpus"],
    )
