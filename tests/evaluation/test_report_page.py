"""The whole page, of simulated scans: its numbers, its structure, what it loads, and its scripts in a real browser."""

import html.parser
import itertools
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas
import pytest

from nnunet_da.errors import UserError
from nnunet_da.evaluation.cases import evaluate_folders
from nnunet_da.evaluation.membership import read_cases
from nnunet_da.evaluation.metrics import METRICS
from nnunet_da.evaluation.report import write_html_report
from nnunet_da.evaluation.statistics import compare, summarise
from nnunet_da.evaluation.tables import comparison_tables
from nnunet_da.phantom.study import write_study

LABELS = {"background": 0, "L5/S1": 1, "L4/L5": 2}
MODELS = ("unet", "<b>& int</b>")
UNLABELLED = "ge_t1_test_003"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
VOID = ("meta", "input")


def save(path, array, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), affine), path)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two scanners with three scans each; the second model is worse, and misses a structure of one scan."""
    folder = tmp_path_factory.mktemp("report") / "study"
    write_study(folder, ["philips_3t", "ge_t1"], 1, seed=3, n_test=3, size=(8, 40, 56), numbered=True)
    predictions = {model: folder / f"model_{number}" for number, model in enumerate(MODELS)}
    for number, path in enumerate(sorted((folder / "test" / "labels").iterdir())):
        image = nibabel.load(path)
        label = np.asarray(image.dataobj)
        label = np.where(label <= 2, label, 0)
        if not path.name.startswith(UNLABELLED):
            save(folder / "references" / path.name, label, image.affine)
        for shift, target in enumerate(predictions.values(), 1):
            moved = np.roll(label, (shift, number % 3), axis=(1, 2))
            save(target / path.name, np.where(moved == shift * (number == 1), 0, moved), image.affine)
            p = np.random.default_rng([shift, number]).dirichlet(np.ones(3), size=(4, 5, 6)).transpose(3, 0, 1, 2)
            np.savez_compressed(target / path.name.replace("nii.gz", "npz"), probabilities=p.astype(np.float32))
    domain_of_case = read_cases(folder / "test" / "cases.csv")
    rows = evaluate_folders(folder / "references", predictions, LABELS, domain_of_case=domain_of_case, n_processes=1)
    arguments = {
        "labels": LABELS,
        "predictions": predictions,
        "images": folder / "test" / "images",
        "domain_of_case": domain_of_case,
        "n_processes": 1,
    }
    return SimpleNamespace(folder=folder, rows=rows, references=folder / "references", arguments=arguments)


class Element:
    def __init__(self, name, attributes, parent):
        self.name, self.attributes, self.parent = name, attributes, parent
        self.children = []

    def __iter__(self):
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child

    def all(self, *names, **attributes):
        return [e for e in self if e.name in names and attributes.items() <= e.attributes.items()]

    @property
    def raw_text(self):
        return "".join(child.raw_text if isinstance(child, Element) else child for child in self.children)

    @property
    def text(self):
        return " ".join(self.raw_text.split())


class Page(html.parser.HTMLParser):
    """A page as a tree. Raises AssertionError where elements are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.root = self.open = Element("", {}, None)
        self.feed(text)
        self.close()
        assert self.open is self.root

    def handle_starttag(self, name, attributes):
        element = Element(name, {key: value or "" for key, value in attributes}, self.open)
        self.open.children.append(element)
        if name not in VOID:
            self.open = element

    def handle_startendtag(self, name, attributes):
        self.open.children.append(Element(name, {key: value or "" for key, value in attributes}, self.open))

    def handle_endtag(self, name):
        assert self.open.name == name, f"</{name}> closes <{self.open.name}>"
        self.open = self.open.parent

    def handle_data(self, data):
        self.open.children.append(data)


@pytest.fixture(scope="module")
def path(study):
    path = study.folder / "report.html"
    comparisons = comparison_tables(compare(study.rows, MODELS[0]))
    write_html_report(
        path,
        study.rows,
        title="Scanners <one & two>",
        references=study.references,
        labelled_domains=["philips_3t"],
        comparisons=comparisons,
        **study.arguments,
    )
    return path


@pytest.fixture(scope="module")
def page(path):
    return Page(path.read_text(encoding="utf-8")).root


def section(page, name):
    (found,) = page.all("section", id=name)
    return found


def table_cells(table):
    return [[cell.text for cell in row.all("th", "td")] for body in table.all("tbody") for row in body.all("tr")]


def test_the_summary_has_the_numbers_of_table_csv(study, page, tmp_path):
    summarise(study.rows).to_csv(tmp_path / "table.csv", index=False, na_rep="nan")
    summary = pandas.read_csv(tmp_path / "table.csv")
    shown = {}
    for table in section(page, "summary").all("table"):
        structure, domain = table.all("caption")[0].text.split(":")[0], None
        for row in table_cells(table):
            domain, *row = row if len(row) == len(METRICS) + 5 else (domain, *row)
            shown[structure, domain, row[0]] = row[1:]
    assert len(shown) == len(summary) == 3 * 2 * 2
    for record in summary.to_dict("records"):
        cells = shown[record["structure"].replace("mean", "Mean"), record["domain"], record["model"]]
        assert cells[:3] == [str(record[name]) for name in ("n_cases", "missed", "false")]
        for metric, cell in zip(METRICS, cells[3:], strict=True):
            mean, deviation, n = (record[f"{metric.key}_{part}"] for part in ("mean", "std", "n"))
            expected = "–" if np.isnan(mean) else f"{mean:.{metric.decimals}f}"
            if not np.isnan(deviation):
                expected += f" ± {deviation:.{metric.decimals}f}"
            if n < record["n_values"]:
                expected += f" [{n}/{record['n_values']}]"
            assert cell.removeprefix("best: ") == expected


def test_the_table_of_cases_has_the_rows_of_cases_csv(study, page):
    (table,) = section(page, "cases").all("table")
    shown = table_cells(table)
    for record, row in zip(study.rows.to_dict("records"), shown, strict=True):
        assert row[:4] == [record[name] for name in ("case", "domain", "model", "structure")]
        numbers = [record[metric.key] for metric in METRICS]
        texts = [
            "–" if np.isnan(number) else f"{number:.{m.decimals}f}" for m, number in zip(METRICS, numbers, strict=True)
        ]
        assert row[4:-1] == texts
        assert row[-1] == ("missed" if record["missed"] else "false" if record["false"] else "")


def test_missed_structures_are_counted_and_said(study, page):
    missed = int(study.rows["missed"].sum())
    assert missed > 0
    facts = {fact.all("dt")[0].text: fact.all("dd")[0].text for fact in page.all("header")[0].all("div")}
    assert facts["Structures missed"] == str(missed)
    sentences = [item.text for item in section(page, "summary").all("li")]
    case = study.rows.loc[study.rows["missed"], "case"].iloc[0]
    assert any("missed" in sentence and case in sentence for sentence in sentences)


def test_pictures_are_the_worst_median_and_best_of_each_domain(study, page):
    dice = study.rows[study.rows["model"] == MODELS[0]].groupby(["domain", "case"])["dsc"].mean()
    expected = []
    for domain in ("philips_3t", "ge_t1"):
        ordered = dice[domain].sort_values(kind="stable").index.tolist()
        ranks = ["Worst", "Median", "Best"] if len(ordered) == 3 else ["Worst", "Best"]
        expected += list(zip(ordered, ranks, strict=True))
    cases = section(page, "pictures").all("article")
    assert [(case.all("h4")[0].text, case.all("p")[0].text) for case in cases] == expected
    for case in cases:
        # Three planes for each model; the pixels are embedded once and used again.
        slices = case.all("svg", role="img")
        assert len(slices) == 6
        assert len(case.all("image")) == len(case.all("use")) == 3
        assert {image.attributes["id"] for image in case.all("image")} == {
            use.attributes["href"].removeprefix("#") for use in case.all("use")
        }
        assert "reference as a solid line" in slices[0].attributes["aria-label"]
    assert len(section(page, "pictures").all("g")) >= 6


def test_doubt_covers_cases_without_a_reference(page):
    by_doubt, by_structure = section(page, "doubt").all("table")
    rows = table_cells(by_doubt)
    titles = [cell.text for cell in by_doubt.all("thead")[0].all("th")]
    expected = ["Case", "Domain", "Model", "Doubt", "Entropy (bits)", "Agreement", "Volume z", "Empty", "Dice"]
    assert titles == expected
    assert len(rows) == 6 * 2
    assert len(table_cells(by_structure)) == 6 * 2 * 2
    assert {row[-1] for row in rows if row[0] == UNLABELLED} == {"–"}
    # Empty predictions first, then by falling doubt.
    empty = [bool(row[-2]) for row in rows]
    assert empty[0]
    assert empty == sorted(empty, reverse=True)
    doubts = [float(row[3]) for row in rows]
    assert doubts == sorted(doubts, reverse=True)


def test_names_are_escaped(path, page):
    assert page.all("title")[0].text == page.all("h1")[0].text == "Scanners <one & two>"
    assert "<b>& int" not in path.read_text(encoding="utf-8")
    assert MODELS[1] in {cell.text for cell in page.all("td", "th")}


def test_the_page_loads_nothing(path, page):
    for element in page:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert element.attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), element.name
        assert element.name not in ("link", "iframe", "object", "base")
    assert "@import" not in path.read_text(encoding="utf-8")
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_structure_for_screen_readers(page):
    assert page.all("html")[0].attributes["lang"] == "en"
    assert [len(page.all(name)) for name in ("main", "nav", "footer")] == [1, 1, 1]
    levels = [int(element.name[1]) for element in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [element.attributes["id"] for element in page if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link.attributes["href"].removeprefix("#") in ids
    assert page.all("body")[0].all("a")[0].attributes["class"] == "skip"
    for named in (element.attributes.get("aria-labelledby") for element in page):
        assert named is None or named in ids
    for table in page.all("table"):
        assert table.all("caption")[0].text
        assert all(cell.attributes["scope"] in ("col", "row", "rowgroup") for cell in table.all("th"))
    for drawing in page.all("svg"):
        assert drawing.attributes.get("aria-label") or drawing.attributes.get("aria-hidden") == "true"
    for field in page.all("input"):
        assert field.parent.name == "label"


def test_sections_are_those_of_the_navigation(page):
    links = [link.attributes["href"] for link in page.all("nav")[0].all("a")]
    assert links == [f"#{element.attributes['id']}" for element in page.all("section")]
    assert links == ["#summary", "#spread", "#comparisons", "#pictures", "#cases", "#doubt", "#terms"]


def test_without_any_reference(study, tmp_path):
    write_html_report(tmp_path / "report.html", None, title="No reference", **study.arguments)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8")).root
    assert [element.attributes["id"] for element in page.all("section")] == ["doubt", "pictures"]
    assert not page.all("g", **{"class": "reference"})
    assert not page.all("input", id="show-reference")
    ranks = [case.all("p")[0].text for case in section(page, "pictures").all("article")]
    assert ranks == ["Most doubtful", "Median doubt", "Least doubtful"] * 2


def test_numbers_alone(study, tmp_path):
    write_html_report(tmp_path / "report.html", study.rows, title="Numbers")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8")).root
    assert [element.attributes["id"] for element in page.all("section")] == ["summary", "spread", "cases", "terms"]


def test_what_does_not_fit_leaves_an_earlier_report(study, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("earlier")
    for change, message in (
        ({"images": tmp_path / "none"}, "none: no such folder"),
        ({"model": "unit"}, "'unit' is not one of the models; did you mean 'unet'"),
        ({"folds": {"other": []}}, "'other' is not one of the models"),
        ({"runs": [tmp_path]}, "neither this folder nor a fold_"),
        ({"predictions": {"unet": tmp_path}}, "model 'unet' has no predicted label maps"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            write_html_report(path, study.rows, title="", **(study.arguments | change))
    assert path.read_text() == "earlier"


@pytest.fixture
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a browser ({', '.join(BROWSERS)})")
    return found


WATCH = """<script>
const problems = [];
addEventListener("error", (event) => problems.push(event.message));
addEventListener("securitypolicyviolation", (event) => problems.push(`blocked ${event.blockedURI}`));
</script>"""
PROBE = """<script>
const table = document.querySelector("#cases table");
const header = table.tHead.rows[0].cells[4];
const button = header.querySelector("button");
const search = document.querySelector("#cases input[type=search]");
const rows = () => [...table.tBodies[0].rows];
const state = () => [header.getAttribute("aria-sort"), rows().map((row) => row.cells[4].textContent)];
const shown = (element) => getComputedStyle(element).display !== "none";
const result = { before: state() };
button.focus();
result.focused = document.activeElement === button;
button.click();
result.once = state();
button.click();
result.twice = state();
result.said = document.querySelector("#cases [role=status]").textContent;
search.value = "ge_t1 l5/s1";
search.dispatchEvent(new Event("input"));
result.filtered = rows().filter(shown).map((row) => row.cells[1].textContent + row.cells[3].textContent);
const extra = document.querySelector("#cases th.extra");
result.extra = [shown(extra)];
document.querySelector("#cases .all-metrics").click();
result.extra.push(shown(extra));
const contour = document.querySelector(".slice .reference");
result.contour = [shown(contour)];
document.querySelector("#show-reference").click();
result.contour.push(shown(contour));
dispatchEvent(new Event("beforeprint"));
result.closed = document.querySelectorAll("details:not([open])").length;
result.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
result.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
result.problems = problems;
document.body.dataset.result = JSON.stringify(result);
</script>"""


def test_scripts_run_in_a_browser(path, browser, tmp_path):
    text = path.read_text(encoding="utf-8")
    probed = tmp_path / "probed.html"
    probed.write_text(text.replace("<head>", f"<head>{WATCH}").replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    child = subprocess.run(
        [*command, "--window-size=1200,900", "--dump-dom", probed.as_uri()],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
        timeout=120,
    )
    (body,) = Page(child.stdout).root.all("body")
    result = json.loads(body.attributes["data-result"])

    assert result["problems"] == []
    assert result["loaded"] == []
    assert result["focused"]
    (none, before), (up, once), (down, twice) = result["before"], result["once"], result["twice"]
    assert (none, up, down) == (None, "ascending", "descending")
    assert sorted(before) == sorted(once) == sorted(twice)
    assert before != once
    assert [float(value) for value in once] == sorted(map(float, before))
    assert [float(value) for value in twice] == sorted(map(float, before), reverse=True)
    assert result["said"] == "sorted by DSC, descending"
    assert set(result["filtered"]) == {"ge_t1L5/S1"}
    assert result["extra"] == [False, True]
    assert result["contour"] == [True, False]
    assert result["closed"] == 0
    assert not result["wide"]
