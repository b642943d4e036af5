from nnunet_da.training.adaptation_trainer import AdaptationTrainer


class nnUNetTrainerAdapt(AdaptationTrainer):
    """Segmentation of labelled cases with randomised intensities, and of unlabelled ones with a mean teacher's labels.

    The recipe of `nnunet_da.adaptation`, for any dataset with labelled and unlabelled cases.
    """
