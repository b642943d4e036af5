"""Randomisation of intensities: the same anatomy as some other scanner or sequence might have shown it.

A segmentation network trained on one contrast learns what is dark and what is bright. Where the contrast of a sample is
drawn anew each time it is seen, shape and texture are all that is left to learn from.

``convolution``: random shallow non-linear convolutions, GIN of Ouyang et al., "Causality-inspired single-source domain
generalization for medical image segmentation", IEEE Trans. Med. Imaging 42, 1095-1106 (2023), section III.B: layers of
random kernels and shifts with leaky ReLU in between, blended with the original by a random share, and brought to the
Frobenius norm of the original. Kernels are drawn for each sample, and sizes for each layer and batch.

``monotone`` and ``free``: random maps of intensity to intensity, piecewise linear between knots, with rising values
(cf. the Bézier curves of Zhou et al., "Models Genesis", Med. Image Anal. 67, 2021), or with values drawn freely. A free
map may show the brightest tissue as the darkest one, or two tissues alike, as between T1 and T2 or in and out of phase.
Any sample may also be inverted, have a bias field, a coarser resolution, and noise.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from nnunet_da.settings import require

# Slope of the leaky ReLU below 0: PyTorch's default, as in the paper's code.
_SLOPE = 0.01
_EPSILON = 1e-6


@dataclass(frozen=True)
class RandomisationSettings:
    """How intensities are drawn. The paper of the convolutions states its layers and channels alone.

    Attributes
    ----------
    probability : float
        Chance that a labelled sample is changed at all; the others keep the source as it is.
    convolution, monotone, free : float
        How likely a changed sample is to get random convolutions, a rising map, or a free one; relative to their sum.
    inversion : float
        Chance that a changed sample is inverted first.
    layers, channels : int
        Of the convolutions.
    knots : int
        Of the maps, spread evenly over mean ± `span` standard deviations.
    span : float
        What lies beyond is mapped as the outermost knot.
    bias : float
        Chance of a bias field.
    bias_strength : float
        Largest logarithm of its factor, drawn uniformly from 0 to this.
    resolution : float
        Chance of a coarser resolution.
    coarsest : float
        Its largest factor, drawn uniformly from 1 to this for each sample, along every axis alike.
    noise : float
        Chance of Gaussian noise.
    noise_sigma : float
        Its largest standard deviation, in those of the image, drawn uniformly from 0 to this.
    """

    probability: float = 0.85
    convolution: float = 0.5
    monotone: float = 0.5
    free: float = 1.0
    inversion: float = 0.5
    layers: int = 4
    channels: int = 2
    knots: int = 6
    span: float = 2.5
    bias: float = 0.3
    bias_strength: float = 0.5
    resolution: float = 0.1
    coarsest: float = 2.0
    noise: float = 0.2
    noise_sigma: float = 0.15

    def __post_init__(self):
        for name in ("probability", "inversion", "bias", "resolution", "noise"):
            require(0 <= getattr(self, name) <= 1, f"adaptation.randomisation.{name}", "must be from 0 to 1")
        for name in ("convolution", "monotone", "free", "bias_strength", "noise_sigma"):
            require(getattr(self, name) >= 0, f"adaptation.randomisation.{name}", "must not be negative")
        total = self.convolution + self.monotone + self.free
        require(total > 0, "adaptation.randomisation.convolution", "or monotone or free must be above 0")
        for name, least in (("layers", 1), ("channels", 1), ("knots", 2)):
            require(getattr(self, name) >= least, f"adaptation.randomisation.{name}", f"must be at least {least}")
        require(self.span > 0, "adaptation.randomisation.span", "must be above 0")
        require(self.coarsest >= 1, "adaptation.randomisation.coarsest", "must be at least 1")


def randomise(images, settings, probability=None):
    """Images with other intensities, each sample drawn for itself; shapes, and what is where, stay.

    Parameters
    ----------
    images : Tensor (batch, channels, *space)
        2D or 3D, of any scale; a changed sample gets the mean and standard deviation that it had, per channel, but for
        the convolutions, after which it has its Frobenius norm.
    settings : RandomisationSettings
    probability : float or None
        Chance that a sample is changed; None: that of the settings.

    Returns a new Tensor of the same shape, type and device. Drawn from PyTorch's own generators.
    """
    n = len(images)
    original, device = images.float(), images.device
    changed = _chance(n, settings.probability if probability is None else probability, device)
    result = _where(_chance(n, settings.inversion, device), invert(original), original)
    weights = torch.tensor([settings.convolution, settings.monotone, settings.free], device=device)
    kind = torch.multinomial(weights, n, replacement=True)
    # Each is computed for those samples alone that drew it.
    for index, change in enumerate((_convolved, _risen, _freed)):
        chosen = kind == index
        if chosen.any():
            result = result.clone()
            result[chosen] = change(result[chosen], settings)
    result = _where(_chance(n, settings.bias, device), bias_field(result, settings.bias_strength), result)
    coarse = _chance(n, settings.resolution, device).nonzero().flatten().tolist()
    for sample in coarse:
        result[sample : sample + 1] = coarsen(result[sample : sample + 1], settings.coarsest)
    sigma = torch.rand(n, device=device) * settings.noise_sigma * _chance(n, settings.noise, device)
    result = result + _like(sigma, result) * _moments(result)[1] * torch.randn_like(result)
    return _where(changed, result, original).to(images.dtype)


def _convolved(images, settings):
    return random_convolutions(images, settings.layers, settings.channels)


def _risen(images, settings):
    return map_intensities(images, monotone_values(images, settings.knots), settings.span)


def _freed(images, settings):
    return map_intensities(images, free_values(images, settings.knots), settings.span)


def random_convolutions(images, n_layers=4, n_channels=2):
    """GIN: α · g(x) + (1 − α) · x with α drawn uniformly from [0, 1], at the Frobenius norm of x, for each sample.

    `images`: (batch, channels, *space). g has `n_layers` layers with kernels of 1 or 3 voxels along each axis, drawn
    from a standard normal distribution as are the shifts of its filters, and `n_channels` channels in between.
    """
    n, channels, *space = images.shape
    convolve = {2: F.conv2d, 3: F.conv3d}[len(space)]
    widths = [channels, *[n_channels] * (n_layers - 1), channels]
    # The samples as groups of one convolution.
    made = images.reshape(1, n * channels, *space)
    for layer, (width, wanted) in enumerate(itertools.pairwise(widths)):
        size = 1 + 2 * int(torch.randint(2, ()))
        kernels = torch.randn(n * wanted, width, *[size] * len(space), device=images.device)
        shifts = torch.randn(n * wanted, device=images.device)
        made = convolve(made, kernels, shifts, padding=size // 2, groups=n)
        if layer < n_layers - 1:
            made = F.leaky_relu(made, _SLOPE)
    made = made.reshape(images.shape)
    # Both at one norm before they are blended: else the larger one, by far g(x), would be nearly all of the blend.
    made = _with_norm_of(made, images)
    share = _like(torch.rand(n, device=images.device), images)
    return _with_norm_of(share * made + (1 - share) * images, images)


def _with_norm_of(made, images):
    """`made` scaled to the Frobenius norm of `images`, sample by sample."""
    norms = [torch.linalg.vector_norm(values.flatten(1), dim=1) for values in (images, made)]
    return made * _like(norms[0] / norms[1].clamp(min=_EPSILON), made)


def monotone_values(images, n_knots):
    """Random values at the knots, (batch, channels, n_knots), rising from -1 to 1 with uniformly drawn steps."""
    steps = torch.rand(*images.shape[:2], n_knots - 1, device=images.device) + _EPSILON
    rise = steps.cumsum(-1) / steps.sum(-1, keepdim=True)
    return 2 * F.pad(rise, (1, 0)) - 1


def free_values(images, n_knots):
    """Random values at the knots, (batch, channels, n_knots), drawn uniformly from [-1, 1]."""
    return 2 * torch.rand(*images.shape[:2], n_knots, device=images.device) - 1


def map_intensities(images, values, span):
    """Images whose intensities are replaced by those of a curve; mean and standard deviation stay.

    Parameters
    ----------
    images : Tensor (batch, channels, *space)
    values : Tensor (batch, channels, knots)
        At knots spread evenly over mean ± `span` standard deviations of each channel; linear in between.
    span : float
    """
    mean, std = _moments(images)
    last = values.shape[-1] - 1
    place = ((images - mean) / (span * std.clamp(min=_EPSILON))).clamp(-1, 1)
    place = ((place + 1) * last / 2).flatten(2)
    lower = place.long().clamp(max=last - 1)
    below, above = values.gather(2, lower), values.gather(2, lower + 1)
    mapped = below + (place - lower) * (above - below)
    return _with_moments(mapped.reshape(images.shape), mean, std)


def invert(images):
    """Images (batch, channels, *space) mirrored at the mean of each channel."""
    return 2 * _moments(images)[0] - images


def bias_field(images, strength, coarse=3):
    """Images times a smooth random field, of a strength of its own for each sample; mean and deviation stay.

    The logarithm of the field is drawn at `coarse` points along each axis, uniformly from ± a value from 0 to
    `strength`, and interpolated. Intensities count from the least of each channel, since air has no signal to change.
    """
    n, _, *space = images.shape
    grid = 2 * torch.rand(n, 1, *[coarse] * len(space), device=images.device) - 1
    grid = grid * _like(torch.rand(n, device=images.device) * strength, grid)
    mode = {2: "bilinear", 3: "trilinear"}[len(space)]
    field = F.interpolate(grid, size=space, mode=mode, align_corners=True).exp()
    least = images.flatten(2).amin(-1)
    least = least.reshape(*least.shape, *[1] * len(space))
    return _with_moments((images - least) * field, *_moments(images))


def coarsen(images, largest):
    """Images as if sampled more coarsely by one factor drawn uniformly from [1, `largest`], and interpolated back."""
    factor = 1 + float(torch.rand(())) * (largest - 1)
    space = images.shape[2:]
    mode = {2: "bilinear", 3: "trilinear"}[len(space)]
    small = F.interpolate(images, size=[max(1, round(size / factor)) for size in space], mode="area")
    return F.interpolate(small, size=space, mode=mode, align_corners=False)


def _chance(n, probability, device):
    """Booleans (n,), true with the `probability`."""
    return torch.rand(n, device=device) < probability


def _like(values, images):
    """`values` (batch,) with the number of axes of `images`."""
    return values.reshape(-1, *[1] * (images.ndim - 1))


def _where(chosen, one, other):
    """Sample by sample `one` where `chosen` (batch,), else `other`."""
    return torch.where(_like(chosen, one), one, other)


def _moments(images):
    """Mean and standard deviation of each sample and channel, (batch, channels, 1, …) each."""
    axes = tuple(range(2, images.ndim))
    std, mean = torch.std_mean(images, dim=axes, correction=0, keepdim=True)
    return mean, std


def _with_moments(images, mean, std):
    """`images` shifted and scaled to a mean and standard deviation; what is flat stays flat."""
    found_mean, found_std = _moments(images)
    return (images - found_mean) / found_std.clamp(min=_EPSILON) * std + mean
