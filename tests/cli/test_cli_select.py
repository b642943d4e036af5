"""`nnunet-da select` on folders of predictions laid out as nnU-Net writes them."""

import json

import nibabel
import numpy as np
import pytest

from nnunet_da.cli import main
from nnunet_da.raw_dataset import Case, Conversion, write_dataset

SHAPE = (10, 10, 10)
AFFINE = np.diag([2.0, 1.5, 1.0, 1.0])
CASES = {"near": ("n1", "n2"), "far": ("f1", "f2")}


def anatomy(edge=4):
    label = np.zeros(SHAPE, np.uint8)
    label[1 : 1 + edge, 2:6, 2:6] = 1
    return label


@pytest.fixture
def dataset(nnunet_folders, tmp_path, write_scan):
    """Dataset101_Spine: three labelled cases, and two domains of two unlabelled ones each."""
    source = tmp_path / "source"
    cases = [
        Case(name, "source", None, (write_scan(source / f"{name}.nii.gz", shape=SHAPE),), label)
        for name in ("a1", "a2", "a3")
        for label in [write_scan(source / f"{name}_label.nii.gz", anatomy())]
    ]
    cases += [
        Case(name, domain, None, (write_scan(source / f"{name}.nii.gz", shape=SHAPE),), None)
        for domain, names in CASES.items()
        for name in names
    ]
    write_dataset(Conversion(cases, ["T2"], {"disc": 1}), 101, "Spine", n_processes=1)
    return nnunet_folders.raw / "Dataset101_Spine"


@pytest.fixture
def predict(tmp_path):
    """``predict(name, edges)``: a folder of predictions (case → edge of what is found)."""

    def write(name, edges):
        folder = tmp_path / "predicted" / name
        folder.mkdir(parents=True)
        for case, edge in edges.items():
            nibabel.save(nibabel.Nifti1Image(anatomy(edge), AFFINE), folder / f"{case}.nii.gz")
        return folder

    return write


def select(folders, *arguments):
    words = [f"{name}={folder}" for name, folder in folders.items()]
    return main(["select", "-d", "101", "-np", "1", "--pred", *words, *map(str, arguments)])


EVERYWHERE = [case for names in CASES.values() for case in names]


def test_the_model_that_agrees_and_finds_as_much_as_in_the_source_comes_first(dataset, predict, tmp_path, capsys):
    folders = {
        "nothing": predict("nothing", dict.fromkeys(EVERYWHERE, 0)),
        "adapted": predict("adapted", dict.fromkeys(EVERYWHERE, 4)),
        "little": predict("little", dict.fromkeys(EVERYWHERE, 1)),
    }
    assert select(folders, "-o", tmp_path / "ranking.json") == 0
    assert "adapted: the first by the mean of its ranks" in capsys.readouterr().out
    content = json.loads((tmp_path / "ranking.json").read_text())
    ranking = {entry["model"]: entry for entry in content["ranking"]}
    assert next(iter(ranking)) == "adapted"
    assert ranking["adapted"]["volume"] == ranking["adapted"]["plausibility"] == 1
    assert ranking["little"]["volume"] == pytest.approx(1.5 / 4)
    assert ranking["nothing"]["volume"] == ranking["nothing"]["plausibility"] == 0
    # Label maps alone say nothing of confidence.
    assert ranking["adapted"]["confidence"] is None
    assert "indicators" not in content


def test_only_the_cases_of_the_domain_count(dataset, predict, tmp_path):
    near, far = CASES["near"], CASES["far"]
    folders = {
        "one": predict("one", dict.fromkeys(near, 4) | dict.fromkeys(far, 1)),
        "two": predict("two", dict.fromkeys(near, 1) | dict.fromkeys(far, 4)),
    }
    for domain, first in (("near", "one"), ("far", "two")):
        assert select(folders, "--domain", domain, "-o", tmp_path / "ranking.json") == 0
        assert json.loads((tmp_path / "ranking.json").read_text())["ranking"][0]["model"] == first


def test_what_learnt_from_predictions_is_tried_on_the_true_labels(dataset, predict, tmp_path, capsys):
    folders = {name: predict(name, dict.fromkeys(EVERYWHERE, edge)) for name, edge in (("few", 3), ("many", 5))}
    sources = ("a1", "a2", "a3")
    reverse = {
        "few": predict("few_reverse", dict.fromkeys(sources, 2)),
        "many": predict("many_reverse", dict.fromkeys(sources, 4)),
    }
    words = [f"{name}={folder}" for name, folder in reverse.items()]
    assert select(folders, "--reverse", *words, "-o", tmp_path / "ranking.json") == 0
    ranking = {entry["model"]: entry for entry in json.loads((tmp_path / "ranking.json").read_text())["ranking"]}
    assert {name: entry["reverse"] for name, entry in ranking.items()} == {"few": pytest.approx(4 / 6), "many": 1}
    assert "reverse" in capsys.readouterr().out
    assert select(folders, "-o", tmp_path / "without.json") == 0
    without = {entry["model"]: entry for entry in json.loads((tmp_path / "without.json").read_text())["ranking"]}
    assert without["few"]["reverse"] is None
    # It counts as every other indicator does: of four others, five with it.
    assert ranking["many"]["mean_rank"] - 1 < without["many"]["mean_rank"] - 1

    assert select(folders, "--reverse", words[0]) == 1
    assert "model 'many' is in --pred or --reverse, but not in both" in capsys.readouterr().err
    fewer = predict("fewer", {"a1": 4})
    assert select(folders, "--reverse", words[0], f"many={fewer}") == 1
    assert "the same cases with true labels" in capsys.readouterr().err
    # As many, but others.
    pairs = [
        predict(f"pair_{name}", dict.fromkeys(cases, 4)) for name, cases in (("a", ("a1", "a2")), ("b", ("a2", "a3")))
    ]
    assert select(folders, "--reverse", f"few={pairs[0]}", f"many={pairs[1]}") == 1
    assert "the same cases with true labels" in capsys.readouterr().err
    assert select(folders, "--reverse", words[0], f"many={folders['many']}") == 1
    assert "has no label map" in capsys.readouterr().err


def test_labels_tell_how_well_each_indicator_ranks_and_change_no_rank(dataset, predict, tmp_path, capsys):
    folders = {name: predict(name, dict.fromkeys(EVERYWHERE, edge)) for name, edge in (("a", 4), ("b", 3), ("c", 1))}
    labels = predict("labels", dict.fromkeys(EVERYWHERE, 1))
    assert select(folders, "--labels", labels, "-o", tmp_path / "ranking.json") == 0
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "ranking.json").read_text())
    truth = {entry["model"]: entry["dice"] for entry in content["ranking"]}
    assert truth == {"a": pytest.approx(2 / 5), "b": pytest.approx(2 / 4), "c": 1}
    # The source's volume is 4: the ranking is wrong here, and says so.
    assert content["ranking"][-1]["model"] == "c"
    assert content["indicators"]["volume"]["lost"] > 0.4
    assert "volume: rank correlation with Dice" in out
    without = select(folders, "-o", tmp_path / "without.json")
    assert without == 0
    order = [entry["model"] for entry in json.loads((tmp_path / "without.json").read_text())["ranking"]]
    assert order == [entry["model"] for entry in content["ranking"]]


def test_what_is_refused(dataset, predict, capsys):
    one = predict("one", dict.fromkeys(EVERYWHERE, 4))
    assert select({"one": one}) == 1
    assert "takes two models at least" in capsys.readouterr().err
    two = predict("two", {"n1": 4})
    assert select({"one": one, "two": two}) == 1
    assert "but not in both" in capsys.readouterr().err
    assert select({"one": one, "two": two}, "--domain", "fra") == 1
    assert "far" in capsys.readouterr().err
    assert select({"two": two, "one": one}, "--domain", "far") == 1
    assert "holds no prediction of a case of domain 'far'" in capsys.readouterr().err
