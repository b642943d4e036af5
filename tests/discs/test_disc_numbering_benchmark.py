"""The benchmark of disc numbering: what it makes, that it goes on where it stopped, its table; and real discs."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from nnunet_da.discs.localisation import localise
from nnunet_da.scans import read_scan

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NNUNET_DA_REAL_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture
def module():
    path = ROOT / "benchmarks" / "disc_numbering.py"
    if not path.exists():
        pytest.skip("benchmarks/ is not part of a source distribution")
    spec = importlib.util.spec_from_file_location("disc_numbering", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("expects", [False, True])
def test_variants_are_done_once(module, tmp_path, monkeypatch, expects):
    told = []
    monkeypatch.setattr(
        module, "localise", lambda *_, expected: told.append(expected) or localise(*_, expected=expected)
    )
    task = module.Task(3, 0, None, expects, tmp_path / "work" / "00000.json")
    row = module.run_variant(task)
    # The simulated spine of this seed has as many discs, none of which is taken away.
    assert told == [max(disc["number"] for disc in row["discs"]) if expects else None]
    assert row["corruptions"] == []
    assert row["right"]
    assert max(disc["error"] for disc in row["discs"]) < 0.01
    monkeypatch.setattr(module, "localise", None)
    assert module.run_variant(task) == row


def test_the_table_counts(module):
    def row(right, confidence, names=(), missing=False):
        disc = {"right": right, "confidence": confidence, "error": 1.0 if right else None}
        return {"right": right, "confidence": confidence, "discs": [disc] * 2, "corruptions": list(names)} | {
            "lowest_is_missing": missing
        }

    rows = [row(True, 0.9), row(True, 0.4, ["crop"]), row(False, 0.3, ["crop"], True), row(False, 0.6, ["crop"], True)]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in module.table(rows).splitlines()[2:]]
    by_name = {line[0]: line[1:] for line in lines}
    assert list(by_name) == ["all", "unspoilt", "crop", "lowest disc in the mask", "lowest disc not in the mask"]
    assert by_name["all"] == ["4", "50.0", "1/2", "50.0", "0.750", "50.0", "2/4", "50.0", "0.750", "1.00", "1.00"]
    assert by_name["crop"][:3] == ["3", "33.3", "1/2"]
    assert by_name["lowest disc not in the mask"][:5] == ["2", "0.0", "1/2", "–", "nan"]


@pytest.mark.skipif(
    not (DATA / "lumbar_discs").is_dir(), reason="the real scans are not here; NNUNET_DA_REAL_DATA names their folder"
)
@pytest.mark.parametrize("case", ["ivd_11", "ivd_20", "ivd_25"])
def test_real_discs_get_their_numbers(case):
    scan = read_scan(DATA / "lumbar_discs" / "labels" / f"{case}.nii.gz")
    found = localise(scan.voxels > 0, scan.grid.affine)
    np.testing.assert_array_equal(found.label_map, scan.voxels)
