"""2D patches out of slabs: what a 2D training reads where its augmentation deforms in 3D (`nnunet_da.discs`)."""

import math

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunet_da.discs.deformation import middle_slice, random_displacement
from nnunet_da.training.augmentation import RandomCrop

# What nnU-Net's loader writes into a label map where there is no scan.
NO_SCAN = -1


class SlabLoader(nnUNetDataLoader):
    """nnU-Net's loader with `n_slices` slices, an odd number, in place of one: its transforms must make 2D of them.

    Takes `n_slices` after the dataset, else nnU-Net's arguments with sizes of 2D patches. The middle slice is what
    nnU-Net's loader would have read.
    """

    def __init__(self, dataset, n_slices, batch_size, patch_size, final_patch_size, *arguments, **keywords):
        super().__init__(dataset, batch_size, (n_slices, *patch_size), (1, *final_patch_size), *arguments, **keywords)


def slices_to_read(settings):
    """The number of slices (odd) that the deformation of SlabSettings `settings` may draw from."""
    return 1 + 2 * math.ceil(settings.through_plane)


def size_to_read(settings, patch_size):
    """Rows and columns (list) that must be read for a patch of `patch_size` to be full after `slab_transforms`."""
    margins = (2 * round(settings.crop * length) for length in patch_size)
    return [length + margin for length, margin in zip(_size_to_deform(settings, patch_size), margins, strict=True)]


def _size_to_deform(settings, patch_size):
    reach = 2 * math.ceil(settings.deformation * min(patch_size))
    return [math.ceil(length / settings.scale[0]) + reach for length in patch_size]


def slab_transforms(settings, patch_size):
    """The augmentation of SlabSettings `settings`, from slabs as SlabLoader reads them to 2D patches (list)."""
    return [
        RandomCrop(_size_to_deform(settings, patch_size)),
        SlabDeformation(settings, patch_size),
        *([RandomNoise(settings.noise)] if settings.noise else []),
    ]


class SlabDeformation(BasicTransform):
    """Image and label map of a slab, (channels, slices, rows, columns), as its middle slice after a deformation."""

    def __init__(self, settings, patch_size):
        super().__init__()
        self.settings = settings
        self.patch_size = tuple(patch_size)

    def get_parameters(self, segmentation, **_):
        shorter = min(self.patch_size)
        in_plane = self.settings.deformation * shorter
        limits = (self.settings.through_plane, in_plane, in_plane)
        low, high = map(math.log, self.settings.scale)
        # Slices beyond the scan are to be seen by none: what there is of it goes on as at its end.
        in_scan = torch.nonzero((segmentation[0] != NO_SCAN).flatten(1).any(dim=1)).flatten().tolist()
        return {
            "displacement": random_displacement(self.patch_size, limits, self.settings.smoothness * shorter),
            "zoom": math.exp(low + (high - low) * float(torch.rand(()))),
            "valid": (in_scan[0], in_scan[-1]) if in_scan else None,
        }

    def _apply_to_image(self, img, **parameters):
        return middle_slice(img, **parameters)

    def _apply_to_segmentation(self, segmentation, **parameters):
        return middle_slice(segmentation, **parameters, labels=True, outside=NO_SCAN)


class RandomNoise(ImageOnlyTransform):
    """Adds Gaussian noise of a standard deviation drawn from 0 to `limit` of the image's, per channel."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def _apply_to_image(self, img, **_):
        sigma = self.limit * float(torch.rand(())) * img.flatten(1).std(dim=1)
        return img + sigma.reshape(-1, *[1] * (img.ndim - 1)) * torch.randn(img.shape)
