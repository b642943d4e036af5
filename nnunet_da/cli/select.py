from pathlib import Path

from nnunet_da.cli._arguments import add_dataset, add_processes, add_volume_margin

HELP = "rank checkpoints, folds and trainers for a domain without labels, by several indicators"
EXAMPLE = """  nnunet-da select -d 101 --domain siemens_1p5t --pred adapt=P/adapt source_only=P/unet adapt_f1=P/adapt_1
  nnunet-da select -d 101 --pred a=P/a b=P/b --labels LABELS -o ranking.json"""


def add_arguments(parser):
    add_dataset(parser)
    parser.add_argument(
        "--pred",
        nargs="+",
        required=True,
        metavar="NAME=DIR",
        help="predictions of the same scans by each model, as nnUNetv2_predict writes them, best with "
        "--save_probabilities",
    )
    parser.add_argument("--domain", metavar="NAME", help="only the cases of this domain count (default: all predicted)")
    parser.add_argument(
        "--reverse",
        nargs="+",
        default=[],
        metavar="NAME=DIR",
        help="for each model of --pred: predictions of cases with true labels by what was trained on its predictions "
        "as the only labels (`pseudo-label --reverse`); a further indicator",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="DIR",
        help="label maps, to see how well each indicator ranks; none of them is used",
    )
    add_volume_margin(parser)
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="the ranking, as JSON")
    add_processes(parser)


def run(arguments):
    import math

    from nnunet_da.adaptation import selection
    from nnunet_da.evaluation.cases import parse_models
    from nnunet_da.files import write_json
    from nnunet_da.paths import RAW, dataset_folder
    from nnunet_da.raw_folder import RawFolder
    from nnunet_da.self_training.choice import dice_by_model
    from nnunet_da.self_training.pseudo_labels import channels_of

    folders = parse_models(arguments.pred)
    raw = RawFolder.read(dataset_folder(RAW, arguments.dataset))
    channels = channels_of(raw)
    found = selection.compare_for_domain(
        *(folders, raw, channels, arguments.domain, arguments.volume_margin, arguments.n_processes),
        reverse=parse_models(arguments.reverse, flag="--reverse") if arguments.reverse else None,
    )
    columns = [*selection.INDICATORS, selection.MEAN_RANK]
    if not arguments.reverse:
        columns.remove("reverse")
    judged, truth = {}, {}
    if arguments.labels:
        scores = dice_by_model(folders, arguments.labels, raw, channels, arguments.n_processes)
        truth = {name: dice for name, (dice, _) in scores.items()}
        judged = selection.judge(found, truth)

    width = max(len(name) for name in ("model", *found))
    print(f"{'model':{width}}  " + "  ".join(f"{key:>12}" for key in columns) + ("          Dice" if truth else ""))
    for name, indicators in found.items():
        values = "  ".join(f"{indicators[key]:12.4f}" for key in columns)
        print(f"{name:{width}}  {values}" + (f"  {truth[name]:12.4f}" if truth else ""))
    print(f"{next(iter(found))}: the first by the mean of its ranks")
    for key, (correlation, lost) in judged.items():
        print(f"{key}: rank correlation with Dice {correlation:.2f}; its first choice is {lost:.4f} below the best")
    if arguments.output:

        def plain(values):
            return {key: None if math.isnan(value) else value for key, value in values.items()}

        ranking = [
            {"model": name, **plain(values), **({"dice": truth[name]} if truth else {})}
            for name, values in found.items()
        ]
        quality = {
            key: plain({"correlation": correlation, "lost": lost}) for key, (correlation, lost) in judged.items()
        }
        content = {"written_by": "nnunet-da select", "domain": arguments.domain, "ranking": ranking}
        write_json(content | ({"indicators": quality} if quality else {}), arguments.output)
