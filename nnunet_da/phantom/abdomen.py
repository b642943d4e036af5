"""An upper abdomen, sampled from a seed and drawn on any grid.

World coordinates are mm in RAS, with the origin in front of the first lumbar vertebra.
"""

from dataclasses import dataclass

import numpy as np

from nnunet_da.phantom.anatomy import BodyPart
from nnunet_da.phantom.raster import (
    box,
    capsule,
    ellipsoid,
    intersection,
    noise,
    rotate,
    superellipse,
    union,
    warp,
    waves,
)

SPINE = -46.0  # y of the middle of the vertebral bodies
DOME = 92.0  # z of the top of the right half of the diaphragm


@dataclass(frozen=True)
class Abdomen(BodyPart):
    """One abdomen.

    half_width, half_depth: of the body inside the fat under its skin, in mm; fat_thickness: of that fat; visceral_fat:
    share of the gaps between bowel loops (0 to 1); liver, spleen, kidneys: relative sizes; kidney_drop: mm by which the
    right kidney lies lower; breath: mm by which the organs under the diaphragm have moved down; liver_fat: share;
    muscle_fat: share; gas: in the bowel (0 to 1).
    """

    half_width: float
    half_depth: float
    fat_thickness: float
    visceral_fat: float
    liver: float
    left_lobe: float
    spleen: float
    kidneys: tuple[float, float]
    kidney_drop: float
    breath: float
    liver_fat: float
    muscle_fat: float
    gas: float

    TISSUES = (
        *("air", "skin", "fat", "muscle", "cortical_bone", "ligament", "marrow", "nucleus", "annulus", "csf", "nerve"),
        *("blood", "bowel", "fluid", "mucosa", "liver", "spleen", "pancreas", "renal_cortex", "renal_medulla"),
    )
    NAMES = ("liver", "right kidney", "left kidney", "spleen")
    WIDEST = 3.2

    @staticmethod
    def draw_traits(rng):
        stout = rng.normal()
        return {
            "half_width": float(np.clip(146 + 9 * stout + rng.normal(0, 5), 128, 168)),
            "half_depth": float(np.clip(94 + 9 * stout + rng.normal(0, 4), 80, 116)),
            "fat_thickness": float(np.clip(17 + 7 * stout, 6, 32)),
            "visceral_fat": float(np.clip(0.45 + 0.15 * stout, 0.15, 0.8)),
            "liver": float(np.clip(rng.normal(1, 0.05), 0.89, 1.1)),
            "left_lobe": rng.uniform(0.75, 1.2),
            "spleen": float(np.clip(rng.normal(1, 0.1), 0.8, 1.25)),
            "kidneys": tuple(np.clip(rng.normal(1.03, 0.06, 2), 0.92, 1.15).tolist()),
            "kidney_drop": rng.uniform(4, 18),
            "breath": rng.uniform(-8, 12),
            "liver_fat": float(np.clip(rng.gamma(1.0, 0.05), 0, 0.25)),
            "muscle_fat": float(np.clip(rng.normal(0.1, 0.06), 0.02, 0.35)),
            "gas": rng.uniform(0, 0.8),
        }

    def draw(self, canvas, points):
        world = points
        x, y, z = points
        # Wide bodies carry their organs farther out.
        scale = (np.float32(self.half_width / 146), np.float32(self.half_depth / 94))
        inner = warp(self.seed, (x / scale[0], y / scale[1], z), 45, 2.5)
        wall = (superellipse(x / self.half_width, y / self.half_depth) - 1) * self.half_depth
        thick = self.fat_thickness * (1 + 0.25 * np.clip(y / self.half_depth, -1, 1))
        canvas.paint("air", thick - wall)
        canvas.paint("skin", thick - 2.5 - wall)
        canvas.paint("fat", -wall)

        self._draw_spine(canvas, points, world)
        cavity = wall + 15
        organs = (inner[0], inner[1], inner[2] + np.float32(self.breath))
        diaphragm = self._diaphragm(organs)
        self._draw_vessels(canvas, inner, organs)
        self._draw_kidneys(canvas, organs, world)
        self._draw_liver(canvas, organs, cavity, diaphragm)
        self._draw_spleen_and_stomach(canvas, organs, cavity, diaphragm)
        canvas.paint("muscle", np.maximum(np.abs(diaphragm + 1.5) - 1.5, cavity - 3))
        lung = np.maximum(-diaphragm, cavity - 2)
        specks = np.clip(noise(self.seed + 30, *(p / 5 for p in world)) - 1.6, 0, 0.5)
        canvas.blend({"blood": specks, "air": 1 - specks}, lung)
        self._draw_wall(canvas, points, wall, world)
        self._draw_bowel(canvas, cavity, world)
        canvas.fill("fat")

    def _diaphragm(self, organs):
        """Distance to what lies under the diaphragm: two domes, of which the right one is higher."""
        right = ellipsoid(organs, (70, 2, -40), (88, 108, DOME + 40))
        left = ellipsoid(organs, (-70, -6, -40), (86, 102, DOME + 22))
        middle = ellipsoid(organs, (0, 10, -40), (70, 90, DOME + 8))
        return union(right, left, middle, radius=20)

    def _draw_spine(self, canvas, points, world):
        """Vertebrae and discs, canal and cord, the processes, and the muscles along the back and the psoas."""
        x, y, z = points
        level = np.mod(z + 6, np.float32(36)) - 18
        lateral, behind = np.abs(x), SPINE - y
        radius = superellipse(x / 23, (y - SPINE) / 17)
        column = (radius - 1) * 17
        disc = np.maximum(column, np.abs(np.abs(level) - 18) - 4.5)
        canvas.blend({"nucleus": 0.5, "annulus": 0.5}, np.maximum(disc, (radius - 0.62) * 17))
        canvas.paint("annulus", disc)
        self.paint_bone(canvas, np.maximum(column, np.abs(level) - 13.5), world, fat=0.3)
        sac = np.hypot(x, behind - 26) - 8
        canvas.paint("nerve", np.hypot(x, behind - 26) - 4.5, opacity=np.clip(0.5 + z / 40, 0.35, 1))
        canvas.paint("csf", sac)
        canvas.paint("fat", sac - 2)
        arch = np.abs(np.hypot(x, behind - 26) - 13.5) - 3
        spinous = box((lateral, 0, 3), (behind, 52, 13), (level, -4, 10), radius=2)
        transverse = box((lateral, 30, 16), (behind, 22, 4), (level, 0, 6), radius=3)
        arch = intersection(arch, np.abs(level + 2) - 13, radius=2)
        self.paint_bone(canvas, np.minimum.reduce([arch, spinous, transverse]), world, fat=0.3)
        half = (lateral, y, z)
        back = superellipse((lateral - 33) / 27, (behind - 40) / 19)
        self.paint_muscle(canvas, (back - 1) * 19, world, self.muscle_fat + 0.05)
        self.paint_muscle(
            canvas, capsule(half, (27, SPINE + 4, 10), (46, SPINE + 14, -150), 7, 24), world, self.muscle_fat
        )
        quadratus = ellipsoid(half, (62, SPINE - 22, -60), (24, 10, 70))
        self.paint_muscle(canvas, quadratus, world, self.muscle_fat)

    def _draw_vessels(self, canvas, inner, organs):
        """Aorta, inferior vena cava, and the vessels of kidneys, liver and spleen."""
        for start, end, radius in (
            ((-8, -22, -160), (-6, -20, 60), 8.5),
            ((-6, -20, 60), (-14, -34, 160), 10),
            ((19, -18, -160), (22, -14, 20), 10),
            ((22, -14, 20), (26, -8, 110), 12),
        ):
            canvas.paint("blood", capsule(inner, start, end, radius))
        for start, end, radius in (
            ((4, 4, 8), (40, 12, 34), 6.5),
            ((4, 4, 8), (-74, -28, 26), 4),
            ((18, -18, -14), (44, -36, -22), 4.5),
            ((-8, -16, -6), (-44, -36, -10), 4.5),
        ):
            canvas.paint("blood", capsule(organs, start, end, radius))

    def _draw_kidneys(self, canvas, organs, world):
        """Cortex around pyramids, around a sinus of fat with the pelvis, which opens towards the middle."""
        for name, side, size in (("right kidney", 1, self.kidneys[0]), ("left kidney", -1, self.kidneys[1])):
            x, y, z = organs
            drop = -22 - self.kidney_drop * (side > 0)
            local = (side * x - 64, y + 42, z - np.float32(drop))
            local = tuple(p / np.float32(size) for p in rotate(local, (-14, -10, -35)))
            across, deep, along = local
            whole = ellipsoid(local, (0, 0, 0), (30, 25, 57))
            sinus = union(
                ellipsoid(local, (-7, 3, 0), (11, 9, 27)), capsule(local, (-10, 3, 0), (-32, 4, -4), 6, 5), radius=5
            )
            surface = intersection(whole, -sinus, radius=2)
            canvas.paint(
                "fluid",
                union(
                    capsule(local, (-6, 3, 10), (-22, 3, -6), 2.5, 3.5),
                    ellipsoid(local, (-5, 3, -12), (4, 4, 5)),
                    radius=3,
                ),
            )
            angle = np.arctan2(along * 0.6, across + 6)
            pyramids = np.cos(9 * angle) + 0.25 - 0.35 * np.abs(deep) / 10
            medulla = intersection(whole + 8, 2 - sinus, -4.5 * pyramids, radius=1.5)
            canvas.paint("renal_medulla", medulla, structure=name)
            canvas.paint("renal_cortex", surface, structure=name)
            canvas.paint("fat", whole - 2 - 8 * self.visceral_fat, opacity=0.97)
            canvas.paint("pancreas", ellipsoid(local, (-8, 6, 62), (9, 3, 9)))

    def _draw_liver(self, canvas, organs, cavity, diaphragm):
        """Right and left lobe under the diaphragm, with the branches of portal and hepatic veins; the gall bladder."""
        x, y, z = organs
        size = np.float32(self.liver)
        right = ellipsoid(organs, (78, -2, 22), (68 * size, 90 * size, 90 * size))
        left = ellipsoid(organs, (8, 46, 46), (72 * self.left_lobe, 40 * size, 38 * size))
        caudate = ellipsoid(organs, (26, 6, 42), (20, 18, 26))
        # The lower face looks down, back and to the left, where stomach, kidney and bowel press on it.
        under = 0.62 * (np.float32(-48) - z) + 0.55 * (58 - x) - 0.45 * (y - 10)
        kidney = ellipsoid(organs, (62, -46, -26 - self.kidney_drop), (42, 37, 68))
        column = np.hypot(x, y - SPINE) - 40
        surface = intersection(union(right, left, caudate, radius=16), under, -kidney, -column, radius=7)
        surface = np.maximum.reduce([surface, cavity + 1.5, diaphragm + 3])
        bladder = capsule(organs, (44, 34, -4), (54, 54, -34), 9, 14)
        canvas.paint("fluid", bladder)
        canvas.paint("mucosa", bladder - 2)
        gap = tuple(p + 5 * waves(self.seed + 5 + i, organs, 22) for i, p in enumerate(organs))
        for start, end, radius in (
            ((28, -6, 84), (92, -20, 62), 4.8),
            ((28, -2, 84), (70, 44, 52), 4.2),
            ((24, 2, 84), (-8, 56, 58), 3.8),
            ((92, -20, 62), (116, -34, 30), 3.2),
            ((40, 12, 34), (72, 4, 30), 5.2),
            ((72, 4, 30), (104, 30, 14), 3.6),
            ((72, 4, 30), (100, -30, 8), 3.6),
            ((40, 12, 34), (16, 48, 44), 4.0),
            ((16, 48, 44), (-24, 54, 44), 3.0),
        ):
            canvas.paint("blood", np.maximum(capsule(gap, start, end, radius), surface), structure="liver")
        fissure = box((x, 14, 1.0), (y, 60, 24), (z, 18, 22), radius=0.5)
        canvas.paint("fat", fissure)
        fat = np.clip(self.liver_fat + 0.03 * waves(self.seed + 9, organs, 20) * (self.liver_fat > 0), 0, 0.4)
        canvas.blend({"liver": 1 - fat, "fat": fat}, surface, "liver")

    def _draw_spleen_and_stomach(self, canvas, organs, cavity, diaphragm):
        """Spleen behind the stomach, hollowed by it and by the kidney; pancreas between stomach and vessels."""
        y = organs[1]
        size = np.float32(self.spleen)
        hollow = ellipsoid(organs, (-64, -14, 34), (36, 38, 60))
        kidney = ellipsoid(organs, (-62, -42, -22), (38, 34, 64))
        tilted = rotate(organs, (0, 12, 0), (-104, -34, 40))
        spleen = ellipsoid(tilted, (-100, -36, 40), (40 * size, 53 * size, 60 * size))
        spleen = intersection(spleen, -hollow, -kidney, radius=4)
        spleen = np.maximum.reduce([spleen, cavity + 1.5, diaphragm + 3])
        canvas.paint("spleen", spleen, structure="spleen")
        stomach = union(
            ellipsoid(organs, (-58, 10, 56), (34, 36, 34)),
            capsule(organs, (-64, 22, 34), (-48, 54, -4), 26, 20),
            capsule(organs, (-48, 54, -4), (16, 46, -6), 18, 11),
            radius=14,
        )
        stomach = np.maximum(stomach, np.maximum(cavity, diaphragm) + 4)
        # The patient lies on the back, so gas collects in front.
        gas = np.maximum(stomach + 4, 40 - 26 * self.gas - y)
        canvas.paint("air", gas)
        canvas.blend({"fluid": 0.45, "bowel": 0.45, "air": 0.1}, stomach + 4)
        canvas.paint("mucosa", stomach)
        pancreas = union(
            capsule(organs, (34, 12, -12), (6, 22, 4), 12, 8),
            capsule(organs, (6, 22, 4), (-66, -20, 22), 8, 10),
            radius=6,
        )
        lobules = np.clip(0.25 + 0.25 * waves(self.seed + 15, organs, 3), 0, 0.7)
        canvas.blend({"pancreas": 1 - lobules, "fat": lobules}, pancreas + 1.5 * lobules)

    def _draw_wall(self, canvas, points, wall, world):
        """Ribs between the muscles of the flanks and the back; straight muscles of the belly."""
        x, y, z = points
        slope = np.mod(z + 0.55 * y - 0.12 * np.abs(x), np.float32(29)) - 14.5
        cage = np.clip((z - 10 - 0.9 * y) / 10, -8, 8)
        rib = intersection(np.abs(wall + 8) - 3.5, np.abs(slope) - 6, -cage, radius=3)
        self.paint_bone(canvas, rib, world, shell=1.2, fat=0.3)
        sheet = np.abs(wall + 7) - 6.5
        rectus = np.abs(np.abs(x) - 38) - 32
        in_front = y > 0.55 * self.half_depth
        self.paint_muscle(canvas, np.where(in_front, np.maximum(sheet, rectus), sheet), world, self.muscle_fat)

    def _draw_bowel(self, canvas, cavity, world):
        """Loops of bowel, with walls, fluid and gas, in the fat of the mesentery."""
        x, y, z = world
        loops = noise(self.seed + 20, x / 19, y / 19, z / 19)
        content = noise(self.seed + 21, x / 34, y / 34, z / 34)
        tube = (self.visceral_fat - 0.35 - loops) * 13
        tube = np.maximum.reduce([tube, cavity + 4, SPINE + 26 - y])
        canvas.paint("air", np.maximum(tube + 3, 18 - 14 * content - 20 * self.gas))
        watery = np.clip(0.3 + 0.4 * content, 0, 0.8)
        canvas.blend({"fluid": watery, "bowel": 1 - watery}, tube + 2.5)
        canvas.paint("bowel", tube)
