from nnunet_da.pretext.rotation import RotationTask
from nnunet_da.training.pretext_trainer import PretextTrainer


class nnUNetTrainerRotationDA(PretextTrainer):
    """Segmentation, and classification of rotations by 0°, 90°, 180°, 270° on the cases of every domain.

    The t1t2s-rot of Fiorentino et al., Int. J. CARS 19, 1753-1761 (2024), with which the paper compares.
    """

    task_classes = (RotationTask,)
