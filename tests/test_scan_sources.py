import pickle

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_da.errors import UserError
from nnunet_da.scan_sources import Masks, SlicePictures, Volume
from nnunet_da.scans import read_scan

AFFINE = np.array([[0, 0, 3.0, -5], [-1.5, 0, 0, 10], [0, 2.0, 0, 7], [0, 0, 0, 1]])


def save(path, voxels, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def test_a_volume_of_a_4d_file(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 999, (4, 5, 6, 2)).astype(np.int16)
    path = save(tmp_path / "prostate.nii.gz", voxels)
    scan = read_scan(Volume(path, 1, n_volumes=2))
    np.testing.assert_array_equal(scan.voxels, voxels[..., 1])
    np.testing.assert_allclose(scan.grid.affine, AFFINE)
    assert scan.grid.shape == (4, 5, 6)
    with pytest.raises(UserError, match=r"prostate\.nii\.gz: must be a 4-D scan of 3 volumes, but has the shape"):
        read_scan(Volume(path, 1, n_volumes=3))
    with pytest.raises(UserError, match=r"none\.nii: no such file"):
        read_scan(Volume(tmp_path / "none.nii", 0, 1))


def test_a_3d_file_is_one_volume(tmp_path):
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    path = save(tmp_path / "a.nii", voxels)
    np.testing.assert_array_equal(read_scan(Volume(path, 0, 1)).voxels, voxels)


def test_masks_become_one_label_map_and_the_first_counts_where_they_overlap(tmp_path):
    first, second = np.zeros((2, 4, 4, 4), np.uint8)
    first[:2], second[1:3] = 255, 1
    values = ((save(tmp_path / "L5.nii.gz", first), 7), (save(tmp_path / "L4.nii.gz", second), 300))
    scan = read_scan(Masks(tmp_path, values))
    expected = np.zeros((4, 4, 4))
    expected[:2], expected[2] = 7, 300
    np.testing.assert_array_equal(scan.voxels, expected)
    np.testing.assert_allclose(scan.grid.affine, AFFINE)


def test_a_mask_of_several_values_or_on_another_grid(tmp_path):
    mask = np.zeros((4, 4, 4), np.uint8)
    good = save(tmp_path / "good.nii", mask)
    mask[0, 0, :2] = 1, 2
    several = save(tmp_path / "several.nii", mask)
    with pytest.raises(UserError, match=r"several\.nii: must be a mask of one structure, but holds 3 different values"):
        read_scan(Masks(tmp_path, ((several, 1),)))
    moved = AFFINE.copy()
    moved[0, 3] += 1
    other = save(tmp_path / "moved.nii", mask // 2, moved)
    with pytest.raises(UserError, match=r"moved\.nii: does not lie on the grid of good\.nii"):
        read_scan(Masks(tmp_path, ((good, 1), (other, 2))))


@pytest.fixture
def abdomen(tmp_path, write_dicom):
    """A DICOM series whose file numbers run against its positions, and pictures of equal rank but other numbers."""
    voxels = np.random.default_rng(1).integers(1, 999, (6, 5, 4)).astype(np.int16)
    label = np.random.default_rng(2).choice([0, 63, 126], (6, 5, 4)).astype(np.uint8)
    (tmp_path / "Ground").mkdir()
    write_dicom([tmp_path / "dicom" / f"IMG-{20 - 3 * z}.dcm" for z in range(4)], voxels)
    for z in range(4):
        picture = sitk.GetImageFromArray(label[:, :, z].T)
        sitk.WriteImage(picture, str(tmp_path / "Ground" / f"IMG-{11 - 3 * z}.png"))
    (tmp_path / "Ground/._IMG-2.png").write_bytes(b"left by a Mac")
    return tmp_path, label


def test_pictures_lie_on_the_slices_of_equal_rank(abdomen):
    folder, label = abdomen
    source = pickle.loads(pickle.dumps(SlicePictures(folder / "Ground", folder / "dicom")))
    scan = read_scan(source)
    np.testing.assert_array_equal(scan.voxels, label)
    series = read_scan(folder / "dicom")
    np.testing.assert_allclose(scan.grid.affine, series.grid.affine)


def test_pictures_that_do_not_fit_the_series(abdomen):
    folder, _ = abdomen
    source = SlicePictures(folder / "Ground", folder / "dicom")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((9, 9), np.uint8)), str(folder / "Ground/IMG-2.png"))
    with pytest.raises(UserError, match=r"IMG-2\.png: must be a grey picture of 6 × 5 pixels, but is \(9, 9\)"):
        read_scan(source)
    (folder / "Ground/IMG-2.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"IMG-2\.png: cannot be read"):
        read_scan(source)
    (folder / "Ground/IMG-2.png").unlink()
    with pytest.raises(UserError, match=r"Ground: holds 3 pictures, but the series .*dicom has 4 slices"):
        read_scan(source)
