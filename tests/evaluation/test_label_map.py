import gzip

import nibabel
import numpy as np
import pytest

from nnunet_da.errors import UserError
from nnunet_da.evaluation.label_map import (
    label_maps_in,
    read_label_map,
    require_known_values,
    require_same_geometry,
)


def write(path, array, affine=None):
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 2, 3, 1]) if affine is None else affine), path)
    return path


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 3, (4, 5, 6), np.uint8)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_axes_and_spacing_are_reversed_together(tmp_path, array, ending):
    found = read_label_map(write(tmp_path / f"a{ending}", array))
    np.testing.assert_array_equal(found.array, array.transpose(2, 1, 0))
    assert found.array.flags.c_contiguous
    assert found.spacing == (3, 2, 1)


def test_spacing_of_an_oblique_scan(tmp_path, array):
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.5, 2, 3]
    found = read_label_map(write(tmp_path / "a.nii.gz", array, affine))
    assert found.spacing == pytest.approx((3, 2, 0.5))
    np.testing.assert_allclose(found.direction, turn[:, ::-1], atol=1e-6)


def test_2d_and_trailing_axes_of_one(tmp_path, array):
    assert read_label_map(write(tmp_path / "a.nii.gz", array[..., 0])).array.shape == (5, 4)
    assert read_label_map(write(tmp_path / "b.nii.gz", array[..., None])).array.shape == (6, 5, 4)
    with pytest.raises(UserError, match=r"c\.nii\.gz: a label map has 2 or 3 axes"):
        read_label_map(write(tmp_path / "c.nii.gz", np.stack([array, array], -1)))


def test_colours_are_no_labels(tmp_path):
    colours = np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    with pytest.raises(UserError, match="holds numbers"):
        read_label_map(write(tmp_path / "a.nii.gz", colours))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0, 0.05, 0.5, 0.97])
def test_truncated_files_are_refused(tmp_path, array, ending, kept):
    path = write(tmp_path / f"a{ending}", array)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match="unreadable or truncated") as error:
        read_label_map(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_checksum_is_refused(tmp_path, array):
    path = write(tmp_path / "a.nii.gz", array)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="unreadable"):
        read_label_map(path)


@pytest.mark.parametrize("content", [b"not a scan", b"x" * 1000, gzip.compress(b"y" * 1000)])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="unreadable"):
        read_label_map(path)


def test_folder_of_label_maps(tmp_path, array):
    for name in ("b.nii.gz", "a.nii", ".hidden.nii.gz"):
        write(tmp_path / name, array)
    (tmp_path / "dataset.json").write_text("{}")
    assert {case: path.name for case, path in label_maps_in(tmp_path).items()} == {"a": "a.nii", "b": "b.nii.gz"}
    write(tmp_path / "a.nii.gz", array)
    with pytest.raises(UserError, match="duplicate case 'a'"):
        label_maps_in(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        label_maps_in(tmp_path / "absent")


def moved(entry, amount):
    affine = np.diag([1.0, 2, 3, 1])
    affine[entry] += amount
    return affine


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((4, 5, 7), moved((0, 0), 0), r"shape \(4, 5, 7\) instead of \(4, 5, 6\)"),
        ((4, 5), moved((0, 0), 0), "shape"),
        ((4, 5, 6), moved((1, 1), 0.01), r"spacing \(1, 2.01, 3\) instead of \(1, 2, 3\) mm"),
        ((4, 5, 6), moved((2, 3), 0.5), r"origin \(0, 0, 0.5\) instead of \(0, 0, 0\) mm"),
        ((4, 5, 6), np.diag([1.0, -2, 3, 1]), "another direction"),
    ],
)
def test_another_grid_is_refused(tmp_path, array, shape, affine, message):
    reference = read_label_map(write(tmp_path / "reference.nii.gz", array))
    path = write(tmp_path / "prediction.nii.gz", np.zeros(shape, np.uint8), affine)
    with pytest.raises(UserError, match=message):
        require_same_geometry(read_label_map(path), reference, path, "reference.nii.gz")


def test_rounding_of_the_header_is_tolerated(tmp_path, array):
    reference = read_label_map(write(tmp_path / "reference.nii.gz", array))
    affine = moved((0, 3), 1e-4) * (1 + 1e-5)
    affine[3] = 0, 0, 0, 1
    prediction = read_label_map(write(tmp_path / "prediction.nii.gz", array, affine))
    assert prediction.spacing != reference.spacing
    require_same_geometry(prediction, reference, "prediction", "reference")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_unknown_values(tmp_path, array, dtype):
    label_map = read_label_map(write(tmp_path / "a.nii.gz", array.astype(dtype)))
    require_known_values(label_map, [0, 1, 2], "a")
    with pytest.raises(UserError, match="a: unknown label value 2; the dataset has 0, 1"):
        require_known_values(label_map, [0, 1], "a")


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_fractions_are_unknown_values(tmp_path, array, value):
    array = array.astype(np.float32)
    array[0, 0, 0] = value
    with pytest.raises(UserError, match=f"unknown label value {value}"):
        require_known_values(read_label_map(write(tmp_path / "a.nii.gz", array)), [0, 1, 2], "a")
