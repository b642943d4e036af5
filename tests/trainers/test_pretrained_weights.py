"""Weights to start from, through nnU-Net's own loader: which trainers take them, what is checked, what is said."""

import json
from pathlib import Path

import pytest
import torch
from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import move_plans_between_datasets
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

from nnunet_da.errors import UserError
from nnunet_da.training.configured_trainer import unwrap

CPU = torch.device("cpu")
CONTRASTIVE, DSL = "nnUNetTrainerSSLContrastive", "nnUNetTrainerDSL"


@pytest.fixture(autouse=True)
def _fresh(fresh_results):
    """Each test starts without models."""


def new(dataset, trainer, configuration="tiny_2d", **keywords):
    return get_trainer_from_args(dataset.id, configuration, 0, trainer, device=CPU, **keywords)


def write_result(trainer):
    """The file that pretraining ends with, of a network that has not learnt anything; its Path."""
    trainer.initialize()
    for parameter in trainer.network.parameters():
        parameter.data += 1
    trainer.write_result()
    return Path(trainer.output_folder, "pretrained.pth")


@pytest.fixture
def pretrained(spine):
    return write_result(new(spine, CONTRASTIVE))


@pytest.fixture
def command_line(monkeypatch):
    """``command_line(*words)``: what nnUNetv2_train was started with."""

    def start(*words):
        monkeypatch.setattr("sys.argv", ["/anywhere/nnUNetv2_train", *map(str, words)])

    return start


TAKES = {
    "nnUNetTrainer": (),
    "nnUNetTrainerAdapt": ("decoder.seg_layers",),
    "nnUNetTrainerSSLFinetune": ("decoder.seg_layers",),
    "nnUNetTrainerUNet": ("decoder.seg_layers",),
    "nnUNetTrainerIntensityDA": ("decoder.seg_layers", "pretext.seg_layers"),
    "nnUNetTrainerSSLRegression": ("decoder.seg_layers",),
    CONTRASTIVE: ("projection.seg_layers",),
}


@pytest.mark.parametrize("trainer", TAKES)
def test_trainers_take_encoder_and_decoder(spine, pretrained, command_line, trainer):
    command_line(spine.id, "tiny_2d", 0, "-tr", trainer, "-p", "nnUNetPlans", "-pretrained_weights", pretrained)
    run = new(spine, trainer)
    maybe_load_checkpoint(run, False, False, str(pretrained))
    weights = torch.load(pretrained, weights_only=True)["network_weights"]
    found = unwrap(run.network).state_dict()
    assert set(weights) == {name for name in found if ".seg_layers." not in name}
    assert all(torch.equal(found[name], value) for name, value in weights.items())

    run.on_train_start()
    run.on_train_epoch_start()
    assert run.train_step(next(run.dataloader_train))["loss"] < 1e6
    lines = [line for line in Path(run.log_file).read_text().splitlines() if "Pretrained weights: " in line]
    if trainer == "nnUNetTrainer":
        assert not lines
        return
    taken, new_parts = lines[0].split("Pretrained weights: ")[1].split("; not loaded, so new: ")
    assert [part for part in ("encoder", "decoder") if part in taken] == ["encoder", "decoder"]
    assert [part.split(" ")[0] for part in new_parts.split("), ")] == list(TAKES[trainer])


def test_without_a_file_the_log_says_so(spine):
    run = new(spine, "nnUNetTrainerSSLFinetune")
    run.on_train_start()
    log = Path(run.log_file).read_text()
    assert "No pretrained weights were given: training starts from scratch" in log
    assert "Pretrained weights: loaded" not in log


def test_classes_may_differ_and_plans_may_be_moved(spine, joints, pretrained, command_line):
    # The other dataset has three structures. With the plan of the first it has its spacing as well.
    move_plans_between_datasets(spine.id, joints.id, "nnUNetPlans", "nnUNetPlansMoved")
    moved = joints.preprocessed / "nnUNetPlansMoved.json"
    command_line(joints.id, "tiny_2d", 0, "-p", "nnUNetPlansMoved", "-pretrained_weights", pretrained)
    try:
        run = new(joints, "nnUNetTrainerSSLFinetune", plans_identifier="nnUNetPlansMoved")
        run.initialize()
    except FileNotFoundError:
        # nnU-Net looks for the preprocessed data last, which this test does not make.
        assert not (joints.preprocessed / "nnUNetPlansMoved_2d").exists()
    finally:
        moved.unlink()


def test_trainers_whose_network_is_not_nnunets_refuse(joints, pretrained, command_line):
    command_line(joints.id, "tiny_2d", 0, "-tr", DSL, "-pretrained_weights", pretrained)
    with pytest.raises(UserError, match="nnUNetTrainerDSL: -pretrained_weights is not supported"):
        new(joints, DSL)
    assert not joints.results.exists()


def changed(name, value):
    def change(configuration):
        configuration["architecture"]["arch_kwargs"][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(spacing=[9.0, 9.0]),
            r"spacing \(mm\) \[.*\] there, but \[9.0, 9.0\] in configuration tiny_2d",
        ),
        (
            changed("features_per_stage", [4, 8, 16]),
            r"architecture: features_per_stage \[4, 8, 8\] there, but \[4, 8, 16\]",
        ),
        (changed("strides", [[1, 1], [2, 2], [1, 2]]), r"architecture: strides"),
        (
            changed("norm_op", "torch.nn.BatchNorm2d"),
            r"architecture: norm_op .*InstanceNorm2d there, but torch.nn.Batch",
        ),
    ],
)
def test_a_file_for_another_plan_is_refused(spine, pretrained, command_line, change, message):
    command_line(spine.id, "tiny_2d", 0, f"-pretrained_weights={pretrained}")
    path = spine.preprocessed / "nnUNetPlans.json"
    kept = path.read_bytes()
    plans = json.loads(kept)
    resolved = plans["configurations"]["tiny_2d"]
    change(resolved)
    path.write_text(json.dumps(plans))
    try:
        with pytest.raises(UserError, match=message) as raised:
            new(spine, "nnUNetTrainerUNet")
    finally:
        path.write_bytes(kept)
    assert str(raised.value).startswith(f"-pretrained_weights {pretrained}: ")
    assert "nnUNetv2_move_plans_between_datasets" in str(raised.value)


def test_another_dimension_or_other_channels_are_refused(spine, regions, pretrained, command_line):
    command_line(spine.id, "tiny_3d", 0, "-pretrained_weights", pretrained)
    with pytest.raises(UserError, match="patch dimension 2 there, but 3 in configuration tiny_3d"):
        new(spine, "nnUNetTrainerUNet", "tiny_3d")
    command_line(regions.id, "tiny_2d", 0, "-pretrained_weights", pretrained)
    with pytest.raises(UserError, match="channels 1 there, but 4 in configuration tiny_2d"):
        new(regions, "nnUNetTrainerUNet")


def test_a_file_that_is_none_is_refused(spine, pretrained, command_line, tmp_path):
    command_line(spine.id, "tiny_2d", 0, "-pretrained_weights", tmp_path / "absent.pth")
    with pytest.raises(UserError, match=r"absent.pth: no such checkpoint"):
        new(spine, "nnUNetTrainerUNet")
    content = torch.load(pretrained, weights_only=True)
    del content["network_weights"]["decoder.transpconvs.0.weight"]
    torch.save(content, tmp_path / "part.pth")
    command_line(spine.id, "tiny_2d", 0, "-pretrained_weights", tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"part.pth: has no decoder.transpconvs.0.weight of the shape \[8, 8, 2, 2\]"):
        new(spine, "nnUNetTrainerUNet")


def test_other_programs_have_no_such_argument(spine, pretrained, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest", "-pretrained_weights", "absent.pth"])
    assert new(spine, "nnUNetTrainerUNet").takes_pretrained_weights
