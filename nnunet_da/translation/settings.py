"""Settings of the translation between two domains."""

from dataclasses import dataclass

from nnunet_da.settings import require


@dataclass(frozen=True)
class TranslationSettings:
    """CycleGAN with segmenters (section 2.1 of the paper); what it leaves open follows Zhu et al., "CycleGAN".

    Attributes
    ----------
    source, target : str or None
        The domain with labels and the one whose look is learnt; None: the only one with labelled cases, and the only
        one without.
    percentiles : (float, float)
        Of a whole scan, per channel: what becomes 0 and 1 (the paper: min–max, which is 0 and 100).
    features : tuple of int
        Filters of each level of a generator; the paper's has 3 levels.
    residual : bool
        Whether a generator adds to its input, rather than making the image anew.
    discriminator_features, discriminator_layers : int
        Filters of the first layer of a discriminator, and the number of its layers that halve the image (CycleGAN: 64
        and 3, patches of 70 × 70).
    weight_adversarial, weight_cycle, weight_identity, weight_segmentation : float
        The paper: 1 : 10 : 5 : 100. Without the last there are no segmenters.
    weight_kspace : float
        Of the cycle consistency of the k-space; the paper has the term and no weight for it.
    segment_fakes_after : int
        Epochs before the segmentation loss of fake slices joins (the paper: 5).
    buffer_size : int
        Fake images of each domain that are kept to train the discriminators on (CycleGAN: 50); 0: the newest alone.
    lr : float
        Initial learning rate of Adam (the paper: 0.0001).
    betas : (float, float)
        Its decay rates (CycleGAN: 0.5 and 0.999).
    final_lr : float
        Share of the learning rate that the last epoch has; after every epoch it is multiplied by the same factor.
    foreground : float
        Share of the source's slices that show a structure for certain.
    pictures_every : int
        Epochs between two pictures of translated slices.
    """

    source: str | None = None
    target: str | None = None
    percentiles: tuple[float, float] = (0.1, 99.9)
    features: tuple[int, ...] = (32, 64, 128)
    residual: bool = False
    discriminator_features: int = 64
    discriminator_layers: int = 3
    weight_adversarial: float = 1.0
    weight_cycle: float = 10.0
    weight_kspace: float = 10.0
    weight_identity: float = 5.0
    weight_segmentation: float = 100.0
    segment_fakes_after: int = 5
    buffer_size: int = 50
    lr: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    final_lr: float = 0.05
    foreground: float = 0.33
    pictures_every: int = 5

    def __post_init__(self):
        low, high = self.percentiles
        require(
            0 <= low < high <= 100, "translation.percentiles", "must be two values of 0 to 100, the lower one first"
        )
        require(len(self.features) >= 2, "translation.features", "must name at least 2 levels")
        require(min(self.features, default=0) >= 1, "translation.features", "values must be at least 1")
        for name in ("discriminator_features", "discriminator_layers", "pictures_every"):
            require(getattr(self, name) >= 1, f"translation.{name}", "must be at least 1")
        for name in ("adversarial", "cycle", "kspace", "identity", "segmentation"):
            require(getattr(self, f"weight_{name}") >= 0, f"translation.weight_{name}", "must not be negative")
        for name in ("segment_fakes_after", "buffer_size"):
            require(getattr(self, name) >= 0, f"translation.{name}", "must not be negative")
        require(self.lr > 0, "translation.lr", "must be above 0")
        require(all(0 <= beta < 1 for beta in self.betas), "translation.betas", "must be from 0 to below 1")
        require(0 < self.final_lr <= 1, "translation.final_lr", "must be above 0 and up to 1")
        require(0 <= self.foreground <= 1, "translation.foreground", "must be from 0 to 1")
        different = self.source is None or self.source != self.target
        require(different, "translation.target", "must be another domain than translation.source")

    @property
    def segments(self):
        """Whether there are segmenters."""
        return self.weight_segmentation > 0
