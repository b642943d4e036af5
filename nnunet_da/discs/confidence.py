"""How sure it is that discs bear the right number, and what speaks against it.

A confidence is a product of factors in [0, 1], one per doubt. They are no probabilities: their constants were chosen on
simulated spines (`benchmarks/disc_numbering.py --simulated`) so that wrong cases fall below `FLAGGED` and right ones do
not; but for those that docs/discs.md names.
"""

from dataclasses import dataclass, replace

import numpy as np

from nnunet_da.discs.numbering import Spacing
from nnunet_da.discs.pieces import Pieces

FLAGGED = 0.5  # cases and discs with less confidence should be looked at

LEVEL = "ambiguous lowest disc"
GAP = "gap: a disc is missing below"
SPACING = "odd spacing to the disc below"
VOLUME = "odd volume"
OFF_LINE = "off the centreline"
CUT = "cut by the field of view"
FUSED = "was fused with another disc"
REGISTRATION = "registration disagrees"
LOCALISER = "localiser disagrees"
ROOM = "much room below the lowest disc"
LEFT_OUT = "sets out of step were left out"
FEW = "fewer than three discs"
MORE = "more discs than expected"
LESS = "discs are missing at an end"
SCALE = "unusual distances of discs"

# The power to which the probability of the lowest disc's number is taken: 0.87 is just flagged.
LEVEL_POWER = 5.0
# Factors of doubts that hold or do not; those of missing discs count once for each.
FACTORS = {
    GAP: 0.85,
    LESS: 0.85,
    CUT: 0.95,
    FUSED: 0.95,
    REGISTRATION: 0.95,
    LOCALISER: 0.8,
    LEFT_OUT: 0.8,
    FEW: 0.6,
    MORE: 0.4,
}
# That of the registration where discs are missing at an end: of such simulated spines four in ten are numbered wrong,
# and two in ten where the registration agrees. Where none is missing, its word tells nothing. The value was picked on
# variants of the three real spines of docs/results.md, not on simulated ones.
UNSUPPORTED = 0.7
# Of measured deviations: up to the first number they are no doubt at all; the factor is a Gaussian of what exceeds it,
# with the second as standard deviation. Spacing in steps, volume and scale as logarithms, distance in mm; room in
# distances of two discs: lumbar scans rarely reach twice as far below L5/S1.
TOLERATED = {SPACING: (0.15, 0.13), VOLUME: (0.7, 0.6), OFF_LINE: (5.0, 5.0), SCALE: (0.2, 0.12), ROOM: (2.1, 0.3)}
NAMED = 0.95  # a doubt is named where its factor is below


@dataclass(frozen=True)
class Found:
    """What was measured of the discs of a case, from the lowest; arrays have one entry each, `spacing.errors` one per
    distance. `by_registration`, `by_localiser`: the numbers that these give, 0 for none; `room`: how far the
    scan reaches below the lowest disc, in distances of two discs; `n_lacking`: how many discs fewer than
    expected there are from the lowest to the highest, negative where there are more."""

    numbers: np.ndarray
    level_probability: float
    spacing: Spacing
    pieces: Pieces
    fused: np.ndarray
    off_line: np.ndarray
    by_registration: np.ndarray
    by_localiser: np.ndarray
    n_left_out: int
    room: float
    n_lacking: int = 0

    def up_to(self, n_discs):
        """Without the discs whose number is above `n_discs` (None: with all)."""
        n = len(self.numbers) if n_discs is None else int((self.numbers <= n_discs).sum())
        spacing = replace(self.spacing, steps=self.spacing.steps[:n], errors=self.spacing.errors[: max(n - 1, 0)])
        arrays = ("numbers", "pieces", "fused", "off_line", "by_registration", "by_localiser")
        return replace(self, spacing=spacing, **{name: getattr(self, name)[:n] for name in arrays})


def judge(found, reference):
    """Confidence and doubts, sorted by weight, of each disc and of the case: ``[(0.9, ("odd volume",)), …], (0.8, …)``.

    A disc is as sure as the lowest disc's number, all distances up to it, and its own place, shape and size; a case as
    its least sure disc.
    """
    whole = _of_case(found, reference)
    below, discs = {}, []
    for index, own in enumerate(_of_discs(found, reference)):
        if index:
            for doubt, factor in _of_distance(found.spacing, index - 1).items():
                below[doubt] = below.get(doubt, 1.0) * factor
        discs.append(whole | below | own)
    judged = [_summary(factors) for factors in discs]
    worst = {}
    for factors in discs:
        for doubt, factor in factors.items():
            worst[doubt] = min(factor, worst.get(doubt, 1.0))
    return judged, (min(confidence for confidence, _ in judged), _summary(worst)[1])


def _of_case(found, reference):
    """Doubt → factor of what concerns all discs."""
    factors = {LEVEL: found.level_probability**LEVEL_POWER, SCALE: _tolerant(SCALE, np.log(found.spacing.scale))}
    factors[ROOM] = _tolerant(ROOM, found.room)
    given = found.by_localiser > 0
    holds = {
        REGISTRATION: np.median(found.by_registration - found.numbers) != 0,
        LOCALISER: given.any() and np.median((found.by_localiser - found.numbers)[given]) != 0,
        LEFT_OUT: found.n_left_out > 0,
        FEW: len(found.numbers) < 3,
        MORE: found.n_lacking < 0,
    }
    factors |= {doubt: FACTORS[doubt] for doubt, true in holds.items() if true}
    if found.n_lacking > 0:
        factors[LESS] = FACTORS[LESS] ** found.n_lacking
        if holds[REGISTRATION]:
            factors[REGISTRATION] = UNSUPPORTED
    return factors


def _of_distance(spacing, index):
    """Doubt → factor of the distance from a disc to the next above."""
    factors = {SPACING: _tolerant(SPACING, spacing.errors[index])}
    missing = spacing.steps[index + 1] - spacing.steps[index] - 1
    return factors | ({GAP: FACTORS[GAP] ** missing} if missing else {})


def _of_discs(found, reference):
    """Doubt → factor of each disc's own place, shape and size."""
    expected = reference.log_sizes[np.minimum(found.numbers, len(reference.log_sizes)) - 1, 0]
    excess = np.log(found.pieces.volumes) - expected
    excess = excess - np.median(excess)
    for index in range(len(found.numbers)):
        cut = found.pieces.cut[index]
        factors = {OFF_LINE: _tolerant(OFF_LINE, found.off_line[index])}
        factors |= {CUT: FACTORS[CUT]} if cut else {VOLUME: _tolerant(VOLUME, excess[index])}
        yield factors | ({FUSED: FACTORS[FUSED]} if found.fused[index] else {})


def _tolerant(doubt, deviation):
    free, spread = TOLERATED[doubt]
    return float(np.exp(-0.5 * (max(abs(deviation) - free, 0) / spread) ** 2))


def _summary(factors):
    doubts = sorted((doubt for doubt, factor in factors.items() if factor < NAMED + 1e-9), key=factors.get)
    return float(np.prod(list(factors.values()))), tuple(doubts)
