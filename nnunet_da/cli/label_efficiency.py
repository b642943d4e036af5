"""``nnunet-da label-efficiency``: how many labelled subjects pretraining saves."""

from pathlib import Path

from nnunet_da.cli._arguments import add_dataset

HELP = "Dice against the number of labelled subjects, from scratch and from pretrained weights: table and figures"
EXAMPLE = """  nnunet-da label-efficiency -d 110 -c 2d -o STUDY --preset paper
  nnunet-da label-efficiency -d 110 -c 2d --images SCANS --labels LABELS -o STUDY -n 1 2 4 8 --draws 3
  nnunet-da label-efficiency -d 110 -c 2d -o STUDY --preset cpu --pretraining-set num_epochs=20 -device cpu"""


def add_arguments(parser):
    add_dataset(parser)
    parser.add_argument("-c", dest="configuration", required=True, metavar="CONFIGURATION", help="such as 2d")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="default: %(default)s")
    parser.add_argument(
        "-tr", dest="trainer", default="nnUNetTrainerSSLFinetune", help="of the fine-tuning; default: %(default)s"
    )
    parser.add_argument(
        "-o", dest="work", type=Path, required=True, metavar="STUDY", help="folder of the study; run again, it goes on"
    )
    test = parser.add_argument_group("the test scans")
    test.add_argument("--images", type=Path, metavar="DIR", help="default: imagesTs of the dataset in nnUNet_raw")
    test.add_argument("--labels", type=Path, metavar="DIR", help="default: labelsTs of the dataset in nnUNet_raw")
    test.add_argument("--cases", type=Path, metavar="CSV", help="columns case,domain: the domains of test cases")
    test.add_argument(
        "--tested",
        default="test",
        metavar="NAME",
        help="name of these scans: the same models may be tested on others later; default: %(default)s",
    )
    study = parser.add_argument_group("what is trained")
    study.add_argument(
        "-n",
        dest="numbers",
        type=int,
        nargs="+",
        metavar="N",
        help="labelled subjects; default: 1, 2, 4, … as far as there are; all of them, from scratch, besides",
    )
    study.add_argument(
        "--draws", type=int, default=3, metavar="N", help="sets of subjects for each number; default: %(default)s"
    )
    study.add_argument(
        "--initialisations",
        nargs="+",
        choices=["scratch", "regression", "contrastive"],
        default=["scratch", "regression", "contrastive"],
        metavar="NAME",
        help="of scratch, regression, contrastive; default: all",
    )
    study.add_argument(
        "--no-supervised", dest="supervised", action="store_false", help="without the one on all labelled subjects"
    )
    study.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="a setting of all trainings"
    )
    study.add_argument(
        "--pretraining-set",
        dest="pretraining_settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the pretrainings alone",
    )
    study.add_argument(
        "--preset", choices=["cpu", "paper"], help="settings to start from: a small plan and schedule, or the paper's"
    )
    study.add_argument("--seed", type=int, default=1, help="of draws and trainings; default: %(default)s")
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], help="default: cuda where there is one, else cpu")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once; default: %(default)s")
    parser.add_argument("--collect", action="store_true", help="run nothing; write table and figures of what is done")


def run(arguments):
    from nnunet_da.errors import UserError

    for flag, number in (("--draws", arguments.draws), ("--jobs", arguments.jobs)):
        if number < 1:
            raise UserError(f"{flag} {number}: must be at least 1")
    if arguments.seed < 0:
        raise UserError(f"--seed {arguments.seed}: must not be negative")

    from nnunet_da.study.label_efficiency import Design, collect, run_label_efficiency

    if arguments.collect:
        print(collect(arguments.work, arguments.tested))
        return

    from nnunet_da.prediction.model import choose_device
    from nnunet_da.study.label_efficiency_data import find_test_scans

    scans = find_test_scans(arguments.dataset, arguments.images, arguments.labels, arguments.cases, arguments.tested)
    design = Design(
        arguments.dataset,
        arguments.configuration,
        plans=arguments.plans,
        trainer=arguments.trainer,
        numbers=arguments.numbers,
        n_draws=arguments.draws,
        initialisations=arguments.initialisations,
        supervised=arguments.supervised,
        settings=arguments.settings,
        pretraining_settings=arguments.pretraining_settings,
        preset=arguments.preset,
        seed=arguments.seed,
    )
    device = choose_device(arguments.device).type
    print(run_label_efficiency(design, scans, arguments.work, device=device, jobs=arguments.jobs))
