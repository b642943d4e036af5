from nnunet_da.cli._arguments import add_dataset, add_processes

HELP = "make predictions of unlabelled cases their labels: a dataset of true labels and pseudo-labels to train on"
EXAMPLE = """  nnunet-da pseudo-label -d 101 --predictions PREDICTED/2d_0 PREDICTED/3d_0 --as 102 --domain siemens_1p5t
  nnunet-da pseudo-label -d 101 --predictions PREDICTED/2d_0 PREDICTED/3d_0 --as 102 --leave-out 0.1 \\
      --max-uncertainty 0.3 --largest-component disc --volume-range disc=2000:20000 --case-weight confidence"""


def add_arguments(parser):
    add_dataset(parser)
    parser.add_argument(
        "--predictions",
        nargs="+",
        required=True,
        metavar="[NAME=]DIR",
        help="a folder per model and fold, as `nnUNetv2_predict -f FOLD` writes it, best with --save_probabilities",
    )
    parser.add_argument("--as", dest="new_id", type=int, required=True, metavar="ID", help="id of the new dataset")
    parser.add_argument("--name", metavar="NAME", help="its name, DatasetXXX_NAME (default: that of the dataset)")
    parser.add_argument(
        "--domain",
        dest="domains",
        nargs="+",
        default=[],
        metavar="NAME",
        help="domains whose unlabelled cases get pseudo-labels (default: all)",
    )
    parser.add_argument(
        "--leave-out",
        type=float,
        metavar="SHARE",
        help="of the cases, the least certain, that stay unlabelled (default: 7/105)",
    )
    parser.add_argument(
        "--case-uncertainty",
        choices=["disagreement", "voxels"],
        help="1 - Dice between models (default), or the voxels' uncertainty over the foreground (one model: default)",
    )
    parser.add_argument(
        "--max-uncertainty", type=float, metavar="T", help="voxels above it are not trained on (default: none)"
    )
    parser.add_argument(
        "--voxel-uncertainty",
        choices=["probability", "mutual_information"],
        default="probability",
        help="1 - probability of the ensemble's class, or mutual information; default: %(default)s",
    )
    parser.add_argument(
        "--largest-component",
        nargs="+",
        default=[],
        metavar="STRUCTURE",
        help="keep the largest connected set of these alone",
    )
    parser.add_argument(
        "--volume-range",
        nargs="+",
        default=[],
        metavar="STRUCTURE=MIN:MAX",
        help="in mm³; a case outside is left out (default: the range of the true labels, widened by --volume-margin)",
    )
    parser.add_argument(
        "--volume-margin", type=float, default=0.5, metavar="SHARE", help="of the volume; default: %(default)s"
    )
    parser.add_argument("--no-volume-rule", action="store_true", help="only what --volume-range says")
    parser.add_argument(
        "--case-weight",
        choices=["equal", "confidence"],
        default="equal",
        help="how often a case is drawn in training; default: %(default)s",
    )
    parser.add_argument(
        "--cross-validate",
        choices=["all", "true"],
        default="all",
        help="hold out pseudo-labelled cases too, or those with true labels alone; default: %(default)s",
    )
    parser.add_argument(
        "--reverse",
        action="store_true",
        help="leave the true labels out: what learns from pseudo-labels alone is tried on them (`select --reverse`)",
    )
    parser.add_argument("--link", action="store_true", help="hard links instead of copies of scans")
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset --as, if it is there")
    add_processes(parser)


def run(arguments):
    from nnunet_da.raw_dataset import next_steps
    from nnunet_da.self_training.members import name_folders
    from nnunet_da.self_training.pseudo_labels import LEAST_CERTAIN, RECORD, PseudoLabelOptions, write_pseudo_labels

    options = PseudoLabelOptions(
        case_measure=arguments.case_uncertainty,
        voxel_measure=arguments.voxel_uncertainty,
        max_uncertainty=arguments.max_uncertainty,
        largest_component=tuple(arguments.largest_component),
        volume_margin=None if arguments.no_volume_rule else arguments.volume_margin,
        volume_ranges=_volume_ranges(arguments.volume_range),
        weight=arguments.case_weight,
        cross_validated=arguments.cross_validate,
        **({} if arguments.leave_out is None else {"leave_out": arguments.leave_out}),
    )
    made = write_pseudo_labels(
        arguments.dataset,
        name_folders(arguments.predictions),
        arguments.new_id,
        arguments.name,
        domains=arguments.domains,
        options=options,
        reverse=arguments.reverse,
        link=arguments.link,
        overwrite=arguments.overwrite,
        n_processes=arguments.n_processes,
    )
    n_uncertain = sum(reason == LEAST_CERTAIN for reason in made.left_out.values())
    print(
        f"{made.folder.name}: {len(made.labelled)} cases with pseudo-labels; left out: {n_uncertain} as {LEAST_CERTAIN}"
        f", {len(made.left_out) - n_uncertain} for their volumes ({RECORD} says which)"
    )
    print(next_steps(made.folder.name))


def _volume_ranges(texts):
    """Structure → (min, max) of texts such as ``disc=2000:20000``."""
    from nnunet_da.errors import UserError

    ranges = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        try:
            low, high = map(float, numbers.split(":"))
        except ValueError:
            raise UserError(f"--volume-range {text}: must be STRUCTURE=MIN:MAX, in mm³") from None
        ranges[name] = (low, high)
    return ranges
