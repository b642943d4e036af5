"""The segmentation network of the disc pipeline (ivd_dense_aspp, 2.1 and Fig. 3), for plans.json.

What it is made of: DenseNet (Huang et al., arXiv:1608.06993), squeeze-and-excitation (Hu et al., arXiv:1709.01507), and
the densely connected atrous spatial pyramid of DenseASPP (Yang et al., CVPR 2018).
"""

import torch
from torch import nn
from torch.nn import functional

# Resolutions: whole, half and a quarter, "only performs downsampling for 2 times".
N_PATHS = 3
# Of DenseNet and DenseASPP: a 1×1 convolution narrows what the next one sees to so many times what that adds.
BOTTLENECK = 4


class SqueezeExcitation(nn.Module):
    """x · σ(W₂ ReLU(W₁ mean(x))), a weight per channel and sample: (n, channels, *space) as it came."""

    def __init__(self, channels, reduction):
        super().__init__()
        narrow = max(1, channels // reduction)
        self.gate = nn.Sequential(nn.Conv2d(channels, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, channels, 1))

    def forward(self, x):
        return x * torch.sigmoid(self.gate(x.mean(dim=(2, 3), keepdim=True)))


def dense_layer(channels, growth, dilation, norm):
    """Norm, ReLU and 1×1 convolution, then norm, ReLU and 3×3 convolution with a `dilation`: to `growth` channels."""
    narrow = BOTTLENECK * growth
    return nn.Sequential(
        *(norm(channels), nn.ReLU(), nn.Conv2d(channels, narrow, 1, bias=False)),
        *(norm(narrow), nn.ReLU(), nn.Conv2d(narrow, growth, 3, padding=dilation, dilation=dilation, bias=False)),
    )


class DenseBlock(nn.Module):
    """Layers of which each sees the input and all layers before it; then squeeze-and-excitation.

    With dilation rates above 1 it is the densely connected pyramid. `forward`: (n, channels, *space) →
    (n, channels + growth · layers, *space).
    """

    def __init__(self, channels, growth, rates, reduction, norm):
        super().__init__()
        self.layers = nn.ModuleList(
            dense_layer(channels + index * growth, growth, rate, norm) for index, rate in enumerate(rates)
        )
        self.out_channels = channels + len(rates) * growth
        self.attention = SqueezeExcitation(self.out_channels, reduction)

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return self.attention(x)


class Path(nn.Sequential):
    """One pathway of the encoder: from the image to features at 1 / 2^`depth` of its resolution.

    A 3×3 convolution, then a dense block at each resolution down to its own; between them a 1×1 convolution that halves
    the channels, and average pooling, as DenseNet has it.
    """

    def __init__(self, input_channels, depth, growth, layers, reduction, norm):
        channels = 2 * growth
        parts = [nn.Conv2d(input_channels, channels, 3, padding=1, bias=False)]
        for level in range(depth + 1):
            if level:
                parts += [norm(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
                channels //= 2
            block = DenseBlock(channels, growth, [1] * layers, reduction, norm)
            parts.append(block)
            channels = block.out_channels
        super().__init__(*parts)
        self.out_channels = channels


class Decoder(nn.Module):
    """From the pathways' features, the finest first, to logits at the image's resolution."""

    # nnU-Net sets it before training and prediction.
    deep_supervision = False

    def __init__(self, channels, width, num_classes, norm):
        super().__init__()
        *skips, below = channels
        self.stages = nn.ModuleList()
        for skip in reversed(skips):
            stage = nn.Sequential(nn.Conv2d(below + skip, width, 3, padding=1, bias=False), norm(width), nn.ReLU())
            self.stages.append(stage)
            below = width
        self.seg_layers = nn.ModuleList([nn.Conv2d(below, num_classes, 1)])

    def forward(self, features):
        *skips, x = features
        for stage in self.stages:
            x = functional.interpolate(x, scale_factor=2, mode="bilinear")
            x = stage(torch.cat([x, skips.pop()], dim=1))
        return self.seg_layers[0](x)


class DenseASPPNet(nn.Module):
    """DenseNet with squeeze-and-excitation, three pathways, two downsamplings and a densely connected pyramid.

    The paper states, and this does: a 2D network on the concatenated modalities; DenseNet as backbone, with
    squeeze-and-excitation; two downsamplings; densely connected dilated convolutions of rates 3, 6, 12, 18, 24; "three
    separate paths to handle different resolution signal, i.e. treat each resolution signal path as a single task", so
    that no layer of the encoder gets a gradient both from a shortcut at its own resolution and from below.

    It leaves open (Fig. 3 names no layer), and chosen here are: a pathway is an encoder of its own from the image down
    to its resolution, with one way into the decoder, so that "separate" holds to the letter; the pyramid stands at
    the end of the coarsest; filters, layers and where squeeze-and-excitation stands (after every block); upsampling is
    linear, each step followed by a 3×3 convolution on what came from below and the pathway of that resolution.

    Parameters
    ----------
    input_channels, num_classes : int
    growth, layers, aspp_growth, reduction : int
    rates : sequence of int
        See `DenseASPPSettings`.
    norm_op : type
        Normalisation, of 2D images.
    norm_op_kwargs : dict, optional
    deep_supervision : bool
        nnU-Net gives it; only False is possible.

    `forward` takes (n, input_channels, rows, columns), both multiples of 4, and gives logits (n, num_classes, rows,
    columns). Raises ValueError for deep supervision.
    """

    def __init__(
        self,
        input_channels,
        num_classes,
        rates,
        growth,
        layers,
        aspp_growth,
        reduction,
        norm_op,
        norm_op_kwargs=None,
        deep_supervision=False,
    ):
        if deep_supervision:
            raise ValueError("the network has one output; set deep_supervision=false")
        super().__init__()

        def norm(channels):
            return norm_op(channels, **(norm_op_kwargs or {}))

        self.paths = nn.ModuleList(
            Path(input_channels, depth, growth, layers, reduction, norm) for depth in range(N_PATHS)
        )
        channels = [path.out_channels for path in self.paths]
        self.pyramid = DenseBlock(channels[-1], aspp_growth, rates, reduction, norm)
        channels[-1] = self.pyramid.out_channels
        self.decoder = Decoder(channels, 4 * growth, num_classes, norm)

    def forward(self, images):
        *finer, coarsest = (path(images) for path in self.paths)
        return self.decoder([*finer, self.pyramid(coarsest)])

    @staticmethod
    def initialize(module):
        """He's initialisation of convolutions, as DenseNet has it."""
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def receptive_field(rates, layers):
    """Edge, in pixels, of the square that an output pixel at an even place sees by convolution, pooling and upsampling.

    Through the coarsest pathway. Squeeze-and-excitation, whose mean is over all of the image, is not counted.
    """
    low = high = 0  # the outermost pixels that are seen, at the resolution that the loop has come to
    for _ in range(N_PATHS - 1):
        low, high = low - 1, high + 1  # the decoder's convolution
        low, high = (low - 1) // 2, (high - 1) // 2 + 1  # the two neighbours that linear upsampling takes
    low, high = low - sum(rates), high + sum(rates)
    for depth in reversed(range(N_PATHS)):
        low, high = low - layers, high + layers
        if depth:
            low, high = 2 * low, 2 * high + 1
    return high - low + 1 + 2  # and the first convolution
