from pathlib import Path

from nnunet_da.cli._arguments import add_dataset, add_scans

HELP = "segment any folder of scans with a trained model, under their own names and on their own grids"
EXAMPLE = """  nnunet-da predict -i SCANS -o PREDICTIONS -d 101 -c 3d_fullres -tr nnUNetTrainerIntensityDA -f 0
  nnunet-da predict -i SCANS -o PREDICTIONS -m MODEL_FOLDER -device cpu --disable_tta"""


def add_arguments(parser):
    add_scans(parser)
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="DIR", help="folder for the results")
    add_dataset(parser, required=False)
    parser.add_argument("-c", dest="configuration", metavar="CONFIGURATION", help="such as 3d_fullres")
    parser.add_argument("-tr", dest="trainer", default="nnUNetTrainerIntensityDA", help="default: %(default)s")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="default: %(default)s")
    parser.add_argument(
        "-m", dest="model_folder", type=Path, metavar="DIR", help="model folder, instead of -d, -c, -tr and -p"
    )
    parser.add_argument("-f", dest="folds", nargs="+", metavar="FOLD", help="default: every fold that is trained")
    parser.add_argument("-chk", dest="checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], help="default: cuda where there is one, else cpu")
    parser.add_argument("--disable_tta", action="store_true", help="no averaging over mirrored copies: faster")
    parser.add_argument(
        "--adapt-to-scan",
        nargs="?",
        type=int,
        const=10,
        metavar="STEPS",
        help="adapt a copy of the network to each scan, in so many steps (10), before it is predicted; slower",
    )
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
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="predict again what is there, and write into a folder that holds other files (they stay)",
    )


def run(arguments):
    from nnunet_da.errors import UserError

    for flag, number in (("-npp", arguments.n_preprocessing), ("-nps", arguments.n_saving)):
        if number < 0:
            raise UserError(f"{flag} {number}: must be 0 or more processes")
    if arguments.model_folder is None and not (arguments.dataset and arguments.configuration):
        raise UserError("which model? Give -d and -c, or -m MODEL_FOLDER")

    from nnunet_da.adaptation.statistics import TestTimeSettings
    from nnunet_da.prediction.model import model_folder, open_model
    from nnunet_da.prediction.workflow import predict

    folder = arguments.model_folder or model_folder(
        arguments.dataset, arguments.configuration, arguments.trainer, arguments.plans
    )
    record = predict(
        arguments.scans,
        arguments.output,
        open_model(folder, arguments.folds, arguments.checkpoint),
        device=arguments.device,
        mirroring=not arguments.disable_tta,
        n_preprocessing=arguments.n_preprocessing,
        n_saving=arguments.n_saving,
        overwrite=arguments.overwrite,
        test_time=None if arguments.adapt_to_scan is None else TestTimeSettings(steps=arguments.adapt_to_scan),
    )
    n_warnings = sum(bool(entry["warnings"]) for entry in record["scans"].values())
    print(f"{arguments.output}: {len(record['scans'])} predictions, {n_warnings} with warnings")
