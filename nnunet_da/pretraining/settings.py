"""Settings of self-supervised pretraining."""

from dataclasses import dataclass, field
from typing import Literal

from nnunet_da.settings import require


@dataclass(frozen=True)
class CorruptionSettings:
    """The regression's corrupted pixels, in images scaled to [0, 1] ("Regression Loss", "Experiments").

    Attributes
    ----------
    fraction : float
        Chance of a pixel to be replaced (the paper: 10 % of the pixels).
    sigma : float
        Standard deviation of the noise, whose mean is 0 (the paper: 0.01).
    """

    fraction: float = 0.1
    sigma: float = 0.01

    def __post_init__(self):
        require(0 < self.fraction < 1, "pretraining.corruption.fraction", "must be between 0 and 1")
        require(self.sigma >= 0, "pretraining.corruption.sigma", "must not be negative")


@dataclass(frozen=True)
class ViewSettings:
    """The two views of an image: crop, contrast and brightness ("Contrastive Loss"), drawn anew for each.

    The paper gives no strengths. Contrast and brightness are those of Chaitanya et al.'s code; the crop is this
    package's choice.

    Attributes
    ----------
    crop : (float, float)
        Edge of the window, as a share of the image's, along all axes alike; it is resized to the image.
    contrast : (float, float)
        f in mean + f (x - mean), per channel.
    brightness : float
        Added value, from ± this, per channel, on images scaled to [0, 1], to which they are clipped afterwards.
    """

    crop: tuple[float, float] = (0.6, 1.0)
    contrast: tuple[float, float] = (0.7, 1.3)
    brightness: float = 0.3

    def __post_init__(self):
        low, high = self.crop
        rule = "must be two shares above 0.5, so that any two windows overlap, and up to 1, the lower one first"
        require(0.5 < low <= high <= 1, "pretraining.views.crop", rule)
        low, high = self.contrast
        require(0 < low <= high, "pretraining.views.contrast", "must be two values above 0, the lower one first")
        require(0 <= self.brightness < 1, "pretraining.views.brightness", "must be from 0 to 1")


@dataclass(frozen=True)
class ContrastSettings:
    """The contrastive losses and their stages.

    Attributes
    ----------
    stages : 'both', 'global' or 'local'
        'global' trains the encoder, 'local' the decoder, starting from a result of the first; 'both': one after the
        other in one run.
    global_share : float
        Share of the epochs that the first of both stages takes.
    encoder : 'frozen' or 'trained'
        What becomes of the encoder in the second stage (Chaitanya et al.: frozen).
    tau : float
        Temperature τ (the paper: 0.1).
    pooling : 'mean' or 'max'
        How the bottleneck becomes one vector for the global head (SimCLR: mean). After InstanceNorm every channel has
        the same mean but for the nonlinearity, and its maximum tells images apart sooner.
    n_features : int
        Length of what the projection heads give (SimCLR and Chaitanya et al.: 128).
    regions : int
        Regions that are drawn in each image (Chaitanya et al.: 13). The cost of the second stage beyond that of the
        decoder grows with it, and not with the size of the image.
    region_size : int
        Voxels along each axis of a region (Chaitanya et al.: 3).
    negatives : 'image' or 'batch'
        Where the other regions lie that one is contrasted with: in its image (Chaitanya et al.), in both views, or in
        all images of the batch.
    """

    stages: Literal["both", "global", "local"] = "both"
    global_share: float = 0.5
    encoder: Literal["frozen", "trained"] = "frozen"
    tau: float = 0.1
    pooling: Literal["mean", "max"] = "mean"
    n_features: int = 128
    regions: int = 13
    region_size: int = 3
    negatives: Literal["image", "batch"] = "image"

    def __post_init__(self):
        require(0 < self.global_share < 1, "pretraining.contrast.global_share", "must be between 0 and 1")
        require(self.tau > 0, "pretraining.contrast.tau", "must be above 0")
        require(self.n_features >= 2, "pretraining.contrast.n_features", "must be at least 2")
        require(self.regions >= 2, "pretraining.contrast.regions", "must be at least 2, to have negatives")
        require(self.region_size >= 1, "pretraining.contrast.region_size", "must be at least 1")


@dataclass(frozen=True)
class PretrainingSettings:
    """What regression and contrast share, and the settings of each.

    Attributes
    ----------
    sampling : 'balanced' or 'by_size'
        Every domain as often as any other, or in proportion to its cases.
    intensities : 'nnunet' or 'unit'
        What the network is shown. Images are corrupted and augmented on the scale [0, 1]. 'nnunet': they are brought
        back to the scale of nnU-Net's preprocessing, on which the network is fine-tuned. 'unit': they stay in [0, 1].
    optimizer : 'adam' or 'shared'
        'adam': the paper's, at `lr`, without weight decay. 'shared': as `optimizer`, `initial_lr` and `weight_decay`
        of the schedule say; nnU-Net's SGD hardly trains such losses.
    lr : float
        Initial learning rate of that 'adam' (the paper: 0.001); `lr_schedule` changes it.
    """

    sampling: Literal["balanced", "by_size"] = "balanced"
    intensities: Literal["nnunet", "unit"] = "nnunet"
    optimizer: Literal["adam", "shared"] = "adam"
    lr: float = 1e-3
    corruption: CorruptionSettings = field(default_factory=CorruptionSettings)
    views: ViewSettings = field(default_factory=ViewSettings)
    contrast: ContrastSettings = field(default_factory=ContrastSettings)

    def __post_init__(self):
        require(self.lr > 0, "pretraining.lr", "must be above 0")
