"""The intensity pretext task: which of {none, noise, blur, contrast} was applied (the paper, "Pretext tasks").

The paper names the transformations (Gaussian noise, Gaussian blur, contrast enhancement) and not their strength; the
ranges below are this package's choice. They are chosen for what each leaves to a network whose first normalisation is
InstanceNorm, nnU-Net's default, which undoes any shift and scale of the intensities:

- noise adds energy at high frequencies, blur takes it away: both stay visible, as texture;
- contrast enhancement that is linear, mean + f (x - mean), would be undone entirely. Images are stored in a fixed
  range, so an enhancement saturates at its ends; that is what `contrast_clip` keeps, and what the network can see.
"""

from dataclasses import dataclass

import torch

from nnunet_da.pretext.task import ClassificationTask
from nnunet_da.settings import require


@dataclass(frozen=True)
class IntensitySettings:
    """Strength of the transformations; each image draws from the range (lowest, highest) uniformly.

    Attributes
    ----------
    noise_sigma : (float, float)
        Standard deviation of the noise, in standard deviations of the image (per channel).
    blur_sigma : (float, float)
        Standard deviation of the Gaussian kernel, in voxels of the finest axis. The kernel is isotropic in mm: along an
        axis of coarser spacing it is as many voxels narrower.
    contrast_factor : (float, float)
        f in mean + f (x - mean), above 1.
    contrast_clip : bool
        Whether the result is clipped to the range that the image had.
    """

    noise_sigma: tuple[float, float] = (0.1, 0.4)
    blur_sigma: tuple[float, float] = (0.7, 1.5)
    contrast_factor: tuple[float, float] = (1.5, 3.0)
    contrast_clip: bool = True

    def __post_init__(self):
        for name, lowest in (("noise_sigma", 0.0), ("blur_sigma", 0.0), ("contrast_factor", 1.0)):
            low, high = getattr(self, name)
            require(
                lowest < low <= high, f"intensity.{name}", f"must be two values above {lowest}, the lower one first"
            )


class IntensityTask(ClassificationTask):
    """Classification of {none, noise, blur, contrast}; its settings are IntensitySettings."""

    name = "intensity"
    class_names = ("none", "noise", "blur", "contrast")

    def transform(self, images, labels):
        transformed = images.clone()
        for label, apply in ((1, self._add_noise), (2, self._blur), (3, self._enhance_contrast)):
            chosen = (labels == label).nonzero()[:, 0]
            if len(chosen):
                transformed[chosen] = apply(images[chosen])
        return transformed

    def _add_noise(self, images):
        sigma = _uniform(self.settings.noise_sigma, images)
        return images + sigma * _per_channel(images, torch.std) * torch.randn_like(images)

    def _blur(self, images):
        return gaussian_blur(images, _uniform(self.settings.blur_sigma, images), self.relative_spacing)

    def _enhance_contrast(self, images):
        mean = _per_channel(images, torch.mean)
        enhanced = mean + _uniform(self.settings.contrast_factor, images) * (images - mean)
        if not self.settings.contrast_clip:
            return enhanced
        return enhanced.clamp(_per_channel(images, torch.amin), _per_channel(images, torch.amax))


def gaussian_blur(images, sigma, relative_spacing):
    """Gaussian blur of each image with its own width, along every spatial axis.

    Along an axis of n voxels the blur is a product with the n × n matrix of Gaussian weights, its rows scaled to sum 1
    so that borders keep their brightness. All images go in one batched product per axis, and nothing is truncated.

    Parameters
    ----------
    images : Tensor, (batch, channels, *space)
    sigma : Tensor, (batch, 1, …), broadcastable
        Standard deviations in voxels.
    relative_spacing : sequence of float
        One factor on `sigma` per spatial axis.
    """
    for axis, factor in enumerate(relative_spacing, start=2):
        position = torch.arange(images.shape[axis], device=images.device, dtype=images.dtype)
        distance = position[:, None] - position[None, :]
        weights = torch.exp(-0.5 * (distance / (factor * sigma.reshape(-1, 1, 1))) ** 2)
        weights = weights / weights.sum(dim=2, keepdim=True)
        moved = images.movedim(axis, -1)
        flat = moved.reshape(len(images), -1, moved.shape[-1])
        images = (flat @ weights.transpose(1, 2)).reshape(moved.shape).movedim(-1, axis)
    return images


def _uniform(bounds, images):
    """One value per image from `bounds`, shaped to broadcast over it."""
    low, high = bounds
    shape = (len(images),) + (1,) * (images.ndim - 1)
    return low + (high - low) * torch.rand(shape, device=images.device, dtype=images.dtype)


def _per_channel(images, statistic):
    """A statistic over the space of each channel of each image, shaped to broadcast over it."""
    return statistic(images, dim=tuple(range(2, images.ndim)), keepdim=True)
