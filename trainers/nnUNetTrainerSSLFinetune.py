from nnunet_da.training.configured_trainer import ConfiguredTrainer


class nnUNetTrainerSSLFinetune(ConfiguredTrainer):
    """Segmentation on the labelled cases, from ``-pretrained_weights``, or from scratch without, to compare with.

    The fine-tuning of Umapathy et al., "Learning to segment with limited annotations: self-supervised pretraining with
    regression and contrastive loss in MRI", arXiv:2205.13109 (2022), with ``--preset paper``; nnU-Net's own otherwise.
    """

    @staticmethod
    def paper_preset(configuration):
        """The paper's schedule ("Experiments"), as settings (dict). It names the augmentations without strengths."""
        return {
            "num_epochs": 500,
            "num_iterations_per_epoch": None,
            "num_val_iterations_per_epoch": 10,
            "initial_lr": 1e-3,
            "weight_decay": 0.0,
            "optimizer": "adam",
            "lr_schedule": "plateau",
            "loss": "dice",
            "deep_supervision": False,
            "save_every": 10,
            "augmentation": {
                "scheme": "simple",
                "flips": [],
                "rotation": 0.0,
                "translation": 0.1,
                "crop": 0.2,
                "elastic": 0.03,
                "brightness": 0.0,
            },
        }

    def on_train_start(self):
        super().on_train_start()
        if self.current_epoch == 0 and not self.starts_from_pretrained_weights:
            self.print_to_log_file("No pretrained weights were given: training starts from scratch")
