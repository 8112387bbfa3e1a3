"""Calibration: by hand, against scikit-learn, and of forecasts whose truth is known."""

import numpy as np
import pytest
import torch
from scipy import optimize, special
from sklearn import metrics

from ctxrnn.analysis import (
    brier_score,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_table,
)


def binary_logits(images=4000, attributes=3, temperature=1.0, seed=0):
    """Logits that are too large by a factor, the temperature, and labels."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(images, attributes)) * 2
    y = generator.random(z.shape) < special.expit(z)
    return temperature * z, y.astype(int)


def class_logits(images=4000, classes=5, temperature=1.0, seed=0):
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(images, classes)) * 2
    labels = (z + generator.gumbel(size=z.shape)).argmax(axis=1)
    return temperature * z, labels


def test_error_of_classes_by_hand():
    # Bins of 1/15: 0.6 = 9/15 is the upper end of the ninth, 0.61 lies in the tenth.
    p = np.array([[0.6, 0.4], [0.41, 0.59], [0.61, 0.39], [0.0, 1.0]])
    y = [0, 0, 0, 1]
    table = reliability_table(p, y)
    assert table["count"].to_numpy().nonzero()[0].tolist() == [8, 9, 14]
    ninth = table.iloc[8]
    assert (ninth["count"], ninth["accuracy"]) == (2, 0.5)
    assert ninth["confidence"] == pytest.approx(0.595)
    assert (ninth["low"], ninth["high"]) == (8 / 15, 9 / 15)
    expected = 2 / 4 * abs(0.5 - 0.595) + 1 / 4 * 0.39 + 1 / 4 * 0
    assert calibration_error(p, y) == pytest.approx(expected)
    assert np.isnan(table["accuracy"][0])


@pytest.mark.parametrize("bins", [1, 2, 3, 7, 10, 15, 30])
def test_ends_of_bins_belong_to_the_bin_below(bins):
    ends = np.arange(1, bins + 1) / bins
    table = reliability_table(ends, np.ones(bins), kind="positive", bins=bins)
    assert table["count"].tolist() == [1] * bins
    above = np.nextafter(ends[:-1], 1)
    table = (
        reliability_table(above, np.ones(bins - 1), kind="positive", bins=bins)
        if bins > 1
        else table
    )
    assert table["count"].tolist()[1:] == [1] * (bins - 1)


def test_error_of_attributes_by_hand():
    p = np.array([[0.5, 0.9], [0.7, 0.8], [0.3, 0.2]])
    y = np.array([[1, 1], [1, 0], [1, 0]])
    table = reliability_table(p, y)
    first = table[table["attribute"] == 0]
    # 0.5 belongs to the first bin and is right, since it decides for the attribute; 0.7 = 21 / 30
    # and 1 - 0.3 are the end of the sixth bin, one right, one wrong.
    assert first["count"].tolist() == [1, 0, 0, 0, 0, 2, *[0] * 9]
    assert first["accuracy"].iloc[0] == 1
    assert (first["low"].iloc[0], first["high"].iloc[-1]) == (0.5, 1)
    own = 1 / 3 * 0.5 + 2 / 3 * abs(0.5 - 0.7)
    # 0.9 right, alone; 0.8 twice, one right.
    other = 1 / 3 * 0.1 + 2 / 3 * 0.3
    assert calibration_error(p, y) == pytest.approx((own + other) / 2)
    assert calibration_error(p[:, 0], y[:, 0]) == pytest.approx(own)


def test_error_of_the_positive_class_by_hand():
    p, y = np.array([0.0, 0.05, 0.2, 0.2, 1.0]), np.array([0, 1, 0, 1, 1])
    table = reliability_table(p, y, kind="positive")
    assert table["count"].tolist() == [2, 0, 2, *[0] * 11, 1]
    expected = 2 / 5 * (0.5 - 0.025) + 2 / 5 * 0.3
    assert calibration_error(p, y, kind="positive") == pytest.approx(expected)


def test_pooled_bins_hold_all_attributes():
    z, y = binary_logits(200)
    p = special.expit(z)
    apart, pooled = reliability_table(p, y), reliability_table(p, y, pooled=True)
    assert pooled["count"].tolist() == apart.groupby("bin")["count"].sum().tolist()
    assert pooled["count"].sum() == p.size
    right = (apart["accuracy"] * apart["count"]).groupby(apart["bin"]).sum()
    held = pooled["count"] > 0
    assert (right / pooled["count"])[held].to_numpy() == pytest.approx(pooled["accuracy"][held])


@pytest.mark.parametrize("kind", ["confidence", "positive"])
def test_perfect_forecasts_are_calibrated(kind):
    # The mean over bins of |accuracy - confidence| is at most sum_b n_b / N sqrt(v / n_b) with v =
    # 1 / 4 the largest variance, so sqrt(bins / N) / 2 by Jensen; by Hoeffding the mean over N
    # images moves by 1 / N per image, exceeding it by t with probability exp(-2 N t^2).
    images, bins = 20_000, 15
    z, y = binary_logits(images, 1)
    bound = np.sqrt(bins / images) / 2 + np.sqrt(np.log(1e6) / (2 * images))
    assert calibration_error(special.expit(z), y, kind=kind) < bound
    assert calibration_error(special.expit(3 * z), y, kind=kind) > 2 * bound


def test_perfect_class_forecasts_are_calibrated():
    images = 20_000
    z, y = class_logits(images)
    bound = np.sqrt(15 / images) / 2 + np.sqrt(np.log(1e6) / (2 * images))
    assert calibration_error(special.softmax(z, axis=1), y) < bound
    assert calibration_error(special.softmax(3 * z, axis=1), y) > 2 * bound


def test_scores_are_those_of_scikit_learn():
    z, y = binary_logits(300, 2, 1.7)
    p = special.expit(z)
    brier = [metrics.brier_score_loss(y[:, k], p[:, k]) for k in range(2)]
    assert brier_score(p, y) == pytest.approx(np.mean(brier))
    loss = [metrics.log_loss(y[:, k], p[:, k]) for k in range(2)]
    assert negative_log_likelihood(z, y) == pytest.approx(np.mean(loss))
    z, y = class_logits(300, 4, 1.7)
    p = special.softmax(z, axis=1)
    assert negative_log_likelihood(torch.as_tensor(z), y) == pytest.approx(metrics.log_loss(y, p))
    squares = sum(metrics.brier_score_loss(y == k, p[:, k]) for k in range(4))
    assert brier_score(p, torch.as_tensor(y)) == pytest.approx(squares)


def test_likelihood_of_large_logits_is_exact():
    assert negative_log_likelihood([[800.0]], [[0]]) == 800
    assert negative_log_likelihood([[800.0, 0.0]], [1]) == 800


def test_two_classes_are_one_attribute():
    z, y = binary_logits(500, 1)
    both = np.hstack([np.zeros_like(z), z])
    p = special.softmax(both, axis=1)
    assert negative_log_likelihood(both, y[:, 0]) == pytest.approx(negative_log_likelihood(z, y))
    assert brier_score(p, y[:, 0]) == pytest.approx(2 * brier_score(special.expit(z), y))
    assert fit_temperature(both, y[:, 0]).value == pytest.approx(fit_temperature(z, y).value)


@pytest.mark.parametrize("kind", [binary_logits, class_logits])
@pytest.mark.parametrize("planted", [0.4, 1.0, 3.0])
def test_temperature_is_recovered(kind, planted):
    z, y = kind(temperature=planted)
    found = fit_temperature(z, y)
    beta = 1 / found.value
    # The estimate's variance is the inverse of the information N mean(Var z under the forecast).
    if y.ndim == 2:
        p = special.expit(z / planted)
        information = (p * (1 - p) * z**2).sum()
    else:
        p = special.softmax(z / planted, axis=1)
        information = ((p * z**2).sum(1) - (p * z).sum(1) ** 2).sum()
    assert abs(beta - 1 / planted) < 5 / np.sqrt(information)
    assert not found.at_limit
    assert found.after <= found.before
    assert found.before == negative_log_likelihood(z, y)
    assert found.after == pytest.approx(negative_log_likelihood(found.scale(z), y), rel=1e-12)


@pytest.mark.parametrize("kind", [binary_logits, class_logits])
def test_temperature_is_the_minimum(kind):
    z, y = kind(300, temperature=2.5)
    beta = 1 / fit_temperature(z, y).value

    def loss(b):
        return negative_log_likelihood(b * z, y)

    reference = optimize.minimize_scalar(loss, bounds=(0.01, 10), method="bounded")
    # A search by values finds the minimum to the root of the rounding of values.
    assert beta == pytest.approx(reference.x, rel=1e-5)
    if y.ndim == 2:
        gradient = ((special.expit(beta * z) - y) * z).mean()
    else:
        p = special.softmax(beta * z, axis=1)
        gradient = ((p * z).sum(1) - z[np.arange(300), y]).mean()
    assert abs(gradient) < 1e-13 * np.abs(z).max() * 10


@pytest.mark.parametrize("seed", range(20))
def test_temperature_never_raises_the_loss(seed):
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(6, 3)) * generator.choice([0.01, 1, 50])
    for y in (generator.integers(2, size=(6, 3)), generator.integers(3, size=6)):
        found = fit_temperature(z, y)
        assert found.after <= found.before
        assert 1e-3 <= found.value <= 1e3 * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_loss_is_not_raised_where_the_temperature_is_one_already(seed):
    z, y = binary_logits(50, 1, seed=seed)
    scaled = fit_temperature(z, y).scale(z)
    found = fit_temperature(scaled, y)
    assert found.value == pytest.approx(1)
    assert found.after <= found.before


def test_temperatures_at_the_limits():
    z = np.array([[2.0], [-1.0]])
    right = fit_temperature(z, [[1], [0]])
    assert (right.value, right.at_limit) == (1e-3, True)
    wrong = fit_temperature(z, [[0], [1]])
    assert wrong.value == pytest.approx(1e3)
    assert wrong.at_limit
    assert right.after <= right.before
    nothing = fit_temperature(np.zeros((3, 2)), [0, 1, 1])
    assert (nothing.value, nothing.at_limit) == (1, False)
    assert nothing.after == pytest.approx(np.log(2))


def test_decisions_survive_the_temperature():
    z, y = class_logits(100, temperature=4)
    assert (fit_temperature(z, y).scale(z).argmax(1) == z.argmax(1)).all()


def test_classes_that_are_ruled_out_count_for_nothing():
    z, y = class_logits(200, 3, 2.0)
    more = np.hstack([z, np.full((200, 2), -np.inf)])
    assert negative_log_likelihood(more, y) == pytest.approx(negative_log_likelihood(z, y))
    assert fit_temperature(more, y).value == pytest.approx(fit_temperature(z, y).value)
    p, q = (special.softmax(v, axis=1) for v in (z, more))
    assert calibration_error(q, y) == pytest.approx(calibration_error(p, y))
    assert brier_score(q, y) == pytest.approx(brier_score(p, y))
    with pytest.raises(ValueError, match="own class must be finite: 1 of 1 are ruled out"):
        negative_log_likelihood([[0.0, -np.inf]], [1])


def test_order_and_names_change_nothing():
    z, y = class_logits(300)
    p = special.softmax(z, axis=1)
    rows, names = np.random.default_rng(0).permutation(300), np.array([3, 0, 4, 1, 2])
    renamed = np.empty_like(p)
    renamed[:, names] = p
    expected = calibration_error(p, y)
    assert calibration_error(p[rows], y[rows]) == pytest.approx(expected)
    assert calibration_error(renamed, names[y]) == pytest.approx(expected)
    z, y = binary_logits(300)
    p = special.expit(z)
    # Confidence is that of the decision, whichever of the two labels is called 1.
    assert calibration_error(1 - p, 1 - y) == pytest.approx(calibration_error(p, y))
    assert calibration_error(p[rows], y[rows]) == pytest.approx(calibration_error(p, y))
    assert fit_temperature(z[rows], y[rows]).value == pytest.approx(fit_temperature(z, y).value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibration_error([[0.5, 0.5]], [0], kind="odd"), "unknown kind 'odd'"),
        (lambda: calibration_error([[0.5, 0.5]], [0], kind="positive"), "'confidence' for classes"),
        (lambda: calibration_error([[0.5, 0.2]], [0]), "add up to 1: got 0.7; for binary"),
        (lambda: calibration_error([[1.5, -0.5]], [0]), r"\[0, 1\]: got 1.5"),
        (lambda: calibration_error([0.5, np.nan], [0, 1]), "finite"),
        (lambda: calibration_error(np.zeros((0, 2)), np.zeros(0)), "at least one image"),
        (lambda: calibration_error([0.5], [0], bins=0), "bins must be at least 1"),
        (lambda: reliability_table([[0.5, 0.5]], [2]), "0 to 1: got 2"),
        (lambda: brier_score([[0.5]], [[0.5]]), "labels must be 0 or 1: got 0.5"),
        (lambda: brier_score([0.5, 2], [0, 1]), r"probabilities must lie in \[0, 1\]"),
        (lambda: negative_log_likelihood([[np.nan, 1]], [0]), "numbers, or -inf"),
        (lambda: negative_log_likelihood([1.0, -np.inf], [0, 1]), "logits must be finite"),
        (lambda: fit_temperature([[1.0, 2.0]], [[1]]), "one shape"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
