import numpy as np
import pytest

from nnunet_da.dataset_conversion import ski10

PATHS = [f"{kind}-{n}.{end}" for n in ("001", "002", "010") for kind in ("image", "labels") for end in ("mhd", "raw")]
LABELS = {"labels": (1, 2, 3, 4)}
STRUCTURES = {"background": 0, "femur": 1, "femoral_cartilage": 2, "tibia": 3, "tibial_cartilage": 4, "ignore": 5}


@pytest.fixture
def knees(release):
    return release(PATHS, LABELS)


def test_every_file_of_the_release_is_used(listing, names, read):
    paths = listing("ski10")
    assert all(ski10.LAYOUTS[0].match(path) for path in paths)
    folder = names(paths)
    conversion = read("ski10", folder)
    assert [case.id for case in conversion.cases] == [f"ski10_{n:03d}" for n in range(1, 7)]
    used = {file for case in conversion.cases for file in (*case.images, case.label)}
    assert used == {folder / path for path in paths if path.endswith(".mhd")}
    assert {case.domain for case in conversion.cases} == {"ski10"}


def test_knees_become_a_dataset(knees, convert, verified):
    written = convert("ski10", knees.folder)
    assert written.json["labels"] == STRUCTURES
    assert written.json["channel_names"] == {"0": "MR"}
    assert written.json["domains"]["ski10"]["labelled"] == ["ski10_001", "ski10_002", "ski10_010"]
    for n in ("001", "002", "010"):
        np.testing.assert_array_equal(written.voxels("labelsTr", f"ski10_{n}"), knees.voxels[f"labels-{n}.mhd"])
        np.testing.assert_array_equal(written.voxels("imagesTr", f"ski10_{n}_0000"), knees.voxels[f"image-{n}.mhd"])
    assert sorted(case for fold in written.splits for case in fold["val"]) == ["ski10_001", "ski10_002", "ski10_010"]
    before = written.snapshot()
    convert("ski10", knees.folder, "--overwrite")
    assert written.snapshot() == before
    assert verified(written)


def test_the_redistribution_as_nifti_is_the_same(release, convert):
    knees = release(["image/image-001.nii", "label/labels-001.nii"], LABELS)
    written = convert("ski10", knees.folder)
    np.testing.assert_array_equal(written.voxels("labelsTr", "ski10_001"), knees.voxels["label/labels-001.nii"])


@pytest.mark.parametrize(
    ("scheme", "lookup"), [("bones", [0, 1, 0, 2, 0]), ("cartilages", [0, 0, 1, 0, 2]), ("bones-cartilages", range(5))]
)
def test_schemes(scheme, lookup, knees, convert):
    written = convert("ski10", knees.folder, "--structures", scheme)
    expected = np.array(lookup)[knees.voxels["labels-002.mhd"]]
    np.testing.assert_array_equal(written.voxels("labelsTr", "ski10_002"), expected)


def test_without_labels_on_demand(release, convert):
    knees = release([path for path in PATHS if "labels" not in path])
    written = convert("ski10", knees.folder, "--unlabelled")
    assert written.json["domains"]["ski10"]["unlabelled"] == ["ski10_001", "ski10_002", "ski10_010"]
    assert (written.voxels("labelsTr", "ski10_001") == 5).all()


def test_a_download_gone_wrong(general_defect, knees, refused):
    given, words = general_defect(knees)
    assert words in refused("ski10", given)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda k: k.remove("labels-002.mhd", "labels-002.raw"), "labels-002.mhd: no such file, but image-002.mhd is"),
        (lambda k: k.remove("labels-002.raw"), "labels-002.raw: no such file, but image-002.mhd is there"),
        (lambda k: k.remove("image-002.raw"), "image-002.raw: no such file, but image-002.mhd is there"),
        (lambda k: k.remove("image-002.mhd"), "image-002.mhd: no such file, but image-002.raw is there"),
        (lambda k: k.remove(*[p for p in PATHS if "labels" in p]), "labels-001.mhd: no such file, but image-001.mhd"),
        (lambda k: k.remove(*[p for p in PATHS if "image" in p]), "holds no image (image-N.mhd)"),
        (
            lambda k: k.cut("image-010.raw"),
            "image-010.mhd: cannot be read (MetaImage: M_ReadElementsData: data not read completely ideal",
        ),
        (
            lambda k: k.cut("labels-010.raw"),
            "labels-010.mhd: cannot be read (MetaImage: M_ReadElementsData: data not read completely ideal",
        ),
        (
            lambda k: k.add("image/image-011.nii"),
            "mixes two releases: image-001.mhd is of 'SKI10', image/image-011.nii",
        ),
        (lambda k: k.add("imagesTr/oaizib_001_0000.nii.gz"), "imagesTr/oaizib_001_0000.nii.gz: no file of ski10 has"),
        (lambda k: k.add("notes.raw"), "notes.raw: no file of ski10 has such a name"),
    ],
)
def test_files_that_are_missing_damaged_or_of_another_release(spoil, words, knees, refused):
    spoil(knees)
    assert words in refused("ski10", knees.folder)


def test_a_value_that_is_no_structure(knees, refused):
    knees.labels["labels-011"] = (1, 9)
    knees.labels = {"labels-011": (1, 9), **LABELS}
    knees.add("image-011.mhd", "labels-011.mhd")
    assert "labels-011.mhd: holds the value 9, which is no label of domain 'ski10'" in refused("ski10", knees.folder)
