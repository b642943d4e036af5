"""What export refuses. That its result predicts equally is tested with the trainers."""

import copy
import json

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_da import cli
from nnunet_da.multidomain.norm import domain_norm_plan
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.configurations import all_trainers
from nnunet_da.training.export import export

DATASET = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "disc": 1, "ignore": 2},
    "file_ending": ".nii.gz",
    "domains": {"s": {"labels": ["disc"], "labelled": ["secret_1"], "unlabelled": []}},
    "subjects": {"secret_1": "person"},
}
PLANS = {
    "dataset_name": "Dataset007_Spine",
    "plans_name": "nnUNetPlans",
    "label_manager": "LabelManager",
    "configurations": {
        "2d": {
            "patch_size": [32, 32],
            "batch_size": 2,
            "previous_stage": None,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 3,
                    "features_per_stage": [4, 8, 8],
                    "conv_op": "torch.nn.modules.conv.Conv2d",
                    "kernel_sizes": [[3, 3]] * 3,
                    "strides": [[1, 1], [2, 2], [2, 2]],
                    "n_conv_per_stage": [1, 1, 1],
                    "n_conv_per_stage_decoder": [1, 1],
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                    "norm_op_kwargs": {"affine": True},
                    "nonlin": "torch.nn.LeakyReLU",
                },
                "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
            },
        },
        "mine": {"inherits_from": "2d", "nnunet_da": {"seed": 1}},
    },
}


@pytest.fixture
def model(tmp_path):
    """A model folder with one fold of a stock trainer, under a custom configuration."""
    folder = tmp_path / "results" / "Dataset007_Spine" / "nnUNetTrainer__nnUNetPlans__mine"
    fold = folder / "fold_0"
    fold.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(PLANS))
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    manager = PlansManager(json.loads(json.dumps(PLANS)))
    network = nnUNetTrainer.build_network_architecture(manager, manager.get_configuration("mine"), 1, 2)
    write_checkpoint(fold, network.state_dict())
    return folder


def write_checkpoint(fold, weights, trainer="nnUNetTrainer", plans=PLANS):
    checkpoint = {
        "network_weights": weights,
        "trainer_name": trainer,
        "init_args": {"dataset_json": DATASET, "plans": plans, "configuration": "mine"},
        "inference_allowed_mirroring_axes": (0, 1),
        "logging": {"host": "secret"},
    }
    torch.save(checkpoint, fold / "checkpoint_final.pth")


def refused(capsys, tmp_path, *words):
    """The one line of an export that failed, which must have written nothing."""
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    arguments = ["export", "-d", "7", "-c", "mine", "-tr", "nnUNetTrainer", "-o", str(tmp_path / "out"), *words]
    assert cli.main(arguments) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_export_holds_what_prediction_needs_and_nothing_of_the_cases(model, tmp_path):
    (written,) = export(model, tmp_path / "out")
    assert written == tmp_path / "out" / "Dataset007_Spine" / "nnUNetTrainer__nnUNetPlans__mine"
    plans = json.loads((written / "plans.json").read_text())
    assert list(plans["configurations"]) == ["mine"]
    assert "inherits_from" not in plans["configurations"]["mine"]
    assert plans["configurations"]["mine"]["patch_size"] == [32, 32]
    assert set(json.loads((written / "dataset.json").read_text())) == {"channel_names", "labels", "file_ending"}
    checkpoint = read_checkpoint(written / "fold_0" / "checkpoint_final.pth")
    assert checkpoint["inference_allowed_mirroring_axes"] == (0, 1)
    for path in written.rglob("*"):
        if path.is_file():
            assert b"secret" not in path.read_bytes()
            assert b"nnunet_da" not in path.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-c", "absent"], "nnUNetTrainer__nnUNetPlans__absent: no such trained model"),
        (["-f", "3"], "fold_3/checkpoint_final.pth: no such checkpoint"),
        (["-chk", "checkpoint_other.pth"], "no fold has checkpoint_other.pth"),
        (["-d", "8"], "-d 8: no such dataset"),
    ],
)
def test_what_is_not_there(model, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    assert message in refused(capsys, tmp_path, *words)


def test_networks_and_checkpoints_that_cannot_be_exported(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    path = model / "fold_0" / "checkpoint_final.pth"
    weights = read_checkpoint(path)["network_weights"]
    write_checkpoint(path.parent, {**weights, "gate.weight": torch.zeros(1)})
    assert "the network of nnUNetTrainer is not nnU-Net's own" in refused(capsys, tmp_path)
    write_checkpoint(path.parent, weights, trainer="nnUNetTrainerOfSomebody")
    assert "trainer nnUNetTrainerOfSomebody is not installed here" in refused(capsys, tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    assert "truncated or not a checkpoint" in refused(capsys, tmp_path)


def test_an_export_is_not_overwritten_unasked(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    arguments = ["export", "-d", "7", "-c", "mine", "-tr", "nnUNetTrainer", "-o", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    assert "exists already; choose another place, or --overwrite" in refused(capsys, tmp_path)
    assert cli.main([*arguments, "--overwrite"]) == 0


@pytest.fixture
def gated(model):
    """A model with attention gates and the layers of two domains, of which one lacks the structure: folder, network."""
    plans = copy.deepcopy(PLANS)
    architecture = plans["configurations"]["2d"]["architecture"]
    architecture["network_class_name"] = "nnunet_da.multidomain.attention.AttentionUNet"
    architecture["arch_kwargs"] |= domain_norm_plan("batch", 2, 2)
    entry = plans["configurations"]["mine"] = {**plans["configurations"]["2d"]}
    entry["nnunet_da"] = {"trained_domains": {"s": {"channels": [0, 1]}, "t": {"channels": [0]}}}
    trainer = all_trainers()["nnUNetTrainerAttentionDSL"]
    manager = PlansManager(copy.deepcopy(plans))
    torch.manual_seed(0)
    network = trainer.build_network_architecture(manager, manager.get_configuration("mine"), 1, 2, False)
    network(torch.randn(4, 1, 32, 32))  # running statistics that differ from domain to domain
    folder = model.with_name("nnUNetTrainerAttentionDSL__nnUNetPlans__mine")
    model.rename(folder)
    (folder / "plans.json").write_text(json.dumps(plans))
    write_checkpoint(folder / "fold_0", network.state_dict(), trainer.__name__, plans)
    return folder, network.eval()


def test_attention_gates_are_exported_where_the_plugin_may_be_needed(gated, tmp_path, capsys):
    folder, network = gated
    written = export(folder, tmp_path / "out", allow_plugin=True)
    assert [path.name for path in written] == [f"nnUNetTrainer__nnUNetPlans_{domain}__mine" for domain in "st"]
    assert "must be installed where the model predicts" in capsys.readouterr().out
    scans = torch.randn(3, 1, 32, 32)
    for domain, path in enumerate(written):
        plans = json.loads((path / "plans.json").read_text())
        assert plans["needs"] == "nnunet-da"
        assert "num_domains" not in json.dumps(plans)
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(path), (0,))
        predictor.network.load_state_dict(predictor.list_of_parameters[0])
        with torch.no_grad():
            assert torch.equal(predictor.network.eval()(scans), network(scans, domain))


def test_attention_gates_are_refused_unasked(gated, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    line = refused(capsys, tmp_path, "-tr", "nnUNetTrainerAttentionDSL")
    assert "the network of nnUNetTrainerAttentionDSL is not nnU-Net's own" in line
    assert "--allow-plugin writes it for where this package is installed" in line
    weights = {
        **read_checkpoint(gated[0] / "fold_0/checkpoint_final.pth")["network_weights"],
        "more.weight": torch.zeros(1),
    }
    plans = json.loads((gated[0] / "plans.json").read_text())
    write_checkpoint(gated[0] / "fold_0", weights, "nnUNetTrainerAttentionDSL", plans)
    line = refused(capsys, tmp_path, "-tr", "nnUNetTrainerAttentionDSL", "--allow-plugin")
    assert line.endswith("so it cannot be exported")


def test_the_plugin_is_not_needed_where_the_network_is_nnunets_own(model, tmp_path):
    (written,) = export(model, tmp_path / "out", allow_plugin=True)
    assert "needs" not in json.loads((written / "plans.json").read_text())
