"""Label efficiency: Dice on fixed test cases against the number of labelled subjects, from scratch and pretrained.

After "Experiments" and Figure 3 of Umapathy et al., "Learning to segment with limited annotations", arXiv:2205.13109
(2022). Each method is pretrained once, on all cases of the dataset, labelled or not; test cases are none of them. Then
the network is fine-tuned for each number N of labelled subjects and each draw of them, from each initialisation; and
once from scratch on all labelled subjects, the supervised line. The paper leaves open how subjects are drawn:

- A subject is drawn with all of its labelled cases.
- The subjects that fold 0 of the dataset holds out are held out in all fine-tunings, and never drawn. Pretraining sees
  them without their labels.
- Draws of one N share no subject as far as there are subjects, and no two are the same. They do not depend on those of
  another N, and are no part of them.
- Fine-tunings of one draw have one seed, those of the next draw the next one.

The study stands in a folder of its own: nothing of the dataset is changed.
"""

import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunet_da.discovery import activate
from nnunet_da.errors import UserError, nearest
from nnunet_da.files import read_json, write_json
from nnunet_da.paths import DATASET_NAME, PREPROCESSED
from nnunet_da.splits import SIDES, write_splits
from nnunet_da.study import label_efficiency_data, label_efficiency_report
from nnunet_da.study.declarations import SPLITS, Model, Run, Task
from nnunet_da.study.runner import configure, do_runs

# Initialisation → trainer of its pretraining. The order is that of the runs.
INITIALISATIONS = {
    "scratch": None,
    "regression": "nnUNetTrainerSSLRegression",
    "contrastive": "nnUNetTrainerSSLContrastive",
}
STUDY = "study.json"
# Of a Design: what may change while a study goes on.
EXTENDABLE = ("numbers", "n_draws", "initialisations", "supervised")
# Where they differ, weights do not fit.
OF_THE_NETWORK = ("plan.features_per_stage", "plan.network", "plan.norm")


@dataclass(frozen=True)
class Design:
    """What is trained.

    Attributes
    ----------
    dataset : str
        Id or name of a dataset that is planned and preprocessed.
    configuration, plans : str
    trainer : str
        Of the fine-tuning.
    numbers : sequence of int, or None
        Numbers of labelled subjects; None: 1, 2, 4, … below the number that there is.
    n_draws : int
        For each number; fewer where there are not so many sets of subjects.
    initialisations : sequence of str
        Of INITIALISATIONS.
    supervised : bool
        Whether all labelled subjects are trained from scratch too.
    settings, pretraining_settings : sequence of str
        ``key=value``; of all trainings, and of the pretrainings, where they override the others.
    preset : str or None
        Of `nnunet-da configure`; 'paper': that of each trainer.
    seed : int
        Of the draws, the pretrainings, and the fine-tunings of the first draw.
    """

    dataset: str
    configuration: str
    plans: str = "nnUNetPlans"
    trainer: str = "nnUNetTrainerSSLFinetune"
    numbers: tuple[int, ...] | None = None
    n_draws: int = 3
    initialisations: tuple[str, ...] = tuple(INITIALISATIONS)
    supervised: bool = True
    settings: tuple[str, ...] = ()
    pretraining_settings: tuple[str, ...] = ()
    preset: str | None = None
    seed: int = 1


def run_label_efficiency(design, scans, work, *, device="cpu", jobs=1):
    """Does what of the study in the folder `work` is not done; writes its tables, and returns their text (`collect`).

    The same study may be asked for with further numbers, draws, initialisations and test scans: what is trained is not
    trained again.

    Parameters
    ----------
    design : Design
    scans : label_efficiency_data.TestScans
    work : Path
    device : str
        'cpu', 'cuda' or 'mps'.
    jobs : int
        Runs at once; they share the device.

    Raises UserError for what the dataset does not have or a trainer does not take, before anything is written; and
    where a run fails, after the others.
    """
    work = Path(work).absolute()
    activate()
    prepared = label_efficiency_data.find_prepared(design.dataset, design.plans, design.configuration)
    subjects, held_out = label_efficiency_data.subjects_to_draw(prepared)
    numbers = numbers_of(design, len(subjects), prepared.name)
    _require_trainer(design.trainer)
    task, models = declare(design, prepared.name, scans.name)
    _check_settings(design, prepared, task, models)
    domain_of_case = label_efficiency_data.domains_of_test_cases(scans, prepared, held_out)
    study = _study(design, prepared, subjects, held_out)
    _require_same_study(study, work)
    test_folder = work / "data" / scans.name
    label_efficiency_data.require_same_cases(domain_of_case, test_folder)

    write_json(study, work / STUDY)
    dataset_folder = work / PREPROCESSED / prepared.name
    label_efficiency_data.link_dataset(prepared, dataset_folder)
    label_efficiency_data.link_test_scans(scans, domain_of_case, prepared, test_folder)
    draws = draw_all(_read_draws(work), subjects, held_out, numbers, design.n_draws, design.seed)
    write_splits([{side: draw[side] for side in SIDES} for draw in draws], dataset_folder)
    write_json(draws, work / SPLITS)
    runs = runs_of_draws(task, models, draws, numbers, design, len(subjects))
    do_runs(runs, lambda _: work, device=device, jobs=jobs, sets=[scans.name])
    return collect(work, scans.name)


def collect(work, name="test"):
    """The tables (str) of what is evaluated on the test scans `name`; they and the figures go to ``report/NAME``.

    Raises UserError where `work` is no study, or nothing is evaluated.
    """
    import pandas

    work = Path(work).absolute()
    study = read_json(work / STUDY)
    design = Design(study["dataset"], **study["design"])
    task, models = declare(design, study["dataset"], name)
    frames = []
    for fold, draw in enumerate(_read_draws(work)):
        for model in models:
            run = Run(task, model, design.seed + draw["draw"], fold)
            path = run.report(work, name) / "cases.csv"
            if path.exists():
                frame = pandas.read_csv(path).rename(columns={"model": "initialisation"})
                frame.insert(1, "subjects", draw["subjects"])
                frame.insert(2, "draw", draw["draw"])
                frames.append(frame.assign(seed=run.seed, fold=fold))
    if not frames:
        raise UserError(f"{work}: nothing is evaluated on '{name}' yet")
    title = f"{study['dataset']}, {design.configuration}, {name}"
    results = pandas.concat(frames, ignore_index=True)
    return label_efficiency_report.write(results, len(study["subjects"]), title, work / "report" / name)


def numbers_of(design, n_all, dataset):
    """The numbers of labelled subjects, ascending. Raises UserError where one is not from 1 to `n_all`."""
    if design.numbers is None:
        return [2**power for power in range(n_all.bit_length()) if 2**power < n_all] or [n_all]
    for n in design.numbers:
        if not 1 <= n <= n_all:
            raise UserError(
                f"-n {n}: must be from 1 to {n_all}, the labelled subjects of {dataset} beside those that fold 0 holds "
                f"out"
            )
    return sorted(set(design.numbers))


def draw_subjects(names, n, n_draws, seed):
    """`n_draws` different sets (sorted tuples) of `n` of the `names`; all that there are where there are not so many.

    Names are shuffled and dealt, `n` at a time, again and again. The first draws are the same whatever `n_draws` is.
    """
    import numpy as np

    rng = np.random.default_rng([seed, n])
    n_draws = min(n_draws, math.comb(len(names), n))
    drawn = []
    while len(drawn) < n_draws:
        shuffled = [names[index] for index in rng.permutation(len(names))]
        for first in range(0, len(names) - n + 1, n):
            chosen = tuple(sorted(shuffled[first : first + n]))
            drawn += [] if chosen in drawn else [chosen]
    return drawn[:n_draws]


def draw_all(draws, subjects, held_out, numbers, n_draws, seed):
    """`draws` and, after them, those that they lack, so that each keeps its place, which is its number as a fold.

    A draw is a dict: ``subjects`` (their number), ``draw`` (from 0), ``names``, and the cases in ``train`` and ``val``.
    That of all subjects, for the supervised line, is always there.
    """
    draws = list(draws)
    known = {(draw["subjects"], draw["draw"]) for draw in draws}
    for n in sorted({*numbers, len(subjects)}):
        for index, names in enumerate(draw_subjects(list(subjects), n, n_draws, seed)):
            if (n, index) not in known:
                train = sorted(case for name in names for case in subjects[name])
                draws.append({"subjects": n, "draw": index, "names": list(names), "train": train, "val": held_out})
    return draws


def runs_of_draws(task, models, draws, numbers, design, n_all):
    """The fine-tunings that a Design asks for, fewer subjects first; `n_all`: how many subjects there are."""
    runs = []
    for fold in sorted(range(len(draws)), key=lambda fold: (draws[fold]["subjects"], draws[fold]["draw"])):
        n, index = draws[fold]["subjects"], draws[fold]["draw"]
        for model in models:
            asked = n in numbers and index < design.n_draws and model.name in design.initialisations
            if asked or (design.supervised and n == n_all and model.pretraining is None):
                runs.append(Run(task, model, design.seed + index, fold))
    return runs


def declare(design, dataset, name_of_set):
    """The Task of a Design, and a Model per initialisation; `dataset`: its full name."""
    of_all, of_pretraining = map(_as_dict, (design.settings, design.pretraining_settings))
    task = Task(
        dataset.partition("_")[2],
        None,
        int(DATASET_NAME.fullmatch(dataset)[1]),
        labels=(),
        channels=(),
        sets=(name_of_set,),
        configuration=design.configuration,
        preset=design.preset,
        settings=of_all,
        # That there are some makes runs of them; which they are stands in the study.
        folds=draw_all,
        plans=design.plans,
    )
    models = []
    for name, pretrainer in INITIALISATIONS.items():
        pretraining = pretrainer and Model(f"pretrain-{name}", pretrainer, of_pretraining, seeds=(design.seed,))
        models.append(Model(name, design.trainer, pretraining=pretraining))
    return task, models


def _as_dict(assignments):
    """Texts ``key=value`` as a dict of texts. Raises UserError for one of another form."""
    for assignment in assignments:
        if not assignment.partition("=")[0] or "=" not in assignment:
            raise UserError(f"--set {assignment}: must be written as name=value")
    return {key: value for key, _, value in (assignment.partition("=") for assignment in assignments)}


def _require_trainer(name):
    """Raises UserError unless `name` is a trainer of this package that segments and takes pretrained weights."""
    from nnunet_da.training.configurations import all_trainers
    from nnunet_da.training.ssl_trainer import Pretrainer

    fitting = [
        known
        for known, trainer in all_trainers().items()
        if trainer.takes_pretrained_weights and not issubclass(trainer, Pretrainer)
    ]
    if name not in fitting:
        raise UserError(
            f"-tr {name}: must be a trainer of this package that segments and takes -pretrained_weights"
            f"{nearest(name, fitting)} ({', '.join(fitting)})"
        )


def _check_settings(design, prepared, task, models):
    """Raises UserError, before anything is written, for what `configure` would refuse."""
    for assignment in design.pretraining_settings:
        if assignment.partition("=")[0] in OF_THE_NETWORK:
            raise UserError(
                f"--pretraining-set {assignment}: pretraining and fine-tuning must have the same network; use --set"
            )
    runs = [Run(task, model, design.seed) for model in models if model.name in design.initialisations]
    with tempfile.TemporaryDirectory() as folder:
        write_json(read_json(prepared.plans_file), Path(folder, PREPROCESSED, prepared.name, prepared.plans_file.name))
        for run in [*(run.pretraining for run in runs if run.pretraining), *runs]:
            configure(run, Path(folder))


def _study(design, prepared, subjects, held_out):
    """What must not change while a study goes on (dict, as JSON holds it)."""
    chosen = {key: value for key, value in asdict(design).items() if key not in (*EXTENDABLE, "dataset")}
    chosen |= {key: list(value) for key, value in chosen.items() if isinstance(value, tuple)}
    return {
        "dataset": prepared.name,
        "design": chosen,
        "plan": prepared.plan,
        "subjects": subjects,
        "held_out": held_out,
    }


def _require_same_study(study, work):
    """Raises UserError where the folder `work` holds another study, or other files."""
    path = work / STUDY
    if not path.exists():
        if work.exists() and (not work.is_dir() or any(work.iterdir())):
            raise UserError(f"{work}: holds other files; choose another folder")
        return
    before = read_json(path)
    differing = [key for key in study["design"] if study["design"][key] != before["design"].get(key)]
    differing += [key for key in study if key != "design" and study[key] != before.get(key)]
    if differing:
        raise UserError(f"{path}: the study was begun with other {differing[0]}; choose another folder for this one")


def _read_draws(work):
    path = work / SPLITS
    return read_json(path) if path.exists() else []
