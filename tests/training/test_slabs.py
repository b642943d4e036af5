from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunet_da.discs.settings import SlabSettings
from nnunet_da.training.slabs import RandomNoise, SlabLoader, size_to_read, slab_transforms, slices_to_read

LABEL_MANAGER = SimpleNamespace(all_labels=[0, 1], has_ignore_label=False)
STILL = {"deformation": 0.0, "through_plane": 0.0, "scale": (1.0, 1.0), "noise": 0.0, "crop": 0.0}
PATCH = (16, 20)


class ArrayDataset:
    """What nnU-Net's loader asks of a dataset: one case whose voxels tell their slice, and one voxel of a disc."""

    def __init__(self, n_slices=6, disc=4):
        self.identifiers = ["a"]
        self.image = np.arange(1.0, n_slices + 1, dtype=np.float32)[None, :, None, None] * np.ones((1, 1, 40, 44))
        self.label = np.zeros(self.image.shape, np.int8)
        self.label[0, disc, 20, 22] = 1

    def load_case(self, case):
        return self.image, self.label, None, {"class_locations": {1: np.argwhere(self.label == 1)}}


@pytest.fixture(autouse=True)
def _seed():
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


def loader(settings, dataset=None, batch_size=8, oversample=0.0):
    transforms = ComposeTransforms(slab_transforms(settings, PATCH))
    return SlabLoader(
        dataset or ArrayDataset(),
        *(slices_to_read(settings), batch_size, size_to_read(settings, PATCH), PATCH, LABEL_MANAGER),
        oversample_foreground_percent=oversample,
        transforms=transforms,
    )


def test_without_any_augmentation_it_reads_as_nnunet_does():
    settings = SlabSettings(**STILL)
    assert (slices_to_read(settings), size_to_read(settings, PATCH)) == (1, list(PATCH))
    ours = loader(settings, oversample=0.5)
    theirs = nnUNetDataLoader(
        ArrayDataset(), 8, PATCH, PATCH, LABEL_MANAGER, oversample_foreground_percent=0.5, transforms=None
    )
    np.random.seed(1)  # noqa: NPY002
    expected = next(theirs)
    np.random.seed(1)  # noqa: NPY002
    batch = next(ours)
    assert torch.allclose(batch["data"], expected["data"], atol=1e-5)
    assert torch.equal(batch["target"], expected["target"])


def test_slabs_become_patches():
    settings = SlabSettings()
    assert slices_to_read(settings) == 3
    assert slices_to_read(SlabSettings(through_plane=1.5)) == 5
    batch = next(loader(settings))
    assert batch["data"].shape == (8, 1, *PATCH)
    assert batch["target"].shape == (8, 1, *PATCH)
    assert batch["target"].dtype == torch.int16


def test_every_slice_is_the_middle_of_some_slab():
    batches = loader(SlabSettings(**{**STILL, "through_plane": 1e-6}))
    seen = {round(float(value)) for _ in range(12) for value in next(batches)["data"].amax(dim=(1, 2, 3))}
    assert seen == {1, 2, 3, 4, 5, 6}


def test_slices_blend_across_but_nothing_comes_from_beyond_the_scan():
    batches = loader(SlabSettings(**{**STILL, "through_plane": 1.0}))
    values = torch.cat([next(batches)["data"].flatten() for _ in range(12)])
    inside = values[values > 0.5]
    assert ((inside - inside.round()).abs() > 0.2).float().mean() > 0.1
    assert inside.min() > 1 - 1e-4
    assert inside.max() < 6 + 1e-4


def test_the_middle_slice_is_of_the_chosen_voxel():
    batch = next(loader(SlabSettings(**{**STILL, "through_plane": 1e-6}), oversample=1.0))
    assert (batch["target"].amax(dim=(1, 2, 3)) == 1).all()
    assert torch.allclose(batch["data"].amax(dim=(1, 2, 3)), torch.tensor(5.0), atol=1e-3)


def test_enough_is_read_for_a_patch_to_be_full():
    """The scan is large: where a patch had to be filled up, too little would have been read."""
    settings = SlabSettings(deformation=0.2, scale=(0.5, 2.0), crop=0.3, noise=0.0)
    read = size_to_read(settings, PATCH)
    augment = ComposeTransforms(slab_transforms(settings, PATCH))
    for _ in range(30):
        image, label = torch.ones(1, 3, *read), torch.ones(1, 3, *read, dtype=torch.int16)
        result = augment(image=image, segmentation=label)
        assert torch.allclose(result["image"], torch.tensor(1.0), atol=1e-5)
        assert (result["segmentation"] == 1).all()


def test_crops_lie_anywhere():
    settings = SlabSettings(**{**STILL, "crop": 0.25})
    augment = ComposeTransforms(slab_transforms(settings, PATCH))
    read = size_to_read(settings, PATCH)
    assert read == [24, 30]
    rows = torch.arange(24.0)[None, None, :, None].expand(1, 1, *read)
    label = torch.zeros(1, 1, *read, dtype=torch.int16)
    first = {round(float(augment(image=rows.clone(), segmentation=label)["image"][0, 0, 0])) for _ in range(200)}
    assert first == set(range(9))


def test_image_and_labels_are_deformed_alike():
    settings = SlabSettings(noise=0.0)
    augment = ComposeTransforms(slab_transforms(settings, (64, 64)))
    read = size_to_read(settings, (64, 64))
    label = torch.zeros(1, 3, *read, dtype=torch.int16)
    label[:, :, 30:60, 25:70] = 1
    for _ in range(5):
        result = augment(image=label.float(), segmentation=label)
        clear = (result["image"] - 0.5).abs() > 0.01
        assert torch.equal((result["image"] > 0.5)[clear], (result["segmentation"] == 1)[clear])
        assert 0.05 < result["segmentation"].float().mean() < 0.9


def test_noise_is_measured_by_the_image():
    noise = RandomNoise(0.5)
    image = torch.stack([torch.randn(64, 64), 100 * torch.randn(64, 64)])
    sigmas = torch.stack([(noise(image=image)["image"] - image).flatten(1).std(dim=1) for _ in range(60)])
    shares = sigmas / torch.tensor([1.0, 100.0])
    assert 0.45 < shares.max() < 0.55
    assert shares.min() < 0.05
    assert torch.allclose(shares[:, 0], shares[:, 1], rtol=0.15)
