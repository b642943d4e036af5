import numpy as np
import pytest
import torch

from nnunet_da.errors import UserError
from nnunet_da.training.augmentation import (
    AugmentationSettings,
    BrightnessShift,
    ComposeTransforms,
    ImageRotation,
    simple_transforms,
    size_to_read,
)


@pytest.fixture(autouse=True)
def _seed():
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


def test_no_rotation_is_the_identity():
    image = torch.randn(2, 4, 8, 10)
    assert torch.allclose(ImageRotation((4, 8, 10), 0)(image.clone(), None)["image"], image)


def test_rotation_stays_in_plane():
    """A slice of its own constant value keeps it: no slice reaches into another, and none turns out of the plane."""
    read = size_to_read((3, 16, 16), 30)
    assert read[0] == 3
    assert min(read[1:]) > 16
    image = torch.arange(1.0, 4.0)[None, :, None, None].expand(1, 3, *read[1:]).clone()
    result = ImageRotation((3, 16, 16), 30)(image, None)["image"]
    assert result.shape == (1, 3, 16, 16)
    assert torch.allclose(result, torch.arange(1.0, 4.0)[None, :, None, None].expand_as(result), atol=1e-4)


def test_rotation_turns_by_at_most_the_given_angle():
    rotation, size = ImageRotation((1, 33, 33), 30), size_to_read((1, 33, 33), 30)
    image = torch.zeros(1, *size)
    # A bar along the rows; its direction after the rotation is the angle.
    image[:, :, size[1] // 2 - 1 : size[1] // 2 + 2, :] = 1
    angles = []
    for _ in range(60):
        result = rotation(image.clone(), None)["image"][0, 0].numpy()
        rows, columns = np.nonzero(result > 0.5)
        slope = np.polyfit(columns, rows, 1)[0]
        angles.append(abs(np.rad2deg(np.arctan(slope))))
    assert max(angles) < 32
    assert max(angles) > 22
    assert np.mean(np.array(angles) < 10) > 0.1


@pytest.mark.parametrize(("patch_size", "columns"), [((6, 7), 2), ((3, 6, 7), 3)])
def test_flips_are_of_the_named_axes_and_take_the_labels_along(patch_size, columns):
    settings = AugmentationSettings(scheme="simple", flips=("horizontal",), rotation=0, brightness=0)
    assert settings.mirror_axes(len(patch_size)) == (columns - 1,)
    augment = ComposeTransforms(simple_transforms(settings, patch_size))
    image = torch.randn(1, *patch_size)
    labels = (image > 0).to(torch.int16)
    flipped = 0
    for _ in range(40):
        result = augment(image=image.clone(), segmentation=labels.clone())
        assert torch.equal(result["segmentation"], (result["image"] > 0).to(torch.int16))
        kept = torch.allclose(result["image"], image)
        assert kept or torch.allclose(result["image"], image.flip(columns))
        flipped += not kept
    assert 8 < flipped < 32


def test_both_flips_in_any_order_give_ascending_axes():
    settings = AugmentationSettings(flips=("horizontal", "vertical", "horizontal"))
    assert settings.mirror_axes(3) == (1, 2)
    assert settings.mirror_axes(2) == (0, 1)


def test_brightness_shifts_each_channel_by_a_share_of_its_deviation():
    image = torch.randn(2, 32, 32) * torch.tensor([1.0, 50.0])[:, None, None]
    std = image.flatten(1).std(dim=1)
    relative = []
    for _ in range(200):
        difference = BrightnessShift(0.2)(image=image.clone())["image"] - image
        assert torch.allclose(difference.flatten(1).std(dim=1), torch.zeros(2), atol=1e-4)
        relative.append((difference.flatten(1).mean(dim=1) / std).numpy())
    relative = np.array(relative)
    assert np.abs(relative).max() <= 0.2 + 1e-5
    # A uniform distribution over ± 0.2 has the standard deviation 0.4 / √12.
    assert relative.std(axis=0) == pytest.approx([0.4 / np.sqrt(12)] * 2, rel=0.15)
    assert abs(np.corrcoef(relative.T)[0, 1]) < 0.3


@pytest.mark.parametrize("patch_size", [(16, 20), (3, 16, 20)])
def test_translation_moves_image_and_labels_by_up_to_a_share_of_the_patch(patch_size):
    settings = AugmentationSettings(scheme="simple", flips=(), rotation=0, translation=0.25, brightness=0)
    read = size_to_read(patch_size, 0, 0.25)
    assert read == [*patch_size[:-2], 16 + 2 * 4, 20 + 2 * 5]
    augment = ComposeTransforms(simple_transforms(settings, patch_size))
    rows = torch.arange(read[-2]).float()[:, None].expand(read[-2:])
    columns = torch.arange(read[-1]).float().expand(read[-2:])
    image = torch.stack([rows, columns]).reshape(2, *[1] * (len(patch_size) - 2), *read[-2:])
    image = image.expand(2, *read).clone()
    seen = set()
    for _ in range(300):
        result = augment(image=image.clone(), segmentation=image[:1].to(torch.int16).clone())
        assert result["image"].shape == (2, *patch_size)
        assert torch.equal(result["segmentation"].float(), result["image"][:1])
        first = result["image"][(slice(None), *[0] * len(patch_size))]
        seen.add(tuple(first.round().int().tolist()))
    assert {row for row, _ in seen} == set(range(9))
    assert {column for _, column in seen} == set(range(11))


def in_plane_positions(size):
    """An image whose two channels are the row and the column, and as a label map the row."""
    rows, columns = torch.meshgrid(*(torch.arange(length).float() for length in size[-2:]), indexing="ij")
    image = torch.stack([rows, columns]).reshape(2, *[1] * (len(size) - 2), *size[-2:]).expand(2, *size).clone()
    return image, image[:1].to(torch.int16)


@pytest.mark.parametrize("patch_size", [(16, 20), (3, 16, 20)])
def test_a_crop_shows_a_part_of_the_patch_enlarged(patch_size):
    settings = AugmentationSettings(scheme="simple", flips=(), rotation=0, crop=0.5, brightness=0)
    assert settings.size_to_read(patch_size) == list(patch_size)
    augment = ComposeTransforms(simple_transforms(settings, patch_size))
    image, labels = in_plane_positions(patch_size)
    edges = []
    for _ in range(60):
        result = augment(image=image.clone(), segmentation=labels.clone())
        assert result["image"].shape == (2, *patch_size)
        assert (result["segmentation"] - result["image"][:1]).abs().max() <= 0.5 + 1e-3
        rows, columns = (channel.reshape(-1, *patch_size[-2:])[0] for channel in result["image"])
        # Both axes are enlarged alike, around the centre of the patch.
        step = float(rows[1:].sub(rows[:-1]).median())
        assert step == pytest.approx(float(columns[:, 1:].sub(columns[:, :-1]).median()), abs=1e-3)
        assert float(rows.mean()) == pytest.approx(7.5, abs=0.1)
        edges.append(step)
    assert 0.5 <= min(edges) < 0.6
    assert 0.9 < max(edges) <= 1


@pytest.mark.parametrize("patch_size", [(40, 50), (3, 40, 50)])
def test_an_elastic_deformation_moves_no_point_by_more_than_its_share(patch_size):
    settings = AugmentationSettings(scheme="simple", flips=(), rotation=0, elastic=0.1, brightness=0)
    read = settings.size_to_read(patch_size)
    assert read == [*patch_size[:-2], 48, 58]
    augment = ComposeTransforms(simple_transforms(settings, patch_size))
    image, labels = in_plane_positions(read)
    untouched = in_plane_positions(patch_size)[0] + 4
    largest = []
    for _ in range(20):
        result = augment(image=image.clone(), segmentation=labels.clone())
        moved = (result["image"] - untouched).abs()
        assert moved.max() <= 4 + 1e-3
        assert (result["segmentation"] - result["image"][:1]).abs().max() <= 0.5 + 1e-3
        assert result["segmentation"].min() >= 0
        if len(patch_size) == 3:
            # A deformation in plane is that of all slices.
            assert torch.equal(result["image"][:, 0], result["image"][:, 2])
        # Smooth: neighbours move alike.
        assert moved.diff(dim=-1).abs().max() < 1.5
        largest.append(float(moved.max()))
    assert min(largest) < 1
    assert max(largest) > 3


def test_translation_crop_and_deformation_fill_the_patch():
    settings = AugmentationSettings(
        scheme="simple", flips=(), rotation=30, translation=0.1, crop=0.2, elastic=0.05, brightness=0
    )
    read = settings.size_to_read((32, 40))
    assert read == [a + b for a, b in zip(size_to_read((32, 40), 30), (2 * 3 + 6, 2 * 4 + 6), strict=True)]
    augment = ComposeTransforms(simple_transforms(settings, (32, 40)))
    image = torch.ones(1, *read)
    for _ in range(40):
        result = augment(image=image.clone(), segmentation=image.to(torch.int16))
        assert result["image"].min() > 0.99
        assert (result["segmentation"] == 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotation": 200.0}, "0 to 180"),
        ({"brightness": -1.0}, "negative"),
        ({"translation": 1.5}, "from 0 to 1"),
        ({"crop": 1.0}, "from 0 to below 1"),
        ({"elastic": 0.6}, "from 0 to 0.5"),
    ],
)
def test_bad_values_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        AugmentationSettings(**settings)
