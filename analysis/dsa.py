"""Dynamical similarity analysis: trajectories compared by how they go on, not by where they lie.

Ostrow et al. (2023), Beyond Geometry, NeurIPS, arXiv:2306.10168. States are embedded with delays,
a linear map is fitted from each step to the next, and two maps are compared up to an orthogonal
change of basis. Needs the package dsa-metric: `pip install 'ctxrnn[similarity]'`.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from ctxrnn._checks import check_count, check_not_negative, unknown_name

from . import _dsa, _rotations

if TYPE_CHECKING:
    import pandas as pd

Trajectories = _dsa.Trajectories
Measure = Literal["angular", "wasserstein"]


@dataclass(frozen=True)
class DelayEmbedding:
    """Delays and rank chosen by prediction of held-out trials.

    Attributes:
        delays: Number of states in one embedded state, in steps.
        rank: Number of singular vectors kept.
        errors: One row per pair tried: delays, rank, error (of predictions one step ahead, squared,
            over that of predicting no change; mean over systems and folds; above 1 where the rank
            leaves out more of a state than changes in a step), spread (its standard error over
            folds).

    Example: that of `dsa_embedding`.
    """

    delays: int
    rank: int
    errors: pd.DataFrame


def dsa_distance(
    a: Trajectories,
    b: Trajectories,
    *,
    delays: int | None = None,
    rank: int | None = None,
    measure: Measure = "angular",
    starts: int = 20,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> float:
    """Return the dynamical similarity distance of two systems, from their trajectories.

        h(t) = [x(t), x(t-1), ..., x(t-d+1)],   H = V S U^T,   v(t+1) = A v(t)
        angular:      min over orthogonal C of arccos(tr(A^T C B C^T) / (|A|_F |B|_F))
        wasserstein:  (min over pairings of mean |eig(A) - eig(B)|^2)^(1/2)

    The columns of H are the embedded states of all trials, less the mean of x over trials and
    times; A is the least-squares map of the first `rank` coordinates of V, which are white. So
    neither a rotation nor a shift or scale of all x changes the distance, nor any invertible linear
    map of x where `rank` is that of H. "angular" is that of the paper, between 0 and pi; it sees
    eigenvectors (departure from normality), but not a factor common to the whole of A.
    "wasserstein" compares eigenvalues alone, is fast, and is the root of what the package calls so.

    The minimum over C has many local ones, and the package's descent often stops at one that is not
    the lowest: two equal systems of rank 15 came out up to 0.4 rad apart. Its result is therefore
    only one of several starting points, beside the identity, matched eigenvectors and `starts`
    drawn at random; the smallest angle is returned, an upper bound on the distance.

    Args:
        a: (trial, time, unit), or a sequence of trials (time, unit) of unequal lengths. Both
            systems must have the same time step; they may differ in trials, times and units. What
            inputs drive counts as dynamics: give both the same inputs, or none.
        b: Likewise.
        delays: d, in steps. More are needed the fewer units are observed and the more state is
            hidden: at least so many that delays * units exceeds the dimension of the dynamics. None
            chooses as `dsa_embedding` does.
        rank: Columns of V, at most the numerical rank of H; all count alike, however little of the
            variance they hold. Too few cut dynamics off, too many add directions of noise or of
            transients, which differ between equal systems. None chooses as above; look at
            neighbouring ranks, too.
        measure: "angular" or "wasserstein".
        starts: Random starting points of "angular"; about 0.02 s each for rank 10 and 0.05 s for
            20, the package's own descent 1 s.
        seed: Seed of the starts, and of the folds where delays or rank are chosen.
        device: Where the singular vectors are computed; the rest is done on the CPU.

    Returns:
        Radians ("angular") or a distance in the complex plane of eigenvalues per time step. Where
        a step is short beside the dynamics, A is near the identity and every distance small: only
        distances at one time step compare.

    Raises:
        ImportError: If dsa-metric is not installed.
        ValueError: If trajectories are not of the shapes above, not finite, too short or too few
            for the delays, or of a rank below `rank`.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import dsa_distance
        >>> def turning(speed, height=1.0):  # round an ellipse, radians a step, from 8 places
        ...     angle = np.arange(8)[:, None] * np.pi / 4 + speed * np.arange(20)
        ...     return np.stack([np.cos(angle), height * np.sin(angle)], axis=-1)
        >>> options = {"delays": 1, "rank": 2}
        >>> a, b = turning(0.2), turning(0.2, height=3.0)  # one dynamics in two shapes
        >>> round(dsa_distance(a, b, **options), 3)  # doctest: +SKIP
        0.0
        >>> round(dsa_distance(a, turning(0.6), **options), 3)  # doctest: +SKIP
        0.4
    """
    options = _Options(delays, rank, measure, starts, seed, device)
    first, second = _operators({"a": a, "b": b}, options)
    return _distance(first, second, options)


def dsa_matrix(
    by_name: Mapping[Hashable, Trajectories],
    *,
    delays: int | None = None,
    rank: int | None = None,
    measure: Measure = "angular",
    starts: int = 20,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """Return the dynamical similarity distances of all pairs of systems, (system, system).

    All share one choice of delays and rank. `plots.similarity_map` draws the table,
    `similarity_of_tasks` sets it beside another one.

    Args:
        by_name: System -> trajectories, two or more systems.
        delays: As for `dsa_distance`, as are all below; None chooses for all systems together.
        rank: Columns of V.
        measure: "angular" or "wasserstein".
        starts: Random starting points of "angular", for each pair.
        seed: Seed of the starts and folds.
        device: Where the singular vectors are computed.

    Returns:
        (system, system), symmetric with 0 on the diagonal, in the unit of `dsa_distance`.

    Raises:
        ImportError: If dsa-metric is not installed.
        ValueError: As `dsa_distance`.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import dsa_matrix
        >>> angle = np.arange(8)[:, None] * np.pi / 4  # round a circle, from 8 places
        >>> angles = {"slow": angle + 0.2 * np.arange(20), "fast": angle + 0.6 * np.arange(20)}
        >>> systems = {name: np.stack([np.cos(a), np.sin(a)], -1) for name, a in angles.items()}
        >>> options = {"delays": 1, "rank": 2, "measure": "wasserstein"}
        >>> print(dsa_matrix(systems, **options).round(3))  # doctest: +SKIP
               slow   fast
        slow  0.000  0.397
        fast  0.397  0.000
    """
    import pandas as pd

    if len(by_name) < 2:
        raise ValueError(f"at least two systems must be given: got {len(by_name)}")
    options = _Options(delays, rank, measure, starts, seed, device)
    operators = _operators(by_name, options)
    found = np.zeros((len(operators), len(operators)))
    for (i, a), (j, b) in itertools.combinations(enumerate(operators), 2):
        found[i, j] = found[j, i] = _distance(a, b, options)
    names = pd.Index(list(by_name), tupleize_cols=False)
    return pd.DataFrame(found, index=names, columns=names)


def dsa_embedding(
    by_name: Mapping[Hashable, Trajectories],
    *,
    delays: Sequence[int] = (1, 2, 4, 8),
    ranks: Sequence[int] = (1, 2, 3, 4, 6, 8, 10, 12, 15, 20),
    folds: int = 5,
    tolerance: float = 0.01,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> DelayEmbedding:
    """Choose delays and rank, common to several systems, by prediction of held-out trials.

    Trials are split into folds, each predicted one step ahead by the map fitted to the others, at
    the same times for all numbers of delays. Of the pairs whose error lies within one standard
    error of the smallest (Breiman et al. 1984, Classification and Regression Trees), or within
    `tolerance`, the one with the lowest rank, then with the fewest delays, is taken. A prediction
    of the next step favours fast and large components. Where the highest rank tried is chosen,
    as for driven networks of many tasks, more would predict better. Since all directions kept count
    alike, distances depend on the rank: report them at ranks around the one chosen, too.

    Args:
        by_name: System -> trajectories, as for `dsa_distance`, at least two trials each.
        delays: To try. Those that are too many for a trial, or for the samples, are left out.
        ranks: To try. Those above the rank of the embedded states of a system are left out.
        folds: How many, at most; no more than the fewest trials of a system.
        tolerance: Difference of errors that is of no account, as a share of the squared changes
            from step to step. With 0, trajectories without noise get as high a rank as is tried.
        seed: Seed of the split. Systems with as many trials are split alike.
        device: Where the singular vectors are computed.

    Returns:
        The delays and the rank chosen, with the errors of all that were tried.

    Raises:
        ImportError: If dsa-metric is not installed.
        ValueError: If trajectories are not as `dsa_distance` needs them, a system has a single
            trial, or no pair fits.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import dsa_embedding
        >>> angle = np.arange(8)[:, None] * np.pi / 4 + 0.2 * np.arange(20)
        >>> systems = {"one unit of two": np.cos(angle)[..., None]}  # (trial, time, unit)
        >>> found = dsa_embedding(systems)  # doctest: +SKIP
        >>> found.delays, found.rank  # doctest: +SKIP
        (2, 2)
    """
    import pandas as pd

    _dsa.import_dsa()
    check_count("folds", folds, 2)
    check_not_negative("tolerance", tolerance)
    for name, values in (("delays", delays), ("ranks", ranks)):
        for value in values:
            check_count(name, value)
    systems = [_dsa.trials_of(given, str(name)) for name, given in by_name.items()]
    fewest = min((len(trials) for trials in systems), default=0)
    if fewest < 2:
        raise ValueError(
            f"choosing delays and rank needs two or more trials of each system: got {fewest}; give "
            "delays and rank"
        )
    splits = [list(_folds(trials, min(folds, fewest), seed)) for trials in systems]
    fitting = sorted(
        {d for d in delays if all(_dsa.fits(part, d) for s in splits for part, _ in s)}
    )
    if not fitting:
        raise ValueError(
            f"no delays of {list(delays)} fit: give longer trials, more trials, or fewer units"
        )
    errors = [_held_out(split, fitting, sorted(set(ranks)), device) for split in splits]
    table = np.mean(errors, axis=0)
    rows = [
        {
            "delays": d, "rank": r, "error": table[:, i, j].mean(),
            "spread": table[:, i, j].std(ddof=1) / np.sqrt(len(table)),
        }
        for i, d in enumerate(fitting)
        for j, r in enumerate(sorted(set(ranks)))
        if np.isfinite(table[:, i, j]).all()
    ]  # fmt: skip
    if not rows:
        raise ValueError(f"no rank of {list(ranks)} is as low as that of the embedded states")
    found = pd.DataFrame(rows)
    best = found.loc[found["error"].idxmin()]
    near = found[found["error"] <= best["error"] + max(best["spread"], tolerance)]
    chosen = near.sort_values(["rank", "delays"]).iloc[0]
    return DelayEmbedding(int(chosen["delays"]), int(chosen["rank"]), found)


@dataclass(frozen=True)
class _Options:
    delays: int | None
    rank: int | None
    measure: Measure
    starts: int
    seed: int
    device: str | torch.device

    def __post_init__(self) -> None:
        for name in ("delays", "rank"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_count("starts", self.starts, 0)
        if self.measure not in get_args(Measure):
            raise unknown_name("measure", self.measure, get_args(Measure))


def _operators(by_name: Mapping[Hashable, Trajectories], options: _Options) -> list[np.ndarray]:
    """Return the linear map of each system, (rank, rank)."""
    _dsa.import_dsa()
    delays, rank = options.delays, options.rank
    if delays is None or rank is None:
        tried: dict[str, Any] = {"seed": options.seed, "device": options.device}
        if delays is not None:
            tried["delays"] = [delays]
        if rank is not None:
            tried["ranks"] = [rank]
        chosen = dsa_embedding(by_name, **tried)
        delays, rank = chosen.delays, chosen.rank
    found = []
    for name, given in by_name.items():
        trials = _dsa.trials_of(given, str(name))
        _dsa.check_fit(trials, delays, str(name))
        fitted = _dsa.decompose(trials, delays, options.device)
        if rank > fitted.rank:
            raise ValueError(
                f"rank must be at most {fitted.rank}, that of the embedded states of {name} with "
                f"{delays} delays: got {rank}"
            )
        found.append(fitted.operator(rank))
    return found


def _distance(a: np.ndarray, b: np.ndarray, options: _Options) -> float:
    if b.tobytes() < a.tobytes():
        # Either order goes through the same numbers: the distance is symmetric to the last bit.
        a, b = b, a
    if options.measure == "wasserstein":
        return float(np.sqrt(max(_dsa.eigenvalue_distance(a, b), 0.0)))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    starts = [
        np.eye(len(a)),
        _rotations.spectral(a, b),
        _rotations.nearest(_dsa.aligned(a, b, options.seed)),
        *_rotations.drawn(len(a), options.starts, options.seed),
    ]
    return _rotations.smallest_angle(a, b, starts)


def _folds(
    trials: Sequence[np.ndarray], folds: int, seed: int
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Yield the trials to fit and those to predict."""
    fold = np.random.default_rng(seed).permutation(len(trials)) % folds
    for held in range(folds):
        yield (
            [x for x, own in zip(trials, fold, strict=True) if own != held],
            [x for x, own in zip(trials, fold, strict=True) if own == held],
        )


def _held_out(
    split: Sequence[tuple[list[np.ndarray], list[np.ndarray]]],
    delays: Sequence[int],
    ranks: Sequence[int],
    device: str | torch.device,
) -> np.ndarray:
    """Return relative squared errors, (fold, delays, rank); NaN where the rank is too high."""
    errors = np.full((len(split), len(delays), len(ranks)), np.nan)
    skipped = max(delays)
    for place, (fitted, held) in enumerate(split):
        moved = sum(float((np.diff(x, axis=0)[skipped - 1 :] ** 2).sum()) for x in held)
        for i, d in enumerate(delays):
            model = _dsa.decompose(fitted, d, device)
            for j, r in enumerate(ranks):
                if r <= model.rank:
                    wrong = model.errors(held, r, skipped)
                    errors[place, i, j] = wrong / moved if moved else np.nan
    return errors
