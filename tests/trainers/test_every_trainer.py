"""Every trainer of the package trains, resumes, predicts, exports and pickles, through nnU-Net's own entry points."""

import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args, run_training

from nnunet_da.errors import UserError
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.configurations import all_trainers
from nnunet_da.training.export import export
from nnunet_da.training.multidomain_trainer import MultiDomainTrainer
from nnunet_da.training.ssl_trainer import Pretrainer

# Those that pretrain alone do not segment: test_ssl_trainer.py.
TRAINERS = [name for name, trainer in all_trainers().items() if not issubclass(trainer, Pretrainer)]
CPU = torch.device("cpu")


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


def predict(model_folder, images, output):
    Path(output).mkdir()
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model_folder), (0,))
    predictor.predict_from_files_sequential(str(images), str(output))
    return {path.name: nibabel.load(path) for path in sorted(Path(output).glob("*.nii.gz"))}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trains_resumes_predicts_and_exports(trainer, dataset, fresh_results, tmp_path, monkeypatch):
    model_folder = dataset.results / f"{trainer}__nnUNetPlans__tiny_2d"
    fold = model_folder / "fold_0"
    train(dataset.id, trainer)
    assert {"checkpoint_final.pth", "checkpoint_best.pth", "progress.png"} <= {path.name for path in fold.iterdir()}
    assert (fold / "validation" / "summary.json").is_file()
    assert not list(fold.glob(".checkpoint*"))
    uninterrupted = weights(fold)

    # The same again, but stopped at the start of the second epoch and resumed: equal weights.
    resumed = new_trainer(dataset.id, trainer)
    monkeypatch.setattr(resumed, "on_epoch_start", _stop_in_epoch(resumed, 1))
    for path in fold.glob("checkpoint_*"):
        path.unlink()
    with pytest.raises(Stop):
        resumed.run_training()
    assert (fold / "checkpoint_latest.pth").is_file()
    train(dataset.id, trainer, continue_training=True)
    assert_equal_weights(weights(fold), uninterrupted)

    scans = sorted((dataset.test / "images").iterdir())
    if getattr(all_trainers()[trainer], "scheme", None) == "dsl":
        with pytest.raises(UserError, match="does not know which a scan is of"):
            predict(model_folder, dataset.test / "images", tmp_path / "ours")
        return
    predicted = predict(model_folder, dataset.test / "images", tmp_path / "ours")
    assert len(predicted) == len(scans)
    for name, prediction in predicted.items():
        scan = nibabel.load(dataset.test / "images" / name.replace(".nii.gz", "_0000.nii.gz"))
        assert prediction.shape == scan.shape
        assert np.allclose(prediction.affine, scan.affine, atol=1e-4)
        assert set(np.unique(prediction.dataobj)) <= {0, 1, 2, 3}

    if getattr(all_trainers()[trainer], "attention", False):
        with pytest.raises(UserError, match="is not nnU-Net's own, so it cannot be exported"):
            export(model_folder, tmp_path / "export")
        return
    (exported,) = export(model_folder, tmp_path / "export")
    assert exported.name == "nnUNetTrainer__nnUNetPlans__tiny_2d"
    for name, prediction in predict(exported, dataset.test / "images", tmp_path / "stock").items():
        assert np.array_equal(prediction.dataobj, predicted[name].dataobj)


class Stop(Exception):
    pass


def _stop_in_epoch(trainer, epoch):
    original = trainer.on_epoch_start

    def on_epoch_start():
        if trainer.current_epoch == epoch:
            raise Stop
        original()

    return on_epoch_start


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trains_in_3d(trainer, dataset, fresh_results):
    run = new_trainer(dataset.id, trainer, "tiny_3d")
    run.run_training()
    values = weights(run.output_folder)
    assert all(torch.isfinite(value).all() for value in values.values())


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trains_on_several_channels_and_regions(trainer, regions):
    run = new_trainer(regions.id, trainer)
    run.run_training()
    assert all(torch.isfinite(value).all() for value in weights(run.output_folder).values())
    assert run.label_manager.has_regions


@pytest.mark.parametrize("trainer", TRAINERS)
def test_pickles(trainer):
    trainer_class = getattr(__import__(f"nnunet_da.trainers.{trainer}", fromlist=[trainer]), trainer)
    assert pickle.loads(pickle.dumps(trainer_class)) is trainer_class
    assert trainer_class.__doc__
