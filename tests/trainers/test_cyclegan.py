"""The translation: what it draws, which losses train what and when, that it resumes, and that it segments nothing."""

import json
import math
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint, run_training

from nnunet_da import cli
from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError
from nnunet_da.prediction import translated_dataset, translation
from nnunet_da.training.checkpoints import read_checkpoint
from nnunet_da.training.export import export

CPU = torch.device("cpu")
CYCLEGAN = "nnUNetTrainerCycleGAN"
SMALL = {"target": "siemens_1p5t", "features": [4, 8, 8], "discriminator_features": 4, "discriminator_layers": 2}


@pytest.fixture(autouse=True)
def _fresh(fresh_results):
    """Each test starts without models."""


@pytest.fixture
def configured(spine):
    """``configured(**settings)`` lays settings of the translation over those of `tiny_2d`; `plan`: of all others."""
    path = spine.preprocessed / "nnUNetPlans.json"
    kept = path.read_bytes()

    def configure(plan=None, **settings):
        plans = json.loads(kept)
        block = plans["configurations"]["tiny_2d"]["nnunet_da"]
        block |= {"translation": {**SMALL, **settings}, **(plan or {})}
        path.write_text(json.dumps(plans))

    configure()
    yield configure
    path.write_bytes(kept)


def new(dataset, configuration="tiny_2d", fold=0):
    return get_trainer_from_args(dataset.id, configuration, fold, CYCLEGAN, device=CPU)


def started(run):
    run.on_train_start()
    run.on_train_epoch_start()
    return run


def state(run):
    return {name: value.clone() for name, value in run.network.state_dict().items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


class Stop(Exception):
    pass


def test_trains_resumes_and_segments_nothing(spine, configured, tmp_path, monkeypatch):
    configured({"num_epochs": 3}, segment_fakes_after=1, pictures_every=2, buffer_size=3)
    run_training(spine.id, "tiny_2d", "0", CYCLEGAN, device=CPU)
    model_folder = spine.results / f"{CYCLEGAN}__nnUNetPlans__tiny_2d"
    fold = model_folder / "fold_0"
    names = {"checkpoint_final.pth", "checkpoint_best.pth", "translation.png", "progress.png", "translated"}
    assert names <= {path.name for path in fold.iterdir()}
    assert {path.name for path in (fold / "translated").iterdir()} == {"epoch_0002.png", "epoch_0003.png"}
    assert not (fold / "validation").exists()
    log = next(fold.glob("training_log_*")).read_text()
    assert "Translating philips_3t into siemens_1p5t: 3 labelled cases of the one, 3 cases of the other" in log
    assert "Nothing to segment after training to translate, so no validation" in log
    assert "translate with it by nnunet-da translate with -chk checkpoint_best.pth" in log

    expected = read_checkpoint(fold / "checkpoint_final.pth")
    logged = expected["logging"]
    for name in ("adversarial", "cycle", "kspace", "identity", "segmentation", "discriminators", "val_cycle"):
        assert len(logged[f"translation/{name}"]) == 3
        assert all(map(math.isfinite, logged[f"translation/{name}"])), name
    assert math.isnan(logged["translation/segmentation_of_fakes"][0])
    assert all(map(math.isfinite, logged["translation/segmentation_of_fakes"][1:]))
    assert logged["lrs"] == pytest.approx([1e-4, 1e-4 * 0.05**0.5, 1e-4 * 0.05])
    assert len(expected["optimizer_state"]["translation"]["buffers"]["source"]["images"]) == 3

    # The same again, but stopped at the start of the third epoch.
    for path in fold.glob("*.pth"):
        path.unlink()
    stopped = new(spine)
    original = stopped.on_epoch_start

    def on_epoch_start():
        if stopped.current_epoch == 2:
            raise Stop
        original()

    monkeypatch.setattr(stopped, "on_epoch_start", on_epoch_start)
    with pytest.raises(Stop):
        stopped.run_training()
    run_training(spine.id, "tiny_2d", "0", CYCLEGAN, device=CPU, continue_training=True)
    found = read_checkpoint(fold / "checkpoint_final.pth")
    assert_equal(found["network_weights"], expected["network_weights"])
    assert found["logging"]["translation/cycle"] == expected["logging"]["translation/cycle"]
    for name, buffer in found["optimizer_state"]["translation"]["buffers"].items():
        kept = expected["optimizer_state"]["translation"]["buffers"][name]["images"]
        assert all(torch.equal(one, other) for one, other in zip(buffer["images"], kept, strict=True))

    with pytest.raises(UserError, match="translates images and segments nothing; translate scans with nnunet-da"):
        export(model_folder, tmp_path / "export")
    (tmp_path / "predicted").mkdir()
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model_folder), (0,))
    with pytest.raises(UserError, match="translates images and segments nothing; translate scans with nnunet-da"):
        predictor.predict_from_files_sequential(str(spine.test / "images"), str(tmp_path / "predicted"))


def test_batches_are_of_the_two_domains_and_in_range(spine, configured):
    configured(foreground=1.0)
    run = started(new(spine))
    siemens = set(run.target_cases)
    assert siemens == set(run.domains["siemens_1p5t"].cases)
    train, val = run.do_split()
    assert len(train) == 3
    assert set(train) | set(val) == set(run.domains["philips_3t"].labelled)
    loader = run.dataloader_train.data_loader
    seen = {"source": set(), "target": set()}
    for name, keys in seen.items():
        part = getattr(loader, name)
        for _ in range(20):
            batch = part.generate_train_batch()
            keys |= set(batch["keys"])
            assert 0 <= batch["data"].min() < batch["data"].max() <= 1
            if name == "source":
                assert (batch["target"] == 1).any(dim=(1, 2, 3)).all()
                assert batch["target"].min() == 0
    assert seen == {"source": set(train), "target": siemens}
    batch = next(run.dataloader_train)
    assert batch.keys() == {"source", "labels", "target"}
    assert all(value.shape == (2, 1, 32, 32) for value in batch.values())


def test_patches_lie_within_their_scan(spine, configured):
    run = started(new(spine))
    for name in ("source", "target"):
        loader = getattr(run.dataloader_train.data_loader, name)
        case = loader.indices[0]
        shape = loader._data.load_case(case)[0].shape[1:]
        for voxel in ((0, 0, 0), tuple(length - 1 for length in shape)):
            locations = {(-1, 0, 1): [[0, *voxel]], 1: [[0, *voxel]]}
            starts, stops = loader.get_bbox(shape, True, locations)
            assert all(start >= 0 for start in starts)
            assert all(stop <= length for stop, length in zip(stops, shape, strict=True))
        # One that is smaller lies in the middle.
        assert loader.get_bbox((3, 20, 48), True, {1: [[0, 2, 19, 40]]})[0][1] == -6


def test_the_scale_is_that_of_the_scan(spine, configured):
    configured(percentiles=[0.0, 100.0])
    run = started(new(spine))
    loader = run.dataloader_train.data_loader.target
    for case, found in loader.ranges.items():
        voxels = run.preprocessed_dataset([case]).load_case(case)[0][:]
        assert found.low == pytest.approx(voxels.min())
        assert found.high == pytest.approx(voxels.max())


def test_fake_slices_are_segmented_from_an_epoch_on(spine, configured):
    configured(segment_fakes_after=1)
    run = started(new(spine))
    batch = next(run.dataloader_train)
    segmenter = "generators.to_source.segmenter"
    for epoch, trained in ((0, False), (1, True)):
        run.current_epoch = epoch
        before = state(run)
        losses = run.train_step(batch)
        assert ("segmentation_of_fakes" in losses) == trained
        changed = {name for name, value in state(run).items() if not torch.equal(value, before[name])}
        assert any(name.startswith(segmenter) for name in changed) == trained
        for part in ("generators.to_target", "generators.to_source.decoder", "discriminators.source"):
            assert any(name.startswith(part) for name in changed), part


def test_each_step_trains_its_own_parts(spine, configured):
    run = started(new(spine))
    changed = []
    update = run.update_weights

    def observe(loss, optimizer):
        before = state(run)
        update(loss, optimizer)
        after = state(run)
        changed.append({name.split(".")[0] for name in after if not torch.equal(after[name], before[name])})

    run.update_weights = observe
    run.train_step(next(run.dataloader_train))
    assert changed == [{"generators"}, {"discriminators"}]


def test_the_sum_of_the_losses_is_the_papers(spine, configured):
    configured(weight_kspace=2.0)
    run = started(new(spine))
    losses = {"adversarial": 1.0, "cycle": 1.0, "kspace": 1.0, "identity": 1.0}
    assert run.weighted(losses) == 1 + 10 + 2 + 5
    assert run.weighted({"segmentation": 1.0, "segmentation_of_fakes": 1.0}) == 200


def test_terms_without_weight_are_left_out(spine, configured):
    configured(weight_segmentation=0.0, weight_identity=0.0, weight_kspace=0.0)
    run = started(new(spine))
    assert not any("segmenter" in name for name in run.network.state_dict())
    losses = run.train_step(next(run.dataloader_train))
    assert losses.keys() == {"loss", "adversarial", "cycle", "discriminators"}
    run.on_train_epoch_end([losses])
    with torch.no_grad():
        run.on_validation_epoch_end([run.validation_step(next(run.dataloader_val))])
    assert run.validation_losses() == run.logger.get_value("translation/val_cycle", step=None)


def test_validation_changes_nothing_and_scores_cycle_and_segmentation(spine, configured):
    run = started(new(spine))
    before = state(run)
    with torch.no_grad():
        results = [run.validation_step(next(run.dataloader_val)) for _ in range(2)]
        run.on_validation_epoch_end(results)
    assert_equal(state(run), before)
    tp, fp, fn = (sum(result[name] for result in results) for name in ("tp_hard", "fp_hard", "fn_hard"))
    dice = 2 * tp / (2 * tp + fp + fn)
    cycle = np.mean([result["cycle"] for result in results])
    assert run.validation_losses() == pytest.approx([cycle + 1 - dice.item()])


def test_ignored_voxels_are_not_counted(spine, configured):
    run = started(new(spine))
    ignore = run.label_manager.ignore_label
    labels = torch.tensor([[0, 1], [1, ignore]]).reshape(1, 1, 2, 2)
    logits = torch.zeros(1, 2, 2, 2)
    logits[:, 1] = 1
    counts = run._count(logits, labels)
    assert [float(counts[name].item()) for name in ("tp_hard", "fp_hard", "fn_hard")] == [2, 1, 0]


def test_regions_and_several_channels(regions):
    path = Path(regions.results.parents[1], "preprocessed", regions.results.name, "nnUNetPlans.json")
    kept = path.read_bytes()
    plans = json.loads(kept)
    # Both of its domains have labels: that of the target is not looked at.
    plans["configurations"]["tiny_2d"]["nnunet_da"]["translation"] = SMALL | {"source": "first", "target": "second"}
    path.write_text(json.dumps(plans))
    try:
        run = started(new(regions))
        run.current_epoch = 5
        losses = run.train_step(next(run.dataloader_train))
        assert all(map(math.isfinite, losses.values()))
        assert "segmentation_of_fakes" in losses
        with torch.no_grad():
            result = run.validation_step(next(run.dataloader_val))
        assert result["tp_hard"].shape == (2,)
        run.draw_examples(Path(run.output_folder, "example.png"))
        assert Path(run.output_folder, "example.png").is_file()
    finally:
        path.write_bytes(kept)


def test_held_out_cases_of_the_target_are_not_seen(spine, configured):
    configured(source="philips_3t", target="philips_3t_b")
    with pytest.raises(UserError, match="no domain 'philips_3t_b'"):
        new(spine)
    configured()
    run = new(spine, fold="all")
    assert run.do_split()[0] == run.do_split()[1] == list(run.domains["philips_3t"].labelled)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": None}, r"translation.target: name it, .* \(there: siemens_1p5t, ge_t1\)"),
        ({"source": "ge_t1"}, "translation.source: domain 'ge_t1' has no labelled case"),
        ({"features": [4] * 7}, "plan.patch_size: must be multiples of 64"),
        ({"discriminator_layers": 4}, "discriminator_layers: 4 layers need patches of 48 × 48; got"),
        ({"featurs": [4, 4]}, "translation.featurs: unknown; did you mean 'features'"),
    ],
)
def test_what_it_cannot_do_is_refused(spine, configured, settings, message):
    configured(**settings)
    with pytest.raises(UserError, match=message):
        new(spine)
    assert not spine.results.exists()


def test_what_it_takes_slices_of_two_domains_for(spine, configured, edited_dataset):
    with pytest.raises(UserError, match="translates slices; train a 2d configuration"):
        get_trainer_from_args(spine.id, "tiny_3d", 0, CYCLEGAN, device=CPU).on_train_start()
    edited_dataset(lambda dataset: [dataset.pop("domains"), dataset.pop("subjects", None)])
    with pytest.raises(UserError, match="has no domains to translate between"):
        new(spine)


def test_pretrained_weights_are_refused(spine, configured, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["nnUNetv2_train", "-pretrained_weights", str(tmp_path / "weights.pth")])
    with pytest.raises(UserError, match="-pretrained_weights is not supported"):
        maybe_load_checkpoint(new(spine), False, False, str(tmp_path / "weights.pth"))


def test_the_papers_schedule(spine, configured):
    configured()
    small = (
        "plan.patch_size=32,32",
        "plan.batch_size=5",
        *(
            f"translation.{name}={value}"
            for name, value in (
                ("target", "ge_t1"),
                ("features", "4,8,8"),
                ("discriminator_features", 4),
                ("discriminator_layers", 2),
            )
        ),
    )
    words = [word for change in small for word in ("--set", change)]
    preset = ["configure", "-d", spine.id, "-c", "2d", "--preset", "paper", "-tr", CYCLEGAN, "--as", "p_cyclegan"]
    assert cli.main([*preset, *words]) == 0
    run = started(new(spine, "p_cyclegan"))
    assert run.num_epochs == 50
    dataset = run.preprocessed_dataset(run.do_split()[0])
    slices = sum(dataset.load_case(case)[0].shape[1] for case in dataset.identifiers)
    assert run.num_iterations_per_epoch == -(-slices // 5)
    for optimizer in (run.optimizer, run.discriminator_optimizer):
        assert type(optimizer) is torch.optim.Adam
        assert optimizer.param_groups[0]["lr"] == 1e-4
        assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    run.lr_scheduler.step(49)
    assert run.discriminator_optimizer.param_groups[0]["lr"] == pytest.approx(5e-6)
    assert not run._do_i_compile()


def test_it_is_shorter_than_nnunet_unless_told_otherwise(spine, configured):
    path = spine.preprocessed / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    del plans["configurations"]["tiny_2d"]["nnunet_da"]["num_epochs"]
    path.write_text(json.dumps(plans))
    assert new(spine).num_epochs == 100


def translate(spine, *words):
    model = ("translate", "-d", spine.id, "-c", "tiny_2d", "-device", "cpu", "-np", "1")
    return cli.main([*model, *map(str, words)])


@pytest.fixture
def trained(spine, configured):
    configured({"num_epochs": 1})
    run_training(spine.id, "tiny_2d", "0", CYCLEGAN, device=CPU)
    return spine.results / f"{CYCLEGAN}__nnUNetPlans__tiny_2d"


@pytest.fixture
def new_dataset(environment):
    """Id and name of a dataset to write; removed after the test."""
    yield "511", "Dataset511_Fake"
    for root in (environment.raw, environment.preprocessed):
        for folder in root.glob("*Dataset511_*"):
            shutil.rmtree(folder)


def voxels(path):
    return np.asarray(nibabel.load(path).dataobj)


def test_scans_are_translated_by_their_names(trained, spine, tmp_path, capsys):
    assert translate(spine, "-i", spine.test / "images", "-o", tmp_path / "out") == 0
    assert "6 translated scans, float32 in [0, 1]" in capsys.readouterr().out
    for path in (spine.test / "images").iterdir():
        scan, found = nibabel.load(path), nibabel.load(tmp_path / "out" / path.name)
        assert found.shape == scan.shape
        assert np.allclose(found.affine, scan.affine)
        assert found.get_data_dtype() == np.float32
        assert 0 <= voxels(tmp_path / "out" / path.name).min() < voxels(tmp_path / "out" / path.name).max() <= 1
    assert translate(spine, "--reverse", "-i", spine.test / "images", "-o", tmp_path / "back") == 0
    name = path.name
    assert not np.array_equal(voxels(tmp_path / "out" / name), voxels(tmp_path / "back" / name))
    capsys.readouterr()

    # Two folds: one must be chosen.
    shutil.copytree(trained / "fold_0", trained / "fold_1")
    assert translate(spine, "-i", spine.test / "images", "-o", tmp_path / "other") == 1
    assert "folds 0, 1 are trained; choose one with -f" in capsys.readouterr().err
    assert translate(spine, "-f", "1", "-i", spine.test / "images", "-o", tmp_path / "other") == 0
    assert np.array_equal(voxels(tmp_path / "out" / name), voxels(tmp_path / "other" / name))


def test_a_dataset_of_translated_scans(trained, spine, new_dataset, environment, run_command, capsys, monkeypatch):
    id, name = new_dataset
    staging, folder = environment.raw / f".{name}.translated", environment.raw / name

    # Interrupted, and taken up again.
    write, written = translation._write, []

    def interrupt(translated, scan, place):
        if written:
            raise KeyboardInterrupt
        write(translated, scan, place)
        written.append(scan)

    monkeypatch.setattr(translation, "_write", interrupt)
    assert translate(spine, "--as", id, "--name", "Fake") == 130
    assert not folder.exists()
    first = staging / "philips_3t_001_0000.nii.gz"
    assert first.is_file()
    monkeypatch.setattr(translation, "_write", lambda *given: (write(*given), written.append(given[1])))
    assert translate(spine, "--as", id, "--name", "Fake") == 0
    assert len(written) == 4
    assert not staging.exists()
    assert f"next (first run): nnUNetv2_plan_and_preprocess -d {id}" in capsys.readouterr().out

    content, original = (json.loads((path / "dataset.json").read_text()) for path in (folder, spine.raw))
    domains = read_domains(content)
    assert domains.names == ("philips_3t_as_siemens_1p5t", "siemens_1p5t")
    fakes, targets = domains
    assert fakes.labelled == tuple(original["domains"]["philips_3t"]["labelled"])
    assert targets.unlabelled == tuple(original["domains"]["siemens_1p5t"]["unlabelled"])
    assert not fakes.unlabelled
    assert not targets.labelled
    assert content["labels"] == original["labels"]
    assert {case: domains.subject_of(case) for case in domains.cases} == {
        case: read_domains(original).subject_of(case) for case in domains.cases
    }
    assert "nnUNetTrainerCycleGAN__nnUNetPlans__tiny_2d, fold 0, checkpoint_final.pth" in content["translated_by"]
    for case in domains.cases:
        image, label = f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz"
        assert np.array_equal(voxels(folder / label), voxels(spine.raw / label))
        assert np.allclose(nibabel.load(folder / image).affine, nibabel.load(spine.raw / image).affine)
        assert np.array_equal(voxels(folder / image), voxels(spine.raw / image)) == (case in targets.unlabelled)
    assert {path.name[:-12] for path in (folder / "imagesTr").iterdir()} == set(domains.cases)

    # nnU-Net plans it, and its own trainer trains on the translated cases.
    run_command(
        *("nnUNetv2_plan_and_preprocess", "-d", id, "-c", "2d", "--verify_dataset_integrity"), nnUNet_n_proc_DA="1"
    )
    words = ["configure", "-d", id, "-c", "2d", "--as", "tiny", "--set", "plan.patch_size=32,32"]
    assert cli.main([*words, "--set", "plan.features_per_stage=4,8,8", "--set", "plan.batch_size=2"]) == 0
    stock = get_trainer_from_args(id, "tiny", 0, "nnUNetTrainer", device=CPU)
    stock.on_train_start()
    batch = next(stock.dataloader_train)
    assert set(batch["keys"]) <= set(fakes.labelled)
    assert math.isfinite(stock.train_step(batch)["loss"])
    capsys.readouterr()

    assert translate(spine, "--as", id, "--name", "Fake") == 1
    assert "Dataset511_Fake: exists; replace it with --overwrite" in capsys.readouterr().err
    assert translate(spine, "--as", id, "--name", "Other") == 1
    assert "has the id 511 already" in capsys.readouterr().err
    assert translate(spine, "--as", spine.id, "--name", "Spine") == 1
    assert "--as 501: is the dataset that is translated" in capsys.readouterr().err
    assert not (environment.raw / ".Dataset511_Other.translated").exists()


def test_the_source_is_kept_beside_its_translation(trained, spine, new_dataset, environment, monkeypatch):
    id, name = new_dataset
    conversions, write = [], translated_dataset.write_dataset
    monkeypatch.setattr(
        translated_dataset,
        "write_dataset",
        lambda made, *rest, **more: (conversions.append(made), write(made, *rest, **more)),
    )
    assert translate(spine, "--as", id, "--name", "Fake", "--keep-source") == 0
    assert list(conversions[0].domain_labels) == ["philips_3t", "philips_3t_as_siemens_1p5t", "siemens_1p5t"]
    folder = environment.raw / name
    content, original = (json.loads((path / "dataset.json").read_text()) for path in (folder, spine.raw))
    source, fakes, targets = domains = read_domains(content)
    assert domains.names == ("philips_3t", "philips_3t_as_siemens_1p5t", "siemens_1p5t")
    assert source.labelled == tuple(original["domains"]["philips_3t"]["labelled"])
    assert fakes.labelled == tuple(f"{case}_as_siemens_1p5t" for case in source.labelled)
    assert targets.cases == tuple(original["domains"]["siemens_1p5t"]["unlabelled"])
    for case, fake in zip(source.labelled, fakes.labelled, strict=True):
        assert domains.subject_of(case) == domains.subject_of(fake) == read_domains(original).subject_of(case)
        labels = [voxels(folder / "labelsTr" / f"{name}.nii.gz") for name in (case, fake)]
        assert np.array_equal(*labels)
        images = [voxels(path / "imagesTr" / f"{case}_0000.nii.gz") for path in (folder, spine.raw)]
        assert np.array_equal(*images)
        assert not np.array_equal(images[0], voxels(folder / "imagesTr" / f"{fake}_0000.nii.gz"))
    for split in json.loads((environment.preprocessed / name / "splits_final.json").read_text()):
        subjects = [{domains.subject_of(case) for case in split[part]} for part in ("train", "val")]
        assert subjects[0].isdisjoint(subjects[1])


def test_a_dataset_whose_intensities_have_a_meaning_is_refused(trained, spine, new_dataset, environment, capsys):
    plans = json.loads((trained / "plans.json").read_text())
    plans["configurations"]["2d"]["normalization_schemes"] = ["CTNormalization"]
    (trained / "plans.json").write_text(json.dumps(plans))
    assert translate(spine, "--as", new_dataset[0], "--name", "Fake") == 1
    assert "channel MR is normalised by CTNormalization; translated scans are in [0, 1]" in capsys.readouterr().err
    assert not list(environment.raw.glob("*Dataset511*"))
