"""`nnunet-da predict` with a trained network: nnU-Net's own predictions, under the scans' names and on their grids."""

import json
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import run_training

from nnunet_da import cli

TRAINER = "nnUNetTrainerIntensityDA"


@pytest.fixture
def trained(spine, fresh_results):
    run_training(spine.id, "tiny_2d", "0", TRAINER, device=torch.device("cpu"))
    return spine.results / f"{TRAINER}__nnUNetPlans__tiny_2d"


def test_predictions_equal_those_of_nnunet(trained, spine, tmp_path, capsys):
    names = {path.name.removesuffix("_0000.nii.gz"): path for path in (spine.test / "images").glob("*.nii.gz")}
    scans = tmp_path / "scans"
    scans.mkdir()
    as_mha, as_nifti = sorted(names)[:2]
    sitk.WriteImage(sitk.ReadImage(str(names[as_mha])), str(scans / "Patient (1).mha"))
    shutil.copy(names[as_nifti], scans / "another.nii.gz")

    (tmp_path / "nnunet").mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(trained), (0,))
    for name, path in (("Patient (1)", names[as_mha]), ("another", names[as_nifti])):
        predictor.predict_from_files_sequential([[str(path)]], [str(tmp_path / "nnunet" / name)])

    words = ["predict", "-i", scans, "-o", tmp_path / "out", "-d", spine.id, "-c", "tiny_2d", "-tr", TRAINER]
    words = [*map(str, words), "-f", "0", "-device", "cpu", "-npp", "0"]
    capsys.readouterr()
    assert cli.main(words) == 0
    assert "2 predictions, " in capsys.readouterr().out
    for result in ("Patient (1).mha", "another.nii.gz"):
        expected = nibabel.load(tmp_path / "nnunet" / f"{result.split('.')[0]}.nii.gz").get_fdata()
        found = sitk.ReadImage(str(tmp_path / "out" / result))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found).T, expected)
        scan = sitk.ReadImage(str(scans / result))
        for read in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection):
            assert read(found) == read(scan)

    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert record["model"]["trainer"] == TRAINER
    assert record["model"]["configuration"] == "tiny_2d"
    assert record["compared_with"] == ["philips_3t", "siemens_1p5t", "ge_t1"]
    profiles = (trained / "domain_profiles.json").read_text()
    assert not any(case in profiles for case in ("philips_3t_001", "ge_t1_001"))

    # In nnU-Net's worker processes, and of scans that are there already none.
    (tmp_path / "out" / "Patient (1).mha").unlink()
    before = (tmp_path / "out" / "another.nii.gz").stat()
    assert cli.main([*words[:-1], "1", "-nps", "1"]) == 0
    again = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "Patient (1).mha")))
    np.testing.assert_array_equal(again.T, nibabel.load(tmp_path / "nnunet" / "Patient (1).nii.gz").get_fdata())
    assert (tmp_path / "out" / "another.nii.gz").stat().st_mtime_ns == before.st_mtime_ns
    capsys.readouterr()

    # By its folder, with another choice of mirroring: another model's predictions do not mix with these.
    by_folder = ["predict", "-i", str(scans), "-o", str(tmp_path / "out"), "-m", str(trained), "--disable_tta"]
    assert cli.main([*by_folder, "-device", "cpu", "-npp", "0"]) == 1
    assert "another mirroring" in capsys.readouterr().err
