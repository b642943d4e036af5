import gzip
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.errors import UserError
from nnunet_da.submission.challenges import CHALLENGES
from nnunet_da.submission.zip_file import write_submission

SHAPE = (7, 6, 5)
AFFINE = np.array([[0, 0, 1.5, -20], [-0.4, 0, 0, 31], [0, 0.41, 0, -7], [0, 0, 0, 1.0]])
CASES = ("crossmoda2021_ldn_211", "crossmoda2021_ldn_212", "crossmoda2022_etz_210")


def label_map(seed=0, shape=SHAPE, values=(0, 1, 2), dtype=np.uint8):
    return np.random.default_rng(seed).choice(values, shape).astype(dtype)


class Submission:
    """Scans and predictions of a challenge in a folder."""

    def __init__(self, folder, challenge="crossmoda2022"):
        self.folder = Path(folder)
        self.scans, self.predictions = self.folder / "scans", self.folder / "predictions"
        self.challenge = CHALLENGES[challenge]

    def scan(self, name, shape=SHAPE, affine=AFFINE):
        voxels = np.random.default_rng(1).integers(0, 900, shape).astype(np.int16)
        return self.save(self.scans / name, voxels, affine)

    def prediction(self, name, voxels=None, affine=AFFINE):
        return self.save(self.predictions / name, label_map(len(name)) if voxels is None else voxels, affine)

    @staticmethod
    def save(path, voxels, affine):
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
        return path

    def write(self, name="submission.zip", **keywords):
        output = self.folder / name
        _, self.notes = write_submission(
            self.challenge, self.predictions, self.scans, output, n_processes=1, **keywords
        )
        return output

    def refused(self, **keywords):
        """The message of a submission that is refused, which must leave nothing."""
        before = sorted(self.folder.rglob("*"))
        with pytest.raises(UserError) as refusal:
            self.write(**keywords)
        assert sorted(self.folder.rglob("*")) == before
        assert "\n" not in str(refusal.value)
        return str(refusal.value)


@pytest.fixture
def submission(tmp_path):
    made = Submission(tmp_path)
    for case in CASES:
        made.scan(f"{case}_hrT2.nii.gz")
        made.prediction(f"{case}.nii.gz", label_map(len(case)))
    return made


def content(archive):
    """Name → label map (nibabel image, whole) of a zip."""
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        return {name: nibabel.Nifti1Image.from_bytes(gzip.decompress(file.read(name))) for name in file.namelist()}


def test_every_scan_has_its_label_map_on_its_grid(submission):
    (submission.predictions / "plans.json").write_text("{}")
    (submission.predictions / "crossmoda2022_etz_210.npz").write_bytes(b"probabilities")
    maps = content(submission.write())
    assert list(maps) == [f"{case}_Label.nii.gz" for case in CASES]
    for case in CASES:
        image = maps[f"{case}_Label.nii.gz"]
        scan = nibabel.load(submission.scans / f"{case}_hrT2.nii.gz")
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(image.dataobj), label_map(len(case)))
        for field in ("srow_x", "srow_y", "srow_z", "pixdim", "quatern_b", "qoffset_x", "sform_code", "qform_code"):
            np.testing.assert_array_equal(image.header[field], scan.header[field])
    assert submission.notes == []


def test_equal_input_makes_equal_bytes_and_nothing_of_this_machine(submission):
    first = submission.write().read_bytes()
    elsewhere = Submission(submission.folder / "elsewhere")
    for case in reversed(CASES):
        # Another name, another compression, another order.
        elsewhere.scan(f"deep/{case}_hrT2.nii")
        elsewhere.prediction(f"{case}_hrT2.nii", label_map(len(case)))
    assert elsewhere.write("other.zip").read_bytes() == first
    assert str(submission.folder).encode() not in first
    with zipfile.ZipFile(submission.folder / "submission.zip") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_types_are_brought_to_bytes_and_said(submission):
    submission.prediction(f"{CASES[0]}.nii.gz", label_map(21, dtype=np.int16))
    submission.prediction(f"{CASES[1]}.nii.gz", label_map(21, dtype=np.float32))
    submission.prediction(f"{CASES[2]}.nii.gz", np.zeros(SHAPE, np.uint8))
    maps = content(submission.write())
    assert {image.get_data_dtype() for image in maps.values()} == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(np.asarray(maps[f"{CASES[1]}_Label.nii.gz"].dataobj), label_map(21))
    assert submission.notes == [
        "stored as float32, now as unsigned 8-bit: 1 of 3 label maps",
        "stored as int16, now as unsigned 8-bit: 1 of 3 label maps",
        "background alone: crossmoda2022_etz_210.nii.gz",
    ]


def test_names_of_labels_tell_the_values(submission):
    labels = {"background": 0, "cochlea": 1, "vs": 2}
    (submission.predictions / "dataset.json").write_text(json.dumps({"labels": labels}))
    image = content(submission.write())[f"{CASES[0]}_Label.nii.gz"]
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.array([0, 2, 1])[label_map(len(CASES[0]))])
    other = submission.folder / "other.json"
    other.write_text(json.dumps({"labels": {"background": 0, "vs": 1, "cochlea": 2}}))
    image = content(submission.write(dataset_json=other, overwrite=True))[f"{CASES[0]}_Label.nii.gz"]
    np.testing.assert_array_equal(np.asarray(image.dataobj), label_map(len(CASES[0])))


ELSEWHERE = AFFINE + np.array([[0, 0, 0, 0.2], *[[0] * 4] * 3])
SCALED = AFFINE @ np.diag([1.01, 1, 1, 1])
FLIPPED = AFFINE @ np.diag([-1, 1, 1, 1])


@pytest.mark.parametrize(
    ("shape", "affine", "difference"),
    [
        ((7, 6, 4), AFFINE, "shape (7, 6, 4) instead of (7, 6, 5)"),
        (SHAPE, ELSEWHERE, "origin (-19.8, 31, -7) instead of (-20, 31, -7) mm"),
        (SHAPE, SCALED, "spacing (0.404, 0.41, 1.5) instead of (0.4, 0.41, 1.5) mm"),
        (SHAPE, FLIPPED, "another direction"),
    ],
)
def test_another_grid_is_refused_with_what_differs(submission, shape, affine, difference):
    submission.prediction(f"{CASES[1]}.nii.gz", label_map(shape=shape), affine)
    message = submission.refused()
    assert f"{CASES[1]}.nii.gz: not on the grid of" in message
    assert difference in message


def test_rounding_of_headers_is_no_other_grid(submission):
    submission.prediction(f"{CASES[1]}.nii.gz", label_map(), AFFINE * (1 + 2e-5))
    image = content(submission.write())[f"{CASES[1]}_Label.nii.gz"]
    scan = nibabel.load(submission.scans / f"{CASES[1]}_hrT2.nii.gz")
    np.testing.assert_array_equal(image.affine, scan.affine)


@pytest.mark.parametrize("wrong", ["missing", "two missing", "extra", "twice", "name", "format", "empty", "no folder"])
def test_incomplete_and_left_over(submission, wrong):
    if wrong in ("missing", "two missing"):
        for case in CASES[: 1 if wrong == "missing" else 2]:
            (submission.predictions / f"{case}.nii.gz").unlink()
        more = " (and 1 more are missing)" if wrong == "two missing" else ""
        message = f"no prediction of {CASES[0]}_hrT2.nii.gz{more}"
    elif wrong == "extra":
        submission.prediction("crossmoda2022_etz_999.nii.gz")
        message = "crossmoda2022_etz_999.nii.gz: is of no scan in"
    elif wrong == "twice":
        submission.prediction(f"{CASES[0]}_Label.nii.gz")
        message = "is of the same case as"
    elif wrong == "name":
        submission.prediction("patient_1.nii.gz")
        message = (
            "patient_1.nii.gz: no prediction of crossmoda2022 is called so (expected: crossmoda2022_etz_N.nii.gz or"
        )
    elif wrong == "format":
        (submission.predictions / "crossmoda2022_etz_1.mha").touch()
        message = "must be .nii.gz or .nii"
    elif wrong == "empty":
        for path in submission.predictions.iterdir():
            path.unlink()
        message = "holds no predictions"
    else:
        submission.predictions = submission.folder / "absent"
        message = "-i " + str(submission.predictions) + ": no such folder"
    assert message in submission.refused()


def test_scans_of_another_challenge(submission):
    submission.scan("crossmoda2023_etz_1_T2.nii.gz")
    message = submission.refused()
    assert "crossmoda2023_etz_1_T2.nii.gz: no scan of crossmoda2022 is called so" in message
    assert "expected: crossmoda2022_etz_N_hrT2.nii.gz or crossmoda2022_etz_N_0000.nii.gz" in message


@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (label_map(values=(0, 3)), "has the label value 3, which is none of crossmoda2022 (0, 1, 2)"),
        (label_map(values=(0, -1), dtype=np.int16), "has the label value -1"),
        (label_map(values=(0, 256), dtype=np.uint16), "has the label value 256"),
        (label_map(values=(0, 0.5), dtype=np.float32), "label values must be integers, but one is 0.5"),
        (label_map(values=(0, np.nan), dtype=np.float32), "label values must be integers, but one is nan"),
        (label_map(shape=(*SHAPE, 2)), "must be a 3-D scan"),
    ],
)
def test_values_that_the_challenge_does_not_know(submission, voxels, message):
    submission.prediction(f"{CASES[2]}.nii.gz", voxels)
    refusal = submission.refused()
    assert f"{CASES[2]}.nii.gz: " in refusal
    assert message in refusal


def test_a_structure_of_the_dataset_alone_is_named(submission):
    labels = {"background": 0, "vs": 1, "brainstem": 2}
    (submission.predictions / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert "has the label value 2 (brainstem), which is none of crossmoda2022 (0, 1)" in submission.refused()


@pytest.mark.parametrize("where", ["predictions", "scans"])
def test_damaged_files(submission, where):
    (path,) = (submission.folder / where).glob(f"{CASES[1]}*")
    path.write_bytes(path.read_bytes()[:150])
    message = submission.refused()
    assert path.name in message
    assert "not a readable NIfTI file" in message


def test_outputs_that_cannot_be(submission, monkeypatch):
    assert "must end in .zip" in submission.refused(name="submission.tar")
    submission.write()
    before = (submission.folder / "submission.zip").read_bytes()
    assert "exists already; choose another place, or --overwrite" in submission.refused()
    (submission.predictions / f"{CASES[0]}.nii.gz").unlink()
    submission.refused(overwrite=True)
    assert (submission.folder / "submission.zip").read_bytes() == before
    submission.prediction(f"{CASES[0]}.nii.gz")
    assert "cannot be written (" in submission.refused(name="submission.zip/other.zip")
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr("nnunet_da.files.shutil.disk_usage", lambda folder: full)
    assert "the submission needs" in submission.refused(name="other.zip")


def test_tasks_of_the_decathlon_in_one_zip(tmp_path):
    made = Submission(tmp_path, "msd")
    made.scan("Task05_Prostate/imagesTs/prostate_03.nii.gz", (*SHAPE, 2))
    made.scan("Task05_Prostate/imagesTr/prostate_00.nii.gz", (*SHAPE, 2))
    made.scan("Task05_Prostate/labelsTr/prostate_00.nii.gz")
    made.scan("Task05_Prostate/imagesTs/._prostate_03.nii.gz")
    made.scan("Task02_Heart/imagesTs/la_007.nii.gz")
    made.prediction("Task05_Prostate/prostate_03.nii.gz", label_map(1))
    made.prediction("Task02_Heart/la_007.nii.gz", label_map(1, values=(0, 1)))
    maps = content(made.write())
    assert list(maps) == ["Task02_Heart/la_007.nii.gz", "Task05_Prostate/prostate_03.nii.gz"]
    assert maps["Task05_Prostate/prostate_03.nii.gz"].shape == SHAPE
    made.prediction("Task02_Heart/la_007.nii.gz", label_map(1))
    assert "has the label value 2" in made.refused(overwrite=True)


def test_one_task_of_the_decathlon(tmp_path):
    made = Submission(tmp_path, "msd")
    made.scan("imagesTs/prostate_03_0000.nii.gz")
    made.scan("imagesTs/prostate_03_0001.nii.gz")
    made.prediction("prostate_03.nii.gz", label_map(1))
    assert "which task? Give --task TaskNN_Name" in made.refused()
    assert "Task05_Prostat: is no task of msd; did you mean 'Task05_Prostate'?" in made.refused(task="Task05_Prostat")
    assert list(content(made.write(task="Task05_Prostate"))) == ["Task05_Prostate/prostate_03.nii.gz"]


def test_discs_of_the_release(tmp_path):
    made = Submission(tmp_path, "ivdm3seg")
    for contrast in ("fat", "inn", "opp", "wat"):
        made.scan(f"01/01_{contrast}.nii")
    made.scan("01/01_Labels.nii")
    made.prediction("ivdm3seg_01.nii.gz", label_map(1, values=(0, 1)))
    assert list(content(made.write())) == ["01/01_Labels.nii.gz"]


def affines():
    """Any orientation and spacing: a turned, flipped, scaled and moved grid."""
    angle = st.floats(-np.pi, np.pi)

    def build(angles, spacing, flips, order, origin):
        rotation = np.eye(3)
        for axis, value in enumerate(angles):
            step, (a, b) = np.eye(3), [i for i in range(3) if i != axis]
            step[[a, a, b, b], [a, b, a, b]] = np.cos(value), -np.sin(value), np.sin(value), np.cos(value)
            rotation = rotation @ step
        affine = np.eye(4)
        affine[:3, :3] = (rotation * flips)[:, order] * spacing
        affine[:3, 3] = origin
        return affine

    return st.builds(
        build,
        st.one_of(st.just((0.0, 0.0, 0.0)), st.tuples(angle, angle, angle)),
        st.tuples(*[st.floats(0.2, 6)] * 3),
        st.tuples(*[st.sampled_from([-1, 1])] * 3),
        st.permutations(range(3)),
        st.tuples(*[st.floats(-300, 300)] * 3),
    )


@settings(max_examples=25, deadline=None)
@given(
    affine=affines(),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    seed=st.integers(0, 2**16),
    ending=st.sampled_from([".nii.gz", ".nii"]),
    codes=st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([1, 2])),
)
def test_label_maps_come_back_on_identical_grids(affine, shape, seed, ending, codes):
    with TemporaryDirectory() as folder:
        made = Submission(folder)
        voxels = label_map(seed, shape)
        image = nibabel.Nifti1Image(np.ones(shape, np.int16), affine)
        image.set_qform(affine, codes[0])
        image.set_sform(affine, codes[1])
        made.scans.mkdir()
        nibabel.save(image, made.scans / f"{CASES[0]}_hrT2{ending}")
        made.prediction(f"{CASES[0]}.nii.gz", voxels, affine)
        archive = made.write()
        (written,) = content(archive).values()
        np.testing.assert_array_equal(np.asarray(written.dataobj), voxels)
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        scan, unpacked = (
            sitk.ReadImage(str(path))
            for path in (made.scans / f"{CASES[0]}_hrT2{ending}", made.folder / f"{CASES[0]}_Label.nii.gz")
        )
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(unpacked, name)() == getattr(scan, name)()
        assert unpacked.GetPixelID() == sitk.sitkUInt8
