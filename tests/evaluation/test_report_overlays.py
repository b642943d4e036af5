import base64
import io
import itertools
import re

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nnunet_da.errors import UserError
from nnunet_da.evaluation.label_map import read_label_map
from nnunet_da.evaluation.report.overlays import CaseFiles, contours, draw, image_of, oriented

SPACING = (3.0, 1.5, 1.0)  # along R, A, S
SHAPE = (12, 40, 60)
CODES = ["".join(code) for axes in itertools.permutations(("RL", "AP", "SI")) for code in itertools.product(*axes)]


def scan_and_label():
    """Axes R, A, S: a label box without a corner; a scan that grows brighter towards right, anterior and superior."""
    label = np.zeros(SHAPE, np.uint8)
    label[3:9, 10:30, 20:50] = 1
    label[3:9, 10:14, 20:24] = 0
    right, anterior, superior = np.indices(SHAPE, dtype=np.int16)
    return 40 * right + 12 * anterior + 8 * superior, label


def save(array, path, code="RAS"):
    """Writes an array with axes R, A, S with the axes in another order and direction, the same in space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(array, np.diag([*SPACING, 1]))
    target = nibabel.orientations.axcodes2ornt(code)
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], target)), path)
    return path


def files(folder, code="RAS", *, image=True, reference=True):
    scan, label = scan_and_label()
    return CaseFiles(
        name="case",
        values={"disc": (1,)},
        image=save(scan, folder / "case_0000.nii.gz", code) if image else None,
        reference=save(label, folder / "reference" / "case.nii.gz", code) if reference else None,
        predictions={"unet": save(np.roll(label, 1, axis=2), folder / "unet" / "case.nii.gz", code)},
    )


def points(path):
    return np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", path), dtype=float)


def pixels(panel):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(panel.image.partition(",")[2]))))


@pytest.mark.parametrize("code", CODES)
def test_planes_are_the_same_for_every_order_of_axes(tmp_path, code):
    assert len(CODES) == 48
    assert draw(files(tmp_path / code, code)) == draw(files(tmp_path / "ras"))


def test_orientation_and_scale(tmp_path):
    sagittal, coronal, axial = draw(files(tmp_path))
    assert [panel.plane for panel in (sagittal, coronal, axial)] == ["sagittal", "coronal", "axial"]
    assert [panel.letters for panel in (sagittal, coronal, axial)] == ["APSI", "RLSI", "RLAP"]
    # Every plane gets darker to the right and downwards: its left and upper edges are right, anterior or superior.
    for panel in (sagittal, coronal, axial):
        grey = pixels(panel).astype(int)
        for axis in (0, 1):
            assert (np.diff(grey, axis=axis) <= 0).all()
            assert grey.take(0, axis).mean() > grey.take(-1, axis).mean() + 10
    # A box of 6 × 20 × 30 voxels, in mm.
    for panel, size in ((sagittal, (30.0, 30.0)), (coronal, (18.0, 30.0)), (axial, (18.0, 30.0))):
        assert np.ptp(points(panel.reference), axis=0) == pytest.approx(size)
        height, width = pixels(panel).shape
        assert 0 < panel.width <= 36 * 2
        assert panel.width / width == pytest.approx(SPACING[1] if panel is sagittal else SPACING[0])
        assert panel.height / height == pytest.approx(SPACING[1] if panel is axial else SPACING[2])
    # One voxel more towards superior is 1 mm higher.
    shift = points(sagittal.reference)[:, 1].min() - points(sagittal.predictions["unet"])[:, 1].min()
    assert shift == pytest.approx(1.0)


def test_a_plane_lies_where_the_reference_is_largest(tmp_path):
    label = np.zeros(SHAPE, np.uint8)
    label[2, 5:8, 5:8] = 1
    label[7, 5:20, 5:20] = 1
    prediction = np.zeros(SHAPE, np.uint8)
    prediction[9, :, :] = 1
    paths = save(label, tmp_path / "reference.nii.gz"), save(prediction, tmp_path / "prediction.nii.gz")
    with_reference = draw(CaseFiles("case", {"disc": (1,)}, None, paths[0], {"unet": paths[1]}))
    without = draw(CaseFiles("case", {"disc": (1,)}, None, None, {"unet": paths[1]}))
    assert with_reference[0].position == "slice 8 of 12"
    assert without[0].position == "slice 10 of 12"
    assert with_reference[0].predictions["unet"] == ""
    assert without[0].reference == ""
    assert without[0].image == ""


def test_nothing_anywhere_shows_the_middle(tmp_path):
    path = save(np.zeros(SHAPE, np.uint8), tmp_path / "empty.nii.gz")
    panels = draw(CaseFiles("case", {"disc": (1,)}, None, path, {"unet": path}))
    assert [panel.position for panel in panels] == ["slice 7 of 12", "slice 21 of 40", "slice 31 of 60"]
    assert (panels[0].width, panels[0].height) == (40 * 1.5, 60 * 1.0)


def test_a_2d_scan_has_one_plane(tmp_path):
    label = np.zeros((60, 80), np.uint8)
    label[20:50, 30:60] = 1
    path = tmp_path / "case.png"
    Image.fromarray(label.T).save(path)
    (panel,) = draw(CaseFiles("case", {"disc": (1,)}, path, path, {"unet": path}))
    assert panel.plane == "axial"
    # As the file stores it: columns 20 to 49, rows 30 to 59, within a margin of 15 % of 30.
    assert pixels(panel).shape == (40, 40)
    assert np.ptp(points(panel.reference), axis=0) == pytest.approx([30, 30])


def test_files_of_other_grids_are_named(tmp_path):
    case = files(tmp_path)
    save(np.zeros((12, 40, 61), np.int16), case.image)
    with pytest.raises(UserError, match=r"case_0000.nii.gz: not on the grid of .*reference/case.nii.gz"):
        draw(case)


def test_images_are_found_by_either_name(tmp_path):
    scan, _ = scan_and_label()
    plain = save(scan, tmp_path / "one.nii.gz")
    channel = save(scan, tmp_path / "two_0000.nii")
    assert image_of(tmp_path, "one") == plain
    assert image_of(tmp_path, "two") == channel
    assert image_of(tmp_path, "three") is None


def test_oriented_gives_spacing_in_the_order_of_its_axes(tmp_path):
    _, label = scan_and_label()
    array, spacing = oriented(read_label_map(save(label, tmp_path / "case.nii.gz", "IPR")))
    assert np.array_equal(array, label)
    assert spacing == pytest.approx(SPACING)


@settings(max_examples=30, deadline=None)
@given(
    corner=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    spacing=st.tuples(st.floats(0.3, 4), st.floats(0.3, 4)),
)
def test_contours_of_a_rectangle(corner, size, spacing):
    """They run around the voxels' outer faces, but for corners cut between face midpoints; also at the border."""
    mask = np.zeros((11, 11), bool)
    mask[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]] = True
    path = contours([mask], spacing)
    assert path.count("M") == path.count("Z") == 1
    found = points(path)
    low = np.multiply(corner, spacing)
    assert found.min(axis=0) == pytest.approx(low, abs=0.006)
    assert found.max(axis=0) == pytest.approx(low + np.multiply(size, spacing), abs=0.006)


def test_contours_keep_structures_apart_and_skip_empty_ones():
    left = np.zeros((4, 6), bool)
    left[1:3, 1:3] = True
    right = np.roll(left, 2, axis=1)
    assert contours([left, np.zeros_like(left), right], (1, 1)).count("M") == 2
    assert contours([left | right], (1, 1)).count("M") == 1
    assert contours([np.zeros_like(left)], (1, 1)) == ""
