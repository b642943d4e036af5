"""The schemes of the multi-domain paper on real spines: vb1, vb2 and vb3 as three labelled domains.

    python benchmarks/multidomain_spine.py ../shared/data WORK

`nnunet_da.study` says what it does. The test cases alone are evaluated: nothing was chosen on others.
"""

from functools import partial

from spine_vb import DOMAINS, write_experiment

from nnunet_da.study.command import main
from nnunet_da.study.declarations import Model, Task

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
    slices=True,
)
SEEDS = (1, 2, 3)
# For `nnunet-da embed`, which shows these epochs side by side.
SHOWN = {"keep_epochs": "2,4,8"}


def base(trainer, row, domains):
    """One model per domain, which make one row."""
    return [
        Model(f"{row}-{domain}", trainer, {"multidomain.domain": domain}, domain=domain, row=row) for domain in domains
    ]


def schemes(seeds=(1,)):
    """Joint, DSL and the paper's proposal, these two with `seeds`."""
    return (
        Model("Joint", "nnUNetTrainerJoint"),
        Model("DSL", "nnUNetTrainerDSL", SHOWN, seeds=seeds, per_domain=True, baseline=True),
        Model("DSL-contrastive", "nnUNetTrainerDSLContrastive", SHOWN, seeds=seeds, per_domain=True, baseline=True),
    )


MODELS = (
    *base("nnUNetTrainerBase", "Base", DOMAINS),
    *schemes(SEEDS),
    *base("nnUNetTrainerAttentionBase", "Attention-Base", DOMAINS),
    Model("Attention-Joint", "nnUNetTrainerAttentionJoint"),
    Model("Attention-DSL", "nnUNetTrainerAttentionDSL", per_domain=True),
)

if __name__ == "__main__":
    main([TASK], MODELS, description=__doc__)
