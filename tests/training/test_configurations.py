import copy
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_da.errors import UserError
from nnunet_da.training.configurations import PlanSettings, change_plan, configure, cpu_preset


def planned(patch_size, n_stages, residual=False):
    """A configuration as nnU-Net plans it."""
    dimension = len(patch_size)
    per_stage = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    return {
        "patch_size": list(patch_size),
        "batch_size": 12,
        "median_image_size_in_voxels": [1.5 * size for size in patch_size],
        "spacing": [1.0] * dimension,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": n_stages,
                "features_per_stage": [32 * 2**i for i in range(n_stages)],
                "kernel_sizes": [[3] * dimension] * n_stages,
                "strides": [[1] * dimension] + [[2] * dimension] * (n_stages - 1),
                per_stage: [2] * n_stages,
                "n_conv_per_stage_decoder": [2] * (n_stages - 1),
                "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
            },
        },
    }


@pytest.fixture
def plans(tmp_path):
    path = tmp_path / "nnUNetPlans.json"
    content = {"plans_name": "nnUNetPlans", "configurations": {"2d": planned((256, 256), 6)}}
    path.write_text(json.dumps(content))
    return path


def write(plans, *assignments, name="2d_mine", results="results", **keywords):
    return configure(plans, plans.parent / results, "2d", name, assignments, **keywords)


def configuration(plans, name="2d_mine"):
    return json.loads(plans.read_text())["configurations"][name]


@pytest.mark.parametrize("residual", [False, True])
def test_fewer_stages(residual):
    base = planned((64, 64, 64), 6, residual)
    before = copy.deepcopy(base)
    arguments = change_plan(base, PlanSettings(features_per_stage=(8, 16, 32)))["architecture"]["arch_kwargs"]
    assert base == before
    assert arguments["n_stages"] == 3
    assert arguments["features_per_stage"] == [8, 16, 32]
    assert {len(arguments[name]) for name in ("kernel_sizes", "strides")} == {3}
    assert len(arguments["n_blocks_per_stage" if residual else "n_conv_per_stage"]) == 3
    assert len(arguments["n_conv_per_stage_decoder"]) == 2


@pytest.mark.parametrize(("patch_size", "dimension"), [((64, 64), 2), ((64, 64, 64), 3)])
def test_norm(patch_size, dimension):
    changes = change_plan(planned(patch_size, 4), PlanSettings(norm="batch"))
    assert changes["architecture"]["arch_kwargs"]["norm_op"] == f"torch.nn.modules.batchnorm.BatchNorm{dimension}d"
    assert change_plan(planned(patch_size, 4), PlanSettings(norm="instance")) == {}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (PlanSettings(patch_size=(60, 64)), r"multiples of \[8, 8\]"),
        (PlanSettings(patch_size=(64, 64, 64)), "must have 2 values"),
        (PlanSettings(features_per_stage=(8,) * 5), "at most the 4 stages"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(plan, message):
    with pytest.raises(UserError, match=message):
        change_plan(planned((64, 64), 4), plan)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=3), st.integers(3, 7))
def test_the_cpu_preset_fits_every_plan(units, n_stages):
    base = planned([unit * 2 ** (n_stages - 1) for unit in units], n_stages)
    plan = cpu_preset(base)["plan"]
    changed = change_plan(
        base, PlanSettings(**{key: tuple(v) if isinstance(v, list) else v for key, v in plan.items()})
    )
    assert math.prod(changed["patch_size"]) <= math.prod(base["patch_size"])
    limit = 160**2 if len(units) == 2 else 16 * 64**2
    stride = 2 ** (len(plan["features_per_stage"]) - 1)
    assert math.prod(changed["patch_size"]) <= max(limit, stride ** len(units))


@pytest.mark.parametrize(("patch_size", "expected"), [((64, 80), [96, 128]), ((10, 200, 60), [15, 256, 96])])
def test_the_papers_preset(tmp_path, patch_size, expected):
    plans = tmp_path / "nnUNetPlans.json"
    plans.write_text(json.dumps({"plans_name": "nnUNetPlans", "configurations": {"2d": planned(patch_size, 4)}}))
    write(plans, "num_epochs=3", preset="paper", trainer="nnUNetTrainerIntensityDA")
    written = configuration(plans)
    assert written["patch_size"] == expected
    assert written["batch_size"] == 1
    arguments = written["architecture"]["arch_kwargs"]
    assert arguments["features_per_stage"] == [32, 64, 128, 256, 512]
    assert arguments["strides"][1] == [1, 2, 2][-len(patch_size) :]
    assert written["nnunet_da"]["num_epochs"] == 3
    assert written["nnunet_da"]["optimizer"] == "adam"


@pytest.mark.parametrize("trainer", ["nnUNetTrainerDSLContrastive", "nnUNetTrainerAttentionJoint"])
def test_the_preset_of_the_multi_domain_paper_is_for_slices(tmp_path, trainer):
    plans = tmp_path / "nnUNetPlans.json"
    configurations = {"2d": planned((64, 128), 6), "3d_fullres": planned((16, 64, 64), 4)}
    plans.write_text(json.dumps({"plans_name": "nnUNetPlans", "configurations": configurations}))
    write(plans, preset="paper", trainer=trainer)
    written = configuration(plans)
    assert written["patch_size"] == [256, 256]
    assert written["batch_size"] == 32
    assert written["architecture"]["arch_kwargs"]["features_per_stage"] == [32, 64, 128, 256, 512]
    block = written["nnunet_da"]
    assert (block["num_epochs"], block["num_iterations_per_epoch"], block["initial_lr"]) == (30, None, 1e-4)
    assert block["augmentation"]["translation"] == 0.25
    with pytest.raises(UserError, match="trains on 2D slices; use it with -c 2d"):
        configure(plans, tmp_path, "3d_fullres", "3d_mine", [], preset="paper", trainer=trainer)


def test_the_papers_preset_needs_a_trainer_that_has_one(plans):
    before = plans.read_bytes()
    with pytest.raises(UserError, match=r"--preset paper: say whose with -tr \(.*nnUNetTrainerIntensityDA"):
        write(plans, preset="paper")
    with pytest.raises(UserError, match=r"nnUNetTrainerIntensityD has none; did you mean 'nnUNetTrainerIntensityDA'"):
        write(plans, preset="paper", trainer="nnUNetTrainerIntensityD")
    assert plans.read_bytes() == before


def test_a_configuration_inherits_and_holds_only_what_was_set(plans):
    assert "added" in write(plans, "pretext.domains=t1", "num_epochs=50", "plan.batch_size=4")
    assert configuration(plans) == {
        "inherits_from": "2d",
        "batch_size": 4,
        "nnunet_da": {"pretext": {"domains": "t1"}, "num_epochs": 50},
    }
    assert "unchanged" in write(plans, "pretext.domains=t1", "num_epochs=50", "plan.batch_size=4")
    assert "changed" in write(plans, "num_epochs=60")
    assert configuration(plans)["nnunet_da"] == {"num_epochs": 60}


def test_the_order_in_which_configurations_are_added_leaves_no_trace(plans):
    before, written = plans.read_bytes(), []
    for names in (("2d_b", "2d_a", "2d_c"), ("2d_c", "2d_b", "2d_a")):
        plans.write_bytes(before)
        for name in names:
            write(plans, "num_epochs=3", name=name)
        written.append(plans.read_bytes())
    assert written[0] == written[1]
    assert list(json.loads(written[0])["configurations"]) == ["2d", "2d_a", "2d_b", "2d_c"]


def test_a_configuration_may_build_on_another(plans):
    write(plans, "seed=1", "num_epochs=5", preset="cpu")
    configure(plans, plans.parent, "2d_mine", "2d_more", ["num_epochs=7"])
    block = configuration(plans, "2d_more")["nnunet_da"]
    assert (block["seed"], block["num_epochs"], block["save_every"]) == (1, 7, 1)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("num_epoch=5", "did you mean 'num_epochs'"),
        ("pretext.domans=t1", r"pretext.domans: unknown; did you mean 'domains'"),
        ("num_epochs=many", "num_epochs: must be of type int"),
        ("num_epochs=0", "num_epochs: must be at least 1"),
        ("pretext.update=both", "must be one of alternating, joint"),
        ("plan.norm=layer", "plan.norm: must be one of instance, batch"),
        ("num_epochs", "must be written as name=value"),
        ("pretext.batch_size=1", "must be at least 2"),
    ],
)
def test_bad_settings_change_nothing(plans, assignment, message):
    before = plans.read_bytes()
    with pytest.raises(UserError, match=message):
        write(plans, assignment)
    assert plans.read_bytes() == before


def test_bad_names_change_nothing(plans):
    before = plans.read_bytes()
    with pytest.raises(UserError, match="no configuration 3d"):
        configure(plans, plans.parent, "3d", "mine", [])
    for name in ("2d", "3d_fullres"):
        with pytest.raises(UserError, match="choose another name"):
            write(plans, name=name)
    with pytest.raises(UserError, match="no such file"):
        configure(plans.parent / "absent.json", plans.parent, "2d", "mine", [])
    assert plans.read_bytes() == before


def test_a_configuration_with_trained_models_is_not_changed_silently(plans):
    write(plans, "num_epochs=5")
    fold = plans.parent / "results" / "nnUNetTrainerUNet__nnUNetPlans__2d_mine" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_final.pth").touch()
    with pytest.raises(UserError, match="was trained with other settings"):
        write(plans, "num_epochs=6")
    assert "unchanged" in write(plans, "num_epochs=5")
    assert "changed" in write(plans, "num_epochs=6", overwrite=True)
