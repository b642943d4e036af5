import numpy as np
import pytest

from nnunet_da.dataset_conversion import chaos

GREYS = (63, 126, 189, 252)
T1, T2 = "T1DUAL", "T2SPIR"


def series(part, person, n_slices=4):
    """The paths of a person's three series, and, for training, of their pictures."""
    folder = f"{part}/MR/{person}"
    slices = range(1, n_slices + 1)
    return [
        # As released: the phases take turns, and the pictures are numbered as one of them.
        *(f"{folder}/{T1}/DICOM_anon/InPhase/IMG-0004-{2 * n:05d}.dcm" for n in slices),
        *(f"{folder}/{T1}/DICOM_anon/OutPhase/IMG-0004-{2 * n - 1:05d}.dcm" for n in slices),
        *(f"{folder}/{T2}/DICOM_anon/IMG-0002-{n:05d}.dcm" for n in slices),
        *(f"{folder}/{T1}/Ground/IMG-0004-{2 * n:05d}.png" for n in slices if part == "Train_Sets"),
        *(f"{folder}/{T2}/Ground/IMG-0002-{n:05d}.png" for n in slices if part == "Train_Sets"),
    ]


PATHS = [*series("Train_Sets", 1), *series("Train_Sets", 2, 3), *series("Train_Sets", 10), *series("Test_Sets", 4)]
PEOPLE = ["chaos_1", "chaos_2", "chaos_10"]


@pytest.fixture
def abdomens(release):
    return release(PATHS, {"Ground": GREYS})


def test_every_file_of_the_release_is_used(listing, names, read):
    paths = listing("chaos")
    (layout,) = chaos.LAYOUTS
    assert all(layout.match(path) for path in paths)
    folder = names(paths)
    conversion = read("chaos", folder)
    assert [case.id for case in conversion.cases] == [
        f"chaos_{n}_{domain}" for domain in ("t1_in", "t1_out", "t2_spir") for n in (1, 2, 3)
    ]
    assert all(case.id == f"{case.subject}_{case.domain}" for case in conversion.cases)
    assert conversion.test_cases == []
    used = {image for case in conversion.cases for image in case.images} | {c.label.path for c in conversion.cases}
    assert used == {(folder / path).parent for path in paths}


def test_abdomens_become_a_dataset(abdomens, convert, verified):
    written = convert("chaos", abdomens.folder)
    assert written.json["labels"] == {
        "background": 0,
        "liver": 1,
        "right_kidney": 2,
        "left_kidney": 3,
        "spleen": 4,
        "ignore": 5,
    }
    assert written.json["channel_names"] == {"0": "MR"}
    domains = {name: domain["labelled"] for name, domain in written.json["domains"].items()}
    assert domains == {name: [f"{p}_{name}" for p in PEOPLE] for name in ("t1_in", "t1_out", "t2_spir")}
    for person in (1, 2, 10):
        for domain, image, label in (
            ("t1_in", "T1DUAL/DICOM_anon/InPhase", "T1DUAL/Ground"),
            ("t1_out", "T1DUAL/DICOM_anon/OutPhase", "T1DUAL/Ground"),
            ("t2_spir", "T2SPIR/DICOM_anon", "T2SPIR/Ground"),
        ):
            folder, case = f"Train_Sets/MR/{person}", f"chaos_{person}_{domain}"
            np.testing.assert_array_equal(
                written.voxels("imagesTr", f"{case}_0000"), abdomens.voxels[f"{folder}/{image}"]
            )
            greys = abdomens.voxels[f"{folder}/{label}"].astype(int)
            np.testing.assert_array_equal(written.voxels("labelsTr", case), greys // 63)
    assert (written.folder / "test_cases.csv").read_text() == (
        "case,domain,subject\nchaos_4_t1_in,t1_in,chaos_4\nchaos_4_t1_out,t1_out,chaos_4\n"
        "chaos_4_t2_spir,t2_spir,chaos_4\n"
    )
    voxels = written.voxels("imagesTs", "chaos_4_t1_out_0000")
    np.testing.assert_array_equal(voxels, abdomens.voxels["Test_Sets/MR/4/T1DUAL/DICOM_anon/OutPhase"])
    before = written.snapshot()
    convert("chaos", abdomens.folder, "--overwrite")
    assert written.snapshot() == before
    assert verified(written)


def test_splits_never_part_a_person(abdomens, convert):
    for fold in convert("chaos", abdomens.folder).splits:
        people = [{case.split("_")[1] for case in fold[part]} for part in ("train", "val")]
        assert not people[0] & people[1]


def test_some_sequences(abdomens, convert):
    written = convert("chaos", abdomens.folder, "--sequences", "t2_spir")
    assert list(written.json["domains"]) == ["t2_spir"]
    assert written.files("imagesTs") == ["chaos_4_t2_spir_0000"]


def test_phases_as_two_channels(abdomens, convert, verified):
    written = convert("chaos", abdomens.folder, "--dual-channels")
    assert written.json["channel_names"] == {"0": "T1_in_phase", "1": "T1_out_of_phase"}
    assert written.json["domains"]["t1_dual"]["labelled"] == [f"{person}_t1_dual" for person in PEOPLE]
    voxels = written.voxels("imagesTr", "chaos_10_t1_dual_0001")
    np.testing.assert_array_equal(voxels, abdomens.voxels["Train_Sets/MR/10/T1DUAL/DICOM_anon/OutPhase"])
    assert verified(written)


@pytest.mark.parametrize(
    ("scheme", "structures", "lookup"),
    [("liver", ["liver"], [0, 1, 0, 0, 0]), ("kidneys", ["right_kidney", "left_kidney"], [0, 0, 1, 2, 0])],
)
def test_schemes(scheme, structures, lookup, abdomens, convert):
    written = convert("chaos", abdomens.folder, "--structures", scheme, "--sequences", "t1_out")
    assert list(written.json["labels"])[1:-1] == structures
    greys = abdomens.voxels["Train_Sets/MR/2/T1DUAL/Ground"].astype(int)
    np.testing.assert_array_equal(written.voxels("labelsTr", "chaos_2_t1_out"), np.array(lookup)[greys // 63])


def test_greys_count_by_their_ranges(release, convert, refused):
    ends = (55, 70, 110, 135, 175, 200, 240, 255)
    abdomens = release(series("Train_Sets", 1), {"T2SPIR/Ground": ends, "T1DUAL/Ground": (63, 71)})
    written = convert("chaos", abdomens.folder, "--sequences", "t2_spir")
    greys = abdomens.voxels["Train_Sets/MR/1/T2SPIR/Ground"]
    expected = (np.searchsorted(ends, greys) // 2 + 1) * (greys > 0)
    np.testing.assert_array_equal(written.voxels("labelsTr", "chaos_1_t2_spir"), expected)
    line = refused("chaos", abdomens.folder, "--sequences", "t1_in", "--overwrite")
    assert "T1DUAL/Ground: holds the value 71, which is no label of domain 't1_in'" in line


def test_without_pictures_on_demand_and_with_the_ct_part(release, convert):
    abdomens = release([*(path for path in PATHS if not path.endswith(".png")), "Train_Sets/CT/1/Ground/liver_1.png"])
    abdomens.add("Train_Sets/CT/1/DICOM_anon/i0001.dcm", "Train_Sets/MR/1/T2SPIR/DICOM_anon/._IMG-0002-00001.dcm")
    written = convert("chaos", abdomens.folder, "--unlabelled", "--sequences", "t1_in", "t2_spir")
    assert written.json["domains"]["t2_spir"]["unlabelled"] == [f"{person}_t2_spir" for person in PEOPLE]


def test_a_person_with_a_series_missing_can_be_left_out(abdomens, convert, tmp_path):
    abdomens.remove(*[path for path in PATHS if "MR/1/T2SPIR/DICOM" in path])
    (tmp_path / "cases.txt").write_text("chaos_2_t2_spir\nchaos_10_t2_spir\n")
    written = convert("chaos", abdomens.folder, "--cases", str(tmp_path / "cases.txt"))
    assert written.files("labelsTr") == ["chaos_10_t2_spir", "chaos_2_t2_spir"]


def test_a_download_gone_wrong(general_defect, abdomens, refused):
    given, words = general_defect(abdomens)
    assert words in refused("chaos", given)


@pytest.mark.parametrize("part", ["Train_Sets", "Train_Sets/MR", "Train_Sets/MR/1"])
def test_a_part_of_the_folder(part, abdomens, refused):
    assert f"is a part of chaos; give the folder {abdomens.folder}" in refused("chaos", abdomens / part)


def below(folder):
    return [path for path in PATHS if path.startswith(folder)]


MR1 = "Train_Sets/MR/1"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda a: a.remove(*below(f"{MR1}/T2SPIR/DICOM")), f"{MR1}/T2SPIR/DICOM_anon/*.dcm: no such file, but {MR1}"),
        (
            lambda a: a.remove(*below(f"{MR1}/T1DUAL/DICOM_anon/Out")),
            "OutPhase/*.dcm: no such file, but Train_Sets/MR/1",
        ),
        (
            lambda a: a.remove(*below(f"{MR1}/T2SPIR/Ground")),
            f"{MR1}/T2SPIR/Ground/*.png: no such file, but {MR1}/T1DUAL",
        ),
        (
            lambda a: a.remove(*[p for p in PATHS if p.endswith("png")]),
            "T1DUAL/Ground/*.png: no such file, but Train_Sets",
        ),
        (lambda a: a.remove(below(f"{MR1}/T2SPIR/Ground")[-1]), "T2SPIR/Ground: holds 3 pictures, but the series"),
        (lambda a: a.remove(below(f"{MR1}/T2SPIR/DICOM")[-1]), "T2SPIR/Ground: holds 4 pictures, but the series"),
        (lambda a: a.remove(below(f"{MR1}/T2SPIR/DICOM")[1]), "DICOM_anon: slices are missing or unevenly spaced"),
        (
            lambda a: a.remove(*below("Test_Sets/MR/4/T2SPIR")),
            "Test_Sets/MR/4/T2SPIR/DICOM_anon/*.dcm: no such file, but",
        ),
        (
            lambda a: a.remove(*below("Train_Sets")),
            "holds no training series (Train_Sets/MR/N/T1DUAL/DICOM_anon/InPhase",
        ),
        (lambda a: a.cut(below(f"{MR1}/T2SPIR/Ground")[0]), "Ground/IMG-0002-00001.png: cannot be read"),
        (lambda a: a.cut(below(f"{MR1}/T2SPIR/DICOM")[0]), "DICOM_anon/IMG-0002-00001.dcm: is no slice of the DICOM"),
        (lambda a: a.add(f"{MR1}/T2SPIR/DICOM_anon/InPhase/I.dcm"), "InPhase/I.dcm: no file of chaos has such a name"),
        (lambda a: a.add(f"{MR1}/T2SPIR/IMG.png"), "T2SPIR/IMG.png: no file of chaos has such a name"),
        (lambda a: a.add("images/1_t1.mha"), "images/1_t1.mha: no file of chaos has such a name"),
        (lambda a: a.add(*series("Test_Sets", 1)), "case 'chaos_1_t1_in' is given twice, or for training and for test"),
    ],
)
def test_files_that_are_missing_damaged_or_of_another_release(spoil, words, abdomens, refused):
    spoil(abdomens)
    assert words in refused("chaos", abdomens.folder)


def test_sequences_and_dual_channels_exclude_each_other(abdomens, convert, capsys):
    with pytest.raises(SystemExit):
        convert("chaos", abdomens.folder, "--sequences", "t1_in", "--dual-channels")
    assert "not allowed with argument" in capsys.readouterr().err
