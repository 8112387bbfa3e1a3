"""How well attributes and classes are told apart, and how fast that is learned.

Attributes are binary: probabilities and labels (image, attribute), or (image,) for a single one. An
image is taken to have an attribute where its probability is at least the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctxrnn._checks import check_fraction, check_positive

from ._scores import attribute_arrays, check_both_classes, class_arrays, numbers
from .fields import Values

EPSILON = 1e-7
"""Keeps ratios of counts from 0 / 0."""


@dataclass(frozen=True)
class AttributeScores:
    """Scores of each attribute over all images.

        precision = TP / (predicted positives + eps)      recall = TP / (positives + eps)
        f1 = 2 precision recall / (precision + recall + eps),      eps = 1e-7

    An attribute that is never predicted has precision 0, not NaN (Pascal et al. 2021, AAAI).

    Attributes:
        precision: (attribute,).
        recall: (attribute,).
        f1: (attribute,).
        accuracy: (attribute,).
        balanced_accuracy: Mean of recall and specificity; NaN where images are all of one class.
        thresholds: The thresholds that were used, (attribute,).

    Example: that of `attribute_scores`.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    accuracy: np.ndarray
    balanced_accuracy: np.ndarray
    thresholds: np.ndarray

    def macro(self) -> dict[str, float]:
        """Return the mean of every score over attributes: the mean of f1, not f1 of means.

        Balanced accuracy is the mean over attributes that have both classes.
        """
        names = ("precision", "recall", "f1", "accuracy")
        means = {name: float(getattr(self, name).mean()) for name in names}
        known = self.balanced_accuracy[~np.isnan(self.balanced_accuracy)]
        return {**means, "balanced_accuracy": float(known.mean()) if known.size else float("nan")}


def attribute_scores(
    probabilities: Values, labels: Values, thresholds: float | Values = 0.5
) -> AttributeScores:
    """Score the decisions on every attribute over a whole split.

    Args:
        probabilities: Of the attribute, (image, attribute), or (image,) for one.
        labels: 0 or 1, likewise.
        thresholds: One for all attributes, or one for each, e.g. from `tuned_thresholds` on other
            images.

    Raises:
        ValueError: If shapes differ, there is no image, probabilities lie outside [0, 1] or labels
            are other than 0 and 1.

    Example:
        >>> from ctxrnn.analysis import attribute_scores
        >>> probabilities, labels = [0.9, 0.8, 0.6, 0.3, 0.1], [1, 1, 0, 1, 0]
        >>> scores = attribute_scores(probabilities, labels)  # 2 of 3 taken are right, 2 of 3 found
        >>> scores.precision.round(3).tolist(), scores.recall.round(3).tolist()
        ([0.667], [0.667])
        >>> round(scores.macro()["accuracy"], 3)  # mean over attributes; here there is one
        0.6
    """
    p, y = attribute_arrays(probabilities, labels)
    cuts = numbers(thresholds, "thresholds")
    if cuts.shape not in {(), (p.shape[1],)}:
        raise ValueError(
            f"thresholds must be one number or one for each of {p.shape[1]} attributes: got shape "
            f"{cuts.shape}"
        )
    chosen = p >= cuts
    positives, found = y.sum(axis=0), chosen.sum(axis=0)
    hits = (chosen & y).sum(axis=0)
    precision, recall = hits / (found + EPSILON), hits / (positives + EPSILON)
    negatives = len(y) - positives
    both = (positives > 0) & (negatives > 0)
    sensitivity = hits / np.maximum(positives, 1)
    specificity = (negatives - (found - hits)) / np.maximum(negatives, 1)
    return AttributeScores(
        precision,
        recall,
        2 * precision * recall / (precision + recall + EPSILON),
        (chosen == y).mean(axis=0),
        np.where(both, (sensitivity + specificity) / 2, np.nan),
        np.broadcast_to(cuts, p.shape[1:]).copy(),
    )


def average_precision(
    probabilities: Values, labels: Values, *, skip_undefined: bool = False
) -> np.ndarray:
    """Return the average precision of every attribute (scikit-learn's), free of a threshold.

    Its mean over attributes is the mean average precision.

    Args:
        probabilities: (image, attribute), or (image,) for one.
        labels: 0 or 1, likewise.
        skip_undefined: Whether an attribute whose images are all of one class gives NaN instead of
            an error.

    Returns:
        (attribute,).

    Raises:
        ValueError: As `attribute_scores`; if an attribute's images are all of one class, unless
            `skip_undefined`.

    Example:
        >>> from ctxrnn.analysis import average_precision
        >>> probabilities, labels = [0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]
        >>> average_precision(probabilities, labels).round(3).tolist()  # (1 / 1 + 2 / 3) / 2
        [0.833]
    """
    from sklearn.metrics import average_precision_score

    p, y = attribute_arrays(probabilities, labels)
    known = check_both_classes(y, "average precision", skip_undefined)
    found = np.full(p.shape[1], np.nan)
    for column in np.flatnonzero(known):
        found[column] = average_precision_score(y[:, column], p[:, column])
    return found


def tuned_thresholds(probabilities: Values, labels: Values) -> np.ndarray:
    """Return the threshold of every attribute that maximises f1 on these images.

    Every cut between different probabilities is tried. The threshold lies halfway between those on
    both sides of the best cut, of equal cuts the highest one; it is 0 where all images are best
    taken as positive, and 0.5 for an attribute without positives. Tune on validation images: on
    the images it was tuned on, f1 is the largest possible one.

    Args:
        probabilities: (image, attribute), or (image,) for one.
        labels: 0 or 1, likewise.

    Returns:
        (attribute,).

    Raises:
        ValueError: As `attribute_scores`.

    Example:
        >>> from ctxrnn.analysis import attribute_scores, tuned_thresholds
        >>> probabilities, labels = [0.9, 0.6, 0.4, 0.1], [1, 1, 1, 0]
        >>> cuts = tuned_thresholds(probabilities, labels)
        >>> cuts.tolist()
        [0.25]
        >>> attribute_scores(probabilities, labels).f1.round(3).tolist()  # 0.5 misses one
        [0.8]
        >>> attribute_scores(probabilities, labels, cuts).f1.round(3).tolist()
        [1.0]
    """
    p, y = attribute_arrays(probabilities, labels)
    order = np.argsort(-p, axis=0, kind="stable")
    scores, truth = (np.take_along_axis(z, order, axis=0) for z in (p, y))
    below = np.vstack([scores[1:], np.zeros(p.shape[1])])
    hits, positives = np.cumsum(truth, axis=0), truth.sum(axis=0)
    # Of integers, so that equal ones are equal; the first n images are taken as positive.
    f1 = 2 * hits / (np.arange(1, len(p) + 1)[:, None] + positives)
    last = np.arange(len(p))[:, None] == len(p) - 1
    f1 = np.where((scores > below) | last, f1, -1.0)
    best = (f1.argmax(axis=0), np.arange(p.shape[1]))
    high, low = scores[best], below[best]
    middle = low + (high - low) / 2
    cuts = np.where(middle > low, middle, high)
    cuts = np.where(best[0] == len(p) - 1, 0.0, cuts)
    return np.where(positives > 0, cuts, 0.5)


def class_accuracy(scores: Values, labels: Values, *, allowed: Values | None = None) -> float:
    """Return the share of images whose class has the largest score.

    Args:
        scores: Logits or probabilities, (image, class).
        labels: Numbers of the classes, (image,).
        allowed: Whether a class may be chosen: (class,), or (image, class), e.g. those of the
            image's superclass. Images whose class is not allowed are refused. None allows all.

    Raises:
        ValueError: If shapes do not fit, there is no image, or scores are NaN.

    Example:
        >>> from ctxrnn.analysis import class_accuracy
        >>> scores, labels = [[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]], [1, 1]
        >>> class_accuracy(scores, labels)  # the second image is taken for class 2
        0.5
        >>> class_accuracy(scores, labels, allowed=[1, 1, 0])  # a choice between classes 0 and 1
        1.0
    """
    z, y = class_arrays(scores, labels, "scores")
    if allowed is None:
        return float((z.argmax(axis=1) == y).mean())
    given = numbers(allowed, "allowed")
    if given.shape not in {z.shape, z.shape[1:]} or not np.isin(given, (0, 1)).all():
        raise ValueError(
            f"allowed must be true or false for each of {z.shape[1]} classes, or (image, class), "
            f"{z.shape}: got shape {given.shape}"
        )
    mask = np.broadcast_to(given == 1, z.shape)
    out = ~mask[np.arange(len(y)), y]
    if out.any():
        raise ValueError(
            f"allowed must hold every image's own class: it lacks those of {int(out.sum())} of "
            f"{len(y)} images"
        )
    # Of the allowed classes the first one of the largest score, even where that is -inf.
    ranked = np.where(mask, z, -np.inf)
    best = mask & (ranked == ranked.max(axis=1, keepdims=True))
    return float((best.argmax(axis=1) == y).mean())


def first_reached(steps: Values, values: Values, reference: float, share: float = 0.95) -> float:
    """Return the first evaluation at which a curve reaches a share of a reference.

    It is a step that was evaluated, without interpolation between evaluations.

    Args:
        steps: Steps or epochs of the evaluations, rising.
        values: Validation f1 at each; NaN reaches nothing.
        reference: The best value of the reference, e.g. of "attention".
        share: Share of it.

    Returns:
        The step, or NaN where the curve does not reach it.

    Raises:
        ValueError: If the rows differ in length, steps do not rise, or the reference is not
            positive.

    Example:
        >>> from ctxrnn.analysis import first_reached
        >>> steps, f1 = [0, 100, 200, 300], [0.1, 0.5, 0.58, 0.6]
        >>> first_reached(steps, f1, reference=0.6)  # 0.95 of it is 0.57
        200.0
    """
    x, y = _curve(steps, values)
    check_positive("reference", reference)
    check_fraction("share", share)
    reached = np.flatnonzero(y >= share * reference)
    return float(x[reached[0]]) if reached.size else float("nan")


def early_area(epochs: Values, values: Values, until: float = 3.0) -> float:
    """Return the area under a curve of validation f1 over the first epochs.

    Trapezoids from epoch 0 on, the value at `until` interpolated between evaluations; divided by
    `until` it is the mean f1 over these epochs.

    Args:
        epochs: Epochs of the evaluations, rising, from 0 (before the first step); parts of an epoch
            count, so that evaluations by step are given as step / steps per epoch.
        values: Validation f1 at each.
        until: Last epoch of the area.

    Returns:
        The area, f1 times epochs.

    Raises:
        ValueError: If the curve does not begin at 0 or ends before `until`.

    Example:
        >>> from ctxrnn.analysis import early_area
        >>> epochs, f1 = [0, 1, 2, 3], [0.0, 0.6, 0.6, 0.6]
        >>> round(early_area(epochs, f1), 6)  # 0.3 in the first epoch, 0.6 in each of the others
        1.5
    """
    x, y = _curve(epochs, values)
    check_positive("until", until)
    if x[0] != 0 or x[-1] < until:
        raise ValueError(
            f"epochs must reach from 0 to {until:g}: got {x[0]:g} to {x[-1]:g}; evaluate before "
            "the first step, or take a smaller `until`"
        )
    inside = x < until
    x, y = np.append(x[inside], until), np.append(y[inside], np.interp(until, x, y))
    return float(np.trapezoid(y, x))


def _curve(steps: Values, values: Values) -> tuple[np.ndarray, np.ndarray]:
    x, y = numbers(steps, "steps"), numbers(values, "values", finite=False)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise ValueError(
            f"steps and values must be two rows of one length: got {x.shape} and {y.shape}"
        )
    if not (np.diff(x) > 0).all():
        raise ValueError("steps must rise: sort the evaluations, and give each step once")
    return x, y
