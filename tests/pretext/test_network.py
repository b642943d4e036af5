import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_da.pretext.head import PretextHead
from nnunet_da.pretext.network import DualTaskNetwork, without_heads


def unet(conv_op=nn.Conv2d):
    dimension = 2 if conv_op is nn.Conv2d else 3
    norm = nn.InstanceNorm2d if dimension == 2 else nn.InstanceNorm3d
    return PlainConvUNet(
        1, 3, [4, 8, 16], conv_op, 3, [1, 2, 2], 1, 2, 1, True, norm, {"affine": True}, nonlin=nn.LeakyReLU
    )


def dual(conv_op=nn.Conv2d):
    torch.manual_seed(0)
    network = unet(conv_op)
    return network, DualTaskNetwork(network, {"intensity": PretextHead(16, 4, conv_op)})


@pytest.mark.parametrize(("conv_op", "shape"), [(nn.Conv2d, (5, 6)), (nn.Conv3d, (3, 5, 6))])
def test_head_is_the_papers(conv_op, shape):
    head = PretextHead(16, 4, conv_op)
    kinds = [type(layer) for layer in head]
    norm = nn.BatchNorm2d if conv_op is nn.Conv2d else nn.BatchNorm3d
    assert kinds == [conv_op, nn.ReLU, norm] * 6 + [conv_op]
    widths = [layer.out_channels for layer in head if isinstance(layer, conv_op)]
    assert widths == [256, 256, 128, 128, 64, 64, 4]
    assert all(set(layer.kernel_size) == {3} for layer in head if isinstance(layer, conv_op))
    features = torch.randn(2, 16, *shape)
    head.eval()
    map_of_logits = nn.Sequential(*head)(features)
    assert map_of_logits.shape == (2, 4, *shape)
    assert torch.allclose(head(features), map_of_logits.flatten(2).mean(2), atol=1e-6)


def test_segmentation_is_the_unets():
    network, both = dual()
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(both(images), network(images))
    both.eval()
    segmentation, logits = both(images, {"intensity": images})
    assert torch.equal(segmentation, both(images))
    nothing, alone = both(None, {"intensity": images})
    assert nothing is None
    assert logits["intensity"].shape == (2, 4)
    assert torch.equal(alone["intensity"], logits["intensity"])


def test_pretext_loss_reaches_encoder_and_head_and_not_the_decoder():
    _, both = dual()
    _, logits = both(None, {"intensity": torch.randn(2, 1, 16, 16)})
    logits["intensity"].square().sum().backward()
    encoder = {id(parameter) for parameter in both.encoder.parameters()}
    with_gradient = {id(parameter) for parameter in both.parameters() if parameter.grad is not None}
    heads = {id(parameter) for parameter in both.pretext_heads.parameters()}
    assert with_gradient == encoder | heads


def test_weights_without_heads_are_the_unets():
    network, both = dual()
    weights = without_heads(both.state_dict())
    assert set(weights) == set(network.state_dict())
    assert set(both.state_dict()) - set(weights) == {f"pretext.seg_layers.{k}" for k in both.pretext_heads.state_dict()}
    unet().load_state_dict(weights, strict=True)


def test_residual_encoders_are_shared_alike():
    network = ResidualEncoderUNet(
        1, 3, [4, 8, 16], nn.Conv2d, 3, [1, 2, 2], 1, 2, 1, True, nn.InstanceNorm2d, {"affine": True}, nonlin=nn.ReLU
    )
    assert network.encoder.output_channels[-1] == 16
    both = DualTaskNetwork(network, {"intensity": PretextHead(16, 4, network.encoder.conv_op)})
    images = torch.randn(2, 1, 16, 16)
    segmentation, logits = both(images, {"intensity": images})
    assert torch.equal(segmentation, network(images))
    assert logits["intensity"].shape == (2, 4)
    assert set(without_heads(both.state_dict())) == set(network.state_dict())


def test_every_way_through_the_network_is_one_graph_to_the_compiler():
    _, both = dual()
    both.eval()
    compiled = torch.compile(both, backend="eager", fullgraph=True)
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(compiled(images), both(images))
    assert torch.equal(
        compiled(None, {"intensity": images})[1]["intensity"], both(None, {"intensity": images})[1]["intensity"]
    )
    segmentation, logits = compiled(images, {"intensity": images})
    assert torch.equal(segmentation, both(images))
    assert logits["intensity"].shape == (2, 4)
