from nnunet_da.training.multidomain_trainer import MultiDomainTrainer


class nnUNetTrainerDSL(MultiDomainTrainer):
    """Domain-specific layers: shared filters, and norms and a segmentation layer of each domain's own.

    Boutillon et al. (arXiv:2105.10310, 2021), section 2.1.
    """

    scheme = "dsl"
