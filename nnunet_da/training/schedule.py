"""Settings that every trainer of this package reads."""

from dataclasses import dataclass, field
from typing import Literal

from nnunet_da.settings import require
from nnunet_da.training.augmentation import AugmentationSettings
from nnunet_da.training.plateau import PlateauSettings


@dataclass(frozen=True)
class Schedule:
    """Length, seed, optimiser, loss and augmentation of a training; the defaults are nnU-Net's own.

    Attributes
    ----------
    num_epochs, num_val_iterations_per_epoch : int
    num_iterations_per_epoch : int or None
        None: ceil(N / batch), N the training cases of the fold in 3D and their slices in 2D.
    initial_lr, weight_decay : float
    optimizer : 'sgd' or 'adam'
        nnU-Net's SGD (Nesterov momentum 0.99), or Adam with PyTorch's other defaults.
    lr_schedule : 'polynomial', 'constant' or 'plateau'
        nnU-Net's decay, the initial learning rate throughout, or one that falls where the validation loss no longer
        does, pretext losses included.
    plateau : PlateauSettings
    loss : 'dice_ce' or 'dice'
        nnU-Net's sum of Dice and cross-entropy, or its Dice alone.
    deep_supervision : bool
    best_epoch : 'pseudo_dice' or 'loss'
        What ``checkpoint_best.pth`` is chosen by: nnU-Net's moving average of the pseudo Dice, or the lowest validation
        loss, pretext losses included.
    save_every : int
        A checkpoint to resume from is written every so many epochs.
    keep_epochs : tuple of int
        After each of these numbers of epochs, the weights are kept as ``checkpoint_epoch_N.pth``.
    seed : int or None
        Seeds weights, sampling and augmentation, anew in each epoch: with it, and with the environment variable
        ``nnUNet_n_proc_DA=0`` (no worker processes), two trainings on one CPU give equal weights, resumed or not.
    augmentation : AugmentationSettings
    """

    num_epochs: int = 1000
    num_iterations_per_epoch: int | None = 250
    num_val_iterations_per_epoch: int = 50
    initial_lr: float = 1e-2
    weight_decay: float = 3e-5
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr_schedule: Literal["polynomial", "constant", "plateau"] = "polynomial"
    plateau: PlateauSettings = field(default_factory=PlateauSettings)
    loss: Literal["dice_ce", "dice"] = "dice_ce"
    deep_supervision: bool = True
    best_epoch: Literal["pseudo_dice", "loss"] = "pseudo_dice"
    save_every: int = 50
    keep_epochs: tuple[int, ...] = ()
    seed: int | None = None
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)

    def __post_init__(self):
        for name in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch", "save_every"):
            require(getattr(self, name) is None or getattr(self, name) >= 1, name, "must be at least 1")
        beyond = [epoch for epoch in self.keep_epochs if not 1 <= epoch <= self.num_epochs]
        require(not beyond, "keep_epochs", f"must be within 1 and num_epochs ({self.num_epochs}); got {beyond}")
        require(self.initial_lr > 0, "initial_lr", "must be above 0")
        require(self.weight_decay >= 0, "weight_decay", "must not be negative")
        require(self.seed is None or self.seed >= 0, "seed", "must not be negative")
