"""What the scans of each training domain are like, in a few numbers, and whether a new scan is like any of them.

A scan has a geometry (voxel size and field of view along R, A and S, in mm), an orientation, and per channel the
quantiles of its standardised intensities. A domain has the medians of its scans, and how far one of them lies at most
from the others: the domain's own spread. A scan lies outside a domain where

    geometry      max over the six sizes of |ln(size / median)|             > max(ln 1.25, 1.5 · spread), or
    intensities   max over channels of mean over q of |Q(q) − median Q(q)|  > max(0.15,    1.5 · spread),

or where it is stored in an orientation that no scan of the domain has, if the model reads voxels as they are stored.
`spread` is the largest distance of one of the domain's scans from the medians of its others (leave one out). The
distance of intensities is the Wasserstein-1 distance of two histograms, in standard deviations.
"""

from dataclasses import dataclass

import numpy as np

from nnunet_da.errors import UserError

PROBABILITIES = np.arange(0.025, 1, 0.05)
FACTOR = 1.5
# Scans that differ by less are alike, however alike a domain's own scans are: it may have a single one.
LEAST_GEOMETRY = np.log(1.25)
LEAST_INTENSITIES = 0.15
# What an orientation that the model has never read counts for.
_WRONG_ORIENTATION = 2.0

FORMAT = 1
# More voxels than this do not move the quantiles.
_N_VOXELS = 200_000
_WORLD_AXES = ("left-right", "front-back", "head-foot")
_SIZES = tuple(f"{size} {axis}" for size in ("voxel size", "field of view") for axis in _WORLD_AXES)


@dataclass(frozen=True)
class Scale:
    """How a channel is standardised: by `mean_std` of the plan (CT), or by those of the scan itself (None).

    `masked`: over the voxels that are not 0, as nnU-Net does where scans were cropped a lot.
    """

    mean_std: tuple[float, float] | None = None
    masked: bool = False


@dataclass(frozen=True)
class Look:
    """What a scan is like: `sizes` (6,) in mm, voxel size and field of view along R, A, S; `orientation` such as RAS;
    `quantiles` (channels, len(PROBABILITIES)) of standardised intensity."""

    sizes: np.ndarray
    orientation: str
    quantiles: np.ndarray


@dataclass(frozen=True)
class Profile:
    """What the scans of one domain are like: medians over them as in `Look`, and the spreads of the module's rule."""

    name: str
    n_scans: int
    sizes: np.ndarray
    quantiles: np.ndarray
    orientations: tuple[str, ...]
    geometry_spread: float
    intensity_spread: float


@dataclass(frozen=True)
class Comparison:
    """The domain that a scan is most like, how far out of it (1: at its border), and in what it lies outside.

    `deviation` is the larger of the distances of geometry and intensities over what is allowed, `total` their sum.
    """

    domain: str
    deviation: float
    total: float
    reasons: tuple[str, ...]


def look(channels, affine, scales) -> Look:
    """Describes a scan: `channels`, arrays (X, Y, Z) of one shape, on the grid of `affine`; a `Scale` for each."""
    from nibabel.orientations import aff2axcodes, io_orientation

    world_axis = io_orientation(affine)[:, 0].astype(int)
    spacing = np.empty(3)
    spacing[world_axis] = np.linalg.norm(affine[:3, :3], axis=0)
    shape = np.empty(3)
    shape[world_axis] = channels[0].shape
    box = _bounding_box(np.logical_or.reduce([channel != 0 for channel in channels]))
    quantiles = [_quantiles(channel[box], scale) for channel, scale in zip(channels, scales, strict=True)]
    return Look(np.concatenate([spacing, spacing * shape]), "".join(aff2axcodes(affine)), np.stack(quantiles))


def profile(name, looks) -> Profile:
    """The profile of the domain `name` from those of its scans (at least one)."""
    sizes = np.stack([look.sizes for look in looks])
    quantiles = np.stack([look.quantiles for look in looks])
    return Profile(
        name,
        len(looks),
        np.median(sizes, axis=0),
        np.median(quantiles, axis=0),
        tuple(sorted({look.orientation for look in looks})),
        _spread(sizes, _geometry_distance),
        _spread(quantiles, _intensity_distance),
    )


def compare(scan: Look, profiles, reorients: bool) -> Comparison:
    """The domain of `profiles` that `scan` is most like, by the rule of this module.

    `reorients`: the model brings every scan to one orientation, so that the stored one does not matter.
    """
    comparisons = [_compare(scan, domain, reorients) for domain in profiles]
    return min(comparisons, key=lambda comparison: (bool(comparison.reasons), comparison.total))


def _compare(scan, domain, reorients):
    geometry = _geometry_distance(scan.sizes, domain.sizes)
    intensities = _intensity_distance(scan.quantiles, domain.quantiles)
    allowed_geometry = max(LEAST_GEOMETRY, FACTOR * domain.geometry_spread)
    allowed_intensities = max(LEAST_INTENSITIES, FACTOR * domain.intensity_spread)
    deviations = [geometry / allowed_geometry, intensities / allowed_intensities]
    reasons = []
    if not reorients and scan.orientation not in domain.orientations:
        deviations.append(_WRONG_ORIENTATION)
        reasons.append(f"stored as {scan.orientation}, not {' or '.join(domain.orientations)}")
    if geometry > allowed_geometry:
        index = int(np.argmax(np.abs(np.log(scan.sizes / domain.sizes))))
        reasons.append(f"{_SIZES[index]} {scan.sizes[index]:.3g} mm, there {domain.sizes[index]:.3g} mm")
    if intensities > allowed_intensities:
        reasons.append(f"intensities {intensities:.2f} SD away, at most {allowed_intensities:.2f} there")
    return Comparison(domain.name, max(deviations), sum(deviations), tuple(reasons))


def to_json(profiles) -> dict:
    """`profiles` as the content of a JSON file, which names no case."""
    return {
        "format": FORMAT,
        "domains": [
            {
                "name": domain.name,
                "n_scans": domain.n_scans,
                "sizes_mm": domain.sizes.round(4).tolist(),
                "quantiles": domain.quantiles.round(4).tolist(),
                "orientations": list(domain.orientations),
                "geometry_spread": round(domain.geometry_spread, 4),
                "intensity_spread": round(domain.intensity_spread, 4),
            }
            for domain in profiles
        ],
    }


def from_json(content, n_channels, source) -> list[Profile]:
    """The profiles in a JSON file's content. Raises UserError, naming `source`, where it is not such a file."""
    try:
        if content["format"] != FORMAT:
            raise UserError(f"{source}: was written by another version; remove it to have it made anew")
        profiles = [
            Profile(
                str(block["name"]),
                int(block["n_scans"]),
                np.array(block["sizes_mm"], float),
                np.array(block["quantiles"], float),
                tuple(map(str, block["orientations"])),
                float(block["geometry_spread"]),
                float(block["intensity_spread"]),
            )
            for block in content["domains"]
        ]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{source}: not a file of domain profiles; remove it to have it made anew") from None
    shape = (n_channels, len(PROBABILITIES))
    if not profiles or any(one.quantiles.shape != shape or one.sizes.shape != (6,) for one in profiles):
        raise UserError(f"{source}: does not fit this model of {n_channels} channel(s); remove it to have it made anew")
    return profiles


def _bounding_box(mask):
    """Slices around what is true in `mask` (X, Y, Z); all of it where nothing is."""
    box = []
    for axis in range(mask.ndim):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(found[0], found[-1] + 1) if found.size else slice(None))
    return tuple(box)


def _quantiles(voxels, scale):
    values = voxels[voxels != 0] if scale.masked and voxels.any() else voxels.ravel()
    if values.size > _N_VOXELS:
        values = np.random.default_rng(0).choice(values, _N_VOXELS)
    values = values.astype(np.float64)
    mean, std = scale.mean_std or (values.mean(), values.std())
    return (np.quantile(values, PROBABILITIES) - mean) / max(std, 1e-8)


def _geometry_distance(sizes, other):
    return float(np.abs(np.log(sizes / other)).max())


def _intensity_distance(quantiles, other):
    return float(np.abs(quantiles - other).mean(axis=-1).max())


def _spread(values, distance):
    """The largest distance of one of `values` (n, …) from the median of the others; 0 for a single one."""
    indices = np.arange(len(values))
    if len(values) == 1:
        return 0.0
    return max(distance(values[index], np.median(values[indices != index], axis=0)) for index in indices)
