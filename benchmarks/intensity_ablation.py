"""Whether the intensity pretext task helps, and through what, on real spines.

    python benchmarks/intensity_ablation.py ../shared/data WORK --sets dev

Optimiser, norm, update rule and weight of L_p, one after the other. It decides on the dev cases; the test cases are for
what was decided. `study.py` says what it does.
"""

from intensity_table1 import INTENSITY, TASK
from study import Model, main

UNET = "nnUNetTrainerUNet"
# The optimiser and learning rate of the paper, with nnU-Net's decay, for both losses.
ADAM = {"optimizer": "adam", "initial_lr": 0.001, "pretext.optimizer": "shared"}
# nnU-Net's own for both losses.
SGD = {"pretext.optimizer": "shared"}
JOINT = {"pretext.update": "joint"}
BATCH = {"plan.norm": "batch"}
MODELS = (
    Model("U-Net", UNET),
    Model("U-Net-batch", UNET, BATCH),
    Model("U-Net-adam", UNET, ADAM),
    Model("t1t2s-int", INTENSITY),
    Model("int-batch", INTENSITY, BATCH),
    Model("int-sgd", INTENSITY, SGD),
    Model("int-sgd-01", INTENSITY, SGD | {"pretext.weight": 0.1}),
    Model("int-adam", INTENSITY, ADAM),
    Model("int-adam-joint", INTENSITY, ADAM | JOINT),
    Model("int-adam-joint-01", INTENSITY, ADAM | JOINT | {"pretext.weight": 0.1}),
)

if __name__ == "__main__":
    main([TASK], MODELS, description=__doc__)
