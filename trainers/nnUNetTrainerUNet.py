from nnunet_da.training.configured_trainer import ConfiguredTrainer


class nnUNetTrainerUNet(ConfiguredTrainer):
    """The baseline "U-Net": nnU-Net's own training on the labelled cases, with the settings' schedule and seed."""
