"""The study of the gap: its arms and tasks, the scans that they write, and the share of the gap that is closed."""

import csv
import json
import math
import sys
from pathlib import Path

import pandas
import pytest

from nnunet_da import settings
from nnunet_da.domains import read_domains
from nnunet_da.training.configurations import PlanSettings, all_settings, all_trainers

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of a source distribution")
SPLITS = {"train": ["A1", "B1", "C1"], "dev": ["C1"], "test": ["D1"]}


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import close_the_gap

    yield close_the_gap
    for name in ("close_the_gap", "cross_modality", "spine_vb"):
        sys.modules.pop(name, None)


@pytest.fixture
def data(tmp_path):
    """Stands in for the crops: three scans to train on and one to test, in three contrasts."""
    folder = tmp_path / "data" / "ivdm3seg_crops"
    for kind in ("labels", "fat", "opp", "inn"):
        (folder / kind).mkdir(parents=True)
        for case in (*SPLITS["train"], *SPLITS["test"]):
            (folder / kind / f"{case}.nii.gz").write_text(kind)
    (folder / "cases.csv").write_text(
        "case,subject\n" + "".join(f"{case},{case[0]}\n" for case in SPLITS["train"] + SPLITS["test"])
    )
    (folder.parent / "splits.json").write_text(json.dumps({"ivdm3seg_crops": SPLITS}))
    return folder.parent


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_arms_name_trainers_and_settings_that_there_are(study):
    assert len({study.slug(arm.name) for arm in study.ARMS}) == len(study.ARMS)
    for arm in study.ARMS:
        of_trainer = set(all_trainers()[arm.trainer].settings_class.__dataclass_fields__)
        for _, _, configuration, of_task, _ in study.PAIRS.values():
            block = settings.parse_assignments([f"{key}={value}" for key, value in (of_task | arm.settings).items()])
            settings.build(PlanSettings, block.pop("plan", {}), prefix="plan.")
            settings.build(all_settings(), block)
            assert set(block) <= of_trainer, (arm.name, configuration)


def test_tasks_have_datasets_and_names_of_their_own(study, data):
    crops = [name for name, (scans, *_) in study.PAIRS.items() if scans.__name__ == "discs"]
    tasks = [task for name in crops for task in study.tasks_of(name, data)]
    assert len({task.dataset_id for task in tasks}) == len({task.name for task in tasks}) == len(tasks) == 8
    assert set(study.DEVELOPMENT) < set(study.PAIRS)


@pytest.mark.parametrize("supervised", [False, True])
def test_labels_are_those_of_one_side_and_dev_is_held_out(study, data, tmp_path, supervised):
    task = study.tasks_of("fat-opp", data)[supervised]
    work = tmp_path / "work"
    task.write(data, work)
    rows = rows_of(work / "cases.csv")
    labelled = "opp" if supervised else "fat"
    assert [row["case"] for row in rows] == [
        f"{domain}_{case}" for domain in ("fat", "opp") for case in SPLITS["train"]
    ]
    assert {row["domain"] for row in rows if row["label"]} == {labelled}
    assert sum(bool(row["label"]) for row in rows) == 3
    blocks = {
        domain: {
            "labels": ["disc"],
            **{
                kind: [row["case"] for row in rows if row["domain"] == domain and bool(row["label"]) == has]
                for kind, has in (("labelled", True), ("unlabelled", False))
            },
        }
        for domain in ("fat", "opp")
    }
    domains = read_domains({"labels": {"background": 0, "disc": 1, "ignore": 2}, "domains": blocks})
    assert task.folds(domains) == [{"train": [f"{labelled}_A1", f"{labelled}_B1"], "val": [f"{labelled}_C1"]}]
    assert [row["case"] for row in rows_of(work / "test/cases.csv")] == ["fat_D1", "opp_D1"]


def results(study, **dice):
    """A table of cases as `nnunet-da evaluate` gives it: ``TASK=(arm → Dice on the target)``, 0.9 on the source."""
    rows = []
    for task, of_arms in dice.items():
        source, target = task.split("_")
        for model, value in of_arms.items():
            for domain, mean in ((source, 0.9), (target, value)):
                of_arm = {"task": task.replace("_", "-"), "model": model, "seed": 1, "structure": "disc"}
                # Two cases about the mean.
                rows += [
                    of_arm | {"domain": domain, "case": f"{domain}{shift}", "dsc": mean + shift}
                    for shift in (0.05, -0.05)
                ]
    return pandas.DataFrame(rows)


def test_the_gap_closed_is_over_wide_gaps_alone(study):
    found = results(
        study,
        fat_opp={study.SOURCE_ONLY: 0.1, study.SUPERVISED: 0.9, "adapted": 0.7, "GIN": 0.5},
        opp_fat={study.SOURCE_ONLY: 0.3, study.SUPERVISED: 0.7, "adapted": 0.7},
        inn_fat={study.SOURCE_ONLY: 0.85, study.SUPERVISED: 0.9, "adapted": 0.1},
    )
    target = study.scores(found).groupby(["task", "model"], sort=False).mean()["target"]
    share, tasks = study.gap_closed(target, "adapted")
    assert (share, tasks) == (pytest.approx((0.6 + 0.4) / (0.8 + 0.4)), ["fat-opp", "opp-fat"])
    assert study.gap_closed(target, "GIN") == (pytest.approx(0.5), ["fat-opp"])
    assert study.gap_closed(target, study.SUPERVISED)[0] == pytest.approx(1)
    assert study.gap_closed(target, study.SOURCE_ONLY)[0] == pytest.approx(0)
    assert math.isnan(study.gap_closed(target[["inn-fat"]], "adapted")[0])
    assert math.isnan(study.gap_closed(target, "maps")[0])

    lines = study.table_of(found).splitlines()
    assert "fat-opp: target (source)" in lines[0]
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines[2:]}
    assert list(rows) == [study.SOURCE_ONLY, study.SUPERVISED, "GIN", "adapted"]
    assert "0.700 (0.900)" in rows["adapted"]
    assert rows["adapted"].endswith("| 83 % | fat-opp, opp-fat |")
    assert " – |" in rows["GIN"]


def test_seeds_and_names_of_runs(study):
    (arm,) = [study.seeded(arm, (1, 2)) for arm in study.ARMS if arm.name == "adapted, one view"]
    assert (arm.name, arm.label, arm.seeds) == ("adapted-one-view", "adapted, one view", (1, 2))
    both = [study.seeded(arm, (1,)) for arm in study.ARMS]
    assert [arm.label for arm in study.of_target(both)] == [study.SUPERVISED]
    assert len(study.of_source(both)) == len(study.ARMS) - 1
