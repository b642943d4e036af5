from pathlib import Path

from nnunet_da.cli._arguments import add_dataset, add_processes, add_scans

HELP = "give scans of one domain the look of another, with a trained nnUNetTrainerCycleGAN"
EXAMPLE = """  nnunet-da translate -d 101 -c 2d -f all -i SCANS -o TRANSLATED
  nnunet-da translate -d 101 -c 2d -f all --as 102 --name SpineAsSiemens"""


def add_arguments(parser):
    add_dataset(parser)
    parser.add_argument("-c", dest="configuration", required=True, metavar="CONFIGURATION", help="such as 2d")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="default: %(default)s")
    parser.add_argument("-f", dest="fold", metavar="FOLD", help="default: the only one that is trained, or all")
    parser.add_argument("-chk", dest="checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    add_scans(parser, required=False)
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="DIR", help="folder for the translated scans of -i, under their names"
    )
    parser.add_argument(
        "--as",
        dest="new_id",
        type=int,
        metavar="ID",
        help="instead of -i and -o: write a dataset of the labelled cases of the source, translated, with their "
        "labels, and the cases of the target",
    )
    parser.add_argument("--name", help="name of that dataset")
    parser.add_argument(
        "--keep-source",
        action="store_true",
        help="with --as: keep the labelled cases of the source as well, for a model of both",
    )
    parser.add_argument("--reverse", action="store_true", help="from the target to the source")
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], help="default: cuda where there is one, else cpu")
    add_processes(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="translate again what is there, or replace the dataset of --as"
    )


def run(arguments):
    from nnunet_da.errors import UserError

    scans, new = (arguments.scans, arguments.output), (arguments.new_id, arguments.name)
    if not (all(scans) and not any(new)) and not (all(new) and not any(scans)):
        raise UserError("what to translate? Give either -i and -o, or --as and --name")
    if arguments.keep_source and not arguments.new_id:
        raise UserError("--keep-source: is of the dataset that --as and --name write")
    if arguments.reverse and arguments.new_id:
        raise UserError("--reverse: the labels are those of the source, so --as translates it alone; use -i and -o")

    from nnunet_da.prediction.inputs import list_scans
    from nnunet_da.prediction.translated_dataset import write_translated_dataset
    from nnunet_da.prediction.translation import open_translation, translate
    from nnunet_da.raw_dataset import next_steps

    model = open_translation(
        arguments.dataset, arguments.configuration, arguments.plans, arguments.fold, arguments.checkpoint
    )
    options = {"device": arguments.device, "n_processes": arguments.n_processes, "overwrite": arguments.overwrite}
    if arguments.new_id:
        options["keep_source"] = arguments.keep_source
        folder = write_translated_dataset(model, arguments.dataset, arguments.new_id, arguments.name, **options)
        print(f"{folder}: written")
        print(next_steps(folder.name))
        return
    files = list_scans(arguments.scans, model.scales)
    record = translate(files, arguments.scans, arguments.output, model, reverse=arguments.reverse, **options)
    print(f"{arguments.output}: {len(record['scans'])} translated scans, float32 in [0, 1]")
