from pathlib import Path

from nnunet_da.cli._arguments import add_processes

HELP = "number the discs in masks from the lowest upwards; tables of centroids and confidence, and pictures"
EXAMPLE = """  nnunet-da localize-discs -i MASKS -o DISCS --scans SCANS
  nnunet-da localize-discs -i MASKS -o DISCS --localizer NUMBERED --reference LABELS/case_01.nii.gz"""


def add_arguments(parser):
    parser.add_argument(
        "-i",
        dest="masks",
        type=Path,
        required=True,
        metavar="DIR",
        help="label maps of discs (.nii.gz, .nii, .mha, .mhd, .nrrd); every value above 0 is disc",
    )
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument(
        "--localizer",
        type=Path,
        metavar="DIR",
        help="the localisation network's label maps, 1 for the lowest disc: the masks are intersected with them",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="label map of another case, discs numbered from the lowest (default: a simulated spine)",
    )
    parser.add_argument(
        "--n-discs", default="7", metavar="N", help="how many of the lowest discs to keep, or auto: all (default: 7)"
    )
    parser.add_argument(
        "--expect",
        type=int,
        metavar="N",
        help="how many discs a complete mask shows from L5/S1 upwards: where one is missing, it may be the lowest "
        "(default: unknown)",
    )
    parser.add_argument("--scans", type=Path, metavar="DIR", help="the scans, for the pictures: CASE_0000 or CASE")
    add_processes(parser)


def run(arguments):
    from nnunet_da.errors import UserError

    if arguments.n_discs != "auto" and not arguments.n_discs.isdecimal():
        raise UserError(f"--n-discs {arguments.n_discs}: must be a number from 1 to 255, or auto")

    from nnunet_da.discs.folder import localise_folder

    cases = localise_folder(
        arguments.masks,
        arguments.output,
        localiser=arguments.localizer,
        reference=arguments.reference,
        n_discs=None if arguments.n_discs == "auto" else int(arguments.n_discs),
        expected=arguments.expect,
        scans=arguments.scans,
        n_processes=arguments.n_processes,
    )
    flagged = [case["case"] for case in cases if case["flagged"]]
    n_discs = sum(case["n_discs"] for case in cases)
    print(f"{arguments.output}: {n_discs} discs in {len(cases)} cases; {len(flagged)} to be looked at")
    for name in flagged:
        print(f"  {name}")
