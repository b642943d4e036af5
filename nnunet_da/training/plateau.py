"""A learning rate that falls where the validation loss no longer does."""

import math
from dataclasses import dataclass

from torch.optim.lr_scheduler import ReduceLROnPlateau

from nnunet_da.errors import UserError
from nnunet_da.settings import require

STATE = "plateau"


@dataclass(frozen=True)
class PlateauSettings:
    """When the learning rate falls, and by how much; read with ``lr_schedule=plateau``.

    "The learning rate was halved whenever the validation loss plateaued" is all that the paper on pretraining says
    (`nnunet_da.pretraining`); patience and min_delta are the defaults of Keras, in which it was implemented.

    Attributes
    ----------
    factor : float
        What the learning rate is multiplied by.
    patience : int
        It falls after more than so many epochs in a row whose validation loss is no new minimum.
    min_delta : float
        By how much a new minimum must lie below the last one.
    """

    factor: float = 0.5
    patience: int = 10
    min_delta: float = 1e-4

    def __post_init__(self):
        require(0 < self.factor < 1, "plateau.factor", "must be between 0 and 1")
        require(self.patience >= 0, "plateau.patience", "must not be negative")
        require(self.min_delta >= 0, "plateau.min_delta", "must not be negative")


class PlateauScheduler:
    """PyTorch's ReduceLROnPlateau where nnU-Net steps it by the epoch, without a loss, and does not save its state.

    The loss comes through `observe`. The state lies in that of the optimiser, which is saved and loaded with every
    checkpoint; the learning rate is there anyway.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    settings : PlateauSettings
    """

    def __init__(self, optimizer, settings):
        self.optimizer = optimizer
        self.initial_lr = [group["lr"] for group in optimizer.param_groups]
        # A loss may be negative (Dice): min_delta is no share of it.
        self.scheduler = ReduceLROnPlateau(
            optimizer,
            factor=settings.factor,
            patience=settings.patience,
            threshold=settings.min_delta,
            threshold_mode="abs",
        )
        optimizer.register_state_dict_post_hook(self._add_state)
        optimizer.register_load_state_dict_pre_hook(self._take_state)

    def step(self, epoch):
        """nnU-Net's call at the start of an epoch. The first one starts anew, with the initial learning rate."""
        if epoch > 0:
            return
        for group, lr in zip(self.optimizer.param_groups, self.initial_lr, strict=True):
            group["lr"] = lr
        self.scheduler.best, self.scheduler.num_bad_epochs = math.inf, 0

    def observe(self, loss):
        """The validation loss of an epoch, at its end; may lower the learning rate."""
        self.scheduler.step(float(loss))

    def _add_state(self, optimizer, state):
        return {**state, STATE: {"best": self.scheduler.best, "num_bad_epochs": self.scheduler.num_bad_epochs}}

    def _take_state(self, optimizer, state):
        state = dict(state)
        if STATE not in state:
            raise UserError("setting lr_schedule: plateau has no state in the checkpoint, which had another schedule")
        saved = state.pop(STATE)
        self.scheduler.best, self.scheduler.num_bad_epochs = saved["best"], saved["num_bad_epochs"]
        return state


class StagedScheduler:
    """Schedulers one after the other, each by the epochs of its own stage.

    Parameters
    ----------
    stages : sequence of (int, scheduler)
        The first epoch of each stage, the first of them 0, and what has a method `step` that takes an epoch.
    """

    def __init__(self, stages):
        self.stages = list(stages)

    def step(self, epoch):
        first, scheduler = next(stage for stage in reversed(self.stages) if stage[0] <= epoch)
        scheduler.step(epoch - first)
