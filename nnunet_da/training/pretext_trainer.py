"""Training of pretext tasks beside segmentation (Algorithm 1 of the paper that `nnunet_da.pretext` names)."""

from dataclasses import dataclass, field

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import join
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed as dist

from nnunet_da.errors import UserError
from nnunet_da.pretext.head import PretextHead
from nnunet_da.pretext.network import DualTaskNetwork, without_heads
from nnunet_da.pretext.settings import PretextSettings
from nnunet_da.training import curves
from nnunet_da.training.configured_trainer import ConfiguredTrainer, read_settings, unwrap
from nnunet_da.training.loaders import DomainBalancedLoader, start_loader, stop_loader
from nnunet_da.training.schedule import Schedule


@dataclass(frozen=True)
class PretextTrainerSettings(Schedule):
    """Schedule, and the settings that all pretext tasks share. A trainer adds those of its tasks."""

    pretext: PretextSettings = field(default_factory=PretextSettings)


class PretextTrainer(ConfiguredTrainer):
    """Segmentation on labelled cases, and pretext tasks on the cases of every domain in turn.

    A trainer of the family names its tasks; each gets a head on the bottleneck of the shared encoder. The cases held
    out for validation are kept from the tasks too. Validation patches of the labelled cases give L_p for each epoch.

    Attributes
    ----------
    task_classes : tuple of type
        Of PretextTask. The settings of a task are the group of its name.
    """

    settings_class = PretextTrainerSettings
    task_classes = ()
    # Alternating updates leave the decoder out of one pass and the heads out of the other.
    leaves_parameters_unused = True

    def refuse_unsupported(self, configuration_manager, fold):
        name = type(self).__name__
        if self.domains is None:
            raise UserError(
                f"{name}: dataset.json has no domains; add the unlabelled scans with `nnunet-da add-domain`"
            )
        if configuration_manager.previous_stage_name is not None:
            raise UserError(
                f"{name}: the second stage of a cascade is not supported, since unlabelled cases have no prediction of "
                f"the first; train 3d_lowres or 3d_fullres"
            )
        self.domains.select(self.settings.pretext.domains or ())
        self.pretext_patch_size = list(configuration_manager.patch_size)
        if any(task.needs_square for task in self.task_classes):
            self.pretext_patch_size = square_patch(
                configuration_manager.patch_size, configuration_manager.pool_op_kernel_sizes
            )

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.tasks = ()
        self.dataloader_pretext = None
        self.pretext_optimizer = None

    @property
    def pretext_domains(self):
        """The domains whose cases the tasks see."""
        return self.domains.select(self.settings.pretext.domains or self.domains.names)

    @classmethod
    def build_tasks(cls, configuration_manager, n_channels):
        """The tasks, with the settings of the configuration, in their order."""
        chosen = read_settings(configuration_manager, cls.settings_class)
        spacing = configuration_manager.spacing[-len(configuration_manager.patch_size) :]
        return [task(getattr(chosen, task.name, None), spacing, n_channels) for task in cls.task_classes]

    @classmethod
    def build_network_architecture(
        cls, plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        unet = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
        if not (hasattr(unet, "encoder") and hasattr(unet, "decoder") and hasattr(unet.encoder, "output_channels")):
            raise UserError(f"{cls.__name__}: {type(unet).__name__} has no encoder and decoder to share; plan a U-Net")
        bottleneck = unet.encoder.output_channels[-1]
        tasks = cls.build_tasks(configuration_manager, num_input_channels)
        heads = {task.name: PretextHead(bottleneck, task.n_outputs, unet.encoder.conv_op) for task in tasks}
        return DualTaskNetwork(unet, heads)

    @staticmethod
    def paper_preset(configuration):
        """The paper's network and schedule ("Proposed method", "Parameter setting"), as settings (dict).

        The paper resizes every scan to 256 × 256 × 18 voxels. Here the patch has that size, or that of the median scan
        where it is smaller, at the spacing that nnU-Net planned: a resize would give each scan a spacing of its own.
        `configuration`: resolved (dict).
        """
        dimension = len(configuration["patch_size"])
        limits, multiples = (18, 256, 256)[-dimension:], (1, 16, 16)[-dimension:]
        median = configuration["median_image_size_in_voxels"][-dimension:]
        patch_size = [
            min(limit, -(-round(size) // multiple) * multiple)
            for limit, size, multiple in zip(limits, median, multiples, strict=True)
        ]
        return {
            "plan": {"network": "pooling_unet", "patch_size": patch_size, "batch_size": 1},
            "num_epochs": 100,
            "num_iterations_per_epoch": None,
            "num_val_iterations_per_epoch": 10,
            "initial_lr": 1e-3,
            "weight_decay": 0.0,
            "optimizer": "adam",
            "lr_schedule": "constant",
            "loss": "dice",
            "deep_supervision": False,
            "best_epoch": "loss",
            "save_every": 1,
            "augmentation": {"scheme": "simple", "flips": ["horizontal"], "rotation": 30.0, "brightness": 0.2},
        }

    @staticmethod
    def stock_models(weights, plans, configuration, dataset_json):
        """What `nnunet-da export` writes: the network without its heads."""
        return {"": (plans, without_heads(weights))}

    def initialize(self):
        super().initialize()
        self.tasks = self.build_tasks(self.configuration_manager, self.num_input_channels)
        curves.register(self.logger, self._curve_keys())

    def configure_optimizers(self):
        optimizer, scheduler = super().configure_optimizers()
        self.pretext_optimizer = optimizer
        if self.settings.pretext.optimizer == "adam" and self.settings.pretext.update == "alternating":
            network = unwrap(self.network)
            parameters = [*network.encoder.parameters(), *network.pretext_heads.parameters()]
            self.pretext_optimizer = torch.optim.Adam(parameters, self.settings.pretext.lr)
            # Its state is kept with that of nnU-Net's, in the same entry of the checkpoint.
            optimizer.register_state_dict_post_hook(self._add_pretext_state)
            optimizer.register_load_state_dict_pre_hook(self._take_pretext_state)
        return optimizer, scheduler

    def _add_pretext_state(self, optimizer, state):
        return {**state, "pretext": self.pretext_optimizer.state_dict()}

    def _take_pretext_state(self, optimizer, state):
        state = dict(state)
        if "pretext" not in state:
            raise UserError(
                f"{self.output_folder}: the checkpoint holds no state of the optimiser of L_p; it was trained with "
                f"another pretext.optimizer or pretext.update"
            )
        self.pretext_optimizer.load_state_dict(state.pop("pretext"))
        return state

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        if self.pretext_optimizer is not self.optimizer:
            decay = self.optimizer.param_groups[0]["lr"] / self.initial_lr
            for group in self.pretext_optimizer.param_groups:
                group["lr"] = decay * self.settings.pretext.lr

    def get_dataloaders(self):
        loaders = super().get_dataloaders()
        cases_by_domain = self._pretext_cases()
        loader = DomainBalancedLoader(
            self.preprocessed_dataset([case for cases in cases_by_domain for case in cases]),
            cases_by_domain,
            self._pretext_batch_size(),
            self.settings.pretext.rotation,
            self.pretext_patch_size,
            self.label_manager,
        )
        # A pretext batch takes 0.6 to 0.9 of the loading time of one for segmentation (docs/benchmarks.md).
        self.dataloader_pretext = start_loader(loader, self.device, share=0.75)
        return loaders

    def _pretext_cases(self):
        """The cases of each pretext domain that training may see."""
        train, val = self.do_split()
        held_out = set(val) - set(train)
        by_domain = [[case for case in domain.cases if case not in held_out] for domain in self.pretext_domains]
        for domain, cases in zip(self.pretext_domains, by_domain, strict=True):
            if not cases:
                raise UserError(f"setting pretext.domains: in fold {self.fold} every case of {domain.name} is held out")
        return by_domain

    def _pretext_batch_size(self):
        """The pretext batch of this process: an equal share under DDP, two at least for batch normalisation."""
        world_size = dist.get_world_size() if self.is_ddp else 1
        return max(2, -(-self.settings.pretext.batch_size // world_size))

    def on_train_end(self):
        super().on_train_end()
        stop_loader(self.dataloader_pretext)

    def train_step(self, batch):
        pretext_batch = next(self.dataloader_pretext)
        images, answers = self._sample_tasks(pretext_batch["data"], flip=True)
        if self.settings.pretext.update == "joint":
            return self._joint_step(batch, images, answers, pretext_batch["keys"])

        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            _, outputs = self.network(None, images)
            loss = self._pretext_loss(outputs, answers)
        self.update_weights(self.settings.pretext.weight * loss, self.pretext_optimizer)
        results = super().train_step(batch)
        return {**results, **self._score(loss, outputs, answers, pretext_batch["keys"])}

    def _joint_step(self, batch, images, answers, keys):
        data = batch["data"].to(self.device, non_blocking=True)
        # A list of resolutions under deep supervision.
        target = batch["target"]
        target = [t.to(self.device) for t in target] if isinstance(target, list) else target.to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            segmentation, outputs = self.network(data, images)
            segmentation_loss = self.loss(segmentation, target)
            loss = self._pretext_loss(outputs, answers)
        self.update_weights(segmentation_loss + self.settings.pretext.weight * loss)
        return {"loss": segmentation_loss.detach().cpu().numpy(), **self._score(loss, outputs, answers, keys)}

    def validation_step(self, batch):
        # Before the segmentation step, which moves the batch on; the network is in evaluation mode, without gradients.
        images, answers = self._sample_tasks(batch["data"], flip=False)
        with self.autocast():
            _, outputs = self.network(None, images)
            loss = self._pretext_loss(outputs, answers)
        return {**super().validation_step(batch), **self._score(loss, outputs, answers, batch["keys"])}

    def _sample_tasks(self, data, flip):
        """Inputs and answers by task, on the device, of patches that may be larger than what the tasks are shown."""
        data = centre_crop(data.to(self.device, non_blocking=True), self.pretext_patch_size)
        inputs, answers = {}, {}
        for task in self.tasks:
            images = flip_rows(data) if flip and task.flips_rows else data
            inputs[task.name], answers[task.name] = task.sample(images)
        return inputs, answers

    def _pretext_loss(self, outputs, answers):
        """L_p, summed over the tasks."""
        return sum(task.loss(outputs[task.name], answers[task.name]) for task in self.tasks)

    def _score(self, loss, outputs, answers, keys):
        """What an epoch's curves are made of: L_p, and per task and domain the number of images and their scores."""
        domains = np.array([self.domains.index_of_case(key) for key in keys])
        counts = np.zeros((2, len(self.tasks), len(self.domains)))
        for index, task in enumerate(self.tasks):
            scores = task.score(outputs[task.name].detach(), answers[task.name])
            np.add.at(counts, (0, index, domains), 1)
            np.add.at(counts, (1, index, domains), scores.cpu().numpy())
        return {"pretext_loss": loss.detach().cpu().numpy(), "pretext_counts": counts}

    def validation_losses(self):
        """L_seg + weight · L_p (the paper, "Parameter setting": the sum chooses the best epoch)."""
        pretext = self.logger.get_value("pretext_val_loss", step=None)
        weight = self.settings.pretext.weight
        return [loss + weight * l_p for loss, l_p in zip(super().validation_losses(), pretext, strict=True)]

    def on_train_epoch_end(self, train_outputs):
        super().on_train_epoch_end(train_outputs)
        loss, scores = self._epoch_scores(train_outputs)
        self.logger.log("pretext_train_loss", loss, self.current_epoch)
        for task, by_domain in zip(self.tasks, scores, strict=True):
            for domain, value in zip(self.domains, by_domain, strict=True):
                if domain in self.pretext_domains:
                    self.logger.log(self._score_key(task, domain), float(value), self.current_epoch)

    def on_validation_epoch_end(self, val_outputs):
        super().on_validation_epoch_end(val_outputs)
        loss, _ = self._epoch_scores(val_outputs)
        self.logger.log("pretext_val_loss", loss, self.current_epoch)

    def _epoch_scores(self, outputs):
        """Mean L_p, and the mean score per task and domain, NaN for a domain that was not seen; over all processes."""
        losses = [float(output["pretext_loss"]) for output in outputs]
        counts = sum(output["pretext_counts"] for output in outputs)
        if self.is_ddp:
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, (losses, counts))
            losses = [loss for of_process, _ in gathered for loss in of_process]
            counts = sum(of_process for _, of_process in gathered)
        seen, scores = counts
        return float(np.mean(losses)), np.divide(scores, seen, out=np.full_like(scores, np.nan), where=seen > 0)

    def on_epoch_end(self):
        epoch = self.current_epoch
        logged = {key: self.logger.get_value(key, step=None)[epoch] for key in self._curve_keys()}
        self.print_to_log_file("pretext", {key.removeprefix("pretext_"): round(v, 4) for key, v in logged.items()})
        super().on_epoch_end()
        if self.local_rank == 0:
            self._plot_curves()

    def _score_key(self, task, domain):
        return f"pretext_score/{task.name}/{domain.name}"

    def _curve_keys(self):
        scores = [self._score_key(task, domain) for task in self.tasks for domain in self.pretext_domains]
        return ["pretext_train_loss", "pretext_val_loss", *scores]

    def _plot_curves(self):
        def curve(key):
            return self.logger.get_value(key, step=None)

        losses = {"training": curve("pretext_train_loss"), "validation": curve("pretext_val_loss")}
        panels = [("pretext loss", losses, None)]
        for task in self.tasks:
            scores = {domain.name: curve(self._score_key(task, domain)) for domain in self.pretext_domains}
            chance = task.chance(self._pretext_batch_size())
            panels.append((f"{task.score_name} of the {task.name} task in training", scores, chance))
        curves.plot(panels, join(self.output_folder, "pretext.png"))


def square_patch(patch_size, strides):
    """The largest patch within `patch_size` that is square in the last two axes and that the network takes.

    `strides`: of every stage, per axis. Raises UserError where there is none.
    """
    total = np.prod(strides, axis=0)
    multiple = int(np.lcm(total[-2], total[-1]))
    edge = min(patch_size[-2:]) // multiple * multiple
    if edge == 0:
        raise UserError(
            f"plan.patch_size: {list(patch_size)} holds no square whose edge is a multiple of {multiple}, which the "
            f"rotation task needs; choose a larger patch"
        )
    return [*patch_size[:-2], edge, edge]


def centre_crop(images, size):
    """The centre of (batch, channels, *space) of the spatial `size`, which is nowhere larger."""
    for axis, (length, wanted) in enumerate(zip(images.shape[2:], size, strict=True), start=2):
        images = images.narrow(axis, (length - wanted) // 2, wanted)
    return images


def flip_rows(images):
    """Each image flipped along the last axis but one (the paper's vertical flip) with a chance of one half."""
    chosen = torch.rand(len(images), device=images.device) < 0.5
    return torch.where(chosen.reshape(-1, *[1] * (images.ndim - 1)), images.flip(-2), images)
