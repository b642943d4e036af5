"""Translation of images between domains, with segmenters that keep the shape of what is labelled.

Section 2.1 of Shin et al., "Self-training based unsupervised cross-modality domain adaptation for vestibular schwannoma
and cochlea segmentation", arXiv:2109.10674 (2021) (below: the paper), after Zhu et al., "Unpaired image-to-image
translation using cycle-consistent adversarial networks", ICCV 2017, arXiv:1703.10593 (CycleGAN). `network` holds
generators, segmenters and discriminators, `losses` what trains them; `intensities` brings scans to [0, 1].
"""
