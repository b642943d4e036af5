from pathlib import Path

from nnunet_da.cli._arguments import add_processes

HELP = "set everything outside predicted regions, such as that of the spine, to background in label maps"
EXAMPLE = "  nnunet-da restrict -i PREDICTIONS --regions REGIONS -o RESTRICTED"


def add_arguments(parser):
    parser.add_argument("-i", dest="predictions", type=Path, required=True, metavar="DIR", help="label maps")
    parser.add_argument(
        "--regions", type=Path, required=True, metavar="DIR", help="label maps of their names, above 0 inside"
    )
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    add_processes(parser)


def run(arguments):
    from nnunet_da.discs.restriction import restrict_folder

    empty, outside = restrict_folder(
        arguments.predictions, arguments.regions, arguments.output, n_processes=arguments.n_processes
    )
    print(f"{arguments.output}: {100 * outside:.2f} % of what was segmented lay outside")
    for case in empty:
        print(f"warning: {case}: its region is empty, so nothing is left")
