import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnunet_da.multidomain.heads import FILL, DomainHead, domain_channels

FEATURES = 5
N_CHANNELS = 6
LABEL_SETS = {
    "disjoint": ((0, 1, 2), (0, 3, 4, 5)),
    "overlapping": ((0, 1, 2, 3), (0, 3, 4), (0, 5)),
    "equal": (tuple(range(N_CHANNELS)),) * 3,
    "regions": ((1, 2), (0, 3, 4, 5)),
}
CONVOLUTIONS = {nn.Conv2d: (3, 4), nn.Conv3d: (2, 3, 4)}


def head_of(channels, conv_op=nn.Conv2d):
    torch.manual_seed(0)
    layer = conv_op(FEATURES, N_CHANNELS, kernel_size=1)
    head = DomainHead(layer, channels)
    with torch.no_grad():
        head.weight += torch.randn(head.weight.shape)
        head.bias += torch.randn(head.bias.shape)
    return head


def own_layers(head, channels, conv_op):
    """The literal 1×1 layer of each domain."""
    layers = []
    weights, biases = (p.detach().split([len(own) for own in channels]) for p in (head.weight, head.bias))
    for own, weight, bias in zip(channels, weights, biases, strict=True):
        layer = conv_op(FEATURES, len(own), kernel_size=1)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        layers.append(layer)
    return layers


@pytest.mark.parametrize("conv_op", CONVOLUTIONS)
@pytest.mark.parametrize("label_sets", LABEL_SETS)
def test_each_sample_goes_through_its_domains_own_layer(label_sets, conv_op):
    channels = LABEL_SETS[label_sets]
    head = head_of(channels, conv_op)
    layers = own_layers(head, channels, conv_op)
    x = torch.randn(2 * len(channels), FEATURES, *CONVOLUTIONS[conv_op])
    logits = head(x)
    assert logits.shape == (len(x), N_CHANNELS, *x.shape[2:])
    for i, (features, found) in enumerate(zip(x, logits, strict=True)):
        domain = i % len(channels)
        own = list(channels[domain])
        lacking = sorted(set(range(N_CHANNELS)) - set(own))
        assert torch.allclose(found[own], layers[domain](features), atol=1e-5)
        assert (found[lacking] == FILL).all()
        head.choice.index = domain
        assert torch.allclose(head(features[None])[0], found, atol=1e-5)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("label_sets", LABEL_SETS)
def test_a_domain_trains_its_own_layer_alone(label_sets, together):
    channels = LABEL_SETS[label_sets]
    head = head_of(channels)
    x = torch.randn(2 * len(channels), FEATURES, 3, 4)
    if together:
        logits = head(x)[1 :: len(channels)]
    else:
        head.choice.index = 1
        logits = head(x)
    (nn.functional.log_softmax(logits, dim=1)[:, list(channels[1])] ** 2).sum().backward()
    of_domain = torch.cat([torch.full((len(own),), domain) for domain, own in enumerate(channels)])
    for parameter in (head.weight, head.bias):
        assert not parameter.grad[of_domain != 1].any()
        assert parameter.grad[of_domain == 1].flatten(1 if parameter.ndim > 1 else 0).any()


def test_a_channel_that_a_domain_lacks_has_no_part_in_its_probabilities():
    channels = LABEL_SETS["overlapping"]
    logits = head_of(channels)(torch.randn(3, FEATURES, 3, 4))
    for own, found in zip(channels, logits, strict=True):
        probabilities = found.softmax(dim=0)
        assert torch.equal(probabilities[list(own)], found[list(own)].softmax(dim=0))
        lacking = sorted(set(range(N_CHANNELS)) - set(own))
        assert (found[lacking].sigmoid() < 1e-40).all()
        assert (probabilities[lacking] < 1e-40).all()


@pytest.mark.parametrize("conv_op", CONVOLUTIONS)
def test_every_domain_starts_as_the_layer_that_is_replaced(conv_op):
    layer = conv_op(FEATURES, N_CHANNELS, kernel_size=1)
    channels = LABEL_SETS["overlapping"]
    head = DomainHead(layer, channels)
    for domain, own in enumerate(channels):
        head.choice.index = domain
        x = torch.randn(2, FEATURES, *CONVOLUTIONS[conv_op])
        assert torch.equal(head(x)[:, list(own)], layer(x)[:, list(own)])
    head.weight.data.zero_()
    assert layer.weight.any()


def test_mixed_precision_is_that_of_the_layer():
    head = head_of(LABEL_SETS["disjoint"])
    for domain in (None, 0):
        head.choice.index = domain
        x = torch.randn(2, FEATURES, 3, 4)
        full = head(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = head(x)
        assert half.dtype == torch.bfloat16
        assert torch.allclose(half.float(), full, atol=0.2)
        assert (half[0, [3, 4, 5]] == FILL).all()


def test_state_dict_holds_the_layers_alone_and_pickles():
    channels = LABEL_SETS["disjoint"]
    head = head_of(channels)
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    assert shapes == {"weight": (7, FEATURES, 1, 1), "bias": (7,)}
    x = torch.randn(2, FEATURES, 3, 4)
    assert torch.equal(pickle.loads(pickle.dumps(head))(x), head(x))


@pytest.mark.parametrize("channels", [((0, 1), ()), ((0, 0),), ((0, N_CHANNELS),), ((-1,),)])
def test_channels_that_there_are_not_are_refused(channels):
    with pytest.raises(ValueError, match=f"domain {len(channels) - 1}: channels"):
        DomainHead(nn.Conv2d(FEATURES, N_CHANNELS, kernel_size=1), channels)


def test_a_batch_that_lacks_a_domain_is_refused():
    with pytest.raises(ValueError, match="does not hold 2 domains alike"):
        head_of(LABEL_SETS["disjoint"])(torch.randn(3, FEATURES, 3, 4))


def test_channels_of_labels_are_their_values_and_the_backgrounds():
    labels = {"background": 0, "talus": 1, "tibia": 2, "humerus": [3], "ignore": 4}
    assert domain_channels(labels, ["tibia", "talus"]) == (0, 1, 2)
    assert domain_channels(labels, ["humerus"]) == (0, 3)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(["bone", "cartilage", "tumour"]), chosen=st.sets(st.integers(0, 2), min_size=1))
def test_channels_of_regions_are_their_places(order, chosen):
    values = {"bone": [1, 2, 3], "cartilage": [2, 3], "tumour": 3}
    labels = {"background": 0, **{name: values[name] for name in order}, "ignore": 4}
    assert domain_channels(labels, [order[i] for i in chosen]) == tuple(sorted(chosen))
