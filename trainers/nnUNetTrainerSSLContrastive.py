from nnunet_da.training.ssl_trainer import ContrastivePretrainer


class nnUNetTrainerSSLContrastive(ContrastivePretrainer):
    """Pretraining on the cases of every domain, labelled or not: contrasts images, then regions of them.

    The contrastive loss of Umapathy et al., "Learning to segment with limited annotations: self-supervised pretraining
    with regression and contrastive loss in MRI", arXiv:2205.13109 (2022).
    """
