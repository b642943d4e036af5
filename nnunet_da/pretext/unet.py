"""The U-Net of the paper ("Proposed method"), for plans.json: nnU-Net builds it from the name of its class."""

import torch
from torch import nn

# By convolution: batch normalisation, max pooling, transposed convolution.
PARTS = {
    nn.Conv2d: (nn.BatchNorm2d, nn.MaxPool2d, nn.ConvTranspose2d),
    nn.Conv3d: (nn.BatchNorm3d, nn.MaxPool3d, nn.ConvTranspose3d),
}


class PoolingUNet(nn.Module):
    """Encoder with max pooling, decoder with transposed convolutions; no deep supervision.

    The paper states, and this does: each block of the encoder, and the bottleneck, are two 3×3×3 convolutions, each
    followed by ReLU and then batch normalisation; pooling by 2×2×1; filters doubled from 32 to 512 at the bottleneck. A
    block of the decoder is upsampling by 2×2×1, which halves the number of channels, concatenation, and two 3×3×3
    convolutions, each followed by ReLU, without a norm; 256 filters, halved down to 32; the last block has a third
    convolution, to the classes, whose softmax belongs to the loss.

    The paper leaves open, and is chosen here: the upsampling is a transposed convolution whose kernel is its stride
    (the paper gives it a "kernel size" and says that it reduces channels); the last convolution is 1×1×1.

    Parameters
    ----------
    input_channels, num_classes : int
    features_per_stage : sequence of int
        Filters of the blocks, the bottleneck last (the paper: 32, 64, 128, 256, 512).
    conv_op : torch.nn.Conv2d or torch.nn.Conv3d
    kernel_sizes, strides : sequence of sequence of int
        Per stage; the stride of a stage is what is pooled before it, and that of the first stage is 1.
    norm_op : type, optional
        Normalisation of the encoder; default: batch normalisation. ``affine=True`` is given to it.
    n_stages : int, optional
        As nnU-Net writes it into plans; the length of `features_per_stage`.
    deep_supervision : bool
        nnU-Net gives it; only False is possible.

    `forward` takes (batch, input_channels, *space) and gives logits (batch, num_classes, *space).
    """

    def __init__(
        self,
        input_channels,
        num_classes,
        features_per_stage,
        conv_op,
        kernel_sizes,
        strides,
        norm_op=None,
        n_stages=None,
        deep_supervision=False,
    ):
        if deep_supervision:
            raise ValueError("the network of the paper has one output; set deep_supervision=false")
        super().__init__()
        self.encoder = PoolingEncoder(input_channels, features_per_stage, conv_op, kernel_sizes, strides, norm_op)
        self.decoder = PoolingDecoder(self.encoder, num_classes)

    def forward(self, images):
        return self.decoder(self.encoder(images))


class PoolingEncoder(nn.Module):
    """e(·): `forward` gives the features of every stage, the bottleneck last."""

    def __init__(self, input_channels, features_per_stage, conv_op, kernel_sizes, strides, norm_op=None):
        super().__init__()
        batch_norm, pooling, _ = PARTS[conv_op]
        self.conv_op, self.kernel_sizes, self.strides = conv_op, kernel_sizes, strides
        self.output_channels = list(features_per_stage)
        self.stages = nn.ModuleList()
        for features, kernel, stride in zip(features_per_stage, kernel_sizes, strides, strict=True):
            layers = [pooling(tuple(stride))] if max(stride) > 1 else []
            for channels in (input_channels, features):
                norm = (norm_op or batch_norm)(features, affine=True)
                layers += [conv_op(channels, features, kernel, padding="same"), nn.ReLU(inplace=True), norm]
            self.stages.append(nn.Sequential(*layers))
            input_channels = features

    def forward(self, images):
        features = []
        for stage in self.stages:
            images = stage(images)
            features.append(images)
        return features


class PoolingDecoder(nn.Module):
    """d(·): `forward` takes the features of every stage of the encoder and gives logits."""

    # nnU-Net sets it before training and prediction.
    deep_supervision = False

    def __init__(self, encoder, num_classes):
        super().__init__()
        conv_op = encoder.conv_op
        _, _, upsampling = PARTS[conv_op]
        self.transpconvs, self.stages = nn.ModuleList(), nn.ModuleList()
        channels = encoder.output_channels
        for index in range(len(channels) - 1, 0, -1):
            stride, features = tuple(encoder.strides[index]), channels[index - 1]
            kernel = encoder.kernel_sizes[index - 1]
            self.transpconvs.append(upsampling(channels[index], features, stride, stride))
            layers = []
            for inputs in (2 * features, features):
                layers += [conv_op(inputs, features, kernel, padding="same"), nn.ReLU(inplace=True)]
            self.stages.append(nn.Sequential(*layers))
        self.seg_layers = nn.ModuleList([conv_op(channels[0], num_classes, kernel_size=1)])

    def forward(self, features):
        *skips, x = features
        for upsample, stage in zip(self.transpconvs, self.stages, strict=True):
            x = stage(torch.cat([upsample(x), skips.pop()], dim=1))
        return self.seg_layers[0](x)
