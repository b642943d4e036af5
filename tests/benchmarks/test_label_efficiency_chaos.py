"""The study of label efficiency on real abdomens: the scans that it writes, and a command line that is understood."""

import csv
import importlib
import json
import sys
from pathlib import Path

import pytest

from nnunet_da import cli, settings
from nnunet_da.training.augmentation import AugmentationSettings
from nnunet_da.training.configurations import PlanSettings, all_settings

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of a source distribution")
SPLITS = {"train": ["chaos_1", "chaos_2", "chaos_3"], "dev": ["chaos_3"], "test": ["chaos_4"]}


@pytest.fixture
def study(monkeypatch):
    """The benchmark as a module, which is forgotten afterwards with what it imports."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("label_efficiency_chaos")
    for name in ("label_efficiency_chaos", "spine_vb"):
        sys.modules.pop(name, None)


@pytest.fixture
def data(tmp_path):
    """Stands in for the scans of chaos_t2spir."""
    (tmp_path / "splits.json").write_text(json.dumps({"chaos_t2spir": SPLITS}))
    for kind in ("images", "labels"):
        (tmp_path / "chaos_t2spir" / kind).mkdir(parents=True)
        for case in {*SPLITS["train"], *SPLITS["test"]}:
            (tmp_path / "chaos_t2spir" / kind / f"{case}.nii.gz").write_text("scan")
    return tmp_path


def test_test_cases_stand_in_no_dataset_and_dev_cases_are_held_out(study, data, tmp_path):
    study.write_scans(data, tmp_path / "work")
    with open(tmp_path / "work" / "cases.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == SPLITS["train"]
    assert all(Path(row[column]).exists() for row in rows for column in ("image_0000", "label"))
    for name in ("dev", "test"):
        (case,) = SPLITS[name]
        assert [path.name for path in (tmp_path / "work" / name / "images").iterdir()] == [f"{case}_0000.nii.gz"]
        assert [path.name for path in (tmp_path / "work" / name / "labels").iterdir()] == [f"{case}.nii.gz"]
    study.hold_out_dev(data, tmp_path / "work")
    splits = json.loads((tmp_path / "work" / "splits_final.json").read_text(encoding="utf-8"))
    assert splits == [{"train": ["chaos_1", "chaos_2"], "val": ["chaos_3"]}]


def test_its_command_line_is_understood(study, tmp_path):
    words = [*map(str, study.words(tmp_path, tmp_path, "dev")), "-n", "4", "--set", "num_epochs=20"]
    arguments = cli.build_parser().parse_args(words)
    assert arguments.verb == "label-efficiency"
    assert arguments.numbers == [4]
    assert arguments.labels == tmp_path / "data" / "dev" / "labels"
    for assignments in (arguments.settings, [*arguments.settings, *arguments.pretraining_settings]):
        block = settings.parse_assignments(assignments)
        assert settings.build(PlanSettings, block.pop("plan"), prefix="plan.").patch_size == (128, 128)
        chosen = settings.build(all_settings(), block)
        # Left and right kidney are two structures.
        assert chosen.augmentation == AugmentationSettings("simple", (), 0.0, 0.1, 0.2, 0.03, 0.0)
