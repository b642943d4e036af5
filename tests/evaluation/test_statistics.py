import itertools

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.errors import UserError
from nnunet_da.evaluation.statistics import (
    MEAN,
    MIN_PAIRS,
    bootstrap_interval,
    compare,
    holm,
    kolmogorov_smirnov,
    mean_intervals,
    slice_values,
    wilcoxon_p,
)

REFERENCE = np.array([0.71, 0.64, 0.80, 0.75, 0.66, 0.90, 0.58])
GAINS = np.array([0.02, 0.05, -0.01, 0.07, 0.11, 0.03, 0.13])


def rows(values, domain="s", structure="disc"):
    """Rows of model → values, one per case."""
    return pandas.DataFrame(
        {"model": model, "domain": domain, "case": f"c{number}", "structure": structure, "dsc": value}
        for model, series in values.items()
        for number, value in enumerate(series)
    )


def record(frame, **names):
    for column, name in names.items():
        frame = frame[frame[column] == name]
    (found,) = frame.to_dict("records")
    return found


# Wilcoxon


def enumerated_wilcoxon(differences):
    """Two-sided p over all 2ⁿ signs of the mean ranks, from the definition."""
    magnitudes = np.abs(differences)
    ranks = np.array([(magnitudes < m).sum() + ((magnitudes == m).sum() + 1) / 2 for m in magnitudes])
    observed = ranks[differences > 0].sum()
    sums = np.array([ranks @ signs for signs in itertools.product([0, 1], repeat=len(ranks))])
    return min(1, 2 * min((sums <= observed + 1e-9).mean(), (sums >= observed - 1e-9).mean()))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-6, 6).filter(bool), min_size=MIN_PAIRS, max_size=9))
def test_wilcoxon_is_exact_with_and_without_ties(differences):
    differences = np.array(differences) / 100
    assert wilcoxon_p(differences) == pytest.approx(enumerated_wilcoxon(differences), abs=1e-12)


def test_wilcoxon_closed_forms():
    # All of one sign: 2 / 2ⁿ. One rank 1 of the other sign: two sums are as extreme, 4 / 2ⁿ.
    assert wilcoxon_p(np.arange(1, 9) / 10) == pytest.approx(2 / 2**8)
    assert wilcoxon_p(np.array([-1, 2, 3, 4, 5, 6, 7]) / 10) == pytest.approx(4 / 2**7)


def test_wilcoxon_leaves_zeros_out_even_those_of_rounding():
    noisy_zero = 0.3 - 0.1 - 0.2
    assert noisy_zero != 0
    assert wilcoxon_p([*GAINS, 0.0, noisy_zero]) == wilcoxon_p(GAINS)


def test_differences_equal_but_for_rounding_are_ties():
    differences = np.array([0.8 - 0.7, 0.7 - 0.6, 0.6 - 0.5, -(0.4 - 0.2), 0.3, 0.5, 0.7])
    assert len(set(differences[:3])) > 1
    assert wilcoxon_p(differences) == pytest.approx(enumerated_wilcoxon(differences.round(6)), abs=1e-12)


@pytest.mark.parametrize("n", range(MIN_PAIRS))
def test_too_few_pairs_are_not_tested(n):
    assert 2 / 2**n > 0.05
    assert np.isnan(wilcoxon_p(np.arange(1, n + 1)))
    assert 2 / 2**MIN_PAIRS < 0.05


def test_no_differences_are_not_tested():
    assert np.isnan(wilcoxon_p(np.zeros(20)))


def test_wilcoxon_of_many_is_the_normal_approximation_corrected_for_ties():
    differences = np.random.default_rng(3).integers(-4, 9, size=80) / 10
    d = differences[differences != 0]
    magnitudes, counts = np.unique(np.abs(d).round(6), return_counts=True)
    rank_of = dict(zip(magnitudes, np.cumsum(counts) - (counts - 1) / 2, strict=True))
    ranks = np.array([rank_of[m] for m in np.abs(d).round(6)])
    n = len(d)
    variance = n * (n + 1) * (2 * n + 1) / 24 - (counts**3 - counts).sum() / 48
    z = (ranks[d > 0].sum() - n * (n + 1) / 4) / np.sqrt(variance)
    from math import erfc

    assert wilcoxon_p(differences) == pytest.approx(erfc(abs(z) / np.sqrt(2)), rel=1e-6)


# Holm


def test_holm_by_hand():
    # m = 4: 0.005 · 4, 0.011 · 3, 0.02 · 2, then 0.04 · 1.
    np.testing.assert_allclose(holm([0.02, 0.005, 0.04, 0.011]), [0.04, 0.02, 0.04, 0.033])


def test_holm_never_falls_and_stops_at_one():
    # 0.03 · 3 = 0.09, then 0.031 · 2 = 0.062 is lifted to 0.09, then 0.9.
    np.testing.assert_allclose(holm([0.03, 0.031, 0.9]), [0.09, 0.09, 0.9])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])


def test_holm_counts_only_what_was_tested():
    np.testing.assert_allclose(holm([0.02, np.nan, 0.03]), [0.04, np.nan, 0.04])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.2))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, alpha):
    m, rejected = len(p_values), set()
    for step, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] * (m - step) > alpha:
            break
        rejected.add(int(index))
    assert set(np.flatnonzero(holm(p_values) <= alpha)) == rejected


# Kolmogorov–Smirnov


def brute_force_ks(a, b):
    """D, and p as the share of all ways to deal the pooled values into two samples with a D as large."""

    def distance(x, y):
        grid = np.concatenate([x, y])
        return max(abs((x <= g).mean() - (y <= g).mean()) for g in grid)

    pooled, observed = np.concatenate([a, b]), distance(a, b)
    deals = list(itertools.combinations(range(len(pooled)), len(a)))
    larger = 0
    for deal in deals:
        mask = np.isin(np.arange(len(pooled)), deal)
        larger += distance(pooled[mask], pooled[~mask]) >= observed - 1e-12
    return observed, larger / len(deals)


@pytest.mark.parametrize(("n", "m", "seed"), [(4, 4, 0), (3, 6, 1), (5, 4, 2)])
def test_ks_by_brute_force(n, m, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n), rng.normal(0.8, size=m)
    assert kolmogorov_smirnov(a, b) == pytest.approx(brute_force_ks(a, b), abs=1e-12)


def test_ks_closed_form_and_what_is_undefined():
    # Apart from each other: D = 1, and 2 of the 20 ways to deal six values into threes have that.
    assert kolmogorov_smirnov([1, 2, np.nan, 3], [4, 5, 6, np.nan]) == pytest.approx((1, 2 / 20))
    assert np.isnan(kolmogorov_smirnov([np.nan], [1.0])).all()
    assert np.isnan(kolmogorov_smirnov([], [1.0])).all()


def test_ks_of_many_slices_is_kolmogorovs_series():
    rng = np.random.default_rng(0)
    statistic, p = kolmogorov_smirnov(rng.normal(size=6215), rng.normal(0.03, size=6215))
    root = np.sqrt(6215 / 2)
    terms = np.arange(1, 101)
    series = 2 * np.sum((-1.0) ** (terms - 1) * np.exp(-2 * (terms * root * statistic) ** 2))
    assert p == pytest.approx(series, rel=0.02)


# Bootstrap


def test_percentile_interval_is_that_of_all_resamples():
    values = np.array([0.1, 0.4, 0.2, 0.9])
    means = [np.mean(draw) for draw in itertools.product(values, repeat=4)]
    interval = bootstrap_interval(values, method="percentile", n_resamples=50_000)
    np.testing.assert_allclose(interval, np.quantile(means, [0.025, 0.975]), atol=0.03)


def independent_bca(values, confidence, seed):
    """Efron and Tibshirani, An Introduction to the Bootstrap, eq. 14.9 to 14.15, with resamples of its own."""
    from statistics import NormalDist

    normal, n = NormalDist(), len(values)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(n, size=(40_000, n))].mean(axis=1)
    bias = normal.inv_cdf((means < values.mean()).mean())
    jackknife = (values.sum() - values) / (n - 1)
    deviations = jackknife.mean() - jackknife
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    levels = []
    for level in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + normal.inv_cdf(level)
        levels.append(normal.cdf(bias + z / (1 - acceleration * z)))
    return np.quantile(means, levels)


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_bca_interval_by_its_formula(confidence):
    values = np.random.default_rng(5).exponential(size=30)
    low, high = bootstrap_interval(values, confidence, n_resamples=20_000)
    np.testing.assert_allclose((low, high), independent_bca(values, confidence, seed=9), atol=0.015)
    assert (low, high) != bootstrap_interval(values, confidence, "percentile", n_resamples=20_000)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_interval_of_many_is_that_of_the_normal_distribution(method):
    values = np.random.default_rng(1).normal(0.1, 0.05, size=60)
    half = 1.96 * values.std(ddof=1) / np.sqrt(60)
    np.testing.assert_allclose(
        bootstrap_interval(values, method=method), [values.mean() - half, values.mean() + half], atol=0.003
    )


def test_intervals_repeat_and_depend_on_the_seed():
    assert bootstrap_interval(GAINS) == bootstrap_interval(GAINS)
    assert bootstrap_interval(GAINS, n_resamples=99) != bootstrap_interval(GAINS, n_resamples=99, seed=1)


def test_intervals_at_the_edges():
    assert np.isnan(bootstrap_interval([0.1])).all()
    assert np.isnan(bootstrap_interval([])).all()
    assert bootstrap_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="undefined"):
        bootstrap_interval([0.1, np.nan])


# compare


def test_one_structure():
    frame = compare(rows({"unet": REFERENCE, "da": REFERENCE + GAINS}), "unet")
    found = record(frame, model="da")
    assert [found[key] for key in ("n_pairs", "n_left_out", "n_nonzero", "n_family")] == [7, 0, 7, 1]
    assert found["difference"] == pytest.approx(GAINS.mean())
    np.testing.assert_allclose((found["low"], found["high"]), bootstrap_interval(GAINS), atol=1e-9)
    assert found["p_wilcoxon"] == pytest.approx(enumerated_wilcoxon(GAINS), abs=1e-12)
    assert found["p_holm"] == found["p_wilcoxon"]
    assert np.isnan(found["p_ks"])


def test_pairs_are_matched_by_case_not_by_order():
    table = rows({"unet": REFERENCE, "da": REFERENCE + GAINS})
    shuffled = table.sample(frac=1, random_state=0)
    order = list(dict.fromkeys(shuffled["model"]))
    assert order
    first, second = (record(compare(frame, "unet"), model="da") for frame in (table, shuffled))
    assert first == pytest.approx(second, nan_ok=True)


def test_a_pair_with_an_undefined_value_is_left_out_and_counted():
    da = (REFERENCE + GAINS).copy()
    da[2] = np.nan
    found = record(compare(rows({"unet": REFERENCE, "da": da}), "unet"), model="da")
    assert (found["n_pairs"], found["n_left_out"]) == (6, 1)
    assert found["difference"] == pytest.approx(np.delete(GAINS, 2).mean())


def test_a_case_that_one_model_lacks_is_left_out_and_counted():
    table = rows({"unet": REFERENCE, "da": REFERENCE + GAINS}).iloc[:-1]
    found = record(compare(table, "unet"), model="da")
    assert (found["n_pairs"], found["n_left_out"]) == (6, 1)


def test_nothing_to_compare_and_no_difference():
    found = record(compare(rows({"unet": REFERENCE, "da": REFERENCE * np.nan}), "unet"), model="da")
    assert (found["n_pairs"], found["n_left_out"]) == (0, 7)
    assert np.isnan([found["difference"], found["low"], found["p_wilcoxon"], found["p_holm"]]).all()
    found = record(compare(rows({"unet": REFERENCE, "da": REFERENCE}), "unet"), model="da")
    assert (found["n_nonzero"], found["difference"], found["low"], found["high"]) == (0, 0, 0, 0)
    assert np.isnan(found["p_wilcoxon"])


def test_cases_and_not_structures_are_the_unit():
    # The same gain in five structures of seven cases is seven observations, not thirty-five.
    table = pandas.concat(
        rows({"unet": REFERENCE, "da": REFERENCE + GAINS}, structure=f"disc {number}") for number in range(5)
    )
    frame = compare(table, "unet")
    assert list(frame["structure"]) == [MEAN, *(f"disc {number}" for number in range(5))]
    mean = record(frame, structure=MEAN)
    assert mean["n_pairs"] == 7
    np.testing.assert_allclose((mean["low"], mean["high"]), bootstrap_interval(GAINS), atol=1e-9)
    assert mean["p_wilcoxon"] == pytest.approx(enumerated_wilcoxon(GAINS), abs=1e-12)


def test_mean_of_structures_compares_only_structures_that_both_have():
    # In case c0 the model lacks the hard structure: its difference there is that of the easy one alone.
    easy = rows({"unet": [0.8, 0.8], "da": [0.9, 0.9]}, structure="easy")
    hard = rows({"unet": [0.2, 0.2], "da": [np.nan, 0.5]}, structure="hard")
    mean = record(compare(pandas.concat([easy, hard]), "unet"), structure=MEAN)
    assert mean["difference"] == pytest.approx((0.1 + (0.1 + 0.3) / 2) / 2)
    assert (mean["n_pairs"], mean["n_left_out"]) == (2, 1)


def test_the_family_is_every_test_of_the_call():
    source = rows({"unet": REFERENCE, "a": REFERENCE + GAINS, "b": REFERENCE - GAINS / 2})
    target = rows({"unet": REFERENCE, "a": REFERENCE + np.abs(GAINS), "b": REFERENCE}, domain="t")
    frame = compare(pandas.concat([source, target]), "unet")
    assert len(frame) == 4
    # Model b has no differences in the target, so there are three tests.
    assert set(frame["n_family"]) == {3}
    np.testing.assert_allclose(frame["p_holm"], holm(frame["p_wilcoxon"]))
    best = record(frame, domain="t", model="a")
    assert best["p_holm"] == pytest.approx(min(1, 3 * 2 / 2**7))


def slices_of(values, structure="disc", case="c0"):
    return pandas.DataFrame(
        {"model": model, "domain": "s", "case": case, "structure": structure, "slice": number, "dsc": value}
        for model, series in values.items()
        for number, value in enumerate(series)
    )


def test_slices_are_compared_by_structure_and_as_mean():
    table = pandas.concat(rows({"unet": REFERENCE, "da": REFERENCE + GAINS}, structure=name) for name in ("x", "y"))
    x = slices_of({"unet": [0.1, 0.2, 0.3], "da": [0.4, 0.5, np.nan]}, "x")
    y = slices_of({"unet": [0.3, 0.2, np.nan], "da": [0.2, 0.5, np.nan]}, "y")
    slices = pandas.concat([x, y])
    frame = compare(table, "unet", slices=slices)
    found = record(frame, structure="x")
    assert (found["n_slices"], found["n_slices_reference"], found["ks"]) == (2, 3, 1)
    assert found["p_ks"] == pytest.approx(brute_force_ks(np.array([0.4, 0.5]), np.array([0.1, 0.2, 0.3]))[1])
    # Means: unet 0.2, 0.2, 0.3; da 0.3, 0.5, undefined.
    mean = record(frame, structure=MEAN)
    assert (mean["n_slices"], mean["n_slices_reference"]) == (2, 3)
    assert mean["ks"] == pytest.approx(2 / 3)


def test_a_slice_counts_once_however_many_structures_it_has():
    slices = pandas.concat([slices_of({"m": [0.1, 0.2]}, "x"), slices_of({"m": [0.3, np.nan]}, "y")])
    assert slice_values(slices, "dsc").tolist() == pytest.approx([0.2, 0.2])
    assert slice_values(slices, "dsc", "y").dropna().tolist() == [0.3]


def test_slices_of_another_metric_are_no_test():
    table = rows({"unet": REFERENCE, "da": REFERENCE + GAINS}).assign(nsd=REFERENCE.tolist() * 2)
    found = record(compare(table, "unet", "nsd", slices_of({"unet": [0.1], "da": [0.2]})), model="da")
    assert np.isnan(found["p_ks"])
    assert found["n_slices"] == 0


def test_one_model_has_nothing_to_be_compared_with():
    frame = compare(rows({"unet": REFERENCE}), "unet")
    assert frame.empty
    assert "p_holm" in frame


def test_what_the_user_must_mend():
    table = rows({"unet": REFERENCE, "da": REFERENCE})
    with pytest.raises(UserError, match="no model 'unett' among unet, da; did you mean 'unet'"):
        compare(table, "unett")
    with pytest.raises(UserError, match="no metric 'dice'"):
        compare(table, "unet", "dice")
    with pytest.raises(UserError, match="structure 'disc' of case 'c0' twice"):
        compare(pandas.concat([table, table]), "unet")


def test_intervals_of_means():
    values = (REFERENCE + GAINS).copy()
    values[1] = np.nan
    found = record(mean_intervals(rows({"da": values})), model="da")
    kept = np.delete(REFERENCE + GAINS, 1)
    assert (found["n"], found["n_left_out"], found["mean"]) == (6, 1, pytest.approx(kept.mean()))
    assert (found["low"], found["high"]) == pytest.approx(bootstrap_interval(kept))
    several = pandas.concat(rows({"m": REFERENCE}, structure=name) for name in ("x", "y"))
    mean = record(mean_intervals(several), structure=MEAN)
    assert (mean["n"], mean["low"]) == (7, pytest.approx(bootstrap_interval(REFERENCE)[0]))
