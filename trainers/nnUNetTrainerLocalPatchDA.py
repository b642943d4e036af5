from dataclasses import dataclass, field

from nnunet_da.pretext.local_patches import LocalPatchSettings, LocalPatchTask
from nnunet_da.training.pretext_trainer import PretextTrainer, PretextTrainerSettings


@dataclass(frozen=True)
class LocalPatchDASettings(PretextTrainerSettings):
    local_patches: LocalPatchSettings = field(default_factory=LocalPatchSettings)


class nnUNetTrainerLocalPatchDA(PretextTrainer):
    """Segmentation, and discrimination of images by shapeless local patches on the cases of every domain.

    A task that Fiorentino et al., Int. J. CARS 19, 1753-1761 (2024), name as one to come.
    """

    settings_class = LocalPatchDASettings
    task_classes = (LocalPatchTask,)
