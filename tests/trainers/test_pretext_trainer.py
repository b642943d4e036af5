import json
import math

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args

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
    if name.startswith("pretext_heads."):
        return "heads"
    return "encoder" if name.startswith(("encoder.", "decoder.encoder.")) else "decoder"


def changed_parts(trainer, action):
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    action()
    return {part(name) for name, value in trainer.network.named_parameters() if not torch.equal(value, before[name])}


def test_alternating_updates_are_those_of_algorithm_1(started, monkeypatch):
    trainer = started()
    updates = []
    original = trainer.optimizer.step

    def step(*arguments, **keywords):
        updates.append(changed_parts(trainer, lambda: original(*arguments, **keywords)))

    monkeypatch.setattr(trainer.optimizer, "step", step)
    trainer.train_step(next(trainer.dataloader_train))
    assert updates == [{"encoder", "heads"}, {"encoder", "decoder"}]


def test_joint_update_is_one_step_on_the_weighted_sum(started, monkeypatch):
    trainer = started(update="joint", weight=0.5)
    batch, pretext_batch = next(trainer.dataloader_train), next(trainer.dataloader_pretext)
    torch.manual_seed(1)
    images, labels = trainer._sample_tasks(pretext_batch["data"])
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
    assert trainer._curve_keys() == ["pretext_train_loss", "pretext_val_loss", "pretext_accuracy/intensity/ge_t1"]


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
    for key in ("pretext_train_loss", "pretext_val_loss", *(f"pretext_accuracy/intensity/{name}" for name in DOMAINS)):
        assert len(log[key]) == 2
    assert all(math.isfinite(value) for value in log["pretext_train_loss"] + log["pretext_val_loss"])
    folder = spine.results / f"{TRAINER}__nnUNetPlans__tiny_2d" / "fold_0"
    assert (folder / "pretext.png").read_bytes().startswith(b"\x89PNG")


def test_the_task_can_be_learnt(started):
    """On one batch the head soon does much better than chance: gradients reach it and the encoder."""
    trainer = started(batch_size=16)
    data = next(trainer.dataloader_pretext)["data"]
    torch.manual_seed(0)
    images, labels = trainer._sample_tasks(data)
    for _ in range(60):
        trainer.optimizer.zero_grad(set_to_none=True)
        _, logits = trainer.network(None, images)
        trainer.update_weights(trainer._pretext_loss(logits, labels))
    right = (logits["intensity"].argmax(1) == labels["intensity"]).float().mean()
    assert right > 0.7
