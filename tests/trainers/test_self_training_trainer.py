"""From nnU-Net's own predictions to pseudo-labels to the combined training, and what that refuses."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args, run_training
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss

from nnunet_da import cli
from nnunet_da.errors import UserError

CPU = torch.device("cpu")
TRAINER = "nnUNetTrainerSelfTraining"


@pytest.fixture
def pseudo(spine, environment, run_command, fresh_results, tmp_path):
    """Dataset 504: `spine` with pseudo-labels of two folds of a U-Net for its unlabelled scans; with `tiny_2d`."""
    scans = tmp_path / "scans"
    scans.mkdir()
    content = json.loads((spine.raw / "dataset.json").read_text())
    targets = [case for domain in content["domains"].values() for case in domain["unlabelled"]]
    for case in targets:
        shutil.copy(spine.raw / "imagesTr" / f"{case}_0000.nii.gz", scans)
    folders = []
    for fold in ("0", "1"):
        run_training(spine.id, "tiny_2d", fold, "nnUNetTrainerUNet", device=CPU)
        folders.append(tmp_path / f"fold_{fold}")
        words = ("-d", spine.id, "-c", "tiny_2d", "-f", fold, "-tr", "nnUNetTrainerUNet", "-device", "cpu")
        run_command("nnUNetv2_predict", *words, "-i", scans, "-o", folders[-1], "--save_probabilities", "--disable_tta")
    made = environment.raw / "Dataset504_Spine", environment.preprocessed / "Dataset504_Spine"
    words = (
        "-d",
        spine.id,
        "--predictions",
        *folders,
        "--as",
        "504",
        "--leave-out",
        "0.2",
        "--no-volume-rule",
        "-np",
        "1",
    )
    run_command("nnunet-da", "pseudo-label", *words, "--max-uncertainty", "0.4")
    run_command("nnUNetv2_plan_and_preprocess", "-d", "504", "-c", "2d", nnUNet_n_proc_DA="1")
    yield SimpleNamespace(raw=made[0], preprocessed=made[1], targets=targets, folders=folders)
    for folder in made:
        shutil.rmtree(folder)


def configure(name, *assignments):
    schedule = ("num_epochs=1", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1", "seed=3")
    plan = ("plan.patch_size=32,32", "plan.features_per_stage=4,8,8", "plan.batch_size=20")
    words = [word for each in (*plan, *schedule, *assignments) for word in ("--set", each)]
    assert cli.main(["configure", "-d", "504", "-c", "2d", "--as", name, *words]) == 0


def test_predictions_of_nnunet_become_labels_that_are_trained_on(pseudo, environment, monkeypatch):
    content = json.loads((pseudo.raw / "dataset.json").read_text())
    # round(0.2 · 6) of the six scans stay unlabelled.
    assert len(content["pseudo_labels"]) == len(pseudo.targets) - 1
    for case in content["pseudo_labels"]:
        label, scan = (
            nibabel.load(pseudo.raw / folder / name)
            for folder, name in (("labelsTr", f"{case}.nii.gz"), ("imagesTr", f"{case}_0000.nii.gz"))
        )
        np.testing.assert_allclose(label.affine, scan.affine, atol=1e-4)
        # Where both folds say the same and nothing is masked, so does the label.
        said = [np.asarray(nibabel.load(folder / f"{case}.nii.gz").dataobj) for folder in pseudo.folders]
        label = np.asarray(label.dataobj)
        sure = (said[0] == said[1]) & (label != 2)
        assert sure.any()
        np.testing.assert_array_equal(label[sure], said[0][sure])

    configure("tiny_2d", "self_training.true_share=0.75")
    trainer = get_trainer_from_args("504", "tiny_2d", 0, TRAINER, device=CPU)
    drawn = []
    step = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", lambda batch: drawn.extend(batch["keys"]) or step(batch))
    trainer.run_training()
    log = Path(trainer.log_file).read_text()
    assert "75 % of the samples are of true labels" in log
    train, _ = trainer.do_split()
    assert set(drawn) <= set(train)
    # Of 40 draws, with a seed, 30 are expected; each case alike would give 15 or so.
    assert 20 < sum(case not in trainer.domains.pseudo_labels for case in drawn) < 40


def test_case_weights_and_folds(pseudo):
    configure("tiny_2d")
    weighted, equal = {}, {}
    dataset_json = json.loads((pseudo.preprocessed / "dataset.json").read_text())
    first, *others = dataset_json["pseudo_labels"]
    dataset_json["pseudo_labels"] = {first: 0.25, **dict.fromkeys(others, 1.0)}
    (pseudo.preprocessed / "dataset.json").write_text(json.dumps(dataset_json))
    configure("tiny_equal", "self_training.weights=equal")
    for name, found in (("tiny_2d", weighted), ("tiny_equal", equal)):
        trainer = get_trainer_from_args("504", name, "all", TRAINER, device=CPU)
        trainer.initialize()
        trainer.on_train_start()
        loader = trainer.dataloader_train.data_loader
        found |= dict(zip(loader.indices, loader.sampling_probabilities, strict=True))
        assert trainer.dataloader_val.data_loader.sampling_probabilities is None
        # Voxels of doubt count as little as unlabelled scans.
        loss = getattr(trainer.loss, "loss", trainer.loss)
        assert isinstance(loss, DC_and_CE_loss)
        assert loss.ignore_label == 2
    assert len(set(equal.values())) == 1
    assert weighted[first] == pytest.approx(0.25 * weighted[others[0]])
    assert set(weighted) == set(dataset_json["domains"]["philips_3t"]["labelled"]) | {first, *others}

    splits = pseudo.preprocessed / "splits_final.json"
    true = dataset_json["domains"]["philips_3t"]["labelled"]
    splits.write_text(json.dumps([{"train": true, "val": [first]}, {"train": [first], "val": true}]))
    with pytest.raises(UserError, match="fold 0: holds out every pseudo-labelled case"):
        get_trainer_from_args("504", "tiny_2d", 0, TRAINER, device=CPU).do_split()
    configure("tiny_share", "self_training.true_share=0.5")
    with pytest.raises(UserError, match=r"fold 1: holds out every true label, and self_training\.true_share"):
        get_trainer_from_args("504", "tiny_share", 1, TRAINER, device=CPU).do_split()


def test_a_dataset_without_pseudo_labels_is_refused(spine, fresh_results):
    with pytest.raises(UserError, match=r"dataset\.json has no pseudo-labels; make them with `nnunet-da pseudo-label`"):
        get_trainer_from_args(spine.id, "tiny_2d", 0, TRAINER, device=CPU)
    assert not (spine.results / f"{TRAINER}__nnUNetPlans__tiny_2d").exists()
