"""The runner of studies: one tiny study through its real commands, and how results are put together."""

import csv
import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest

from nnunet_da.errors import UserError
from nnunet_da.phantom.study import write_study

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of a source distribution")
SCANNERS = ("philips_3t", "siemens_1p5t")


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import study

    yield study
    sys.modules.pop("study")


def write_phantoms(data, folder):
    """Two scanners, the first with labels; two test scans each."""
    write_study(folder, SCANNERS, {SCANNERS[0]: 4, SCANNERS[1]: 2}, 0, n_test=1, size=(6, 48, 48))


def tiny(study):
    schedule = {"num_epochs": 1, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1}
    plan = {"plan.patch_size": "32,32", "plan.features_per_stage": "4,8,8", "plan.batch_size": 2}
    task = study.Task("Tiny", write_phantoms, 601, ("disc=1",), ("MR",), sets=("test",), settings=schedule | plan)
    models = (
        study.Model("U-Net", "nnUNetTrainerUNet", baseline=True),
        study.Model("int", "nnUNetTrainerIntensityDA", {"pretext.batch_size": 2}, checkpoint="checkpoint_best.pth"),
    )
    return task, models


def test_a_study_runs_once_and_goes_on_with_what_is_new(study, tmp_path, monkeypatch, capsys):
    task, models = tiny(study)
    arguments = SimpleNamespace(device="cpu", jobs=1, sets=None)
    study.run_study([task], models[:1], tmp_path, tmp_path / "work", arguments)
    study.collect([task], models, tmp_path / "work")
    assert set(pandas.read_csv(tmp_path / "work" / "results.csv")["model"]) == {"U-Net"}

    # The second time only the second model is trained.
    trained = []
    original = study.Workplace.run

    def run(self, *command, **keywords):
        trained.extend(word for word in command if str(word).startswith("nnUNetTrainer") and "train" in command[0])
        return original(self, *command, **keywords)

    monkeypatch.setattr(study.Workplace, "run", run)
    arguments.jobs = 2
    study.run_study([task], models, tmp_path, tmp_path / "work", arguments)
    assert trained == ["nnUNetTrainerIntensityDA"]
    capsys.readouterr()
    study.collect([task], models, tmp_path / "work")
    printed = capsys.readouterr().out
    results = pandas.read_csv(tmp_path / "work" / "results.csv")
    assert len(results) == 2 * 2
    assert set(results["seed"]) == {1}
    assert "| siemens_1p5t | int |" in printed
    assert "| Tiny | test | philips_3t | int − U-Net |" in printed
    with open(tmp_path / "work" / "Tiny" / "data" / "cases.csv", newline="") as stream:
        assert len(list(csv.reader(stream))) == 1 + 6


def test_models_of_one_domain_and_models_per_domain(study, tmp_path):
    def write(data, folder):
        write_study(folder, SCANNERS, 3, 0, labelled=SCANNERS, n_test=1, size=(6, 48, 48))

    task, _ = tiny(study)
    task = dataclasses.replace(task, write=write)
    first = SCANNERS[0]
    models = [study.Model("Base-1", "nnUNetTrainerBase", {"multidomain.domain": first}, domain=first, row="Base")]
    models.append(study.Model("DSL", "nnUNetTrainerDSL", per_domain=True, baseline=True))
    study.run_study([task], models, tmp_path, tmp_path / "work", SimpleNamespace(device="cpu", jobs=1, sets=None))
    study.collect([task], models, tmp_path / "work")
    results = pandas.read_csv(tmp_path / "work" / "results.csv")
    expected = [("Base", first), *(("DSL", scanner) for scanner in SCANNERS)]
    assert sorted(zip(results["model"], results["domain"], strict=True)) == sorted(expected)
    assert "Base − DSL" in (tmp_path / "work" / "differences.md").read_text()
    plans = (tmp_path / "work/Tiny/runs/DSL_s1/logs").glob("*nnUNetv2_predict*")
    assert len(list(plans)) == 2


def test_a_run_that_fails_does_not_stop_the_others(study, tmp_path, monkeypatch):
    task, models = tiny(study)
    done = []

    def execute(run, *_):
        if run.model.name == "U-Net":
            raise UserError("U-Net failed")
        done.append(run.model.name)

    monkeypatch.setattr(study, "prepare", lambda *_: None)
    monkeypatch.setattr(study, "configure", lambda *_: None)
    monkeypatch.setattr(study, "execute", execute)
    with pytest.raises(UserError, match="U-Net failed"):
        study.run_study([task], models, tmp_path, tmp_path, SimpleNamespace(device="cpu", jobs=1, sets=None))
    assert done == ["int"]


def test_nothing_evaluated_is_said(study, tmp_path):
    task, models = tiny(study)
    with pytest.raises(UserError, match="nothing is evaluated yet"):
        study.collect([task], models, tmp_path)


def results(**dsc):
    """A table of results: ``results(model=[[seed 1, case by case], [seed 2]])``."""
    rows = [
        {"model": model, "domain": "t", "case": f"c{case}", "structure": "disc", "dsc": value, "seed": seed}
        for model, by_seed in dsc.items()
        for seed, values in enumerate(by_seed, start=1)
        for case, value in enumerate(values)
    ]
    return pandas.DataFrame(rows).assign(task="Spine", set="test")


def test_differences_are_paired_by_case_and_seed(study):
    table = study.differences(results(a=[[0.5, 0.7], [0.5, 0.5]], b=[[0.6, 0.9], [0.6, 0.7], [0.0, 0.0]]), ["a"])
    (row,) = [line for line in table.splitlines() if "b − a" in line]
    assert "| 2 | 2 | +0.150 | +0.100 to +0.200 | +0.150, +0.150 |" in row


def test_differences_are_from_every_baseline_and_one_case_has_no_interval(study):
    table = study.differences(results(a=[[0.5]], b=[[0.6]], c=[[0.8]]), ["a", "b"])
    rows = [line.split("|")[4:9] for line in table.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == ["b − a", "c − a", "a − b", "c − b"]
    assert [row[3].strip() for row in rows] == ["+0.100", "+0.300", "-0.100", "+0.200"]
    assert all("| – |" in line for line in table.splitlines()[2:])
