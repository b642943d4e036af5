"""What recipes make their plans with: steps that nearly every pipeline has."""

from nnunet_da.paths import PREPROCESSED
from nnunet_da.workflow.actions import PLANS, Command, Prepare, Train
from nnunet_da.workflow.config import assignment, flatten
from nnunet_da.workflow.steps import Step


class Pipeline:
    """The steps of one config, which has a `preset` and a `suffix`, added stage by stage."""

    def __init__(self, config, place):
        self.config = config
        self.place = place
        self.steps = []

    def add(self, kind, name, stage, action, needs=(), settings=None, **more):
        step = Step(kind, name, stage, action, tuple(needs), settings or {}, **more)
        self.steps.append(step)
        return step

    def prepare(self, stage, dataset, configurations, needs, settings, plans_of=None):
        settings = {**settings, "configurations": list(configurations)}
        action = Prepare(dataset, tuple(configurations), plans_of)
        return self.add("plan", dataset.folder_name, stage, action, needs, settings)

    def configure(self, stage, dataset, base, suffix, block, ready, settings, preset=()):
        """The name of the configuration that a training takes, and the step after which it is there."""
        if not block and not preset:
            return base, ready
        name = f"{base}_{suffix}"
        words = (
            *("nnunet-da", "configure", "-d", dataset.id, "-c", base, "--as", name, *preset),
            *(word for key, value in flatten(block).items() for word in ("--set", assignment(key, value))),
        )
        settings = {**settings, "preset": self.config.preset, "suffix": self.config.suffix}
        action = Command(words, changes=(dataset.folder(PREPROCESSED) / f"{PLANS}.json",))
        return name, self.add("configure", f"{dataset.folder_name}-{name}", stage, action, [ready], settings)

    def train(self, stage, model, fold, ready, block, is_own=True):
        """The step that trains a fold with the settings `block` (dict)."""
        action = Train(model, fold, self.place.device, flatten(block).get("num_epochs"), is_own)
        settings = {"trainer": model.trainer}
        return self.add("train", name_of(model, fold), stage, action, [ready], settings, gpu=True)


def name_of(model, fold):
    """Names a training in files of a run."""
    return f"{model.dataset.folder_name}-{model.configuration}-fold_{fold}"


def flags(block):
    """``{"structures": "vs", "link": True, "np": 2}`` as ``--structures vs --link -np 2``; a list is several words."""
    words = []
    for name, value in block.items():
        if value is False or value is None:
            continue
        # Short ones are nnU-Net's.
        words.append(f"-{name}" if len(name) <= 2 else f"--{name.replace('_', '-')}")
        if value is not True:
            words += [str(part) for part in value] if isinstance(value, list) else [str(value)]
    return words
