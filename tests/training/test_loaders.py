from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunet_da.training.loaders import DomainBalancedLoader


class ArrayDataset:
    """What nnU-Net's loader asks of a dataset, on arrays in memory."""

    def __init__(self, images):
        self.images = images
        self.identifiers = list(images)

    def load_case(self, case):
        image = self.images[case]
        return image, np.zeros((1, *image.shape[1:]), np.int8), None, {"class_locations": {}}


LABEL_MANAGER = SimpleNamespace(all_labels=[0, 1], has_ignore_label=True)


def loader(cases_by_domain, batch_size, patch_size=(1, 8, 8), degrees=0.0, shape=(1, 3, 12, 14)):
    rng = np.random.default_rng(0)
    images = {case: rng.normal(size=shape).astype(np.float32) for cases in cases_by_domain for case in cases}
    return DomainBalancedLoader(ArrayDataset(images), cases_by_domain, batch_size, degrees, patch_size, LABEL_MANAGER)


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
    batch = next(loader([["a"], ["b"]], 2, patch_size=(2, 8, 10), degrees=30.0))
    assert set(batch) == {"data", "keys"}
    assert batch["data"].shape == (2, 1, 2, 8, 10)
    batch = next(loader([["a"], ["b"]], 3, patch_size=(8, 10), degrees=30.0))
    assert batch["data"].shape == (3, 1, 8, 10)


def test_unlabelled_cases_are_read_without_a_warning(recwarn):
    next(loader([["a"], ["b"]], 4))
    assert not [warning for warning in recwarn if "annotated" in str(warning.message)]


def test_patches_come_from_everywhere_in_the_image():
    batches = loader([["a"]], 2, patch_size=(1, 1, 1), shape=(1, 2, 3, 3))
    values = {float(value) for _ in range(200) for value in next(batches)["data"].flatten()}
    assert len(values) == 18
