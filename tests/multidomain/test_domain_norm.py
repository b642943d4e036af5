import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from nnunet_da.multidomain.norm import (
    DOMAIN_NORMS,
    DomainBatchNorm2d,
    DomainBatchNorm3d,
    DomainInstanceNorm2d,
    domain_norm_plan,
    stock_norm_plan,
)

CHANNELS = 4
SPACE = {2: (5, 6), 3: (3, 5, 6)}


def random_affine(norm, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return norm


def separate_norms(norm):
    """One torch norm per domain, with that domain's part of everything."""
    separate = []
    for domain in range(norm.num_domains):
        one = norm.norm_class(norm.num_features, affine=True)
        part = slice(domain * norm.num_features, (domain + 1) * norm.num_features)
        with torch.no_grad():
            one.weight.copy_(norm.weight[part])
            one.bias.copy_(norm.bias[part])
        separate.append(one)
    return separate


def batches(n, dimension, seed=1):
    """Batches whose domains differ in mean and scale."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield 1 + 2 * torch.randn(n, CHANNELS, *SPACE[dimension], generator=generator)


@pytest.mark.parametrize(("kind", "dimension"), DOMAIN_NORMS)
@settings(max_examples=8, deadline=None)
@given(num_domains=st.integers(1, 4), rounds=st.integers(1, 3))
def test_it_is_a_norm_for_each_domain(kind, dimension, num_domains, rounds):
    norm = random_affine(DOMAIN_NORMS[kind, dimension](CHANNELS, num_domains=num_domains))
    separate = separate_norms(norm)
    optimisers = [torch.optim.SGD(m.parameters(), 0.1) for m in (norm, nn.ModuleList(separate))]
    for _, x in zip(range(3), batches(rounds * num_domains, dimension), strict=False):
        domains = torch.arange(len(x)) % num_domains
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        y = norm(ours)
        expected = torch.empty_like(x)
        for domain, one in enumerate(separate):
            expected[domains == domain] = one(theirs[domains == domain])
        assert torch.allclose(y, expected, atol=1e-6)
        for optimiser, output in zip(optimisers, (y, expected), strict=True):
            optimiser.zero_grad()
            output.pow(3).mean().backward()
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)
        for name in ("weight", "bias"):
            gradient = torch.cat([getattr(one, name).grad for one in separate])
            assert torch.allclose(getattr(norm, name).grad, gradient, atol=1e-6)
        for optimiser in optimisers:
            optimiser.step()
    for name in ("weight", "bias", "running_mean", "running_var"):
        expected = [getattr(one, name) for one in separate]
        if expected[0] is not None:
            assert torch.allclose(getattr(norm.stacked, name), torch.cat(expected), atol=1e-6), name
    if kind == "batch":
        assert norm.stacked.num_batches_tracked.tolist() == [3] * num_domains
    norm.eval(), nn.ModuleList(separate).eval()
    x = next(batches(2, dimension))
    for domain, one in enumerate(separate):
        norm.choice.index = domain
        assert torch.allclose(norm(x), one(x), atol=1e-5)


@pytest.mark.parametrize("index", [None, 0])
@pytest.mark.parametrize(("kind", "dimension"), DOMAIN_NORMS)
def test_with_one_domain_it_is_the_torch_norm_bit_for_bit(kind, dimension, index):
    norm = random_affine(DOMAIN_NORMS[kind, dimension](CHANNELS, num_domains=1))
    norm.choice.index = index
    (one,) = separate_norms(norm)
    for _, x in zip(range(3), batches(3, dimension), strict=False):
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, expected = norm(ours), one(theirs)
        y.pow(3).mean().backward(), expected.pow(3).mean().backward()
        assert torch.equal(y, expected)
        assert torch.equal(ours.grad, theirs.grad)
    for name, value in one.state_dict().items():
        assert torch.equal(norm.stacked.state_dict()[name].reshape(value.shape), value)
    assert torch.equal(norm.eval()(x), one.eval()(x))


def test_a_domain_alone_changes_only_its_own_part():
    norm = random_affine(DomainBatchNorm2d(CHANNELS, num_domains=3))
    separate = separate_norms(norm)
    before = copy.deepcopy(norm.stacked.state_dict())
    norm.choice.index = 1
    x = next(batches(4, 2))
    y, expected = norm(x), separate[1](x)
    assert torch.equal(y, expected)
    y.pow(3).sum().backward(), expected.pow(3).sum().backward()
    own = slice(CHANNELS, 2 * CHANNELS)
    for name in ("weight", "bias"):
        gradient = getattr(norm, name).grad
        assert torch.equal(gradient[own], getattr(separate[1], name).grad)
        gradient[own] = 0
        assert not gradient.any()
    for name in ("running_mean", "running_var"):
        now, then = getattr(norm.stacked, name), before[name]
        assert torch.equal(now[own], getattr(separate[1], name))
        assert not torch.equal(now[own], then[own])
        others = [0, 1, 2, 3, 8, 9, 10, 11]
        assert torch.equal(now[others], then[others])
    assert norm.stacked.num_batches_tracked.tolist() == [0, 1, 0]


def test_in_a_batch_of_all_a_domain_leaves_the_others_be():
    x = next(batches(6, 3))
    changed = x.clone()
    changed[1::3] += torch.randn_like(changed[1::3])
    outputs, norms = [], []
    for images in (x, changed):
        norm = random_affine(DomainBatchNorm3d(CHANNELS, num_domains=3))
        outputs.append(norm(images))
        outputs[-1][1::3].square().sum().backward()
        norms.append(norm.stacked)
    others = torch.arange(6) % 3 != 1
    assert torch.equal(outputs[0][others], outputs[1][others])
    assert not torch.equal(outputs[0][~others], outputs[1][~others])
    channels = (torch.arange(12) // CHANNELS) != 1
    for name in ("running_mean", "running_var"):
        first, second = (getattr(norm, name) for norm in norms)
        assert torch.equal(first[channels], second[channels])
        assert (first[~channels] != second[~channels]).all()
    assert not norms[1].weight.grad[channels].any()
    assert not norms[1].bias.grad[channels].any()
    assert norms[1].weight.grad[~channels].all()


def test_a_contiguous_batch_is_not_copied():
    norm = DomainInstanceNorm2d(CHANNELS, num_domains=2)
    seen = []
    norm.stacked.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    x = next(batches(4, 2))
    assert norm(x).is_contiguous()
    assert seen[0].data_ptr() == x.data_ptr()
    assert seen[0].shape == (2, 8, 5, 6)
    assert torch.equal(norm(x.to(memory_format=torch.channels_last)), norm(x))


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kind", "dimension"), DOMAIN_NORMS)
def test_an_activation_in_place_changes_no_gradient_and_copies_none(kind, dimension, training, sync):
    norm = random_affine(DOMAIN_NORMS[kind, dimension](CHANNELS, num_domains=3)).train(training)
    if sync:
        norm = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    x = next(batches(6, dimension)).requires_grad_()
    gradients = []
    for in_place in (True, False):
        y = functional.leaky_relu(norm(x), inplace=in_place)
        # On a view it would be CopySlices, behind AsStridedBackward.
        assert y.grad_fn.name().startswith("LeakyRelu")
        gradients.append(torch.autograd.grad(y.pow(3).sum(), [x, norm.weight, norm.bias]))
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


def test_a_batch_that_lacks_a_domain_is_refused():
    with pytest.raises(ValueError, match="a batch of 4 samples does not hold 3 domains alike"):
        DomainBatchNorm2d(CHANNELS, num_domains=3)(next(batches(4, 2)))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="momentum"):
        DomainBatchNorm2d(CHANNELS, momentum=None, num_domains=2)
    with pytest.raises(ValueError, match="at least 1"):
        DomainBatchNorm2d(CHANNELS, num_domains=0)


@pytest.mark.parametrize(("kind", "dimension"), DOMAIN_NORMS)
@pytest.mark.parametrize("index", [None, 1])
def test_mixed_precision_gives_what_the_torch_norm_gives(kind, dimension, index):
    norm = DOMAIN_NORMS[kind, dimension](CHANNELS, num_domains=2)
    norm.choice.index = index
    x = next(batches(4, dimension)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = norm.norm_class(CHANNELS, affine=True)(x).dtype
        y = norm(x)
    assert y.dtype == expected
    assert torch.allclose(y.float().mean(), torch.tensor(0.0), atol=1e-2)


def test_conversion_reaches_the_held_norm():
    norms = nn.ModuleList([DomainBatchNorm2d(CHANNELS, num_domains=2), DomainInstanceNorm2d(CHANNELS, num_domains=2)])
    random_affine(norms)
    plain = copy.deepcopy(norms[0])
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(norms)
    assert type(converted[0]) is DomainBatchNorm2d
    assert type(converted[0].stacked) is nn.SyncBatchNorm
    assert type(converted[1].stacked) is nn.InstanceNorm2d
    # Without other processes it is batch normalisation, on any device.
    x = next(batches(4, 2))
    for index in (None, 1):
        plain.choice.index = converted[0].choice.index = index
        assert torch.equal(converted[0](x), plain(x))
    assert all(torch.equal(v, plain.state_dict()[name]) for name, v in converted[0].state_dict().items())
    assert plain.stacked.num_batches_tracked.tolist() == [1, 2]


@pytest.mark.parametrize("norm_class", [DomainBatchNorm2d, DomainInstanceNorm2d])
def test_pickle_and_state_dict_keep_it(norm_class):
    norm = random_affine(norm_class(CHANNELS, num_domains=2))
    x = next(batches(4, 2))
    norm(x)
    again = pickle.loads(pickle.dumps(norm))
    loaded = norm_class(CHANNELS, num_domains=2)
    loaded.load_state_dict(norm.state_dict(), strict=True)
    for copied in (again, loaded):
        assert torch.equal(copied.eval()(x), norm.eval()(x))


@pytest.mark.parametrize(("kind", "dimension"), DOMAIN_NORMS)
def test_the_plan_names_it_and_names_the_torch_norm_again(kind, dimension):
    planned = {"eps": 1e-5, "affine": True}
    changes = domain_norm_plan(kind, dimension, 3, planned)
    assert changes["norm_op"] == f"nnunet_da.multidomain.norm.{DOMAIN_NORMS[kind, dimension].__name__}"
    assert changes["norm_op_kwargs"] == {**planned, "num_domains": 3}
    names = {"batch": "batchnorm.BatchNorm", "instance": "instancenorm.InstanceNorm"}
    assert stock_norm_plan(**changes) == {
        "norm_op": f"torch.nn.modules.{names[kind]}{dimension}d",
        "norm_op_kwargs": planned,
    }
    assert domain_norm_plan(kind, dimension, 1)["norm_op_kwargs"] == {"affine": True, "num_domains": 1}
