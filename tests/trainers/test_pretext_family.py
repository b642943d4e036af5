"""What each trainer with a pretext task asks, and how its settings reach the head."""

import json

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args

from nnunet_da.errors import UserError
from nnunet_da.trainers.nnUNetTrainerHistogramDA import nnUNetTrainerHistogramDA
from nnunet_da.trainers.nnUNetTrainerIntensityRotationDA import nnUNetTrainerIntensityRotationDA
from nnunet_da.trainers.nnUNetTrainerLocalPatchDA import nnUNetTrainerLocalPatchDA
from nnunet_da.trainers.nnUNetTrainerRotationDA import nnUNetTrainerRotationDA


@pytest.fixture
def initialized(spine):
    """``initialized(trainer class, **settings)``: a trainer with its network, on patches of 32 × 16."""
    path = spine.preprocessed / "nnUNetPlans.json"
    kept = path.read_bytes()

    def make(trainer_class, **settings):
        plans = json.loads(kept)
        plans["configurations"]["tiny_2d"]["patch_size"] = [32, 16]
        plans["configurations"]["tiny_2d"]["nnunet_da"] |= settings
        path.write_text(json.dumps(plans))
        trainer = get_trainer_from_args(spine.id, "tiny_2d", 0, trainer_class.__name__, device=torch.device("cpu"))
        assert type(trainer) is trainer_class
        trainer.initialize()
        return trainer

    yield make
    path.write_bytes(kept)


@pytest.mark.parametrize(
    ("trainer_class", "settings", "n_outputs", "patch_size", "n_inputs"),
    [
        (nnUNetTrainerRotationDA, {}, {"rotation": 4}, [16, 16], 4),
        (nnUNetTrainerIntensityRotationDA, {}, {"intensity": 4, "rotation": 4}, [16, 16], 4),
        (nnUNetTrainerHistogramDA, {"histogram": {"n_bins": 10}}, {"histogram": 10}, [32, 16], 4),
        (nnUNetTrainerLocalPatchDA, {"local_patches": {"n_features": 12}}, {"local_patches": 12}, [32, 16], 8),
    ],
)
def test_tasks_heads_and_patches(initialized, trainer_class, settings, n_outputs, patch_size, n_inputs):
    trainer = initialized(trainer_class, **settings)
    assert trainer.pretext_patch_size == patch_size
    inputs, answers = trainer._sample_tasks(torch.randn(4, 1, 32, 16), flip=True)
    _, outputs = trainer.network(None, inputs)
    assert {name: tuple(values.shape) for name, values in outputs.items()} == {
        name: (n_inputs, number) for name, number in n_outputs.items()
    }
    assert {name: tuple(images.shape[2:]) for name, images in inputs.items()} == dict.fromkeys(
        n_outputs, tuple(patch_size)
    )
    loss = trainer._pretext_loss(outputs, answers)
    loss.backward()
    assert torch.isfinite(loss)
    for name in n_outputs:
        assert any(p.grad.abs().sum() > 0 for p in trainer.network.pretext_heads[name].parameters())
    score = trainer._score(loss, outputs, answers, ["philips_3t_001", "ge_t1_001", "ge_t1_002", "siemens_1p5t_001"])
    counts, scores = score["pretext_counts"]
    assert counts.tolist() == [[1, 1, 2]] * len(n_outputs)
    assert ((scores >= 0) & (scores <= counts)).all()


def test_settings_of_a_task_are_checked(initialized, spine, fresh_results):
    with pytest.raises(UserError, match=r"setting histogram.n_bins: must be at least 2"):
        initialized(nnUNetTrainerHistogramDA, histogram={"n_bins": 1})
    assert not spine.results.exists()
