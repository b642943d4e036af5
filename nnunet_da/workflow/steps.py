"""What a workflow consists of: steps that need one another, in stages."""

import hashlib
import json
from dataclasses import dataclass, field

from nnunet_da.errors import UserError, nearest
from nnunet_da.workflow.actions import Action


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes
    ----------
    kind : str
        Its rule: steps of one kind need the same of a machine.
    name : str
        Tells steps of a kind apart; a file is named so.
    stage : str
        The stages of a plan are begun one after the other, and can be asked for by name.
    action : Action
    needs : tuple of Step
        Done before it.
    settings : dict
        Setting of the config → value, for all that it depends on beside what it needs: where one of them changes, what
        was done is out of date.
    gpu : bool
        Whether it computes on the device.
    """

    kind: str
    name: str
    stage: str
    action: Action
    needs: tuple["Step", ...] = ()
    settings: dict = field(default_factory=dict)
    gpu: bool = False

    @property
    def id(self):
        return f"{self.kind}/{self.name}"


class Plan:
    """Steps in an order in which they can be done."""

    def __init__(self, steps):
        self._steps = {}
        self._fingerprints = {}
        for step in steps:
            if step.id in self._steps or any(needed.id not in self._steps for needed in step.needs):
                raise ValueError(f"step {step.id} stands twice, or before what it needs")
            self._steps[step.id] = step
            content = [step.id, step.settings, [self._fingerprints[needed.id] for needed in step.needs]]
            digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
            self._fingerprints[step.id] = digest.hexdigest()[:16]

    def __iter__(self):
        return iter(self._steps.values())

    def __getitem__(self, step_id):
        return self._steps[step_id]

    @property
    def stages(self):
        """Names, in order."""
        return tuple(dict.fromkeys(step.stage for step in self))

    @property
    def kinds(self):
        return tuple(dict.fromkeys(step.kind for step in self))

    def fingerprint(self, step):
        """Of the settings that `step` and all that it rests on depend on (str)."""
        return self._fingerprints[step.id]

    def of_stages(self, stages):
        """The steps of `stages` (names). Raises UserError for a stage that the plan has not."""
        self.require_stages(stages)
        return [step for step in self if step.stage in stages]

    def until(self, stage):
        """The names of the stages up to `stage`, which is among them."""
        self.require_stages([stage])
        return self.stages[: self.stages.index(stage) + 1]

    def require_stages(self, stages):
        for stage in stages:
            if stage not in self.stages:
                raise UserError(
                    f"stage {stage}: not in this plan{nearest(stage, self.stages)} ({', '.join(self.stages)})"
                )

    def needed_for(self, steps):
        """`steps` and all that they need, directly or not."""
        found = {step.id for step in steps}
        for step in reversed(list(self)):
            if step.id in found:
                found.update(needed.id for needed in step.needs)
        return [step for step in self if step.id in found]

    def resting_on(self, steps):
        """`steps` and all that needs one of them, directly or not."""
        found = {step.id for step in steps}
        for step in self:
            if any(needed.id in found for needed in step.needs):
                found.add(step.id)
        return [step for step in self if step.id in found]
