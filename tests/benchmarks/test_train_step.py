"""The benchmark of training steps: what it counts, whom it compares, and what it complains about."""

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nnunet_da.errors import UserError
from nnunet_da.multidomain.heads import DomainHead

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of a source distribution")


@pytest.fixture
def train_step(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import train_step

    yield train_step
    sys.modules.pop("train_step")


def asked(*trainers, families=None, device="cpu"):
    return SimpleNamespace(trainers=trainers, families=families, device=device)


def trainer_of(network, images):
    """What the benchmark reads of a trainer, with `network` and batches of `images`."""
    return SimpleNamespace(
        network=network,
        device=torch.device("cpu"),
        dataloader_train=itertools.repeat({"data": images}),
        optimizer=torch.optim.SGD(network.parameters()),
    )


class UNet(nn.Module):
    """One stage down and up, and a logit at either resolution; on images (n, 1, 8, 8)."""

    def __init__(self, head):
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, padding=1)
        self.bottom = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(6, 5, 2, stride=2)
        self.heads = nn.ModuleList([head(5), head(6)])

    def forward(self, x):
        bottom = self.bottom(self.down(x))
        return [self.heads[0](self.up(bottom)), self.heads[1](bottom)]


# Weights × positions in the forward pass of a sample of 8 × 8, where a transposed convolution meets each position of
# its input once. The gradients of the weights and of the input take as many each; nobody asks for that of the images.
DOWN, BOTTOM, UP = 36 * 64, 216 * 16, 120 * 16
HEADS = (5 * 3) * 64 + (6 * 3) * 16
MULTIPLY_ADDS = 2 * DOWN + 3 * (BOTTOM + UP + HEADS)


def test_multiply_adds_of_convolutions_forward_and_backward(train_step):
    trainer = trainer_of(UNet(lambda features: nn.Conv2d(features, 3, 1)), torch.zeros(6, 1, 8, 8))
    assert train_step.count_multiply_adds(trainer) == 6 * MULTIPLY_ADDS
    assert all(parameter.grad is None for parameter in trainer.network.parameters())


def test_heads_of_domains_count_as_one_layer(train_step):
    def head(features):
        return DomainHead(nn.Conv2d(features, 3, 1), [(0, 1), (0, 2), (0, 1, 2)])

    assert train_step.count_multiply_adds(trainer_of(UNet(head), torch.zeros(6, 1, 8, 8))) == 6 * MULTIPLY_ADDS


def test_pretext_pass_counts_with_its_own_batch(train_step):
    class DualTask(nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = UNet(lambda features: nn.Conv2d(features, 3, 1))
            self.pretext_heads = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 2)})

        def forward(self, images, pretext_images=None):
            if pretext_images is None:
                return self.unet(images)
            features = {name: self.unet.down(x).mean(dim=(2, 3)) for name, x in pretext_images.items()}
            return None, {name: self.pretext_heads[name](x) for name, x in features.items()}

    trainer = trainer_of(DualTask(), torch.zeros(6, 1, 8, 8))
    trainer.dataloader_pretext = itertools.repeat({"data": torch.zeros(5, 1, 8, 8)})
    of_task = 2 * DOWN + 3 * (4 * 2)
    assert train_step.count_multiply_adds(trainer) == 6 * MULTIPLY_ADDS + 2 * 5 * of_task


def test_a_pretraining_loss_is_counted_for_what_it_computes(train_step):
    """Both views through the encoder, here of one convolution: of that alone, forward and backward."""
    network = nn.Conv2d(1, 4, 3, padding=1)
    trainer = trainer_of(network, torch.zeros(6, 1, 8, 8))
    trainer.pretraining_loss = lambda images: (trainer.network(torch.cat([images, images])).sum(), None)
    assert train_step.count_multiply_adds(trainer) == 12 * 2 * DOWN
    assert trainer.network is network


def test_unlabelled_images_and_their_teacher_are_counted(train_step):
    """The student learns from both batches; the teacher looks at one of them, twice, and learns nothing."""
    network, teacher = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1).requires_grad_(False)
    trainer = trainer_of(network, torch.zeros(6, 1, 8, 8))
    trainer.dataloader_target = itertools.repeat({"data": torch.zeros(5, 1, 8, 8)})
    trainer.randomised = lambda images: images
    trainer.teach = lambda images: (images, teacher(images), teacher(images))
    assert train_step.count_multiply_adds(trainer) == (6 + 5) * 2 * DOWN + 2 * 5 * DOWN


def test_trainers_by_family(train_step):
    everything = train_step.check(asked())
    assert set(everything) == set(train_step.FAMILIES)
    for family, names in everything.items():
        assert family in {train_step.family_of(name) for name in names} <= {family, None}

    dsl, control = "nnUNetTrainerDSL:multidomain.norm=instance", "nnUNetTrainerUNet"
    assert train_step.check(asked(families=["multidomain"])) == {"multidomain": everything["multidomain"]}
    assert train_step.check(asked(dsl, control)) == {"multidomain": [dsl, control]}
    assert train_step.check(asked(control)) == {family: [control] for family in train_step.FAMILIES}
    assert train_step.check(asked(control, families=["pretext"])) == {"pretext": [control]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (asked("nnUNetTrainerDLS"), "--trainers nnUNetTrainerDLS: no such trainer; did you mean 'nnUNetTrainerDSL'"),
        (asked("nnUNetTrainerDSL:multidomain.nrom=batch"), "setting multidomain.nrom: unknown"),
        (asked("nnUNetTrainerDSL:multidomain.norm=group"), "setting multidomain.norm: must be one of batch, instance"),
        (asked("nnUNetTrainer:seed=1"), "--trainers nnUNetTrainer:seed=1: nnUNetTrainer has no settings"),
        (asked("nnUNetTrainerDSL", families=["pretext"]), "is of the family multidomain, which --families leaves out"),
    ],
)
def test_refused_before_anything_is_written(train_step, arguments, message):
    with pytest.raises(UserError, match=message):
        train_step.check(arguments)


def test_batches_hold_every_domain_alike_and_twice(train_step):
    """Otherwise trainers would raise them, and take more samples in a step than nnU-Net's."""
    family = train_step.FAMILIES["multidomain"]
    sizes = [plan["batch_size"] for plans in family.plans.values() for plan in plans.values()]
    assert len(sizes) == 4
    assert all(size % len(family.labelled) == 0 and size >= 2 * len(family.labelled) for size in sizes)


def test_unequal_batches_are_refused(train_step):
    stock, same, more = (SimpleNamespace(batch_size=size) for size in (4, 4, 6))
    train_step.check_batches({train_step.STOCK: stock, "same": same})
    with pytest.raises(UserError, match="more: takes 6 samples per step, nnUNetTrainer 4"):
        train_step.check_batches({train_step.STOCK: stock, "same": same, "more": more})


def test_all_take_a_turn_in_every_round(train_step):
    calls = []
    actions = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = train_step.time_in_turn(actions, n_warmup=2, n_rounds=4)
    assert [sorted(calls[i : i + 3]) for i in range(0, 18, 3)] == [["a", "b", "c"]] * 6
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_networks_of_one_dimension_are_measured_there_alone(train_step):
    names = list(train_step.FAMILIES["discs"].trainers)
    both = {planned: train_step.trainers_for("discs", planned, names) for planned in train_step.PLANNED}
    assert [name.split(":")[0] for name in both["2d"]] == [
        *("nnUNetTrainerSpineRegion", "nnUNetTrainerDenseASPP", "nnUNetTrainerDenseASPP")
    ]
    assert both["3d_fullres"] == ["nnUNetTrainerSpineRegion", "nnUNetTrainerVNetLocalizer"]
    assert train_step.check(asked(families=["discs"])) == {"discs": names}
    assert train_step.family_of("nnUNetTrainerVNetLocalizer") == "discs"


def test_table(train_step):
    row = {
        "family": "multidomain",
        "configuration": "2d",
        "trainer": "nnUNetTrainerDSL",
        "samples": 6,
        "norm": "DomainBatchNorm2d",
        "loss": "DomainCrossEntropy",
        "step_ms": 251.4,
        "step_ratio": 1.0512,
        "step_ratio_interval": [1.03, 1.07],
        "predicted_ratio": 1.0,
        "measured_over_predicted": 1.0512,
        "within_tolerance": True,
        "limit": 1.05,
        "within_limit": False,
        "loading_own_ms": 80.0,
        "loading_pretext_ms": 0.0,
        "loading_ratio": 1.0,
        "memory_mb": 512.3,
        "memory_ratio": 1.02,
    }
    lines = train_step.table([row, row | {"limit": None, "within_limit": None}]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    names, limited, unlimited = ([cell.strip() for cell in lines[i].split("|")[1:-1]] for i in (0, 2, 3))
    limited, unlimited = (dict(zip(names, cells, strict=True)) for cells in (limited, unlimited))
    assert limited["step ratio [95 %]"] == "1.051 [1.030, 1.070]"
    assert (limited["limit"], unlimited["limit"]) == ("1.05: no", "–")
    assert (limited["samples"], limited["norm, loss"]) == ("6", "DomainBatchNorm2d, DomainCrossEntropy")
    assert limited["within 15%"] == "yes"
