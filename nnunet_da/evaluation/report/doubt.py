"""Signs of doubt that need no reference: entropy, agreement, unusual volumes and empty predictions.

Per structure of a predicted case:

- ``entropy``: mean over the voxels predicted as the structure of the binary entropy −p log₂ p − (1 − p) log₂ (1 − p) of
  its probability p; in bits, 0 (certain) to 1. After Mehrtash et al., "Confidence Calibration and Predictive
  Uncertainty Estimation for Deep Medical Image Segmentation", IEEE TMI 39(12) (2020), who predict a segment's Dice
  with it.
- ``agreement``: mean Dice over all pairs of a model's folds, or, where no folds are given, of all models; 0 to 1. After
  Roy et al., "Bayesian QuickNAT", NeuroImage 195 (2019), who take it over Monte Carlo samples.
- ``volume_z``: modified z-score 0.6745 (x − median) / MAD of the logarithm x of the predicted volume, against the same
  model's predictions on the labelled domains. Beyond ±3.5 a value is an outlier (Iglewicz and Hoaglin, "How to Detect
  and Handle Outliers", 1993).
- ``empty``: nothing was predicted.
"""

import functools
import itertools
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunet_da.errors import UserError
from nnunet_da.evaluation.label_map import read_label_map, require_known_values, require_same_geometry
from nnunet_da.evaluation.membership import Structures
from nnunet_da.parallel import run_parallel

OUTLIER = 3.5
# With fewer volumes a median absolute deviation says too little.
MIN_VOLUMES = 5


@dataclass(frozen=True)
class PredictedCase:
    """One case and, by model, its predicted label map, those of single folds, and its file of probabilities.

    `chosen`: the structures its domain names, name → label values.
    """

    name: str
    domain: str
    chosen: dict[str, tuple[int, ...]]
    predictions: dict[str, Path]
    folds: dict[str, list[Path]] = field(default_factory=dict)
    probabilities: dict[str, Path] = field(default_factory=dict)


def indicators(cases, structures, labelled_domains, n_processes=None):
    """The signs of doubt of all `PredictedCase`s, as a DataFrame with a row per model, case and structure.

    Columns: model, domain, case, structure, ``size`` (mm³, of 2D label maps mm²), ``empty`` (bool), ``volume_z``,
    ``agreement``, ``entropy``; NaN where one cannot be had. `structures`: those of the dataset. `labelled_domains`:
    where they have fewer than `MIN_VOLUMES` volumes of a model and structure, its volumes in all domains are the
    comparison.
    Raises UserError where a file is unreadable, holds unknown values or does not lie on the grid of the others.
    """
    import pandas

    measured = run_parallel(functools.partial(measure, structures=structures), cases, n_processes, "Looking for doubt")
    table = pandas.DataFrame([row for rows in measured for row in rows])
    table["empty"] = table["size"] == 0
    table["volume_z"] = np.nan
    for _, group in table[~table["empty"]].groupby(["model", "structure"]):
        known = group[group["domain"].isin(labelled_domains)]
        compared = known if len(known) >= MIN_VOLUMES else group
        table.loc[group.index, "volume_z"] = robust_z(np.log(group["size"]), np.log(compared["size"]))
    return table


def measure(case, structures):
    """Size, agreement and entropy of one `PredictedCase`, as a list of dicts per model and structure."""
    known = structures.predictable
    maps, first = {}, None
    for path in dict.fromkeys([*case.predictions.values(), *itertools.chain.from_iterable(case.folds.values())]):
        label_map = read_label_map(path)
        first = first or (label_map, path)
        require_same_geometry(label_map, first[0], path, first[1])
        require_known_values(label_map, known, path)
        maps[path] = label_map.array
    voxel = float(np.prod(first[0].spacing))
    rows = []
    for model, path in case.predictions.items():
        compared = [maps[other] for other in case.folds.get(model) or case.predictions.values()]
        entropies = _entropies(case.probabilities[model], structures) if model in case.probabilities else {}
        for name, values in case.chosen.items():
            rows.append(
                {
                    "model": model,
                    "domain": case.domain,
                    "case": case.name,
                    "structure": name,
                    "size": voxel * int(np.isin(maps[path], values).sum()),
                    "agreement": mean_pairwise_dice([np.isin(array, values) for array in compared]),
                    "entropy": entropies.get(name, np.nan),
                }
            )
    return rows


def mean_pairwise_dice(masks):
    """Mean Dice over all pairs of boolean masks; pairs of empty masks are left out, NaN where no pair is left."""
    dice = []
    for one, other in itertools.combinations(masks, 2):
        total = one.sum() + other.sum()
        if total:
            dice.append(2 * (one & other).sum() / total)
    return float(np.mean(dice)) if dice else np.nan


def segment_entropy(probability, segment):
    """Mean binary entropy (bits, 0 to 1) of `probability` over the boolean mask `segment`; NaN where that is empty."""
    from scipy.special import entr

    p = probability[segment].astype(np.float64)
    return float(np.mean(entr(p) + entr(1 - p)) / np.log(2)) if p.size else np.nan


def robust_z(values, reference):
    """0.6745 (x − median) / MAD of `values` against `reference`; NaN where there are too few or MAD is 0."""
    reference = np.asarray(reference)
    if len(reference) < MIN_VOLUMES:
        return np.full(len(values), np.nan)
    median = np.median(reference)
    mad = np.median(np.abs(reference - median))
    return 0.6745 * (np.asarray(values) - median) / mad if mad else np.full(len(values), np.nan)


def _entropies(path, structures: Structures):
    """Structure → entropy of the probabilities that nnU-Net saved at `path`.

    Their array is (classes, z, y, x) in the frame of nnU-Net's reader, which need not be that of the label map: the
    segment is therefore taken from the probabilities themselves. With regions there is a channel per structure
    (sigmoid), otherwise one per label value, background first (softmax).
    """
    try:
        with np.load(path) as content:
            probabilities = content["probabilities"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a file of probabilities that nnU-Net saved ({_reason(error)})") from None
    has_regions = any(len(values) > 1 for values in structures.values.values())
    expected = len(structures.values) if has_regions else len(structures.predictable)
    if probabilities.ndim < 3 or len(probabilities) != expected:
        raise UserError(f"{path}: must have {expected} channels for these labels, not the shape {probabilities.shape}")
    if has_regions:
        channels = zip(structures.values, probabilities, strict=True)
        return {name: segment_entropy(channel, channel > 0.5) for name, channel in channels}
    winner = probabilities.argmax(axis=0)
    channel_of = {value: index for index, value in enumerate(structures.predictable)}
    return {
        name: segment_entropy(probabilities[channel_of[value]], winner == channel_of[value])
        for name, (value,) in structures.values.items()
    }


def _reason(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def rank_cases(table):
    """One row per model and case of `indicators`: those with empty structures first, then the most doubtful.

    Each sign is that of its worst structure: the largest ``entropy``, the smallest ``agreement``, the ``volume_z``
    farthest from 0; ``empty`` lists the structures with nothing predicted. ``doubt`` (0 to 1) is the mean, over the
    signs there are, of the share of the model's other cases that look less doubtful; it is 1 where a structure is
    empty, and NaN where there is no sign or no other case.
    """
    import pandas

    rows = []
    for (model, domain, case), group in table.groupby(["model", "domain", "case"], sort=False):
        distances = group["volume_z"].abs()
        rows.append(
            {
                "model": model,
                "domain": domain,
                "case": case,
                "entropy": group["entropy"].max(),
                "agreement": group["agreement"].min(),
                "volume_z": group["volume_z"][distances.idxmax()] if distances.notna().any() else np.nan,
                "empty": group["structure"][group["empty"]].tolist(),
            }
        )
    ranked = pandas.DataFrame(rows)
    signs = ranked[["model"]].assign(
        entropy=ranked["entropy"], agreement=-ranked["agreement"], volume_z=ranked["volume_z"].abs()
    )
    by_model = signs.groupby("model")
    shares = (by_model.rank() - 1) / (by_model.transform("count") - 1).where(lambda counts: counts > 0)
    has_empty = ranked["empty"].str.len() > 0
    ranked["doubt"] = shares.mean(axis=1).mask(has_empty, 1.0)
    order = ranked.assign(is_full=~has_empty, trust=-ranked["doubt"]).sort_values(["is_full", "trust"], kind="stable")
    return ranked.loc[order.index].reset_index(drop=True)
