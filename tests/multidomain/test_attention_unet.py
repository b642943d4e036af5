import inspect

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch.nn import functional

from nnunet_da.multidomain.attention import AttentionGate, AttentionUNet
from nnunet_da.multidomain.norm import DomainBatchNorm2d

NORMS = {nn.Conv2d: nn.InstanceNorm2d, nn.Conv3d: nn.InstanceNorm3d}
FEATURES = [4, 8, 16, 16]


def network(conv_op=nn.Conv2d, network_class=AttentionUNet, deep_supervision=False, **keywords):
    torch.manual_seed(0)
    dimension = 2 if conv_op is nn.Conv2d else 3
    unet = network_class(
        input_channels=2,
        n_stages=4,
        features_per_stage=FEATURES,
        conv_op=conv_op,
        kernel_sizes=[[1, 3, 3][-dimension:]] + [[3] * dimension] * 3,
        strides=[[1] * dimension, [1, 2, 2][-dimension:], [2] * dimension, [1, 2, 2][-dimension:]],
        n_conv_per_stage=[1, 1, 2, 1],
        num_classes=3,
        n_conv_per_stage_decoder=[1, 2, 1],
        conv_bias=True,
        **{"norm_op": NORMS[conv_op], "norm_op_kwargs": {"affine": True}, **keywords},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
    )
    unet.apply(unet.initialize)
    return unet


def random_gates(unet):
    """Gates with an opinion: they start indifferent."""
    for gate in unet.decoder.gates:
        nn.init.normal_(gate.psi.weight)
        nn.init.zeros_(gate.psi.bias)
    return unet


def test_its_arguments_are_those_of_the_plain_network():
    ours, planned = (list(inspect.signature(c).parameters.values()) for c in (AttentionUNet, PlainConvUNet))
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in planned]


@pytest.mark.parametrize(
    ("conv_op", "shapes"),
    [
        (nn.Conv2d, [(16, 24), (8, 12), (4, 6)]),
        (nn.Conv3d, [(4, 16, 24), (4, 8, 12), (2, 4, 6)]),
    ],
)
def test_outputs_are_those_of_the_plain_network(conv_op, shapes):
    unet = network(conv_op, deep_supervision=True)
    x = torch.randn(2, 2, *shapes[0])
    assert [tuple(logits.shape) for logits in unet(x)] == [(2, 3, *shape) for shape in shapes]
    finest = unet(x)[0]
    unet.decoder.deep_supervision = False
    assert torch.equal(unet(x), finest)
    assert len(unet.decoder.gates) == len(FEATURES) - 2
    plain = network(conv_op, PlainConvUNet).state_dict()
    ours = unet.state_dict()
    assert {name: value.shape for name, value in ours.items() if ".gates." not in name} == {
        name: value.shape for name, value in plain.items()
    }


@pytest.mark.parametrize("conv_op", [nn.Conv2d, nn.Conv3d])
def test_with_gates_wide_open_it_is_the_plain_network(conv_op):
    unet = network(conv_op)
    for gate in unet.decoder.gates:
        nn.init.constant_(gate.psi.bias, 100.0)
    plain = network(conv_op, PlainConvUNet)
    plain.load_state_dict({name: value for name, value in unet.state_dict().items() if ".gates." not in name})
    x = torch.randn(2, 2, *(4, 16, 16)[-2 if conv_op is nn.Conv2d else -3 :])
    assert torch.equal(unet(x), plain(x))


def test_a_closed_gate_passes_nothing():
    gate = AttentionGate(8, 16, (2, 2), nn.Conv2d, nn.InstanceNorm2d, {"affine": True})
    nn.init.constant_(gate.psi.bias, -200.0)
    skip = torch.randn(2, 8, 8, 8, requires_grad=True)
    passed = gate(skip, torch.randn(2, 16, 4, 4))
    assert not passed.any()
    passed.sum().backward()
    assert not skip.grad.any()

    unet = network()
    for gate in unet.decoder.gates:
        nn.init.constant_(gate.psi.bias, -200.0)
    features = unet.encoder(torch.randn(2, 2, 16, 16))
    expected = unet.decoder(features)
    gated = [*features[:1], *(torch.randn_like(skip) for skip in features[1:-1]), features[-1]]
    assert torch.equal(unet.decoder(gated), expected)
    assert not torch.equal(unet.decoder([torch.randn_like(features[0]), *features[1:]]), expected)


def test_gates_start_open():
    gate = network().decoder.gates[0]
    attention = gate.attention(torch.randn(1, 16, 8, 8), torch.randn(1, 16, 4, 4))
    assert torch.allclose(attention, torch.tensor(3.0).sigmoid().expand(1, 1, 8, 8))


@pytest.mark.parametrize(("conv_op", "stride"), [(nn.Conv2d, (2, 2)), (nn.Conv3d, (1, 2, 2)), (nn.Conv3d, (1, 1, 1))])
def test_a_gate_is_the_additive_one(conv_op, stride):
    torch.manual_seed(0)
    gate = AttentionGate(6, 10, stride, conv_op)
    nn.init.normal_(gate.psi.weight)
    signal = torch.randn(2, 10, *(3, 4, 5)[-len(stride) :])
    skip = torch.randn(2, 6, *(s * n for s, n in zip(stride, signal.shape[2:], strict=True)))
    weights = [p.detach().flatten(1) for p in gate.parameters() if p.ndim > 2]
    biases = [p.detach() for p in gate.parameters() if p.ndim == 1]
    of_skip, of_signal, psi = weights
    assert [tuple(w.shape) for w in weights] == [(3, 6), (3, 10), (1, 3)]
    pooled = {2: functional.avg_pool2d, 3: functional.avg_pool3d}[len(stride)](skip, stride)
    relevance = torch.einsum("oc,nc...->no...", of_skip, pooled) + torch.einsum("oc,nc...->no...", of_signal, signal)
    relevance = (relevance + biases[0].reshape(1, -1, *[1] * len(stride))).clamp(min=0)
    expected = (torch.einsum("oc,nc...->no...", psi, relevance) + biases[1]).sigmoid()
    coarse = gate.attention(skip, signal)
    if max(stride) > 1:
        mode = {2: "bilinear", 3: "trilinear"}[len(stride)]
        expected = functional.interpolate(expected, skip.shape[2:], mode=mode)
    assert coarse.shape == (2, 1, *skip.shape[2:])
    assert torch.allclose(coarse, expected, atol=1e-6)
    assert torch.allclose(gate(skip, signal), skip * expected, atol=1e-5)


def test_gates_are_between_0_and_1_and_learn():
    unet = random_gates(network())
    seen = []
    for gate in unet.decoder.gates:
        gate.register_forward_hook(lambda gate, inputs, _: seen.append(gate.attention(*inputs)))
    unet(torch.randn(2, 2, 16, 16)).square().mean().backward()
    assert len(seen) == 2
    for attention in seen:
        assert 0 <= attention.min() < attention.max() <= 1
    assert all(
        parameter.grad.any() for gate in unet.decoder.gates for parameter in gate.parameters() if parameter.ndim > 1
    )


def test_the_norms_of_gates_are_those_of_the_network():
    unet = network(norm_op=DomainBatchNorm2d, norm_op_kwargs={"num_domains": 2})
    of_gates = [module for module in unet.decoder.gates.modules() if isinstance(module, DomainBatchNorm2d)]
    assert len(of_gates) == 4
    assert unet(torch.randn(2, 2, 16, 16)).shape == (2, 3, 16, 16)
    bare = network(norm_op=None, norm_op_kwargs=None)
    assert not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in bare.modules())
    assert bare(torch.randn(1, 2, 16, 16)).shape == (1, 3, 16, 16)


def test_it_is_one_graph_to_the_compiler():
    torch._dynamo.reset()
    unet = random_gates(network(deep_supervision=True)).eval()
    compiled = torch.compile(unet, backend="eager", fullgraph=True)
    x = torch.randn(1, 2, 16, 16)
    for ours, expected in zip(compiled(x), unet(x), strict=True):
        assert torch.equal(ours, expected)
