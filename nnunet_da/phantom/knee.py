"""A knee with its surroundings, sampled from a seed and drawn on any grid.

Drawn as a right knee in mm, with the joint line at the origin: x lateral, y anterior, z superior; a left knee is its
mirror image.
"""

from dataclasses import dataclass

import numpy as np

from nnunet_da.phantom.anatomy import BodyPart
from nnunet_da.phantom.raster import capsule, ellipsoid, intersection, rotate, superellipse, union, warp, waves

PLATEAU = -3.0  # height of the tibial plateau
# Centre (x, y) and half-axes of the articular surfaces of the tibia.
MEDIAL_PLATEAU = ((-20.0, -1.0), (16.0, 22.0))
LATERAL_PLATEAU = ((20.0, -3.0), (15.0, 19.0))
CONDYLES = (-4.0, 24.0)  # (y, z) of the axis through the condyles


@dataclass(frozen=True)
class Knee(BodyPart):
    """One knee.

    side: 1 right, -1 left; size: relative; flexion, turn: degrees, of the femur and of the whole leg; cartilage: its
    thickness in mm; wear: loss of the medial cartilage (0 none, 1 most); effusion: mm of joint fluid; fat_thickness:
    under the skin, in mm; muscle_fat, marrow_fat: shares.
    """

    side: int
    size: float
    flexion: float
    turn: float
    cartilage: float
    wear: float
    effusion: float
    fat_thickness: float
    muscle_fat: float
    marrow_fat: float

    TISSUES = (
        *("air", "skin", "fat", "muscle", "cortical_bone", "ligament", "marrow", "nerve", "blood"),
        *("cartilage", "fluid"),
    )
    NAMES = ("femur", "femoral cartilage", "tibia", "medial tibial cartilage", "lateral tibial cartilage")
    WIDEST = 1.6

    @staticmethod
    def draw_traits(rng):
        age = rng.uniform()
        wear = float(np.clip(rng.normal(0.7 * age, 0.25), 0, 0.9))
        return {
            "side": int(rng.choice([-1, 1])),
            "size": float(np.clip(rng.normal(1, 0.07), 0.86, 1.15)),
            "flexion": rng.uniform(-2, 12),
            "turn": rng.normal(0, 5),
            "cartilage": float(np.clip(rng.normal(2.6, 0.3), 2.0, 3.2)),
            "wear": wear,
            "effusion": float(rng.gamma(2, 0.6 + wear)),
            "fat_thickness": rng.uniform(4, 14),
            "muscle_fat": float(np.clip(rng.normal(0.05 + 0.15 * age, 0.05), 0.02, 0.4)),
            "marrow_fat": rng.uniform(0.4, 0.7),
        }

    def draw(self, canvas, points):
        world = points
        x, y, z = points
        points = rotate((self.side * x, y, z), (0, 0, self.turn))
        points = warp(self.seed, tuple(p / np.float32(self.size) for p in points), 25, 0.5)
        leg = self._leg(points)
        canvas.paint("air", -leg)
        canvas.paint("skin", -leg - 1.8)
        canvas.paint("fat", -leg - self.fat_thickness)

        thigh = rotate(points, (-self.flexion, 0, 0), (0, *CONDYLES))
        femur, tibia = self._femur(thigh), self._tibia(points)
        self.paint_bone(canvas, femur, world, "femur", fat=self.marrow_fat)
        self.paint_bone(canvas, tibia, world, "tibia", fat=self.marrow_fat)
        self._draw_cartilage(canvas, points, thigh, femur, tibia)
        self._draw_patella(canvas, points, world)
        self._draw_menisci(canvas, points)
        self._draw_ligaments(canvas, points)
        gap = np.maximum(femur - self.cartilage - 0.3, tibia - 8)
        canvas.paint("fluid", np.maximum(gap, ellipsoid(points, (0, 0, 0), (36, 26, 9))))
        self._draw_soft_tissue(canvas, points, world)
        canvas.fill("fat")

    def _leg(self, points):
        """Distance to the skin."""
        x, y, z = points
        girth = 54 + self.fat_thickness + 0.16 * np.maximum(z - 20, 0) - 5 * np.exp(-(((z + 10) / 35) ** 2))
        behind = np.float32(-4) - 0.10 * np.abs(z)
        radius = np.hypot(x * 1.04, (y - behind) * np.where(y > behind, np.float32(0.97), np.float32(1.0)))
        front = ellipsoid(points, (0, 30, 30), (30, 20 + self.fat_thickness, 36))
        return union(radius - girth, front, radius=14)

    def _femur(self, points):
        x, y, z = points
        condyles = [
            ellipsoid(points, centre, radii)
            for centre, radii in (
                ((-22, -14, 20.5), (12.5, 19, 18)),
                ((22, -14, 21), (12.5, 18, 17.5)),
                ((-21, 6, 25), (15, 24, 22.4)),
                ((21, 7, 25.5), (15, 25, 22.4)),
                ((-12, 17, 34), (13, 14, 20)),
                ((13, 19, 35), (13, 15, 21)),
            )
        ]
        flare = np.clip((z - 30) / 50, 0, 1)
        width, depth = 33 - 18 * flare**0.7, 22 - 8 * flare**0.7
        cone = (superellipse(x / width, (y - 2) / depth) - 1) * depth
        shaft = intersection(cone, 26 - z, radius=4)
        bone = union(*condyles, shaft, radius=9)
        notch = capsule(points, (0, -40, 12), (0, 2, 7), 10.5, 8)
        groove = capsule(points, (1, 50, 30), (1, 30, 60), 14, 10)
        return intersection(bone, -notch, -groove, radius=3)

    def _tibia(self, points):
        x, y, z = points
        fall = np.clip((PLATEAU - 2 - z) / 52, 0, 1) ** 0.75
        width, depth = 38 - 22.5 * fall, 25 - 9.5 * fall
        column = (superellipse(x / width, (y + 2 - 3 * fall) / depth) - 1) * depth
        # The medial plateau is hollow, the lateral one domed; both slope backwards.
        hollow = 1.6 * np.exp(-(((x + 20) / 12) ** 2 + (y / 16) ** 2))
        dome = 0.7 * np.exp(-(((x - 20) / 12) ** 2 + (y / 14) ** 2))
        top = PLATEAU + 0.06 * y - hollow + dome
        eminences = union(
            capsule(points, (-5, -3, -8), (-4, -3, 3.5), 6, 1.5),
            capsule(points, (5, -4, -8), (5, -4, 2.5), 6, 1.5),
            radius=2,
        )
        tuberosity = capsule(points, (2, 17, -26), (2, 19, -46), 9, 5)
        return union(intersection(column, z - top, radius=3), eminences, tuberosity, radius=3)

    def _draw_cartilage(self, canvas, points, thigh, femur, tibia):
        """Layers on the bones, which thin out towards the borders of the articular surfaces."""
        x, y, z = thigh
        around = np.rad2deg(np.arctan2(y - CONDYLES[0], CONDYLES[1] - z))  # 0 at the bottom, 90 in front
        behind = np.clip((8 - y) / 8, 0, 1)
        border = np.minimum.reduce(
            [(around + 105) / 4, (122 - around) / 4, 35 - np.abs(x), np.abs(x) + 4 - 12 * behind]
        )
        medial = np.clip(0.5 - x / 8, 0, 1) * np.exp(-((around / 45) ** 2))
        patches = np.clip(1 + 0.5 * waves(self.seed + 5, points, 9), 0, 2)
        thickness = self.cartilage * np.clip(border / 7, 0, 1) ** 0.5 * (1 - 0.75 * self.wear * medial * patches / 1.5)
        canvas.paint("cartilage", np.where(border > 0, femur - thickness, 9), structure="femoral cartilage")
        for name, ((at_x, at_y), (half_x, half_y)), loss in (
            ("medial tibial cartilage", MEDIAL_PLATEAU, self.wear),
            ("lateral tibial cartilage", LATERAL_PLATEAU, 0.2 * self.wear),
        ):
            radius = np.hypot((points[0] - at_x) / half_x, (points[1] - at_y) / half_y)
            thickness = 1.05 * self.cartilage * np.sqrt(np.clip(1.06 - radius**2, 0, 1))
            thickness *= 1 - 0.6 * loss * np.exp(-((radius / 0.6) ** 2)) * patches / 1.5
            layer = np.where(np.abs(points[2] - PLATEAU) < 7, tibia - thickness, 9)
            canvas.paint("cartilage", np.maximum(layer, (radius - 1) * half_x), structure=name)

    def _draw_patella(self, canvas, points, world):
        """The patella with its cartilage, between the tendons in front and the recess of the joint behind."""
        high = 36 + 0.15 * self.flexion
        bone = intersection(
            ellipsoid(points, (1, 49, high), (22, 11, 21)), -capsule(points, (1, 10, high), (1, 34, high), 8), radius=3
        )
        self.paint_bone(canvas, bone, world, fat=self.marrow_fat)
        facet = np.maximum(bone - self.cartilage, ellipsoid(points, (1, 38, high + 3), (18, 9, 15)))
        canvas.paint("cartilage", facet)
        kneecap = np.maximum(bone - 2.5, 50 - points[1])
        quadriceps = capsule(points, (1, 50, high + 16), (0, 40, high + 110), 5, 9)
        patellar = capsule(points, (1, 51, high - 15), (2, 28, -42), 4, 3)
        for tendon in (kneecap, quadriceps, patellar):
            canvas.paint("ligament", tendon)
        canvas.paint("fluid", ellipsoid(points, (0, 33, 66), (19, 1 + 1.2 * self.effusion, 24)))

    def _draw_menisci(self, canvas, points):
        """Wedges around the plateaus, open towards the middle, in what the cartilages leave free."""
        x, y, z = points
        for (at_x, at_y), (half_x, half_y) in (MEDIAL_PLATEAU, LATERAL_PLATEAU):
            radius = np.hypot((x - at_x) / (half_x + 1), (y - at_y) / (half_y + 2))
            height = 8 * np.clip(radius - 0.5, 0, 0.6)
            ring = np.maximum(np.abs(radius - 0.85) - 0.27, np.sign(at_x) * (at_x - x) / half_x - 0.55)
            canvas.paint("ligament", np.maximum(ring * half_x, np.abs(z) - height - 1.5), opacity=0.95)

    def _draw_ligaments(self, canvas, points):
        """Cruciates in the notch, collaterals on both sides."""
        for start, end, radius in (
            ((-2, 8, -3), (8, -14, 18), 3.6),
            ((0, -24, -8), (-7, 2, 14), 4.8),
            ((-40, -2, 24), (-33, 4, -40), 1.8),
            ((40, -8, 24), (38, -16, -14), 2.0),
        ):
            canvas.paint("ligament", capsule(points, start, end, radius), opacity=0.85)

    def _draw_soft_tissue(self, canvas, points, world):
        """Fibula, popliteal vessels and nerve, and the muscles of thigh and calf, in fat."""
        fibula = union(
            capsule(points, (35, -16, -18), (32, -16, -34), 9, 6),
            capsule(points, (32, -16, -34), (30, -14, -150), 6, 6),
            radius=3,
        )
        self.paint_bone(canvas, fibula, world, fat=self.marrow_fat)
        for at, radius in (((2, -37), 3.6), ((5, -42), 4.2)):
            canvas.paint("blood", capsule(points, (*at, -120), (at[0] - 4, at[1] + 6, 120), radius))
        canvas.paint("nerve", capsule(points, (8, -50, -100), (4, -46, 120), 3), opacity=0.5)
        for start, end, radius, end_radius in (
            # Vastus medialis and lateralis, biceps femoris, semimembranosus, semitendinosus, sartorius.
            ((-27, 14, 34), (-24, 12, 160), 13, 27),
            ((28, 14, 56), (24, 10, 160), 9, 28),
            ((34, -26, 12), (24, -34, 150), 9, 21),
            ((-27, -32, 4), (-16, -36, 150), 11, 22),
            ((-20, -44, 20), (-8, -46, 150), 4, 12),
            ((-42, -18, 20), (-36, -6, 150), 5, 8),
            # Heads of the gastrocnemius, popliteus with soleus, the muscles of shin and fibula.
            ((-21, -38, 26), (-19, -44, -130), 9, 21),
            ((22, -36, 24), (17, -44, -130), 8, 20),
            ((2, -27, -24), (4, -26, -130), 9, 17),
            ((25, 4, -44), (24, 8, -150), 9, 15),
        ):
            self.paint_muscle(canvas, capsule(points, start, end, radius, end_radius), world, self.muscle_fat)
