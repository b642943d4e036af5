import json
from dataclasses import dataclass, field, fields
from typing import Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_da.errors import UserError
from nnunet_da.settings import build, merge, parse_assignments, require, to_block, union


@dataclass(frozen=True)
class Task:
    weight: float = 1.0
    domains: tuple[str, ...] | None = None
    kernel: tuple[int, int] = (3, 3)
    update: Literal["joint", "alternating"] = "alternating"

    def __post_init__(self):
        require(self.weight >= 0, "task.weight", "must not be negative")


@dataclass(frozen=True)
class Run:
    epochs: int = 10
    name: str = "run"
    seed: int | None = None
    limit: Optional[float] = None  # noqa: UP045  (both spellings are read)
    flip: bool = True
    rates: tuple[float, ...] = ()
    task: Task = field(default_factory=Task)


def test_nothing_given_is_the_defaults():
    assert build(Run, {}) == Run()


def test_nested_groups():
    settings = build(Run, {"epochs": 3, "task": {"weight": 2, "domains": ["t1", "t2"], "update": "joint"}})
    assert settings == Run(epochs=3, task=Task(2.0, ("t1", "t2"), update="joint"))
    assert isinstance(settings.task.weight, float)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"epoch": 1}, "setting epoch: unknown; did you mean 'epochs'? (known: epochs, name, seed, limit, flip, rates"),
        ({"task": {"wieght": 1}}, "setting task.wieght: unknown; did you mean 'weight'? (known: weight, domains"),
        ({"zzz": 1}, "setting zzz: unknown (known: epochs"),
        ({"task": 3}, "setting task: expected a group of settings, got 3"),
        ({"epochs": 1.0}, "setting epochs: must be of type int; got 1.0"),
        ({"epochs": True}, "setting epochs: must be of type int; got True"),
        ({"epochs": "1"}, "setting epochs: must be of type int; got '1'"),
        ({"epochs": None}, "setting epochs: must be of type int; got None"),
        ({"flip": 1}, "setting flip: must be of type bool; got 1"),
        ({"name": 1}, "setting name: must be of type str; got 1"),
        ({"seed": "a"}, "setting seed: must be of type int; got 'a'"),
        ({"task": {"weight": True}}, "setting task.weight: must be of type float; got True"),
        ({"task": {"weight": -1}}, "setting task.weight: must not be negative"),
        ({"task": {"update": "never"}}, "setting task.update: must be one of joint, alternating; got 'never'"),
        ({"task": {"kernel": [3]}}, "setting task.kernel: must have 2 values; got [3]"),
        ({"task": {"kernel": [3, "x"]}}, "setting task.kernel: must be of type int; got 'x'"),
        ({"task": {"kernel": True}}, "setting task.kernel: must be a list; got True"),
        ({"task": {"domains": [1]}}, "setting task.domains: must be of type str; got 1"),
        ([], "setting nnunet_da: expected a group of settings, got []"),
    ],
)
def test_what_is_refused(block, message):
    with pytest.raises(UserError) as error:
        build(Run, block)
    assert message in str(error.value)


def test_ignored_keys_are_passed_over_at_the_top_only():
    assert build(Run, {"trained_domains": {"t1": []}, "seed": 1}, ignore=("trained_domains",)) == Run(seed=1)
    with pytest.raises(UserError, match=r"task\.trained_domains: unknown"):
        build(Run, {"task": {"trained_domains": 1}}, ignore=("trained_domains",))


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("task.domains=t1,t2", Run(task=Task(domains=("t1", "t2")))),
        ("task.domains= t1 , t2 ,", Run(task=Task(domains=("t1", "t2")))),
        ("task.domains=t1", Run(task=Task(domains=("t1",)))),
        ('task.domains=["t1", "a,b"]', Run(task=Task(domains=("t1", "a,b")))),
        ("task.domains=1", Run(task=Task(domains=("1",)))),
        ("task.domains=1,2", Run(task=Task(domains=("1", "2")))),
        ("task.domains=null", Run()),
        ("task.kernel=5,7", Run(task=Task(kernel=(5, 7)))),
        ("task.kernel=[5, 7]", Run(task=Task(kernel=(5, 7)))),
        ("rates=0.5", Run(rates=(0.5,))),
        ("rates=1,0.5", Run(rates=(1.0, 0.5))),
        ("rates=", Run(rates=())),
        ("seed=7", Run(seed=7)),
        ("seed=null", Run(seed=None)),
        ("limit=1e-3", Run(limit=0.001)),
        ("limit=2", Run(limit=2.0)),
        ("flip=false", Run(flip=False)),
        ("name=a=b", Run(name="a=b")),
        ("task.update=joint", Run(task=Task(update="joint"))),
    ],
)
def test_values_as_typed_on_the_command_line(assignment, expected):
    assert build(Run, parse_assignments([assignment])) == expected


def test_assignments_are_gathered_by_group_and_the_last_one_counts():
    block = parse_assignments(["a.b.c=1", "a.b.d=x", "e=[1]", "a.b.c=2"])
    assert block == {"a": {"b": {"c": 2, "d": "x"}}, "e": [1]}


@pytest.mark.parametrize("assignments", [["seed"], ["=1"], ["seed=1", "seed.a=2"]])
def test_malformed_assignments(assignments):
    with pytest.raises(UserError, match=f"--set {assignments[-1]}: "):
        parse_assignments(assignments)


def test_merge_goes_group_by_group_and_changes_neither():
    base, update = {"a": {"b": 1, "c": {"d": 2}}, "e": 3, "g": {"h": 1}}, {"a": {"c": {"d": 4}}, "f": 5, "g": 6}
    before = json.dumps([base, update])
    assert merge(base, update) == {"a": {"b": 1, "c": {"d": 4}}, "e": 3, "g": 6, "f": 5}
    assert json.dumps([base, update]) == before


NAMES = st.text(min_size=1, max_size=5)
NUMBERS = st.floats(allow_nan=False)
TASKS = st.builds(
    Task,
    weight=st.floats(min_value=0, allow_infinity=False),
    domains=st.none() | st.lists(NAMES).map(tuple),
    kernel=st.tuples(st.integers(), st.integers()),
    update=st.sampled_from(["joint", "alternating"]),
)
RUNS = st.builds(
    Run,
    epochs=st.integers(),
    name=NAMES,
    seed=st.none() | st.integers(),
    limit=st.none() | NUMBERS,
    flip=st.booleans(),
    rates=st.lists(NUMBERS).map(tuple),
    task=TASKS,
)


@given(RUNS)
def test_round_trip_through_a_block(run):
    block = to_block(run)
    assert build(Run, json.loads(json.dumps(block))) == run
    assert build(Run, merge(to_block(Run()), block)) == run


def test_union_holds_every_setting_once():
    @dataclass(frozen=True)
    class Other:
        epochs: int = 10
        extra: float = 0.5
        task: Task = field(default_factory=Task)

    both = union([Run, Other])
    assert [f.name for f in fields(both)] == ["epochs", "name", "seed", "limit", "flip", "rates", "task", "extra"]
    assert to_block(both()) == {**to_block(Run()), "extra": 0.5}
    assert build(both, {"extra": 1, "task": {"weight": 3}}).task == Task(3.0)


@dataclass(frozen=True)
class OtherType:
    epochs: float = 10


@dataclass(frozen=True)
class OtherDefault:
    epochs: int = 11


@dataclass(frozen=True)
class OtherGroup:
    task: Run = field(default_factory=Run)


@pytest.mark.parametrize("other", [OtherType, OtherDefault, OtherGroup])
def test_union_refuses_two_meanings_of_one_name(other):
    with pytest.raises(TypeError, match=f"of {other.__name__} is declared otherwise"):
        union([Run, other])


def test_union_keeps_the_rules_of_each():
    @dataclass(frozen=True)
    class Limited:
        rounds: int = 1

        def __post_init__(self):
            require(self.rounds < 5, "rounds", "must be below 5")

    both = union([Run, Limited])
    assert build(both, {"rounds": 4}).rounds == 4
    with pytest.raises(UserError, match="setting rounds: must be below 5"):
        build(both, {"rounds": 5})
