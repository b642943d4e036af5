"""Export of a trained model as a stock nnU-Net model folder, which `nnUNetv2_predict` runs without this package.

A network that is none of nnU-Net's own is written only where that is asked for, and then needs this package.

What is written holds weights, plan and label names; no case ids, host names, paths or training log.
"""

import contextlib
import io
import itertools
import tempfile
import zipfile
from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

import nnunet_da
from nnunet_da import settings
from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file, atomic_folder, read_json, require_free_space, write_json
from nnunet_da.training.checkpoints import read_checkpoint

# The entry of an exported plans.json that names what must be installed beside nnU-Net.
NEEDS, PLUGIN = "needs", "nnunet-da"
# The entries of dataset.json that prediction reads; all others may name cases or places.
DATASET_ENTRIES = (
    "channel_names",
    "labels",
    "regions_class_order",
    "numTraining",
    "file_ending",
    "overwrite_image_reader_writer",
)


def export(model_folder, output, folds=None, checkpoint="checkpoint_final.pth", overwrite=False, *, allow_plugin=False):
    """Writes the folds of a trained model for nnU-Net alone; gives the paths (list) of what was written.

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
    allow_plugin : bool
        Whether a network that is none of nnU-Net's own but of this package is written too. nnU-Net predicts with it
        where this package is installed; its plans say so under "needs".

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
    configuration = model_folder.name.split("__")[-1]
    plans = stock_plans(plans, configuration)
    dataset_json = {key: dataset_json[key] for key in DATASET_ENTRIES if key in dataset_json}
    converted = (
        (fold, _stock_checkpoints(path, fold, plans, dataset_json, configuration, allow_plugin))
        for fold, path in checkpoints.items()
    )
    # The first fold tells how many models it becomes.
    first = next(converted)
    folders = {
        name: Path(plans["dataset_name"], f"{nnUNetTrainer.__name__}__{name}__{configuration}") for name in first[1]
    }
    if any(NEEDS in model["init_args"]["plans"] for model in first[1].values()):
        print(f"note: the network is one of {PLUGIN}, which must be installed where the model predicts")
    is_zip = output.suffix == ".zip"
    targets = [output] if is_zip else [output / folder for folder in folders.values()]
    for target in targets:
        if target.exists() and not overwrite:
            raise UserError(f"{target}: exists already; choose another place, or --overwrite")
    n_bytes = len(folders) * sum(path.stat().st_size for path in checkpoints.values())
    require_free_space(output.parent, n_bytes, "the export")

    with contextlib.ExitStack() as stack:
        if is_zip:
            temporary = stack.enter_context(atomic_file(output))
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=output.parent, prefix=".export.")))
            written = {name: place / folder for name, folder in folders.items()}
        else:
            written = {name: stack.enter_context(atomic_folder(output / folder)) for name, folder in folders.items()}
        for fold, models in itertools.chain([first], converted):
            for name, checkpoint in models.items():
                _write_model(written[name], fold, checkpoint)
        if is_zip:
            with zipfile.ZipFile(temporary, "w") as archive:
                for path in sorted(path for path in place.rglob("*") if path.is_file()):
                    archive.write(path, path.relative_to(place))
    return targets


def _folds(model_folder, checkpoint):
    return sorted(path.parent.name.removeprefix("fold_") for path in model_folder.glob(f"fold_*/{checkpoint}"))


def stock_plans(plans, configuration):
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


def _stock_checkpoints(path, fold, plans, dataset_json, configuration, allow_plugin):
    """What nnU-Net's predictor needs of the checkpoint at `path`, with weights that nnU-Net's own network takes.

    Gives name of the plans → checkpoint: one, or one per domain where weights are each domain's own.
    """
    checkpoint = read_checkpoint(path)
    try:
        # nnU-Net tells on stdout where it looks.
        with contextlib.redirect_stdout(io.StringIO()):
            trainer = recursive_find_trainer_class_by_name(checkpoint["trainer_name"])
    except RuntimeError:
        raise UserError(f"{path}: trainer {checkpoint['trainer_name']} is not installed here") from None
    models = {"": (plans, checkpoint["network_weights"])}
    if hasattr(trainer, "stock_models"):
        # Of the plans as they were trained, with the settings.
        models = trainer.stock_models(
            checkpoint["network_weights"], checkpoint["init_args"]["plans"], configuration, dataset_json
        )
    stock = {}
    for suffix, (of_model, weights) in models.items():
        name = plans["plans_name"] + suffix
        of_model = {**stock_plans(of_model, configuration), "plans_name": name}
        _check_stock(path, trainer, weights, of_model, dataset_json, configuration, allow_plugin)
        if _needs_plugin(of_model, configuration):
            of_model[NEEDS] = PLUGIN
        stock[name] = {
            "network_weights": weights,
            "trainer_name": nnUNetTrainer.__name__,
            "init_args": {
                "plans": of_model,
                "configuration": configuration,
                "fold": int(fold) if fold != "all" else fold,
                "dataset_json": dataset_json,
                "device": torch.device("cpu"),
            },
            "inference_allowed_mirroring_axes": checkpoint["inference_allowed_mirroring_axes"],
        }
    return stock


def _needs_plugin(plans, configuration):
    """Whether the network of the configuration is one of this package."""
    name = PlansManager(plans).get_configuration(configuration).network_arch_class_name
    return name.startswith(f"{nnunet_da.__name__}.")


def _check_stock(path, trainer, weights, plans, dataset_json, configuration, allow_plugin):
    """Raises UserError unless the plan's network is nnU-Net's own, or an allowed one of ours, and takes the weights."""
    manager = PlansManager(plans)
    configuration_manager = manager.get_configuration(configuration)
    refusal = f"{path}: the network of {trainer.__name__} is not nnU-Net's own, so it cannot be exported"
    if _needs_plugin(plans, configuration) and not allow_plugin:
        raise UserError(f"{refusal} for nnU-Net alone; --allow-plugin writes it for where this package is installed")
    with torch.device("meta"):
        network = nnUNetTrainer.build_network_architecture(
            manager,
            configuration_manager,
            determine_num_input_channels(manager, configuration_manager, dataset_json),
            manager.get_label_manager(dataset_json).num_segmentation_heads,
            # As in prediction; some networks have one output alone.
            enable_deep_supervision=False,
        )
    expected = {name: value.shape for name, value in network.state_dict().items()}
    if expected != {name: value.shape for name, value in weights.items()}:
        raise UserError(refusal)


def _write_model(folder, fold, checkpoint):
    folder.mkdir(parents=True, exist_ok=True)
    write_json(checkpoint["init_args"]["plans"], folder / "plans.json")
    write_json(checkpoint["init_args"]["dataset_json"], folder / "dataset.json")
    (folder / f"fold_{fold}").mkdir()
    torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
