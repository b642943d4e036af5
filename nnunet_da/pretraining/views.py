"""Two random views of an image, and which of their positions correspond ("Contrastive Loss" of the paper).

Positions are relative: -1 and 1 are the outer edges of the first and last voxel along an axis, in an image, in any view
of it and in any map that a network makes of it, whatever its resolution. They are given in the order of the axes.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Windows:
    """Where in its image each view lies.

    Attributes
    ----------
    centre : Tensor, (batch, axes)
        Positions in the image.
    share : Tensor, (batch, 1)
        Edge of the window as a share of the image's.
    """

    centre: torch.Tensor
    share: torch.Tensor

    @classmethod
    def draw(cls, batch, n_axes, crop, device):
        """Windows of an edge from `crop` (lowest, highest), anywhere within the image."""
        low, high = crop
        share = low + (high - low) * torch.rand(batch, 1, device=device)
        centre = (1 - share) * (2 * torch.rand(batch, n_axes, device=device) - 1)
        return cls(centre, share)

    def to_image(self, positions):
        """Positions in views, (batch, n, axes), as positions in the images."""
        return self.centre[:, None] + self.share[:, None] * positions

    def to_view(self, positions):
        """Positions in images, (batch, n, axes), as positions in the views."""
        return (positions - self.centre[:, None]) / self.share[:, None]

    @property
    def bounds(self):
        """The first and the last position in the image, two Tensors (batch, axes)."""
        return self.centre - self.share, self.centre + self.share


def crop(images, windows):
    """The windows of `images` (batch, channels, *space), resized to the image by linear interpolation."""
    shape = images.shape[2:]
    axes = ((2 * torch.arange(length, device=images.device, dtype=images.dtype) + 1) / length - 1 for length in shape)
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    positions = windows.to_image(grid.expand(len(images), *grid.shape))
    return sample(images, positions).unflatten(2, shape)


def sample(maps, positions):
    """Values of `maps` (batch, channels, *space) at `positions` (batch, n, axes), by linear interpolation.

    Returns a Tensor (batch, channels, n). Beyond the centre of the outer voxels their values go on.
    """
    n_axes = positions.shape[-1]
    # grid_sample takes the last axis first.
    grid = positions.flip(-1).reshape(len(positions), *[1] * (n_axes - 1), -1, n_axes)
    # Positions in half precision would be off by voxels.
    dtype = torch.promote_types(maps.dtype, grid.dtype)
    values = functional.grid_sample(maps.to(dtype), grid.to(dtype), padding_mode="border", align_corners=False)
    return values.reshape(len(maps), maps.shape[1], -1)


def change_intensities(images, contrast, brightness):
    """Each channel of `images`, in [0, 1], with another contrast and brightness, clipped to [0, 1].

    A network whose first norm is InstanceNorm would undo any shift and scale. The clipping is what it sees.
    `contrast`, `brightness`: see ViewSettings.
    """
    low, high = contrast
    shape = (*images.shape[:2], *[1] * (images.ndim - 2))
    factor = low + (high - low) * torch.rand(shape, device=images.device)
    shift = brightness * (2 * torch.rand(shape, device=images.device) - 1)
    mean = images.mean(dim=tuple(range(2, images.ndim)), keepdim=True)
    return (mean + factor * (images - mean) + shift).clamp(0, 1)


def draw_view(images, settings):
    """A view of each of `images` (batch, channels, *space), in [0, 1]: cropped, then changed in intensity.

    `settings`: ViewSettings. Returns the view, of the shape of `images`, and its Windows.
    """
    windows = Windows.draw(len(images), images.ndim - 2, settings.crop, images.device)
    view = change_intensities(crop(images, windows), settings.contrast, settings.brightness)
    return view, windows


def corresponding_regions(first, second, shape, n_regions, size):
    """Positions of random regions, each within both windows of its image, in either view.

    A region is a cube of points, a voxel of the image apart; where the windows share less than it takes, its points lie
    closer together.

    Parameters
    ----------
    first, second : Windows
        They must overlap.
    shape : sequence of int
        Voxels of the images along each axis.
    n_regions : int
    size : int
        Points of a region along each axis.

    Returns two Tensors (batch, n_regions · size ** axes, axes): the same points as positions in the first and in the
    second view, region after region.
    """
    device = first.centre.device
    low = torch.maximum(first.bounds[0], second.bounds[0])[:, None]
    high = torch.minimum(first.bounds[1], second.bounds[1])[:, None]
    # From the centre of a region to its outer points.
    reach = torch.tensor([(size - 1) / length for length in shape], device=device)
    reach = torch.minimum(reach, (high - low) / 2)
    centre = low + reach + (high - low - 2 * reach) * torch.rand(len(low), n_regions, len(shape), device=device)
    offset = torch.linspace(-1, 1, size, device=device) if size > 1 else torch.zeros(1, device=device)
    cube = torch.cartesian_prod(*[offset] * len(shape)).reshape(-1, len(shape))
    points = (centre[:, :, None] + reach[:, :, None] * cube).flatten(1, 2)
    return first.to_view(points), second.to_view(points)
