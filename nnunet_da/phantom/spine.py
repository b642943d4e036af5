"""A lumbar spine with its surroundings, sampled from a seed and drawn on any grid.

World coordinates are millimetres in RAS (x right, y anterior, z superior) with the middle of L3 at the origin. The
spine is described straight and bent afterwards: a point has an arc length `s` along the line through the vertebral
bodies (upwards, 0 in the middle of the L5/S1 disc), an offset `v` from that line (anterior) and an offset `u`
(right). All lengths are in mm.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from scipy.interpolate import PchipInterpolator

from nnunet_da.phantom.anatomy import Labelled, draw_deviations
from nnunet_da.phantom.raster import (
    Canvas,
    box,
    intersection,
    move,
    noise,
    sample_points,
    splits_of,
    superellipse,
)

# Those that are drawn; `tissues.NAMES` begins with them, in this order.
TISSUES = (
    "air",
    "skin",
    "fat",
    "muscle",
    "cortical_bone",
    "ligament",
    "marrow",
    "nucleus",
    "degenerated_nucleus",
    "annulus",
    "csf",
    "nerve",
    "blood",
    "bowel",
)
VERTEBRAE = ("L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9", "T8")
DISCS = tuple(f"{upper}-{lower}" for upper, lower in zip(VERTEBRAE, ("S1", *VERTEBRAE[:-1]), strict=True))

# Typical heights, from L5/S1 and L5 upwards to T8.
DISC_HEIGHTS = np.array([10.5, 11.5, 11, 10.5, 9.5, 8, 7, 6.5, 6, 6])
VERTEBRA_HEIGHTS = np.array([27, 27.5, 27.5, 27, 26.5, 25.5, 24, 23, 22, 21.5])
# Half the depth and half the width of the discs.
HALF_DEPTHS = np.array([17.5, 18, 17.5, 17, 16.5, 16, 15.5, 15, 15, 14.5])
HALF_WIDTHS = np.array([26, 26, 25, 24, 23, 22, 21, 20, 19, 18.5])
SACRUM = 100  # in the map of the vertebrae, which numbers L5 as 1, L4 as 2, …

CANAL = 17.0  # depth of the spinal canal
BACK = 50.0  # from the posterior wall of the bodies to the back of the muscles
STEP = 0.25  # of the tables along the line through the bodies
SHELL = 1.1  # thickness of cortical bone and endplates


@dataclass(frozen=True)
class Anatomy(Labelled):
    """A spine on a grid.

    fractions: (tissues, X, Y, Z) float32, sums to 1; discs, vertebrae: uint8 (X, Y, Z); canal: bool (X, Y, Z); affine:
    4×4, voxel → RAS mm.

    `discs` numbers the intervertebral discs from L5/S1 = 1 upwards, `vertebrae` the vertebral bodies from L5 = 1
    upwards (and SACRUM); `canal` is the dural sac with what it holds.
    """

    fractions: np.ndarray
    discs: np.ndarray
    vertebrae: np.ndarray
    canal: np.ndarray
    affine: np.ndarray

    tissues: ClassVar[tuple[str, ...]] = TISSUES
    names: ClassVar[tuple[str, ...]] = (*DISCS, *VERTEBRAE, "sacrum", "canal")

    @property
    def structures(self):
        result = np.where(self.discs > 0, self.discs, 0)
        vertebra = np.where(self.vertebrae == SACRUM, len(VERTEBRAE) + 1, self.vertebrae)
        result = np.where((result == 0) & (vertebra > 0), vertebra + len(DISCS), result)
        return np.where((result == 0) & self.canal, len(self.names), result).astype(np.uint8)

    @property
    def disc_mask(self):
        """All discs as one structure: uint8 (X, Y, Z), 0 or 1."""
        return (self.discs > 0).astype(np.uint8)


@dataclass(frozen=True)
class Spine:
    """One subject. Arrays over discs start with the remnant of the S1/S2 disc, those over vertebrae with S1; upwards.

    grades: degeneration of each disc, from 0 (as Pfirrmann I) to 1 (as Pfirrmann V); angles: tilt of the line through
    the bodies at ANGLE_POSITIONS, in radians, forward positive; deviations: (tissues, 3), see `tissues.pools`.
    """

    disc_heights: np.ndarray
    vertebra_heights: np.ndarray
    half_depths: np.ndarray
    half_widths: np.ndarray
    bulges: np.ndarray
    grades: np.ndarray
    angles: np.ndarray
    bend: float
    fat_thickness: float
    marrow_fat: float
    muscle_fat: float
    seed: int
    deviations: np.ndarray

    ANGLE_POSITIONS = np.array([-140, -95, -40, 0, 50, 100, 200, 300, 420.0])

    @classmethod
    def sample(cls, rng):
        """A subject drawn with the numpy generator `rng`."""
        n = len(DISC_HEIGHTS)
        size = np.clip(rng.normal(1, 0.06), 0.85, 1.15)
        age = rng.uniform()
        # The lowest discs carry most, and degenerate first.
        load = np.linspace(0.15, -0.2, n)
        grades = np.clip(age + load + rng.normal(0, 0.22, n) - 0.15, 0, 1)
        heights = np.maximum(size * DISC_HEIGHTS * rng.normal(1, 0.06, n) * (1 - 0.38 * grades**2), 4.5)
        depths = size * HALF_DEPTHS * rng.normal(1, 0.02, n)
        slope, lordosis = rng.normal(35, 4), rng.normal(1, 0.12)
        angles = np.array([-15, 14, slope + 6, slope, 17 * lordosis, 3, -16 * lordosis, -8, 10])
        return cls(
            disc_heights=np.r_[3 * size, heights],
            vertebra_heights=np.r_[28 * size, size * VERTEBRA_HEIGHTS * rng.normal(1, 0.03, n)],
            half_depths=np.r_[0.62 * depths[0], depths],
            half_widths=np.r_[20 * size, size * HALF_WIDTHS * rng.normal(1, 0.02, n)],
            bulges=np.r_[0, np.clip(0.015 + 0.10 * grades * rng.uniform(0, 1, n), 0, 0.12)],
            grades=np.r_[0.8, grades],
            angles=np.deg2rad(angles + rng.normal(0, 1.5, angles.size)),
            bend=rng.normal(0, 2),
            fat_thickness=rng.uniform(5, 22),
            marrow_fat=float(np.clip(0.25 * age + rng.normal(0, 0.07), 0, 0.4)),
            muscle_fat=float(np.clip(0.35 * age + rng.normal(0, 0.1), 0.03, 0.6)),
            seed=int(rng.integers(2**31)),
            deviations=draw_deviations(rng, TISSUES),
        )

    @cached_property
    def disc_positions(self):
        """Arc length of the middle of each disc; 0 for L5/S1."""
        pitches = self.vertebra_heights[:-1] + (self.disc_heights[:-1] + self.disc_heights[1:]) / 2
        positions = np.r_[0, np.cumsum(pitches)]
        return (positions - positions[1]).astype(np.float32)

    @cached_property
    def vertebra_positions(self):
        """Arc length of the middle of each vertebra, the one above the disc of the same index."""
        return self.disc_positions + ((self.disc_heights + self.vertebra_heights) / 2).astype(np.float32)

    def rasterise(self, shape, affine):
        """Draws the spine on the grid of `shape` (three axes) and `affine` (4×4, voxel → RAS mm). Returns an Anatomy.

        Voxels wider than 2 mm along an axis are sampled several times along it; within a sample, surfaces are soft
        over its width. A voxel belongs to a disc where at least half of it does.
        """
        affine = np.asarray(affine, dtype=float)
        splits, width = splits_of(affine, widest=2)
        canvas = Canvas(shape, splits, width, TISSUES)
        points = _Points(self, shape, affine, splits)
        disc, body, sac = self._draw(canvas, points)
        discs = np.where(canvas.average(disc) >= 0.5, canvas.middle(points.disc), 0)
        vertebra = np.where(points.vertebra > 0, points.vertebra, SACRUM)
        vertebrae = np.where(canvas.average(body) >= 0.5, canvas.middle(vertebra), 0)
        self._texture(canvas.fractions, _Points(self, shape, affine, (1, 1, 1)))
        canal = canvas.average(sac) >= 0.5
        return Anatomy(canvas.fractions, discs.astype(np.uint8), vertebrae.astype(np.uint8), canal, affine)

    def _draw(self, canvas, p):
        """Paints all tissues, those in front first. Returns what is disc, body and dural sac, per sample."""
        # Distances behind the posterior wall of the bodies, out of the skin, and out of the muscles of the back.
        behind = -(p.v + p.half_depth)
        skin = BACK + self.fat_thickness * (1 + 0.8 * np.exp(-(((p.s - 10) / 55) ** 2)))
        girth = np.hypot(p.u / 1.2, p.v - 20) - 150
        outline = np.maximum(behind - skin, girth)
        muscle = behind - BACK + 0.004 * p.u**2
        canvas.paint("air", -outline)
        canvas.paint("skin", -outline - 2)
        canvas.paint("fat", -np.maximum(muscle, girth + self.fat_thickness))

        disc, body = self._draw_column(canvas, p)
        self._draw_posterior_elements(canvas, p, behind)
        sac = self._draw_canal(canvas, p, behind)
        self._draw_soft_tissue(canvas, p, behind, muscle)
        return disc, body, sac

    def _draw_column(self, canvas, p):
        """Discs between biconcave vertebral bodies in a shell of cortical bone, in a sleeve of ligament."""
        height, along = p.take(self.disc_heights), np.abs(p.t)
        # A superellipse, flattened towards the canal.
        radius = superellipse(p.u / p.half_width, p.v / p.half_depth)
        centre = np.clip(1 - radius**2, 0, 1)
        endplate = height / 2 * (0.68 + 0.32 * centre)
        disc_side = (radius - 1 - p.take(self.bulges) + 0.06 * (p.v < 0) * np.exp(-((p.u / 9) ** 2))) * p.half_depth
        disc = canvas.occupancy(np.maximum(along - endplate, disc_side))
        nucleus_side = superellipse(p.u / (0.68 * p.half_width), (p.v + 1.5) / (0.66 * p.half_depth)) - 1
        nucleus = canvas.occupancy(np.maximum(along - 0.86 * endplate, nucleus_side * 0.6 * p.half_depth), width=3.5)
        grade = p.take(self.grades)
        # Even healthy discs show the darker cleft of the mature nucleus.
        cleft = 0.3 * np.exp(-((p.t / 1.2) ** 2)) * (height > 7)
        degenerated = np.clip(grade + (1 - grade) * cleft, 0, 1)
        healthy, old = nucleus * (1 - degenerated), nucleus * degenerated
        canvas.mix({"nucleus": disc * healthy, "degenerated_nucleus": disc * old, "annulus": disc * (1 - nucleus)})

        waist = 0.09 * (1 - np.clip(p.w / (p.vertebra_height / 2), -1, 1) ** 2)
        body_surface = intersection(endplate - along, (radius - 1 + waist) * p.half_depth, radius=2.5)
        vein = box((p.u, 0, 4), (p.v + 0.75 * p.half_depth, 0, 5), (p.w, 0, 1.0))
        canvas.paint("blood", np.maximum(vein, body_surface), opacity=0.5)
        canvas.paint("marrow", body_surface + SHELL)
        canvas.paint("cortical_bone", body_surface)
        canvas.paint("ligament", (radius - 1) * p.half_depth - 1.2)
        return disc, canvas.occupancy(body_surface)

    def _draw_posterior_elements(self, canvas, p, behind):
        """Pedicles, articular pillars, laminae, spinous and transverse processes; the back wall of the sacrum."""
        lateral = np.abs(p.u)
        # Spinous processes slope down and grow taller towards their tips.
        flare = 6.5 + 0.14 * (behind - 20)
        drop = np.abs(p.w + 4 + 0.3 * (behind - 20)) - flare
        spinous = intersection(lateral - 3.5, np.abs(behind - 33) - 13.5, drop, radius=3)
        lamina = box((lateral, 0, 12), (behind + 0.35 * lateral, CANAL + 5, 3), (p.w + 5, 0, 8), radius=2)
        pedicle = box((lateral, 15, 4.5), (behind, 4, 11), (p.w - 5, 0, 7), radius=3)
        pillar = box((lateral, 16, 6), (behind, CANAL + 2, 6.5), (p.w + 2, 0, 15), radius=4)
        transverse = box((lateral, 33, 14), (behind, 9, 3.5), (p.w - 3, 0, 5), radius=3)
        lumbar = np.minimum.reduce([spinous, lamina, pedicle, pillar, transverse])
        crest = box((lateral, 0, 24), (behind + 0.2 * lateral + 0.05 * p.s, CANAL + 3, 4), radius=3)
        surface = np.where(p.vertebra > 0, lumbar, crest)
        canvas.paint("marrow", surface + 1.5 * SHELL)
        canvas.paint("cortical_bone", surface)

    def _draw_canal(self, canvas, p, behind):
        """The dural sac with the cord down to L1/L2 and the roots of the cauda equina below, in epidural fat.

        Returns what is dural sac, per sample.
        """
        # Towards S2 the sac narrows, and fat takes its place.
        taper = np.clip((p.s + 52) / 52, 0, 1)
        depth = behind - (2 + CANAL / 2 - 1.5 + 2.0 * (1 - taper))
        # The sac stands away from the bones between laminae, where fat fills the gap behind it.
        sac = np.hypot(p.u, depth * 1.35) - 9.5 * (0.15 + 0.85 * taper)
        conus = self.disc_positions[5]
        cord_radius = 4.6 * np.clip((p.s - conus) / 25, 0, 1) ** 0.6
        canvas.paint("nerve", np.maximum(np.hypot(p.u * 0.85, depth) - cord_radius, conus - p.s))
        strands = 0.5 + 0.5 * np.cos(2.3 * p.u + 0.02 * p.s) * np.cos(2.0 * depth + 0.03 * p.s)
        canvas.paint("nerve", np.maximum(np.hypot(p.u, depth * 1.5 - 3.5) - 7, sac + 1), opacity=0.55 * strands)
        canvas.paint("csf", sac)
        canvas.paint("ligament", sac - 0.5)
        flavum = box((np.abs(p.u), 0, 12), (behind + 0.35 * np.abs(p.u), CANAL + 3.5, 2))
        canvas.paint("ligament", np.where(p.s > -8, flavum, 99), opacity=0.7)
        canvas.paint("fat", box((p.u, 0, 12), (behind, CANAL / 2 + 1, CANAL / 2 + 2), radius=5))
        return canvas.occupancy(sac)

    def _draw_soft_tissue(self, canvas, p, behind, muscle):
        """Nerve roots in the foramina, great vessels, psoas and back muscles; what is left is the abdomen."""
        # The roots leave under the pedicles, in fat.
        lateral = np.abs(p.u)
        roots = np.sqrt((lateral - 15) ** 2 + (behind - 6) ** 2 + (p.w + 3) ** 2 / 4) - 3
        canvas.paint("nerve", np.where(p.s > -10, roots, 99))
        canvas.paint("fat", box((lateral, 0, 22), (behind, 9, 11), radius=4))
        # Flow through the aorta and the vena cava, which part before L4.
        vessel = np.hypot(lateral - 13, behind + 2 * p.half_depth + 14) - 9
        canvas.paint("blood", np.maximum(vessel, self.disc_positions[2] - p.s))
        canvas.paint("fat", np.hypot(p.u / 1.6, p.v) - p.half_depth - 5)
        canvas.paint("muscle", np.hypot((lateral - 43) / 1.1, p.v + 4) - 17)
        # Between the spinous processes lie ligament, muscle and fat; a ligament runs along their tips.
        between = box((p.u, 0, 3), (behind, 34, 15))
        fibres = 0.5 + 0.5 * np.cos(0.9 * (p.w + 0.5 * behind)) * np.cos(0.25 * behind)
        canvas.paint("ligament", box((p.u, 0, 4), (behind, BACK - 1.5, 1.5)), opacity=0.8)
        canvas.paint("ligament", between, opacity=0.35 * fibres)
        canvas.paint("fat", between, opacity=0.45)
        canvas.paint("muscle", np.maximum(4 - behind, muscle))
        canvas.paint("bowel", np.full_like(p.s, -99))

    def _texture(self, fractions, p):
        """Moves parts of fractions between tissues: fatty streaks in muscle, patchy marrow, bowel loops in fat."""
        streaks = noise(self.seed, p.u / 4, p.v / 4, p.s / 14)
        patches = noise(self.seed + 1, p.u / 7, p.v / 7, p.s / 7)
        loops = noise(self.seed + 2, p.u / 18, p.v / 18, p.s / 18)
        loops += 0.5 * noise(self.seed + 3, p.u / 6, p.v / 6, p.s / 6)
        move(fractions, "muscle", "fat", self.muscle_fat + 0.25 * streaks)
        move(fractions, "marrow", "fat", self.marrow_fat + 0.08 * patches)
        move(fractions, "bowel", "fat", 0.45 + 1.4 * loops)
        move(fractions, "bowel", "air", 1.2 * loops - 1.0 + np.clip(p.v - 60, 0, 20) / 40)

    @cached_property
    def _curve(self):
        """The line through the bodies, every STEP mm: arc length, y, z, sine and cosine of the tilt, curvature."""
        s = np.arange(self.ANGLE_POSITIONS[0], self.ANGLE_POSITIONS[-1], STEP)
        wanted = PchipInterpolator(self.ANGLE_POSITIONS, self.angles)
        # A centre of curvature nearer than that would lie inside the body, where no point has one nearest arc length.
        curvature = np.clip(wanted(s, 1), -1 / 190, 1 / 130)
        tilt = np.cumsum(curvature) * STEP
        tilt += wanted(0) - tilt[np.searchsorted(s, 0)]
        line = np.cumsum(np.stack([np.sin(tilt), np.cos(tilt)]), axis=1) * STEP
        line -= line[:, [np.searchsorted(s, self.vertebra_positions[3])]]
        return tuple(table.astype(np.float32) for table in (s, *line, np.sin(tilt), np.cos(tilt), curvature))

    def straighten(self, x, y, z):
        """Arrays of world coordinates → (u, v, s), by Newton's method for the nearest point of the line."""
        s, line_y, line_z, sine, cosine, curvature = self._curve
        last = len(s) - 1
        arc = z + self.vertebra_positions[3]
        for _ in range(5):
            at = np.clip((arc - s[0]) / STEP, 0, last).astype(np.int32)
            dy, dz = y - line_y[at], z - line_z[at]
            v = dy * cosine[at] - dz * sine[at]
            step = (dy * sine[at] + dz * cosine[at]) / np.maximum(1 - curvature[at] * v, 0.35)
            arc = s[at] + step
        u = x - np.float32(self.bend) * ((arc - self.vertebra_positions[3]) / 100) ** 2
        return u, v, arc


class _Points:
    """Sample points of a grid in the spine's coordinates, and the disc and vertebra that each is nearest to.

    t: offset from the middle of that disc; w: from the middle of that vertebra (index 0 is S1, below it -1).
    """

    def __init__(self, spine, shape, affine, splits):
        self.u, self.v, self.s = spine.straighten(*sample_points(shape, affine, splits))
        middles = spine.vertebra_positions[:-1]
        self.disc = np.searchsorted(middles, self.s.ravel()).reshape(self.s.shape)
        self.t = self.s - self.take(spine.disc_positions)
        self.vertebra = self.disc - (self.t < 0)
        above = np.maximum(self.vertebra, 0)
        self.w = self.s - spine.vertebra_positions[above]
        self.vertebra_height = spine.vertebra_heights.astype(np.float32)[above]
        # Widths run smoothly from disc to disc.
        self.half_depth = self._along(spine.disc_positions, spine.half_depths)
        self.half_width = self._along(spine.disc_positions, spine.half_widths)

    def take(self, values):
        return np.asarray(values, dtype=np.float32)[self.disc]

    def _along(self, positions, values):
        s = np.arange(-140, 420, 1.0)
        table = np.interp(s, positions, values).astype(np.float32)
        return table[np.clip(self.s + 140, 0, len(s) - 1).astype(np.int32)]
