"""The discs of a mask, found along the spine's centreline and numbered from the lowest (ivd_dense_aspp, 2.2)."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from nnunet_da.discs.centreline import Centreline
from nnunet_da.discs.confidence import Found, judge
from nnunet_da.discs.fused import split_fused
from nnunet_da.discs.numbering import MOST_STEPS, count_steps, level_probabilities
from nnunet_da.discs.pieces import VoxelCloud, connected_sets
from nnunet_da.discs.reference import default_reference
from nnunet_da.discs.registration import register

N_DISCS = 7  # the paper's: L5/S1 to T11/T12
CRUMB = 0.1  # of the median volume: smaller sets are no discs
# A disc is flat, and faces along the line.
FLATTEST, STEEPEST = 0.62, np.cos(np.deg2rad(45))
# How far, in mm, the middle of a disc may lie from the line while it is fitted: at first, and at last.
FIRST_REACH, REACH = 20.0, 12.0
N_FITS = 4
TOGETHER = 0.4  # of the distance of two discs: sets that are nearer along the line are one disc
# Steps by which the outermost set may be out of step with the others: where it is the next, and beyond a gap.
ODD_END, ODD_END_BEYOND = 0.3, 0.15


@dataclass(frozen=True)
class Disc:
    """One disc: number (1 = lowest, L5/S1), centroid in mm (RAS), volume in mm³, confidence in [0, 1], reasons for
    doubt."""

    number: int
    centroid: np.ndarray
    volume: float
    confidence: float
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Localisation:
    """label_map: uint8 (X, Y, Z), numbers of discs, 0 elsewhere; discs from the lowest; of the case: confidence in
    [0, 1] and reasons for doubt; line: the `Centreline`."""

    label_map: np.ndarray
    discs: tuple[Disc, ...]
    confidence: float
    doubts: tuple[str, ...]
    line: Centreline


def localise(mask, affine, *, localiser=None, reference=None, n_discs=N_DISCS, expected=None):
    """`Localisation` of the discs in `mask` (X, Y, Z), true inside discs.

    affine (4, 4): voxel indices to RAS mm. localiser (X, Y, Z): numbers of discs by the localisation network, with
    which the mask is intersected. reference: a `Reference`, by default the phantom's. n_discs: the lowest so many are
    kept; None: all. expected: how many discs a complete mask shows, from L5/S1 upwards; None: unknown. Where there are
    fewer, and the scan's end does not explain it, the lowest may be the one that is missing: the number of the others,
    and their confidence, take that into account. Raises ValueError where mask (or intersection) is empty, or no set
    lies along a spine.

    The paper registers a reference to the prediction, fits the centreline through its discs, keeps the connected sets
    that the line meets and numbers them from the bottom. Here the line is then fitted anew through the sets themselves;
    sets that hold two discs are parted; sets that are not flat across the line, or out of step with the others, are
    left out; and numbers leave gaps where discs are missing.
    """
    mask = np.asarray(mask, bool)
    if localiser is not None:
        mask = mask & (localiser > 0)
    if not mask.any():
        raise ValueError("the mask is empty" if localiser is None else "mask and localiser have no voxel in common")
    reference = reference or default_reference()
    cloud = VoxelCloud.of(mask, affine)
    sets, n_sets = connected_sets(cloud)
    registered = _registered(reference, cloud, cloud.pieces(sets, n_sets))
    pitch = float(np.median(np.linalg.norm(np.diff(registered, axis=0), axis=1)))
    line = _fitted_line(registered, cloud, sets, n_sets, pitch)
    numbers, n, parts = split_fused(cloud, sets, n_sets, line, pitch)
    numbers, fused = _along(line, cloud, numbers, n, parts, pitch)
    if not numbers.any():
        raise ValueError("no connected set lies along a spine")
    numbers, fused, spacing, n_left_out = _in_step(line, cloud, numbers, fused, reference)

    pieces = cloud.pieces(numbers, len(fused))
    arc, off_line = line.project(pieces.centroids)
    votes = _votes(localiser, cloud, numbers, len(fused))
    pitch_here = spacing.scale * reference.positions[1]
    room, room_above = line.room_below(arc[0], cloud) / pitch_here, line.room_above(arc[-1], cloud) / pitch_here
    # The bridge of discs that were fused turns what is measured of them.
    tilts = np.where(fused, np.nan, pieces.tilts)
    levels = level_probabilities(
        *(spacing.steps, pieces.log_sizes, reference.log_sizes, room, votes, tilts),
        expected=expected,
        room_above=room_above,
    )
    found = Found(
        numbers=1 + int(levels.argmax()) + spacing.steps,
        level_probability=float(levels.max()),
        spacing=spacing,
        pieces=pieces,
        fused=fused,
        off_line=off_line,
        by_registration=1 + cdist(pieces.centroids, registered).argmin(axis=1),
        by_localiser=votes,
        n_left_out=n_left_out,
        room=room,
        n_lacking=0 if expected is None else expected - 1 - int(spacing.steps[-1]),
    ).up_to(n_discs)
    if len(found.numbers) == 0:
        raise ValueError(f"no disc with a number up to {n_discs} was found")
    table = np.zeros(len(fused) + 1, np.uint8)
    table[1 : 1 + len(found.numbers)] = found.numbers
    label_map = np.zeros(mask.shape, np.uint8)
    label_map[tuple(cloud.indices.T)] = table[numbers]
    of_discs, of_case = judge(found, reference)
    discs = tuple(
        Disc(int(number), centroid, float(volume), *judged)
        for number, centroid, volume, judged in zip(
            found.numbers, found.pieces.centroids, found.pieces.volumes, of_discs, strict=True
        )
    )
    return Localisation(label_map, discs, *of_case, line)


def _registered(reference, cloud, pieces):
    """The reference's centroids (n, 3) after registration; it starts where the lowest large, flat sets are."""
    large = pieces.volumes >= CRUMB * np.median(np.sort(pieces.volumes)[-len(reference.centroids) :])
    flat = large & (pieces.flatness < FLATTEST)
    likely = np.flatnonzero(flat if flat.any() else large)
    lowest = likely[np.argsort(pieces.centroids[likely, 2])][:3]
    anchors = [(0, point) for point in pieces.centroids[lowest]] + [(1, pieces.centroids[lowest[0]])]
    transform = register(reference, cloud, anchors)
    return reference.centroids @ transform[:3, :3].T + transform[:3, 3]


def _fitted_line(registered, cloud, sets, n_sets, pitch):
    """The `Centreline` through the discs that the registered reference's line leads to."""
    line = Centreline.fit(registered, [])
    for reach in np.linspace(FIRST_REACH, REACH, N_FITS):
        # As the line gets better, so does the parting of sets.
        numbers, n, parts = split_fused(cloud, sets, n_sets, line, pitch)
        pieces = cloud.pieces(numbers, n)
        line = Centreline.fit(registered, pieces.centroids[_is_disc(pieces, parts, line, reach)])
    return line


def _is_disc(pieces, parts, line, reach):
    """Which sets lie within `reach` mm of the line, lie flat across it, and are no crumbs: bool (n,).

    `parts`, numbers of sets that were parted, may have any shape: a bridge sticks out of them, and their waist is sign
    enough.
    """
    arc, distance = line.project(pieces.centroids)
    across = np.abs((pieces.normals * line.tangents(arc)).sum(axis=1)) > STEEPEST
    was_parted = np.isin(np.arange(1, len(pieces) + 1), parts)
    near = (distance < reach) & (was_parted | ((pieces.flatness < FLATTEST) & across))
    return near & (pieces.volumes >= CRUMB * np.median(pieces.volumes[near])) if near.any() else near


def _along(line, cloud, numbers, n, parts, pitch):
    """The discs that the line meets, numbered from the lowest: numbers (N,), and whether each was fused (n,)."""
    pieces = cloud.pieces(numbers, n)
    is_met = np.isin(np.arange(1, n + 1), line.met(cloud, numbers))
    kept = np.flatnonzero(is_met & _is_disc(pieces, parts, line, np.inf))
    arc, _ = line.project(pieces.centroids[kept])
    order = np.argsort(arc)
    kept, arc = kept[order], arc[order]
    # Sets that lie closer together than discs can are parts of one.
    disc = np.cumsum(np.r_[True, np.diff(arc) > TOGETHER * pitch][: len(arc)])
    table = np.zeros(n + 1, int)
    table[1 + kept] = disc
    was_fused = np.zeros(disc.max(initial=0), bool)
    was_fused[disc[np.isin(kept + 1, parts)] - 1] = True
    return table[numbers], was_fused


def _in_step(line, cloud, numbers, fused, reference):
    """Leaves out what lies at either end and out of step with the other discs.

    Returns the numbers (N,) and `fused` of what is left, its `Spacing`, and how many were left out.
    """
    arc, _ = line.project(cloud.pieces(numbers, len(fused)).centroids)
    low, high = 0, len(arc)
    spacing = count_steps(arc, reference.positions)
    while high - low > 2:
        strides = np.diff(spacing.steps)
        odd = np.abs(spacing.errors) / np.where(strides > 1, ODD_END_BEYOND, ODD_END)
        odd[strides == MOST_STEPS] = np.inf
        if max(odd[0], odd[-1]) <= 1:
            break
        low, high = (low, high - 1) if odd[-1] > 1 else (low + 1, high)
        spacing = count_steps(arc[low:high], reference.positions)
    numbers = np.where((numbers > low) & (numbers <= high), numbers - low, 0)
    return numbers, fused[low:high], spacing, len(arc) - (high - low)


def _votes(localiser, cloud, numbers, n):
    """The number that most voxels of each disc have in the localiser's label map: (n,), 0 without one."""
    votes = np.zeros(n, int)
    if localiser is None:
        return votes
    given = np.asarray(localiser)[tuple(cloud.indices.T)].astype(int)
    for disc in range(1, n + 1):
        votes[disc - 1] = np.bincount(given[numbers == disc]).argmax()
    return votes
