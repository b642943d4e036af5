"""The rotation pretext task: by which multiple of 90° was the image turned in plane?

The comparison task of the paper ("t1t2s-rot"). The paper does not state the angles; 0°, 90°, 180° and 270° are those of
Gidaris et al., "Unsupervised representation learning by predicting image rotations", ICLR 2018. None of them
interpolates, so that nothing but the orientation tells them apart.
"""

import torch

from nnunet_da.pretext.task import ClassificationTask


class RotationTask(ClassificationTask):
    """Classification of rotations in the plane of the last two axes, from the last but one towards the last.

    Images must be square in that plane: else their shape, or what fills it up, would tell the class. They are not
    flipped before: an anatomy that is flipped upside down looks much like one that is turned by 180°. The task has no
    settings.
    """

    name = "rotation"
    class_names = ("0", "90", "180", "270")
    flips_rows = False
    needs_square = True

    def transform(self, images, labels):
        turned = images.clone()
        for quarters in range(1, self.n_outputs):
            chosen = (labels == quarters).nonzero()[:, 0]
            turned[chosen] = torch.rot90(images[chosen], quarters, dims=(-2, -1))
        return turned
