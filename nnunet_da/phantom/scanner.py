"""Simulated MR scanners: a pulse sequence, a coil, a grid, blur and noise; and the images they take of a subject."""

from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from nnunet_da.phantom.anatomy import Labelled
from nnunet_da.phantom.sequences import (
    BalancedEcho,
    Dixon,
    DoubleEcho,
    GradientEcho,
    OppositeAndInPhase,
    SpinEcho,
    T2AndDiffusion,
)
from nnunet_da.phantom.tissues import pools


@dataclass(frozen=True)
class Scanner:
    """How one scanner takes scans of one body part, by default lumbar spines.

    field: tesla; spacing, field_of_view: mm, along R, A, S; axcodes: directions of the stored axes, as nibabel's;
    coil: a key of COILS, and coil_depth its reach in mm; bias: amplitude of the smooth, random part of the sensitivity
    (log scale); saturation: mm in front of the spine from where a saturation band darkens the abdomen, or None; blur:
    full width at half maximum of the point spread, in voxels; snr: mean signal of the body over the standard deviation
    of the noise in each receiver channel; gain: stored units of the brightest tissue, about; dose: of contrast agent,
    1 is the usual one; body: the body part, see `bodies.BODIES`; centre, spread: mean and standard deviation of the
    middle of the field of view in mm, along R, A, S; tilt: standard deviation of the angles about these in degrees.
    """

    name: str
    field: float
    sequence: Any
    spacing: tuple[float, float, float] = (4.0, 1.25, 1.25)
    field_of_view: tuple[float, float, float] = (56.0, 200.0, 240.0)
    axcodes: str = "RAS"
    coil_depth: float = 120.0
    bias: float = 0.1
    saturation: float | None = None
    blur: float = 1.0
    snr: float = 25.0
    gain: float = 1000.0
    dose: float = 0.0
    body: str = "spine"
    coil: str = "behind"
    centre: tuple[float, float, float] = (0.0, -14.0, -10.0)
    spread: tuple[float, float, float] = (1.5, 5.0, 6.0)
    tilt: tuple[float, float, float] = (1.5, 0.7, 0.7)

    @property
    def channels(self):
        """Names of the images that one scan gives."""
        return self.sequence.channels

    def grid(self, rng, size=None):
        """Shape and affine of a scan, placed within some mm and degrees of its `centre`, as a radiographer does.

        size: voxels along R, A, S; they divide the same field of view. None keeps the scanner's own spacing.
        """
        field_of_view = np.array(self.field_of_view)
        size = np.round(field_of_view / self.spacing).astype(int) if size is None else np.array(size)
        tilts = np.deg2rad(rng.normal(0, self.tilt))
        centre = rng.normal(self.centre, self.spread)
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_euler("xyz", tilts).as_matrix() * (field_of_view / size)
        affine[:3, 3] = centre - affine[:3, :3] @ ((size - 1) / 2)
        # Store the axes in the scanner's order and direction, on the same points.
        to_axcodes = nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(self.axcodes)
        )
        affine = affine @ nibabel.orientations.inv_ornt_aff(to_axcodes, tuple(size))
        shape = np.empty(3, dtype=int)
        shape[to_axcodes[:, 0].astype(int)] = size
        return tuple(int(n) for n in shape), affine


@dataclass(frozen=True)
class Scan:
    """What a scanner stores. images: int16 (channels, X, Y, Z); anatomy: the truth on the same grid, and its affine."""

    images: np.ndarray
    anatomy: Labelled

    @property
    def affine(self):
        return self.anatomy.affine


def simulate(subject, scanner, rng, size=None):
    """One scan of a subject: a Scan whose positioning, coil sensitivity, gain and noise are drawn with `rng`.

    subject: a Spine or another body part, with `rasterise(shape, affine)` and `deviations`; size: voxels along R, A,
    S, see Scanner.grid. Noise is Gaussian in both parts of the complex echoes, hence Rician in magnitude images
    (Gudbjartsson and Patz, Magn Reson Med 1995).
    """
    anatomy = subject.rasterise(*scanner.grid(rng, size))
    echoes = ideal_echoes(anatomy, scanner, subject.deviations)
    world = world_coordinates(anatomy)
    echoes = echoes * sensitivity(world, scanner, rng)
    sigma = scanner.blur / np.sqrt(8 * np.log(2))
    blurred = [gaussian_filter(part, (0, sigma, sigma, sigma)) for part in (echoes.real, echoes.imag)]
    echoes = blurred[0] + 1j * blurred[1]
    body = anatomy.fraction("air") < 0.5
    noise = np.abs(echoes[-1][body]).mean() / scanner.snr
    echoes = add_noise(echoes, noise, rng)
    images = scanner.sequence.reconstruct(echoes)
    quantity = [channel in scanner.sequence.quantitative for channel in scanner.channels]
    gain = scanner.gain * rng.uniform(0.8, 1.25) / np.percentile(images[np.logical_not(quantity)], 99.5)
    stored = images * gain
    stored[quantity] = images[quantity]
    return Scan(np.clip(np.round(stored), 0, np.iinfo(np.int16).max).astype(np.int16), anatomy)


def ideal_echoes(anatomy, scanner, deviations=None):
    """Complex echoes (echoes, X, Y, Z) without coil, blur and noise; deviations: the subject's, see `tissues.pools`."""
    table = pools(scanner.field, deviations, anatomy.tissues, scanner.dose)
    signals = scanner.sequence.echoes(table).astype(np.complex64)
    return np.tensordot(signals, anatomy.fractions, axes=1)


def add_noise(echoes, sigma, rng):
    """Adds Gaussian noise of standard deviation `sigma` to the real and the imaginary part of complex `echoes`."""
    parts = rng.standard_normal((2, *echoes.shape), dtype=np.float32) * np.float32(sigma)
    return echoes + parts[0] + 1j * parts[1]


def world_coordinates(anatomy):
    """RAS coordinates in mm of all voxels, (3, X, Y, Z) float32."""
    steps = np.ix_(*[np.arange(n, dtype=np.float32) for n in anatomy.fractions.shape[1:]])
    return np.stack(
        [
            sum(np.float32(row[axis]) * steps[axis] for axis in range(3)) + np.float32(row[3])
            for row in anatomy.affine[:3]
        ]
    )


def _behind(world, depth):
    """A surface coil under the back, whose sensitivity falls to 1/e over `depth`."""
    return -(world[1] + 60) / depth


def _around(world, depth):
    """Elements all around, each falling to 1/e over `depth`: weakest in the middle."""
    return np.log(np.cosh(np.sqrt((world**2).sum(axis=0)) / np.float32(depth)))


def _joint(world, depth):
    """A coil put around a joint: strongest there, falling to 1/e at `depth`."""
    return -(world**2).sum(axis=0) / np.float32(depth**2)


# Logarithm of the sensitivity of each kind of coil, of world coordinates and its depth.
COILS = {"behind": _behind, "around": _around, "joint": _joint}


def sensitivity(world, scanner, rng):
    """Relative sensitivity (X, Y, Z): that of the coil, a random part, saturation."""
    y, z = world[1:]
    waves = (rng.normal(0, 1, (4, 3)) / 120).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, (4, 1, 1, 1)).astype(np.float32)
    smooth = np.cos(np.tensordot(waves, world, axes=1) + phases).sum(axis=0)
    # The coil ends with the field of view, head and foot.
    ends = (2 * np.abs(z) / scanner.field_of_view[2]) ** 4
    result = np.exp(COILS[scanner.coil](world, scanner.coil_depth) + scanner.bias * (smooth - ends))
    if scanner.saturation is not None:
        # The band lies parallel to the coronal plane, and its edge is a few mm wide.
        result *= 1 - 0.85 / (1 + np.exp(-(y - scanner.saturation) / 3))
    return result


# Published protocols, on coarser grids.
_SPINE = (
    Scanner("philips_3t", 3.0, SpinEcho(tr=3200, te=100, turbo=True), axcodes="PIR", coil_depth=140, snr=30, gain=900),
    Scanner(
        "siemens_1p5t",
        1.5,
        SpinEcho(tr=3600, te=82, turbo=True),
        spacing=(4.4, 1.1, 1.1),
        field_of_view=(57.2, 211.2, 246.4),
        axcodes="IPR",
        coil_depth=65,
        bias=0.18,
        saturation=28,
        blur=1.6,
        snr=9,
        gain=350,
    ),
    Scanner(
        "ge_t1",
        1.5,
        SpinEcho(tr=450, te=12),
        spacing=(4.0, 1.4, 1.4),
        field_of_view=(56, 201.6, 246.4),
        axcodes="RAS",
        coil_depth=65,
        bias=0.2,
        blur=1.6,
        snr=11,
        gain=3000,
    ),
    Scanner(
        "dixon_3t",
        3.0,
        Dixon(tr=10, flip=10),
        spacing=(2.0, 1.25, 1.25),
        field_of_view=(72, 200, 240),
        axcodes="LPS",
        coil_depth=100,
        blur=1.2,
        snr=20,
        gain=600,
    ),
    Scanner(
        "ge_gre_3t",
        3.0,
        GradientEcho(tr=450, te=9, flip=25),
        axcodes="AIL",
        coil_depth=90,
        bias=0.12,
        blur=1.1,
        snr=16,
        gain=2000,
    ),
)

_AT_MIDDLE = {"centre": (0.0, 0.0, 0.0), "spread": (2.0, 3.0, 3.0)}
_KNEE = {**_AT_MIDDLE, "body": "knee", "coil": "joint", "coil_depth": 130.0}
_ANKLE = {**_AT_MIDDLE, "body": "ankle", "coil": "joint", "coil_depth": 150.0}
_SHOULDER = {**_AT_MIDDLE, "body": "shoulder", "coil": "joint", "coil_depth": 125.0}
_HEAD = {**_AT_MIDDLE, "body": "head", "coil": "around", "coil_depth": 110.0}
_ABDOMEN = {**_AT_MIDDLE, "body": "abdomen", "coil": "around", "coil_depth": 190.0, "spread": (4.0, 4.0, 6.0)}

_JOINTS = (
    # SKI10: sagittal gradient echoes of many sites, most of them T1-weighted at 1.5 T.
    Scanner(
        "ski10_t1",
        1.5,
        GradientEcho(tr=28, te=7, flip=30, fat=0.15),
        spacing=(1.6, 0.8, 0.8),
        field_of_view=(102.4, 128, 136),
        axcodes="AIR",
        bias=0.12,
        blur=1.1,
        snr=16,
        gain=900,
        **_KNEE,
    ),
    # Osteoarthritis Initiative: sagittal DESS with excitation of water only at 3 T.
    Scanner(
        "oai_dess",
        3.0,
        DoubleEcho(tr=16.3, te=4.7, flip=25),
        spacing=(1.4, 0.7, 0.7),
        field_of_view=(106.4, 134.4, 140),
        axcodes="PIR",
        snr=22,
        gain=700,
        **_KNEE,
    ),
    Scanner(
        "ankle_t1",
        1.5,
        SpinEcho(tr=520, te=14),
        spacing=(3.0, 0.9, 0.9),
        field_of_view=(84, 153, 144),
        axcodes="PIR",
        snr=20,
        gain=1200,
        **(_ANKLE | {"centre": (0.0, -2.0, -8.0)}),
    ),
    Scanner(
        "shoulder_t1",
        1.5,
        SpinEcho(tr=560, te=12),
        spacing=(1.0, 3.5, 1.0),
        field_of_view=(160, 105, 160),
        axcodes="LIP",
        bias=0.15,
        snr=16,
        gain=1000,
        **(_SHOULDER | {"centre": (0.0, 0.0, -18.0)}),
    ),
)

_CROSSMODA_VIEW = {"spacing": (0.8, 0.8, 1.5), "field_of_view": (160.0, 192.0, 84.0), **_HEAD}
_HEADS = (
    # London: magnetisation-prepared gradient echo after contrast agent, CISS.
    Scanner(
        "crossmoda_ldn_cet1",
        1.5,
        GradientEcho(tr=14, te=3, flip=32),
        axcodes="LAS",
        dose=1.0,
        snr=18,
        gain=900,
        **_CROSSMODA_VIEW,
    ),
    Scanner(
        "crossmoda_ldn_hrt2",
        1.5,
        BalancedEcho(tr=9, flip=65),
        axcodes="LAS",
        blur=0.9,
        snr=16,
        gain=1100,
        **_CROSSMODA_VIEW,
    ),
    # Tilburg: gradient echo after contrast agent, turbo spin echo.
    Scanner(
        "crossmoda_etz_cet1",
        1.5,
        GradientEcho(tr=25, te=1.8, flip=42),
        axcodes="LPS",
        dose=1.0,
        bias=0.15,
        blur=1.3,
        snr=13,
        gain=400,
        **(_CROSSMODA_VIEW | {"spacing": (1.0, 1.0, 2.0)}),
    ),
    Scanner(
        "crossmoda_etz_hrt2",
        1.5,
        SpinEcho(tr=2400, te=210, turbo=True),
        axcodes="LPS",
        bias=0.15,
        blur=1.2,
        snr=9,
        gain=600,
        **(_CROSSMODA_VIEW | {"spacing": (0.8, 0.8, 1.0), "field_of_view": (160.0, 176.0, 56.0)}),
    ),
    # Several hospitals of the United Kingdom, here one of 3 T with spin echoes of thick slices.
    Scanner(
        "crossmoda_ukm_cet1",
        3.0,
        SpinEcho(tr=620, te=10),
        axcodes="RAS",
        dose=1.2,
        bias=0.2,
        blur=1.1,
        snr=22,
        gain=2500,
        **(_CROSSMODA_VIEW | {"spacing": (0.9, 0.9, 3.0), "coil_depth": 90.0}),
    ),
    Scanner(
        "crossmoda_ukm_hrt2",
        3.0,
        SpinEcho(tr=2200, te=170, turbo=True),
        axcodes="RAS",
        bias=0.2,
        snr=14,
        gain=2000,
        **(_CROSSMODA_VIEW | {"spacing": (0.7, 0.7, 1.4), "field_of_view": (154.0, 182.0, 61.6), "coil_depth": 90.0}),
    ),
)

_TRUNKS = (
    # CHAOS: one 1.5 T scanner, T1 gradient echoes in and out of phase and fat-suppressed T2.
    Scanner(
        "chaos_t1dual",
        1.5,
        OppositeAndInPhase(tr=140, flip=75),
        spacing=(1.9, 1.9, 6.0),
        field_of_view=(395.2, 304, 216),
        axcodes="LPS",
        snr=22,
        gain=900,
        **_ABDOMEN,
    ),
    Scanner(
        "chaos_t2spir",
        1.5,
        SpinEcho(tr=1800, te=70, turbo=True, fat=0.06),
        spacing=(1.9, 1.9, 7.0),
        field_of_view=(395.2, 304, 224),
        axcodes="LPS",
        bias=0.15,
        blur=1.2,
        snr=14,
        gain=700,
        **_ABDOMEN,
    ),
    # Medical Segmentation Decathlon: turbo spin echo with the diffusion map on its grid.
    Scanner(
        "msd_prostate",
        3.0,
        T2AndDiffusion(tr=4000, te=110),
        spacing=(0.8, 0.8, 3.6),
        field_of_view=(192, 192, 72),
        axcodes="RAS",
        snr=16,
        gain=800,
        body="prostate",
        coil="around",
        coil_depth=170.0,
        **_AT_MIDDLE,
    ),
)

SCANNERS = {scanner.name: scanner for scanner in (*_SPINE, *_JOINTS, *_HEADS, *_TRUNKS)}
