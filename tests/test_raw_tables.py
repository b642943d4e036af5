import pytest

from nnunet_da.errors import UserError
from nnunet_da.raw_tables import merge, read_table, write_table


def test_a_table_is_read_as_it_was_written(tmp_path):
    table = {"a": {"koos": "1", "site": "x, y"}, "b": {"koos": "3", "site": ""}}
    write_table(table, tmp_path / "koos.csv")
    assert (tmp_path / "koos.csv").read_text().splitlines()[0] == "case,koos,site"
    assert read_table(tmp_path / "koos.csv") == table
    assert read_table(tmp_path / "none.csv") == {}


def test_rows_join_unless_they_contradict(tmp_path):
    table = {"a": {"koos": "1"}}
    assert merge(table, {"a": {"koos": "1"}, "b": {"koos": "2"}}, "koos.csv") == {
        "a": {"koos": "1"},
        "b": {"koos": "2"},
    }
    with pytest.raises(UserError, match=r"koos\.csv: case 'a' stands there already, with other content"):
        merge(table, {"a": {"koos": "2"}}, "koos.csv")


def test_a_file_without_the_column_case(tmp_path):
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match=r"other\.csv, line 1: the column 'case' is missing"):
        read_table(tmp_path / "other.csv")
