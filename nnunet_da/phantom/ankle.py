"""An ankle with its surroundings, sampled from a seed and drawn on any grid.

Drawn as a right ankle in mm, with the joint between tibia and talus at the origin: x lateral, y anterior, z superior; a
left ankle is its mirror image.
"""

from dataclasses import dataclass

import numpy as np

from nnunet_da.phantom.anatomy import BodyPart
from nnunet_da.phantom.raster import box, capsule, ellipsoid, intersection, rotate, superellipse, union, warp

DOME = (0.0, -21.5, 20.0)  # (y, z) of the axis of the talar dome, and its radius


@dataclass(frozen=True)
class Ankle(BodyPart):
    """One ankle.

    side: 1 right, -1 left; size: relative; plantarflexion, turn: degrees, of the foot and of the leg; cartilage: its
    thickness in mm; effusion: mm of joint fluid; fat_thickness: under the skin, in mm; muscle_fat, marrow_fat: shares.
    """

    side: int
    size: float
    plantarflexion: float
    turn: float
    cartilage: float
    effusion: float
    fat_thickness: float
    muscle_fat: float
    marrow_fat: float

    TISSUES = (
        *("air", "skin", "fat", "muscle", "cortical_bone", "ligament", "marrow", "nerve", "blood"),
        *("cartilage", "fluid"),
    )
    NAMES = ("calcaneus", "talus", "tibia")
    WIDEST = 1.6

    @staticmethod
    def draw_traits(rng):
        return {
            "side": int(rng.choice([-1, 1])),
            "size": float(np.clip(rng.normal(1, 0.07), 0.86, 1.15)),
            "plantarflexion": rng.uniform(-4, 22),
            "turn": rng.normal(0, 6),
            "cartilage": rng.uniform(1.0, 1.6),
            "effusion": float(rng.gamma(2, 0.7)),
            "fat_thickness": rng.uniform(2, 8),
            "muscle_fat": float(np.clip(rng.normal(0.08, 0.06), 0.02, 0.35)),
            "marrow_fat": rng.uniform(0.5, 0.85),
        }

    def draw(self, canvas, points):
        world = points
        x, y, z = points
        points = rotate((self.side * x, y, z), (0, 0, self.turn))
        points = warp(self.seed, tuple(p / np.float32(self.size) for p in points), 22, 0.6)
        foot = rotate(points, (-self.plantarflexion, 0, 0), (0, DOME[0], DOME[1]))
        outline = self._outline(points, foot)
        canvas.paint("air", -outline)
        canvas.paint("skin", -outline - 1.8)
        canvas.paint("fat", -outline - self.fat_thickness)

        tibia, talus = self._tibia(points), self._talus(foot)
        self.paint_bone(canvas, tibia, world, "tibia", fat=self.marrow_fat)
        self.paint_bone(canvas, talus, world, "talus", fat=self.marrow_fat)
        calcaneus = self._calcaneus(foot)
        self.paint_bone(canvas, calcaneus, world, "calcaneus", shell=1.0, fat=self.marrow_fat)
        self._draw_joints(canvas, points, tibia, talus, calcaneus)
        self._draw_other_bones(canvas, points, foot, world)
        self._draw_tendons(canvas, points, foot)
        self._draw_muscles(canvas, points, foot, world)
        canvas.fill("fat")

    def _outline(self, points, foot):
        """Distance to the skin: of the leg, joined to the heel and the forefoot."""
        x, y, z = points
        thick = self.fat_thickness
        calf = 31 + thick + 11 * np.clip((z - 20) / 90, 0, 1)
        leg = np.maximum(np.hypot(x, (y + 12) / 1.18) - calf, -z - 10)
        sole = -foot[2] - 66 - 0.5 * thick
        heel = ellipsoid(foot, (1, -36, -40), (27 + thick, 34 + thick, 36))
        midfoot = capsule(foot, (-1, 0, -30), (0, 95, -46), 32 + 0.5 * thick, 22)
        return intersection(union(leg, heel, midfoot, radius=22), sole, radius=8)

    def _tibia(self, points):
        x, y, z = points
        narrow = np.clip((z - 4) / 55, 0, 1) ** 0.7
        width, depth = 23 - 10.5 * narrow, 20 - 6.5 * narrow
        shaft = (superellipse((x + 3) / width, (y + 2) / depth) - 1) * depth
        gap = DOME[2] + 2 * self.cartilage + 0.6
        dome = np.hypot(y - DOME[0], z - DOME[1]) - gap
        plafond = intersection(shaft, -2 - z, -dome, radius=2)
        malleolus = intersection(capsule(points, (-23, -2, 16), (-22.5, 0, -8), 9, 6), x + 17.5, radius=2)
        return union(plafond, malleolus, radius=5)

    def _talus(self, foot):
        x, y, z = foot
        dome = np.hypot(y - DOME[0], z - DOME[1]) - DOME[2]
        taper = 15 + 0.06 * y
        body = intersection(dome, np.abs(x) - taper, -z - 20, np.abs(y + 1) - 19, radius=3)
        base = box((x, 0, 15), (y, -3, 17), (z + 0.25 * y, -19, 7), radius=5)
        neck = capsule(foot, (-2, 12, -17), (-8, 31, -22), 11.5, 12)
        process = capsule(foot, (-2, -10, -19), (-3, -24, -21), 8, 4)
        return union(body, base, neck, process, radius=7)

    def _calcaneus(self, foot):
        x, y, z = foot
        tuberosity = ellipsoid(foot, (0, -45, -46), (15, 17, 21))
        body = capsule(foot, (0, -40, -44), (3, 4, -43), 16, 13)
        facet = capsule(foot, (3, -18, -36), (4, 0, -38), 11, 10)
        front = box((x, 7, 11), (y, 14, 15), (z, -42, 11), radius=6)
        shelf = capsule(foot, (-4, 2, -34), (-15, 6, -32), 6, 5)
        return union(tuberosity, body, facet, front, shelf, radius=9)

    def _draw_joints(self, canvas, points, tibia, talus, calcaneus):
        """Cartilage on facing surfaces, and fluid between them and in the recesses of the ankle joint."""
        layer = np.float32(self.cartilage)
        ankle = np.maximum(tibia, talus) - 2 * layer - 0.4
        subtalar = np.maximum(talus, calcaneus) - 2 * layer - 0.4
        for gap in (ankle, subtalar):
            canvas.paint("cartilage", np.maximum(gap, np.minimum.reduce([tibia, talus, calcaneus]) - layer))
        recess = np.maximum(talus - 2 - self.effusion, ellipsoid(points, (0, 0, -3), (17, 25, 9)))
        canvas.paint("fluid", np.minimum(ankle, recess))
        canvas.paint(
            "ligament", np.maximum(np.maximum(talus, calcaneus) - 6, ellipsoid(points, (2, 4, -28), (8, 7, 8)))
        )

    def _draw_other_bones(self, canvas, points, foot, world):
        """Fibula, navicular, cuboid, cuneiforms and the bases of the metatarsals."""
        fibula = union(
            capsule(points, (25, -8, 150), (24, -8, 12), 6.5, 7), ellipsoid(points, (24, -7, -6), (7, 10, 19)), radius=6
        )
        navicular = intersection(ellipsoid(foot, (-11, 47, -25), (18, 9, 13)), 32 - np.abs(foot[1] - 15), radius=2)
        cuboid = box((foot[0], 13, 11), (foot[1], 46, 15), (foot[2], -43, 10), radius=6)
        bones = [fibula, navicular, cuboid]
        for at_x, half, height in ((-20, 8, -30), (-6, 7, -27), (5, 7, -29)):
            bones.append(box((foot[0], at_x, half), (foot[1], 66, 9), (foot[2], height, 11), radius=5))
        for at_x, height, radius in ((-22, -34, 9), (-9, -31, 6.5), (1, -33, 6.5), (11, -38, 6), (21, -43, 6)):
            bones.append(capsule(foot, (at_x, 82, height), (1.1 * at_x, 140, height - 18), radius, radius - 1))
        for bone in bones:
            self.paint_bone(canvas, bone, world, shell=1.1, fat=self.marrow_fat)

    def _draw_tendons(self, canvas, points, foot):
        """Achilles tendon, plantar fascia, the long flexors and extensors and the collateral ligaments."""
        heel = rotate(((0,), (-60,), (-38,)), (self.plantarflexion, 0, 0), (0, DOME[0], DOME[1]))
        heel = [float(p[0]) for p in heel]
        x, y, z = points
        for tendon in (
            capsule((x / 2.8, y, z), heel, (0, -40, 75), 2.8, 3.2),
            capsule((foot[0] / 4, *foot[1:]), (0, -40, -66), (0, 110, -60), 2.0, 1.5),
            capsule(points, (-6, 22, 100), (-16, 26, 0), 3.2),
            capsule(points, (4, 24, 100), (4, 29, -2), 3.0),
            capsule(points, (-18, -16, 90), (-24, -14, -4), 2.8),
            capsule(points, (-12, -20, 90), (-15, -22, -10), 2.5),
            capsule(points, (24, -18, 80), (27, -19, -14), 2.6),
            capsule(points, (-23, 0, -8), (-15, -2, -30), 2.5),
            capsule(points, (23, 2, -12), (14, 10, -18), 1.8),
            capsule(points, (23, -6, -18), (14, -10, -38), 2.2),
        ):
            canvas.paint("ligament", tendon, opacity=0.95)

    def _draw_muscles(self, canvas, points, foot, world):
        """Muscles of the leg and of the sole, with vessels and the tibial nerve behind the inner malleolus."""
        for start, end, radius in (((-20, -23, 120), (-22, -24, -20), 1.8), ((10, 26, 120), (0, 32, -10), 1.5)):
            canvas.paint("blood", capsule(points, start, end, radius))
        canvas.paint("nerve", capsule(points, (-14, -28, 120), (-18, -29, -20), 2.4), opacity=0.6)
        for start, end, radius, end_radius in (
            ((4, -26, 14), (0, -34, 150), 7, 22),
            ((-10, -20, 34), (-12, -22, 150), 5, 14),
            ((8, 20, 34), (10, 18, 150), 4, 13),
            ((-8, 20, 50), (-6, 20, 150), 3, 10),
            ((24, -18, 16), (26, -14, 150), 5, 12),
        ):
            self.paint_muscle(canvas, capsule(points, start, end, radius, end_radius), world, self.muscle_fat)
        for start, end, radius in (
            ((-16, -22, -56), (-24, 90, -54), 9),
            ((0, -24, -60), (2, 90, -54), 8),
            ((16, -22, -58), (22, 90, -56), 7),
        ):
            self.paint_muscle(canvas, capsule(foot, start, end, radius, radius), world, self.muscle_fat)
        self.paint_muscle(canvas, capsule(foot, (14, 22, -26), (4, 90, -22), 6, 3), world, self.muscle_fat)
