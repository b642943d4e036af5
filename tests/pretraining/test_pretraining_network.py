import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_da.errors import UserError
from nnunet_da.pretext.unet import PoolingUNet
from nnunet_da.pretraining.network import ContrastiveNetwork, RegressionNetwork, transferable

DIMENSIONS = {2: (nn.Conv2d, nn.InstanceNorm2d), 3: (nn.Conv3d, nn.InstanceNorm3d)}


def plain(dimension=2, n_classes=3):
    torch.manual_seed(0)
    conv, norm = DIMENSIONS[dimension]
    return PlainConvUNet(
        *(1, 3, [4, 8, 16], conv, 3, [1, 2, 2], 1, n_classes, 1, True, norm, {"affine": True}), nonlin=nn.LeakyReLU
    )


def residual(dimension=2):
    torch.manual_seed(0)
    conv, norm = DIMENSIONS[dimension]
    return ResidualEncoderUNet(
        *(1, 3, [4, 8, 16], conv, 3, [1, 2, 2], 1, 3, 1, True, norm, {"affine": True}), nonlin=nn.LeakyReLU
    )


def pooling(dimension=2):
    torch.manual_seed(0)
    return PoolingUNet(1, 3, [4, 8, 16], nn.Conv2d, [[3, 3]] * 3, [[1, 1], [2, 2], [2, 2]])


UNETS = [plain, residual, pooling]


def images(dimension, n=2):
    return torch.randn(n, 1, *(8, 16, 16)[-dimension:], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("unet", UNETS)
def test_the_reconstruction_has_the_shape_of_the_images(unet):
    network = RegressionNetwork(unet(), 1)
    assert network(images(2), "reconstruct").shape == (2, 1, 16, 16)


@pytest.mark.parametrize("unet", UNETS)
def test_embeddings_of_images_and_points(unet):
    network = ContrastiveNetwork(unet(), 6)
    assert network(images(2), "embed").shape == (2, 6)
    assert network(images(2), "embed_points", positions=torch.zeros(2, 5, 2)).shape == (2, 5, 6)


def test_in_3d():
    network = ContrastiveNetwork(plain(3), 6)
    assert network(images(3), "embed").shape == (2, 6)
    assert network(images(3), "embed_points", positions=torch.zeros(2, 5, 3)).shape == (2, 5, 6)
    assert RegressionNetwork(plain(3), 2)(images(3), "reconstruct").shape == (2, 2, 8, 16, 16)


def test_points_are_embedded_as_a_map_of_1x1_convolutions_would_be():
    network = ContrastiveNetwork(plain(), 6).eval()
    features = network.decode(images(2))
    hidden, _, last = network.heads["local"].project
    weights = [layer.weight[:, :, None, None] for layer in (hidden, last)]
    whole = nn.functional.conv2d(nn.functional.conv2d(features, weights[0], hidden.bias).relu(), weights[1], last.bias)
    # At the centres of the voxels there is nothing to interpolate.
    rows, columns = torch.tensor([0, 3, 15]), torch.tensor([2, 3, 9])
    positions = torch.stack([(2 * rows + 1) / 16 - 1, (2 * columns + 1) / 16 - 1], dim=1).expand(2, 3, 2)
    found = network(images(2), "embed_points", positions=positions)
    assert torch.allclose(found, whole[:, :, rows, columns].transpose(1, 2), atol=1e-5)


@pytest.mark.parametrize(("pooling", "pool"), [("mean", torch.mean), ("max", torch.amax)])
def test_images_are_embedded_by_their_pooled_bottleneck(pooling, pool):
    network = ContrastiveNetwork(plain(), 6, pooling=pooling)
    pooled = pool(network.encoder(images(2))[-1], dim=(2, 3))
    assert torch.allclose(network(images(2), "embed"), network.heads["global"].project(pooled), atol=1e-6)


def parts_with_gradient(network, output):
    network.zero_grad(set_to_none=True)
    output.square().sum().backward()
    return {
        name.removeprefix("projection.seg_layers.").split(".")[0]
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def test_which_parts_are_trained_by_what():
    network = RegressionNetwork(plain(), 1)
    assert parts_with_gradient(network, network(images(2), "reconstruct")) == {"encoder", "decoder"}
    assert all(parameter.grad is not None for parameter in network.parameters())

    network = ContrastiveNetwork(plain(), 6)
    positions = torch.zeros(2, 5, 2)
    assert parts_with_gradient(network, network(images(2), "embed")) == {"encoder", "global"}
    assert parts_with_gradient(network, network(images(2), "embed_points", positions=positions)) == {"decoder", "local"}
    network = ContrastiveNetwork(plain(), 6, frozen_encoder=False)
    trained = parts_with_gradient(network, network(images(2), "embed_points", positions=positions))
    assert trained == {"encoder", "decoder", "local"}
    with torch.no_grad():
        assert not network(images(2), "embed_points", positions=positions).requires_grad


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize("network", [lambda unet: RegressionNetwork(unet, 1), lambda unet: ContrastiveNetwork(unet, 6)])
def test_its_weights_are_those_of_the_unet_but_for_the_segmentation_layers(unet, network):
    stock = unet().state_dict()
    found = network(unet()).state_dict()
    weights = transferable(found)
    assert set(weights) == {name for name in stock if ".seg_layers." not in name}
    assert all(torch.equal(value, stock[name]) for name, value in weights.items())
    # All else is passed over by nnU-Net.
    assert all(".seg_layers." in name for name in set(found) - set(stock))


def test_weights_are_kept_once_however_often_they_are_named():
    weights = transferable(RegressionNetwork(plain(), 1).state_dict())
    name = "stages.0.0.convs.0.conv.weight"
    assert weights[f"encoder.{name}"] is weights[f"decoder.encoder.{name}"]


def test_it_does_not_segment():
    with pytest.raises(UserError, match="pretrained only and has nothing to segment with; fine-tune it first"):
        RegressionNetwork(plain(), 1)(images(2))


def test_every_mode_is_one_graph_to_the_compiler():
    positions = torch.rand(2, 5, 2)
    for network, mode, inputs in (
        (RegressionNetwork(plain(), 1), "reconstruct", {}),
        (ContrastiveNetwork(plain(), 6), "embed", {}),
        (ContrastiveNetwork(plain(), 6), "embed_points", {"positions": positions}),
    ):
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        assert torch.equal(compiled(images(2), mode, **inputs), network(images(2), mode, **inputs))
