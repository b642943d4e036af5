"""Training on several labelled domains: what is refused, what a batch holds, and what each domain's model predicts."""

import json

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args

from nnunet_da import cli
from nnunet_da.errors import UserError
from nnunet_da.training.configurations import all_trainers
from nnunet_da.training.configured_trainer import ConfiguredTrainer, unwrap
from nnunet_da.training.export import export

CPU = torch.device("cpu")


def new_trainer(dataset, trainer, configuration="tiny_2d"):
    return get_trainer_from_args(dataset.id, configuration, 0, trainer, device=CPU)


def configured(dataset, name, *assignments, base="tiny_2d"):
    words = [word for assignment in assignments for word in ("--set", assignment)]
    assert cli.main(["configure", "-d", dataset.id, "-c", base, "--as", name, *words]) == 0
    return name


def test_every_batch_holds_the_domains_in_turn(joints, fresh_results):
    trainer = new_trainer(joints, "nnUNetTrainerDSLContrastive")
    trainer.initialize()
    # Two samples of each of two domains, where the plan has two in all.
    assert trainer.batch_size == 4
    training, validation = trainer.get_dataloaders()
    held_out = set(trainer.do_split()[1])
    for _ in range(3):
        keys = list(next(training)["keys"])
        assert [trainer.domains.index_of_case(key) for key in keys] == [0, 1, 0, 1]
        assert not held_out & set(keys)
    assert set(next(validation)["keys"]) <= held_out


def test_joint_by_size_draws_as_nnunet_does(joints, fresh_results):
    name = configured(joints, "tiny_by_size", "multidomain.sampling=by_size")
    trainer = new_trainer(joints, "nnUNetTrainerJoint", name)
    assert not trainer.interleaved
    assert trainer.configuration_manager.batch_size == 2
    trainer.run_training()
    with pytest.raises(UserError, match="by_size is for the joint scheme"):
        new_trainer(joints, "nnUNetTrainerDSL", name)


def test_base_sees_its_own_domain_alone(joints, fresh_results):
    trainer = new_trainer(joints, "nnUNetTrainerBase")
    train, val = trainer.do_split()
    assert {trainer.domains.domain_of_case(case) for case in (*train, *val)} == {joints.domains[0]}
    name = configured(joints, "tiny_no_domain", "multidomain.domain=null")
    with pytest.raises(UserError, match=r"say which domain it trains on, with --set multidomain\.domain=NAME"):
        new_trainer(joints, "nnUNetTrainerBase", name)


@pytest.mark.parametrize(
    ("trainer", "side", "message"),
    [
        ("nnUNetTrainerBase", "train", "fold 0: every labelled case of domain '{}' is held out"),
        ("nnUNetTrainerBase", "val", "fold 0: no labelled case of domain '{}' is held out to validate on"),
        ("nnUNetTrainerDSL", "train", "fold 0: every labelled case of domain '{}' is held out"),
    ],
)
def test_a_fold_without_cases_of_a_domain_is_refused(joints, fresh_results, monkeypatch, trainer, side, message):
    name = joints.domains[0]
    lacking = new_trainer(joints, trainer)
    sides = dict(zip(("train", "val"), lacking.do_split(), strict=True))
    labelled = set(next(domain for domain in lacking.domains if domain.name == name).labelled)
    sides[side] = [case for case in sides[side] if case not in labelled]
    monkeypatch.setattr(ConfiguredTrainer, "do_split", lambda trainer: tuple(sides.values()))
    with pytest.raises(UserError, match=message.format(name)):
        lacking.do_split()


@pytest.mark.parametrize("trainer", ["nnUNetTrainerJoint", "nnUNetTrainerDSL", "nnUNetTrainerDSLContrastive"])
def test_a_domain_without_labelled_cases_is_refused(spine, fresh_results, trainer):
    with pytest.raises(UserError, match="domain 'siemens_1p5t' has no labelled cases; this scheme learns from labels"):
        new_trainer(spine, trainer)
    assert not list(spine.results.glob(f"{trainer}*"))


def test_each_domain_has_its_classes_and_its_curve(joints, fresh_results):
    trainer = new_trainer(joints, "nnUNetTrainerDSLContrastive")
    trainer.run_training()
    trainer.perform_actual_validation()
    network = unwrap(trainer.network)
    assert trainer.channels_of_domains(trainer.configuration_manager.configuration) == [[0, 1, 2], [0, 1, 3]]
    network.eval()
    with torch.no_grad():
        for domain, lacking in ((0, 3), (1, 2)):
            logits = network(torch.randn(1, 1, 32, 32), domain)
            logits = logits[0] if isinstance(logits, list | tuple) else logits
            assert (logits[:, lacking] == -100).all()
            assert (logits[:, [0, 1, 5 - lacking]] > -100).all()
    log = trainer.logger.local_logger.my_fantastic_logging
    assert all(len(log[f"pseudo_dice/{domain}"]) == 2 for domain in joints.domains)
    assert len(log["contrastive_loss"]) == 2
    assert all(np.isfinite(log["contrastive_loss"]))
    summary = json.loads((joints.results / f"{folder(trainer)}/fold_0/validation/summary.json").read_text())
    assert len(summary["metric_per_case"]) == len(trainer.do_split()[1])
    assert network.domain is None


def folder(trainer):
    return f"{type(trainer).__name__}__nnUNetPlans__{trainer.configuration_name}"


@pytest.mark.parametrize(("norm", "configuration"), [("batch", "tiny_2d"), ("instance", "tiny_3d")])
def test_the_export_of_each_domain_predicts_what_the_network_predicts_of_it(
    joints, fresh_results, tmp_path, norm, configuration
):
    name = configured(joints, f"{configuration}_{norm}", f"multidomain.norm={norm}", base=configuration)
    trainer = new_trainer(joints, "nnUNetTrainerDSL", name)
    trainer.run_training()
    model_folder = joints.results / folder(trainer)
    exported = export(model_folder, tmp_path / "export")
    assert [path.name for path in exported] == [
        f"nnUNetTrainer__nnUNetPlans_{domain}__{name}" for domain in joints.domains
    ]
    images = joints.test / "images"
    for index, (domain, path) in enumerate(zip(joints.domains, exported, strict=True)):
        assert "nnunet_da" not in (path / "plans.json").read_text()
        ours, stock = nnUNetPredictor(device=CPU, allow_tqdm=False), nnUNetPredictor(device=CPU, allow_tqdm=False)
        ours.initialize_from_trained_model_folder(str(model_folder), (0,))
        ours.network.domain = index
        stock.initialize_from_trained_model_folder(str(path), (0,))
        results = {}
        for who, predictor in (("ours", ours), ("stock", stock)):
            (tmp_path / domain / who).mkdir(parents=True)
            predictor.predict_from_files_sequential(str(images), str(tmp_path / domain / who))
            results[who] = {p.name: nibabel.load(p) for p in sorted((tmp_path / domain / who).glob("*.nii.gz"))}
        assert results["ours"].keys() == results["stock"].keys()
        for scan, prediction in results["ours"].items():
            voxels = np.asarray(prediction.dataobj)
            np.testing.assert_array_equal(voxels, results["stock"][scan].dataobj)
            # Labels keep their global values, and no domain predicts the other's.
            assert not np.isin(voxels, 3 - index).any()


def test_the_zip_holds_a_model_per_domain(joints, fresh_results, tmp_path):
    import zipfile

    trainer = new_trainer(joints, "nnUNetTrainerDSL")
    trainer.run_training()
    (archive,) = export(joints.results / folder(trainer), tmp_path / "models.zip")
    names = zipfile.ZipFile(archive).namelist()
    assert {name.split("/")[1] for name in names} == {
        f"nnUNetTrainer__nnUNetPlans_{domain}__tiny_2d" for domain in joints.domains
    }


@pytest.mark.parametrize(
    "name", ["nnUNetTrainerAttentionBase", "nnUNetTrainerAttentionJoint", "nnUNetTrainerAttentionDSL"]
)
def test_attention_gates_need_the_plain_u_net(joints, fresh_results, name):
    plans = json.loads((joints.preprocessed / "nnUNetPlans.json").read_text())
    dataset_json = json.loads((joints.preprocessed / "dataset.json").read_text())
    unet = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    plans["configurations"]["tiny_2d"]["architecture"]["network_class_name"] = unet
    with pytest.raises(UserError, match=f"{name}: needs a plan with PlainConvUNet, not ResidualEncoderUNet"):
        all_trainers()[name](plans, "tiny_2d", 0, dataset_json, CPU)
