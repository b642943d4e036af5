from nnunet_da.training.ssl_trainer import RegressionPretrainer


class nnUNetTrainerSSLRegression(RegressionPretrainer):
    """Pretraining on the cases of every domain, labelled or not: recovers corrupted pixels.

    The regression loss of Umapathy et al., "Learning to segment with limited annotations: self-supervised pretraining
    with regression and contrastive loss in MRI", arXiv:2205.13109 (2022).
    """
