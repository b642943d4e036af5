"""Training of the translation between two domains (`nnunet_da.translation`)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn

from nnunet_da.errors import UserError
from nnunet_da.training import curves
from nnunet_da.training.configured_trainer import ConfiguredTrainer, read_settings, unwrap
from nnunet_da.training.loaders import start_loader
from nnunet_da.training.schedule import Schedule
from nnunet_da.training.unpaired import UnitLoader, UnpairedLoader, ranges_of
from nnunet_da.translation.direction import source_and_target
from nnunet_da.translation.image_buffer import ImageBuffer
from nnunet_da.translation.losses import consistency, convincing, discerning, kspace_consistency
from nnunet_da.translation.network import TRANSLATES, TranslationNetwork
from nnunet_da.translation.pictures import draw
from nnunet_da.translation.settings import TranslationSettings

LOSSES = ("adversarial", "cycle", "kspace", "identity", "segmentation", "segmentation_of_fakes", "discriminators")
VAL_CYCLE = "translation/val_cycle"
PICTURES = "translated"
N_PICTURES = 4
STATE = "translation"


@dataclass(frozen=True)
class TranslationTrainerSettings(Schedule):
    """Schedule, and the settings of the translation."""

    own_defaults: ClassVar = {"num_epochs": 100}

    translation: TranslationSettings = field(default_factory=TranslationSettings)


class MultiplicativeDecay:
    """Multiplies the learning rate of optimisers by one factor after every epoch.

    Parameters
    ----------
    optimizers : sequence of torch.optim.Optimizer
    lr : float
        That of the first epoch.
    factor : float
    """

    def __init__(self, optimizers, lr, factor):
        self.optimizers = optimizers
        self.lr = lr
        self.factor = factor

    def step(self, epoch):
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * self.factor**epoch


class TranslationTrainer(ConfiguredTrainer):
    """CycleGAN with segmenters: slices of a labelled domain in the look of another one, and back.

    Trains on the labelled cases of the source and on all cases of the target; with a numbered fold, on none that it
    holds out. The network segments only to keep shapes: neither prediction nor export is possible.
    """

    settings_class = TranslationTrainerSettings
    takes_pretrained_weights = False
    # The discriminators in the generators' step and the reverse, and segmenters where no slice is segmented.
    leaves_parameters_unused = True
    use_of_best = "translate with it by nnunet-da translate with -chk checkpoint_best.pth"

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        super().__init__(plans, configuration, fold, dataset_json, device)
        chosen = self.settings.translation
        self.discriminator_optimizer = None
        self.buffers = {name: ImageBuffer(chosen.buffer_size) for name in ("source", "target")}
        self.examples = None

    def refuse_unsupported(self, configuration_manager, fold):
        name = type(self).__name__
        patch_size, chosen = configuration_manager.patch_size, self.settings.translation
        if self.domains is None:
            raise UserError(f"{name}: the dataset has no domains to translate between; nnunet-da add-domain adds one")
        if len(patch_size) != 2:
            raise UserError(f"{name}: translates slices; train a 2d configuration")
        source_and_target(self.domains, chosen)
        multiple = 2 ** (len(chosen.features) - 1)
        if any(size % multiple or size < 2 * multiple for size in patch_size):
            raise UserError(
                f"{name}: setting plan.patch_size: must be multiples of {multiple}, at least twice that, for the "
                f"{len(chosen.features)} levels of translation.features; got {list(patch_size)}"
            )
        # The last two layers take a pixel each.
        smallest = 3 * 2**chosen.discriminator_layers
        if min(patch_size) < smallest:
            raise UserError(
                f"{name}: setting translation.discriminator_layers: {chosen.discriminator_layers} layers need patches "
                f"of {smallest} × {smallest}; got {list(patch_size)}"
            )

    @classmethod
    def build_network_architecture(
        cls, plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        settings = read_settings(configuration_manager, cls.settings_class).translation
        return TranslationNetwork(num_input_channels, num_output_channels, settings)

    @staticmethod
    def paper_preset(configuration):
        """The paper's schedule (section 2.1), as settings (dict). Its batch size and filters are not stated."""
        return {
            "num_epochs": 50,
            "num_iterations_per_epoch": None,
            "num_val_iterations_per_epoch": 10,
            "save_every": 1,
        }

    @classmethod
    def stock_models(cls, weights, plans, configuration, dataset_json):
        raise UserError(f"{cls.__name__}: {TRANSLATES}")

    @property
    def source_and_target(self):
        """The two domains (Domain, Domain)."""
        return source_and_target(self.domains, self.settings.translation)

    def initialize(self):
        self.enable_deep_supervision = False
        super().initialize()
        curves.register(self.logger, [*self._train_keys, VAL_CYCLE])

    def _do_i_compile(self):
        # The steps go through other parts each time.
        return False

    def set_deep_supervision_enabled(self, enabled):
        """There is none."""

    def configure_optimizers(self):
        network, chosen = unwrap(self.network), self.settings.translation
        optimizer = torch.optim.Adam(network.generators.parameters(), chosen.lr, chosen.betas)
        self.discriminator_optimizer = torch.optim.Adam(network.discriminators.parameters(), chosen.lr, chosen.betas)
        # Kept with that of the generators, in the same entry of the checkpoint.
        optimizer.register_state_dict_post_hook(self._add_state)
        optimizer.register_load_state_dict_pre_hook(self._take_state)
        factor = chosen.final_lr ** (1 / max(1, self.num_epochs - 1))
        return optimizer, MultiplicativeDecay((optimizer, self.discriminator_optimizer), chosen.lr, factor)

    def _add_state(self, optimizer, state):
        buffers = {name: buffer.state_dict() for name, buffer in self.buffers.items()}
        return {**state, STATE: {"discriminators": self.discriminator_optimizer.state_dict(), "buffers": buffers}}

    def _take_state(self, optimizer, state):
        state = dict(state)
        own = state.pop(STATE)
        self.discriminator_optimizer.load_state_dict(own["discriminators"])
        for name, buffer in self.buffers.items():
            buffer.load_state_dict(own["buffers"][name])
        return state

    def do_split(self):
        """The labelled cases of the source, to train and to validate on."""
        source, _ = self.source_and_target
        own = set(source.labelled)
        train, val = ([case for case in cases if case in own] for cases in super().do_split())
        for cases, verb in ((train, "train"), (val, "validate")):
            if not cases:
                raise UserError(
                    f"fold {self.fold}: holds no labelled case of domain '{source.name}' to {verb} on; train another "
                    f"fold, or fold all"
                )
        return train, val

    @property
    def target_cases(self):
        """The cases of the target: all, but those with labels that the fold holds out."""
        _, target = self.source_and_target
        train, val = super().do_split()
        held_out = set(val) - set(train)
        return [case for case in target.cases if case not in held_out]

    def get_dataloaders(self):
        chosen = self.settings.translation
        for cases in self.do_split():
            self.preprocessed_dataset(cases)
        train, val = self.get_tr_and_val_datasets()
        target = self.preprocessed_dataset(self.target_cases)
        self.print_to_log_file(
            "Translating {} into {}: ".format(*(domain.name for domain in self.source_and_target))
            + f"{len(train.identifiers)} labelled cases of the one, {len(target.identifiers)} cases of the other; "
            f"validation on {len(val.identifiers)} of the one"
        )
        ranges = {}
        for dataset in (train, val, target):
            ranges |= ranges_of(dataset, chosen.percentiles)
        labels = self.get_validation_transforms(
            None,
            regions=self.label_manager.foreground_regions if self.label_manager.has_regions else None,
            ignore_label=self.label_manager.ignore_label,
        )

        def loader(source, batch_size, foreground):
            common = (ranges, batch_size, self.configuration_manager.patch_size, self.label_manager)
            return UnpairedLoader(
                UnitLoader(source, *common, foreground=foreground, transforms=labels), UnitLoader(target, *common)
            )

        self.examples = self._draw_examples(loader(val, N_PICTURES, 1.0))
        iterators = []
        for dataset, share in ((train, 1.0), (val, 0.5)):
            iterators.append(start_loader(loader(dataset, self.batch_size, chosen.foreground), self.device, share))
            next(iterators[-1])
        return tuple(iterators)

    def _draw_examples(self, loader):
        """A batch that is the same in every run on these cases."""
        state = np.random.get_state()
        np.random.seed(0)
        batch = loader.generate_train_batch()
        np.random.set_state(state)
        return batch

    @property
    def segments_fakes(self):
        """Whether fake target slices are segmented in this epoch."""
        return self.current_epoch >= self.settings.translation.segment_fakes_after

    def generator_losses(self, made, source, target, labels):
        """The losses of an `Exchange`, by name; those of both domains are summed, and those of weight 0 left out."""
        chosen = self.settings.translation
        losses = {
            "adversarial": convincing(made.fake_target_scores) + convincing(made.fake_source_scores),
            "cycle": consistency(made.restored_source, source) + consistency(made.restored_target, target),
        }
        if chosen.weight_kspace > 0:
            losses["kspace"] = kspace_consistency(made.restored_source, source) + kspace_consistency(
                made.restored_target, target
            )
        if made.same_source is not None:
            losses["identity"] = consistency(made.same_source, source) + consistency(made.same_target, target)
        if made.logits is not None:
            losses["segmentation"] = self.loss(made.logits.float(), labels)
        if made.fake_logits is not None:
            losses["segmentation_of_fakes"] = self.loss(made.fake_logits.float(), labels)
        return losses

    def weighted(self, losses):
        """The sum of the generators' losses (by name), each with its weight."""
        chosen = self.settings.translation
        weights = {
            "adversarial": chosen.weight_adversarial,
            "cycle": chosen.weight_cycle,
            "kspace": chosen.weight_kspace,
            "identity": chosen.weight_identity,
            "segmentation": chosen.weight_segmentation,
            "segmentation_of_fakes": chosen.weight_segmentation,
        }
        return sum(weights[name] * loss for name, loss in losses.items())

    def _to_device(self, batch):
        return [batch[name].to(self.device, non_blocking=True) for name in ("source", "target", "labels")]

    def _exchange(self, source, target, segment_fakes):
        return self.network(
            source,
            "exchange",
            target=target,
            identity=self.settings.translation.weight_identity > 0,
            segment_fakes=segment_fakes,
        )

    def train_step(self, batch):
        source, target, labels = self._to_device(batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            made = self._exchange(source, target, self.segments_fakes)
            losses = self.generator_losses(made, source, target, labels)
            loss = self.weighted(losses)
        self.update_weights(loss, self.optimizer)

        self.optimizer.zero_grad(set_to_none=True)
        fake_source = self.buffers["source"].exchange(made.fake_source)
        fake_target = self.buffers["target"].exchange(made.fake_target)
        with self.autocast():
            scores = self.network(source, "judge", target=target, fake_source=fake_source, fake_target=fake_target)
            losses["discriminators"] = sum(discerning(real, fake) for real, fake in scores.values())
        self.update_weights(losses["discriminators"], self.discriminator_optimizer)
        return {"loss": loss.detach().cpu().numpy(), **{name: value.item() for name, value in losses.items()}}

    def validation_step(self, batch):
        source, target, labels = self._to_device(batch)
        with self.autocast():
            made = self._exchange(source, target, segment_fakes=False)
            losses = self.generator_losses(made, source, target, labels)
        result = {"loss": self.weighted(losses).cpu().numpy(), "cycle": losses["cycle"].item()}
        if made.logits is not None:
            result |= self._count(made.logits, labels)
        return result

    def _count(self, logits, labels):
        """True positives, false positives and false negatives per structure, as nnU-Net's pseudo Dice counts them."""
        manager = self.label_manager
        if manager.has_regions:
            predicted = (logits > 0).float()
            ignored = labels[:, -1:].bool() if manager.has_ignore_label else None
            labels = labels[:, :-1] if manager.has_ignore_label else labels
        else:
            predicted = torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1)
            ignored = labels == manager.ignore_label if manager.has_ignore_label else None
            labels = labels if ignored is None else labels.masked_fill(ignored, 0)
        mask = None if ignored is None else (~ignored).float()
        axes = [0, *range(2, logits.ndim)]
        counts = get_tp_fp_fn_tn(predicted, labels, axes=axes, mask=mask)[:3]
        # Of labels that exclude one another, the first is the background.
        first = 0 if manager.has_regions else 1
        return {
            name: n.cpu().numpy()[first:] for name, n in zip(("tp_hard", "fp_hard", "fn_hard"), counts, strict=True)
        }

    @property
    def _train_keys(self):
        return [f"translation/{name}" for name in LOSSES]

    def on_train_epoch_end(self, train_outputs):
        super().on_train_epoch_end([{"loss": output["loss"]} for output in train_outputs])
        for name, key in zip(LOSSES, self._train_keys, strict=True):
            self.logger.log(key, self.mean_over_processes(train_outputs, name), self.current_epoch)

    def on_validation_epoch_end(self, val_outputs):
        if self.settings.translation.segments:
            super().on_validation_epoch_end(val_outputs)
        else:
            self.log_validation_without_segmentation(val_outputs)
        self.logger.log(VAL_CYCLE, self.mean_over_processes(val_outputs, "cycle"), self.current_epoch)

    @property
    def chooses_best_by_loss(self):
        """Always: there is more to a translation than the pseudo Dice of its segmenters."""
        return True

    def validation_losses(self):
        """The cycle's L1 in both directions, plus one less the mean Dice of the segmenter of real source slices."""
        cycle = np.array(self.logger.get_value(VAL_CYCLE, step=None), float)
        if not self.settings.translation.segments:
            return cycle.tolist()
        dice = np.array(self.logger.get_value("mean_fg_dice", step=None), float)
        return (cycle + 1 - np.nan_to_num(dice)).tolist()

    def on_epoch_end(self):
        epoch = self.current_epoch
        losses = {key: self.logger.get_value(key, step=None)[epoch] for key in (*self._train_keys, VAL_CYCLE)}
        losses = {key.removeprefix("translation/"): round(loss, 4) for key, loss in losses.items() if loss == loss}
        self.print_to_log_file("translation", losses)
        super().on_epoch_end()
        if self.local_rank == 0:
            self._plot_curves()
            if (epoch + 1) % self.settings.translation.pictures_every == 0 or epoch + 1 == self.num_epochs:
                self.draw_examples(Path(self.output_folder, PICTURES, f"epoch_{epoch + 1:04d}.png"))

    def _plot_curves(self):
        def curves_of(*names):
            return {name: self.logger.get_value(f"translation/{name}", step=None) for name in names}

        panels = [
            ("adversarial", curves_of("adversarial", "discriminators"), None),
            ("consistency", curves_of("cycle", "kspace", "identity", "val_cycle"), None),
            ("segmentation", curves_of("segmentation", "segmentation_of_fakes"), None),
        ]
        curves.plot(panels, Path(self.output_folder, "translation.png"))

    @torch.no_grad()
    def draw_examples(self, path):
        """Draws slices of both domains, what they are translated into, and that translated back; labels outlined."""
        source, target, labels = self._to_device(self.examples)
        network = unwrap(self.network)
        with self.autocast():
            fake_target, fake_source = network.translate(source, "to_target"), network.translate(target, "to_source")
            restored_source = network.translate(fake_target, "to_source")
            restored_target = network.translate(fake_source, "to_target")
        names = [domain.name for domain in self.source_and_target]
        images = {
            names[0]: source,
            f"{names[0]} as {names[1]}": fake_target,
            f"{names[0]} restored": restored_source,
            names[1]: target,
            f"{names[1]} as {names[0]}": fake_source,
            f"{names[1]} restored": restored_target,
        }
        # Of several channels the first.
        images = {title: image[:, 0].float().cpu().numpy() for title, image in images.items()}
        if self.label_manager.has_regions:
            masks = labels[:, : len(self.label_manager.foreground_regions)].bool()
        else:
            values = torch.tensor(self.label_manager.foreground_labels, device=labels.device)
            masks = labels == values.reshape(1, -1, 1, 1)
        masks = masks.cpu().numpy()
        draw(images, {names[0]: masks, f"{names[0]} as {names[1]}": masks}, path)

    def perform_actual_validation(self, save_probabilities=False):
        self.print_to_log_file(
            "Nothing to segment after training to translate, so no validation. Next: nnunet-da translate"
        )
