"""Loaders that choose the domains of a batch, and the processes that run them."""

import numpy as np
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
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


def stop_loader(iterator):
    """Ends the worker processes of `start_loader`, where there are any."""
    if isinstance(iterator, NonDetMultiThreadedAugmenter):
        iterator._finish()
