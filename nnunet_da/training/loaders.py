"""Loaders of images alone, from every domain alike, and the processes that run them."""

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA


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
    in_plane_augmentation : InPlaneAugmentation
    patch_size : sequence of int
    label_manager : LabelManager
    """

    def __init__(self, dataset, cases_by_domain, batch_size, in_plane_augmentation, patch_size, label_manager):
        initial_patch_size = in_plane_augmentation.initial_patch_size(patch_size)
        super().__init__(
            dataset, batch_size, initial_patch_size, patch_size, label_manager, transforms=in_plane_augmentation
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


class InPlaneAugmentation:
    """Rotation in plane and flips of rows, of images alone: no voxel of a label map is resampled.

    The plane is that of the last two axes of the patch, which nnU-Net orders so that the coarsest comes first; its rows
    run along the last but one, so that flipping them is the paper's vertical flip.

    Parameters
    ----------
    patch_size : sequence of int, 2 or 3 long
    degrees : float
        The angle is drawn uniformly from ± `degrees`.
    flip_rows : bool
        Whether each patch is flipped with a chance of one half.
    """

    def __init__(self, patch_size, degrees, flip_rows=True):
        self.radians = np.deg2rad(degrees)
        is_3d = len(patch_size) == 3
        rotation = SpatialTransform(
            patch_size[-2:],
            patch_center_dist_from_border=0,
            random_crop=False,
            p_rotation=float(degrees > 0),
            rotation=(-self.radians, self.radians),
        )
        steps = [Convert3DTo2DTransform(), rotation, Convert2DTo3DTransform()] if is_3d else [rotation]
        if flip_rows:
            steps.append(MirrorTransform(allowed_axes=(len(patch_size) - 2,)))
        self.transform = ComposeTransforms(steps)

    def initial_patch_size(self, patch_size):
        """What must be read for a patch of `patch_size` to be full after the rotation."""
        rows, columns = patch_size[-2:]

        def extent(along, across):
            # Of a rectangle turned by up to the angle; turned further than its diagonal lies, it only gets shorter.
            angle = min(self.radians, np.arctan2(across, along))
            return int(np.ceil(along * np.cos(angle) + across * np.sin(angle)))

        return [*patch_size[:-2], extent(rows, columns), extent(columns, rows)]

    def __call__(self, image, segmentation):
        return {"image": self.transform(image=image)["image"], "segmentation": torch.empty(0)}


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
