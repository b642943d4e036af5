from pathlib import Path

from nnunet_da.cli._arguments import add_processes

HELP = "write a public dataset's folder, in its own layout, with simulated anatomy"
EXAMPLE = """  nnunet-da phantom mrspineseg RAW -n 10
  nnunet-da phantom zenodo22304 RAW -n 10 --disc-masks DISCS
  nnunet-da phantom --list"""


def add_arguments(parser):
    parser.add_argument("dataset", nargs="?", metavar="NAME", help="the dataset, named as its converter")
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--list", action="store_true", help="list the datasets and what -n counts, and stop")
    parser.add_argument("-n", dest="n", type=int, metavar="N", help="how many cases; see --list")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    resolution = parser.add_mutually_exclusive_group()
    resolution.add_argument(
        "--size",
        nargs=3,
        type=int,
        metavar=("X", "Y", "Z"),
        help="voxels of every scan along right, anterior and superior, for small trials",
    )
    resolution.add_argument(
        "--scale",
        type=float,
        metavar="F",
        help="resolution as a share of the release's, up to 1: no voxel side under 1/F of the finest (default: --list)",
    )
    beside = parser.add_argument_group("files that a release does not hold")
    beside.add_argument("--disc-masks", type=Path, metavar="DIR2", help="zenodo22304: masks of the discs")
    beside.add_argument(
        "--hidden-labels", type=Path, metavar="DIR2", help="crossmoda…, msd: labels of targets and test cases"
    )
    beside.add_argument(
        "--subjects", type=Path, metavar="CSV", help="alkhalil_lumbar: which volumes are of one patient"
    )
    add_processes(parser)


def run(arguments):
    from nnunet_da.errors import UserError
    from nnunet_da.phantom.public import RELEASES, describe, find_release, write_release

    if arguments.list:
        print("\n".join(describe(release) for release in RELEASES.values()))
        return
    if arguments.dataset is None:
        raise UserError(f"which NAME? One of {', '.join(RELEASES)}; see nnunet-da phantom --list")
    release = find_release(arguments.dataset)
    if arguments.folder is None or arguments.n is None:
        raise UserError(f"{release.name}: needs a folder DIR and -n N ({release.n})")
    aside = None
    for option in ("--disc-masks", "--hidden-labels", "--subjects"):
        path = getattr(arguments, option.strip("-").replace("-", "_"))
        if path and (release.aside is None or release.aside.option != option):
            raise UserError(f"{option}: {release.name} has nothing of this kind; see nnunet-da phantom --list")
        aside = path or aside
    write_release(
        release,
        arguments.folder,
        arguments.n,
        arguments.seed,
        size=arguments.size and tuple(arguments.size),
        scale=arguments.scale,
        aside=aside,
        n_processes=arguments.n_processes,
    )
    print(f"{arguments.folder}: {release.name}, simulated, -n {arguments.n}")
    print(f"next: nnunet-da convert {release.name} {arguments.folder}{release.to_convert} -d ID")
