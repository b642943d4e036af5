import pytest
import torch
from torch import nn

from nnunet_da.discs.dense_aspp import DenseASPPNet, DenseBlock, SqueezeExcitation, receptive_field
from nnunet_da.discs.settings import DenseASPPSettings

DEFAULTS = DenseASPPSettings()
RATES = DEFAULTS.rates


def network(channels=4, classes=2, rates=RATES, growth=2, layers=2, aspp_growth=3, reduction=16, **keywords):
    torch.manual_seed(0)
    keywords = {"norm_op": nn.BatchNorm2d, "norm_op_kwargs": {"affine": True}, **keywords}
    net = DenseASPPNet(channels, classes, rates, growth, layers, aspp_growth, reduction, **keywords)
    net.apply(net.initialize)
    return net


def linear(net):
    """The network without what is not convolution, pooling or upsampling, and no weight that is not positive."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.BatchNorm2d, nn.ReLU, SqueezeExcitation)):
                setattr(module, name, nn.Identity())
    return net.double()


@pytest.mark.parametrize(("rates", "layers"), [((1,), 1), ((2, 5), 3), (RATES, DEFAULTS.layers)])
def test_receptive_field(rates, layers):
    edge = receptive_field(rates, layers)
    size = -(-edge // 8) * 8 + 32
    net = linear(network(1, 1, rates, growth=1, layers=layers, aspp_growth=1))
    for axis, shape in ((0, (size, 8)), (1, (8, size))):
        image = torch.zeros(1, 1, *shape, dtype=torch.float64, requires_grad=True)
        net(image)[0, 0, shape[0] // 2, shape[1] // 2].backward()
        seen = torch.nonzero(image.grad[0, 0])[:, axis]
        assert seen.max() - seen.min() + 1 == edge


def test_the_papers_rates_see_more_than_a_spine_scan():
    # Scans of IVDM3Seg are 256 × 256.
    assert receptive_field(RATES, DEFAULTS.layers) == 578
    assert receptive_field((1,) * len(RATES), DEFAULTS.layers) < 256


def test_number_of_parameters():
    """Of the default network on four modalities, counted layer by layer from its description."""
    g, n, a = DEFAULTS.growth, DEFAULTS.layers, DEFAULTS.aspp_growth

    def layer(channels, growth):
        return 2 * channels + channels * 4 * growth + 2 * 4 * growth + 9 * 4 * growth * growth

    def attention(channels):
        narrow = max(1, channels // DEFAULTS.reduction)
        return channels * narrow + narrow + narrow * channels + channels

    def block(channels, growth, layers):
        out = channels + layers * growth
        return out, sum(layer(channels + i * growth, growth) for i in range(layers)) + attention(out)

    total, outputs = 0, []
    for depth in range(3):
        channels = 2 * g
        total += 4 * channels * 9
        for level in range(depth + 1):
            if level:
                total += 2 * channels + channels * (channels // 2)
                channels //= 2
            channels, of_block = block(channels, g, n)
            total += of_block
        outputs.append(channels)
    outputs[-1], of_pyramid = block(outputs[-1], a, len(RATES))
    width = 4 * g
    decoder = 9 * (outputs[2] + outputs[1]) * width + 9 * (width + outputs[0]) * width + 2 * 2 * width
    total += of_pyramid + decoder + width * 2 + 2
    net = network(4, 2, growth=g, layers=n, aspp_growth=a)
    assert sum(p.numel() for p in net.parameters()) == total == 1_850_724


@pytest.mark.parametrize("classes", [2, 8])
@pytest.mark.parametrize("channels", [1, 4])
def test_shapes(channels, classes):
    assert network(channels, classes)(torch.randn(2, channels, 24, 36)).shape == (2, classes, 24, 36)


def test_it_downsamples_twice_and_has_a_path_per_resolution():
    net = network()
    image = torch.randn(1, 4, 16, 24)
    assert [tuple(path(image).shape[2:]) for path in net.paths] == [(16, 24), (8, 12), (4, 6)]


def test_no_layer_of_a_path_serves_another():
    """Where one path's features do not reach the loss, its layers get no gradient, and the others' stays."""
    net = network(norm_op=nn.InstanceNorm2d)
    image = torch.randn(2, 4, 16, 16)
    for silent in range(3):
        net.zero_grad()
        features = [path(image) for path in net.paths]
        features[2] = net.pyramid(features[2])
        features[silent] = features[silent].detach()
        net.decoder(features).square().mean().backward()
        for index, path in enumerate(net.paths):
            touched = [parameter.grad is not None for parameter in path.parameters()]
            assert all(touched) if index != silent else not any(touched)
    assert len({id(p) for path in net.paths for p in path.parameters()}) == sum(
        len(list(path.parameters())) for path in net.paths
    )


def test_every_layer_of_a_dense_block_sees_all_before():
    block = DenseBlock(5, 3, RATES, 16, nn.BatchNorm2d)
    norms = [layer[0].num_features for layer in block.layers]
    assert norms == [5, 8, 11, 14, 17]
    assert [layer[5].dilation for layer in block.layers] == [(rate, rate) for rate in RATES]
    block.attention = nn.Identity()
    x = torch.randn(2, 5, 8, 8)
    out = block(x)
    assert out.shape == (2, 20, 8, 8)
    assert torch.equal(out[:, :5], x)


def test_attention_weighs_channels_by_their_mean():
    torch.manual_seed(0)
    attention = SqueezeExcitation(6, 3)
    x = torch.randn(2, 6, 5, 4)
    narrow, _, wide = attention.gate
    mean = x.mean(dim=(2, 3))
    hidden = (mean @ narrow.weight[:, :, 0, 0].T + narrow.bias).clamp(min=0)
    weights = (hidden @ wide.weight[:, :, 0, 0].T + wide.bias).sigmoid()
    assert torch.allclose(attention(x), x * weights[:, :, None, None], atol=1e-6)


def test_all_of_it_learns():
    net = network(reduction=2, growth=4)
    net(torch.randn(2, 4, 16, 16)).square().mean().backward()
    assert all(parameter.grad.any() for parameter in net.parameters() if parameter.ndim > 1)


def test_it_has_one_output():
    with pytest.raises(ValueError, match="one output"):
        network(deep_supervision=True)


def test_it_is_one_graph_to_the_compiler():
    torch._dynamo.reset()
    net = network().eval()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    x = torch.randn(1, 4, 16, 16)
    assert torch.equal(compiled(x), net(x))
