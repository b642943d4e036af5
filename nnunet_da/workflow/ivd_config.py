"""The config of ``nnunet-da ivd``, and what of it can be checked before anything begins."""

from dataclasses import dataclass, field
from typing import Literal

from nnunet_da.domains import check_name
from nnunet_da.errors import UserError, nearest
from nnunet_da.paths import RAW, nnunet_folder
from nnunet_da.settings import require
from nnunet_da.workflow.config import WorkflowConfig, flatten
from nnunet_da.workflow.self_train_config import PLANNED, DataConfig, TestConfig, check_training

# Settings of the networks that the preset 'cpu' makes small; those of the plan are nnU-Net's own preset.
SMALL = {
    "dense_aspp.growth": 8,
    "dense_aspp.layers": 2,
    "dense_aspp.aspp_growth": 16,
    "focal.ce_epochs": 3,
    "vnet.features": [8, 16, 32, 64],
    "vnet.convolutions": [1, 1, 1, 1],
    "vnet.kernel_size": 3,
}


@dataclass(frozen=True)
class DiscDataConfig(DataConfig):
    """The dataset in which discs are annotated; those of the three networks get the three ids behind it."""

    name: str = "Discs"


@dataclass(frozen=True)
class NetworkConfig:
    """One of the three networks.

    Attributes
    ----------
    trainer : str
    configuration : str
        Of nnU-Net, planned.
    settings : dict
        Of its trainings, nested or dotted.
    """

    trainer: str = "nnUNetTrainerDenseASPP"
    configuration: str = "2d"
    settings: dict = field(default_factory=dict)


@dataclass(frozen=True)
class RegionConfig(NetworkConfig):
    """The network of the spine region. `margin`: how far it reaches beyond the discs, in mm, before the convex hull."""

    trainer: str = "nnUNetTrainerSpineRegion"
    margin: float = 15.0

    def __post_init__(self):
        require(self.margin >= 0, "region.margin", "must not be negative")


@dataclass(frozen=True)
class LocalizerConfig(NetworkConfig):
    """The network that tells discs apart."""

    trainer: str = "nnUNetTrainerVNetLocalizer"
    configuration: str = "3d_fullres"


@dataclass(frozen=True, kw_only=True)
class IvdConfig(WorkflowConfig):
    """The config of ``nnunet-da ivd``.

    Attributes
    ----------
    data : DiscDataConfig
    preset : 'paper' or 'cpu'
        The networks' own sizes and nnU-Net's schedule, of which the paper says nothing; or small ones for two cores.
    suffix : str
        Behind the names of the configurations that are written.
    folds : int
        How many splits the dataset has: five, or the number of its subjects where these are fewer. All are trained.
    n_discs : int
        How many of the lowest discs are told apart (the paper: 7).
    expected : int or None
        How many discs a complete segmentation shows from L5/S1 upwards (`nnunet-da localize-discs --expect`); None:
        unknown.
    region : RegionConfig or None
        None: the segmentation is trained on whole scans.
    discs : NetworkConfig
    localizer : LocalizerConfig or None
        None: discs are numbered by the centreline alone.
    reference : str or None
        Label map of a case whose discs are numbered, which is registered to predictions; None: a simulated spine.
    test : TestConfig
        Scans that are predicted in the end; `images` None: none are.
    """

    data: DiscDataConfig
    preset: Literal["paper", "cpu"] = "paper"
    suffix: str = "ivd"
    folds: int = 5
    n_discs: int = 7
    expected: int | None = None
    region: RegionConfig | None = field(default_factory=RegionConfig)
    discs: NetworkConfig = field(default_factory=NetworkConfig)
    localizer: LocalizerConfig | None = field(default_factory=LocalizerConfig)
    reference: str | None = None
    test: TestConfig = field(default_factory=TestConfig)

    def __post_init__(self):
        super().__post_init__()
        check_name(self.suffix, "name", "setting suffix")
        require(self.folds >= 2, "folds", "must be at least 2: a region must be predicted out of fold")
        require(1 <= self.n_discs <= 10, "n_discs", "must be from 1 to 10")
        require(self.expected is None or self.expected >= 1, "expected", "must be at least 1")
        for name, network in self.networks.items():
            rule = (
                f"nnU-Net plans no such configuration{nearest(network.configuration, PLANNED)} ({', '.join(PLANNED)})"
            )
            require(network.configuration in PLANNED, f"{name}.configuration", rule)
        require(self.test.labels is None or self.test.images is not None, "test.images", "needed for test.labels")

    @property
    def networks(self):
        """Name → NetworkConfig of those that are trained, in order."""
        named = {"region": self.region, "discs": self.discs, "localizer": self.localizer}
        return {name: network for name, network in named.items() if network is not None}

    def settings_of(self, network):
        """The settings of its trainings (dict, dotted)."""
        own = {"cpu": SMALL, "paper": {}}[self.preset]
        groups = {"nnUNetTrainerDenseASPP": ("dense_aspp", "focal"), "nnUNetTrainerVNetLocalizer": ("vnet",)}
        own = {key: value for key, value in own.items() if key.split(".")[0] in groups.get(network.trainer, ())}
        return {**own, **flatten(network.settings)}


def check(config, place):
    """Raises UserError for paths that are missing, trainers that are unknown, and settings that they do not read."""
    data, test = config.data, config.test
    if data.raw is not None and not place.path(data.raw).exists():
        raise UserError(f"data.raw: {place.path(data.raw)}: no such folder")
    nnunet_folder(RAW)
    for setting, path in (("images", test.images), ("labels", test.labels), ("cases", test.cases)):
        if path is not None and not place.path(path).exists():
            raise UserError(f"test.{setting}: {place.path(path)}: no such file or folder")
    if config.reference is not None and not place.path(config.reference).is_file():
        raise UserError(f"reference: {place.path(config.reference)}: no such file")
    if data.convert is None and not (data.source.folder(RAW) / "dataset.json").is_file():
        raise UserError(f"data.dataset: {data.source.folder(RAW)}: holds no dataset")
    for name, network in config.networks.items():
        check_training(network.trainer, config.settings_of(network), name)
