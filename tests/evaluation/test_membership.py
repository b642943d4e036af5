import json

import pytest

from nnunet_da.errors import UserError
from nnunet_da.evaluation.membership import (
    Structures,
    find_dataset_json,
    parse_labels,
    read_cases,
    read_membership,
    structures_of_domain,
)


def test_labels_regions_and_ignore():
    found = parse_labels({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3})
    assert found == Structures({"whole": (1, 2), "core": (2,)}, 3)
    assert found.predictable == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "must be an object"),
        ({"background": 0}, "names no structure"),
        ({"background": 0, "disc": "1"}, "'disc' must be a whole number"),
        ({"background": 0, "disc": True}, "'disc' must be a whole number"),
        ({"background": 0, "disc": []}, "'disc' must be a whole number"),
        ({"background": 0, "disc": -1}, "'disc' must be a whole number"),
        ({"background": 0, "disc": 1, "ignore": [2, 3]}, "'ignore' must be one value"),
        ({"background": 0, "disc": 2, "ignore": 1}, "'ignore' must be the highest"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(UserError, match=f"file: .*{message}"):
        parse_labels(labels, "file")


def test_structures_of_a_domain_keep_the_datasets_order():
    structures = parse_labels({"background": 0, "a": 1, "b": 2, "c": 3})
    assert list(structures_of_domain(structures, ["c", "background", "a"], "x")) == ["a", "c"]
    assert list(structures_of_domain(structures, None, "x")) == ["a", "b", "c"]
    with pytest.raises(UserError, match="names no structure"):
        structures_of_domain(structures, ["background"], "x")


def dataset_json(folder, **content):
    path = folder / "dataset.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"labels": {"background": 0, "disc": 1, "ignore": 2}, **content}))
    return path


def test_membership(tmp_path):
    domains = {
        "philips": {"labels": ["disc"], "labelled": ["a"], "unlabelled": ["b"]},
        "siemens": {"labelled": ["c"]},
    }
    found = read_membership(dataset_json(tmp_path, domains=domains))
    assert found.domain_of_case == {"a": "philips", "b": "philips", "c": "siemens"}
    assert found.domain_labels == {"philips": ["disc"], "siemens": ["disc"]}
    plain = read_membership(dataset_json(tmp_path))
    assert (plain.domain_of_case, plain.domain_labels) == ({}, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"domains": {"a": []}}, "domain 'a' must hold"),
        ({"domains": {"a": {"labels": ["dics"], "labelled": ["x"]}}}, "'dics'; did you mean 'disc'"),
        ({"domains": {"a": {"labelled": ["x"]}, "b": {"unlabelled": ["x"]}}}, "'x' stands twice"),
        ({"labels": {"background": 0}}, "names no structure"),
    ],
)
def test_bad_dataset_json(tmp_path, content, message):
    path = dataset_json(tmp_path, **content)
    with pytest.raises(UserError, match=message) as error:
        read_membership(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["[]", '{"domains": {}}'])
def test_not_a_dataset_json(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(UserError, match="is this an nnU-Net dataset"):
        read_membership(tmp_path / "dataset.json")


def test_find_dataset_json(tmp_path, monkeypatch):
    raw, preprocessed = tmp_path / "raw", tmp_path / "preprocessed"
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    path = dataset_json(preprocessed / "Dataset101_Spine")
    assert find_dataset_json("101") == path
    (raw / "Dataset101_Spine").mkdir(parents=True)
    assert find_dataset_json("101") == path
    path = dataset_json(raw / "Dataset101_Spine")
    for name in ("101", 101, "Dataset101_Spine"):
        assert find_dataset_json(name) == path
    (raw / "Dataset102_Knee").mkdir()
    with pytest.raises(UserError, match=r"no Dataset102_Knee/dataset\.json in"):
        find_dataset_json("102")


def test_table_of_cases(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("\ufeffage,domain,case\n7,philips,a\n8,siemens, b \n", encoding="utf-8")
    assert read_cases(path) == {"a": "philips", "b": "siemens"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column 'case' and 'domain'"),
        (b"case\na\n", "no column 'domain'"),
        (b"case,domain\na\n", "line 2 must name a case and a domain"),
        (b"case,domain\na,x\nb,\n", "line 3 must name a case and a domain"),
        (b"case,domain\na,x\na,y\n", "duplicate case 'a' .in 'x' and 'y'."),
        (b"case,domain\n\xff\xfe,x\n", "not a CSV file"),
    ],
)
def test_bad_table_of_cases(tmp_path, content, message):
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_cases(path)
    assert str(path) in str(error.value)


def test_absent_table_of_cases(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_cases(tmp_path / "cases.csv")
