"""New scans through the three models of the disc pipeline; nnU-Net's part of it is played."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_da import cli
from nnunet_da.discs.simulation import draw_discs, mean_spine
from nnunet_da.errors import UserError
from nnunet_da.prediction import disc_pipeline
from nnunet_da.prediction.disc_pipeline import predict_discs

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
AFFINE[:3, 3] = (-33, -66, -115)


def truth():
    """Numbered discs of the phantom's mean spine, the lowest nine of them."""
    return draw_discs(mean_spine(), (23, 33, 84), AFFINE)


@pytest.fixture
def played(monkeypatch):
    """What the models, by their names, predict for every scan: a list of calls is returned."""
    numbered = truth()
    region = np.zeros_like(numbered)
    region[..., : int(np.argwhere(numbered == 6)[:, 2].max()) + 1] = 1
    maps = {
        "discs": (numbered > 0).astype(np.uint8),
        "region": region,
        "localizer": np.where(numbered > 7, 0, numbered).astype(np.uint8),
    }
    calls = []

    def predict(scans, output, model, **options):
        calls.append((model, options))
        output.mkdir(parents=True, exist_ok=True)
        record = {"scans": {}}
        for path in sorted(Path(scans).iterdir()):
            nibabel.save(nibabel.Nifti1Image(maps[model], AFFINE), output / path.name)
            record["scans"][path.name.split(".")[0]] = {"result": path.name}
        (output / "prediction.json").write_text(json.dumps(record))
        return record

    monkeypatch.setattr(disc_pipeline, "predict", predict)
    return calls


@pytest.fixture
def scans(tmp_path, write_scan):
    for name in ("a", "b"):
        write_scan(tmp_path / "scans" / f"{name}.nii.gz", shape=truth().shape, affine=AFFINE)
    return tmp_path / "scans"


def numbers_in(path):
    return set(np.unique(np.asarray(nibabel.load(path).dataobj)).tolist()) - {0}


def test_all_three_models_are_put_together(played, scans, tmp_path):
    out = tmp_path / "out"
    options = {"region": "region", "localizer": "localizer", "n_processes": 1}
    cases = predict_discs(scans, out, "discs", **options, device="cpu", mirroring=False)
    assert played == [(model, {"device": "cpu", "mirroring": False}) for model in ("discs", "region", "localizer")]
    assert [case["case"] for case in cases] == ["a", "b"]
    # The region ends above the sixth disc.
    found = np.asarray(nibabel.load(out / "numbered" / "a.nii.gz").dataobj)
    expected = truth()
    assert np.array_equal(found, np.where(expected > 6, 0, expected))
    assert numbers_in(out / "masks" / "b.nii.gz") == {1}
    with open(out / "numbered" / "discs.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 12
    # Once more: nothing of the earlier run is in the way.
    assert predict_discs(scans, out, "discs", **options) == cases


def test_discs_alone(played, scans, tmp_path):
    predict_discs(scans, tmp_path / "out", "discs", n_processes=1, n_discs=3)
    assert [model for model, _ in played] == ["discs"]
    assert numbers_in(tmp_path / "out/numbered/a.nii.gz") == {1, 2, 3}
    assert not (tmp_path / "out/masks").exists()


def test_other_files_are_not_touched(played, scans, tmp_path):
    for name in ("notes", "numbered"):
        (tmp_path / name / name).mkdir(parents=True)
        with pytest.raises(UserError, match="holds other files; choose a new folder"):
            predict_discs(scans, tmp_path / name, "discs")
        assert (tmp_path / name / name).is_dir()
    assert played == []


def test_the_command_refuses_what_is_no_model(scans, tmp_path, capsys):
    words = ["predict-discs", "-i", str(scans), "-o", str(tmp_path / "out"), "--discs", str(tmp_path / "absent")]
    assert cli.main(words) == 1
    assert "absent: no such trained model" in capsys.readouterr().err
    assert cli.main([*words, "-npp", "-1"]) == 1
    assert "-npp -1: must be 0 or more processes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
