"""Self-training: the predictions of an ensemble on unlabelled scans become labels to train on.

Shin et al., "Self-training based unsupervised cross-modality domain adaptation for vestibular schwannoma and cochlea
segmentation", arXiv:2109.10674 (2021) (below: the paper), sections 2.3 and 3.2. The paper infers pseudo-labels, trains
on them beside true labels, and ensembles chosen folds; how sure a pseudo-label is, is measured here after the
literature that `uncertainty` names. `members` reads predictions, `rules` says what becomes of them, `pseudo_labels`
makes a dataset of them, `sampling` weighs its cases in training, and `choice` ranks models for the final ensemble.
"""
