"""Every how-to of docs/public_datasets.md, run as it stands there on small phantoms, then planned by nnU-Net."""

import re
import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_da.cli import main
from nnunet_da.dataset_conversion import converters
from nnunet_da.phantom.public import RELEASES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "public_datasets.md"
# Voxels along R, A, S: enough for nnU-Net to plan with, and for every structure to show.
SIZES = {"manifest": (24, 40, 40), "spine": (12, 40, 48), "other": (40, 40, 24)}
SPINE = ("mrspineseg", "zenodo22304", "alkhalil_lumbar", "spider", "ivdm3seg")

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="docs/ is not part of a source distribution")


def blocks():
    """The commands of each bash block, as words; what a later block needs of an earlier one's phantoms comes first."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    parts = [re.findall(r"^(nnunet-da .*|nnUNetv2_.*)$", block, re.MULTILINE) for block in _bash(text)]
    phantoms = {}
    for lines in parts:
        for words in map(shlex.split, lines):
            if words[1] == "phantom":
                phantoms[words[3]] = words
    for lines in parts:
        commands = [shlex.split(line) for line in lines]
        own = [words for words in commands if words[1] == "phantom"]
        raws = [words[3] for words in commands if words[1] == "convert"]
        before = [words for folder, words in phantoms.items() if any(_within(raw, folder) for raw in raws)]
        yield [*[words for words in before if words not in own], *commands]


def _bash(text):
    return re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _within(path, folder):
    return Path(folder) in (Path(path), *Path(path).parents)


def small(words):
    kind = words[2] if words[2] in SIZES else "spine" if words[2] in SPINE else "other"
    return [*words, "--size", *map(str, SIZES[kind]), "-np", "1"]


@pytest.mark.parametrize("commands", list(blocks()), ids=lambda commands: commands[-1][2])
def test_a_how_to_works_and_gives_a_dataset_that_nnunet_takes(
    commands, nnunet_folders, tmp_path, monkeypatch, planned, draw_coarsely
):
    monkeypatch.chdir(tmp_path)
    # Names and structures are what matters here.
    draw_coarsely(monkeypatch, 8.0)
    for words in commands:
        if words[1] == "phantom":
            assert main(small(words)[1:]) == 0, words
        elif words[1] == "convert":
            assert main([*words[1:], "-np", "1"]) == 0, words
    written = sorted(nnunet_folders.raw.iterdir())
    assert written
    for folder in written:
        planned(folder)


def test_the_how_tos_are_of_every_dataset():
    used = {words[2] for commands in blocks() for words in commands if words[1] == "convert"}
    assert used == converters().keys() == RELEASES.keys()


@pytest.fixture
def planned(nnunet_folders, run_command):
    """``planned(folder)``: nnU-Net verifies, plans and preprocesses a raw dataset, uncomplaining."""

    def plan(folder):
        words = ("nnUNetv2_plan_and_preprocess", "-d", folder.name[7:10], "-c", "2d", "--verify_dataset_integrity")
        assert not re.search("Error|WARNING", run_command(*words))
        cases = {path.name.split(".")[0] for path in (folder / "labelsTr").iterdir()}
        preprocessed = nnunet_folders.preprocessed / folder.name / "nnUNetPlans_2d"
        assert {path.name.split(".")[0] for path in preprocessed.glob("*.pkl")} == cases
        values = [np.unique(nibabel.load(path).dataobj).tolist() for path in sorted((folder / "labelsTr").iterdir())]
        assert any(len(found) > 1 for found in values)

    return plan
