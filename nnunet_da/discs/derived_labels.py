"""Label maps that are made of others when they are read: numbered discs, the spine region, discs within a region."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_da.discs.ground_truth import MARGIN_MM, number_discs, spine_region
from nnunet_da.errors import UserError
from nnunet_da.scan_sources import Source
from nnunet_da.scans import Scan, integer_voxels, read_scan, same_grid

# In what is made, voxels of which nothing is known, or to be learnt.
UNKNOWN = 255


@dataclass(frozen=True)
class DerivedLabel(Source):
    """A label map made of that in `path`, in which every value above 0 but `ignore` is disc.

    Where it is `ignore`, what is made is `UNKNOWN`.
    """

    ignore: int | None = None

    def read(self) -> Scan:
        scan = read_scan(self.path)
        voxels = integer_voxels(scan)
        unknown = voxels == self.ignore if self.ignore is not None else np.zeros(voxels.shape, bool)
        try:
            derived = self.derive(voxels, (voxels > 0) & ~unknown, scan)
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from None
        derived[unknown] = UNKNOWN
        return Scan(self.path, derived, scan.grid, is_plain=False, is_gzipped=False)

    def derive(self, voxels, discs, scan):
        """uint8 (X, Y, Z) of the label map's values and the mask of `discs`. ValueError where there is no disc."""
        raise NotImplementedError


@dataclass(frozen=True)
class NumberedDiscs(DerivedLabel):
    """Discs numbered from the lowest, 1, to `most`; more are an error, or with `lowest_alone` background."""

    most: int = 7
    lowest_alone: bool = False

    def derive(self, voxels, discs, scan):
        numbered = number_discs(discs, scan.grid.affine)
        if numbered.max() > self.most and not self.lowest_alone:
            raise UserError(f"{self.path}: has {numbered.max()} separate discs; at most {self.most} are numbered")
        return np.where(numbered > self.most, 0, numbered).astype(np.uint8)


@dataclass(frozen=True)
class SpineRegion(DerivedLabel):
    """1 in the convex hull of all that lies within `margin` mm of a disc."""

    margin: float = MARGIN_MM

    def derive(self, voxels, discs, scan):
        spacing = np.linalg.norm(scan.grid.affine[:3, :3], axis=0)
        return spine_region(discs, spacing, self.margin).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class DiscsInRegion(DerivedLabel):
    """The label map itself, and `UNKNOWN` outside the `region`, a label map on the same grid that is above 0 inside."""

    region: Path

    def derive(self, voxels, discs, scan):
        region = read_scan(self.region)
        if not same_grid(region.grid, scan.grid):
            raise UserError(f"{self.region}: not on the grid of {self.path}")
        inside = integer_voxels(region) > 0
        if not inside.any():
            raise ValueError(f"the region in {self.region} is empty")
        return np.where(inside, voxels, UNKNOWN).astype(np.uint8)
