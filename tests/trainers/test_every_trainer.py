"""Every trainer of the package trains, resumes, predicts, exports and pickles, through nnU-Net's own entry points."""

import pickle
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args, run_training

from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.configurations import all_trainers
from nnunet_da.training.export import export
from nnunet_da.training.multidomain_trainer import MultiDomainTrainer
from nnunet_da.training.ssl_trainer import Pretrainer

# Those that pretrain alone or translate do not segment: they have tests of their own.
ELSEWHERE = {"nnUNetTrainerCycleGAN"}
SELF_TRAINING = "nnUNetTrainerSelfTraining"
TRAINERS = [
    name for name, trainer in all_trainers().items() if name not in ELSEWHERE and not issubclass(trainer, Pretrainer)
]
# A network of the trainer's own: of two or three dimensions alone, and not to be exported.
DIMENSION = {"nnUNetTrainerDenseASPP": "2d", "nnUNetTrainerVNetLocalizer": "3d"}
ONE_STRUCTURE = {"nnUNetTrainerSpineRegion"}
CPU = torch.device("cpu")


def trainers_in(dimension):
    return [name for name in TRAINERS if DIMENSION.get(name, dimension) == dimension]


def train(dataset, trainer, configuration="tiny_2d", **keywords):
    run_training(dataset, configuration, "0", trainer, device=CPU, **keywords)


def new_trainer(dataset, trainer, configuration="tiny_2d", **keywords):
    return get_trainer_from_args(dataset, configuration, 0, trainer, device=CPU, **keywords)


def weights(folder, name="checkpoint_final.pth"):
    return read_checkpoint(Path(folder, name))["network_weights"]


def assert_equal_weights(one, other):
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


@pytest.fixture
def dataset(request, trainer):
    """What a trainer learns from: unlabelled scans beside labelled ones, or labelled domains alone."""
    multidomain = issubclass(all_trainers()[trainer], MultiDomainTrainer)
    return request.getfixturevalue("joints" if multidomain else "spine")


@pytest.fixture(autouse=True)
def _pseudo_labels(request, monkeypatch):
    """For the trainer that learns from pseudo-labels, the last two labels of every dataset count as such."""
    if request.node.callspec.params.get("trainer") != SELF_TRAINING:
        return

    def with_pseudo_labels(dataset_json):
        weights = dict.fromkeys(read_domains(dataset_json).labelled_cases[-2:], 0.5)
        return read_domains({**dataset_json, "pseudo_labels": weights})

    monkeypatch.setattr("nnunet_da.training.configured_trainer.read_domains", with_pseudo_labels)


def predict(model_folder, scans, output):
    """The predictions of nnU-Net's own predictor, a list of nibabel images in the order of the scans (paths)."""
    Path(output).mkdir()
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model_folder), (0,))
    results = [Path(output, scan.name) for scan in scans]
    predictor.predict_from_files_sequential(
        [[str(scan)] for scan in scans], [str(result).removesuffix(".nii.gz") for result in results]
    )
    return [nibabel.load(result) for result in results]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trains_resumes_predicts_and_exports(trainer, dataset, fresh_results, tmp_path, monkeypatch):
    configuration = f"tiny_{DIMENSION.get(trainer, '2d')}"
    model_folder = dataset.results / f"{trainer}__nnUNetPlans__{configuration}"
    fold = model_folder / "fold_0"
    uninterrupted = new_trainer(dataset.id, trainer, configuration)
    monkeypatch.setattr(uninterrupted, "on_epoch_start", _keep_at_epoch(uninterrupted, 1, tmp_path / "interrupted"))
    uninterrupted.run_training()
    assert {"checkpoint_final.pth", "checkpoint_best.pth", "progress.png"} <= {path.name for path in fold.iterdir()}
    expected = weights(fold)

    # What lay there at the start of the second epoch leads to the same weights.
    shutil.rmtree(fold)
    shutil.copytree(tmp_path / "interrupted", fold)
    train(dataset.id, trainer, configuration, continue_training=True)
    assert_equal_weights(weights(fold), expected)
    assert (fold / "validation" / "summary.json").is_file()
    assert not list(fold.glob(".checkpoint*"))

    # The first and the last: of different domains.
    scans = sorted((dataset.test / "images").iterdir())
    scans = [scans[0], scans[-1]]
    if getattr(all_trainers()[trainer], "scheme", None) == "dsl":
        with pytest.raises(UserError, match="does not know which a scan is of"):
            predict(model_folder, scans, tmp_path / "ours")
        return
    predicted = predict(model_folder, scans, tmp_path / "ours")
    for scan, prediction in zip(map(nibabel.load, scans), predicted, strict=True):
        assert prediction.shape == scan.shape
        assert np.allclose(prediction.affine, scan.affine, atol=1e-4)
        assert set(np.unique(prediction.dataobj)) <= {0, 1, 2, 3}

    if getattr(all_trainers()[trainer], "attention", False) or trainer in DIMENSION:
        with pytest.raises(UserError, match="is not nnU-Net's own, so it cannot be exported"):
            export(model_folder, tmp_path / "export")
        # Where the package is installed, what is written predicts the same.
        (exported,) = export(model_folder, tmp_path / "export", allow_plugin=True)
        for ours, stock in zip(predicted, predict(exported, scans, tmp_path / "stock"), strict=True):
            assert np.array_equal(ours.dataobj, stock.dataobj)
        return
    (exported,) = export(model_folder, tmp_path / "export")
    assert exported.name == "nnUNetTrainer__nnUNetPlans__tiny_2d"
    for ours, stock in zip(predicted, predict(exported, scans, tmp_path / "stock"), strict=True):
        assert np.array_equal(ours.dataobj, stock.dataobj)


def _keep_at_epoch(trainer, epoch, target):
    """The hook `on_epoch_start` of a trainer, which keeps a copy of its results so far when this epoch begins."""
    original = trainer.on_epoch_start

    def on_epoch_start():
        if trainer.current_epoch == epoch:
            shutil.copytree(trainer.output_folder, target)
        original()

    return on_epoch_start


@pytest.mark.parametrize("trainer", trainers_in("3d"))
def test_trains_in_3d(trainer, dataset, fresh_results):
    run = new_trainer(dataset.id, trainer, "tiny_3d")
    run.num_epochs = 1
    run.run_training()
    values = weights(run.output_folder)
    assert all(torch.isfinite(value).all() for value in values.values())


@pytest.mark.parametrize("trainer", sorted({*trainers_in("2d")} - ONE_STRUCTURE))
def test_trains_on_several_channels_and_regions(trainer, regions):
    run = new_trainer(regions.id, trainer)
    run.num_epochs = 1
    run.run_training()
    assert all(torch.isfinite(value).all() for value in weights(run.output_folder).values())
    assert run.label_manager.has_regions


@pytest.mark.parametrize("trainer", TRAINERS)
def test_pickles(trainer):
    trainer_class = getattr(__import__(f"nnunet_da.trainers.{trainer}", fromlist=[trainer]), trainer)
    assert pickle.loads(pickle.dumps(trainer_class)) is trainer_class
    assert trainer_class.__doc__
