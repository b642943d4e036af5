"""Settings that every trainer of this package reads."""

from dataclasses import dataclass

from nnunet_da.settings import require


@dataclass(frozen=True)
class Schedule:
    """Length and seed of a training; the defaults are nnU-Net's own.

    Attributes
    ----------
    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch : int
    initial_lr, weight_decay : float
    save_every : int
        A checkpoint to resume from is written every so many epochs.
    seed : int or None
        Seeds weights, sampling and augmentation, anew in each epoch: with it, and with the environment variable
        ``nnUNet_n_proc_DA=0`` (no worker processes), two trainings on one CPU give equal weights, resumed or not.
    """

    num_epochs: int = 1000
    num_iterations_per_epoch: int = 250
    num_val_iterations_per_epoch: int = 50
    initial_lr: float = 1e-2
    weight_decay: float = 3e-5
    save_every: int = 50
    seed: int | None = None

    def __post_init__(self):
        for name in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch", "save_every"):
            require(getattr(self, name) >= 1, name, "must be at least 1")
        require(self.initial_lr > 0, "initial_lr", "must be above 0")
        require(self.weight_decay >= 0, "weight_decay", "must not be negative")
        require(self.seed is None or self.seed >= 0, "seed", "must not be negative")
