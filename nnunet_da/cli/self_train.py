"""``nnunet-da self-train``: the pipeline of Shin et al. (2021) from raw data to predictions, in one command."""

from nnunet_da.cli._workflow import add_workflow_arguments, run_recipe

HELP = "self-training across modalities, from raw data to predictions and a report: resumable, here or on a cluster"
EXAMPLE = """  nnunet-da self-train run.yaml --init
  nnunet-da self-train run.yaml --dry-run
  nnunet-da self-train run.yaml --jobs 2 --gpus 2
  nnunet-da self-train run.yaml --until segmentation -device cpu
  nnunet-da self-train run.yaml --executor slurm --jobs 20 --profile PROFILE"""


def add_arguments(parser):
    add_workflow_arguments(parser)


def run(arguments):
    run_recipe("nnunet_da.workflow.self_train", arguments)
