"""The command line of a study that a script declares; see benchmarks/README.md."""

import argparse
from pathlib import Path

from nnunet_da.errors import UserError
from nnunet_da.study.runner import run_study
from nnunet_da.study.tables import collect


def main(tasks, models, *, description):
    """Runs what the command line asks for, and prints the tables. Exit code 1 with one line where something is wrong.

    ``STUDY.py DATA WORK [--jobs N] [--models …] [--sets …] [--folds …] [--collect]``
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the scans")
    parser.add_argument("work", type=Path, help="folder of the study; run again, it goes on")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once; they share the cores (1)")
    parser.add_argument("--models", nargs="+", metavar="NAME", choices=[m.name for m in models], help="only these")
    parser.add_argument("--sets", nargs="+", metavar="SET", help="predict only these sets of scans")
    parser.add_argument("--folds", nargs="+", type=int, metavar="N", help="run only these folds")
    parser.add_argument("--collect", action="store_true", help="run nothing; write the tables of what is done")
    parser.add_argument("-device", choices=["cpu", "cuda", "mps"], default="cpu")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error("--jobs: must be at least 1")
    chosen = [model for model in models if arguments.models is None or model.name in arguments.models]
    options = {name: getattr(arguments, name) for name in ("device", "jobs", "sets", "folds")}
    try:
        if not arguments.collect:
            run_study(tasks, chosen, arguments.data, arguments.work, **options)
        for text in collect(tasks, models, arguments.work).values():
            print(text)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
