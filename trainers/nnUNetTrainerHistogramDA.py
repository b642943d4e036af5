from dataclasses import dataclass, field

from nnunet_da.pretext.histogram import HistogramSettings, HistogramTask
from nnunet_da.training.pretext_trainer import PretextTrainer, PretextTrainerSettings


@dataclass(frozen=True)
class HistogramDASettings(PretextTrainerSettings):
    histogram: HistogramSettings = field(default_factory=HistogramSettings)


class nnUNetTrainerHistogramDA(PretextTrainer):
    """Segmentation, and prediction of the intensity histogram on the cases of every domain.

    A task that Fiorentino et al., Int. J. CARS 19, 1753-1761 (2024), name as one to come.
    """

    settings_class = HistogramDASettings
    task_classes = (HistogramTask,)
