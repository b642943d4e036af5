"""Label maps as files: read whole and verified, with the geometry to compare.

NIfTI is read by nibabel, since SimpleITK reads truncated NIfTI files without complaint; all other formats by SimpleITK.
Formats of photographs (TIFF, BMP, JPEG) are left out: they hold no geometry in 3D, or no exact values, or are read
without complaint when they are truncated.
"""

import gzip
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from nnunet_da.errors import UserError

# Label maps of a 2D dataset, and beside those of other formats pictures of them.
PREVIEW = ".png"
NIFTI_ENDINGS = (".nii.gz", ".nii", ".hdr")
ENDINGS = (
    *NIFTI_ENDINGS,
    *(".mha", ".mhd", ".nrrd", ".nhdr", ".gipl.gz", ".gipl", ".vtk", ".mnc", ".h5", ".hdf5", ".dcm"),
    PREVIEW,
)

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
    """`array`: values in C order with axes (z, y, x) or (y, x), as bytes where all are whole numbers up to 255;
    `spacing` in mm in that order; `origin` (3,) in mm, `direction` (3, number of axes) as unit columns in that order,
    both in NIfTI's RAS frame."""

    array: np.ndarray
    spacing: tuple[float, ...]
    origin: np.ndarray
    direction: np.ndarray


def ending_of(path):
    """The ending of a label map's file name, such as ``.nii.gz``, or None for another file."""
    return next((ending for ending in ENDINGS if Path(path).name.lower().endswith(ending)), None)


def label_maps_in(folder):
    """Case → path of every label map of a folder, sorted. A case is the file's name without its ending.

    PNG files count only where the folder holds no other format.

    Raises UserError where the folder is missing or holds a case twice.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found = [(path, ending_of(path)) for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    if any(ending not in (None, PREVIEW) for _, ending in found):
        found = [(path, ending) for path, ending in found if ending != PREVIEW]
    paths = {}
    for path, ending in found:
        if ending is None:
            continue
        case = path.name[: -len(ending)]
        if case in paths:
            raise UserError(f"{path}: duplicate case '{case}' (also {paths[case].name})")
        paths[case] = path
    return dict(sorted(paths.items()))


def files_of(path):
    """All files that hold a label map: `path`, and the file of voxels that its header names. None if that is unclear.

    Raises OSError where a header cannot be read.
    """
    path = Path(path)
    patterns = {".mhd": rb"^ElementDataFile\s*=\s*(.+?)\s*$", ".nhdr": rb"^data ?file:\s*(.+?)\s*$"}
    ending = ending_of(path)
    if ending == ".hdr":
        files = [path, path.with_suffix(".img")]
    elif ending in patterns:
        named = re.findall(patterns[ending], path.read_bytes(), re.MULTILINE | re.IGNORECASE)
        files = [path, *(path.parent / name.decode(errors="replace") for name in named)]
    else:
        return [path]
    return files if len(files) == 2 and files[1].is_file() else None


def read_label_map(path):
    """The `LabelMap` of a file with one of `ENDINGS`. Raises UserError where it is unreadable, truncated, not 2D or 3D.

    Gzip files are decompressed to the end, which checks their length and checksum: some readers fill what a truncated
    file lacks with whatever lay in memory.
    """
    read = _read_nifti if ending_of(path) in (*NIFTI_ENDINGS, None) else _read_other
    array, columns, origin = read(Path(path))
    if array.dtype.kind not in "iuf":
        raise UserError(f"{path}: a label map holds numbers, not values of type {array.dtype}")
    while array.ndim > 3 and len(array) == 1:
        array = array[0]
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise UserError(f"{path}: a label map has 2 or 3 axes, not the shape {array.shape[::-1]}")
    columns = columns[:, : array.ndim][:, ::-1]
    spacing = np.linalg.norm(columns, axis=0)
    if not (np.all(np.isfinite(columns)) and np.all(np.isfinite(origin)) and np.all(spacing > 0)):
        raise UserError(f"{path}: spacing must be positive and finite, not {tuple(spacing[::-1].tolist())}")
    return LabelMap(_as_bytes(np.ascontiguousarray(array)), tuple(spacing.tolist()), origin, columns / spacing)


def _read_nifti(path):
    """Values (z, y, x), the affine's three columns (x, y, z) and its origin."""
    try:
        if ending_of(path) == ".hdr":
            image = nibabel.load(path)
        else:
            content = path.read_bytes()
            image = nibabel.Nifti1Image.from_bytes(
                gzip.decompress(content) if path.suffix.lower() == ".gz" else content
            )
        return np.asanyarray(image.dataobj).T, image.affine[:3, :3], image.affine[:3, 3]
    except _READ_ERRORS as error:
        raise _unreadable(path, error, "NIfTI file") from None


def _read_other(path):
    """As `_read_nifti`, through SimpleITK, whose LPS frame is turned into RAS."""
    import SimpleITK

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
        _require_all_voxels(path, image)
    except (RuntimeError, *_READ_ERRORS) as error:
        raise _unreadable(path, str(error).rpartition("ERROR: ")[2], "file") from None
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise UserError(f"{path}: a label map holds numbers, not {image.GetPixelIDTypeAsString()}")
    n_axes = image.GetDimension()
    columns, origin = np.zeros((3, n_axes)), np.zeros(3)
    columns[:n_axes] = (np.reshape(image.GetDirection(), (n_axes, n_axes)) * image.GetSpacing())[:3]
    origin[:n_axes] = image.GetOrigin()[:3]
    to_ras = np.array([-1, -1, 1])
    return SimpleITK.GetArrayFromImage(image), columns * to_ras[:, None], origin * to_ras


def _require_all_voxels(path, image):
    """ValueError where a file of a format that SimpleITK reads without complaint is shorter than its voxels."""
    ending = ending_of(path)
    if ending not in (".gipl", ".gipl.gz", ".vtk"):
        return
    content = path.read_bytes()
    if ending == ".gipl.gz":
        content = gzip.decompress(content)
    n_values = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel()
    if ending == ".vtk":
        header, _, rest = content.partition(b"LOOKUP_TABLE")
        values = rest.partition(b"\n")[2]
        n_found = len(values.split()) if b"ASCII" in header else len(values) // image.GetSizeOfPixelComponent()
    else:
        n_found = (len(content) - 256) // image.GetSizeOfPixelComponent()
    if n_found < n_values:
        raise ValueError(f"{n_found} of {n_values} values")


def _unreadable(path, error, what):
    reason = " ".join(str(error).split())
    return UserError(f"{path}: unreadable or truncated {what} ({reason or type(error).__name__})")


def _as_bytes(array):
    """`array` as uint8, which is faster to work on, where that keeps all its values; else as it is."""
    if array.dtype == np.uint8:
        return array
    with np.errstate(invalid="ignore"):
        small = array.astype(np.uint8)
    return small if np.array_equal(small, array) else array


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
    array = label_map.array
    if array.dtype == np.uint8:
        small = bytes(value for value in known if value < 256)
        unknown = np.frombuffer(array.tobytes().translate(None, small), np.uint8)
    else:
        unknown = array[~np.isin(array, known)]
    if unknown.size:
        values = ", ".join(f"{value:g}" for value in np.unique(unknown)[:5])
        raise UserError(f"{path}: unknown label value {values}; the dataset has {', '.join(map(str, known))}")


def _text(numbers):
    return "(" + ", ".join(f"{number:.6g}" for number in numbers) + ")"
