import copy

import pytest

from nnunet_da.domains import Domain, Domains, label_values, read_domains, structures
from nnunet_da.errors import UserError

DATASET = {
    "labels": {"background": 0, "disc": 1, "vertebra": 2, "ignore": 3},
    "domains": {
        "philips_3t": {"labels": ["disc", "vertebra"], "labelled": ["p1", "p2"], "unlabelled": []},
        "siemens": {"labels": ["disc"], "labelled": ["s1"], "unlabelled": ["s2", "s3"]},
    },
    "subjects": {"s2": "anna", "s3": "anna"},
}


@pytest.fixture
def dataset():
    return copy.deepcopy(DATASET)


def test_domains_answer_by_case_and_name(dataset):
    domains = read_domains(dataset)
    assert domains.names == ("philips_3t", "siemens")
    assert domains.cases == ("p1", "p2", "s1", "s2", "s3")
    assert domains.labelled_cases == ("p1", "p2", "s1")
    assert domains.unlabelled_cases == ("s2", "s3")
    assert [domains.index_of_case(case) for case in domains.cases] == [0, 0, 1, 1, 1]
    assert domains.domain_of_case("s3") == "siemens"
    assert domains["siemens"] == Domain("siemens", ("disc",), ("s1",), ("s2", "s3"))
    assert domains["siemens"].cases == ("s1", "s2", "s3")
    assert [domain.name for domain in domains.select(["siemens", "philips_3t"])] == ["siemens", "philips_3t"]
    assert [domains.subject_of(case) for case in ("p1", "s2", "s3")] == ["p1", "anna", "anna"]
    assert len(domains) == 2
    assert "siemens" in domains
    assert "ge" not in domains


def test_json_is_read_back_as_it_was(dataset):
    blocks = read_domains(dataset).to_json()
    assert blocks == {"domains": dataset["domains"], "subjects": dataset["subjects"]}
    assert list(blocks["domains"]) == list(dataset["domains"])


def test_pseudo_labels_are_labelled_cases_with_weights(dataset):
    assert read_domains(dataset).pseudo_labels == {}
    dataset["pseudo_labels"] = {"s1": 0.5, "p2": 1}
    domains = read_domains(dataset)
    assert domains.pseudo_labels == {"s1": 0.5, "p2": 1}
    assert domains.to_json()["pseudo_labels"] == dataset["pseudo_labels"]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (["s1"], "'pseudo_labels' must map cases to weights"),
        ({"s2": 1.0}, "'pseudo_labels' names 's2', no labelled case"),
        *(({"s1": weight}, "must weigh above 0, at most 1") for weight in (0, 1.5, "1", True, float("nan"))),
    ],
)
def test_pseudo_labels_that_are_refused(dataset, block, message):
    dataset["pseudo_labels"] = block
    with pytest.raises(UserError, match=message):
        read_domains(dataset)


def test_a_case_that_is_its_own_subject_needs_no_entry():
    domains = Domains([Domain("a", ("disc",), ("x",))], {"x": "x"})
    assert domains.to_json()["subjects"] == {}


def test_labels_default_to_all_structures(dataset):
    del dataset["domains"]["siemens"]["labels"]
    assert read_domains(dataset)["siemens"].labels == ("disc", "vertebra")


def test_structures_and_values_of_regions():
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    assert structures(labels) == ("whole", "core")
    assert label_values(labels) == (0, 1, 2)


def test_unlabelled_cases_go_with_regions(dataset):
    dataset["labels"] = {"background": 0, "disc": [1, 2], "vertebra": 2, "ignore": 3}
    assert read_domains(dataset).unlabelled_cases == ("s2", "s3")


def _without_domains(d):
    del d["domains"]


def _domains_as_list(d):
    d["domains"] = ["philips_3t"]


def _no_labels(d):
    del d["labels"]


def _empty_domain(d):
    d["domains"]["ge"] = {"labels": ["disc"], "labelled": [], "unlabelled": []}


def _bad_name(d):
    d["domains"]["ge 3t"] = d["domains"].pop("siemens")


def _twice_in_domains(d):
    d["domains"]["siemens"]["labelled"].append("p1")


def _labelled_and_unlabelled(d):
    d["domains"]["siemens"]["labelled"].append("s2")


def _twice_in_list(d):
    d["domains"]["siemens"]["unlabelled"].append("s2")


def _unknown_label(d):
    d["domains"]["siemens"]["labels"] = ["disk"]


def _background_as_label(d):
    d["domains"]["siemens"]["labels"] = ["background"]


def _no_domain_labels(d):
    d["domains"]["siemens"]["labels"] = []


def _misspelt_key(d):
    d["domains"]["siemens"]["unlabeled"] = d["domains"]["siemens"].pop("unlabelled")


def _cases_not_a_list(d):
    d["domains"]["siemens"]["labelled"] = "s1"


def _subject_of_unknown_case(d):
    d["subjects"]["s4"] = "anna"


def _subject_not_a_name(d):
    d["subjects"]["s2"] = 7


def _subjects_as_list(d):
    d["subjects"] = ["anna"]


def _no_ignore(d):
    del d["labels"]["ignore"]


def _ignore_not_highest(d):
    d["labels"] = {"background": 0, "disc": 1, "vertebra": 3, "ignore": 2}


def _label_value_as_text(d):
    d["labels"]["disc"] = "1"


def _domain_not_an_object(d):
    d["domains"]["siemens"] = ["s1"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_without_domains, "no 'domains' block"),
        (_domains_as_list, "must map"),
        (_no_labels, "'labels' must map"),
        (_empty_domain, "domain 'ge' has no cases"),
        (_bad_name, "domain 'ge 3t'"),
        (_twice_in_domains, "case 'p1' stands twice: labelled in domain 'philips_3t' and labelled in domain 'siemens'"),
        (_labelled_and_unlabelled, "case 's2' stands twice: labelled in domain 'siemens' and unlabelled"),
        (_twice_in_list, "case 's2' stands twice"),
        (_unknown_label, "unknown label 'disk'; did you mean 'disc'?"),
        (_background_as_label, "unknown label 'background'"),
        (_no_domain_labels, "domain 'siemens' has no labels"),
        (_misspelt_key, "unknown entry 'unlabeled'; did you mean 'unlabelled'?"),
        (_cases_not_a_list, "'labelled' of domain 'siemens' must be a list"),
        (_subject_of_unknown_case, "unknown case 's4'"),
        (_subject_not_a_name, "subject of case 's2'"),
        (_subjects_as_list, "'subjects' must map"),
        (_no_ignore, "need an 'ignore' label"),
        (_ignore_not_highest, "'ignore' is 2, but must follow the highest label (4)"),
        (_label_value_as_text, "value of label 'disc' must be an integer"),
        (_domain_not_an_object, "domain 'siemens' must hold"),
    ],
)
def test_a_broken_block_is_named_in_one_line(dataset, break_it, message):
    break_it(dataset)
    with pytest.raises(UserError) as raised:
        read_domains(dataset, "folder/dataset.json")
    assert message in str(raised.value)
    assert str(raised.value).startswith("folder/dataset.json: ")
    assert "\n" not in str(raised.value)


def test_unknown_names_name_the_nearest(dataset):
    domains = read_domains(dataset)
    with pytest.raises(UserError, match=r"no domain 'simens'; did you mean 'siemens'\?"):
        domains.select(["philips_3t", "simens"])
    with pytest.raises(UserError, match="case 's9' belongs to no domain"):
        domains.index_of_case("s9")
