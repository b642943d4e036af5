from nnunet_da.training.multidomain_trainer import MultiDomainTrainer


class nnUNetTrainerJoint(MultiDomainTrainer):
    """The joint scheme of Boutillon et al. (arXiv:2105.10310, 2021): one U-Net for all domains, all of it shared."""

    scheme = "joint"
