"""Training of the three networks of the disc pipeline (`nnunet_da.discs`, ivd_dense_aspp)."""

import copy
import dataclasses
import math
from dataclasses import dataclass, field
from typing import ClassVar

from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_da.discs.dense_aspp import N_PATHS
from nnunet_da.discs.losses import FocalLoss
from nnunet_da.discs.settings import DenseASPPSettings, FocalSettings, SlabSettings, VNetSettings
from nnunet_da.domains import BACKGROUND, IGNORE
from nnunet_da.errors import UserError
from nnunet_da.training.augmentation import FLIPPED_AXIS
from nnunet_da.training.configurations import NORMS
from nnunet_da.training.configured_trainer import ConfiguredTrainer
from nnunet_da.training.loaders import start_segmentation_loaders
from nnunet_da.training.schedule import Schedule
from nnunet_da.training.slabs import SlabLoader, size_to_read, slab_transforms, slices_to_read

DENSE_ASPP = "nnunet_da.discs.dense_aspp.DenseASPPNet"
VNET = "nnunet_da.discs.vnet.VNet"
REORIENTING_READER = "NibabelIOWithReorient"
# nnU-Net's arrays of such a scan are superior, anterior, right, before the plans transpose them.
SUPERIOR = 0
# nnU-Net's own, by which it reads more than a patch.
SCALES = (0.85, 1.25)


@dataclass(frozen=True)
class DenseASPPTrainerSettings(Schedule):
    """Schedule, and the settings of the segmentation network, its loss and its augmentation."""

    own_defaults: ClassVar = {"deep_supervision": False}

    dense_aspp: DenseASPPSettings = field(default_factory=DenseASPPSettings)
    focal: FocalSettings = field(default_factory=FocalSettings)
    slab: SlabSettings = field(default_factory=SlabSettings)


@dataclass(frozen=True)
class VNetTrainerSettings(Schedule):
    """Schedule, and the settings of the localisation network."""

    own_defaults: ClassVar = {"deep_supervision": False}

    vnet: VNetSettings = field(default_factory=VNetSettings)


class OwnNetworkTrainer(ConfiguredTrainer):
    """A trainer whose network, one of this package, is written into the plans of its models.

    Attributes
    ----------
    dimension : int
        Of the configurations that it takes, 2 or 3.
    """

    takes_pretrained_weights = False
    dimension = 2

    def refuse_unsupported(self, configuration_manager, fold):
        name, dimension = type(self).__name__, len(configuration_manager.patch_size)
        if dimension != self.dimension:
            raise UserError(f"{name}: its network is {self.dimension}D; train a {self.dimension}d configuration")
        if configuration_manager.previous_stage_name is not None:
            raise UserError(f"{name}: the second stage of a cascade is not supported; train 3d_lowres or 3d_fullres")
        if self.settings.deep_supervision:
            raise UserError(f"{name}: its network has one output; set deep_supervision=false")

    def prepare_plans(self, plans, configuration):
        plans = copy.deepcopy(plans)
        planned = PlansManager(plans).get_configuration(configuration).configuration["architecture"]
        plans["configurations"][configuration]["architecture"] = self.architecture(copy.deepcopy(planned))
        return plans

    def architecture(self, planned):
        """The entry of plans.json for its network; `planned` (dict): nnU-Net's."""
        raise NotImplementedError


class DenseASPPTrainer(OwnNetworkTrainer):
    """The segmentation network with cross-entropy, then focal loss, on slices of slabs that are deformed in 3D."""

    settings_class = DenseASPPTrainerSettings

    def refuse_unsupported(self, configuration_manager, fold):
        super().refuse_unsupported(configuration_manager, fold)
        multiple, patch_size = 2 ** (N_PATHS - 1), list(configuration_manager.patch_size)
        if any(length % multiple for length in patch_size):
            raise UserError(
                f"{type(self).__name__}: setting plan.patch_size: must be multiples of {multiple}; got {patch_size}"
            )

    def architecture(self, planned):
        arguments = dataclasses.asdict(self.settings.dense_aspp)
        del arguments["augmentation"]
        norm = NORMS[arguments.pop("norm")].format(dim=self.dimension)
        return {
            "network_class_name": DENSE_ASPP,
            "arch_kwargs": {
                **arguments,
                "rates": list(arguments["rates"]),
                "norm_op": norm,
                "norm_op_kwargs": {"affine": True},
            },
            "_kw_requires_import": ["norm_op"],
        }

    @property
    def deforms(self):
        """Whether the augmentation is the paper's."""
        return self.settings.dense_aspp.augmentation == "paper"

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802
        if not self.deforms:
            return super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        # None, where nnU-Net's predictor would stumble over no axes.
        self.inference_allowed_mirroring_axes = None
        to_read = size_to_read(self.settings.slab, self.configuration_manager.patch_size)
        return (0.0, 0.0), False, to_read, ()

    def own_transforms(self, patch_size):
        return slab_transforms(self.settings.slab, patch_size) if self.deforms else super().own_transforms(patch_size)

    def get_dataloaders(self):
        if not self.deforms:
            return super().get_dataloaders()
        n_slices = slices_to_read(self.settings.slab)

        def slabs(dataset, *arguments, **keywords):
            return SlabLoader(dataset, n_slices, *arguments, **keywords)

        return start_segmentation_loaders(self, slabs, nnUNetDataLoader)

    def _build_loss(self):
        if self.settings.focal.loss == "nnunet":
            return super()._build_loss()
        return FocalLoss(ignore_label=self.label_manager.ignore_label, regions=self.label_manager.has_regions)

    @property
    def n_ce_epochs(self):
        """Epochs before the focal loss."""
        focal = self.settings.focal
        return focal.ce_epochs if focal.loss == "focal" else self.num_epochs

    def on_epoch_start(self):
        super().on_epoch_start()
        focal = self.settings.focal
        if self.current_epoch < self.n_ce_epochs:
            return
        if (self.loss.alpha, self.loss.gamma) != (focal.alpha, focal.gamma):
            self.loss.alpha, self.loss.gamma = focal.alpha, focal.gamma
            self.print_to_log_file(f"From this epoch on focal loss, alpha {focal.alpha}, gamma {focal.gamma}")

    def validation_losses(self):
        """Those of the focal loss once it is used: cross-entropy before it is on another scale."""
        losses = super().validation_losses()
        n_before = self.n_ce_epochs
        return [math.inf] * n_before + losses[n_before:] if len(losses) > n_before else losses


class VNetTrainer(OwnNetworkTrainer):
    """The localisation network. Nothing in its training or prediction exchanges head and foot.

    Which axis of the patches that is, is known where nnU-Net's reader brings every scan to one orientation.
    """

    settings_class = VNetTrainerSettings
    dimension = 3

    def refuse_unsupported(self, configuration_manager, fold):
        super().refuse_unsupported(configuration_manager, fold)
        name, reader = type(self).__name__, self.dataset_json.get("overwrite_image_reader_writer")
        if reader != REORIENTING_READER:
            raise UserError(
                f"{name}: dataset.json must name the reader {REORIENTING_READER} (overwrite_image_reader_writer), "
                f"without which head and foot cannot be told; got {reader}"
            )
        augmentation = self.settings.augmentation
        if augmentation.scheme == "simple" and augmentation.rotation >= 90:
            raise UserError(f"{name}: setting augmentation.rotation: must be below 90, for it turns head to foot")

    def prepare_plans(self, plans, configuration):
        self.head_foot_axis = plans["transpose_forward"].index(SUPERIOR)
        augmentation = self.settings.augmentation
        if augmentation.scheme == "simple" and self.head_foot_axis in augmentation.mirror_axes(self.dimension):
            flip = next(name for name, axis in FLIPPED_AXIS.items() if axis + self.dimension == self.head_foot_axis)
            raise UserError(
                f"{type(self).__name__}: setting augmentation.flips: '{flip}' exchanges head and foot; leave it out"
            )
        return super().prepare_plans(plans, configuration)

    def architecture(self, planned):
        chosen, arguments = self.settings.vnet, planned["arch_kwargs"]
        n_stages = min(arguments["n_stages"], len(chosen.features))
        kernels = arguments["kernel_sizes"][:n_stages]
        return {
            "network_class_name": VNET,
            "arch_kwargs": {
                "features": list(chosen.features[:n_stages]),
                "convolutions": list(chosen.convolutions[:n_stages]),
                # nnU-Net plans kernels of 1 along axes that are too coarse for more.
                "kernel_sizes": [[1 if k == 1 else chosen.kernel_size for k in kernel] for kernel in kernels],
                "strides": arguments["strides"][:n_stages],
                "norm_op": arguments["norm_op"],
                "norm_op_kwargs": arguments["norm_op_kwargs"],
            },
            "_kw_requires_import": ["norm_op"],
        }

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # noqa: N802
        rotation, in_plane_only, to_read, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.settings.augmentation.scheme == "nnunet":
            patch_size = self.configuration_manager.patch_size
            radians = math.radians(self.settings.vnet.rotation)
            rotation = (-radians, radians)
            # As nnU-Net, with an angle of ours.
            to_read = get_patch_size(patch_size, *[rotation] * 3, SCALES)
            if in_plane_only:
                to_read[0] = patch_size[0]
        axes = tuple(axis for axis in axes if axis != self.head_foot_axis)
        # None, where nnU-Net's predictor would stumble over no axes.
        self.inference_allowed_mirroring_axes = axes or None
        return rotation, in_plane_only, to_read, axes


class SpineRegionTrainer(ConfiguredTrainer):
    """nnU-Net's U-Net on labels of the spine region, which `nnunet-da disc-dataset` makes of those of discs."""

    def refuse_unsupported(self, configuration_manager, fold):
        structures = [name for name in self.dataset_json["labels"] if name not in (BACKGROUND, IGNORE)]
        if len(structures) != 1:
            raise UserError(
                f"{type(self).__name__}: dataset.json must have one structure, the spine region, not "
                f"{', '.join(structures)}; `nnunet-da disc-dataset --labels spine-region` writes such a dataset"
            )
