from pathlib import Path

from nnunet_da.cli._arguments import add_dataset, add_processes, add_volume_margin

HELP = "rank trained folds by their predictions, with labels or without any, and choose those to ensemble"
EXAMPLE = """  nnunet-da choose-folds -d 102 --predictions 2d/0=P/2d_0 2d/1=P/2d_1 \\
      3d_fullres/0=P/3d_0 3d_fullres/1=P/3d_1 --pick 2d=1 3d_fullres=1 -o choice.json
  nnunet-da choose-folds -d 102 --predictions 2d/0=P/2d_0 2d/1=P/2d_1 --labels LABELS --pick 2d=1 -o choice.json"""


def add_arguments(parser):
    add_dataset(parser)
    parser.add_argument(
        "--predictions",
        nargs="+",
        required=True,
        metavar="CONFIGURATION/FOLD=DIR",
        help="a folder per model, as nnUNetv2_predict -f FOLD writes it, best with --save_probabilities",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="DIR", help="label maps: rank by Dice on the cases that have one here"
    )
    parser.add_argument(
        "--by",
        choices=["agreement", "confidence", "plausibility"],
        default="agreement",
        help="without labels: Dice with the decision of all models (default), confidence, or plausible volumes",
    )
    parser.add_argument(
        "--pick", nargs="+", default=[], metavar="CONFIGURATION=N", help="the paper: 2d=2 3d_fullres=3 (default: none)"
    )
    add_volume_margin(parser)
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="ranking and choice, as JSON")
    add_processes(parser)


def run(arguments):
    import math

    from nnunet_da.evaluation.cases import parse_models
    from nnunet_da.files import write_json
    from nnunet_da.paths import RAW, dataset_folder
    from nnunet_da.raw_folder import RawFolder
    from nnunet_da.self_training import choice
    from nnunet_da.self_training.pseudo_labels import channels_of, true_volume_ranges

    folders = parse_models(arguments.predictions, "--predictions")
    pick = _pick(arguments.pick)
    _check_names(folders)
    raw = RawFolder.read(dataset_folder(RAW, arguments.dataset))
    channels = channels_of(raw)
    if arguments.labels:
        by = choice.DICE
        scores = choice.rank_by_labels(folders, arguments.labels, raw, channels, arguments.n_processes)
    else:
        by = arguments.by
        ranges = true_volume_ranges(raw, channels, arguments.volume_margin, arguments.n_processes)
        scores = choice.rank_by_consensus(folders, raw, channels, ranges, by, arguments.n_processes)
    chosen = choice.choose(scores, pick)

    indicators = list(scores[0].indicators)
    width = max(len(score.name) for score in scores)
    print(f"{'model':{width}}  cases  " + "  ".join(f"{key:>12}" for key in indicators))
    for score in scores:
        mark = " *" if score.fold in chosen.get(score.configuration, ()) else ""
        values = "  ".join(f"{score.indicators[key]:12.4f}" for key in indicators)
        print(f"{score.name:{width}}  {score.n_cases:5}  {values}{mark}")
    if len({score.n_cases for score in scores}) > 1:
        print("note: the models were scored on different numbers of cases; their Dice compare with care")
    for configuration, folds in chosen.items():
        print(f"{configuration}: folds {' '.join(folds)}")
    if arguments.output:
        ranking = [
            {
                "configuration": score.configuration,
                "fold": score.fold,
                "n_cases": score.n_cases,
                **{key: None if math.isnan(value) else value for key, value in score.indicators.items()},
            }
            for score in scores
        ]
        write_json(
            {"written_by": "nnunet-da choose-folds", "by": by, "chosen": chosen, "ranking": ranking}, arguments.output
        )


def _check_names(folders):
    from nnunet_da.errors import UserError

    for name, folder in folders.items():
        if not all(name.rpartition("/")[::2]):
            raise UserError(f"--predictions {name}={folder}: must be CONFIGURATION/FOLD=DIR, such as 2d/0={folder}")


def _pick(texts):
    """Configuration → number of texts such as ``2d=2``."""
    from nnunet_da.errors import UserError

    numbers = {}
    for text in texts:
        configuration, _, number = text.partition("=")
        if not configuration or not number.isdecimal():
            raise UserError(f"--pick {text}: must be CONFIGURATION=N, such as 2d=2")
        numbers[configuration] = int(number)
    return numbers
