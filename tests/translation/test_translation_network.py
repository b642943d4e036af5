"""Levels and receptive fields, what shares weights, and which loss trains which part."""

import dataclasses
import os

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from nnunet_da.errors import UserError
from nnunet_da.translation.losses import consistency, convincing, discerning
from nnunet_da.translation.network import Discriminator, Generator, TranslationNetwork
from nnunet_da.translation.settings import TranslationSettings

SMALL = TranslationSettings(features=(4, 6, 8), discriminator_features=4, discriminator_layers=2)


def network(n_channels=1, n_classes=2, settings=SMALL):
    torch.manual_seed(0)
    return TranslationNetwork(n_channels, n_classes, settings)


def images(seed=0, shape=(2, 1, 16, 16)):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def receptive_field(module, size=96):
    """Pixels along an axis that the middle of the output depends on, without the norms, which see all of them."""
    for part in module.modules():
        for name, child in part.named_children():
            if isinstance(child, torch.nn.InstanceNorm2d):
                setattr(part, name, torch.nn.Identity())
    image = torch.rand(1, 1, size, size, requires_grad=True)
    output = module(image)
    output = output[0] if isinstance(output, tuple) else output
    output[0, 0, output.shape[2] // 2, output.shape[3] // 2].backward()
    touched = image.grad[0, 0].abs().sum(1).nonzero().flatten()
    return int(touched[-1] - touched[0] + 1)


@pytest.mark.parametrize(("n_layers", "edge"), [(1, 16), (2, 34), (3, 70)])
def test_a_discriminator_judges_patches(n_layers, edge):
    torch.manual_seed(0)
    assert receptive_field(Discriminator(1, 2, n_layers)) == edge


def test_a_discriminator_scores_every_patch():
    scores = Discriminator(3, 64, 3)(torch.rand(2, 3, 256, 192))
    assert scores.shape == (2, 1, 30, 22)
    widths = [layer.out_channels for layer in Discriminator(3, 64, 3) if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [64, 128, 256, 512, 1]


def test_a_generator_has_a_level_per_filter_number():
    generator = Generator(1, 2, (4, 6, 8))
    features = generator.encoder(images())
    assert [tuple(map_.shape[1:]) for map_ in features] == [(4, 16, 16), (6, 8, 8), (8, 4, 4)]
    # Deeper ones see further.
    fields = [receptive_field(Generator(1, 0, (2,) * levels)) for levels in (2, 3, 4)]
    assert fields[0] < fields[1] < fields[2]
    assert fields[1] > 40


def test_images_stay_in_range_and_residual_ones_begin_with_the_input():
    image = images(shape=(1, 2, 16, 24))
    translated, logits = Generator(2, 3, (4, 8))(image, segment=True)
    assert translated.shape == image.shape
    assert logits.shape == (1, 3, 16, 24)
    assert 0 < translated.min() < translated.max() < 1
    residual = network(2, 3, TranslationSettings(features=(4, 8), residual=True))
    assert torch.allclose(residual.translate(image, "to_target"), image, atol=0.15)
    assert residual.translate(10 * image, "to_source").max() == 1


def test_without_weight_there_are_no_segmenters():
    settings = dataclasses.replace(SMALL, weight_segmentation=0)
    made = network(settings=settings).exchange(images(), images(1))
    assert made.logits is None
    assert made.fake_logits is None


def test_what_is_made_of_what():
    net = network()
    source, target = images(0), images(1)
    made = net(source, "exchange", target=target)
    to_target, to_source = (lambda image, to=to: net.generators[to](image)[0] for to in ("to_target", "to_source"))
    expected = {
        "fake_target": to_target(source),
        "fake_source": to_source(target),
        "restored_source": to_source(to_target(source)),
        "restored_target": to_target(to_source(target)),
        "same_source": to_source(source),
        "same_target": to_target(target),
        "fake_target_scores": net.discriminators["target"](to_target(source)),
        "fake_source_scores": net.discriminators["source"](to_source(target)),
        "logits": net.generators["to_target"](source, segment=True)[1],
        "fake_logits": net.generators["to_source"](to_target(source), segment=True)[1],
    }
    for name, value in expected.items():
        assert torch.allclose(getattr(made, name), value, atol=1e-5), name


def trained_parts(net, loss):
    """The parts of the network with a gradient of `loss` other than 0."""
    net.zero_grad(set_to_none=True)
    loss.backward()
    named = [(name, parameter) for name, parameter in net.named_parameters() if parameter.grad is not None]
    return {".".join(name.split(".")[:3]) for name, parameter in named if parameter.grad.abs().sum() > 0}


def of(direction, *parts):
    return {f"generators.{direction}.{part}" for part in parts}


TO_TARGET, TO_SOURCE = of("to_target", "encoder", "decoder"), of("to_source", "encoder", "decoder")


def test_which_loss_trains_which_part():
    net, source, target = network(), images(0), images(1)

    def made():
        return net(source, "exchange", target=target)

    assert trained_parts(net, convincing(made().fake_target_scores)) == TO_TARGET
    assert trained_parts(net, convincing(made().fake_source_scores)) == TO_SOURCE
    assert trained_parts(net, consistency(made().restored_source, source)) == TO_TARGET | TO_SOURCE
    assert trained_parts(net, consistency(made().restored_target, target)) == TO_TARGET | TO_SOURCE
    assert trained_parts(net, consistency(made().same_source, source)) == TO_SOURCE
    assert trained_parts(net, consistency(made().same_target, target)) == TO_TARGET
    assert trained_parts(net, made().logits.square().mean()) == of("to_target", "encoder", "segmenter")
    # Through the fake slice, into what made it: the shape is kept.
    assert trained_parts(net, made().fake_logits.square().mean()) == TO_TARGET | of("to_source", "encoder", "segmenter")


def test_the_discriminators_step_trains_no_generator():
    net, source, target = network(), images(0), images(1)
    made = net(source, "exchange", target=target)
    fakes = {"fake_source": made.fake_source.detach(), "fake_target": made.fake_target.detach()}
    scores = net(source, "judge", target=target, **fakes)
    parts = trained_parts(net, sum(discerning(real, fake) for real, fake in scores.values()))
    assert parts
    assert all(part.startswith("discriminators.") for part in parts)
    assert {part.split(".")[1] for part in parts} == {"source", "target"}


def test_it_segments_nothing():
    with pytest.raises(UserError, match="translates images and segments nothing"):
        network()(images())


def gradients(model):
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def losses(model, rank):
    """The losses of the two steps, one after the other."""
    source, target = images(rank), images(rank + 10)
    made = model(source, "exchange", target=target, segment_fakes=False)
    yield convincing(made.fake_target_scores) + consistency(made.restored_source, source) + made.logits.square().mean()
    fakes = {"fake_source": made.fake_source.detach(), "fake_target": made.fake_target.detach()}
    yield sum(discerning(*scores) for scores in model(source, "judge", target=target, **fakes).values())


def run_process(rank, n_processes, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=n_processes)
    # As the trainer wraps it.
    model = DistributedDataParallel(network(), find_unused_parameters=True)
    found = []
    for loss in losses(model, rank):
        model.zero_grad(set_to_none=True)
        loss.backward()
        found.append(gradients(model.module))
    torch.save(found, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def test_gradients_are_means_over_processes(tmp_path):
    multiprocessing.spawn(run_process, args=(2, str(tmp_path)), nprocs=2)
    expected = []
    for rank in range(2):
        model = network()
        expected.append([])
        for loss in losses(model, rank):
            model.zero_grad(set_to_none=True)
            loss.backward()
            expected[-1].append(gradients(model))
    for rank in range(2):
        for step, found in enumerate(torch.load(tmp_path / f"{rank}.pt")):
            one, other = expected[0][step], expected[1][step]
            assert found.keys() == one.keys()
            for name in found:
                assert torch.allclose(found[name], (one[name] + other[name]) / 2, atol=1e-6), name
