"""Whether the intensity pretext task helps, and through what, on real spines.

    python benchmarks/intensity_ablation.py ../shared/data WORK --sets dev

Optimiser, norm, update rule and weight of L_p, one after the other. It decides on the dev cases; the test cases are for
what was decided. `nnunet_da.study` says what it does.
"""

from intensity_table1 import ADAM, CHOSEN, INTENSITY, TASK, UNET

from nnunet_da.study.command import main
from nnunet_da.study.declarations import Model

# nnU-Net's own optimiser for both losses.
SGD = {"pretext.optimizer": "shared"}
BATCH = {"plan.norm": "batch"}
MODELS = (
    Model("U-Net", UNET, baseline=True),
    Model("U-Net-batch", UNET, BATCH),
    Model("U-Net-adam", UNET, ADAM),
    Model("int-sgd", INTENSITY, SGD),
    Model("int-sgd-01", INTENSITY, SGD | {"pretext.weight": 0.1}),
    Model("int-default", INTENSITY),
    Model("int-batch", INTENSITY, BATCH),
    Model("int-adam", INTENSITY, ADAM),
    Model("int-adam-joint", INTENSITY, ADAM | {"pretext.update": "joint"}),
    Model("t1t2s-int", INTENSITY, CHOSEN),
)

if __name__ == "__main__":
    main([TASK], MODELS, description=__doc__)
