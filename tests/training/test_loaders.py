from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunet_da.training.loaders import DomainBalancedLoader, InPlaneAugmentation


class ArrayDataset:
    """What nnU-Net's loader asks of a dataset, on arrays in memory."""

    def __init__(self, images):
        self.images = images
        self.identifiers = list(images)

    def load_case(self, case):
        image = self.images[case]
        return image, np.zeros((1, *image.shape[1:]), np.int8), None, {"class_locations": {}}


LABEL_MANAGER = SimpleNamespace(all_labels=[0, 1], has_ignore_label=True)


def loader(cases_by_domain, batch_size, patch_size=(1, 8, 8), degrees=0.0, flip_rows=False, shape=(1, 3, 12, 14)):
    rng = np.random.default_rng(0)
    images = {case: rng.normal(size=shape).astype(np.float32) for cases in cases_by_domain for case in cases}
    augmentation = InPlaneAugmentation(patch_size, degrees, flip_rows)
    return DomainBalancedLoader(
        ArrayDataset(images), cases_by_domain, batch_size, augmentation, patch_size, LABEL_MANAGER
    )


@pytest.fixture(autouse=True)
def _seed():
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


def test_domains_are_balanced_whatever_their_sizes():
    domains = [["a"], [f"b{i}" for i in range(9)], ["c0", "c1"]]
    batches = loader(domains, 4)
    counts = Counter()
    for _ in range(300):
        keys = batches.get_indices()
        of_batch = Counter(key[0] for key in keys)
        assert len(keys) == 4
        assert set(of_batch) == {"a", "b", "c"}
        counts += of_batch
    assert all(abs(count - 400) < 45 for count in counts.values())
    assert len({key for _ in range(300) for key in batches.get_indices()}) == 12


def test_batches_hold_images_and_keys_alone():
    batch = next(loader([["a"], ["b"]], 2, patch_size=(2, 8, 10), degrees=30.0, flip_rows=True))
    assert set(batch) == {"data", "keys"}
    assert batch["data"].shape == (2, 1, 2, 8, 10)
    batch = next(loader([["a"], ["b"]], 3, patch_size=(8, 10), degrees=30.0, flip_rows=True))
    assert batch["data"].shape == (3, 1, 8, 10)


def test_unlabelled_cases_are_read_without_a_warning(recwarn):
    next(loader([["a"], ["b"]], 4))
    assert not [warning for warning in recwarn if "annotated" in str(warning.message)]


def test_patches_come_from_everywhere_in_the_image():
    batches = loader([["a"]], 2, patch_size=(1, 1, 1), shape=(1, 2, 3, 3))
    values = {float(value) for _ in range(200) for value in next(batches)["data"].flatten()}
    assert len(values) == 18


def test_no_rotation_and_no_flip_is_the_identity():
    image = torch.randn(2, 4, 8, 10)
    assert torch.allclose(InPlaneAugmentation((4, 8, 10), 0, False)(image.clone(), None)["image"], image)


def test_flips_are_of_rows_alone():
    image = torch.randn(1, 2, 6, 7)
    augmentation = InPlaneAugmentation((2, 6, 7), 0, True)
    results = [augmentation(image.clone(), None)["image"] for _ in range(40)]
    flipped = [torch.equal(result, image.flip(2)) for result in results]
    kept = [torch.equal(result, image) for result in results]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 8 < sum(flipped) < 32


def test_rotation_stays_in_plane():
    """A slice of its own constant value keeps it: no slice reaches into another, and none turns out of the plane."""
    augmentation = InPlaneAugmentation((3, 16, 16), 30, True)
    read = augmentation.initial_patch_size((3, 16, 16))
    assert read[0] == 3
    assert min(read[1:]) > 16
    image = torch.arange(1.0, 4.0)[None, :, None, None].expand(1, 3, *read[1:]).clone()
    result = augmentation(image, None)["image"]
    assert result.shape == (1, 3, 16, 16)
    assert torch.allclose(result, torch.arange(1.0, 4.0)[None, :, None, None].expand_as(result), atol=1e-4)


def test_rotation_turns_by_at_most_the_given_angle():
    augmentation = InPlaneAugmentation((1, 33, 33), 30, False)
    size = augmentation.initial_patch_size((1, 33, 33))
    image = torch.zeros(1, *size)
    # A bar along the rows; its direction after the rotation is the angle.
    image[:, :, size[1] // 2 - 1 : size[1] // 2 + 2, :] = 1
    angles = []
    for _ in range(60):
        result = augmentation(image.clone(), None)["image"][0, 0].numpy()
        rows, columns = np.nonzero(result > 0.5)
        slope = np.polyfit(columns, rows, 1)[0]
        angles.append(abs(np.rad2deg(np.arctan(slope))))
    assert max(angles) < 32
    assert max(angles) > 22
    assert np.mean(np.array(angles) < 10) > 0.1
