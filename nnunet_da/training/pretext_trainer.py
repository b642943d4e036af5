"""Training of pretext tasks beside segmentation (Algorithm 1 of the paper that `nnunet_da.pretext` names)."""

from dataclasses import dataclass, field

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import join
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import dummy_context
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from nnunet_da.errors import UserError
from nnunet_da.pretext.head import PretextHead
from nnunet_da.pretext.network import DualTaskNetwork, without_heads
from nnunet_da.pretext.settings import PretextSettings
from nnunet_da.training import curves
from nnunet_da.training.configured_trainer import ConfiguredTrainer
from nnunet_da.training.loaders import DomainBalancedLoader, InPlaneAugmentation, start_loader, stop_loader
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
        Of ClassificationTask. The settings of a task are the group of its name.
    """

    settings_class = PretextTrainerSettings
    task_classes = ()

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

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        spacing = self.configuration_manager.spacing[-len(self.configuration_manager.patch_size) :]
        self.tasks = [task(getattr(self.settings, task.name), spacing) for task in self.task_classes]
        self.dataloader_pretext = None

    @property
    def pretext_domains(self):
        """The domains whose cases the tasks see."""
        return self.domains.select(self.settings.pretext.domains or self.domains.names)

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
        heads = {
            task.name: PretextHead(bottleneck, len(task.class_names), unet.encoder.conv_op) for task in cls.task_classes
        }
        return DualTaskNetwork(unet, heads)

    @staticmethod
    def stock_weights(weights):
        """The weights that nnU-Net's own network takes."""
        return without_heads(weights)

    def initialize(self):
        super().initialize()
        curves.register(self.logger, self._curve_keys())
        if self.is_ddp:
            # Alternating updates leave the decoder out of one pass and the heads out of the other.
            self.network = DistributedDataParallel(
                self.network.module, device_ids=[self.local_rank], find_unused_parameters=True
            )

    def get_dataloaders(self):
        loaders = super().get_dataloaders()
        patch_size = self.configuration_manager.patch_size
        cases_by_domain = self._pretext_cases()
        loader = DomainBalancedLoader(
            self.preprocessed_dataset([case for cases in cases_by_domain for case in cases]),
            cases_by_domain,
            self._pretext_batch_size(),
            InPlaneAugmentation(patch_size, self.settings.pretext.rotation),
            patch_size,
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
        images, labels = self._sample_tasks(pretext_batch["data"])
        if self.settings.pretext.update == "joint":
            return self._joint_step(batch, images, labels, pretext_batch["keys"])

        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            _, logits = self.network(None, images)
            loss = self._pretext_loss(logits, labels)
        self.update_weights(self.settings.pretext.weight * loss)
        results = super().train_step(batch)
        return {**results, **self._score(loss, logits, labels, pretext_batch["keys"])}

    def _joint_step(self, batch, images, labels, keys):
        data = batch["data"].to(self.device, non_blocking=True)
        # A list of resolutions under deep supervision.
        target = batch["target"]
        target = [t.to(self.device) for t in target] if isinstance(target, list) else target.to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            output, logits = self.network(data, images)
            segmentation_loss = self.loss(output, target)
            loss = self._pretext_loss(logits, labels)
        self.update_weights(segmentation_loss + self.settings.pretext.weight * loss)
        return {"loss": segmentation_loss.detach().cpu().numpy(), **self._score(loss, logits, labels, keys)}

    def validation_step(self, batch):
        # Before the segmentation step, which moves the batch on; the network is in evaluation mode, without gradients.
        images, labels = self._sample_tasks(batch["data"])
        with self._autocast():
            _, logits = self.network(None, images)
            loss = self._pretext_loss(logits, labels)
        return {**super().validation_step(batch), **self._score(loss, logits, labels, batch["keys"])}

    def _autocast(self):
        return torch.autocast("cuda") if self.device.type == "cuda" else dummy_context()

    def _sample_tasks(self, data):
        """Transformed images and labels by task, on the device."""
        data = data.to(self.device, non_blocking=True)
        samples = {task.name: task.sample(data) for task in self.tasks}
        return {name: images for name, (images, _) in samples.items()}, {name: y for name, (_, y) in samples.items()}

    def _pretext_loss(self, logits, labels):
        """L_p, summed over the tasks."""
        return sum(task.loss(logits[task.name], labels[task.name]) for task in self.tasks)

    def _score(self, loss, logits, labels, keys):
        """What an epoch's curves are made of: L_p, and per task and domain the number of answers and of right ones."""
        domains = np.array([self.domains.index_of_case(key) for key in keys])
        counts = np.zeros((2, len(self.tasks), len(self.domains)))
        for index, task in enumerate(self.tasks):
            right = (logits[task.name].argmax(1) == labels[task.name]).cpu().numpy()
            np.add.at(counts, (0, index, domains), 1)
            np.add.at(counts, (1, index, domains), right)
        return {"pretext_loss": loss.detach().cpu().numpy(), "pretext_counts": counts}

    def on_train_epoch_end(self, train_outputs):
        super().on_train_epoch_end(train_outputs)
        loss, accuracy = self._epoch_scores(train_outputs)
        self.logger.log("pretext_train_loss", loss, self.current_epoch)
        for task, by_domain in zip(self.tasks, accuracy, strict=True):
            for domain, value in zip(self.domains, by_domain, strict=True):
                if domain in self.pretext_domains:
                    self.logger.log(self._accuracy_key(task, domain), float(value), self.current_epoch)

    def on_validation_epoch_end(self, val_outputs):
        super().on_validation_epoch_end(val_outputs)
        loss, _ = self._epoch_scores(val_outputs)
        self.logger.log("pretext_val_loss", loss, self.current_epoch)

    def _epoch_scores(self, outputs):
        """Mean L_p, and the accuracy per task and domain, NaN for a domain that was not seen; over all processes."""
        losses = [float(output["pretext_loss"]) for output in outputs]
        counts = sum(output["pretext_counts"] for output in outputs)
        if self.is_ddp:
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, (losses, counts))
            losses = [loss for of_process, _ in gathered for loss in of_process]
            counts = sum(of_process for _, of_process in gathered)
        seen, right = counts
        return float(np.mean(losses)), np.divide(right, seen, out=np.full_like(right, np.nan), where=seen > 0)

    def on_epoch_end(self):
        epoch = self.current_epoch
        logged = {key: self.logger.get_value(key, step=None)[epoch] for key in self._curve_keys()}
        self.print_to_log_file("pretext", {key.removeprefix("pretext_"): round(v, 4) for key, v in logged.items()})
        super().on_epoch_end()
        if self.local_rank == 0:
            self._plot_curves()

    def _accuracy_key(self, task, domain):
        return f"pretext_accuracy/{task.name}/{domain.name}"

    def _curve_keys(self):
        accuracies = [self._accuracy_key(task, domain) for task in self.tasks for domain in self.pretext_domains]
        return ["pretext_train_loss", "pretext_val_loss", *accuracies]

    def _plot_curves(self):
        def curve(key):
            return self.logger.get_value(key, step=None)

        losses = {"training": curve("pretext_train_loss"), "validation": curve("pretext_val_loss")}
        panels = [("pretext loss", losses, None)]
        for task in self.tasks:
            accuracy = {domain.name: curve(self._accuracy_key(task, domain)) for domain in self.pretext_domains}
            panels.append((f"accuracy of the {task.name} task in training", accuracy, 1 / task.n_outputs))
        curves.plot(panels, join(self.output_folder, "pretext.png"))
