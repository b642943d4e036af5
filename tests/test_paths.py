import pytest

from nnunet_da.errors import UserError
from nnunet_da.paths import PREPROCESSED, RAW, RESULTS, dataset_folder, find_dataset, nnunet_folder


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """nnU-Net's folders, with datasets 101 (raw), 7 (preprocessed), 12 (results) and twice 55."""
    names = {
        RAW: ["Dataset101_Spine", "Dataset055_A", "notes", "Dataset1_Old"],
        PREPROCESSED: ["Dataset007_Disc", "Dataset101_Spine"],
        RESULTS: ["Dataset012_Knee", "Dataset055_B"],
    }
    for variable, datasets in names.items():
        monkeypatch.setenv(variable, str(tmp_path / variable))
        for name in datasets:
            (tmp_path / variable / name).mkdir(parents=True)
    (tmp_path / RAW / "Dataset200_File").write_text("not a folder")
    return tmp_path


@pytest.mark.parametrize("variable", [RAW, PREPROCESSED, RESULTS])
def test_variable_that_is_not_set(monkeypatch, variable):
    for value in (None, ""):
        monkeypatch.delenv(variable, raising=False) if value is None else monkeypatch.setenv(variable, value)
        with pytest.raises(UserError, match=f"{variable} is not set"):
            nnunet_folder(variable)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (101, "Dataset101_Spine"),
        ("101", "Dataset101_Spine"),
        ("007", "Dataset007_Disc"),
        (7, "Dataset007_Disc"),
        ("Dataset012_Knee", "Dataset012_Knee"),
        ("Dataset055_B", "Dataset055_B"),
    ],
)
def test_dataset_by_id_or_name_in_any_folder(folders, given, name):
    assert find_dataset(given) == name
    assert dataset_folder(RESULTS, given) == folders / RESULTS / name


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (9, r"no such dataset in .*known: Dataset007_Disc, Dataset012_Knee, Dataset055_A, Dataset055_B, Dataset101_Sp"),
        (200, "no such dataset"),
        ("Dataset101_Knee", "no such dataset"),
        (55, "several datasets have this id: Dataset055_A, Dataset055_B"),
        ("spine", "must be a dataset id such as 101, or a name"),
        ("²", "must be a dataset id"),
        ("-1", "must be a dataset id"),
        ("", "must be a dataset id"),
    ],
)
def test_wrong_dataset(folders, given, rule):
    with pytest.raises(UserError, match=rule) as error:
        find_dataset(given)
    assert str(error.value).startswith(f"-d {given}: ")


def test_folders_that_are_not_set_or_do_not_exist(tmp_path, monkeypatch):
    for variable in (RAW, PREPROCESSED, RESULTS):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=f"none of the environment variables {RAW}, {PREPROCESSED}, {RESULTS} is set"):
        find_dataset(101)
    monkeypatch.setenv(RAW, str(tmp_path / "absent"))
    with pytest.raises(UserError, match="known: none"):
        find_dataset(101)
