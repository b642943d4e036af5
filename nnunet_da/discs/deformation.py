"""Random 3D deformation of a slab of slices, seen in its middle slice (ivd_dense_aspp, 3.1: the augmentation)."""

import math

import torch
from torch.nn import functional


def random_displacement(shape, limits, sigma, generator=None):
    """A smooth random field of displacements at the pixels of a slice: (3, rows, columns), float32.

    What a slice sees of a 3D deformation is a field of its pixels with three components; across slices nothing of it
    is needed. Component i is Gaussian noise, smoothed, and scaled so that its largest is a number drawn uniformly from
    0 to `limits[i]`.

    Parameters
    ----------
    shape : (int, int)
    limits : sequence of float
        Across the slices, along rows and along columns, in voxels.
    sigma : float
        Standard deviation of the Gaussian that smooths, in pixels; above 0.
    generator : torch.Generator, optional
    """
    field = torch.randn((3, *shape), generator=generator)
    frequencies = [torch.fft.fftfreq(n) for n in shape[:-1]] + [torch.fft.rfftfreq(shape[-1])]
    squares = frequencies[0][:, None] ** 2 + frequencies[1] ** 2
    smooth = torch.exp(-2 * (math.pi * sigma) ** 2 * squares)
    field = torch.fft.irfft2(torch.fft.rfft2(field) * smooth, s=tuple(shape))
    largest = torch.as_tensor(limits, dtype=field.dtype) * torch.rand(3, generator=generator)
    return field * (largest / field.abs().amax(dim=(1, 2)))[:, None, None]


def middle_slice(slab, displacement, zoom=1.0, *, labels=False, outside=0, valid=None):
    """The middle slice of a slab as it is after the deformation: (channels, rows, columns), those of `displacement`.

    Pixel x, counted from the middle of the slice, takes what lies at x / `zoom` + displacement(x).

    Parameters
    ----------
    slab : Tensor
        (channels, slices, rows, columns); rows and columns at least those of `displacement`.
    displacement : Tensor
        (3, rows, columns) in voxels, as `random_displacement` gives it.
    zoom : float
        By which what is seen is enlarged, in plane.
    labels : bool
        Whether the voxels are labels, of which a pixel takes the one with the most weight; else linear, and 0 outside.
    outside : int
        Label of what lies outside the slab.
    valid : (int, int), optional
        First and last slice with something in it; what lies beyond takes that one.
    """
    n_slices, *size = slab.shape[1:]
    shape = displacement.shape[1:]
    z, y, x = displacement
    rows, columns = (torch.arange(n) - (n - 1) / 2 for n in shape)
    first, last = valid or (0, n_slices - 1)
    position = [
        ((n_slices - 1) / 2 + z).clamp(first, last),
        (size[0] - 1) / 2 + rows[:, None] / zoom + y,
        (size[1] - 1) / 2 + columns / zoom + x,
    ]
    # As grid_sample wants it: from -1 to 1 over the outer edges of the slab, the last axis first.
    scaled = [(2 * p + 1) / n - 1 for p, n in zip(position, slab.shape[1:], strict=True)]
    grid = torch.stack(scaled[::-1], dim=-1)[None, None]

    def sample(voxels):
        return functional.grid_sample(voxels[None], grid, align_corners=False)[0, :, 0]

    if not labels:
        return sample(slab)
    result = torch.full((len(slab), *shape), outside, dtype=slab.dtype)
    best = torch.zeros((len(slab), *shape))
    for value in torch.unique(slab):
        weight = sample((slab == value).float())
        result[weight > best] = value
        best = torch.maximum(best, weight)
    return result
