"""Label maps as NIfTI files: read whole and verified, with the geometry to compare."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from nnunet_da.errors import UserError

ENDINGS = (".nii.gz", ".nii")

SPACING_TOLERANCE = 1e-3  # of the spacing itself
ORIGIN_TOLERANCE = 1e-2  # of the smallest spacing
DIRECTION_TOLERANCE = 1e-3  # of each direction cosine; NIfTI's quaternions lose up to 3e-4 in single precision

_READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,
    zlib.error,
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    nibabel.wrapstruct.WrapStructError,
)


@dataclass(frozen=True)
class LabelMap:
    """`array`: values in C order with axes (z, y, x) or (y, x); `spacing` in mm in that order, from the affine;
    `origin` (3,) in mm, `direction` (3, number of axes) as unit columns in that order, both in NIfTI's RAS frame."""

    array: np.ndarray
    spacing: tuple[float, ...]
    origin: np.ndarray
    direction: np.ndarray


def label_maps_in(folder):
    """Case → path of every label map of a folder, sorted. A case is the file's name without its ending.

    Raises UserError where the folder is missing or holds a case twice.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    paths = {}
    for path in sorted(folder.iterdir()):
        ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
        if ending is None or path.name.startswith("."):
            continue
        case = path.name.removesuffix(ending)
        if case in paths:
            raise UserError(f"{path}: duplicate case '{case}' (also {paths[case].name})")
        paths[case] = path
    return dict(sorted(paths.items()))


def read_label_map(path):
    """The `LabelMap` of a .nii.gz or .nii file. Raises UserError where it is unreadable, truncated or not 2D or 3D.

    Gzip files are decompressed to the end, which checks their length and checksum: some readers fill what a truncated
    file lacks with whatever lay in memory.
    """
    try:
        content = Path(path).read_bytes()
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content) if str(path).endswith(".gz") else content)
        array = np.asanyarray(image.dataobj).T
    except _READ_ERRORS as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: unreadable or truncated NIfTI file ({reason or type(error).__name__})") from None
    if array.dtype.kind not in "iuf":
        raise UserError(f"{path}: a label map holds numbers, not values of type {array.dtype}")
    while array.ndim > 3 and len(array) == 1:
        array = array[0]
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise UserError(f"{path}: a label map has 2 or 3 axes, not the shape {array.shape[::-1]}")
    columns = image.affine[:3, : array.ndim][:, ::-1]
    spacing = np.linalg.norm(columns, axis=0)
    if not np.all(np.isfinite(image.affine)) or not np.all(spacing > 0):
        raise UserError(f"{path}: spacing must be positive and finite, not {tuple(spacing[::-1].tolist())}")
    return LabelMap(np.ascontiguousarray(array), tuple(spacing.tolist()), image.affine[:3, 3], columns / spacing)


def require_same_geometry(prediction, reference, prediction_path, reference_path):
    """Raises UserError, naming what differs, unless both label maps lie on one grid within the tolerances above."""
    if prediction.array.shape != reference.array.shape:
        difference = f"shape {prediction.array.shape[::-1]} instead of {reference.array.shape[::-1]}"
    elif not np.allclose(prediction.spacing, reference.spacing, rtol=SPACING_TOLERANCE, atol=0):
        difference = f"spacing {_text(prediction.spacing[::-1])} instead of {_text(reference.spacing[::-1])} mm"
    elif np.abs(prediction.origin - reference.origin).max() > ORIGIN_TOLERANCE * min(reference.spacing):
        difference = f"origin {_text(prediction.origin)} instead of {_text(reference.origin)} mm"
    elif np.abs(prediction.direction - reference.direction).max() > DIRECTION_TOLERANCE:
        difference = "another direction (orientation of the axes)"
    else:
        return
    raise UserError(f"{prediction_path}: not on the grid of {reference_path}: {difference}")


def require_known_values(label_map, known, path):
    """Raises UserError with the first values of `label_map` that are not among `known`."""
    unknown = label_map.array[~np.isin(label_map.array, known)]
    if unknown.size:
        values = ", ".join(f"{value:g}" for value in np.unique(unknown)[:5])
        raise UserError(f"{path}: unknown label value {values}; the dataset has {', '.join(map(str, known))}")


def _text(numbers):
    return "(" + ", ".join(f"{number:.6g}" for number in numbers) + ")"
