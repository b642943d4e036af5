"""The branch i(·) that classifies the transformation from the features of the encoder."""

from torch import nn

BATCH_NORMS = {nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}


class PretextHead(nn.Sequential):
    """Three blocks of two convolutions (256, 128, 64 filters), each followed by ReLU then batch normalisation, and a
    last convolution to the classes; all 3×3(×3) with same-padding (the paper, "Pretext tasks").

    The paper applies softmax to the map that the last convolution gives and does not say how the map becomes one
    answer. Here its logits are averaged over space before the softmax: the gradient then reaches every position alike.

    Parameters
    ----------
    in_channels : int
        Channels at the bottleneck of the encoder.
    n_outputs : int
    conv_op : torch.nn.Conv2d or torch.nn.Conv3d
    filters : sequence of int
        Filters of each block.

    `forward` takes (batch, in_channels, *space) and gives logits (batch, n_outputs).
    """

    def __init__(self, in_channels, n_outputs, conv_op, filters=(256, 128, 64)):
        layers = []
        for out_channels in filters:
            for _ in range(2):
                layers += [
                    conv_op(in_channels, out_channels, kernel_size=3, padding=1),
                    nn.ReLU(inplace=True),
                    BATCH_NORMS[conv_op](out_channels),
                ]
                in_channels = out_channels
        super().__init__(*layers, conv_op(in_channels, n_outputs, kernel_size=3, padding=1))

    def forward(self, features):
        return super().forward(features).flatten(start_dim=2).mean(dim=2)
