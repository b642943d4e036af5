"""The local patch pretext task: which images are made of the same tissue, when all shape is gone?

"Shapeless local patch discrimination" is named by the paper as a task to come ("Discussion") after Kim et al.,
"Self-supervised visual attribute learning for fashion compatibility", ICCV Workshops 2021. Of each image two mosaics
of small patches from random places are made. Texture and intensity survive in them, the anatomy does not. The head
gives an embedding, and a mosaic has to find the other one of its image among those of the batch.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from nnunet_da.pretext.task import PretextTask
from nnunet_da.settings import require


@dataclass(frozen=True)
class LocalPatchSettings:
    """All are this package's choice, but for what is said.

    Attributes
    ----------
    size : int
        Edge of a patch, in voxels of the finest axis; along an axis of coarser spacing it is as many voxels shorter.
    n_features : int
        Length of the embedding.
    temperature : float
        τ of the loss; 0.1 is common for such losses.
    """

    size: int = 16
    n_features: int = 64
    temperature: float = 0.1

    def __post_init__(self):
        require(self.size >= 2, "local_patches.size", "must be at least 2")
        require(self.n_features >= 2, "local_patches.n_features", "must be at least 2")
        require(self.temperature > 0, "local_patches.temperature", "must be above 0")


class LocalPatchTask(PretextTask):
    """Discrimination of images by mosaics of their patches; two inputs per image."""

    name = "local_patches"

    @property
    def n_outputs(self):
        return self.settings.n_features

    def sample(self, images):
        """Mosaics of all images, then a second one of each; the answer is the index of the partner."""
        size = [max(1, round(self.settings.size * factor)) for factor in self.relative_spacing]
        inputs = torch.cat([mosaic(images, size), mosaic(images, size)])
        return inputs, torch.arange(len(inputs), device=images.device).roll(len(images))

    def loss(self, outputs, answers):
        """Normalised temperature-scaled cross-entropy over the other mosaics of the batch (InfoNCE)."""
        return functional.cross_entropy(self._similarities(outputs), answers)

    def score(self, outputs, answers):
        """How many of an image's two mosaics are nearest to each other, of two."""
        right = (self._similarities(outputs).argmax(dim=1) == answers).float()
        return right.unflatten(0, (2, -1)).mean(dim=0)

    def chance(self, n_images):
        return 1 / (2 * n_images - 1)

    def _similarities(self, outputs):
        """Cosine similarity of all pairs over τ; none with itself."""
        embeddings = functional.normalize(outputs.float(), dim=1)
        similarities = embeddings @ embeddings.T / self.settings.temperature
        return similarities.masked_fill(torch.eye(len(outputs), dtype=torch.bool, device=outputs.device), -torch.inf)


def mosaic(images, size):
    """Images of the same shape, tiled by patches from random places of each, none rotated.

    Parameters
    ----------
    images : Tensor, (batch, channels, *space)
    size : sequence of int
        Voxels of a patch along each spatial axis; an axis that is shorter is taken whole.
    """
    batch, _, *shape = images.shape
    size = [min(edge, length) for edge, length in zip(size, shape, strict=True)]
    n_tiles = [-(-length // edge) for edge, length in zip(size, shape, strict=True)]
    index = torch.zeros(1, dtype=torch.long, device=images.device)
    for axis, (length, edge) in enumerate(zip(shape, size, strict=True)):
        start = torch.randint(length - edge + 1, (batch, *n_tiles), device=images.device)
        for other, (other_length, other_edge) in enumerate(zip(shape, size, strict=True), start=1):
            start = start.repeat_interleave(other_edge, dim=other).narrow(other, 0, other_length)
        offset = torch.arange(length, device=images.device) % edge
        offset = offset.reshape([-1 if other == axis else 1 for other in range(len(shape))])
        index = index * length + start + offset
    flat = index.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, flat).reshape(images.shape)
