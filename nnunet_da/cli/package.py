from pathlib import Path

from nnunet_da.cli._arguments import add_processes
from nnunet_da.submission.challenges import CHALLENGES, GRAND_CHALLENGE

HELP = "write a challenge's submission: a checked zip of label maps, or the build context of a container"
EXAMPLE = """  nnunet-da package crossmoda2022 -i PREDICTIONS --scans crossmoda2022_validation -o submission.zip
  nnunet-da package msd -i PREDICTIONS --scans Task05_Prostate -d 105 -o submission.zip
  nnunet-da package crossmoda2022 --container -m MODEL_2D MODEL_3D:0,1,2 --postprocess -o CONTEXT
  nnunet-da package grand-challenge --container -m MODEL --input-slug t2-mri --output-slug discs -o CONTEXT"""


def add_arguments(parser):
    parser.add_argument("challenge", choices=[*CHALLENGES, GRAND_CHALLENGE], metavar="CHALLENGE", help="%(choices)s")
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="PATH", help="a .zip file; or a folder")
    parser.add_argument("--overwrite", action="store_true", help="replace what stands there")
    parser.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="LABEL=VALUE",
        help="the challenge's value for a label of the model (its name or value), where the names differ",
    )
    zip_file = parser.add_argument_group("a zip of label maps")
    zip_file.add_argument("-i", dest="predictions", type=Path, metavar="DIR", help="label maps, .nii(.gz)")
    zip_file.add_argument("--scans", type=Path, metavar="DIR", help="the scans that were segmented, all and no other")
    zip_file.add_argument(
        "-d",
        dest="dataset",
        metavar="ID",
        help="dataset whose label names tell the values (default: dataset.json in -i)",
    )
    zip_file.add_argument("--dataset-json", type=Path, metavar="FILE", help="dataset.json to use instead of -d")
    zip_file.add_argument("--task", metavar="TaskNN_Name", help="msd: the task, where the path of the scans lacks it")
    add_processes(zip_file)
    container = parser.add_argument_group("a container")
    container.add_argument("--container", action="store_true", help="write the build context of a container")
    container.add_argument(
        "-m",
        dest="models",
        nargs="+",
        metavar="DIR[:FOLD,…]",
        help="model folders, averaged; default folds: all that are trained",
    )
    container.add_argument("-chk", dest="checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    container.add_argument(
        "--domain", metavar="NAME", help="of models with weights of each domain's own: whose to take"
    )
    container.add_argument("--disable_tta", action="store_true", help="no averaging over mirrored copies: faster")
    container.add_argument(
        "--postprocess", action="store_true", help="as nnunet-da postprocess does: largest connected set, closing"
    )
    container.add_argument("--radius", type=int, metavar="VOXELS", help="of its closing; 0: none (default: 2)")
    container.add_argument(
        "--region", metavar="DIR[:FOLD,…]", help="model of the spine region: outside, everything is background"
    )
    container.add_argument(
        "--localizer", metavar="DIR[:FOLD,…]", help="model that numbers discs: what is none of the lowest is background"
    )
    container.add_argument("--n-discs", type=int, metavar="N", help="of --localizer: how many are kept (default: 7)")
    container.add_argument(
        "--input-slug", nargs="+", default=[], metavar="SLUG", help="grand-challenge: of each channel, in their order"
    )
    container.add_argument("--output-slug", metavar="SLUG", help="grand-challenge: of the segmentation")
    container.add_argument(
        "--plugin-wheel",
        type=Path,
        metavar="FILE",
        help="wheel of this package, where a network needs it (default: built from the clone that is installed)",
    )


# What only one of the two forms takes.
_OF_ZIP = ("predictions", "scans", "dataset", "dataset_json", "task", "n_processes")
_OF_CONTAINER = (
    "models",
    "domain",
    "disable_tta",
    "postprocess",
    "radius",
    "region",
    "localizer",
    "n_discs",
    "input_slug",
    "output_slug",
    "plugin_wheel",
)
_FLAGS = {"predictions": "-i", "dataset": "-d", "n_processes": "-np", "models": "-m"}


def run(arguments):
    from nnunet_da.errors import UserError

    form, other = ("--container", _OF_ZIP) if arguments.container else ("a zip", _OF_CONTAINER)
    for name in other:
        if getattr(arguments, name) not in (None, False, []):
            raise UserError(f"{_flag(name)}: is not for {form}{'' if arguments.container else '; give --container'}")
    (_write_context if arguments.container else _write_zip)(arguments)


def _flag(name):
    return _FLAGS.get(name, f"--{name.replace('_', '-')}" if name != "disable_tta" else "--disable_tta")


def _write_zip(arguments):
    from nnunet_da.errors import UserError
    from nnunet_da.evaluation.membership import find_dataset_json
    from nnunet_da.submission.zip_file import write_submission

    if arguments.challenge == GRAND_CHALLENGE:
        raise UserError(f"{GRAND_CHALLENGE}: takes containers; give --container")
    for name in ("predictions", "scans"):
        if getattr(arguments, name) is None:
            raise UserError(
                f"which label maps? Give -i PREDICTIONS and --scans DIR, or --container ({_flag(name)} is missing)"
            )
    dataset_json = arguments.dataset_json
    if dataset_json is None and arguments.dataset is not None:
        dataset_json = find_dataset_json(arguments.dataset)
    n_maps, notes = write_submission(
        CHALLENGES[arguments.challenge],
        arguments.predictions,
        arguments.scans,
        arguments.output,
        dataset_json=dataset_json,
        labels=arguments.labels,
        task=arguments.task,
        overwrite=arguments.overwrite,
        n_processes=arguments.n_processes,
    )
    for note in notes:
        print(f"note: {note}")
    print(f"{arguments.output}: {n_maps} label maps for {arguments.challenge}")


def _write_context(arguments):
    from nnunet_da.errors import UserError
    from nnunet_da.postprocessing import RADIUS
    from nnunet_da.submission.challenges import grand_challenge
    from nnunet_da.submission.context import write_context

    if not arguments.models:
        raise UserError("which models? Give -m MODEL_FOLDER")
    if arguments.radius is not None and not arguments.postprocess:
        raise UserError(f"--radius {arguments.radius}: is of --postprocess; give that too")
    if arguments.n_discs is not None and (arguments.localizer is None or arguments.n_discs < 1):
        raise UserError(f"--n-discs {arguments.n_discs}: must be at least 1, and is of --localizer; give that too")
    if arguments.challenge == GRAND_CHALLENGE:
        challenge = grand_challenge(arguments.input_slug, arguments.output_slug)
    elif arguments.input_slug or arguments.output_slug:
        raise UserError(f"--input-slug, --output-slug: are for {GRAND_CHALLENGE} alone")
    else:
        challenge = CHALLENGES[arguments.challenge]
    radius = RADIUS if arguments.radius is None else arguments.radius
    notes = write_context(
        challenge,
        arguments.models,
        arguments.output,
        checkpoint=arguments.checkpoint,
        domain=arguments.domain,
        mirroring=not arguments.disable_tta,
        closing=radius if arguments.postprocess else None,
        region=arguments.region,
        localizer=arguments.localizer,
        n_discs=7 if arguments.n_discs is None else arguments.n_discs,
        labels=arguments.labels,
        plugin_wheel=arguments.plugin_wheel,
        overwrite=arguments.overwrite,
    )
    for note in notes:
        print(f"note: {note}")
    print(f"{arguments.output}: container for {arguments.challenge}; build.sh builds it, test_run.sh IN OUT tries it")
