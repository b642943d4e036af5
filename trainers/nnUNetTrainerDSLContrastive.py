from nnunet_da.training.multidomain_trainer import ContrastiveTrainer


class nnUNetTrainerDSLContrastive(ContrastiveTrainer):
    """The proposed method: domain-specific layers with supervised contrastive regularisation.

    Boutillon et al. (arXiv:2105.10310, 2021), section 2.2.
    """
