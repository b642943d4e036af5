"""The three networks of the disc pipeline in training: what is refused, what they learn from, what is mirrored."""

import json

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args

from nnunet_da import cli
from nnunet_da.discs.dense_aspp import DenseASPPNet
from nnunet_da.discs.losses import FocalLoss
from nnunet_da.discs.vnet import VNet
from nnunet_da.errors import UserError
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.slabs import SlabLoader

CPU = torch.device("cpu")
DENSE_ASPP, LOCALIZER, REGION = "nnUNetTrainerDenseASPP", "nnUNetTrainerVNetLocalizer", "nnUNetTrainerSpineRegion"


def new_trainer(dataset, trainer, configuration, initialize=True):
    run = get_trainer_from_args(dataset.id, configuration, 0, trainer, device=CPU)
    if initialize:
        run.initialize()
    return run


def configured(dataset, name, *assignments, base="tiny_2d"):
    words = [word for assignment in assignments for word in ("--set", assignment)]
    assert cli.main(["configure", "-d", dataset.id, "-c", base, "--as", name, *words]) == 0
    return name


def test_cross_entropy_first_then_focal_loss(spine, fresh_results):
    name = configured(spine, "tiny_focal", "num_epochs=3", "focal.ce_epochs=2", "focal.alpha=0.25", "best_epoch=loss")
    run = new_trainer(spine, DENSE_ASPP, name)
    used = []
    step = run.train_step
    run.train_step = lambda batch: (used.append((run.loss.alpha, run.loss.gamma)), step(batch))[1]
    run.run_training()
    assert used == 4 * [(1.0, 0.0)] + 2 * [(0.25, 2.0)]
    # Losses of either kind are not compared: the best epoch is that of the focal loss.
    assert run.validation_losses()[:2] == [np.inf, np.inf]
    best = read_checkpoint(f"{run.output_folder}/checkpoint_best.pth")
    assert best["current_epoch"] == 3


@pytest.mark.parametrize(("loss", "kind"), [("ce", FocalLoss), ("nnunet", None)])
def test_other_losses_stay(spine, fresh_results, loss, kind):
    name = configured(spine, f"tiny_{loss}", f"focal.loss={loss}", "focal.ce_epochs=0", "num_epochs=1")
    run = new_trainer(spine, DENSE_ASPP, name)
    run.run_training()
    assert isinstance(run.loss, FocalLoss) == (kind is FocalLoss)
    assert loss != "ce" or run.loss.gamma == 0


def test_slices_come_out_of_slabs(spine, fresh_results):
    run = new_trainer(spine, DENSE_ASPP, "tiny_2d")
    assert isinstance(run.network, DenseASPPNet)
    training, validation = run.get_dataloaders()
    assert isinstance(training.data_loader, SlabLoader)
    assert training.data_loader.patch_size[0] == 3
    assert not isinstance(validation.data_loader, SlabLoader)
    batch = next(training)
    assert batch["data"].shape == batch["target"].shape == (2, 1, 32, 32)
    assert batch["target"].min() >= 0
    assert run.inference_allowed_mirroring_axes is None


def test_the_augmentation_of_others(spine, fresh_results):
    name = configured(spine, "tiny_shared", "dense_aspp.augmentation=shared")
    run = new_trainer(spine, DENSE_ASPP, name)
    training, _ = run.get_dataloaders()
    assert not isinstance(training.data_loader, SlabLoader)
    assert run.inference_allowed_mirroring_axes == (0, 1)


def test_ignored_voxels_teach_nothing(spine, fresh_results):
    run = new_trainer(spine, DENSE_ASPP, "tiny_2d")
    target = torch.randint(0, 2, (2, 1, 32, 32), dtype=torch.int16)
    target[:, :, 16:] = run.label_manager.ignore_label
    logits = run.network(torch.randn(2, 1, 32, 32)).detach().requires_grad_()
    run.loss(logits, target).backward()
    assert not logits.grad[:, :, 16:].any()
    assert logits.grad[:, :, :16].any()


def test_the_localiser_never_exchanges_head_and_foot(spine, fresh_results):
    run = new_trainer(spine, LOCALIZER, "tiny_3d")
    assert isinstance(run.network, VNet)
    transpose = json.loads((spine.preprocessed / "nnUNetPlans.json").read_text())["transpose_forward"]
    axis = transpose.index(0)
    rotation, _, to_read, axes = run.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert axis not in axes
    assert sorted((*axes, axis)) == [0, 1, 2]
    assert run.inference_allowed_mirroring_axes == axes
    assert rotation == pytest.approx((-np.pi / 6, np.pi / 6))
    assert all(read >= size for read, size in zip(to_read, run.configuration_manager.patch_size, strict=True))

    # What it trains on: labels towards the head stay there.
    transforms = run.get_training_transforms(
        run.configuration_manager.patch_size, rotation, None, axes, to_read[0] == 8, use_mask_for_norm=[False]
    )
    shape = [int(n) for n in to_read]
    image = torch.randn(1, *shape)
    label = torch.zeros(1, *shape, dtype=torch.int16)
    label.narrow(1 + axis, shape[axis] // 2, shape[axis] - shape[axis] // 2).fill_(1)
    for _ in range(25):
        result = transforms(image=image.clone(), segmentation=label.clone())["segmentation"][0].float()
        lower, upper = result.movedim(axis, 0).chunk(2)
        assert upper.mean() > lower.mean()


def test_the_papers_network_of_the_localiser(spine, fresh_results):
    run = new_trainer(spine, LOCALIZER, "3d_fullres", initialize=False)
    arguments = run.configuration_manager.network_arch_init_kwargs
    n_stages = len(arguments["strides"])
    assert arguments["features"] == [16, 32, 64, 128, 256][:n_stages]
    assert {k for kernel in arguments["kernel_sizes"] for k in kernel} <= {1, 5}


@pytest.mark.parametrize(
    ("trainer", "base", "assignments", "message"),
    [
        (DENSE_ASPP, "tiny_3d", [], "its network is 2D; train a 2d configuration"),
        (LOCALIZER, "tiny_2d", [], "its network is 3D; train a 3d configuration"),
        (DENSE_ASPP, "tiny_2d", ["deep_supervision=true"], "its network has one output; set deep_supervision=false"),
        (
            LOCALIZER,
            "tiny_3d",
            ["augmentation.scheme=simple", "augmentation.flips=horizontal,vertical"],
            "' exchanges head and foot; leave it out",
        ),
        (
            LOCALIZER,
            "tiny_3d",
            ["augmentation.scheme=simple", "augmentation.rotation=90", "augmentation.flips=[]"],
            "setting augmentation.rotation: must be below 90",
        ),
    ],
)
def test_what_is_refused(spine, fresh_results, trainer, base, assignments, message):
    name = configured(spine, f"{base}_refused", *assignments, base=base) if assignments else base
    with pytest.raises(UserError, match=message):
        new_trainer(spine, trainer, name)
    assert not spine.results.exists()
    if assignments:
        words = ["-d", spine.id, "-c", base, "--as", f"{base}_refused", "--overwrite"]
        assert cli.main(["configure", *words]) == 0


def test_without_an_orientation_head_and_foot_cannot_be_told(spine, edited_dataset, fresh_results):
    edited_dataset(lambda content: content.pop("overwrite_image_reader_writer"))
    with pytest.raises(UserError, match="must name the reader NibabelIOWithReorient"):
        new_trainer(spine, LOCALIZER, "tiny_3d")


def test_a_region_is_one_structure(joints, fresh_results):
    with pytest.raises(UserError, match=r"one structure, the spine region, not lowest, first, second; `nnunet-da disc"):
        new_trainer(joints, REGION, "tiny_2d")


def test_pretrained_weights_mean_nothing_to_networks_of_their_own(spine, fresh_results, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["nnUNetv2_train", "-pretrained_weights", str(tmp_path / "w.pth")])
    with pytest.raises(UserError, match="-pretrained_weights is not supported"):
        new_trainer(spine, DENSE_ASPP, "tiny_2d")
