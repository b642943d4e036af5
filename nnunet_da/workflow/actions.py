"""What steps do: nnU-Net's commands and our own, each of which may be killed at any moment and started again."""

import os
import re
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from nnunet_da.doctor.prepared import resolve
from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError
from nnunet_da.files import atomic_folder, read_json, write_json
from nnunet_da.paths import PREPROCESSED, RAW, RESULTS, nnunet_folder
from nnunet_da.splits import FILE_NAME as SPLITS

# What nnU-Net's --c looks for, in this order.
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
PLANS = "nnUNetPlans"
CHANNEL = re.compile(r"_\d{4}$")


@dataclass(frozen=True)
class Dataset:
    """A dataset of nnU-Net that need not exist yet."""

    id: int
    name: str

    @property
    def folder_name(self):
        return f"Dataset{self.id:03d}_{self.name}"

    def folder(self, variable):
        """Its folder under one of nnU-Net's three variables."""
        return nnunet_folder(variable) / self.folder_name

    @property
    def json(self):
        """The content of the raw dataset.json."""
        return read_json(self.folder(RAW) / "dataset.json")


@dataclass(frozen=True)
class Model:
    """Trainings that differ in their fold alone."""

    dataset: Dataset
    configuration: str
    trainer: str
    plans: str = PLANS

    def fold_folder(self, fold):
        """Where nnU-Net writes the training of a fold (int, or 'all')."""
        folder = f"{self.trainer}__{self.plans}__{self.configuration}"
        return self.dataset.folder(RESULTS) / folder / f"fold_{fold}"

    @property
    def words(self):
        """The arguments by which nnU-Net's commands find it, beside the folds."""
        return ("-d", self.dataset.id, "-c", self.configuration, "-tr", self.trainer, "-p", self.plans)


class Action:
    """What a step does."""

    def commands(self):
        """The commands (sequences of words), as a user would type them; for ``--dry-run``."""
        return []

    def require_free(self):
        """Raises UserError where what it would write is there already; asked where the run has not begun it."""

    def replaced(self):
        """The files and folders that it writes beside their place and renames, and a kill may leave parts of there."""
        return ()

    def do(self, job):
        """Does it, or goes on with it, with ``job.run(*words)``. Raises UserError where it fails."""
        raise NotImplementedError

    def discard(self):
        """Removes what it wrote."""

    def progress(self, log):
        """How far it is, in a word or two, by the end of its log (list of lines); '' where that says nothing."""
        return ""


@dataclass(frozen=True)
class Command(Action):
    """One command that begins anew, and replaces what an interrupted one has left.

    `writes`: files and folders of its own; `changes`: files that others write too.
    """

    words: tuple
    writes: tuple[Path, ...] = ()
    changes: tuple[Path, ...] = ()

    def commands(self):
        return [self.words]

    def replaced(self):
        return (*self.writes, *self.changes)

    def do(self, job):
        job.run(*self.words)

    def discard(self):
        for path in self.writes:
            remove(path)


@dataclass(frozen=True)
class NewFolder(Action):
    """A command that writes the folder `output`, in which an interrupted one must have left nothing."""

    words: tuple
    output: Path

    def commands(self):
        return [self.words]

    def replaced(self):
        return (self.output,)

    def do(self, job):
        remove(self.output)
        job.run(*self.words)

    def discard(self):
        remove(self.output)


@dataclass(frozen=True)
class MakeDataset(Action):
    """A command that writes a new raw dataset, whole or not at all. All of nnU-Net's folders of it are its own."""

    words: tuple
    dataset: Dataset

    def commands(self):
        return [self.words]

    def replaced(self):
        return (self.dataset.folder(RAW), self.dataset.folder(PREPROCESSED) / SPLITS)

    def require_free(self):
        for variable in (RAW, PREPROCESSED, RESULTS):
            taken = sorted(nnunet_folder(variable).glob(f"Dataset{self.dataset.id:03d}_*"))
            if taken:
                raise UserError(f"{taken[0]}: is there already, and not of this run; choose other ids, or remove it")

    def do(self, job):
        remove(self.dataset.folder(RAW))
        job.run(*self.words)

    def discard(self):
        for variable in (RAW, PREPROCESSED, RESULTS):
            remove(self.dataset.folder(variable))


@dataclass(frozen=True)
class Prepare(Action):
    """Plans and preprocesses a dataset in `configurations`; of a dataset that is prepared already, what is missing.

    `plans_of`: a dataset whose plans it takes over instead of planning anew, so that what is trained on both is one
    network and differs in its data alone.
    """

    dataset: Dataset
    configurations: tuple[str, ...]
    plans_of: Dataset | None = None

    def _plan(self):
        words = ("nnUNetv2_plan_and_preprocess", "-d", self.dataset.id, "-c", *self.configurations)
        return (*words, "-npfp", n_processes(), "-np", n_processes(), "--clean")

    def _fingerprint(self):
        # Trainings keep a copy of it with the model.
        return ("nnUNetv2_extract_fingerprint", "-d", self.dataset.id, "-np", n_processes(), "--clean")

    def _move(self):
        words = ("nnUNetv2_move_plans_between_datasets", "-s", self.plans_of.id, "-t", self.dataset.id)
        return (*words, "-sp", PLANS, "-tp", PLANS)

    def _preprocess(self, configurations):
        words = ("nnUNetv2_preprocess", "-d", self.dataset.id, "-plans_name", PLANS, "-c", *configurations)
        return (*words, "-np", n_processes())

    def commands(self):
        if self.plans_of is None:
            return [self._plan()]
        return [self._fingerprint(), self._move(), self._preprocess(self.configurations)]

    def replaced(self):
        return (self.dataset.folder(PREPROCESSED) / "dataset.json",)

    def do(self, job):
        plans = self._plans()
        if plans is None and self.plans_of is None:
            job.run(*self._plan())
            return
        if plans is None:
            # What planning would have done beside.
            raw, copy = (self.dataset.folder(variable) / "dataset.json" for variable in (RAW, PREPROCESSED))
            write_json(read_json(raw), copy)
            job.run(*self._fingerprint())
            job.run(*self._move())
            plans = self._plans()
        missing = [name for name in self.configurations if not self._is_preprocessed(name, plans)]
        if missing:
            job.run(*self._preprocess(missing))

    def _plans(self):
        """The content of the plans; None where there are none, or a kill has cut them short."""
        path = self.dataset.folder(PREPROCESSED) / f"{PLANS}.json"
        try:
            return read_json(path) if path.exists() else None
        except UserError:
            return None

    def _is_preprocessed(self, configuration, plans):
        resolved = resolve(configuration, plans["configurations"])
        if resolved is None:
            raise UserError(f"{self.dataset.folder(PREPROCESSED) / PLANS}.json: no configuration {configuration}")
        folder = self.dataset.folder(PREPROCESSED) / resolved["data_identifier"]
        cases = read_domains(self.dataset.json, self.dataset.folder(RAW) / "dataset.json").cases
        # Of a case's files nnU-Net writes the properties last.
        return {path.stem for path in folder.glob("*.pkl")} >= set(cases)


@dataclass(frozen=True)
class Train(Action):
    """``nnUNetv2_train`` of one fold, from its last sound checkpoint on.

    `is_own`: whether the configuration is one of the run, so that its models are too; else they may be there already,
    and stay.
    """

    model: Model
    fold: int | str
    device: str
    n_epochs: int | None = None
    is_own: bool = True

    def _words(self, *more):
        model = self.model
        return (
            *("nnUNetv2_train", model.dataset.id, model.configuration, self.fold, "-tr", model.trainer),
            *("-p", model.plans, "-device", self.device, *more),
        )

    def commands(self):
        return [self._words()]

    def do(self, job):
        folder = self.model.fold_folder(self.fold)
        for name in CHECKPOINTS:
            # nnU-Net's own trainer does not write them beside and rename them.
            if (folder / name).exists() and not zipfile.is_zipfile(folder / name):
                job.note(f"{folder / name}: cut short by a kill; removed")
                (folder / name).unlink()
        begun = any((folder / name).exists() for name in CHECKPOINTS)
        job.run(*self._words(*(["--c"] if begun else [])))
        if not (folder / CHECKPOINTS[0]).exists():
            raise UserError(f"{folder}: the training ended without {CHECKPOINTS[0]}")

    def require_free(self):
        folder = self.model.fold_folder(self.fold)
        if self.is_own and folder.exists():
            raise UserError(f"{folder}: is there already, and not of this run; choose another 'suffix', or remove it")

    def discard(self):
        if self.is_own:
            remove(self.model.fold_folder(self.fold))

    def progress(self, log):
        epochs = [match[1] for line in log if (match := re.search(r": Epoch (\d+)\s*$", line))]
        if not epochs:
            return ""
        return f"epoch {int(epochs[-1]) + 1}" + (f"/{self.n_epochs}" if self.n_epochs else "")


@dataclass(frozen=True)
class LinkUnlabelled(Action):
    """A folder of links to the unlabelled training scans of a dataset."""

    dataset: Dataset
    folder: Path

    def replaced(self):
        return (self.folder,)

    def do(self, job):
        content = self.dataset.json
        cases = read_domains(content, self.dataset.folder(RAW) / "dataset.json").unlabelled_cases
        if not cases:
            raise UserError(f"{self.dataset.folder(RAW)}: no unlabelled cases, so there is nothing to adapt to")
        scans = self.dataset.folder(RAW) / "imagesTr"
        with atomic_folder(self.folder) as temporary:
            for channel in range(len(content["channel_names"])):
                for case in cases:
                    name = f"{case}_{channel:04d}{content['file_ending']}"
                    (temporary / name).symlink_to(scans / name)

    def discard(self):
        remove(self.folder)


@dataclass(frozen=True)
class Predict(Action):
    """``nnUNetv2_predict`` of a folder of scans with probabilities; finished scans are kept, cut ones done again."""

    model: Model
    folds: tuple
    scans: Path
    output: Path
    device: str

    def _words(self, folds, *more):
        return (
            *("nnUNetv2_predict", *self.model.words, "-f", *folds, "-i", self.scans, "-o", self.output),
            *("--save_probabilities", "-device", self.device, *more),
        )

    def commands(self):
        return [self._words(self.folds)]

    def chosen_folds(self):
        return self.folds

    def do(self, job):
        ending = self.model.dataset.json["file_ending"]
        cases = cases_in(self.scans, ending)
        for path in unfinished_predictions(self.output, ending):
            job.note(f"{path}: of a case that was not finished; removed")
            path.unlink()
        job.run(*self._words(self.chosen_folds(), "--continue_prediction"))
        absent = [case for case in cases if not (self.output / f"{case}{ending}").exists()]
        if absent:
            raise UserError(f"{self.output}: nnUNetv2_predict ended without a prediction of {absent[0]}")

    def discard(self):
        remove(self.output)

    def progress(self, log):
        return f"{len(list(self.output.glob('*.npz')))} scans"


@dataclass(frozen=True, kw_only=True)
class PredictChosen(Predict):
    """`Predict` with the fold that stands `rank`-th (from 1) for the model's configuration in the file `chosen`."""

    rank: int
    chosen: Path

    def commands(self):
        return [self._words([f"<{self.rank}. of {self.chosen.name}>"])]

    def chosen_folds(self):
        folds = read_json(self.chosen)["chosen"][self.model.configuration]
        return (folds[self.rank - 1],)


@dataclass(frozen=True)
class Ensemble(Action):
    """``nnUNetv2_ensemble`` of folders of predictions."""

    inputs: tuple[Path, ...]
    output: Path

    def _words(self, output):
        return ("nnUNetv2_ensemble", "-i", *self.inputs, "-o", output, "-np", n_processes())

    def commands(self):
        return [self._words(self.output)]

    def replaced(self):
        return (self.output,)

    def do(self, job):
        with atomic_folder(self.output) as temporary:
            job.run(*self._words(temporary))

    def discard(self):
        remove(self.output)


def n_processes():
    """Processes for planning, preprocessing and ensembling: nnU-Net's own numbers are those of a large machine."""
    return min(8, os.cpu_count() or 1)


def remove(path):
    """Removes a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cases_in(scans, ending):
    """The ids of the cases in a folder of scans named as nnU-Net names them. Raises UserError where there is none."""
    names = [path.name.removesuffix(ending) for path in Path(scans).glob(f"*{ending}")]
    cases = sorted({CHANNEL.sub("", name) for name in names if CHANNEL.search(name)})
    if not cases:
        raise UserError(f"{scans}: no scans named CASE_0000{ending}")
    return cases


def unfinished_predictions(folder, ending):
    """The files (list of Path) of the cases in `folder` of which nnU-Net has not written all three whole.

    These are CASE.npz, CASE.pkl and the segmentation; what is there of the first and the last nnU-Net takes for done.
    """
    folder = Path(folder)
    cases = {path.name.removesuffix(end) for end in (".npz", ".pkl", ending) for path in folder.glob(f"*{end}")}
    unfinished = []
    for case in sorted(cases):
        files = {folder / f"{case}{end}": is_whole for end, is_whole in _WHOLE.items()}
        files[folder / f"{case}{ending}"] = _is_whole_nifti
        if not all(path.exists() and is_whole(path) for path, is_whole in files.items()):
            unfinished += [path for path in files if path.exists()]
    return unfinished


def _is_whole_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, zlib.error):
        return False


def _is_whole_pickle(path):
    # Its last opcode is STOP; it is not read, since that would run what it holds.
    return path.read_bytes()[-1:] == b"."


def _is_whole_nifti(path):
    import nibabel
    import numpy as np

    try:
        np.asanyarray(nibabel.load(path).dataobj)
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError):
        return False
    return True


_WHOLE = {".npz": _is_whole_zip, ".pkl": _is_whole_pickle}
