"""What contexts do in the weights: effects, their similarity, the read-out's null space, rank."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import stats

from ctxrnn import CTRNN, Contexts
from ctxrnn._checks import check_finite

from ._effects import ContextEffects, Effect, Reference, context_effects, labels_of
from .fields import Values

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ContextEffects",
    "EffectiveRank",
    "ModulationRank",
    "context_effects",
    "context_similarity",
    "effective_rank",
    "modulation_rank",
    "readout_alignment",
]


def context_similarity(
    network: CTRNN,
    contexts: Values | Contexts | None = None,
    *,
    names: Sequence[Hashable] | None = None,
    reference: Reference | None = None,
) -> dict[Effect, pd.DataFrame]:
    """Return the cosine between the effects of each pair of contexts, for all that pathways set.

        cos(v_k, v_j) with v_k = E c_k, Theta c_k, G(c_k) - 1, or the entries of W_{c_k} - W

    Args:
        network: A network with at least one pathway.
        contexts: See `context_effects`.
        names: Names of the contexts, e.g. `tasks.names`; None numbers them.
        reference: See `ContextEffects.change`.

    Returns:
        Effect -> (context, context); NaN where a context has no effect.

    Raises:
        TypeError: As `context_effects`.
        ValueError: As `context_effects`; if names are not different, one for each context, or
            there is no such reference.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import context_similarity
        >>> network = CTRNN(1, 2, 1, "e-add", contexts=2, seed=0)
        >>> network.modulation.pathways[0].E.data[:] = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
        >>> found = context_similarity(network, names=["go", "anti"])  # drives at 45 degrees
        >>> print(found["drive"].round(3))
        context     go   anti
        context
        go       1.000  0.707
        anti     0.707  1.000
    """
    import pandas as pd

    effects = context_effects(network, contexts)
    labels = labels_of(names, len(effects.drive))
    found = {}
    for effect in effects.acting:
        # The reference is one of matrices.
        kept = reference if effect == "weight" else None
        change = effects.change(effect, reference=kept).reshape(len(labels), -1)
        size = np.linalg.norm(change, axis=1, keepdims=True)
        unit = np.divide(change, size, out=np.full_like(change, np.nan), where=size > 0)
        found[effect] = pd.DataFrame(
            np.clip(unit @ unit.T, -1, 1), index=labels, columns=labels
        ).rename_axis(index="context", columns="context")
    return found


def readout_alignment(
    network: CTRNN,
    contexts: Values | Contexts | None = None,
    *,
    names: Sequence[Hashable] | None = None,
) -> pd.DataFrame:
    """Measure how much of the drive E c lies where the read-out does not see it.

        |P v|^2 / |v|^2 with v = E c_k, or E c_k - E c_j, and P the projection onto the null space
        of C

    Against a direction drawn evenly from the sphere, whose share has the distribution
    Beta((N - m) / 2, m / 2), m the rank of C, with mean (N - m) / N. The initial E is such. In
    the current form y = C phi(x): the drive moves x, so that this is the output's null space to
    first order, where all units have one slope. Units that no context drives (`on`) are left out
    of v, C and N. Pairs share contexts: their p are not independent, and not adjusted.

    Args:
        network: A network with a drive (`e-add`, `e-rankR`, or with synapses).
        contexts: See `context_effects`.
        names: Names of the contexts; None numbers them.

    Returns:
        One row for each context (b is None), then for each pair: a, b, share, expected,
        percentile (share of random directions that have less in the null space), p (two-sided),
        norm (|v|), units (N), rank (m). Shares of v = 0 are NaN; where m is 0 or N every direction
        has the same share, and percentile and p are NaN.

    Raises:
        ValueError: If the network has no drive.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import readout_alignment
        >>> network = CTRNN(1, 2, 1, "e-add", contexts=2, seed=0)
        >>> network.output_weight.data[:] = torch.tensor([[1.0, 0.0]])  # reads unit 0
        >>> network.modulation.pathways[0].E.data[:] = torch.eye(2)  # a unit for each context
        >>> table = readout_alignment(network, names=["go", "anti"])
        >>> table["share"].round(3).tolist()  # of "go", of "anti", of their difference
        [0.0, 1.0, 0.5]
    """
    import pandas as pd

    effects = context_effects(network, contexts)
    drive = effects.change("drive")
    labels = labels_of(names, len(drive))
    driven = (drive != 0).any(axis=0)
    drive, units = drive[:, driven], int(driven.sum())
    readout = network.output_weight.detach().cpu().double().numpy()[:, driven]
    # Directions that are 0 but for the rounding of float32 parameters are not seen.
    rank, seen = 0, np.zeros((0, units))
    if units:
        _, sizes, right = np.linalg.svd(readout, full_matrices=False)
        limit = max(readout.shape) * np.finfo(np.float32).eps * sizes[0]
        rank = int((sizes > limit).sum())
        seen = right[:rank]
    ends: list[tuple[int, int | None]] = [(k, None) for k in range(len(labels))]
    ends += list(combinations(range(len(labels)), 2))
    rows = []
    for k, j in ends:
        v = drive[k] - (0.0 if j is None else drive[j])
        share, percentile = _null_share(v, seen)
        rows.append(
            {
                "a": labels[k], "b": None if j is None else labels[j], "share": share,
                "expected": (units - rank) / units if units else np.nan,
                "percentile": percentile, "p": 2 * min(percentile, 1 - percentile),
                "norm": float(np.linalg.norm(v)), "units": units, "rank": rank,
            }
        )  # fmt: skip
    # As objects, so that numbers beside None stay whole.
    return pd.DataFrame(rows).assign(b=pd.Series([row["b"] for row in rows], dtype=object))


def _null_share(v: np.ndarray, seen: np.ndarray) -> tuple[float, float]:
    """Return the share of v outside the space of orthonormal rows, and its place by chance."""
    square = float(v @ v)
    if square == 0:
        return np.nan, np.nan
    rank, units = seen.shape
    # From the remainder, not as 1 - share, so that a share near 0 keeps its digits.
    rest = v - (v @ seen.T) @ seen
    share = min(float(rest @ rest) / square, 1.0)
    if rank in (0, units):
        return share if rank == 0 else 0.0, np.nan
    return share, float(stats.beta.cdf(share, (units - rank) / 2, rank / 2))


class EffectiveRank(NamedTuple):
    """Two measures of how many directions a matrix uses; both 0 for a matrix of zeros.

    Attributes:
        participation: (sum s^2)^2 / sum s^4, s the singular values: the participation ratio of
            squared singular values.
        entropy: exp(-sum p log p) with p = s / sum s, not squared (Roy and Vetterli 2007, The
            effective rank, EUSIPCO).

    Example: that of `effective_rank`.
    """

    participation: float
    entropy: float


def effective_rank(matrix: Values) -> EffectiveRank:
    """Return the effective rank of a matrix: both are r for r equal singular values.

    Nothing is subtracted: `participation_ratio` is that of the covariance of states, centred.

    Args:
        matrix: (row, column).

    Raises:
        ValueError: If it is no matrix, or not finite.

    Example:
        >>> import numpy as np
        >>> from ctxrnn.analysis import effective_rank
        >>> for matrix in (np.eye(3), np.ones((3, 3)), np.diag([2.0, 1.0, 0.0])):
        ...     found = effective_rank(matrix)
        ...     print(round(found.participation, 3), round(found.entropy, 3))
        3.0 3.0
        1.0 1.0
        1.471 1.89
    """
    a = np.asarray(torch.as_tensor(matrix).detach().cpu(), dtype=float)
    if a.ndim != 2 or not a.size:
        raise ValueError(f"matrix must have shape (row, column): got {a.shape}")
    check_finite("matrix", torch.as_tensor(a), "Give finite numbers.")
    s = np.linalg.svd(a, compute_uv=False)
    if s[0] == 0:
        return EffectiveRank(0.0, 0.0)
    s = s / s[0]
    p = s[s > 0] / s.sum()
    return EffectiveRank(
        float((s**2).sum() ** 2 / (s**4).sum()), float(np.exp(-(p * np.log(p)).sum()))
    )


@dataclass(frozen=True)
class ModulationRank:
    """Effective rank of what contexts change in the recurrent weights.

    Attributes:
        across: Of the stack with one row per context, vec(W_c - W), (context, post * pre): how many
            different patterns of change the contexts use, at most K.
        single: Of each W_c - W by itself, (post, pre): one row per context with context,
            participation, entropy, and norm, |W_c - W|.

    Example: that of `modulation_rank`.
    """

    across: EffectiveRank
    single: pd.DataFrame


def modulation_rank(
    network: CTRNN,
    contexts: Values | Contexts | None = None,
    *,
    names: Sequence[Hashable] | None = None,
    reference: Reference | None = None,
) -> ModulationRank:
    """Return the effective rank of W_c - W, across contexts and of each context.

    See `effective_rank` for both measures. `s-scalar` has rank 1 across contexts though each
    change has the rank of W; `s-add-R` has at most R in each.

    Args:
        network: A network with a synaptic pathway.
        contexts: See `context_effects`.
        names: Names of the contexts; None numbers them.
        reference: See `ContextEffects.change`; with "mean", at most K - 1 across contexts.

    Returns:
        The rank across contexts, and that of each.

    Raises:
        ValueError: If no pathway sets the weights: W_c - W is 0 in every context.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import modulation_rank
        >>> network = CTRNN(1, 2, 1, "s-add-1", contexts=2, seed=0)
        >>> pathway = network.modulation.pathways[0]
        >>> pathway.m.data[:, 0], pathway.n.data[:] = torch.eye(2), 1.0  # each changes one row of W
        >>> found = modulation_rank(network)
        >>> round(found.across.participation, 3), found.single["participation"].round(3).tolist()
        (2.0, [1.0, 1.0])
    """
    import pandas as pd

    change = context_effects(network, contexts).change("weight", reference=reference)
    labels = labels_of(names, len(change))
    rows = [
        {"context": label, **effective_rank(one)._asdict(), "norm": float(np.linalg.norm(one))}
        for label, one in zip(labels, change, strict=True)
    ]
    return ModulationRank(effective_rank(change.reshape(len(change), -1)), pd.DataFrame(rows))
