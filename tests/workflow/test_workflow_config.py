"""The YAML of a run is read into dataclasses, and refused with one line."""

from dataclasses import dataclass, field

import pytest

from nnunet_da.errors import UserError
from nnunet_da.workflow.config import WorkflowConfig, flatten, read_config


@dataclass(frozen=True)
class Group:
    number: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Config(WorkflowConfig):
    group: Group
    other: Group | None = None
    free: dict = field(default_factory=dict)


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return read_config(path, Config)

    return read


def test_groups_lists_and_free_blocks(read):
    config, block = read("work: W\ngroup: {number: 3, names: [a, b]}\nfree: {x: {y: 1}}\n")
    assert config == Config(work="W", group=Group(3, ("a", "b")), free={"x": {"y": 1}})
    assert block["group"] == {"number": 3, "names": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("group: {number: 3}", "'work' is missing"),
        ("work: W\ngroup: {}", "'group.number' is missing"),
        ("work: W\ngroup: {number: 1}\nother: {names: [a]}", "'other.number' is missing"),
        ("work: W\ngroup: {number: three}", "group.number: must be of type int"),
        ("work: W\ngroup: {number: 3}\nwrok: W", "wrok: unknown; did you mean 'work'?"),
        ("work: W\ngroup: {number: 3, nmaes: [a]}", "group.nmaes: unknown; did you mean 'names'?"),
        ("work: W\nwork: V\ngroup: {number: 3}", r"run.yaml, line 2: 'work' stands twice"),
        ("work: W\ngroup: {number: 3", r"run.yaml, line \d: not YAML"),
        ("- work", "must hold settings"),
        ("work: W\ngroup: {number: 3}\nresources: {train: 7}", "resources.train: must map names"),
    ],
)
def test_what_breaks_a_rule_is_named_with_the_file(read, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read(text)
    assert "run.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"absent.yaml: no such file"):
        read_config(tmp_path / "absent.yaml", Config)


def test_flatten():
    assert flatten({"a": {"b": {"c": 1}, "d": []}, "e.f": 2, "g": {}}) == {"a.b.c": 1, "a.d": [], "e.f": 2, "g": {}}
