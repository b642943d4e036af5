"""Table 1 of the intensity pretext paper on real spines: U-Net and the pretext tasks × S (vb2), T1 (vb1), T2 (vb3).

    python benchmarks/intensity_table1.py ../shared/data WORK

`nnunet_da.study` says what it does.
"""

from spine_vb import write_experiment

from nnunet_da.study.command import main
from nnunet_da.study.declarations import Model, Task

TASK = Task(
    name="SpineVB",
    write=write_experiment,
    dataset_id=101,
    labels=("vertebra=1",),
    channels=("MR",),
    settings={
        "num_epochs": 8,
        "num_iterations_per_epoch": 80,
        "num_val_iterations_per_epoch": 10,
        "plan.patch_size": "128,128",
    },
)
UNET, INTENSITY = "nnUNetTrainerUNet", "nnUNetTrainerIntensityDA"
SEEDS = (1, 2, 3)
# The optimiser and learning rate of the paper, with nnU-Net's decay, for both losses.
ADAM = {"optimizer": "adam", "initial_lr": 0.001, "pretext.optimizer": "shared"}
# What the dev cases decided (intensity_ablation.py).
CHOSEN = ADAM | {"pretext.update": "joint", "pretext.weight": 0.1}
MODELS = (
    Model("U-Net", UNET, seeds=SEEDS, baseline=True),
    Model("U-Net-adam", UNET, ADAM, seeds=SEEDS, baseline=True),
    Model("t1-int", INTENSITY, CHOSEN | {"pretext.domains": "vb1"}),
    Model("t2-int", INTENSITY, CHOSEN | {"pretext.domains": "vb3"}),
    Model("t1t2-int", INTENSITY, CHOSEN | {"pretext.domains": "vb1,vb3"}),
    Model("t1t2s-int", INTENSITY, CHOSEN, seeds=SEEDS),
    Model("t1t2s-rot", "nnUNetTrainerRotationDA", CHOSEN),
    Model("t1t2s-rot-int", "nnUNetTrainerIntensityRotationDA", CHOSEN),
)

if __name__ == "__main__":
    main([TASK], MODELS, description=__doc__)
