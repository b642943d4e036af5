"""Loaders of slices of two domains that have nothing to do with one another, scaled to [0, 1]."""

import torch
from batchgenerators.dataloading.data_loader import DataLoader
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from tqdm import tqdm

from nnunet_da.parallel import BAR_AFTER_SECONDS
from nnunet_da.translation.intensities import ScanRange

OUTSIDE = -1  # what nnU-Net's preprocessing and cropping write into label maps where there is no image


def ranges_of(dataset, percentiles):
    """Case → ScanRange of the cases of `dataset` (nnUNetBaseDataset), each of which is read once."""
    ranges = {}
    for case in tqdm(dataset.identifiers, desc="Intensities of scans", leave=False, delay=BAR_AFTER_SECONDS):
        voxels, labels, *_ = dataset.load_case(case)
        ranges[case] = ScanRange.of(voxels[:], labels[0] == OUTSIDE, percentiles)
    return ranges


class UnitLoader(nnUNetDataLoader):
    """nnU-Net's loader of patches, in [0, 1]; each lies within its scan as far as the scan is large enough.

    Where a dataset has an ignore label, nnU-Net centres all patches on annotated voxels. They overhang the scan then,
    and a discriminator would know the labelled domain by that. What lies outside is 0.

    Parameters
    ----------
    dataset : nnUNetBaseDataset
    ranges : dict of str to ScanRange
        By case.
    batch_size : int
    patch_size : sequence of int
    label_manager : LabelManager
    foreground : float
        Share of the batch that is centred on a structure; the rest lies anywhere.
    transforms : transform or None
        Applied to each label map once the images are scaled.
    """

    def __init__(self, dataset, ranges, batch_size, patch_size, label_manager, *, foreground=0.0, transforms=None):
        super().__init__(
            *(dataset, batch_size, patch_size, patch_size, label_manager),
            oversample_foreground_percent=foreground,
        )
        self.ranges = ranges
        self.label_transforms = transforms
        self.has_ignore = False

    def get_bbox(self, data_shape, *arguments, **keywords):
        starts, _ = super().get_bbox(data_shape, *arguments, **keywords)
        last = [
            length - size if length > size else (length - size) // 2
            for length, size in zip(data_shape, self.patch_size, strict=True)
        ]
        starts = [min(start, limit) for start, limit in zip(starts, last, strict=True)]
        return starts, [start + size for start, size in zip(starts, self.patch_size, strict=True)]

    def generate_train_batch(self):
        batch = super().generate_train_batch()
        samples = zip(batch["data"], batch["target"], batch["keys"], strict=True)
        images = [
            torch.from_numpy(self.ranges[case].to_unit(image.numpy(), (labels == OUTSIDE).numpy()))
            for image, labels, case in samples
        ]
        labels = batch["target"]
        if self.label_transforms is not None:
            labels = torch.stack(
                [
                    self.label_transforms(image=image, segmentation=label)["segmentation"]
                    for image, label in zip(images, labels, strict=True)
                ]
            )
        return {"data": torch.stack(images), "target": labels, "keys": batch["keys"]}


class UnpairedLoader(DataLoader):
    """Batches ``{'source', 'labels', 'target'}``: one of each loader, drawn independently.

    Parameters
    ----------
    source, target : UnitLoader
        The labels are those of the source.
    """

    def __init__(self, source, target):
        super().__init__(None, source.batch_size)
        self.source = source
        self.target = target

    def generate_train_batch(self):
        source, target = self.source.generate_train_batch(), self.target.generate_train_batch()
        return {"source": source["data"], "labels": source["target"], "target": target["data"]}
