"""The losses of the translation (section 2.1), between images in [0, 1]."""

import torch


def consistency(restored, images):
    """Cycle-consistency and identity loss: mean |restored − images| (L1, as in CycleGAN)."""
    return (restored.float() - images.float()).abs().mean()


def kspace_consistency(restored, images):
    """Cycle-consistency in k-space: mean |F restored − F images|, the modulus of the complex difference.

    F is the orthonormal 2-D Fourier transform of each slice and channel, so that the values do not grow with the slice.
    In single precision, for transforms in half take powers of two only.
    """
    return torch.fft.fft2(restored.float() - images.float(), norm="ortho").abs().mean()


def convincing(scores):
    """The generator's adversarial loss: mean (D(fake) − 1)², least squares as in CycleGAN."""
    return (scores.float() - 1).square().mean()


def discerning(real, fake):
    """The discriminator's loss: half of mean (D(real) − 1)² + mean D(fake)²."""
    return ((real.float() - 1).square().mean() + fake.float().square().mean()) / 2
