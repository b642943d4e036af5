"""Training of one network on the labelled cases of several domains (the paper that `nnunet_da.multidomain` names)."""

import copy
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import distributed as dist
from torch import nn

from nnunet_da import settings
from nnunet_da.errors import UserError
from nnunet_da.multidomain.contrastive import contrastive_loss
from nnunet_da.multidomain.heads import domain_channels
from nnunet_da.multidomain.losses import DomainBinaryCrossEntropy, DomainCrossEntropy
from nnunet_da.multidomain.network import DomainNetwork, collapse
from nnunet_da.multidomain.norm import domain_norm_plan, stock_norm_plan
from nnunet_da.multidomain.settings import ContrastiveSettings, MultiDomainSettings
from nnunet_da.training import curves
from nnunet_da.training.configurations import NORMS
from nnunet_da.training.configured_trainer import ConfiguredTrainer, unwrap
from nnunet_da.training.loaders import InterleavedLoader, start_segmentation_loaders
from nnunet_da.training.schedule import Schedule

CHANNELS = "channels"
ATTENTION_UNET = "nnunet_da.multidomain.attention.AttentionUNet"


@dataclass(frozen=True)
class MultiDomainTrainerSettings(Schedule):
    """Schedule, and the settings of multi-domain training."""

    multidomain: MultiDomainSettings = field(default_factory=MultiDomainSettings)


@dataclass(frozen=True)
class ContrastiveTrainerSettings(MultiDomainTrainerSettings):
    contrastive: ContrastiveSettings = field(default_factory=ContrastiveSettings)


class MultiDomainTrainer(ConfiguredTrainer):
    """The base, joint and DSL schemes of the paper ("Implementation Details"), on U-Net or Att-UNet.

    Norm and network are written into the plans of the model, so that all of a model stands in its folder. Batches are
    raised to what the scheme needs of every domain; the log says so.

    Attributes
    ----------
    scheme : 'base', 'joint' or 'dsl'
        'base': one domain of the dataset. 'joint': all, and everything shared. 'dsl': all, with norms and segmentation
        layers of each domain's own.
    attention : bool
        Whether the U-Net has attention gates.
    samples_per_domain : int
        The least number of samples of each domain in a step.
    """

    settings_class = MultiDomainTrainerSettings
    takes_pretrained_weights = False
    scheme = "joint"
    attention = False
    samples_per_domain = 1

    def refuse_unsupported(self, configuration_manager, fold):
        name = type(self).__name__
        if self.domains is None:
            raise UserError(f"{name}: dataset.json has no domains; make them with `nnunet-da convert` or `add-domain`")
        if configuration_manager.previous_stage_name is not None:
            raise UserError(f"{name}: the second stage of a cascade is not supported; train 3d_lowres or 3d_fullres")
        chosen = self.settings.multidomain
        if self.scheme == "base" and chosen.domain is None:
            raise UserError(
                f"{name}: say which domain it trains on, with --set multidomain.domain=NAME "
                f"({', '.join(self.domains.names)})"
            )
        if self.scheme == "dsl" and any("__" in domain for domain in self.domains.names):
            raise UserError(f"{name}: a domain's name must not hold '__', since exported plans bear it")
        if self.scheme == "dsl" and chosen.sampling == "by_size":
            raise UserError(
                f"{name}: setting multidomain.sampling: by_size is for the joint scheme; domain-specific layers need "
                f"every domain in every batch"
            )
        self.trained = self.domains.select([chosen.domain]) if self.scheme == "base" else tuple(self.domains)
        for domain in self.trained:
            if not domain.labelled:
                raise UserError(f"{name}: domain '{domain.name}' has no labelled cases; this scheme learns from labels")
        self._check_architecture(configuration_manager)

    def _check_architecture(self, configuration_manager):
        planned = configuration_manager.network_arch_class_name.rpartition(".")[2]
        if self.attention and planned not in ("PlainConvUNet", "AttentionUNet"):
            raise UserError(f"{type(self).__name__}: needs a plan with PlainConvUNet, not {planned}")

    @property
    def interleaved(self):
        """Whether sample i of a training batch is of domain i mod K."""
        return self.scheme == "dsl" or (self.scheme == "joint" and self.settings.multidomain.sampling == "balanced")

    def prepare_plans(self, plans, configuration):
        plans = copy.deepcopy(plans)
        resolved = PlansManager(plans).get_configuration(configuration).configuration
        architecture = copy.deepcopy(resolved["architecture"])
        arguments = architecture["arch_kwargs"]
        dimension = len(resolved["patch_size"])
        if self.attention:
            architecture["network_class_name"] = ATTENTION_UNET
        if self.scheme == "dsl":
            arguments |= domain_norm_plan(
                self.settings.multidomain.norm, dimension, len(self.trained), arguments["norm_op_kwargs"]
            )
        else:
            arguments["norm_op"] = NORMS[self.settings.multidomain.norm].format(dim=dimension)
        entry = plans["configurations"][configuration]
        entry["architecture"] = architecture
        entry["batch_size"] = self._batch_size(resolved["batch_size"])
        # The network is built from the plans alone, in training and prediction.
        trained = {settings.TRAINED_DOMAINS: self.trained_domains()}
        entry[settings.BLOCK] = {**resolved.get(settings.BLOCK, {}), **trained}
        return plans

    def _batch_size(self, planned):
        """The batch of all processes: as planned, or the next larger one that holds the domains alike in each."""
        if not self.interleaved:
            return planned
        n_processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        least = -(-self.samples_per_domain * len(self.trained) // n_processes)
        per_process = max(-(-planned // n_processes), least)
        per_process = -(-per_process // len(self.trained)) * len(self.trained)
        if per_process * n_processes != planned:
            print(f"Batch size {per_process * n_processes} in place of {planned}: every domain alike in every batch")
        return per_process * n_processes

    @classmethod
    def build_network_architecture(
        cls, plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        unet = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
        if cls.scheme != "dsl":
            return unet
        return DomainNetwork(unet, cls.channels_of_domains(configuration_manager.configuration))

    @staticmethod
    def channels_of_domains(configuration):
        """Per domain, its channels of the network's output, as training left them in the `configuration` (dict)."""
        trained = configuration[settings.BLOCK][settings.TRAINED_DOMAINS]
        return [domain[CHANNELS] for domain in trained.values()]

    def trained_domains(self):
        labels = self.dataset_json["labels"]
        return {
            domain.name: {"labels": list(domain.labels), CHANNELS: list(domain_channels(labels, domain.labels))}
            for domain in self.domains
        }

    @staticmethod
    def paper_preset(configuration):
        """The paper's network and schedule ("Implementation Details"; Fig. 2 for the filters), as settings (dict).

        "All axial slices were downsampled to 256×256 pixels": here the patch has that size at the spacing that nnU-Net
        planned, or less where the plan has fewer stages to halve it. `configuration`: resolved (dict).

        Raises UserError for a 3D configuration, of which the paper says nothing.
        """
        if len(configuration["patch_size"]) != 2:
            raise UserError("--preset paper: the multi-domain paper trains on 2D slices; use it with -c 2d")
        n_stages = configuration["architecture"]["arch_kwargs"]["n_stages"]
        return {
            "plan": {
                "patch_size": [256, 256],
                "batch_size": 32,
                "features_per_stage": [32, 64, 128, 256, 512][:n_stages],
            },
            "num_epochs": 30,
            "num_iterations_per_epoch": None,
            "num_val_iterations_per_epoch": 10,
            "initial_lr": 1e-4,
            "weight_decay": 0.0,
            "optimizer": "adam",
            "lr_schedule": "constant",
            "deep_supervision": False,
            "save_every": 1,
            "augmentation": {
                "scheme": "simple",
                "flips": ["horizontal", "vertical"],
                "rotation": 45.0,
                "translation": 0.25,
                "brightness": 0.0,
            },
        }

    def initialize(self):
        super().initialize()
        # Else which domains are oversampled would depend on their place in the batch.
        self.probabilistic_oversampling = self.interleaved
        curves.register(self.logger, [self._dice_key(domain) for domain in self.trained])

    def do_split(self):
        train, val = super().do_split()
        cases = {case for domain in self.trained for case in domain.labelled}
        train, val = ([case for case in side if case in cases] for side in (train, val))
        for domain in self.trained:
            if set(domain.labelled).isdisjoint(train):
                raise UserError(
                    f"fold {self.fold}: every labelled case of domain '{domain.name}' is held out; train another fold, "
                    f"or fold all"
                )
        if not val:
            names = ", ".join(f"'{domain.name}'" for domain in self.trained)
            raise UserError(
                f"fold {self.fold}: no labelled case of domain {names} is held out to validate on; train another fold, "
                f"or fold all"
            )
        return train, val

    def _build_loss(self):
        if self.settings.multidomain.loss == "nnunet":
            return super()._build_loss()
        n_channels = self.label_manager.num_segmentation_heads
        if self.scheme == "dsl":
            channels = self.channels_of_domains(self.configuration_manager.configuration)
        else:
            # A shared layer tells all classes apart.
            channels = [list(range(n_channels))] * (len(self.trained) if self.interleaved else 1)
        ignore = self.label_manager.ignore_label
        loss = (
            DomainBinaryCrossEntropy(channels, n_channels, ignore is not None)
            if self.label_manager.has_regions
            else DomainCrossEntropy(channels, ignore)
        )
        loss = OfDomain(loss.to(self.device))
        if not self.enable_deep_supervision:
            return loss
        # nnU-Net's weights of the resolutions.
        return DeepSupervisionWrapper(loss, super()._build_loss().weight_factors)

    def get_dataloaders(self):
        if not self.interleaved:
            return super().get_dataloaders()

        def loader(dataset, *arguments, **keywords):
            return InterleavedLoader(dataset, self._cases_by_domain(dataset.identifiers), *arguments, **keywords)

        return start_segmentation_loaders(self, loader, loader)

    def _cases_by_domain(self, identifiers):
        present = set(identifiers)
        by_domain = ([case for case in domain.labelled if case in present] for domain in self.trained)
        # In validation a domain without held-out cases is left out.
        return [cases for cases in by_domain if cases]

    def validation_step(self, batch):
        """nnU-Net's, domain by domain: each sample goes through the layers of its own."""
        indices = np.array([self.domains.index_of_case(key) for key in batch["keys"]])
        parts, counts = [], {}
        for index in np.unique(indices):
            chosen = torch.from_numpy(np.flatnonzero(indices == index))
            with self._one_domain(int(index)):
                part = super().validation_step({key: _select(batch[key], chosen) for key in ("data", "target")})
            parts.append((len(chosen), part))
            counts[int(index)] = np.stack([part[name] for name in COUNTED])
        n_samples = sum(n for n, _ in parts)
        result = {name: sum(part[name] for _, part in parts) for name in COUNTED}
        result["loss"] = sum(n / n_samples * part["loss"] for n, part in parts)
        of_domains = np.zeros((len(self.domains), *next(iter(counts.values())).shape))
        for index, count in counts.items():
            of_domains[index] = count
        return {**result, "domain_counts": of_domains}

    @contextmanager
    def _one_domain(self, index):
        """Within it, network and loss take all samples to be of the domain `index` of the dataset."""
        domain_aware = [unwrap(self.network)] if self.scheme == "dsl" else []
        loss = self.loss.loss if isinstance(self.loss, DeepSupervisionWrapper) else self.loss
        if isinstance(loss, OfDomain):
            domain_aware.append(loss)
        for module in domain_aware:
            # Only DSL tells the domains apart; the loss of the others counts all classes of any.
            module.domain = index if self.scheme == "dsl" else 0
        try:
            yield
        finally:
            for module in domain_aware:
                module.domain = None

    def on_validation_epoch_end(self, val_outputs):
        super().on_validation_epoch_end(val_outputs)
        counts = sum(output["domain_counts"] for output in val_outputs)
        if self.is_ddp:
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, counts)
            counts = sum(gathered)
        for domain in self.trained:
            dice = _mean_dice(counts[self.domains.names.index(domain.name)])
            self.logger.log(self._dice_key(domain), dice, self.current_epoch)

    def on_epoch_end(self):
        epoch = self.current_epoch
        dice = {d.name: self.logger.get_value(self._dice_key(d), step=None)[epoch] for d in self.trained}
        self.print_to_log_file("Pseudo dice by domain", {name: round(value, 4) for name, value in dice.items()})
        super().on_epoch_end()

    def perform_actual_validation(self, save_probabilities=False):
        if self.scheme == "dsl":
            self.dataset_class = _announcing(self.dataset_class, unwrap(self.network), self.domains)
        try:
            super().perform_actual_validation(save_probabilities)
        finally:
            if self.scheme == "dsl":
                self.dataset_class = self.dataset_class.original
                unwrap(self.network).domain = None

    def _dice_key(self, domain):
        return f"pseudo_dice/{domain.name}"

    @classmethod
    def stock_models(cls, weights, plans, configuration, dataset_json):
        """What `nnunet-da export` writes: of domain-specific layers, the network of each domain."""
        if cls.scheme != "dsl":
            return {"": (plans, weights)}
        resolved = PlansManager(plans).get_configuration(configuration).configuration
        trained = resolved[settings.BLOCK][settings.TRAINED_DOMAINS]
        channels = cls.channels_of_domains(resolved)
        n_channels = PlansManager(plans).get_label_manager(dataset_json).num_segmentation_heads
        stock = copy.deepcopy(plans)
        architecture = copy.deepcopy(resolved["architecture"])
        arguments = architecture["arch_kwargs"]
        arguments |= stock_norm_plan(arguments["norm_op"], arguments["norm_op_kwargs"])
        stock["configurations"][configuration]["architecture"] = architecture
        return {
            f"_{name}": (stock, collapse(weights, index, channels, n_channels)) for index, name in enumerate(trained)
        }


class ContrastiveTrainer(MultiDomainTrainer):
    """DSL with the supervised contrastive regularisation, L = L_seg + λ L_contrastive (eq. 3).

    It needs two samples of each domain in a step.
    """

    settings_class = ContrastiveTrainerSettings
    scheme = "dsl"
    samples_per_domain = 2

    def train_step(self, batch):
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        target = [t.to(self.device) for t in target] if isinstance(target, list) else target.to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            output, embeddings = self.network(data, with_embedding=True)
            segmentation = self.loss(output, target)
            chosen = self.settings.contrastive
            contrast = contrastive_loss(embeddings, np.arange(len(data)) % len(self.trained), chosen.tau)
            loss = segmentation + chosen.weight * contrast
        self.update_weights(loss)
        return {"loss": segmentation.detach().cpu().numpy(), "contrastive_loss": contrast.detach().cpu().numpy()}

    def initialize(self):
        super().initialize()
        curves.register(self.logger, ["contrastive_loss"])

    def on_train_epoch_end(self, train_outputs):
        super().on_train_epoch_end(train_outputs)
        losses = [float(output["contrastive_loss"]) for output in train_outputs]
        if self.is_ddp:
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, losses)
            losses = [loss for of_process in gathered for loss in of_process]
        self.logger.log("contrastive_loss", float(np.mean(losses)), self.current_epoch)

    def on_epoch_end(self):
        contrast = self.logger.get_value("contrastive_loss", step=None)[self.current_epoch]
        self.print_to_log_file("contrastive_loss", round(contrast, 4))
        super().on_epoch_end()


class OfDomain(nn.Module):
    """A loss of domains as nnU-Net calls it; `domain`: that of all samples, or None (sample i: domain i mod K)."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss
        self.domain = None

    def forward(self, logits, target):
        return self.loss(logits, target, self.domain)


COUNTED = ("tp_hard", "fp_hard", "fn_hard")


def _select(value, chosen):
    """Samples of a batch; of a list of resolutions, of each."""
    return [part[chosen] for part in value] if isinstance(value, list) else value[chosen]


def _mean_dice(counts):
    """The mean over the structures that occur, from tp, fp and fn (3, structures); NaN where none does."""
    tp, fp, fn = counts
    total = 2 * tp + fp + fn
    dice = np.divide(2 * tp, total, out=np.full(len(tp), np.nan), where=total > 0)
    return float(np.nanmean(dice)) if (total > 0).any() else float("nan")


def _announcing(dataset_class, network, domains):
    """`dataset_class`, which tells `network` the domain of each case that it loads."""

    class Announcing(dataset_class):
        original = dataset_class

        def load_case(self, identifier):
            network.domain = domains.index_of_case(identifier)
            return super().load_case(identifier)

    return Announcing
