"""What may be said about the numbers: means, intervals and tests of models on the same cases.

A case (scan) is the unit throughout. Where there are several structures, each case's mean over them is taken first,
under the name `MEAN`: structures of one scan stand or fall together, and counting each as a sample of its own would
make intervals too short and p-values too small. Every random draw has a fixed seed of its own, so that no number
depends on what was computed before it.

Values that are undefined (NaN) are never replaced. They are left out, in pairs where pairs are compared, and counted.
"""

import numpy as np

from nnunet_da.errors import UserError, nearest
from nnunet_da.evaluation.metrics import METRICS

MEAN = "mean of structures"
ALPHA = 0.05

# The smallest two-sided p-value of n pairs is 2 / 2ⁿ: 0.0625 with five, 0.03125 with six.
MIN_PAIRS = 6
# Up to here the exact null distribution is computed: by counting where ranks are whole, by enumeration where they tie.
MAX_EXACT, MAX_ENUMERATED = 50, 13
# Numbers are rounded to this many decimals where ties matter: 0.8 − 0.7 and 0.7 − 0.6 are not one float.
DECIMALS = 10

_KEYS = ["model", "domain", "case", "structure"]


def by_structure(rows):
    """(name, rows) of every structure, in order; before them all rows as `MEAN` where there are several."""
    structures = list(dict.fromkeys(rows["structure"]))
    blocks = [(MEAN, rows)] if len(structures) > 1 else []
    return blocks + [(name, rows[rows["structure"] == name]) for name in structures]


def summarise(rows):
    """Mean, standard deviation and counts of the rows of `cases.evaluate_folders`.

    Returns a DataFrame with a row per structure, domain and model: ``n_cases``, ``n_values`` (cases × structures),
    ``missed``, ``false`` (counts of structures) and, per metric that `rows` has, ``_mean``, ``_std`` (ddof = 1; NaN for
    one case) and ``_n``, the number of values that are not NaN and enter the mean. Where there are several structures,
    rows named `MEAN` come first: each case's mean over the structures for which it has a value, then mean and standard
    deviation over cases. Domains, models and structures keep their order of appearance.
    """
    import pandas

    keys = [metric.key for metric in METRICS if metric.key in rows]
    return pandas.DataFrame(
        {"domain": domain, "model": model, "structure": structure, **_statistics(group, keys)}
        for structure, block in by_structure(rows)
        for (domain, model), group in block.groupby(["domain", "model"], sort=False)
    )


def compare(
    rows,
    reference_model,
    metric="dsc",
    slices=None,
    *,
    confidence=0.95,
    method="bca",
    n_resamples=9999,
    seed=0,
):
    """Every other model against `reference_model` on the same cases, in one metric.

    Args:
        rows: DataFrame of `cases.evaluate_folders`.
        reference_model: the model that the others are compared with.
        metric: a column of `rows`.
        slices: DataFrame with columns model, domain, case, structure, slice and `metric`, for the Kolmogorov–Smirnov
            test; None, or one without `metric`, for none.
        confidence, method, n_resamples, seed: of `bootstrap_interval`.

    Returns a DataFrame with a row per structure (`MEAN` first where there are several), domain and other model:

    - ``metric``, ``structure``, ``domain``, ``model``, ``reference``;
    - ``n_pairs``: cases in which both models have a value; of `MEAN`, in which both have one in at least one structure;
    - ``n_left_out``: pairs (case × structure) with an undefined or absent value;
    - ``n_nonzero``: cases whose difference is not 0, which is what the Wilcoxon test rests on;
    - ``difference``, ``low``, ``high``, ``confidence``: mean of model − reference over cases, and its bootstrap
      interval. Of `MEAN`, a case's difference is the mean over the structures in which both models have a value;
    - ``p_wilcoxon``: see `wilcoxon_p`; NaN where ``n_nonzero`` < `MIN_PAIRS`;
    - ``p_holm``, ``n_family``: the same adjusted over the family, and the size of the family. The family is all tests
      of this call: every other model in every domain, of every structure and of `MEAN`. Tests that could not be made
      (NaN) are no part of it;
    - ``ks``, ``p_ks``, ``n_slices``, ``n_slices_reference``: see `kolmogorov_smirnov`, over all slices of the model
      against all of the reference, not adjusted. Of `MEAN`, a slice's value is its mean over structures.

    Raises UserError where the model or metric is not in `rows`, or a model has two rows for one structure of a case.
    """
    import pandas

    _require_comparable(rows, reference_model, metric)
    if slices is not None and metric not in slices:
        slices = None
    bootstrap = {"confidence": confidence, "method": method, "n_resamples": n_resamples, "seed": seed}
    records = []
    for structure, block in by_structure(rows):
        for domain, group in block.groupby("domain", sort=False):
            values = group.pivot(index=["case", "structure"], columns="model", values=metric)
            for model in dict.fromkeys(group["model"]):
                if model == reference_model or reference_model not in values:
                    continue
                names = {"structure": structure, "domain": domain, "model": model, "reference": reference_model}
                pairs = values[model] - values[reference_model]
                tests = _paired(pairs, bootstrap) | _slice_test(slices, metric, **names)
                records.append({"metric": metric, **names, **tests})
    columns = [
        *("metric", "structure", "domain", "model", "reference", "n_pairs", "n_left_out", "n_nonzero"),
        *("difference", "low", "high", "confidence", "p_wilcoxon", "p_holm", "n_family", "ks", "p_ks", "n_slices"),
        "n_slices_reference",
    ]
    frame = pandas.DataFrame(records, columns=columns)
    frame["p_holm"] = holm(frame["p_wilcoxon"].to_numpy(dtype=float))
    frame["n_family"] = int(frame["p_wilcoxon"].notna().sum())
    return frame


def mean_intervals(rows, metric="dsc", *, confidence=0.95, method="bca", n_resamples=9999, seed=0):
    """The mean of each model over cases with its bootstrap interval, as a DataFrame.

    A row per structure (`MEAN` first where there are several), domain and model: ``metric``, ``structure``, ``domain``,
    ``model``, ``n`` (cases with a value), ``n_left_out`` (undefined values), ``mean``, ``low``, ``high``,
    ``confidence``. Intervals of two models may overlap where their paired difference is beyond doubt: to compare models
    use `compare`.
    Raises UserError where `rows` has no column `metric`.
    """
    import pandas

    _require_metric(rows, metric)
    records = []
    for structure, block in by_structure(rows):
        for (domain, model), group in block.groupby(["domain", "model"], sort=False):
            values = group.groupby("case")[metric].mean().dropna().to_numpy()
            low, high = bootstrap_interval(values, confidence, method, n_resamples=n_resamples, seed=seed)
            records.append(
                {
                    "metric": metric,
                    "structure": structure,
                    "domain": domain,
                    "model": model,
                    "n": len(values),
                    "n_left_out": int(group[metric].isna().sum()),
                    "mean": values.mean() if len(values) else np.nan,
                    "low": low,
                    "high": high,
                    "confidence": confidence,
                }
            )
    return pandas.DataFrame(records)


def bootstrap_interval(values, confidence=0.95, method="bca", *, n_resamples=9999, seed=0):
    """Bootstrap interval (low, high) of the mean of `values`, one number per case; cases are drawn with replacement.

    `method`: ``"bca"``, bias-corrected and accelerated (Efron, JASA 82:171, 1987), or ``"percentile"``. (NaN, NaN) for
    fewer than two values; values that are all equal give an interval of no width. Few cases make it too short: below
    about ten it is an indication. Raises ValueError where a value is NaN, which is for the caller to leave out.
    """
    from scipy.stats import bootstrap

    values = np.asarray(values, dtype=float)
    if np.isnan(values).any():
        raise ValueError("bootstrap of undefined values; leave them out and count them")
    if len(values) < 2:
        return np.nan, np.nan
    if np.ptp(values) < 10.0**-DECIMALS:
        return float(values.mean()), float(values.mean())
    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=n_resamples,
        batch=max(1, 2_000_000 // len(values)),  # so that memory does not grow with the number of cases
        confidence_level=confidence,
        method={"bca": "BCa", "percentile": "percentile"}[method],
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def wilcoxon_p(differences):
    """Two-sided p-value of Wilcoxon's signed-rank test of paired differences, one per case, without NaN.

    Zeros are left out, as Wilcoxon did (Biometrics Bulletin 1:80, 1945); ties have their mean rank. The distribution
    under the null hypothesis is exact up to `MAX_EXACT` differences without ties and up to `MAX_ENUMERATED` with them,
    and else the normal approximation, corrected for ties. NaN where fewer than `MIN_PAIRS` differences are left, which
    could not reach 0.05 whatever they are.
    """
    from scipy.stats import PermutationMethod, wilcoxon

    differences = np.asarray(differences, dtype=float).round(DECIMALS)
    differences = differences[differences != 0]
    n = len(differences)
    if n < MIN_PAIRS:
        return np.nan
    has_ties = len(np.unique(np.abs(differences))) < n
    if has_ties and n <= MAX_ENUMERATED:
        how = PermutationMethod(n_resamples=2**MAX_ENUMERATED)  # enough for all signs, so nothing is drawn
    else:
        how = "exact" if not has_ties and n <= MAX_EXACT else "asymptotic"
    return float(wilcoxon(differences, method=how).pvalue)


def holm(p_values):
    """Holm's step-down adjustment (Scand. J. Statist. 6:65, 1979) of a family of p-values; NaN stays and is no member.

    With p₍₁₎ ≤ … ≤ p₍ₘ₎: p'₍ᵢ₎ = min(1, max over j ≤ i of (m − j + 1) p₍ⱼ₎).
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(p_values.shape, np.nan)
    members = np.flatnonzero(~np.isnan(p_values))
    order = members[np.argsort(p_values[members], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return adjusted


def kolmogorov_smirnov(values, others):
    """(D, p) of the two-sample Kolmogorov–Smirnov test, two-sided: D = max over x of |F(x) − G(x)|.

    NaN is left out of either sample; (NaN, NaN) where nothing is left. p is exact up to 10 000 values per sample (with
    ties an upper bound), beyond that asymptotic. The test takes all values as independent: slices of one scan are not,
    so that p comes out too small. It takes no notice of both models having seen the same slices.
    """
    from scipy.stats import ks_2samp

    samples = [np.asarray(sample, dtype=float) for sample in (values, others)]
    samples = [sample[~np.isnan(sample)].round(DECIMALS) for sample in samples]
    if not all(sample.size for sample in samples):
        return np.nan, np.nan
    result = ks_2samp(*samples)
    return float(result.statistic), float(result.pvalue)


def slice_values(slices, metric, structure=MEAN):
    """`metric` by (domain, case, slice), a pandas Series; of `MEAN` a slice's mean over structures with a value."""
    block = slices if structure == MEAN else slices[slices["structure"] == structure]
    return block.groupby(["domain", "case", "slice"], sort=False)[metric].mean()


def _statistics(group, keys):
    cases = group.groupby("case", sort=False)[keys].mean()
    means, deviations, counts = cases.mean(), cases.std(ddof=1), group[keys].count()
    statistics = {"n_cases": len(cases), "n_values": len(group)}
    statistics |= {flag: int(group[flag].sum()) for flag in ("missed", "false")}
    for key in keys:
        statistics |= {f"{key}_mean": means[key], f"{key}_std": deviations[key], f"{key}_n": int(counts[key])}
    return statistics


def _paired(pairs, bootstrap):
    """Numbers of one row of `compare`; `pairs`: differences by (case, structure), a pandas Series with NaN."""
    differences = pairs.dropna().groupby("case").mean().to_numpy().round(DECIMALS)
    low, high = bootstrap_interval(differences, **bootstrap)
    return {
        "n_pairs": len(differences),
        "n_left_out": int(pairs.isna().sum()),
        "n_nonzero": int(np.count_nonzero(differences)),
        "difference": differences.mean() if len(differences) else np.nan,
        "low": low,
        "high": high,
        "confidence": bootstrap["confidence"],
        "p_wilcoxon": wilcoxon_p(differences),
    }


def _slice_test(slices, metric, structure, domain, model, reference):
    if slices is None:
        return {"ks": np.nan, "p_ks": np.nan, "n_slices": 0, "n_slices_reference": 0}
    block = slices[slices["domain"] == domain]
    samples = [slice_values(block[block["model"] == name], metric, structure).dropna() for name in (model, reference)]
    statistic, p = kolmogorov_smirnov(*samples)
    return {"ks": statistic, "p_ks": p, "n_slices": len(samples[0]), "n_slices_reference": len(samples[1])}


def _require_metric(rows, metric):
    if metric not in rows:
        raise UserError(f"no metric '{metric}' in the rows{nearest(metric, rows.columns)}")


def _require_comparable(rows, reference_model, metric):
    _require_metric(rows, metric)
    models = list(dict.fromkeys(rows["model"]))
    if reference_model not in models:
        raise UserError(f"no model '{reference_model}' among {', '.join(models)}{nearest(reference_model, models)}")
    twice = rows[rows.duplicated(_KEYS)]
    if len(twice):
        first = twice.iloc[0]
        raise UserError(
            f"model '{first['model']}' has structure '{first['structure']}' of case '{first['case']}' twice"
        )
