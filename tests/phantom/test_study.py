import csv
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from nnunet_da.errors import UserError
from nnunet_da.phantom.scanner import SCANNERS
from nnunet_da.phantom.study import simulate_case, write_study

SIZE = (6, 48, 64)


def read_manifest(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def files(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.nii.gz")}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "study"
    write_study(folder, ["philips_3t", "ge_t1"], {"philips_3t": 2, "ge_t1": 1}, seed=7, n_test=1, size=SIZE)
    return folder


def test_manifest_names_every_training_file(study):
    rows = read_manifest(study / "cases.csv")
    assert list(rows[0]) == ["case", "domain", "subject", "image_0000", "label"]
    assert [row["domain"] for row in rows] == ["philips_3t", "philips_3t", "ge_t1"]
    assert len({row["case"] for row in rows}) == len({row["subject"] for row in rows}) == 3
    named = {row[column] for row in rows for column in ("image_0000", "label")} - {""}
    assert named == {name for name in files(study) if not name.startswith("test/")}
    assert [bool(row["label"]) for row in rows] == [True, True, False]


def test_test_cases_are_named_for_nnunet_and_all_labelled(study):
    expected = {
        name
        for scanner in ("philips_3t", "ge_t1")
        for name in (f"images/{scanner}_test_001_0000.nii.gz", f"labels/{scanner}_test_001.nii.gz")
    }
    assert set(files(study / "test")) == expected
    rows = read_manifest(study / "test" / "cases.csv")
    assert rows == [{"case": f"{scanner}_test_001", "domain": scanner} for scanner in ("philips_3t", "ge_t1")]


def test_images_and_labels_share_grid_and_type(study):
    for place, scanner, case in [("philips_3t", "philips_3t", "philips_3t_001"), ("test", "ge_t1", "ge_t1_test_001")]:
        image = nibabel.load(study / place / "images" / f"{case}_0000.nii.gz")
        label = nibabel.load(study / place / "labels" / f"{case}.nii.gz")
        assert image.shape == label.shape
        np.testing.assert_array_equal(image.affine, label.affine)
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert np.unique(label.dataobj).tolist() == [0, 1]
        assert "".join(nibabel.aff2axcodes(image.affine)) == SCANNERS[scanner].axcodes


def test_a_case_depends_on_seed_scanner_and_number_alone(study, tmp_path):
    write_study(tmp_path / "other", ["ge_t1", "philips_3t"], 1, seed=7, labelled=["ge_t1", "philips_3t"], size=SIZE)
    for name, path in files(tmp_path / "other").items():
        if name in files(study):
            np.testing.assert_array_equal(nibabel.load(path).dataobj, nibabel.load(study / name).dataobj)
    assert "ge_t1/labels/ge_t1_001.nii.gz" in files(tmp_path / "other")


def test_cases_seeds_and_test_cases_differ():
    scanner = SCANNERS["ge_t1"]
    scans = [
        simulate_case(scanner, 0, 0, size=SIZE),
        simulate_case(scanner, 0, 1, size=SIZE),
        simulate_case(scanner, 1, 0, size=SIZE),
        simulate_case(scanner, 0, 0, test=True, size=SIZE),
    ]
    for at, scan in enumerate(scans):
        for other in scans[:at]:
            assert (scan.anatomy.discs != other.anatomy.discs).any()


def test_four_dixon_channels_and_numbered_discs(tmp_path):
    write_study(tmp_path / "dixon", ["dixon_3t"], 1, seed=0, size=SIZE, numbered=True)
    (row,) = read_manifest(tmp_path / "dixon" / "cases.csv")
    assert list(row)[3:] == ["image_0000", "image_0001", "image_0002", "image_0003", "label"]
    assert row["image_0003"] == "dixon_3t/images/dixon_3t_001_0003.nii.gz"
    label = np.asarray(nibabel.load(tmp_path / "dixon" / row["label"]).dataobj)
    assert np.unique(label).tolist() == list(range(label.max() + 1))
    assert label.max() >= 5


@pytest.mark.parametrize(
    ("scanners", "options", "message"),
    [
        (["ge_t2"], {}, "ge_t2: no such simulated scanner.*did you mean 'ge_t1'"),
        ([], {}, "at least one"),
        (["ge_t1", "ge_t1"], {}, "its own name"),
        (["ge_t1", "oai_dess"], {}, "oai_dess: takes scans of the knee"),
        (["ge_t1", "dixon_3t"], {}, "same number of images"),
        (["ge_t1"], {"labelled": ["philips_3t"]}, "philips_3t: not among the scanners"),
        (["ge_t1", "philips_3t"], {"n_per_scanner": {"ge_t1": 1}}, "philips_3t: the number of cases is missing"),
        (["ge_t1"], {"size": (4, 4)}, "three numbers of voxels"),
        (["ge_t1"], {"size": (4, 0, 4)}, "three numbers of voxels"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(tmp_path, scanners, options, message):
    options = {"n_per_scanner": 1, "size": SIZE, **options}
    with pytest.raises(UserError, match=message):
        write_study(tmp_path / "study", scanners, seed=0, **options)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        write_study(tmp_path, ["ge_t1"], 1, seed=0, size=SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_own_scanners_take_part(tmp_path):
    scanner = replace(SCANNERS["ge_t1"], name="mine", axcodes="SLA")
    write_study(tmp_path / "study", [scanner], 1, seed=0, size=SIZE)
    image = nibabel.load(tmp_path / "study" / "mine" / "images" / "mine_001_0000.nii.gz")
    assert "".join(nibabel.aff2axcodes(image.affine)) == "SLA"
