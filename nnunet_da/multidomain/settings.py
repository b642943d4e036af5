"""Settings of multi-task, multi-domain training; the defaults are the paper's."""

from dataclasses import dataclass
from typing import Literal

from nnunet_da.settings import require


@dataclass(frozen=True)
class MultiDomainSettings:
    """How one network is trained on the domains of a dataset (the paper, "Deep Segmentation Model with DSL", eq. 1, 2).

    Attributes
    ----------
    domain : str or None
        The one domain that the base scheme trains on ("baseline (trained on individual dataset)"); only it reads this.
    norm : 'batch' or 'instance'
        'batch', eq. 1: each domain its own statistics, scale and shift. 'instance': instance normalisation with each
        domain's scale and shift.
    loss : 'ce' or 'nnunet'
        'ce', eq. 2: cross-entropy averaged over domains and their classes. 'nnunet': as the setting ``loss`` says,
        nnU-Net's Dice and cross-entropy unless it says otherwise.
    sampling : 'balanced' or 'by_size'
        'balanced': every domain as often as any other, as eq. 2 weighs them. 'by_size': in proportion to its cases, for
        the joint scheme; domain-specific layers need the domains alike in every batch.
    """

    domain: str | None = None
    norm: Literal["batch", "instance"] = "batch"
    loss: Literal["ce", "nnunet"] = "ce"
    sampling: Literal["balanced", "by_size"] = "balanced"

    def __post_init__(self):
        require(self.domain is None or self.domain != "", "multidomain.domain", "must be the name of a domain")


@dataclass(frozen=True)
class ContrastiveSettings:
    """The supervised contrastive regularisation (the paper, eq. 3 and "Implementation Details").

    Attributes
    ----------
    weight : float
        λ, the weight of the contrastive loss beside that of the segmentation (the paper: 0.1).
    tau : float
        Temperature τ (the paper: 0.1); the lower, the more the nearest embeddings of other domains count.
    """

    weight: float = 0.1
    tau: float = 0.1

    def __post_init__(self):
        require(self.weight > 0, "contrastive.weight", "must be above 0")
        require(self.tau > 0, "contrastive.tau", "must be above 0")
