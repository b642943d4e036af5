"""Settings of the networks of the disc pipeline; where ivd_dense_aspp names a value, it is the default."""

from dataclasses import dataclass
from typing import Literal

from nnunet_da.settings import require


@dataclass(frozen=True)
class DenseASPPSettings:
    """The segmentation network (ivd_dense_aspp, 2.1): `nnunet_da.discs.dense_aspp`. The paper gives the rates alone.

    Attributes
    ----------
    rates : tuple of int
        Dilation of each convolution of the pyramid, in voxels of a quarter of the resolution (the paper: 3, 6, 12, 18,
        24).
    growth : int
        Channels that each layer of a dense block adds.
    layers : int
        Layers of a dense block.
    aspp_growth : int
        Channels that each convolution of the pyramid adds.
    reduction : int
        By how much the squeeze-and-excitation narrows.
    norm : 'batch' or 'instance'
        DenseNet's is batch normalisation.
    augmentation : 'paper' or 'shared'
        'paper': what `SlabSettings` say. 'shared': as the settings ``augmentation`` say, nnU-Net's unless changed.
    """

    rates: tuple[int, ...] = (3, 6, 12, 18, 24)
    growth: int = 16
    layers: int = 4
    aspp_growth: int = 64
    reduction: int = 16
    norm: Literal["batch", "instance"] = "batch"
    augmentation: Literal["paper", "shared"] = "paper"

    def __post_init__(self):
        require(self.rates and min(self.rates) >= 1, "dense_aspp.rates", "must name at least one, each at least 1")
        for name in ("growth", "layers", "aspp_growth", "reduction"):
            require(getattr(self, name) >= 1, f"dense_aspp.{name}", "must be at least 1")


@dataclass(frozen=True)
class FocalSettings:
    """The loss of the segmentation network (ivd_dense_aspp, 2.4), L(p) = -α (1 - p)^γ log p.

    Attributes
    ----------
    loss : 'focal', 'ce' or 'nnunet'
        'focal': cross-entropy for the first epochs, then focal loss, as in the paper. 'ce': cross-entropy throughout.
        'nnunet': as the setting ``loss`` says.
    alpha : float
        α. The paper names none: 1, with which the focal loss of γ = 0 is the cross-entropy. In eq. 1 it is one factor
        for all classes.
    gamma : float
        γ. The paper names none: 2, that of Lin et al., "Focal loss for dense object detection", arXiv:1708.02002.
    ce_epochs : int
        Epochs of cross-entropy before (the paper: "several").
    """

    loss: Literal["focal", "ce", "nnunet"] = "focal"
    alpha: float = 1.0
    gamma: float = 2.0
    ce_epochs: int = 10

    def __post_init__(self):
        require(self.alpha > 0, "focal.alpha", "must be above 0")
        require(self.gamma >= 0, "focal.gamma", "must not be negative")
        require(self.ce_epochs >= 0, "focal.ce_epochs", "must not be negative")


@dataclass(frozen=True)
class SlabSettings:
    """Augmentation of the segmentation network: "3D deformation, random scale, random noise, and random crop" (3.1).

    The paper gives no strength. See `nnunet_da.discs.deformation`.

    Attributes
    ----------
    deformation : float
        In plane, no point moves along an axis by more than a distance drawn uniformly from 0 to this share of the
        patch's shorter edge.
    through_plane : float
        Nor across the slices by more than up to this many of them.
    smoothness : float
        Standard deviation of the Gaussian that smooths the displacements, as a share of the patch's shorter edge.
    scale : tuple of float
        In plane, what is seen is enlarged by a factor drawn from this range, its logarithm uniformly.
    noise : float
        Gaussian noise of a standard deviation drawn uniformly from 0 to this many of the image's, per channel.
    crop : float
        The patch is a window anywhere in one that is larger by this share of it at each edge.
    """

    deformation: float = 0.03
    through_plane: float = 1.0
    smoothness: float = 0.1
    scale: tuple[float, float] = (0.8, 1.25)
    noise: float = 0.1
    crop: float = 0.1

    def __post_init__(self):
        require(0 <= self.deformation <= 0.5, "slab.deformation", "must be from 0 to 0.5, a share of the patch")
        require(self.through_plane >= 0, "slab.through_plane", "must not be negative")
        require(self.smoothness > 0, "slab.smoothness", "must be above 0, a share of the patch")
        low, high = self.scale
        require(0 < low <= high, "slab.scale", "must be two factors above 0, the smaller first")
        require(self.noise >= 0, "slab.noise", "must not be negative")
        require(0 <= self.crop <= 1, "slab.crop", "must be from 0 to 1, a share of the patch")


@dataclass(frozen=True)
class VNetSettings:
    """The localisation network (ivd_dense_aspp, 2.2), "a V-Net structure … with residual connection".

    Attributes
    ----------
    features : tuple of int
        Channels of each stage; of more stages than were planned, the first so many (V-Net: 16, doubled up to 256).
    convolutions : tuple of int
        Convolutions of each stage likewise (V-Net: 1, 2, 3, 3, 3).
    kernel_size : int
        Edge of the kernels in voxels (V-Net: 5).
    rotation : float
        Training patches are turned by up to ± this many degrees: a half-turn would exchange the numbers of discs.
    """

    features: tuple[int, ...] = (16, 32, 64, 128, 256)
    convolutions: tuple[int, ...] = (1, 2, 3, 3, 3)
    kernel_size: int = 5
    rotation: float = 30.0

    def __post_init__(self):
        require(len(self.features) >= 2 and min(self.features) >= 1, "vnet.features", "must name at least 2 stages")
        right = len(self.convolutions) == len(self.features) and min(self.convolutions) >= 1
        require(right, "vnet.convolutions", f"must be {len(self.features)} numbers from 1, as many as vnet.features")
        require(self.kernel_size >= 1 and self.kernel_size % 2 == 1, "vnet.kernel_size", "must be odd")
        require(0 <= self.rotation < 90, "vnet.rotation", "must be from 0 to below 90 degrees")
