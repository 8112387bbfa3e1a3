"""Which units serve which tasks: task variance, clusters of units, lesions (Yang et al. 2019)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ctxrnn import CTRNN, make_generator
from ctxrnn._checks import check_count, check_not_negative
from ctxrnn._feed import check_dt

from ._scoring import Tasks

if TYPE_CHECKING:
    import pandas as pd

_AT_ONCE = 512


def task_variance(
    network: CTRNN, tasks: Tasks, *, trials: int, seed: int, fixation: str = "fixation"
) -> pd.DataFrame:
    """Measure how much each unit's rate varies over the trials of each task.

        TV_i(k) = < Var_trials r_i(t) >_t

    in runs without noise, over the steps after fixation, each with the trials of the task that are
    not over yet (Yang et al. 2019, Nature Neuroscience 22:297).

    Args:
        network: The network.
        tasks: Task set.
        trials: Trials per task, at least 2.
        seed: Seed of the trials.
        fixation: Name of the period before the stimulus, whose steps are left out; a task without
            such a period has all of its steps.

    Returns:
        (unit, task), labelled by the tasks' names.

    Raises:
        ValueError: For fewer than two trials, or tasks that do not fit the network.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import task_variance
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["rtgo", "rtanti"], dt=100, ring=4)
        >>> network = CTRNN(tasks.inputs, 2, tasks.outputs, "e-gain", contexts=2, dt=100, seed=0)
        >>> gamma = torch.tensor([[0.0, -1.0], [-1.0, 0.0]])  # a unit's gain is 0 in the other task
        >>> network.modulation.pathways[0].Gamma.data[:] = gamma
        >>> print(task_variance(network, tasks, trials=20, seed=0) > 0)
               rtgo  rtanti
        unit
        0      True   False
        1     False    True
    """
    import pandas as pd

    check_count("trials", trials, minimum=2)
    batch = tasks.sample(trials * len(tasks.names), generator=make_generator(seed, "task variance"))
    check_dt(network, batch)
    columns = {}
    for k, name in enumerate(tasks.names):
        rows = (batch.task == k).nonzero()[:, 0]
        rates = _rates(network, batch.inputs[rows], batch.context[rows])
        valid = batch.valid[rows].numpy().copy()
        if fixation in batch.periods:
            end = batch.periods[fixation][rows, 1].numpy()
            valid &= np.arange(valid.shape[1]) >= end[:, None]
        columns[name] = _variance(rates, valid)
    return pd.DataFrame(columns, index=pd.RangeIndex(network.units, name="unit"))


def _rates(network: CTRNN, inputs: Tensor, context: Tensor) -> np.ndarray:
    parts = []
    with torch.no_grad():
        for rows in torch.arange(len(inputs)).split(_AT_ONCE):
            run = network(inputs[rows], context[rows], noise=0.0)
            parts.append(run.rates.cpu().double().numpy())
    return np.concatenate(parts)


def _variance(rates: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the variance over trials at each step, averaged over steps with two trials or more."""
    counts = valid.sum(axis=0)
    used = counts >= 2
    there = valid[:, used, None]
    r = np.where(there, rates[:, used], 0.0)
    mean = r.sum(axis=0) / counts[used, None]
    square = (np.where(there, r - mean, 0.0) ** 2).sum(axis=0) / counts[used, None]
    return np.asarray(square.mean(axis=0)) if used.any() else np.zeros(rates.shape[-1])


def normalised_variance(variance: pd.DataFrame, *, least: float = 1e-3) -> pd.DataFrame:
    """Divide each unit's task variances by the largest; leave out units that hardly vary.

    Args:
        variance: From `task_variance`.
        least: Units whose task variances sum to less are left out.

    Returns:
        (unit, task), in [0, 1]; the numbers of the units that are left stand in the index.

    Raises:
        ValueError: If `least` is negative.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import normalised_variance
        >>> variance = pd.DataFrame({"go": [0.2, 0.1, 1e-5], "anti": [0.1, 0.4, 0.0]})
        >>> print(normalised_variance(variance))  # unit 2 hardly varies
             go  anti
        0  1.00   0.5
        1  0.25   1.0
    """
    check_not_negative("least", least)
    kept = variance[variance.sum(axis=1) >= least]
    return kept.div(kept.max(axis=1), axis=0)


def unit_clusters(
    normalised: pd.DataFrame,
    *,
    clusters: Sequence[int] | int = tuple(range(2, 16)),
    seed: int = 0,
) -> pd.DataFrame:
    """Group units by their normalised task variance (k-means; number by the silhouette).

    Args:
        normalised: From `normalised_variance`, (unit, task).
        clusters: Number of clusters, or those of which the one with the highest silhouette is
            taken.
        seed: Seed of k-means.

    Returns:
        One row per unit: unit, cluster (0 is the largest), silhouette of the unit; the mean
        silhouettes tried stand in `attrs["silhouettes"]`.

    Raises:
        ValueError: If there are fewer units than clusters and one.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn.analysis import unit_clusters
        >>> normalised = pd.DataFrame({"go": [1, 1, 0.9, 0.1, 0], "anti": [0, 0.1, 1, 1, 1]})
        >>> groups = unit_clusters(normalised, clusters=[2, 3])  # go alone, both, anti alone
        >>> groups["cluster"].tolist()
        [0, 0, 2, 1, 1]
        >>> max(groups.attrs["silhouettes"], key=groups.attrs["silhouettes"].get)
        3
    """
    import pandas as pd
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_samples

    tried = [clusters] if isinstance(clusters, int) else list(clusters)
    for number in tried:
        check_count("clusters", number, minimum=2)
    x = normalised.to_numpy(dtype=float)
    tried = [number for number in tried if number < len(x)]
    if not tried:
        raise ValueError(f"too few units to group: got {len(x)} whose rates vary")
    distinct = len(np.unique(x.round(12), axis=0))
    tried = [number for number in tried if number <= distinct]
    if not tried:
        raise ValueError(f"units hardly differ: got {distinct} kinds, which is too few to group")
    best: Any = None
    scores = {}
    for number in tried:
        labels = KMeans(number, n_init=20, random_state=seed).fit(x).labels_
        single = silhouette_samples(x, labels)
        scores[number] = float(single.mean())
        if best is None or scores[number] > best[0]:
            best = scores[number], labels, single
    _, labels, single = best
    order = np.argsort(-np.bincount(labels), kind="stable")
    rank = np.argsort(order)
    found = pd.DataFrame({"unit": normalised.index, "cluster": rank[labels], "silhouette": single})
    found.attrs["silhouettes"] = scores
    return found


def lesioned(network: CTRNN, units: Sequence[int] | np.ndarray) -> CTRNN:
    """Return a copy of a network in which some units are silent: their rates are 0.

    Args:
        network: The network.
        units: Numbers of the units.

    Returns:
        The copy; the network itself is left as it is.

    Raises:
        ValueError: For numbers that are none of its units.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import lesioned
        >>> network = CTRNN(1, 3, 1, noise=0.0, seed=0)
        >>> run = lesioned(network, [0, 2])(torch.ones(1, 5, 1))  # (trial, time, input)
        >>> (run.rates == 0).all(dim=1)
        tensor([[ True, False,  True]])
    """
    silent = np.asarray(units, dtype=int).ravel()
    if silent.size and not (silent.min() >= 0 and silent.max() < network.units):
        raise ValueError(
            f"units must lie between 0 and {network.units - 1}: got {silent.min()} to "
            f"{silent.max()}"
        )
    copied = copy.deepcopy(network)
    kept = torch.ones(network.units, dtype=network.dtype, device=network.device)
    kept[torch.tensor(silent.tolist(), dtype=torch.long, device=network.device)] = 0
    copied.phi, copied.nonlinearity_name = _Silenced(network.phi, kept), None
    return copied


class _Silenced:
    """phi, times 0 for units that are silent."""

    def __init__(self, phi: Callable[[Tensor], Tensor], kept: Tensor) -> None:
        self.phi, self.kept = phi, kept

    def __call__(self, z: Tensor) -> Tensor:
        return self.phi(z) * self.kept.to(z)


def lesion_clusters(
    network: CTRNN, tasks: Tasks, groups: pd.DataFrame, *, trials: int, seed: int
) -> pd.DataFrame:
    """Measure each task's accuracy after the units of each cluster were silenced.

    Args:
        network: The network.
        tasks: Task set.
        groups: Columns unit and cluster, from `unit_clusters`.
        trials: Trials per task.
        seed: Seed of trials and noise, the same for all lesions.

    Returns:
        One row per cluster and task, cluster -1 for the whole network: cluster, units (how many
        are silent), task, accuracy, normalised, change (of the normalised accuracy).

    Raises:
        ValueError: For numbers that are none of the network's units, or tasks that do not fit it.

    Example:
        >>> import pandas as pd
        >>> from ctxrnn import CTRNN, TrainConfig, train
        >>> from ctxrnn.analysis import lesion_clusters
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["rtgo", "rtanti"], dt=100, ring=4)
        >>> network = CTRNN(tasks.inputs, 16, tasks.outputs, "e-add", contexts=2, dt=100, seed=0)
        >>> history = train(network, tasks, TrainConfig(steps=100, learning_rate=0.03), seed=0)
        >>> groups = pd.DataFrame({"unit": range(16), "cluster": 0})  # one cluster of all units
        >>> lesions = lesion_clusters(network, tasks, groups, trials=100, seed=0)
        >>> solved = lesions["normalised"] > 0.5
        >>> solved.groupby(lesions["cluster"]).sum().to_dict()  # tasks; -1 is the whole network
        {-1: 2, 0: 0}
    """
    import pandas as pd

    check_count("trials", trials)
    batch = tasks.sample(trials * len(tasks.names), generator=make_generator(seed, "lesions"))
    check_dt(network, batch)
    lesions = [(-1, np.zeros(0, dtype=int))]
    lesions += [(int(c), part["unit"].to_numpy()) for c, part in groups.groupby("cluster")]
    rows = []
    whole: dict[str, float] = {}
    for cluster, units in lesions:
        shared = make_generator(seed, "lesion noise")
        with torch.no_grad():
            model = lesioned(network, units)
            outputs = model(batch.inputs, batch.context, generator=shared).outputs
        correct = tasks.correct(outputs, batch).to(torch.float64)
        for k, name in enumerate(tasks.names):
            accuracy = float(correct[batch.task == k].mean())
            chance, ceiling = tasks.chance[name], tasks.ceiling[name]
            normalised = (accuracy - chance) / (ceiling - chance)
            whole.setdefault(name, normalised)
            rows.append(
                {
                    "cluster": cluster, "units": len(units), "task": name, "accuracy": accuracy,
                    "normalised": normalised, "change": normalised - whole[name],
                }
            )  # fmt: skip
    return pd.DataFrame(rows)
