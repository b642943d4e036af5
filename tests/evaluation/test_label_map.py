import gzip

import nibabel
import numpy as np
import pytest

from nnunet_da.errors import UserError
from nnunet_da.evaluation.label_map import (
    files_of,
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


SITK_ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr", ".gipl", ".gipl.gz", ".vtk", ".mnc", ".h5", ".dcm", ".hdr")


def write_sitk(path, array, spacing=(1.0, 2.0, 3.0), origin=(4.0, 5.0, 6.0), direction=None, compressed=False):
    import SimpleITK

    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[: array.ndim])
    image.SetOrigin(origin[: array.ndim])
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    SimpleITK.WriteImage(image, str(path), compressed)
    return path


@pytest.mark.parametrize("ending", SITK_ENDINGS)
def test_other_formats(tmp_path, array, ending):
    found = read_label_map(write_sitk(tmp_path / f"a{ending}", array))
    np.testing.assert_array_equal(found.array, array)
    assert found.array.flags.c_contiguous
    assert found.spacing == pytest.approx((3, 2, 1))


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr", ".hdr"])
@pytest.mark.parametrize("shape", [(4, 5, 6), (5, 6)])
def test_the_grid_does_not_depend_on_the_format(tmp_path, ending, shape):
    array = np.random.default_rng(1).integers(0, 3, shape, np.uint8)
    direction = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1]])[: len(shape), : len(shape)]
    paths = [write_sitk(tmp_path / name, array, direction=direction) for name in ("a.nii.gz", f"b{ending}")]
    reference, prediction = map(read_label_map, paths)
    require_same_geometry(prediction, reference, *paths)
    np.testing.assert_array_equal(prediction.array, reference.array)
    assert np.ptp(reference.origin) > 1
    np.testing.assert_allclose(prediction.origin, reference.origin, atol=1e-5)
    np.testing.assert_allclose(prediction.direction, reference.direction, atol=1e-6)


def voxel_file(path):
    """The file that holds the voxels."""
    return max(path.parent.iterdir(), key=lambda file: file.stat().st_size)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", SITK_ENDINGS)
@pytest.mark.parametrize("kept", [0, 0.05, 0.5, 0.9])
def test_truncated_files_of_other_formats_are_refused(tmp_path, ending, kept, compressed):
    array = np.random.default_rng(1).integers(0, 3, (20, 30, 40), np.uint8)
    path = write_sitk(tmp_path / f"a{ending}", array, compressed=compressed)
    file = voxel_file(path)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match="unreadable or truncated") as error:
        read_label_map(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_text_is_refused(tmp_path, array):
    path = write_sitk(tmp_path / "a.vtk", array)
    header = path.read_bytes().partition(b"LOOKUP_TABLE")[0].replace(b"BINARY", b"ASCII")
    values = [str(value) for value in array.ravel()]
    path.write_bytes(header + b"LOOKUP_TABLE default\n" + " ".join(values).encode() + b"\n")
    np.testing.assert_array_equal(read_label_map(path).array, array)
    path.write_bytes(header + b"LOOKUP_TABLE default\n" + " ".join(values[:-5]).encode() + b"\n")
    with pytest.raises(UserError, match="unreadable or truncated"):
        read_label_map(path)


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".dcm", ".vtk", ".png", ".hdr"])
def test_files_that_are_something_else_are_refused(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"not a scan")
    with pytest.raises(UserError, match="unreadable or truncated") as error:
        read_label_map(path)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=rf"b\{ending}: "):
        read_label_map(tmp_path / f"b{ending}")


def test_vectors_are_no_labels(tmp_path):
    import SimpleITK

    colours = SimpleITK.GetImageFromArray(np.zeros((4, 5, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(colours, str(tmp_path / "a.png"))
    with pytest.raises(UserError, match=r"a\.png: a label map holds numbers"):
        read_label_map(tmp_path / "a.png")


def test_cases_are_named_without_ending_and_pictures_beside_label_maps_do_not_count(tmp_path, array):
    (tmp_path / "pictures").mkdir()
    for name in ("a.1.mha", "b.nrrd", "c.mhd", "d.nii.gz", "e.gipl.gz"):
        write_sitk(tmp_path / name, array)
    (tmp_path / "a.1.mha").rename(tmp_path / "a.1.MHA")
    for folder in (tmp_path, tmp_path / "pictures"):
        write_sitk(folder / "b.png", array[0])
    names = {case: path.name for case, path in label_maps_in(tmp_path).items()}
    assert names == {"a.1": "a.1.MHA", "b": "b.nrrd", "c": "c.mhd", "d": "d.nii.gz", "e": "e.gipl.gz"}
    assert list(label_maps_in(tmp_path / "pictures")) == ["b"]
    write_sitk(tmp_path / "b.mha", array)
    with pytest.raises(UserError, match=r"duplicate case 'b' \(also b\.mha\)"):
        label_maps_in(tmp_path)


@pytest.mark.parametrize(
    ("ending", "others"),
    [(".nii.gz", []), (".mha", []), (".mhd", ["a.raw"]), (".nhdr", ["a.raw"]), (".hdr", ["a.img"])],
)
def test_files_of_a_label_map(tmp_path, array, ending, others):
    path = write_sitk(tmp_path / f"a{ending}", array)
    assert [file.name for file in files_of(path)] == [f"a{ending}", *others]
    for name in others:
        (tmp_path / name).unlink()
        assert files_of(path) is None


@pytest.mark.parametrize(
    ("dtype", "top", "expected"),
    [(np.int16, 255, np.uint8), (np.float64, 2, np.uint8), (np.int16, 256, np.int16), (np.int16, -1, np.int16)],
)
def test_labels_are_bytes_where_that_loses_nothing(tmp_path, array, dtype, top, expected):
    array = array.astype(dtype)
    array[0, 0, 0] = top
    found = read_label_map(write(tmp_path / "a.nii.gz", array)).array
    assert found.dtype == expected
    np.testing.assert_array_equal(found, array.T)
