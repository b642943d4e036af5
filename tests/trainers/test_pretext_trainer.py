import json
import math

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args

from nnunet_da import cli
from nnunet_da.errors import UserError
from nnunet_da.pretext.unet import PoolingUNet
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.configured_trainer import unwrap
from nnunet_da.training.export import export
from nnunet_da.training.pretext_trainer import centre_crop, flip_rows, square_patch

CPU = torch.device("cpu")
TRAINER = "nnUNetTrainerIntensityDA"
DOMAINS = ("philips_3t", "siemens_1p5t", "ge_t1")


@pytest.fixture(autouse=True)
def _fresh(fresh_results):
    """Each test starts without models."""


@pytest.fixture
def started(spine):
    """``started(**pretext settings)``: a trainer about to take its first step."""
    path = spine.preprocessed / "nnUNetPlans.json"
    kept = path.read_bytes()

    def start(**settings):
        plans = json.loads(kept)
        plans["configurations"]["tiny_2d"]["nnunet_da"]["pretext"] = settings
        path.write_text(json.dumps(plans))
        trainer = get_trainer_from_args(spine.id, "tiny_2d", 0, TRAINER, device=CPU)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        return trainer

    yield start
    path.write_bytes(kept)


def part(name):
    """The part of the network that a parameter of this name belongs to."""
    if name.startswith("pretext."):
        return "heads"
    return "encoder" if name.startswith(("encoder.", "decoder.encoder.")) else "decoder"


def changed_parts(trainer, action):
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    action()
    return {part(name) for name, value in trainer.network.named_parameters() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("optimizer", ["adam", "shared"])
def test_alternating_updates_are_those_of_algorithm_1(started, monkeypatch, optimizer):
    trainer = started(optimizer=optimizer)
    updates = []
    assert (trainer.pretext_optimizer is trainer.optimizer) == (optimizer == "shared")
    for stepped in {trainer.optimizer, trainer.pretext_optimizer}:

        def step(*arguments, stepped=stepped, original=stepped.step, **keywords):
            updates.append((type(stepped), changed_parts(trainer, lambda: original(*arguments, **keywords))))

        monkeypatch.setattr(stepped, "step", step)
    trainer.train_step(next(trainer.dataloader_train))
    first = torch.optim.Adam if optimizer == "adam" else torch.optim.SGD
    assert updates == [(first, {"encoder", "heads"}), (torch.optim.SGD, {"encoder", "decoder"})]


def test_the_optimiser_of_the_task_decays_with_that_of_the_segmentation(started):
    trainer = started(lr=0.002)
    trainer.num_epochs, trainer.current_epoch = 10, 5
    trainer.lr_scheduler.max_steps = 10
    trainer.on_train_epoch_start()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**0.9)
    assert trainer.pretext_optimizer.param_groups[0]["lr"] == pytest.approx(0.002 * 0.5**0.9)


def test_the_optimiser_of_the_task_is_kept_in_checkpoints(started, tmp_path):
    trainer = started()
    trainer.train_step(next(trainer.dataloader_train))
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    moments = [state["exp_avg"].clone() for state in trainer.pretext_optimizer.state.values()]
    assert any(moment.any() for moment in moments)
    resumed = started()
    assert not resumed.pretext_optimizer.state
    resumed.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    loaded = [state["exp_avg"] for state in resumed.pretext_optimizer.state.values()]
    assert all(torch.equal(one, other) for one, other in zip(moments, loaded, strict=True))
    assert resumed.optimizer.state_dict()["state"].keys() == trainer.optimizer.state_dict()["state"].keys()


def test_a_checkpoint_of_another_optimiser_is_refused(started, tmp_path):
    started(optimizer="shared").save_checkpoint(str(tmp_path / "checkpoint.pth"))
    with pytest.raises(UserError, match="holds no state of the optimiser of L_p"):
        started().load_checkpoint(str(tmp_path / "checkpoint.pth"))


def test_a_joint_update_has_one_optimiser(started):
    trainer = started(update="joint")
    assert trainer.pretext_optimizer is trainer.optimizer


def test_joint_update_is_one_step_on_the_weighted_sum(started, monkeypatch):
    trainer = started(update="joint", weight=0.5)
    batch, pretext_batch = next(trainer.dataloader_train), next(trainer.dataloader_pretext)
    torch.manual_seed(1)
    images, labels = trainer._sample_tasks(pretext_batch["data"], flip=True)
    output, logits = trainer.network(batch["data"], images)
    loss = trainer.loss(output, batch["target"]) + 0.5 * trainer._pretext_loss(logits, labels)
    expected = torch.autograd.grad(loss, list(trainer.network.parameters()), allow_unused=True)

    gradients = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    monkeypatch.setattr(
        trainer.optimizer, "step", lambda: gradients.extend(p.grad for p in trainer.network.parameters())
    )
    trainer.dataloader_pretext = iter([pretext_batch])
    torch.manual_seed(1)
    trainer.train_step(batch)
    assert len(gradients) == len(expected)
    for ours, theirs in zip(gradients, expected, strict=True):
        if theirs is None:
            # The lowest output of deep supervision has weight 0.
            assert ours is None or not ours.any()
        else:
            assert torch.allclose(ours, theirs, atol=1e-6)


def test_pretext_sees_every_domain_but_no_held_out_case(started):
    trainer = started()
    _, held_out = trainer.do_split()
    cases = trainer._pretext_cases()
    seen = [case for of_domain in cases for case in of_domain]
    assert len(cases) == 3
    assert len(seen) == 4 + 3 + 3 - len(held_out)
    assert not set(seen) & set(held_out)


def test_pretext_domains_are_a_setting(started):
    trainer = started(domains=["ge_t1"])
    keys = [key for _ in range(5) for key in next(trainer.dataloader_pretext)["keys"]]
    assert {trainer.domains.domain_of_case(key) for key in keys} == {"ge_t1"}
    assert trainer._curve_keys() == ["pretext_train_loss", "pretext_val_loss", "pretext_score/intensity/ge_t1"]


def test_accuracy_is_counted_by_domain(started):
    trainer = started()
    logits = torch.eye(4)
    labels = torch.tensor([0, 1, 2, 0])
    keys = ["philips_3t_001", "siemens_1p5t_001", "siemens_1p5t_002", "siemens_1p5t_003"]
    score = trainer._score(torch.tensor(1.5), {"intensity": logits}, {"intensity": labels}, keys)
    loss, accuracy = trainer._epoch_scores([score, {**score, "pretext_loss": np.array(0.5)}])
    assert loss == 1.0
    assert accuracy[0, 0] == 1.0
    assert accuracy[0, 1] == pytest.approx(2 / 3)
    assert math.isnan(accuracy[0, 2])


def test_curves_are_logged_each_epoch_and_plotted(spine):
    trainer = get_trainer_from_args(spine.id, "tiny_2d", 0, TRAINER, device=CPU)
    trainer.run_training()
    log = trainer.logger.local_logger.my_fantastic_logging
    for key in ("pretext_train_loss", "pretext_val_loss", *(f"pretext_score/intensity/{name}" for name in DOMAINS)):
        assert len(log[key]) == 2
    assert all(math.isfinite(value) for value in log["pretext_train_loss"] + log["pretext_val_loss"])
    folder = spine.results / f"{TRAINER}__nnUNetPlans__tiny_2d" / "fold_0"
    assert (folder / "pretext.png").read_bytes().startswith(b"\x89PNG")


def test_the_task_can_be_learnt(started):
    """On one batch the head soon does much better than chance: gradients reach it and the encoder."""
    trainer = started(batch_size=16)
    data = next(trainer.dataloader_pretext)["data"]
    torch.manual_seed(0)
    images, labels = trainer._sample_tasks(data, flip=True)
    for _ in range(60):
        trainer.optimizer.zero_grad(set_to_none=True)
        _, logits = trainer.network(None, images)
        trainer.update_weights(trainer._pretext_loss(logits, labels))
    right = (logits["intensity"].argmax(1) == labels["intensity"]).float().mean()
    assert right > 0.7


def test_rotation_is_shown_square_patches_that_are_not_flipped(spine, monkeypatch):
    trainer = get_trainer_from_args(spine.id, "tiny_2d", 0, "nnUNetTrainerIntensityRotationDA", device=CPU)
    trainer.initialize()
    trainer.pretext_patch_size = [16, 16]
    data = torch.arange(8.0 * 32 * 24).reshape(8, 1, 32, 24)
    for task in trainer.tasks:
        monkeypatch.setattr(task, "sample", lambda images: (images, None))
    cropped = data[:, :, 8:24, 4:20]
    images, _ = trainer._sample_tasks(data, flip=True)
    assert torch.equal(images["rotation"], cropped)
    flipped = [
        torch.equal(image, original.flip(1)) for image, original in zip(images["intensity"], cropped, strict=True)
    ]
    kept = [torch.equal(image, original) for image, original in zip(images["intensity"], cropped, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    images, _ = trainer._sample_tasks(data, flip=False)
    assert torch.equal(images["intensity"], cropped)


def test_flips_are_of_rows_with_a_chance_of_one_half():
    torch.manual_seed(0)
    images = torch.randn(400, 1, 3, 4, 5)
    result = flip_rows(images)
    flipped = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(result, images, strict=True)])
    assert torch.equal(result[~flipped], images[~flipped])
    assert 150 < flipped.sum() < 250


@pytest.mark.parametrize(
    ("patch_size", "strides", "expected"),
    [
        ((144, 160), [[1, 1], [2, 2], [2, 2], [2, 2], [2, 2]], [144, 144]),
        ((16, 100, 64), [[1, 1, 1], [1, 2, 2], [2, 2, 2]], [16, 64, 64]),
        ((10, 60, 60), [[1, 1, 1], [1, 2, 4], [1, 2, 4]], [10, 48, 48]),
    ],
)
def test_square_patches_fit_the_network(patch_size, strides, expected):
    assert square_patch(patch_size, strides) == expected


def test_a_patch_without_a_square_is_refused():
    with pytest.raises(UserError, match=r"plan.patch_size: \[8, 32\] holds no square whose edge is a multiple of 16"):
        square_patch((8, 32), [[1, 1], [4, 4], [2, 4]])


def test_the_centre_is_cropped():
    images = torch.arange(30.0).reshape(1, 1, 5, 6)
    assert torch.equal(centre_crop(images, (3, 2)), images[:, :, 1:4, 2:4])
    assert torch.equal(centre_crop(images, (5, 6)), images)


def test_the_best_epoch_has_the_lowest_sum_of_both_losses(started):
    trainer = started(weight=0.5)
    log = trainer.logger.local_logger.my_fantastic_logging
    log["val_losses"], log["pretext_val_loss"] = [-0.5, -0.6], [1.0, 1.4]
    assert trainer.validation_losses() == pytest.approx([0.0, 0.1])


@pytest.mark.parametrize(("base", "patch_size"), [("2d", "32,32"), ("3d_fullres", "4,32,32")])
def test_the_papers_network_and_schedule(spine, base, patch_size, tmp_path):
    path = spine.preprocessed / "nnUNetPlans.json"
    kept = path.read_bytes()
    name = f"paper_{base}"
    changes = ["num_epochs=2", f"plan.patch_size={patch_size}", "plan.features_per_stage=4,8,8,8,8", "seed=1"]
    words = [word for change in changes for word in ("--set", change)]
    try:
        preset = ["configure", "-d", spine.id, "-c", base, "--preset", "paper", "--as", name]
        assert cli.main([*preset, "-tr", TRAINER, *words]) == 0
        trainer = get_trainer_from_args(spine.id, name, 0, TRAINER, device=CPU)
        trainer.run_training()
        assert trainer.batch_size == 1
        assert type(trainer.optimizer) is torch.optim.Adam
        assert trainer.num_iterations_per_epoch == (3 if base == "3d_fullres" else 24)
        network = unwrap(trainer.network)
        assert type(network.encoder).__module__ == PoolingUNet.__module__
        log = trainer.logger.local_logger.my_fantastic_logging
        totals = np.add(log["val_losses"], log["pretext_val_loss"])
        best = read_checkpoint(f"{trainer.output_folder}/checkpoint_best.pth")
        assert best["current_epoch"] - 1 == np.argmin(totals)

        model_folder = spine.results / f"{TRAINER}__nnUNetPlans__{name}"
        predictor = nnUNetPredictor(device=CPU, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model_folder), (0,), "checkpoint_best.pth")
        predictor.predict_from_files_sequential(str(spine.test / "images"), str(tmp_path))
        assert len(list(tmp_path.glob("*.nii.gz"))) == 6
        with pytest.raises(UserError, match="is not nnU-Net's own, so it cannot be exported"):
            export(model_folder, tmp_path / "export")
    finally:
        path.write_bytes(kept)


def test_the_papers_network_has_no_deep_supervision(spine):
    path = spine.preprocessed / "nnUNetPlans.json"
    kept = path.read_bytes()
    try:
        name = ["configure", "-d", spine.id, "-c", "2d", "--as", "pooling", "--set", "plan.network=pooling_unet"]
        assert cli.main(name) == 0
        with pytest.raises(UserError, match="has one output; set deep_supervision=false"):
            get_trainer_from_args(spine.id, "pooling", 0, TRAINER, device=CPU)
    finally:
        path.write_bytes(kept)
