import gzip
import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da import scans
from nnunet_da.errors import UserError

OBLIQUE = np.array([[1.9, 0.2, 0.0, -40.0], [-0.25, 1.4, 0.1, 12.5], [0.1, -0.1, 0.99, 3.0], [0, 0, 0, 1]])


def noise(shape=(6, 7, 8), seed=0):
    return np.random.default_rng(seed).integers(-50, 1000, shape).astype(np.int16)


def itk_image(voxels):
    """A SimpleITK image of `voxels` (X, Y, Z), rotated and off the origin."""
    image = sitk.GetImageFromArray(voxels.T)
    image.SetSpacing((2.0, 1.5, 1.0))
    image.SetOrigin((10.0, -20.0, 30.5))
    image.SetDirection((0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    return image


def grid(affine, shape):
    return scans.Grid(
        tuple(shape), np.asarray(affine, float), nibabel.Nifti1Image(np.zeros(shape, np.uint8), affine).header
    )


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".mhd", ".nrrd"])
def test_every_format_gives_the_same_voxels_at_the_same_place(tmp_path, ending):
    voxels = noise()
    image = itk_image(voxels)
    path = tmp_path / f"scan{ending}"
    sitk.WriteImage(image, str(path))
    scan = scans.read_scan(path)
    np.testing.assert_array_equal(scan.voxels, voxels)
    index = (3, 5, 2)
    x, y, z = image.TransformIndexToPhysicalPoint(index)
    np.testing.assert_allclose((scan.grid.affine @ [*index, 1])[:3], (-x, -y, z), atol=1e-4)
    assert scan.is_gzipped == (ending == ".nii.gz")
    assert scan.is_plain == ending.startswith(".nii")


def test_a_dicom_series_is_read_and_a_missing_slice_seen(tmp_path, write_dicom):
    voxels = noise((6, 7, 5))
    write_dicom(slices_in(tmp_path / "whole"), voxels)
    scan = scans.read_scan(tmp_path / "whole")
    np.testing.assert_array_equal(scan.voxels, voxels)
    np.testing.assert_allclose(np.linalg.norm(scan.grid.affine[:3, :3], axis=0), (2.0, 1.5, 3.0), atol=1e-5)

    write_dicom(slices_in(tmp_path / "gap"), voxels)
    (tmp_path / "gap" / "2.dcm").unlink()
    with pytest.raises(UserError, match=r"slices are missing or unevenly spaced: 3\.00 to 6\.00 mm"):
        scans.read_scan(tmp_path / "gap")

    write_dicom(slices_in(tmp_path / "two"), voxels)
    write_dicom(slices_in(tmp_path / "two", first=10), voxels, uid="1.2.826.0.1.9")
    with pytest.raises(UserError, match="must hold one DICOM series, but holds 2"):
        scans.read_scan(tmp_path / "two")

    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="must hold one DICOM series, but holds none"):
        scans.read_scan(tmp_path / "none")


def slices_in(folder, n=5, first=0):
    return [folder / f"{first + z}.dcm" for z in range(n)]


def test_stored_values_are_rescaled_as_the_header_says(tmp_path):
    image = nibabel.Nifti1Image(noise(), np.eye(4))
    image.header.set_slope_inter(2.0, -7.0)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    expected = nibabel.load(tmp_path / "scan.nii.gz").get_fdata()
    np.testing.assert_allclose(scans.read_scan(tmp_path / "scan.nii.gz").voxels, expected)


def test_nifti_2_and_a_trailing_axis_of_one_are_read(tmp_path):
    nibabel.save(nibabel.Nifti2Image(noise(), OBLIQUE), tmp_path / "two.nii")
    assert scans.read_scan(tmp_path / "two.nii").is_plain
    nibabel.save(nibabel.Nifti1Image(noise()[..., None], OBLIQUE), tmp_path / "four.nii")
    scan = scans.read_scan(tmp_path / "four.nii")
    assert scan.voxels.shape == scan.grid.shape == (6, 7, 8)
    assert not scan.is_plain
    scans.save_nifti(scan.voxels, scan.grid, tmp_path / "three.nii.gz")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "three.nii.gz").get_fdata(), noise())
    np.testing.assert_allclose(nibabel.load(tmp_path / "three.nii.gz").affine, OBLIQUE, rtol=1e-6)


@pytest.mark.parametrize("part", [0.05, 0.5, 0.9, "last byte"])
def test_a_file_cut_short_is_seen_wherever_it_ends(tmp_path, part):
    for ending in (".nii.gz", ".nii"):
        path = tmp_path / f"scan{ending}"
        nibabel.save(nibabel.Nifti1Image(noise(), np.eye(4)), path)
        content = path.read_bytes()
        path.write_bytes(content[:-1] if part == "last byte" else content[: int(part * len(content))])
        with pytest.raises(UserError, match="cut short") as raised:
            scans.read_scan(path)
        assert "\n" not in str(raised.value)


def test_a_compressed_file_with_damaged_bytes_is_seen(tmp_path):
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(noise(), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a readable NIfTI"):
        scans.read_scan(path)


def test_voxels_that_are_no_real_numbers_are_refused(tmp_path):
    colour = np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), tmp_path / "colour.nii")
    with pytest.raises(UserError, match="must be real numbers"):
        scans.read_scan(tmp_path / "colour.nii")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4, 4, 3), np.uint8), isVector=True), str(tmp_path / "c.mha"))
    with pytest.raises(UserError, match="3 values per voxel"):
        scans.read_scan(tmp_path / "c.mha")


@pytest.mark.parametrize(
    ("column", "message"),
    [((0, 0, 0), "voxel size must be positive"), ((np.nan, 0, 0), "not finite"), ((0, 3, 0), "singular")],
)
def test_an_affine_that_is_none_is_refused(column, message):
    affine = np.diag([2.0, 1.5, 1.0, 1.0])
    affine[:3, 0] = column
    with pytest.raises(UserError, match=message):
        scans.check_affine(affine, "scan")


@given(st.sampled_from([np.uint8, np.int16, np.int32, np.float32, np.float64]), st.integers(0, 99))
def test_the_digest_tells_voxels_apart_but_not_types(dtype, seed):
    voxels = np.random.default_rng(seed).integers(0, 200, (3, 4, 5))
    assert scans.voxel_digest(voxels.astype(dtype)) == scans.voxel_digest(voxels)
    assert scans.voxel_digest(np.asfortranarray(voxels)) == scans.voxel_digest(np.ascontiguousarray(voxels))
    other = voxels.copy()
    other[1, 2, 3] += 1
    assert scans.voxel_digest(other) != scans.voxel_digest(voxels)
    assert scans.voxel_digest(voxels.transpose(2, 1, 0)) != scans.voxel_digest(voxels)


@given(st.lists(st.integers(-3, 70000), min_size=1, max_size=30))
def test_values_in_are_the_unique_values(values):
    voxels = np.array(values, np.int32).reshape(1, 1, -1)
    assert scans.values_in(voxels).tolist() == sorted(set(values))
    small = np.array([value % 100 - 50 for value in values], np.int8)
    assert scans.values_in(small).tolist() == sorted(set(small.tolist()))


@given(st.lists(st.floats(-0.05, 0.05), min_size=3, max_size=3), st.floats(-0.02, 0.02))
def test_corner_displacement_is_the_largest_over_all_corners(shift, stretch):
    shape, affine = (5, 6, 7), OBLIQUE
    other = affine.copy()
    other[:3, 3] += shift
    other[:3, 0] *= 1 + stretch
    corners = itertools.product(*[(-0.5, n - 0.5) for n in shape])
    expected = max(np.linalg.norm((affine - other) @ [*corner, 1]) for corner in corners)
    assert scans.corner_displacement(affine, other, shape) == pytest.approx(expected, abs=1e-9)


angles = st.floats(-np.pi, np.pi)


@settings(max_examples=40, deadline=None)
@given(st.tuples(angles, angles, angles), st.lists(st.floats(0.6, 3.0), min_size=3, max_size=3), st.integers(0, 2**31))
def test_resampling_takes_each_centre_to_the_voxel_it_lies_in(angles, spacing, seed):
    """Against a loop over voxels; centres within 1e-6 of a border between two voxels may fall to either side."""
    random = np.random.default_rng(seed)
    source = random.integers(0, 4, (5, 6, 4)).astype(np.uint8)
    target_affine = np.eye(4)
    target_affine[:3, :3] = rotation(*angles) * spacing
    target_affine[:3, 3] = OBLIQUE[:3, 3] + random.uniform(-6, 2, 3)
    shape = (4, 5, 6)
    resampled = scans.resample_nearest(source, OBLIQUE, grid(target_affine, shape))
    assert resampled.dtype == source.dtype
    to_source = np.linalg.inv(OBLIQUE) @ target_affine
    for index in itertools.product(*map(range, shape)):
        position = (to_source @ [*index, 1])[:3]
        if np.abs(position - np.floor(position) - 0.5).min() < 1e-6:
            continue
        nearest = np.rint(position).astype(int)
        inside = all(0 <= i < n for i, n in zip(nearest, source.shape, strict=True))
        assert resampled[index] == (source[tuple(nearest)] if inside else 0)


def rotation(a, b, c):
    def about(axis, angle):
        matrix = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        matrix[i, i] = matrix[j, j] = np.cos(angle)
        matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
        return matrix

    return about(0, a) @ about(1, b) @ about(2, c)


@pytest.mark.parametrize("codes", ["LPS", "IPR", "ASL"])
def test_a_label_that_was_turned_comes_back_exactly(codes):
    label = np.random.default_rng(3).integers(0, 5, (5, 6, 7)).astype(np.uint8)
    image = nibabel.Nifti1Image(label, OBLIQUE)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(OBLIQUE), nibabel.orientations.axcodes2ornt(codes)
    )
    turned = image.as_reoriented(turn)
    assert nibabel.aff2axcodes(turned.affine) == tuple(codes)
    back = scans.resample_nearest(np.asarray(turned.dataobj), turned.affine, grid(OBLIQUE, label.shape))
    np.testing.assert_array_equal(back, label)


def test_int64_is_stored_so_that_others_can_read_it(tmp_path):
    voxels = noise().astype(np.int64)
    scans.save_nifti(voxels, grid(np.eye(4), voxels.shape), tmp_path / "scan.nii.gz")
    assert nibabel.load(tmp_path / "scan.nii.gz").get_data_dtype() == np.int32


def test_bytes_that_are_compressed_keep_the_header(tmp_path):
    image = nibabel.Nifti1Image(noise(), OBLIQUE)
    image.header["descrip"] = b"as acquired"
    nibabel.save(image, tmp_path / "scan.nii")
    scans.copy_nifti(tmp_path / "scan.nii", tmp_path / "scan.nii.gz")
    assert gzip.decompress((tmp_path / "scan.nii.gz").read_bytes()) == (tmp_path / "scan.nii").read_bytes()
    scans.copy_nifti(tmp_path / "scan.nii.gz", tmp_path / "back.nii")
    assert (tmp_path / "back.nii").read_bytes() == (tmp_path / "scan.nii").read_bytes()
