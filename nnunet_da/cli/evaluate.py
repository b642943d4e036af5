"""``nnunet-da evaluate``: how good the predictions of one or more models are, by domain."""

from nnunet_da.cli._arguments import add_dataset, add_processes

HELP = "metrics per case, structure and domain, and a table of mean ± std per domain and model"
EXAMPLE = "  nnunet-da evaluate -g LABELS --pred unet=FOLDER_A --pred intensity=FOLDER_B -d 101 -o REPORT"


def add_arguments(parser):
    parser.add_argument("-g", dest="references", required=True, metavar="LABELS", help="folder of reference label maps")
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
    parser.add_argument(
        "-o", dest="output", required=True, metavar="REPORT", help="folder for cases.csv, table.csv, table.md"
    )
    add_processes(parser)
    parser.add_argument(
        "--allow-missing", action="store_true", help="count an absent prediction as empty instead of stopping"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write into a folder that holds other files (they stay)"
    )


def run(arguments):
    from nnunet_da.errors import UserError
    from nnunet_da.evaluation.cases import evaluate_folders, parse_models
    from nnunet_da.evaluation.membership import find_dataset_json, read_cases, read_membership
    from nnunet_da.evaluation.tables import markdown, require_output, summarise, write_report

    if arguments.n_processes is not None and arguments.n_processes < 1:
        raise UserError(f"-np {arguments.n_processes}: must be at least 1")
    require_output(arguments.output, arguments.overwrite)
    models = parse_models(arguments.predictions)
    membership = read_membership(arguments.dataset_json or find_dataset_json(arguments.dataset))
    rows = evaluate_folders(
        arguments.references,
        models,
        membership.labels,
        domain_of_case=membership.domain_of_case | (read_cases(arguments.cases) if arguments.cases else {}),
        default_domain=arguments.domain,
        domain_labels=membership.domain_labels,
        allow_missing=arguments.allow_missing,
        n_processes=arguments.n_processes,
    )
    summary = summarise(rows)
    write_report(rows, summary, arguments.output)
    print(markdown(summary))
