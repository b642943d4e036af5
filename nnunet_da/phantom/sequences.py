"""Pulse sequences: from proton pools to echoes, and from noisy echoes to the images a scanner stores.

Equations: Haacke et al., Magnetic Resonance Imaging: Physical Principles and Sequence Design, 1999; Bernstein et al.,
Handbook of MRI Pulse Sequences, 2004. Times are in ms, angles in degrees, fields in tesla.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

GYROMAGNETIC_RATIO = 42.577  # of the proton, in MHz/T
CHEMICAL_SHIFT = 3.4  # from fat's methylene to water, in ppm

# Trains of refocusing pulses undo the J-coupling of fat, which then decays more slowly (Henkelman et al., Why fat is
# bright in RARE and fast spin-echo imaging, J Magn Reson Imaging 1992).
TURBO_FAT_T2 = 1.6
# Share of the flowing spins that both pulses of a spin echo reach.
FLOW_VOID = 0.1


def spin_echo(pd, t1, t2, tr, te):
    """PD (1 - exp(-TR/T1)) exp(-TE/T2), for TE much shorter than TR."""
    return pd * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)


def spoiled_gradient_echo(pd, t1, t2_star, tr, te, flip):
    """PD sin a (1 - E1) / (1 - E1 cos a) exp(-TE/T2*), with E1 = exp(-TR/T1): the steady state of full spoiling."""
    e1 = np.exp(-tr / t1)
    flip = np.deg2rad(flip)
    return pd * np.sin(flip) * (1 - e1) / (1 - e1 * np.cos(flip)) * np.exp(-te / t2_star)


def ernst_angle(t1, tr):
    """The flip angle in degrees at which the spoiled gradient echo is strongest: arccos(exp(-TR/T1))."""
    return np.rad2deg(np.arccos(np.exp(-tr / t1)))


def opposed_phase_te(field):
    """The first echo time in ms at which fat points against water; in phase is at twice that time."""
    return 1000 / (2 * CHEMICAL_SHIFT * GYROMAGNETIC_RATIO * field)


@dataclass(frozen=True)
class SpinEcho:
    """Spin echo; with `turbo`, a turbo spin echo whose effective echo time is `te`."""

    tr: float
    te: float
    turbo: bool = False
    channels: ClassVar[tuple[str, ...]] = ("spin_echo",)

    def echoes(self, pools):
        """Signal per tissue, complex, of shape (echoes, tissues)."""
        fat_t2 = pools.fat_t2 * (TURBO_FAT_T2 if self.turbo else 1)
        water = spin_echo(pools.water, pools.t1, pools.t2, self.tr, self.te)
        fat = spin_echo(pools.fat, pools.fat_t1, fat_t2, self.tr, self.te)
        return ((water + fat) * np.where(pools.flowing, FLOW_VOID, 1))[None].astype(complex)

    def reconstruct(self, echoes):
        """Magnitude images of shape (channels, …) from complex echoes of shape (echoes, …)."""
        return np.abs(echoes)


@dataclass(frozen=True)
class GradientEcho:
    """Spoiled gradient echo. Fat has the phase that it gained against water until the echo."""

    tr: float
    te: float
    flip: float
    channels: ClassVar[tuple[str, ...]] = ("gradient_echo",)

    def echoes(self, pools):
        return _gradient_echo(pools, self.tr, self.te, self.flip)[None]

    def reconstruct(self, echoes):
        return np.abs(echoes)


@dataclass(frozen=True)
class Dixon:
    """Two-point Dixon (Dixon, Radiology 1984) on spoiled gradient echoes at the first opposed-phase and in-phase times.

    Four images: fat = |in - opp| / 2, inn = |in|, opp = |opp|, wat = |in + opp| / 2, with the phase of the echoes
    known.
    """

    tr: float
    flip: float
    channels: ClassVar[tuple[str, ...]] = ("fat", "inn", "opp", "wat")

    def echoes(self, pools):
        opposed = opposed_phase_te(pools.field)
        return np.stack([_gradient_echo(pools, self.tr, te, self.flip) for te in (opposed, 2 * opposed)])

    def reconstruct(self, echoes):
        opposed, inphase = echoes
        return np.abs(np.stack([(inphase - opposed) / 2, inphase, opposed, (inphase + opposed) / 2]))


def _gradient_echo(pools, tr, te, flip):
    water = spoiled_gradient_echo(pools.water, pools.t1, pools.t2_star, tr, te, flip)
    fat = spoiled_gradient_echo(pools.fat, pools.fat_t1, pools.fat_t2_star, tr, te, flip)
    return water + fat * np.exp(1j * np.pi * te / opposed_phase_te(pools.field))
