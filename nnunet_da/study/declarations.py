"""What a study is declared by: its tasks and models; and the runs that these make."""

from collections.abc import Callable
from dataclasses import dataclass, field

from nnunet_da.domains import read_domains
from nnunet_da.files import read_json

# In the folder of a task with folds: its splits, with the cases that each tests.
SPLITS = "splits.json"


@dataclass(frozen=True)
class Task:
    """A dataset with domains, its plan, and sets of scans with labels to evaluate on.

    Attributes
    ----------
    name : str
    write : callable (data, folder)
        Writes ``cases.csv``, which `nnunet-da convert manifest` reads, and per set ``SET/images``, ``SET/labels`` and
        ``SET/cases.csv`` into `folder`. None: all that `runner.prepare` makes is there.
    dataset_id : int
    labels, channels : tuple of str
        As ``--labels`` and ``--channels`` of `nnunet-da convert manifest`.
    domain_labels : tuple of str
        As ``--domain-labels`` there.
    sets : tuple of str
    configuration : str
        What the configurations of the models inherit from.
    preset : str or None
        Of `nnunet-da configure`.
    settings : dict
        Settings of every model: schedule, plan.
    folds : callable (Domains) or None
        Gives the splits, such as `nnunet_da.splits.leave_one_out`: one run of each model and seed for each. A split
        that names its cases to ``test`` is evaluated on those alone, of every set. None: fold 0 of the dataset.
    slices : bool
        Whether 2D slices are compared too.
    plans : str
        Name of the plans.
    restrict : callable (place, folder, set, predictions, output) or None
        Writes the label maps that are evaluated of those that a run predicted for a set; `folder`: that of the task.
        None: they are evaluated as they are.
    probabilities : bool
        Whether predictions are saved as probabilities too.
    """

    name: str
    write: Callable | None
    dataset_id: int
    labels: tuple[str, ...]
    channels: tuple[str, ...]
    domain_labels: tuple[str, ...] = ()
    sets: tuple[str, ...] = ("dev", "test")
    configuration: str = "2d"
    preset: str | None = "cpu"
    settings: dict = field(default_factory=dict)
    folds: Callable | None = None
    slices: bool = False
    plans: str = "nnUNetPlans"
    restrict: Callable | None = None
    probabilities: bool = False

    @property
    def dataset(self):
        """The name of its folder in nnU-Net's."""
        return f"Dataset{self.dataset_id:03d}_{self.name}"


@dataclass(frozen=True)
class Model:
    """A trainer with settings: a row of the table.

    `seeds`: one run each. `checkpoint`: the file that predicts, as ``-chk`` of nnUNetv2_predict takes it. `baseline`:
    differences of all other models from it are reported. `domain`: it predicts the scans of this domain alone.
    `per_domain`: it is exported, and each domain's scans are predicted with the model of their domain. `row`: of the
    tables, where several models make one; default: the name. `pretraining`:
    a model that is trained first, once, on all cases, and whose weights this one starts from.
    """

    name: str
    trainer: str
    settings: dict = field(default_factory=dict)
    seeds: tuple[int, ...] = (1,)
    checkpoint: str = "checkpoint_final.pth"
    baseline: bool = False
    domain: str | None = None
    per_domain: bool = False
    row: str | None = None
    pretraining: "Model | None" = None

    @property
    def label(self):
        return self.row or self.name


@dataclass(frozen=True)
class Run:
    """One training. Its files stand in the folder of its task. `fold`: an int, or 'all'. `test`: the cases that it is
    evaluated on; None: all."""

    task: Task
    model: Model
    seed: int
    fold: int | str = 0
    test: tuple[str, ...] | None = None

    @property
    def name(self):
        fold = "" if self.task.folds is None else f"_f{self.fold}"
        return f"{self.model.name}_s{self.seed}{fold}"

    @property
    def configuration(self):
        """One of its own for each fold too: trainings of one configuration write the same files."""
        return f"{self.task.configuration}_{self.name}"

    @property
    def pretraining(self):
        """The run whose weights it starts from, one for all folds and seeds; None: it starts from scratch."""
        model = self.model.pretraining
        return model and Run(self.task, model, model.seeds[0], "all")

    def folder(self, task_folder):
        return task_folder / "runs" / self.name

    def results(self, task_folder):
        """Where nnU-Net writes its checkpoints."""
        model = f"{self.model.trainer}__{self.task.plans}__{self.configuration}"
        return task_folder / "nnUNet_results" / self.task.dataset / model / f"fold_{self.fold}"

    def report(self, task_folder, name_of_set):
        return self.folder(task_folder) / f"{name_of_set}_report"

    def __str__(self):
        fold = "" if self.task.folds is None else f", fold {self.fold}"
        return f"{self.task.name}, {self.model.name}, seed {self.seed}{fold}"


def runs_of(task, models, folder):
    """The runs of a task, fold by fold; of a task with folds, those that were written into its `folder`.

    A model of one domain has no run in a fold that tests no case of it, nor a task with folds before it is prepared.
    """
    if task.folds is None:
        return [Run(task, model, seed) for model in models for seed in model.seeds]
    if not (folder / SPLITS).exists():
        return []
    domains = read_domains(read_json(folder / "nnUNet_raw" / task.dataset / "dataset.json"))
    return [
        Run(task, model, seed, fold, test)
        for fold, split in enumerate(read_json(folder / SPLITS))
        for test in [tuple(split["test"]) if "test" in split else None]
        for model in models
        if None in (test, model.domain) or model.domain in map(domains.domain_of_case, test)
        for seed in model.seeds
    ]
