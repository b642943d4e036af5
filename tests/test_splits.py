import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.domains import Domain, Domains
from nnunet_da.errors import UserError
from nnunet_da.splits import extend_splits, leave_one_out, make_splits, read_splits


def single_case_subjects(*n_of_domain):
    return Domains(
        Domain(f"d{index}", ("x",), tuple(f"d{index}_{case}" for case in range(n)))
        for index, n in enumerate(n_of_domain)
    )


@st.composite
def any_domains(draw, min_subjects=1):
    """Up to three domains; subjects with up to three cases each, in any domains, some cases unlabelled."""
    n_subjects = draw(st.integers(min_subjects, 14))
    subjects, blocks = {}, {index: ([], []) for index in range(3)}
    for subject in range(n_subjects):
        for scan in range(draw(st.integers(1, 3))):
            case = f"c{subject}_{scan}"
            subjects[case] = f"s{subject}"
            # The first scan is labelled, so that every subject counts.
            labelled = scan == 0 or draw(st.booleans())
            blocks[draw(st.integers(0, 2))][0 if labelled else 1].append(case)
    domains = [Domain(f"d{i}", ("x",), tuple(a), tuple(b)) for i, (a, b) in blocks.items() if a or b]
    return Domains(domains, subjects)


def assert_sound(splits, domains):
    """Every labelled case validates once and trains in all other folds; no subject is parted; nobody else is there."""
    labelled = sorted(domains.labelled_cases)
    assert sorted(case for split in splits for case in split["val"]) == labelled
    for split in splits:
        assert split["val"]
        assert sorted(split["train"] + split["val"]) == labelled
        assert not {domains.subject_of(c) for c in split["train"]} & {domains.subject_of(c) for c in split["val"]}
        assert split["train"] == sorted(split["train"])
        assert split["val"] == sorted(split["val"])


@settings(deadline=None)
@given(any_domains(min_subjects=2))
def test_splits_never_part_a_subject(domains):
    splits = make_splits(domains)
    n_subjects = len({domains.subject_of(case) for case in domains.labelled_cases})
    assert 2 <= len(splits) <= min(5, n_subjects)
    assert_sound(splits, domains)


@settings(deadline=None)
@given(st.lists(st.integers(1, 23), min_size=1, max_size=4).filter(lambda counts: sum(counts) >= 5))
def test_folds_are_balanced_per_domain_and_in_total(counts):
    domains = single_case_subjects(*counts)
    per_fold = [Counter(map(domains.domain_of_case, split["val"])) for split in make_splits(domains)]
    for name in domains.names:
        assert max(fold[name] for fold in per_fold) - min(fold[name] for fold in per_fold) <= 1
    # Fold 0 has the first subject of each domain.
    assert max(fold.total() for fold in per_fold) - min(fold.total() for fold in per_fold) <= len(counts)
    assert {name for name, n in zip(domains.names, counts, strict=True) if n > 1} <= set(per_fold[0])


def test_one_domain_has_as_many_folds_as_subjects_up_to_five():
    for n in (2, 4, 5, 23):
        splits = make_splits(single_case_subjects(n))
        assert len(splits) == min(5, n)
        sizes = [len(split["val"]) for split in splits]
        assert max(sizes) - min(sizes) <= 1


def test_the_only_subject_of_a_domain_is_not_held_out_first():
    splits = make_splits(single_case_subjects(6, 1, 2))
    assert "d1_0" in splits[0]["train"]


@settings(deadline=None)
@given(any_domains(min_subjects=2), st.randoms())
def test_splits_do_not_depend_on_the_order_of_cases(domains, random):
    def shuffled(cases):
        cases = list(cases)
        random.shuffle(cases)
        return tuple(cases)

    reordered = [Domain(d.name, d.labels, shuffled(d.labelled), shuffled(d.unlabelled)) for d in domains]
    assert make_splits(Domains(reordered, domains.to_json()["subjects"])) == make_splits(domains)


def test_one_subject_validates_on_itself_with_a_warning(capsys):
    domains = Domains([Domain("a", ("x",), ("c1", "c2"), ("c3",))], {"c1": "anna", "c2": "anna"})
    assert make_splits(domains) == [{"train": ["c1", "c2"], "val": ["c1", "c2"]}]
    assert "one subject (anna)" in capsys.readouterr().out


def test_no_labelled_case_makes_no_split():
    assert make_splits(Domains([Domain("a", ("x",), (), ("c1",))])) == []


@settings(deadline=None)
@given(any_domains(min_subjects=2), st.data())
def test_extending_keeps_every_assignment(domains, data):
    kept = data.draw(st.sets(st.sampled_from(sorted(domains.labelled_cases)), min_size=1))
    subjects = domains.to_json()["subjects"]
    before = Domains([Domain(d.name, d.labels, tuple(c for c in d.labelled if c in kept)) for d in domains], subjects)
    old = make_splits(before)
    extended = extend_splits(old, domains)
    if len(old) == 1 and len(extended) > 1:  # one subject alone was no split worth keeping
        assert extended == make_splits(domains)
        return
    assert_sound(extended, domains) if len(old) > 1 else None
    for old_split, split in zip(old, extended, strict=True):
        for side in ("train", "val"):
            assert set(old_split[side]) <= set(split[side])
    assert extend_splits(extended, domains) == extended


def test_new_subjects_join_the_fold_with_fewest_of_their_domain():
    before, after = single_case_subjects(5, 4), single_case_subjects(5, 5)
    old = make_splits(before)
    (poor,) = [i for i, split in enumerate(old) if not any(case.startswith("d1") for case in split["val"])]
    assert "d1_4" in extend_splits(old, after)[poor]["val"]


def test_an_unchanged_set_leaves_a_users_own_splits_alone():
    domains = single_case_subjects(3)
    own = [{"train": ["d0_2", "d0_0"], "val": ["d0_1"]}]
    assert extend_splits(own, domains) == own


def test_cases_that_a_user_left_out_stay_out_unless_they_are_new():
    own = [{"train": ["d0_0"], "val": ["d0_1"]}, {"train": ["d0_1"], "val": ["d0_0"]}]
    domains = single_case_subjects(4)
    extended = extend_splits(own, domains, new=["d0_3"])
    assert {case for split in extended for side in split.values() for case in side} == {"d0_0", "d0_1", "d0_3"}


def test_a_single_fold_trains_on_new_cases():
    own = [{"train": ["d0_0"], "val": ["d0_1"]}]
    assert extend_splits(own, single_case_subjects(3)) == [{"train": ["d0_0", "d0_2"], "val": ["d0_1"]}]


def test_cases_that_are_gone_leave_the_splits():
    old = make_splits(single_case_subjects(10))
    fewer = single_case_subjects(9)
    extended = extend_splits(old, fewer)
    assert_sound(extended, fewer)


def test_splits_that_lose_a_side_are_made_anew():
    old = make_splits(single_case_subjects(5))
    domains = single_case_subjects(4)
    assert extend_splits(old, domains) == make_splits(domains)


def test_a_file_that_holds_no_splits_is_named(tmp_path):
    path = tmp_path / "splits_final.json"
    assert read_splits(path) is None
    path.write_text(json.dumps([{"train": ["a"]}]))
    with pytest.raises(UserError, match=r"splits_final\.json: not a splits file"):
        read_splits(path)


def leave_one_out_or_refused(domains):
    """The rounds, or None where a domain has fewer than three subjects that are in none before it."""
    first_of = {}
    for case in domains.labelled_cases:
        subject = domains.subject_of(case)
        first_of[subject] = min(first_of.get(subject, len(domains)), domains.index_of_case(case))
    own = Counter(first_of.values())
    if all(own[index] >= 3 for index in range(len(domains))):
        return leave_one_out(domains), max(own.values())
    with pytest.raises(UserError, match="takes at least 3"):
        leave_one_out(domains)
    return None, 0


@settings(deadline=None)
@given(any_domains())
def test_leave_one_out_tests_every_case_once_and_parts_no_subject(domains):
    rounds, n_rounds = leave_one_out_or_refused(domains)
    if rounds is None:
        return
    assert len(rounds) == n_rounds
    labelled = sorted(domains.labelled_cases)
    assert sorted(case for split in rounds for case in split["test"]) == labelled
    for split in rounds:
        assert sorted(case for side in ("train", "val", "test") for case in split[side]) == labelled
        sides = [{domains.subject_of(case) for case in split[side]} for side in ("train", "val", "test")]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
        assert {domains.domain_of_case(case) for case in split["train"]} == set(domains.names)


def test_leave_one_out_in_step():
    rounds = leave_one_out(single_case_subjects(3, 5))
    assert [split["test"] for split in rounds] == [
        ["d0_0", "d1_0"],
        ["d0_1", "d1_1"],
        ["d0_2", "d1_2"],
        ["d1_3"],
        ["d1_4"],
    ]
    assert [split["val"] for split in rounds] == [
        ["d0_1", "d1_1"],
        ["d0_2", "d1_2"],
        ["d0_0", "d1_3"],
        ["d1_4"],
        ["d1_0"],
    ]
    # A domain whose subjects have all been tested trains on all of them.
    assert rounds[4]["train"] == ["d0_0", "d0_1", "d0_2", "d1_1", "d1_2", "d1_3"]


def test_leave_one_out_of_a_subject_in_two_domains():
    domains = Domains(
        [Domain("a", ("x",), ("a0", "a1", "a2")), Domain("b", ("x",), ("b0", "b1", "b2", "b3"))],
        {"a0": "s", "b3": "s"},
    )
    rounds = leave_one_out(domains)
    (of_s,) = [split for split in rounds if "a0" in split["test"]]
    assert "b3" in of_s["test"]
    assert len(rounds) == 3


def test_leave_one_out_needs_three_subjects():
    with pytest.raises(UserError, match="domain 'd1' has 2 labelled subjects of its own"):
        leave_one_out(single_case_subjects(4, 2))
