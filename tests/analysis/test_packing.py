import itertools
import math

import numpy as np
import pandas as pd
import pytest
from ctxrnn.analysis._crossing import first_pass, isotonic, medians
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from ctxrnn.analysis import (
    best_rate,
    capacity,
    capacity_synergy,
    effective_number,
    next_size,
    optimisation_guard,
    packing_area,
    packing_exponent,
    size_needed,
    solved_fraction,
)

SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
TASKS = (2, 4, 6, 8, 10, 12, 16, 20)


def law(k, *, factor=4.0, gamma=0.8):
    return factor * k**gamma


def score(k, n, threshold, steepness=3.0):
    """A logistic in log N that reaches 0.9 at N = threshold(K)."""
    return 1 / (1 + np.exp(-steepness * np.log(n / threshold(k)) - np.log(9)))


def table(*, noise=0.0, orders=1, seeds=1, spread=0.0, sizes=SIZES, tasks=TASKS, seed=0):
    """One row per network; each replicate's threshold varies by exp(spread * normal)."""
    generator = np.random.default_rng(seed)
    rows = []
    for order, number in itertools.product(range(orders), range(seeds)):
        shift = np.exp(spread * generator.standard_normal())
        for k, n in itertools.product(tasks, sizes):
            m = score(k, n, lambda k, shift=shift: shift * law(k)) + noise * generator.normal()
            rows.append(("e-add", k, n, order, number, m, n * n + k * n))
    columns = ["variant", "tasks", "units", "order", "seed", "relative_min", "parameters"]
    return pd.DataFrame(rows, columns=columns)


def bisected(networks, theta=0.9):
    """Keep the networks that a bisection of each replicate and K would have trained."""
    kept = []
    for _, rows in networks.groupby(["tasks", "order", "seed"]):
        scores = dict(zip(rows.units, rows.relative_min, strict=True))
        done = {}
        while (n := next_size(done, SIZES, theta)) is not None:
            done[n] = scores[n]
        kept.append(rows[rows.units.isin(list(done))])
    return pd.concat(kept)


def test_solved_tasks_are_counted_with_the_criterion_included():
    assert solved_fraction([0.9, 0.95, 0.89, 0.1]) == 0.5
    assert solved_fraction([0.9, 0.95, 0.89, 0.1], 0.95) == 0.25
    with pytest.raises(ValueError, match="one finite number per task"):
        solved_fraction([0.9, np.nan])
    with pytest.raises(ValueError, match="theta must be positive"):
        solved_fraction([0.9], 0.0)


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 9)), min_size=1, max_size=9))
def test_smoothing_agrees_with_scipy(points):
    values, weights = np.array(points, dtype=float).T
    reference = isotonic_regression(values, weights=weights).x
    # Cumulative sums of at most 81 numbers below 5 in float64.
    np.testing.assert_allclose(isotonic(values, weights), reference, atol=1e-12)


def test_smoothing_skips_points_without_weight():
    values = np.array([1.0, np.nan, 3.0, 2.0, 7.0])
    found = isotonic(values, np.array([1, 0, 1, 1, 0]))
    np.testing.assert_allclose(found, [1.0, np.nan, 2.5, 2.5, np.nan])


def test_medians_leave_out_what_is_missing_and_take_the_worse_of_a_censored_pair():
    values = np.array([[1.0, np.nan, 2.0, -np.inf], [3.0, np.nan, np.inf, 4.0], [2, np.nan] * 2])
    values[2, 2:] = np.nan
    found, counts = medians(values, 0)
    np.testing.assert_array_equal(found, [2.0, np.nan, np.inf, 4.0])
    np.testing.assert_array_equal(counts, [3, 0, 2, 2])


def test_first_pass_by_hand():
    values = np.array([[0.2, np.nan, 0.8, 1.0], [0.9, 1, 1, 1], [0.1, 0.2, 0.3, 0.4], [np.nan] * 4])
    places = np.array([0.0, 1.0, 2.0, 4.0])
    found = first_pass(values, places, 0.5, continuous=False)
    np.testing.assert_array_equal(found, [2.0, -np.inf, np.inf, np.nan])
    # From 0.2 at 0 to 0.8 at 2, the point between unmeasured.
    assert first_pass(values, places, 0.5, continuous=True)[0] == pytest.approx(1.0)


def test_capacity_is_exact_without_noise():
    found = capacity(table(), parameters="parameters")
    assert list(found.units) == list(SIZES)
    for row in found.itertuples():
        learnt = [k for k in TASKS if law(k) <= row.units]
        if not learnt:
            assert (row.capacity, row.flag) == (2, "below")
        elif len(learnt) == len(TASKS):
            assert (row.capacity, row.flag) == (20, "at least")
        else:
            assert (row.capacity, row.flag) == (learnt[-1], "")
        parameters = row.units**2 + row.units * row.capacity
        assert row.per_parameter == pytest.approx(row.capacity / parameters)
        assert np.isnan(row.low)
    # The law's thresholds are 6.96 for two tasks, 43.9 for twenty.
    assert set(found.flag) == {"", "at least"}
    assert set(capacity(table(sizes=(4, 8))).flag) == {"below", ""}


def test_capacity_between_grid_points_follows_the_line_to_the_next_one():
    networks = table(sizes=(16, 32))
    found = capacity(networks, continuous=True, parameters="parameters").set_index("units")
    # N = 16: K = 4 passes, K = 6 does not (thresholds 12.1 and 16.8).
    m4, m6 = (score(k, 16, law) for k in (4, 6))
    expected = 4 + 2 * (m4 - 0.9) / (m4 - m6)
    assert found.loc[16, "capacity"] == pytest.approx(expected)
    assert found.loc[16, "parameters"] == pytest.approx(16**2 + 16 * expected)


def test_capacity_smooths_a_dip():
    # A dip at K = 4 that K = 6 makes good: (0.86 + 0.96) / 2 = 0.91.
    scores = {2: 1.0, 4: 0.86, 6: 0.96, 8: 0.5}
    rows = [("e-add", k, 16, 0, 0, m) for k, m in scores.items()]
    columns = ["variant", "tasks", "units", "order", "seed", "relative_min"]
    networks = pd.DataFrame(rows, columns=columns)
    assert capacity(networks).capacity.item() == 6
    assert capacity(networks, 0.92).capacity.item() == 2


def test_capacity_is_of_the_median_replicate():
    parts = [table(seeds=1, sizes=(32,)).assign(seed=number) for number in range(3)]
    parts[2]["relative_min"] = 0.0
    networks = pd.concat(parts)
    assert capacity(networks).capacity.item() == capacity(parts[0]).capacity.item()
    # A mean over networks would fail everywhere.
    assert networks.groupby("tasks").relative_min.mean().max() < 0.9


def test_sizes_are_exact_without_noise():
    found = size_needed(table())
    for row in found.itertuples():
        expected = next(n for n in SIZES if law(row.tasks) <= n)
        assert row.size == expected
        assert row.flag == ("at most" if expected == 8 else "")
        assert row.method == "grid"
    few = size_needed(table(sizes=(8, 12, 16)))
    assert set(few.flag) == {"at most", "", "above"}
    assert set(few[few.flag == "above"]["size"]) == {16}


def test_sizes_between_grid_points_lie_on_the_line_in_log_n():
    found = size_needed(table(tasks=(10,)), continuous=True)["size"].item()
    # Threshold 25.2 between 24 and 32.
    m24, m32 = (score(10, n, law) for n in (24, 32))
    expected = 24 * (32 / 24) ** ((0.9 - m24) / (m32 - m24))
    assert found == pytest.approx(expected, rel=1e-12)


def test_bisected_chains_and_the_full_grid_need_the_same_size():
    networks = table(orders=5, spread=0.5, tasks=(6, 10), seed=3)
    full, chains = size_needed(networks), size_needed(bisected(networks))
    assert list(full.method) == ["grid", "grid"]
    assert list(chains.method) == ["chains", "chains"]
    assert list(chains["size"]) == list(full["size"])
    # The pooled networks are a selection: their medians would give another size.
    assert len(bisected(networks)) < 5 * 2 * 5


def test_two_middle_chains_meet_halfway_in_log_n():
    rows = [
        ("e-add", 4, n, order, 0, m)
        for order, pairs in enumerate([((16, 0.5), (24, 0.95)), ((32, 0.95), (24, 0.5))])
        for n, m in pairs
    ]
    columns = ["variant", "tasks", "units", "order", "seed", "relative_min"]
    found = size_needed(pd.DataFrame(rows, columns=columns))
    assert found["size"].item() == pytest.approx(np.sqrt(24 * 32))


@pytest.mark.parametrize("chains", [False, True])
def test_intervals_of_sizes_cover_the_law(chains):
    repeats, hits, count = 150, 0, 10
    for seed in range(repeats):
        networks = table(orders=count, spread=0.4, tasks=(8,), seed=seed)
        networks = bisected(networks) if chains else networks
        found = size_needed(networks, continuous=True, resamples=500).iloc[0]
        hits += found.low <= law(8) <= found.high
    # At least the nominal coverage by four errors; a wide share above is no fault of a median of
    # ten, whose order statistics 2 and 9 alone cover 0.979.
    assert hits / repeats > 0.95 - 4 * np.sqrt(0.95 * 0.05 / repeats)
    assert found.high < 4 * found.low


def test_censored_ends_of_an_interval_are_open():
    networks = table(orders=6, spread=0.6, sizes=(16, 24), tasks=(8,), seed=1)
    found = size_needed(networks).iloc[0]
    assert (found.low, found.high) == (0.0, np.inf)
    found = capacity(networks.assign(tasks=20)).iloc[0]
    assert found.low == 0.0


@pytest.mark.parametrize("function", [size_needed, packing_exponent])
def test_copies_within_an_order_add_nothing_when_orders_are_drawn(function):
    one = table(orders=6, seeds=1, noise=0.02, spread=0.4, tasks=(4, 8, 16), seed=2)
    copies = pd.concat([one.assign(seed=number) for number in range(5)])
    alone = function(one, continuous=True, groups="order").iloc[0]
    grouped = function(copies, continuous=True, groups="order").iloc[0]
    apart = function(copies, continuous=True).iloc[0]
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
    assert apart.high - apart.low < grouped.high - grouped.low


@pytest.mark.parametrize("gamma", [0.6, 1.1])
def test_exponent_is_exact_on_the_law(gamma):
    # Sizes of the grid are the law's own, so that discrete sizes are exact.
    tasks = (2, 4, 8, 16)
    sizes = [law(k, gamma=gamma) for k in tasks]
    rows = [
        ("e-add", k, n, order, 0, float(n >= law(k, gamma=gamma) * (1 - 1e-12)))
        for k in tasks
        for n in (1.0, *sizes)
        for order in range(3)
    ]
    columns = ["variant", "tasks", "units", "order", "seed", "relative_min"]
    found = packing_exponent(pd.DataFrame(rows, columns=columns), continuous=False).iloc[0]
    assert found[["gamma", "low", "high"]].to_numpy(dtype=float) == pytest.approx([gamma] * 3)
    assert found.factor == pytest.approx(4.0)
    assert found.points == 4


def test_exponent_leaves_out_censored_sizes_and_needs_three():
    # Sizes 24 to 48 leave 10 to 20 tasks (25.2, 29.2, 36.8, 43.9).
    networks = table(sizes=(24, 32, 48, 64))
    found = packing_exponent(networks).iloc[0]
    assert found.points == 4
    # Interpolation in log N moves a size by less than its bracket; the slope of four points by
    # less than the widest bracket over the spread of log K.
    assert abs(found.gamma - 0.8) < np.log(48 / 32) / np.log(20 / 10)
    few = packing_exponent(table(tasks=(8, 10, 12), sizes=(24, 32))).iloc[0]
    assert few.points == 2
    assert np.isnan(few.gamma)


def test_exponent_with_noise_covers_the_law():
    repeats, hits = 60, 0
    fine = tuple(float(n) for n in np.round(np.geomspace(4, 128, 41), 3))
    for seed in range(repeats):
        networks = table(orders=8, noise=0.01, spread=0.2, tasks=(4, 8, 16), sizes=fine, seed=seed)
        found = packing_exponent(networks, resamples=300).iloc[0]
        hits += found.low <= 0.8 <= found.high
    assert hits / repeats > 0.95 - 4 * np.sqrt(0.95 * 0.05 / repeats)
    assert found.high - found.low < 0.2


@pytest.mark.parametrize("function", [capacity, size_needed, packing_exponent])
@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: pd.concat([t, t.iloc[[3]]]), {}, "one row per"),
        (lambda t: t.drop(columns="units"), {}, "unknown column 'units'"),
        (lambda t: t.iloc[:0], {}, "at least one row"),
        (lambda t: t.assign(relative_min=np.nan), {}, "relative_min must be finite"),
        (lambda t: t, {"theta": 0}, "theta must be positive"),
        (lambda t: t, {"groups": "units"}, "groups must be one of"),
        (lambda t: t, {"level": 2, "resamples": 5}, "level must lie"),
    ],
)
def test_bad_tables_of_networks_are_refused(function, change, options, message):
    with pytest.raises(ValueError, match=message):
        function(change(table(orders=2)), **options)


@given(st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size))))
def test_bisection_finds_every_threshold_in_time(case):
    size, place = case
    grid = [3 * n + 2 for n in range(size)]
    done = {}
    while (n := next_size(done, grid)) is not None:
        assert n in grid
        assert n not in done
        done[n] = float(n >= (grid[place] if place < size else np.inf))
        assert len(done) <= math.ceil(math.log2(size + 1))
    passed = [n for n, m in done.items() if m >= 0.9]
    assert (min(passed) if passed else None) == (grid[place] if place < size else None)


@given(st.lists(st.floats(0, 1), min_size=len(SIZES), max_size=len(SIZES)))
def test_bisection_ends_beside_a_failure_even_where_scores_fall(scores):
    done = {}
    while (n := next_size(done, SIZES, 0.5)) is not None:
        done[n] = scores[SIZES.index(n)]
        assert len(done) <= 4
    passed = [n for n in done if done[n] >= 0.5]
    if passed and min(passed) > SIZES[0]:
        assert done[SIZES[SIZES.index(min(passed)) - 1]] < 0.5


def test_bisection_prefers_small_networks_and_ignores_failures_above_a_pass():
    assert next_size({}, SIZES) == 48
    assert next_size({}, (8, 16)) == 8
    assert next_size({24: 0.95, 32: 0.1, 12: 0.2}, SIZES) == 16
    assert next_size({24: 0.95, 16: 0.1, 200: 0.0}, SIZES) is None
    with pytest.raises(ValueError, match="grid must hold"):
        next_size({}, [])
    with pytest.raises(ValueError, match="scores must be finite"):
        next_size({8: float("nan")}, SIZES)


def test_area_of_a_line_in_log_n():
    n = np.array([8, 128, 16, 64])
    f = 0.1 + 0.2 * np.log2(n / 8)
    assert packing_area(n, f) == pytest.approx(0.1 + 0.2 * 4 / 2)
    assert packing_area([8, 256], [1, 1]) == 1.0
    with pytest.raises(ValueError, match="differ from each other"):
        packing_area([8, 8], [1, 1])
    with pytest.raises(ValueError, match="equally long"):
        packing_area([8], [1])
    with pytest.raises(ValueError, match="positive"):
        packing_area([0, 8], [1, 1])


def test_effective_number_in_closed_form():
    assert effective_number(np.eye(7)) == pytest.approx(7)
    assert effective_number(np.ones((7, 7))) == pytest.approx(1)
    twins = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert effective_number(twins) == pytest.approx(3 / 2 ** (2 / 3))
    # Correlation q of two: eigenvalues (1 +- q) / 2.
    q = 0.3
    shares = np.array([1 + q, 1 - q]) / 2
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert effective_number([[5, 2 * q], [0, 0.2]]) == pytest.approx(expected)
    assert effective_number([[1, -0.5], [-0.5, 1]]) == pytest.approx(2)


def test_effective_number_of_an_indefinite_matrix_drops_negative_eigenvalues():
    s = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1.0]])
    # Eigenvalues 1 + sqrt 2, 1, 1 - sqrt 2 < 0.
    shares = np.array([1 + np.sqrt(2), 1]) / (2 + np.sqrt(2))
    assert effective_number(s) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    with pytest.raises(ValueError, match="square"):
        effective_number(np.ones((2, 3)))


ARMS = {"combined": "es-add-sym", "single": ("e-add", "s-sym")}


def three_arms(capacities, *, orders=6, noise=0.0, sizes=(16,), tasks=TASKS, seed=0):
    """Scores that fall through 0.9 at K = capacities[variant] + a shift of each replicate."""
    generator = np.random.default_rng(seed)
    rows = []
    for order in range(orders):
        shared = generator.normal()
        for variant, k_star in capacities.items():
            own = k_star + 0.5 * shared + noise * generator.normal()
            for n, k in itertools.product(sizes, tasks):
                m = 0.9 - 0.02 * (k - own)
                rows.append((variant, k, n, order, 0, m, 100.0))
    columns = ["variant", "tasks", "units", "order", "seed", "relative_min", "parameters"]
    return pd.DataFrame(rows, columns=columns)


def test_synergy_in_capacity_is_exact_without_noise():
    table = three_arms({"e-add": 7.0, "s-sym": 9.0, "es-add-sym": 10.5}, sizes=(16, 32))
    found = capacity_synergy(table, **ARMS)
    assert list(found.units) == [16, 32]
    row = found.iloc[0]
    # The shift of a replicate is common to its arms and drops out of S, in every resample.
    assert (row.synergy, row.low, row.high) == pytest.approx((1.5, 1.5, 1.5))
    single = capacity(table, continuous=True).set_index(["variant", "units"]).capacity
    assert row.capacity_combined == pytest.approx(single["es-add-sym", 16])
    assert row.capacity_b == pytest.approx(single["s-sym", 16])
    assert row.claim
    assert (row.replicates, row.independent, row.flag) == (6, 6, "")
    coarse = capacity_synergy(table, continuous=False, **ARMS).iloc[0]
    assert (coarse.capacity_combined, coarse.capacity_b) == (10, 8)


@pytest.mark.parametrize(
    ("capacities", "flag", "synergy"),
    [
        ((7.0, 9.0, 40.0), "at least", 11.0),
        ((7.0, 40.0, 9.0), "at most", -11.0),
        ((7.0, 9.0, -9.0), "at most", -7.0),
        ((-9.0, -9.0, 9.0), "at least", 7.0),
        ((-9.0, 9.0, 9.0), "", 0.0),
        ((40.0, 9.0, 40.0), "unknown", 0.0),
    ],
)
def test_synergy_in_capacity_beyond_the_range_of_tasks_is_a_bound(capacities, flag, synergy):
    arms = dict(zip(("e-add", "s-sym", "es-add-sym"), capacities, strict=True))
    row = capacity_synergy(three_arms(arms, orders=1), **ARMS).iloc[0]
    assert row.flag == flag
    assert row.synergy == pytest.approx(synergy, abs=0.7)
    assert not row.claim


@pytest.mark.parametrize(("beyond", "low", "high"), [(-9.0, -9.0, 1.0), (40.0, 1.0, np.inf)])
def test_ends_of_the_interval_are_what_capacities_beyond_the_range_allow(beyond, low, high):
    """In half of the replicates the combination's K* lies outside the range of K, 2 to 20."""
    arms = {"e-add": 7.0, "s-sym": 9.0}
    within = three_arms({**arms, "es-add-sym": 10.0}, orders=3)
    outside = three_arms({**arms, "es-add-sym": beyond}, orders=3)
    table = pd.concat([within, outside.assign(order=outside.order + 3)])
    row = capacity_synergy(table, **ARMS).iloc[0]
    # Scores are spread by half a task between replicates. Of a K* below 2 only 0 is sure.
    assert row.low == pytest.approx(low, abs=1.1)
    assert row.high == pytest.approx(high, abs=1.1)


def test_no_synergy_in_capacity_is_claimed_where_the_better_part_may_be_larger():
    table = three_arms({"e-add": 40.0, "s-sym": 9.0, "es-add-sym": 40.0})
    assert not capacity_synergy(table, **ARMS).claim.any()


def test_synergy_in_capacity_is_seldom_claimed_by_chance():
    tries = 200
    claims = [
        capacity_synergy(
            three_arms(dict.fromkeys(("e-add", "s-sym", "es-add-sym"), 9.0), noise=1.0, seed=seed),
            resamples=500, **ARMS,
        ).claim.iloc[0]
        for seed in range(tries)
    ]  # fmt: skip
    # One of the two sides of a 95 % interval, 0.04 for a bootstrap of six values, three errors; S
    # errs downwards besides.
    assert np.mean(claims) <= 0.065 + 3 * np.sqrt(0.065 * 0.935 / tries)


def test_synergy_in_capacity_compares_replicates_that_all_arms_have():
    table = three_arms({"e-add": 7.0, "s-sym": 9.0, "es-add-sym": 10.5})
    cut = table[~((table.variant == "s-sym") & (table.order < 2))]
    row = capacity_synergy(cut, **ARMS).iloc[0]
    assert row.replicates == 4
    assert row.synergy == pytest.approx(1.5)
    assert not row.claim
    apart = table.assign(units=table.units + (table.variant == "s-sym"))
    with pytest.raises(ValueError, match="share no units"):
        capacity_synergy(apart, **ARMS)
    with pytest.raises(ValueError, match="unknown variant 's-sym'"):
        capacity_synergy(table[table.variant != "s-sym"], **ARMS)
    with pytest.raises(ValueError, match="three arms"):
        capacity_synergy(table, combined="e-add", single=("e-add", "s-sym"))


def budgets(pairs):
    return pd.DataFrame(
        [
            {"variant": "e-add", "units": 8, "tasks": 4, "order": cell, "seed": 0,
             "budget": budget, "relative_min": m}
            for cell, pair in enumerate(pairs)
            for budget, m in zip((1, 2), pair, strict=True)
        ]
    )  # fmt: skip


def test_guard_lists_cells_that_rose_by_more_than_the_error_of_the_trials():
    # sqrt(0.5 * 0.5 / 100 * 2) = 0.0707 around one half.
    found = optimisation_guard(
        budgets([(0.5, 0.58), (0.5, 0.56), (1.0, 1.0), (1.02, 1.0), (0.9, 0.8)]), trials=100
    )
    assert list(found.rising.order) == [0]
    assert found.rising.error[0] == pytest.approx(np.sqrt((0.25 + 0.58 * 0.42) / 100))
    assert found.rise.mean == pytest.approx(np.mean([0.08, 0.06, 0, -0.02, -0.1]))
    assert found.cells == 5
    # Cells at 1 cannot rise by chance.
    assert found.expected == pytest.approx(3 * 0.15866, rel=1e-3)
    assert "1 of 5 cells rose, 1 fell" in str(found)


def test_guard_takes_cells_of_one_order_as_one():
    generator = np.random.default_rng(0)
    tries, excluded, alone = 200, 0, 0
    for _ in range(tries):
        effect = 0.05 * generator.normal(size=6)
        cells = [(0.5, 0.5 + e + 0.01 * generator.normal()) for e in effect for _ in range(8)]
        rows = budgets(cells)
        rows["order"], rows["seed"] = rows["order"] // 8, rows["order"] % 8
        found = optimisation_guard(rows, trials=100, groups="order", resamples=1000)
        assert (found.cells, found.independent) == (48, 6)
        excluded += found.rise.excludes_zero
        alone += optimisation_guard(rows, trials=100, resamples=1000).rise.excludes_zero
    # 0.05 and 0.04 for a bootstrap of six values, with three standard errors; taken as
    # independent, cells exclude 0 in P(|t_5| > 1.96 / sqrt(8)) = 0.52 of the tries.
    assert excluded / tries <= 0.09 + 3 * np.sqrt(0.09 * 0.91 / tries)
    assert alone / tries > 0.52 - 3 * np.sqrt(0.25 / tries)


def test_guard_of_few_orders_takes_the_t_interval_of_their_means():
    rows = budgets([(0.5, 0.6), (0.5, 0.62), (0.5, 0.5), (0.5, 0.52)])
    rows["order"], rows["seed"] = rows["order"] // 2, rows["order"] % 2
    found = optimisation_guard(rows, trials=100, groups="order")
    half = 12.706 * np.std([0.11, 0.01], ddof=1) / np.sqrt(2)
    assert found.rise.low == pytest.approx(0.06 - half, rel=1e-3)


def test_guard_expects_as_many_cells_as_chance_gives():
    generator = np.random.default_rng(0)
    cells, trials = 4000, 512
    draws = generator.binomial(trials, 0.8, (cells, 2)) / trials
    found = optimisation_guard(budgets(draws), trials=trials, resamples=10)
    share = 0.1587
    # Half a step of the lattice of counts (1 / 512) moves the normal share by less than 0.02.
    error = np.sqrt(share * (1 - share) / cells)
    assert abs(len(found.rising) / cells - share) < 5 * error + 0.02
    assert found.expected == pytest.approx(share * cells, rel=1e-3)


def test_guard_takes_cells_that_have_both_budgets():
    one_missing = budgets([(0.5, 0.6), (0.5, 0.6)]).iloc[:3]
    assert optimisation_guard(one_missing, trials=10).cells == 1
    with pytest.raises(ValueError, match="unknown budget 2"):
        optimisation_guard(one_missing.iloc[[0]], trials=10)
    with pytest.raises(ValueError, match="trials must be at least"):
        optimisation_guard(one_missing, trials=0)


def test_the_better_rate_is_chosen_by_the_selection_column():
    nan = float("nan")
    rows = pd.DataFrame(
        [
            # cell, rate, evaluation, test
            (0, 1e-3, 0.8, 0.9), (0, 3e-3, 0.9, 0.1),
            (1, 3e-3, 0.7, 0.2), (1, 1e-3, 0.7, 0.3),
            (2, 1e-3, 0.1, 0.5), (2, 3e-3, nan, 0.6),
            (3, 3e-3, nan, 0.0),
        ],
        columns=["order", "rate", "evaluation", "test"],
    )  # fmt: skip
    found = best_rate(rows, selection="evaluation", on=["order"])
    assert list(found.order) == [0, 1, 2, 3]
    assert list(found.rate) == [3e-3, 1e-3, 1e-3, 3e-3]
    assert list(found.test) == [0.1, 0.3, 0.5, 0.0]
    assert list(found.rates) == [2, 2, 2, 1]
    with pytest.raises(ValueError, match="one row per order, rate"):
        best_rate(pd.concat([rows, rows]), selection="evaluation", on=["order"])
    with pytest.raises(ValueError, match="unknown column 'score'"):
        best_rate(rows, selection="score", on=["order"])
