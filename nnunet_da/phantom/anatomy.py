"""What the simulated body parts share: how a subject is put on a grid, its labels, how bone and muscle are drawn."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nnunet_da.phantom.raster import Canvas, noise, sample_points, splits_of


class Labelled:
    """An anatomy that can name its structures.

    names: the structures it knows; structures: uint8 (X, Y, Z), a voxel's place in `names`, from 1, or 0; tissues: the
    names along the first axis of `fractions`.
    """

    def label_map(self, values):
        """The structures named by `values`, a mapping of names to labels (1 to 255): uint8 (X, Y, Z), 0 elsewhere.

        Raises ValueError for a name or a label that does not exist.
        """
        table = np.zeros(len(self.names) + 1, dtype=np.uint8)
        for name, value in values.items():
            if name not in self.names:
                raise ValueError(f"{name}: no such structure, there are {', '.join(self.names)}")
            if not 1 <= value <= 255:
                raise ValueError(f"{name}: a label is a number from 1 to 255, not {value}")
            table[1 + self.names.index(name)] = value
        return table[self.structures]

    def fraction(self, tissue):
        """Share of each voxel that is `tissue`: float32 (X, Y, Z)."""
        return self.fractions[self.tissues.index(tissue)]


@dataclass(frozen=True)
class Anatomy(Labelled):
    """A body part on a grid: fractions (tissues, X, Y, Z) float32, sums to 1; affine: 4×4, voxel → RAS mm."""

    fractions: np.ndarray
    structures: np.ndarray
    affine: np.ndarray
    tissues: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class BodyPart(ABC):
    """One subject's body part in world coordinates: RAS, in mm, with the middle of the body part at the origin.

    seed: of what is irregular in shape and tissue; deviations: (tissues, 3), see `tissues.pools`. A body part lists
    its TISSUES and the NAMES of its structures; voxels wider than WIDEST (mm) along an axis are sampled two or three
    times along it.
    """

    seed: int
    deviations: np.ndarray

    TISSUES: ClassVar[tuple[str, ...]]
    NAMES: ClassVar[tuple[str, ...]]
    WIDEST: ClassVar[float] = 2.0

    @classmethod
    def sample(cls, rng):
        """A subject drawn with the numpy generator `rng`."""
        traits = cls.draw_traits(rng)
        return cls(seed=int(rng.integers(2**31)), deviations=draw_deviations(rng, cls.TISSUES), **traits)

    @staticmethod
    @abstractmethod
    def draw_traits(rng):
        """The remaining fields of a subject, drawn with `rng`: a dict."""

    @abstractmethod
    def draw(self, canvas, points):
        """Paints all tissues on `canvas`, those in front first; points: (x, y, z) of its samples."""

    def rasterise(self, shape, affine):
        """Draws the subject on the grid of `shape` (three axes) and `affine` (4×4, voxel → RAS mm): an Anatomy."""
        affine = np.asarray(affine, dtype=float)
        splits, width = splits_of(affine, self.WIDEST, most=3)
        canvas = Canvas(shape, splits, width, self.TISSUES)
        self.draw(canvas, sample_points(shape, affine, splits))
        return Anatomy(canvas.fractions, canvas.labels(self.NAMES), affine, self.TISSUES, self.NAMES)

    def paint_bone(self, canvas, surface, points, structure=None, *, shell=1.4, fat=0.4):
        """Bone with a cortical `shell` (mm) around patchy marrow, of which `fat` (0 to 1) is added fat."""
        share = np.clip(fat + 0.1 * noise(self.seed + 11, *(p / 5 for p in points)), 0, 1)
        canvas.blend({"marrow": 1 - share, "fat": share}, surface + shell, structure)
        canvas.paint("cortical_bone", surface, structure=structure)

    def paint_muscle(self, canvas, surface, points, fat=0.05):
        """Muscle in a thin sheath of fat, with streaks of `fat` (0 to 1) along z."""
        x, y, z = points
        share = np.clip(fat + 0.12 * noise(self.seed + 12, x / 3, y / 3, z / 15), 0, 0.9)
        canvas.blend({"muscle": 1 - share, "fat": share}, surface + 0.7)
        canvas.paint("fat", surface + 0.2)


def draw_deviations(rng, tissues):
    """Standard scores of PD, T1 and T2 by which a subject leaves the table: (tissues, 3), at most 2.5 either way."""
    return np.clip(rng.standard_normal((len(tissues), 3)), -2.5, 2.5)
