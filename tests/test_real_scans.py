"""The way of real scans through the package. They are not part of it: NNUNET_DA_REAL_DATA names their folder."""

import json
import os
import runpy
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient

from nnunet_da import cli

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("NNUNET_DA_REAL_DATA", ROOT.parent / "shared" / "data"))

pytestmark = pytest.mark.skipif(
    not (DATA / "spine_vb").is_dir(), reason="the real scans are not here; NNUNET_DA_REAL_DATA names their folder"
)


@pytest.fixture
def spine(nnunet_folders, tmp_path):
    """The spine experiment as a dataset: vb2 labelled, vb1 and vb3 not; and its folder of test scans."""
    runpy.run_path(str(ROOT / "benchmarks" / "spine_vb.py"))["write_experiment"](DATA, tmp_path / "work")
    manifest = str(tmp_path / "work" / "cases.csv")
    assert cli.main(["convert", "manifest", manifest, "-d", "101", "--name", "Spine", "--labels", "vertebra=1"]) == 0
    return nnunet_folders.raw / "Dataset101_Spine", tmp_path / "work" / "test"


def test_real_scans_are_converted_as_they_are_and_read_in_one_orientation(spine, nnunet_folders):
    folder, _ = spine
    dataset = json.loads((folder / "dataset.json").read_text())
    fixed = json.loads((DATA / "splits.json").read_text())["spine_vb"]
    for name, domain in dataset["domains"].items():
        assert sorted(domain["labelled"] + domain["unlabelled"]) == sorted(fixed[name]["train"])
    splits = json.loads((nnunet_folders.preprocessed / folder.name / "splits_final.json").read_text())
    assert sorted(case for fold in splits for case in fold["val"]) == sorted(fixed["vb2"]["train"])
    for case in ("vb1_02", "vb2_05", "vb3_01"):
        path = folder / "imagesTr" / f"{case}_0000.nii.gz"
        assert path.read_bytes() == (DATA / "spine_vb" / "images" / f"{case}.nii.gz").read_bytes()
        # Stored I-P-R; read with the axes S, A, R, as every other domain.
        array, properties = NibabelIOWithReorient().read_images([str(path)])
        stored = nibabel.load(path)
        assert array.shape[1:] == (stored.shape[0], stored.shape[1], stored.shape[2])
        assert np.allclose(properties["spacing"], [1, 1, 2], atol=0.05)
        assert np.array_equal(array[0], np.asarray(stored.dataobj, np.float32)[::-1, ::-1])
        label = np.asarray(nibabel.load(folder / "labelsTr" / f"{case}.nii.gz").dataobj)
        assert np.unique(label).tolist() == ([0, 1] if case.startswith("vb2") else [2])


def test_references_evaluated_against_themselves_are_perfect(spine, tmp_path):
    _, test = spine
    cases = ["evaluate", "-g", str(test / "labels"), "--cases", str(test / "cases.csv"), "-d", "101"]
    assert cli.main([*cases, "--pred", f"same={test / 'labels'}", "-o", str(tmp_path / "report")]) == 0
    rows = pandas.read_csv(tmp_path / "report" / "cases.csv")
    assert rows.groupby("domain").size().to_dict() == {"vb1": 4, "vb2": 3, "vb3": 11}
    assert (rows["dsc"] == 1).all()
    assert (rows["hd_mm"] == 0).all()
