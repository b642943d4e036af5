"""The config of ``nnunet-da self-train``, and what of it can be checked before anything begins."""

import importlib.util
from dataclasses import dataclass, field
from typing import Literal

from nnunet_da.domains import check_name
from nnunet_da.errors import UserError, nearest
from nnunet_da.paths import RAW, find_dataset, nnunet_folder
from nnunet_da.settings import require
from nnunet_da.workflow.actions import Dataset, cases_in
from nnunet_da.workflow.config import WorkflowConfig, assignment, flatten, require_known_keys

TRANSLATION, PREDICTIONS = "translation", "predictions"
TRANSLATOR = "nnUNetTrainerCycleGAN"
PLANNED = ("2d", "3d_fullres", "3d_lowres")
# Preset → settings of the trainings, folds, and folds of each configuration in the ensemble. The paper's: sections 2.2
# and 2.3. What it does not name is nnU-Net's own.
SCHEDULES = {"paper": {"num_epochs": 200}, "cpu": {}}
FOLDS = {"paper": (0, 1, 2, 3, 4), "cpu": (0, 1)}
CHOSEN = {"paper": {"2d": 2, "3d_fullres": 3}, "cpu": {}}


@dataclass(frozen=True)
class DataConfig:
    """The dataset with labelled source and unlabelled target scans.

    Attributes
    ----------
    dataset : int
        Its id; those of the datasets that the workflow makes follow.
    convert : str or None
        Name of the converter that makes it of the folder `raw`; None: it is there.
    raw : str or None
    name : str
        Behind ``DatasetXXX_``, of a dataset that is made.
    options : dict
        Further flags of ``nnunet-da convert``, without their dashes: ``{"structures": "vs"}``.
    """

    dataset: int
    convert: str | None = None
    raw: str | None = None
    name: str = "SelfTraining"
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        require(1 <= self.dataset <= 990, "data.dataset", "must be an id from 1 to 990, since others follow it")
        require((self.convert is None) == (self.raw is None), "data.raw", "give it together with data.convert")
        require(self.convert or not self.options, "data.options", "are those of data.convert, which is not given")
        check_name(self.name, "name", "setting data.name")

    @property
    def source(self):
        """The Dataset."""
        if self.convert:
            return Dataset(self.dataset, self.name)
        return Dataset(self.dataset, find_dataset(self.dataset)[len("Dataset000_") :])


@dataclass(frozen=True)
class TranslationConfig:
    """Stage 1. `configuration`: what ``2d_translate`` inherits from; `settings`: of the training, nested or dotted;
    `options`: further flags of ``nnunet-da translate``."""

    configuration: str = "2d"
    settings: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingConfig:
    """A stage that trains nnU-Net.

    Attributes
    ----------
    trainer : str
    settings : dict
        Of all its trainings, nested or dotted.
    configurations : dict
        Configuration → settings of its own, which go before `settings`.
    folds : tuple of int or None
        None: those of the preset.
    """

    trainer: str = "nnUNetTrainerUNet"
    settings: dict = field(default_factory=dict)
    configurations: dict = field(default_factory=lambda: {"2d": {}, "3d_fullres": {}})
    folds: tuple[int, ...] | None = None

    def __post_init__(self):
        require(self.configurations, "segmentation.configurations", "must name at least one")
        for name, own in self.configurations.items():
            rule = f"must hold settings; got {own!r}"
            require(own is None or isinstance(own, dict), f"segmentation.configurations.{name}", rule)
        folds = self.folds
        require(folds is None or folds, "segmentation.folds", "must name at least one")
        require(folds is None or len(set(folds)) == len(folds), "segmentation.folds", "must differ")
        require(folds is None or min(folds) >= 0, "segmentation.folds", "must not be negative")


@dataclass(frozen=True)
class SelfTrainingConfig:
    """Stage 4: trained in the configurations and folds of stage 2, with the settings of stage 2 under its own."""

    trainer: str = "nnUNetTrainerSelfTraining"
    settings: dict = field(default_factory=dict)


@dataclass(frozen=True)
class TestConfig:
    """Target scans that are predicted in the end.

    Attributes
    ----------
    images : str or None
        Folder of CASE_0000.nii.gz; None: ``imagesTs`` of the dataset.
    labels : str or None
        Folder of CASE.nii.gz, for the report alone; None: ``labelsTs`` of the dataset, where there is one.
    cases : str or None
        CSV with the columns case and domain.
    """

    images: str | None = None
    labels: str | None = None
    cases: str | None = None
    # For pytest, which would take it for a test.
    __test__ = False


@dataclass(frozen=True)
class PackageConfig:
    """What ``nnunet-da package`` makes of the predictions. `scans`: the challenge's own, as downloaded; `options`:
    further flags, without their dashes."""

    challenge: str
    scans: str
    options: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SelfTrainConfig(WorkflowConfig):
    """The config of ``nnunet-da self-train``.

    Attributes
    ----------
    preset : 'paper' or 'cpu'
        The paper's schedule and folds, or small plans and schedules for two CPU cores.
    start : 'translation' or 'predictions'
        Whether segmentation is trained on translated scans, or `segmentation.trainer` on the dataset as it is.
    suffix : str
        Behind the names of the configurations that are written.
    source_only : bool
        Whether the report compares with a model that was trained on source scans as they are.
    rounds : int
        Of pseudo-labels and self-training.
    pseudo_labels : dict
        Flags of ``nnunet-da pseudo-label``, without their dashes.
    ensemble : dict
        Configuration → number of its folds in the ensemble; default: that of the preset.
    choose : dict
        Flags of the command that chooses them.
    postprocess : dict or None
        Flags of ``nnunet-da postprocess``; None: predictions stay as they are.
    package : PackageConfig or None
        None: the predictions are not packed.
    """

    data: DataConfig
    preset: Literal["paper", "cpu"] = "paper"
    start: Literal["translation", "predictions"] = TRANSLATION
    suffix: str = "selftrain"
    source_only: bool = False
    translation: TranslationConfig = field(default_factory=TranslationConfig)
    segmentation: TrainingConfig = field(default_factory=TrainingConfig)
    pseudo_labels: dict = field(default_factory=dict)
    self_training: SelfTrainingConfig = field(default_factory=SelfTrainingConfig)
    rounds: int = 1
    ensemble: dict | None = None
    choose: dict = field(default_factory=dict)
    test: TestConfig = field(default_factory=TestConfig)
    postprocess: dict | None = None
    package: PackageConfig | None = None

    def __post_init__(self):
        super().__post_init__()
        require(1 <= self.rounds <= 8, "rounds", "must be from 1 to 8")
        require(
            not (self.source_only and self.start == PREDICTIONS),
            "source_only",
            "segmentation is trained on source scans as they are already, where start is predictions",
        )
        check_name(self.suffix, "name", "setting suffix")
        for name, number in (self.ensemble or {}).items():
            setting = f"ensemble.{name}"
            require_known_keys({name: number}, self.segmentation.configurations, "ensemble")
            right = isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= len(self.folds)
            require(right, setting, f"must be a number of folds from 1 to {len(self.folds)}; got {number!r}")

    @property
    def folds(self):
        return self.segmentation.folds or FOLDS[self.preset]

    @property
    def chosen(self):
        """Configuration → number of its folds in the ensemble."""
        if self.ensemble is not None:
            return self.ensemble
        numbers = CHOSEN[self.preset]
        return {name: min(numbers.get(name, 1), len(self.folds)) for name in self.segmentation.configurations}

    def training_settings(self, configuration, *, self_training=False):
        """The settings of a training of stage 2 or 4 (dict, dotted)."""
        trainer = self.self_training.trainer if self_training else self.segmentation.trainer
        schedule = SCHEDULES[self.preset] if configuration in PLANNED and is_ours(trainer) else {}
        own = self.segmentation.configurations[configuration] or {}
        block = {**schedule, **flatten(self.segmentation.settings), **flatten(own)}
        return {**block, **flatten(self.self_training.settings)} if self_training else block

    @property
    def source(self):
        """The dataset of source and target scans; that of ``start: predictions`` is what is segmented first."""
        return self.data.source

    def derived(self, number, name):
        """The dataset that the workflow makes as its `number`-th."""
        return Dataset(self.data.dataset + number, f"{self.source.name}{name}")


def check(config, place):
    """Raises UserError for paths that are missing, trainers that are unknown, and settings that they do not read."""
    data, test = config.data, config.test
    if data.raw is not None and not place.path(data.raw).exists():
        raise UserError(f"data.raw: {place.path(data.raw)}: no such folder")
    nnunet_folder(RAW)
    for setting, path in (("images", test.images), ("labels", test.labels), ("cases", test.cases)):
        if path is not None and not place.path(path).exists():
            raise UserError(f"test.{setting}: {place.path(path)}: no such file or folder")
    if data.convert is None:
        _check_dataset(config, place)
    _check_configurations(config)
    _check_settings(config)


def _check_dataset(config, place):
    """That the dataset, which is there, has scans without labels, and scans to predict in the end."""
    from nnunet_da.domains import read_domains

    folder = config.source.folder(RAW)
    domains = read_domains(config.source.json, folder / "dataset.json")
    if not domains.unlabelled_cases or not domains.labelled_cases:
        raise UserError(f"data.dataset: {folder}: needs labelled cases (the source) and unlabelled ones (the target)")
    images = test_images(config, place)
    cases = set(cases_in(images, config.source.json["file_ending"]))
    labels = test_labels(config, place)
    if labels is not None:
        labelled = {path.name.split(".")[0] for path in labels.iterdir()}
        if not labelled & cases:
            raise UserError(f"test.labels: {labels}: no file is named as a case of {images}, such as {min(cases)}")


def test_images(config, place):
    """The folder of the scans that are predicted in the end; that of the dataset need not exist yet."""
    return place.path(config.test.images) if config.test.images else config.source.folder(RAW) / "imagesTs"


def test_labels(config, place):
    """The folder of their labels; None where there are none."""
    if config.test.labels:
        return place.path(config.test.labels)
    if config.test.images or config.data.convert:
        return None
    of_dataset = config.source.folder(RAW) / "labelsTs"
    return of_dataset if of_dataset.is_dir() else None


def _check_configurations(config):
    for name in config.segmentation.configurations:
        if name in PLANNED:
            continue
        if config.start == TRANSLATION:
            raise UserError(
                f"segmentation.configurations.{name}: nnU-Net plans no such configuration{nearest(name, PLANNED)} "
                f"({', '.join(PLANNED)})"
            )
        if config.training_settings(name):
            raise UserError(
                f"segmentation.configurations.{name}: has settings of its own already; it takes none here, nor from "
                f"segmentation.settings"
            )


def _check_settings(config):
    """Reads the settings as `nnunet-da configure` will, days later."""
    trainings = {}
    for name in config.segmentation.configurations:
        first, again = config.segmentation.trainer, config.self_training.trainer
        trainings[f"segmentation, {name}"] = (first, config.training_settings(name))
        trainings[f"self_training, {name}"] = (again, config.training_settings(name, self_training=True))
    if config.start == TRANSLATION:
        trainings["translation"] = (TRANSLATOR, flatten(config.translation.settings))
    for stage, (trainer, block) in trainings.items():
        check_training(trainer, block, stage)


def check_training(trainer, block, stage):
    """Raises UserError, naming the stage, for a trainer or settings (dict, dotted) that a training would not take."""
    from nnunet_da import settings
    from nnunet_da.training.configurations import PlanSettings, all_settings, all_trainers

    _require_trainer(trainer, stage, all_trainers())
    try:
        nested = settings.parse_assignments([assignment(key, value) for key, value in block.items()])
        settings.build(PlanSettings, nested.pop("plan", {}), prefix="plan.")
        settings.build(all_settings(), nested)
    except UserError as error:
        raise UserError(f"{stage}: {error}") from None


def _require_trainer(name, stage, ours):
    """Raises UserError for a trainer that neither this package nor nnU-Net has."""
    if name in ours:
        return
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        raise UserError(f"{stage}: no trainer {name}{nearest(name, ours)}") from None


def is_ours(trainer):
    """Whether a trainer is one of this package, which reads settings; nnU-Net's own reads its plan alone."""
    return importlib.util.find_spec(f"nnunet_da.trainers.{trainer}") is not None
