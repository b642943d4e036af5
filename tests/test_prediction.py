"""Prediction without a trained network: a stand-in for nnU-Net's predictor segments what is bright."""

import json
import os
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.errors import UserError
from nnunet_da.prediction import profiles, workflow
from nnunet_da.prediction.features import random_patches
from nnunet_da.prediction.inputs import ScanFiles, check_scan, itk_geometry, list_scans, stage
from nnunet_da.prediction.model import Model, choose_device, model_folder, open_model
from nnunet_da.prediction.outputs import write_result
from nnunet_da.prediction.profiles import Scale
from nnunet_da.prediction.training_scans import FILE_NAME, training_profiles
from nnunet_da.prediction.workflow import predict

DATA = Path(os.environ.get("NNUNET_DA_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
ONE = (Scale(),)
SHAPE = (7, 6, 5)
OBLIQUE = np.array([[0.0, 0.1, -0.995], [1.0, 0.0, 0.0], [0.0, -0.995, -0.1]])
OBLIQUE, _ = np.linalg.qr(OBLIQUE)


def voxels_for(name, shape=SHAPE):
    return np.random.default_rng(list(name.encode())).integers(1, 200, shape).astype(np.int16)


def itk_image(name, shape=SHAPE):
    image = sitk.GetImageFromArray(voxels_for(name, shape).T)
    image.SetSpacing((1.234567890123, 0.7, 3.3))
    image.SetOrigin((-123.456789012, 45.6, 7.8901234567))
    image.SetDirection(OBLIQUE.ravel())
    return image


@pytest.fixture
def scans_folder(tmp_path, write_dicom):
    """A scan in every format, under names of all kinds."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("one.nii.gz", "zwei (2).nii", "trois.v1.mha", "quattro_0003.mhd", "fünf.nrrd"):
        sitk.WriteImage(itk_image(name), str(folder / name))
    series = folder / "1.2.840 six"
    write_dicom([series / f"{z}.dcm" for z in range(SHAPE[2])], voxels_for(series.name), origin=(-5, 4, 0))
    return folder


class BrightPredictor:
    """Labels 1 where the first channel is above 100; stops where it is told to."""

    def __init__(self, ending=".nii.gz"):
        self.dataset_json = {"file_ending": ending}
        self.staged = []
        self.stop_at = None

    def predict_from_files_sequential(self, inputs, outputs):
        ((first, *_),) = inputs
        self.staged.append(Path(first))
        if self.stop_at == len(self.staged):
            raise KeyboardInterrupt
        image = sitk.ReadImage(first)
        sitk.WriteImage(sitk.Cast(image > 100, sitk.sitkUInt8), f"{outputs[0]}{self.dataset_json['file_ending']}")


@pytest.fixture
def model(tmp_path):
    """A model whose predictor is `BrightPredictor`, in `model.bright`; without training scans."""
    return make_model(tmp_path / "results" / "Dataset101_Spine" / "nnUNetTrainer__nnUNetPlans__3d")


def make_model(folder, channels=("MR",), domains=None, ending=".nii.gz", reader="NibabelIOWithReorient", **keywords):
    folder.mkdir(parents=True, exist_ok=True)

    class FakeModel(Model):
        bright = BrightPredictor(ending)

        def predictor(self, device, mirroring, test_time=None):
            return self.bright

    configuration = {
        "normalization_schemes": keywords.pop("schemes", ["ZScoreNormalization"] * len(channels)),
        "use_mask_for_norm": [False] * len(channels),
        "architecture": {},
    }
    plans = {
        "dataset_name": "Dataset101_Spine",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "configurations": {"3d": configuration},
        "foreground_intensity_properties_per_channel": {"0": {"mean": 40.0, "std": 20.0}},
    }
    dataset_json = {
        "channel_names": {str(index): name for index, name in enumerate(channels)},
        "labels": {"background": 0, "disc": 1, "ignore": 2},
        "file_ending": ending,
        **({"domains": domains} if domains else {}),
    }
    return FakeModel(folder, ("0",), "checkpoint_final.pth", "nnUNetTrainer", "3d", {"0": "ab"}, plans, dataset_json)


def run(model, scans_folder, output, **keywords):
    return predict(scans_folder, output, model, device="cpu", n_preprocessing=0, **keywords)


def snapshot(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_every_scan_gets_a_result_of_its_name_format_and_grid(model, scans_folder, tmp_path, capsys):
    before = {path: path.read_bytes() for path in scans_folder.rglob("*") if path.is_file()}
    record = run(model, scans_folder, tmp_path / "out")
    results = {
        "one": "one.nii.gz",
        "zwei (2)": "zwei (2).nii",
        "trois.v1": "trois.v1.mha",
        "quattro_0003": "quattro_0003.mhd",
        "fünf": "fünf.nrrd",
        "1.2.840 six": "1.2.840 six.nii.gz",
    }
    assert {name: entry["result"] for name, entry in record["scans"].items()} == results
    present = {path.name for path in (tmp_path / "out").iterdir()}
    assert present == {*results.values(), "quattro_0003.zraw", "prediction.json"}
    for result in results.values():
        prediction = sitk.ReadImage(str(tmp_path / "out" / result))
        if result.startswith("1.2.840"):
            reader = sitk.ImageSeriesReader()
            folder = str(scans_folder / "1.2.840 six")
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
            # Only NIfTI has to round, to single precision.
            scan, tolerance = reader.Execute(), 1e-6
        else:
            scan, tolerance = sitk.ReadImage(str(scans_folder / result)), 1e-12
        assert prediction.GetSize() == scan.GetSize()
        for read in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection):
            np.testing.assert_allclose(read(prediction), read(scan), rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(prediction), sitk.GetArrayFromImage(scan) > 100)
        assert prediction.GetPixelID() == sitk.sitkUInt8

    assert {path: path.read_bytes() for path in scans_folder.rglob("*") if path.is_file()} == before
    assert all(not staged.is_relative_to(scans_folder) for staged in model.bright.staged)
    assert all(not staged.parent.exists() for staged in model.bright.staged)
    assert capsys.readouterr().out.count("not compared with the training domains") == 1


def test_what_is_written_beside_names_the_model_and_no_place(model, scans_folder, tmp_path):
    run(model, scans_folder, tmp_path / "out", mirroring=False)
    text = (tmp_path / "out" / "prediction.json").read_text()
    record = json.loads(text)
    assert record["model"] == {
        "folder": "Dataset101_Spine/nnUNetTrainer__nnUNetPlans__3d",
        "trainer": "nnUNetTrainer",
        "plans": "nnUNetPlans",
        "configuration": "3d",
        "folds": ["0"],
        "checkpoint": "checkpoint_final.pth",
        "checkpoint_digests": {"0": "ab"},
    }
    assert record["mirroring"] is False
    assert record["postprocessing"] == "none"
    assert {"nnunet-da", "nnunetv2", "torch", "python"} <= record["versions"].keys()
    assert record["date"].endswith("+00:00")
    assert record["scans"]["one"]["files"] == ["one.nii.gz"]
    assert str(tmp_path) not in text
    assert tempfile.gettempdir() not in text


def test_a_run_goes_on_where_it_was_interrupted(model, scans_folder, tmp_path):
    output = tmp_path / "out"
    model.bright.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        run(model, scans_folder, output)
    assert all(not staged.parent.exists() for staged in model.bright.staged)
    interrupted = snapshot(output)
    finished = json.loads(interrupted["prediction.json"])["scans"]
    assert len(finished) == 3

    model.bright.stop_at = None
    model.bright.staged.clear()
    record = run(model, scans_folder, output)
    assert len(model.bright.staged) == 3
    assert len(record["scans"]) == 6
    for entry in finished.values():
        assert (output / entry["result"]).read_bytes() == interrupted[entry["result"]]
    # Nothing is left to do, until a scan changes, a result is lost, or all is wanted again.
    model.bright.staged.clear()
    complete = snapshot(output)
    run(model, scans_folder, output)
    assert model.bright.staged == []
    assert snapshot(output) == complete
    sitk.WriteImage(itk_image("another"), str(scans_folder / "one.nii.gz"))
    (output / "fünf.nrrd").unlink()
    run(model, scans_folder, output)
    assert len(model.bright.staged) == 2
    run(model, scans_folder, output, overwrite=True)
    assert len(model.bright.staged) == 8


def test_results_that_are_complete_are_kept_when_a_batch_is_interrupted(model, scans_folder, tmp_path, monkeypatch):
    def run_nnunet(predictor, inputs, results, *others):
        for number, (paths, result) in enumerate(zip(inputs, results, strict=True)):
            if number == 3:
                # A worker that was ended while it wrote.
                Path(f"{result}.nii.gz").write_bytes(Path(f"{results[0]}.nii.gz").read_bytes()[:60])
                raise KeyboardInterrupt
            predictor.predict_from_files_sequential([list(map(str, paths))], [str(result)])

    monkeypatch.setattr(workflow, "_run_nnunet", run_nnunet)
    with pytest.raises(KeyboardInterrupt):
        predict(scans_folder, tmp_path / "out", model, device="cpu", n_preprocessing=1, n_saving=1)
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert len(record["scans"]) == 3
    assert all((tmp_path / "out" / entry["result"]).is_file() for entry in record["scans"].values())
    assert len(list((tmp_path / "out").glob("[!p.]*.*"))) <= 4  # three results, one perhaps with its voxels apart


def test_several_channels_reach_nnunet_in_order_on_one_grid(tmp_path):
    model = make_model(tmp_path / "model", channels=("fat", "water"))
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a_0000.nrrd", "a_0001.nrrd", "b_0000.nrrd", "b_0001.nrrd"):
        sitk.WriteImage(itk_image(name), str(folder / name))
    record = run(model, folder, tmp_path / "out")
    assert [entry["result"] for entry in record["scans"].values()] == ["a.nrrd", "b.nrrd"]
    assert record["scans"]["a"]["files"] == ["a_0000.nrrd", "a_0001.nrrd"]

    scan = check_scan(list_scans(folder, model.scales)[0])
    first, second = map(nibabel.load, stage(scan, tmp_path, "staged", ".nii.gz"))
    np.testing.assert_array_equal(first.get_fdata(), voxels_for("a_0000.nrrd"))
    np.testing.assert_array_equal(second.get_fdata(), voxels_for("a_0001.nrrd"))
    np.testing.assert_array_equal(first.affine, second.affine)


def test_models_of_other_formats_get_scans_in_theirs(tmp_path, scans_folder):
    model = make_model(tmp_path / "model", ending=".mha", reader="SimpleITKIO")
    run(model, scans_folder, tmp_path / "out")
    assert {staged.name for staged in model.bright.staged} == {"scan0000_0000.mha"}
    result = sitk.ReadImage(str(tmp_path / "out" / "one.nii.gz"))
    scan = sitk.ReadImage(str(scans_folder / "one.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result), sitk.GetArrayFromImage(scan) > 100)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_geometry_of_itk_and_affine_are_one(seed):
    generator = np.random.default_rng(seed)
    direction, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    spacing, origin = generator.uniform(0.1, 5, 3), generator.normal(0, 100, 3)
    image = sitk.Image(4, 5, 6, sitk.sitkUInt8)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction.ravel())
    affine = np.eye(4)
    affine[:3] = np.column_stack([direction * spacing, origin])
    affine[:2] *= -1
    index = tuple(int(i) for i in generator.integers(0, 4, 3))
    in_ras = affine @ [*index, 1]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), in_ras[:3] * [-1, -1, 1], atol=1e-9)
    for found, expected in zip(itk_geometry(affine), (spacing, origin, direction), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_names_that_end_in_numbers(tmp_path):
    def names(*files, scales=ONE):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        for file in files:
            (folder / file).touch()
        return [scan.name for scan in list_scans(folder, scales)]

    assert names("a_0000.nii", "b_0000.mha") == ["a", "b"]
    # Patients, not channels: the model has one.
    assert names("patient_0001.nii", "patient_0002.nii") == ["patient_0001", "patient_0002"]
    assert names("a_0000.nii", "a_0001.nii") == ["a_0000", "a_0001"]
    assert names("a_0000.nii", "a_0001.nii", scales=ONE * 2) == ["a"]


@pytest.mark.parametrize(
    ("files", "n_channels", "message"),
    [
        ([], 1, "holds no scans"),
        (["notes.txt"], 1, "holds no scans"),
        (["a.docx"], 1, r"a\.docx: cannot read this format"),
        (["a.nii", "a.mha"], 1, "has the same name as"),
        (["a_0000.nii", "a_0001.nii"], 3, "takes 3 channels, but scan 'a' has 2; name them a_0000, …, a_0002"),
        (["a.nii", "b.nii"], 2, "takes 2 channels, but scan 'a' has 1"),
    ],
)
def test_folders_that_cannot_be_predicted(tmp_path, files, n_channels, message):
    folder = tmp_path / "scans"
    folder.mkdir()
    for file in files:
        (folder / file).touch()
    model = make_model(tmp_path / "model", channels=("MR",) * n_channels)
    with pytest.raises(UserError, match=message) as raised:
        run(model, folder, tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_scan_that_cannot_be_read_stops_all_before_anything_is_written(model, scans_folder, tmp_path):
    whole = (scans_folder / "one.nii.gz").read_bytes()
    (scans_folder / "one.nii.gz").write_bytes(whole[:-30])
    with pytest.raises(UserError, match=r"one\.nii\.gz: not a readable NIfTI file"):
        run(model, scans_folder, tmp_path / "out")
    (scans_folder / "one.nii.gz").write_bytes(whole)
    sitk.WriteImage(itk_image("constant") * 0, str(scans_folder / "fünf.nrrd"))
    with pytest.raises(UserError, match=r"fünf\.nrrd: is constant"):
        run(model, scans_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert model.bright.staged == []


def test_channels_on_different_grids_are_refused(tmp_path):
    model = make_model(tmp_path / "model", channels=("fat", "water"))
    (tmp_path / "scans").mkdir()
    sitk.WriteImage(itk_image("a"), str(tmp_path / "scans" / "a_0000.mha"))
    moved = itk_image("b")
    moved.SetOrigin((0, 0, 0))
    sitk.WriteImage(moved, str(tmp_path / "scans" / "a_0001.mha"))
    with pytest.raises(UserError, match=r"a_0001\.mha: does not lie on the grid of a_0000\.mha"):
        run(model, tmp_path / "scans", tmp_path / "out")


def test_output_folders_that_hold_something_else(model, scans_folder, tmp_path):
    output = tmp_path / "out"
    for inside in (scans_folder, scans_folder / "out"):
        with pytest.raises(UserError, match="lies among the scans"):
            run(model, scans_folder, inside)
    output.mkdir()
    (output / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files"):
        run(model, scans_folder, output)
    assert [path.name for path in output.iterdir()] == ["thesis.tex"]
    run(model, scans_folder, output, overwrite=True)
    assert (output / "thesis.tex").exists()
    with pytest.raises(UserError, match=r"thesis\.tex: is no result of this model"):
        run(model, scans_folder, output)
    (output / "thesis.tex").unlink()

    with pytest.raises(UserError, match="holds results made with another mirroring"):
        run(model, scans_folder, output, mirroring=False)
    model.digests["0"] = "trained again"
    with pytest.raises(UserError, match="holds results made with another model"):
        run(model, scans_folder, output)
    (output / "prediction.json").write_text("[]")
    with pytest.raises(UserError, match="not a record of results"):
        run(model, scans_folder, output)
    with pytest.raises(UserError, match="is a file"):
        run(model, scans_folder, output / "prediction.json")


def test_what_nnunet_raises_is_one_line(model, scans_folder, tmp_path, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(BrightPredictor, "predict_from_files_sequential", fail)
    with pytest.raises(UserError, match=r"nnU-Net stopped while predicting: CUDA out of memory\.$"):
        run(model, scans_folder, tmp_path / "out")
    monkeypatch.setattr(BrightPredictor, "predict_from_files_sequential", lambda *_: None)
    with pytest.raises(UserError, match="left no complete prediction"):
        run(model, scans_folder, tmp_path / "out")


def test_a_result_keeps_the_header_of_a_scan_that_does_not_say_how_it_lies(tmp_path, model):
    (tmp_path / "scans").mkdir()
    image = nibabel.Nifti1Image(voxels_for("a"), None)
    image.header.set_zooms((2, 3, 4))
    nibabel.save(image, tmp_path / "scans" / "a.nii.gz")
    record = run(model, tmp_path / "scans", tmp_path / "out")
    result = nibabel.load(tmp_path / "out" / "a.nii.gz")
    assert result.header["sform_code"] == result.header["qform_code"] == 0
    assert result.header.get_zooms() == (2, 3, 4)
    assert "does not say how the scan lies" in record["scans"]["a"]["warnings"][0]


def test_labels_above_255_survive(tmp_path, scans_folder):
    scan = check_scan(ScanFiles("one", (scans_folder / "one.nii.gz",), ONE))
    prediction = np.full(SHAPE, 700, np.uint16)
    write_result(prediction, scan, tmp_path)
    assert (nibabel.load(tmp_path / "one.nii.gz").get_fdata() == 700).all()


# What training domains are like


def random_look(seed, sizes=(2.0, 1, 1, 60, 300, 250), sharpness=1.0, shape=(30, 30, 30)):
    """A scan of `sizes` whose intensities are gamma-distributed: the larger `sharpness`, the longer the tail."""
    generator = np.random.default_rng(seed)
    voxels = generator.gamma(1 / sharpness, 1, shape)
    described = profiles.look([voxels], np.diag([*sizes[:3], 1.0]), ONE)
    return profiles.Look(np.array(sizes, float) * generator.uniform(0.97, 1.03), "RAS", described.quantiles)


def test_a_scan_is_described_by_what_lies_along_the_axes_of_the_body():
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = 1.5, -2.0, 3.0, 1
    voxels = np.random.default_rng(0).normal(100, 10, (20, 30, 40))
    described = profiles.look([voxels], affine, ONE)
    assert described.orientation == "AIR"
    np.testing.assert_allclose(described.sizes, [3, 1.5, 2, 120, 30, 60])
    # Quantiles of a normal distribution, and the same for a linear change of contrast.
    from scipy.stats import norm

    np.testing.assert_allclose(described.quantiles[0], norm.ppf(profiles.PROBABILITIES), atol=0.05)
    changed = profiles.look([-3 + 7 * voxels], affine, ONE)
    np.testing.assert_allclose(changed.quantiles, described.quantiles, atol=1e-6)


def test_air_around_the_scan_is_left_out_and_ct_keeps_its_units():
    voxels = np.random.default_rng(0).normal(100, 10, (20, 20, 20))
    padded = np.pad(voxels, 15)
    np.testing.assert_allclose(
        profiles.look([padded], np.eye(4), ONE).quantiles, profiles.look([voxels], np.eye(4), ONE).quantiles
    )
    sparse = np.where(np.random.default_rng(1).random(voxels.shape) < 0.5, 0, voxels)
    masked = profiles.look([sparse], np.eye(4), (Scale(masked=True),))
    np.testing.assert_allclose(masked.quantiles, profiles.look([voxels], np.eye(4), ONE).quantiles, atol=0.15)
    in_units = profiles.look([voxels], np.eye(4), (Scale((40.0, 20.0)),))
    np.testing.assert_allclose(in_units.quantiles[0], (np.quantile(voxels, profiles.PROBABILITIES) - 40) / 20)


def test_the_distance_of_intensities_is_that_of_wasserstein():
    from scipy.stats import wasserstein_distance

    generator = np.random.default_rng(0)
    one, other = generator.gamma(1, 1, 40**3), generator.normal(0, 1, 40**3)
    looks = [profiles.look([values.reshape(40, 40, 40)], np.eye(4), ONE) for values in (one, other)]
    standardised = [(values - values.mean()) / values.std() for values in (one, other)]
    distance = np.abs(looks[0].quantiles - looks[1].quantiles).mean()
    assert distance == pytest.approx(wasserstein_distance(*standardised), rel=0.1)


def test_spread_is_the_largest_distance_from_the_others():
    looks = [random_look(seed) for seed in range(3)]
    for look, factor in zip(looks, (1, 1, 2), strict=True):
        look.sizes[:] = np.array([2.0, 1, 1, 60, 300, 250])
        look.sizes[4] *= factor
    # Of the scan twice as long from the median of the two others; and of these from the median of it and one.
    assert profiles.profile("d", looks).geometry_spread == pytest.approx(np.log(2))
    assert profiles.profile("d", looks[:1]).geometry_spread == 0


def test_scans_like_a_domain_are_let_through_and_others_are_not():
    domains = [
        profiles.profile("sharp", [random_look(seed, sharpness=3) for seed in range(6)]),
        profiles.profile("plain", [random_look(seed, sharpness=0.1) for seed in range(6)]),
    ]
    for seed in range(20, 30):
        assert profiles.compare(random_look(seed, sharpness=3), domains, True).reasons == ()
    found = profiles.compare(random_look(40, sharpness=0.1), domains, True)
    assert (found.domain, found.reasons) == ("plain", ())
    assert found.deviation < 1

    between = profiles.compare(random_look(50, sharpness=0.8), domains, True)
    assert between.deviation > 1
    assert "SD away" in between.reasons[0]
    coarse = random_look(60, sizes=(2.0, 1, 4, 60, 300, 250), sharpness=3)
    far = profiles.compare(coarse, domains, True)
    assert far.domain == "sharp"
    assert far.reasons == (f"voxel size head-foot {coarse.sizes[2]:.3g} mm, there {domains[0].sizes[2]:.3g} mm",)


def test_orientation_counts_only_where_the_model_reads_voxels_as_they_are_stored():
    looks = [random_look(seed) for seed in range(4)]
    domains = [profiles.profile("d", looks)]
    turned = profiles.Look(looks[0].sizes, "PIR", looks[0].quantiles)
    assert profiles.compare(turned, domains, reorients=True).reasons == ()
    assert profiles.compare(turned, domains, reorients=False).reasons == ("stored as PIR, not RAS",)


@pytest.fixture
def trained_on(nnunet_folders, write_scan):
    """A model of two domains whose training scans lie in nnUNet_raw."""
    images = nnunet_folders.raw / "Dataset101_Spine" / "imagesTr"
    blocks = {
        "near": {"labelled": ["n1", "n2", "n3"], "affine": np.diag([2.0, 1.5, 1.0, 1.0])},
        "far": {"unlabelled": ["f1", "f2"], "affine": np.diag([6.0, 0.5, 0.5, 1.0])},
    }
    domains = {}
    for name, block in blocks.items():
        affine = block.pop("affine")
        domains[name] = {"labels": ["disc"], **block}
        for case in (case for cases in block.values() for case in cases):
            write_scan(images / f"{case}_0000.nii.gz", affine=affine)
    folder = nnunet_folders.results / "Dataset101_Spine" / "nnUNetTrainer__nnUNetPlans__3d"
    return make_model(folder, domains=domains)


def test_profiles_are_made_once_and_name_no_case(trained_on, nnunet_folders):
    domains, notes = training_profiles(trained_on, 1)
    assert notes == []
    assert [(domain.name, domain.n_scans) for domain in domains] == [("near", 3), ("far", 2)]
    np.testing.assert_allclose(domains[1].sizes, [6, 0.5, 0.5, 48, 4.5, 5])
    path = trained_on.folder / FILE_NAME
    assert not any(case in path.read_text() for case in ("n1", "n2", "f1", "f2", str(nnunet_folders.raw)))
    # From then on the training scans are not needed.
    for image in (nnunet_folders.raw / "Dataset101_Spine" / "imagesTr").iterdir():
        image.unlink()
    again, notes = training_profiles(trained_on, 1)
    assert notes == []
    for one, other in zip(again, domains, strict=True):
        assert (one.name, one.n_scans, one.orientations) == (other.name, other.n_scans, other.orientations)
        np.testing.assert_allclose(one.quantiles, other.quantiles, atol=1e-4)
        assert one.intensity_spread == pytest.approx(other.intensity_spread, abs=1e-4)

    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))
    with pytest.raises(UserError, match="was written by another version"):
        training_profiles(trained_on, 1)
    path.write_text('{"format": 1, "domains": [{"name": "near"}]}')
    with pytest.raises(UserError, match="not a file of domain profiles"):
        training_profiles(trained_on, 1)


def test_unusual_scans_are_named_with_what_is_unusual(trained_on, write_scan, tmp_path, capsys):
    write_scan(tmp_path / "scans" / "usual.nii.gz", affine=np.diag([2.0, 1.5, 1.0, 1.0]))
    write_scan(tmp_path / "scans" / "unusual.nii.gz", affine=np.diag([2.0, 1.5, 9.0, 1.0]))
    record = run(trained_on, tmp_path / "scans", tmp_path / "out")
    assert record["compared_with"] == ["near", "far"]
    assert record["scans"]["usual"]["warnings"] == []
    assert record["scans"]["usual"]["most_like"] == "near"
    (warning,) = record["scans"]["unusual"]["warnings"]
    assert warning == "unlike every training domain; most like near, but voxel size head-foot 9 mm, there 1 mm"
    assert capsys.readouterr().err.count("warning:") == 1


def test_training_scans_that_are_missing_are_said_once(trained_on, nnunet_folders, monkeypatch):
    for case in ("f1", "f2"):
        (nnunet_folders.raw / "Dataset101_Spine" / "imagesTr" / f"{case}_0000.nii.gz").unlink()
    domains, (note,) = training_profiles(trained_on, 1)
    assert domains == []
    assert "holds no scan of domain 'far'" in note
    monkeypatch.delenv("nnUNet_raw")
    domains, (note,) = training_profiles(trained_on, 1)
    assert domains == []
    assert "nnUNet_raw is not set" in note


def test_a_dataset_without_domains_is_one_domain(nnunet_folders, write_scan):
    for case in ("a", "b"):
        write_scan(nnunet_folders.raw / "Dataset101_Spine" / "imagesTr" / f"{case}_0000.nii.gz")
    model = make_model(nnunet_folders.results / "model")
    ((domain,), _) = training_profiles(model, 1)
    assert (domain.name, domain.n_scans) == ("training", 2)


def test_intensities_of_ct_are_scaled_by_the_plan(tmp_path):
    assert make_model(tmp_path / "ct", schemes=["CTNormalization"]).scales == (Scale((40.0, 20.0)),)
    assert make_model(tmp_path / "mr").scales == ONE


@pytest.mark.skipif(
    not (DATA / "spine_vb").is_dir(), reason="the real scans are not here; NNUNET_DA_REAL_DATA names their folder"
)
def test_real_scans_of_another_scanner_and_sequence_are_told_from_those_of_training():
    fixed = json.loads((DATA / "splits.json").read_text())["spine_vb"]

    def looks(cases):
        files = [ScanFiles(case, (DATA / "spine_vb" / "images" / f"{case}.nii.gz",), ONE) for case in cases]
        return [check_scan(scan).look for scan in files]

    t2 = profiles.profile("vb2", looks(fixed["vb2"]["train"]))
    t1 = profiles.profile("vb3", looks(fixed["vb3"]["train"]))
    for scan in looks(fixed["vb2"]["test"]):
        assert profiles.compare(scan, [t2], True).reasons == ()
        assert profiles.compare(scan, [t2, t1], True).domain == "vb2"
    for scan in looks(fixed["vb3"]["test"]):
        assert profiles.compare(scan, [t2, t1], True).domain == "vb3"
        assert profiles.compare(scan, [t1], True).reasons == ()
        assert any("SD away" in reason for reason in profiles.compare(scan, [t2], True).reasons)


# Models and patches


def test_models_that_cannot_be_used(nnunet_folders):
    trained = nnunet_folders.results / "Dataset101_Spine" / "nnUNetTrainerIntensityDA__nnUNetPlans__3d_fullres"
    trained.mkdir(parents=True)
    names = ("nnUNetTrainerIntensityDA", "nnUNetPlans")
    with pytest.raises(UserError, match="no such trained model; did you mean 'nnUNetTrainerIntensityDA__nnUNetPlans"):
        model_folder(101, "3d_fulres", *names)
    assert model_folder(101, "3d_fullres", *names) == trained
    with pytest.raises(UserError, match="no such trained model"):
        open_model(trained / "absent")
    with pytest.raises(UserError, match=r"plans\.json: no such file"):
        open_model(trained)
    (trained / "plans.json").write_text('{"configurations": {}, "plans_name": "nnUNetPlans"}')
    (trained / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match=r"dataset\.json: 'channel_names' is missing"):
        open_model(trained)
    (trained / "dataset.json").write_text('{"channel_names": {"0": "MR"}, "file_ending": ".nii.gz"}')
    with pytest.raises(UserError, match=r"no fold has checkpoint_final\.pth; is the training finished"):
        open_model(trained)
    (trained / "fold_0").mkdir()
    (trained / "fold_0" / "checkpoint_best.pth").write_bytes(b"cut short")
    with pytest.raises(
        UserError, match=r"checkpoint_bst\.pth: no such checkpoint; did you mean 'checkpoint_best\.pth'"
    ):
        open_model(trained, ["0"], "checkpoint_bst.pth")
    with pytest.raises(UserError, match=r"checkpoint_best\.pth: "):
        open_model(trained, ["0"], "checkpoint_best.pth")


def test_a_device_that_is_not_there():
    assert choose_device("cpu").type == "cpu"
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert choose_device().type == "cpu"
    with pytest.raises(UserError, match="torch finds no CUDA device"):
        choose_device("cuda")


@pytest.mark.parametrize("patch_size", [(3, 4, 4), (4, 4), (9, 4, 20)])
def test_patches_lie_within_the_scan_and_are_padded_where_it_is_smaller(patch_size):
    data = 1 + np.arange(2 * 5 * 6 * 7, dtype=np.float64).reshape(2, 5, 6, 7)
    patches = list(random_patches(data, patch_size, 40, np.random.default_rng(0)))
    assert {patch.shape for patch in patches} == {(2, *patch_size)}
    assert all(patch.dtype == np.float32 for patch in patches)
    size = np.array(patch_size if len(patch_size) == 3 else (1, *patch_size))
    inside = np.minimum(size, data.shape[1:])
    for patch in patches:
        assert (patch != 0).sum() == 2 * inside.prod()
    first_voxels = {patch[patch != 0][0] for patch in patches}
    n_places = np.prod(np.array(data.shape[1:]) - inside + 1)
    assert min(n_places, 10) <= len(first_voxels) <= n_places
    again = random_patches(data, patch_size, 40, np.random.default_rng(0))
    assert all(np.array_equal(one, other) for one, other in zip(patches, again, strict=True))
