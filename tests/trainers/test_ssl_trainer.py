"""Pretraining: which cases, which parts are trained when, that it resumes, and what it leaves behind."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint, run_training

from nnunet_da import cli
from nnunet_da.errors import UserError
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.export import export

CPU = torch.device("cpu")
REGRESSION, CONTRASTIVE = "nnUNetTrainerSSLRegression", "nnUNetTrainerSSLContrastive"
PRETRAINERS = [REGRESSION, CONTRASTIVE]


@pytest.fixture(autouse=True)
def _fresh(fresh_results):
    """Each test starts without models."""


@pytest.fixture
def configured(spine):
    """``configured(**settings)`` lays settings over those of `tiny_2d` and `tiny_3d`, until the end of the test."""
    path = spine.preprocessed / "nnUNetPlans.json"
    kept = path.read_bytes()

    def configure(**settings):
        plans = json.loads(kept)
        for name in ("tiny_2d", "tiny_3d"):
            plans["configurations"][name]["nnunet_da"] |= settings
        path.write_text(json.dumps(plans))

    yield configure
    path.write_bytes(kept)


def new(spine, trainer, configuration="tiny_2d", fold=0, **keywords):
    return get_trainer_from_args(spine.id, configuration, fold, trainer, device=CPU, **keywords)


def log_of(trainer):
    return Path(trainer.log_file).read_text()


class Stop(Exception):
    pass


@pytest.mark.parametrize("trainer", PRETRAINERS)
def test_trains_resumes_and_leaves_weights_to_start_from(trainer, spine, configured, tmp_path, monkeypatch):
    # The loss has to fall by 1 in every epoch, or else the learning rate does.
    configured(num_epochs=3, lr_schedule="plateau", plateau={"patience": 0, "min_delta": 1.0})
    run_training(spine.id, "tiny_2d", "0", trainer, device=CPU)
    model_folder = spine.results / f"{trainer}__nnUNetPlans__tiny_2d"
    fold = model_folder / "fold_0"
    names = {"checkpoint_final.pth", "checkpoint_best.pth", "pretrained.pth", "pretraining.png", "progress.png"}
    assert names <= {path.name for path in fold.iterdir()}
    assert not (fold / "validation").exists()
    log = next(fold.glob("training_log_*")).read_text()
    assert "Nothing to segment after pretraining, so no validation. Fine-tune with -pretrained_weights" in log
    assert "Pretraining on 9 cases, whether or not they have labels; validation loss on 1 held out" in log
    expected = read_checkpoint(fold / "checkpoint_final.pth")
    # The second stage, the last epoch, starts anew.
    assert expected["logging"]["lrs"] == [0.001, 0.001, 0.0005 if trainer == REGRESSION else 0.001]
    assert all(math.isfinite(loss) for loss in expected["logging"]["val_losses"])

    # The same again, but stopped at the start of the third epoch (of the contrastive one: of its second stage).
    for path in fold.glob("*.pth"):
        path.unlink()
    stopped = new(spine, trainer)
    original = stopped.on_epoch_start

    def on_epoch_start():
        if stopped.current_epoch == 2:
            raise Stop
        original()

    monkeypatch.setattr(stopped, "on_epoch_start", on_epoch_start)
    with pytest.raises(Stop):
        stopped.run_training()
    run_training(spine.id, "tiny_2d", "0", trainer, device=CPU, continue_training=True)
    found = read_checkpoint(fold / "checkpoint_final.pth")
    assert_equal(found["network_weights"], expected["network_weights"])
    assert found["logging"]["val_losses"] == expected["logging"]["val_losses"]
    assert found["optimizer_state"]["plateau"] == expected["optimizer_state"]["plateau"]

    # No code of this package in it, no case and no place.
    result = torch.load(fold / "pretrained.pth", weights_only=True)
    assert all(value.device == CPU for value in result["network_weights"].values())
    for secret in ("philips_3t", "siemens_1p5t", str(spine.preprocessed)):
        assert secret.encode() not in (fold / "pretrained.pth").read_bytes()

    with pytest.raises(UserError, match="pretrained only and has nothing to segment with; fine-tune it first"):
        export(model_folder, tmp_path / "export")
    (tmp_path / "predicted").mkdir()
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model_folder), (0,))
    with pytest.raises(UserError, match="pretrained only and has nothing to segment with; fine-tune it first"):
        predictor.predict_from_files_sequential(str(spine.test / "images"), str(tmp_path / "predicted"))


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def started(run):
    run.on_train_start()
    run.on_train_epoch_start()
    return run


def steps(run):
    """The losses of a step of training and one of validation; the first changes the weights."""
    before = state(run)
    training = run.train_step(next(run.dataloader_train))
    assert not all(torch.equal(value, before[name]) for name, value in state(run).items())
    before = state(run)
    with torch.no_grad():
        run.on_validation_epoch_start()
        validation = run.validation_step(next(run.dataloader_val))
    assert_equal(state(run), before)
    return [float(result["loss"]) for result in (training, validation)]


@pytest.mark.parametrize("trainer", PRETRAINERS)
def test_it_pretrains_in_3d_on_all_cases(spine, trainer):
    run = started(new(spine, trainer, "tiny_3d", fold="all"))
    assert "Pretraining on 10 cases, whether or not they have labels; validation loss on the same" in log_of(run)
    for run.current_epoch in range(2):
        assert all(map(math.isfinite, steps(run)))


@pytest.mark.parametrize("trainer", PRETRAINERS)
def test_it_pretrains_on_several_channels(regions, trainer):
    run = started(get_trainer_from_args(regions.id, "tiny_2d", 0, trainer, device=CPU))
    assert all(map(math.isfinite, steps(run)))


def state(trainer):
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def changed_parts(trainer, before):
    """Of the network: where a weight is no longer what it was."""
    return {
        name.removeprefix("projection.seg_layers.").split(".")[0]
        for name, value in trainer.network.named_parameters()
        if not torch.equal(value, before[name])
    }


@pytest.mark.parametrize("encoder", ["frozen", "trained"])
def test_the_stages_train_encoder_and_decoder_in_turn(spine, configured, encoder):
    configured(pretraining={"contrast": {"encoder": encoder, "global_share": 0.3}}, num_epochs=3)
    trainer = new(spine, CONTRASTIVE)
    trainer.on_train_start()
    assert trainer.stage_lengths == [1, 2]
    for epoch, parts in ((0, {"encoder", "global"}), (1, {"decoder", "local"}), (2, {"decoder", "local"})):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        before = state(trainer)
        trainer.train_step(next(trainer.dataloader_train))
        if epoch > 0 and encoder == "trained":
            parts = parts | {"encoder"}
        assert changed_parts(trainer, before) == parts
    # The decay begins anew with the second stage.
    assert trainer.logger.get_value("lrs", step=None) == pytest.approx([1e-3, 1e-3, 1e-3 * 0.5**0.9])
    log = log_of(trainer)
    assert log.index("Stage: global contrast") < log.index(f"with the encoder {encoder}")
    assert len(re.findall("Stage: ", log)) == 2


def test_the_best_epoch_is_of_the_last_stage(spine, configured):
    configured(num_epochs=4)
    trainer = new(spine, CONTRASTIVE)
    trainer.initialize()
    log = trainer.logger.local_logger.my_fantastic_logging
    log["val_losses"] = [0.1, 0.2]
    assert trainer.validation_losses() == [0.1, 0.2]
    log["val_losses"] = [0.1, 0.2, 3.0, 2.0]
    assert trainer.validation_losses() == [math.inf, math.inf, 3.0, 2.0]


def test_the_second_stage_may_be_a_run_of_its_own(spine, configured):
    configured(pretraining={"contrast": {"stages": "global"}})
    first = started(new(spine, CONTRASTIVE, fold="all"))
    assert first.stage_lengths == [2]
    first.train_step(next(first.dataloader_train))
    first.write_result()
    file = Path(first.output_folder, "pretrained.pth")

    configured(pretraining={"contrast": {"stages": "local"}})
    with pytest.raises(
        UserError, match=r"stages=local continues a result of the first stage; give it with -pretrained"
    ):
        new(spine, CONTRASTIVE).run_training()
    second = new(spine, CONTRASTIVE)
    maybe_load_checkpoint(second, False, False, str(file))
    started(second)
    assert "Pretrained weights: loaded encoder (" in log_of(second)
    before = state(second)
    assert torch.equal(
        before["encoder.stages.0.0.convs.0.conv.weight"], first.network.encoder.stages[0][0].convs[0].conv.weight
    )
    second.train_step(next(second.dataloader_train))
    assert changed_parts(second, before) == {"decoder", "local"}


def test_every_case_but_those_held_out_is_seen(spine, configured):
    trainer = new(spine, REGRESSION)
    train, held_out = trainer.do_split()
    assert len(held_out) == 1
    assert sorted([*train, *held_out]) == sorted(trainer.domains.cases)
    groups = trainer._groups(train)
    assert [len(group) for group in groups] == [3, 3, 3]
    assert trainer._groups(held_out) == [held_out]
    assert {*map(len, new(spine, REGRESSION, fold="all").do_split())} == {10}
    trainer.on_train_start()
    seen = {key for _ in range(40) for key in next(trainer.dataloader_train)["keys"]}
    assert seen == set(train)
    assert {key for _ in range(4) for key in next(trainer.dataloader_val)["keys"]} == set(held_out)

    configured(pretraining={"sampling": "by_size"})
    assert new(spine, REGRESSION)._groups(train) == [train]


def test_a_dataset_without_domains(spine, edited_dataset):
    edited_dataset(lambda dataset: [dataset.pop("domains"), dataset.pop("subjects", None)])
    trainer = new(spine, CONTRASTIVE, fold="all")
    trainer.initialize()
    assert trainer.domains is None
    assert len(trainer.do_split()[0]) == 10
    loaders = trainer.get_dataloaders()
    assert next(loaders[0])["data"].shape == (2, 1, 32, 32)


def test_a_case_that_was_never_preprocessed_is_named(spine, edited_dataset):
    edited_dataset(lambda dataset: dataset["domains"]["ge_t1"]["unlabelled"].append("ge_t1_009"))
    with pytest.raises(UserError, match=r"case ge_t1_009 .* is not preprocessed; run nnUNetv2_plan_and_preprocess"):
        new(spine, REGRESSION).on_train_start()


@pytest.mark.parametrize("intensities", ["nnunet", "unit"])
def test_the_scale_that_the_network_is_shown(spine, configured, monkeypatch, intensities):
    configured(pretraining={"intensities": intensities, "corruption": {"fraction": 0.5}})
    trainer = new(spine, REGRESSION)
    trainer.initialize()
    shown = []
    monkeypatch.setattr(trainer.network, "forward", lambda images, mode: shown.append(images) or images)
    images = 5 + 3 * torch.randn(2, 1, 32, 32)
    trainer.pretraining_loss(images)
    same = np.isclose(shown[0].numpy(), images.numpy(), atol=1e-5).mean()
    low, high = (images.amin(), images.amax()) if intensities == "nnunet" else (0, 1)
    assert same == pytest.approx(0.5 if intensities == "nnunet" else 0, abs=0.05)
    # The noise around 0 of the unit scale may lie below what there was.
    assert low - 0.05 * (high - low) <= shown[0].min() <= shown[0].max() <= high


@pytest.mark.parametrize("trainer", PRETRAINERS)
def test_its_loss_falls_and_embeddings_do_not_collapse(spine, configured, trainer):
    configured(pretraining={"lr": 0.01})
    run = new(spine, trainer)
    run.on_train_start()
    for epoch in range(2):
        run.current_epoch = epoch
        run.on_train_epoch_start()
        results = [run.train_step(next(run.dataloader_train)) for _ in range(40)]
        losses = [float(result["loss"]) for result in results]
        assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:5])
        if trainer == CONTRASTIVE:
            # Of batches of two: 0 where all are one, and 1 where they are spread evenly.
            assert np.mean([result["spread"] for result in results[-10:]]) > 0.1


@pytest.mark.parametrize(
    ("trainer", "change", "message"),
    [
        (CONTRASTIVE, {"batch_size": 1}, "plan.batch_size: must be at least 2, since an image is contrasted with"),
        (REGRESSION, {"previous_stage": "3d_lowres"}, "the second stage of a cascade is not supported"),
        (CONTRASTIVE, {"nnunet_da": {"num_epochs": 1}}, "num_epochs: must be at least 2"),
    ],
)
def test_what_it_cannot_do_is_refused(spine, trainer, change, message):
    path = spine.preprocessed / "nnUNetPlans.json"
    kept = path.read_bytes()
    plans = json.loads(kept)
    plans["configurations"]["tiny_2d"] |= change
    path.write_text(json.dumps(plans))
    try:
        with pytest.raises(UserError, match=message):
            new(spine, trainer)
        assert not spine.results.exists()
    finally:
        path.write_bytes(kept)


def test_the_papers_schedules(spine):
    path = spine.preprocessed / "nnUNetPlans.json"
    kept = path.read_bytes()
    small = ("plan.patch_size=32,32", "plan.features_per_stage=4,8,8", "plan.batch_size=5")
    words = [word for change in small for word in ("--set", change)]
    expected = {REGRESSION: 1000, CONTRASTIVE: 1000, "nnUNetTrainerSSLFinetune": 500}
    try:
        for name, num_epochs in expected.items():
            preset = ["configure", "-d", spine.id, "-c", "2d", "--preset", "paper", "-tr", name, "--as", f"p_{name}"]
            assert cli.main([*preset, *words]) == 0
            trainer = new(spine, name, f"p_{name}")
            trainer.on_train_start()
            trainer.on_train_epoch_start()
            assert trainer.num_epochs == num_epochs
            assert type(trainer.optimizer) is torch.optim.Adam
            assert trainer.plateau.initial_lr == [1e-3]
            # One pass over the slices, of all cases but the one held out, or of the labelled ones.
            train, _ = trainer.do_split()
            dataset = trainer.preprocessed_dataset(train)
            slices = sum(dataset.load_case(case)[0].shape[1] for case in train)
            assert trainer.num_iterations_per_epoch == -(-slices // 5)
            assert len(train) == (3 if name.endswith("Finetune") else 9)
            assert math.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    finally:
        path.write_bytes(kept)
    assert trainer.loss.weight_ce == 0
    assert not trainer.enable_deep_supervision
    # nnU-Net's predictor asks for the largest of the axes, if there is anything.
    assert trainer.inference_allowed_mirroring_axes is None
