import numpy as np
import pytest
import torch

from nnunet_da.pretext.rotation import RotationTask


@pytest.fixture
def task():
    torch.manual_seed(0)
    return RotationTask(None, (3.0, 1.0, 1.0), n_channels=2)


@pytest.mark.parametrize("shape", [(6, 6), (3, 6, 6)])
def test_images_are_turned_in_plane_by_their_class(task, shape):
    images = torch.randn(8, 2, *shape)
    before = images.clone()
    turned, labels = task.sample(images)
    assert torch.equal(images, before)
    assert torch.bincount(labels).tolist() == [2, 2, 2, 2]
    for image, result, label in zip(images, turned, labels, strict=True):
        assert np.array_equal(np.rot90(image.numpy(), int(label), axes=(-2, -1)), result.numpy())


def test_the_classes_are_quarter_turns(task):
    image = torch.randn(1, 2, 5, 5)
    quarter, half, three_quarters = (task.transform(image, torch.tensor([label])) for label in (1, 2, 3))
    assert torch.equal(task.transform(quarter, torch.tensor([1])), half)
    assert torch.equal(task.transform(quarter, torch.tensor([3])), image)
    assert torch.equal(half, image.flip(-1, -2))
    assert torch.equal(three_quarters, task.transform(half, torch.tensor([1])))
    # Upside down is not a class, but near one: so nothing is flipped before.
    assert not task.flips_rows
    assert task.needs_square


def test_it_is_judged_as_a_classification(task):
    outputs = torch.eye(4)
    answers = torch.tensor([0, 1, 2, 0])
    assert task.score(outputs, answers).tolist() == [1, 1, 1, 0]
    assert task.chance(4) == 0.25
    assert float(task.loss(torch.zeros(4, 4), answers)) == pytest.approx(np.log(4))
