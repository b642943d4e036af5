"""The runner of studies: tiny studies through their commands (in this process), and what it does of what was asked."""

import csv
import dataclasses

import pandas
import pytest

from nnunet_da.errors import UserError
from nnunet_da.phantom.study import write_study
from nnunet_da.study import runner
from nnunet_da.study.declarations import Model, Task
from nnunet_da.study.runner import run_study
from nnunet_da.study.tables import collect
from nnunet_da.workplace import Workplace

SCANNERS = ("philips_3t", "siemens_1p5t")


def write_phantoms(data, folder):
    """Two scanners, the first with labels; two test scans each."""
    write_study(folder, SCANNERS, {SCANNERS[0]: 4, SCANNERS[1]: 2}, 0, n_test=1, size=(6, 48, 48))


def tiny():
    schedule = {"num_epochs": 1, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1}
    plan = {"plan.patch_size": "32,32", "plan.features_per_stage": "4,8,8", "plan.batch_size": 2}
    task = Task("Tiny", write_phantoms, 601, ("disc=1",), ("MR",), sets=("test",), settings=schedule | plan)
    models = (
        Model("U-Net", "nnUNetTrainerUNet", baseline=True),
        Model("int", "nnUNetTrainerIntensityDA", {"pretext.batch_size": 2}, checkpoint="checkpoint_best.pth"),
    )
    return task, models


def test_a_study_runs_once_and_goes_on_with_what_is_new(tmp_path, monkeypatch, workplace_in_process):
    task, models = tiny()
    run_study([task], models[:1], tmp_path, tmp_path / "work")
    collect([task], models, tmp_path / "work")
    assert set(pandas.read_csv(tmp_path / "work" / "results.csv")["model"]) == {"U-Net"}

    # The second time only the second model is trained.
    trained = []
    original = Workplace.run

    def run(self, *command, **keywords):
        trained.extend(word for word in command if str(word).startswith("nnUNetTrainer") and "train" in command[0])
        return original(self, *command, **keywords)

    monkeypatch.setattr(Workplace, "run", run)
    run_study([task], models, tmp_path, tmp_path / "work", jobs=2)
    assert trained == ["nnUNetTrainerIntensityDA"]
    texts = collect([task], models, tmp_path / "work")
    results = pandas.read_csv(tmp_path / "work" / "results.csv")
    assert len(results) == 2 * 2
    assert set(results["seed"]) == {1}
    assert "| siemens_1p5t | int |" in texts["table.md"]
    assert "| Tiny | test | philips_3t | int − U-Net |" in texts["differences.md"]
    with open(tmp_path / "work" / "Tiny" / "data" / "cases.csv", newline="") as stream:
        assert len(list(csv.reader(stream))) == 1 + 6


def test_models_of_one_domain_and_models_per_domain(tmp_path, workplace_in_process):
    def write(data, folder):
        write_study(folder, SCANNERS, 3, 0, labelled=SCANNERS, n_test=1, size=(6, 48, 48))

    task, _ = tiny()
    task = dataclasses.replace(task, write=write)
    first = SCANNERS[0]
    models = [Model("Base-1", "nnUNetTrainerBase", {"multidomain.domain": first}, domain=first, row="Base")]
    models.append(Model("DSL", "nnUNetTrainerDSL", per_domain=True, baseline=True))
    run_study([task], models, tmp_path, tmp_path / "work")
    collect([task], models, tmp_path / "work")
    results = pandas.read_csv(tmp_path / "work" / "results.csv")
    expected = [("Base", first), *(("DSL", scanner) for scanner in SCANNERS)]
    assert sorted(zip(results["model"], results["domain"], strict=True)) == sorted(expected)
    assert "Base − DSL" in (tmp_path / "work" / "differences.md").read_text(encoding="utf-8")
    plans = (tmp_path / "work/Tiny/runs/DSL_s1/logs").glob("*nnUNetv2_predict*")
    assert len(list(plans)) == 2


def test_a_run_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    task, models = tiny()
    done = []

    def execute(run, *_):
        if run.model.name == "U-Net":
            raise UserError("U-Net failed")
        done.append(run.model.name)

    monkeypatch.setattr(runner, "prepare", lambda *_: None)
    monkeypatch.setattr(runner, "configure", lambda *_: None)
    monkeypatch.setattr(runner, "execute", execute)
    with pytest.raises(UserError, match="U-Net failed"):
        run_study([task], models, tmp_path, tmp_path)
    assert done == ["int"]


def test_what_is_restricted_is_evaluated(tmp_path):
    """Of a task that restricts predictions, what is evaluated is what `restrict` wrote."""

    asked, commands = [], []

    class Played(Workplace):
        def run(self, *command, **_):
            commands.append([str(word) for word in command])

    task = dataclasses.replace(tiny()[0], restrict=lambda *arguments: asked.append(arguments))
    (run,) = runner.runs_of(task, tiny()[1][:1], tmp_path)
    place = Played(tmp_path / "run", "cpu", nnunet_folder=tmp_path)
    runner.execute(run, place)
    predicted, restricted = (place.folder / name for name in ("test", "test_restricted"))
    assert asked == [(place, tmp_path, "test", predicted, restricted)]
    assert f"U-Net={restricted}" in commands[-1]
    assert str(predicted) in commands[-2]
