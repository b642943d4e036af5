import copy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.residual import BottleneckD
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from nnunet_da.errors import UserError
from nnunet_da.multidomain.attention import AttentionUNet
from nnunet_da.multidomain.heads import FILL
from nnunet_da.multidomain.network import DomainNetwork, collapse
from nnunet_da.multidomain.norm import DOMAIN_NORMS

N_CHANNELS = 5
LABEL_SETS = {
    "disjoint": ((0, 1, 2), (0, 3, 4)),
    "overlapping": ((0, 1, 2), (0, 2, 3), (0, 4)),
    "equal": ((0, 1, 2, 3, 4),) * 2,
    "regions": ((1, 2), (0, 3, 4)),
}
ARCHITECTURES = {
    "plain": (PlainConvUNet, {"n_conv_per_stage": 2}),
    "residual": (ResidualEncoderUNet, {"n_blocks_per_stage": [1, 2, 1]}),
    "bottleneck": (
        ResidualEncoderUNet,
        {"n_blocks_per_stage": 1, "block": BottleneckD, "bottleneck_channels": [4, 4, 8]},
    ),
    "attention": (AttentionUNet, {"n_conv_per_stage": 1}),
}
CONV_OPS = {2: nn.Conv2d, 3: nn.Conv3d}
SPACE = {2: (16, 16), 3: (4, 16, 16)}


def unet(norm_op, architecture="plain", dimension=2, deep_supervision=False, **norm_op_kwargs):
    network_class, arguments = ARCHITECTURES[architecture]
    network = network_class(
        input_channels=1,
        n_stages=3,
        features_per_stage=[4, 8, 16],
        conv_op=CONV_OPS[dimension],
        kernel_sizes=3,
        strides=[[1] * dimension, [1, 2, 2][-dimension:], [2] * dimension],
        num_classes=N_CHANNELS,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=norm_op,
        norm_op_kwargs={"eps": 1e-5, "affine": True, **norm_op_kwargs},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
        **arguments,
    )
    network.apply(network.initialize)
    return network


def domain_network(kind="batch", channels=LABEL_SETS["overlapping"], dimension=2, **keywords):
    torch.manual_seed(0)
    norm_op = DOMAIN_NORMS[kind, dimension]
    return DomainNetwork(unet(norm_op, dimension=dimension, num_domains=len(channels), **keywords), channels)


def trained(network, n_steps=2):
    """Some steps on batches of all domains, so that no two domains have equal numbers."""
    optimiser = torch.optim.SGD(network.parameters(), 0.01)
    dimension = 2 if isinstance(network.decoder.transpconvs[0], nn.ConvTranspose2d) else 3
    for _ in range(n_steps):
        optimiser.zero_grad()
        x = torch.randn(2 * network.num_domains, 1, *SPACE[dimension])
        x += torch.arange(len(x)).reshape(-1, *[1] * (dimension + 1)) % network.num_domains
        outputs = network(x)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        sum(logits.clamp(min=-50).square().mean() for logits in outputs).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1)
        optimiser.step()
    return network


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("kind", ["batch", "instance"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_collapsed_it_predicts_the_same_bits(architecture, kind, dimension):
    channels = LABEL_SETS["overlapping"]
    network = trained(domain_network(kind, channels, dimension, architecture=architecture)).eval()
    before = copy.deepcopy(network.state_dict())
    x = torch.randn(2, 1, *SPACE[dimension])
    outputs = []
    for domain in range(len(channels)):
        stock = unet(DOMAIN_NORMS[kind, dimension].norm_class, architecture, dimension)
        expected = {name: (value.shape, value.dtype) for name, value in stock.state_dict().items()}
        weights = collapse(network.state_dict(), domain, channels, N_CHANNELS)
        assert {name: (value.shape, value.dtype) for name, value in weights.items()} == expected
        stock.load_state_dict(weights, strict=True)
        with torch.no_grad():
            outputs.append(network(x, domain))
            assert torch.equal(stock.eval()(x), outputs[-1])
        lacking = sorted(set(range(N_CHANNELS)) - set(channels[domain]))
        assert (outputs[-1][:, lacking] == FILL).all()
    assert not torch.equal(outputs[0][:, 0], outputs[1][:, 0])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("label_sets", LABEL_SETS)
def test_collapsed_it_has_the_label_sets_of_the_domain(label_sets):
    channels = LABEL_SETS[label_sets]
    network = trained(domain_network(channels=channels, deep_supervision=True)).eval()
    stock = unet(nn.BatchNorm2d, deep_supervision=True)
    x = torch.randn(1, 1, 16, 16)
    for domain in range(len(channels)):
        stock.load_state_dict(collapse(network.state_dict(), domain, channels, N_CHANNELS))
        for ours, expected in zip(network(x, domain), stock.eval()(x), strict=True):
            assert torch.equal(ours, expected)


def test_collapsed_weights_hold_nothing_but_themselves():
    network = domain_network()
    norms = [
        value
        for name, value in collapse(network.state_dict(), 1, LABEL_SETS["overlapping"], N_CHANNELS).items()
        if ".norm." in name
    ]
    assert len(norms) > 0
    assert all(value.untyped_storage().nbytes() == value.numel() * value.element_size() for value in norms)


@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_with_one_domain_it_is_the_stock_network_in_training_too(kind):
    channels = (tuple(range(N_CHANNELS)),)
    network = domain_network(kind, channels)
    stock = unet(DOMAIN_NORMS[kind, 2].norm_class)
    stock.load_state_dict(collapse(network.state_dict(), 0, channels, N_CHANNELS))
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(network(x, 0), stock(x))
    network.eval(), stock.eval()
    assert torch.equal(network(x, 0), stock(x))
    assert torch.allclose(network(x), stock(x), atol=1e-6)


@pytest.mark.parametrize("kind", ["batch", "instance"])
@pytest.mark.parametrize("architecture", ["plain", "residual", "attention"])
def test_a_sample_is_segmented_alike_in_a_batch_of_all_and_in_one_of_its_domain(kind, architecture):
    network = trained(domain_network(kind, architecture=architecture)).eval()
    x = torch.randn(6, 1, 16, 16)
    together = network(x)
    for domain in range(3):
        assert torch.allclose(together[domain::3], network(x[domain::3], domain), atol=1e-4)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("architecture", ["plain", "residual", "attention"])
def test_a_domain_changes_nothing_of_another(architecture, together):
    channels = LABEL_SETS["overlapping"]
    network = trained(domain_network(channels=channels, architecture=architecture))
    before = copy.deepcopy(network.state_dict())
    network.zero_grad()
    x = torch.randn(6, 1, 16, 16)
    logits = network(x)[1::3] if together else network(x, 1)
    logits[:, list(channels[1])].square().mean().backward()
    own_rows = torch.cat([torch.full((len(own),), domain == 1) for domain, own in enumerate(channels)])
    n_norms = n_heads = 0
    for name, parameter in network.named_parameters():
        if ".stacked." in name:
            others = parameter.grad.chunk(3)
            assert not others[0].any()
            assert not others[2].any()
            n_norms += bool(others[1].any())
        elif name.startswith("decoder.seg_layers.1"):
            assert not parameter.grad[~own_rows].any()
            n_heads += bool(parameter.grad[own_rows].any())
    assert n_norms > 10
    assert n_heads == 2
    if not together:
        for name, buffer in network.named_buffers():
            if ".stacked." in name:
                now, then = buffer.chunk(3), before[name].chunk(3)
                assert torch.equal(now[0], then[0])
                assert torch.equal(now[2], then[2])
                assert not torch.equal(now[1], then[1])


def test_embedding_is_the_largest_of_the_bottleneck():
    network = domain_network(deep_supervision=True).eval()
    x = torch.randn(3, 1, 16, 16)
    segmentation, embedding = network(x, with_embedding=True)
    assert [tuple(logits.shape) for logits in segmentation] == [(3, N_CHANNELS, 16, 16), (3, N_CHANNELS, 8, 8)]
    assert torch.equal(segmentation[0], network(x)[0])
    bottleneck = network.encoder(x)[-1]
    assert embedding.shape == (3, 16)
    assert torch.equal(embedding, nn.functional.adaptive_max_pool2d(bottleneck, 1).flatten(1))


def test_the_embeddings_loss_reaches_the_encoder_alone():
    network = domain_network()
    _, embedding = network(torch.randn(6, 1, 16, 16), with_embedding=True)
    embedding.square().sum().backward()
    encoder = {id(parameter) for parameter in network.encoder.parameters()}
    assert {id(parameter) for parameter in network.parameters() if parameter.grad is not None} == encoder


def test_callers_that_know_no_domain_get_the_one_that_is_set():
    network = domain_network().eval()
    x = torch.randn(1, 1, 16, 16)
    with pytest.raises(UserError, match="does not know which a scan is of; write a model per domain"):
        network(x)
    network.domain = 2
    assert torch.equal(network(x), network(x, 2))
    assert not torch.equal(network(x), network(x, 0))
    with pytest.raises(ValueError, match="domain 3: the network has domains 0 to 2"):
        network(x, 3)


def test_norms_must_be_of_the_domains():
    with pytest.raises(ValueError, match="norms of 2 domains"):
        DomainNetwork(unet(nn.BatchNorm2d), LABEL_SETS["disjoint"])
    with pytest.raises(ValueError, match="norms of 2 domains"):
        DomainNetwork(unet(DOMAIN_NORMS["batch", 2], num_domains=3), LABEL_SETS["disjoint"])


def test_a_copy_chooses_its_own_domain():
    network = domain_network().eval()
    x = torch.randn(1, 1, 16, 16)
    expected = network(x, 1)
    copied = copy.deepcopy(network)
    copied(x, 0)
    assert torch.equal(copied(x, 1), expected)
    assert copied.choice is not network.choice
    assert copied.encoder.stages[0][0].convs[0].norm.choice is copied.choice


@pytest.mark.parametrize(
    ("kind", "architecture"), [("batch", "residual"), ("batch", "attention"), ("instance", "plain")]
)
def test_every_way_through_the_network_is_one_graph_to_the_compiler(kind, architecture):
    torch._dynamo.reset()
    network = trained(domain_network(kind, architecture=architecture), n_steps=1)
    reference = copy.deepcopy(network)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    x = torch.randn(6, 1, 16, 16)
    for domain in (None, 0, 1, 2, None, 1):
        ours, expected = compiled(x, domain), reference(x, domain)
        assert torch.allclose(ours, expected, atol=1e-5)
        for model, logits in ((network, ours), (reference, expected)):
            model.zero_grad()
            logits.clamp(min=-50).square().mean().backward()
        for one, other in zip(network.parameters(), reference.parameters(), strict=True):
            if one.grad is None:
                assert other.grad is None
            else:
                assert torch.allclose(one.grad, other.grad, atol=1e-4)
    assert counter.frame_count <= network.num_domains + 1
    for name, value in reference.state_dict().items():
        assert torch.allclose(network.state_dict()[name], value, atol=1e-5), name
    segmentation, embedding = compiled(x, with_embedding=True)
    assert torch.allclose(embedding, reference(x, with_embedding=True)[1], atol=1e-5)
    assert segmentation.shape == (6, N_CHANNELS, 16, 16)


def test_a_domain_that_is_set_is_a_graph_too():
    torch._dynamo.reset()
    network = domain_network().eval()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    x = torch.randn(3, 1, 16, 16)
    for domain in (None, 0, 1, 2, 0):
        network.domain = domain
        assert torch.equal(compiled(x), network(x))
    assert counter.frame_count <= 4


def test_conversion_to_synchronised_norms_reaches_all_of_them():
    for architecture in ("plain", "residual", "attention"):
        network = nn.SyncBatchNorm.convert_sync_batchnorm(domain_network(architecture=architecture))
        kinds = {type(module) for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
        assert kinds == {nn.SyncBatchNorm}
        assert network(torch.randn(3, 1, 16, 16)).shape == (3, N_CHANNELS, 16, 16)
