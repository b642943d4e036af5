"""How the results of a study's runs are put together."""

import pandas
import pytest

from nnunet_da.errors import UserError
from nnunet_da.study.declarations import Model, Task
from nnunet_da.study.tables import collect, differences


def test_nothing_evaluated_is_said(tmp_path):
    task = Task("Tiny", None, 601, ("disc=1",), ("MR",))
    with pytest.raises(UserError, match="nothing is evaluated yet"):
        collect([task], [Model("U-Net", "nnUNetTrainerUNet")], tmp_path)


def results(**dsc):
    """A table of results: ``results(model=[[seed 1, case by case], [seed 2]])``."""
    rows = [
        {"model": model, "domain": "t", "case": f"c{case}", "structure": "disc", "dsc": value, "seed": seed}
        for model, by_seed in dsc.items()
        for seed, values in enumerate(by_seed, start=1)
        for case, value in enumerate(values)
    ]
    return pandas.DataFrame(rows).assign(task="Spine", set="test")


def test_differences_are_paired_by_case_and_seed():
    table = differences(results(a=[[0.5, 0.7], [0.5, 0.5]], b=[[0.6, 0.9], [0.6, 0.7], [0.0, 0.0]]), ["a"])
    (row,) = [line for line in table.splitlines() if "b − a" in line]
    assert "| 2 | 2 | +0.150 | +0.100 to +0.200 | +0.150, +0.150 |" in row


def test_differences_are_from_every_baseline_and_one_case_has_no_interval():
    table = differences(results(a=[[0.5]], b=[[0.6]], c=[[0.8]]), ["a", "b"])
    rows = [line.split("|")[4:9] for line in table.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == ["b − a", "c − a", "a − b", "c − b"]
    assert [row[3].strip() for row in rows] == ["+0.100", "+0.300", "-0.100", "+0.200"]
    assert all("| – |" in line for line in table.splitlines()[2:])


def test_a_case_counts_once_in_a_difference_whatever_its_structures():
    rows = [results(a=[[0.5, 0.5]], b=[[0.6, 0.9]]).assign(structure=name) for name in ("disc", "cord", "canal")]
    # Of the second case one structure alone is defined.
    frame = pandas.concat([rows[0], *(frame[frame["case"] == "c0"] for frame in rows[1:])])
    (row,) = [line for line in differences(frame, ["a"]).splitlines() if "b − a" in line]
    assert "| 2 | 1 | +0.250 |" in row
