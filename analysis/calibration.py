"""Calibration: does a forecast of probability p come true in a fraction p of cases?

Labels of the same shape as the scores are those of binary attributes, (image, attribute); labels
with one axis fewer, (image,) beside (image, class), are numbers of classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, special
from torch import Tensor

from ctxrnn._checks import check_count, unknown_name

from ._scores import attribute_arrays, check_probabilities, class_arrays
from .fields import Values

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("confidence", "positive")
BETA = (1e-3, 1e3)
"""Range of the inverse temperature."""


def reliability_table(
    probabilities: Values,
    labels: Values,
    *,
    kind: str = "confidence",
    bins: int = 15,
    pooled: bool = False,
) -> pd.DataFrame:
    """Sort forecasts into bins of equal width; compare forecast and frequency in each.

    Bins are (low, high]; a forecast at the lower end of all belongs to the first one.

    Args:
        probabilities: Of attributes, (image, attribute) or (image,) for one, or of classes,
            (image, class).
        labels: 0 or 1 in the shape of the probabilities, or numbers of classes, (image,).
        kind: "confidence": of classes the largest probability, bins on (0, 1]; of attributes
            max(p, 1 - p), bins on (0.5, 1]; "accuracy" is the share of right decisions, p of 0.5
            deciding for the attribute. "positive" (attributes only): p itself, bins on (0, 1];
            "accuracy" is the frequency of the attribute.
        bins: Number of bins.
        pooled: Whether all attributes share one set of bins.

    Returns:
        One row per attribute and bin: attribute, bin, low, high, count, confidence (mean forecast),
        accuracy. Both are NaN in an empty bin. Classes, and pooled attributes, are attribute 0.

    Raises:
        ValueError: If shapes do not fit, there is no image, probabilities lie outside [0, 1], those
            of classes do not add up to 1, or labels are unknown.

    Example:
        >>> from ctxrnn.analysis import reliability_table
        >>> forecasts = [0.8] * 10 + [0.3] * 10
        >>> labels = [1] * 8 + [0] * 2 + [1] + [0] * 9  # 8 of the first ten, 1 of the others
        >>> table = reliability_table(forecasts, labels, kind="positive", bins=2)
        >>> print(table[["low", "high", "count", "confidence", "accuracy"]].round(2))
           low  high  count  confidence  accuracy
        0  0.0   0.5     10         0.3       0.1
        1  0.5   1.0     10         0.8       0.8
    """
    import pandas as pd

    forecast, right, low = _forecasts(probabilities, labels, kind)
    check_count("bins", bins)
    if pooled:
        forecast, right = forecast.reshape(-1, 1), right.reshape(-1, 1)
    # Rounded once, so that 0.2 is the end of the third of 15 bins on (0, 1].
    edges = (low * bins + (1 - low) * np.arange(bins + 1)) / bins
    place = np.maximum(np.searchsorted(edges, forecast, side="left") - 1, 0)
    attributes = forecast.shape[1]
    cell = (place + bins * np.arange(attributes)).ravel()
    count = np.bincount(cell, minlength=bins * attributes)
    held = np.where(count > 0, count, np.nan)
    return pd.DataFrame(
        {
            "attribute": np.repeat(np.arange(attributes), bins),
            "bin": np.tile(np.arange(bins), attributes),
            "low": np.tile(edges[:-1], attributes),
            "high": np.tile(edges[1:], attributes),
            "count": count,
            "confidence": np.bincount(cell, forecast.ravel(), len(count)) / held,
            "accuracy": np.bincount(cell, right.ravel(), len(count)) / held,
        }
    )


def calibration_error(
    probabilities: Values, labels: Values, *, kind: str = "confidence", bins: int = 15
) -> float:
    """Return the expected calibration error, of attributes its mean over them.

        ECE = sum_b n_b / N |accuracy_b - confidence_b|

    Its expectation is above 0 for perfect forecasts too, by about sqrt(2 / pi) sum_b n_b / N s_b
    with s_b the standard error of accuracy_b: compare at equal numbers of images (Guo et al. 2017,
    ICML).

    Args:
        probabilities: As for `reliability_table`.
        labels: Likewise.
        kind: Likewise.
        bins: Number of bins.

    Returns:
        ECE, between 0 and 1.

    Raises:
        ValueError: As `reliability_table`.

    Example:
        >>> from ctxrnn.analysis import calibration_error
        >>> forecasts = [0.8] * 10
        >>> round(calibration_error(forecasts, [1] * 8 + [0] * 2, kind="positive"), 6)
        0.0
        >>> round(calibration_error(forecasts, [1] * 5 + [0] * 5, kind="positive"), 6)
        0.3
    """
    table = reliability_table(probabilities, labels, kind=kind, bins=bins)
    gaps = (table["accuracy"] - table["confidence"]).abs() * table["count"]
    return float(gaps.sum() / table["count"].sum())


def brier_score(probabilities: Values, labels: Values) -> float:
    """Return the mean squared error of forecasts.

    Of attributes (p - y)^2, mean over images and attributes; of classes sum_c (p_c - y_c)^2, mean
    over images (Brier 1950), twice as large for two classes.

    Args:
        probabilities: As for `reliability_table`.
        labels: Likewise.

    Returns:
        The score: 0 is best; forecasts of 1/2 of an attribute have 1/4.

    Raises:
        ValueError: As `reliability_table`.

    Example:
        >>> from ctxrnn.analysis import brier_score
        >>> round(brier_score([0.9, 0.2], [1, 0]), 6)  # (0.01 + 0.04) / 2
        0.025
    """
    if _of_classes(probabilities, labels):
        p, y = _class_probabilities(probabilities, labels)
        return float(((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1).mean())
    p, y = attribute_arrays(probabilities, labels)
    return float(((p - y) ** 2).mean())


def negative_log_likelihood(logits: Values, labels: Values) -> float:
    """Return the mean cross-entropy in nats, from logits, over images (and attributes).

    Args:
        logits: (image, attribute), (image,) for one attribute, or (image, class); of classes that
            are ruled out -inf.
        labels: 0 or 1 in the shape of the logits, or numbers of classes, (image,).

    Returns:
        Nats per image (and attribute).

    Raises:
        ValueError: If shapes do not fit, there is no image, a logit is NaN, or that of an image's
            own class is not finite.

    Example:
        >>> from ctxrnn.analysis import negative_log_likelihood
        >>> round(negative_log_likelihood([[0.0, 0.0, 0.0, 0.0]], [2]), 3)  # log 4: a blind guess
        1.386
        >>> round(negative_log_likelihood([[0.0, 0.0, 9.0, 0.0]], [2]), 3)  # right, and sure
        0.0
    """
    return _likelihood(logits, labels)[0](1.0)


@dataclass(frozen=True)
class Temperature:
    """One scalar that logits are divided by.

    Attributes:
        value: T.
        before: Negative log-likelihood of the images it was fitted on, at T = 1.
        after: The same at T; never larger.
        at_limit: Whether T is at an end of [0.001, 1000]: all decisions are right, so that T goes
            to 0, or logits tell nothing, so that T goes to infinity.

    Example: that of `fit_temperature`.
    """

    value: float
    before: float
    after: float
    at_limit: bool

    def scale(self, logits: Values) -> np.ndarray:
        """Return logits / T; decisions stay the same."""
        given = logits.detach().cpu().numpy() if isinstance(logits, Tensor) else logits
        return np.asarray(given, dtype=float) / self.value


def fit_temperature(logits: Values, labels: Values) -> Temperature:
    """Fit the temperature T that minimises the negative log-likelihood of logits / T.

    In the inverse temperature b the loss is convex, with the derivative

        mean(sum_c softmax_c(b z) z_c - z_y)      (attributes: mean((sigmoid(b z) - y) z)),

    whose zero is found by bracketing (Brent's method) to rounding. One temperature is fitted for
    all attributes. Fit it on validation images (Guo et al. 2017, ICML).

    Args:
        logits: z, as for `negative_log_likelihood`.
        labels: Likewise.

    Raises:
        ValueError: As `negative_log_likelihood`.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import fit_temperature
        >>> logits = np.full(4, 2 * np.log(3))  # a probability of 0.9, but only 3 of 4 are right
        >>> temperature = fit_temperature(logits, [1, 1, 1, 0])
        >>> round(temperature.value, 3)
        2.0
        >>> (1 / (1 + np.exp(-temperature.scale(logits)))).round(3).tolist()
        [0.75, 0.75, 0.75, 0.75]
    """
    loss, slope = _likelihood(logits, labels)
    low, high = BETA
    if slope(high) <= 0 or slope(low) >= 0:
        # Logits that are all equal leave the loss as it is.
        flat = slope(low) == slope(high) == 0
        beta = 1.0 if flat else high if slope(high) <= 0 else low
    else:
        flat = False
        beta = float(optimize.brentq(slope, low, high, xtol=1e-15, rtol=1e-14, maxiter=500))
        # Rounding of the slope may put the zero beside 1.
        beta = min((beta, 1.0), key=loss)
    return Temperature(1 / beta, loss(1.0), loss(beta), beta in BETA and not flat)


Curve = Callable[[float], float]


def _likelihood(logits: Values, labels: Values) -> tuple[Curve, Curve]:
    """Return the loss as a function of the inverse temperature, and its derivative."""
    if not _of_classes(logits, labels):
        z, y = attribute_arrays(logits, labels, logits=True)
        signed = np.where(y, z, -z)
        return (
            lambda beta: float(np.logaddexp(0, -beta * signed).mean()),
            lambda beta: float(-(special.expit(-beta * signed) * signed).mean()),
        )
    z, labelled = class_arrays(logits, labels, "logits")
    own = z[np.arange(len(z)), labelled]
    if not np.isfinite(own).all():
        raise ValueError(
            f"logits of an image's own class must be finite: {int(np.isinf(own).sum())} of "
            f"{len(own)} are ruled out"
        )
    apart = z - own[:, None]
    known = np.where(np.isfinite(apart), apart, 0.0)
    return (
        lambda beta: float(special.logsumexp(beta * apart, axis=1).mean()),
        lambda beta: float((special.softmax(beta * apart, axis=1) * known).sum(axis=1).mean()),
    )


def _of_classes(scores: Values, labels: Values) -> bool:
    """Tell whether labels are numbers of classes."""
    return np.ndim(labels) == 1 and np.ndim(scores) == 2


def _forecasts(
    probabilities: Values, labels: Values, kind: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return forecasts, whether they came true, (image, attribute), and where bins begin."""
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    if _of_classes(probabilities, labels):
        if kind != "confidence":
            raise ValueError(f"kind must be 'confidence' for classes: got {kind!r}")
        p, y = _class_probabilities(probabilities, labels)
        return p.max(axis=1)[:, None], (p.argmax(axis=1) == y)[:, None], 0.0
    p, truth = attribute_arrays(probabilities, labels)
    if kind == "positive":
        return p, truth, 0.0
    return np.maximum(p, 1 - p), (p >= 0.5) == truth, 0.5


def _class_probabilities(probabilities: Values, labels: Values) -> tuple[np.ndarray, np.ndarray]:
    p, y = class_arrays(probabilities, labels, "probabilities")
    check_probabilities(p)
    # Of single precision, a softmax over C classes adds up to 1 within about C rounding errors.
    off = np.abs(p.sum(axis=1) - 1)
    if (off > 1e-6 * max(p.shape[1], 10)).any():
        raise ValueError(
            "probabilities of an image's classes must add up to 1: got "
            f"{p.sum(axis=1)[off.argmax()]:g}; for binary attributes give labels (image, attribute)"
        )
    return p, y
