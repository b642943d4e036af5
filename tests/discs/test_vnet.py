import pytest
import torch
from torch import nn

from nnunet_da.discs.settings import VNetSettings
from nnunet_da.discs.vnet import ResidualStage, VNet

STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]


def network(features=(2, 4, 6), convolutions=(1, 2, 3), kernel=3, strides=STRIDES, **keywords):
    torch.manual_seed(0)
    kernels = [[kernel] * 3] * len(features)
    return VNet(2, 8, features, convolutions, kernels, strides, nn.InstanceNorm3d, {"affine": True}, **keywords)


def test_shapes_follow_the_strides():
    net = network().eval()
    x = torch.randn(1, 2, 4, 8, 12)
    assert [tuple(f.shape[1:]) for f in net.encoder(x)] == [(2, 4, 8, 12), (4, 4, 4, 6), (6, 2, 2, 3)]
    assert net(x).shape == (1, 8, 4, 8, 12)


def test_layers_are_those_of_vnet():
    chosen = VNetSettings()
    net = network(chosen.features, chosen.convolutions, chosen.kernel_size, [[1] * 3] + [[2] * 3] * 4)

    def convolutions(stage):
        return [(layer.in_channels, layer.out_channels, layer.kernel_size) for layer in stage.layers[:1]] + [
            sum(isinstance(layer, nn.Conv3d) for layer in stage.layers)
        ]

    widths = (16, 32, 64, 128, 256)
    assert [convolutions(stage) for stage in net.encoder.stages] == [
        [(width, width, (5, 5, 5)), n] for width, n in zip(widths, (1, 2, 3, 3, 3), strict=True)
    ]
    assert [convolutions(stage) for stage in net.decoder.stages] == [
        [(width, width, (5, 5, 5)), n] for width, n in ((256, 3), (128, 3), (64, 2), (32, 1))
    ]
    assert net.decoder.seg_layers[0].in_channels == 32


def test_a_stage_adds_its_input():
    stage = ResidualStage(3, 2, (3, 3, 3), nn.InstanceNorm3d)
    stage.layers[-1] = nn.Identity()
    for layer in stage.layers:
        if isinstance(layer, nn.Conv3d):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    x = torch.randn(1, 3, 4, 4, 4)
    assert torch.allclose(stage(x), torch.where(x > 0, x, 0.25 * x))


def test_all_of_it_learns():
    net = network()
    net.apply(net.initialize)
    net(torch.randn(2, 2, 4, 8, 8)).square().mean().backward()
    assert all(parameter.grad.any() for parameter in net.parameters() if parameter.ndim > 1)


def test_it_has_one_output():
    with pytest.raises(ValueError, match="one output"):
        network(deep_supervision=True)
