"""Cross-entropy averaged over domains and their classes (eq. 2 of the paper), on logits in the global channels."""

import abc

import torch
from torch import nn
from torch.nn import functional

from nnunet_da.multidomain.layer import rounds


class DomainLoss(nn.Module, abc.ABC):
    """Eq. 2: the mean over a domain's voxels, divided by the number of its classes, averaged over the domains.

    Eq. 2 sums over the classes of a pixel and leaves the sum over pixels unwritten; here it is a mean over those that
    are not to be ignored. A domain that has none in a batch adds nothing.

    Parameters
    ----------
    channels : sequence of sequence of int
        Per domain, the global channels that it has.

    `forward` takes logits (n, global channels, *space), a target as nnU-Net makes it, and the index of the domain that
    all samples are of, or None: sample i is of domain i mod K. It gives a scalar. Under deep supervision nnU-Net's
    wrapper calls it for each resolution.
    """

    def __init__(self, channels):
        super().__init__()
        self.num_domains = len(channels)
        sizes = torch.tensor([len(of_domain) for of_domain in channels], dtype=torch.float32)
        self.register_buffer("sizes", sizes, persistent=False)

    def forward(self, logits, target, domain=None):
        of_voxels, valid = self.voxels(logits, target, domain)
        n_domains = self.num_domains if domain is None else 1
        sizes = self.sizes if domain is None else self.sizes[domain]
        # (n / K, K, voxels), summed to (K,).
        shape = (rounds(len(logits), n_domains), n_domains, -1)
        sums = of_voxels.reshape(shape).sum(dim=(0, 2))
        counts = valid.reshape(shape).sum(dim=(0, 2)).clamp(min=1)
        return (sums / counts / sizes.to(sums.device)).mean()

    @abc.abstractmethod
    def voxels(self, logits, target, domain):
        """Σ_c of each voxel, 0 where ignored, and whether it counts, both (n, *space)."""


class DomainCrossEntropy(DomainLoss):
    """Eq. 2 for labels that exclude each other: softmax over the domain's classes.

    Parameters
    ----------
    channels : sequence of sequence of int
    ignore_label : int or None

    Its target is a label map in global values, (n, 1, *space). The softmax runs over all global channels: those that
    the domain lacks have a logit of -100, hence no part in it.
    """

    def __init__(self, channels, ignore_label=None):
        super().__init__(channels)
        # No label is negative.
        self.ignore_label = -1 if ignore_label is None else ignore_label

    def voxels(self, logits, target, domain):
        target = target[:, 0].long()
        loss = functional.cross_entropy(logits, target, ignore_index=self.ignore_label, reduction="none")
        return loss, target != self.ignore_label


class DomainBinaryCrossEntropy(DomainLoss):
    """Eq. 2 for regions, which may overlap: a sigmoid for each of the domain's regions, the others left out.

    Parameters
    ----------
    channels : sequence of sequence of int
    n_channels : int
        Regions of the dataset.
    ignore_label : bool
        Whether the target's last channel says where to ignore.

    Its target holds a channel per region, and that one, (n, n_channels [+ 1], *space).
    """

    def __init__(self, channels, n_channels, ignore_label=False):
        super().__init__(channels)
        has = torch.zeros(len(channels), n_channels)
        for domain, of_domain in enumerate(channels):
            has[domain, list(of_domain)] = 1
        self.register_buffer("has", has, persistent=False)
        self.ignore_label = ignore_label

    def voxels(self, logits, target, domain):
        regions = target[:, :-1] if self.ignore_label else target
        valid = ~target[:, -1].bool() if self.ignore_label else torch.ones_like(target[:, 0], dtype=torch.bool)
        has = self.has.to(logits.device)
        has = has.repeat(len(logits) // len(has), 1) if domain is None else has[domain].expand(len(logits), -1)
        loss = functional.binary_cross_entropy_with_logits(
            logits,
            regions.to(logits.dtype),
            weight=has.reshape(*has.shape, *[1] * (logits.ndim - 2)),
            reduction="none",
        )
        return loss.sum(dim=1) * valid, valid
