"""The disc pipeline: which steps and commands it makes of a config, what it refuses, and how its parts fit together."""

import json
import zipfile

import nibabel
import numpy as np
import pytest

from nnunet_da import cli
from nnunet_da.errors import UserError
from nnunet_da.workflow import step as step_module
from nnunet_da.workflow.config import build_config, read_config
from nnunet_da.workflow.ivd import RECIPE, make_plan
from nnunet_da.workflow.ivd_config import IvdConfig, check
from nnunet_da.workflow.run_file import Place, Run
from nnunet_da.workflow.step import do_step

DATA = {"dataset": 130, "convert": "ivdm3seg", "raw": "RAW"}


@pytest.fixture
def place(nnunet_folders, tmp_path):
    (tmp_path / "RAW").mkdir()
    return Place(tmp_path, tmp_path / "W", "cpu")


def config_of(**block):
    return build_config(IvdConfig, {"work": "W", "data": DATA, **block}, "run.yaml")


def words_of(plan, step_id):
    return [" ".join(map(str, words)) for words in plan[step_id].action.commands()]


def test_the_paper_is_the_default(place):
    plan = make_plan(config_of(), place)
    assert plan.stages == ("data", "region", "discs", "localizer", "cross_validation", "report")
    trained = [step.action for step in plan if step.kind == "train"]
    assert [(a.model.dataset.id, a.model.configuration, a.model.trainer) for a in trained[::5]] == [
        (131, "2d", "nnUNetTrainerSpineRegion"),
        (132, "2d", "nnUNetTrainerDenseASPP"),
        (133, "3d_fullres", "nnUNetTrainerVNetLocalizer"),
    ]
    assert len(trained) == 15
    (made,) = words_of(plan, "dataset/Dataset132_DiscsInRegion")
    folder = plan["train/Dataset131_DiscsSpineRegion-2d-fold_4"].action.model.fold_folder(4)
    assert made.startswith(
        "nnunet-da disc-dataset -d 130 --as 132 --name DiscsInRegion --labels discs-in-region --link"
    )
    assert made.endswith(f" {folder / 'validation'}")
    # Discs are learnt when every fold of the region has predicted its cases.
    assert {step.id for step in plan["dataset/Dataset132_DiscsInRegion"].needs} == {
        f"train/Dataset131_DiscsSpineRegion-2d-fold_{fold}" for fold in range(5)
    }
    assert not [step for step in plan if step.kind == "configure"]


def test_everything_optional(place):
    (place.folder / "ref.nii.gz").touch()
    config = config_of(
        preset="cpu", folds=3, reference="ref.nii.gz", test={"images": "RAW", "labels": "RAW"}, n_discs=5
    )
    check(config, place)
    plan = make_plan(config, place)
    (configured,) = words_of(plan, "configure/Dataset133_DiscsNumbered-3d_fullres_ivd")
    assert "--preset cpu --set vnet.features=[8, 16, 32, 64]" in configured
    assert "dense_aspp" not in configured
    (predicted,) = words_of(plan, "predict/test")
    for name in ("region", "discs", "localizer"):
        assert f"--{name} " in predicted
    assert predicted.count(":0,1,2") == 3
    assert predicted.endswith(f"--n-discs 5 --reference {place.folder / 'ref.nii.gz'}")
    assert plan.stages[-2:] == ("test", "report")
    for step in plan:
        for words in step.action.commands():
            if words[0] == "nnunet-da":
                cli.build_parser().parse_args([str(word) for word in words[1:]])


def test_without_region_and_localiser(place):
    plan = make_plan(config_of(region=None, localizer=None), place)
    assert plan.stages == ("data", "discs", "cross_validation", "report")
    trained = [step.action for step in plan if step.kind == "train"]
    assert {action.model.dataset.id for action in trained} == {130}
    (numbered,) = words_of(plan, "localize/numbered")
    assert "--localizer" not in numbered
    assert f"-i {place.work / 'cross_validation' / 'discs'} " in numbered


def test_what_a_setting_changes(place):
    def changed(**block):
        before, after = make_plan(config_of(), place), make_plan(config_of(**block), place)
        known = {step.id for step in before}
        return [s.stage for s in after if s.id in known and after.fingerprint(s) != before.fingerprint(before[s.id])]

    assert changed(region={"margin": 20.0})[0] == "region"
    assert changed(discs={"trainer": "nnUNetTrainerUNet"})[0] == "discs"
    assert changed(n_discs=5)[0] == "localizer"
    assert changed(reference="x")[0] == "cross_validation"
    assert "localizer" not in changed(region={"margin": 20.0})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"folds": 1}, "folds: must be at least 2"),
        ({"n_discs": 0}, "n_discs: must be from 1 to 10"),
        ({"region": {"margin": -1.0}}, "region.margin: must not be negative"),
        ({"discs": {"configuration": "2D"}}, "discs.configuration: nnU-Net plans no such .*'2d'"),
        ({"test": {"labels": "L"}}, "test.images: needed for test.labels"),
    ],
)
def test_what_breaks_a_rule_is_refused(block, message):
    with pytest.raises(UserError, match=message):
        config_of(**block)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"data": {**DATA, "raw": "ABSENT"}}, "data.raw: .*ABSENT: no such folder"),
        ({"reference": "ABSENT"}, "reference: .*ABSENT: no such file"),
        ({"test": {"images": "ABSENT"}}, "test.images: .*ABSENT: no such"),
        ({"discs": {"settings": {"focal.gama": 1}}}, "discs: setting focal.gama: unknown; did you mean 'gamma'"),
        ({"localizer": {"trainer": "nnUNetTrainerVNet"}}, "localizer: no trainer nnUNetTrainerVNet"),
    ],
)
def test_what_would_fail_after_days_is_refused_at_once(place, block, message):
    with pytest.raises(UserError, match=message):
        check(config_of(**block), place)


def test_the_template_is_a_config():
    config, _ = read_config(RECIPE.template, IvdConfig)
    assert config == config_of(work="ivd")


@pytest.fixture
def teacher(monkeypatch, nnunet_folders, run_command):
    """Stands in for nnU-Net: what a training predicts out of fold is the truth, with what a network would add to it.

    Our own commands run in this process.
    """

    def train(dataset, configuration, fold, _, trainer, *__):
        name = next(path.name for path in nnunet_folders.raw.glob(f"Dataset{int(dataset):03d}_*"))
        folder = nnunet_folders.results / name / f"{trainer}__nnUNetPlans__{configuration}" / f"fold_{fold}"
        (folder / "validation").mkdir(parents=True)
        splits = json.loads((nnunet_folders.preprocessed / name / "splits_final.json").read_text())
        for case in splits[int(fold)]["val"]:
            label = nibabel.load(nnunet_folders.raw / name / "labelsTr" / f"{case}.nii.gz")
            voxels = np.asarray(label.dataobj).copy()
            if trainer == "nnUNetTrainerDenseASPP":
                # Outside the region it was told nothing, and finds discs there.
                assert (voxels == 2).any()
                voxels[voxels == 2] = 1
            nibabel.save(nibabel.Nifti1Image(voxels, label.affine), folder / "validation" / f"{case}.nii.gz")
        with zipfile.ZipFile(folder / "checkpoint_final.pth", "w"):
            pass

    def run(job, *words):
        words = [str(word) for word in words]
        if words[0] == "nnUNetv2_train":
            train(*words[1:4], *words[4:])
        elif words[0] == "nnunet-da":
            job.note(run_command(*words))
        else:
            assert words[0] == "nnUNetv2_plan_and_preprocess"

    monkeypatch.setattr(step_module.Job, "run", run)
    monkeypatch.setattr("nnunet_da.parallel.n_workers", lambda n_processes, n_items: 1)


@pytest.mark.usefixtures("teacher")
def test_from_the_raw_folder_to_the_tables(tmp_path, run_command, draw_coarsely, monkeypatch):
    draw_coarsely(monkeypatch, 8)
    run_command("nnunet-da", "phantom", "ivdm3seg", tmp_path / "RAW", "-n", 3, "--size", 24, 72, 96, "-np", 1)
    run = Run(RECIPE, tmp_path / "run.yaml", {"work": "W", "data": DATA, "folds": 3}, "cpu")
    for step in run.plan:
        do_step(run, step)

    work = tmp_path / "W" / "cross_validation"
    cases = [f"ivdm3seg_{number:02d}" for number in range(1, 7)]
    assert sorted(path.name.split(".")[0] for path in (work / "numbered").glob("*.nii.gz")) == cases
    for case in cases:
        found, truth = (
            np.asarray(nibabel.load(work / kind / f"{case}.nii.gz").dataobj) for kind in ("numbered", "labels")
        )
        # What the segmentation found outside the region is gone, and every disc has its number.
        assert np.array_equal(found, truth), case
    table = (work / "evaluation" / "by_case.md").read_text(encoding="utf-8")
    assert "AAD" in table
    assert "L5-S1" in table
    assert table.count("ivdm3seg_06") == 3
    report = (tmp_path / "W" / "report" / "tables" / "report.md").read_text(encoding="utf-8")
    assert "1.000 ± 0.000" in report
    # Both sets of a subject are on one side.
    splits = json.loads((tmp_path / "nnunet/preprocessed/Dataset132_DiscsInRegion/splits_final.json").read_text())
    assert sorted(split["val"] for split in splits) == [cases[:2], cases[2:4], cases[4:]]


def test_cases_without_a_fold_are_named(place, tmp_path, write_scan):
    from nnunet_da.workflow.actions import Dataset
    from nnunet_da.workflow.ivd import CollectLabels

    dataset = Dataset(130, "Discs")
    raw = tmp_path / "nnunet/raw/Dataset130_Discs"
    raw.mkdir()
    content = {"labels": {"background": 0, "disc": 1, "ignore": 2}, "file_ending": ".nii.gz", "channel_names": {}}
    content["domains"] = {"dixon": {"labels": ["disc"], "labelled": ["a", "b"], "unlabelled": ["c"]}}
    (raw / "dataset.json").write_text(json.dumps(content))
    write_scan(tmp_path / "fold_0/a.nii.gz")
    action = CollectLabels(dataset, tmp_path / "all", (tmp_path / "fold_0", tmp_path / "fold_1"))
    with pytest.raises(UserError, match="0 label maps of case 'b'; the setting 'folds' must be the number of splits"):
        action.do(None)
    assert not (tmp_path / "all").exists()
    write_scan(tmp_path / "fold_1/b.nii.gz")
    action.do(None)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["a.nii.gz", "b.nii.gz"]
