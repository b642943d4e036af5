from nnunet_da.training.disc_trainers import SpineRegionTrainer


class nnUNetTrainerSpineRegion(SpineRegionTrainer):
    """Segments the region of the spine, outside of which the segmentation of discs is not trained, by a U-Net.

    Gao, "Deep Learning Framework for Fully Automated Intervertebral Disc Localization and Segmentation from
    Multi-modality MR Images" (2018), section 2.3.
    """
