from nnunet_da.training.disc_trainers import VNetTrainer


class nnUNetTrainerVNetLocalizer(VNetTrainer):
    """Tells the discs apart, numbered from the lowest upwards, by a V-Net.

    The localisation network of Gao, "Deep Learning Framework for Fully Automated Intervertebral Disc Localization and
    Segmentation from Multi-modality MR Images" (2018), section 2.2.
    """
