from nnunet_da.training.multidomain_trainer import MultiDomainTrainer


class nnUNetTrainerAttentionDSL(MultiDomainTrainer):
    """Domain-specific layers on Att-UNet, with which Boutillon et al. (arXiv:2105.10310, 2021) compare."""

    scheme = "dsl"
    attention = True
