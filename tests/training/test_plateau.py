import math

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_da.errors import UserError
from nnunet_da.training.plateau import PlateauScheduler, PlateauSettings, StagedScheduler


def optimiser(lr=0.8):
    return torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], lr)


def rates(scheduler, losses, first=0):
    """The learning rate of each epoch, and after the last, as nnU-Net and the trainer call the scheduler."""
    found = []
    for epoch, loss in enumerate(losses, start=first):
        scheduler.step(epoch)
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.observe(loss)
    return [*found, scheduler.optimizer.param_groups[0]["lr"]]


def test_it_halves_where_the_loss_no_longer_falls():
    scheduler = PlateauScheduler(optimiser(), PlateauSettings(patience=2))
    # Three epochs without a new minimum; then one; then three again.
    losses = [-0.5, -0.6, -0.6, -0.5, -0.60005, -0.7, -0.6, -0.6, -0.6]
    assert rates(scheduler, losses) == [0.8] * 5 + [0.4] * 4 + [0.2]


def test_its_factor_and_its_smallest_progress():
    scheduler = PlateauScheduler(optimiser(), PlateauSettings(factor=0.1, patience=0, min_delta=0.1))
    assert rates(scheduler, [1.0, 0.95, 0.85]) == pytest.approx([0.8, 0.8, 0.08, 0.08])


def test_its_state_is_saved_with_the_optimisers_and_resumed():
    losses = [0.5, 0.5, 0.5, 0.6, 0.4, 0.4, 0.4, 0.4]
    settings = PlateauSettings(patience=2)
    uninterrupted = rates(PlateauScheduler(optimiser(), settings), losses)
    for stop in range(1, len(losses)):
        before = PlateauScheduler(optimiser(), settings)
        rates(before, losses[:stop])
        state = before.optimizer.state_dict()
        after = PlateauScheduler(optimiser(), settings)
        after.optimizer.load_state_dict(state)
        assert rates(after, losses[stop:], first=stop) == uninterrupted[stop:]


def test_a_checkpoint_without_its_state_is_refused():
    scheduler = PlateauScheduler(optimiser(), PlateauSettings())
    with pytest.raises(UserError, match="lr_schedule: plateau has no state in the checkpoint"):
        scheduler.optimizer.load_state_dict(optimiser().state_dict())


def test_stages_start_anew():
    scheduler = PlateauScheduler(optimiser(), PlateauSettings(patience=0))
    staged = StagedScheduler([(0, scheduler), (3, scheduler)])
    found = []
    for epoch, loss in enumerate([1.0, 1.0, 1.0, 5.0, 5.0, 4.0]):
        staged.step(epoch)
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.observe(loss)
    assert found == [0.8, 0.8, 0.4, 0.8, 0.8, 0.4]

    decaying = optimiser()
    staged = StagedScheduler([(0, PolyLRScheduler(decaying, 0.8, 2)), (2, PolyLRScheduler(decaying, 0.8, 4))])
    found = []
    for epoch in range(6):
        staged.step(epoch)
        found.append(decaying.param_groups[0]["lr"])
    assert found == pytest.approx([0.8 * (1 - t) ** 0.9 for t in (0, 1 / 2, 0, 1 / 4, 2 / 4, 3 / 4)])


@pytest.mark.parametrize("values", [{"factor": 1.0}, {"patience": -1}, {"min_delta": -1.0}])
def test_bad_values_are_refused(values):
    with pytest.raises(UserError, match=rf"setting plateau.{next(iter(values))}: must"):
        PlateauSettings(**values)
    assert PlateauScheduler(optimiser(), PlateauSettings()).scheduler.best == math.inf
