import pytest
import torch

from nnunet_da.translation.image_buffer import ImageBuffer


def batch(*values):
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1)


def values(images):
    return [int(value) for value in images.flatten()]


def test_until_it_is_full_all_are_kept_and_given_back():
    buffer = ImageBuffer(3)
    assert values(buffer.exchange(batch(1, 2))) == [1, 2]
    assert values(buffer.exchange(batch(3))) == [3]
    assert [int(image) for image in buffer.images] == [1, 2, 3]


def test_half_of_the_images_are_older_ones_and_none_is_lost():
    torch.manual_seed(0)
    buffer = ImageBuffer(10)
    buffer.exchange(batch(*range(10)))
    given = [values(buffer.exchange(batch(new)))[0] for new in range(10, 1010)]
    swapped = sum(old != new for new, old in enumerate(given, start=10))
    assert 430 < swapped < 570
    # Every image was given once or is still kept; nothing came from nowhere.
    assert sorted([*given, *(int(image) for image in buffer.images)]) == list(range(1010))


def test_without_room_the_newest_are_given():
    assert values(ImageBuffer(0).exchange(batch(4, 5))) == [4, 5]


def test_what_it_keeps_has_no_gradient_and_single_precision():
    buffer = ImageBuffer(1)
    image = batch(1).half().requires_grad_()
    assert not buffer.exchange(image).requires_grad
    assert buffer.images[0].dtype == torch.float32


@pytest.mark.parametrize("size", [2, 4])
def test_its_state_continues(size):
    buffer, other = ImageBuffer(4), ImageBuffer(size)
    buffer.exchange(batch(1, 2, 3, 4))
    other.load_state_dict(buffer.state_dict())
    assert [int(image) for image in other.images] == [1, 2, 3, 4][:size]
    other.exchange(batch(*range(5, 50)))
    assert [int(image) for image in buffer.images] == [1, 2, 3, 4]
