"""nnUNetTrainerAdapt: what a step learns from, which weights are kept, and what is refused."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args

from nnunet_da import cli
from nnunet_da.errors import UserError
from nnunet_da.training import adaptation_trainer
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.configured_trainer import unwrap

CPU = torch.device("cpu")
TRAINER = "nnUNetTrainerAdapt"
# Learns from the teacher from the first step on.
AT_ONCE = {"teacher": {"start": 0.0, "ramp": 0.0}}


@pytest.fixture(autouse=True)
def _fresh(fresh_results):
    """Each test starts without models."""


@pytest.fixture
def configured(spine):
    """``configured(block)``: a trainer whose configuration `tiny_2d` has these settings beside its own."""
    path = spine.preprocessed / "nnUNetPlans.json"
    kept = path.read_bytes()

    def start(**block):
        plans = json.loads(kept)
        plans["configurations"]["tiny_2d"]["nnunet_da"].update(block)
        path.write_text(json.dumps(plans))
        return get_trainer_from_args(spine.id, "tiny_2d", 0, TRAINER, device=CPU)

    yield start
    path.write_bytes(kept)


@pytest.fixture
def started(configured):
    """As `configured`, about to take its first step."""

    def start(**block):
        trainer = configured(**block)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        return trainer

    return start


def weights(trainer):
    return copy.deepcopy(unwrap(trainer.network).state_dict())


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def log_of(trainer):
    return "".join(path.read_text() for path in sorted(Path(trainer.output_folder).glob("training_log*.txt")))


def test_a_step_is_one_pass_over_labelled_and_unlabelled_images(started, monkeypatch):
    trainer = started(adaptation=AT_ONCE)
    passes, unlabelled = [], []
    trainer.network.register_forward_hook(lambda _, inputs, output: passes.append((inputs[0], output)))
    original = trainer.teach

    def teach(images):
        unlabelled.append(original(images))
        return unlabelled[-1]

    monkeypatch.setattr(trainer, "teach", teach)
    batch = next(trainer.dataloader_train)
    before = weights(trainer)
    results = trainer.train_step(batch)
    ((images, output),) = passes
    ((seen, labels, counts),) = unlabelled
    assert images.shape == (4, 1, 32, 32)
    assert torch.equal(images[2:], seen)
    assert results["loss"] == pytest.approx(
        trainer.loss([scale[:2] for scale in output], batch["target"]).item(), rel=1e-4
    )
    assert results["target_loss"] == pytest.approx(trainer.teacher.loss(output[0][2:], labels, counts).item(), rel=1e-4)
    assert any(not torch.equal(value, before[name]) for name, value in weights(trainer).items())
    # The first step: the teacher is what the student has become.
    assert_equal(trainer.teacher.network.state_dict(), weights(trainer))


def test_images_and_labels_are_mirrored_alike(started, monkeypatch):
    """A teacher whose label is where its image is bright, and intensities that stay as they are."""
    trainer = started(adaptation=AT_ONCE | {"teacher": {"views": 3, "strength": 0.0}})
    monkeypatch.setattr(trainer, "randomised", lambda images, probability: images)
    monkeypatch.setattr(
        trainer.teacher, "network", lambda images: torch.cat([torch.zeros_like(images), 50 * images], 1)
    )
    torch.manual_seed(0)
    images = torch.randn(2, 1, 32, 32)
    mirrored = 0
    for _ in range(12):
        seen, labels, counts = trainer.teach(images)
        assert torch.equal(labels, (seen[:, 0] > 0).long())
        assert torch.equal(counts, trainer.teach(seen)[2]) or counts.float().mean() > 0.9
        mirrored += not torch.equal(seen, images)
    assert 0 < mirrored < 12


def test_before_the_start_only_labels_are_learnt_from(started):
    trainer = started(adaptation={"teacher": {"start": 0.5}})
    assert "target_loss" not in trainer.train_step(next(trainer.dataloader_train))
    trainer.teacher.n_steps = 2
    assert "target_loss" in trainer.train_step(next(trainer.dataloader_train))


def test_intensities_are_randomised_but_for_what_was_masked(started):
    trainer = started()
    images = torch.randn(8, 1, 32, 32)
    images[..., :10] = 0
    torch.manual_seed(0)
    trainer.configuration_manager.configuration["use_mask_for_norm"] = [True]
    changed = trainer.randomised(images, 1.0)
    assert not changed[..., :10].any()
    assert not torch.allclose(changed, images, atol=0.1)


@pytest.mark.parametrize("kept", ["teacher", "student"])
def test_the_weights_of_the_best_epoch_are_the_final_ones(configured, monkeypatch, kept):
    trainer = configured(adaptation={"weights": kept, "teacher": {"start": 0.5}})
    scores = iter([0.9, 0.4])
    shown = []

    def check():
        network = trainer.kept_network()
        shown.append(copy.deepcopy(network.state_dict()))
        return dict.fromkeys(("agreement", "invariance", "confidence"), 0.5) | {"volume": 1.0, "score": next(scores)}

    monkeypatch.setattr(trainer, "check_target", check)
    trainer.run_training()
    first, last = shown
    assert any(not torch.equal(first[name], last[name]) for name in first)
    folder = Path(trainer.output_folder)
    for name in ("checkpoint_best.pth", "checkpoint_final.pth"):
        assert_equal(read_checkpoint(folder / name)["network_weights"], first)
    # What validation predicts with.
    assert_equal(weights(trainer), first)
    text = log_of(trainer)
    assert f"checkpoint_final.pth has the weights of the {kept} of epoch 0, of the highest score" in text
    assert "it fell back to before the teacher's labels were learnt" in text
    assert (folder / "adaptation.png").is_file()


@pytest.mark.parametrize(
    ("check", "text"), [({}, "in no epoch the volumes"), ({"check": {"choose": "last"}}, "of the last epoch \n")]
)
def test_the_last_weights_where_no_epoch_is_plausible_or_wanted(configured, monkeypatch, check, text):
    trainer = configured(adaptation=check)
    shown = []

    def found():
        shown.append(copy.deepcopy(trainer.kept_network().state_dict()))
        volume = 1.0 if check else 0.0
        return dict.fromkeys(("agreement", "invariance", "confidence"), 0.5) | {
            "volume": volume,
            "score": 1.0 - len(shown) / 9,
        }

    monkeypatch.setattr(trainer, "check_target", found)
    trainer.run_training()
    assert_equal(read_checkpoint(Path(trainer.output_folder, "checkpoint_final.pth"))["network_weights"], shown[-1])
    assert text in log_of(trainer)


def test_training_goes_on_from_the_best_checkpoint_with_the_student(configured, monkeypatch, tmp_path):
    """checkpoint_best.pth holds the teacher's weights to predict with, and the student's to go on from."""

    def run(trainer):
        found = iter([0.5, 0.9])
        monkeypatch.setattr(
            trainer,
            "check_target",
            lambda: dict.fromkeys(("agreement", "invariance", "confidence", "volume"), 1.0) | {"score": next(found)},
        )
        return trainer

    whole = run(configured(adaptation=AT_ONCE))
    original = whole.on_epoch_start

    def on_epoch_start():
        if whole.current_epoch == 1:
            shutil.copy(Path(whole.output_folder, "checkpoint_best.pth"), tmp_path / "best.pth")
        original()

    monkeypatch.setattr(whole, "on_epoch_start", on_epoch_start)
    whole.run_training()
    expected = whole.teacher.state_dict()

    resumed = configured(adaptation=AT_ONCE)
    resumed.load_checkpoint(str(tmp_path / "best.pth"))
    monkeypatch.setattr(
        resumed,
        "check_target",
        lambda: dict.fromkeys(("agreement", "invariance", "confidence", "volume"), 1.0) | {"score": 0.9},
    )
    resumed.run_training()
    assert_equal(resumed.teacher.state_dict()["weights"], expected["weights"])
    assert torch.equal(resumed.teacher.thresholds, expected["thresholds"])


def test_the_check_sees_source_and_target(started, monkeypatch):
    trainer = started()
    seen = {"add_source": 0, "add_target": 0}

    class Counting(adaptation_trainer.Evidence):
        def add_source(self, teacher):
            seen["add_source"] += len(teacher)
            super().add_source(teacher)

        def add_target(self, teacher, student, otherwise):
            seen["add_target"] += len(teacher)
            assert teacher.shape == student.shape == otherwise.shape
            super().add_target(teacher, student, otherwise)

    monkeypatch.setattr(adaptation_trainer, "Evidence", Counting)
    trainer.on_validation_epoch_start()
    indicators = trainer.check_target()
    # One validation step, of one patch of the source and of each target at least.
    assert seen == {"add_source": 1, "add_target": 2}
    assert set(indicators) == {"agreement", "invariance", "confidence", "volume", "score"}
    assert unwrap(trainer.network).decoder.deep_supervision
    assert not trainer.teacher.network.decoder.deep_supervision


def test_batch_norms_of_what_is_kept_take_the_target_s_statistics(spine):
    words = ["configure", "-d", spine.id, "-c", "tiny_2d", "--as", "tiny_2d_batch", "--set", "plan.norm=batch"]
    assert cli.main([*words, "--set", "adaptation.statistics.adabn=true"]) == 0
    trainer = get_trainer_from_args(spine.id, "tiny_2d_batch", 0, TRAINER, device=CPU)
    trainer.on_train_start()
    before = copy.deepcopy(trainer.teacher.network.state_dict())
    trainer.on_validation_epoch_start()
    trainer.check_target()
    after = trainer.teacher.network.state_dict()
    changed = {name.rpartition(".")[2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}


def test_without_unlabelled_cases_it_randomises_and_says_so(configured, edited_dataset):
    def drop(content):
        for domain in content["domains"].values():
            domain["unlabelled"] = []
        content["domains"] = {name: domain for name, domain in content["domains"].items() if domain["labelled"]}
        del content["subjects"]

    edited_dataset(drop)
    trainer = configured()
    trainer.num_epochs = 1
    trainer.run_training()
    assert trainer.teacher is None
    assert "No case without labels" in log_of(trainer)
    checkpoint = read_checkpoint(Path(trainer.output_folder, "checkpoint_final.pth"))
    assert "adaptation" not in checkpoint["optimizer_state"]


def test_what_is_refused(configured):
    with pytest.raises(UserError, match="adabn: the plan has no batch normalisation"):
        configured(adaptation={"statistics": {"adabn": True}})
    with pytest.raises(UserError, match="best_epoch: the best epoch is that of the check"):
        configured(best_epoch="loss")


def test_a_checkpoint_without_a_teacher_is_refused(started, configured, tmp_path):
    trainer = started()
    state = trainer.optimizer.state_dict()
    state.pop("adaptation")
    with pytest.raises(UserError, match="the checkpoint has no teacher"):
        trainer.optimizer.load_state_dict(state)
