"""Scans come back on their own grids, translated as a whole, whatever their orientation; without a trained network."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_da import scans
from nnunet_da.errors import UserError
from nnunet_da.prediction import translation
from nnunet_da.prediction.inputs import check_scan, list_scans
from nnunet_da.prediction.model import Model
from nnunet_da.prediction.preprocessing import preprocess, restore
from nnunet_da.prediction.translation import RECORD, Translator, translate

CPU = torch.device("cpu")
SPACING = (2.0, 1.0, 1.5)  # along R, A, S
SHAPE = (6, 20, 14)
TILE = (12, 8)
ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]


class Inverter(torch.nn.Module):
    """Bright becomes dark; counts what passes."""

    def __init__(self):
        super().__init__()
        self.n_calls = 0

    def forward(self, images, mode, to):
        assert mode == "translate"
        assert images.dtype == torch.float32
        assert tuple(images.shape[2:]) == TILE
        self.n_calls += 1
        return 1 - images if to == "to_target" else images


def model(n_channels=1, spacing=(1.0, 1.5), reader="NibabelIOWithReorient", ending=".nii.gz", masked=False):
    """Of slices across R, with the percentiles 0 and 100."""
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
        "batch_size": 2,
        "patch_size": list(TILE),
        "spacing": list(spacing),
        "normalization_schemes": ["ZScoreNormalization"] * n_channels,
        "use_mask_for_norm": [masked] * n_channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "nnunet_da": {"translation": {"percentiles": [0.0, 100.0]}},
    }
    plans = {
        "dataset_name": "Dataset101_Spine",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        # nnU-Net's arrays have S first: slices across R, rows along A, columns along S.
        "transpose_forward": [2, 1, 0],
        "transpose_backward": [2, 1, 0],
        "configurations": {"2d": configuration},
        "foreground_intensity_properties_per_channel": {str(i): {} for i in range(n_channels)},
    }
    dataset_json = {
        "channel_names": {str(channel): "MR" for channel in range(n_channels)},
        "labels": {"background": 0, "disc": 1},
        "file_ending": ending,
    }
    return Model(Path("model"), ("all",), "checkpoint_final.pth", "T", "2d", {}, plans, dataset_json)


@pytest.fixture(autouse=True)
def network(monkeypatch):
    network = Inverter()
    monkeypatch.setattr(Model, "predictor", lambda self, device, mirroring: SimpleNamespace(network=network))
    # That of a scan is looked at by prediction alone, and these have no intensities to compare with.
    monkeypatch.setattr(Model, "scales", property(lambda self: (None,) * self.n_channels))
    monkeypatch.setattr("nnunet_da.prediction.inputs.look", lambda *_: None)
    return network


def anatomy(seed=0, shape=SHAPE):
    """Smooth noise, positive."""
    return ndimage.gaussian_filter(np.random.default_rng(seed).uniform(100, 900, shape), 1.0).astype(np.float32)


def oriented(voxels, spacing, order, flips):
    """`voxels` (R, A, S) as an image whose axes have another order and direction; the same in space."""
    image = nibabel.Nifti1Image(voxels, np.diag([*spacing, 1.0]))
    return image.as_reoriented(np.column_stack([order, flips]))


def write(folder, name, voxels, spacing=SPACING, orientation=((0, 1, 2), (1, 1, 1))):
    folder.mkdir(exist_ok=True)
    nibabel.save(oriented(voxels, spacing, *orientation), folder / name)


def unit(voxels):
    return (voxels - voxels.min()) / (voxels.max() - voxels.min())


def checked(folder, of):
    return [check_scan(scan) for scan in list_scans(folder, of.scales)]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.integers(0, 5))
def test_a_translated_scan_lies_as_the_scan_does(tmp_path_factory, orientation, seed):
    folder = tmp_path_factory.mktemp("scan")
    voxels = anatomy(seed)
    write(folder, "scan.nii.gz", voxels, orientation=orientation)
    (scan,) = checked(folder, model())
    (found,) = Translator(model(), False, CPU)(scan)
    expected = oriented(1 - unit(voxels), SPACING, *orientation)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == scan.grid.shape
    np.testing.assert_allclose(found, expected.get_fdata(), atol=2e-5)


@pytest.mark.parametrize("spacing", [(0.8, 1.1), (1.3, 2.0)])
def test_it_comes_back_from_another_spacing(tmp_path, spacing):
    of = model(spacing=spacing)
    voxels = ndimage.zoom(anatomy(shape=(6, 10, 7)), (1, 3, 3), order=1)
    write(tmp_path, "scan.nii.gz", voxels, orientation=ORIENTATIONS[30])
    (scan,) = checked(tmp_path, of)
    preprocessed, _, properties = preprocess(scan, of)
    assert preprocessed.shape[2:] != voxels.shape[1:]
    found = restore(preprocessed, properties, of)[0]
    expected = oriented((voxels - voxels.mean()) / voxels.std(), SPACING, *ORIENTATIONS[30]).get_fdata()
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 0.1


def test_what_was_cropped_or_is_no_image_is_0(tmp_path, network):
    voxels = anatomy(shape=(8, 24, 18))
    voxels[:2] = voxels[:, :, -3:] = 0
    voxels[3, :5, :5] = 0
    for masked in (False, True):
        folder = tmp_path / str(masked)
        write(folder, "scan.nii.gz", voxels, orientation=ORIENTATIONS[20])
        (scan,) = checked(folder, model(masked=masked))
        (found,) = Translator(model(masked=masked), False, CPU)(scan)
        none = oriented((voxels == 0).astype(np.float32), SPACING, *ORIENTATIONS[20]).get_fdata() > 0
        assert not found[none].any()
        inside = voxels[voxels > 0]
        low = inside.min()
        image = oriented(1 - np.clip((voxels - low) / (inside.max() - low), 0, 1), SPACING, *ORIENTATIONS[20])
        np.testing.assert_allclose(found[~none], image.get_fdata()[~none], atol=2e-5)


@pytest.mark.parametrize("shape", [(3, 12, 8), (2, 5, 30), (2, 33, 6), (1, 40, 41), (5, 3, 3)])
def test_tiles_join_to_the_slice(shape, network):
    images = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    for reverse, expected in ((False, 1 - images), (True, images)):
        found = Translator(model(2), reverse, CPU).translate_slices(images)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_scale_is_that_of_the_scan_not_of_the_slice(tmp_path):
    voxels = anatomy()
    voxels[2] += 3000
    write(tmp_path, "scan.nii.gz", voxels)
    (found,) = Translator(model(), True, CPU)(*checked(tmp_path, model()))
    np.testing.assert_allclose(found, unit(voxels), atol=2e-5)


def run(folder, output, of=None, **options):
    of = of or model()
    return translate(list_scans(folder, of.scales), folder, output, of, device="cpu", n_processes=1, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_format_comes_back_as_it_is(tmp_path, write_dicom):
    folder = tmp_path / "scans"
    write(folder, "one.nii.gz", anatomy(0))
    write(folder, "two (2).nii", anatomy(1))
    image = sitk.GetImageFromArray(anatomy(2).T)
    image.SetSpacing((2.0000000123, 1.0, 1.5))
    image.SetOrigin((-12.3456789, 4, 7))
    sitk.WriteImage(image, str(folder / "three.mha"))
    write_dicom([folder / "series" / f"{z}.dcm" for z in range(9)], anatomy(3, (12, 10, 9)).astype(np.int16))
    run(folder, tmp_path / "out")
    assert names(tmp_path / "out") == ["one.nii.gz", "series.nii.gz", "three.mha", RECORD, "two (2).nii"]
    found = sitk.ReadImage(str(tmp_path / "out" / "three.mha"))
    for read in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection, sitk.Image.GetSize):
        assert read(found) == read(image)
    assert found.GetPixelID() == sitk.sitkFloat32
    for name in ("one.nii.gz", "two (2).nii"):
        scan, result = nibabel.load(folder / name), nibabel.load(tmp_path / "out" / name)
        assert np.array_equal(result.affine, scan.affine)
        assert result.get_data_dtype() == np.float32
    assert scans.same_grid(
        scans.read_scan(tmp_path / "out" / "series.nii.gz").grid, scans.read_scan(folder / "series").grid
    )


def test_channels_are_files_under_their_own_names(tmp_path):
    for channel in range(2):
        write(tmp_path / "scans", f"a_{channel:04d}.nii.gz", anatomy(channel) * (1 + channel))
    run(tmp_path / "scans", tmp_path / "out", model(2))
    assert names(tmp_path / "out") == ["a_0000.nii.gz", "a_0001.nii.gz", RECORD]
    for channel in range(2):
        found = nibabel.load(tmp_path / "out" / f"a_{channel:04d}.nii.gz").get_fdata()
        np.testing.assert_allclose(found, 1 - unit(anatomy(channel)), atol=2e-5)
    with pytest.raises(UserError, match=r"the model takes 3 channels, but scan 'a' has 2"):
        run(tmp_path / "scans", tmp_path / "other", model(3))


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, network):
    folder, output = tmp_path / "scans", tmp_path / "out"
    for index in range(3):
        write(folder, f"{index}.nii.gz", anatomy(index))
    write_result, written = translation._write, []

    def interrupt(translated, scan, place):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(scan.files.name)
        write_result(translated, scan, place)

    monkeypatch.setattr(translation, "_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(folder, output)
    assert names(output) == ["0.nii.gz", RECORD]
    first = (output / "0.nii.gz").stat().st_mtime_ns
    monkeypatch.setattr(translation, "_write", write_result)
    assert list(run(folder, output)["scans"]) == ["0", "1", "2"]
    assert (output / "0.nii.gz").stat().st_mtime_ns == first
    record = json.loads((output / RECORD).read_text())
    assert record["reverse"] is False
    assert record["written_by"] == "nnunet-da translate"

    # Nothing is left to do, but for a scan that has changed, and one that is gone.
    n_calls = network.n_calls
    run(folder, output)
    assert network.n_calls == n_calls
    write(folder, "1.nii.gz", anatomy(7))
    (output / "2.nii.gz").unlink()
    run(folder, output)
    assert (output / "0.nii.gz").stat().st_mtime_ns == first
    np.testing.assert_allclose(nibabel.load(output / "1.nii.gz").get_fdata(), 1 - unit(anatomy(7)), atol=2e-5)
    assert (output / "2.nii.gz").is_file()

    with pytest.raises(UserError, match="holds results made with another reverse; choose another, or --overwrite"):
        run(folder, output, reverse=True)
    run(folder, output, reverse=True, overwrite=True)
    np.testing.assert_allclose(nibabel.load(output / "0.nii.gz").get_fdata(), unit(anatomy(0)), atol=2e-5)


def test_bad_scans_are_refused_before_anything_is_written(tmp_path):
    folder, output = tmp_path / "scans", tmp_path / "out"
    write(folder, "good.nii.gz", anatomy())
    write(folder, "flat.nii.gz", np.ones(SHAPE, np.float32))
    with pytest.raises(UserError, match=r"flat\.nii\.gz: is constant"):
        run(folder, output)
    assert not output.exists()
    (folder / "flat.nii.gz").unlink()
    with pytest.raises(UserError, match="lies among the scans"):
        run(folder, folder / "out")
    output.mkdir()
    (output / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files"):
        run(folder, output)
