import numpy as np
import pandas
import pytest

from nnunet_da.errors import UserError
from nnunet_da.evaluation import metrics
from nnunet_da.evaluation.cases import COLUMNS
from nnunet_da.evaluation.statistics import compare, mean_intervals, wilcoxon_p
from nnunet_da.evaluation.tables import (
    LEGEND,
    MEAN,
    METRICS,
    PAGE,
    PRESETS,
    REPORT_FILES,
    case_tables,
    compare_models,
    comparison_tables,
    interval_tables,
    markdown,
    mean_tables,
    report_texts,
    require_output,
    slice_tables,
    summarise,
    write_page,
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
    assert text.rstrip().splitlines()[-1].startswith("Mean ± standard deviation (ddof = 1)")
    assert "[k/n]: the mean holds only k of n values" in text


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
    titles = [metric.title for metric in metrics.METRICS]
    assert line(text, "Domain") == ["Domain", "Model", "Cases", *titles, "Missed", "False"]
    # Each metric has the value 0.8 here and 0.9 in the other model: the higher is the better, or the lower.
    printed = [f"{0.8:.{metric.decimals}f}" for metric in metrics.METRICS]
    marked = [
        f"**{value}**" if metric.better == "lower" else value
        for metric, value in zip(metrics.METRICS, printed, strict=True)
    ]
    assert line(text, "s", "unet") == ["s", "unet", "1", *marked, "0", "0"]
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


# Layouts


def cells(table):
    """(labels, column titles) → text of the cell."""
    return {
        (labels, column): " ".join(filter(None, [cell.text, cell.count]))
        for labels, row in table.rows
        for column, cell in zip(table.columns, row, strict=True)
    }


@pytest.fixture
def study():
    """Two models, two domains of eight cases, two structures; random, with two undefined values."""
    rng = np.random.default_rng(0)
    table = rows(
        *(
            (domain, model, f"{domain}{number}", structure, 0.7 + shift + 0.05 * rng.normal())
            for domain in ("ankle", "knee")
            for model, shift in (("unet", 0.0), ("da", 0.1))
            for number in range(8)
            for structure in ("bone", "disc")
        )
    )
    for index, key in ((3, "assd_mm"), (17, "dsc")):
        table.loc[index, key] = np.nan
    return table


def test_metrics_as_columns_of_each_domain(study):
    summary = summarise(study)
    tables = mean_tables(
        summary, rows=("model",), columns=("domain", "metric"), metrics=("dsc", "assd_mm"), percent=True
    )
    assert [table.title for table in tables] == [MEAN, "bone", "disc"]
    assert tables[0].stubs == ("Model",)
    assert tables[0].columns == tuple((d, m) for d in ("ankle", "knee") for m in ("DSC (%)", "ASSD (mm)"))
    record = summary[(summary["structure"] == "disc") & (summary["domain"] == "ankle")].set_index("model").loc["unet"]
    found = cells(tables[2])
    dice = f"{100 * record['dsc_mean']:.1f} ± {100 * record['dsc_std']:.1f}"
    assert found[("unet",), ("ankle", "DSC (%)")] == dice
    assd = f"{record['assd_mm_mean']:.2f} ± {record['assd_mm_std']:.2f}"
    assert found[("unet",), ("ankle", "ASSD (mm)")] == f"{assd} [7/8]"


def test_every_key_can_be_row_column_or_table(study):
    summary = summarise(study)
    (table,) = mean_tables(summary, rows=("structure", "model"), columns=("domain",), metrics=("dsc",))[:1]
    assert table.title == "DSC"
    assert [labels for labels, _ in table.rows][:3] == [(MEAN, "unet"), (MEAN, "da"), ("bone", "unet")]
    tables = mean_tables(summary, rows=("metric",), columns=("model",), metrics=("dsc", "missed"))
    assert [table.title for table in tables][:3] == [f"{MEAN}, ankle", f"{MEAN}, knee", "bone, ankle"]
    assert cells(tables[0])[("Missed",), ("da",)] == "0"


def test_a_domain_without_a_structure_has_no_line_in_its_table():
    table = rows(("s", "m", "a", "disc", 0.5), ("s", "m", "a", "bone", 0.6), ("t", "m", "b", "disc", 0.7))
    by_title = {table.title: table for table in mean_tables(summarise(table), metrics=("dsc",))}
    assert [labels for labels, _ in by_title["bone"].rows] == [("s", "m")]
    (crossed,) = mean_tables(summarise(table), rows=("domain", "model"), columns=("structure",), metrics=("dsc",))
    assert cells(crossed)[("t", "m"), ("bone",)] == ""
    assert cells(crossed)[("t", "m"), ("disc",)] == "0.700"


def test_brackets_in_place_of_plus_minus():
    summary = summarise(rows(("t1", "unet", "a", "disc", 0.5), ("t1", "unet", "b", "disc", 0.7)))
    (table,) = mean_tables(summary, metrics=("dsc",), brackets=True)
    assert cells(table)[("t1", "unet"), ("DSC",)] == "0.600 (0.141)"
    assert "Mean (standard deviation)" in table.note


def test_significant_differences_are_marked_where_holm_says_so(study):
    comparisons = compare(study, "unet", "dsc")
    tables = mean_tables(summarise(study), metrics=("dsc", "sensitivity"), comparisons=comparisons)
    expected = set(
        comparisons[comparisons["p_holm"] < 0.05][["structure", "domain"]].itertuples(index=False, name=None)
    )
    marked = {
        (table.title, labels[0])
        for table in tables
        for (labels, column), text in cells(table).items()
        if "*" in text and (labels[1], column) == ("da", ("DSC",))
    }
    assert marked == expected
    assert expected
    assert not any("*" in text for table in tables for (_, column), text in cells(table).items() if column == ("Sen",))
    assert "differs from unet" in tables[0].note


def test_names_of_layouts_are_checked(study):
    summary = summarise(study)
    for wrong in ({"rows": ("case",)}, {"rows": ()}, {"rows": ("metric", "model")}):
        with pytest.raises(UserError, match="rows and columns"):
            mean_tables(summary, **wrong)
    with pytest.raises(UserError, match="no metric 'dcs'; did you mean 'dsc'"):
        mean_tables(summary, metrics=("dcs",))
    with pytest.raises(UserError, match="'dsc' was not computed"):
        mean_tables(summary.drop(columns="dsc_mean"), metrics=("dsc",))


def test_results_that_lack_a_metric_have_no_column_for_it(study):
    text = markdown(summarise(study.drop(columns=["nsd", "ravd"])))
    assert "NSD" not in text
    assert "ASSD" in text


def test_cases_by_structure_with_margins(study):
    summary = summarise(study).set_index(["structure", "domain", "model"])
    tables = case_tables(study, "dsc")
    assert [table.title for table in tables] == [
        "DSC: unet, ankle",
        "DSC: da, ankle",
        "DSC: unet, knee",
        "DSC: da, knee",
    ]
    for table, (domain, model) in zip(tables, ((d, m) for d in ("ankle", "knee") for m in ("unet", "da")), strict=True):
        assert [labels for labels, _ in table.rows] == [*((f"{domain}{n}",) for n in range(8)), ("mean ± std",)]
        found = cells(table)
        for column, structure in ((("bone",), "bone"), (("disc",), "disc"), (("mean ± std",), MEAN)):
            record = summary.loc[(structure, domain, model)]
            text = f"{record['dsc_mean']:.3f} ± {record['dsc_std']:.3f}"
            n, expected = int(record["dsc_n"]), int(record["n_values"])
            count = "" if n == expected else f" [{n}/{expected}]"
            assert found[("mean ± std",), column] == text + count
    first = study.iloc[:2]["dsc"]
    found = cells(tables[0])
    assert found[("ankle0",), ("bone",)] == f"{first.iloc[0]:.3f}"
    assert found[("ankle0",), ("mean ± std",)] == f"{first.mean():.3f} ± {first.std(ddof=1):.3f}"
    # Row 17 of the fixture: the second model, first case, second structure.
    found = cells(tables[1])
    assert found[("ankle0",), ("disc",)] == "–"
    assert found[("ankle0",), ("mean ± std",)] == f"{study.loc[16, 'dsc']:.3f} [1/2]"


def test_one_structure_has_no_margin_over_structures():
    (table,) = case_tables(rows(("s", "m", "a", "disc", 0.5), ("s", "m", "b", "disc", np.nan)), "dsc")
    assert table.columns == (("disc",),)
    assert cells(table)[("mean ± std",), ("disc",)] == "0.500 [1/2]"
    numbers = table.csv().splitlines()
    assert numbers[0] == "Case,disc,disc mean,disc std,disc n,disc of"
    assert numbers[1:] == ["a,0.5,,,,", "b,nan,,,,", "mean ± std,,0.5,nan,1,2"]


@pytest.fixture
def slices():
    values = {"unet": [0.1, 0.2, 0.3, np.nan], "da": [0.8, 0.9, 0.7, 0.6]}
    return pandas.DataFrame(
        {"model": m, "domain": d, "case": d, "structure": "disc", "slice": i, "dsc": value, "sensitivity": value}
        for d in ("s", "t")
        for m, series in values.items()
        for i, value in enumerate(series)
    )


def test_slices_of_all_domains(slices):
    (table,) = slice_tables(slices, "da", ("dsc", "sensitivity"), percent=True)
    assert table.columns == (("unet",), ("da",))
    assert [labels for labels, _ in table.rows] == [("DSC (%) 2D",), ("p",), ("Sen (%) 2D",), ("p",)]
    (_, (unet, da)), (_, (p, no_p)) = table.rows[:2]
    assert (unet.text, unet.count) == (f"20.0 ± {100 * np.std([0.1, 0.2, 0.3] * 2, ddof=1):.1f}", "[6/8]")
    assert (da.text[:4], da.count) == ("75.0", "")
    # Six values below eight others: 2 of the C(14, 6) ways to deal them have D = 1.
    assert p.values[""] == pytest.approx(2 / 3003)
    assert (p.text, p.is_best, no_p.text) == ("6.7e−4", True, "–")
    with pytest.raises(UserError, match="no model 'd' among"):
        slice_tables(slices, "d")


def test_table_of_comparisons(study):
    comparisons = compare(study, "unet", "dsc")
    tables = comparison_tables(comparisons)
    assert [table.title for table in tables] == [f"DSC, {MEAN}", "DSC, bone", "DSC, disc"]
    found = cells(tables[2])
    ankle = study[(study["domain"] == "ankle") & (study["structure"] == "disc")]
    values = ankle.pivot(index="case", columns="model", values="dsc")
    differences = (values["da"] - values["unet"]).dropna()
    assert found[("ankle", "da"), ("Pairs",)] == str(len(differences)) == "7"
    assert found[("ankle", "da"), ("Left out",)] == "1"
    assert found[("ankle", "da"), ("Difference",)] == f"{differences.mean():+.3f}"
    assert found[("ankle", "da"), ("p (Wilcoxon)",)] == f"{wilcoxon_p(differences):.3f}"
    record = comparisons[(comparisons["structure"] == "disc") & (comparisons["domain"] == "ankle")].iloc[0]
    assert found[("ankle", "da"), ("95 % interval",)] == f"{record['low']:+.3f} to {record['high']:+.3f}"
    assert found[("ankle", "da"), ("p (KS)",)] == "–"
    assert "over the 6 tests" in tables[0].note


def test_too_few_cases_are_said_and_have_no_p_value():
    table = rows(*(("s", m, f"c{n}", "disc", 0.5 + n / 10 + (m == "da") / 9) for m in ("unet", "da") for n in range(5)))
    (shown,) = comparison_tables(compare(table, "unet", "assd_mm"))
    found = cells(shown)
    assert found[("s", "da"), ("p (Wilcoxon)",)] == found[("s", "da"), ("p (Holm)",)] == "n < 6"
    assert "n < 6: fewer than 6 differences" in shown.note
    negative = rows(*(("s", m, f"c{n}", "disc", 0.5 - n * (m == "da") / 9) for m in ("unet", "da") for n in range(2)))
    (shown,) = comparison_tables(compare(negative, "unet", "dsc"))
    assert cells(shown)[("s", "da"), ("Difference",)] == "−0.056"


def test_table_of_intervals(study):
    frame = mean_intervals(study, "dsc", confidence=0.9)
    record = frame[(frame["structure"] == "bone") & (frame["domain"] == "knee") & (frame["model"] == "da")].iloc[0]
    found = cells(interval_tables(frame)[1])
    assert found[("knee", "da"), ("Mean",)] == f"{record['mean']:.3f}"
    assert found[("knee", "da"), ("90 % interval",)] == f"{record['low']:.3f} to {record['high']:.3f}"


def test_presets_have_the_columns_of_the_papers(study, slices):
    summary = summarise(study)

    def titles(name, *arguments):
        return PRESETS[name](*arguments)[0].columns

    assert titles("intensity_da Table 1", summary) == (("DSC",), ("HD (voxels)",), ("Sen",), ("Spec",))
    ankle_and_knee = [("ankle",), ("knee",)]
    for name, metrics_of_paper in (
        ("multidomain_contrastive Table 1", ("DSC (%)", "ASSD (mm)", "HD (mm)")),
        ("multidomain_contrastive Table S1", ("Sen (%)", "Spec (%)", "RAVD (%)")),
    ):
        assert titles(name, summary) == tuple((*d, m) for d in ankle_and_knee for m in metrics_of_paper)
    assert titles("multidomain_contrastive Table 2", slices, "unet") == (("unet",), ("da",))
    with pytest.raises(UserError, match="'specificity' was not computed"):
        PRESETS["multidomain_contrastive Table S2"](slices, "unet")
    for number, title in enumerate(("DSC", "AAD (mm)", "Localisation (mm)"), start=1):
        (first, *_) = PRESETS[f"ivd_dense_aspp Table {number}"](study)
        assert first.title == f"{title}: unet, ankle"
    assert titles("crossmoda", summary)[-2:] == (("disc", "DSC"), ("disc", "ASSD (mm)"))
    assert len(PRESETS) == 9


# The folder of files


@pytest.fixture
def report():
    table = rows(("s", "m", "a", "disc", 0.8), ("s", "m", "b", "disc", np.nan))
    return table, summarise(table)


def test_report_holds_what_was_computed(tmp_path, report):
    table, summary = report
    output = tmp_path / "new" / "report"
    require_output(output, overwrite=False)
    write_report(table, summary, output)
    assert {path.name for path in output.iterdir()} == {"cases.csv", "table.csv", "table.md", "table.tex", "by_case.md"}
    pandas.testing.assert_frame_equal(pandas.read_csv(output / "cases.csv"), table, check_dtype=False)
    pandas.testing.assert_frame_equal(pandas.read_csv(output / "table.csv"), summary, check_dtype=False)
    assert (output / "table.md").read_text(encoding="utf-8") == markdown(summary)


def test_several_models_and_slices_are_compared(tmp_path, study, slices):
    write_report(study, summarise(study), tmp_path / "report", slices)
    assert {path.name for path in (tmp_path / "report").iterdir()} == set(REPORT_FILES) - {PAGE}
    comparison = pandas.read_csv(tmp_path / "report" / "comparison.csv")
    assert set(comparison["reference"]) == {"unet"}
    assert list(dict.fromkeys(comparison["metric"])) == ["dsc", "assd_mm", "hd95_mm"]
    assert set(comparison["n_family"]) == {6}
    pandas.testing.assert_frame_equal(pandas.read_csv(tmp_path / "report" / "slices.csv"), slices, check_dtype=False)
    text = (tmp_path / "report" / "comparison.md").read_text(encoding="utf-8")
    assert "### ASSD (mm), bone" in text
    assert "| DSC 2D |" in text


def test_legends_say_what_the_table_needs(study):
    summary = summarise(study)
    (first, *_) = mean_tables(summary, metrics=("sensitivity",))
    assert "Sen where the reference is" in first.note
    assert "each case's mean over its structures" in first.note
    assert not any(word in first.note for word in ("distance", "DSC", "Missed", "voxels"))
    assert LEGEND in mean_tables(summarise(study[study["structure"] == "disc"]))[0].note


def test_a_note_stands_under_every_table(study):
    texts = report_texts(study, summarise(study), note="With a penalty.")
    assert texts["table.tex"].count("With a penalty.") == texts["table.tex"].count("minipage") // 2
    assert all(texts[name].rstrip().endswith("With a penalty.") for name in ("table.md", "by_case.md", "comparison.md"))


def test_every_metric_stands_in_the_latex_tables_once_per_structure(study):
    latex = report_texts(study, summarise(study))["table.tex"]
    assert latex.count(r"\begin{tabular}") == 6
    for metric in metrics.METRICS:
        assert latex.count(f"& {metric.title} ") == 3


@pytest.mark.parametrize("others", [False, True])
def test_a_page_is_part_of_the_report(tmp_path, report, others):
    if others:
        (tmp_path / "notes.txt").write_text("mine")
    write_report(*report, tmp_path, write_html=lambda path: path.write_text("page"))
    assert (tmp_path / PAGE).read_text() == "page"
    if not others:
        require_output(tmp_path, overwrite=False)
    write_report(*report, tmp_path)
    assert not (tmp_path / PAGE).exists()


def test_a_page_may_stand_alone(tmp_path):
    for content in ("one", "two"):
        require_output(tmp_path / "report", overwrite=False)
        write_page(tmp_path / "report", lambda path, content=content: path.write_text(content))
        assert [path.name for path in (tmp_path / "report").iterdir()] == [PAGE]
        assert (tmp_path / "report" / PAGE).read_text() == content


def test_one_model_is_compared_with_none(report):
    rows = report[0]
    assert compare_models(rows[rows["model"] == rows["model"].iloc[0]]) == (None, None)


@pytest.mark.parametrize("names", [REPORT_FILES, ("cases.csv", "table.csv", "table.md")])
def test_own_reports_are_replaced_as_a_whole(tmp_path, report, names):
    for name in names:
        (tmp_path / name).write_text("old")
    require_output(tmp_path, overwrite=False)
    write_report(*report, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(report_texts(*report))
    assert all(path.read_text(encoding="utf-8") != "old" for path in tmp_path.iterdir())


def test_files_of_others_stay(tmp_path, report):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "comparison.md").write_text("of an earlier report")
    with pytest.raises(UserError, match="--overwrite"):
        require_output(tmp_path, overwrite=False)
    require_output(tmp_path, overwrite=True)
    write_report(*report, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", *report_texts(*report)}


def test_a_table_of_someone_else_is_not_an_own_report(tmp_path):
    (tmp_path / "table.csv").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        require_output(tmp_path, overwrite=False)


@pytest.mark.parametrize("below", ["", "report"])
def test_a_file_is_no_place_for_a_report(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: is a file, not a folder"):
        require_output(tmp_path / "file" / below, overwrite=True)
