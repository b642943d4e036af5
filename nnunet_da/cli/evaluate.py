"""``nnunet-da evaluate``: how good the predictions of one or more models are, by domain."""

import sys

from nnunet_da.cli._arguments import add_dataset, add_processes

HELP = "metrics per case, structure and domain, and a table of mean ± std per domain and model"
EXAMPLE = """  nnunet-da evaluate -g LABELS --pred unet=FOLDER_A --pred intensity=FOLDER_B -d 101 -o REPORT
  nnunet-da evaluate -g LABELS --pred unet=FOLDER_A -d 101 -o REPORT --html --images SCANS
  nnunet-da evaluate --pred unet=FOLDER_A --pred intensity=FOLDER_B -d 101 -o REPORT --html --images SCANS"""

PENALTY_NOTE = (
    "What a missed or false structure leaves undefined was replaced by the worst value: distances by the diagonal of"
    " the volume, Sen by 0, RAVD by 1."
)


def add_arguments(parser):
    parser.add_argument(
        "-g",
        dest="references",
        metavar="LABELS",
        help="folder of reference label maps; without it, --html shows where to doubt the predictions, and no numbers",
    )
    parser.add_argument(
        "--pred",
        dest="predictions",
        required=True,
        action="append",
        metavar="NAME=FOLDER",
        help="a model's name and its folder of predictions; repeat for each model",
    )
    dataset = parser.add_mutually_exclusive_group(required=True)
    add_dataset(dataset, required=False)
    dataset.add_argument("--dataset-json", metavar="FILE", help="dataset.json to use instead of -d")
    parser.add_argument(
        "--cases", metavar="CSV", help="columns case,domain: the domain of cases; goes before dataset.json's"
    )
    parser.add_argument("--domain", metavar="NAME", help="domain of all cases that neither CSV nor dataset.json names")
    parser.add_argument("-o", dest="output", required=True, metavar="REPORT", help="folder for the tables")
    parser.add_argument(
        "--slices",
        nargs="?",
        const="coarsest",
        choices=("coarsest", "x", "y", "z"),
        metavar="AXIS",
        help="also write slices.csv, 2D metrics of the slices across an axis of the files' grid: x, y, z, or"
        " coarsest (default: that with the largest spacing)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1.0,
        metavar="MM",
        help="tolerance of the normalised surface Dice (default: %(default)s)",
    )
    parser.add_argument(
        "--empty",
        choices=("nan", "penalty"),
        default="nan",
        help="what a missed or false structure leaves undefined: left undefined, or the worst value, which for"
        " distances is the diagonal of the volume (default: %(default)s)",
    )
    page = parser.add_argument_group("the HTML report")
    page.add_argument("--html", action="store_true", help="also write report.html: one file, which opens offline")
    page.add_argument("--images", metavar="SCANS", help="folder of the scans, for pictures: CASE_0000 or CASE")
    page.add_argument("--runs", nargs="+", default=[], metavar="FOLDER", help="trained models, for learning curves")
    page.add_argument(
        "--fold-pred",
        dest="folds",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="predictions of one fold of a model, to see where folds disagree; repeat for each fold",
    )
    page.add_argument(
        "--probabilities",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="a model's CASE.npz of nnU-Net (--save_probabilities), for entropy; default: its folder of predictions",
    )
    page.add_argument("--title", default="Evaluation", help="default: %(default)s")
    page.add_argument("--picture-model", metavar="NAME", help="by whose Dice pictures are chosen; default: the first")
    add_processes(parser)
    parser.add_argument(
        "--allow-missing", action="store_true", help="count an absent prediction as empty instead of stopping"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write into a folder that holds other files (they stay)"
    )


def run(arguments):
    from nnunet_da.errors import UserError
    from nnunet_da.evaluation.cases import COARSEST, Options, evaluate, parse_folds, parse_models
    from nnunet_da.evaluation.finished import FinishedCases
    from nnunet_da.evaluation.membership import find_dataset_json, read_cases, read_membership
    from nnunet_da.evaluation.report import write_html_report
    from nnunet_da.evaluation.tables import (
        compare_models,
        markdown,
        require_output,
        summarise,
        write_page,
        write_report,
    )

    if arguments.n_processes is not None and arguments.n_processes < 1:
        raise UserError(f"-np {arguments.n_processes}: must be at least 1")
    if not 0 <= arguments.tolerance < float("inf"):
        raise UserError(f"--tolerance {arguments.tolerance:g}: must be a number of mm ≥ 0")
    if arguments.references is None and not arguments.html:
        raise UserError("-g is required; only --html does without references")
    require_output(arguments.output, arguments.overwrite)
    models = parse_models(arguments.predictions)
    membership = read_membership(arguments.dataset_json or find_dataset_json(arguments.dataset))
    domains = {
        "domain_of_case": membership.domain_of_case | (read_cases(arguments.cases) if arguments.cases else {}),
        "default_domain": arguments.domain,
        "domain_labels": membership.domain_labels,
    }
    page = {
        "title": arguments.title,
        "labels": membership.labels,
        "predictions": models,
        "images": arguments.images,
        "references": arguments.references,
        "labelled_domains": membership.labelled_domains,
        "folds": parse_folds(arguments.folds),
        "probabilities": parse_models(arguments.probabilities, "--probabilities"),
        "runs": arguments.runs,
        "model": arguments.picture_model,
        "n_processes": arguments.n_processes,
        **domains,
    }
    if arguments.references is None:
        write_page(arguments.output, lambda path: write_html_report(path, None, **page))
        return
    finished = FinishedCases.beside(arguments.output)
    evaluation = evaluate(
        arguments.references,
        models,
        membership.labels,
        allow_missing=arguments.allow_missing,
        n_processes=arguments.n_processes,
        options=Options(arguments.tolerance, arguments.empty, arguments.slices or COARSEST),
        finished=finished,
        **domains,
    )
    rows, slices = evaluation.cases, evaluation.slices if arguments.slices else None
    summary = summarise(rows)

    def write_html(path):
        _, comparisons = compare_models(rows, slices)
        write_html_report(path, rows, comparisons=comparisons or (), **page)

    write_report(
        rows,
        summary,
        arguments.output,
        slices,
        PENALTY_NOTE if arguments.empty == "penalty" else "",
        write_html if arguments.html else None,
    )
    finished.clear()
    if arguments.slices:
        n_shown, n_empty = len(slices), evaluation.n_empty_slices
        print(f"slices.csv: {n_shown} slices; left out are {n_empty} where both masks are empty", file=sys.stderr)
    print(markdown(summary))
