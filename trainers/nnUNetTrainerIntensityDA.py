from dataclasses import dataclass, field

from nnunet_da.pretext.intensity import IntensitySettings, IntensityTask
from nnunet_da.training.pretext_trainer import PretextTrainer, PretextTrainerSettings


@dataclass(frozen=True)
class IntensityDASettings(PretextTrainerSettings):
    intensity: IntensitySettings = field(default_factory=IntensitySettings)


class nnUNetTrainerIntensityDA(PretextTrainer):
    """Segmentation, and classification of {none, noise, blur, contrast} on the cases of every domain.

    The t1t2s-int of Fiorentino et al., "An intensity-based self-supervised domain adaptation method for intervertebral
    disc segmentation in magnetic resonance imaging", Int. J. CARS 19, 1753-1761 (2024). With ``pretext.domains=t1`` it
    is t1-int, and so on.
    """

    settings_class = IntensityDASettings
    task_classes = (IntensityTask,)
