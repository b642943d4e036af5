"""Studies with folds: which runs they make, what each run is evaluated on, and how the folds are joined.

No command is run: what it would leave behind is written in its place.
"""

import csv
import json
from itertools import pairwise
from pathlib import Path

import pytest

from nnunet_da.errors import UserError
from nnunet_da.splits import leave_one_out
from nnunet_da.study import runner
from nnunet_da.study.declarations import Model, Task
from nnunet_da.study.runner import run_study
from nnunet_da.study.tables import collect, read_results
from nnunet_da.workplace import Workplace

CASES = {"a": [f"a{n}" for n in range(4)], "b": [f"b{n}" for n in range(3)]}
# One fold more than b has subjects: its model of its own has nothing to test there.
MODELS = (
    Model("Base-a", "nnUNetTrainerBase", domain="a", row="Base"),
    Model("Base-b", "nnUNetTrainerBase", domain="b", row="Base"),
    Model("DSL", "nnUNetTrainerDSL", per_domain=True, baseline=True),
)


def write_scans(data, folder):
    for kind, ending in (("images", "_0000.nii.gz"), ("labels", ".nii.gz")):
        (folder / "test" / kind).mkdir(parents=True)
        for cases in CASES.values():
            for case in cases:
                (folder / "test" / kind / f"{case}{ending}").touch()
    rows = [[case, domain] for domain, cases in CASES.items() for case in cases]
    with open(folder / "test" / "cases.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["case", "domain"], *rows])


def task(**changes):
    arguments = {"sets": ("test",), "folds": leave_one_out, "slices": True} | changes
    return Task("Tiny", write_scans, 601, ("disc=1",), ("MR",), **arguments)


class Commands:
    """Stands in for the commands: writes what the runner reads of theirs, and keeps the words of each."""

    def __init__(self):
        self.given = []

    def run(self, place, *words, **_):
        words = [str(word) for word in words]
        self.given.append(words)
        flags = dict(pairwise(words))
        if words[:2] == ["nnunet-da", "convert"]:
            domains = {name: {"labels": ["disc"], "labelled": cases, "unlabelled": []} for name, cases in CASES.items()}
            raw = place.nnunet_folder / "nnUNet_raw" / "Dataset601_Tiny"
            raw.mkdir(parents=True)
            (raw / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "disc": 1}, "domains": domains}))
            (place.nnunet_folder / "nnUNet_preprocessed" / "Dataset601_Tiny").mkdir(parents=True)
        if words[:2] == ["nnunet-da", "evaluate"]:
            self.evaluate(flags)

    @staticmethod
    def evaluate(flags):
        """Dice 0.5 of Base, 0.75 of all others."""
        with open(flags["--cases"], newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert {path.name for path in Path(flags["-g"]).iterdir()} == {f"{row['case']}.nii.gz" for row in rows}
        model = flags["--pred"].split("=")[0]
        dsc = 0.5 if model == "Base" else 0.75
        Path(flags["-o"]).mkdir(parents=True)
        for name, columns, values in (
            ("cases.csv", "dsc,missed,false", f"{dsc},0,0"),
            ("slices.csv", "slice,dsc,sensitivity,specificity", f"0,{dsc},{dsc},1"),
        ):
            lines = [f"{model},{row['domain']},{row['case']},disc,{values}" for row in rows]
            Path(flags["-o"], name).write_text("\n".join([f"model,domain,case,structure,{columns}", *lines]) + "\n")

    def of(self, name):
        return [words for words in self.given if words[0] == name]


@pytest.fixture
def commands(monkeypatch):
    stand_in = Commands()
    monkeypatch.setattr(Workplace, "run", lambda place, *words, **others: stand_in.run(place, *words, **others))
    monkeypatch.setattr(runner, "configure", lambda *_: None)
    return stand_in


def test_each_case_is_tested_once_by_each_model(commands, tmp_path):
    run_study([task()], MODELS, tmp_path, tmp_path / "work")
    results = read_results([task()], MODELS, tmp_path / "work")
    for _, rows in results.groupby("model"):
        assert sorted(rows["case"]) == sorted(case for cases in CASES.values() for case in cases)
    assert dict(zip(results["case"], results["fold"], strict=True)) == {
        case: index for cases in CASES.values() for index, case in enumerate(cases)
    }
    trained = [(words[2], words[3]) for words in commands.of("nnUNetv2_train")]
    assert len(trained) == 4 + 3 + 4
    assert ("2d_Base-b_s1_f2", "2") in trained
    assert ("2d_Base-b_s1_f3", "3") not in trained
    # Fold by fold, so that those that are done hold all models.
    assert [fold for _, fold in trained] == sorted(fold for _, fold in trained)


def test_a_run_predicts_the_scans_of_its_fold_with_the_model_of_their_domain(commands, tmp_path):
    run_study([task()], MODELS, tmp_path, tmp_path / "work")
    scans = {}
    for words in commands.of("nnUNetv2_predict"):
        flags = dict(pairwise(words))
        assert flags["-f"] == flags["-c"][-1]
        scans[flags["-c"], flags.get("-p")] = [path.name for path in Path(flags["-i"]).iterdir()]
    assert scans["2d_Base-a_s1_f1", None] == ["a1_0000.nii.gz"]
    assert scans["2d_DSL_s1_f1", "nnUNetPlans_a"] == ["a1_0000.nii.gz"]
    assert scans["2d_DSL_s1_f1", "nnUNetPlans_b"] == ["b1_0000.nii.gz"]
    assert ("2d_DSL_s1_f3", "nnUNetPlans_b") not in scans
    exports = [words for words in commands.of("nnunet-da") if words[1] == "export"]
    assert [words[words.index("-f") + 1] for words in exports] == ["0", "1", "2", "3"]


def test_nnunet_is_given_the_splits_without_their_test_cases(commands, tmp_path):
    run_study([task()], MODELS[:1], tmp_path, tmp_path / "work")
    folder = tmp_path / "work" / "Tiny"
    splits = json.loads((folder / "nnUNet_preprocessed/Dataset601_Tiny/splits_final.json").read_text(encoding="utf-8"))
    assert len(splits) == 4
    assert splits[0] == {"train": ["a2", "a3", "b2"], "val": ["a1", "b1"]}
    assert json.loads((folder / "splits.json").read_text(encoding="utf-8"))[0]["test"] == ["a0", "b0"]


def test_the_tables_join_the_folds(commands, tmp_path):
    run_study([task()], MODELS, tmp_path, tmp_path / "work")
    texts = collect([task()], MODELS, tmp_path / "work")
    assert "| a | Base | 4 | 0.500 ± 0.000 |" in texts["table.md"]
    assert "| b | DSL | 3 | **0.750 ± 0.000** |" in texts["table.md"]
    assert "| Tiny | test | a | Base − DSL | 4 | 1 | -0.250 |" in texts["differences.md"]
    # Seven slices, all of one value in either: p of complete separation is 2 / C(14, 7).
    assert "## Tiny, test, seed 1, against DSL" in texts["slices.md"]
    assert "5.8e−4" in texts["slices.md"]
    assert (tmp_path / "work" / "slices.csv").exists()


def test_slices_of_models_that_lack_a_fold_are_not_compared(commands, tmp_path):
    run_study([task()], MODELS, tmp_path, tmp_path / "work", folds=[0])
    run_study([task()], MODELS[2:], tmp_path, tmp_path / "work", folds=[1])
    assert collect([task()], MODELS, tmp_path / "work")["slices.md"] == ""
    run_study([task()], MODELS, tmp_path, tmp_path / "work", folds=[1])
    assert "| Method | Base | DSL |" in collect([task()], MODELS, tmp_path / "work")["slices.md"]


def test_some_folds_of_a_study(commands, tmp_path):
    run_study([task()], MODELS, tmp_path, tmp_path / "work", folds=[3])
    assert [words[2] for words in commands.of("nnUNetv2_train")] == ["2d_Base-a_s1_f3", "2d_DSL_s1_f3"]
    assert set(read_results([task()], MODELS, tmp_path / "work")["case"]) == {"a3"}
    with pytest.raises(UserError, match=r"fold 4: not in this study \(0, 1, 2, 3\)"):
        run_study([task()], MODELS, tmp_path, tmp_path / "work", folds=[4])
    with pytest.raises(UserError, match=r"set dev: not in this study \(test\)"):
        run_study([task()], MODELS, tmp_path, tmp_path / "work", sets=["dev"])


def test_folds_of_fixed_test_cases(commands, tmp_path):
    """Splits that name no cases to test are all evaluated on all scans; a case then counts once, with its mean."""

    def draws(domains):
        return [{"train": [case], "val": ["b0"]} for case in ("a0", "a1")]

    models = [Model("U-Net", "nnUNetTrainerUNet")]
    run_study([task(folds=draws)], models, tmp_path, tmp_path / "work")
    results = read_results([task(folds=draws)], models, tmp_path / "work")
    assert len(results) == 2 * 7
    assert set(results["fold"]) == {0, 1}
    assert "| a | U-Net | 4 | 0.750" in collect([task(folds=draws)], models, tmp_path / "work")["table.md"]


def test_a_fold_cannot_test_a_case_without_scan(commands, tmp_path):
    def folds(domains):
        return [{"train": ["a0"], "val": ["b0"], "test": ["a1", "c9"]}]

    with pytest.raises(UserError, match=r"test/cases\.csv: case 'c9' is absent, which a fold is to test"):
        run_study([task(folds=folds)], MODELS, tmp_path, tmp_path / "work")
    assert not commands.of("nnUNetv2_train")


def test_a_study_evaluated_without_slices_is_evaluated_again_and_nothing_else(commands, tmp_path):
    run_study([task(folds=None, slices=False)], MODELS, tmp_path, tmp_path / "work")
    assert not any("--slices" in words for words in commands.of("nnunet-da"))
    commands.given.clear()
    for report in (tmp_path / "work").glob("Tiny/runs/*/test_report"):
        report.rename(report.with_name("earlier"))
    run_study([task(folds=None)], MODELS, tmp_path, tmp_path / "work")
    assert [words[1] for words in commands.given] == ["evaluate"] * 3
    assert all("--slices" in words for words in commands.given)
    assert {path.name for path in (tmp_path / "work/Tiny/runs").iterdir()} == {"Base-a_s1", "Base-b_s1", "DSL_s1"}
