from nnunet_da.pretext.intensity import IntensityTask
from nnunet_da.pretext.rotation import RotationTask
from nnunet_da.trainers.nnUNetTrainerIntensityDA import nnUNetTrainerIntensityDA


class nnUNetTrainerIntensityRotationDA(nnUNetTrainerIntensityDA):
    """Segmentation, the intensity and the rotation task, each with a branch of its own; L_p is their sum.

    The t1t2s-rot-int of Fiorentino et al., Int. J. CARS 19, 1753-1761 (2024), with which the paper compares.
    """

    task_classes = (IntensityTask, RotationTask)
