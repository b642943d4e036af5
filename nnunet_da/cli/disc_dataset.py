from pathlib import Path

from nnunet_da.cli._arguments import add_dataset, add_processes

HELP = "make a dataset for a network of the disc pipeline of one with discs: spine region, numbered, within a region"
EXAMPLE = """  nnunet-da disc-dataset -d 130 --as 131 --name SpineRegion --labels spine-region
  nnunet-da disc-dataset -d 130 --as 132 --name DiscsInRegion --labels discs-in-region --regions MODEL/fold_*/validation
  nnunet-da disc-dataset -d 130 --as 133 --name NumberedDiscs --labels discs-numbered"""
KINDS = ("spine-region", "discs-numbered", "discs-in-region")


def add_arguments(parser):
    add_dataset(parser)
    parser.add_argument("--as", dest="new_id", type=int, required=True, metavar="ID", help="id of the new dataset")
    parser.add_argument("--name", required=True, metavar="NAME", help="its name, DatasetXXX_NAME")
    parser.add_argument("--labels", dest="kind", choices=KINDS, required=True, help="what its labels are")
    parser.add_argument(
        "--margin",
        type=float,
        default=15.0,
        metavar="MM",
        help="spine-region: how far it reaches beyond the discs, before the convex hull (default: %(default)g)",
    )
    parser.add_argument(
        "--n-discs",
        type=int,
        default=7,
        metavar="N",
        help="discs-numbered: the lowest so many; the others are background (default: %(default)s)",
    )
    parser.add_argument(
        "--regions",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="discs-in-region: out-of-fold predictions of the region, CASE.nii.gz; outside, labels are ignored",
    )
    parser.add_argument("--link", action="store_true", help="hard links in place of copies of the scans")
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset of this id and name")
    add_processes(parser)


def run(arguments):
    from nnunet_da.discs.derived_dataset import write_disc_dataset
    from nnunet_da.raw_dataset import next_steps

    folder = write_disc_dataset(
        arguments.dataset,
        arguments.new_id,
        arguments.name,
        arguments.kind,
        margin=arguments.margin,
        n_discs=arguments.n_discs,
        regions=arguments.regions,
        link=arguments.link,
        overwrite=arguments.overwrite,
        n_processes=arguments.n_processes,
    )
    print(f"{folder}: {arguments.kind}, of dataset {arguments.dataset}")
    print(next_steps(folder.name))
