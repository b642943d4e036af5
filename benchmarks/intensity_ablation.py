"""Whether the intensity pretext task helps, and through what: norm, update rule and weight of L_p, on real spines.

    python benchmarks/intensity_ablation.py ../shared/data WORK --sets dev

decides on the dev cases; the test cases are for what was decided. `study.py` says what it does.
"""

from intensity_table1 import INTENSITY, TASK
from study import Model, main

VARIANTS = {
    "instance": [("alternating", 1), ("alternating", 0.1), ("alternating", 0.01), ("joint", 1), ("joint", 0.1)],
    "batch": [("alternating", 1), ("alternating", 0.1), ("joint", 0.1)],
}


def models():
    """U-Net with either norm, and t1t2s-int with norm, update rule and weight of L_p."""
    found = []
    for norm, variants in VARIANTS.items():
        plan = {"plan.norm": norm}
        found.append(Model(f"U-Net-{norm}", "nnUNetTrainerUNet", plan))
        for update, weight in variants:
            name = f"int-{norm}-{update}-{str(weight).replace('.', '')}"
            found.append(Model(name, INTENSITY, plan | {"pretext.update": update, "pretext.weight": weight}))
    return found


if __name__ == "__main__":
    main([TASK], models(), description=__doc__)
