from nnunet_da.training.multidomain_trainer import MultiDomainTrainer


class nnUNetTrainerBase(MultiDomainTrainer):
    """The baseline scheme of Boutillon et al. (arXiv:2105.10310, 2021): a U-Net trained on one domain alone.

    ``multidomain.domain`` names it.
    """

    scheme = "base"
