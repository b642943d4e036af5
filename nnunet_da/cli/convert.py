import argparse
from pathlib import Path

from nnunet_da.cli._arguments import add_processes

HELP = "make an nnU-Net dataset of several domains from a public dataset's folder, or from a table of scans"
EXAMPLE = """  nnunet-da convert manifest cases.csv -d 101 --name Spine --labels disc=1 vertebra=2
  nnunet-da convert --list"""


def add_arguments(parser):
    from nnunet_da.dataset_conversion import converters

    parser.add_argument("--list", action="store_true", help="list the datasets that can be converted and stop")
    datasets = parser.add_subparsers(title="datasets", metavar="DATASET", dest="converter")
    for name, module in converters().items():
        dataset = datasets.add_parser(name, help=module.ABOUT.anatomy, description=module.__doc__.strip())
        dataset.formatter_class = argparse.RawDescriptionHelpFormatter
        dataset.add_argument("raw", type=Path, metavar="RAW", help="the dataset as downloaded (manifest: the table)")
        dataset.add_argument(
            "-d", dest="dataset_id", type=int, required=True, metavar="ID", help="dataset id, 1 to 999"
        )
        dataset.add_argument("--name", help="name behind DatasetXXX_ (default: that of the converter or table)")
        existing = dataset.add_mutually_exclusive_group()
        existing.add_argument("--into", action="store_true", help="add the cases to the dataset that has this id")
        existing.add_argument("--overwrite", action="store_true", help="replace the dataset of this id and name")
        dataset.add_argument(
            "--link", action="store_true", help="hard links instead of copies where files stay as they are"
        )
        dataset.add_argument("--unlabelled", action="store_true", help="take all cases as unlabelled")
        dataset.add_argument(
            "--cases",
            type=Path,
            metavar="TXT",
            help="only the training cases whose ids stand in this file, one per line",
        )
        add_processes(dataset)
        module.add_arguments(dataset)
        dataset.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )


def run(arguments):
    from nnunet_da.dataset_conversion import converters
    from nnunet_da.errors import UserError
    from nnunet_da.paths import find_dataset
    from nnunet_da.raw_dataset import next_steps, read_case_list, write_dataset

    if arguments.list:
        for name, module in converters().items():
            print(name)
            for field, text in vars(module.ABOUT).items():
                print(f"    {field + ':':10} {text}")
        return
    if arguments.converter is None:
        raise UserError(f"which DATASET? One of {', '.join(converters())}; see nnunet-da convert --list")
    # The cheap questions first: a conversion may read files for minutes.
    name = find_dataset(arguments.dataset_id)[len("Dataset000_") :] if arguments.into else arguments.name
    conversion = converters()[arguments.converter].cases(arguments.raw, arguments)
    if arguments.cases:
        conversion = conversion.only(read_case_list(arguments.cases))
    if arguments.unlabelled:
        conversion = conversion.without_labels()
    folder = write_dataset(
        conversion,
        arguments.dataset_id,
        name or conversion.name or arguments.converter,
        into=arguments.into,
        overwrite=arguments.overwrite,
        link=arguments.link,
        n_processes=arguments.n_processes,
    )
    n_unlabelled = sum(case.label is None for case in conversion.cases)
    n_tests = f", {len(conversion.test_cases)} for test" if conversion.test_cases else ""
    print(f"{folder}: {len(conversion.cases) - n_unlabelled} labelled and {n_unlabelled} unlabelled cases{n_tests}")
    print(next_steps(folder.name))
