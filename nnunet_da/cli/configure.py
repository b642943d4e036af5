from nnunet_da.cli._arguments import add_dataset

HELP = "write settings, or a preset, as a custom configuration"
EXAMPLE = """  nnunet-da configure -d 101 -c 3d_fullres --as 3d_fullres_t1int --set pretext.domains=t1 --set seed=1
  nnunet-da configure -d 101 -c 2d --as 2d_small --preset cpu --set num_epochs=20
  nnunet-da configure -d 101 -c 3d_fullres --as 3d_paper --preset paper -tr nnUNetTrainerIntensityDA
  nnunet-da configure --list"""


def add_arguments(parser):
    add_dataset(parser, required=False)
    parser.add_argument("-c", dest="base", metavar="CONFIGURATION", help="the configuration to inherit from")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="default: %(default)s")
    parser.add_argument("--as", dest="name", metavar="NAME", help="name of the custom configuration")
    parser.add_argument("--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    parser.add_argument("--preset", choices=["cpu", "paper"], help="a set of settings to start from")
    parser.add_argument("-tr", dest="trainer", metavar="TRAINER", help="the trainer whose paper --preset paper follows")
    parser.add_argument(
        "--overwrite", action="store_true", help="change a configuration although it has trained models"
    )
    parser.add_argument("--list", action="store_true", help="print every setting with its default and stop")


def run(arguments):
    import json

    from nnunet_da import settings
    from nnunet_da.errors import UserError
    from nnunet_da.paths import PREPROCESSED, RESULTS, dataset_folder
    from nnunet_da.training import configurations

    if arguments.list:
        print(json.dumps(settings.to_block(configurations.all_settings()()), indent=2))
        return
    for flag, value in (("-d", arguments.dataset), ("-c", arguments.base), ("--as", arguments.name)):
        if value is None:
            raise UserError(f"{flag} is required")
    print(
        configurations.configure(
            dataset_folder(PREPROCESSED, arguments.dataset) / f"{arguments.plans}.json",
            dataset_folder(RESULTS, arguments.dataset),
            arguments.base,
            arguments.name,
            arguments.assignments,
            arguments.preset,
            arguments.overwrite,
            arguments.trainer,
        )
    )
