"""Whether the intensity pretext task helps, and through what: norm, update rule and weight of L_p, on real spines.

    python benchmarks/intensity_ablation.py ../shared/data WORK --sets dev

decides on the dev cases; the test cases are for what was decided. `study.py` says what it does.
"""

from intensity_table1 import INTENSITY, TASK
from study import Model, main

# Norm, update rule, weight of L_p; U-Net is trained with either norm.
VARIANTS = (
    ("instance", "alternating", 1),
    ("instance", "alternating", 0.1),
    ("instance", "alternating", 0.01),
    ("instance", "joint", 0.1),
    ("batch", "alternating", 1),
    ("batch", "alternating", 0.1),
)
MODELS = (
    Model("U-Net", "nnUNetTrainerUNet"),
    Model("U-Net-batch", "nnUNetTrainerUNet", {"plan.norm": "batch"}),
    *(
        Model(
            f"int-{norm}-{update}-{weight}".replace(".", ""),
            INTENSITY,
            {"plan.norm": norm, "pretext.update": update, "pretext.weight": weight},
        )
        for norm, update, weight in VARIANTS
    ),
)

if __name__ == "__main__":
    main([TASK], MODELS, description=__doc__)
