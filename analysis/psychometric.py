"""Psychometric functions: the share of choices against signed evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import optimize, special, stats

from ctxrnn._checks import unknown_name

from ._bootstrap import check_level

if TYPE_CHECKING:
    import pandas as pd

Link = Literal["logistic", "gaussian"]
Lapses = Literal["none", "equal", "free"]
Numbers = Sequence[float] | np.ndarray

_LINKS: tuple[Link, ...] = ("logistic", "gaussian")
_LAPSES: dict[Lapses, int] = {"none": 0, "equal": 1, "free": 2}
# Strengths at which F lies nearer to 0 or 1 than this tell nothing of its slope.
_FLAT = 1e-4
_AT_END = 1e-6
_CONSTANT = "no choice varies"


@dataclass(frozen=True)
class Psychometric:
    """A psychometric function p(s) = low + (1 - low - high) F(slope (s - bias)).

    Attributes:
        bias: Strength s at which F is 1/2 (point of subjective equality); NaN for slope 0.
        slope: Per unit of strength: of the logit ("logistic"), or 1 / standard deviation
            ("gaussian"); below 0 where choices fall with strength.
        low: Lapse rate towards choosing, p where F is 0.
        high: Lapse rate away from it, 1 - p where F is 1.
        link: F, "logistic" or "gaussian".
        converged: Whether the maximum of the likelihood was found within bounds.
        reason: Why not, if so; "" otherwise.
        deviance: 2 (log-likelihood of the shares themselves - that of the fit).
        freedom: Its degrees of freedom: strengths - parameters.
        intercept: -slope bias, which is defined for slope 0 too.

    Example: that of `fit_psychometric`.
    """

    bias: float
    slope: float
    low: float
    high: float
    link: Link
    converged: bool
    reason: str
    deviance: float
    freedom: int
    intercept: float

    def __call__(self, strengths: Numbers) -> np.ndarray:
        """Return p at strengths."""
        argument = self.intercept + self.slope * np.asarray(strengths, dtype=float)
        return np.asarray(self.low + (1 - self.low - self.high) * _link(argument, self.link))


def fit_psychometric(
    strengths: Numbers,
    chosen: Numbers,
    trials: Numbers | None = None,
    *,
    link: Link = "logistic",
    lapses: Lapses = "equal",
    most: float = 0.2,
) -> Psychometric:
    """Fit a psychometric function by maximum likelihood of binomial counts.

        p(s) = low + (1 - low - high) F(slope (s - bias))

    Wichmann and Hill (2001, Perception & Psychophysics 63:1293). Without lapses the likelihood is
    concave and has one maximum; with lapses the best of several beginnings is taken. There is no
    maximum where a threshold parts all trials (perfect choices): `converged` is then False, as it
    is where a lapse rate ends at `most`, or no choice varies.

    Args:
        strengths: Signed evidence s of each trial, or of each group of trials, (row,).
        chosen: Whether the choice was made (0 or 1), or how many of `trials` chose it.
        trials: Number of trials of each row; None is 1 each.
        link: F: "logistic", or the cumulative "gaussian".
        lapses: Lapse rates: "none", "equal" (low = high) or "free".
        most: Upper bound of each, below 1/2.

    Returns:
        The fit; call it for the shares that it predicts.

    Raises:
        ValueError: If choices are neither 0 or 1 nor counts of at most `trials`, strengths are not
            finite, there are fewer different strengths than parameters, or a name is unknown.

    Example:
        >>> from ctxrnn.analysis import fit_psychometric
        >>> strengths, chosen = [-1, 0, 1, 2, 3], [12, 27, 50, 73, 88]  # of 100 trials each
        >>> curve = fit_psychometric(strengths, chosen, [100] * 5, lapses="none")
        >>> round(curve.bias, 2), round(curve.slope, 2)
        (1.0, 1.0)
        >>> curve([1, 9]).round(2).tolist()
        [0.5, 1.0]
    """
    if link not in _LINKS:
        raise unknown_name("link", link, _LINKS)
    if lapses not in _LAPSES:
        raise unknown_name("lapses", lapses, _LAPSES)
    if not 0 < most < 0.5:
        raise ValueError(f"most must lie between 0 and 1/2: got {most}")
    s, k, n = counted(strengths, chosen, trials)
    parameters = 2 + _LAPSES[lapses]
    if len(s) < parameters:
        raise ValueError(
            f"strengths must take {parameters} values or more to fit {parameters} parameters: got "
            f"{len(s)}; use fewer lapse rates"
        )
    centre, scale = float(np.average(s, weights=n)), float(np.ptp(s)) / 2
    found, done = _maximum((s - centre) / scale, k, n, link, lapses, most)
    a, b, low, high = found
    slope, intercept = b / scale, a - b * centre / scale
    share = _link(intercept + slope * s, link)
    p = low + (1 - low - high) * share
    reason = _doubt(k, n, share, (low, high), most, done)
    if reason == _CONSTANT:
        slope = intercept = np.nan
    bias = -intercept / slope if slope else np.nan
    worse = _likelihood(k, n, k / n) - _likelihood(k, n, p)
    return Psychometric(
        bias, slope, low, high, link, not reason, reason, max(0.0, 2 * worse), len(s) - parameters,
        intercept,
    )  # fmt: skip


def counted(
    strengths: Numbers, chosen: Numbers, trials: Numbers | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return different strengths in order, and how many of how many trials chose at each."""
    s, k = (np.asarray(values, dtype=float) for values in (strengths, chosen))
    n = np.ones_like(k) if trials is None else np.asarray(trials, dtype=float)
    if s.ndim != 1 or not s.size or not s.shape == k.shape == n.shape:
        raise ValueError(
            "strengths, chosen and trials must be rows of one length: got shapes "
            f"{s.shape}, {k.shape} and {n.shape}"
        )
    if not np.isfinite(s).all():
        raise ValueError("strengths must be finite: leave out trials without evidence")
    whole = np.isfinite(k) & np.isfinite(n) & (k == np.round(k)) & (n == np.round(n))
    if not (whole & (k >= 0) & (k <= n)).all():
        raise ValueError(
            "chosen must be 0 or 1, or counts of at most `trials`: got "
            f"{k.min():g} to {k.max():g}; give shares as counts with trials"
        )
    values, place = np.unique(s, return_inverse=True)
    counts, totals = np.bincount(place, k), np.bincount(place, n)
    return values[totals > 0], counts[totals > 0], totals[totals > 0]


def _link(argument: np.ndarray, link: Link) -> np.ndarray:
    return np.asarray(special.expit(argument) if link == "logistic" else special.ndtr(argument))


def _likelihood(k: np.ndarray, n: np.ndarray, p: np.ndarray) -> float:
    """Return the log-likelihood without the binomial coefficients."""
    return float((special.xlogy(k, p) + special.xlogy(n - k, 1 - p)).sum())


def _maximum(
    s: np.ndarray, k: np.ndarray, n: np.ndarray, link: Link, lapses: Lapses, most: float
) -> tuple[tuple[float, float, float, float], bool]:
    """Return (intercept, slope, low, high) of the largest likelihood, and whether it is one."""
    extra = _LAPSES[lapses]

    def parts(q: np.ndarray) -> tuple[float, float, float, float]:
        low = float(q[2]) if len(q) > 2 else 0.0
        return float(q[0]), float(q[1]), low, float(q[3]) if len(q) > 3 else low

    def cost(q: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, low, high = parts(q)
        z = a + b * s
        # Both tails by themselves, so that neither rounds to a probability of 0.
        up, down = _link(z, link), _link(-z, link)
        p = np.maximum(low + (1 - low - high) * up, 1e-300)
        rest = np.maximum(high + (1 - low - high) * down, 1e-300)
        density = up * down if link == "logistic" else stats.norm.pdf(z)
        pull = k / p - (n - k) / rest
        by_z = pull * (1 - low - high) * density
        by_low, by_high = (pull * down).sum(), -(pull * up).sum()
        slopes = [by_z.sum(), (by_z * s).sum()]
        slopes += {"none": [], "equal": [by_low + by_high], "free": [by_low, by_high]}[lapses]
        value = (k * np.log(p) + (n - k) * np.log(rest)).sum()
        return -float(value) / n.sum(), -np.array(slopes) / n.sum()

    bounds = [(None, None)] * 2 + [(0.0, most)] * extra
    tried = [
        optimize.minimize(
            cost, np.array([0.0, steep] + [share * most] * extra), jac=True, method="L-BFGS-B",
            bounds=bounds, options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9},
        )
        for steep in ((1.0, 4.0, -1.0, -4.0) if extra else (0.0,))
        for share in ((0.05, 0.5) if extra else (0.0,))
    ]  # fmt: skip
    best = min(tried, key=lambda one: float(one.fun))
    # The line search stops where rounding hides a further gain; the gradient decides.
    gradient = cost(best.x)[1]
    gradient[2:] = np.where(
        ((best.x[2:] <= 0) & (gradient[2:] > 0)) | ((best.x[2:] >= most) & (gradient[2:] < 0)),
        0,
        gradient[2:],
    )
    return parts(best.x), bool(np.abs(gradient).max() < 1e-5)


def _doubt(
    k: np.ndarray,
    n: np.ndarray,
    share: np.ndarray,
    lapses: tuple[float, float],
    most: float,
    done: bool,
) -> str:
    """Return why a fit is no maximum within bounds, or "" (share: F at each strength)."""
    if not k.any() or (k == n).all():
        return _CONSTANT
    if _parted(k, n) or ((share > _FLAT) & (share < 1 - _FLAT)).sum() < 2:
        return "the choices change at one strength: the slope has no upper limit"
    if max(lapses) >= most - _AT_END:
        return f"a lapse rate ended at its upper bound, {most:g}"
    return "" if done else "no maximum of the likelihood was found"


def _parted(k: np.ndarray, n: np.ndarray) -> bool:
    """Return whether a threshold parts all trials, but for those at one strength.

    Without lapses there is no maximum exactly then (Albert and Anderson 1984, Biometrika 71:1).
    """
    kinds = np.where(k == 0, 0, np.where(k == n, 2, 1))
    steps = np.diff(kinds)
    return bool((kinds == 1).sum() < 2 and ((steps >= 0).all() or (steps <= 0).all()))


def choice_table(
    strengths: Numbers,
    chosen: Numbers,
    trials: Numbers | None = None,
    *,
    level: float = 0.95,
    bins: int | None = None,
) -> pd.DataFrame:
    """Return shares of choices at each strength, with Wilson intervals.

    Wilson (1927, JASA 22:209); shares of 0 and 1 have an interval as well.

    Args:
        strengths: Signed evidence, see `fit_psychometric`.
        chosen: Choices or counts, likewise.
        trials: Number of trials of each row; None is 1 each.
        level: Confidence level.
        bins: Pool neighbouring strengths into at most so many bins of about equal numbers of
            trials, at their mean strength; None pools equal strengths alone.

    Returns:
        Columns strength, share, low, high, chosen, trials; in order of strength.

    Raises:
        ValueError: If rows differ in length, strengths are not finite, counts exceed trials, or the
            level lies outside (0, 1).

    Example:
        >>> from ctxrnn.analysis import choice_table
        >>> strengths, chosen = [-1, -1, -1, -1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]
        >>> print(choice_table(strengths, chosen).round(2))
           strength  share   low  high  chosen  trials
        0      -1.0   0.25  0.05   0.7       1       4
        1       1.0   1.00  0.51   1.0       4       4
    """
    import pandas as pd

    check_level(level)
    s, k, n = counted(strengths, chosen, trials)
    if bins is not None and len(s) > bins:
        middle = (np.cumsum(n) - n / 2) / n.sum()
        place = np.unique((middle * bins).astype(int), return_inverse=True)[1]
        total = np.bincount(place, n)
        s, k, n = np.bincount(place, n * s) / total, np.bincount(place, k), total
    ends = [
        stats.binomtest(int(hits), int(of)).proportion_ci(level, method="wilson")
        for hits, of in zip(k, n, strict=True)
    ]
    return pd.DataFrame(
        {
            "strength": s, "share": k / n, "low": [end.low for end in ends],
            "high": [end.high for end in ends], "chosen": k.astype(int), "trials": n.astype(int),
        }
    )  # fmt: skip
