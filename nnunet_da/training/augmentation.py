"""Augmentation as the papers state it, in place of nnU-Net's, for trainers that are set so."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform

from nnunet_da.settings import require

# "Horizontal" exchanges columns. nnU-Net puts the axis of coarsest spacing first: rows and columns are the last two.
FLIPPED_AXIS = {"vertical": -2, "horizontal": -1}


@dataclass(frozen=True)
class AugmentationSettings:
    """Augmentation of the segmentation batches.

    Attributes
    ----------
    scheme : 'nnunet' or 'simple'
        'nnunet': all of nnU-Net's, and none of the settings below is used. 'simple': what they say, and nothing else.
    flips : tuple of 'horizontal', 'vertical'
        Each with a chance of one half. Predictions are mirrored along the same axes.
    rotation : float
        In plane, by an angle drawn uniformly from ± this many degrees.
    translation : float
        In plane, along each axis by a distance drawn uniformly from ± this share of the patch.
    crop : float
        In plane, a window is resized to the patch, whose edge is drawn uniformly from this share less to all of it. Its
        place is that of the patch, which lies anywhere in the scan.
    elastic : float
        In plane, a smooth random deformation that moves no point along an axis by more than a distance drawn uniformly
        from 0 to this share of the patch. It varies over a tenth of the patch.
    brightness : float
        Each image is shifted by a value drawn uniformly from ± this many of its standard deviations, per channel.
    """

    scheme: Literal["nnunet", "simple"] = "nnunet"
    flips: tuple[Literal["horizontal", "vertical"], ...] = ("horizontal",)
    rotation: float = 30.0
    translation: float = 0.0
    crop: float = 0.0
    elastic: float = 0.0
    brightness: float = 0.2

    def __post_init__(self):
        require(0 <= self.rotation <= 180, "augmentation.rotation", "must be from 0 to 180 degrees")
        require(0 <= self.translation <= 1, "augmentation.translation", "must be from 0 to 1, a share of the patch")
        require(0 <= self.crop < 1, "augmentation.crop", "must be from 0 to below 1, a share of the patch")
        require(0 <= self.elastic <= 0.5, "augmentation.elastic", "must be from 0 to 0.5, a share of the patch")
        require(self.brightness >= 0, "augmentation.brightness", "must not be negative")

    def mirror_axes(self, dimension):
        """The spatial axes that are flipped, as nnU-Net counts them: from 0, in ascending order."""
        return tuple(sorted(dimension + FLIPPED_AXIS[flip] for flip in set(self.flips)))

    def size_to_read(self, patch_size):
        """Voxels (list) that must be read for a patch of `patch_size` to be full after `simple_transforms`."""
        return size_to_read(patch_size, self.rotation, self.translation, self.elastic)


def blur_untimed(transforms):
    """Makes nnU-Net's training transforms (ComposeTransforms) blur by convolution, in place.

    Theirs times convolution and FFT once in each process and takes the faster; the two round differently, so that what
    a seed gives would depend on how busy the machine is.
    """
    for step in transforms.transforms:
        if isinstance(blur := getattr(step, "transform", None), GaussianBlurTransform):
            blur.benchmark = False


def simple_transforms(settings, patch_size):
    """The steps of the scheme 'simple' (AugmentationSettings), as a list of transforms for batchgeneratorsv2."""
    steps = in_plane_deformation(patch_size, settings.rotation, settings.crop, settings.elastic)
    if settings.translation > 0:
        steps.insert(0, RandomCrop(size_to_read(patch_size, settings.rotation, elastic=settings.elastic)))
    if settings.brightness > 0:
        steps.append(BrightnessShift(settings.brightness))
    if settings.flips:
        steps.append(MirrorTransform(allowed_axes=settings.mirror_axes(len(patch_size))))
    return steps


def in_plane_deformation(patch_size, degrees, crop=0.0, elastic=0.0):
    """Transforms that take the centre of what was read as a patch of `patch_size` (2 or 3 axes).

    It is turned by up to ± `degrees`, enlarged to `crop` (see AugmentationSettings) and deformed by up to `elastic`, in
    one interpolation. The plane is that of the last two axes: a rotation out of thick slices would blur.
    """
    radians = np.deg2rad(degrees)
    deformation = SpatialTransform(
        patch_size[-2:],
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=float(elastic > 0),
        elastic_deform_scale=(0.1, 0.1),
        # In voxels; of the shorter edge, so that it is one distance along both.
        elastic_deform_magnitude=(0, elastic * min(patch_size[-2:])),
        p_rotation=float(degrees > 0),
        rotation=(-radians, radians),
        # The part of what was read that fills the patch.
        p_scaling=float(crop > 0),
        scaling=(1 - crop, 1),
        p_synchronize_scaling_across_axes=1,
        # Nothing is taken from the displacements, so that none is larger than was asked for.
        center_deformation=False,
        bg_style_seg_sampling=False,
        border_mode_seg="constant",
        padding_value_seg=-1,
    )
    if len(patch_size) == 3:
        return [Convert3DTo2DTransform(), deformation, Convert2DTo3DTransform()]
    return [deformation]


def size_to_read(patch_size, degrees, translation=0.0, elastic=0.0):
    """Voxels (list) that must be read for a patch of `patch_size` to be full after `in_plane_deformation`.

    `translation`: share of the patch by which it is moved in plane, besides.
    """
    radians = np.deg2rad(degrees)
    rows, columns = patch_size[-2:]

    def extent(along, across):
        # Of a rectangle turned by up to the angle; turned further than its diagonal lies, it only gets shorter.
        angle = min(radians, np.arctan2(across, along))
        return int(np.ceil(along * np.cos(angle) + across * np.sin(angle)))

    deformed = 2 * int(np.ceil(elastic * min(rows, columns) * (np.sqrt(2) if degrees > 0 else 1)))
    margins = [2 * round(translation * length) + deformed for length in (rows, columns)]
    return [*patch_size[:-2], extent(rows, columns) + margins[0], extent(columns, rows) + margins[1]]


class RandomCrop(BasicTransform):
    """A window of the spatial `size`, anywhere in the last two axes; of images and label maps alike."""

    def __init__(self, size):
        super().__init__()
        self.size = tuple(size[-2:])

    def get_parameters(self, image, **_):
        free = (length - wanted for length, wanted in zip(image.shape[-2:], self.size, strict=True))
        return {"start": [int(torch.randint(n + 1, ())) for n in free]}

    def _crop(self, array, start):
        window = (slice(first, first + length) for first, length in zip(start, self.size, strict=True))
        return array[(..., *window)]

    def _apply_to_image(self, img, start, **_):
        return self._crop(img, start)

    def _apply_to_segmentation(self, segmentation, start, **_):
        return self._crop(segmentation, start)


class BrightnessShift(ImageOnlyTransform):
    """Adds to each channel a value from ± `limit` standard deviations of it."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def get_parameters(self, image, **_):
        return {"shift": self.limit * (2 * torch.rand(len(image)) - 1)}

    def _apply_to_image(self, img, shift, **_):
        channels = img.flatten(1)
        return (channels + (shift * channels.std(dim=1))[:, None]).reshape(img.shape)


class ImageRotation:
    """The rotation of images alone, for loaders without label maps: none of their voxels is resampled."""

    def __init__(self, patch_size, degrees):
        self.transform = ComposeTransforms(in_plane_deformation(patch_size, degrees))

    def __call__(self, image, segmentation):
        return {"image": self.transform(image=image)["image"], "segmentation": torch.empty(0)}
