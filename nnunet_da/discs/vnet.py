"""The localisation network of the disc pipeline (ivd_dense_aspp, 2.2), for plans.json: a V-Net.

Milletari et al., "V-Net: fully convolutional neural networks for volumetric medical image segmentation", 3DV 2016
(below: V-Net).
"""

import torch
from torch import nn


class ResidualStage(nn.Module):
    """Convolutions, each with a norm and but for the last a PReLU; x is added to what they make, then a last PReLU."""

    def __init__(self, channels, convolutions, kernel, norm):
        super().__init__()
        layers = []
        for index in range(convolutions):
            layers += [nn.PReLU(channels)] if index else []
            layers += [nn.Conv3d(channels, channels, kernel, padding="same"), norm(channels)]
        self.layers = nn.Sequential(*layers)
        self.last = nn.PReLU(channels)

    def forward(self, x):
        return self.last(x + self.layers(x))


class Encoder(nn.Module):
    """`forward` gives the features of every stage, the coarsest last."""

    def __init__(self, input_channels, features, convolutions, kernels, strides, norm):
        super().__init__()
        self.downs, self.stages = nn.ModuleList(), nn.ModuleList()
        for width, number, kernel, stride in zip(features, convolutions, kernels, strides, strict=True):
            # Of the first stage the stride is 1, and this brings the modalities to its width.
            down = nn.Conv3d(input_channels, width, stride, stride)
            self.downs.append(nn.Sequential(down, norm(width), nn.PReLU(width)))
            self.stages.append(ResidualStage(width, number, kernel, norm))
            input_channels = width

    def forward(self, x):
        features = []
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x))
            features.append(x)
        return features


class Decoder(nn.Module):
    """From the features of every stage to logits."""

    # nnU-Net sets it before training and prediction.
    deep_supervision = False

    def __init__(self, num_classes, features, convolutions, kernels, strides, norm):
        super().__init__()
        self.ups, self.stages = nn.ModuleList(), nn.ModuleList()
        below = features[-1]
        for index in reversed(range(len(features) - 1)):
            width, stride = features[index], strides[index + 1]
            up = nn.ConvTranspose3d(below, width, stride, stride)
            self.ups.append(nn.Sequential(up, norm(width), nn.PReLU(width)))
            below = 2 * width
            self.stages.append(ResidualStage(below, convolutions[index], kernels[index], norm))
        self.seg_layers = nn.ModuleList([nn.Conv3d(below, num_classes, 1)])

    def forward(self, features):
        *skips, x = features
        for up, stage in zip(self.ups, self.stages, strict=True):
            x = stage(torch.cat([up(x), skips.pop()], dim=1))
        return self.seg_layers[0](x)


class VNet(nn.Module):
    """V-Net with residual stages and one output.

    V-Net states, and this does: stages of one to three 5×5×5 convolutions with PReLU, whose input is added to what they
    make; strided convolutions between them, whose kernel is their stride, with doubled channels, from 16 to 256;
    transposed ones on the way up, concatenated with the features of the encoder, in stages of twice as many channels as
    the encoder's; a 1×1×1 convolution to the classes.

    Other here: kernels and strides follow nnU-Net's plan, so that anisotropic scans are pooled only where it pays; each
    convolution has a norm, without which training from scratch is slow; the first stage adds not the image but a
    convolution of it, since the modalities are fewer than its channels.

    Parameters
    ----------
    input_channels, num_classes : int
    features, convolutions : sequence of int
        Of each stage.
    kernel_sizes, strides : sequence of sequence of int
        Of each stage, per axis; the first stride is 1.
    norm_op : type
    norm_op_kwargs : dict, optional
    deep_supervision : bool
        nnU-Net gives it; only False is possible.

    `forward` takes (n, input_channels, *space), multiples of the product of the strides, and gives logits (n,
    num_classes, *space). Raises ValueError for deep supervision.
    """

    def __init__(
        self,
        input_channels,
        num_classes,
        features,
        convolutions,
        kernel_sizes,
        strides,
        norm_op,
        norm_op_kwargs=None,
        deep_supervision=False,
    ):
        if deep_supervision:
            raise ValueError("the network has one output; set deep_supervision=false")
        super().__init__()

        def norm(channels):
            return norm_op(channels, **(norm_op_kwargs or {}))

        strides = [tuple(stride) for stride in strides]
        kernels = [tuple(kernel) for kernel in kernel_sizes]
        self.encoder = Encoder(input_channels, features, convolutions, kernels, strides, norm)
        self.decoder = Decoder(num_classes, features, convolutions, kernels, strides, norm)

    def forward(self, images):
        return self.decoder(self.encoder(images))

    @staticmethod
    def initialize(module):
        """He's initialisation for PReLU, whose slope starts at 0.25."""
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(module.weight, a=0.25)
            nn.init.zeros_(module.bias)
