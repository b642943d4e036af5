from nnunet_da.training.translation_trainer import TranslationTrainer


class nnUNetTrainerCycleGAN(TranslationTrainer):
    """Translates slices between a labelled domain and another, with segmenters on the encoders of the generators.

    Stage 1 of Shin et al., "Self-Training Based Unsupervised Cross-Modality Domain Adaptation for Vestibular Schwannoma
    and Cochlea Segmentation", arXiv:2109.10674 (2021).
    """
