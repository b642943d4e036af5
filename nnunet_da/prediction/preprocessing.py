"""A scan as nnU-Net preprocesses it for a model, and back onto the scan's own grid."""

import tempfile

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_da.prediction.inputs import CheckedScan, stage
from nnunet_da.prediction.model import Model, quietly


def preprocess(scan: CheckedScan, model: Model):
    """The scan as the network sees it.

    Returns voxels (channels, Z, Y, X), a map (1, Z, Y, X) that is -1 where there is no image and 0 elsewhere, and
    nnU-Net's properties (dict), which `restore` takes.
    """
    configuration, manager = model.configuration_manager, PlansManager(model.plans)
    with tempfile.TemporaryDirectory(prefix="nnunet_da.scan.") as name, quietly():
        paths = stage(scan, name, "scan", model.file_ending)
        preprocessor = configuration.preprocessor_class(verbose=False)
        return preprocessor.run_case(list(map(str, paths)), None, manager, configuration, model.dataset_json)


def restore(voxels, properties, model: Model) -> np.ndarray:
    """Preprocessed `voxels` (channels, Z, Y, X) on the grid of the scan as it was given: (channels, X, Y, Z), float32.

    Interpolated as nnU-Net interpolates images; 0 where the scan was cropped away.
    """
    configuration, manager = model.configuration_manager, PlansManager(model.plans)
    spacing = [properties["spacing"][axis] for axis in manager.transpose_forward]
    # A 2d configuration leaves the distance of slices as it is.
    current = [*spacing[: 3 - len(configuration.spacing)], *configuration.spacing]
    shape = properties["shape_after_cropping_and_before_resampling"]
    voxels = configuration.resampling_fn_data(voxels, shape, current, spacing)
    whole = np.zeros((len(voxels), *properties["shape_before_cropping"]), np.float32)
    whole[(slice(None), *(slice(*bounds) for bounds in properties["bbox_used_for_cropping"]))] = voxels
    whole = whole.transpose(0, *(1 + axis for axis in manager.transpose_backward))
    # nnU-Net has the axes in the order of ITK's arrays.
    whole = whole.transpose(0, 3, 2, 1)
    if model.reorients:
        affine = properties["nibabel_stuff"]["original_affine"]
        to_scan = ornt_transform(axcodes2ornt("RAS"), io_orientation(affine))
        whole = np.stack([apply_orientation(channel, to_scan) for channel in whole])
    return np.ascontiguousarray(whole)
