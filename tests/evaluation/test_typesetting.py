import csv
import io
import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.evaluation.typesetting import Cell, Table, escape_latex, to_latex, to_markdown

RESERVED = "a&b_%$#{x}~^\\ [1/2] *|<>\"'`--- ± − × ≤ ≥ – ²"


def table(**changes):
    """Two blocks of two rows; two levels of titles; a bold cell, a count, a cell with nothing in it."""
    best = Cell("0.9 ± 0.1", {"mean": 0.9, "std": 0.1}, "[1/2]", is_best=True)
    plain = Cell("0.8", {"mean": 0.8, "std": float("nan")})
    attributes = {
        "title": "disc",
        "stubs": ("Domain", "Model"),
        "columns": (("ankle", "DSC"), ("ankle", "HD"), ("knee", "DSC")),
        "rows": (
            (("s", "unet"), (best, plain, Cell(""))),
            (("s", "da"), (plain, plain, plain)),
            (("t", "unet"), (plain, plain, plain)),
        ),
        "note": "Mean ± std.",
    }
    return Table(**{**attributes, **changes})


def test_markdown():
    assert table().markdown().splitlines() == [
        "### disc",
        "",
        "| Domain | Model | ankle, DSC | ankle, HD | knee, DSC |",
        "| --- | --- | ---: | ---: | ---: |",
        "| s | unet | **0.9 ± 0.1** [1/2] | 0.8 |  |",
        "| s | da | 0.8 | 0.8 | 0.8 |",
        "| t | unet | 0.8 | 0.8 | 0.8 |",
    ]


def test_markdown_of_several_has_each_note_once():
    text = to_markdown([table(), table(title="bone"), table(note="Other.")])
    assert text.count("Mean ± std.") == text.count("Other.") == 1
    assert text.index("### bone") < text.index("Mean ± std.")


def test_bars_asterisks_and_line_breaks_do_not_break_markdown():
    rows = ((("a|b\nc", "m*"), (Cell("0.8*", is_best=True),)),)
    (line,) = table(columns=(("DSC",),), rows=rows).markdown().splitlines()[4:]
    assert line == r"| a\|b c | m\* | **0.8\*** |"


def test_csv_has_every_number_and_no_rounding():
    third = Cell("0.3", {"mean": 1 / 3})
    rows = list(csv.reader(io.StringIO(table(rows=[*table().rows, (("t, x", "da"), (third,) * 3)]).csv())))
    assert rows[0] == [
        *("Domain", "Model", "ankle DSC mean", "ankle DSC std", "ankle HD mean", "ankle HD std"),
        *("knee DSC mean", "knee DSC std"),
    ]
    assert rows[1] == ["s", "unet", "0.9", "0.1", "0.8", "nan", "", ""]
    assert rows[4] == ["t, x", "da", str(1 / 3), "", str(1 / 3), "", str(1 / 3), ""]


def test_latex():
    lines = table().latex().splitlines()
    assert lines[0] == r"\begin{table}"
    assert r"\caption{disc}" in lines
    assert lines[lines.index(r"\begin{tabular}{llrrr}") - 1].endswith(r"\else\width\fi}{!}{%")
    top = lines.index(r"\toprule")
    assert lines[top + 1 :] == [
        r" &  & \multicolumn{2}{c}{ankle} & \multicolumn{1}{c}{knee} \\",
        r"\cmidrule(lr){3-4}\cmidrule(lr){5-5}",
        r"Domain & Model & DSC & HD & DSC \\",
        r"\midrule",
        r"s & unet & \textbf{0.9 $\pm$ 0.1}~{[}1/2] & 0.8 &  \\",
        r" & da & 0.8 & 0.8 & 0.8 \\",
        r"\midrule",
        r"t & unet & 0.8 & 0.8 & 0.8 \\",
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize Mean $\pm$ std.\end{minipage}",
        r"\end{table}",
    ]


def test_latex_rules_where_asked_and_one_kind_of_label():
    cell = (Cell("1"),)
    lines = table(
        stubs=("Case",), columns=(("a",),), rows=((("x",), cell), (("y",), cell), (("mean",), cell)), rule_before={2}
    ).latex()
    assert r"x & 1 \\" + "\n" + r"y & 1 \\" + "\n\\midrule\n" + r"mean & 1 \\" in lines


def test_repeated_labels_are_left_out_of_inner_levels_too():
    cell = (Cell("1"),)
    labels = [("s", "x", "a"), ("s", "x", "b"), ("s", "y", "b"), ("t", "y", "b")]
    latex = table(stubs=("1", "2", "3"), columns=(("c",),), rows=tuple((names, cell) for names in labels)).latex()
    assert [line for line in latex.splitlines() if line.endswith(r"& 1 \\")] == [
        r"s & x & a & 1 \\",
        r" &  & b & 1 \\",
        r" & y & b & 1 \\",
        r"t & y & b & 1 \\",
    ]


COMMANDS = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textendash{}": "–",
    r"$\pm$": "±",
    r"$\times$": "×",
    r"$\leq$": "≤",
    r"$\geq$": "≥",
    "$-$": "−",
    "{[}": "[",
    "{*}": "*",
    "{''}": '"',
    **{f"\\{character}": character for character in "{}$&#_%"},
}


def printed(latex):
    """What the commands of `escape_latex` print, read from left to right; no reserved character may stand outside."""
    text, pattern = "", "|".join(map(re.escape, COMMANDS))
    while latex:
        command = re.match(pattern, latex)
        if command:
            text += COMMANDS[command.group()]
            latex = latex[command.end() :]
        elif latex.startswith("-{}"):
            text, latex = text + "-", latex[3:]
        else:
            assert latex[0] not in "\\{}$&#_%~^", latex
            text, latex = text + latex[0], latex[1:]
    return text


@settings(max_examples=300)
@given(st.text(st.sampled_from(RESERVED)) | st.text())
def test_escaped_text_prints_as_it_was(text):
    latex = escape_latex(text)
    assert printed(latex) == " ".join(text.split())
    assert not re.search("--", latex)
    bare = re.sub(r"\\[{}$&#_%]", "", latex)
    depths = [bare[: i + 1].count("{") - bare[: i + 1].count("}") for i in range(len(bare))]
    assert all(depth >= 0 for depth in depths)
    assert not depths or depths[-1] == 0


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_accepts_it(tmp_path):
    wild = (Cell(RESERVED, count="[3/4]", is_best=True), Cell("–"), Cell("< 1e−300"))
    starts = tuple(((first, "m"), wild) for first in ("[1]", "*", "-", RESERVED))
    tables = [
        table(rows=starts, title=RESERVED, note=RESERVED, columns=((RESERVED, "a"), (RESERVED, "b"), ("c", RESERVED))),
        table(title=""),
        table(stubs=("",), rows=(((RESERVED,), wild), (("[2]",), wild)), rule_before={1}),
    ]
    (tmp_path / "tables.tex").write_text(to_latex(tables), encoding="utf-8")
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{tables}\end{document}",
        encoding="utf-8",
    )
    run = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert "Overfull" not in run.stdout
    assert (tmp_path / "main.pdf").exists()
