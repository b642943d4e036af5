import csv

import nibabel
import numpy as np
import pytest

from nnunet_da.cli import main
from nnunet_da.discs.simulation import draw_discs, mean_spine
from nnunet_da.files import read_json

AFFINE = np.array([[0, 0, -3.0, 30], [0, -2.5, 0, 30], [-2.5, 0, 0, 75], [0, 0, 0, 1]])  # inferior, posterior, left
SHAPE = (85, 40, 21)


@pytest.fixture(scope="module")
def discs():
    """The lowest four discs of a simulated spine: uint8 (X, Y, Z) with the affine AFFINE."""
    label_map = draw_discs(mean_spine(), SHAPE, AFFINE)
    return np.where(label_map <= 4, label_map, 0).astype(np.uint8)


@pytest.fixture
def masks(tmp_path, discs, write_scan):
    """Masks of two cases: one binary, one with numbers of other discs."""
    write_scan(tmp_path / "masks/a.nii.gz", (discs > 0).astype(np.uint8), AFFINE)
    write_scan(tmp_path / "masks/b.nii", np.where(discs > 0, 9 - discs, 0).astype(np.int16), AFFINE)
    return tmp_path / "masks"


def run(*arguments):
    return main(["localize-discs", "-np", "1", *map(str, arguments)])


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_numbers_tables_and_pictures(masks, discs, tmp_path, capsys, write_scan):
    noise = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
    write_scan(tmp_path / "scans/a_0000.nii.gz", noise + 50 * discs, AFFINE)
    write_scan(tmp_path / "scans/b.nii.gz", noise, AFFINE)
    out = tmp_path / "out"
    assert run("-i", masks, "-o", out, "--scans", tmp_path / "scans") == 0
    assert "8 discs in 2 cases" in capsys.readouterr().out
    for case in ("a", "b"):
        image = nibabel.load(out / f"{case}.nii.gz")
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(image.dataobj, discs)
        np.testing.assert_allclose(image.affine, AFFINE)
        assert (out / f"pictures/{case}.png").read_bytes().startswith(b"\x89PNG")
    table = rows(out / "discs.csv")
    assert [(row["case"], row["disc"]) for row in table] == [(case, str(n)) for case in "ab" for n in (1, 2, 3, 4)]
    for row in table:
        voxels = np.argwhere(discs == int(row["disc"]))
        centre = AFFINE[:3, :3] @ voxels.mean(axis=0) + AFFINE[:3, 3]
        found = [float(row[f"{axis}_mm"]) for axis in ("right", "anterior", "superior")]
        np.testing.assert_allclose(found, centre, atol=0.006)
        assert float(row["volume_mm3"]) == pytest.approx(len(voxels) * 18.75, abs=0.06)
        assert 0 <= float(row["confidence"]) <= 1
        assert row["flagged"] == str(float(row["confidence"]) < 0.5)
    cases = rows(out / "cases.csv")
    assert [(row["case"], row["n_discs"], row["lowest"], row["highest"]) for row in cases] == [
        ("a", "4", "1", "4"),
        ("b", "4", "1", "4"),
    ]
    assert sorted(path.name for path in out.iterdir()) == ["a.nii.gz", "b.nii.gz", "cases.csv", "discs.csv", "pictures"]
    assert not list(tmp_path.glob(".out*"))


def test_other_formats_a_localiser_and_a_reference(discs, tmp_path, write_scan):
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray((discs > 0).astype(np.uint8).T)
    flip = np.diag([-1, -1, 1])
    spacing = np.linalg.norm(AFFINE[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((flip @ AFFINE[:3, 3]).tolist())
    image.SetDirection((flip @ AFFINE[:3, :3] / spacing).ravel().tolist())
    (tmp_path / "masks").mkdir()
    sitk.WriteImage(image, str(tmp_path / "masks/a.mha"))
    # Without the highest disc, which the intersection leaves out.
    write_scan(tmp_path / "numbered/a.nii.gz", np.where(discs < 4, discs, 0), AFFINE)
    reference = write_scan(tmp_path / "reference.nii.gz", discs, AFFINE)
    out = tmp_path / "out"
    more = ["--localizer", tmp_path / "numbered", "--reference", reference, "--n-discs", "auto"]
    assert run("-i", tmp_path / "masks", "-o", out, *more) == 0
    found = nibabel.load(out / "a.nii.gz")
    np.testing.assert_array_equal(found.dataobj, np.where(discs < 4, discs, 0))
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)


def test_it_goes_on_where_it_stopped(masks, discs, tmp_path, capsys, write_scan):
    out = tmp_path / "out"
    write_scan(masks / "c.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)
    assert run("-i", masks, "-o", out) == 1
    assert "c.nii.gz: the mask is empty" in capsys.readouterr().err
    assert not (out / "discs.csv").exists()
    kept = {path: read_json(path) for path in (tmp_path / ".out.unfinished").iterdir()}
    assert sorted(row["case"]["case"] for row in kept.values()) == ["a", "b"]
    written = (out / "a.nii.gz").stat().st_mtime_ns
    write_scan(masks / "c.nii.gz", discs, AFFINE)
    assert run("-i", masks, "-o", out, "--n-discs", 7) == 0
    assert (out / "a.nii.gz").stat().st_mtime_ns == written
    assert [row["case"] for row in rows(out / "cases.csv")] == ["a", "b", "c"]
    assert not (tmp_path / ".out.unfinished").exists()
    assert run("-i", masks, "-o", out) == 1
    assert "exists already" in capsys.readouterr().err


WRONG = {
    "not an integer": "a.nii.gz: label values must be integers",
    "negative": "a.nii.gz: label values must be 0 or more, but one is -1",
    "cut short": "a.nii.gz: not a readable NIfTI file, perhaps cut short",
    "two dimensions": "a.nii.gz: must be a 3-D scan",
    "another grid": "a.nii.gz: not on the grid of",
    "no scan": "holds no file 'b'",
    "nothing in common": "mask and localiser have no voxel in common",
    "reference": "reference.nii.gz: cannot serve as reference: it has 2 disc(s)",
    "number": "--n-discs many: must be a number from 1 to 255, or auto",
    "too many": "--n-discs 300: must be a number from 1 to 255, or auto",
    "processes": "-np 0",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_refusals(masks, discs, tmp_path, capsys, write_scan, wrong):
    path, more = masks / "a.nii.gz", []
    if wrong == "not an integer":
        write_scan(path, 0.5 * discs, AFFINE)
    elif wrong == "negative":
        write_scan(path, -(discs > 0).astype(np.int16), AFFINE)
    elif wrong == "cut short":
        path.write_bytes(path.read_bytes()[:200])
    elif wrong == "two dimensions":
        write_scan(path, discs[0], AFFINE)
    elif wrong == "another grid":
        for name in "ab":
            write_scan(tmp_path / f"scans/{name}.nii.gz", discs, AFFINE + np.diag([0, 0, 0.5, 0]))
        more = ["--scans", tmp_path / "scans"]
    elif wrong == "no scan":
        write_scan(tmp_path / "scans/a.nii.gz", discs, AFFINE)
        more = ["--scans", tmp_path / "scans"]
    elif wrong == "nothing in common":
        for name in "ab":
            write_scan(tmp_path / f"numbered/{name}.nii.gz", (discs == 0).astype(np.uint8), AFFINE)
        more = ["--localizer", tmp_path / "numbered"]
    elif wrong == "reference":
        more = ["--reference", write_scan(tmp_path / "reference.nii.gz", np.where(discs < 3, discs, 0), AFFINE)]
    else:
        more = {"number": ["--n-discs", "many"], "too many": ["--n-discs", 300], "processes": ["-np", 0]}[wrong]
    assert run("-i", masks, "-o", tmp_path / "out", *more) == 1
    error = capsys.readouterr().err
    assert WRONG[wrong] in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "discs.csv").exists()
