"""The mean teacher: its weights, its labels and where they count, its loss, and what is saved of it."""

import math

import pytest
import torch
from torch import nn

from nnunet_da.adaptation.teacher import MeanTeacher, TeacherSettings
from nnunet_da.errors import UserError


class Network(nn.Module):
    """Its logits are its input, scaled; one layer has two names, as nnU-Net's blocks have them."""

    def __init__(self, scale=1.0, channels=3):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.norm = nn.BatchNorm2d(channels)
        self.alias = self.norm

    def forward(self, images):
        return self.scale * images


def teacher(exclusive=True, n_outputs=3, **settings):
    return MeanTeacher(Network(), TeacherSettings(**settings), n_outputs, exclusive)


def test_weights_are_the_running_mean():
    ours = teacher(decay=0.75)
    expected = None
    for step, scale in enumerate((2.0, 4.0, 8.0, 16.0, 32.0)):
        student = Network(scale)
        student.norm.weight.data.fill_(scale)
        student.norm.running_mean.fill_(scale)
        student.norm.num_batches_tracked.fill_(step + 7)
        # The plain mean at first: the decay of step n is 1 - 1/n at most.
        decay = min(0.75, 1 - 1 / (step + 1))
        expected = scale if expected is None else decay * expected + (1 - decay) * scale
        ours.follow(student)
        assert ours.network.scale.item() == pytest.approx(expected)
        assert ours.network.norm.weight[0].item() == pytest.approx(expected)
        assert ours.network.norm.running_mean[0].item() == pytest.approx(expected)
        assert ours.network.norm.num_batches_tracked.item() == step + 7
    assert not any(parameter.requires_grad for parameter in ours.network.parameters())
    assert not ours.network.training


def test_the_mean_spans_a_share_of_a_short_training():
    ours = teacher(decay=0.99, span=0.1)
    for scale in (1.0, 1.0, 1.0, 1.0, 1.0, 11.0):
        ours.follow(Network(scale), n_training=40)
    # A tenth of 40 steps: the last one is a quarter of the mean.
    assert ours.network.scale.item() == pytest.approx(1 + 10 / 4)


def test_the_weight_rises_after_the_start():
    settings = TeacherSettings(weight=2.0, start=0.2, ramp=0.4)
    assert [settings.weight_at(share) for share in (0.0, 0.19)] == [0, 0]
    assert settings.weight_at(0.2) == pytest.approx(2 * math.exp(-5))
    assert settings.weight_at(0.4) == pytest.approx(2 * math.exp(-5 / 4))
    assert settings.weight_at(0.6) == settings.weight_at(1.0) == 2
    assert TeacherSettings(start=0.25, ramp=0.0).weight_at(0.25) == 1
    assert TeacherSettings(weight=0.0).weight_at(1.0) == 0


@pytest.mark.parametrize("exclusive", [True, False])
def test_probabilities_are_the_mean_over_views_mirrored_back(exclusive):
    torch.manual_seed(0)
    images, other = torch.randn(2, 1, 3, 4, 5).unbind(1)[0], torch.randn(2, 3, 4, 5)
    found = teacher(exclusive).probabilities(images, [(other.flip([-1, -2]), [-1, -2])])
    activate = (lambda x: x.softmax(1)) if exclusive else torch.sigmoid
    assert torch.allclose(found, (activate(images) + activate(other)) / 2, atol=1e-6)


def test_each_class_has_a_threshold_of_its_own():
    ours = teacher(n_outputs=2, threshold=0.9, keep=0.5)
    # Sure of the background everywhere, never sure of the structure.
    sure, unsure = torch.full((60,), 0.99), torch.linspace(0.52, 0.70, 40)
    structure = torch.cat([1 - sure, unsure])
    probabilities = torch.stack([1 - structure, structure])[None].reshape(1, 2, 10, 10)
    for _ in range(60):
        labels, counts = ours.label(probabilities)
    assert torch.equal(labels.flatten(), torch.cat([torch.zeros(60), torch.ones(40)]).long())
    assert counts.flatten()[:60].all()
    assert counts.flatten()[60:].float().mean() == pytest.approx(0.5, abs=0.05)
    # Those that count are the surest ones.
    assert counts.flatten()[80:].all()
    assert ours.thresholds[1].item() == pytest.approx(unsure[19].item(), abs=0.01)


def test_one_threshold_for_all_where_none_is_kept_by_its_class():
    ours = teacher(n_outputs=2, threshold=0.9, keep=1e-6)
    probabilities = torch.tensor([0.99, 0.95, 0.85, 0.6]).reshape(1, 1, 2, 2)
    probabilities = torch.cat([probabilities, 1 - probabilities], 1)
    for _ in range(30):
        labels, counts = ours.label(probabilities)
    assert counts.flatten().tolist() == [True, True, False, False]
    assert not labels.any()


def test_structures_that_overlap_are_labelled_each():
    ours = teacher(exclusive=False, n_outputs=2, threshold=0.8, keep=1e-6)
    probabilities = torch.tensor([[0.9, 0.6, 0.1], [0.95, 0.1, 0.3]]).reshape(1, 2, 1, 3)
    labels, counts = ours.label(probabilities)
    assert labels.flatten().tolist() == [1, 1, 0, 1, 0, 0]
    assert counts.flatten().tolist() == [True, False, True, True, True, False]


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_loss_is_least_for_the_teacher_s_labels_and_blind_where_they_do_not_count(exclusive):
    torch.manual_seed(0)
    ours = teacher(exclusive)
    if exclusive:
        labels = torch.randint(0, 3, (2, 6, 6))
        right = 20 * nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    else:
        labels = torch.randint(0, 2, (2, 3, 6, 6)).float()
        right = 40 * labels - 20
    counts = torch.rand(labels.shape) < 0.5
    everywhere = torch.ones_like(counts)
    assert ours.loss(right, labels, everywhere).item() == pytest.approx(0, abs=1e-3)
    assert ours.loss(-right, labels, everywhere).item() > 2
    wrong = torch.where(counts[:, None] if exclusive else counts, right, -right)
    assert ours.loss(wrong, labels, counts).item() == pytest.approx(0, abs=1e-3)
    logits = torch.randn(right.shape, requires_grad=True)
    ours.loss(logits, labels, torch.zeros_like(counts)).backward()
    assert not logits.grad.any()


def test_it_goes_on_from_what_is_saved():
    torch.manual_seed(0)
    ours, again = teacher(decay=0.9), teacher(decay=0.9)
    probabilities = torch.randn(1, 3, 4, 4).softmax(1)
    for scale in (2.0, 3.0):
        ours.follow(Network(scale))
        ours.label(probabilities)
    again.load_state_dict(ours.state_dict())
    for each in (ours, again):
        each.follow(Network(9.0))
        each.label(probabilities)
    assert ours.network.scale == again.network.scale
    assert torch.equal(ours.thresholds, again.thresholds)
    assert (ours.n_steps, again.n_steps) == (3, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": -1.0},
        {"decay": 1.0},
        {"start": 1.5},
        {"span": 0.0},
        {"threshold": 0.0},
        {"keep": 2.0},
        {"views": 0},
        {"rotation": 200.0},
    ],
)
def test_rules(wrong):
    with pytest.raises(UserError, match=f"setting adaptation.teacher.{next(iter(wrong))}"):
        TeacherSettings(**wrong)
