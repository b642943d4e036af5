"""The command line ``nnunet-da VERB …``: one file per verb, each with

- ``HELP``: one line for the list of verbs,
- ``EXAMPLE``: what a user types,
- ``add_arguments(parser)``,
- ``run(arguments)``: does the work; its return value, if any, is the exit code.

A verb is the file's name with dashes. Files import what they need inside `run`, so that ``-h`` answers at once.
"""

import argparse
import importlib
import os
import pkgutil
import signal
import sys

from nnunet_da import __version__
from nnunet_da.errors import UserError


def build_parser():
    """The argument parser with every verb of this folder."""
    parser = argparse.ArgumentParser(
        prog="nnunet-da", description="Domain adaptation for nnU-Net v2. nnunet-da VERB -h explains a verb."
    )
    parser.add_argument("--version", action="version", version=f"nnunet-da {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    for module_info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        if module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        verb = verbs.add_parser(
            module_info.name.replace("_", "-"),
            help=module.HELP,
            description=module.HELP,
            epilog=f"example:\n{module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(verb)
        verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
        verb.set_defaults(run=module.run)
    return parser


def main(argv=None):
    """Runs one verb. Returns the exit code: 0 only when the work is done."""
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except UserError as error:
        if arguments.debug:
            raise
        print(f"nnunet-da {arguments.verb}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"nnunet-da {arguments.verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def entry():
    """The console script: `main`, with SIGTERM (a scheduler's, say) taken as an interrupt, so that blocks clean up.

    What the terminal's encoding cannot show is shown as "?", instead of ending the work.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    return main()
