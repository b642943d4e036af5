import nibabel
import numpy as np
import pytest

from nnunet_da.cli import main


@pytest.fixture
def predictions(tmp_path, write_scan):
    """Two label maps, one with an island of structure 1 and a hole."""
    label = np.zeros((12, 12, 12), np.uint8)
    label[2:8, 2:8, 2:8] = 1
    label[4, 4, 4] = 0
    label[10, 10, 10] = 1
    label[2:5, 9:11, 2:6] = 2
    affine = np.array([[0, 0, 3.0, -5], [0, -1.5, 0, 10], [-2.0, 0, 0, 7], [0, 0, 0, 1]])
    write_scan(tmp_path / "predictions/a.nii.gz", label, affine)
    write_scan(tmp_path / "predictions/b.nii.gz", np.zeros_like(label), affine)
    (tmp_path / "predictions/dataset.json").write_text("{}")
    return tmp_path / "predictions"


def run(*arguments):
    return main(["postprocess", "-np", "1", *map(str, arguments)])


def test_islands_go_and_holes_close(predictions, tmp_path, capsys):
    assert run("-i", predictions, "-o", tmp_path / "out") == 0
    assert capsys.readouterr().out.endswith("2 label maps, 2 voxels changed\n")
    before, after = (nibabel.load(folder / "a.nii.gz") for folder in (predictions, tmp_path / "out"))
    expected = np.asarray(before.dataobj).copy()
    expected[4, 4, 4], expected[10, 10, 10] = 1, 0
    np.testing.assert_array_equal(after.dataobj, expected)
    np.testing.assert_allclose(after.affine, before.affine)
    assert after.get_data_dtype() == np.uint8
    assert run("-i", predictions, "-o", tmp_path / "open", "--radius", 0) == 0
    assert nibabel.load(tmp_path / "open/a.nii.gz").dataobj[4, 4, 4] == 0


@pytest.mark.parametrize("wrong", ["output", "format", "cut short", "negative", "radius"])
def test_refusals(predictions, tmp_path, capsys, write_scan, wrong):
    output, more = tmp_path / "out", []
    if wrong == "output":
        output = predictions
        message = "exists already; postprocessed label maps are written to a new or empty folder"
    elif wrong == "format":
        (predictions / "c.mha").touch()
        message = "c.mha: predictions must be .nii.gz or .nii"
    elif wrong == "cut short":
        path = predictions / "a.nii.gz"
        path.write_bytes(path.read_bytes()[:100])
        message = "a.nii.gz: not a readable NIfTI file, perhaps cut short"
    elif wrong == "negative":
        write_scan(predictions / "c.nii.gz", np.full((3, 3, 3), -1, np.int16))
        message = "c.nii.gz: label values must be 0 or more, but one is -1"
    else:
        more, message = ["--radius", -1], "--radius -1: must not be negative"
    assert run("-i", predictions, "-o", output, *more) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
