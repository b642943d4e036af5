"""Whether the intensity pretext task helps, and through what: norm, update rule and weight of L_p, on real spines.

    python benchmarks/intensity_ablation.py ../shared/data WORK --sets dev

decides on the dev cases; the test cases are for what was decided. `study.py` says what it does.
"""

from intensity_table1 import TASK
from study import Model, main

INTENSITY = "nnUNetTrainerIntensityDA"


def models():
    """U-Net and t1t2s-int with either norm; t1t2s-int with either update rule and three weights of L_p."""
    found = []
    for norm in ("instance", "batch"):
        plan = {"plan.norm": norm}
        found.append(Model(f"unet-{norm}", "nnUNetTrainerUNet", plan))
        for update in ("alternating", "joint"):
            for weight in (1, 0.1, 0.01):
                name = f"{norm}-{update}-w{str(weight).replace('.', '')}"
                found.append(Model(name, INTENSITY, plan | {"pretext.update": update, "pretext.weight": weight}))
    return found


if __name__ == "__main__":
    main([TASK], models(), description=__doc__)
