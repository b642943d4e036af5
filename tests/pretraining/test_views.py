import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.errors import UserError
from nnunet_da.pretraining.settings import ViewSettings
from nnunet_da.pretraining.views import (
    Windows,
    change_intensities,
    corresponding_regions,
    crop,
    draw_view,
    sample,
)

SHAPES = st.sampled_from([(16, 20), (6, 12, 16)])


def ramps(batch, shape):
    """Images whose channel i is the position along axis i, in voxels; (batch, axes, *shape)."""
    return torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")).float().expand(batch, -1, *shape)


def in_voxels(positions, shape):
    """Relative positions (…, axes) in voxels, 0 being the centre of the first."""
    return ((positions + 1) * torch.tensor(shape) - 1) / 2


def windows_of(shape, seed, batch=3):
    torch.manual_seed(seed)
    return Windows.draw(batch, len(shape), (0.6, 1.0), "cpu")


def test_a_known_crop():
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    # Half of the image, its upper right quarter: every pixel becomes two.
    windows = Windows(torch.tensor([[-0.5, 0.5]]), torch.tensor([[0.5]]))
    cropped = crop(image, windows)
    quarter = image[:, :, :4, 4:]
    expected = torch.nn.functional.interpolate(quarter, scale_factor=2, mode="bilinear", align_corners=False)
    # Inside; at the border the crop knows what lies beyond it, the quarter alone does not.
    assert torch.allclose(cropped[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1], atol=1e-4)
    whole = Windows(torch.zeros(1, 2), torch.ones(1, 1))
    assert torch.allclose(crop(image, whole), image, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(0, 2**31))
def test_windows_lie_within_their_image_and_any_two_overlap(shape, seed):
    one, other = windows_of(shape, seed), windows_of(shape, seed + 1)
    for windows in (one, other):
        low, high = windows.bounds
        assert (low >= -1 - 1e-6).all()
        assert (high <= 1 + 1e-6).all()
        assert torch.allclose(high - low, 2 * windows.share.expand_as(low), atol=1e-6)
        assert ((windows.share >= 0.6) & (windows.share <= 1)).all()
    assert (torch.maximum(one.bounds[0], other.bounds[0]) < torch.minimum(one.bounds[1], other.bounds[1])).all()


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(0, 2**31))
def test_positions_go_to_a_view_and_back(shape, seed):
    windows = windows_of(shape, seed)
    positions = 2 * torch.rand(3, 5, len(shape)) - 1
    assert torch.allclose(windows.to_image(windows.to_view(positions)), positions, atol=1e-5)
    corners = torch.stack(windows.bounds, dim=1)
    assert torch.allclose(windows.to_view(corners)[:, 0], -torch.ones(3, len(shape)), atol=1e-5)
    assert torch.allclose(windows.to_view(corners)[:, 1], torch.ones(3, len(shape)), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(0, 2**31))
def test_a_view_shows_what_lies_at_the_position_in_the_image(shape, seed):
    windows = windows_of(shape, seed)
    view = crop(ramps(3, shape), windows)
    # The centres of the view's voxels.
    centres = torch.stack(torch.meshgrid(*[(2 * torch.arange(n) + 1) / n - 1 for n in shape], indexing="ij"), dim=-1)
    expected = in_voxels(windows.to_image(centres.flatten(0, -2).expand(3, -1, -1)), shape)
    # Beyond the centres of the outer voxels there is nothing to interpolate.
    expected = expected.clamp(min=torch.zeros(len(shape)), max=torch.tensor(shape) - 1)
    assert torch.allclose(view.flatten(2).transpose(1, 2), expected, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.integers(0, 2**31), st.integers(1, 4))
def test_corresponding_regions_show_the_same_points_of_the_image(shape, seed, size):
    first, second = windows_of(shape, seed), windows_of(shape, seed + 1)
    in_first, in_second = corresponding_regions(first, second, shape, 5, size)
    assert in_first.shape == in_second.shape == (3, 5 * size ** len(shape), len(shape))
    for positions in (in_first, in_second):
        assert (positions.abs() <= 1 + 1e-4).all()
    points = first.to_image(in_first)
    assert torch.allclose(points, second.to_image(in_second), atol=1e-4)

    # What is sampled at them from a map of either view, of another resolution, is the same point.
    seen = []
    for windows, positions in ((first, in_first), (second, in_second)):
        view = crop(ramps(3, shape), windows)
        fine = torch.nn.functional.interpolate(
            view, scale_factor=2, mode="bilinear" if len(shape) == 2 else "trilinear", align_corners=False
        )
        seen.append(sample(fine, positions).transpose(1, 2))
    # Away from the borders, where the outer half voxel of image, view and map is not interpolated.
    margin = 1 - 3 / min(shape)
    inside = ((points.abs() < margin) & (in_first.abs() < margin) & (in_second.abs() < margin)).all(dim=-1)
    expected = in_voxels(points, shape)
    for values in seen:
        assert torch.allclose(values[inside], expected[inside], atol=1e-2)


def test_points_of_a_region_are_a_voxel_apart():
    whole = Windows(torch.zeros(1, 2), torch.ones(1, 1))
    positions, _ = corresponding_regions(whole, whole, (16, 20), 4, 3)
    cubes = in_voxels(positions, (16, 20)).reshape(4, 3, 3, 2)
    assert torch.allclose(cubes.diff(dim=1)[..., 0], torch.ones(4, 2, 3), atol=1e-4)
    assert torch.allclose(cubes.diff(dim=2)[..., 1], torch.ones(4, 3, 2), atol=1e-4)


def test_regions_lie_anywhere_in_the_overlap():
    torch.manual_seed(0)
    # The first shows the left 0.6 of the image, the second the right 0.6.
    first = Windows(torch.tensor([[0.0, -0.4]]), torch.tensor([[0.6]]))
    second = Windows(torch.tensor([[0.0, 0.4]]), torch.tensor([[0.6]]))
    positions, _ = corresponding_regions(first, second, (50, 50), 2000, 1)
    points = first.to_image(positions)[0]
    assert points[:, 1].abs().max() <= 0.2 + 1e-5
    assert points[:, 0].abs().max() <= 0.6 + 1e-5
    for axis, extent in ((0, 0.6), (1, 0.2)):
        # Uniform: of a width 2 a the standard deviation is 2 a / √12.
        assert float(points[:, axis].std()) == pytest.approx(2 * extent / 12**0.5, rel=0.05)


def test_contrast_and_brightness_are_of_each_channel_and_clipped():
    torch.manual_seed(0)
    images = 0.4 + 0.2 * torch.rand(50, 2, 8, 8)
    changed = change_intensities(images, (0.7, 1.3), 0.1)
    assert ((changed >= 0) & (changed <= 1)).all()
    ratio = (changed.flatten(2).std(2) / images.flatten(2).std(2)).flatten()
    shift = (changed.flatten(2).mean(2) - images.flatten(2).mean(2)).flatten()
    assert 0.7 <= ratio.min() < 0.8
    assert 1.2 < ratio.max() <= 1.3 + 1e-3
    assert -0.1 <= shift.min() < -0.08
    assert 0.08 < shift.max() <= 0.1
    assert abs(float(torch.corrcoef(ratio.reshape(50, 2).T)[0, 1])) < 0.4
    assert torch.equal(change_intensities(images, (1.0, 1.0), 0.0), images)
    # Saturated at both ends: what a network sees whose first norm undoes any shift and scale.
    strong = change_intensities(torch.rand(1, 1, 64, 64), (1.9, 2.0), 0.0)
    assert (strong == 0).any()
    assert (strong == 1).any()


def test_two_views_differ_and_have_their_windows():
    torch.manual_seed(0)
    images = torch.rand(3, 1, 16, 20)
    kept = images.clone()
    (one, first), (other, second) = (draw_view(images, ViewSettings()) for _ in range(2))
    assert torch.equal(images, kept)
    assert one.shape == other.shape == images.shape
    assert not torch.allclose(one, other)
    assert not torch.allclose(first.share, second.share)
    plain, windows = draw_view(images, ViewSettings(contrast=(1.0, 1.0), brightness=0.0))
    assert torch.allclose(plain, crop(images, windows))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": (0.4, 1.0)}, "crop: must be two shares above 0.5, so that any two windows overlap"),
        ({"crop": (0.9, 0.8)}, "the lower one first"),
        ({"contrast": (0.0, 1.0)}, "contrast: must be two values above 0"),
        ({"brightness": 1.5}, "brightness: must be from 0 to 1"),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        ViewSettings(**values)
