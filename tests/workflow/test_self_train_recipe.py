"""Which steps and commands the recipe makes of a config, and what it refuses."""

import json
from pathlib import Path

import pytest

from nnunet_da import cli
from nnunet_da.errors import UserError
from nnunet_da.workflow.config import build_config, read_config
from nnunet_da.workflow.run_file import Place
from nnunet_da.workflow.self_train import RECIPE, flags, make_plan
from nnunet_da.workflow.self_train_config import SelfTrainConfig, check

DATA = {"dataset": 100, "convert": "crossmoda2022", "raw": "RAW", "name": "Cross"}


@pytest.fixture
def place(nnunet_folders, tmp_path):
    (tmp_path / "RAW").mkdir()
    return Place(tmp_path, tmp_path / "W", "cpu")


def config_of(**block):
    return build_config(SelfTrainConfig, {"work": "W", "data": DATA, **block}, "run.yaml")


def words_of(plan, step_id):
    return [" ".join(map(str, words)) for words in plan[step_id].action.commands()]


def test_the_paper_is_the_default(place):
    plan = make_plan(config_of(), place)
    stages = ("data", "translation", "segmentation", "pseudo_labels", "self_training", "ensemble", "report")
    assert plan.stages == stages
    trained = [step.action for step in plan if step.kind == "train"]
    # CycleGAN; 2D and 3D, five folds, twice.
    assert len(trained) == 1 + 2 * 10
    assert {action.model.dataset.folder_name for action in trained} == {
        *("Dataset100_Cross", "Dataset101_CrossTranslated", "Dataset102_CrossCombined")
    }
    assert {action.model.trainer for action in trained} == {
        *("nnUNetTrainerCycleGAN", "nnUNetTrainerUNet", "nnUNetTrainerSelfTraining")
    }
    (configured,) = words_of(plan, "configure/Dataset101_CrossTranslated-3d_fullres_selftrain")
    assert configured == "nnunet-da configure -d 101 -c 3d_fullres --as 3d_fullres_selftrain --set num_epochs=200"
    (translator,) = words_of(plan, "configure/Dataset100_Cross-2d_translate")
    assert translator.endswith("--as 2d_translate --preset paper -tr nnUNetTrainerCycleGAN")
    (labelled,) = words_of(plan, "pseudo_label/Dataset102_CrossCombined")
    assert labelled.startswith("nnunet-da pseudo-label -d 101 --predictions ")
    assert labelled.endswith("--as 102 --name CrossCombined")
    assert "--pick 2d_selftrain=2 3d_fullres_selftrain=3" in words_of(plan, "choose/folds")[0]
    assert sum(step.name.startswith("final-") for step in plan if step.kind == "predict") == 5
    _, moved, preprocessed = words_of(plan, "plan/Dataset102_CrossCombined")
    assert moved.startswith("nnUNetv2_move_plans_between_datasets -s 101 -t 102 ")
    assert "-c 2d 3d_fullres" in preprocessed


def test_rounds_go_on_from_one_another(place):
    plan = make_plan(config_of(rounds=3, test={"images": "RAW", "labels": "RAW"}), place)
    assert plan.stages[-6:] == (
        *("pseudo_labels_2", "self_training_2", "pseudo_labels_3", "self_training_3", "ensemble", "report"),
    )
    third = plan["pseudo_label/Dataset104_CrossCombined_3"]
    assert {step.action.model.dataset.id for step in third.needs} == {103}
    assert "choose-folds -d 104" in words_of(plan, "choose/folds")[0]
    evaluated = words_of(plan, "evaluate/test")[0]
    for arm in ("translation", "self-training, round 1", "self-training, round 3", "ensemble"):
        assert f"--pred {arm}=" in evaluated


def test_a_further_round_leaves_the_first_ones_as_they_are(place):
    one, two = (make_plan(config_of(rounds=rounds), place) for rounds in (1, 2))
    changed = {step.stage for step in one if one.fingerprint(step) != two.fingerprint(two[step.id])}
    assert changed == {"ensemble", "report"}


def test_started_from_predictions(place):
    block = {"trainer": "nnUNetTrainerIntensityDA", "configurations": {"2d": {}}, "folds": [3]}
    plan = make_plan(config_of(start="predictions", segmentation=block), place)
    assert "translation" not in plan.stages
    first, again = (step.action for step in plan if step.kind == "train")
    assert (first.model.dataset.id, first.model.trainer, first.fold) == (100, "nnUNetTrainerIntensityDA", 3)
    assert (again.model.dataset.id, again.model.trainer) == (101, "nnUNetTrainerSelfTraining")
    # Of one model there is nothing to choose.
    assert not [step for step in plan if step.kind == "choose"]


def test_settings_of_a_configuration_go_before_those_of_the_stage(place):
    segmentation = {
        "configurations": {"2d": {"num_epochs": 7, "plan": {"batch_size": 3}}},
        "settings": {"num_epochs": 5, "seed": 1},
    }
    config = config_of(segmentation=segmentation, self_training={"settings": {"seed": 2}}, preset="cpu")
    assert config.training_settings("2d") == {"num_epochs": 7, "seed": 1, "plan.batch_size": 3}
    assert config.training_settings("2d", self_training=True)["seed"] == 2
    (configured,) = words_of(make_plan(config, place), "configure/Dataset101_CrossTranslated-2d_selftrain")
    assert configured.endswith("--preset cpu --set num_epochs=7 --set seed=1 --set plan.batch_size=3")


def test_what_a_setting_changes(place):
    def changed(**block):
        before, after = make_plan(config_of(), place), make_plan(config_of(**block), place)
        return [step.stage for step in after if after.fingerprint(step) != before.fingerprint(before[step.id])]

    assert changed(choose={"by": "confidence"})[0] == "ensemble"
    assert changed(pseudo_labels={"leave_out": 0.2})[0] == "pseudo_labels"
    assert changed(self_training={"settings": {"seed": 1}})[0] == "self_training"
    assert changed(self_training={"trainer": "nnUNetTrainerUNet"})[0] == "self_training"
    assert changed(resources={"train": {"runtime": 3}}) == []


def test_everything_optional(place):
    config = config_of(
        source_only=True,
        postprocess={"radius": 0},
        package={"challenge": "crossmoda2022", "scans": "RAW"},
        test={"images": "RAW", "labels": "RAW", "cases": "cases.csv"},
    )
    plan = make_plan(config, place)
    assert plan.stages[1] == "source_only"
    assert words_of(plan, "postprocess/final")[0].endswith("--radius 0")
    assert f"-i {place.work / 'predictions' / 'test' / 'postprocessed'}" in words_of(plan, "package/final")[0]
    assert (
        f"--pred source only={place.work / 'predictions' / 'test' / 'source_only'}"
        in words_of(plan, "evaluate/test")[0]
    )
    for step in plan:
        for words in step.action.commands():
            if words[0] == "nnunet-da":
                cli.build_parser().parse_args([str(word) for word in words[1:]])


def test_flags():
    block = {"structures": "vs", "link": True, "np": 2, "largest_component": ["a", "b"], "overwrite": False}
    assert flags(block) == ["--structures", "vs", "--link", "-np", "2", "--largest-component", "a", "b"]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"data": {"dataset": 100, "convert": "crossmoda2022"}}, "data.raw: give it together with data.convert"),
        ({"data": {"dataset": 995}}, "data.dataset: must be an id from 1 to 990"),
        ({"rounds": 0}, "rounds: must be from 1 to 8"),
        ({"start": "nothing"}, "start: must be one of translation, predictions"),
        ({"ensemble": {"3d_full": 2}}, "ensemble.3d_full: unknown; did you mean '3d_fullres'"),
        ({"ensemble": {"2d": 6}}, "ensemble.2d: must be a number of folds from 1 to 5"),
        ({"segmentation": {"folds": []}}, "segmentation.folds: must name at least one"),
        ({"segmentation": {"folds": [0, 0]}}, "segmentation.folds: must differ"),
        ({"segmentation": {"configurations": {"2d": 7}}}, "segmentation.configurations.2d: must hold settings"),
        ({"source_only": True, "start": "predictions"}, "source_only: "),
    ],
)
def test_what_breaks_a_rule_is_refused(block, message):
    with pytest.raises(UserError, match=message):
        config_of(**block)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"data": {**DATA, "raw": "ABSENT"}}, "data.raw: .*ABSENT: no such folder"),
        ({"test": {"labels": "ABSENT"}}, "test.labels: .*ABSENT: no such"),
        ({"segmentation": {"configurations": {"3d_full": {}}}}, "3d_full: nnU-Net plans no such .*'3d_fullres'"),
        ({"segmentation": {"settings": {"num_epoch": 3}}}, "segmentation, 2d: setting num_epoch: .*'num_epochs'"),
        ({"self_training": {"settings": {"plan": {"patch": [3]}}}}, "self_training, 2d: setting plan.patch: unknown"),
        ({"translation": {"settings": {"translation.lr": "fast"}}}, "translation: setting translation.lr: must be of"),
        ({"segmentation": {"trainer": "nnUNetTrainerUnet"}}, "no trainer nnUNetTrainerUnet; did you mean"),
    ],
)
def test_what_would_fail_after_days_is_refused_at_once(place, block, message):
    with pytest.raises(UserError, match=message):
        check(config_of(**block), place)


def test_a_dataset_that_is_there(place, nnunet_folders, write_scan):
    folder = nnunet_folders.raw / "Dataset100_Cross"
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "disc": 1, "ignore": 2},
        "file_ending": ".nii.gz",
        "domains": {"source": {"labelled": ["s1"]}, "target": {"unlabelled": ["t1"]}},
    }
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(content))
    config = config_of(data={"dataset": 100})
    with pytest.raises(UserError, match=r"imagesTs: no scans named CASE_0000\.nii\.gz"):
        check(config, place)
    write_scan(folder / "imagesTs" / "u1_0000.nii.gz")
    write_scan(folder / "labelsTs" / "v1.nii.gz")
    with pytest.raises(UserError, match=r"labelsTs: no file is named as a case of .*, such as u1"):
        check(config, place)
    write_scan(folder / "labelsTs" / "u1.nii.gz")
    check(config, place)
    assert "evaluate/test" in [step.id for step in make_plan(config, place)]


def test_the_template_is_a_config(tmp_path):
    config, _ = read_config(RECIPE.template, SelfTrainConfig)
    assert config.data.dataset == 100
    assert config.chosen == {"2d": 2, "3d_fullres": 3}
    assert Path(RECIPE.template).name == "self_train_template.yaml"
