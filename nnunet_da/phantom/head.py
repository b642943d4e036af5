"""The base of a head with a vestibular schwannoma, sampled from a seed and drawn on any grid.

World coordinates are mm in RAS, with the origin between the internal auditory canals. What is paired is drawn in
`lateral`, the distance from the median plane.
"""

from dataclasses import dataclass

import numpy as np

from nnunet_da.phantom.anatomy import BodyPart
from nnunet_da.phantom.raster import box, capsule, ellipsoid, intersection, noise, rotate, union, warp, waves

PORUS = (26.0, 6.0, 0.0)  # where the internal auditory canal opens
FUNDUS = (36.5, 4.5, 0.5)  # where it ends
INTO_CISTERN = np.array([-0.796, -0.605, 0.0])  # normal of the posterior face of the petrous bone
COCHLEA = (41.5, 11.0, 0.0)
TURNS = 2.5  # of the cochlea


@dataclass(frozen=True)
class Head(BodyPart):
    """One head.

    side: of the tumour, 1 right, -1 left; size: relative; radius: of the tumour's part in the cistern, in mm; stretch:
    of that part, upwards; canal_radius: of the widened canal, in mm; filling: share of the canal that the tumour fills
    (0 to 1); cysts: share of the tumour that is fluid; atrophy: widens sulci (mm); fat_thickness: mm; pneumatisation:
    air in the mastoid (0 to 1); tilt: degrees, of nodding, bending and turning.
    """

    side: int
    size: float
    radius: float
    stretch: float
    canal_radius: float
    filling: float
    cysts: float
    atrophy: float
    fat_thickness: float
    pneumatisation: float
    tilt: tuple[float, float, float]

    TISSUES = (
        *("air", "skin", "fat", "muscle", "cortical_bone", "ligament", "marrow", "csf", "nerve", "blood"),
        *("perilymph", "grey_matter", "white_matter", "schwannoma", "mucosa"),
    )
    NAMES = ("intra-meatal tumour", "extra-meatal tumour", "cochlea")
    WIDEST = 1.6

    @staticmethod
    def draw_traits(rng):
        radius = rng.uniform(4.5, 11.5)
        return {
            "side": int(rng.choice([-1, 1])),
            "size": float(np.clip(rng.normal(1, 0.035), 0.92, 1.08)),
            "radius": radius,
            "stretch": rng.uniform(0.85, 1.25),
            "canal_radius": rng.uniform(2.8, 4.2),
            "filling": rng.uniform(0.55, 1.0),
            "cysts": float(np.clip(rng.normal(0.02 * radius - 0.1, 0.1), 0, 0.4)),
            "atrophy": rng.uniform(0.3, 1.2),
            "fat_thickness": rng.uniform(3, 8),
            "pneumatisation": rng.uniform(0.2, 0.8),
            "tilt": tuple(rng.normal(0, [5, 2, 3]).tolist()),
        }

    def draw(self, canvas, points):
        world = points
        points = tuple(p / np.float32(self.size) for p in rotate(points, self.tilt))
        points = warp(self.seed, points, 30, 0.8)
        x, y, z = points
        half = (np.abs(x), y, z)
        outline = self._outline(points, half)
        canvas.paint("air", -outline)
        canvas.paint("skin", -outline - 2)
        canvas.paint("fat", -outline - self.fat_thickness)

        behind = sum(np.float32(n) * (p - np.float32(c)) for n, p, c in zip(INTO_CISTERN, half, PORUS, strict=True))
        before = 0.4 * (half[0] - 30) + 0.92 * (y - 20)
        cavity = self._cavity(half, behind)
        self._draw_tumour(canvas, (self.side * x, y, z), behind)
        self._draw_inner_ear(canvas, half)
        self._draw_nerves_and_vessels(canvas, points, half)
        self._draw_petrous_bone(canvas, half, world, behind, before)
        self._draw_brain(canvas, points, half, cavity, before)
        canvas.paint("csf", cavity)
        self._draw_skull(canvas, half, cavity, world)
        self._draw_face(canvas, points, half, world)
        canvas.fill("fat")

    def _outline(self, points, half):
        """Distance to the skin."""
        skull = ellipsoid(points, (0, -10, 25), (73 + self.fat_thickness, 92 + self.fat_thickness, 92))
        face = ellipsoid(points, (0, 36, -22), (62 + self.fat_thickness, 58, 78))
        nose = capsule(points, (0, 86, 14), (0, 104, -16), 8, 11)
        neck = capsule(points, (0, -30, -60), (0, -34, -160), 58, 58)
        ear = ellipsoid(half, (77 + self.fat_thickness, -6, -4), (4, 15, 27))
        return np.minimum(union(skull, face, nose, neck, radius=16), ear)

    def _cavity(self, half, behind):
        """Distance to the inside of the skull: a vault over the floors of the three fossae."""
        lateral, y, z = half
        vault = ellipsoid(half, (0, -12, 24), (66, 84, 82))
        clivus = 20 + 0.42 * (z + 2) - y
        middle = np.maximum(ellipsoid(half, (37, 30, 6), (23, 26, 20)), 13 - lateral + 0.3 * (y - 25))
        posterior = np.maximum.reduce([-clivus, y - 26, 0.5 * np.maximum(-8 - z, 0) - behind])
        floor = np.minimum.reduce([posterior, middle, 12 - z + 0.45 * np.maximum(y - 34, 0)])
        return intersection(vault, floor, radius=3)

    def _draw_tumour(self, canvas, points, behind):
        """A mass in the cistern with a stalk in the canal: one tumour, two structures, parted at the opening."""
        centre = np.add(PORUS, 0.72 * self.radius * INTO_CISTERN)
        rough = tuple(p + 0.07 * self.radius * waves(self.seed + 20 + i, points, 6) for i, p in enumerate(points))
        mass = ellipsoid(rough, centre, (self.radius, 1.08 * self.radius, self.stretch * self.radius))
        mass = np.maximum(mass, -behind)
        end = np.add(PORUS, self.filling * np.subtract(FUNDUS, PORUS))
        stalk = np.maximum(capsule(points, PORUS, end, self.canal_radius, 0.8 * self.canal_radius), behind)
        cyst = np.clip(0.5 + 2.5 * (waves(self.seed + 30, points, 4.5) - 2.2 + 5 * self.cysts), 0, 0.9)
        share = np.where(mass < -2, cyst * (self.cysts > 0), 0)
        canvas.blend({"schwannoma": 1 - share, "perilymph": share}, mass, "extra-meatal tumour")
        canvas.paint("schwannoma", stalk, structure="intra-meatal tumour")

    def _draw_inner_ear(self, canvas, half):
        """Cochlea, vestibule and semicircular canals: fluid in dense bone."""
        # The axis of the cochlea points forward and outward: the frame's z.
        p, q, along = rotate(tuple(c - np.float32(o) for c, o in zip(half, COCHLEA, strict=True)), (-76, 0, -40))
        away, angle = np.hypot(p, q), np.arctan2(q, p)
        tube = np.full_like(away, 99)
        for turn in range(3):
            theta = np.mod(angle, 2 * np.float32(np.pi)) + 2 * np.float32(np.pi) * turn
            part = np.clip(theta / np.float32(2 * np.pi * TURNS), 0, 1)
            ring = np.hypot(away - 2.75 * np.exp(-1.6 * part), along + 1.4 - 3.4 * part)
            tube = np.minimum(tube, np.where(theta <= 2 * np.pi * TURNS, ring - 1.0 * (1 - 0.4 * part), 99))
        hull = intersection(away - 2.8 + 0.45 * (along + 1.4), np.abs(along - 0.2) - 2.2, radius=0.8)
        canvas.paint("perilymph", tube, structure="cochlea")
        canvas.blend({"perilymph": 0.55, "nerve": 0.25, "cortical_bone": 0.2}, hull, "cochlea")
        canvas.paint("perilymph", ellipsoid(half, (42.5, 2, 0), (2.4, 3.2, 2.7)))
        lateral, y, z = half
        outer, inner = 0.605 * (lateral - 45) - 0.796 * (y + 1), 0.796 * (lateral - 45) + 0.605 * (y + 1)
        for u, v, w in (
            (lateral - 46, y + 1, z - 0.5),
            (inner, z - 4, outer + 3.5),
            (outer - 2, z + 0.5, inner),
        ):
            canvas.paint("perilymph", np.hypot(np.hypot(u, v) - 3.6, w) - 0.75)

    def _draw_nerves_and_vessels(self, canvas, points, half):
        """Facial, vestibulocochlear and trigeminal nerves in the cisterns, and the canal with its fluid; vessels."""
        for offset in (-1.1, 1.1):
            canvas.paint("nerve", capsule(half, (13, -3, offset - 1), (26, 6, offset), 0.9, 0.7))
            canvas.paint("nerve", capsule(half, (26, 6, offset), (37, 4.5, offset + 0.5), 0.7, 0.6))
        canvas.paint("nerve", capsule(half, (13, 8, 8), (18, 26, 9), 2.0))
        canvas.paint("csf", capsule(half, np.subtract(PORUS, (2, 0, 0)), FUNDUS, 3.2, 2.3))
        for start, end, radius in (
            ((15, 31, 4), (13, 44, 10), 2.6),
            ((27, 24, -9), (15, 31, 4), 2.6),
            ((27, 24, -9), (27, 20, -90), 2.8),
            ((51, -26, 4), (42, -16, -22), 4.2),
            ((42, -16, -22), (29, -2, -32), 4.5),
            ((52, -28, 6), (4, -90, 20), 4.2),
        ):
            canvas.paint("blood", capsule(half, start, end, radius))
        wind = points[0] - 2 * waves(self.seed + 40, (points[2], 0, 0), 9)
        canvas.paint("blood", capsule((wind, *points[1:]), (0, 15, -24), (0, 19, 16), 1.7))
        canvas.paint("blood", capsule(points, (0, -94, 18), (0, -70, 90), 4))

    def _draw_petrous_bone(self, canvas, half, world, behind, before):
        """Dense bone around the ear, marrow in its tip, and the air cells of the mastoid and the middle ear."""
        lateral, z = half[0], half[2]
        canvas.paint("air", capsule(half, (55, 6, -5), (90, 2, -6), 3.5))
        canvas.paint("air", ellipsoid(half, (51, 9, -1), (3.5, 5, 7)), opacity=0.8)
        cells = noise(self.seed + 41, *(p / 4 for p in world)) + 2 * self.pneumatisation - 1.2
        mastoid = ellipsoid(half, (57, -12, -12), (10, 15, 22))
        canvas.paint("air", mastoid, opacity=np.clip(0.4 + 0.8 * cells, 0, 0.95))
        bone = intersection(
            behind, before, z - 10 + 0.15 * np.abs(lateral - 42), -z - 17, 9 - lateral, lateral - 64, radius=4
        )
        tip = ellipsoid(half, (19, 18, -3), (8, 6, 7))
        canvas.blend({"marrow": 0.5, "fat": 0.4}, np.maximum(bone + 1.5, tip))
        canvas.blend({"cortical_bone": 0.9, "marrow": 0.1}, np.minimum(bone, mastoid))

    def _draw_brain(self, canvas, points, half, cavity, before):
        """Brainstem, cerebellum around the fourth ventricle, and the folded cerebrum above the tentorium."""
        lateral, y, z = half
        canvas.paint("csf", ellipsoid(points, (0, -15, -3), (8, 5, 12)))
        stem = union(
            ellipsoid(points, (0, 2, 3), (17, 12.5, 14)),
            capsule(points, (0, -4, -8), (0, -14, -90), 8.5, 6.5),
            capsule(points, (0, -2, 14), (0, 0, 34), 13, 15),
            capsule(half, (9, 0, 2), (24, -24, -5), 8.5, 10),
            radius=6,
        )
        canvas.paint("white_matter", stem + 1)
        canvas.blend({"white_matter": 0.5, "grey_matter": 0.5}, stem)

        cerebellum = union(
            ellipsoid(half, (27, -46, -10), (31, 36, 32)), ellipsoid(points, (0, -44, 0), (15, 28, 29)), radius=6
        )
        cerebellum = np.maximum(cerebellum, cavity + 2.5)
        fan = np.arctan2(z + 4, -(y + 6)) + 0.08 * waves(self.seed + 50, points, 9)
        folds = np.cos(34 * fan + 0.04 * lateral)
        core = cerebellum + 9 - 3.5 * np.cos(12 * fan)
        canvas.paint("white_matter", core)
        fissure = np.clip(0.9 * (folds - 0.35), 0, 0.55) * np.clip(1.1 + cerebellum / 9, 0, 1)
        canvas.blend({"grey_matter": 1 - fissure, "csf": fissure}, cerebellum)

        tentorium = 12 + 24 * np.exp(-((lateral / 24) ** 2)) * np.clip((y + 75) / 55, 0, 1)
        below = intersection(z - tentorium, before - 1.5, radius=3)
        above = np.maximum.reduce([cavity + 2, 2.5 - below, 16 - lateral - np.maximum(z - 30, 0)])
        ventricle = ellipsoid(half, (13, -6, 48), (8, 34, 9))
        canvas.paint("csf", np.minimum(ventricle, ellipsoid(half, (33, 8, 4), (2.5, 12, 3))))
        sheets = np.abs(noise(self.seed + 51, *(p / 9 for p in points))) * 8 - 0.3 - 0.7 * self.atrophy
        sulci = np.maximum(sheets, -above - 13)
        falx = np.maximum(lateral - 1.6 - self.atrophy, 24 - z)
        cerebrum = np.maximum.reduce([above, -sulci, -falx])
        canvas.paint("white_matter", cerebrum + 3.2)
        canvas.paint("grey_matter", cerebrum)

    def _draw_skull(self, canvas, half, cavity, world):
        """Dura, the tables of the skull with marrow between them, the clivus, and the sinuses in front of it."""
        lateral, y, z = half
        canvas.blend({"ligament": 0.6, "blood": 0.2}, cavity - 1)
        sphenoid = ellipsoid(half, (0, 44, 0), (13, 12, 10))
        ethmoid = ellipsoid(half, (0, 64, 12), (12, 18, 12))
        maxilla = ellipsoid(half, (27, 60, -20), (13, 16, 16))
        nasal = box((lateral, 0, 14), (y, 68, 24), (z, -14, 15), radius=6)
        for sinus in (sphenoid, maxilla):
            canvas.paint("air", sinus + 1.5)
            canvas.paint("mucosa", sinus)
        walls = np.abs(waves(self.seed + 60, half, 3.5)) * 3 - 0.7
        canvas.paint("mucosa", np.maximum(ethmoid, walls))
        canvas.paint("air", ethmoid)
        septum = np.minimum(lateral - 1, np.abs(waves(self.seed + 61, half, 5)) * 5 - 2.2)
        canvas.paint("mucosa", np.maximum(nasal, septum))
        canvas.paint("air", nasal)
        clivus = box((lateral, 0, 13), (y, 33 + 0.42 * (z + 2), 11), (z, -10, 20), radius=5)
        table = intersection(cavity - 6.5, -28 - z, radius=2)
        self.paint_bone(canvas, np.minimum(clivus, table), world, shell=1.8, fat=0.45)

    def _draw_face(self, canvas, points, half, world):
        """Eyes in their fat, jaw, the muscles of chewing, of the neck and of the throat."""
        y, z = half[1:]
        for tissue, radius in (("perilymph", 11.2), ("ligament", 12.2)):
            canvas.paint(tissue, ellipsoid(half, (32, 72, 20), (radius,) * 3))
        canvas.paint("nerve", capsule(half, (30, 60, 20), (12, 32, 18), 2))
        for start, end in (((22, 70, 20), (14, 40, 18)), ((42, 68, 20), (18, 40, 18))):
            self.paint_muscle(canvas, capsule(half, start, end, 2), world)
        canvas.paint("fat", ellipsoid(half, (30, 62, 20), (17, 24, 16)))
        jaw = union(
            ellipsoid(half, (49, 17, -13), (9, 5, 7)),
            capsule((half[0] * 1.8, y, z), (88, 18, -18), (82, 26, -70), 8),
            radius=4,
        )
        self.paint_bone(canvas, jaw, world, fat=0.4)
        arch = capsule(half, (66, 24, -8), (52, 62, -8), 3.5, 5)
        self.paint_bone(canvas, arch, world, fat=0.4)
        canvas.paint("air", np.maximum(ellipsoid(half, (0, 36, -42), (13, 9, 26)), z + 16))
        for muscle in (
            ellipsoid(half, (61, 34, 12), (7, 26, 34)),
            ellipsoid(half, (56, 38, -46), (9, 15, 34)),
            ellipsoid(half, (36, 38, -20), (10, 20, 12)),
            ellipsoid(half, (31, 32, -50), (9, 12, 30)),
            ellipsoid(half, (14, 24, -52), (11, 7, 32)),
            ellipsoid(half, (28, -58, -60), (26, 24, 34)),
            ellipsoid(half, (52, -22, -60), (9, 15, 38)),
            ellipsoid(half, (0, 40, -40), (20, 15, 28)),
        ):
            self.paint_muscle(canvas, muscle, world)
