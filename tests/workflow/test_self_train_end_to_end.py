"""The whole recipe on tiny scans, its commands run in this process; interrupted after each, and gone on with."""

import csv
import functools
import os
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from nnunet_da.workflow import step as step_module
from nnunet_da.workflow.run_file import Run
from nnunet_da.workflow.self_train import RECIPE
from nnunet_da.workflow.step import do_step

SHAPE = (24, 26, 6)
PLAN = {"patch_size": [16, 16], "features_per_stage": [2, 4, 4], "batch_size": 2}
SCHEDULE = {
    "num_epochs": 2,
    "num_iterations_per_epoch": 2,
    "num_val_iterations_per_epoch": 1,
    "save_every": 1,
    "seed": 1,
}
TRANSLATION = {
    "features": [2, 4],
    "discriminator_features": 2,
    "discriminator_layers": 1,
    "segment_fakes_after": 0,
}


@pytest.fixture
def scans(tmp_path, write_scan):
    """A bright box: in the source brighter than its surroundings, in the target darker. cases.csv, TEST and LABELS."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(9):
        label = np.zeros(SHAPE, np.uint8)
        corner = generator.integers(4, 10, 2)
        label[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8, 1:5] = 1
        is_source, is_test = index < 4, index > 6
        case = f"{'s' if is_source else 't'}{index}"
        image = 100 + generator.normal(0, 5, SHAPE) + (60.0 if is_source else -60.0) * label
        folder = tmp_path / ("TEST" if is_test else "SCANS")
        path = write_scan(folder / f"{case}_0000.nii.gz", image.astype(np.float32))
        labels = write_scan(tmp_path / "LABELS" / f"{case}.nii.gz", label)
        if not is_test:
            rows.append([case, "source" if is_source else "target", path, labels if is_source else ""])
    with open(tmp_path / "cases.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["case", "domain", "image_0000", "label"], *rows])
    with open(tmp_path / "test.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["case", "domain"], ["t7", "target"], ["t8", "target"]])


@pytest.fixture
def in_process(monkeypatch, run_command):
    """Commands of steps are run in this process, each interrupted once when it has ended."""
    from nnunetv2.ensembling import ensemble
    from nnunetv2.training.logging.nnunet_logger import LocalLogger
    from nnunetv2.utilities import find_objects

    begun = set()

    class Pool:
        """As multiprocessing.Pool, without processes."""

        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def starmap(self, function, arguments):
            return [function(*of_one) for of_one in arguments]

    def run(job, *words):
        variables = step_module.environment_of(words[0], job._environment)
        job.note(run_command(*words, **{name: value for name, value in variables.items() if name.startswith("nnUNet")}))
        key = job._log, words[0]
        if key not in begun:
            begun.add(key)
            raise KeyboardInterrupt

    monkeypatch.setattr(step_module.Job, "run", run)
    monkeypatch.setattr(ensemble, "multiprocessing", SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=Pool)))
    monkeypatch.setattr("nnunet_da.parallel.n_workers", lambda n_processes, n_items: 1)
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    # What takes most of the time of a training this small: curves, and imports of every trainer for each look-up.
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda *_: None)
    find = functools.cache(find_objects.recursive_find_python_class)
    monkeypatch.setattr(find_objects, "recursive_find_python_class", find)


@pytest.mark.usefixtures("nnunet_folders", "scans", "in_process")
def test_from_raw_scans_to_the_report(tmp_path):
    block = {
        "work": "W",
        "preset": "cpu",
        "data": {"dataset": 100, "convert": "manifest", "raw": "cases.csv", "name": "Box"},
        "translation": {"settings": {**SCHEDULE, "num_epochs": 1, "plan": PLAN, "translation": TRANSLATION}},
        "segmentation": {"configurations": {"2d": {}}, "folds": [0, 1], "settings": {**SCHEDULE, "plan": PLAN}},
        "pseudo_labels": {"no_volume_rule": True, "leave_out": 0},
        "ensemble": {"2d": 1},
        "postprocess": {"radius": 0},
        "test": {"images": "TEST", "labels": "LABELS_OF_TEST", "cases": "test.csv"},
    }
    block["data"]["options"] = {"labels": "disc=1", "channels": "MR"}
    (tmp_path / "LABELS_OF_TEST").mkdir()
    for case in ("t7", "t8"):
        os.link(tmp_path / "LABELS" / f"{case}.nii.gz", tmp_path / "LABELS_OF_TEST" / f"{case}.nii.gz")
    run = Run(RECIPE, tmp_path / "run.yaml", block, "cpu")
    for step in run.plan:
        for _ in range(5):
            try:
                do_step(run, step)
                break
            except KeyboardInterrupt:
                assert not run.state.is_done(step)
        assert run.state.is_done(step), step.id

    work = tmp_path / "W"
    combined = run.plan["plan/Dataset102_BoxCombined"].action.dataset.json
    assert {case for domain in combined["domains"].values() for case in domain["labelled"]} == {
        *("s0", "s1", "s2", "s3", "t4", "t5", "t6")
    }
    final = work / "predictions" / "test" / "postprocessed"
    assert sorted(path.name for path in final.glob("*.nii.gz")) == ["t7.nii.gz", "t8.nii.gz"]
    for case in ("t7", "t8"):
        predicted, scan = (
            nibabel.load(final / f"{case}.nii.gz"),
            nibabel.load(tmp_path / "TEST" / f"{case}_0000.nii.gz"),
        )
        assert predicted.shape == SHAPE
        assert np.allclose(predicted.affine, scan.affine)
        assert set(np.unique(predicted.get_fdata())) <= {0, 1}
    tables = work / "report" / "tables"
    with open(tables / "stages.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["stage"] for row in rows if row["metric"] == "Dice"] == [
        *("translation", "self-training, round 1", "ensemble")
    ]
    assert "Folds in the ensemble, ranked by agreement" in (tables / "report.md").read_text(encoding="utf-8")
    assert (work / "report" / "evaluation" / "report.html").stat().st_size > 10_000
