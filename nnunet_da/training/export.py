"""Export of a trained model as a stock nnU-Net model folder, which `nnUNetv2_predict` runs without this package.

What is written holds weights, plan and label names; no case ids, host names, paths or training log.
"""

import contextlib
import io
import tempfile
import zipfile
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_da import settings
from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file, atomic_folder, read_json, require_free_space, write_json
from nnunet_da.training.checkpoints import read_checkpoint

# The entries of dataset.json that prediction reads; all others may name cases or places.
DATASET_ENTRIES = (
    "channel_names",
    "labels",
    "regions_class_order",
    "numTraining",
    "file_ending",
    "overwrite_image_reader_writer",
)


def export(model_folder, output, folds=None, checkpoint="checkpoint_final.pth", overwrite=False):
    """Writes the folds of a trained model for nnU-Net alone; gives the path of what was written.

    Parameters
    ----------
    model_folder : Path
        ``nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION``.
    output : Path
        A folder, which then holds ``DatasetXXX_Name/nnUNetTrainer__PLANS__CONFIGURATION`` as nnUNet_results does; or a
        file ending in .zip, for ``nnUNetv2_install_pretrained_model_from_zip``.
    folds : sequence of str, or None
        None: every fold that has the checkpoint.
    checkpoint : str
    overwrite : bool
        Whether an export that stands at `output` is replaced.

    Raises UserError where a fold or file is missing, the trainer is unknown, or its network is not nnU-Net's own.
    """
    model_folder, output = Path(model_folder), Path(output)
    if not model_folder.is_dir():
        raise UserError(f"{model_folder}: no such trained model")
    plans = read_json(model_folder / "plans.json")
    dataset_json = read_json(model_folder / "dataset.json")
    checkpoints = {
        fold: model_folder / f"fold_{fold}" / checkpoint for fold in folds or _folds(model_folder, checkpoint)
    }
    if not checkpoints:
        raise UserError(f"{model_folder}: no fold has {checkpoint}; is the training finished?")
    for path in checkpoints.values():
        if not path.is_file():
            raise UserError(f"{path}: no such checkpoint")
    dataset_name = plans["dataset_name"]
    configuration = model_folder.name.split("__")[-1]
    stock_name = f"{nnUNetTrainer.__name__}__{plans['plans_name']}__{configuration}"
    is_zip = output.suffix == ".zip"
    target = output if is_zip else output / dataset_name / stock_name
    if target.exists() and not overwrite:
        raise UserError(f"{target}: exists already; choose another place, or --overwrite")
    require_free_space(output.parent, sum(path.stat().st_size for path in checkpoints.values()), "the export")

    stock_plans = _stock_plans(plans, configuration)
    stock_dataset = {key: dataset_json[key] for key in DATASET_ENTRIES if key in dataset_json}
    converted = (
        (fold, _stock_checkpoint(path, fold, stock_plans, stock_dataset, configuration))
        for fold, path in checkpoints.items()
    )
    if not is_zip:
        with atomic_folder(target) as folder:
            _write_model(folder, converted, stock_plans, stock_dataset)
        return target
    with atomic_file(output) as temporary, tempfile.TemporaryDirectory(dir=temporary.parent, prefix=".export.") as name:
        folder = Path(name)
        _write_model(folder, converted, stock_plans, stock_dataset)
        with zipfile.ZipFile(temporary, "w") as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                archive.write(path, Path(dataset_name, stock_name, path.relative_to(folder)))
    return target


def _folds(model_folder, checkpoint):
    return sorted(path.parent.name.removeprefix("fold_") for path in model_folder.glob(f"fold_*/{checkpoint}"))


def _stock_plans(plans, configuration):
    """The plans with the one configuration (and the earlier stage it builds on), written out, without our settings."""
    manager = PlansManager(plans)
    kept = {}
    name = configuration
    while name is not None:
        resolved = dict(manager.get_configuration(name).configuration)
        for key in ("inherits_from", settings.BLOCK):
            resolved.pop(key, None)
        kept[name] = resolved
        name = resolved.get("previous_stage")
    return {**plans, "configurations": kept}


def _stock_checkpoint(path, fold, plans, dataset_json, configuration):
    """What nnU-Net's predictor needs of the checkpoint at `path`, with weights that nnU-Net's own network takes."""
    checkpoint = read_checkpoint(path)
    try:
        # nnU-Net tells on stdout where it looks.
        with contextlib.redirect_stdout(io.StringIO()):
            trainer = recursive_find_trainer_class_by_name(checkpoint["trainer_name"])
    except RuntimeError:
        raise UserError(f"{path}: trainer {checkpoint['trainer_name']} is not installed here") from None
    weights = checkpoint["network_weights"]
    if hasattr(trainer, "stock_weights"):
        weights = trainer.stock_weights(weights)
    _check_stock(path, trainer, weights, plans, dataset_json, configuration)
    return {
        "network_weights": weights,
        "trainer_name": nnUNetTrainer.__name__,
        "init_args": {
            "plans": plans,
            "configuration": configuration,
            "fold": int(fold) if fold != "all" else fold,
            "dataset_json": dataset_json,
            "device": torch.device("cpu"),
        },
        "inference_allowed_mirroring_axes": checkpoint["inference_allowed_mirroring_axes"],
    }


def _check_stock(path, trainer, weights, plans, dataset_json, configuration):
    """Raises UserError unless nnU-Net's own network of this plan takes exactly these weights."""
    manager = PlansManager(plans)
    configuration_manager = manager.get_configuration(configuration)
    refusal = f"{path}: the network of {trainer.__name__} is not nnU-Net's own, so it cannot be exported"
    if configuration_manager.network_arch_class_name.startswith("nnunet_da."):
        raise UserError(refusal)
    with torch.device("meta"):
        network = nnUNetTrainer.build_network_architecture(
            manager,
            configuration_manager,
            determine_num_input_channels(manager, configuration_manager, dataset_json),
            manager.get_label_manager(dataset_json).num_segmentation_heads,
        )
    expected = {name: value.shape for name, value in network.state_dict().items()}
    if expected != {name: value.shape for name, value in weights.items()}:
        raise UserError(refusal)


def _write_model(folder, converted, plans, dataset_json):
    write_json(plans, folder / "plans.json")
    write_json(dataset_json, folder / "dataset.json")
    for fold, checkpoint in converted:
        (folder / f"fold_{fold}").mkdir()
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
