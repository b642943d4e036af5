"""Cross-entropy and focal loss of the segmentation network (ivd_dense_aspp, 2.4)."""

import torch
from torch import nn
from torch.nn import functional


class FocalLoss(nn.Module):
    """L(p) = -α (1 - p)^γ log p (eq. 1), p the probability of what is true; the mean over the voxels that count.

    With α = 1 and γ = 0 it is the cross-entropy. The paper leaves open how voxels are summed up, and what becomes of
    several classes: here the mean over voxels, and p that of the true class under softmax. For regions, which may
    overlap, p is that of the true answer under a sigmoid, and the mean is over regions too.

    Parameters
    ----------
    alpha, gamma : float
    ignore_label : int or None
        Voxels with it count for nothing. For regions its value does not matter.
    regions : bool
        Whether the target holds a channel per region and, with an `ignore_label`, a last one that says where to ignore.

    `forward` takes logits (n, channels, *space) and a target as nnU-Net makes it, (n, 1, *space) with the values of
    labels or (n, regions [+ 1], *space), and gives a scalar; 0 where no voxel counts.
    """

    def __init__(self, alpha=1.0, gamma=0.0, ignore_label=None, regions=False):
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.ignore_label = ignore_label
        self.regions = regions

    def forward(self, logits, target):
        # Half precision would lose what focal loss weighs: p near 1.
        logits = logits.float()
        if self.regions:
            valid = torch.ones_like(target[:, :1], dtype=torch.bool)
            if self.ignore_label is not None:
                target, valid = target[:, :-1], ~target[:, -1:].bool()
            minus_log_p = functional.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")
        else:
            valid = torch.ones_like(target, dtype=torch.bool)
            if self.ignore_label is not None:
                valid = target != self.ignore_label
            true = torch.where(valid, target, 0)[:, 0].long()
            minus_log_p = functional.cross_entropy(logits, true, reduction="none")[:, None]
        loss = self.alpha * minus_log_p
        if self.gamma:
            # 1 - p, exactly also where p is near 1; not 0, where a γ below 1 has no derivative.
            loss = loss * (-torch.expm1(-minus_log_p)).clamp(min=1e-12) ** self.gamma
        return (loss * valid).sum() / (valid.sum().clamp(min=1) * loss.shape[1])
