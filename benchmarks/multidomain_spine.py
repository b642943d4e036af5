"""The schemes of the multi-domain paper on real spines: vb1, vb2 and vb3 as three labelled domains.

    python benchmarks/multidomain_spine.py ../shared/data WORK

`study.py` says what it does. The test cases alone are evaluated: nothing was chosen on others.
"""

from functools import partial

from spine_vb import SOURCE, TARGETS, write_experiment
from study import Model, Task, main

DOMAINS = (SOURCE, *TARGETS)
TASK = Task(
    name="SpineDomains",
    write=partial(write_experiment, labelled=DOMAINS),
    dataset_id=102,
    labels=("vertebra=1",),
    channels=("MR",),
    sets=("test",),
    settings={
        "num_epochs": 8,
        "num_iterations_per_epoch": 80,
        "num_val_iterations_per_epoch": 10,
        "plan.patch_size": "128,128",
        # The paper's optimiser; its learning rate is for 30 epochs of whole slices, this for 640 steps.
        "optimizer": "adam",
        "initial_lr": 0.001,
    },
)
SEEDS = (1, 2, 3)


def base(trainer, row):
    """One model per domain, which make one row."""
    return [
        Model(f"{row}-{domain}", trainer, {"multidomain.domain": domain}, domain=domain, row=row) for domain in DOMAINS
    ]


MODELS = (
    *base("nnUNetTrainerBase", "Base"),
    Model("Joint", "nnUNetTrainerJoint"),
    Model("DSL", "nnUNetTrainerDSL", seeds=SEEDS, per_domain=True, baseline=True),
    Model("DSL-contrastive", "nnUNetTrainerDSLContrastive", seeds=SEEDS, per_domain=True),
)

if __name__ == "__main__":
    main([TASK], MODELS, description=__doc__)
