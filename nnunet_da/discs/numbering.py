"""Which disc is which: counted along the centreline, with gaps, from the lowest."""

from dataclasses import dataclass

import numpy as np

# Scales of a spine relative to the reference that are tried, and how much subjects differ (as a logarithm).
SCALES = np.linspace(0.68, 1.45, 78)
SCALE_SPREAD = 0.13
# Standard deviation of the distance of two discs, as a share of it, and what a missing disc costs against that, in
# units of half a squared standard deviation.
SPACING_SPREAD = 0.09
MISSING_COST = 3.0
MOST_STEPS = 4  # discs between which three or more are missing do not belong together

# How the lowest disc that was found may lie: L5/S1, one above, two above.
N_LEVELS = 3
# Probability that lower discs exist but were not segmented although the scan holds their place, and that they lie
# outside it where it does not.
OVERLOOKED, OUTSIDE = 0.05, 0.4
# That there is one disc more than expected.
SURPLUS = 0.05
# Standard deviations of log volume, depth and width of a disc about the reference's: those of the phantom's subjects,
# widened for degeneration and the errors of a segmentation.
SIZE_SPREADS = np.array([0.2, 0.04, 0.04])
N_SIZED = 5  # discs from the lowest that are compared
# How many degrees further forward a disc faces than the one above it, from L5/S1 and L4/L5 upwards; above that, not at
# all. Rounded means over the discs of three subjects on their backs (IVDM3Seg's training set). The spread allows
# for flatter backs and the errors of a segmentation; a turn counts no more than at so many of it.
TURNS = np.array([23.0, 9.0, 6.0, 3.0, 0.0])
TURN_SPREAD, WORST_TURN = 7.0, 2.0
# What it counts that the localiser gives one of the lowest three discs a number, as a logarithm of odds.
VOTE, N_VOTES = 2.5, 3


@dataclass(frozen=True)
class Spacing:
    """steps (n,): how many discs each lies above the lowest; scale: of the spine against the reference; errors
    (n − 1,): how far each distance is from its whole number of steps, in steps."""

    steps: np.ndarray
    scale: float
    errors: np.ndarray


def count_steps(positions, reference):
    """`Spacing` of discs at arc lengths `positions` (n,), rising, against those of a reference's discs (m,).

    The scale and the numbers of steps are the most likely, where distances scatter by `SPACING_SPREAD`, scales by
    `SCALE_SPREAD`, and a disc that is missing costs `MISSING_COST`.
    """
    reference = _extended(reference, len(positions) * MOST_STEPS)
    at = np.zeros(len(SCALES), int)
    cost = (np.log(SCALES) / SCALE_SPREAD) ** 2
    steps, errors = [np.zeros_like(at)], []
    for gap in np.diff(positions):
        choices = at + np.arange(1, MOST_STEPS + 1)[:, None]  # (choice, scale)
        expected = SCALES * (reference[choices] - reference[at])
        pitch = SCALES * (reference[at + 1] - reference[at])
        error = (gap - expected) / pitch
        costs = (error / SPACING_SPREAD) ** 2 + 2 * MISSING_COST * np.arange(MOST_STEPS)[:, None]
        best = costs.argmin(axis=0)
        columns = np.arange(len(SCALES))
        cost = cost + costs[best, columns]
        errors.append(error[best, columns])
        at = choices[best, columns]
        steps.append(at)
    chosen = cost.argmin()
    return Spacing(
        np.array([each[chosen] for each in steps]), SCALES[chosen], np.array([each[chosen] for each in errors])
    )


def level_probabilities(
    steps, log_sizes, reference_sizes, room, votes=(), tilts=None, *, expected=None, room_above=np.inf
):
    """Probability that the lowest disc is the reference's first, second, …: (N_LEVELS,).

    steps, log_sizes: of the discs from the lowest, as `Spacing.steps` and `Pieces.log_sizes`; room: how far the line
    runs on below the lowest disc before it leaves the scan, in distances of two discs; votes (n,): the localiser's
    number of each disc, 0 for none; tilts (n,): how far forward each disc faces, in degrees, NaN for unknown. What
    cannot be seen from the discs alone is a matter of odds: lower discs were overlooked, or lie outside the scan;
    against that stands how sizes run along the spine, each without its mean, and how discs turn: more than half of the
    lordosis is below L4. expected: to which number, counted from L5/S1, discs are segmented where the scan shows them,
    None for unknown; then discs that are lacking above count against a number, unless their place is outside the scan:
    room_above, as `room`, from the highest disc upwards.
    """
    unseen = _unseen(room, OUTSIDE)
    prior = np.log([1 - unseen, unseen * (1 - unseen), unseen**2])
    if expected is not None:
        lacking = expected - 1 - (steps[-1] + np.arange(N_LEVELS))
        prior += np.where(lacking > 0, lacking * np.log(_unseen(room_above, 1.0)), -lacking * np.log(SURPLUS))
    likelihood = _turn_likelihoods(steps, np.full(len(steps), np.nan) if tilts is None else tilts)
    compared = (steps <= N_SIZED - 1) & (steps + N_LEVELS <= len(reference_sizes))
    for level in range(N_LEVELS):
        if compared.sum() >= 2:
            difference = log_sizes[compared] - reference_sizes[steps[compared] + level]
            known = np.isfinite(difference)
            counts = np.maximum(known.sum(axis=0), 1)
            mean = np.where(known, difference, 0).sum(axis=0) / counts
            scores = np.where(known, (difference - mean) / SIZE_SPREADS, 0)
            likelihood[level] -= (scores**2).sum() / 2
        for step, vote in list(zip(steps, votes, strict=False))[:N_VOTES]:
            likelihood[level] += VOTE * (vote == step + level + 1)
    odds = np.exp(prior + likelihood - (prior + likelihood).max())
    return odds / odds.sum()


def _unseen(room, outside):
    """Probability that the next disc is not in the mask, where the line leaves the scan after `room` distances of two
    discs; `outside`: that there is one, if its place is not in the scan."""
    return OVERLOOKED + (1 - OVERLOOKED) * outside * np.clip((1.1 - room) / 0.2, 0, 1)


def _turn_likelihoods(steps, tilts):
    """Logarithm of the likelihood of the turns from disc to disc for each level of the lowest: (N_LEVELS,).

    Differences alone count, since a patient may lie askew.
    """
    facing = -np.cumsum(np.r_[0, TURNS])
    likelihood = np.zeros(N_LEVELS)
    for level in range(N_LEVELS):
        expected = facing[np.minimum(steps + level, len(TURNS))]
        scores = np.diff(tilts - expected) / (TURN_SPREAD * np.sqrt(np.diff(steps)))
        compared = np.isfinite(scores) & (steps[:-1] < len(TURNS))
        likelihood[level] = -(np.clip(scores[compared], -WORST_TURN, WORST_TURN) ** 2).sum() / 2
    return likelihood


def _extended(reference, n):
    """Arc lengths of a reference's discs, with `n` more at the distance of its last two."""
    return np.r_[reference, reference[-1] + (reference[-1] - reference[-2]) * np.arange(1, n + 1)]
