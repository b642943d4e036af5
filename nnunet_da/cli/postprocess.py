from pathlib import Path

from nnunet_da.cli._arguments import add_processes

HELP = "keep the largest connected set of each structure in predictions, and close its gaps"
EXAMPLE = "  nnunet-da postprocess -i PREDICTIONS -o POSTPROCESSED"


def add_arguments(parser):
    parser.add_argument("-i", dest="predictions", type=Path, required=True, metavar="DIR", help="label maps, .nii(.gz)")
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument(
        "--radius", type=int, default=2, metavar="VOXELS", help="of the ball that closes; 0: no closing (default: 2)"
    )
    add_processes(parser)


def run(arguments):
    from nnunet_da.prediction.postprocessing import postprocess_folder

    n_files, n_voxels = postprocess_folder(
        arguments.predictions, arguments.output, radius=arguments.radius, n_processes=arguments.n_processes
    )
    print(f"{arguments.output}: {n_files} label maps, {n_voxels} voxels changed")
