"""U-Net with attention gates, Att-UNet, which the paper compares with.

Oktay et al., "Attention U-Net: learning where to look for the pancreas", arXiv:1804.03999 (2018, below: Oktay et al.).
"""

import torch
from dynamic_network_architectures.architectures.abstract_arch import AbstractDynamicNetworkArchitectures
from dynamic_network_architectures.building_blocks.helper import get_matching_pool_op
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import nn
from torch.nn import functional

INTERPOLATIONS = {4: "bilinear", 5: "trilinear"}
# A gate starts at sigmoid(3) = 0.95 everywhere; nearer to 1 its gradient would vanish.
OPEN = 3.0


class AttentionGate(nn.Module):
    """Lets through of a skip connection what the gating signal finds relevant: x · α, 0 < α < 1, one α per position.

    Oktay et al. state, and this does: α = σ(ψ(ReLU(W_x x + W_g g + b_g)) + b_ψ) at the resolution of g, to which x is
    brought down, with 1×1 convolutions W_x, W_g and ψ; α is interpolated linearly to x; a gate starts by letting
    everything pass. They leave open, and chosen here are: x is brought down by average pooling; W_x and W_g have half
    as many channels as x, each with a norm; ψ has none, since an instance norm would set the gate's mean.

    Parameters
    ----------
    skip_channels, gating_channels : int
        Channels of x and g.
    stride : sequence of int
        How many times larger than g x is, per axis.
    conv_op : torch.nn.Conv2d or torch.nn.Conv3d
    norm_op : type or None
    norm_op_kwargs : dict or None

    `forward` takes x (n, skip_channels, *space) and g (n, gating_channels, *space / stride) and gives as x.
    """

    def __init__(self, skip_channels, gating_channels, stride, conv_op, norm_op=None, norm_op_kwargs=None):
        super().__init__()
        stride = tuple(stride)
        width = max(1, skip_channels // 2)

        def project(channels, bias):
            convolution = conv_op(channels, width, kernel_size=1, bias=bias)
            return [convolution] if norm_op is None else [convolution, norm_op(width, **(norm_op_kwargs or {}))]

        pooling = [get_matching_pool_op(conv_op, pool_type="avg")(stride, stride)] if max(stride) > 1 else []
        self.of_skip = nn.Sequential(*pooling, *project(skip_channels, bias=False))
        self.of_signal = nn.Sequential(*project(gating_channels, bias=True))
        self.psi = conv_op(width, 1, kernel_size=1)
        self.open()

    def open(self):
        """Sets α to 0.95 everywhere."""
        nn.init.zeros_(self.psi.weight)
        nn.init.constant_(self.psi.bias, OPEN)

    def attention(self, skip, signal):
        """α, (n, 1, *space of the skip)."""
        relevance = functional.relu(self.of_skip(skip) + self.of_signal(signal))
        attention = torch.sigmoid(self.psi(relevance))
        if attention.shape[2:] == skip.shape[2:]:
            return attention
        return functional.interpolate(attention, size=skip.shape[2:], mode=INTERPOLATIONS[skip.ndim])

    def forward(self, skip, signal):
        return skip * self.attention(skip, signal)


class AttentionDecoder(UNetDecoder):
    """nnU-Net's decoder with a gate on each skip connection but the finest, which Oktay et al. leave ungated.

    The gating signal of a skip is what the decoder has at the next coarser resolution.
    """

    def __init__(self, encoder, num_classes, n_conv_per_stage, deep_supervision, nonlin_first=False):
        super().__init__(encoder, num_classes, n_conv_per_stage, deep_supervision, nonlin_first=nonlin_first)
        channels, strides = encoder.output_channels, encoder.strides
        gated = range(len(channels) - 2, 0, -1)
        self.gates = nn.ModuleList(
            AttentionGate(
                channels[s], channels[s + 1], strides[s + 1], encoder.conv_op, encoder.norm_op, encoder.norm_op_kwargs
            )
            for s in gated
        )

    def forward(self, skips):
        *skips, x = skips
        outputs = []
        for index, stage in enumerate(self.stages):
            skip = skips[-1 - index]
            if index < len(self.gates):
                skip = self.gates[index](skip, x)
            x = stage(torch.cat([self.transpconvs[index](x), skip], dim=1))
            if self.deep_supervision:
                outputs.append(self.seg_layers[index](x))
        return outputs[::-1] if self.deep_supervision else self.seg_layers[-1](x)


class AttentionUNet(AbstractDynamicNetworkArchitectures):
    """Att-UNet on nnU-Net's plain encoder, for plans.json: the arguments are those of its PlainConvUNet.

    `forward` takes (n, input_channels, *space) and gives logits (n, num_classes, *space), a list of them, finest first,
    under deep supervision.
    """

    def __init__(
        self,
        input_channels,
        n_stages,
        features_per_stage,
        conv_op,
        kernel_sizes,
        strides,
        n_conv_per_stage,
        num_classes,
        n_conv_per_stage_decoder,
        conv_bias=False,
        norm_op=None,
        norm_op_kwargs=None,
        dropout_op=None,
        dropout_op_kwargs=None,
        nonlin=None,
        nonlin_kwargs=None,
        deep_supervision=False,
        nonlin_first=False,
    ):
        super().__init__()
        self.key_to_encoder = "encoder.stages"
        self.key_to_stem = "encoder.stages.0"
        self.keys_to_in_proj = ("encoder.stages.0.0.convs.0.all_modules.0", "encoder.stages.0.0.convs.0.conv")
        self.encoder = PlainConvEncoder(
            input_channels,
            n_stages,
            features_per_stage,
            conv_op,
            kernel_sizes,
            strides,
            n_conv_per_stage,
            conv_bias,
            norm_op,
            norm_op_kwargs,
            dropout_op,
            dropout_op_kwargs,
            nonlin,
            nonlin_kwargs,
            return_skips=True,
            nonlin_first=nonlin_first,
        )
        self.decoder = AttentionDecoder(
            self.encoder, num_classes, n_conv_per_stage_decoder, deep_supervision, nonlin_first
        )

    def forward(self, x):
        return self.decoder(self.encoder(x))

    @staticmethod
    def initialize(module):
        """nnU-Net's initialisation, with open gates; ``network.apply`` reaches a gate after its convolutions."""
        InitWeights_He(1e-2)(module)
        if isinstance(module, AttentionGate):
            module.open()
