"""Self-supervised pretraining on the cases of every domain, labelled or not (`nnunet_da.pretraining`)."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import distributed as dist

from nnunet_da.errors import UserError
from nnunet_da.pretraining.contrast import global_contrast, local_contrast, spread
from nnunet_da.pretraining.corruption import corrupt, masked_l1
from nnunet_da.pretraining.network import NOTHING_TO_SEGMENT, ContrastiveNetwork, RegressionNetwork, transferable
from nnunet_da.pretraining.scale import UnitScale
from nnunet_da.pretraining.settings import PretrainingSettings
from nnunet_da.pretraining.views import corresponding_regions, draw_view
from nnunet_da.training import curves
from nnunet_da.training.configured_trainer import ConfiguredTrainer, read_settings, unwrap
from nnunet_da.training.loaders import DomainBalancedLoader, start_loader
from nnunet_da.training.pretrained import write_pretrained_weights
from nnunet_da.training.schedule import Schedule

RESULT = "pretrained.pth"
TRAIN_SPREAD, VAL_SPREAD = "embedding_train_spread", "embedding_val_spread"


@dataclass(frozen=True)
class PretrainerSettings(Schedule):
    """Schedule, and the settings of pretraining."""

    pretraining: PretrainingSettings = field(default_factory=PretrainingSettings)


class Pretrainer(ConfiguredTrainer):
    """What regression and contrast share: the cases, the loaders, a log without segmentation, and the result.

    Trains on every case of the dataset, and with a numbered fold on all but those that it holds out, which give the
    validation loss. Writes ``pretrained.pth`` beside the last checkpoint, to fine-tune from. The network has no
    segmentation layers: nothing is segmented at the end, and neither prediction nor export is possible.

    A trainer of the family builds its network (`pretraining_network`) and its loss (`pretraining_loss`).

    Attributes
    ----------
    min_batch_size : int
    curve_keys : tuple of str
        Further curves; those of the spread of the embeddings, where the loss gives embeddings.
    """

    settings_class = PretrainerSettings
    use_of_best = "fine-tune from it with -pretrained_weights"
    min_batch_size = 1
    curve_keys = ()

    def refuse_unsupported(self, configuration_manager, fold):
        name = type(self).__name__
        if configuration_manager.previous_stage_name is not None:
            raise UserError(
                f"{name}: the second stage of a cascade is not supported, since it is trained on predictions of the "
                f"first; pretrain 3d_lowres or 3d_fullres"
            )
        if configuration_manager.batch_size < self.min_batch_size:
            raise UserError(
                f"{name}: setting plan.batch_size: must be at least {self.min_batch_size}, since an image is "
                f"contrasted with the others of its batch"
            )

    @classmethod
    def build_network_architecture(
        cls, plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        unet = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, False
        )
        if not (hasattr(unet, "encoder") and hasattr(unet, "decoder") and hasattr(unet.decoder, "seg_layers")):
            raise UserError(f"{cls.__name__}: {type(unet).__name__} has no encoder and decoder to train; plan a U-Net")
        settings = read_settings(configuration_manager, cls.settings_class).pretraining
        return cls.pretraining_network(unet, num_input_channels, settings)

    @staticmethod
    def pretraining_network(unet, n_channels, settings):
        """The PretrainingNetwork around a U-Net; `n_channels`: of the images; `settings`: PretrainingSettings."""
        raise NotImplementedError

    def pretraining_loss(self, images):
        """The loss of a batch of images (batch, channels, *space), a scalar, and embeddings (n, features) or None."""
        raise NotImplementedError

    @staticmethod
    def paper_preset(configuration):
        """The paper's schedule ("Experiments"), as settings (dict). Its batch size and network are not stated."""
        return {
            "num_epochs": 1000,
            "num_iterations_per_epoch": None,
            "num_val_iterations_per_epoch": 10,
            "lr_schedule": "plateau",
            "save_every": 10,
        }

    @classmethod
    def stock_models(cls, weights, plans, configuration, dataset_json):
        raise UserError(f"{cls.__name__}: {NOTHING_TO_SEGMENT}")

    def initialize(self):
        # There are no segmentation layers.
        self.enable_deep_supervision = False
        super().initialize()
        curves.register(self.logger, self.curve_keys)

    def build_optimizer(self):
        if self.settings.pretraining.optimizer == "shared":
            return super().build_optimizer()
        return torch.optim.Adam(self.network.parameters(), self.settings.pretraining.lr)

    def _set_batch_size_and_oversample(self):
        super()._set_batch_size_and_oversample()
        if self.is_ddp:
            # Equal in all processes, which gather embeddings from one another.
            self.batch_size = -(-self.configuration_manager.batch_size // dist.get_world_size())

    def do_split(self):
        if self.domains is None:
            return super().do_split()
        cases = list(self.domains.cases)
        if self.fold == "all":
            return cases, cases
        _, held_out = super().do_split()
        return [case for case in cases if case not in set(held_out)], held_out

    def get_dataloaders(self):
        for cases in self.do_split():
            # Refuses one that was never preprocessed.
            self.preprocessed_dataset(cases)
        iterators = []
        for dataset, share in zip(self.get_tr_and_val_datasets(), (1.0, 0.5), strict=True):
            loader = DomainBalancedLoader(
                dataset,
                self._groups(dataset.identifiers),
                self.batch_size,
                0,
                self.configuration_manager.patch_size,
                self.label_manager,
            )
            iterators.append(start_loader(loader, self.device, share))
            next(iterators[-1])
        return tuple(iterators)

    def _groups(self, cases):
        """The cases that are drawn equally often as a group: of each domain, or all in one."""
        if self.domains is None or self.settings.pretraining.sampling == "by_size":
            return [list(cases)]
        present = set(cases)
        groups = [[case for case in domain.cases if case in present] for domain in self.domains]
        return [group for group in groups if group]

    def on_train_start(self):
        super().on_train_start()
        train, val = self.do_split()
        held_out = "validation loss on the same" if self.fold == "all" else f"validation loss on {len(val)} held out"
        self.print_to_log_file(f"Pretraining on {len(train)} cases, whether or not they have labels; {held_out}")

    def train_step(self, batch):
        self.optimizer.zero_grad(set_to_none=True)
        loss, result = self._forward(batch)
        self.update_weights(loss)
        return result

    def validation_step(self, batch):
        return self._forward(batch)[1]

    def _forward(self, batch):
        images = batch["data"].to(self.device, non_blocking=True)
        with self.autocast():
            loss, embeddings = self.pretraining_loss(images)
        result = {"loss": loss.detach().cpu().numpy()}
        if embeddings is not None:
            result["spread"] = spread(embeddings).cpu().numpy()
        return loss, result

    def shown(self, unit, scale):
        """What the network is shown of images in [0, 1], as `intensities` says; `scale`: UnitScale."""
        return unit if self.settings.pretraining.intensities == "unit" else scale.from_unit(unit)

    def on_train_epoch_end(self, train_outputs):
        super().on_train_epoch_end(train_outputs)
        self._log_spread(TRAIN_SPREAD, train_outputs)

    def on_validation_epoch_end(self, val_outputs):
        self.log_validation_without_segmentation(val_outputs)
        self._log_spread(VAL_SPREAD, val_outputs)

    def _log_spread(self, key, outputs):
        if key in self.curve_keys:
            self.logger.log(key, self.mean_over_processes(outputs, "spread"), self.current_epoch)

    @property
    def chooses_best_by_loss(self):
        """Always: there is no pseudo Dice."""
        return True

    def on_epoch_end(self):
        epoch = self.current_epoch
        for key in self.curve_keys:
            self.print_to_log_file(key, round(self.logger.get_value(key, step=None)[epoch], 4))
        super().on_epoch_end()
        if self.local_rank == 0:
            self._plot_curves()

    def _plot_curves(self):
        def curve(key):
            return self.logger.get_value(key, step=None)

        panels = [("loss", {"training": curve("train_losses"), "validation": curve("val_losses")}, None)]
        if self.curve_keys:
            spreads = {"training": curve(TRAIN_SPREAD), "validation": curve(VAL_SPREAD)}
            panels.append(("spread of the embeddings (0: collapsed, 1: even)", spreads, None))
        curves.plot(panels, Path(self.output_folder, "pretraining.png"))

    def on_train_end(self):
        super().on_train_end()
        if self.local_rank == 0 and not self.disable_checkpointing:
            self.write_result()

    def write_result(self):
        """Writes the weights to fine-tune from, as they are now."""
        write_pretrained_weights(
            Path(self.output_folder, RESULT),
            transferable(unwrap(self.network).state_dict()),
            type(self).__name__,
            self.plans_manager.plans,
            self.configuration_name,
            self.dataset_json,
        )

    def perform_actual_validation(self, save_probabilities=False):
        self.print_to_log_file(
            f"Nothing to segment after pretraining, so no validation. Fine-tune with -pretrained_weights "
            f"{Path(self.output_folder, RESULT)}"
        )


class RegressionPretrainer(Pretrainer):
    """Recovers corrupted pixels ("Regression Loss")."""

    @staticmethod
    def pretraining_network(unet, n_channels, settings):
        return RegressionNetwork(unet, n_channels)

    def pretraining_loss(self, images):
        chosen = self.settings.pretraining.corruption
        scale = UnitScale.of(images)
        unit = scale.to_unit(images)
        corrupted, mask = corrupt(unit, chosen.fraction, chosen.sigma)
        reconstruction = self.network(self.shown(corrupted, scale), "reconstruct")
        return masked_l1(reconstruction, unit, mask), None


class ContrastivePretrainer(Pretrainer):
    """Contrasts images for the encoder, then regions for the decoder ("Contrastive Loss")."""

    min_batch_size = 2
    curve_keys = (TRAIN_SPREAD, VAL_SPREAD)
    # The decoder in the first stage, the encoder where it is frozen in the second, and the head of the other.
    leaves_parameters_unused = True

    def refuse_unsupported(self, configuration_manager, fold):
        super().refuse_unsupported(configuration_manager, fold)
        if self.settings.pretraining.contrast.stages == "both" and self.settings.num_epochs < 2:
            raise UserError("setting num_epochs: must be at least 2 where pretraining.contrast.stages is both")

    @staticmethod
    def pretraining_network(unet, n_channels, settings):
        chosen = settings.contrast
        return ContrastiveNetwork(unet, chosen.n_features, chosen.encoder == "frozen", chosen.pooling)

    @property
    def first_local_epoch(self):
        """The epoch with which the second stage begins; the number of epochs where it never does."""
        chosen = self.settings.pretraining.contrast
        if chosen.stages != "both":
            return 0 if chosen.stages == "local" else self.num_epochs
        return min(max(round(chosen.global_share * self.num_epochs), 1), self.num_epochs - 1)

    @property
    def stage_lengths(self):
        first = self.first_local_epoch
        return [n_epochs for n_epochs in (first, self.num_epochs - first) if n_epochs]

    @property
    def is_local(self):
        """Whether the current epoch is of the second stage."""
        return self.current_epoch >= self.first_local_epoch

    def on_train_start(self):
        starts_with_decoder = self.is_local and self.current_epoch == 0
        if starts_with_decoder and not self.starts_from_pretrained_weights:
            raise UserError(
                f"{type(self).__name__}: pretraining.contrast.stages=local continues a result of the first stage; give "
                f"it with -pretrained_weights"
            )
        super().on_train_start()

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        if self.current_epoch in (0, self.first_local_epoch):
            encoder = self.settings.pretraining.contrast.encoder
            local = f"local contrast, for the decoder, with the encoder {encoder}"
            self.print_to_log_file(f"Stage: {local if self.is_local else 'global contrast, for the encoder'}")

    def pretraining_loss(self, images):
        chosen = self.settings.pretraining
        scale = UnitScale.of(images)
        views, windows = zip(*(draw_view(scale.to_unit(images), chosen.views) for _ in range(2)), strict=True)
        shown = torch.cat([self.shown(view, scale) for view in views])
        if not self.is_local:
            embeddings = self.network(shown, "embed")
            return global_contrast(*embeddings.chunk(2), chosen.contrast.tau), embeddings
        contrast = chosen.contrast
        shape = images.shape[2:]
        positions = corresponding_regions(*windows, shape, contrast.regions, contrast.region_size)
        points = self.network(shown, "embed_points", positions=torch.cat(positions))
        # A region is described by all of its points (Chaitanya et al.).
        embeddings = points.unflatten(1, (contrast.regions, -1)).flatten(2)
        loss = local_contrast(*embeddings.chunk(2), contrast.tau, contrast.negatives)
        return loss, embeddings.flatten(0, 1)

    def validation_losses(self):
        """Those of another stage are of another loss: infinite, so that the best epoch is of the last stage."""
        losses = super().validation_losses()
        first = self.first_local_epoch
        return losses if len(losses) <= first else [np.inf] * first + losses[first:]
