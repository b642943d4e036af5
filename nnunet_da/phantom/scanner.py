"""Simulated MR scanners: a pulse sequence, a coil, a grid, blur and noise; and the images they take of a spine."""

from dataclasses import dataclass

import nibabel
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from nnunet_da.phantom.sequences import Dixon, GradientEcho, SpinEcho
from nnunet_da.phantom.spine import Anatomy
from nnunet_da.phantom.tissues import INDEX, pools


@dataclass(frozen=True)
class Scanner:
    """How one scanner takes lumbar spines.

    field: tesla; spacing, field_of_view: mm, along R, A, S; axcodes: directions of the stored axes, as nibabel's;
    coil_depth: mm in which the sensitivity of the posterior surface coil falls to 1/e; bias: amplitude of the smooth,
    random part of the sensitivity (log scale); saturation: mm in front of the spine from where a saturation band
    darkens the abdomen, or None; blur: full width at half maximum of the point spread, in voxels; snr: mean signal of
    the body over the standard deviation of the noise in each receiver channel; gain: stored units of the brightest
    tissue, about.
    """

    name: str
    field: float
    sequence: SpinEcho | GradientEcho | Dixon
    spacing: tuple[float, float, float] = (4.0, 1.25, 1.25)
    field_of_view: tuple[float, float, float] = (56.0, 200.0, 240.0)
    axcodes: str = "RAS"
    coil_depth: float = 120.0
    bias: float = 0.1
    saturation: float | None = None
    blur: float = 1.0
    snr: float = 25.0
    gain: float = 1000.0

    @property
    def channels(self):
        """Names of the images that one scan gives."""
        return self.sequence.channels

    def grid(self, rng, size=None):
        """Shape and affine of a scan, placed as a radiographer does: within some mm and degrees of the spine's middle.

        size: voxels along R, A, S; they divide the same field of view. None keeps the scanner's own spacing.
        """
        field_of_view = np.array(self.field_of_view)
        size = np.round(field_of_view / self.spacing).astype(int) if size is None else np.array(size)
        tilts = np.deg2rad(rng.normal(0, [1.5, 0.7, 0.7]))
        centre = rng.normal([0, -14, -10], [1.5, 5, 6])
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
    anatomy: Anatomy

    @property
    def affine(self):
        return self.anatomy.affine


def simulate(spine, scanner, rng, size=None):
    """One scan of `spine`: a Scan whose positioning, coil sensitivity, gain and noise are drawn with `rng`.

    size: voxels along R, A, S, see Scanner.grid. Noise is Gaussian in both parts of the complex echoes, hence Rician in
    magnitude images (Gudbjartsson and Patz, Magn Reson Med 1995).
    """
    anatomy = spine.rasterise(*scanner.grid(rng, size))
    echoes = ideal_echoes(anatomy, scanner, spine.deviations)
    world = world_coordinates(anatomy)
    echoes = echoes * sensitivity(world, scanner, rng)
    sigma = scanner.blur / np.sqrt(8 * np.log(2))
    blurred = [gaussian_filter(part, (0, sigma, sigma, sigma)) for part in (echoes.real, echoes.imag)]
    echoes = blurred[0] + 1j * blurred[1]
    body = anatomy.fractions[INDEX["air"]] < 0.5
    noise = np.abs(echoes[-1][body]).mean() / scanner.snr
    echoes = add_noise(echoes, noise, rng)
    images = scanner.sequence.reconstruct(echoes)
    gain = scanner.gain * rng.uniform(0.8, 1.25) / np.percentile(images, 99.5)
    return Scan(np.clip(np.round(images * gain), 0, np.iinfo(np.int16).max).astype(np.int16), anatomy)


def ideal_echoes(anatomy, scanner, deviations=None):
    """Complex echoes (echoes, X, Y, Z) without coil, blur and noise; deviations: the subject's, see `tissues.pools`."""
    signals = scanner.sequence.echoes(pools(scanner.field, deviations)).astype(np.complex64)
    return np.tensordot(signals, anatomy.fractions, axes=1)


def add_noise(echoes, sigma, rng):
    """Adds Gaussian noise of standard deviation `sigma` to the real and the imaginary part of complex `echoes`."""
    parts = rng.standard_normal((2, *echoes.shape), dtype=np.float32) * np.float32(sigma)
    return echoes + parts[0] + 1j * parts[1]


def world_coordinates(anatomy):
    """RAS coordinates in mm of all voxels, (3, X, Y, Z) float32."""
    steps = np.ix_(*[np.arange(n, dtype=np.float32) for n in anatomy.discs.shape])
    return np.stack(
        [
            sum(np.float32(row[axis]) * steps[axis] for axis in range(3)) + np.float32(row[3])
            for row in anatomy.affine[:3]
        ]
    )


def sensitivity(world, scanner, rng):
    """Relative sensitivity (X, Y, Z): exponential falloff from the coil on the back, a random part, saturation."""
    _x, y, z = world
    waves = (rng.normal(0, 1, (4, 3)) / 120).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, (4, 1, 1, 1)).astype(np.float32)
    smooth = np.cos(np.tensordot(waves, world, axes=1) + phases).sum(axis=0)
    # The coil ends with the field of view, head and foot.
    ends = (2 * np.abs(z) / scanner.field_of_view[2]) ** 4
    result = np.exp(-(y + 60) / scanner.coil_depth + scanner.bias * (smooth - ends))
    if scanner.saturation is not None:
        # The band lies parallel to the coronal plane, and its edge is a few mm wide.
        result *= 1 - 0.85 / (1 + np.exp(-(y - scanner.saturation) / 3))
    return result


SCANNERS = {
    scanner.name: scanner
    for scanner in (
        Scanner(
            "philips_3t", 3.0, SpinEcho(tr=3200, te=100, turbo=True), axcodes="PIR", coil_depth=140, snr=30, gain=900
        ),
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
}
