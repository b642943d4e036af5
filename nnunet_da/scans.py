"""Scans as they lie on a user's disk: read whole, checked, and brought onto one grid.

Geometry is NIfTI's: voxel axes in the order of the file, an affine that takes voxel indices to millimetres in RAS+.
"""

import gzip
import hashlib
import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from nnunet_da.errors import UserError

NIFTI_ENDINGS = (".nii.gz", ".nii")
ENDINGS = (*NIFTI_ENDINGS, ".mha", ".mhd", ".nrrd")

# Grids whose corners lie closer than this, in mm, are one grid: far below a voxel, far above what the rounding of
# headers (four decimals, single precision) adds up to over a scan.
GRID_TOLERANCE = 0.1

# Voxel sizes that a header gives twice (pixdim and affine) may differ by this share.
_VOXEL_SIZE_TOLERANCE = 0.01

# How far from an integer the value of a label may lie.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a scan lie: shape (X, Y, Z), affine (4, 4) as read from `header`, which is NIfTI's."""

    shape: tuple[int, ...]
    affine: np.ndarray
    header: nibabel.Nifti1Header

    @property
    def has_orientation(self) -> bool:
        """Whether the header says how the scan lies in space; nnU-Net takes one that does not for LAS."""
        return bool(self.header["sform_code"] > 0 or self.header["qform_code"] > 0)


@dataclass(frozen=True)
class Scan:
    """One 3-D scan: `voxels` (X, Y, Z), rescaled where the header says so, on `grid`.

    `is_plain`: the file is a NIfTI that nnU-Net can read as it is; `is_gzipped`: it is compressed.
    """

    path: Path
    voxels: np.ndarray
    grid: Grid
    is_plain: bool
    is_gzipped: bool


def ending_of(path) -> str | None:
    """The ending of a file in a format that can be read, None for any other."""
    name = Path(path).name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def stem_of(path) -> str:
    """The file's name without the ending of its format; of a folder (DICOM), its name."""
    name = Path(path).name
    return name if Path(path).is_dir() else name[: len(name) - len(ending_of(path) or "")]


def read_scan(path) -> Scan:
    """Reads a NIfTI, MetaImage or NRRD file, or a folder with one DICOM series, to its last byte.

    `path` may be a source of `nnunet_da.scan_sources`. Raises UserError where it is missing, damaged, of another
    format, not 3-D, not of real numbers, or where its header gives no usable geometry.
    """
    if not isinstance(path, str | Path):
        return path.read()
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        scan = _read_dicom(path)
    elif ending_of(path) in NIFTI_ENDINGS:
        scan = _read_nifti(path)
    elif ending_of(path):
        scan = _read_itk(path)
    else:
        raise UserError(f"{path}: cannot read this format; give {', '.join(ENDINGS)} or a folder with a DICOM series")
    _check_geometry(scan)
    return scan


def read_volume(path, index, n_volumes) -> Scan:
    """Volume `index` of a NIfTI file with `n_volumes` of them along its fourth axis (one: it may lack that axis).

    Raises UserError as `read_scan` does, and where the file has another number of volumes.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    image, voxels, is_gzipped = _load_nifti(path)
    volumes = voxels[..., None] if voxels.ndim == 3 else voxels
    if volumes.ndim != 4 or 0 in volumes.shape or volumes.shape[3] != n_volumes:
        raise UserError(f"{path}: must be a 4-D scan of {n_volumes} volumes, but has the shape {voxels.shape}")
    grid = Grid(volumes.shape[:3], image.affine, image.header)
    scan = Scan(path, volumes[..., index], grid, is_plain=False, is_gzipped=is_gzipped)
    _check_geometry(scan)
    return scan


def _check_geometry(scan):
    path = scan.path
    check_affine(scan.grid.affine, path)
    in_header = np.array(scan.grid.header.get_zooms()[:3])
    in_affine = np.linalg.norm(scan.grid.affine[:3, :3], axis=0)
    if not np.allclose(in_header, in_affine, rtol=_VOXEL_SIZE_TOLERANCE):
        raise UserError(
            f"{path}: the header contradicts itself: the voxel size is {_millimetres(in_header)} in pixdim but "
            f"{_millimetres(in_affine)} in the affine"
        )


def check_affine(affine, path) -> None:
    """Raises UserError where `affine` (4, 4) is not finite, or maps the voxel axes onto less than three dimensions."""
    if not np.isfinite(affine).all():
        raise UserError(f"{path}: the affine holds values that are not finite")
    voxel_size = np.linalg.norm(affine[:3, :3], axis=0)
    if (voxel_size < 1e-6).any():
        raise UserError(f"{path}: the voxel size must be positive, but is {_millimetres(voxel_size)}")
    if abs(np.linalg.det(affine[:3, :3] / voxel_size)) < 1e-3:
        raise UserError(f"{path}: the affine is singular: two voxel axes point the same way")


def check_intensities(scan: Scan) -> None:
    """Raises UserError where an image holds values that are not finite in single precision, or one value only."""
    if scan.voxels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            finite = np.isfinite(scan.voxels.astype(np.float32)).all()
        if not finite:
            raise UserError(f"{scan.path}: holds voxels that are NaN or infinite")
    if scan.voxels.min() == scan.voxels.max():
        raise UserError(f"{scan.path}: is constant: every voxel is {scan.voxels.flat[0]}")


def integer_voxels(scan: Scan) -> np.ndarray:
    """The voxels of a label map as integers. Raises UserError where a value is not one."""
    if scan.voxels.dtype.kind in "iu":
        return scan.voxels
    rounded = np.rint(scan.voxels)
    # Where a header rescales a label map, 1 may be read as 0.9999999998.
    wrong = ~np.isclose(scan.voxels, rounded, rtol=0, atol=_ROUNDING)  # true of NaN
    if wrong.any() or not np.isfinite(rounded).all():
        example = scan.voxels[wrong][0] if wrong.any() else "infinite"
        raise UserError(f"{scan.path}: label values must be integers, but one is {example}")
    if np.abs(rounded).max() > np.iinfo(np.int32).max:
        raise UserError(f"{scan.path}: label values must be integers, but one is {np.abs(rounded).max():g}")
    return rounded.astype(np.int32)


def values_in(voxels) -> np.ndarray:
    """The values that an array of integers holds, ascending."""
    if voxels.dtype.itemsize == 1 or (voxels.min() >= 0 and voxels.max() < 2**16):
        offset = min(int(voxels.min()), 0)
        return np.flatnonzero(np.bincount(voxels.ravel(order="K").astype(np.int64) - offset)) + offset
    return np.unique(voxels)


def voxel_digest(voxels) -> str:
    """A hash of shape and values (in single precision, as nnU-Net reads them), whatever the type they are stored in."""
    with np.errstate(over="ignore"):
        values = np.asarray(voxels, dtype=np.float32) + np.float32(0)  # -0 becomes 0
    digest = hashlib.blake2b(repr(values.shape).encode(), digest_size=16)
    digest.update(values.tobytes(order="F"))
    return digest.hexdigest()


def corner_displacement(affine, other_affine, shape) -> float:
    """The largest distance in mm between the outer corners of the grids that two affines put `shape` voxels on."""
    outer = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    difference = np.asarray(affine) - np.asarray(other_affine)
    return float(np.linalg.norm(outer @ difference[:3, :3].T + difference[:3, 3], axis=1).max())


def same_grid(grid: Grid, other: Grid) -> bool:
    """Whether two grids have one shape and corners that lie within `GRID_TOLERANCE`."""
    return grid.shape == other.shape and corner_displacement(grid.affine, other.affine, grid.shape) <= GRID_TOLERANCE


def same_to_nnunet(grid: Grid, other: Grid) -> bool:
    """Whether nnU-Net, which compares voxel sizes and affines to five digits, takes two grids for one."""
    return (
        grid.shape == other.shape
        and np.allclose(grid.affine, other.affine)
        and np.allclose(grid.header.get_zooms()[:3], other.header.get_zooms()[:3])
    )


def resample_nearest(voxels, affine, target: Grid) -> np.ndarray:
    """`voxels` (X, Y, Z) on `target`: each voxel there takes the value of the voxel that its centre lies in, else 0."""
    from scipy import ndimage

    to_source = np.linalg.inv(affine) @ target.affine
    # grid-constant: the outermost half voxel belongs to the scan.
    return ndimage.affine_transform(
        voxels, to_source[:3, :3], to_source[:3, 3], target.shape, order=0, mode="grid-constant", cval=0
    )


def save_nifti(voxels, grid: Grid, path) -> None:
    """Writes `voxels` (X, Y, Z) as NIfTI with the geometry in the header of `grid` and nothing else of it."""
    voxels = _storable(voxels)
    header = type(grid.header)()
    for field in _GEOMETRY_FIELDS:
        header[field] = grid.header[field]
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    image_class = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    nibabel.save(image_class(voxels, grid.affine, header), path)


def copy_nifti(path, target) -> None:
    """Copies a NIfTI file, header and all; compressed or not as the ending of `target` says."""
    with nibabel.openers.Opener(str(target), "wb") as file:
        file.write(_nifti_content(Path(path))[0])


_GEOMETRY_FIELDS = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


def _storable(voxels):
    """`voxels` in a type that nnU-Net and other tools read from NIfTI."""
    if voxels.dtype.kind == "f" and voxels.dtype != np.float32:
        return voxels.astype(np.float32)
    if voxels.dtype.kind in "iu" and voxels.dtype.itemsize == 8:
        fits = np.iinfo(np.int32).min <= voxels.min() and voxels.max() <= np.iinfo(np.int32).max
        return voxels.astype(np.int32 if fits else np.float32)
    return voxels


def _nifti_content(path):
    """The bytes of a NIfTI file, decompressed, and whether they were compressed."""
    content = path.read_bytes()
    is_gzipped = content[:2] == b"\x1f\x8b"
    return (gzip.decompress(content) if is_gzipped else content), is_gzipped


def _read_nifti(path):
    image, voxels, is_gzipped = _load_nifti(path)
    is_plain = voxels.ndim == 3
    shape = voxels.shape[:3] if voxels.shape[3:] == (1,) * (voxels.ndim - 3) else voxels.shape
    if len(shape) != 3 or 0 in shape:
        raise UserError(f"{path}: must be a 3-D scan of one channel, but has the shape {shape}")
    return Scan(path, voxels.reshape(shape), Grid(shape, image.affine, image.header), is_plain, is_gzipped)


def _load_nifti(path):
    """The image, its voxels, rescaled where the header says so, and whether the file is compressed."""
    try:
        content, is_gzipped = _nifti_content(path)
        header_sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}
        image_class = nibabel.Nifti2Image if 540 in header_sizes else nibabel.Nifti1Image
        image = image_class.from_bytes(content)
        dtype = image.get_data_dtype()
        voxels = np.asarray(image.dataobj) if dtype.kind in "iuf" else None
    except (OSError, EOFError, zlib.error, ValueError, WrapStructError, HeaderDataError, ImageFileError) as error:
        raise UserError(f"{path}: not a readable NIfTI file, perhaps cut short ({_one_line(error)})") from None
    if voxels is None:
        raise UserError(f"{path}: voxels must be real numbers, but are of the type {dtype}")
    return image, voxels, is_gzipped


def _read_itk(path):
    import SimpleITK as sitk  # noqa: N813

    return _from_itk(_quietly(lambda: sitk.ReadImage(str(path)), path), path)


def dicom_files(folder) -> list[Path]:
    """The files of the one DICOM series in `folder`, by position in space.

    Raises UserError where it is not one, or where a .dcm file is no slice of it.
    """
    import SimpleITK as sitk  # noqa: N813

    def read():
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        if len(series) != 1:
            raise UserError(f"{folder}: must hold one DICOM series, but holds {len(series) or 'none'}")
        return [Path(name) for name in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])]

    files = _quietly(read, folder)
    # Files that are cut short are left out of the series without a word.
    names = {path.name for path in files}
    for path in sorted(Path(folder).glob("*.[dD][cC][mM]")):
        if path.name not in names and not path.name.startswith("."):
            raise UserError(
                f"{path}: is no slice of the DICOM series beside it (cut short?); get it again, or move it elsewhere"
            )
    return files


def _read_dicom(folder):
    import SimpleITK as sitk  # noqa: N813

    files = dicom_files(folder)

    def read():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(path) for path in files])
        reader.MetaDataDictionaryArrayUpdateOn()
        image = reader.Execute()
        _check_slices_evenly_spaced(reader, image, folder)
        return image

    return _from_itk(_quietly(read, folder), folder)


def _check_slices_evenly_spaced(reader, image, folder):
    """A slice that is missing would shift all that lie behind it."""
    tag = "0020|0032"  # Image Position (Patient)
    n_slices = image.GetSize()[2]
    if n_slices < 3 or not all(reader.HasMetaDataKey(i, tag) for i in range(n_slices)):
        return
    positions = np.array([[float(x) for x in reader.GetMetaData(i, tag).split("\\")] for i in range(n_slices)])
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    if not np.allclose(gaps, np.median(gaps), rtol=0.05, atol=0.01):
        raise UserError(
            f"{folder}: slices are missing or unevenly spaced: {gaps.min():.2f} to {gaps.max():.2f} mm apart"
        )


def _quietly(read, path):
    """``read()`` without what ITK writes to the terminal. Raises UserError, with that, where ITK cannot read."""
    import SimpleITK as sitk  # noqa: N813

    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    # The reader of MetaImage writes to the process's standard error, and there alone says what is wrong.
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            return read()
        except RuntimeError as error:
            written.seek(0)
            reason = written.read().decode(errors="replace").split() or [_one_line(error)]
            raise UserError(f"{path}: cannot be read ({' '.join(reason)[-200:]})") from None
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _from_itk(image, path):
    import SimpleITK as sitk  # noqa: N813

    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[..., 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise UserError(
            f"{path}: must be a 3-D scan of one channel, but has {image.GetDimension()} dimensions and "
            f"{image.GetNumberOfComponentsPerPixel()} values per voxel"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1  # ITK's world is LPS+
    header = nibabel.Nifti1Header()
    header.set_data_shape(image.GetSize())
    header.set_qform(affine, 1)
    header.set_sform(affine, 1)
    header.set_xyzt_units("mm")
    voxels = sitk.GetArrayFromImage(image).T
    return Scan(path, voxels, Grid(voxels.shape, header.get_best_affine(), header), is_plain=False, is_gzipped=False)


def _millimetres(sizes):
    return " × ".join(f"{size:g}" for size in sizes) + " mm"


def _one_line(error):
    """The last sentence of a library's message, which says what went wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][-200:] if lines else type(error).__name__
