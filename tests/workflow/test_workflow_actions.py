"""What steps do where an earlier start was killed: nothing half-written is taken for done, nor anything done twice."""

import io
import json
import pickle
import zipfile

import nibabel
import numpy as np
import pytest

from nnunet_da.errors import UserError
from nnunet_da.workflow.actions import (
    Dataset,
    Ensemble,
    LinkUnlabelled,
    MakeDataset,
    Model,
    NewFolder,
    Predict,
    PredictChosen,
    Prepare,
    Train,
    cases_in,
)
from nnunet_da.workflow.step import Job, environment_of

DATASET = Dataset(101, "Spine")
MODEL = Model(DATASET, "2d_small", "nnUNetTrainerUNet")


class FakeJob:
    """Notes commands, and calls `work` for each."""

    def __init__(self, work=lambda words: None):
        self.commands = []
        self.notes = []
        self._work = work

    def run(self, *words):
        self.commands.append([str(word) for word in words])
        self._work(self.commands[-1])

    def note(self, text):
        self.notes.append(text)


def archive(content=b"weights " * 1000):
    """The bytes of a zip, as torch and numpy write them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as written:
        written.writestr("data", content)
    return stream.getvalue()


@pytest.fixture
def dataset(nnunet_folders):
    """Dataset 101 in nnUNet_raw: one labelled case, two without labels."""
    folder = DATASET.folder("nnUNet_raw")
    (folder / "imagesTr").mkdir(parents=True)
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "disc": 1, "ignore": 2},
        "file_ending": ".nii.gz",
        "domains": {
            "source": {"labels": ["disc"], "labelled": ["s1"], "unlabelled": []},
            "target": {"labels": ["disc"], "labelled": [], "unlabelled": ["t1", "t2"]},
        },
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    for case in ("s1", "t1", "t2"):
        (folder / "imagesTr" / f"{case}_0000.nii.gz").write_bytes(b"scan")
    return DATASET


def train(fold_folder, **files):
    """The words of the training command where these checkpoints (name → bytes) are there."""
    fold_folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (fold_folder / f"checkpoint_{name}.pth").write_bytes(content)
    job = FakeJob(lambda words: (fold_folder / "checkpoint_final.pth").write_bytes(archive()))
    Train(MODEL, 0, "cpu").do(job)
    return job


def test_a_training_begins_anew_or_goes_on_from_what_is_sound(nnunet_folders):
    folder = MODEL.fold_folder(0)
    assert folder == nnunet_folders.results / "Dataset101_Spine" / "nnUNetTrainerUNet__nnUNetPlans__2d_small" / "fold_0"
    (fresh,) = train(folder).commands
    assert fresh[:4] == ["nnUNetv2_train", "101", "2d_small", "0"]
    assert "--c" not in fresh
    (folder / "checkpoint_final.pth").unlink()
    assert "--c" in train(folder, latest=archive()).commands[0]
    (folder / "checkpoint_final.pth").unlink()

    cut = train(folder, latest=archive()[:-200])
    assert "--c" not in cut.commands[0]
    assert "checkpoint_latest.pth: cut short by a kill; removed" in cut.notes[0]
    assert "--c" in train(folder, latest=archive()[:-200], best=archive()).commands[0]


def test_a_training_that_leaves_no_model_has_failed(nnunet_folders):
    with pytest.raises(UserError, match=r"fold_0: the training ended without checkpoint_final.pth"):
        Train(MODEL, 0, "cpu").do(FakeJob())


def test_models_that_are_there_already_are_the_runs_own_or_stay(nnunet_folders):
    own, other = Train(MODEL, 0, "cpu"), Train(MODEL, 0, "cpu", is_own=False)
    own.require_free()
    MODEL.fold_folder(0).mkdir(parents=True)
    with pytest.raises(UserError, match=r"fold_0: is there already, and not of this run; choose another 'suffix'"):
        own.require_free()
    other.require_free()
    other.discard()
    assert MODEL.fold_folder(0).exists()
    own.discard()
    assert not MODEL.fold_folder(0).exists()


def test_epochs_are_read_from_the_log():
    log = ["2026-01-01 10:00:00: ", "2026-01-01 10:00:00: Epoch 3", "2026-01-01 10:00:00: Current learning rate: 0.1"]
    assert Train(MODEL, 0, "cpu", 20).progress(log) == "epoch 4/20"
    assert Train(MODEL, 0, "cpu").progress(log) == "epoch 4"
    assert Train(MODEL, 0, "cpu").progress(["planning"]) == ""


@pytest.fixture
def scans(tmp_path, write_scan):
    for case in ("t1", "t2", "t3"):
        write_scan(tmp_path / "scans" / f"{case}_0000.nii.gz")
    return tmp_path / "scans"


def predict_case(folder, case):
    folder.mkdir(exist_ok=True)
    (folder / f"{case}.npz").write_bytes(archive())
    (folder / f"{case}.pkl").write_bytes(pickle.dumps({"spacing": (1.0, 2.0)}))
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 9, 10), np.uint8), np.eye(4)), folder / f"{case}.nii.gz")


def test_finished_predictions_are_kept_and_cut_ones_done_again(dataset, scans, tmp_path):
    output = tmp_path / "predicted"
    for case in ("t1", "t2", "t3", "t4"):
        predict_case(output, case)
    whole = (output / "t2.nii.gz").read_bytes()
    (output / "t2.nii.gz").write_bytes(whole[: len(whole) // 2])
    (output / "t3.npz").write_bytes(archive()[:-10])
    (output / "t4.pkl").write_bytes(b"")
    left = {}

    def work(words):
        left["files"] = sorted(path.name for path in output.iterdir())
        for case in ("t2", "t3"):
            predict_case(output, case)

    job = FakeJob(work)
    Predict(MODEL, (0, 1), scans, output, "cpu").do(job)
    assert left["files"] == ["t1.nii.gz", "t1.npz", "t1.pkl"]
    assert "--continue_prediction" in job.commands[0]
    assert job.commands[0][job.commands[0].index("-f") + 1 :][:2] == ["0", "1"]
    assert Predict(MODEL, (0,), scans, output, "cpu").progress([]) == "3 scans"


def test_a_scan_without_a_prediction_is_an_error(dataset, scans, tmp_path):
    with pytest.raises(UserError, match="without a prediction of t1"):
        Predict(MODEL, (0,), scans, tmp_path / "predicted", "cpu").do(FakeJob())
    with pytest.raises(UserError, match=r"no scans named CASE_0000\.nii\.gz"):
        cases_in(tmp_path, ".nii.gz")


def test_the_fold_that_was_chosen_predicts(dataset, scans, tmp_path):
    chosen = tmp_path / "choice.json"
    chosen.write_text(json.dumps({"chosen": {"2d_small": ["4", "1"]}}))
    output = tmp_path / "predicted"
    job = FakeJob(lambda words: [predict_case(output, case) for case in ("t1", "t2", "t3")])
    PredictChosen(MODEL, (), scans, output, "cpu", rank=2, chosen=chosen).do(job)
    assert job.commands[0][job.commands[0].index("-f") + 1] == "1"


def test_unlabelled_scans_are_linked(dataset, tmp_path):
    action = LinkUnlabelled(dataset, tmp_path / "scans")
    for _ in range(2):
        action.do(FakeJob())
        assert sorted(path.name for path in action.folder.iterdir()) == ["t1_0000.nii.gz", "t2_0000.nii.gz"]
        assert (action.folder / "t1_0000.nii.gz").read_bytes() == b"scan"
    action.discard()
    assert not action.folder.exists()
    assert cases_in(dataset.folder("nnUNet_raw") / "imagesTr", ".nii.gz") == ["s1", "t1", "t2"]


def write_plans(dataset, text=None):
    configurations = {"2d": {"data_identifier": "P_2d"}, "3d_fullres": {"data_identifier": "P_3d"}}
    path = dataset.folder("nnUNet_preprocessed") / "nnUNetPlans.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text or json.dumps({"configurations": configurations}))


def test_only_what_is_missing_is_planned_and_preprocessed(dataset):
    action = Prepare(dataset, ("2d", "3d_fullres"))
    job = FakeJob()
    action.do(job)
    assert [words[0] for words in job.commands] == ["nnUNetv2_plan_and_preprocess"]
    write_plans(dataset, '{"configurations"')
    action.do(job)
    assert [words[0] for words in job.commands] == ["nnUNetv2_plan_and_preprocess"] * 2

    write_plans(dataset)
    for identifier, cases in (("P_2d", ("s1", "t1", "t2")), ("P_3d", ("s1", "t1"))):
        (dataset.folder("nnUNet_preprocessed") / identifier).mkdir()
        for case in cases:
            (dataset.folder("nnUNet_preprocessed") / identifier / f"{case}.pkl").touch()
    job = FakeJob()
    action.do(job)
    ((name, *words),) = job.commands
    assert name == "nnUNetv2_preprocess"
    assert words[words.index("-c") + 1 : words.index("-np")] == ["3d_fullres"]
    (dataset.folder("nnUNet_preprocessed") / "P_3d" / "t2.pkl").touch()
    job = FakeJob()
    action.do(job)
    assert job.commands == []
    with pytest.raises(UserError, match="no configuration 3d_lowres"):
        Prepare(dataset, ("3d_lowres",)).do(job)


def test_plans_are_taken_over(dataset):
    action = Prepare(dataset, ("2d",), plans_of=Dataset(100, "Source"))
    job = FakeJob(lambda words: write_plans(dataset))
    action.do(job)
    names = ("extract_fingerprint", "move_plans_between_datasets", "preprocess")
    assert [words[0] for words in job.commands] == [f"nnUNetv2_{name}" for name in names]
    copy = dataset.folder("nnUNet_preprocessed") / "dataset.json"
    assert json.loads(copy.read_text()) == dataset.json


def test_an_ensemble_is_whole_or_absent(tmp_path):
    action = Ensemble((tmp_path / "a", tmp_path / "b"), tmp_path / "merged")

    def fail(words):
        raise UserError("killed")

    with pytest.raises(UserError, match="killed"):
        action.do(FakeJob(fail))
    assert not action.output.exists()
    action.do(FakeJob())
    assert action.output.is_dir()


def test_what_a_killed_command_left_is_removed_first(tmp_path):
    output = tmp_path / "new"
    output.mkdir()
    (output / "half").touch()
    seen = []
    NewFolder(("nnunet-da",), output).do(FakeJob(lambda words: seen.append(output.exists())))
    assert seen == [False]


def test_an_id_that_is_taken_is_refused_and_a_dataset_removed_whole(nnunet_folders):
    action = MakeDataset(("nnunet-da",), DATASET)
    action.require_free()
    (nnunet_folders.results / "Dataset101_Other").mkdir()
    with pytest.raises(UserError, match="Dataset101_Other: is there already"):
        action.require_free()
    for folder in (nnunet_folders.raw, nnunet_folders.preprocessed, nnunet_folders.results):
        (folder / "Dataset101_Spine").mkdir()
    action.discard()
    assert [path.name for path in nnunet_folders.raw.parent.rglob("Dataset*")] == ["Dataset101_Other"]


def test_a_failing_command_is_named_with_its_last_line(tmp_path):
    log = tmp_path / "step.log"
    with open(log, "w") as stream, pytest.raises(UserError) as caught:
        Job(stream, log, {}).run("nnunet-da", "configure", "-d", "7")
    assert str(caught.value) == f"nnunet-da failed with exit code 1 (log: {log}): " + (
        "nnunet-da configure: error: -c is required"
    )


def test_variables_are_set_where_the_user_has_set_none():
    assert environment_of("nnUNetv2_train", {"nnUNet_n_proc_DA": "0"})["nnUNet_n_proc_DA"] == "0"
    assert environment_of("nnUNetv2_predict", {"nnUNet_n_proc_DA": "0"})["nnUNet_n_proc_DA"] == "1"
    assert environment_of("nnUNetv2_predict", {"nnUNet_npp": "7"})["nnUNet_npp"] == "7"
    assert int(environment_of("nnUNetv2_predict", {})["nnUNet_npp"]) >= 1
