"""A trained model as it lies in nnUNet_results or elsewhere: checked, identified, and made ready to predict."""

import contextlib
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_da.errors import UserError, nearest
from nnunet_da.files import read_json
from nnunet_da.paths import RESULTS, dataset_folder
from nnunet_da.prediction.profiles import Scale
from nnunet_da.prediction.scan_adaptation import ScanAdaptingPredictor
from nnunet_da.scans import ENDINGS
from nnunet_da.training.checkpoints import read_checkpoint

_REORIENTING = "WithReorient"


@dataclass(frozen=True)
class Model:
    """A model folder ``TRAINER__PLANS__CONFIGURATION``, the folds and the checkpoint to use, and what is in them.

    `digests`: fold → hash of its checkpoint.
    """

    folder: Path
    folds: tuple[str, ...]
    checkpoint: str
    trainer: str
    configuration: str
    digests: dict[str, str]
    plans: dict
    dataset_json: dict

    @property
    def n_channels(self) -> int:
        return len(self.dataset_json["channel_names"])

    @property
    def file_ending(self) -> str:
        return self.dataset_json["file_ending"]

    @property
    def reorients(self) -> bool:
        """Whether the model's reader brings every scan to one orientation."""
        return self.plans["image_reader_writer"].endswith(_REORIENTING)

    @property
    def configuration_manager(self):
        return PlansManager(self.plans).get_configuration(self.configuration)

    @property
    def scales(self) -> tuple[Scale, ...]:
        """How each channel's intensities are standardised; what has no z-score of its own has the plan's."""
        manager = self.configuration_manager
        of_plan = self.plans["foreground_intensity_properties_per_channel"]
        return tuple(
            Scale(masked=masked)
            if scheme == "ZScoreNormalization"
            else Scale((of_plan[str(channel)]["mean"], of_plan[str(channel)]["std"]), masked)
            for channel, (scheme, masked) in enumerate(
                zip(manager.normalization_schemes, manager.use_mask_for_norm, strict=True)
            )
        )

    def identity(self) -> dict:
        """What tells this model from any other, without places on a disk."""
        return {
            "folder": f"{self.plans['dataset_name']}/{self.folder.name}",
            "trainer": self.trainer,
            "plans": self.plans["plans_name"],
            "configuration": self.configuration,
            "folds": list(self.folds),
            "checkpoint": self.checkpoint,
            "checkpoint_digests": self.digests,
        }

    def predictor(self, device, mirroring, test_time=None) -> nnUNetPredictor:
        """nnU-Net's predictor with this model on `device` (torch.device).

        `test_time` (TestTimeSettings): the network is adapted to every scan. None: it is not.
        """
        with quietly():
            how = {"use_mirroring": mirroring, "device": device}
            predictor = nnUNetPredictor(**how) if test_time is None else ScanAdaptingPredictor(test_time, **how)
            predictor.initialize_from_trained_model_folder(
                str(self.folder), tuple(fold if fold == "all" else int(fold) for fold in self.folds), self.checkpoint
            )
        return predictor


def model_folder(dataset, configuration, trainer, plans) -> Path:
    """The folder of a model in nnUNet_results. Raises UserError, naming the nearest, where it is not trained."""
    folder = dataset_folder(RESULTS, dataset) / f"{trainer}__{plans}__{configuration}"
    if not folder.is_dir():
        trained = [path.name for path in folder.parent.glob("*__*__*")]
        raise UserError(f"{folder}: no such trained model{nearest(folder.name, trained)}")
    return folder


def open_model(folder, folds=None, checkpoint="checkpoint_final.pth") -> Model:
    """The model in `folder`; `folds` None: every numbered fold that has the checkpoint, else fold_all.

    Checkpoints are read without running code from them. Raises UserError where a file or fold is missing or damaged,
    the trainer is not installed, or the model needs more than scans (a cascade) or other files than scans.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such trained model")
    plans = read_json(folder / "plans.json")
    dataset_json = read_json(folder / "dataset.json")
    for content, key, name in (
        (plans, "configurations", "plans.json"),
        (plans, "plans_name", "plans.json"),
        (dataset_json, "channel_names", "dataset.json"),
        (dataset_json, "file_ending", "dataset.json"),
    ):
        if key not in content:
            raise UserError(f"{folder / name}: '{key}' is missing; this is no model of nnU-Net v2")
    folds = tuple(map(str, folds or _trained_folds(folder, checkpoint)))
    paths = {fold: folder / f"fold_{fold}" / checkpoint for fold in folds}
    for path in paths.values():
        if not path.is_file():
            known = [other.name for other in path.parent.glob("checkpoint_*.pth")]
            raise UserError(f"{path}: no such checkpoint{nearest(checkpoint, known)}")
    contents = [read_checkpoint(path) for path in paths.values()]
    model = Model(
        folder,
        folds,
        checkpoint,
        contents[0]["trainer_name"],
        contents[0]["init_args"]["configuration"],
        {fold: _digest(path) for fold, path in paths.items()},
        plans,
        dataset_json,
    )
    _check_usable(model)
    return model


def choose_device(name=None):
    """The torch.device called `name`; None: the GPU where there is one. Raises UserError where there is no such."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("-device cuda: torch finds no CUDA device here; use -device cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("-device mps: torch finds no such device here; use -device cpu")
    return torch.device(name)


def quietly():
    """A block in which nnU-Net's running commentary on stdout is not shown."""
    return contextlib.redirect_stdout(io.StringIO())


def _trained_folds(folder, checkpoint):
    found = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}"))
    if not found:
        raise UserError(f"{folder}: no fold has {checkpoint}; is the training finished?")
    return [fold for fold in found if fold != "all"] or found


def _digest(path):
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return digest.hexdigest()


def _check_usable(model):
    if model.configuration not in model.plans["configurations"]:
        raise UserError(f"{model.folder / 'plans.json'}: has no configuration {model.configuration}")
    if model.file_ending not in ENDINGS:
        raise UserError(f"{model.folder}: reads {model.file_ending}; only models of {', '.join(ENDINGS)} take scans")
    previous = model.configuration_manager.previous_stage_name
    if previous is not None:
        raise UserError(
            f"{model.folder}: {model.configuration} is the second stage of a cascade; predict {previous}, then use "
            f"nnUNetv2_predict with -prev_stage_predictions"
        )
    try:
        with quietly():
            recursive_find_trainer_class_by_name(model.trainer)
    except RuntimeError:
        raise UserError(f"{model.folder}: trainer {model.trainer} is not installed here") from None
