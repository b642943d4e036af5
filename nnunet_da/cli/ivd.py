"""``nnunet-da ivd``: the disc pipeline of Gao (2018) from raw data to numbered discs and tables, in one command."""

from nnunet_da.cli._workflow import add_workflow_arguments, run_recipe

HELP = "the disc pipeline, from raw data to cross-validated tables and numbered discs: resumable, here or on a cluster"
EXAMPLE = """  nnunet-da ivd run.yaml --init
  nnunet-da ivd run.yaml --dry-run
  nnunet-da ivd run.yaml --until region -device cpu"""


def add_arguments(parser):
    add_workflow_arguments(parser)


def run(arguments):
    run_recipe("nnunet_da.workflow.ivd", arguments)
