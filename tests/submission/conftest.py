"""Model folders as nnU-Net leaves them after training, with weights drawn at random, and scans for them."""

import copy
import json

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}


def configuration(n_axes, n_channels):
    return {
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 16, 16][-n_axes:],
        "spacing": [1.5, 1.0, 1.0][-n_axes:],
        "normalization_schemes": ["ZScoreNormalization"] * n_channels,
        "use_mask_for_norm": [False] * n_channels,
        **{f"resampling_fn_{name}": "resample_data_or_seg_to_shape" for name in ("data", "seg", "probabilities")},
        "resampling_fn_data_kwargs": RESAMPLING,
        "resampling_fn_seg_kwargs": {**RESAMPLING, "is_seg": True},
        "resampling_fn_probabilities_kwargs": RESAMPLING,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [4, 8],
                "conv_op": f"torch.nn.modules.conv.Conv{n_axes}d",
                "kernel_sizes": [[3] * n_axes] * 2,
                "strides": [[1] * n_axes, [2] * n_axes],
                "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{n_axes}d",
                "norm_op_kwargs": {"affine": True},
                "nonlin": "torch.nn.LeakyReLU",
            },
            "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
        },
    }


@pytest.fixture
def make_model(tmp_path):
    """``make_model(name, …)`` writes a model folder, of a configuration with this name, and returns it.

    `change` alters the plans."""

    def make(
        name="3d_fullres",
        *,
        channels=("T2",),
        labels=("vs", "cochlea"),
        folds=(0,),
        reader="NibabelIOWithReorient",
        ending=".nii.gz",
        change=lambda plans: None,
        trainer="nnUNetTrainer",
    ):
        folder = tmp_path / "results" / "Dataset007_Head" / f"{trainer}__nnUNetPlans__{name}"
        n_axes = 2 if name.startswith("2d") else 3
        plans = {
            "dataset_name": "Dataset007_Head",
            "plans_name": "nnUNetPlans",
            "image_reader_writer": reader,
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {
                str(channel): {"mean": 450.0, "std": 250.0} for channel in range(len(channels))
            },
            "configurations": {name: configuration(n_axes, len(channels))},
        }
        change(plans)
        dataset_json = {
            "channel_names": {str(index): channel for index, channel in enumerate(channels)},
            "labels": {label: value for value, label in enumerate(("background", *labels))},
            "numTraining": 2,
            "file_ending": ending,
            "domains": {"s": {"labels": list(labels), "labelled": ["secret_1"], "unlabelled": []}},
        }
        for fold in folds:
            (folder / f"fold_{fold}").mkdir(parents=True)
            manager = PlansManager(copy.deepcopy(plans))
            torch.manual_seed(fold + n_axes)
            network = nnUNetTrainer.build_network_architecture(
                manager, manager.get_configuration(name), len(channels), 1 + len(labels), False
            )
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.5)
            checkpoint = {
                "network_weights": network.state_dict(),
                "trainer_name": trainer,
                "init_args": {"dataset_json": dataset_json, "plans": plans, "configuration": name},
                "inference_allowed_mirroring_axes": tuple(range(n_axes)),
                "logging": {"host": "secret", "loss": np.float32(1)},
            }
            torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
        (folder / "plans.json").write_text(json.dumps(plans))
        (folder / "dataset.json").write_text(json.dumps(dataset_json))
        return folder

    return make


def blobs(seed, shape):
    """A scan (X, Y, Z) int16 with some structure."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 900, [-(-n // 4) for n in shape])
    fine = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)[tuple(map(slice, shape))]
    return (fine + rng.integers(0, 60, shape)).astype(np.int16)


@pytest.fixture
def write_blobs():
    """``write_blobs(path, seed, shape, affine)``: a NIfTI scan for these models."""

    def write(path, seed=0, shape=(16, 14, 6), affine=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        affine = np.diag([1, 1, 1.5, 1.0]) if affine is None else affine
        nibabel.save(nibabel.Nifti1Image(blobs(seed, shape), affine), path)
        return path

    return write
