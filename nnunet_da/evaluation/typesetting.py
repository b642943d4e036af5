"""Tables of cells, written as Markdown, as LaTeX (booktabs) and as CSV."""

import csv
import io
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """What is printed, and the numbers behind it: `values` names them for the columns of a CSV file.

    `count` stands behind the text and is never bold.
    """

    text: str
    values: dict = field(default_factory=dict)
    count: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of labels and `Cell`s.

    Attributes
    ----------
    title : str
    stubs : titles of the columns of labels
    columns : per column of cells a tuple of titles, from the outermost level to the innermost; all of one length
    rows : pairs (labels, cells); where the first labels change (or `rule_before` says so) a new block begins
    note : what a reader must know
    rule_before : numbers of rows before which a line is drawn beside these
    """

    title: str
    stubs: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Cell, ...]], ...]
    note: str
    rule_before: frozenset = frozenset()

    def markdown(self):
        """Heading and table, without the note; several levels of titles become one."""
        titles = [*self.stubs, *(", ".join(filter(None, column)) for column in self.columns)]
        lines = [f"### {_plain(self.title)}", ""] if self.title else []
        lines.append(_line(map(_escape, titles)))
        lines.append(_line(["---"] * len(self.stubs) + ["---:"] * len(self.columns)))
        for labels, cells in self.rows:
            lines.append(_line([*map(_escape, labels), *map(_markdown_cell, cells)]))
        return "\n".join(lines) + "\n"

    def latex(self):
        """A `table` environment that needs booktabs and graphicx: caption, tabular (shrunk to fit the line), note."""
        n_stubs = len(self.stubs)
        lines = [r"\begin{table}", r"\centering"]
        if self.title:
            lines += [r"\setlength{\belowcaptionskip}{4pt}", rf"\caption{{{escape_latex(self.title)}}}"]
        lines += [r"\footnotesize", r"\setlength{\tabcolsep}{4pt}"]
        lines.append(r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%")
        lines += [rf"\begin{{tabular}}{{{'l' * n_stubs}{'r' * len(self.columns)}}}", r"\toprule"]
        lines += self._latex_head()
        lines.append(r"\midrule")
        before = None
        for number, (labels, cells) in enumerate(self.rows):
            is_new = before is not None and labels[0] != before[0] and n_stubs > 1
            if is_new or number in self.rule_before:
                lines.append(r"\midrule")
                before = None
            lines.append(_latex_row([*_without_repeats(labels, before), *map(_latex_cell, cells)]))
            before = labels
        lines += [r"\bottomrule", r"\end{tabular}}"]
        if self.note:
            note = escape_latex(self.note)
            lines += [r"\par\smallskip", rf"\begin{{minipage}}{{\linewidth}}\footnotesize {note}\end{{minipage}}"]
        return "\n".join([*lines, r"\end{table}"]) + "\n"

    def csv(self):
        """Comma-separated numbers, not rounded: per column of the table one column for each of its cells' values."""
        parts = [
            list(dict.fromkeys(name for _, cells in self.rows for name in cells[index].values))
            for index in range(len(self.columns))
        ]
        head = [*self.stubs]
        for column, names in zip(self.columns, parts, strict=True):
            head += [" ".join(filter(None, (*column, name))) for name in names]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(head)
        for labels, cells in self.rows:
            numbers = [cell.values.get(name, "") for cell, names in zip(cells, parts, strict=True) for name in names]
            writer.writerow([*labels, *("nan" if number != number else number for number in numbers)])
        return text.getvalue()

    def _latex_head(self):
        n_stubs, lines = len(self.stubs), []
        for level in range(len(self.columns[0]) - 1):
            row, rules, first = [""] * n_stubs, [], n_stubs + 1
            for title, width in _runs([column[: level + 1] for column in self.columns]):
                row.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(title[-1])}}}")
                rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
                first += width
            lines += [_latex_row(row), "".join(rules)]
        titles = [*self.stubs, *(column[-1] for column in self.columns)]
        return [*lines, _latex_row(map(escape_latex, titles))]


def to_markdown(tables):
    """All tables, then each note once."""
    notes = dict.fromkeys(table.note for table in tables if table.note)
    return "\n".join([*(table.markdown() for table in tables), *(f"{note}\n" for note in notes)])


def to_latex(tables):
    r"""All tables as environments to \input into a document with \usepackage{booktabs,graphicx}."""
    return "\n".join(["% \\usepackage{booktabs,graphicx}", *(table.latex() for table in tables)])


def escape_latex(text):
    """Any text as LaTeX that prints it, on one line. Letters that pdfLaTeX's fonts lack stay as they are."""
    # Hyphens in a row would become a dash; a bracket or asterisk after a line break would be its argument.
    latex = "".join(_LATEX.get(character, character) for character in _plain(text))
    return re.sub("-(?=-)", "-{}", latex)


_LATEX = {
    **{character: f"\\{character}" for character in "{}$&#_%"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "*": "{*}",
    '"': "{''}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "–": r"\textendash{}",
}


def _line(cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def _plain(text):
    return " ".join(str(text).split())


def _escape(text):
    return _plain(text).replace("|", "\\|").replace("*", "\\*")


def _markdown_cell(cell):
    text = _escape(cell.text)
    return _joined(f"**{text}**" if cell.is_best else text, cell.count, " ")


def _latex_cell(cell):
    text = escape_latex(cell.text)
    return _joined(rf"\textbf{{{text}}}" if cell.is_best else text, escape_latex(cell.count), "~")


def _joined(text, count, space):
    return f"{text}{space}{count}" if count else text


def _latex_row(cells):
    return " & ".join(cells) + r" \\"


def _without_repeats(labels, before):
    """Labels as LaTeX, empty where they and all before them are those of the row above; the last always stands."""
    same = 0
    while before is not None and same < len(labels) - 1 and labels[same] == before[same]:
        same += 1
    return ["" if index < same else escape_latex(label) for index, label in enumerate(labels)]


def _runs(items):
    """(item, length) of each run of equal neighbours."""
    runs = []
    for item in items:
        if runs and runs[-1][0] == item:
            runs[-1][1] += 1
        else:
            runs.append([item, 1])
    return runs
