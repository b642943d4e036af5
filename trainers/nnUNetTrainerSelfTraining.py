from dataclasses import dataclass, field

from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunet_da.errors import UserError
from nnunet_da.self_training.sampling import case_probabilities
from nnunet_da.self_training.settings import SelfTrainingSettings
from nnunet_da.training.configured_trainer import ConfiguredTrainer
from nnunet_da.training.loaders import start_segmentation_loaders
from nnunet_da.training.schedule import Schedule


@dataclass(frozen=True)
class SelfTrainingTrainerSettings(Schedule):
    self_training: SelfTrainingSettings = field(default_factory=SelfTrainingSettings)


class nnUNetTrainerSelfTraining(ConfiguredTrainer):
    """Segmentation on true labels and pseudo-labels together, of a dataset that `nnunet-da pseudo-label` wrote.

    Stage 4 of Shin et al., "Self-training based unsupervised cross-modality domain adaptation for vestibular schwannoma
    and cochlea segmentation", arXiv:2109.10674 (2021), section 2.3. The network is nnU-Net's; a pseudo-labelled case is
    drawn as often as its weight says, and voxels marked `ignore` do not count.
    """

    settings_class = SelfTrainingTrainerSettings

    def refuse_unsupported(self, configuration_manager, fold):
        name = type(self).__name__
        if self.domains is None or not self.domains.pseudo_labels:
            raise UserError(f"{name}: dataset.json has no pseudo-labels; make them with `nnunet-da pseudo-label`")
        if configuration_manager.previous_stage_name is not None:
            raise UserError(f"{name}: the second stage of a cascade is not supported; train 3d_lowres or 3d_fullres")

    def do_split(self):
        train, val = super().do_split()
        n_pseudo = sum(case in self.domains.pseudo_labels for case in train)
        if n_pseudo == 0:
            raise UserError(f"fold {self.fold}: holds out every pseudo-labelled case; train another fold, or fold all")
        if n_pseudo == len(train) and self.settings.self_training.true_share is not None:
            raise UserError(
                f"fold {self.fold}: holds out every true label, and self_training.true_share wants some; "
                f"train another fold, or fold all"
            )
        return train, val

    def get_dataloaders(self):
        def training_loader(dataset, *arguments, **keywords):
            probabilities = self.sampling_probabilities(dataset.identifiers)
            return nnUNetDataLoader(dataset, *arguments, sampling_probabilities=probabilities, **keywords)

        return start_segmentation_loaders(self, training_loader, nnUNetDataLoader)

    def sampling_probabilities(self, cases):
        """How likely each of the training cases (list of str) is to be drawn (ndarray); says so in the log."""
        chosen = self.settings.self_training
        weights = self.domains.pseudo_labels
        if chosen.weights == "equal":
            weights = dict.fromkeys(weights, 1.0)
        probabilities = case_probabilities(cases, weights, chosen.true_share)
        is_true = [case not in weights for case in cases]
        self.print_to_log_file(
            f"Training on {sum(is_true)} cases with true labels and {len(cases) - sum(is_true)} with pseudo-labels; "
            f"{100 * probabilities[is_true].sum():.0f} % of the samples are of true labels"
        )
        return probabilities
