import itertools
import math

import numpy as np
import pandas as pd
import pytest
from ctxrnn.analysis._bootstrap import resampled
from scipy import stats

from ctxrnn.analysis import (
    adjusted_difference,
    bootstrap_interval,
    mean_interval,
    paired,
    paired_difference,
    sign_flip_p,
    synergy,
)


def within_binomial_error(hits, repeats, p, errors=5):
    return abs(hits / repeats - p) < errors * np.sqrt(p * (1 - p) / repeats)


def networks(values, orders=5, seeds=2, column="area"):
    """One row per variant, order and seed; values: variant -> function of (order, seed)."""
    return pd.DataFrame(
        [
            {"variant": variant, "order": order, "seed": seed, column: value(order, seed)}
            for variant, value in values.items()
            for order in range(orders)
            for seed in range(seeds)
        ]
    )


def test_interval_of_three_values_by_hand():
    # s = 1, n = 3; with 2 degrees of freedom t_p = (2 p - 1) sqrt(2 / (1 - (2 p - 1)^2)).
    interval = mean_interval([1.0, 2.0, 3.0])
    reach = 0.95 * np.sqrt(2 / (1 - 0.95**2)) / np.sqrt(3)
    assert interval.mean == pytest.approx(2.0)
    assert interval.low == pytest.approx(2.0 - reach, rel=1e-12)
    assert interval.high == pytest.approx(2.0 + reach, rel=1e-12)
    assert interval.count == 3


@pytest.mark.parametrize("count", [2, 3, 5])
def test_interval_covers_the_mean_as_often_as_it_says(count):
    repeats = 4000
    values = np.random.default_rng(0).normal(3.0, 2.0, (repeats, count))
    covered = 0
    for row in values:
        interval = mean_interval(row)
        covered += interval.low <= 3.0 <= interval.high
    assert within_binomial_error(covered, repeats, 0.95)


def test_one_network_has_no_interval():
    for interval in (mean_interval([0.5]), bootstrap_interval([0.5])):
        assert interval.mean == 0.5
        assert np.isnan(interval.low)
        assert np.isnan(interval.high)
        assert str(interval) == "0.500 (n = 1)"


@pytest.mark.parametrize("interval", [mean_interval, bootstrap_interval])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "one number per network"),
        ([[1.0, 2.0]], "one number per network"),
        ([1.0, float("nan")], "must be finite"),
    ],
)
def test_bad_values_are_refused(interval, values, message):
    with pytest.raises(ValueError, match=message):
        interval(values)


@pytest.mark.parametrize("interval", [mean_interval, bootstrap_interval])
def test_bad_level_is_refused(interval):
    with pytest.raises(ValueError, match="level must lie between"):
        interval([1.0, 2.0], level=95)


def enumerated(values, statistic):
    """All n^n resamples of a statistic, sorted."""
    return np.sort([statistic(row) for row in itertools.product(values, repeat=len(values))])


def between_neighbours(found, ordered, share, resamples):
    """Whether a simulated quantile lies between exact ones five standard errors apart."""
    reach = 5 * np.sqrt(share * (1 - share) / resamples) + 1 / resamples
    low, high = np.quantile(ordered, np.clip([share - reach, share + reach], 0, 1), method="lower")
    return low <= found <= high


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_bootstrap_ends_are_the_widened_quantiles_of_all_resamples(statistic):
    values = np.array([0.1, 0.35, 0.4, 0.8, 1.7, 1.9])
    tail = stats.norm.cdf(-np.sqrt(6 / 5) * stats.t.ppf(0.9, 5))
    assert 0.05 < tail < 0.1
    exact = enumerated(values, statistic)
    interval = bootstrap_interval(values, statistic=statistic, level=0.8, resamples=40_000, seed=3)
    assert interval.mean == pytest.approx(statistic(values))
    assert between_neighbours(interval.low, exact, tail, 40_000)
    assert between_neighbours(interval.high, exact, 1 - tail, 40_000)
    # The unwidened tail is told apart, or the test would show nothing.
    assert not between_neighbours(interval.low, exact, 0.15, 40_000)


@pytest.mark.parametrize(
    ("count", "normal", "skewed"), [(5, 0.92, 0.86), (10, 0.95, 0.90), (30, 0.95, 0.93)]
)
def test_bootstrap_reaches_the_coverage_that_its_description_states(count, normal, skewed):
    generator = np.random.default_rng(count)
    repeats = 600
    for draw, centre, stated in (
        (generator.standard_normal, 0.0, normal),
        (generator.standard_exponential, 1.0, skewed),
    ):
        hits = 0
        for seed, row in enumerate(draw((repeats, count))):
            interval = bootstrap_interval(row, resamples=2000, seed=seed)
            hits += interval.low <= centre <= interval.high
        # Stated to two digits: 0.005 for rounding.
        error = np.sqrt(stated * (1 - stated) / repeats)
        assert abs(hits / repeats - stated) < 4 * error + 0.005


def test_whole_groups_are_drawn_when_there_are_groups():
    # Without spread within groups the resampled mean is that of the drawn groups alone, so that
    # three members each or one make the same distribution.
    means = np.array([0.0, 1.0, 2.5, 4.0, 7.0])
    values, groups = np.repeat(means, 3), np.repeat(list("abcde"), 3)
    tail = stats.norm.cdf(-np.sqrt(5 / 4) * stats.t.ppf(0.9, 4))
    exact = enumerated(means, np.mean)
    interval = bootstrap_interval(values, groups=groups, level=0.8, resamples=20_000)
    assert between_neighbours(interval.low, exact, tail, 20_000)
    assert between_neighbours(interval.high, exact, 1 - tail, 20_000)
    assert interval.count == 15
    apart = bootstrap_interval(values, level=0.8, resamples=20_000)
    assert apart.high - apart.low < 0.8 * (interval.high - interval.low)


def test_members_are_drawn_within_their_group():
    # Both groups have the mean 0: all spread comes from the members. sum over 2 groups of 2 draws
    # from (-1, 1) is -4, ..., 4, so that the mean takes the five values -1, -0.5, ..., 1.
    seen = set()

    def watched(values, axis):
        means = values.mean(axis=axis)
        seen.update(np.round(means, 9).tolist())
        return means

    bootstrap_interval([-1, 1, -1, 1], statistic=watched, groups=[0, 0, 1, 1], resamples=500)
    assert seen == {-1.0, -0.5, 0.0, 0.5, 1.0}


def test_unequal_groups_keep_their_members_and_sizes():
    lengths = set()

    def watched(values, axis):
        lengths.add(values.shape[axis])
        return values.mean(axis=axis)

    groups = ["a", "b", "b", "b"]
    interval = bootstrap_interval([1.0, 5, 5, 5], statistic=watched, groups=groups, resamples=400)
    assert lengths == {2, 4, 6}
    assert interval.mean == 4.0
    assert (interval.low, interval.high) == (1.0, 5.0)


def test_bootstrap_depends_on_its_seed_alone():
    values = np.random.default_rng(0).normal(size=12)
    first = bootstrap_interval(values, seed=4, resamples=500)
    np.random.default_rng(1).normal(size=3)
    assert bootstrap_interval(values, seed=4, resamples=500) == first
    assert bootstrap_interval(values, seed=5, resamples=500) != first


def test_a_statistic_must_work_along_an_axis():
    with pytest.raises(TypeError, match="axis=-1"):
        bootstrap_interval([1.0, 2.0], statistic=lambda values: values.mean())
    with pytest.raises(ValueError, match="into"):
        bootstrap_interval([1.0, 2.0], statistic=lambda values, axis: values)
    with pytest.raises(ValueError, match="groups must name"):
        bootstrap_interval([1.0, 2.0], groups=["a"])
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        bootstrap_interval([1.0, 2.0], resamples=0)


def test_sign_flips_by_hand():
    # |+-1 +-2 +-4| >= 7 in 2 of 8 cases, >= 5 in 4.
    assert sign_flip_p([1.0, 2.0, 4.0]) == pytest.approx(2 / 8)
    assert sign_flip_p([-1.0, 2.0, 4.0]) == pytest.approx(4 / 8)
    # Groups flip as one: sums 3 and 4, |+-3 +-4| >= 7 in 2 of 4.
    assert sign_flip_p([1.0, 2.0, 4.0], groups=["a", "a", "b"]) == pytest.approx(2 / 4)
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0


@pytest.mark.parametrize("count", [4, 11, 16])
def test_sign_flips_agree_with_scipy(count):
    d = np.random.default_rng(count).normal(0.4, 1, count)
    reference = stats.permutation_test(
        (d,), lambda x, axis: x.mean(axis=axis), permutation_type="samples",
        n_resamples=np.inf, vectorized=True,
    )  # fmt: skip
    assert sign_flip_p(d) == pytest.approx(reference.pvalue, abs=1e-12)


def test_many_pairs_are_flipped_at_random():
    # With differences of +-1 the number of plus signs is binomial: p is that of the sign test.
    d = np.repeat([1.0, -1.0], [26, 14])
    exact = stats.binomtest(26, 40).pvalue
    resamples = 20_000
    hits = sign_flip_p(d, resamples=resamples) * (1 + resamples) - 1
    assert within_binomial_error(hits, resamples, exact)


def test_paired_difference_by_hand():
    a = np.array([0.5, 0.6, 0.7, 0.9, 1.0])
    b = np.array([0.4, 0.4, 0.6, 0.7, 0.7])
    found = paired_difference(a, b)
    d = a - b
    j = math.gamma(2) / (math.sqrt(2) * math.gamma(1.5))
    assert found.difference.mean == pytest.approx(0.18)
    assert found.effect_size == pytest.approx(j * d.mean() / d.std(ddof=1))
    assert found.p == pytest.approx(2 / 32)
    assert found.count == 5
    assert found.claim
    assert "no claim" not in str(found)
    assert found.difference == bootstrap_interval(d)


def test_effect_size_is_unbiased_for_normal_differences():
    true, count, repeats = 0.8, 6, 4000
    generator = np.random.default_rng(0)
    found = np.array(
        [
            paired_difference(row, np.zeros(count), resamples=1).effect_size
            for row in generator.normal(true, 1, (repeats, count))
        ]
    )
    # t = sqrt(n) d_z is non-central t: its standard deviation in closed form.
    spread = stats.nct.std(count - 1, true * np.sqrt(count)) / np.sqrt(count)
    assert abs(found.mean() - true) < 5 * spread / np.sqrt(repeats)


def test_few_pairs_take_the_t_interval_so_that_chance_seldom_makes_a_claim():
    generator = np.random.default_rng(0)
    repeats = 3000
    for count in (2, 3, 4):
        d = generator.normal(size=(repeats, count))
        found = [paired_difference(row, np.zeros(count)) for row in d]
        assert within_binomial_error(sum(f.difference.excludes_zero for f in found), repeats, 0.05)
        assert not any(f.claim for f in found)
        assert paired_difference(d[0], np.zeros(count)).difference == mean_interval(d[0])


def test_few_groups_take_the_t_interval_of_their_means():
    values = np.array([0.1, 0.3, 0.5, 0.9, 0.2, 0.4])
    groups = [0, 0, 1, 1, 2, 2]
    found = paired_difference(values, np.zeros(6), groups=groups).difference
    means = mean_interval(values.reshape(3, 2).mean(axis=1))
    assert (found.low, found.high) == pytest.approx((means.low, means.high), rel=1e-12)


def test_nothing_is_claimed_when_zero_is_inside_or_there_is_one_pair():
    same = paired_difference([1.0, 2, 3, 4, 5], [2.0, 1, 4, 3, 5])
    assert not same.claim
    assert str(same).endswith("no claim: the interval includes 0")
    one = paired_difference([1.0], [0.0])
    assert not one.claim
    assert "too few for an interval" in str(one)
    assert not paired_difference([1.0, 2.0, 3.0], [0.0, 1.0, 2.0], groups=[7, 7, 7]).claim


def test_rows_of_unequal_length_are_no_pairs():
    with pytest.raises(ValueError, match="same pairs in the same order"):
        paired_difference([1.0, 2.0], [1.0])


def test_pairs_are_joined_on_order_and_seed_whatever_the_rows_order():
    table = networks({"e-add": lambda o, s: o + 0.1 * s, "s-sym": lambda o, s: o + 0.3 * s + 0.05})
    shuffled = table.sample(frac=1, random_state=1)
    found = paired(shuffled, "area", a="s-sym", b="e-add")
    assert found.count == 10
    # d = 0.05 + 0.2 s.
    assert found.difference.mean == pytest.approx(0.15)
    assert found.difference == paired(table, "area", a="s-sym", b="e-add").difference
    by_order = paired(table, "area", a="s-sym", b="e-add", groups="order")
    assert by_order.p == pytest.approx(2 / 2**5)


def test_incomplete_pairs_are_left_out_and_told():
    table = networks({"e-add": lambda o, s: o, "s-sym": lambda o, s: o + 1})
    table.loc[(table.variant == "e-add") & (table.order == 1) & (table.seed == 0), "area"] = np.nan
    table = table[~((table.variant == "s-sym") & (table.order == 3) & (table.seed == 1))]
    found = paired(table, "area", a="s-sym", b="e-add")
    assert found.left_out == ((1, 0), (3, 1))
    assert found.count == 8
    assert "2 pairs left out" in str(found)
    assert found.difference.mean == 1.0


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: pd.concat([t, t.iloc[[0]]]), {}, "one row per variant, order, seed"),
        (lambda t: t.drop(columns="seed"), {}, "unknown column 'seed'"),
        (lambda t: t.replace({"order": {1: np.nan}}), {}, "no missing value"),
        (lambda t: t[t.variant == "e-add"], {}, "unknown variant 's-sym'"),
        (lambda t: t.assign(area=np.nan), {}, "no pair is complete"),
        (lambda t: t, {"groups": "units"}, "groups must be one of the pairing columns"),
        (lambda t: t, {"a": "e-add"}, "must differ"),
    ],
)
def test_tables_that_make_no_pairs_are_refused(change, options, message):
    table = change(networks({"e-add": lambda o, s: o, "s-sym": lambda o, s: o + 1}))
    with pytest.raises(ValueError, match=message):
        paired(table, "area", **{"a": "s-sym", "b": "e-add", **options})


ARMS = {"combined": "es-add-sym", "single": ("e-add", "s-sym")}


def test_synergy_is_measured_against_the_better_part():
    table = networks(
        {
            "e-add": lambda o, s: 0.5 + 0.01 * o,
            "s-sym": lambda o, s: 0.6 + 0.01 * o,
            "es-add-sym": lambda o, s: 0.7 + 0.01 * o + 0.001 * s,
        }
    )
    found = synergy(table, "area", **ARMS)
    assert found.synergy.mean == pytest.approx(0.1005)
    assert found.against["e-add"].difference.mean == pytest.approx(0.2005)
    assert found.against["s-sym"].difference.mean == pytest.approx(0.1005)
    assert found.means["s-sym"] == pytest.approx(0.62)
    assert found.claim
    # One part is better in every triple: S is the paired difference to it, in every resample too.
    assert found.synergy.low == pytest.approx(found.against["s-sym"].difference.low)
    assert found.count == found.independent == 10


def test_the_maximum_is_taken_of_means_and_anew_in_every_resample():
    # Parts of equal mean that never fail together: the mean of maxima is 1, the maximum of means
    # 0.5, and in a resample with a share q of even triples it is max(q, 1 - q).
    table = networks(
        {
            "e-add": lambda o, s: float(s),
            "s-sym": lambda o, s: 1.0 - s,
            "es-add-sym": lambda o, s: 1.0,
        }
    )
    found = synergy(table, "area", **ARMS)
    assert found.synergy.mean == pytest.approx(0.5)
    assert found.synergy.high == pytest.approx(0.5)
    assert found.synergy.low < 0.3


def test_a_combination_that_is_worse_than_its_better_part_is_no_synergy():
    table = networks(
        {
            "e-add": lambda o, s: 0.5 + 0.01 * o,
            "s-sym": lambda o, s: 0.6 + 0.02 * o,
            "es-add-sym": lambda o, s: 0.55 + 0.01 * s,
        }
    )
    found = synergy(table, "area", **ARMS)
    assert found.synergy.high < 0
    assert not found.claim
    assert "no synergy" in str(found)


def test_synergy_of_equal_parts_is_pushed_below_zero_as_described():
    generator = np.random.default_rng(0)
    count, repeats = 8, 4000
    rows = generator.normal(size=(repeats, count, 3))
    from ctxrnn.analysis.statistics import _gain

    found = _gain(rows)
    # s^2 = 2 / n; the variance of S is below that of one mean plus one maximum, 2 / n.
    expected = -np.sqrt(2 / count) / np.sqrt(2 * np.pi)
    assert abs(found.mean() - expected) < 5 * np.sqrt(2 / count / repeats)


def test_synergy_makes_no_claim_of_few_triples_and_leaves_out_incomplete_ones():
    arms = {v: (lambda o, s, i=i: i + 0.01 * o) for i, v in enumerate(("e-add", "s-sym"))}
    table = networks({**arms, "es-add-sym": lambda o, s: 5.0}, orders=2)
    found = synergy(table, "area", **ARMS)
    assert not found.claim
    assert np.isnan(found.synergy.low)
    assert "too few for an interval" in str(found)
    assert not synergy(networks({**arms, "es-add-sym": lambda o, s: 5.0}, orders=4, seeds=3),
                       "area", groups="order", **ARMS).claim  # fmt: skip
    shorter = synergy(table.iloc[1:], "area", **ARMS)
    assert shorter.left_out == ((0, 0),)
    with pytest.raises(ValueError, match="two arms"):
        synergy(table, "area", combined="es-add-sym", single=("e-add",))


def covariate_table(noise, orders=12, offset=0.1, slope=1.5, seed=0):
    generator = np.random.default_rng(seed)
    rows = []
    for order in range(orders):
        for variant, clean in (("e-add", 0.8), ("s-sym", 0.9)):
            x = clean + 0.04 * generator.standard_normal()
            y = 0.2 + slope * x + offset * (variant == "s-sym") + noise * generator.normal()
            rows.append({"variant": variant, "order": order, "seed": 0, "clean": x, "area": y})
    return pd.DataFrame(rows)


def test_adjustment_recovers_offset_and_slope_exactly_without_noise():
    found = adjusted_difference(covariate_table(0.0), "area", "clean", a="s-sym", b="e-add")
    for interval, truth in ((found.difference, 0.1), (found.slope, 1.5)):
        assert (interval.mean, interval.low, interval.high) == pytest.approx((truth,) * 3, abs=1e-9)
    assert found.claim
    assert found.unadjusted.difference.mean == pytest.approx(0.1 + 1.5 * found.covariate_gap)


def test_adjustment_is_least_squares_with_one_slope():
    table = covariate_table(0.05)
    design = np.column_stack([np.ones(len(table)), table.variant == "s-sym", table.clean])
    reference = np.linalg.lstsq(design.astype(float), table.area.to_numpy(), rcond=None)[0]
    found = adjusted_difference(table, "area", "clean", a="s-sym", b="e-add", resamples=200)
    assert found.difference.mean == pytest.approx(reference[1], abs=1e-12)
    assert found.slope.mean == pytest.approx(reference[2], abs=1e-12)


def test_adjusted_interval_covers_the_true_offset():
    repeats, hits = 300, 0
    for seed in range(repeats):
        found = adjusted_difference(
            covariate_table(0.05, orders=20, seed=seed), "area", "clean",
            a="s-sym", b="e-add", resamples=1000,
        )  # fmt: skip
        hits += found.difference.low <= 0.1 <= found.difference.high
    # Not below the coverage of the mean at n = 5, nor above the nominal one, by five errors.
    assert hits / repeats > 0.92 - 5 * np.sqrt(0.92 * 0.08 / repeats)
    assert hits / repeats < 0.95 + 5 * np.sqrt(0.95 * 0.05 / repeats)


def sized_table(noise, *, gap=0.0, offset=0.0, within=0.2, drop=(), seed=0):
    """Size moves x and y together, more steeply than x moves y within a size."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(5):
        for size, height in ((32, 0.0), (48, 0.3), (64, 0.45)):
            for variant in ("e-add", "s-sym"):
                a = variant == "s-sym"
                x = 0.9 + 0.1 * height + gap * a + 0.01 * generator.normal()
                y = height + within * x + offset * a + noise * generator.normal()
                rows.append((variant, number, size, x, y))
    columns = ["variant", "seed", "size", "clean", "area"]
    return pd.DataFrame(rows, columns=columns).drop(index=list(drop))


SIZED = {
    "a": "s-sym", "b": "e-add", "on": ["seed", "size"], "groups": "seed", "strata": "size",
}  # fmt: skip


@pytest.mark.parametrize("drop", [(), (0, 7, 20)])
def test_adjustment_with_strata_is_least_squares_with_their_constants(drop):
    table = sized_table(0.05, gap=0.02, offset=0.1, drop=drop)
    found = adjusted_difference(table, "area", "clean", resamples=200, **SIZED)
    whole = table[table.groupby(["seed", "size"])["variant"].transform("size") == 2]
    sizes = [whole["size"] == n for n in (32, 48, 64)]
    design = np.column_stack([*sizes, whole.variant == "s-sym", whole.clean]).astype(float)
    reference = np.linalg.lstsq(design, whole.area.to_numpy(), rcond=None)[0]
    assert found.difference.mean == pytest.approx(reference[3], abs=1e-12)
    assert found.slope.mean == pytest.approx(reference[4], abs=1e-12)
    assert found.independent == 5
    assert len(found.left_out) == len(drop)


def test_strata_are_fitted_anew_in_every_resample():
    """Without noise every resample finds the truth, whichever rows it holds."""
    table = sized_table(0.0, gap=0.02, offset=0.1, drop=(0, 7, 20))
    found = adjusted_difference(table, "area", "clean", **SIZED)
    for interval, truth in ((found.difference, 0.1), (found.slope, 0.2)):
        assert (interval.mean, interval.low, interval.high) == pytest.approx((truth,) * 3, abs=1e-9)


def test_without_strata_the_size_is_taken_for_the_covariate():
    """Arms of unequal accuracy and one robustness: the slope between sizes makes a difference."""
    tries, claims, blind = 200, 0, 0
    for seed in range(tries):
        table = sized_table(0.02, gap=0.02, within=0.0, seed=seed)
        options = {**SIZED, "resamples": 500}
        claims += adjusted_difference(table, "area", "clean", **options).claim
        options["strata"] = None
        blind += adjusted_difference(table, "area", "clean", **options).claim
    assert claims / tries <= 0.09 + 3 * np.sqrt(0.09 * 0.91 / tries)
    assert blind / tries > 0.5


def test_strata_are_pairing_columns_other_than_the_groups():
    table = sized_table(0.05)
    for wrong in ("seed", "clean"):
        with pytest.raises(ValueError, match="strata must be one of the pairing columns"):
            adjusted_difference(table, "area", "clean", **{**SIZED, "strata": wrong})
    flat = table.assign(clean=table["size"] / 100)
    with pytest.raises(ValueError, match="clean must vary within the arms"):
        adjusted_difference(flat, "area", "clean", **SIZED)


def test_rows_are_drawn_within_their_group_and_stratum():
    groups, strata = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 1, 0, 0, 1])
    (drawn,) = list(resampled(6, groups, resamples=2000, seed=0, strata=strata))
    places = np.sort(groups * 2 + strata)
    cells = (groups * 2 + strata)[drawn]
    for row in cells:
        first, second = np.sort(row[:3]), np.sort(row[3:])
        for part in (first, second):
            assert np.array_equal(part, places[:3]) or np.array_equal(part, places[3:])
    assert set(drawn[:, 1]) == {1, 2, 3, 4}
    (drawn,) = list(resampled(6, None, resamples=500, seed=0, strata=strata))
    assert (strata[drawn] == strata).all()
    assert set(drawn[:, 0]) == {0, 3, 4}


def test_t_interval_of_groups_is_that_of_their_means():
    values, groups = np.array([1.0, 3.0, 2.0, 6.0, 4.0, 8.0]), list("aabbcc")
    found, means = mean_interval(values, groups=groups), mean_interval([2.0, 4.0, 6.0])
    assert (found.mean, found.low, found.high) == pytest.approx((means.mean, means.low, means.high))
    assert found.count == 6


def test_a_covariate_without_spread_is_refused():
    table = covariate_table(0.05).assign(clean=0.9)
    with pytest.raises(ValueError, match="clean must vary"):
        adjusted_difference(table, "area", "clean", a="s-sym", b="e-add")
