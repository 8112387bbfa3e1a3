"""Trials drawn at once have neurogym's distribution: against theory and against neurogym's own.

Every test of the family is made at a level of 1e-8; there are fewer than 5,000, so that correct
code fails some of them with a probability below 1e-4 (and, the seeds being fixed, always or never).
"""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from ctxrnn.tasks._conditions import NUMBERS, Tables, draw_durations
from ctxrnn.tasks._recipe import Recipe, read_duration, read_recipe
from ctxrnn.tasks._seeding import hashed_uniforms
from scipy import stats

from ctxrnn.tasks import YANG19, task_set

LEVEL = 1e-8
RING = 4
REACH, MATCH = YANG19[:6], YANG19[16:]
COHS, DELAYED_COHS = (0.08, 0.16, 0.32, 0.64), (0.3, 0.6, 1.0)


def columns_of(conditions, periods, rows):
    """Discrete conditions and the steps of every period, by name."""
    found = {}
    for key, values in conditions.items():
        values = np.asarray(values, dtype=float)[rows]
        if not np.isnan(values).any():
            found[key] = values.round(6)
    for name, steps in periods.items():
        steps = steps.numpy()[rows]
        if (steps[:, 0] >= 0).all():
            found["steps of " + name] = steps[:, 1] - steps[:, 0]
    return found


def label(*columns):
    """One integer per distinct combination of the columns."""
    return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def two_samples_differ(one, other):
    """P-value of the chi-square test that two samples of labels have one distribution."""
    table = np.stack([np.bincount(x, minlength=max(one.max(), other.max()) + 1)
                      for x in (one, other)])  # fmt: skip
    share = len(other) / (len(one) + len(other))
    # Cells with few trials are joined, as the test needs about five in each.
    rare = table.sum(0) * min(share, 1 - share) < 8
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(1)])
    table = table[:, table.sum(0) > 0]
    return 1.0 if table.shape[1] < 2 else stats.chi2_contingency(table, correction=False)[1]


@pytest.mark.parametrize("repairs", [True, False])
@pytest.mark.parametrize("names", [REACH, YANG19[6:11], YANG19[11:16], MATCH], ids=lambda n: n[0])
def test_every_pair_of_conditions_is_distributed_as_neurogyms(names, repairs):
    sets = [
        task_set(names, dt=50.0, ring=RING, noise=0.0, repairs=repairs, sampler=sampler)
        for sampler in ("vectorised", "neurogym")
    ]
    fresh, own = (
        tasks.sample(count * len(names), generator=seed)
        for tasks, count, seed in zip(sets, (6000, 1200), (1, 2), strict=True)
    )
    for k, name in enumerate(names):
        one, other = (
            columns_of(batch.conditions, batch.periods, (batch.task == k).numpy())
            | {"answer": batch.last(batch.targets)[batch.task == k].numpy()}
            for batch in (fresh, own)
        )
        assert one.keys() == other.keys()
        for pair in itertools.combinations(one, 2):
            both = label(*(np.concatenate([one[key], other[key]]) for key in pair))
            p = two_samples_differ(both[:6000], both[6000:])
            assert p > LEVEL, (name, pair)


def support(name, repairs):
    """All equally likely combinations of a task's conditions, counted by hand."""
    modes, ring = (1, 2), range(RING)
    if name in REACH:
        return ("modality", "ground_truth"), list(itertools.product(modes, ring))
    if name in ("dms", "dnms"):
        keys = ("modality", "match", "sample_theta")
        return keys, list(itertools.product(modes, (0, 1), ring))
    if name in MATCH:
        keys = ("modality", "match", "sample_theta", "test_theta")
        border = 2 if repairs else 3
        return keys, [
            (m, match, s, t)
            for m, match, s, t in itertools.product(modes, (0, 1), ring, ring)
            if ((s >= border) == (t >= 2)) == bool(match)
        ]
    if "dly" in name:
        pairs = list(itertools.permutations(DELAYED_COHS, 2))
    else:
        pairs = [(0.5 + c * s / 2, 0.5 - c * s / 2) for c in COHS for s in (1, -1)]
    shown = [m for m in (1, 2) if "ctx" in name or "multi" in name or name.endswith(str(m))]
    keys = ("theta1", "theta2", *(f"coh{d}_mod{m}" for m in shown for d in (1, 2)))
    states = [
        tuple(itertools.chain.from_iterable(state))
        for state in itertools.product(pairs, repeat=len(shown))
        if not ("multi" in name and repairs
                and abs(sum(a - b for a, b in state)) < 1e-6)
    ]  # fmt: skip
    return keys, [
        (*directions, *state) for directions in itertools.permutations(ring, 2) for state in states
    ]


@pytest.mark.parametrize("repairs", [True, False])
@pytest.mark.parametrize("name", YANG19)
def test_all_combinations_of_conditions_are_equally_likely(name, repairs):
    keys, wanted = support(name, repairs)
    trials = max(4000, 30 * len(wanted))
    tasks = task_set(name, dt=50.0, ring=RING, noise=0.0, repairs=repairs)
    counts = Counter()
    for part in range(0, trials, 4000):
        c = tasks.sample(4000, generator=part).conditions
        columns = [
            c[key] * RING / (2 * math.pi) if key.endswith(("theta", "theta1", "theta2")) else c[key]
            for key in keys
        ]
        counts.update(zip(*(column.round(6).tolist() for column in columns), strict=True))
    cells = [tuple(round(float(v), 6) for v in cell) for cell in wanted]
    assert set(counts) <= set(cells)
    # Modalities are balanced, which only lowers the statistic.
    assert stats.chisquare([counts[cell] for cell in cells]).pvalue > LEVEL


def test_strict_balance_leaves_each_modality_independent_of_the_rest():
    batch = task_set(["go", "dms"], dt=50.0, ring=RING).sample(2 * 4001, generator=0)
    for k in (0, 1):
        modality = batch.conditions["modality"][(batch.task == k).numpy()]
        assert abs((modality == 1).sum() - 2000.5) == 0.5
        # Runs in a random order of 4,001: mean n/2, variance n/4.
        changes = (np.diff(modality) != 0).sum()
        assert abs(changes - 2000) < 6 * math.sqrt(1000)
    first = [task_set("go").sample(1, generator=s).conditions["modality"][0] for s in range(200)]
    assert abs(sum(first) - 300) < 6 * math.sqrt(50)
    more = [
        (task_set("go").sample(3, generator=s).conditions["modality"] == 1).sum()
        for s in range(200)
    ]
    assert set(more) == {1, 2}
    assert abs(sum(more) - 300) < 6 * math.sqrt(50)


@pytest.mark.parametrize(
    ("name", "repairs", "period", "steps"),
    [
        # 200 to 500 ms of fixation, uniform and cut to whole steps of 20 ms.
        *((name, True, "fixation", dict.fromkeys(range(10, 25), 1)) for name in YANG19[6:16]),
        ("dm1", False, "fixation", dict.fromkeys(range(10, 25), 1)),
        ("dm1", False, "stimulus", {10: 1, 20: 1, 30: 1}),
        ("dm1", True, "stimulus", {25: 1}),
        ("dm2", True, "stimulus", {25: 1}),
        ("dms", True, "decision", {45: 1}),
        ("dlydm2", True, "delay", {50: 1}),
        ("rtgo", True, "decision", {25: 1}),
        ("dlyanti", True, "delay", {25: 1}),
    ],
)
def test_durations_have_the_distribution_that_is_written_in_the_task(name, repairs, period, steps):
    batch = task_set(name, repairs=repairs, noise=0.0).sample(6000, generator=5)
    found = Counter(batch.periods[period].diff(dim=1).squeeze(-1).tolist())
    assert found.keys() == steps.keys()
    if len(steps) > 1:
        assert stats.chisquare([found[n] for n in steps]).pvalue > LEVEL


TIMINGS = [
    ("uniform", (120, 480)),
    ("uniform", [300, 301]),
    ("choice", [100, 100, 400, 250]),
    [200, 350, 700],
    ("truncated_exponential", [300]),
    ("truncated_exponential", [300, 200]),
    ("truncated_exponential", [300, 200, 500]),
    ("truncated_exponential", (100, 250, 900)),
    ("truncated_exponential", (300, 500, 500)),
    ("constant", 330),
    330,
]


def drawn_durations(core, value, count, dt):
    """Durations in ms of a task whose every period lasts as `value` says."""
    duration = read_duration(core, value)
    recipe = Recipe(
        "x", "reach", (None,) * 5, (duration,) * 5, (0.0,) * 5, ((0.0, 0.0),) * 5, 0, 0.0,
        np.zeros(4),
    )  # fmt: skip
    uniform = hashed_uniforms([("durations", count * NUMBERS)]).reshape(count, NUMBERS)[:, -5:]
    return draw_durations(Tables([recipe]), np.zeros(count, dtype=int), uniform, dt)


@pytest.mark.parametrize("value", TIMINGS, ids=str)
@pytest.mark.parametrize("dt", [0.25, 50.0])
def test_every_kind_of_timing_is_drawn_as_neurogym_draws_it(value, dt):
    core = task_set("dm2", dt=50.0, ring=RING)._sources[0].core
    core.timing = {"fixation": value}
    core.dt = dt
    core.rng = np.random.RandomState(3)
    own = np.array([core.sample_time("fixation") for _ in range(4000)])
    drawn = drawn_durations(core, value, 4000, dt)
    for slot in range(5):
        both = label(np.concatenate([drawn[:, slot], own]))
        assert two_samples_differ(both[:4000], both[4000:]) > LEVEL
        # The Kolmogorov-Smirnov test is conservative for numbers that coincide.
        assert stats.ks_2samp(drawn[:, slot], own, method="asymp").pvalue > LEVEL
        assert drawn[:, slot].min() >= own.min() - 25
    if len(np.unique(own)) > 3:
        for one, other in itertools.combinations(range(5), 2):
            assert abs(np.corrcoef(drawn[:, one], drawn[:, other])[0, 1]) < 6.5 / math.sqrt(4000)


def test_exponential_durations_have_their_distribution_function():
    core = task_set("dm2", dt=50.0, ring=RING)._sources[0].core
    for mean, low, high in ((300.0, 0.0, math.inf), (300.0, 200.0, 500.0), (5.0, 400.0, 900.0)):
        drawn = drawn_durations(core, ("truncated_exponential", (mean, low, high)), 20000, 1e-6)
        # By its distribution function it becomes uniform.
        share = np.expm1(-(drawn[:, 0] - low) / mean) / math.expm1(-(high - low) / mean)
        assert stats.kstest(share, "uniform").pvalue > LEVEL


def test_a_function_of_neurogyms_own_is_read_and_others_are_called():
    from neurogym.utils.ngym_random import TruncExp

    core = task_set("ctxdm1", dt=50.0, ring=RING)._sources[0].core
    own = core.timing["fixation"]
    assert callable(own)
    state = core.rng.get_state()[1].copy()
    found = read_duration(core, own)
    assert (found.values, found.spread, found.function) == ((200.0,), 300.0, False)
    assert np.array_equal(core.rng.get_state()[1], state)
    assert read_duration(core, lambda: 300.0).function
    assert read_duration(core, TruncExp(300)).function
    assert read_duration(core, ("until", 300)) is None
    assert read_duration(core, ("choice", 5)) is None


def test_functions_are_drawn_from_as_neurogym_draws_from_them():
    from neurogym.utils.ngym_random import TruncExp

    fresh, own = (
        task_set("dlydm1", dt=20.0, ring=RING, noise=0.0, sampler=sampler,
                 timing={"delay": TruncExp(400, 200, 1200)}).sample(1500, generator=1)
        for sampler in ("vectorised", "neurogym")
    )  # fmt: skip
    delays = [batch.periods["delay"].diff(dim=1).squeeze(-1).numpy() for batch in (fresh, own)]
    assert stats.ks_2samp(*delays, method="asymp").pvalue > LEVEL
    assert len(set(delays[0].tolist())) > 30


def test_hashed_numbers_are_uniform_and_independent():
    one, other = (hashed_uniforms([(key, 60000)]) for key in ("a", "b"))
    joined = hashed_uniforms([("a", 60000), ("b", 60000)])
    assert np.array_equal(joined, np.concatenate([one, other]))
    assert np.array_equal(hashed_uniforms([("a", 7)]), one[:7])
    assert 0 <= joined.min() < 1e-3 < 0.999 < joined.max() < 1
    assert stats.kstest(joined, "uniform").pvalue > LEVEL
    for lag in range(1, 2 * NUMBERS):
        product = (one[lag:] - 0.5) * (one[:-lag] - 0.5) * 12
        assert abs(product.mean()) < 6.5 / math.sqrt(len(product))
    assert abs(((one - 0.5) * (other - 0.5)).mean() * 12) < 6.5 / math.sqrt(60000)


def test_the_recipes_are_read_from_the_environments():
    tasks = task_set(dt=50.0, ring=RING)
    for source in tasks._sources:
        recipe = read_recipe(source)
        assert [p for p in recipe.periods if p is not None] == [
            p for p in ("fixation", "stimulus", "stim1", "sample", "delay", "stim2", "test",
                        "decision")
            if p in source.core.timing and not (p in ("stimulus", "delay")
                                                and source.name.startswith("rt"))
        ]  # fmt: skip
        sigma = 0.0 if source.name in REACH else 1 / math.sqrt(50)
        assert recipe.sigma == pytest.approx(sigma)
