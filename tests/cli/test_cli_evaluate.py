import json

import nibabel
import numpy as np
import pandas
import pytest

from nnunet_da.cli import main

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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": ("-np", "0")}, "-np 0: must be at least 1"),
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
