"""Scores of attributes and classes: by hand, against scikit-learn, thresholds by brute force."""

import numpy as np
import pytest
import torch
from sklearn import metrics

from ctxrnn.analysis import (
    attribute_scores,
    average_precision,
    class_accuracy,
    early_area,
    first_reached,
    tuned_thresholds,
)

# Attribute 0: TP 2, FP 1, FN 1, TN 1. Attribute 1: never predicted. Attribute 2: all right.
P = np.array([[0.9, 0.1, 0.8], [0.5, 0.2, 0.3], [0.7, 0.3, 0.6], [0.4, 0.4, 0.1], [0.1, 0.0, 0.2]])
Y = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 0, 0]])


def forecasts(images=200, attributes=7, seed=0, decimals=2):
    """Probabilities with ties, and labels that depend on them."""
    generator = np.random.default_rng(seed)
    p = generator.beta(0.6, 2, size=(images, attributes))
    return p.round(decimals), (generator.random(p.shape) < p).astype(int)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, np.ndarray.tolist])
def test_three_attributes_by_hand(kind):
    found = attribute_scores(kind(P), kind(Y))
    # The eps of 1e-7 beside counts of at least 1 takes away less than 2e-7.
    assert found.precision == pytest.approx([2 / 3, 0, 1], abs=2e-7)
    assert found.recall == pytest.approx([2 / 3, 0, 1], abs=2e-7)
    assert found.f1 == pytest.approx([2 / 3, 0, 1], abs=2e-7)
    assert found.precision[2] == 2 / (2 + 1e-7)
    assert found.accuracy == pytest.approx([0.6, 0.6, 1])
    assert found.balanced_accuracy == pytest.approx([(2 / 3 + 1 / 2) / 2, 0.5, 1])
    macro = found.macro()
    assert macro["f1"] == pytest.approx(5 / 9, abs=2e-7)
    assert macro["accuracy"] == pytest.approx(2.2 / 3)
    assert macro["balanced_accuracy"] == pytest.approx((7 / 12 + 0.5 + 1) / 3)


def test_macro_f1_is_the_mean_of_f1():
    p, y = np.array([[0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]), np.array([[1, 0], [0, 1], [0, 1]])
    macro = attribute_scores(p, y).macro()
    # Precision 1/2 and 1, recall 1 and 1: the f1 of the means would be 6 / 7.
    assert macro["f1"] == pytest.approx((2 / 3 + 1) / 2, abs=2e-7)


def test_scores_are_those_of_scikit_learn():
    p, y = forecasts()
    found, chosen = attribute_scores(p, y), (p >= 0.5).astype(int)
    for column in range(p.shape[1]):
        expected = metrics.precision_recall_fscore_support(
            y[:, column], chosen[:, column], average="binary", zero_division=0
        )
        mine = [getattr(found, name)[column] for name in ("precision", "recall", "f1")]
        assert mine == pytest.approx(expected[:3], abs=2e-7)
        balanced = metrics.balanced_accuracy_score(y[:, column], chosen[:, column])
        assert found.balanced_accuracy[column] == pytest.approx(balanced)
        accuracy = metrics.accuracy_score(y[:, column], chosen[:, column])
        assert found.accuracy[column] == pytest.approx(accuracy)


def test_average_precision_is_that_of_scikit_learn():
    p, y = forecasts()
    found = average_precision(torch.as_tensor(p), y)
    expected = [metrics.average_precision_score(y[:, k], p[:, k]) for k in range(7)]
    assert found == pytest.approx(expected)
    assert found.mean() == pytest.approx(metrics.average_precision_score(y, p, average="macro"))


def test_average_precision_needs_no_scale():
    p, y = forecasts()
    assert average_precision(p**3, y) == pytest.approx(average_precision(p, y))


def test_attributes_of_one_class():
    y = np.array([[1, 0, 1], [1, 0, 0]])
    p = np.array([[0.9, 0.9, 0.9], [0.9, 0.9, 0.9]])
    with pytest.raises(ValueError, match=r"all are of one class for 0, 1 of 3; leave these out"):
        average_precision(p, y)
    found = average_precision(p, y, skip_undefined=True)
    assert np.isnan(found).tolist() == [True, True, False]
    scores = attribute_scores(p, y)
    assert np.isnan(scores.balanced_accuracy).tolist() == [True, True, False]
    assert scores.macro()["balanced_accuracy"] == 0.5
    assert scores.f1 == pytest.approx([1, 0, 2 / 3], abs=2e-7)
    assert np.isnan(attribute_scores(p[:, :1], y[:, :1]).macro()["balanced_accuracy"])


def best_by_brute_force(p, y):
    """Return the largest f1 over all thresholds: every probability, and halves between them."""
    levels = np.unique(p)
    cuts = np.concatenate([[0.0], levels, (levels[1:] + levels[:-1]) / 2, [1.0]])
    return max(metrics.f1_score(y, p >= cut, zero_division=0) for cut in cuts)


@pytest.mark.parametrize("seed", range(5))
def test_tuned_thresholds_are_the_best_of_all(seed):
    p, y = forecasts(images=30, attributes=12, seed=seed, decimals=1)
    y[:, 0] = 0
    y[0, 1:] = 1
    cuts = tuned_thresholds(p, y)
    found = attribute_scores(p, y, cuts)
    assert (found.thresholds == cuts).all()
    best = [best_by_brute_force(p[:, k], y[:, k]) for k in range(12)]
    assert found.f1 == pytest.approx(best, abs=2e-7)
    assert cuts[0] == 0.5
    assert (found.f1 >= attribute_scores(p, y).f1 - 1e-12).all()


def test_thresholds_by_hand():
    p = np.array([[0.9, 0.0, 0.6, 0.3], [0.4, 0.0, 0.6, 0.3], [0.2, 0.7, 0.1, 0.3]])
    y = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 0, 0]])
    # Between 0.4 and 0.2; all positive, even at p = 0; one score for images of both kinds, twice.
    assert tuned_thresholds(p, y) == pytest.approx([0.3, 0, 0.35, 0])


def test_the_highest_of_equal_cuts_is_taken():
    # One image of one positive: f1 = 2 / 3; all four, with two positives: f1 = 2 / 3 too.
    p = np.array([0.8, 0.6, 0.4, 0.2])
    y = np.array([1, 0, 0, 1])
    assert tuned_thresholds(p, y) == pytest.approx([0.7])


@pytest.mark.parametrize("low", [0.3, np.nextafter(0.3, 1)])
def test_neighbouring_numbers_are_told_apart(low):
    # Halfway between neighbours rounds to the lower one for one of both.
    high = np.nextafter(low, 1)
    p, y = np.array([high, low]), np.array([1, 0])
    assert attribute_scores(p, y, tuned_thresholds(p, y)).f1 == pytest.approx([1], abs=2e-7)


def test_order_of_images_and_attributes_changes_nothing():
    p, y = forecasts()
    rows, columns = np.random.default_rng(1).permutation(200), np.arange(7)[::-1]
    q, z = p[rows][:, columns], y[rows][:, columns]
    assert (tuned_thresholds(q, z)[columns] == tuned_thresholds(p, y)).all()
    assert average_precision(q, z)[columns] == pytest.approx(average_precision(p, y))
    for name, value in attribute_scores(p, y).macro().items():
        assert attribute_scores(q, z).macro()[name] == pytest.approx(value)


def test_class_accuracy_with_and_without_a_mask():
    z = np.array([[3.0, 2.0, 1.0], [0.0, 5.0, 4.0], [1.0, 2.0, 9.0]])
    y = [0, 2, 1]
    assert class_accuracy(z, y) == pytest.approx(1 / 3)
    own = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=bool)
    assert class_accuracy(z, torch.as_tensor(y), allowed=own) == 1
    assert class_accuracy(np.where(own, z, -np.inf), y) == 1
    assert class_accuracy(z, [0, 1, 1], allowed=[1, 1, 0]) == 1
    assert class_accuracy(np.full((1, 3), -np.inf), [1], allowed=[0, 1, 1]) == 1
    assert class_accuracy(z, y, allowed=np.ones(3)) == class_accuracy(z, y)


def test_the_class_of_every_image_must_be_allowed():
    with pytest.raises(ValueError, match="lacks those of 1 of 2 images"):
        class_accuracy(np.zeros((2, 3)), [0, 2], allowed=[1, 1, 0])
    with pytest.raises(ValueError, match=r"each of 3 classes, or \(image, class\), \(2, 3\): got"):
        class_accuracy(np.zeros((2, 3)), [0, 2], allowed=[1, 1])


def test_first_evaluation_that_reaches_a_share():
    steps, curve = [0, 50, 100, 150], [0.2, 0.5, np.nan, 0.8]
    assert first_reached(steps, curve, 0.5) == 50
    assert first_reached(steps, curve, 0.8, share=1) == 150
    assert first_reached(steps, curve, 0.2) == 0
    # 0.76 is reached at 150, though a line through the points crosses it before.
    assert first_reached(steps, curve, 0.8) == 150
    assert np.isnan(first_reached(steps, curve, 0.9))


def test_area_of_the_first_epochs():
    epochs, curve = [0, 0.5, 1, 2, 4], [0.0, 0.4, 0.4, 0.6, 1.0]
    # 0.1 + 0.2 + 0.5 up to epoch 2, then from 0.6 to 0.8, interpolated.
    assert early_area(epochs, curve) == pytest.approx(0.8 + 0.7)
    assert early_area(epochs, curve, until=0.5) == pytest.approx(0.1)
    assert early_area(epochs, curve, until=4) == pytest.approx(0.8 + 1.6)
    assert early_area([0, 3], [0.5, 0.5]) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attribute_scores([[0.5, 0.5]], [[1]]), r"one shape.*\(1, 2\) and \(1, 1\)"),
        (lambda: attribute_scores(np.zeros((0, 3)), np.zeros((0, 3))), "of at least one image"),
        (lambda: attribute_scores([0.2, np.nan], [0, 1]), "finite: 1 of 2 values are not"),
        (lambda: attribute_scores([0.2, 1.5], [0, 1]), r"\[0, 1\]: got 1.5.*are these logits"),
        (lambda: attribute_scores([0.2, -0.1], [0, 1]), r"\[0, 1\]: got -0.1"),
        (lambda: attribute_scores([0.2, 0.1], [-1, 1]), "labels must be 0 or 1: got -1; map"),
        (lambda: attribute_scores([[0.2, 0.1]], [[0, 1]], [0.1] * 3), "one for each of 2"),
        (lambda: tuned_thresholds([0.2, 2], [0, 1]), "probabilities must lie in"),
        (lambda: average_precision([0.2, np.inf], [0, 1]), "finite"),
        (lambda: class_accuracy([0.2, 0.1], [0, 1]), r"\(image, class\).*\(2,\) and \(2,\)"),
        (lambda: class_accuracy([[0.2, np.nan]], [0]), "numbers, or -inf: 1 of 2 are not"),
        (lambda: class_accuracy([[0.2, 0.1]], [2]), "0 to 1: got 2"),
        (lambda: class_accuracy([[0.2, 0.1]], [0.5]), "0 to 1: got 0.5"),
        (lambda: first_reached([0, 0], [1, 2], 1), "steps must rise"),
        (lambda: first_reached([0, 1], [1], 1), r"one length: got \(2,\) and \(1,\)"),
        (lambda: first_reached([0, 1], [1, 2], 0), "reference must be positive"),
        (lambda: early_area([1, 4], [0, 1]), "from 0 to 3: got 1 to 4"),
        (lambda: early_area([0, 2], [0, 1]), "from 0 to 3: got 0 to 2"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
