"""Loaders that choose the domains of a batch, and the processes that run them."""

import numpy as np
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunet_da.training.augmentation import ImageRotation, size_to_read


class DomainBalancedLoader(nnUNetDataLoader):
    """Batches ``{'data', 'keys'}`` of patches from anywhere in the image, every domain equally often.

    nnU-Net's loader centres patches on annotated voxels wherever a dataset has an ignore label, and warns about cases
    that have none; neither fits unlabelled cases.

    Parameters
    ----------
    dataset : nnUNetBaseDataset
    cases_by_domain : sequence of sequence of str
        The cases to draw from; within a domain each is as likely as any other.
    batch_size : int
    degrees : float
        Patches are rotated in plane by up to ± this angle.
    patch_size : sequence of int
    label_manager : LabelManager
    """

    def __init__(self, dataset, cases_by_domain, batch_size, degrees, patch_size, label_manager):
        rotation = ImageRotation(patch_size, degrees)
        super().__init__(
            dataset, batch_size, size_to_read(patch_size, degrees), patch_size, label_manager, transforms=rotation
        )
        self.cases_by_domain = [list(cases) for cases in cases_by_domain]
        self.has_ignore = False

    def get_indices(self):
        # Where the number of domains does not divide the batch, chance decides which of them come once more.
        first = np.random.randint(len(self.cases_by_domain))
        domains = (first + np.random.permutation(self.batch_size)) % len(self.cases_by_domain)
        return [np.random.choice(self.cases_by_domain[domain]) for domain in domains]

    def generate_train_batch(self):
        batch = super().generate_train_batch()
        return {"data": batch["data"], "keys": batch["keys"]}


class InterleavedLoader(nnUNetDataLoader):
    """nnU-Net's loader, with sample i of every batch from domain i mod K; within a domain each case is as likely.

    Takes `cases_by_domain` (sequence of sequence of str) after the dataset, else nnU-Net's arguments.
    """

    def __init__(self, dataset, cases_by_domain, *arguments, **keywords):
        super().__init__(dataset, *arguments, **keywords)
        self.cases_by_domain = [list(cases) for cases in cases_by_domain]

    def get_indices(self):
        n_domains = len(self.cases_by_domain)
        return [np.random.choice(self.cases_by_domain[sample % n_domains]) for sample in range(self.batch_size)]


def start_loader(loader, device, share=1.0):
    """An iterator over the batches of `loader`, in nnU-Net's number of worker processes (``nnUNet_n_proc_DA``).

    Parameters
    ----------
    loader : nnUNetDataLoader
    device : torch.device
    share : float
        Fraction of the worker processes to take, at least one where there are any.
    """
    n_processes = get_allowed_n_proc_DA()
    if n_processes == 0:
        return SingleThreadedAugmenter(loader, None)
    n_processes = max(1, round(share * n_processes))
    return NonDetMultiThreadedAugmenter(
        loader,
        None,
        num_processes=n_processes,
        num_cached=max(3, n_processes // 2),
        seeds=None,
        pin_memory=device.type == "cuda",
        wait_time=0.002,
    )


def start_segmentation_loaders(trainer, training_loader, validation_loader):
    """The iterators for training and validation that nnU-Net's `get_dataloaders` gives, of loaders of one's own.

    Parameters
    ----------
    trainer : nnUNetTrainer
    training_loader, validation_loader : callable
        Called with a dataset and the further arguments of `nnUNetDataLoader`.
    """
    if trainer.dataset_class is None:
        trainer.dataset_class = infer_dataset_class(trainer.preprocessed_dataset_folder)
    scales = trainer._get_deep_supervision_scales()
    rotation, dummy_2d, initial_patch_size, mirror_axes = (
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    labels = {
        "is_cascaded": trainer.is_cascaded,
        "foreground_labels": trainer.label_manager.foreground_labels,
        "regions": trainer.label_manager.foreground_regions if trainer.label_manager.has_regions else None,
        "ignore_label": trainer.label_manager.ignore_label,
    }
    patch_size = trainer.configuration_manager.patch_size
    training = trainer.get_training_transforms(
        *(patch_size, rotation, scales, mirror_axes, dummy_2d),
        use_mask_for_norm=trainer.configuration_manager.use_mask_for_norm,
        **labels,
    )
    validation = trainer.get_validation_transforms(scales, **labels)
    loaders = (training_loader, validation_loader)
    sizes, transforms, shares = (initial_patch_size, patch_size), (training, validation), (1.0, 0.5)
    iterators = []
    for dataset, make, size, transform, share in zip(
        trainer.get_tr_and_val_datasets(), loaders, sizes, transforms, shares, strict=True
    ):
        loader = make(
            dataset,
            *(trainer.batch_size, size, patch_size, trainer.label_manager),
            oversample_foreground_percent=trainer.oversample_foreground_percent,
            probabilistic_oversampling=trainer.probabilistic_oversampling,
            transforms=transform,
        )
        iterators.append(start_loader(loader, trainer.device, share))
        next(iterators[-1])
    return tuple(iterators)


def stop_loader(iterator):
    """Ends the worker processes of `start_loader`, where there are any."""
    if isinstance(iterator, NonDetMultiThreadedAugmenter):
        iterator._finish()
