"""Psychometric functions against closed forms and other implementations."""

import numpy as np
import pytest
from ctxrnn.analysis.psychometric import choice_table, fit_psychometric
from scipy import optimize, special, stats
from sklearn.linear_model import LogisticRegression

LEVELS = np.linspace(-0.4, 0.4, 9)


def shares(bias=0.05, slope=12.0, low=0.03, high=0.08, link="logistic"):
    f = special.expit if link == "logistic" else special.ndtr
    return low + (1 - low - high) * f(slope * (LEVELS - bias))


@pytest.mark.parametrize(
    ("link", "inverse"), [("logistic", special.logit), ("gaussian", special.ndtri)]
)
def test_two_strengths_are_fitted_in_closed_form(link, inverse):
    found = fit_psychometric([-0.1, 0.3], [20, 90], [100, 100], link=link, lapses="none")
    slope = (inverse(0.9) - inverse(0.2)) / 0.4
    # The gradient per trial is below 1e-5; the curvature of these data is above 1e-2 of it.
    assert found.slope == pytest.approx(slope, rel=1e-3)
    assert found.bias == pytest.approx(0.3 - inverse(0.9) / slope, abs=1e-3)
    assert found([-0.1, 0.3]) == pytest.approx([0.2, 0.9], abs=1e-3)
    assert found.converged
    assert (found.low, found.high, found.freedom) == (0, 0, 0)
    assert found.deviance == pytest.approx(0, abs=1e-3)


def test_fit_without_lapses_is_logistic_regression():
    generator = np.random.default_rng(0)
    s = generator.normal(size=500)
    chosen = generator.random(500) < special.expit(2 * s - 1)
    found = fit_psychometric(s, chosen, lapses="none")
    other = LogisticRegression(C=np.inf, tol=1e-10).fit(s[:, None], chosen)
    assert found.slope == pytest.approx(other.coef_[0, 0], rel=1e-4)
    assert found.intercept == pytest.approx(other.intercept_[0], rel=1e-4)
    assert found.bias == pytest.approx(-other.intercept_[0] / other.coef_[0, 0], rel=1e-4)


@pytest.mark.parametrize("link", ["logistic", "gaussian"])
@pytest.mark.parametrize(("lapses", "low", "high"), [("equal", 0.06, 0.06), ("free", 0.03, 0.08)])
def test_counts_without_sampling_error_give_back_the_curve(link, lapses, low, high):
    n = 10_000_000
    counts = np.round(n * shares(low=low, high=high, link=link))
    found = fit_psychometric(LEVELS, counts, [n] * 9, link=link, lapses=lapses)
    assert found.converged
    for name, value in (("bias", 0.05), ("slope", 12), ("low", low), ("high", high)):
        assert getattr(found, name) == pytest.approx(value, rel=2e-2, abs=1e-3), name
    assert found(LEVELS) == pytest.approx(counts / n, abs=1e-4)
    assert found.freedom == 9 - (3 if lapses == "equal" else 4)
    turned = fit_psychometric(-LEVELS, counts, [n] * 9, link=link, lapses=lapses)
    assert turned.slope == pytest.approx(-found.slope, rel=1e-3)
    assert turned.bias == pytest.approx(-found.bias, rel=1e-2)


def test_no_point_of_a_global_search_is_likelier():
    counts = np.random.default_rng(1).binomial(40, shares())
    found = fit_psychometric(LEVELS, counts, [40] * 9, lapses="free")

    def cost(q):
        p = q[2] + (1 - q[2] - q[3]) * special.expit(q[0] + q[1] * LEVELS)
        return -stats.binom.logpmf(counts, 40, p).sum()

    bounds = [(-30, 30), (-100, 100), (0, 0.2), (0, 0.2)]
    other = optimize.differential_evolution(cost, bounds, seed=0, tol=1e-10)
    own = cost([found.intercept, found.slope, found.low, found.high])
    # 360 trials times a part in 1e6 of the mean log-likelihood.
    assert own <= other.fun + 4e-4
    saturated = -stats.binom.logpmf(counts, 40, counts / 40).sum()
    assert found.deviance == pytest.approx(2 * (own - saturated), abs=1e-9)


def test_trials_and_counts_are_the_same_data():
    counts = np.random.default_rng(2).binomial(20, shares())
    s = np.repeat(LEVELS, 20)
    chosen = np.concatenate([np.arange(20) < k for k in counts])
    shuffled = np.random.default_rng(3).permutation(180)
    assert fit_psychometric(s[shuffled], chosen[shuffled]) == fit_psychometric(
        LEVELS, counts, [20] * 9
    )


@pytest.mark.parametrize("lapses", ["none", "equal", "free"])
def test_fits_without_a_maximum_say_so(lapses):
    perfect = fit_psychometric(LEVELS, LEVELS > 0, lapses=lapses)
    assert not perfect.converged
    assert "no upper limit" in perfect.reason
    one_between = fit_psychometric(
        LEVELS, np.array([0] * 4 + [3] + [9] * 4), [9] * 9, lapses=lapses
    )
    assert not one_between.converged
    always = fit_psychometric(LEVELS, [9] * 9, [9] * 9, lapses=lapses)
    assert always.reason == "no choice varies"
    assert np.isnan([always.bias, always.slope, *always(LEVELS)]).all()


@pytest.mark.parametrize("lapses", ["none", "equal"])
def test_a_threshold_among_many_strengths_is_found(lapses):
    for seed in range(5):
        s = np.random.default_rng(seed).normal(size=2000)
        for chosen in (s > 0.1, s < 0.1):
            found = fit_psychometric(s, chosen, lapses=lapses)
            assert "no upper limit" in found.reason
    # One trial on the wrong side gives the slope a limit.
    chosen = s > 0.1
    chosen[s.argsort()[1200]] = False
    assert fit_psychometric(s, chosen, lapses="none").converged


def test_lapse_rates_at_their_bound_say_so():
    counts = np.round(1000 * shares(low=0.3, high=0.3))
    found = fit_psychometric(LEVELS, counts, [1000] * 9)
    assert not found.converged
    assert "upper bound, 0.2" in found.reason
    assert fit_psychometric(LEVELS, counts, [1000] * 9, most=0.4).low == pytest.approx(
        0.3, abs=0.01
    )
    # A step with lapses has no slope either.
    step = fit_psychometric(LEVELS, np.where(LEVELS > -0.01, 950, 50), [1000] * 9)
    assert "no upper limit" in step.reason


def test_shares_have_wilson_intervals():
    table = choice_table([1.0, -1.0, 1.0], [3, 0, 5], [4, 10, 6])
    assert table["strength"].tolist() == [-1, 1]
    assert table["chosen"].tolist() == [0, 8]
    assert table["trials"].tolist() == [10, 10]
    z = stats.norm.ppf(0.975)
    for row, p in zip(table.to_dict("records"), (0.0, 0.8), strict=True):
        middle = (p + z**2 / 20) / (1 + z**2 / 10)
        reach = z / (1 + z**2 / 10) * np.sqrt(p * (1 - p) / 10 + z**2 / 400)
        assert [row["low"], row["high"]] == pytest.approx([middle - reach, middle + reach])
    assert (choice_table([0.0], [5], [10], level=0.5)["low"] > 0.35).all()


def test_many_strengths_are_pooled_into_bins():
    s = np.random.default_rng(0).normal(size=100)
    table = choice_table(s, s > 0, bins=5)
    assert table["trials"].tolist() == [20] * 5
    assert table["strength"].to_numpy() == pytest.approx(np.sort(s).reshape(5, 20).mean(axis=1))
    assert table["chosen"].sum() == (s > 0).sum()
    assert len(choice_table(s, s > 0)) == 100
    pooled = choice_table([0.0, 1.0, 2.0], [1, 9, 5], [10, 30, 40], bins=2)
    assert pooled["strength"].tolist() == [0.75, 2.0]
    assert pooled["share"].tolist() == [0.25, 0.125]


def test_what_is_no_choice_is_refused():
    with pytest.raises(ValueError, match="chosen must be 0 or 1"):
        fit_psychometric(LEVELS, shares())
    with pytest.raises(ValueError, match="chosen must be 0 or 1"):
        fit_psychometric(LEVELS, [5] * 9, [4] * 9)
    with pytest.raises(ValueError, match="rows of one length"):
        fit_psychometric(LEVELS, [0, 1])
    with pytest.raises(ValueError, match="strengths must be finite"):
        fit_psychometric([np.nan, 1.0], [0, 1])
    with pytest.raises(ValueError, match="3 values or more"):
        fit_psychometric([0.0, 1.0], [1, 2], [3, 3])
    with pytest.raises(ValueError, match="unknown link 'probit'"):
        fit_psychometric(LEVELS, LEVELS > 0, link="probit")
    with pytest.raises(ValueError, match="unknown lapses 'both'"):
        fit_psychometric(LEVELS, LEVELS > 0, lapses="both")
    with pytest.raises(ValueError, match="between 0 and 1/2"):
        fit_psychometric(LEVELS, LEVELS > 0, most=0.5)
