from pathlib import Path

from nnunet_da.cli._arguments import add_dataset, add_processes, add_scans

HELP = "add scans to a dataset as a domain, unlabelled or (with -l) labelled"
EXAMPLE = """  nnunet-da add-domain -d 101 --domain siemens_1p5t -i SCANS
  nnunet-da add-domain -d 101 --domain siemens_1p5t -i SCANS -l LABELS --subjects subjects.csv"""


def add_arguments(parser):
    add_dataset(parser)
    parser.add_argument("--domain", required=True, metavar="NAME", help="the domain, new or one that the dataset has")
    add_scans(parser)
    parser.add_argument(
        "-l", dest="labels", type=Path, metavar="DIR", help="label maps: CASE.nii.gz, for all or some scans"
    )
    parser.add_argument(
        "--structures", nargs="+", metavar="NAME", help="the labels annotated in this domain (default: all)"
    )
    parser.add_argument("--prefix", default="", help="put before the scans' names to make case ids")
    parser.add_argument(
        "--subjects", type=Path, metavar="CSV", help="columns case,subject (default: a subject per scan)"
    )
    parser.add_argument(
        "--source-domain",
        default="source",
        metavar="NAME",
        help="domain of a plain dataset's own cases (default: source)",
    )
    parser.add_argument("--link", action="store_true", help="hard links instead of copies where files stay as they are")
    add_processes(parser)


def run(arguments):
    from nnunet_da.paths import find_dataset
    from nnunet_da.raw_dataset import add_domain, next_steps
    from nnunet_da.scan_folder import cases_in_folder

    name = find_dataset(arguments.dataset)
    cases = cases_in_folder(
        arguments.scans,
        arguments.domain,
        labels_folder=arguments.labels,
        prefix=arguments.prefix,
        subjects_file=arguments.subjects,
    )
    added = add_domain(
        name,
        cases,
        domain_labels={arguments.domain: arguments.structures} if arguments.structures else None,
        source_domain=arguments.source_domain,
        link=arguments.link,
        n_processes=arguments.n_processes,
    )
    if not added:
        print(f"{name}: all {len(cases)} scans are in domain '{arguments.domain}' already; nothing has changed")
        return
    print(f"{name}: {len(added)} of {len(cases)} scans added to domain '{arguments.domain}'")
    print(next_steps(name))
