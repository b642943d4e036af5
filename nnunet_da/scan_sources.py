"""Scans that are not a file of their own: a volume of a 4-D file, a mask per structure, a picture per slice, or none.

A source has a `path` for messages and a method `read`, which gives a `nnunet_da.scans.Scan` or raises UserError;
`scans.read_scan` takes one wherever it takes a path.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_da import scans
from nnunet_da.errors import UserError


@dataclass(frozen=True)
class Source:
    """`path`: the file or folder that messages name."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Missing(Source):
    """A file that should be at `path`, and is not: an error as soon as the case is used. `advice`: what to do."""

    advice: str

    def read(self) -> scans.Scan:
        raise UserError(f"{self.path}: no such file, {self.advice}")


@dataclass(frozen=True)
class Volume(Source):
    """Volume `index` of the 4-D NIfTI file `path`, which must hold `n_volumes` (a 3-D file is one volume)."""

    index: int
    n_volumes: int

    def read(self) -> scans.Scan:
        return scans.read_volume(self.path, self.index, self.n_volumes)


@dataclass(frozen=True)
class Masks(Source):
    """A label map made of masks, `values` maps each file to its value; `path` is the folder that they lie in.

    A mask marks its structure with one value, whichever. Where masks overlap, the one named first counts.
    """

    values: tuple[tuple[Path, int], ...]

    def read(self) -> scans.Scan:
        labels = grid = None
        for path, value in self.values:
            scan = scans.read_scan(path)
            voxels = scans.integer_voxels(scan)
            found = scans.values_in(voxels)
            if np.count_nonzero(found) > 1:
                raise UserError(f"{path}: must be a mask of one structure, but holds {len(found)} different values")
            grid = grid or scan.grid
            if not scans.same_grid(scan.grid, grid):
                raise UserError(f"{path}: does not lie on the grid of {self.values[0][0].name}")
            if labels is None:
                labels = np.zeros(grid.shape, np.min_scalar_type(max(value for _, value in self.values)))
            labels[(voxels != 0) & (labels == 0)] = value
        return scans.Scan(self.path, labels, grid, is_plain=False, is_gzipped=False)


@dataclass(frozen=True)
class SlicePictures(Source):
    """A label map made of one grey picture (PNG) per slice of the DICOM series in the folder `series`.

    Pictures belong to the slices of equal rank when both are sorted by the numbers in their names, and lie as the
    slices' pixels do.
    """

    series: Path

    def read(self) -> scans.Scan:
        pictures = sorted((path for path in self.path.iterdir() if is_picture(path)), key=_natural)
        slices = scans.dicom_files(self.series)
        if len(pictures) != len(slices):
            raise UserError(
                f"{self.path}: holds {len(pictures)} pictures, but the series {self.series} has {len(slices)} slices"
            )
        series = scans.read_scan(self.series)
        picture_of = dict(zip(sorted(slices, key=_natural), pictures, strict=True))
        voxels = np.stack([_picture(picture_of[path], series.grid.shape[:2]) for path in slices], axis=-1)
        return scans.Scan(self.path, voxels, series.grid, is_plain=False, is_gzipped=False)


def is_picture(path) -> bool:
    return path.suffix.lower() == ".png" and not path.name.startswith(".")


def _natural(path):
    """A key that sorts IMG-2 before IMG-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _picture(path, shape):
    """The grey values (X, Y) of a picture, which must have this `shape`."""
    import SimpleITK as sitk  # noqa: N813

    try:
        pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[-1][-200:]})") from None
    if pixels.shape != shape:
        raise UserError(f"{path}: must be a grey picture of {shape[0]} × {shape[1]} pixels, but is {pixels.shape}")
    return pixels
