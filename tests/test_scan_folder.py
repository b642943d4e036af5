from pathlib import Path

import pytest

from nnunet_da.errors import UserError
from nnunet_da.scan_folder import cases_in_folder


@pytest.fixture
def folder(tmp_path):
    """``folder(name, …)``: a folder of empty files of these names; none of them is read."""

    def make(*names, at="scans"):
        (tmp_path / at).mkdir(exist_ok=True)
        for name in names:
            (tmp_path / at / name).touch()
        return tmp_path / at

    return make


def names(paths):
    return [Path(path).name for path in paths]


def test_plain_names_are_single_channels(folder):
    scans = folder("b.nii.gz", "a.mha", "._a.mha", "a.json", "notes.txt")
    (scans / "series").mkdir()
    cases = cases_in_folder(scans, "siemens", prefix="s_")
    assert [case.id for case in cases] == ["s_a", "s_b", "s_series"]
    assert {case.domain for case in cases} == {"siemens"}
    assert [case.label for case in cases] == [None] * 3
    assert names(cases[0].images) == ["a.mha"]


def test_nnunets_names_are_channels_in_their_order(folder):
    cases = cases_in_folder(folder("x_0001.nii.gz", "x_0000.nii.gz", "y_0000.nii.gz", "y_0001.nii.gz"), "d")
    assert [case.id for case in cases] == ["x", "y"]
    assert names(cases[0].images) == ["x_0000.nii.gz", "x_0001.nii.gz"]


def test_names_with_numbers_of_their_own_are_no_channels(folder):
    assert [case.id for case in cases_in_folder(folder("x_0000.nii.gz", "spine.nii.gz"), "d")] == ["spine", "x_0000"]


def test_labels_are_found_by_name_and_may_lack(folder, capsys):
    labels = folder("a.nii.gz", at="labels")
    cases = cases_in_folder(folder("a_0000.nii.gz", "b_0000.nii.gz"), "d", labels_folder=labels)
    assert [case.label for case in cases] == [labels / "a.nii.gz", None]
    assert "1 of 2 scans have no file in" in capsys.readouterr().out


def test_subjects_come_from_a_table(folder, tmp_path):
    table = tmp_path / "subjects.csv"
    table.write_text("case,subject\na,p1\nb,p1\n")
    cases = cases_in_folder(folder("a.nii", "b.nii", "c.nii"), "d", prefix="x", subjects_file=table)
    assert [(case.id, case.subject) for case in cases] == [("xa", "p1"), ("xb", "p1"), ("xc", None)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), r"holds no scans \("),
        (("a.png",), r"a.png: cannot read this format; give"),
        (("a.nii", "a.mha"), "a.nii: has the same name as .*a.mha"),
        (("a_0000.nii", "a_0002.nii"), "case 'a' has no channel _0001, but 2"),
    ],
)
def test_files_that_do_not_fit_together(folder, files, message):
    with pytest.raises(UserError, match=message):
        cases_in_folder(folder(*files), "d")


def test_a_label_without_a_scan_names_the_nearest(folder):
    with pytest.raises(UserError, match=r"there is no scan 'spine_1' in .*did you mean 'spine_2'"):
        cases_in_folder(folder("spine_2.nii"), "d", labels_folder=folder("spine_1.nii", at="labels"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("name,subject\na,p\n", "line 1: the column 'case' is missing"),
        ("case,subject\nz,p\n", "line 2: there is no scan 'z'"),
        ("case,subject\na,\n", "line 2: the subject of 'a' is empty"),
        ("case,subject\na,p\na,q\n", "line 3: case 'a' has the subject 'p' already"),
    ],
)
def test_a_table_of_subjects_that_is_wrong(folder, tmp_path, rows, message):
    table = tmp_path / "subjects.csv"
    table.write_text(rows)
    with pytest.raises(UserError, match=message):
        cases_in_folder(folder("a.nii"), "d", subjects_file=table)
    with pytest.raises(UserError, match="no such file"):
        cases_in_folder(folder("a.nii"), "d", subjects_file=tmp_path / "absent.csv")
