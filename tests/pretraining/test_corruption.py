import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nnunet_da.errors import UserError
from nnunet_da.pretraining.corruption import corrupt, masked_l1
from nnunet_da.pretraining.scale import UnitScale
from nnunet_da.pretraining.settings import CorruptionSettings, PretrainingSettings


def literal_loss(reconstruction, images, mask):
    """Pixel by pixel, as the formula is written, over the number of values."""
    total, n_values = 0.0, 0
    for i, j in np.ndindex(mask.shape[0], images.shape[1]):
        for position in np.ndindex(*mask.shape[2:]):
            if mask[i, 0][position]:
                total += abs(float(reconstruction[i, j][position]) - float(images[i, j][position]))
                n_values += 1
    return total / max(n_values, 1)


@pytest.mark.parametrize("shape", [(2, 1, 5, 6), (2, 3, 3, 4, 5)])
def test_the_loss_is_that_of_the_paper(shape):
    torch.manual_seed(0)
    images, reconstruction = torch.rand(shape), torch.rand(shape)
    _, mask = corrupt(images, fraction=0.3)
    assert mask.any()
    assert float(masked_l1(reconstruction, images, mask)) == pytest.approx(literal_loss(reconstruction, images, mask))


def test_other_pixels_have_no_gradient():
    torch.manual_seed(0)
    images, reconstruction = torch.rand(2, 2, 6, 7), torch.rand(2, 2, 6, 7, requires_grad=True)
    _, mask = corrupt(images, fraction=0.2)
    masked_l1(reconstruction, images, mask).backward()
    everywhere = mask.expand_as(images)
    assert torch.equal(reconstruction.grad != 0, everywhere)
    # Of a mean of absolute values.
    assert torch.allclose(reconstruction.grad[everywhere].abs(), 1 / everywhere.sum())


def test_no_corrupted_pixel_is_no_loss():
    images = torch.rand(1, 1, 4, 4, requires_grad=True)
    loss = masked_l1(images, torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not images.grad.any()


def test_pixels_are_replaced_by_noise_in_all_channels():
    torch.manual_seed(0)
    images = torch.rand(4, 2, 100, 100) + 1
    kept = images.clone()
    corrupted, mask = corrupt(images)
    assert torch.equal(images, kept)
    assert mask.shape == (4, 1, 100, 100)
    everywhere = mask.expand_as(images)
    assert torch.equal(corrupted[~everywhere], images[~everywhere])
    noise = corrupted[everywhere]
    assert float(mask.float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(noise.mean()) == pytest.approx(0, abs=1e-3)
    assert float(noise.std()) == pytest.approx(0.01, rel=0.05)
    one, other = corrupted.movedim(1, 0)[:, mask[:, 0]]
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.1


@settings(max_examples=25, deadline=None)
@given(
    arrays.arrays(
        np.float32, (2, 2, 3, 4), elements=st.floats(-1e4, 1e4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
    )
)
def test_images_span_the_unit_and_come_back(values):
    images = torch.from_numpy(values)
    scale = UnitScale.of(images)
    unit = scale.to_unit(images)
    flat, original = unit.flatten(2), images.flatten(2)
    constant = original.amax(2) == original.amin(2)
    assert torch.equal(flat.amin(2), torch.zeros(2, 2))
    assert torch.equal(flat.amax(2), (~constant).float())
    assert torch.allclose(scale.from_unit(unit), images, atol=1e-2, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"fraction": 0.0}, "fraction: must be between 0 and 1"), ({"sigma": -1.0}, "sigma: must not be negative")],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        CorruptionSettings(**values)
    with pytest.raises(UserError, match=r"pretraining.lr: must be above 0"):
        PretrainingSettings(lr=0.0)
