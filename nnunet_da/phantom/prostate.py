"""A prostate with its surroundings, sampled from a seed and drawn on any grid.

World coordinates are mm in RAS, with the middle of the prostate at the origin.
"""

from dataclasses import dataclass

import numpy as np

from nnunet_da.phantom.anatomy import BodyPart
from nnunet_da.phantom.raster import box, capsule, ellipsoid, intersection, noise, superellipse, union, warp, waves


@dataclass(frozen=True)
class Prostate(BodyPart):
    """One male pelvis.

    size: of the pelvis, relative; zone: thickness of the peripheral zone, in mm; transition: half-axes in mm of the
    transition zone, which grows with benign hyperplasia; nodules: contrast of its nodules (0 to 1); tumour: radius in
    mm of a cancer of the peripheral zone (0: none), and tumour_side; bladder: half-width of the bladder in mm; rectum:
    its radius in mm; gas: share of its content; fat_thickness: mm; muscle_fat: share.
    """

    size: float
    zone: float
    transition: tuple[float, float, float]
    nodules: float
    tumour: float
    tumour_side: int
    bladder: float
    rectum: float
    gas: float
    fat_thickness: float
    muscle_fat: float

    TISSUES = (
        *("air", "skin", "fat", "muscle", "cortical_bone", "ligament", "marrow", "blood", "bowel", "cartilage"),
        *("fluid", "mucosa", "peripheral_zone", "transition_zone", "prostate_cancer"),
    )
    NAMES = ("peripheral zone", "transition zone")
    WIDEST = 1.6

    @staticmethod
    def draw_traits(rng):
        growth = rng.gamma(2.0, 0.16)
        half_axes = np.array([16.0, 11.5, 16.5]) * (0.95 + min(growth, 0.8)) * rng.normal(1, 0.05, 3)
        return {
            "size": float(np.clip(rng.normal(1, 0.05), 0.88, 1.12)),
            "zone": rng.uniform(5.5, 8.5) / (1 + 0.4 * min(growth, 0.8)),
            "transition": tuple(half_axes.tolist()),
            "nodules": rng.uniform(0.2, 0.9),
            "tumour": float(rng.uniform(4, 8) * (rng.uniform() < 0.6)),
            "tumour_side": int(rng.choice([-1, 1])),
            "bladder": rng.uniform(24, 46),
            "rectum": rng.uniform(11, 20),
            "gas": float(np.clip(rng.normal(0.4, 0.35), 0, 1)),
            "fat_thickness": rng.uniform(12, 35),
            "muscle_fat": float(np.clip(rng.normal(0.12, 0.06), 0.02, 0.35)),
        }

    def draw(self, canvas, points):
        world = points
        pelvis = tuple(p / np.float32(self.size) for p in points)
        gland = warp(self.seed, points, 18, 0.8)
        x, y = pelvis[:2]
        thick = self.fat_thickness
        outline = superellipse(x / (168 + thick), (y + 18) / (104 + thick)) * (104 + thick) - 104 - thick
        canvas.paint("air", -outline)
        canvas.paint("skin", -outline - 2)
        canvas.paint("fat", -outline - thick)

        whole = self._draw_gland(canvas, gland)
        self._draw_bladder_and_vesicles(canvas, gland)
        self._draw_rectum(canvas, gland)
        self._draw_bones(canvas, pelvis, world)
        self._draw_muscles(canvas, pelvis, world, whole)
        canvas.fill("fat")

    def _zones(self, points):
        """Distances to the transition zone and to the whole gland, which the peripheral zone completes behind."""
        x, y, z = points
        wide, deep, tall = self.transition
        transition = ellipsoid((x, y - 0.0012 * x * x, z), (0, 4, 2), (wide, deep, tall))
        zone = np.float32(self.zone)
        whole = ellipsoid(
            (x, y - 0.003 * x * x, z),
            (0, 4 - 0.55 * zone, 0),
            (wide + 0.8 * zone, deep + 0.62 * zone, tall + 0.5 * zone),
        )
        # At the base and in front, the gland has no peripheral zone.
        return transition, union(whole, transition, radius=3)

    def _draw_gland(self, canvas, points):
        """Both zones with nodules, septa and urethra, the fibrous stroma in front, and the capsule around all.

        Returns the distance to the whole gland.
        """
        x, y, z = points
        transition, whole = self._zones(points)
        if self.tumour:
            at = (self.tumour_side * 0.62 * self.transition[0], -0.75 * self.transition[1], -4)
            mass = ellipsoid(points, at, (1.3 * self.tumour, self.tumour, 1.2 * self.tumour))
            mass = np.maximum.reduce([mass, whole + 0.8, -transition])
            canvas.paint("prostate_cancer", mass, structure="peripheral zone")
        in_front = ellipsoid(points, (0, 4 + self.transition[1], -2), (0.7 * self.transition[0], 5, 14))
        stroma = np.maximum(whole + 0.5, in_front)
        canvas.blend({"muscle": 0.7, "transition_zone": 0.3}, stroma, "transition zone")
        urethra = np.maximum(capsule(points, (0, 3, 6), (0, 3, 40), 1.3), whole)
        canvas.paint("fluid", urethra, opacity=0.6, structure="transition zone")
        lumps = waves(self.seed + 1, points, 4.5) + 0.5 * noise(self.seed + 2, x / 5, y / 5, z / 5)
        bright = np.clip(0.12 + 0.35 * self.nodules * lumps, 0, 0.75)
        septa = np.minimum(0.6 * self.nodules * np.exp(-((lumps / 0.22) ** 2)), 1 - bright)
        parts = {"peripheral_zone": bright, "muscle": septa, "transition_zone": 1 - bright - septa}
        canvas.blend(parts, transition + 0.7, "transition zone")
        # The surgical capsule parts the zones.
        canvas.blend({"muscle": 0.6, "transition_zone": 0.4}, transition, "transition zone")
        ducts = np.clip(0.12 + 0.14 * noise(self.seed + 3, x / 3, y / 3, z / 5), 0, 0.6)
        canvas.blend({"peripheral_zone": 1 - ducts, "transition_zone": ducts}, whole, "peripheral zone")
        canvas.paint("ligament", whole - 0.8, opacity=0.8)
        return whole

    def _draw_bladder_and_vesicles(self, canvas, points):
        """Bladder with its wall above the gland, seminal vesicles behind it, veins in front and at the sides."""
        wide, deep, tall = self.transition
        top = 0.8 * tall + 2
        half = (np.abs(points[0]), *points[1:])
        bladder = ellipsoid(
            points, (0, 16, top + 0.68 * self.bladder), (self.bladder, 0.8 * self.bladder, 0.7 * self.bladder)
        )
        canvas.paint("fluid", bladder)
        canvas.paint("muscle", bladder - 3.5)
        tubes = np.clip(0.65 + 0.5 * waves(self.seed + 10, points, 2.2), 0, 1)
        vesicle = capsule(half, (5, -deep - 1, top - 3), (30, -deep - 9, top + 10), 4.5, 6.5)
        canvas.blend({"fluid": 0.8 * tubes, "mucosa": 1 - 0.8 * tubes}, vesicle)
        plexus = np.clip(0.5 + 0.5 * waves(self.seed + 11, points, 2.5), 0, 1)
        for veins in (
            ellipsoid(points, (0, 4 + deep + 8, -10), (13, 4.5, 14)),
            capsule(half, (wide + 9, -4, -10), (wide + 9, -4, 16), 3.5),
        ):
            canvas.blend({"fluid": 0.6 * plexus, "fat": 1 - 0.6 * plexus}, veins)

    def _draw_rectum(self, canvas, points):
        """The rectum behind the gland, with mucosa, muscle and content; gas collects in front. The anal canal below."""
        behind = 4 - self.transition[1] - 1.17 * self.zone - self.rectum - 4.5
        y = points[1]
        bent = union(
            capsule(points, (0, behind, -6), (0, behind - 2, 24), self.rectum, self.rectum),
            capsule(points, (0, behind - 2, 24), (6, behind - 22, 80), self.rectum, 0.85 * self.rectum),
            capsule(points, (0, behind, -8), (0, behind - 4, -70), 8, 8),
            radius=10,
        )
        lumen = bent + 4 + 0.8 * waves(self.seed + 12, points, 7)
        # 1: all of the lumen is gas.
        level = behind + self.rectum * (1 - 2 * self.gas)
        canvas.paint("air", np.maximum(lumen, level - y))
        canvas.blend({"bowel": 0.7, "air": 0.3}, lumen)
        canvas.paint("mucosa", bent + 2.2)
        canvas.paint("muscle", bent)
        canvas.paint("fat", bent - 3)

    def _draw_bones(self, canvas, pelvis, world):
        """Pubic bones with the symphysis, ischium, acetabulum, femur, and the lowest part of the sacrum."""
        x, y, z = pelvis
        half = (np.abs(x), y, z)
        canvas.paint("cartilage", box((x, 0, 2.5), (y, 50, 10), (z, 2, 17), radius=2), opacity=0.6)
        head = ellipsoid(half, (88, 8, 32), (24, 24, 24))
        socket = intersection(
            ellipsoid(half, (76, 8, 36), (29, 33, 32)), -ellipsoid(half, (89, 8, 31), (27.5,) * 3), radius=2
        )
        pubis = union(
            capsule(half, (11, 49, 4), (32, 47, 14), 9.5, 8.5),
            capsule(half, (32, 47, 14), (62, 26, 34), 8, 13),
            capsule(half, (10, 46, -8), (40, 4, -50), 7, 6.5),
            radius=7,
        )
        ischium = union(
            capsule(half, (66, -14, 30), (56, -22, -40), 13, 13),
            capsule(half, (56, -22, -40), (40, 4, -50), 12, 7),
            radius=8,
        )
        femur = union(
            head,
            capsule(half, (88, 8, 32), (126, -4, 14), 15, 16),
            capsule(half, (130, -6, 16), (128, 0, -140), 17, 14),
            radius=8,
        )
        sacrum = capsule((x / 2, y, z), (0, -88, 70), (0, -70, -6), 11, 4)
        canvas.paint("cartilage", np.maximum(head - 2, ellipsoid(half, (80, 10, 36), (25, 25, 25))))
        for bone in (femur, np.maximum(union(pubis, ischium, socket, radius=8), 2.5 - np.abs(x)), sacrum):
            self.paint_bone(canvas, bone, world, fat=0.35)

    def _draw_muscles(self, canvas, pelvis, world, whole):
        """Levator ani beside the gland, the muscles of the wall of the pelvis and of the hip, and the vessels."""
        x, y, z = pelvis
        half = (np.abs(x), y, z)
        sling = intersection(np.abs(whole - 6) - 1.8, z - 6, y - 14, radius=1)
        canvas.paint("muscle", sling)
        for at, radius in (((84, 72), 4.5), ((73, 70), 5.5)):
            canvas.paint("blood", capsule(half, (*at, -140), (at[0] - 14, at[1] - 10, 110), radius))
        for centre, radii in (
            ((45, 4, 6), (8.5, 36, 36)),
            ((62, -86, -14), (58, 27, 84)),
            ((46, 32, -48), (34, 22, 46)),
            ((62, -4, -60), (34, 28, 50)),
            ((88, 46, 40), (24, 19, 70)),
            ((118, 50, -30), (30, 28, 100)),
            ((52, 56, -14), (30, 16, 30)),
            ((132, -34, 60), (22, 38, 60)),
            ((148, 20, -6), (12, 40, 70)),
            ((96, -36, -4), (32, 16, 26)),
            ((20, 66, 50), (22, 8, 60)),
        ):
            self.paint_muscle(canvas, ellipsoid(half, centre, radii), world, self.muscle_fat)
