"""What the verbs that run a workflow share: their arguments, and how these are understood."""

import contextlib
import io
import shlex
from pathlib import Path


def add_workflow_arguments(parser):
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="settings of the workflow; see --init")
    parser.add_argument("--init", action="store_true", help="write a commented CONFIG.yaml and stop")
    parser.add_argument("--dry-run", action="store_true", help="print the steps and their commands, and stop")
    which = parser.add_argument_group("which stages (--dry-run names them)")
    chosen = which.add_mutually_exclusive_group()
    chosen.add_argument("--until", metavar="STAGE", help="up to this one")
    chosen.add_argument("--stages", nargs="+", metavar="STAGE", help="these alone; what they rest on must be done")
    which.add_argument(
        "--redo",
        metavar="STAGE",
        help="undo this one and all that rests on it first: its datasets and models are removed",
    )
    where = parser.add_argument_group("where it runs")
    where.add_argument("-device", choices=["cuda", "cpu", "mps"], default="cuda", help="default: %(default)s")
    where.add_argument("--jobs", type=int, default=1, metavar="N", help="steps at once; default: %(default)s")
    where.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="GPUs that they share, one each; default: %(default)s"
    )
    where.add_argument(
        "--executor", default="local", metavar="NAME", help="of Snakemake: local (default), slurm, … with its plugin"
    )
    where.add_argument("--profile", type=Path, metavar="DIR", help="profile of Snakemake: account, partition, …")


def run_recipe(module, arguments):
    """Does what `arguments` ask for with the recipe in `module` (its dotted name)."""
    from nnunet_da.errors import UserError
    from nnunet_da.workflow.run import run_workflow, write_template
    from nnunet_da.workflow.run_file import find_recipe

    recipe = find_recipe(module)
    if arguments.init:
        write_template(recipe, arguments.config)
        print(f"{arguments.config}: edit it, then run nnunet-da {arguments.verb} {arguments.config}")
        return
    for flag, number in (("--jobs", arguments.jobs), ("--gpus", arguments.gpus)):
        if number < 1:
            raise UserError(f"{flag} {number}: must be at least 1")
    run_workflow(
        recipe,
        arguments.config,
        device=arguments.device,
        jobs=arguments.jobs,
        n_gpus=arguments.gpus,
        executor=arguments.executor,
        profile=arguments.profile,
        stages=arguments.stages,
        until=arguments.until,
        redo=arguments.redo,
        dry_run=arguments.dry_run,
        check_command=require_understood,
    )


def require_understood(words):
    """Raises UserError for a command of ours that our own command line does not understand."""
    from nnunet_da import cli
    from nnunet_da.errors import UserError

    if words[0] != "nnunet-da":
        return
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        try:
            cli.build_parser().parse_args(words[1:])
        except SystemExit:
            reason = printed.getvalue().strip().splitlines()[-1].partition("error: ")[2]
            raise UserError(f"{shlex.join(words)}: {reason}") from None
