"""What all trainers share: settings, seeds, labelled cases, checkpoints; and that the baseline is nnU-Net's own."""

import itertools
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise import gaussian_blur
from nnunetv2.run.run_training import get_trainer_from_args

from nnunet_da.errors import UserError
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.configurations import all_settings

CPU = torch.device("cpu")
UNET, INTENSITY = "nnUNetTrainerUNet", "nnUNetTrainerIntensityDA"


@pytest.fixture(autouse=True)
def _fresh(fresh_results):
    """Each test starts without models."""


def new(spine, trainer=UNET, configuration="tiny_2d", fold=0, **keywords):
    return get_trainer_from_args(spine.id, configuration, fold, trainer, device=CPU, **keywords)


def seed(value):
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002
    torch.manual_seed(value)


def state(trainer):
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def steps(trainer, n=2):
    """The weights after `n` steps that start from equal weights and draw equal batches."""
    seed(5)
    trainer.initialize()
    trainer.on_train_start()
    seed(6)
    trainer.on_train_epoch_start()
    for _ in range(n):
        trainer.train_step(next(trainer.dataloader_train))
    return state(trainer)


def test_the_baseline_steps_as_nnunets_own_trainer(spine, monkeypatch):
    quicker(monkeypatch, convolution=True)
    assert_equal(steps(new(spine, UNET)), steps(new(spine, "nnUNetTrainer")))


def test_settings_reach_the_trainer(spine):
    trainer = new(spine, INTENSITY)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.save_every) == (2, 2, 1)
    assert trainer.settings.seed == 3
    assert trainer.settings.pretext.batch_size == 4


def test_two_runs_with_a_seed_are_equal_and_another_seed_differs(spine, edited_plans):
    results = []
    for value in (3, 3, 4):
        edited_plans(lambda plans, value=value: plans["configurations"]["tiny_2d"]["nnunet_da"].update(seed=value))
        trainer = new(spine, INTENSITY)
        trainer.run_training()
        results.append(state(trainer))
    assert_equal(results[0], results[1])
    assert not all(torch.equal(results[0][name], results[2][name]) for name in results[0])


def quicker(monkeypatch, convolution):
    """Lets nnU-Net's blur find that convolution (or FFT, which rounds differently) is quicker."""
    durations = np.repeat((1, 2) if convolution else (2, 1), 9)  # of nine trials of each
    ticks = (moment for duration in itertools.cycle(durations) for moment in (0, duration))
    monkeypatch.setattr(gaussian_blur, "time", lambda: next(ticks))


def test_a_seed_gives_one_result_on_a_busy_machine_too(spine, monkeypatch):
    results = []
    for convolution in (True, False):
        quicker(monkeypatch, convolution)
        results.append(steps(new(spine), n=8))
    assert_equal(*results)


@pytest.fixture
def edited_plans(spine):
    path = spine.preprocessed / "nnUNetPlans.json"
    kept = path.read_bytes()

    def edit(change):
        content = json.loads(kept)
        change(content)
        path.write_text(json.dumps(content))

    yield edit
    path.write_bytes(kept)


def start(spine, edited_plans, **block):
    """A trainer about to take its first step, with `block` as its settings."""
    edited_plans(lambda plans: plans["configurations"]["tiny_2d"].update(nnunet_da={"seed": 1, **block}))
    trainer = new(spine)
    trainer.initialize()
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def test_adam_at_a_constant_learning_rate(spine, edited_plans):
    trainer = start(spine, edited_plans, optimizer="adam", lr_schedule="constant", initial_lr=1e-3, weight_decay=0.0)
    assert type(trainer.optimizer) is torch.optim.Adam
    for epoch in (0, 1, 500, 999):
        trainer.lr_scheduler.step(epoch)
        assert trainer.optimizer.param_groups[0]["lr"] == 1e-3
    before = state(trainer)
    trainer.train_step(next(trainer.dataloader_train))
    # Adam's first step moves every parameter that has a gradient by the learning rate.
    moved = max(float((value - before[name]).abs().max()) for name, value in state(trainer).items())
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_sgd_decays_as_nnunets(spine, edited_plans):
    trainer = start(spine, edited_plans, num_epochs=10)
    trainer.lr_scheduler.step(5)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**0.9)


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_dice_alone(spine, edited_plans, deep_supervision):
    trainer = start(spine, edited_plans, loss="dice", deep_supervision=deep_supervision)
    batch = next(trainer.dataloader_train)
    assert isinstance(batch["target"], list) == deep_supervision
    output = trainer.network(batch["data"])
    assert isinstance(output, (list, tuple)) == deep_supervision
    loss = trainer.loss(output, batch["target"]).item()
    first = output[0] if deep_supervision else output
    target = batch["target"][0] if deep_supervision else batch["target"]
    probability = first.softmax(dim=1)[:, 1]
    disc = (target[:, 0] == 1).float()
    dice = 2 * (probability * disc).sum() / (probability + disc).sum()
    assert -1 <= loss <= 0
    if not deep_supervision:
        assert loss == pytest.approx(-dice.item(), abs=1e-3)


def test_an_epoch_may_be_one_pass_over_the_slices(spine, edited_plans):
    trainer = start(spine, edited_plans, num_iterations_per_epoch=None)
    train, _ = trainer.do_split()
    dataset = trainer.preprocessed_dataset(train)
    slices = sum(np.asarray(dataset.load_case(case)[0]).shape[1] for case in train)
    assert trainer.num_iterations_per_epoch == -(-slices // 2)


def test_an_epoch_may_be_one_pass_over_the_cases(spine, edited_plans):
    edited_plans(lambda plans: plans["configurations"]["tiny_3d"]["nnunet_da"].update(num_iterations_per_epoch=None))
    trainer = new(spine, configuration="tiny_3d")
    trainer.initialize()
    trainer.get_dataloaders()
    assert trainer.num_iterations_per_epoch == 2  # of three cases, two at a time


def test_simple_augmentation_mirrors_what_it_flips(spine, edited_plans):
    trainer = start(spine, edited_plans, augmentation={"scheme": "simple", "flips": ["horizontal"]})
    assert trainer.inference_allowed_mirroring_axes == (1,)
    batch = next(trainer.dataloader_train)
    assert batch["data"].shape == (2, 1, 32, 32)
    assert batch["target"][0].shape[2:] == (32, 32)
    assert all(target.min() >= 0 for target in batch["target"])


def test_the_best_epoch_by_validation_loss(spine, edited_plans, monkeypatch):
    edited_plans(lambda plans: plans["configurations"]["tiny_2d"]["nnunet_da"].update(best_epoch="loss", num_epochs=4))
    trainer = new(spine)
    trainer.initialize()
    log = trainer.logger.local_logger.my_fantastic_logging
    kept = {}
    for epoch, loss in enumerate((0.5, 0.2, 0.3, 0.2)):
        trainer.current_epoch = epoch
        for key in log:
            log[key].append(0.0)
        # The pseudo Dice prefers the first epoch.
        log["val_losses"][-1], log["ema_fg_dice"][-1] = loss, 1.0 - 0.1 * epoch
        log["epoch_end_timestamps"].pop()
        log["dice_per_class_or_region"][-1] = [0.5]
        trainer.on_epoch_end()
        assert trainer.current_epoch == epoch + 1
        kept[epoch] = read_checkpoint(f"{trainer.output_folder}/checkpoint_best.pth")["current_epoch"] - 1
    # Of equal epochs the later one, which has trained longer.
    assert kept == {0: 0, 1: 1, 2: 1, 3: 3}
    with open(trainer.log_file, encoding="utf-8") as stream:
        assert "nnUNetv2_predict with -chk checkpoint_best.pth" in stream.read()


def test_the_weights_of_chosen_epochs_are_kept(spine, edited_plans):
    edited_plans(lambda plans: plans["configurations"]["tiny_2d"]["nnunet_da"].update(num_epochs=3, keep_epochs=[1, 3]))
    trainer = new(spine)
    trainer.run_training()
    folder = Path(trainer.output_folder)
    assert {path.name for path in folder.glob("checkpoint_epoch_*")} == {
        "checkpoint_epoch_1.pth",
        "checkpoint_epoch_3.pth",
    }
    first, last, final = (read_checkpoint(folder / f"checkpoint_{n}.pth") for n in ("epoch_1", "epoch_3", "final"))
    assert first["current_epoch"] == 1
    assert_equal(last["network_weights"], final["network_weights"])
    assert not all(
        torch.equal(value, final["network_weights"][name]) for name, value in first["network_weights"].items()
    )


def test_only_labelled_cases_are_trained_and_validated_on(spine):
    labelled = {f"philips_3t_{index:03d}" for index in range(1, 5)}
    train, val = new(spine).do_split()
    assert set(train) | set(val) == labelled
    assert not set(train) & set(val)
    train, val = new(spine, fold="all").do_split()
    assert set(train) == set(val) == labelled


def test_a_fold_beyond_the_splits_is_refused(spine):
    with pytest.raises(UserError, match=r"splits_final.json: fold 4 is not one of its 4 folds \(0 to 3\)"):
        new(spine, fold=4).do_split()


def test_a_split_with_an_unlabelled_case_is_refused(spine):
    path = spine.preprocessed / "splits_final.json"
    kept = path.read_bytes()
    splits = json.loads(kept)
    splits[0]["train"].append("ge_t1_001")
    try:
        path.write_text(json.dumps(splits))
        with pytest.raises(UserError, match="holds the unlabelled case ge_t1_001"):
            new(spine).do_split()
        path.unlink()
        with pytest.raises(UserError, match=r"splits_final.json: no such file"):
            new(spine).do_split()
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"num_epoch": 5}, "num_epoch: unknown; did you mean 'num_epochs'"),
        ({"pretext": {"updates": "joint"}}, r"pretext.updates: unknown; did you mean 'update'"),
        ({"pretext": {"domains": ["philips_3"]}}, "no domain 'philips_3'; did you mean 'philips_3t'"),
        ({"intensity": {"noise_sigma": [0.4, 0.1]}}, "intensity.noise_sigma: must be two values"),
        ({"num_epochs": 2, "keep_epochs": [1, 3]}, r"keep_epochs: must be within 1 and num_epochs \(2\); got \[3\]"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(spine, edited_plans, block, message):
    edited_plans(lambda plans: plans["configurations"]["tiny_2d"].update(nnunet_da=block))
    with pytest.raises(UserError, match=message):
        new(spine, INTENSITY)
    assert not spine.results.exists()


def test_a_configuration_may_hold_settings_of_other_trainers(spine, edited_plans):
    edited_plans(lambda plans: plans["configurations"]["tiny_2d"].update(nnunet_da={"pretext": {"weight": 2.0}}))
    assert new(spine, UNET).num_epochs == 1000
    assert new(spine, INTENSITY).settings.pretext.weight == 2.0
    assert all_settings()().num_epochs == 1000


def test_a_dataset_without_domains(spine, edited_dataset):
    edited_dataset(lambda dataset: [dataset.pop("domains"), dataset.pop("subjects", None)])
    assert new(spine, UNET).domains is None
    with pytest.raises(UserError, match=r"has no domains; add the unlabelled scans with `nnunet-da add-domain`"):
        new(spine, INTENSITY)


def test_the_second_stage_of_a_cascade_is_refused(spine, edited_plans):
    cascade = {"inherits_from": "tiny_2d", "previous_stage": "3d_lowres"}
    edited_plans(lambda plans: plans["configurations"].update(cascade=cascade))
    with pytest.raises(UserError, match=r"the second stage of a cascade is not supported"):
        new(spine, INTENSITY, "cascade")


def test_a_case_that_was_never_preprocessed_is_named(spine, edited_dataset):
    edited_dataset(lambda dataset: dataset["domains"]["ge_t1"]["unlabelled"].append("ge_t1_009"))
    trainer = new(spine, INTENSITY)
    with pytest.raises(UserError, match=r"case ge_t1_009 .* is not preprocessed; run nnUNetv2_plan_and_preprocess"):
        trainer.on_train_start()


def test_a_checkpoint_of_other_domains_is_refused(spine, edited_dataset):
    trainer = new(spine, INTENSITY)
    trainer.run_training()
    edited_dataset(lambda dataset: dataset.update(domains=dict(reversed(dataset["domains"].items()))))
    with pytest.raises(UserError, match=r"trained on the domains philips_3t, siemens_1p5t, ge_t1, but"):
        new(spine, INTENSITY).load_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")


def test_the_order_of_the_domains_is_kept_with_the_model(spine):
    trainer = new(spine, INTENSITY)
    trainer.run_training()
    plans = json.loads((spine.results / f"{INTENSITY}__nnUNetPlans__tiny_2d" / "plans.json").read_text())
    block = plans["configurations"]["tiny_2d"]["nnunet_da"]
    assert list(block["trained_domains"]) == ["philips_3t", "siemens_1p5t", "ge_t1"]
    stored = read_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")["init_args"]["plans"]
    assert stored["configurations"]["tiny_2d"]["nnunet_da"] == block


def test_a_failed_save_keeps_the_old_checkpoint(spine, monkeypatch):
    trainer = new(spine)
    trainer.initialize()
    path = f"{trainer.output_folder}/checkpoint_latest.pth"
    trainer.save_checkpoint(path)
    with open(path, "rb") as stream:
        before = stream.read()

    def disk_full(content, filename):
        with open(filename, "wb") as stream:
            stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="No space left"):
        trainer.save_checkpoint(path)
    with open(path, "rb") as stream:
        assert stream.read() == before


def test_settings_stand_in_the_log(spine):
    trainer = new(spine, INTENSITY)
    trainer.initialize()
    with open(trainer.log_file) as stream:
        assert re.search(r"Settings: \{.*'seed': 3.*'update': 'alternating'", stream.read())
