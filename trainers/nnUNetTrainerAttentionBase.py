from nnunet_da.training.multidomain_trainer import MultiDomainTrainer


class nnUNetTrainerAttentionBase(MultiDomainTrainer):
    """The baseline scheme on Att-UNet, with which Boutillon et al. (arXiv:2105.10310, 2021) compare."""

    scheme = "base"
    attention = True
