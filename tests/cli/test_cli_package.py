import zipfile

import nibabel
import numpy as np
import pytest

from nnunet_da import cli


@pytest.fixture
def folders(tmp_path, write_scan):
    """Scans of CrossMoDA 2021 as downloaded, and predictions as nnU-Net names them."""
    for case in ("crossmoda_211", "crossmoda_212"):
        write_scan(tmp_path / f"scans/target_validation/{case}_hrT2.nii.gz")
        label = np.zeros((8, 9, 10), np.int16)
        label[2:4, 3:5, 4:6] = 1
        label[5:7, 3:5, 4:6] = 2
        write_scan(tmp_path / f"predictions/{case}.nii.gz", label)
    return tmp_path


def run(*words):
    return cli.main(["package", *map(str, words)])


def test_a_zip_from_the_command_line(folders, capsys):
    words = ("-i", folders / "predictions", "--scans", folders / "scans", "-np", 1)
    assert run("crossmoda2021", *words, "-o", folders / "out.zip") == 0
    assert capsys.readouterr().out.splitlines() == [
        "note: stored as int16, now as unsigned 8-bit: 2 of 2 label maps",
        f"{folders / 'out.zip'}: 2 label maps for crossmoda2021",
    ]
    with zipfile.ZipFile(folders / "out.zip") as archive:
        assert archive.namelist() == ["crossmoda_211_Label.nii.gz", "crossmoda_212_Label.nii.gz"]
        archive.extractall(folders)
    assert set(np.unique(nibabel.load(folders / "crossmoda_211_Label.nii.gz").dataobj)) == {0, 1, 2}


def test_labels_of_a_dataset(folders, nnunet_folders, capsys):
    (nnunet_folders.raw / "Dataset007_Head").mkdir()
    (nnunet_folders.raw / "Dataset007_Head/dataset.json").write_text('{"labels": {"background": 0, "a": 1, "b": 2}}')
    words = ("-i", folders / "predictions", "--scans", folders / "scans", "-np", 1, "-o", folders / "out.zip")
    assert run("crossmoda2021", *words, "-d", 7) == 1
    assert "none of its labels (a, b) has a name of crossmoda2021" in capsys.readouterr().err
    assert run("crossmoda2021", *words, "-d", 7, "--labels", "a=2", "b=1") == 0
    with zipfile.ZipFile(folders / "out.zip") as archive:
        archive.extractall(folders)
    assert nibabel.load(folders / "crossmoda_211_Label.nii.gz").dataobj[3, 4, 5] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["crossmoda2021", "-i", "."], "(--scans is missing)"),
        (["crossmoda2021"], "which label maps? Give -i PREDICTIONS and --scans DIR, or --container"),
        (["crossmoda2021", "-m", "model"], "-m: is not for a zip; give --container"),
        (["crossmoda2021", "--postprocess"], "--postprocess: is not for a zip"),
        (["crossmoda2021", "--disable_tta"], "--disable_tta: is not for a zip"),
        (["crossmoda2021", "--container", "-m", "m", "-i", "."], "-i: is not for --container"),
        (["crossmoda2021", "--container"], "which models? Give -m MODEL_FOLDER"),
        (["crossmoda2021", "--container", "-m", "m", "--radius", "1"], "--radius 1: is of --postprocess"),
        (["crossmoda2021", "--container", "-m", "m", "--output-slug", "a"], "are for grand-challenge alone"),
        (["crossmoda2021", "--container", "-m", "absent"], "absent: no such trained model"),
        (["msd", "--container", "-m", "m"], "msd: takes no containers"),
        (["grand-challenge", "-i", ".", "--scans", "."], "grand-challenge: takes containers; give --container"),
        (["grand-challenge", "--container", "-m", "m"], "give --input-slug"),
    ],
)
def test_what_does_not_go_together(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*words, "-o", "out.zip") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())
