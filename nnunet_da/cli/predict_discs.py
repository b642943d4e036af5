from pathlib import Path

from nnunet_da.cli._arguments import add_processes, add_scans

HELP = "segment and number the discs in any folder of scans, with the models of the disc pipeline"
EXAMPLE = """  nnunet-da predict-discs -i SCANS -o OUT --discs MODEL --region MODEL --localizer MODEL
  nnunet-da predict-discs -i SCANS -o OUT --discs MODEL:0,1 -device cpu --disable_tta"""


def add_arguments(parser):
    add_scans(parser)
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="DIR", help="folder for the results")
    model = {"metavar": "DIR[:FOLD,…]", "default": None}
    parser.add_argument(
        "--discs", required=True, help="model folder that segments discs; default folds: all that are trained", **model
    )
    parser.add_argument("--region", help="model folder of the spine region: outside, everything is background", **model)
    parser.add_argument("--localizer", help="model folder that tells discs apart", **model)
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="label map of another case, discs numbered from the lowest (default: a simulated spine)",
    )
    parser.add_argument(
        "--n-discs",
        type=int,
        default=7,
        metavar="N",
        help="how many of the lowest discs to keep (default: %(default)s)",
    )
    parser.add_argument(
        "--expect",
        type=int,
        metavar="N",
        help="how many discs a complete segmentation shows from L5/S1 upwards: where one is missing, it may be the "
        "lowest (default: unknown)",
    )
    parser.add_argument("-chk", dest="checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], help="default: cuda where there is one, else cpu")
    parser.add_argument("--disable_tta", action="store_true", help="no averaging over mirrored copies: faster")
    parser.add_argument(
        "-npp", dest="n_preprocessing", type=int, default=3, metavar="N", help="processes that read; default: 3"
    )
    parser.add_argument(
        "-nps",
        dest="n_saving",
        type=int,
        default=3,
        metavar="N",
        help="processes that write; default: 3; 0 here or for -npp: all in one process",
    )
    add_processes(parser)


def run(arguments):
    from nnunet_da.errors import UserError

    for flag, number in (("-npp", arguments.n_preprocessing), ("-nps", arguments.n_saving)):
        if number < 0:
            raise UserError(f"{flag} {number}: must be 0 or more processes")

    from nnunet_da.prediction.disc_pipeline import NUMBERED, predict_discs
    from nnunet_da.prediction.model import open_model
    from nnunet_da.submission.context import parse_model

    def opened(word):
        return None if word is None else open_model(*parse_model(word), arguments.checkpoint)

    cases = predict_discs(
        arguments.scans,
        arguments.output,
        opened(arguments.discs),
        region=opened(arguments.region),
        localizer=opened(arguments.localizer),
        n_discs=arguments.n_discs,
        expected=arguments.expect,
        reference=arguments.reference,
        n_processes=arguments.n_processes,
        device=arguments.device,
        mirroring=not arguments.disable_tta,
        n_preprocessing=arguments.n_preprocessing,
        n_saving=arguments.n_saving,
    )
    flagged = [case["case"] for case in cases if case["flagged"]]
    n_discs = sum(case["n_discs"] for case in cases)
    print(f"{arguments.output / NUMBERED}: {n_discs} discs in {len(cases)} cases; {len(flagged)} to be looked at")
    for name in flagged:
        print(f"  {name}")
