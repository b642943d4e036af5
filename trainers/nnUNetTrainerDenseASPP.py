from nnunet_da.training.disc_trainers import DenseASPPTrainer


class nnUNetTrainerDenseASPP(DenseASPPTrainer):
    """Segmentation of discs in slices by a DenseNet with a densely connected atrous spatial pyramid.

    Gao, "Deep Learning Framework for Fully Automated Intervertebral Disc Localization and Segmentation from
    Multi-modality MR Images" (2018), sections 2.1, 2.4 and 3.1.
    """
