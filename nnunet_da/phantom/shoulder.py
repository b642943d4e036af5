"""A shoulder with its surroundings, sampled from a seed and drawn on any grid.

Drawn as a right shoulder in mm, with the joint of humerus and scapula at the origin: x lateral, y anterior, z superior;
a left shoulder is its mirror image.
"""

from dataclasses import dataclass

import numpy as np

from nnunet_da.phantom.anatomy import BodyPart
from nnunet_da.phantom.raster import capsule, ellipsoid, intersection, rotate, union, warp


@dataclass(frozen=True)
class Shoulder(BodyPart):
    """One shoulder.

    side: 1 right, -1 left; size: relative; rotation, abduction: degrees, of the humerus; turn: degrees, of the shoulder
    blade; cartilage: its thickness in mm; effusion: mm of joint fluid; fat_thickness: under the skin, in mm;
    muscle_bulk: relative; muscle_fat, marrow_fat: shares.
    """

    side: int
    size: float
    rotation: float
    abduction: float
    turn: float
    cartilage: float
    effusion: float
    fat_thickness: float
    muscle_bulk: float
    muscle_fat: float
    marrow_fat: float

    TISSUES = (
        *("air", "skin", "fat", "muscle", "cortical_bone", "ligament", "marrow", "nerve", "blood"),
        *("cartilage", "fluid"),
    )
    NAMES = ("scapula", "humerus")
    WIDEST = 1.8

    @staticmethod
    def draw_traits(rng):
        return {
            "side": int(rng.choice([-1, 1])),
            "size": float(np.clip(rng.normal(1, 0.07), 0.86, 1.15)),
            "rotation": rng.uniform(-20, 25),
            "abduction": rng.uniform(0, 16),
            "turn": rng.normal(0, 5),
            "cartilage": rng.uniform(1.2, 1.9),
            "effusion": float(rng.gamma(2, 0.5)),
            "fat_thickness": rng.uniform(4, 16),
            "muscle_bulk": float(np.clip(rng.normal(1, 0.12), 0.75, 1.3)),
            "muscle_fat": float(np.clip(rng.normal(0.1, 0.07), 0.02, 0.4)),
            "marrow_fat": rng.uniform(0.4, 0.75),
        }

    def draw(self, canvas, points):
        world = points
        x, y, z = points
        points = rotate((self.side * x, y, z), (0, 0, self.turn))
        points = warp(self.seed, tuple(p / np.float32(self.size) for p in points), 28, 0.7)
        # The blade lies about 35 degrees behind the coronal plane, and its socket faces forward by as much.
        blade = rotate(points, (0, 0, 33))
        arm = rotate(points, (0, self.abduction, 0), (24, 0, 0))
        arm = rotate(arm, (0, 0, self.rotation), (24, 0, 0))
        outline = self._outline(points, arm)
        canvas.paint("air", -outline)
        canvas.paint("skin", -outline - 1.8)
        canvas.paint("fat", -outline - self.fat_thickness)

        scapula, humerus = self._scapula(points, blade), self._humerus(arm)
        self.paint_bone(canvas, humerus, world, "humerus", fat=self.marrow_fat)
        self.paint_bone(canvas, scapula, world, "scapula", shell=1.1, fat=self.marrow_fat)
        self._draw_joint(canvas, points, blade, humerus, scapula)
        self._draw_chest(canvas, points, world)
        self._draw_muscles(canvas, points, blade, arm, world)
        canvas.fill("fat")

    def _outline(self, points, arm):
        """Distance to the skin: of the deltoid, the arm, the trunk, and the slope to the neck."""
        thick = self.fat_thickness + 2
        bulk = np.float32(self.muscle_bulk)
        deltoid = ellipsoid(arm, (30, -2, -12), (38 * bulk + thick, 42 * bulk + thick, 52 + thick))
        upper_arm = capsule(arm, (34, -4, -40), (42, -6, -200), 37 * bulk + thick, 32 * bulk + thick)
        trunk = ellipsoid(points, (-120, -6, -90), (122 + thick, 92 + thick, 135 + thick))
        slope = capsule(points, (0, -12, 18), (-120, -18, 62), 24 + thick, 52)
        return union(deltoid, upper_arm, trunk, slope, radius=26)

    def _humerus(self, arm):
        head = ellipsoid(arm, (24, 0, 0), (23, 23, 24))
        greater = ellipsoid(arm, (37, -2, 2), (11, 15, 17))
        lesser = ellipsoid(arm, (31, 17, -4), (9, 8, 12))
        neck = capsule(arm, (29, -1, -8), (33, -3, -44), 19, 12.5)
        shaft = capsule(arm, (33, -3, -44), (40, -5, -260), 12.5, 11)
        sulcus = capsule(arm, (42, 16, 12), (42, 14, -30), 4)
        return intersection(union(head, greater, lesser, neck, shaft, radius=9), -sulcus, radius=2)

    def _scapula(self, points, blade):
        """The body, a thin triangle with thick borders, its spine up to the acromion, the coracoid, and the socket."""
        x, y, z = blade
        curve = y + 0.0016 * (x + 55) ** 2 - 5
        lateral_border = 0.86 * (x + 12) + 0.50 * (z + 24)
        # Corners: the socket, the upper one, and the lower one near the spine of the back.
        triangle = np.maximum.reduce([lateral_border, -x - 108, 0.95 * (z - 22) - 0.30 * (x + 12)])
        plate = intersection(np.abs(curve) - 2.6, triangle, radius=1.5)
        border = capsule(blade, (-12, 0, -20), (-88, -2, -128), 5.5, 5)
        ridge = intersection(
            np.abs(z - 14 + 0.10 * x) - 3.0, -curve - 22 - 0.10 * np.minimum(x, 0), curve - 2, -x - 100, x - 4, radius=2
        )
        neck = capsule(blade, (-8, 0, -1), (-24, 0, -2), 11, 7)
        rim = ellipsoid(blade, (-6, 0, -2), (7, 14, 20))
        socket = ellipsoid(points, (24, 0, 0), (26.5 + 2 * self.cartilage,) * 3)
        glenoid = intersection(union(neck, rim, radius=6), -socket, radius=1.5)
        acromion = union(
            capsule(blade, (-6, -24, 18), (22, -24, 33), 6, 6),
            capsule((points[0], points[1], points[2] * 1.5), (24, -18, 52.5), (27, 6, 54), 9.5, 8),
            radius=6,
        )
        coracoid = union(
            capsule(points, (-10, 8, 18), (-6, 22, 28), 7, 6.5),
            capsule(points, (-6, 22, 28), (9, 32, 20), 6.5, 5.5),
            radius=4,
        )
        return union(plate, border, ridge, glenoid, acromion, coracoid, radius=5)

    def _draw_joint(self, canvas, points, blade, humerus, scapula):
        """Cartilage of head and socket, the labrum around it, fluid in the capsule, and the tendons of the cuff."""
        layer = np.float32(self.cartilage)
        towards = 14 - points[0] + 0.3 * points[2]
        canvas.paint("cartilage", np.maximum(humerus - layer, -towards))
        disc = np.maximum(scapula - layer, ellipsoid(blade, (0, 0, -2), (9, 12, 17)))
        canvas.paint("cartilage", disc)
        labrum = np.maximum(scapula - 4, ellipsoid(blade, (1, 0, -2), (5, 16, 22)))
        canvas.paint("ligament", labrum, opacity=0.9)
        capsule_space = np.maximum(
            humerus - layer - 1.0 - 0.5 * self.effusion, ellipsoid(points, (8, 0, -6), (14, 24, 26))
        )
        canvas.paint("fluid", capsule_space)
        cuff = np.maximum.reduce([humerus - 4.5, ellipsoid(points, (28, 0, 12), (24, 27, 22)), -humerus + 0.2])
        canvas.paint("ligament", cuff, opacity=0.9)
        canvas.paint("ligament", capsule(points, (42, 18, 2), (40, 15, -60), 2.5))

    def _draw_chest(self, canvas, points, world):
        """Clavicle, ribs, and the lung."""
        clavicle = union(
            capsule(points, (13, 2, 38), (-40, 14, 42), 6.5, 6),
            capsule(points, (-40, 14, 42), (-130, 44, 34), 6, 8),
            radius=3,
        )
        self.paint_bone(canvas, clavicle, world, fat=self.marrow_fat)
        x, y, z = points
        cage = ellipsoid(points, (-122, 2, -100), (72, 74, 118))
        canvas.paint("air", cage + 9)
        phase = np.mod(z + 0.35 * y - 0.45 * x, np.float32(27)) - 13.5
        rib = intersection(np.abs(cage + 3.5) - 3.2, np.abs(phase) - 6, radius=3)
        self.paint_bone(canvas, rib, world, shell=1.0, fat=self.marrow_fat)
        self.paint_muscle(canvas, cage - 1, world, self.muscle_fat)

    def _draw_muscles(self, canvas, points, blade, arm, world):
        """The muscles of the rotator cuff on the blade, deltoid, trapezius, pectorals, those of the arm; vessels."""
        canvas.paint("nerve", capsule(points, (-30, 26, 10), (16, 8, -160), 3), opacity=0.6)
        for offset, radius in ((0, 3.6), (8, 4.4)):
            vessel = union(
                capsule(points, (-110, 40, 24), (-14, 26 + offset, -4), radius),
                capsule(points, (-14, 26 + offset, -4), (12, 6 + offset, -200), radius),
                radius=3,
            )
            canvas.paint("blood", vessel)
        x, y, z = points
        supraspinatus = union(
            ellipsoid(blade, (-52, -7, 26), (50, 10, 13)),
            capsule(points, (-20, -6, 24), (22, -2, 27), 8, 3.5),
            radius=6,
        )
        infraspinatus = intersection(ellipsoid(blade, (-48, -10, -30), (56, 15, 46)), blade[1] - 2, radius=3)
        behind = capsule(points, (-24, -22, -12), (28, -27, -2), 11, 4)
        subscapularis = intersection(ellipsoid(blade, (-48, 8, -36), (54, 16, 56)), -1 - blade[1], radius=3)
        before = capsule(points, (-22, 8, -8), (26, 27, -6), 13, 4)
        teres = capsule(blade, (-84, -8, -112), (24, 8, -52), 14, 8)
        bulk = np.float32(self.muscle_bulk)
        deltoid_outer = ellipsoid(arm, (30, -2, -12), (38 * bulk, 42 * bulk, 50))
        deltoid = intersection(deltoid_outer, -ellipsoid(arm, (26, 0, -2), (27, 30, 32)), 10 - x, radius=4)
        trapezius = capsule(points, (-10, -30, 38), (-110, -40, 76), 8, 18)
        upper_arm = capsule(arm, (34, -4, -52), (42, -6, -200), 35 * bulk, 31 * bulk)
        pectoralis = capsule((x, y * 0.9, z), (-110, 74, -46), (26, 26, -42), 22, 9)
        latissimus = capsule(points, (-74, -62, -120), (16, -2, -70), 16, 7)
        # A sheet on the chest wall.
        serratus = np.abs(ellipsoid(points, (-122, 2, -100), (72, 74, 118)) - 7) - 4.5
        for muscle in (
            *(supraspinatus, union(infraspinatus, behind, radius=8), union(subscapularis, before, radius=8)),
            *(teres, deltoid, upper_arm, trapezius, pectoralis, latissimus, serratus),
        ):
            self.paint_muscle(canvas, muscle, world, self.muscle_fat)
