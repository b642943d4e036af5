import json

import nibabel
import numpy as np
import pandas
import pytest

from nnunet_da.cli import build_parser, main
from nnunet_da.evaluation import cases as evaluation_cases
from nnunet_da.evaluation.cases import Options

AFFINE = np.diag([1.0, 1, 2, 1])


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A dataset of two domains, its references, and two models: `da` finds each disc, `unet` misses the one of t1."""
    for case in ("s_1", "t_1"):
        disc = np.zeros((8, 8, 4), np.uint8)
        disc[2:6, 2:6, 1:3] = 1
        write(tmp_path / "labels" / f"{case}.nii.gz", disc)
        write(tmp_path / "da" / f"{case}.nii.gz", np.roll(disc, 1, axis=2))
        write(tmp_path / "unet" / f"{case}.nii.gz", disc if case == "s_1" else np.zeros_like(disc))
    dataset = tmp_path / "raw" / "Dataset101_Spine" / "dataset.json"
    dataset.parent.mkdir(parents=True)
    domains = {
        "s": {"labels": ["disc"], "labelled": ["s_1"], "unlabelled": []},
        "t1": {"labels": ["disc"], "labelled": [], "unlabelled": ["t_1"]},
    }
    dataset.write_text(json.dumps({"labels": {"background": 0, "disc": 1, "ignore": 2}, "domains": domains}))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(*more, models=("unet", "da"), dataset=("-d", "101"), output="report"):
    predictions = [word for model in models for word in ("--pred", f"{model}={model}")]
    return main(["evaluate", "-g", "labels", *predictions, *dataset, "-o", output, "-np", "1", *more])


def test_end_to_end(study, capsys):
    assert evaluate() == 0
    printed = capsys.readouterr().out
    assert printed.strip() == (study / "report" / "table.md").read_text(encoding="utf-8").strip()
    table = pandas.read_csv(study / "report" / "table.csv").set_index(["domain", "model"])
    assert list(table.index) == [("s", "unet"), ("s", "da"), ("t1", "unet"), ("t1", "da")]
    # The disc of two slices, moved by one slice of 2 mm.
    assert table.loc[("t1", "da"), ["dsc_mean", "hd_mm_mean", "hd_voxels_mean"]].tolist() == pytest.approx([0.5, 2, 1])
    assert table.loc[("t1", "unet"), ["dsc_mean", "missed", "hd_mm_n"]].tolist() == [0, 1, 0]
    assert table.loc[("s", "unet"), ["dsc_mean", "missed"]].tolist() == [1, 0]
    cases = pandas.read_csv(study / "report" / "cases.csv")
    assert len(cases) == 4
    assert cases["missed"].sum() == 1
    assert cases["n_reference_voxels"].tolist() == [32] * 4


def test_spawned_processes(study):
    assert evaluate() == 0
    first = (study / "report" / "cases.csv").read_bytes()
    assert evaluate("-np", "2") == 0
    assert (study / "report" / "cases.csv").read_bytes() == first


def domains_of_cases(study):
    return dict(pandas.read_csv(study / "report" / "cases.csv")[["case", "domain"]].itertuples(index=False))


def test_domains_of_cases_that_the_dataset_does_not_know(study, capsys):
    content = json.loads((study / "raw" / "Dataset101_Spine" / "dataset.json").read_text())
    del content["domains"]["t1"]
    (study / "dataset.json").write_text(json.dumps(content))
    dataset = ("--dataset-json", "dataset.json")
    assert evaluate(dataset=dataset) == 0
    assert domains_of_cases(study) == {"s_1": "s", "t_1": "all"}
    assert "1 case(s) belong to no known domain" in capsys.readouterr().err
    assert evaluate("--domain", "t1", dataset=dataset) == 0
    assert domains_of_cases(study) == {"s_1": "s", "t_1": "t1"}
    (study / "cases.csv").write_text("case,domain\nt_1,t2\n")
    assert evaluate("--cases", "cases.csv", "--domain", "t1", dataset=dataset) == 0
    assert domains_of_cases(study) == {"s_1": "s", "t_1": "t2"}


def test_missing_prediction(study, capsys):
    (study / "da" / "t_1.nii.gz").unlink()
    assert evaluate() == 1
    assert "model 'da' has no prediction for case 't_1'" in capsys.readouterr().err
    assert not (study / "report").exists()
    assert evaluate("--allow-missing") == 0
    table = pandas.read_csv(study / "report" / "table.csv").set_index(["domain", "model"])
    assert table.loc[("t1", "da"), ["dsc_mean", "missed"]].tolist() == [0, 1]


def test_files_of_others_are_not_replaced(study, capsys):
    (study / "report").mkdir()
    (study / "report" / "notes.txt").write_text("mine")
    assert evaluate() == 1
    assert "report: holds files that evaluate did not write" in capsys.readouterr().err
    assert evaluate("--overwrite") == 0
    assert (study / "report" / "notes.txt").read_text() == "mine"


def test_slices(study, capsys):
    assert evaluate("--slices", "z") == 0
    assert "slices.csv: 10 slices; left out are 6 where both masks are empty" in capsys.readouterr().err
    slices = pandas.read_csv(study / "report" / "slices.csv")
    # The disc in slices 1 and 2, predicted in 2 and 3.
    shifted = slices[(slices["case"] == "t_1") & (slices["model"] == "da")]
    assert shifted[["slice", "dsc"]].to_numpy().tolist() == [[1, 0], [2, 1], [3, 0]]
    assert evaluate() == 0
    assert not (study / "report" / "slices.csv").exists()


def test_options(study):
    assert evaluate("--empty", "penalty", "--tolerance", "2") == 0
    cases = pandas.read_csv(study / "report" / "cases.csv").set_index(["case", "model"])
    assert cases.loc[("t_1", "unet"), "hd_mm"] == pytest.approx(np.sqrt(8**2 + 8**2 + 8**2))
    assert cases.loc[("t_1", "unet"), "missed"]
    assert cases.loc[("t_1", "da"), "nsd"] == 1


def test_defaults_are_those_of_the_library():
    arguments = build_parser().parse_args(["evaluate", "-g", "a", "--pred", "m=b", "-d", "1", "-o", "c"])
    assert (arguments.tolerance, arguments.empty) == (Options().tolerance_mm, Options().empty)
    with_slices = build_parser().parse_args(["evaluate", "-g", "a", "--pred", "m=b", "-d", "1", "-o", "c", "--slices"])
    assert with_slices.slices == Options().slice_axis


def test_an_interrupted_evaluation_is_kept_until_the_report_is_written(study, monkeypatch, capsys):
    kept, work, evaluated = study / ".report.unfinished", evaluation_cases.evaluate_case, []

    def stop(case, *arguments):
        if case.name == "t_1":
            raise KeyboardInterrupt
        return work(case, *arguments)

    def count(case, *arguments):
        evaluated.append(case.name)
        return work(case, *arguments)

    monkeypatch.setattr(evaluation_cases, "evaluate_case", stop)
    assert evaluate() == 130
    assert len(list(kept.iterdir())) == 1
    assert not (study / "report").exists()
    monkeypatch.setattr(evaluation_cases, "evaluate_case", count)
    assert evaluate() == 0
    assert evaluated == ["t_1"]
    assert "1 of 2 cases were finished before" in capsys.readouterr().err
    assert not kept.exists()
    first = (study / "report" / "cases.csv").read_bytes()
    assert evaluate() == 0
    assert evaluated == ["t_1", "s_1", "t_1"]
    assert (study / "report" / "cases.csv").read_bytes() == first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": ("-np", "0")}, "-np 0: must be at least 1"),
        ({"more": ("--tolerance", "-1")}, "--tolerance -1: must be a number of mm ≥ 0"),
        ({"more": ("--tolerance", "nan")}, "--tolerance nan: must be a number of mm ≥ 0"),
        ({"more": ("--pred", "da=unet")}, "duplicate model 'da'"),
        ({"more": ("--pred", "other")}, "must be NAME=FOLDER"),
        ({"more": ("--pred", "other=absent")}, "absent: no such folder"),
        ({"more": ("--cases", "absent.csv")}, "absent.csv: cannot be read"),
        ({"dataset": ("-d", "7")}, "-d 7: no such dataset"),
        ({"dataset": ("--dataset-json", "absent.json")}, "absent.json: no such file"),
        ({"output": "labels"}, "labels: holds files that evaluate did not write"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(study, capsys, change, message):
    before = sorted(study.rglob("*"))
    assert evaluate(*change.pop("more", ()), **change) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("nnunet-da evaluate: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert sorted(study.rglob("*")) == before


def test_a_dataset_is_required(study, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate(dataset=())
    assert stop.value.code == 2
    assert "one of the arguments -d --dataset-json is required" in capsys.readouterr().err


def test_a_page_beside_the_tables_has_their_numbers(study):
    assert evaluate("--html", "--title", "Discs", "--empty", "penalty") == 0
    assert (study / "report" / "cases.csv").is_file()
    page = (study / "report" / "report.html").read_text(encoding="utf-8")
    assert "<title>Discs" in page
    assert "replaced by the worst value" in (study / "report" / "table.md").read_text(encoding="utf-8")
    # Again, into its own folder, without the page.
    assert evaluate() == 0
    assert not (study / "report" / "report.html").exists()


def test_without_references_the_page_stands_alone(study, capsys):
    words = ["evaluate", "--pred", "unet=unet", "--pred", "da=da", "-d", "101", "-o", "report", "-np", "1"]
    assert main(words) == 1
    assert "-g is required; only --html does without references" in capsys.readouterr().err
    assert not (study / "report").exists()
    assert main([*words, "--html"]) == 0
    assert [path.name for path in (study / "report").iterdir()] == ["report.html"]
    page = (study / "report" / "report.html").read_text(encoding="utf-8")
    assert "Where to doubt" in page
    assert "t_1" in page


def test_what_the_page_needs_is_checked_before_anything_is_written(study, capsys):
    assert evaluate("--html", "--fold-pred", "unt=da") == 1
    assert "'unt' is not one of the models; did you mean 'unet'" in capsys.readouterr().err
    assert evaluate("--html", "--probabilities", "unet") == 1
    assert "--probabilities unet: must be NAME=FOLDER" in capsys.readouterr().err
    assert not (study / "report").exists()
