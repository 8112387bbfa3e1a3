"""Entropy of contexts and what they tell: closed forms, an independent estimate, errors."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mutual_info_score

from ctxrnn.analysis import context_entropy, context_information


def test_entropy_of_one_and_of_all():
    c = np.array([[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(context_entropy(c), [0, 2, 1])
    draw = np.random.default_rng(0).dirichlet(np.ones(5), size=(3, 4))
    np.testing.assert_allclose(context_entropy(draw), stats.entropy(draw, base=2, axis=-1))


def test_information_of_hard_contexts_is_that_of_two_labels():
    draw = np.random.default_rng(1)
    k, y = draw.integers(0, 4, 500), draw.integers(0, 3, 500)
    k = np.where(draw.random(500) < 0.5, y, k)
    found = context_information(np.eye(4)[k], y)
    assert found == pytest.approx(mutual_info_score(k, y) / np.log(2), abs=1e-12)


def test_information_by_hand():
    # Label 0 always draws context 0, label 1 either: p = (1/2, 0), (1/4, 1/4).
    c = np.array([[[1.0, 0.0], [0.5, 0.5]]] * 3)
    y = np.array([[0, 1]] * 3)
    expected = 0.5 * np.log2(0.5 / (0.5 * 0.75)) + 0.25 * np.log2(0.25 / (0.5 * 0.75))
    expected += 0.25 * np.log2(0.25 / (0.5 * 0.25))
    assert context_information(c, y) == pytest.approx(expected)
    assert context_information(np.full((6, 2), 0.5), [0, 1, 2, 0, 1, 2]) == 0


def test_contexts_without_relation_tell_what_chance_tells():
    draw = np.random.default_rng(2)
    n, K, Y = 2000, 4, 6
    values = [
        context_information(np.eye(K)[draw.integers(0, K, n)], draw.integers(0, Y, n))
        for _ in range(50)
    ]
    # 2 n ln 2 I is chi-squared with (K - 1)(Y - 1) degrees of freedom.
    freedom = (K - 1) * (Y - 1)
    mean = freedom / (2 * n * np.log(2))
    spread = np.sqrt(2 * freedom / 50) / (2 * n * np.log(2))
    assert np.mean(values) == pytest.approx(mean, abs=5 * spread)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: context_entropy(np.ones((3, 2))), "add up to 1"),
        (lambda: context_entropy(np.array([[1.5, -0.5]])), "values from -0.5"),
        (lambda: context_entropy(np.ones(3) / 3), r"must be \(..., context\)"),
        (lambda: context_information(np.eye(3), [0, 1]), r"shape of contexts .* \(3,\): got \(2,"),
        (lambda: context_entropy(np.array([[np.nan, 1.0]])), "finite"),
    ],
)
def test_what_is_no_context(call, message):
    with pytest.raises(ValueError, match=message):
        call()
