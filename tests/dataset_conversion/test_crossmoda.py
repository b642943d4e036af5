"""CrossMoDA 2021, 2022 and 2023: what they share, and each release's own."""

import shutil

import nibabel
import numpy as np
import pytest

from nnunet_da.dataset_conversion import crossmoda2021, crossmoda2022, crossmoda2023

SOURCE_2021, TARGET_2021 = "crossmoda_training/source_training", "crossmoda_training/target_training"
SOURCE_2022, TARGET_2022 = "crossmoda2022_training/training_source", "crossmoda2022_training/training_target"
SOURCE_2023, TARGET_2023 = "crossmoda23_training/TrainingSource", "crossmoda23_training/TrainingTarget"
GRADES = "crossmoda2022_training/infos_source_training.csv"


def scans(source, target, validation, sequence, sources, targets, validations):
    """The paths of a release with these cases."""
    return [
        *(f"{source}/{case}_{kind}.nii.gz" for case in sources for kind in ("ceT1", "Label")),
        *(f"{target}/{case}_{sequence}.nii.gz" for case in targets),
        *(f"{validation}/{case}_{sequence}.nii.gz" for case in validations),
    ]


RELEASES = {
    "crossmoda2021": scans(
        *(SOURCE_2021, TARGET_2021, "crossmoda_validation/target_validation", "hrT2"),
        *(["crossmoda_2", "crossmoda_10"], ["crossmoda_106", "crossmoda_107"], ["crossmoda_211"]),
    ),
    "crossmoda2022": scans(
        *(SOURCE_2022, TARGET_2022, "crossmoda2022_validation", "hrT2"),
        ["crossmoda2021_ldn_1", "crossmoda2022_etz_0"],
        ["crossmoda2021_ldn_106", "crossmoda2022_etz_105"],
        ["crossmoda2022_etz_210"],
    ),
    "crossmoda2023": scans(
        *(SOURCE_2023, TARGET_2023, "crossmoda23_validation", "T2"),
        ["crossmoda2023_ldn_1", "crossmoda2023_etz_1", "crossmoda2023_ukm_1"],
        ["crossmoda2023_etz_106", "crossmoda2023_ukm_44"],
        ["crossmoda2023_ldn_201"],
    ),
}
MODULES = {"crossmoda2021": crossmoda2021, "crossmoda2022": crossmoda2022, "crossmoda2023": crossmoda2023}
YEARS = pytest.mark.parametrize("year", RELEASES)


@pytest.fixture
def head(release, tmp_path):
    """``head(year)``: a release in tmp_path/YEAR."""

    def make(year, **options):
        values = (1, 2, 3) if year == "crossmoda2023" else (1, 2)
        return release(RELEASES[year], {"_Label": values}, folder=tmp_path / year, **options)

    return make


@pytest.mark.parametrize(
    ("year", "n_sources", "n_targets", "n_tests", "domains"),
    [
        ("crossmoda2021", 105, 105, 32, ["ldn_ceT1", "ldn_hrT2"]),
        ("crossmoda2022", 210, 210, 64, ["etz_ceT1", "etz_hrT2", "ldn_ceT1", "ldn_hrT2"]),
        ("crossmoda2023", 16, 16, 6, ["etz_T2", "etz_ceT1", "ldn_T2", "ldn_ceT1", "ukm_T2", "ukm_ceT1"]),
    ],
)
def test_every_file_of_the_release_is_used(year, n_sources, n_targets, n_tests, domains, listing, names, read):
    paths = listing(year)
    layout = MODULES[year].LAYOUTS[0]
    unread = [path for path in paths if not layout.match(path)]
    assert unread == ([GRADES] if year == "crossmoda2022" else [])
    assert all(layout.knows(path) for path in unread)
    folder = names(paths, {GRADES: "crossmoda_name,center,koos\n"})
    conversion = read(year, folder)
    cases, tests = conversion.cases, conversion.test_cases
    labelled = [case for case in cases if case.label]
    assert (len(labelled), len(cases) - len(labelled), len(tests)) == (n_sources, n_targets, n_tests)
    assert sorted({case.domain for case in cases}) == domains
    assert {case.domain for case in labelled} == {domain for domain in domains if domain.endswith("ceT1")}
    used = {file for case in [*cases, *tests] for file in (*case.images, case.label) if file}
    assert used == {folder / path for path in paths if path not in unread}
    for case in [*cases, *tests]:
        centre, sequence = case.domain.split("_")
        assert case.images[0].name == f"{case.id}_{sequence}.nii.gz"
        assert f"_{centre}_" in case.id or year == "crossmoda2021"
        assert case.subject is None


@YEARS
def test_heads_become_a_dataset(year, head, convert, verified):
    made = head(year)
    written = convert(year, made.folder)
    structures = {name: value for name, value in written.json["labels"].items() if name not in ("background", "ignore")}
    assert structures == (
        {"intrameatal": 1, "extrameatal": 2, "cochlea": 3} if year == "crossmoda2023" else {"vs": 1, "cochlea": 2}
    )
    labelled = {case for domain in written.json["domains"].values() for case in domain["labelled"]}
    unlabelled = {case for domain in written.json["domains"].values() for case in domain["unlabelled"]}
    for path, voxels in made.voxels.items():
        case, kind = path.rsplit("/", 1)[1].removesuffix(".nii.gz").rsplit("_", 1)
        if kind == "Label":
            assert case in labelled
            np.testing.assert_array_equal(written.voxels("labelsTr", case), voxels)
        elif "alidation" in path:
            np.testing.assert_array_equal(written.voxels("imagesTs", f"{case}_0000"), voxels)
        else:
            assert case in (labelled if kind == "ceT1" else unlabelled)
            np.testing.assert_array_equal(written.voxels("imagesTr", f"{case}_0000"), voxels)
    assert not (written.folder / "koos.csv").exists()
    assert not (written.folder / "labelsTs").exists()
    assert (written.folder / "test_cases.csv").read_text().splitlines()[0] == "case,domain,subject"
    before = written.snapshot()
    convert(year, made.folder, "--overwrite")
    assert written.snapshot() == before
    assert verified(written)


def test_the_domains_of_2023(head, convert):
    domains = convert("crossmoda2023", head("crossmoda2023").folder).json["domains"]
    assert {name: (domain["labelled"], domain["unlabelled"]) for name, domain in domains.items()} == {
        "etz_ceT1": (["crossmoda2023_etz_1"], []),
        "ldn_ceT1": (["crossmoda2023_ldn_1"], []),
        "ukm_ceT1": (["crossmoda2023_ukm_1"], []),
        "etz_T2": ([], ["crossmoda2023_etz_106"]),
        "ukm_T2": ([], ["crossmoda2023_ukm_44"]),
    }


@pytest.mark.parametrize(
    ("year", "scheme", "lookup"),
    [
        ("crossmoda2021", "vs", [0, 1, 0]),
        ("crossmoda2022", "cochlea", [0, 0, 1]),
        ("crossmoda2023", "vs-cochlea", [0, 1, 1, 2]),
        ("crossmoda2023", "vs", [0, 1, 1, 0]),
        ("crossmoda2023", "cochlea", [0, 0, 0, 1]),
    ],
)
def test_schemes(year, scheme, lookup, head, convert):
    made = head(year)
    written = convert(year, made.folder, "--structures", scheme)
    for path, voxels in made.voxels.items():
        if "_Label" in path:
            case = path.rsplit("/", 1)[1].removesuffix("_Label.nii.gz")
            np.testing.assert_array_equal(written.voxels("labelsTr", case), np.array(lookup)[voxels])


def test_two_years_in_one_dataset(head, convert, verified):
    convert("crossmoda2021", head("crossmoda2021").folder)
    made = head("crossmoda2023")
    written = convert("crossmoda2023", made.folder, "--structures", "vs-cochlea", "--into")
    assert list(written.json["domains"]) == [
        *("ldn_ceT1", "ldn_hrT2", "etz_ceT1", "ukm_ceT1", "etz_T2", "ukm_T2"),
    ]
    assert written.json["domains"]["ldn_ceT1"]["labelled"] == ["crossmoda_2", "crossmoda_10", "crossmoda2023_ldn_1"]
    label = made.voxels[f"{SOURCE_2023}/crossmoda2023_ukm_1_Label.nii.gz"]
    np.testing.assert_array_equal(written.voxels("labelsTr", "crossmoda2023_ukm_1"), np.array([0, 1, 1, 2])[label])
    tests = (written.folder / "test_cases.csv").read_text().splitlines()
    assert tests[1:] == ["crossmoda_211,ldn_hrT2,crossmoda_211", "crossmoda2023_ldn_201,ldn_T2,crossmoda2023_ldn_201"]
    assert verified(written)


def test_a_scan_that_is_in_two_years_is_refused(head, convert, refused):
    old, new = head("crossmoda2021"), head("crossmoda2022")
    convert("crossmoda2021", old.folder)
    path = f"{SOURCE_2022}/crossmoda2021_ldn_1_ceT1.nii.gz"
    shutil.copy(old / f"{SOURCE_2021}/crossmoda_2_ceT1.nii.gz", new / path)
    line = refused("crossmoda2022", new.folder, "--into")
    assert f"{new / path}: holds the same scan as" in line
    assert "(cases 'crossmoda2021_ldn_1' and 'crossmoda_2')" in line


def test_the_later_names_of_2021(release, convert):
    paths = [path.replace("/crossmoda_", "/crossmoda2021_ldn_") for path in RELEASES["crossmoda2021"]]
    written = convert("crossmoda2021", release(paths, {"_Label": (1, 2)}).folder)
    assert written.json["domains"]["ldn_ceT1"]["labelled"] == ["crossmoda2021_ldn_2", "crossmoda2021_ldn_10"]
    assert written.json["domains"]["ldn_hrT2"]["unlabelled"] == ["crossmoda2021_ldn_106", "crossmoda2021_ldn_107"]


def test_labels_that_their_header_rescales(head, convert):
    made = head("crossmoda2022")
    path = f"{SOURCE_2022}/crossmoda2022_etz_0_Label.nii.gz"
    # As the label maps of Tilburg are read.
    rescaled = made.voxels[path] * 0.9999999997671694
    nibabel.save(nibabel.Nifti1Image(rescaled, nibabel.load(made / path).affine), made / path)
    written = convert("crossmoda2022", made.folder)
    np.testing.assert_array_equal(written.voxels("labelsTr", "crossmoda2022_etz_0"), made.voxels[path])


@YEARS
def test_without_labels_on_demand(year, head, convert):
    made = head(year)
    made.remove(*[path for path in RELEASES[year] if "_Label" in path])
    written = convert(year, made.folder, "--unlabelled")
    assert not any(domain["labelled"] for domain in written.json["domains"].values())


def test_a_case_without_label_can_be_left_out(head, convert, tmp_path):
    made = head("crossmoda2021")
    made.remove(f"{SOURCE_2021}/crossmoda_10_Label.nii.gz")
    (tmp_path / "cases.txt").write_text("crossmoda_2\ncrossmoda_106\n")
    written = convert("crossmoda2021", made.folder, "--cases", str(tmp_path / "cases.txt"))
    assert written.files("imagesTr") == ["crossmoda_106_0000", "crossmoda_2_0000"]


def test_without_validation_scans_there_are_no_tests(head, convert, capsys):
    made = head("crossmoda2021")
    made.remove(RELEASES["crossmoda2021"][-1])
    written = convert("crossmoda2021", made.folder)
    assert "no validation scans (crossmoda_validation/target_validation/crossmoda_N_hrT2" in capsys.readouterr().out
    assert not (written.folder / "imagesTs").exists()


# ---- Koos grades ----------------------------------------------------------------------------------------------------

KOOS = "case,koos\ncrossmoda2021_ldn_1,3\ncrossmoda2022_etz_0,post-operative-london\n"


@pytest.mark.parametrize(
    "text",
    [
        "crossmoda_name,center,koos\ncrossmoda2021_ldn_1,London,3\ncrossmoda2022_etz_0,T,post-operative-london\n",
        "name;Koos grade\r\ncrossmoda2021_ldn_1_ceT1;3\r\ncrossmoda2022_etz_0_ceT1.nii.gz;post-operative-london\r\n",
        '"case","class"\n"crossmoda2021_ldn_1","3"\n\n"crossmoda2022_etz_0","post-operative-london"\n',
        "\ufeffid,grade\ncrossmoda2021_ldn_1 , 3\ncrossmoda2022_etz_0,post-operative-london\ncrossmoda2021_ldn_106,\n",
    ],
)
def test_grades_are_kept(text, head, convert):
    made = head("crossmoda2022", texts={GRADES: text})
    made.add(GRADES)
    written = convert("crossmoda2022", made.folder)
    assert (written.folder / "koos.csv").read_text() == KOOS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,koos\ncrossmoda2021_ldn_9,3\n", "line 2: there is no scan of case 'crossmoda2021_ldn_9'; did you mean"),
        ("case,size\ncrossmoda2021_ldn_1,3\n", "line 1: one column must hold grades (koos, grade or class), but 0 do"),
        ("case,koos,class\ncrossmoda2021_ldn_1,3,3\n", "line 1: one column must hold grades"),
        ("", "line 1: one column must hold grades"),
        ("case,koos\ncrossmoda2021_ldn_1\n", "line 2: has 1 cells, but line 1 has 2"),
        (
            "case,koos\ncrossmoda2021_ldn_1,3\ncrossmoda2021_ldn_1_ceT1,4\n",
            "line 3: case 'crossmoda2021_ldn_1' has the",
        ),
    ],
)
def test_a_table_of_grades_that_does_not_fit(text, words, head, refused):
    made = head("crossmoda2022", texts={GRADES: text})
    made.add(GRADES)
    line = refused("crossmoda2022", made.folder)
    assert line.startswith(str(made / GRADES))
    assert words in line


def test_a_table_of_grades_that_is_no_text(head, refused):
    made = head("crossmoda2022")
    (made / GRADES).write_bytes(b"case,koos\n\xff\xfe")
    assert refused("crossmoda2022", made.folder) == f"{made / GRADES}: must be a readable CSV file in UTF-8"


# ---- downloads gone wrong --------------------------------------------------------------------------------------------


@YEARS
def test_a_download_gone_wrong(year, general_defect, head, refused):
    given, words = general_defect(head(year))
    assert words in refused(year, given)


@YEARS
def test_what_is_missing_or_damaged(year, head, refused):
    paths = RELEASES[year]
    targets = [path for path in paths if "arget" in path and "alidation" not in path]
    labels = [path for path in paths if "_Label" in path]
    layout = MODULES[year].LAYOUTS[0]

    def line(spoil):
        made = head(year)
        spoil(made)
        text = refused(year, made.folder)
        shutil.rmtree(made.folder)
        return text

    assert f"({layout.example('target')}); the download is incomplete" in line(lambda made: made.remove(*targets))
    assert f"({layout.example('source')}); the download is incomplete" in line(
        lambda made: made.remove(*[path for path in paths if "_ceT1" in path])
    )
    assert f"{labels[1]}: no such file, but " in line(lambda made: made.remove(labels[1]))
    assert "_Label.nii.gz: no such file, but " in line(lambda made: made.remove(*labels))
    assert f"{paths[0]}: no such file, but {labels[0]} is there" in line(lambda made: made.remove(paths[0]))
    for path in (paths[0], labels[0], targets[0], paths[-1]):
        assert f"{path}: not a readable NIfTI file, perhaps cut short" in line(lambda made, path=path: made.cut(path))
    part = paths[0].split("/")[0]
    text = refused(year, head(year) / part)
    assert text.endswith(f"is a part of {year}; give the folder {head(year).folder}")


@pytest.mark.parametrize(
    ("year", "other", "words"),
    [
        ("crossmoda2021", RELEASES["crossmoda2022"], "; it looks like crossmoda2022: nnunet-da convert crossmoda2022"),
        ("crossmoda2022", RELEASES["crossmoda2021"], "; it looks like crossmoda2021: nnunet-da convert crossmoda2021"),
        ("crossmoda2023", RELEASES["crossmoda2021"], "; it looks like crossmoda2021: nnunet-da convert crossmoda2021"),
        ("crossmoda2021", [f"{SOURCE_2021}/crossmoda2021_ldn_5_ceT1.nii.gz"], "mixes two releases: crossmoda_training"),
        ("crossmoda2021", [f"{TARGET_2021}/crossmoda_2_hrT2.nii.gz"], "case 'crossmoda_2' is also crossmoda_training"),
        (
            "crossmoda2023",
            [f"{TARGET_2023}/crossmoda2023_etz_9_hrT2.nii.gz"],
            "9_hrT2.nii.gz: no file of crossmoda2023",
        ),
        (
            "crossmoda2022",
            [f"{TARGET_2022}/crossmoda2022_ukm_9_hrT2.nii.gz"],
            "9_hrT2.nii.gz: no file of crossmoda2022",
        ),
    ],
)
def test_releases_that_are_mixed(year, other, words, head, refused):
    made = head(year)
    made.add(*other)
    assert words in refused(year, made.folder)


# ---- real scans ------------------------------------------------------------------------------------------------------


def test_real_scans_named_as_in_2021(real_data, tmp_path, convert, verified):
    sample = real_data("crossmoda_sample")
    folder = tmp_path / "download"
    renamed = {
        "vs_gk_99_ceT1": f"{SOURCE_2021}/crossmoda_1_ceT1",
        "vs_gk_99_Label": f"{SOURCE_2021}/crossmoda_1_Label",
        "vs_gk_95_hrT2": f"{TARGET_2021}/crossmoda_106_hrT2",
        "vs_gk_98_hrT2": f"{TARGET_2021}/crossmoda_107_hrT2",
        "vs_gk_9_hrT2": "crossmoda_validation/target_validation/crossmoda_211_hrT2",
    }
    for name, path in renamed.items():
        target = folder / f"{path}.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sample / f"{name}.nii.gz", target)
    written = convert("crossmoda2021", folder, "--structures", "vs")
    assert written.json["labels"] == {"background": 0, "vs": 1, "ignore": 2}
    label = np.asarray(nibabel.load(sample / "vs_gk_99_Label.nii.gz").dataobj)
    np.testing.assert_array_equal(written.voxels("labelsTr", "crossmoda_1"), label)
    scan = np.asarray(nibabel.load(sample / "vs_gk_9_hrT2.nii.gz").dataobj)
    np.testing.assert_array_equal(written.voxels("imagesTs", "crossmoda_211_0000"), scan)
    assert verified(written)
