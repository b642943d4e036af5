import pytest
import torch
from torch import nn

from nnunet_da.pretext.unet import PoolingUNet

FEATURES = [32, 64, 128, 256, 512]


def unet(conv_op=nn.Conv3d, **keywords):
    dimension = 2 if conv_op is nn.Conv2d else 3
    strides = [[1] * dimension] + [[1, 2, 2][-dimension:]] * 4
    return PoolingUNet(1, 2, FEATURES, conv_op, [[3] * dimension] * 5, strides, **keywords)


@pytest.mark.parametrize(
    ("conv_op", "norm", "pooling"),
    [(nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d), (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d)],
)
def test_layers_are_those_the_paper_states(conv_op, norm, pooling):
    network = unet(conv_op)
    block = [conv_op, nn.ReLU, norm] * 2
    kinds = [[type(layer) for layer in stage] for stage in network.encoder.stages]
    assert kinds == [block, *[[pooling, *block]] * 4]
    widths = [[layer.out_channels for layer in stage if isinstance(layer, conv_op)] for stage in network.encoder.stages]
    assert widths == [[width] * 2 for width in FEATURES]
    decoder = [[type(layer) for layer in stage] for stage in network.decoder.stages]
    assert decoder == [[conv_op, nn.ReLU] * 2] * 4
    widths = [
        [(layer.in_channels, layer.out_channels) for layer in stage if isinstance(layer, conv_op)]
        for stage in network.decoder.stages
    ]
    assert widths == [[(2 * width, width), (width, width)] for width in (256, 128, 64, 32)]
    halved = [(layer.in_channels, layer.out_channels, layer.stride[-2:]) for layer in network.decoder.transpconvs]
    assert halved == [(2 * width, width, (2, 2)) for width in (256, 128, 64, 32)]


def test_shapes_pool_in_plane_alone():
    network = unet().eval()
    with torch.no_grad():
        features = network.encoder(torch.zeros(1, 1, 3, 32, 48))
        assert [tuple(f.shape[1:]) for f in features] == [
            (32, 3, 32, 48),
            (64, 3, 16, 24),
            (128, 3, 8, 12),
            (256, 3, 4, 6),
            (512, 3, 2, 3),
        ]
        assert network(torch.zeros(1, 1, 3, 32, 48)).shape == (1, 2, 3, 32, 48)
    assert network.encoder.output_channels == FEATURES


def test_it_has_one_output():
    with pytest.raises(ValueError, match="one output"):
        unet(deep_supervision=True)


def test_the_norm_is_a_choice():
    network = unet(nn.Conv2d, norm_op=nn.InstanceNorm2d)
    assert sum(isinstance(layer, nn.InstanceNorm2d) for layer in network.modules()) == 10
    assert all(layer.affine for layer in network.modules() if isinstance(layer, nn.InstanceNorm2d))
