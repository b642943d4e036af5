"""The documentation is in step with the code: settings, verbs, trainers, commands, messages, links, versions."""

import argparse
import ast
import importlib.metadata
import importlib.util
import json
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import nnunet_da
from nnunet_da import cli, settings, trainers
from nnunet_da.dataset_conversion import converters
from nnunet_da.training.configurations import PlanSettings, all_settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SOURCES = [path for name in ("nnunet_da", "trainers", "dataset_conversion") for path in (ROOT / name).rglob("*.py")]
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="docs/ is not part of a source distribution")


def table_rows(path, heading=None):
    """The rows of the tables of a page, or of its section `heading`, as lists of cells; headers among them."""
    text = path.read_text(encoding="utf-8")
    if heading:
        _, level, text = re.split(rf"^(#+) {heading}$", text, maxsplit=1, flags=re.MULTILINE)
        # Up to the next heading of this level or above.
        text = re.split(rf"^#{{1,{len(level)}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def named_in_first_column(path, heading=None):
    """What the first cells name that are nothing but code, or several with commas, without their backticks."""
    firsts = (row[0] for row in table_rows(path, heading))
    return [
        name
        for first in firsts
        if re.fullmatch("`[^`]+`(, `[^`]+`)*", first)
        for name in re.findall("`([^`]+)`", first)
    ]


def flat(block, prefix=""):
    """``{"pretext": {"weight": 1}}`` → ``{"pretext.weight": 1}``."""
    items = {}
    for name, value in block.items():
        items |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return items


def commands():
    """(page, words) of every command of nnunet-da or nnU-Net in the bash blocks of the pages."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for command in line.split("&&"):
                    words = shlex.split(command, comments=True)
                    while words and re.match(r"\w+=", words[0]):
                        del words[0]
                    if words and (words[0] == "nnunet-da" or words[0].startswith("nnUNetv2_")):
                        found.append(pytest.param(words, id=f"{page.name}: {' '.join(words)}"))
    return found


def module_names(package):
    return sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_"))


def test_settings_are_described_with_their_defaults():
    rows = [row for row in table_rows(ROOT / "docs" / "settings.md") if len(row) == 4 and row[0].startswith("`")]
    described = {row[0].strip("`"): json.loads(row[1].strip("`")) for row in rows}
    expected = {"plan": settings.to_block(PlanSettings()), **settings.to_block(all_settings()())}
    assert described == flat(expected)
    assert len(rows) == len(described)


def test_the_readme_names_every_verb_and_no_other():
    assert sorted(named_in_first_column(README, "Verbs")) == [name.replace("_", "-") for name in module_names(cli)]


def test_the_public_datasets_are_all_named_with_their_structures():
    rows = {row[0].strip("`"): row[3] for row in table_rows(ROOT / "docs" / "public_datasets.md") if len(row) == 4}
    modules = converters()
    assert rows.keys() - {"dataset", "---"} == modules.keys()
    for name, module in modules.items():
        if hasattr(module, "SCHEMES"):
            assert rows[name] == ", ".join(module.SCHEMES), name


def test_the_readme_names_every_trainer_and_no_other():
    assert sorted(named_in_first_column(README, "Trainers")) == module_names(trainers)


def test_the_readme_names_every_dependency():
    named = {name for row in table_rows(README, "Dependencies") for name in re.findall(r"[\w-]+", row[0].split("(")[0])}
    requirements = importlib.metadata.requires("nnunet-da")
    assert {re.match(r"[\w-]+", text)[0] for text in requirements if "extra ==" not in text} <= named


def test_the_two_commands_to_start_with():
    text = README.read_text(encoding="utf-8")
    assert "\npip install . && nnunet-da demo\n" in text
    assert '\npip install ".[test]" && pytest\n' in text


class Parsed(Exception):
    """The arguments were parsed."""


@pytest.mark.parametrize("words", commands())
def test_commands_are_understood(words, monkeypatch):
    if words[0] == "nnunet-da":
        cli.build_parser().parse_args(words[1:])
        return

    # nnU-Net's commands build their parsers in their entry points: let them, and stop there.
    parse = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(parser, *arguments):
        known, unknown = parse(parser, *arguments)
        assert not unknown
        raise Parsed(known)

    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=words[0])
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(Parsed):
        entry.load()()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_code_in_prose_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], target
    for name in re.findall(r"nnUNetTrainer[A-Z]\w+", prose):
        assert importlib.util.find_spec(f"nnunet_da.trainers.{name}"), name


def texts_in_the_code():
    """The strings in the sources, a line each, with ``…`` for what is filled in."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize("page", ["datasets.md", "public_datasets.md", "settings.md"])
def test_messages_that_are_explained_are_those_of_the_code(page):
    explained = named_in_first_column(ROOT / "docs" / page, "Messages")
    texts = texts_in_the_code()
    missing = []
    for message in explained:
        # What stands before the rule (file or setting) is filled in, and here and there by another function.
        rule = re.sub(r"^(setting )?…(, line \w+|, line …)?: ", "", message)
        if not re.search(".*".join(map(re.escape, rule.split("…"))), texts):
            missing.append(message)
    assert explained
    assert missing == []


def test_versions_agree():
    version = re.escape(nnunet_da.__version__)
    assert re.search(rf"^version: {version}$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.search(rf"(\[{version}\]|version {version})", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
