"""The studies as they are declared: names, trainers and settings that are understood."""

import importlib
import sys
from pathlib import Path

import pytest

from nnunet_da import settings
from nnunet_da.training.configurations import PlanSettings, all_settings, all_trainers

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of a source distribution")


@pytest.mark.parametrize("name", ["intensity_ablation", "intensity_table1", "multidomain_spine"])
def test_a_study_names_trainers_and_settings_that_there_are(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    try:
        study = importlib.import_module(name)
        assert len({model.name for model in study.MODELS}) == len(study.MODELS)
        assert any(model.baseline for model in study.MODELS)
        for model in study.MODELS:
            trainer = all_trainers()[model.trainer]
            assignments = [f"{key}={value}" for key, value in (study.TASK.settings | model.settings).items()]
            block = settings.parse_assignments(assignments)
            settings.build(PlanSettings, block.pop("plan", {}), prefix="plan.")
            # The groups of other trainers are passed over; what is its own must be a setting of the trainer.
            settings.build(all_settings(), block)
            groups = {key for key, value in block.items() if isinstance(value, dict)}
            if trainer is not all_trainers()["nnUNetTrainerUNet"]:
                assert groups <= set(trainer.settings_class.__dataclass_fields__), model.name
            assert model.per_domain == (getattr(trainer, "scheme", None) == "dsl")
            assert (model.domain is not None) == (getattr(trainer, "scheme", None) == "base")
    finally:
        for module in (name, "study", "spine_vb", "intensity_table1"):
            sys.modules.pop(module, None)


def test_the_domains_of_a_study_are_labelled(monkeypatch, tmp_path):
    """`write_experiment` gives labels to the domains that are asked for."""
    import csv
    import json

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    try:
        spine = importlib.import_module("spine_vb")
        domains = (spine.SOURCE, *spine.TARGETS)
        splits = {d: {"train": [f"{d}_1"], "dev": [], "test": [f"{d}_2"]} for d in domains}
        (tmp_path / "splits.json").write_text(json.dumps({"spine_vb": splits}))
        for kind in ("images", "labels"):
            (tmp_path / "spine_vb" / kind).mkdir(parents=True)
            for domain in domains:
                for number in (1, 2):
                    (tmp_path / "spine_vb" / kind / f"{domain}_{number}.nii.gz").write_text("scan")
        rows = "".join(f"{d}_{n},subject_{d}_{n}\n" for d in domains for n in (1, 2))
        (tmp_path / "spine_vb/cases.csv").write_text("case,subject\n" + rows)
        for labelled in ((spine.SOURCE,), domains):
            work = tmp_path / f"work_{len(labelled)}"
            work.mkdir()
            spine.write_experiment(tmp_path, work, labelled)
            with open(work / "cases.csv", newline="") as stream:
                found = {row["domain"]: bool(row["label"]) for row in csv.DictReader(stream)}
            assert found == {domain: domain in labelled for domain in domains}
            assert len(list((work / "test/images").iterdir())) == 3
    finally:
        sys.modules.pop("spine_vb", None)
