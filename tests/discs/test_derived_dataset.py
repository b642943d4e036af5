"""From one dataset of discs to those of the three networks: labels, splits, and what is refused."""

import csv
import json

import nibabel
import numpy as np
import pytest

from nnunet_da import cli
from nnunet_da.cli.disc_dataset import KINDS as OFFERED
from nnunet_da.discs.derived_dataset import KINDS
from nnunet_da.discs.ground_truth import spine_region

SHAPE = (10, 12, 40)
# Head down: voxel 0 along the last axis is the highest.
AFFINE = np.array([[2.0, 0, 0, -10], [0, 2.0, 0, -12], [0, 0, -3.0, 60], [0, 0, 0, 1]])
TOPS = (4, 14, 24, 34)


def discs(n=4):
    label = np.zeros(SHAPE, np.uint8)
    for z in TOPS[-n:]:
        label[3:7, 3:9, z : z + 2] = 1
    return label


@pytest.fixture
def raw(nnunet_folders, tmp_path, write_scan):
    """Dataset 130: four cases of two subjects with four discs each, the last half ignored, and one without labels."""
    rows = []
    for index in range(5):
        image = np.random.default_rng(index).normal(100, 10, SHAPE).astype(np.float32)
        path = write_scan(tmp_path / "scans" / f"c{index}.nii.gz", image, AFFINE)
        label = write_scan(tmp_path / "labels" / f"c{index}.nii.gz", discs(), AFFINE) if index < 4 else ""
        rows.append([f"c{index}", "dixon" if index < 3 else "other", f"s{index // 2}", path, label])
    with open(tmp_path / "cases.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["case", "domain", "subject", "image_0000", "label"], *rows])
    words = ["convert", "manifest", tmp_path / "cases.csv", "-d", "130", "--name", "Discs", "-np", "1"]
    assert cli.main([*map(str, words), "--labels", "disc=1", "--channels", "MR"]) == 0
    splits = nnunet_folders.preprocessed / "Dataset130_Discs" / "splits_final.json"
    # Splits of the user's own.
    splits.write_text(json.dumps([{"train": ["c0", "c1"], "val": ["c2", "c3"]}] * 2))
    return nnunet_folders.raw


def make(kind, *more, number=131):
    words = ["disc-dataset", "-d", "130", "--as", str(number), "--name", "Made", "--labels", kind, "-np", "1"]
    return cli.main([*words, *map(str, more)])


def label(raw, case, number=131):
    return np.asarray(nibabel.load(raw / f"Dataset{number}_Made" / "labelsTr" / f"{case}.nii.gz").dataobj)


def content(raw, number=131):
    return json.loads((raw / f"Dataset{number}_Made" / "dataset.json").read_text())


def test_the_command_offers_what_there_is():
    assert OFFERED == KINDS


def test_numbered_from_the_lowest(raw, nnunet_folders, capsys):
    assert make("discs-numbered", "--n-discs", 3) == 0
    assert "nnUNetv2_plan_and_preprocess -d 131" in capsys.readouterr().out
    made = content(raw)
    assert made["labels"] == {"background": 0, "L5-S1": 1, "L4-L5": 2, "L3-L4": 3, "ignore": 4}
    numbers = label(raw, "c0")
    # The last is the lowest; the fourth from below is background.
    assert [int(numbers[4, 4, z]) for z in TOPS] == [0, 3, 2, 1]
    assert np.array_equal(numbers > 0, discs(3) > 0)
    assert (label(raw, "c4") == 4).all()
    assert made["domains"]["dixon"]["labelled"] == ["c0", "c1", "c2"]
    assert made["domains"]["other"] == {**made["domains"]["other"], "labelled": ["c3"], "unlabelled": ["c4"]}
    assert made["subjects"] == {"c0": "s0", "c1": "s0", "c2": "s1", "c3": "s1", "c4": "s2"}
    splits = json.loads((nnunet_folders.preprocessed / "Dataset131_Made" / "splits_final.json").read_text())
    assert splits == [{"train": ["c0", "c1"], "val": ["c2", "c3"]}] * 2
    image = nibabel.load(raw / "Dataset131_Made/imagesTr/c1_0000.nii.gz")
    assert np.array_equal(image.dataobj, nibabel.load(raw / "Dataset130_Discs/imagesTr/c1_0000.nii.gz").dataobj)


def test_the_region_of_the_spine(raw):
    assert make("spine-region", "--margin", 4, "--link") == 0
    assert content(raw)["labels"] == {"background": 0, "spine": 1, "ignore": 2}
    expected = spine_region(discs(), (2.0, 2.0, 3.0), 4.0)
    assert np.array_equal(label(raw, "c0"), expected)
    assert expected[4, 4, 10]
    assert not expected[4, 11, 10]
    one, other = (raw / f"Dataset{name}/imagesTr/c0_0000.nii.gz" for name in ("130_Discs", "131_Made"))
    assert one.stat().st_ino == other.stat().st_ino


@pytest.fixture
def regions(tmp_path, write_scan):
    """Two folders of out-of-fold regions, which reach from the second disc on."""
    region = np.zeros(SHAPE, np.uint8)
    region[2:8, 2:10, 12:] = 1
    for fold, cases in enumerate((("c2", "c3"), ("c0", "c1"))):
        for case in cases:
            write_scan(tmp_path / f"fold_{fold}" / f"{case}.nii.gz", region, AFFINE)
        (tmp_path / f"fold_{fold}" / "summary.json").write_text("{}")
    return [tmp_path / "fold_0", tmp_path / "fold_1"], region


def test_outside_the_region_nothing_is_learnt(raw, regions):
    folders, region = regions
    assert make("discs-in-region", "--regions", *folders) == 0
    assert content(raw)["labels"] == {"background": 0, "disc": 1, "ignore": 2}
    for case in ("c0", "c3"):
        assert np.array_equal(label(raw, case), np.where(region, discs(), 2))
    assert content(raw)["numTraining"] == 5


def test_what_is_not_annotated_stays_so(raw, regions):
    """A label map with `ignore` in it: neither disc nor background in what is made of it."""
    path = raw / "Dataset130_Discs/labelsTr/c1.nii.gz"
    partly = discs()
    partly[:, :, :8] = 2
    nibabel.save(nibabel.Nifti1Image(partly, AFFINE), path)
    for number, (kind, more) in enumerate(
        [("discs-numbered", ()), ("spine-region", ()), ("discs-in-region", ("--regions", *regions[0]))], start=131
    ):
        assert make(kind, *more, number=number) == 0
        ignore = content(raw, number)["labels"]["ignore"]
        made = label(raw, "c1", number)
        assert (made[:, :, :8] == ignore).all()
        assert (made[2:8, 2:10, 14:] != ignore).all()
    assert [int(label(raw, "c1")[4, 4, z]) for z in TOPS[1:]] == [3, 2, 1]


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("discs-in-region", [], "--regions: are needed for discs-in-region, and for nothing else"),
        ("spine-region", ["--regions", "fold_0"], "--regions: are needed for discs-in-region, and for nothing else"),
        ("spine-region", ["--margin", "-1"], "--margin -1: must not be negative"),
        ("discs-numbered", ["--n-discs", "0"], "--n-discs 0: must be from 1 to 10"),
        ("discs-in-region", ["--regions", "fold_0"], "holds the region of case 'c0'; train every fold"),
        ("discs-in-region", ["--regions", "fold_0", "fold_1", "again"], "is of this case too"),
        ("discs-in-region", ["--regions", "fold_0", "elsewhere"], "c0.nii.gz: not on the grid of "),
        ("discs-in-region", ["--regions", "fold_0", "empty"], "c0.nii.gz is empty"),
    ],
)
def test_refusals(raw, regions, tmp_path, write_scan, capsys, monkeypatch, kind, more, message):
    for case in ("c0", "c1"):
        write_scan(tmp_path / "elsewhere" / f"{case}.nii.gz", regions[1], np.diag([2, 2, 3, 1]))
        write_scan(tmp_path / "empty" / f"{case}.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    write_scan(tmp_path / "again" / "c0.nii.gz", regions[1], AFFINE)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert make(kind, *more) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (raw / "Dataset131_Made").exists()


def test_a_label_map_without_a_disc_is_refused(raw, capsys):
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE), raw / "Dataset130_Discs/labelsTr/c1.nii.gz")
    assert make("discs-numbered") == 1
    assert "c1.nii.gz: the mask is empty" in capsys.readouterr().err
    assert make("discs-numbered", number=130) == 1


def test_restricted_to_the_region(regions, tmp_path, write_scan, capsys):
    for case in ("c2", "c3"):
        write_scan(tmp_path / "predictions" / f"{case}.nii.gz", discs(), AFFINE)
    write_scan(tmp_path / "fold_0" / "c3.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    words = ["restrict", "-i", tmp_path / "predictions", "--regions", tmp_path / "fold_0", "-o", tmp_path / "out"]
    assert cli.main([*map(str, words), "-np", "1"]) == 0
    out = capsys.readouterr().out
    # One disc of four in the one case, all of the other.
    assert "62.50 % of what was segmented lay outside" in out
    assert "warning: c3: its region is empty" in out
    kept = nibabel.load(tmp_path / "out" / "c2.nii.gz")
    assert np.array_equal(kept.dataobj, np.where(regions[1], discs(), 0))
    assert np.allclose(kept.affine, AFFINE)
    assert cli.main([*map(str, words), "-np", "1"]) == 1
    assert "out: exists already" in capsys.readouterr().err
    (tmp_path / "fold_0" / "c2.nii.gz").unlink()
    assert cli.main([*map(str, words[:-1]), str(tmp_path / "other"), "-np", "1"]) == 1
    assert "holds no region 'c2' for" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
