import numpy as np
import pytest

from nnunet_da.evaluation.finished import FinishedCases, fingerprint


def test_results_come_back_as_they_were(tmp_path):
    finished = FinishedCases.beside(tmp_path / "studies" / "report")
    assert finished.folder == tmp_path / "studies" / ".report.unfinished"
    assert finished.load("abc") is None
    result = {"cases": [{"dsc": 0.1 + 0.2, "hd_mm": float("nan"), "missed": True, "n": 3}]}
    finished.save("abc", result)
    found = finished.load("abc")
    assert repr(found) == repr(result)
    assert finished.load("abd") is None
    finished.clear()
    assert not finished.folder.exists()
    finished.clear()


def test_nothing_is_kept_without_a_fingerprint(tmp_path):
    finished = FinishedCases(tmp_path / "kept")
    finished.save(None, {})
    assert finished.load(None) is None
    assert not finished.folder.exists()


def test_a_fingerprint_tells_files_and_settings_apart(tmp_path):
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    for path in paths:
        path.write_bytes(b"x")
    before = fingerprint(paths, {"tolerance": 1})
    assert before == fingerprint(paths, {"tolerance": 1})
    others = [
        fingerprint(paths[::-1], {"tolerance": 1}),
        fingerprint(paths, {"tolerance": 2}),
        fingerprint([paths[0], None], {"tolerance": 1}),
    ]
    paths[1].write_bytes(b"xy")
    others.append(fingerprint(paths, {"tolerance": 1}))
    assert len({before, *others}) == 5


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_voxels_apart_from_their_header_count(tmp_path, ending):
    import SimpleITK

    path = tmp_path / f"a{ending}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((2, 3, 4), np.uint8)), str(path))
    before = fingerprint([path], {})
    (tmp_path / "a.raw").write_bytes(bytes(25))
    assert fingerprint([path], {}) not in (before, None)
    (tmp_path / "a.raw").unlink()
    assert fingerprint([path], {}) is None


def test_what_cannot_be_read_has_no_fingerprint(tmp_path):
    assert fingerprint([tmp_path / "absent.nii.gz"], {}) is None
    assert fingerprint([tmp_path / "absent.mhd"], {}) is None
