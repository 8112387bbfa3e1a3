"""What each pathway does: ablations of one context signal, conflicts between the two."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctxrnn import CTRNN, Contexts
from ctxrnn._checks import unknown_name

from ._scoring import Tasks, Trials, need_pathways

if TYPE_CHECKING:
    import pandas as pd


def _accuracy(run: Trials, excitability: Tensor, synaptic: Tensor) -> list[float]:
    """Return the accuracy of each task where the pathways see these contexts."""
    if excitability is synaptic:
        return run.accuracy(run.correct(lambda part: Contexts.of(excitability[part])))
    return run.accuracy(run.correct(lambda part: Contexts(excitability[part], synaptic[part])))


def cross_context(network: CTRNN, tasks: Tasks, *, trials: int, seed: int) -> pd.DataFrame:
    """Measure the normalised accuracy on each task's trials in the context of each task.

    The behavioural similarity of tasks: entry (k, j) is (p - chance) / (ceiling - chance) of task k
    where both pathways see e_j; the diagonal is the clean accuracy. Trials and noise are the same
    in every column. The matrix is not symmetric; measures of the effective number of tasks take
    the mean of it and its transpose.

    Args:
        network: A network with at least one pathway.
        tasks: Task set, K >= 2.
        trials: Trials per task.
        seed: Seed of trials and noise.

    Returns:
        (task k, context j), labelled by the names of the tasks; NaN in the row of a task whose
        ceiling is its chance.

    Raises:
        ValueError: If the network has no pathway, or the tasks do not fit it.

    Example:
        >>> from ctxrnn import CTRNN, TrainConfig, train
        >>> from ctxrnn.analysis import cross_context
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["rtgo", "rtanti"], dt=100, ring=4)
        >>> network = CTRNN(tasks.inputs, 16, tasks.outputs, "e-add", contexts=2, dt=100, seed=0)
        >>> history = train(network, tasks, TrainConfig(steps=100, learning_rate=0.03), seed=0)
        >>> print(cross_context(network, tasks, trials=20, seed=0).round(2))  # opposite answers
        context  rtgo  rtanti
        task
        rtgo     1.00   -0.33
        rtanti  -0.33    1.00
    """
    import pandas as pd

    if not len(network.modulation):
        raise ValueError(
            f"network must have a context pathway: got the variant {network.variant!r}, which does "
            "not see the context"
        )
    run = Trials.draw(network, tasks, trials, seed, varying=False)
    columns = []
    for j in range(len(tasks.names)):
        context = run.of(torch.full_like(run.batch.task, j))
        columns.append(run.normalised(_accuracy(run, context, context)))
    return pd.DataFrame(
        np.stack(columns, axis=1),
        index=pd.Index(tasks.names, name="task"),
        columns=pd.Index(tasks.names, name="context"),
    )


def conflicting_contexts(network: CTRNN, tasks: Tasks, *, trials: int, seed: int) -> pd.DataFrame:
    """Measure which pathway decides where each sees the context of another task.

    The excitability sees c^e = e_k and the synapses see c^s = e_j. The network answers as the
    excitability wants to the extent that it is right on trials of task k, and as the synapses want
    to the extent that it is right on trials of task j. So the two shares need not add up to one,
    and of tasks that are alike both may be high; the pair swapped is a row of its own. Trials and
    noise are the same in every condition.

    Args:
        network: A network with both pathways.
        tasks: Task set, K >= 2.
        trials: Trials per task.
        seed: Seed of trials and noise.

    Returns:
        One row for each pair of different tasks: excitability (task k), synaptic (task j);
        as_excitability and as_synaptic, the accuracy on trials of k and of j; the same normalised
        to (p - chance) / (ceiling - chance), as_excitability_normalised and
        as_synaptic_normalised; clean_excitability and clean_synaptic, the normalised accuracy on
        the same trials without a conflict; and preference, as_excitability_normalised less
        as_synaptic_normalised: 1 where the excitability decides, -1 where the synapses do, and
        beyond that where the other task is done worse than by chance.

    Raises:
        ValueError: If the network lacks a pathway, or the tasks do not fit it.

    Example:
        >>> from ctxrnn import CTRNN, TrainConfig, train
        >>> from ctxrnn.analysis import conflicting_contexts
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["rtgo", "rtanti"], dt=100, ring=4)
        >>> network = CTRNN(9, 16, 5, "es-add-sym", contexts=2, dt=100, seed=0)
        >>> network.modulation.pathways[1].h.data[:] = 0  # synapses take no notice of the context
        >>> history = train(network, tasks, TrainConfig(steps=100, learning_rate=0.03), seed=0)
        >>> table = conflicting_contexts(network, tasks, trials=20, seed=0)
        >>> print(table[["excitability", "synaptic", "as_excitability", "as_synaptic"]])
          excitability synaptic  as_excitability  as_synaptic
        0         rtgo   rtanti              1.0          0.0
        1       rtanti     rtgo              1.0          0.0
    """
    import pandas as pd

    need_pathways(network, "excitability", "synaptic")
    run = Trials.draw(network, tasks, trials, seed, varying=False)
    clean = run.normalised(_accuracy(run, run.clean, run.clean))
    by_e, by_s = _obeyed(run, "excitability"), _obeyed(run, "synaptic")
    rows, names = [], tasks.names
    for k, j in itertools.permutations(range(len(names)), 2):
        as_e, as_s = by_e.normalised[k, j], by_s.normalised[j, k]
        rows.append(
            {
                "excitability": names[k], "synaptic": names[j],
                "as_excitability": by_e.accuracy[k, j], "as_synaptic": by_s.accuracy[j, k],
                "as_excitability_normalised": as_e, "as_synaptic_normalised": as_s,
                "clean_excitability": clean[k], "clean_synaptic": clean[j],
                "preference": as_e - as_s,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


class _Obeyed(NamedTuple):
    """Accuracy and normalised accuracy, (task of the trials, task that the other pathway sees)."""

    accuracy: np.ndarray
    normalised: np.ndarray


def _obeyed(run: Trials, pathway: str) -> _Obeyed:
    """Measure accuracy on the trials of the task that one pathway sees, against the other."""
    count = len(run.tasks.names)
    found = _Obeyed(*(np.full((count, count), np.nan) for _ in range(2)))
    index = np.arange(count)
    for shift in range(1, count):
        foreign = run.of((run.batch.task + shift) % count)
        pair = (run.clean, foreign) if pathway == "excitability" else (foreign, run.clean)
        accuracy, other = _accuracy(run, *pair), (index + shift) % count
        found.accuracy[index, other] = accuracy
        found.normalised[index, other] = run.normalised(accuracy)
    return found


def frozen_pathway(
    network: CTRNN,
    tasks: Tasks,
    *,
    pathway: Literal["excitability", "synaptic"],
    trials: int,
    seed: int,
) -> pd.DataFrame:
    """Measure accuracy while one pathway is held at the mean context, or without its context.

    The pathway sees c = 1/K in every entry ("mean") or c = 0 ("none") in place of e_k ("clean");
    the other one sees e_k throughout. Base-gated weights (`s-gate-R`) vanish without context.
    Trials and noise are the same in every condition.

    Args:
        network: A network with that pathway.
        tasks: Task set, K >= 2.
        pathway: Which pathway is frozen.
        trials: Trials per task.
        seed: Seed of trials and noise.

    Returns:
        One row per (task, context): accuracy, normalised accuracy, and cost, the clean normalised
        accuracy less the normalised one.

    Raises:
        ValueError: If the network lacks the pathway, or the tasks do not fit it.

    Example:
        >>> from ctxrnn import CTRNN, TrainConfig, train
        >>> from ctxrnn.analysis import frozen_pathway
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["rtgo", "rtanti"], dt=100, ring=4)
        >>> network = CTRNN(9, 16, 5, "es-add-sym", contexts=2, dt=100, seed=0)
        >>> network.modulation.pathways[1].h.data[:] = 0  # synapses take no notice of the context
        >>> history = train(network, tasks, TrainConfig(steps=100, learning_rate=0.03), seed=0)
        >>> for pathway in ("synaptic", "excitability"):
        ...     table = frozen_pathway(network, tasks, pathway=pathway, trials=20, seed=0)
        ...     print(pathway, "costs much:", bool(table["cost"].mean() > 0.2))
        synaptic costs much: False
        excitability costs much: True
    """
    import pandas as pd

    if pathway not in ("excitability", "synaptic"):
        raise unknown_name("pathway", pathway, ("excitability", "synaptic"))
    need_pathways(network, pathway)
    run = Trials.draw(network, tasks, trials, seed, varying=False)
    clean = run.clean
    seen = {
        "clean": clean,
        "mean": torch.full_like(clean, 1 / clean.shape[-1]),
        "none": torch.zeros_like(clean),
    }
    rows, base = [], None
    for kind, context in seen.items():
        pair = (context, clean) if pathway == "excitability" else (clean, context)
        accuracy = _accuracy(run, *pair)
        normalised = run.normalised(accuracy)
        base = normalised if base is None else base
        for k, name in enumerate(tasks.names):
            rows.append(
                {
                    "task": name, "context": kind, "accuracy": accuracy[k],
                    "normalised": normalised[k], "cost": base[k] - normalised[k],
                }
            )  # fmt: skip
    return pd.DataFrame(rows)
