"""Whether the intensity pretext task helps, and through what, on real spines.

    python benchmarks/intensity_ablation.py ../shared/data WORK --sets dev

Optimiser, norm, update rule and weight of L_p, one after the other. It decides on the dev cases; the test cases are for
what was decided. `study.py` says what it does.
"""

from intensity_table1 import INTENSITY, TASK
from study import Model, main

UNET = "nnUNetTrainerUNet"
# The optimiser and learning rate of the paper, with nnU-Net's decay.
ADAM = {"optimizer": "adam", "initial_lr": 0.001}
BATCH = {"plan.norm": "batch"}
MODELS = (
    Model("U-Net", UNET),
    Model("U-Net-batch", UNET, BATCH),
    Model("U-Net-adam", UNET, ADAM),
    Model(
        "int-instance-alternating-1",
        INTENSITY,
        {"plan.norm": "instance", "pretext.update": "alternating", "pretext.weight": 1},
    ),
    Model(
        "int-instance-alternating-01",
        INTENSITY,
        {"plan.norm": "instance", "pretext.update": "alternating", "pretext.weight": 0.1},
    ),
    Model("int-adam", INTENSITY, ADAM),
    Model("int-adam-joint", INTENSITY, ADAM | {"pretext.update": "joint"}),
    Model("int-adam-joint-01", INTENSITY, ADAM | {"pretext.update": "joint", "pretext.weight": 0.1}),
    Model("int-adam-batch", INTENSITY, ADAM | BATCH),
)

if __name__ == "__main__":
    main([TASK], MODELS, description=__doc__)
