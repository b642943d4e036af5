"""The profiles of a model's training domains, made once from the raw dataset and kept in the model folder."""

import os
from pathlib import Path

import numpy as np

from nnunet_da.domains import read_domains
from nnunet_da.errors import UserError
from nnunet_da.files import read_json, write_json
from nnunet_da.parallel import run_parallel
from nnunet_da.paths import RAW
from nnunet_da.prediction import profiles
from nnunet_da.prediction.inputs import ScanFiles, check_scan
from nnunet_da.prediction.model import Model

FILE_NAME = "domain_profiles.json"
# The one domain of a dataset that names none.
TRAINING = "training"
# As many scans of a domain say what it is like; more would only cost time.
_MAX_SCANS = 50


def training_profiles(model: Model, n_processes=None):
    """The profile of every training domain (list), and notes for the user (list of str).

    Read from domain_profiles.json in the model folder; where that is absent, made from the images in nnUNet_raw and
    written there. Where neither can be read, the list is empty and a note says why.
    """
    path = model.folder / FILE_NAME
    if path.is_file():
        return profiles.from_json(read_json(path), model.n_channels, path), []
    try:
        images = _images_by_domain(model)
        made = _make(images, model.scales, n_processes)
    except UserError as error:
        return [], [f"scans are not compared with the training domains, for which {FILE_NAME} is missing ({error})"]
    try:
        write_json(profiles.to_json(made), path)
    except OSError as error:
        return made, [f"{path}: cannot be kept for the next time ({error.strerror})"]
    return made, []


def _images_by_domain(model):
    """Domain → list of tuples of images, a tuple per case. Raises UserError where the raw dataset is not there."""
    raw = os.environ.get(RAW)
    if not raw:
        raise UserError(f"{RAW} is not set")
    folder = Path(raw) / model.plans["dataset_name"] / "imagesTr"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")

    def images(case):
        return tuple(folder / f"{case}_{channel:04d}{model.file_ending}" for channel in range(model.n_channels))

    if "domains" in model.dataset_json:
        domains = read_domains(model.dataset_json, model.folder / "dataset.json")
        cases_of = {domain.name: domain.cases for domain in domains}
    else:
        suffix = f"_0000{model.file_ending}"
        cases_of = {TRAINING: sorted(path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}"))}
    found = {
        domain: [images(case) for case in cases if all(path.is_file() for path in images(case))]
        for domain, cases in cases_of.items()
    }
    for domain, present in found.items():
        if not present:
            raise UserError(f"{folder}: holds no scan of domain '{domain}'")
    return found


def _make(images_by_domain, scales, n_processes):
    chosen = {
        domain: [images[index] for index in np.unique(np.linspace(0, len(images) - 1, _MAX_SCANS).astype(int))]
        for domain, images in images_by_domain.items()
    }
    files = [ScanFiles(domain, images, scales) for domain, cases in chosen.items() for images in cases]
    checked = run_parallel(check_scan, files, n_processes, "Reading training scans")
    return [profiles.profile(domain, [scan.look for scan in checked if scan.files.name == domain]) for domain in chosen]
