"""Self-supervised pretraining of a U-Net on images without labels, by regression or by contrast.

Umapathy et al., "Learning to segment with limited annotations: self-supervised pretraining with regression and
contrastive loss in MRI", arXiv:2205.13109 (2022) (below: the paper), after Chen et al., "A simple framework for
contrastive learning of visual representations", ICML 2020, arXiv:2002.05709 (SimCLR), and Chaitanya et al.,
"Contrastive learning of global and local features for medical image segmentation with limited annotations", NeurIPS
2020, arXiv:2006.10511. `corruption` makes the input of the regression, `views` those of the contrast; `contrast` holds
its losses, `heads` and `network` the projections on a U-Net.
"""
