"""nnU-Net's three folders, and the folder of a dataset in them, found without importing nnU-Net."""

import os
import re
from pathlib import Path

from nnunet_da.errors import UserError

RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"
DATASET_NAME = re.compile(r"Dataset(\d{3})_.+")


def nnunet_folder(variable):
    """The folder that the environment variable `variable` names. Raises UserError where it is not set."""
    value = os.environ.get(variable)
    if not value:
        raise UserError(
            f"the environment variable {variable} is not set; nnU-Net needs {RAW}, {PREPROCESSED}, {RESULTS}"
        )
    return Path(value)


def find_dataset(dataset):
    """The name ``DatasetXXX_Name`` of a dataset given by id or name, looked for in all of nnU-Net's folders.

    Raises UserError where none, or more than one, has the id.
    """
    text = str(dataset)
    folders = [Path(os.environ[variable]) for variable in (RAW, PREPROCESSED, RESULTS) if os.environ.get(variable)]
    if not folders:
        raise UserError(f"-d {text}: none of the environment variables {RAW}, {PREPROCESSED}, {RESULTS} is set")
    names = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()}
    names = {name for name in names if DATASET_NAME.fullmatch(name)}
    if text.isdecimal():
        found = sorted(name for name in names if int(DATASET_NAME.fullmatch(name)[1]) == int(text))
    elif DATASET_NAME.fullmatch(text):
        found = [text] if text in names else []
    else:
        raise UserError(f"-d {text}: must be a dataset id such as 101, or a name such as Dataset101_Spine")
    if not found:
        known = ", ".join(sorted(names)) or "none"
        raise UserError(f"-d {text}: no such dataset in {', '.join(map(str, folders))} (known: {known})")
    if len(found) > 1:
        raise UserError(f"-d {text}: several datasets have this id: {', '.join(found)}; give the full name")
    return found[0]


def dataset_folder(variable, dataset):
    """The folder of `dataset` (id or name) under `variable`; it need not exist."""
    return nnunet_folder(variable) / find_dataset(dataset)
