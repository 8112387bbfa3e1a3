"""Fixed points of networks and other systems: found from many starts at once, told apart, classed.

Vocabulary and reference settings follow Golub and Sussillo (2018, Journal of Open Source Software
3:1003); the search is by Newton steps with the exact Jacobian, not by gradient descent on q.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ctxrnn import CTRNN, Contexts, Trajectory, derive_seed
from ctxrnn._checks import check_count, check_not_negative, check_positive, unknown_name

from ._newton import CONVERGED, CYCLING, DIVERGED, Descent, Limits, Roots, descend
from ._search import krylov, search
from .fields import Values, VectorField, vector_field

if TYPE_CHECKING:
    import pandas as pd

# From so many units on a Jacobian takes more memory than the search may.
_LARGE = 4000
METHODS = ("auto", "newton", "krylov")
ENDS = ("fixed", "slow", "cycle", "stalled", "diverged")
"""What may become of a start, see `FixedPoints.starts`."""


@dataclass(frozen=True)
class FixedPoints:
    """Fixed and slow points of a system, and what became of every start.

    Arrays have one entry per point; fixed points come before slow ones, those that most starts
    reached first, condition by condition. Speeds are |R(x)|, in units of the state:
    |tau dx/dt|, or |f(x) - x| of a map; q = speed^2 / 2.

    Attributes:
        x: The points, (point, unit).
        condition: Number of each point's condition.
        speed: |R| at the point.
        slow: Whether it is a slow point: a minimum of q that is not 0.
        count: How many of the starts ended there; 0 for one that was found between others.
        distance: From the nearest start of its condition.
        outlier: Whether it lies far from all starts: its distance from their mean is above
            `outlier` times their own mean distance from it.
        kink: Whether a unit sits at the kink of its nonlinearity, where the Jacobian jumps.
        starts: One row per start and condition: condition, start (number), end, point (number of
            the point, -1 for none), speed (|R| at the end), iterations, period (of the cycle in
            ms). Ends are "fixed", "slow", "cycle" (no root was found, and the flow turns round a
            cycle), "diverged" (the flow leaves all bounds), and "stalled" for the rest: the flow is
            still under way when its time is up, is chaotic or quasi-periodic, or rests at a minimum
            of q that is not slow.
        ends: Where each start ended, (start, unit), in the order of `starts`: the root or minimum
            that it came to, a state on the cycle, the last state of a flow that diverged, the state
            with the smallest |R| that was met of one that stalled.
        field: The system.
        marginal: Modes with |Re lambda| / rate below this count as marginal.
        slow_limit: |R| that slow points have at most.

    Example: that of `find_fixed_points`.
    """

    x: np.ndarray
    condition: np.ndarray
    speed: np.ndarray
    slow: np.ndarray
    count: np.ndarray
    distance: np.ndarray
    outlier: np.ndarray
    kink: np.ndarray
    starts: pd.DataFrame
    ends: np.ndarray
    field: VectorField
    marginal: float
    slow_limit: float

    def __len__(self) -> int:
        return len(self.x)

    @property
    def q(self) -> np.ndarray:
        """|R|^2 / 2 at each point."""
        return np.asarray(self.speed**2 / 2)

    @property
    def converged(self) -> np.ndarray:
        """Whether each start ended at a fixed point, in the order of `starts`."""
        return np.asarray(self.starts["end"] == "fixed")

    @functools.cached_property
    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues of the linearisation, (point, unit), per ms, least stable first.

        Of a map they are log(mu) / step with mu the eigenvalues of its Jacobian, so that
        Re lambda < 0 means stable in both.
        """
        from .linearisation import eigenvalues

        return eigenvalues(self.field, self.x, self.condition)

    @functools.cached_property
    def _growth(self) -> np.ndarray:
        """-1, 0 or 1 for every mode: decays, marginal, grows."""
        limit = self.marginal * float(self.field.rates.mean())
        real = self.eigenvalues.real
        return np.sign(np.where(np.abs(real) <= limit, 0.0, real)).astype(int)

    @property
    def index(self) -> np.ndarray:
        """Number of unstable directions."""
        return np.asarray((self._growth > 0).sum(axis=1))

    @property
    def stable(self) -> np.ndarray:
        """Whether all modes decay."""
        return np.asarray((self._growth < 0).all(axis=1))

    @property
    def kind(self) -> np.ndarray:
        """Class of each point.

        "stable node" or "stable focus" (the slowest mode is real, or oscillates), "saddle" (the
        index tells of which kind), "unstable node" or "unstable focus" (all modes grow, by the
        fastest), "marginal" (no mode grows and some neither grow nor decay, as along a line
        attractor).
        """
        turns = self.eigenvalues[:, 0].imag != 0 if len(self) else np.zeros(0, dtype=bool)
        found = np.full(len(self), "saddle", dtype=object)
        for name, mask in (
            ("stable", self.stable),
            ("unstable", (self._growth > 0).all(axis=1)),
        ):
            found[mask & turns], found[mask & ~turns] = f"{name} focus", f"{name} node"
        found[(self._growth <= 0).all(axis=1) & ~self.stable] = "marginal"
        return found

    @property
    def time_constants(self) -> np.ndarray:
        """-1 / Re lambda of each mode in ms, (point, unit); negative where it grows."""
        with np.errstate(divide="ignore"):
            return np.asarray(-1 / self.eigenvalues.real)

    @property
    def frequencies(self) -> np.ndarray:
        """|Im lambda| / 2 pi of each mode in Hz, (point, unit).

        A mode of a map that changes sign at every step, mu < 0, has 500 / step: it oscillates with
        a period of two steps, the fastest that steps can tell, and its point is called a focus.
        """
        return np.asarray(1000 * np.abs(self.eigenvalues.imag) / (2 * np.pi))

    def select(self, mask: np.ndarray | Sequence[Any]) -> FixedPoints:
        """Return some of the points, chosen by a mask or by numbers; `starts` and `ends` stay."""
        rows = np.arange(len(self))[np.asarray(mask)]
        number = {int(old): new for new, old in enumerate(rows)}
        names = [f.name for f in dataclasses.fields(self)]
        parts = {
            name: getattr(self, name)[rows]
            for name in names
            if isinstance(getattr(self, name), np.ndarray) and name != "ends"
        }
        starts = self.starts.assign(point=[number.get(p, -1) for p in self.starts["point"]])
        return dataclasses.replace(self, **parts, starts=starts)

    def table(self) -> pd.DataFrame:
        """Return one row per point: condition, kind, index, speed, slowest mode, and so on."""
        import pandas as pd

        labels = {
            name: [values[c] for c in self.condition] for name, values in self.field.labels.items()
        }
        return pd.DataFrame(
            {
                "condition": self.condition, **labels, "slow": self.slow, "kind": self.kind,
                "index": self.index, "speed": self.speed, "count": self.count,
                "time_constant": self.time_constants[:, 0], "frequency": self.frequencies[:, 0],
                "distance": self.distance, "outlier": self.outlier, "kink": self.kink,
            }
        )  # fmt: skip

    def __str__(self) -> str:
        ends = self.starts["end"].value_counts()
        told = ", ".join(f"{ends.get(end, 0)} {end}" for end in ENDS)
        return (
            f"{int((~self.slow).sum())} fixed and {int(self.slow.sum())} slow points in "
            f"{self.field.conditions} conditions; {len(self.starts)} starts: {told}"
        )


def find_fixed_points(
    system: CTRNN | VectorField | torch.nn.Module,
    context: Values | Contexts | None = None,
    inputs: Values | None = None,
    starts: Values | None = None,
    *,
    tolerance: float = 1e-11,
    slow: float = 1e-2,
    unique: float = 1e-3,
    between: int = 2,
    outlier: float = 10.0,
    marginal: float = 1e-3,
    iterations: int = 200,
    reach: float = 1e6,
    method: str = "auto",
) -> FixedPoints:
    """Find fixed points and slow points, from every start in every condition.

    From each start damped Newton steps with the exact Jacobian in float64 lead to a root of R,
    whether stable or not. A start that they do not help follows the flow dx/ds = R(x) instead:
    where that becomes calm, Newton and Levenberg-Marquardt steps lead to the root or to the
    minimum of q = |R|^2 / 2 (a slow point) there. It has diverged if the flow leaves all bounds
    (`reach`), wherever Newton steps went. A flow that comes to no point is followed on to see
    whether it turns round a cycle; if not, the start has stalled.
    Saddles between attractors are seldom visited: after the search from the starts Newton steps
    are taken from the midpoints between the points found, `between` times.

    Two ends of one condition are the same point if their distance is below `unique`. The point is
    the end with the smallest speed among those of the starts, or of the round of midpoints in which
    it was first found; later rounds do not change it.

    Args:
        system: A `CTRNN` or a member of an `Ensemble`, a torch recurrent layer, or a
            `VectorField`; none is changed.
        context: c of each condition, see `vector_field`.
        inputs: u of each condition; None is 0.
        starts: States to start from: (start, unit) for all conditions, (unit,) for a single one, or
            (condition, start, unit). See `visited_states`.
        tolerance: A fixed point has |R| of at most this. It must exceed the rounding of R: scale a
            function by its `tau`, so that R is of the size of x.
        slow: A slow point has |R| of at most this.
        unique: Distance below which two points are one, in units of the state.
        between: Rounds of searches from midpoints; 0 for none.
        outlier: Distance from the starts' mean, in mean distances of starts, of outliers.
        marginal: |Re lambda| tau below which a mode neither grows nor decays.
        iterations: At most so many for each start.
        reach: A start has diverged when its flow is farther from the origin than this times
            1 + the largest |start|. Raise it for a bounded system of wider states.
        method: "newton" (Jacobians), "krylov" (none: for fields too large to hold one, start after
            start by SciPy's Newton-Krylov method; slow points are then the calmest states of the
            flow), or "auto", which takes the second above 4,000 units.

    Returns:
        The points, with their stability, and what became of every start.

    Raises:
        ValueError: If there is no start, shapes do not fit, numbers are not finite, contexts or
            inputs vary in time, or an argument is out of range.

    Example:
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import find_fixed_points
        >>> network = CTRNN(1, 1, 1, seed=0)
        >>> network.weight.data[:] = 2.0  # x = 2 tanh(x) has three roots
        >>> points = find_fixed_points(network, starts=[[-3.0], [3.0]])
        >>> points.x[:, 0].round(3).tolist(), points.kind.tolist()
        ([-1.915, 1.915, 0.0], ['stable node', 'stable node', 'unstable node'])
        >>> points.count.tolist()  # starts that came to each; the last was found between the others
        [1, 1, 0]
        >>> points.time_constants[:, 0].round().tolist()  # ms; negative where it grows
        [120.0, 120.0, -100.0]
    """
    positive = {"tolerance": tolerance, "unique": unique, "outlier": outlier, "reach": reach}
    for name, value in positive.items():
        check_positive(name, value)
    check_not_negative("slow", slow)
    check_not_negative("marginal", marginal)
    check_count("between", between, minimum=0)
    check_count("iterations", iterations)
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    field = vector_field(system, context, inputs)
    x, condition = _starts(field, starts)
    bound = reach * (1.0 + float(x.norm(dim=-1).max()))
    limits = Limits(tolerance, slow, iterations, bound)
    large = method == "krylov" or (method == "auto" and field.units > _LARGE)
    found = _Found(field, unique, slow)
    known = Roots(field)
    first = (
        krylov(field, x, condition, limits) if large else search(field, x, condition, limits, known)
    )
    found.add(first, condition, given=True)
    for _ in range(between):
        middles, where = found.middles(limit=len(x))
        if not len(middles):
            break
        # Starts between points that Newton steps do not help would only flow back to them.
        ends = (
            krylov(field, middles, where, limits)
            if large
            else descend(field, middles, where, limits, known=known)
        )
        if not found.add(ends, where, given=False):
            break
    field.forget()
    return found.points(x, condition, outlier=outlier, marginal=marginal)


def _starts(field: VectorField, starts: Values | None) -> tuple[Tensor, Tensor]:
    """Return starts and conditions, every start in every condition."""
    if starts is None:
        raise ValueError(
            "starts must be given: states that the network visits, e.g. "
            "visited_states(network(inputs, context), 500)"
        )
    given = starts if isinstance(starts, Tensor) else torch.as_tensor(np.asarray(starts))
    if given.ndim > 3 or not given.ndim or given.shape[-1] != field.units:
        raise ValueError(
            f"starts must have shape (start, unit={field.units}): got {tuple(given.shape)}"
        )
    if given.ndim == 3:
        if len(given) != field.conditions:
            raise ValueError(
                f"starts of shape (condition, start, unit) must have {field.conditions} "
                f"conditions: got {len(given)}"
            )
    else:
        given = given[None] if given.ndim == 1 else given
        given = given.expand(field.conditions, *given.shape)
    if not given.numel():
        raise ValueError(f"starts must hold at least one state: got shape {tuple(given.shape)}")
    number = torch.arange(field.conditions, device=field.device)
    return field.checked(given.flatten(0, 1), number.repeat_interleave(given.shape[1]))


class _Found:
    """Points as they are found."""

    def __init__(self, field: VectorField, unique: float, slow: float) -> None:
        self.field, self.unique, self.slow = field, unique, slow
        empty = torch.zeros(0, dtype=torch.float64, device=field.device)
        self.x = empty.reshape(0, field.units)
        self.speed = empty
        self.condition = empty.long()
        self.is_slow = empty.bool()
        self.count = empty.long()
        self.ends: list[tuple[Descent, Tensor]] = []
        self.pairs: set[tuple[int, int]] = set()

    def add(self, found: Descent, condition: Tensor, *, given: bool) -> bool:
        """Take in where starts ended; return whether a fixed point is new."""
        fixed = found.state == CONVERGED
        lost = (found.state == DIVERGED) | (found.state == CYCLING)
        slow = ~fixed & ~lost & (found.size <= self.slow)
        if not given:
            # Between points only true ones are sought: minima of q are there without number.
            slow = torch.zeros_like(slow)
        point = torch.full_like(condition, -1)
        before = len(self.x)
        for number in condition.unique():
            for kind in (fixed, slow):
                rows = ((condition == number) & kind).nonzero()[:, 0]
                point[rows] = self._merge(found, rows, int(number), kind is slow, given)
        if given:
            self.ends.append((found, point))
        return len(self.x) > before

    def _merge(self, found: Descent, rows: Tensor, number: int, slow: bool, given: bool) -> Tensor:
        """Give each end the number of its point; make points for those that have none."""
        rows = rows[found.size[rows].argsort(stable=True)]
        point = torch.full_like(rows, -1)
        mine = ((self.condition == number) & (self.is_slow == slow)).nonzero()[:, 0]
        for known in mine:
            near = (found.x[rows] - self.x[known]).norm(dim=-1) <= self.unique
            point[near & (point < 0)] = known
        while (left := (point < 0).nonzero()[:, 0]).numel():
            first = rows[left[0]]
            near = (found.x[rows[left]] - found.x[first]).norm(dim=-1) <= self.unique
            point[left[near]] = len(self.x)
            self._new(found.x[first], found.size[first], number, slow)
        if given:
            self.count += torch.bincount(point, minlength=len(self.x))
        ordered = torch.empty_like(point)
        ordered[rows.argsort()] = point
        return ordered

    def _new(self, x: Tensor, speed: Tensor, number: int, slow: bool) -> None:
        self.x = torch.cat([self.x, x[None]])
        self.speed = torch.cat([self.speed, speed[None]])
        self.condition = torch.cat([self.condition, self.condition.new_tensor([number])])
        self.is_slow = torch.cat([self.is_slow, self.is_slow.new_tensor([slow])])
        self.count = torch.cat([self.count, self.count.new_zeros(1)])

    def middles(self, limit: int) -> tuple[Tensor, Tensor]:
        """Return midpoints between pairs of fixed points that were not tried, nearest first."""
        chosen: list[tuple[float, int, int]] = []
        for number in range(self.field.conditions):
            mine = ((self.condition == number) & ~self.is_slow).nonzero()[:, 0]
            away = torch.cdist(self.x[mine], self.x[mine]).cpu().numpy()
            index = mine.tolist()
            chosen += [
                (away[i, j], index[i], index[j])
                for i in range(len(index))
                for j in range(i + 1, len(index))
                if (index[i], index[j]) not in self.pairs
            ]
        chosen = sorted(chosen)[:limit]
        pairs = [(i, j) for _, i, j in chosen]
        self.pairs.update(pairs)
        if not pairs:
            return self.x[:0], self.condition[:0]
        first, second = torch.tensor(pairs, device=self.field.device).T
        return (self.x[first] + self.x[second]) / 2, self.condition[first]

    def points(
        self, x: Tensor, condition: Tensor, *, outlier: float, marginal: float
    ) -> FixedPoints:
        """Return all in order, with distances from the starts."""
        import pandas as pd

        order = np.lexsort(
            (-self.count.cpu().numpy(), self.is_slow.cpu().numpy(), self.condition.cpu().numpy())
        )
        rank = np.append(np.argsort(order), -1)
        near = np.zeros(len(order))
        far = np.zeros(len(order), dtype=bool)
        for number in range(self.field.conditions):
            mine = (self.condition == number).nonzero()[:, 0]
            own = x[condition == number]
            centre = own.mean(dim=0)
            spread = (own - centre).norm(dim=-1).mean()
            rows = mine.cpu().numpy()
            if len(rows):
                near[rows] = torch.cdist(self.x[mine], own).min(dim=1).values.cpu()
                beyond = (self.x[mine] - centre).norm(dim=-1) > outlier * spread
                # A single start has no spread to measure by.
                far[rows] = beyond.cpu() if len(own) > 1 and spread > 0 else False
        ((ends, point),) = self.ends
        point = rank[point.cpu().numpy()]
        state, size = ends.state.cpu().numpy(), ends.size.cpu().numpy()
        end = np.full(len(state), "stalled", dtype=object)
        end[state == DIVERGED], end[state == CYCLING] = "diverged", "cycle"
        slow = self.is_slow.cpu().numpy()[order]
        there = point >= 0
        end[there] = np.where(slow[point[there]], "slow", "fixed")
        count = len(x) // self.field.conditions
        starts = pd.DataFrame(
            {
                "condition": condition.cpu().numpy(),
                "start": np.tile(np.arange(count), self.field.conditions), "end": end,
                "point": point, "speed": size, "iterations": ends.iterations.cpu().numpy(),
                "period": ends.period.cpu().numpy(),
            }
        )  # fmt: skip
        places = torch.as_tensor(order.copy(), device=self.field.device)
        return FixedPoints(
            x=self.x[places].cpu().numpy(),
            condition=self.condition[places].cpu().numpy(),
            speed=self.speed[places].cpu().numpy(),
            slow=slow,
            count=self.count[places].cpu().numpy(),
            distance=near[order],
            outlier=far[order],
            kink=self.field.kinks(self.x[places], self.condition[places]).cpu().numpy(),
            starts=starts,
            ends=ends.x.cpu().numpy(),
            field=self.field,
            marginal=marginal,
            slow_limit=self.slow,
        )


def visited_states(
    trajectory: Trajectory | Values, count: int, *, noise: float = 0.05, seed: int = 0
) -> np.ndarray:
    """Draw states that a network visits, with some noise: starts for `find_fixed_points`.

    Args:
        trajectory: What a network returned (its potentials; the rates of a network in the rate
            form, whose state they are), or states of shape (..., unit).
        count: How many, drawn without repetition; all of them if there are fewer.
        noise: Standard deviation of the noise that is added, in units of the state.
        seed: Seed of both.

    Returns:
        (count, unit), float64.

    Raises:
        ValueError: If the states have fewer than two axes, or there is none.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import visited_states
        >>> network = CTRNN(2, 8, 1, seed=0)
        >>> run = network(torch.ones(4, 50, 2), generator=0)  # 4 trials of 50 steps
        >>> visited_states(run, 100).shape, visited_states(run, 1000).shape
        ((100, 8), (200, 8))
    """
    check_count("count", count)
    check_not_negative("noise", noise)
    states: Any = trajectory.potentials if isinstance(trajectory, Trajectory) else trajectory
    if isinstance(states, Tensor):
        states = states.detach().cpu().numpy()
    states = np.asarray(states, dtype=float)
    if states.ndim < 2 or not states.size:
        raise ValueError(f"states must have shape (..., unit): got {states.shape}")
    states = states.reshape(-1, states.shape[-1])
    generator = np.random.default_rng(derive_seed(seed, "starts"))
    rows = generator.permutation(len(states))[:count]
    return np.asarray(states[rows] + noise * generator.normal(size=(len(rows), states.shape[1])))
