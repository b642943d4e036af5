import numpy as np
import pytest

from nnunet_da.dataset_conversion import oaizib_cm, ski10

PATHS = [
    "dataset.json",
    *(f"imagesTr/oaizib_{n}_0000.nii.gz" for n in ("001", "002", "003")),
    *(f"labelsTr/oaizib_{n}.nii.gz" for n in ("001", "002", "003")),
    *("imagesTs/oaizib_405_0000.nii.gz", "imagesTs/oaizib_406_0000.nii.gz"),
    *("labelsTs/oaizib_405.nii.gz", "labelsTs/oaizib_406.nii.gz"),
]
LABELS = {"labels": (1, 2, 3, 4, 5)}


@pytest.fixture
def knees(release):
    return release(PATHS, LABELS)


def test_every_file_of_the_release_is_used_but_dataset_json(listing, names, read):
    paths = listing("oaizib_cm")
    (layout,) = oaizib_cm.LAYOUTS
    assert [path for path in paths if not layout.match(path)] == ["dataset.json"]
    assert layout.knows("dataset.json")
    folder = names(paths)
    conversion = read("oaizib_cm", folder)
    assert [case.id for case in conversion.cases] == [f"oaizib_{n:03d}" for n in range(1, 6)]
    assert [case.id for case in conversion.test_cases] == ["oaizib_405", "oaizib_406"]
    cases = [*conversion.cases, *conversion.test_cases]
    assert {file for case in cases for file in (*case.images, case.label)} == {folder / path for path in paths[1:]}
    assert {case.domain for case in cases} == {"oaizib"}


def test_knees_become_a_dataset_with_tests(knees, convert, verified):
    written = convert("oaizib_cm", knees.folder, "--structures", "all")
    assert list(written.json["labels"].items())[4:] == [
        ("medial_tibial_cartilage", 4),
        ("lateral_tibial_cartilage", 5),
        ("ignore", 6),
    ]
    assert written.files("imagesTs") == ["oaizib_405_0000", "oaizib_406_0000"]
    assert (written.folder / "test_cases.csv").read_text().splitlines()[1] == "oaizib_405,oaizib,oaizib_405"
    for part, name in (("labelsTr", "oaizib_001"), ("labelsTs", "oaizib_406"), ("imagesTs", "oaizib_405_0000")):
        np.testing.assert_array_equal(written.voxels(part, name), knees.voxels[f"{part}/{name}.nii.gz"])
    before = written.snapshot()
    convert("oaizib_cm", knees.folder, "--structures", "all", "--overwrite")
    assert written.snapshot() == before
    assert verified(written)


@pytest.mark.parametrize(
    ("scheme", "lookup"),
    [("bones-cartilages", [0, 1, 2, 3, 4, 4]), ("bones", [0, 1, 0, 2, 0, 0]), ("cartilages", [0, 0, 1, 0, 2, 2])],
)
def test_schemes_have_the_structures_of_ski10(scheme, lookup, knees, convert):
    assert list(oaizib_cm.SCHEMES[scheme]) == list(ski10.SCHEMES[scheme])
    written = convert("oaizib_cm", knees.folder, "--structures", scheme)
    for part, name in (("labelsTr", "oaizib_002"), ("labelsTs", "oaizib_405")):
        expected = np.array(lookup)[knees.voxels[f"{part}/{name}.nii.gz"]]
        np.testing.assert_array_equal(written.voxels(part, name), expected)


@pytest.mark.parametrize("scheme", ["bones-cartilages", "cartilages"])
def test_both_knee_datasets_in_one(scheme, knees, release, convert, tmp_path, verified):
    paths = ["image-001.mhd", "labels-001.mhd", "image-002.mhd", "labels-002.mhd"]
    other = release([*paths, *(path[:-4] + ".raw" for path in paths)], {"labels": range(1, 5)}, folder=tmp_path / "ski")
    convert("ski10", other.folder, "--structures", scheme)
    written = convert("oaizib_cm", knees.folder, "--structures", scheme, "--into")
    structures = [name for name in written.json["labels"] if name not in ("background", "ignore")]
    assert {name: domain["labels"] for name, domain in written.json["domains"].items()} == {
        "ski10": structures,
        "oaizib": structures,
    }
    assert written.files("imagesTs") == ["oaizib_405_0000", "oaizib_406_0000"]
    lookup = {"bones-cartilages": [0, 1, 2, 3, 4, 4], "cartilages": [0, 0, 1, 0, 2, 2]}[scheme]
    expected = np.array(lookup)[knees.voxels["labelsTr/oaizib_003.nii.gz"]]
    np.testing.assert_array_equal(written.voxels("labelsTr", "oaizib_003"), expected)
    expected = np.array(lookup)[other.voxels["labels-002.mhd"]]
    np.testing.assert_array_equal(written.voxels("labelsTr", "ski10_002"), expected)
    assert verified(written)


def test_what_the_first_dataset_has_not_cannot_join(knees, release, convert, refused, tmp_path):
    other = release(
        ["image-001.mhd", "image-001.raw", "labels-001.mhd", "labels-001.raw"], LABELS, folder=tmp_path / "s"
    )
    other.labels = {"labels": (1, 2, 3, 4)}
    other.add("labels-001.mhd")
    convert("ski10", other.folder)
    assert "has no label 'medial_tibial_cartilage'" in refused(
        "oaizib_cm", knees.folder, "--structures", "all", "--into"
    )


def test_tests_and_training_may_come_without_labels(release, convert):
    knees = release([path for path in PATHS if "labels" not in path])
    written = convert("oaizib_cm", knees.folder, "--unlabelled")
    assert written.json["domains"]["oaizib"]["unlabelled"] == ["oaizib_001", "oaizib_002", "oaizib_003"]
    assert not (written.folder / "labelsTs").exists()


def test_a_download_gone_wrong(general_defect, knees, refused):
    given, words = general_defect(knees)
    assert words in refused("oaizib_cm", given)


def test_a_part_of_the_folder(knees, refused):
    assert f"is a part of oaizib_cm; give the folder {knees.folder}" in refused("oaizib_cm", knees / "imagesTr")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda k: k.remove(PATHS[5]), "labelsTr/oaizib_002.nii.gz: no such file, but imagesTr/oaizib_002_0000.nii.gz"),
        (lambda k: k.remove(*PATHS[4:7]), "labelsTr/oaizib_001.nii.gz: no such file, but imagesTr"),
        (lambda k: k.remove(PATHS[2]), "imagesTr/oaizib_002_0000.nii.gz: no such file, but labelsTr/oaizib_002.nii.gz"),
        (lambda k: k.remove(*PATHS[1:4]), "holds no training image (imagesTr/oaizib_N_0000.nii.gz); the download is"),
        (
            lambda k: k.remove(PATHS[-1]),
            "labelsTs/oaizib_406.nii.gz: no such file, but imagesTs/oaizib_406_0000.nii.gz",
        ),
        (
            lambda k: k.remove(PATHS[-3]),
            "imagesTs/oaizib_406_0000.nii.gz: no such file, but labelsTs/oaizib_406.nii.gz",
        ),
        (lambda k: k.cut(PATHS[1]), "imagesTr/oaizib_001_0000.nii.gz: not a readable NIfTI file, perhaps cut short"),
        (lambda k: k.cut(PATHS[-1]), "labelsTs/oaizib_406.nii.gz: not a readable NIfTI file, perhaps cut short"),
        (lambda k: k.add("imagesTr/oaizib_001_0000.nii"), "imagesTr/oaizib_001_0000.nii.gz: is there twice"),
        (lambda k: k.add("imagesTr/oaizib_001_0001.nii.gz"), "oaizib_001_0001.nii.gz: no file of oaizib_cm has such a"),
        (lambda k: k.add("image-001.mhd"), "image-001.mhd: no file of oaizib_cm has such a name"),
        (
            lambda k: k.add("imagesTs/oaizib_001_0000.nii.gz", "labelsTs/oaizib_001.nii.gz"),
            "'oaizib_001' is given twice",
        ),
    ],
)
def test_files_that_are_missing_damaged_or_of_another_release(spoil, words, knees, refused):
    spoil(knees)
    assert words in refused("oaizib_cm", knees.folder)


def test_another_dataset_is_named(release, refused):
    other = release(["image-001.mhd", "image-001.raw"])
    assert refused("oaizib_cm", other.folder).endswith("; it looks like ski10: nnunet-da convert ski10")
