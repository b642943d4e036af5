"""Side files of a raw dataset: small tables with one row per case, CSV with the column `case` first."""

import csv
from collections.abc import Mapping
from pathlib import Path

from nnunet_da.errors import UserError
from nnunet_da.files import atomic_file

CASE = "case"
# Which test case is of which domain and subject, as `nnunet-da evaluate --cases` reads it.
TEST_CASES = "test_cases.csv"

Table = Mapping[str, Mapping[str, str]]  # case → column → text


def read_table(path) -> Table:
    """The table at `path`, empty where there is none. Raises UserError where it has no column `case`."""
    path = Path(path)
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    if rows and CASE not in rows[0]:
        raise UserError(f"{path}, line 1: the column '{CASE}' is missing")
    return {row.pop(CASE): row for row in rows}


def merge(table: Table, new: Table, path) -> Table:
    """`table` with the rows of `new`. Raises UserError where a case stands in both with different content."""
    for case, row in new.items():
        if table.get(case, row) != row:
            raise UserError(f"{path}: case '{case}' stands there already, with other content")
    return {**table, **new}


def write_table(table: Table, path) -> None:
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [CASE, *columns], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({CASE: case, **row} for case, row in table.items())
