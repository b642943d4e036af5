"""Weights to start from: the file of ``nnUNetv2_train … -pretrained_weights FILE``, checked before it is loaded."""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.export import DATASET_ENTRIES, stock_plans

# nnU-Net's loader passes over weights whose name holds this; all others must be in the file, and are taken over.
NOT_TRANSFERRED = ".seg_layers."
COMMANDS = ("nnUNetv2_train", "run_training")
ADVICE = "use the plan that it was trained with (to another dataset nnUNetv2_move_plans_between_datasets copies it)"


def pretrained_weights_argument():
    """The file that the command line of this process gives as ``-pretrained_weights`` (Path), or None.

    This is the one place that reads the command line of nnU-Net: it hands the file to its loader after the trainer is
    made, and tells the trainer nothing, so that a wrong file would end in an assertion on some tensor. The processes
    that it spawns for DDP have the command line of their parent in ``sys.argv``. Called as a function, nnU-Net has no
    command line; then the file is not checked here.
    """
    if Path(sys.argv[0]).stem not in COMMANDS:
        return None
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-pretrained_weights", type=Path)
    # Named for argparse, which would take it for short for the other.
    parser.add_argument("-p")
    return parser.parse_known_args(sys.argv[1:])[0].pretrained_weights


def check_pretrained_weights(path, plans, configuration, dataset_json):
    """Raises UserError, in one line, unless the file at `path` fits the network that is to be trained.

    Patch dimension, channels, architecture and spacing must be equal, and every weight present; the classes may differ.

    Parameters
    ----------
    path : Path
        A checkpoint of nnU-Net, or what `write_pretrained_weights` wrote.
    plans : dict
    configuration : str
    dataset_json : dict
    """
    checkpoint = read_checkpoint(path)
    theirs = _Trained(**{name: checkpoint["init_args"][name] for name in ("plans", "configuration", "dataset_json")})
    ours = _Trained(plans, configuration, dataset_json)
    for name, their_value, our_value in _differences(theirs, ours):
        raise UserError(
            f"-pretrained_weights {path}: {name} {their_value} there, but {our_value} in configuration "
            f"{configuration}; {ADVICE}"
        )
    weights = checkpoint["network_weights"]
    for name, shape in ours.weights():
        if name not in weights or weights[name].shape != shape:
            raise UserError(
                f"-pretrained_weights {path}: has no {name} of the shape {list(shape)}; the network of "
                f"{checkpoint['trainer_name']} is not nnU-Net's own"
            )


class _Trained:
    """What a network is made for: plans, configuration and dataset.json of its training."""

    def __init__(self, plans, configuration, dataset_json):
        self.plans = PlansManager(plans)
        self.configuration = self.plans.get_configuration(configuration)
        self.dimension = len(self.configuration.patch_size)
        self.spacing = [round(float(mm), 4) for mm in self.configuration.spacing[-self.dimension :]]
        self.n_channels = determine_num_input_channels(self.plans, self.configuration, dataset_json)
        self.n_classes = self.plans.get_label_manager(dataset_json).num_segmentation_heads

    def weights(self):
        """Names and shapes of the weights that nnU-Net takes over."""
        with torch.device("meta"):
            network = nnUNetTrainer.build_network_architecture(
                self.plans, self.configuration, self.n_channels, self.n_classes, False
            )
        return [(name, value.shape) for name, value in network.state_dict().items() if NOT_TRANSFERRED not in name]


def _differences(theirs, ours):
    """(What differs, theirs, ours), the coarsest first."""
    if theirs.dimension != ours.dimension:
        yield "patch dimension", theirs.dimension, ours.dimension
    if theirs.n_channels != ours.n_channels:
        yield "channels", theirs.n_channels, ours.n_channels
    of_theirs, of_ours = (
        {"network": trained.configuration.network_arch_class_name} | trained.configuration.network_arch_init_kwargs
        for trained in (theirs, ours)
    )
    for name in [*of_ours, *(name for name in of_theirs if name not in of_ours)]:
        if of_theirs.get(name) != of_ours.get(name):
            yield f"architecture: {name}", of_theirs.get(name), of_ours.get(name)
    if not np.allclose(theirs.spacing, ours.spacing, rtol=0.01):
        yield "spacing (mm)", theirs.spacing, ours.spacing


def write_pretrained_weights(path, weights, trainer, plans, configuration, dataset_json):
    """Writes weights (state dict, on the CPU) to start from, for ``-pretrained_weights`` here and in nnU-Net alone.

    Beside them the file holds what `check_pretrained_weights` compares; no case ids, host names, paths or training log.
    `trainer`: name of the class (str).
    """
    content = {
        "network_weights": weights,
        "trainer_name": trainer,
        "init_args": {
            "plans": stock_plans(plans, configuration),
            "configuration": configuration,
            "dataset_json": {key: dataset_json[key] for key in DATASET_ENTRIES if key in dataset_json},
        },
    }
    with atomic_file(path) as temporary:
        torch.save(content, temporary)


def describe_transfer(network):
    """What nnU-Net took over from a file into `network` (Module), and what not, as a line of the log."""
    sizes = {True: {}, False: {}}
    for name, parameter in network.named_parameters():
        taken = NOT_TRANSFERRED not in name
        part = name.split(".")[0] if taken else name[: name.index(NOT_TRANSFERRED) + len(NOT_TRANSFERRED) - 1]
        sizes[taken][part] = sizes[taken].get(part, 0) + parameter.numel()
    taken, new = (", ".join(f"{part} ({n:,})" for part, n in sizes[kind].items()) for kind in (True, False))
    return f"Pretrained weights: loaded {taken} parameters; not loaded, so new: {new or 'none'}"
