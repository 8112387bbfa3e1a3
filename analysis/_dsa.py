"""The package dsa-metric: its decomposition and its minimiser, on arrays, without side effects."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Trajectories = np.ndarray | Tensor | Sequence[Any]


def import_dsa() -> tuple[Any, Any]:
    """Return the modules DSA.dmd and DSA.simdist.

    Raises:
        ImportError: If dsa-metric is not installed.
    """
    try:
        # Its dependencies warn, and change the filters of warnings, when they are loaded.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from DSA import dmd, simdist
    except ImportError as error:
        raise ImportError(
            "dynamical similarity analysis needs the package dsa-metric, which is not installed: "
            "run `pip install 'ctxrnn[similarity]'`"
        ) from error
    return dmd, simdist


@contextlib.contextmanager
def _settings(dtype: torch.dtype, seed: int = 0) -> Iterator[None]:
    """Set torch's default dtype and seed, on which the package relies, and restore both."""
    before = torch.get_default_dtype()
    # The CPU's generator alone: `torch.manual_seed` would reseed those of other devices, too.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def trials_of(given: Trajectories, name: str) -> list[np.ndarray]:
    """Return trials (time, unit) in float64, less the mean over trials and times."""
    if isinstance(given, np.ndarray | Tensor) and given.ndim != 3:
        raise ValueError(
            f"{name} must have shape (trial, time, unit): got {tuple(given.shape)}; a single trial "
            "is x[None]"
        )
    trials = [
        np.asarray(x.detach().cpu().numpy() if isinstance(x, Tensor) else x, dtype=float)
        for x in given
    ]
    shapes = [x.shape for x in trials]
    if not trials or any(len(s) != 2 or not s[1] or s[1] != shapes[0][1] for s in shapes):
        raise ValueError(
            f"{name} must hold trials (time, unit) of the same units: got {shapes[:3]}"
        )
    samples = np.concatenate(trials)
    bad = ~np.isfinite(samples).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name} must be finite: {int(bad.sum())} of {len(samples)} samples are not; leave out "
            "padded steps (TrialBatch.valid) and give a list of trials of unequal lengths"
        )
    return [x - samples.mean(axis=0) for x in trials]


def fits(trials: Sequence[np.ndarray], delays: int) -> bool:
    """Tell whether each trial has a step, and there are no fewer samples than dimensions."""
    samples = sum(len(x) - delays + 1 for x in trials)
    return min(map(len, trials)) > delays and samples >= delays * trials[0].shape[1]


def check_fit(trials: Sequence[np.ndarray], delays: int, name: str) -> None:
    """Raise ValueError unless `fits`."""
    if fits(trials, delays):
        return
    shortest = min(map(len, trials))
    if shortest <= delays:
        raise ValueError(
            f"delays must be below the number of steps of every trial: got {delays}, and a trial "
            f"of {name} with {shortest} steps"
        )
    samples = sum(len(x) - delays + 1 for x in trials)
    raise ValueError(
        f"{name} must hold no fewer embedded states than delays * units = "
        f"{delays * trials[0].shape[1]}: got {samples}; take fewer delays, more trials, or leading "
        "components (fit_pca(x, components).project(x))"
    )


@dataclass(frozen=True)
class Decomposition:
    """Delay-embedded trajectories h(t) by their singular vectors, h^T = U S V^T.

    Attributes:
        model: The package's `DMD`.
        delays: d.
        units: Of the trajectories.
        rank: Numerical rank of the embedded trajectories.
    """

    model: Any
    delays: int
    units: int
    rank: int

    def operator(self, rank: int) -> np.ndarray:
        """Return A of v(t + 1) = A v(t), (rank, rank), of the leading singular vectors v.

        The sign of each vector is such that the largest entry of its delayed pattern in U is
        positive.
        """
        with _settings(torch.float64):
            self.model.recalc_rank(rank, None, None)
            self.model.compute_havok_dmd()
        patterns = self.model.U[:, :rank].cpu().numpy()
        signs = np.sign(patterns[np.abs(patterns).argmax(axis=0), np.arange(rank)])
        return np.asarray(self.model.A_v.cpu().numpy() * signs * signs[:, None])

    def errors(self, trials: Sequence[np.ndarray], rank: int, skipped: int) -> float:
        """Return the sum of squared errors of predictions one step ahead.

        Args:
            trials: Each (time, unit).
            rank: Number of singular vectors.
            skipped: Steps of each trial that are not predicted, at least `delays`.
        """
        package, _ = import_dsa()
        with _settings(torch.float64):
            self.model.recalc_rank(rank, None, None)
            self.model.compute_havok_dmd()
            model, total = self.model, 0.0
            u, s = model.U[:, :rank], model.S[:rank]
            for x in trials:
                h = package.embed_signal_torch(torch.as_tensor(x).to(u.device), self.delays)
                v = (h[:-1] @ u / s) @ model.A_v.T
                # The newest state comes first in the embedding.
                wrong = (v * s) @ u[: self.units].T - h[1:, : self.units]
                total += float((wrong[skipped - self.delays :] ** 2).sum())
        return total


def decompose(
    trials: Sequence[np.ndarray], delays: int, device: str | torch.device
) -> Decomposition:
    """Embed trajectories with delays and find their singular vectors.

    Args:
        trials: Each (time, unit), more than `delays` steps long.
        delays: Number of states in one embedded state.
        device: Where the singular vectors are computed.
    """
    package, _ = import_dsa()
    with _settings(torch.float64):
        data = [torch.as_tensor(x) for x in trials]
        model = package.DMD(data, n_delays=delays, device=device)
        model.compute_hankel()
        model.compute_svd()
    s = model.S.cpu().numpy()
    samples = sum(len(x) - delays + 1 for x in trials)
    units = trials[0].shape[1]
    floor = s[0] * max(samples, delays * units) * np.finfo(float).eps
    return Decomposition(model, delays, units, int((s > floor).sum()))


def aligned(a: np.ndarray, b: np.ndarray, seed: int) -> np.ndarray:
    """Return the package's orthogonal c for which c b c^T is near a, (n, n)."""
    _, package = import_dsa()
    with _settings(torch.float32, seed):
        distance = package.SimilarityTransformDist(iters=1500, lr=5e-3, score_method="angular")
        # Copies: it scales what it is given.
        distance.fit(*(torch.tensor(x, dtype=torch.float32) for x in (a, b)))
        return np.asarray(distance.C_star.double().numpy())


def eigenvalue_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the package's squared distance between the eigenvalues of two operators."""
    _, package = import_dsa()
    with _settings(torch.float64):
        distance = package.SimilarityTransformDist(score_method="wasserstein")
        return float(distance.fit_score(np.linalg.eigvals(a) + 0j, np.linalg.eigvals(b) + 0j))
