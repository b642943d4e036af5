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
# Share of the signal of flowing spins that is left in spin echoes, and in the double echoes of a steady state.
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


def balanced_echo(pd, t1, t2, tr, te, flip):
    """PD sin a (1 - E1) / (1 - (E1 - E2) cos a - E1 E2) exp(-TE/T2): balanced steady-state free precession, on
    resonance with alternating pulses; E1 = exp(-TR/T1), E2 = exp(-TR/T2). TE is half of TR in most scans.
    """
    e1, e2 = np.exp(-tr / t1), np.exp(-tr / t2)
    flip = np.deg2rad(flip)
    return pd * np.sin(flip) * (1 - e1) / (1 - (e1 - e2) * np.cos(flip) - e1 * e2) * np.exp(-te / t2)


def steady_state_pair(pd, t1, t2, tr, flip):
    """Transverse magnetisation right after and right before each pulse of unspoiled, unbalanced gradient echoes.

    Hänicke and Vogel, Magn Reson Med 2003: PD tan(a/2) (1 - (E1 - cos a) r) and PD tan(a/2) (1 - (1 - E1 cos a) r),
    with r² = (1 - E2²) / ((1 - E1 cos a)² - E2² (E1 - cos a)²).
    """
    e1, e2, cosine = np.exp(-tr / t1), np.exp(-tr / t2), np.cos(np.deg2rad(flip))
    r = np.sqrt((1 - e2**2) / ((1 - e1 * cosine) ** 2 - e2**2 * (e1 - cosine) ** 2))
    scale = pd * np.tan(np.deg2rad(flip) / 2)
    return scale * (1 - (e1 - cosine) * r), scale * (1 - (1 - e1 * cosine) * r)


class Magnitude:
    """A sequence that stores the magnitude of each of its echoes, in arbitrary units."""

    # Channels whose values are quantities, not to be scaled.
    quantitative: ClassVar[tuple[str, ...]] = ()

    def reconstruct(self, echoes):
        """Magnitude images of shape (channels, …) from complex echoes of shape (echoes, …)."""
        return np.abs(echoes)


@dataclass(frozen=True)
class SpinEcho(Magnitude):
    """Spin echo; with `turbo`, a turbo spin echo whose effective echo time is `te`; fat: the share of fat's signal
    that is left (1: no fat suppression).
    """

    tr: float
    te: float
    turbo: bool = False
    fat: float = 1.0
    channels: ClassVar[tuple[str, ...]] = ("spin_echo",)

    def echoes(self, pools):
        """Signal per tissue, complex, of shape (echoes, tissues)."""
        fat_t2 = pools.fat_t2 * (TURBO_FAT_T2 if self.turbo else 1)
        water = spin_echo(pools.water, pools.t1, pools.t2, self.tr, self.te)
        fat = spin_echo(pools.fat, pools.fat_t1, fat_t2, self.tr, self.te)
        return ((water + self.fat * fat) * np.where(pools.flowing, FLOW_VOID, 1))[None].astype(complex)


@dataclass(frozen=True)
class GradientEcho(Magnitude):
    """Spoiled gradient echo. Fat has the phase that it gained against water until the echo.

    fat: the share of fat's signal that is left (1: no fat suppression).
    """

    tr: float
    te: float
    flip: float
    fat: float = 1.0
    channels: ClassVar[tuple[str, ...]] = ("gradient_echo",)

    def echoes(self, pools):
        return _gradient_echo(pools, self.tr, self.te, self.flip, self.fat)[None]


@dataclass(frozen=True)
class BalancedEcho(Magnitude):
    """Balanced steady-state free precession without bands, as CISS makes it: bright where T2 is not far below T1."""

    tr: float
    flip: float
    channels: ClassVar[tuple[str, ...]] = ("balanced_echo",)

    def echoes(self, pools):
        water = balanced_echo(pools.water, pools.t1, pools.t2, self.tr, self.tr / 2, self.flip)
        fat = balanced_echo(pools.fat, pools.fat_t1, pools.fat_t2, self.tr, self.tr / 2, self.flip)
        return (water + fat)[None].astype(complex)


@dataclass(frozen=True)
class DoubleEcho(Magnitude):
    """Dual-echo steady state (DESS): root of the sum of squares of the echoes before and after each pulse.

    fat: the share of fat's signal that is left by exciting water only.
    """

    tr: float
    te: float
    flip: float
    fat: float = 0.05
    channels: ClassVar[tuple[str, ...]] = ("dess",)

    def echoes(self, pools):
        water = self._pair(pools.water, pools.t1, pools.t2, pools.t2_star)
        fat = self._pair(pools.fat, pools.fat_t1, pools.fat_t2, pools.fat_t2_star)
        return ((water + self.fat * fat) * np.where(pools.flowing, FLOW_VOID, 1)).astype(complex)

    def reconstruct(self, echoes):
        return np.sqrt((np.abs(echoes) ** 2).sum(axis=0))[None]

    def _pair(self, pd, t1, t2, t2_star):
        after, before = steady_state_pair(pd, t1, t2, self.tr, self.flip)
        # The earlier echo is read `te` before the pulse: less decayed by T2, and not yet rephased.
        dephasing = 1 / t2_star - 1 / t2
        return np.stack([before * np.exp(self.te / t2 - self.te * dephasing), after * np.exp(-self.te / t2_star)])


@dataclass(frozen=True)
class OppositeAndInPhase(Magnitude):
    """Spoiled gradient echoes at the first times at which fat opposes water and is in phase with it."""

    tr: float
    flip: float
    channels: ClassVar[tuple[str, ...]] = ("out_of_phase", "in_phase")

    def echoes(self, pools):
        opposed = opposed_phase_te(pools.field)
        return np.stack([_gradient_echo(pools, self.tr, te, self.flip) for te in (opposed, 2 * opposed)])


@dataclass(frozen=True)
class Dixon(OppositeAndInPhase):
    """Two-point Dixon (Dixon, Radiology 1984) on spoiled gradient echoes at the first opposed-phase and in-phase times.

    Four images: fat = |in - opp| / 2, inn = |in|, opp = |opp|, wat = |in + opp| / 2, with the phase of the echoes
    known.
    """

    channels: ClassVar[tuple[str, ...]] = ("fat", "inn", "opp", "wat")

    def reconstruct(self, echoes):
        opposed, inphase = echoes
        return np.abs(np.stack([(inphase - opposed) / 2, inphase, opposed, (inphase + opposed) / 2]))


@dataclass(frozen=True)
class T2AndDiffusion(Magnitude):
    """A turbo spin echo `t2`, and a map `adc` of the apparent diffusion coefficient in 1e-6 mm²/s on the same grid.

    The map is ln(S0 / Sb) / b of fat-suppressed spin echoes (`diffusion_te`) without and with diffusion weighting b
    (s/mm²), and 0 where the former has next to no signal, as scanners store it. These echoes are averages of
    `averages`, or of as many of the T2 image's voxels.
    """

    tr: float
    te: float
    diffusion_te: float = 75.0
    b: float = 800.0
    averages: int = 12
    channels: ClassVar[tuple[str, ...]] = ("t2", "adc")
    quantitative: ClassVar[tuple[str, ...]] = ("adc",)

    def echoes(self, pools):
        plain = SpinEcho(self.tr, self.diffusion_te, fat=0.03).echoes(pools) * np.sqrt(self.averages)
        weighted = plain * np.exp(-self.b * pools.adc * 1e-6)
        return np.concatenate([plain, weighted, SpinEcho(self.tr, self.te, turbo=True).echoes(pools)])

    def reconstruct(self, echoes):
        plain, weighted, t2 = np.abs(echoes)
        adc = 1e6 / self.b * np.log(np.maximum(plain, 1e-12) / np.maximum(weighted, 1e-12))
        seen = plain > 0.06 * np.percentile(plain, 99.5)
        return np.stack([t2, np.where(seen, np.clip(adc, 0, 4000), 0)])


def _gradient_echo(pools, tr, te, flip, fat_share=1.0):
    water = spoiled_gradient_echo(pools.water, pools.t1, pools.t2_star, tr, te, flip)
    fat = spoiled_gradient_echo(pools.fat, pools.fat_t1, pools.fat_t2_star, tr, te, flip)
    return water + fat_share * fat * np.exp(1j * np.pi * te / opposed_phase_te(pools.field))
