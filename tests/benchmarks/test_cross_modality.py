"""The study of translation and self-training: its configs, how it goes on with other scans, and its figure."""

import importlib
import sys
from itertools import pairwise
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
from scipy import ndimage

from nnunet_da.files import write_json
from nnunet_da.workflow.config import read_config
from nnunet_da.workflow.self_train_config import SelfTrainConfig

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of a source distribution")


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("cross_modality")
    for name in ("cross_modality", "spine_vb"):
        sys.modules.pop(name, None)


def test_configs_are_those_that_self_train_takes(study, tmp_path):
    for task in study.TASKS.values():
        for weight in (None, 0):
            write_json(study.config_of(task, 3, "test", weight), tmp_path / "run.yaml")
            config, _ = read_config(tmp_path / "run.yaml", SelfTrainConfig)
            assert config.source_only == (weight is None)
            assert config.translation.settings["seed"] == config.segmentation.settings["seed"] == 3


@pytest.mark.parametrize(("begun_with", "redo"), [(None, []), ("test", []), ("dev", ["--redo", "report"])])
def test_the_same_models_go_on_with_other_scans(study, tmp_path, monkeypatch, begun_with, redo):
    commands = []

    class Workplace:
        def __init__(self, *_, **__):
            pass

        def step(self, *_):
            pass

        def run(self, *words, **_):
            commands.append(words)
            if words[1] == "evaluate":
                report = Path(words[words.index("-o") + 1])
                report.mkdir(parents=True)
                (report / "cases.csv").write_text("case,model,dsc\na,translation,0.5\n")

    monkeypatch.setattr(study, "Workplace", Workplace)
    monkeypatch.setattr(study, "supervised", lambda *_: tmp_path / "ceiling")
    monkeypatch.setattr(study, "contrasts", lambda *_: pandas.DataFrame({"contrast": [1.0]}))
    folder = tmp_path / "fat-opp_s1" / "self_training"
    folder.mkdir(parents=True)
    if begun_with:
        write_json({"config": study.config_of(study.TASKS["fat-opp"], 1, begun_with, None)}, folder / study.RUN_FILE)
    table, of_scans = study.run("fat-opp", 1, tmp_path, tmp_path, "test", "cpu", True)
    assert of_scans.loc[0, ["task", "seed", "contrast"]].tolist() == ["fat-opp", 1, 1.0]
    (begun,) = [list(words) for words in commands if words[1] == "self-train"]
    assert begun[begun.index("cpu") + 1 :] == redo
    assert table.loc[0, ["task", "set", "seed", "dsc"]].tolist() == ["fat-opp", "test", 1, 0.5]
    (evaluated,) = [words for words in commands if words[1] == "evaluate"]
    given = [word for flag, word in pairwise(evaluated) if flag == "--pred"]
    assert [word.split("=")[0] for word in given] == [*study.ARMS, study.SUPERVISED]


def test_the_figure_has_a_panel_per_task_and_a_colour_per_seed(study, tmp_path, monkeypatch):
    rows = [
        {"task": task, "seed": seed, "case": f"{domain}1", "domain": domain, "model": model, "dsc": dsc}
        for task in ("fat-opp", "opp-fat")
        for seed in (1, 2)
        for domain in ("fat", "opp")
        for model, dsc in (("source only", 0.0), ("translation", 0.4), ("self-training", 0.6))
    ]
    path = tmp_path / "figure.svg"
    assert study.before_and_after(pandas.DataFrame(rows), path)
    text = path.read_text(encoding="utf-8")
    assert text.count(">seed 1<") == text.count(">seed 2<") == 2
    assert text.count(">fat-opp<") == text.count(">opp-fat<") == 1
    assert text.count(">Dice, translation<") == 2
    # Without self-training there is nothing to compare.
    path.unlink()
    assert not study.before_and_after(pandas.DataFrame([row for row in rows if row["model"] != "self-training"]), path)
    assert not path.exists()


def test_contrast_is_of_a_structure_and_its_rim(study):
    structure = np.zeros((20, 20, 20), bool)
    structure[8:12, 8:12, 8:12] = True
    steps = ndimage.distance_transform_cdt(~structure, metric="taxicab")
    # The voxels that touch it may hold some of it, and do not count.
    image = np.select([steps == 0, steps == 1, steps <= 4], [5.0, 100.0, 3.0])
    assert study.contrast(image, structure) == pytest.approx((5 - 3) / image.std())
    assert study.contrast(7 - 2 * image, structure) == pytest.approx((3 - 5) / image.std())


def test_contrasts_are_of_source_translation_and_target(study, tmp_path):
    label = np.zeros((12, 12, 12), np.uint8)
    label[4:8, 4:8, 4:8] = 1

    def write(path, bright):
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.where(label, bright, 10).astype(np.float32), np.eye(4)), path)
        return path

    nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), tmp_path / "label.nii.gz")
    write(tmp_path / f"nnUNet_raw/Dataset{study.SOURCE_ID + 1}_CrossingTranslated/imagesTr/fat_a_0000.nii.gz", 15)
    columns = ["case", "domain", "subject", "image_0000", "label"]
    images = {case: write(tmp_path / f"{case}.nii.gz", value) for case, value in (("fat_a", 5), ("opp_b", 20))}
    for name, labelled in (("cases.csv", "fat_a"), ("supervised.csv", "opp_b")):
        rows = [
            [case, case[:3], "a", image, tmp_path / "label.nii.gz" if case == labelled else ""]
            for case, image in images.items()
        ]
        (tmp_path / "scans").mkdir(exist_ok=True)
        study.write_csv(tmp_path / "scans" / name, columns, rows)
    found = study.contrasts(tmp_path, study.TASKS["fat-opp"])
    assert found["scans"].tolist() == ["fat", "fat as opp", "opp"]
    assert found["case"].tolist() == ["fat_a", "fat_a", "opp_b"]
    assert (np.sign(found["contrast"]) == [-1, 1, 1]).all()
    text = study.text_of_contrasts(pandas.concat([found, found]).assign(task="fat-opp", seed=1))
    assert len(text.splitlines()) == 2 + 3
    assert "| fat-opp | 1 | fat as opp | 2 | +" in text
