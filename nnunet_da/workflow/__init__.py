"""Whole pipelines of nnU-Net's commands and our own: resumable, side by side, on one machine or on a cluster.

A **recipe** declares a config (a dataclass, read from YAML) and makes a `Plan` of steps from it. All else is shared:
`run` checks and starts it, Snakemake (`workflow.smk`) schedules it, `step` does one step, `state` remembers what was
done with which settings, `progress` shows it. `self_train` is the recipe of the cross-modality paper.

Snakemake is asked for by name only, in a process of its own; it is the extra ``nnunet-da[workflow]``.
"""
