"""Custom configurations: a run's settings, and changes to the plan, under a name of their own in plans.json.

A custom configuration inherits from one that nnU-Net planned, has its own result folder, reuses the preprocessed data
and survives re-planning (nnU-Net keeps configurations that it did not plan).
"""

import copy
import functools
import importlib
import math
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_da import settings
from nnunet_da.errors import UserError, nearest
from nnunet_da.files import read_json, write_json
from nnunet_da.settings import require

PLANNED = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
NORMS = {
    "instance": "torch.nn.modules.instancenorm.InstanceNorm{dim}d",
    "batch": "torch.nn.modules.batchnorm.BatchNorm{dim}d",
}
# Networks of this package that stand in plans.json by the name of their class.
NETWORKS = {"pooling_unet": "nnunet_da.pretext.unet.PoolingUNet"}
# Entries of the architecture that hold one value per stage of the encoder, or of the decoder, which has one fewer.
PER_STAGE = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")
PER_DECODER_STAGE = ("n_conv_per_stage_decoder",)


@dataclass(frozen=True)
class PlanSettings:
    """What a custom configuration changes in the plan itself, so that every trainer honours it, nnU-Net's own included.

    Attributes
    ----------
    patch_size : tuple of int, or None
        Voxels; along each axis a multiple of the network's total stride.
    batch_size : int or None
    features_per_stage : tuple of int, or None
        Filters of each stage, which also says how many of the planned stages the network keeps.
    network : 'pooling_unet' or None
        'pooling_unet': the U-Net of the intensity pretext paper, see `nnunet_da.pretext.unet`, which pools in plane. It
        has one output (``deep_supervision=false``) and cannot be exported to nnU-Net alone.
    norm : 'instance', 'batch' or None
        The normalisation of encoder and decoder. nnU-Net plans InstanceNorm; the networks of the papers use BatchNorm,
        whose running statistics then mix the domains that training sees.
    """

    patch_size: tuple[int, ...] | None = None
    batch_size: int | None = None
    features_per_stage: tuple[int, ...] | None = None
    network: Literal["pooling_unet"] | None = None
    norm: Literal["instance", "batch"] | None = None

    def __post_init__(self):
        require(self.batch_size is None or self.batch_size >= 1, "plan.batch_size", "must be at least 1")
        for name in ("patch_size", "features_per_stage"):
            values = getattr(self, name)
            require(values is None or all(value >= 1 for value in values), f"plan.{name}", "values must be at least 1")
        stages = self.features_per_stage
        require(stages is None or len(stages) >= 3, "plan.features_per_stage", "must name at least 3 stages")


@functools.cache
def all_settings():
    """The dataclass of every setting that some trainer of this package reads."""
    return settings.union([trainer.settings_class for trainer in all_trainers().values()])


@functools.cache
def all_trainers():
    """The trainers of this package (name → class), sorted by name."""
    trainers = importlib.import_module("nnunet_da.trainers")
    names = sorted(module.name for module in pkgutil.iter_modules(trainers.__path__))
    return {name: getattr(importlib.import_module(f"{trainers.__name__}.{name}"), name) for name in names}


def change_plan(configuration, plan):
    """The entries of a resolved configuration (dict) that PlanSettings `plan` changes, as a dict.

    Raises UserError where a patch does not fit the network, or more stages are asked for than were planned.
    """
    changes = {}
    dimension = len(configuration["patch_size"])
    architecture = copy.deepcopy(configuration["architecture"])
    if plan.network is not None:
        architecture = _pooling_architecture(plan.network, architecture["arch_kwargs"], dimension)
    arguments = architecture["arch_kwargs"]
    if plan.features_per_stage is not None:
        n_stages = len(plan.features_per_stage)
        rule = f"must name at most the {arguments['n_stages']} stages that were planned"
        require(n_stages <= arguments["n_stages"], "plan.features_per_stage", rule)
        for name in PER_STAGE:
            if name in arguments:
                arguments[name] = arguments[name][:n_stages]
        for name in PER_DECODER_STAGE:
            if name in arguments:
                arguments[name] = arguments[name][: n_stages - 1]
        arguments.update(n_stages=n_stages, features_per_stage=list(plan.features_per_stage))
    if plan.norm is not None:
        arguments["norm_op"] = NORMS[plan.norm].format(dim=dimension)
    if architecture != configuration["architecture"]:
        changes["architecture"] = architecture
    if plan.batch_size is not None:
        changes["batch_size"] = plan.batch_size
    patch_size = list(plan.patch_size or configuration["patch_size"])
    stride = _total_stride(arguments["strides"])
    fits = len(patch_size) == dimension and all(p % s == 0 and p > 0 for p, s in zip(patch_size, stride, strict=True))
    require(fits, "plan.patch_size", f"must have {dimension} values, multiples of {stride}; got {patch_size}")
    if plan.patch_size is not None:
        changes["patch_size"] = patch_size
    return changes


def _pooling_architecture(network, planned, dimension):
    """The entry of plans.json for one of NETWORKS with its paper's filters, kernels and strides."""
    features = [32, 64, 128, 256, 512]
    in_plane = [1, 2, 2][-dimension:]
    return {
        "network_class_name": NETWORKS[network],
        "arch_kwargs": {
            "n_stages": len(features),
            "features_per_stage": features,
            "conv_op": planned["conv_op"],
            "kernel_sizes": [[3] * dimension] * len(features),
            "strides": [[1] * dimension] + [in_plane] * (len(features) - 1),
            "norm_op": NORMS["batch"].format(dim=dimension),
        },
        "_kw_requires_import": ["conv_op", "norm_op"],
    }


def _total_stride(strides):
    """Downsampling of the whole encoder, per axis."""
    return [math.prod(axis) for axis in zip(*strides, strict=True)]


def cpu_preset(configuration):
    """A plan and schedule that two CPU cores train in minutes: a small patch, few stages, thin ones.

    Returns the block of settings (dict) for the resolved `configuration` (dict).
    """
    arguments = configuration["architecture"]["arch_kwargs"]
    if len(configuration["patch_size"]) == 2:
        features, voxels, batch_size = (16, 32, 64, 128, 128), 160**2, 6
    else:
        features, voxels, batch_size = (8, 16, 32, 64), 16 * 64**2, 2
    features = features[: arguments["n_stages"]]
    stride = _total_stride(arguments["strides"][: len(features)])
    patch_size = list(configuration["patch_size"])
    while math.prod(patch_size) > voxels and any(p > s for p, s in zip(patch_size, stride, strict=True)):
        axis = max(range(len(patch_size)), key=lambda i: patch_size[i] / stride[i])
        patch_size[axis] = max(stride[axis], patch_size[axis] * 3 // 4)
    patch_size = [max(s, p // s * s) for p, s in zip(patch_size, stride, strict=True)]
    plan = {"patch_size": patch_size, "batch_size": batch_size, "features_per_stage": list(features)}
    schedule = {"num_epochs": 10, "num_iterations_per_epoch": 50, "num_val_iterations_per_epoch": 5, "save_every": 1}
    return {"plan": plan, **schedule}


PRESETS = ("cpu", "paper")


def preset_block(preset, configuration, trainer=None):
    """The settings (dict) of a preset for a resolved `configuration` (dict); `trainer`: whose paper is meant."""
    if preset == "cpu":
        return cpu_preset(configuration)
    with_paper = [name for name, found in all_trainers().items() if hasattr(found, "paper_preset")]
    if trainer is None:
        raise UserError(f"--preset {preset}: say whose with -tr ({', '.join(with_paper)})")
    if trainer not in with_paper:
        known = f"those with one: {', '.join(with_paper)}"
        raise UserError(f"--preset {preset}: {trainer} has none{nearest(trainer, with_paper)} ({known})")
    return all_trainers()[trainer].paper_preset(configuration)


def configure(plans_file, results_folder, base, name, assignments, preset=None, overwrite=False, trainer=None):
    """Writes the custom configuration `name` into plans.json; says in one line what it did.

    Parameters
    ----------
    plans_file : Path
        The plans in nnUNet_preprocessed.
    results_folder : Path
        Results of the dataset, where trained models are looked for; it need not exist.
    base : str
        The configuration to inherit from.
    name : str
    assignments : sequence of str
        ``key=value``; keys of `all_settings`, and ``plan.…`` of PlanSettings.
    preset : str or None
        One of PRESETS; assignments override it.
    overwrite : bool
        Whether a configuration that has trained models may change.
    trainer : str or None
        The trainer whose paper the preset 'paper' follows.

    Raises UserError for an unknown key or value, an unknown base, a name that nnU-Net plans, or a change under models.
    """
    plans = read_json(plans_file)
    configurations = plans["configurations"]
    if base not in configurations:
        raise UserError(f"{plans_file}: no configuration {base}{nearest(base, configurations)}")
    if name in PLANNED or name == base:
        raise UserError(f"--as {name}: nnU-Net plans this configuration itself, or it is the base; choose another name")
    resolved = PlansManager(plans).get_configuration(base).configuration
    block = preset_block(preset, resolved, trainer) if preset else {}
    block = settings.merge(block, settings.parse_assignments(assignments))
    plan = settings.build(PlanSettings, block.pop("plan", {}), prefix="plan.")
    block = settings.merge(resolved.get(settings.BLOCK, {}), block)
    block.pop(settings.TRAINED_DOMAINS, None)
    settings.build(all_settings(), block)
    configuration = {"inherits_from": base, **change_plan(resolved, plan), settings.BLOCK: block}
    if configurations.get(name) == configuration:
        return f"{name}: unchanged"
    trained = _trained_models(results_folder, plans["plans_name"], name)
    if name in configurations and trained and not overwrite:
        raise UserError(
            f"configuration {name}: {trained[0]} was trained with other settings; choose another name, or --overwrite"
        )
    is_known = name in configurations
    configurations[name] = configuration
    # The same file, whatever the order in which they were added.
    own = sorted(known for known, content in configurations.items() if settings.BLOCK in content)
    planned = {known: content for known, content in configurations.items() if known not in own}
    plans["configurations"] = planned | {known: configurations[known] for known in own}
    write_json(plans, plans_file)
    return f"{name}: {'changed' if is_known else 'added'} in {plans_file}"


def _trained_models(results_folder, plans_name, configuration):
    return sorted(Path(results_folder).glob(f"*__{plans_name}__{configuration}/fold_*/checkpoint_*.pth"))
