"""What every trainer of this package adds to nnU-Net's: settings, seed, labelled cases only, and sound checkpoints."""

import math
import random
from pathlib import Path

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import distributed as dist
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_da import settings
from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file
from nnunet_da.training.augmentation import blur_untimed, simple_transforms
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.configurations import NETWORKS, all_settings
from nnunet_da.training.plateau import PlateauScheduler, StagedScheduler
from nnunet_da.training.pretrained import check_pretrained_weights, describe_transfer, pretrained_weights_argument
from nnunet_da.training.schedule import Schedule
from nnunet_da.training.threads import honour_thread_variable

# Settings that nnUNetTrainer keeps as attributes, under the same name.
NNUNET_ATTRIBUTES = (
    "num_epochs",
    "num_iterations_per_epoch",
    "num_val_iterations_per_epoch",
    "initial_lr",
    "weight_decay",
    "save_every",
)


class ConfiguredTrainer(nnUNetTrainer):
    """nnUNetTrainer with the settings of its configuration.

    On a dataset with domains it trains and validates on labelled cases alone, `fold all` included, and refuses a fold
    that splits_final.json does not have (nnU-Net would draw a random one, unlabelled cases among it).

    Attributes
    ----------
    settings_class : type
        Dataclass of the settings; a trainer overrides it with a subclass of Schedule that adds those of its methods.
    settings : Schedule
    domains : Domains or None
        Of the dataset; None where dataset.json has no domains.
    takes_pretrained_weights : bool
        Whether a training may start from ``-pretrained_weights``: not where the network is none of nnU-Net's own.
    leaves_parameters_unused : bool
        Whether a step may leave parts of the network without a gradient, which DDP must be told.
    use_of_best : str
        What ``checkpoint_best.pth`` is good for, as the log says where it is chosen by the loss.
    plateau : PlateauScheduler or None
        That of ``lr_schedule=plateau``.
    """

    settings_class = Schedule
    takes_pretrained_weights = True
    leaves_parameters_unused = False
    use_of_best = "predict with it by nnUNetv2_predict with -chk checkpoint_best.pth"

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        # Everything that can be refused is refused here, before nnU-Net makes a folder.
        self.dataset_json = dataset_json
        plans_manager = PlansManager(plans)
        configuration_manager = plans_manager.get_configuration(configuration)
        self.settings = read_settings(configuration_manager, self.settings_class)
        self.domains = read_domains(dataset_json) if "domains" in dataset_json else None
        if self.settings.deep_supervision and configuration_manager.network_arch_class_name in NETWORKS.values():
            name = configuration_manager.network_arch_class_name.rpartition(".")[2]
            raise UserError(f"configuration {configuration}: {name} has one output; set deep_supervision=false")
        self.refuse_unsupported(configuration_manager, fold)
        self._check_pretrained_weights(plans, configuration)
        honour_thread_variable(device)
        plans = self.prepare_plans(plans, configuration)
        super().__init__(plans, configuration, fold, dataset_json, device)
        for name in NNUNET_ATTRIBUTES:
            setattr(self, name, getattr(self.settings, name))
        self.enable_deep_supervision = self.settings.deep_supervision
        self.plateau = None
        self._first_weights = None
        self._seed_epoch(0)

    def refuse_unsupported(self, configuration_manager, fold):
        """Raises UserError for what this trainer cannot do. Called first; `settings` and `domains` are set."""

    def _check_pretrained_weights(self, plans, configuration):
        path = pretrained_weights_argument()
        if path is None:
            return
        if not self.takes_pretrained_weights:
            raise UserError(
                f"{type(self).__name__}: -pretrained_weights is not supported, since norms or layers of its network "
                f"are none of nnU-Net's own; docs/pretraining.md names the trainers that take them"
            )
        check_pretrained_weights(path, plans, configuration, self.dataset_json)

    def prepare_plans(self, plans, configuration):
        """The plans (dict) that the model is built from and saved with; `plans` stay as they are."""
        return plans

    def initialize(self):
        super().initialize()
        self.print_to_log_file(f"Settings: {settings.to_block(self.settings)}")
        if self.is_ddp and self.leaves_parameters_unused:
            self.network = DistributedDataParallel(
                self.network.module, device_ids=[self.local_rank], find_unused_parameters=True
            )
        self._first_weights = next(self.network.parameters()).detach().clone()

    @property
    def starts_from_pretrained_weights(self):
        """Whether nnU-Net has loaded weights since the network was made, and the training has not begun."""
        if self.current_epoch > 0 or self._first_weights is None:
            return False
        return not torch.equal(self._first_weights, next(self.network.parameters()))

    def build_optimizer(self):
        """The optimiser, at its initial learning rate."""
        optimizer, _ = super().configure_optimizers()
        if self.settings.optimizer == "adam":
            optimizer = torch.optim.Adam(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer

    @property
    def stage_lengths(self):
        """Numbers of epochs of the stages of training, one after the other; the learning rate starts anew in each."""
        return [self.num_epochs]

    def configure_optimizers(self):
        optimizer = self.build_optimizer()
        stages = self.stage_lengths
        if self.settings.lr_schedule == "plateau":
            self.plateau = PlateauScheduler(optimizer, self.settings.plateau)
            schedulers = [self.plateau] * len(stages)
        else:
            exponent = 0.9 if self.settings.lr_schedule == "polynomial" else 0.0
            lr = optimizer.param_groups[0]["lr"]
            schedulers = [PolyLRScheduler(optimizer, lr, n_epochs, exponent) for n_epochs in stages]
        if len(stages) == 1:
            return optimizer, schedulers[0]
        first = np.cumsum([0, *stages[:-1]]).tolist()
        return optimizer, StagedScheduler(zip(first, schedulers, strict=True))

    def _build_loss(self):
        loss = super()._build_loss()
        if self.settings.loss == "dice":
            # nnU-Net's sum leaves out a term whose weight is 0.
            (loss.loss if isinstance(loss, DeepSupervisionWrapper) else loss).weight_ce = 0
        return loss

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802
        augmentation = self.settings.augmentation
        if augmentation.scheme == "nnunet":
            return super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        patch_size = self.configuration_manager.patch_size
        mirror_axes = augmentation.mirror_axes(len(patch_size))
        # None, where nnU-Net's predictor would stumble over no axes.
        self.inference_allowed_mirroring_axes = mirror_axes or None
        in_plane_only = len(patch_size) == 3
        radians = math.radians(augmentation.rotation)
        to_read = augmentation.size_to_read(patch_size)
        return (-radians, radians), in_plane_only, to_read, mirror_axes

    def get_training_transforms(self, patch_size, rotation, deep_supervision_scales, *others, **keywords):
        # nnU-Net declares it static and calls it on the trainer, so that it may as well use its settings.
        steps = self.own_transforms(patch_size)
        if steps is None:
            transforms = nnUNetTrainer.get_training_transforms(
                patch_size, rotation, deep_supervision_scales, *others, **keywords
            )
            if self.settings.seed is not None:
                blur_untimed(transforms)
            return transforms
        masked = [channel for channel, use in enumerate(keywords.pop("use_mask_for_norm") or ()) if use]
        mask = [MaskImageTransform(apply_to_channels=masked, channel_idx_in_seg=0, set_outside_to=0)] if masked else []
        # What validation does to a label map is what training does last.
        last = self.get_validation_transforms(deep_supervision_scales, **keywords)
        return ComposeTransforms([*steps, *mask, last])

    def own_transforms(self, patch_size):
        """The steps (list) of an augmentation other than nnU-Net's; None: nnU-Net's is used."""
        augmentation = self.settings.augmentation
        return None if augmentation.scheme == "nnunet" else simple_transforms(augmentation, patch_size)

    def get_tr_and_val_datasets(self):
        train, val = super().get_tr_and_val_datasets()
        if self.settings.num_iterations_per_epoch is None:
            n_samples = len(train.identifiers)
            if len(self.configuration_manager.patch_size) == 2:
                # (channels, slices, rows, columns); only the header is read.
                n_samples = sum(train.load_case(case)[0].shape[1] for case in train.identifiers)
            self.num_iterations_per_epoch = math.ceil(n_samples / self.configuration_manager.batch_size)
            self.print_to_log_file(f"{self.num_iterations_per_epoch} iterations per epoch for {n_samples} samples")
        return train, val

    def _seed_epoch(self, epoch):
        """Seeds all generators for an epoch, so that a resumed training draws what it would have drawn."""
        if self.settings.seed is None:
            return
        entropy = np.random.SeedSequence([self.settings.seed, epoch, self.local_rank])
        for_python, for_numpy, for_torch = (int(state) for state in entropy.generate_state(3))
        random.seed(for_python)
        np.random.seed(for_numpy)
        torch.manual_seed(for_torch)

    def on_epoch_start(self):
        self._seed_epoch(self.current_epoch + 1)
        super().on_epoch_start()

    def on_epoch_end(self):
        # Before the checkpoint to resume from: a run that is killed between the two writes this one again.
        if self.current_epoch + 1 in self.settings.keep_epochs:
            self.save_checkpoint(str(Path(self.output_folder, f"checkpoint_epoch_{self.current_epoch + 1}.pth")))
        if self.plateau is not None:
            self.plateau.observe(self.validation_losses()[-1])
        if not self.chooses_best_by_loss:
            return super().on_epoch_end()
        # nnU-Net keeps an epoch whose moving average is above the best one: now none.
        self._best_ema = math.inf
        super().on_epoch_end()
        *earlier, total = self.validation_losses()
        if total <= min(earlier, default=math.inf):
            self.print_to_log_file(f"Lowest validation loss so far: {total:.4f}")
            # Counted on already; a checkpoint is of the epoch that ended.
            self.current_epoch -= 1
            self.save_checkpoint(str(Path(self.output_folder, "checkpoint_best.pth")))
            self.current_epoch += 1
        if self.current_epoch == self.num_epochs:
            # ASCII: nnU-Net writes its log in the encoding of the locale.
            self.print_to_log_file(
                f"checkpoint_best.pth is of epoch {int(np.argmin([*earlier, total]))}, of the lowest validation loss; "
                f"{self.use_of_best}"
            )

    @property
    def chooses_best_by_loss(self):
        """Whether ``checkpoint_best.pth`` is of the epoch with the lowest validation loss."""
        return self.settings.best_epoch == "loss"

    def validation_losses(self):
        """The validation loss of every epoch (list): what chooses the best one and what a plateau is of.

        Here L_seg; trainers add their own losses.
        """
        return list(self.logger.get_value("val_losses", step=None))

    def do_split(self):
        if self.domains is None:
            return super().do_split()
        if self.fold == "all":
            return list(self.domains.labelled_cases), list(self.domains.labelled_cases)
        splits_file = Path(self.preprocessed_dataset_folder_base, "splits_final.json")
        if not splits_file.is_file():
            raise UserError(
                f"{splits_file}: no such file; a dataset with domains has splits over its labelled cases, which "
                f"`nnunet-da add-domain` and `nnunet-da convert` write"
            )
        splits = load_json(splits_file)
        if not 0 <= self.fold < len(splits):
            raise UserError(
                f"{splits_file}: fold {self.fold} is not one of its {len(splits)} folds (0 to {len(splits) - 1})"
            )
        train, val = super().do_split()
        unlabelled = sorted(set(self.domains.unlabelled_cases) & {*train, *val})
        if unlabelled:
            raise UserError(f"{splits_file}: fold {self.fold} holds the unlabelled case {unlabelled[0]}")
        return train, val

    def on_train_start(self):
        for leftover in Path(self.output_folder).glob(".checkpoint_*"):
            leftover.unlink(missing_ok=True)
        if self.domains is not None:
            # Saved with plans and checkpoints: the order of the domains is part of the meaning of the weights.
            configuration = self.plans_manager.plans["configurations"][self.configuration_name]
            block = self.configuration_manager.configuration.get(settings.BLOCK, {})
            configuration[settings.BLOCK] = {**block, settings.TRAINED_DOMAINS: self.trained_domains()}
        super().on_train_start()
        if self.starts_from_pretrained_weights:
            self.print_to_log_file(describe_transfer(unwrap(self.network)))

    def trained_domains(self):
        """Names of the domains → their structures, in order, as they are saved with the model."""
        return {domain.name: list(domain.labels) for domain in self.domains}

    def save_checkpoint(self, filename):
        if self.local_rank != 0 or self.disable_checkpointing:
            return super().save_checkpoint(filename)
        with atomic_file(filename) as temporary:
            super().save_checkpoint(str(temporary))

    def load_checkpoint(self, filename_or_checkpoint):
        """As nnU-Net's, but no code in the file is run, and the domains must be those it was trained on, in order."""
        if not self.was_initialized:
            self.initialize()
        checkpoint = filename_or_checkpoint
        if not isinstance(checkpoint, dict):
            checkpoint = read_checkpoint(filename_or_checkpoint, self.device)
        if self.domains is not None:
            trained = tuple(checkpoint["init_args"]["dataset_json"].get("domains", {}))
            if trained != self.domains.names:
                raise UserError(
                    f"{self.output_folder}: trained on the domains {', '.join(trained)}, but dataset.json has "
                    f"{', '.join(self.domains.names)}; train anew, or under another configuration name"
                )
        unwrap(self.network).load_state_dict(checkpoint["network_weights"])
        self.my_init_kwargs = checkpoint["init_args"]
        self.current_epoch = checkpoint["current_epoch"]
        self.logger.load_checkpoint(checkpoint["logging"])
        self._best_ema = checkpoint["_best_ema"]
        self.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])

    def update_weights(self, loss, optimizer=None):
        """One step down the gradient of `loss`, clipped and scaled as nnU-Net does it.

        `optimizer`: the one that steps; default: that of the trainer. Gradients must have been cleared before.
        """
        optimizer = optimizer or self.optimizer
        if self.grad_scaler is None:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            optimizer.step()
            return
        self.grad_scaler.scale(loss).backward()
        self.grad_scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.grad_scaler.step(optimizer)
        self.grad_scaler.update()

    def autocast(self):
        """A block in which nnU-Net computes in mixed precision: on a GPU."""
        return torch.autocast("cuda") if self.device.type == "cuda" else dummy_context()

    def mean_over_processes(self, outputs, key):
        """The mean of one entry of the results of an epoch's steps (list of dict), over all processes.

        NaN where none has it.
        """
        values = [float(output[key]) for output in outputs if key in output]
        if self.is_ddp:
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, values)
            values = [value for of_process in gathered for value in of_process]
        return float(np.mean(values)) if values else float("nan")

    def log_validation_without_segmentation(self, val_outputs):
        """What nnU-Net's log wants in every epoch, where no segmented voxels are counted."""
        self.logger.log("mean_fg_dice", float("nan"), self.current_epoch)
        self.logger.log("dice_per_class_or_region", [], self.current_epoch)
        self.logger.log("val_losses", self.mean_over_processes(val_outputs, "loss"), self.current_epoch)

    def preprocessed_dataset(self, cases):
        """nnU-Net's dataset of the preprocessed `cases`. Raises UserError where one was never preprocessed."""
        present = set(self.dataset_class.get_identifiers(self.preprocessed_dataset_folder))
        absent = [case for case in cases if case not in present]
        if absent:
            raise UserError(
                f"{self.preprocessed_dataset_folder}: case {absent[0]} ({len(absent)} in all) is not preprocessed; run "
                f"nnUNetv2_plan_and_preprocess again"
            )
        return self.dataset_class(self.preprocessed_dataset_folder, list(cases))


def read_settings(configuration_manager, settings_class):
    """The settings of `settings_class` in a configuration (ConfigurationManager).

    A configuration may serve several trainers: groups that other trainers of the package declare are passed over here.
    Where a trainer's default is another than that of the rest, `settings_class.own_defaults` (dict) has it.
    """
    own_defaults = getattr(settings_class, "own_defaults", {})
    block = settings.merge(own_defaults, configuration_manager.configuration.get(settings.BLOCK, {}))
    own = set(settings_class.__dataclass_fields__)
    foreign = set(block) - own - {settings.TRAINED_DOMAINS}
    if foreign:
        foreign &= set(all_settings().__dataclass_fields__)
    return settings.build(settings_class, block, ignore={settings.TRAINED_DOMAINS, *foreign})


def unwrap(network):
    """The network itself, inside DDP and torch.compile."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network
