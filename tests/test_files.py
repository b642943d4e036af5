import json
import os
import stat
from collections import namedtuple

import pytest

from nnunet_da.errors import UserError
from nnunet_da.files import (
    atomic_file,
    atomic_folder,
    read_json,
    remove_leftovers,
    require_free_space,
    write_json,
)


class Stop(Exception):
    pass


def write_half_and_stop(path):
    path.write_text("half")
    raise Stop


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask_027():
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize("name", ["plans.json", "scan.nii.gz", ".hidden", "plain"])
def test_file_appears_when_the_block_ends(tmp_path, name):
    path = tmp_path / "new" / name
    with atomic_file(path) as temporary:
        temporary.write_text("content")
        assert not path.exists()
        assert temporary.name.endswith("".join(path.suffixes))
        assert temporary.parent == path.parent
    assert path.read_text() == "content"
    assert os.listdir(path.parent) == [name]


@pytest.mark.parametrize("existing", [None, "old"])
def test_file_stays_as_it_was_when_the_block_raises(tmp_path, existing):
    path = tmp_path / "plans.json"
    if existing is not None:
        path.write_text(existing)
    before = os.listdir(tmp_path)
    with pytest.raises(Stop), atomic_file(path) as temporary:
        write_half_and_stop(temporary)
    assert os.listdir(tmp_path) == before
    assert existing is None or path.read_text() == existing


def test_file_is_replaced_without_touching_what_else_has_its_content(tmp_path):
    path, link, symlink = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    path.write_text("old")
    link.hardlink_to(path)
    symlink.symlink_to(path)
    with atomic_file(path) as temporary:
        temporary.write_text("new")
    assert (path.read_text(), link.read_text()) == ("new", "old")
    with atomic_file(symlink) as temporary:
        temporary.write_text("newer")
    assert (path.read_text(), symlink.read_text()) == ("new", "newer")


def test_permissions_are_those_of_open_and_mkdir(tmp_path, umask_027):
    write_json({}, tmp_path / "new.json")
    with atomic_folder(tmp_path / "folder"):
        pass
    assert mode(tmp_path / "new.json") == 0o640
    assert mode(tmp_path / "folder") == 0o750
    (tmp_path / "new.json").chmod(0o660)
    write_json({}, tmp_path / "new.json")
    assert mode(tmp_path / "new.json") == 0o660


def test_folder_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "Dataset001_A"
    with atomic_folder(path) as temporary:
        (temporary / "file").write_text("content")
        assert not path.exists()
    assert (path / "file").read_text() == "content"
    assert os.listdir(path.parent) == [path.name]


def test_folder_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    with atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
        assert os.listdir(path) == ["old"]
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["model"]


def test_linked_folder_is_replaced_where_it_lies(tmp_path):
    real, link = tmp_path / "disk" / "model", tmp_path / "link"
    real.mkdir(parents=True)
    (real / "old").write_text("old")
    link.symlink_to(real)
    with atomic_folder(link) as temporary:
        (temporary / "new").write_text("new")
        assert temporary.parent == real.parent
    assert link.is_symlink()
    assert os.listdir(real) == ["new"]


@pytest.mark.parametrize("exists", [False, True])
def test_folder_stays_as_it_was_when_the_block_raises(tmp_path, exists):
    path = tmp_path / "model"
    if exists:
        path.mkdir()
        (path / "old").write_text("old")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Stop), atomic_folder(path) as temporary:
        write_half_and_stop(temporary / "new")
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_is_put_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("old")
    replace = os.replace

    def fails_for_the_new_one(source, target):
        if os.path.exists(os.path.join(source, "new")):
            raise PermissionError("refused")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails_for_the_new_one)
    with pytest.raises(PermissionError), atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert sorted(tmp_path.rglob("*")) == [path, path / "old"]


def test_json_round_trip_keeps_the_order_of_keys(tmp_path):
    content = {"t2": {"b": 1, "a": [1.5, None, True]}, "t1": "ü"}
    write_json(content, tmp_path / "a.json")
    assert json.dumps(read_json(tmp_path / "a.json")) == json.dumps(content)


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json({"a": 1}, tmp_path / "a.json")
    with pytest.raises(TypeError):
        write_json({"a": object()}, tmp_path / "a.json")
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("content", "rule"),
    [(None, "no such file"), (b"{'a': 1}", "not a JSON file"), (b"", "not a JSON file"), (b"\xff\xfe", "not a JSON")],
)
def test_unreadable_json_is_named_in_one_line(tmp_path, content, rule):
    path = tmp_path / "dataset.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rule) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_folder_instead_of_json(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


def test_free_space_is_that_of_the_first_folder_that_exists(tmp_path, monkeypatch):
    asked = []

    def disk_usage(folder):
        asked.append(folder)
        return namedtuple("Usage", "free")(5_000_000)

    monkeypatch.setattr("shutil.disk_usage", disk_usage)
    require_free_space(tmp_path / "a" / "b", 5_000_000, "writing")
    with pytest.raises(UserError, match="writing needs 6 MB, but only 5 MB are free"):
        require_free_space(tmp_path / "a" / "b", 6_000_000, "writing")
    assert asked == [tmp_path, tmp_path]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    folders = [".out.translated", ".out.unfinished", ".outer.x1y2z3w4", "out"]
    files = [".plans.abcd_123.txt", ".plans.old.json", "plans.json"]
    for name in (*folders, ".out.x1y2z3w4", ".out.old.x1y2z3w4"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").touch()
    for name in (*files, ".plans.abcd_123.json"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "out")
    remove_leftovers(tmp_path / "plans.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*folders, *files])
    remove_leftovers(tmp_path / "absent" / "out")


def test_what_a_killed_writer_leaves_is_a_leftover(tmp_path):
    for write in (atomic_file, atomic_folder):
        writer = write(tmp_path / "new.json")
        writer.__enter__()
        assert len(list(tmp_path.iterdir())) == 1
        remove_leftovers(tmp_path / "new.json")
        assert list(tmp_path.iterdir()) == []
