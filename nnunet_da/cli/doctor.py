from nnunet_da.cli._arguments import add_dataset

HELP = "check versions, folders, discovery of trainers, GPU and a dataset, and say what to do"
EXAMPLE = """  nnunet-da doctor
  nnunet-da doctor -d 101"""


def add_arguments(parser):
    add_dataset(parser, required=False)
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="default: %(default)s")


def run(arguments):
    from collections import Counter

    from nnunet_da.doctor import examine

    counts = Counter()
    for finding in examine(arguments.dataset, arguments.plans):
        print(finding, flush=True)
        counts[finding.level] += 1
    print(f"{counts['problem']} problem(s), {counts['warning']} warning(s)")
    return 1 if counts["problem"] else 0
