from nnunet_da.cli._arguments import add_model

HELP = "write a trained model as a stock nnU-Net model folder or zip, which runs without this package"
EXAMPLE = """  nnunet-da export -d 101 -c 3d_fullres -tr nnUNetTrainerIntensityDA -o EXPORTED
  nnunet-da export -d 101 -c 3d_fullres -o model.zip      # for nnUNetv2_install_pretrained_model_from_zip
  nnunet-da export -d 112 -c 2d -tr nnUNetTrainerAttentionDSL -o EXPORTED --allow-plugin"""


def add_arguments(parser):
    add_model(parser)
    parser.add_argument("-f", dest="folds", nargs="+", metavar="FOLD", help="default: every fold that is trained")
    parser.add_argument("-chk", dest="checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    parser.add_argument("-o", dest="output", required=True, help="folder, laid out as nnUNet_results; or a .zip file")
    parser.add_argument(
        "--allow-plugin",
        action="store_true",
        help="write a network that is none of nnU-Net's own too, such as one with attention gates; nnUNetv2_predict "
        "runs it where this package is installed",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an export that stands there")


def run(arguments):
    from nnunet_da.paths import RESULTS, dataset_folder
    from nnunet_da.training.export import export

    model = f"{arguments.trainer}__{arguments.plans}__{arguments.configuration}"
    folder = dataset_folder(RESULTS, arguments.dataset) / model
    written = export(
        folder,
        arguments.output,
        arguments.folds,
        arguments.checkpoint,
        arguments.overwrite,
        allow_plugin=arguments.allow_plugin,
    )
    for path in written:
        print(path)
