"""The regression: pixels replaced by noise, which the network is to recover from their surroundings.

The paper, "Regression Loss", after the blind spots of Noise2Void (Krull et al., CVPR 2019).
"""

import torch


def corrupt(images, fraction=0.1, sigma=0.01):
    """x̃ = (1 - M) ⊙ x + N ⊙ M, drawn on the device of the images.

    Parameters
    ----------
    images : Tensor, (batch, channels, *space)
        x, in [0, 1]; left as they are.
    fraction : float
        Chance of a pixel to be in M, each by itself.
    sigma : float
        Standard deviation of N; its mean is 0.

    Returns x̃ (of the shape of `images`) and M (bool, (batch, 1, *space)): a pixel is replaced in all channels, so that
    none of them tells what the others had there.
    """
    mask = torch.rand_like(images[:, :1]) < fraction
    return torch.where(mask, sigma * torch.randn_like(images), images), mask


def masked_l1(reconstruction, images, mask):
    """‖M ⊙ Ψ(x̃) - M ⊙ x‖₁ over the number of replaced values: their mean absolute difference.

    The paper sums. The mean does not depend on the size of the patch. Other pixels have no part in it, and no gradient.

    Parameters
    ----------
    reconstruction, images : Tensor, (batch, channels, *space)
        Ψ(x̃) and x.
    mask : Tensor, bool, (batch, 1, *space)
        M.

    Returns a scalar; 0 where nothing was replaced.
    """
    difference = (reconstruction.float() - images.float()).abs()
    n_values = mask.sum() * images.shape[1]
    return torch.where(mask, difference, 0).sum() / n_values.clamp(min=1)
