"""The studies as they are declared: names, trainers and settings that are understood; and the scans that they write."""

import csv
import importlib
import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_da import settings
from nnunet_da.training.configurations import PlanSettings, all_settings, all_trainers

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
STUDIES = (
    *("intensity_ablation", "intensity_table1"),
    *("multidomain_spine", "multidomain_label_sets", "multidomain_leave_one_out"),
    "discs_spine",
)
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not part of a source distribution")


@pytest.fixture
def script(monkeypatch):
    """``script(name)``: the benchmark of that name as a module, which is forgotten afterwards with what it imports."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in (*STUDIES, "spine_vb"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_names_trainers_and_settings_that_there_are(name, script):
    study = script(name)
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


def test_studies_have_datasets_of_their_own(script):
    tasks = {(study.TASK.dataset_id, study.TASK.name) for study in map(script, STUDIES)}
    assert len({number for number, _ in tasks}) == len({name for _, name in tasks}) == len(tasks) == 5


def test_the_paper_s_seven_columns(script):
    rows = dict.fromkeys(model.label for model in script("multidomain_spine").MODELS)
    assert list(rows) == [
        *("Base", "Joint", "DSL", "DSL-contrastive", "Attention-Base", "Attention-Joint", "Attention-DSL")
    ]


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def write_spines(data, domains):
    """Stands in for the scans of spine_vb: two per domain, the first to train on and the second to test."""
    splits = {domain: {"train": [f"{domain}_1"], "dev": [], "test": [f"{domain}_2"]} for domain in domains}
    (data / "splits.json").write_text(json.dumps({"spine_vb": splits}))
    cases = [f"{domain}_{number}" for domain in domains for number in (1, 2)]
    for kind in ("images", "labels"):
        (data / "spine_vb" / kind).mkdir(parents=True)
        for case in cases:
            (data / "spine_vb" / kind / f"{case}.nii.gz").write_text("scan")
    rows = "".join(f"{case},{case.split('_')[0]},subject_{case}\n" for case in cases)
    (data / "spine_vb/cases.csv").write_text("case,domain,subject\n" + rows)


def test_the_domains_of_a_study_are_labelled(script, tmp_path):
    """`write_experiment` gives labels to the domains that are asked for."""
    spine = script("spine_vb")
    write_spines(tmp_path, spine.DOMAINS)
    for labelled in ((spine.SOURCE,), spine.DOMAINS):
        work = tmp_path / f"work_{len(labelled)}"
        spine.write_experiment(tmp_path, work, labelled)
        found = {row["domain"]: bool(row["label"]) for row in rows_of(work / "cases.csv")}
        assert found == {domain: domain in labelled for domain in spine.DOMAINS}
        assert len(list((work / "test/images").iterdir())) == 3


def test_the_study_of_discs_has_two_tasks_of_the_same_scans(script, tmp_path):
    study = script("discs_spine")
    write_spines(tmp_path, script("spine_vb").DOMAINS)
    study.write_vb2(tmp_path, tmp_path / "work")
    assert [row["case"] for row in rows_of(tmp_path / "work/cases.csv")] == ["vb2_1"]
    assert [row["case"] for row in rows_of(tmp_path / "work/test/cases.csv")] == ["vb2_2"]
    assert study.TASK.settings == study.REGION_TASK.settings
    assert study.REGION_TASK.dataset_id not in (study.TASK.dataset_id, study.LABELLED, study.REGION)


def test_leaving_one_out_trains_on_and_tests_all_scans(script, tmp_path):
    spine = script("spine_vb")
    write_spines(tmp_path, spine.DOMAINS)
    spine.write_all(tmp_path, tmp_path / "work")
    training, test = rows_of(tmp_path / "work/cases.csv"), rows_of(tmp_path / "work/test/cases.csv")
    assert [row["case"] for row in training] == [row["case"] for row in test]
    assert len(training) == 6
    assert all(row["label"] and row["subject"] == f"subject_{row['case']}" for row in training)
    assert len(list((tmp_path / "work/test/labels").iterdir())) == 6


def test_slices_of_both_label_sets_lie_across_one_axis(script, tmp_path):
    """Sagittal slices of 2 mm, stored as I-P-R, and axial ones of 7.7 mm, stored as L-A-S."""
    study = script("multidomain_label_sets")
    sagittal = np.array([[0, 0, 2, 0], [0, -1, 0, 5], [-1, 0, 0, 7], [0, 0, 0, 1.0]])
    axial = np.diag([-1.25, 1.25, 7.7, 1])
    splits = {"spine_vb": {"vb2": {"train": ["vb2_1"], "test": ["vb2_2"]}}}
    splits["chaos_t2spir"] = {"train": ["chaos_1"], "test": ["chaos_2"]}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    rng = np.random.default_rng(0)
    scans = {}
    for folder, domain, affine, n_labels in (
        ("spine_vb", "vb2", sagittal, 1),
        ("chaos_t2spir", "chaos", axial, 4),
    ):
        for kind in ("images", "labels"):
            (tmp_path / folder / kind).mkdir(parents=True)
            for number in (1, 2):
                voxels = rng.integers(0, n_labels + 1, (4, 5, 6)).astype(np.float64)
                scans[kind, f"{domain}_{number}"] = voxels
                nibabel.save(
                    nibabel.Nifti1Image(voxels, affine), tmp_path / folder / kind / f"{domain}_{number}.nii.gz"
                )
    work = tmp_path / "work"
    study.write_experiment(tmp_path, work)
    assert [(row["case"], row["domain"]) for row in rows_of(work / "cases.csv")] == [
        ("vb2_1", "vb2"),
        ("chaos_1", "chaos"),
    ]
    for part, number in (("train", 1), ("test", 2)):
        for domain, before, shift in (("vb2", sagittal, 0), ("chaos", axial, 1)):
            case = f"{domain}_{number}"
            image = nibabel.load(work / part / "images" / f"{case}_0000.nii.gz")
            label = nibabel.load(work / part / "labels" / f"{case}.nii.gz")
            np.testing.assert_array_equal(image.get_fdata(), scans["images", case])
            expected = scans["labels", case]
            np.testing.assert_array_equal(np.asarray(label.dataobj), np.where(expected > 0, expected + shift, 0))
            np.testing.assert_array_equal(image.affine, label.affine)
            # Slices lie one above the other, and nothing is mirrored.
            assert nibabel.aff2axcodes(image.affine)[2] == "S"
            assert np.isclose(np.linalg.det(image.affine), np.linalg.det(before))
            np.testing.assert_allclose(image.header.get_zooms(), nibabel.affines.voxel_sizes(before), rtol=1e-6)
    assert (work / rows_of(work / "cases.csv")[0]["image_0000"]).exists()
