"""Settings that every pretext task shares."""

from dataclasses import dataclass
from typing import Literal

from nnunet_da.settings import require


@dataclass(frozen=True)
class PretextSettings:
    """How the pretext tasks are trained beside segmentation (the paper, "Parameter setting" and Algorithm 1).

    Attributes
    ----------
    domains : tuple of str, or None
        Domains whose cases the pretext tasks see; None: all of them, the paper's t1t2s. t1-int is
        ``pretext.domains=t1``.
    batch_size : int
        Images per step and task (the paper: 4).
    update : 'alternating' or 'joint'
        'alternating', Algorithm 1: each step updates encoder and heads with L_p, then encoder and decoder with L_seg.
        'joint': one update with L_seg + weight · L_p.
    optimizer : 'adam' or 'shared'
        Of the updates with L_p, in alternating updates. 'adam': one of their own, the paper's. 'shared': that of the
        segmentation, moments included, as in the paper, where both are Adam. nnU-Net's SGD hardly trains the heads.
    lr : float
        Initial learning rate of that 'adam' (the paper: 0.001); it decays as that of the segmentation.
    weight : float
        Weight of L_p (the paper: 1). Adam's steps do not depend on it where L_p is alone.
    rotation : float
        Images are rotated in plane by an angle drawn uniformly from ± this many degrees (the paper: 30).
    """

    domains: tuple[str, ...] | None = None
    batch_size: int = 4
    update: Literal["alternating", "joint"] = "alternating"
    optimizer: Literal["adam", "shared"] = "adam"
    lr: float = 1e-3
    weight: float = 1.0
    rotation: float = 30.0

    def __post_init__(self):
        require(self.domains is None or len(self.domains) > 0, "pretext.domains", "must name at least one domain")
        require(self.batch_size >= 2, "pretext.batch_size", "must be at least 2: the heads normalise over the batch")
        require(self.lr > 0, "pretext.lr", "must be above 0")
        require(self.weight > 0, "pretext.weight", "must be above 0")
        require(0 <= self.rotation <= 180, "pretext.rotation", "must be from 0 to 180 degrees")
