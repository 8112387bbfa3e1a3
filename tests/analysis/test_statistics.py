import numpy as np
import pytest

from ctxrnn.analysis import mean_interval


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
    # Six standard errors of a binomial share.
    assert abs(covered / repeats - 0.95) < 6 * np.sqrt(0.95 * 0.05 / repeats)


def test_one_network_has_no_interval():
    interval = mean_interval([0.5])
    assert interval.mean == 0.5
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)
    assert str(interval) == "0.500 (n = 1)"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "one number per network"),
        ([[1.0, 2.0]], "one number per network"),
        ([1.0, float("nan")], "must be finite"),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(values)


def test_bad_level_is_refused():
    with pytest.raises(ValueError, match="level must lie between"):
        mean_interval([1.0, 2.0], level=95)
