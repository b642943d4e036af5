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
from nnunet_da.files import write_json
from nnunet_da.phantom.study import write_study
from nnunet_da.training.configurations import PlanSettings, all_settings, all_trainers

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of a source distribution")
SPLITS = {"train": ["A1", "B1", "C1"], "dev": ["C1"], "test": ["D1"]}


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import close_the_gap

    yield close_the_gap
    for name in ("close_the_gap", "gap_datasets", "cross_modality", "spine_vb"):
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
    arms = study.all_arms()
    assert len({study.slug(arm.name) for arm in arms}) == len(arms)
    for arm in [*arms, *(arm.pretraining for arm in arms if arm.pretraining)]:
        of_trainer = set(all_trainers()[arm.trainer].settings_class.__dataclass_fields__)
        for _, _, configuration, of_task, _ in study.PAIRS.values():
            block = settings.parse_assignments([f"{key}={value}" for key, value in (of_task | arm.settings).items()])
            settings.build(PlanSettings, block.pop("plan", {}), prefix="plan.")
            settings.build(all_settings(), block)
            assert set(block) <= of_trainer, (arm.name, configuration)


def test_tasks_have_datasets_and_names_of_their_own(study, data):
    crops = [name for name, (scans, *_) in study.PAIRS.items() if scans.__name__ == "discs"]
    tasks = [task for name in crops for task in study.tasks_of(name, data).values()]
    assert len({task.dataset_id for task in tasks}) == len({task.name for task in tasks}) == len(tasks) == 16
    assert sys.modules["gap_datasets"].UNTRANSLATED not in {task.dataset_id for task in tasks}
    assert set(study.DEVELOPMENT) < set(study.PAIRS)


@pytest.mark.parametrize("supervised", [False, True])
def test_labels_are_those_of_one_side_and_dev_is_held_out(study, data, tmp_path, supervised):
    task = study.tasks_of("fat-opp", data)[study.OF_TARGET if supervised else study.PLAIN]
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


def test_translations_are_held_out_with_what_they_are_of(study, data):
    task = study.tasks_of("fat-opp", data)[study.TRANSLATED]
    of_fat = ["fat_A1", "fat_B1", "fat_C1"]
    blocks = {
        "fat": {"labels": ["disc"], "labelled": of_fat, "unlabelled": []},
        "fat_as_opp": {"labels": ["disc"], "labelled": [f"{case}_as_opp" for case in of_fat], "unlabelled": []},
        "opp": {"labels": ["disc"], "labelled": [], "unlabelled": ["opp_A1"]},
    }
    domains = read_domains({"labels": {"background": 0, "disc": 1, "ignore": 2}, "domains": blocks})
    held_out = ["fat_C1", "fat_C1_as_opp"]
    (split,) = task.folds(domains)
    assert split["val"] == held_out
    assert sorted(split["train"]) == sorted(set(domains.labelled_cases) - set(held_out))


def test_seeds_and_names_of_runs(study):
    (arm,) = [study.seeded(arm, (1, 2)) for arm in study.all_arms() if arm.name == "adapted, one view"]
    assert (arm.name, arm.label, arm.seeds) == ("adapted-one-view", "adapted, one view", (1, 2))
    (arm,) = [study.seeded(arm, (3,)) for arm in study.all_arms() if arm.name == "pretrained, contrast"]
    assert (arm.pretraining.name, arm.pretraining.trainer) == ("contrast", "nnUNetTrainerSSLContrastive")


def test_checks_are_read_from_logs_and_compared_with_source_only(study, data, tmp_path):
    pairs = {"fat-opp": study.tasks_of("fat-opp", data)}
    arms = {kind: [study.seeded(arm, (1,)) for arm in of_kind] for kind, of_kind in study.ARMS.items()}
    said = {
        "adapted": "teacher of epoch 3, of the highest score without labels (0.9000); it fell back to before the "
        "teacher's labels were learnt",
        "adapted-one-view": "teacher of the last epoch, since in no epoch the volumes on unlabelled cases were "
        "plausible: look at its predictions",
    }
    task = pairs["fat-opp"][study.PLAIN]
    work = tmp_path / "work"
    write_json([{"train": [], "val": []}], work / task.name / "splits.json")
    write_json(
        {
            "labels": {"background": 0, "disc": 1},
            "domains": {"fat": {"labels": ["disc"], "labelled": ["fat_A1"], "unlabelled": []}},
        },
        work / task.name / "nnUNet_raw" / task.dataset / "dataset.json",
    )
    for run in study.runs_of(task, arms[study.PLAIN], work / task.name):
        if run.model.name in said:
            folder = run.results(work / task.name)
            folder.mkdir(parents=True)
            (folder / "training_log_2026.txt").write_text(
                f"an epoch\ncheckpoint_final.pth has the weights of the {said[run.model.name]}\nthe end\n"
            )
    chosen = study.checks(pairs, arms, work)
    assert chosen[["model", "seed"]].values.tolist() == [["adapted", 1], ["adapted, one view", 1]]
    found = results(study, fat_opp={study.SOURCE_ONLY: 0.3, "adapted": 0.5, "adapted, one view": 0.28})
    compared = study.compared_with_source_only(found, chosen)
    assert compared["gain"].tolist() == [pytest.approx(0.2), pytest.approx(-0.02)]
    # Trained, but not evaluated yet.
    unknown = study.compared_with_source_only(found, chosen.assign(task="opp-fat"))
    assert unknown["gain"].isna().all()
    # Of another seed than source only: against its mean.
    later = found.assign(seed=found["seed"].where(found["model"] == study.SOURCE_ONLY, 2))
    other = study.compared_with_source_only(later, chosen.assign(seed=2))
    assert other["gain"].tolist() == compared["gain"].tolist()
    text = study.text_of_checks(compared)
    assert "Of 2 runs 1 fell back to before the teacher, 1 kept the last epoch" in text
    assert "1 lie more than 0.01 below source only" in text
    assert "| fat-opp | adapted | 1 | +0.200 | the teacher of epoch 3" in text


def test_a_whole_study(study, tmp_path, monkeypatch, workplace_in_process):
    """Arms of all four datasets, a model per domain among them, and the ranking, on phantoms of two scanners."""
    scanners = ("philips_3t", "siemens_1p5t")
    folder = tmp_path / "data"
    write_study(folder, scanners, 3, 0, labelled=scanners, n_test=1, size=(6, 48, 48))
    rows = rows_of(folder / "cases.csv")

    def scans_of(data, domain):
        of_domain = [
            (row["case"], domain, row["subject"], folder / row["image_0000"], folder / row["label"])
            for row in rows
            if row["domain"] == domain
        ]
        return {"train": of_domain, "dev": of_domain[:1], "test": of_domain[1:2]}

    schedule = {"num_epochs": 2, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1}
    plan = {"plan.patch_size": "32,32", "plan.batch_size": 2}
    settings = {**schedule, **plan, "plan.features_per_stage": "4,8,8"}
    cycle_gan = {"features": "4,8", "discriminator_features": 4, "discriminator_layers": 1}
    of_cycle_gan = {**schedule, **plan, **{f"translation.{key}": value for key, value in cycle_gan.items()}}
    monkeypatch.setattr(study, "PAIRS", {"-".join(scanners): (scans_of, "disc", "2d", settings, 301)})
    monkeypatch.setattr(study, "OF_CYCLE_GAN", {scans_of: of_cycle_gan})
    # Two steps teach nothing: what they find has no plausible volume.
    monkeypatch.setattr(sys.modules["gap_datasets"], "PSEUDO_LABELS", ("--no-volume-rule", "--leave-out", 0))
    arms = ["source only", "supervised on target", "adapted", "translation", "translation, self-training"]
    arms += ["translation, heads and contrast"]
    work = tmp_path / "work"
    command = ["close_the_gap.py", str(tmp_path), str(work), "--tested", "test", "--arms", *arms]
    monkeypatch.setattr("sys.argv", command)
    study.main()
    found = pandas.read_csv(work / "test.csv")
    assert set(found["model"]) == set(arms)
    assert set(found["domain"]) == set(scanners)
    table = (work / "test_table.md").read_text(encoding="utf-8")
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [f"| {arm}" for arm in arms]
    assert "Of 1 runs" in (work / "test_checks.md").read_text(encoding="utf-8")
    selection = (work / "test_selection.md").read_text(encoding="utf-8")
    assert f"{'-'.join(scanners)} (5)" in selection
    assert "| confidence |" in selection
    # What is held out is in no training of the labels of its side.
    translated = work / "Philips_3tSiemens_1p5tTranslated"
    (split,) = json.loads((translated / "splits.json").read_text())
    held_out = rows[0]["case"]
    assert split["val"] == [held_out, f"{held_out}_as_siemens_1p5t"]
