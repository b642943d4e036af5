import numpy as np
import pandas
import pytest

from nnunet_da.errors import UserError
from nnunet_da.evaluation.cases import COLUMNS
from nnunet_da.evaluation.tables import (
    LEGEND,
    MEAN,
    METRICS,
    REPORT_FILES,
    markdown,
    require_output,
    summarise,
    write_report,
)


def rows(*entries):
    """Rows from (domain, model, case, structure, value): every metric has the value; NaN flags it as missed."""
    return pandas.DataFrame(
        [
            {
                **dict.fromkeys(METRICS, value),
                "domain": domain,
                "model": model,
                "case": case,
                "structure": structure,
                "missed": bool(np.isnan(value)),
                "false": False,
                "n_reference_voxels": 5,
                "n_predicted_voxels": 5,
            }
            for domain, model, case, structure, value in entries
        ],
        columns=list(COLUMNS),
    )


def line(text, *names):
    """Cells of the line of a Markdown table that starts with `names`."""
    (found,) = (line for line in text.splitlines() if line.startswith("| " + " | ".join(names) + " |"))
    return [cell.strip() for cell in found.strip("| ").split(" | ")]


def test_mean_and_sample_deviation_over_cases():
    summary = summarise(rows(("t1", "unet", "a", "disc", 0.5), ("t1", "unet", "b", "disc", 0.7)))
    (record,) = summary.to_dict("records")
    assert record["structure"] == "disc"
    for key in METRICS:
        assert record[f"{key}_mean"] == pytest.approx(0.6)
        assert record[f"{key}_std"] == pytest.approx(0.2 / np.sqrt(2))
        assert record[f"{key}_n"] == 2
    assert [record[key] for key in ("n_cases", "n_values", "missed", "false")] == [2, 2, 0, 0]


def test_mean_of_structures_is_taken_within_each_case_first():
    # Case a has one structure only: its 1.0 weighs as much as the mean of case b's two.
    table = rows(("s", "m", "a", "disc", 1.0), ("s", "m", "b", "disc", 0.2), ("s", "m", "b", "bone", 0.4))
    summary = summarise(table).set_index("structure")
    assert list(summary.index) == [MEAN, "disc", "bone"]
    assert summary.loc[MEAN, "dsc_mean"] == pytest.approx((1.0 + 0.3) / 2)
    assert summary.loc[MEAN, "dsc_std"] == pytest.approx(0.7 / np.sqrt(2))
    assert summary.loc[MEAN, ["n_cases", "n_values"]].tolist() == [2, 3]
    assert summary.loc["bone", "n_cases"] == 1


def test_what_is_undefined_is_counted_and_shown():
    table = rows(
        ("s", "m", "a", "disc", 2.0),
        ("s", "m", "a", "bone", np.nan),
        ("s", "m", "b", "disc", 4.0),
        ("s", "m", "b", "bone", 6.0),
    )
    summary = summarise(table)
    mean = summary.iloc[0]
    assert (mean["hd_mm_mean"], mean["hd_mm_n"], mean["n_values"], mean["missed"]) == (3.5, 3, 4, 1)
    text = markdown(summary)
    assert "3.50 ± 2.12 [3/4]" in text
    assert "6.00 [1/2]" in text
    assert "3.00 ± 1.41 |" in text
    assert text.rstrip().endswith(LEGEND)


def test_nothing_but_undefined():
    summary = summarise(rows(("s", "m", "a", "disc", np.nan)))
    assert np.isnan(summary["hd_mm_mean"]).all()
    assert "– [0/1]" in markdown(summary)


def test_layout_and_best_per_domain():
    table = rows(
        ("s", "unet", "a", "disc", 0.8),
        ("s", "da", "a", "disc", 0.9),
        ("t1", "unet", "b", "disc", 0.7),
        ("t1", "da", "b", "disc", 0.6),
    )
    text = markdown(summarise(table))
    assert text.splitlines()[0] == "### disc"
    distances = ["HD (voxels)", "HD (mm)", "HD95 (mm)", "ASSD (mm)"]
    assert line(text, "Domain") == ["Domain", "Model", "Cases", "DSC", *distances, "Sen", "Spec", "Missed", "False"]
    # DSC, Sen and Spec are best when high, distances when low.
    assert line(text, "s", "unet") == ["s", "unet", "1", "0.800", *["**0.80**"] * 4, "0.800", "0.800", "0", "0"]
    assert line(text, "s", "da")[3:5] == ["**0.900**", "0.90"]
    assert line(text, "t1", "unet")[3:5] == ["**0.700**", "0.70"]
    assert [line.split(" | ")[0] for line in text.splitlines()[4:8]] == ["| s", "| s", "| t1", "| t1"]


def test_equal_to_the_last_printed_digit_is_equally_good():
    text = markdown(summarise(rows(("s", "x", "a", "disc", 0.80001), ("s", "y", "a", "disc", 0.8))))
    assert line(text, "s", "x")[3] == line(text, "s", "y")[3] == "**0.800**"


def test_a_distance_over_fewer_values_is_never_the_best():
    table = rows(
        ("s", "misses", "a", "disc", 1.0),
        ("s", "misses", "b", "disc", np.nan),
        ("s", "finds", "a", "disc", 2.0),
        ("s", "finds", "b", "disc", 3.0),
    )
    text = markdown(summarise(table))
    assert line(text, "s", "misses")[5] == "1.00 [1/2]"
    assert line(text, "s", "finds")[5] == "**2.50 ± 0.71**"


def test_one_model_is_not_marked_as_the_best():
    assert "**" not in markdown(summarise(rows(("s", "m", "a", "disc", 0.8))))


def test_bars_in_names_do_not_break_the_table():
    assert r"| s\|t | m |" in markdown(summarise(rows(("s|t", "m", "a", "disc", 0.8))))


@pytest.fixture
def report():
    table = rows(("s", "m", "a", "disc", 0.8), ("s", "m", "b", "disc", np.nan))
    return table, summarise(table)


def test_report_holds_what_was_computed(tmp_path, report):
    table, summary = report
    output = tmp_path / "new" / "report"
    require_output(output, overwrite=False)
    write_report(table, summary, output)
    assert sorted(path.name for path in output.iterdir()) == sorted(REPORT_FILES)
    pandas.testing.assert_frame_equal(pandas.read_csv(output / "cases.csv"), table, check_dtype=False)
    pandas.testing.assert_frame_equal(pandas.read_csv(output / "table.csv"), summary, check_dtype=False)
    assert (output / "table.md").read_text(encoding="utf-8") == markdown(summary)


def test_own_reports_are_replaced(tmp_path, report):
    for name in REPORT_FILES:
        (tmp_path / name).write_text("old")
    require_output(tmp_path, overwrite=False)
    write_report(*report, tmp_path)
    assert all((tmp_path / name).read_text(encoding="utf-8") != "old" for name in REPORT_FILES)


def test_files_of_others_stay(tmp_path, report):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        require_output(tmp_path, overwrite=False)
    require_output(tmp_path, overwrite=True)
    write_report(*report, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", *REPORT_FILES}


@pytest.mark.parametrize("below", ["", "report"])
def test_a_file_is_no_place_for_a_report(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: is a file, not a folder"):
        require_output(tmp_path / "file" / below, overwrite=True)
