from pathlib import Path

from nnunet_da.cli._arguments import add_model

HELP = "show how networks see the domains: bottleneck features in a plane, and a silhouette score by domain"
EXAMPLE = """  nnunet-da embed -d 101 -c 3d_fullres -tr nnUNetTrainerIntensityDA -f 0 -o EMBEDDING
  nnunet-da embed -d 101 -c 3d_fullres -f 0 -chk checkpoint_best.pth checkpoint_final.pth -i SCANS --cases cases.csv \\
      -o EMBEDDING
  nnunet-da embed -d 112 -c 2d_paper -tr nnUNetTrainerDSL --also nnUNetTrainerDSLContrastive \\
      -chk checkpoint_epoch_10.pth checkpoint_epoch_20.pth checkpoint_epoch_30.pth -o EMBEDDING"""


def add_arguments(parser):
    add_model(parser)
    parser.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="MODEL",
        help="further models, a row of panels each: TRAINER, TRAINER__PLANS or TRAINER__PLANS__CONFIGURATION; what is "
        "left out is that of the first",
    )
    parser.add_argument("-f", dest="fold", default="0", metavar="FOLD", help="default: %(default)s")
    parser.add_argument(
        "-chk",
        dest="checkpoints",
        nargs="+",
        default=["checkpoint_final.pth"],
        metavar="FILE",
        help="a column of panels each; default: checkpoint_final.pth",
    )
    parser.add_argument(
        "-i", dest="scans", type=Path, metavar="DIR", help="new scans to show beside the dataset's, in any format"
    )
    parser.add_argument(
        "--cases",
        type=Path,
        metavar="CSV",
        help="columns case,domain: the domains of the new scans (default: new); needed where layers are of domains",
    )
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="DIR", help="folder for table and plot")
    parser.add_argument(
        "--patches", dest="n_patches", type=int, default=8, metavar="N", help="patches per case; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], help="default: cuda where there is one, else cpu")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that holds other files")


def run(arguments):
    from nnunet_da.errors import UserError
    from nnunet_da.evaluation.embedding import require_output

    if arguments.n_patches < 1:
        raise UserError(f"--patches {arguments.n_patches}: must be 1 or more")
    if arguments.cases and not arguments.scans:
        raise UserError("--cases: names the domains of new scans; give these with -i")
    require_output(arguments.output, arguments.overwrite)

    from nnunet_da.paths import PREPROCESSED, dataset_folder
    from nnunet_da.prediction.embedding_view import embed_domains, models_to_compare
    from nnunet_da.prediction.model import model_folder, open_model

    first = (arguments.trainer, arguments.plans, arguments.configuration)
    folders = [
        model_folder(arguments.dataset, configuration, trainer, plans)
        for trainer, plans, configuration in models_to_compare(first, arguments.also)
    ]
    checkpoints = dict.fromkeys(arguments.checkpoints)
    silhouettes = embed_domains(
        [open_model(folder, [arguments.fold], checkpoint) for folder in folders for checkpoint in checkpoints],
        dataset_folder(PREPROCESSED, arguments.dataset),
        arguments.output,
        scans_folder=arguments.scans,
        cases_file=arguments.cases,
        n_patches=arguments.n_patches,
        seed=arguments.seed,
        device=arguments.device,
    )
    print(silhouettes.to_string(index=False, float_format="{:.3f}".format))
