"""Networks learn as well from trials drawn at once, and from a bank, as from neurogym's own."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ctxrnn import CTRNN, TrainConfig, train
from ctxrnn.tasks import task_set

NAMES = ["go", "dm1", "dm2"]
SEEDS, TESTS = 3, 1500


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_accuracy_on_fresh_neurogym_trials_does_not_depend_on_where_training_trials_come_from():
    vectorised, own = (
        task_set(NAMES, dt=50.0, ring=8, sampler=sampler) for sampler in ("vectorised", "neurogym")
    )
    sources = {"fresh": vectorised, "bank": vectorised.bank(1024, generator=5), "neurogym": own}
    config = TrainConfig(
        steps=450, learning_rate=5e-3, evaluate_every=450, evaluation_trials=3, target=None,
        keep="last",
    )  # fmt: skip
    test = own.sample(TESTS * len(NAMES), generator=77)
    found = {}
    for source, tasks in sources.items():
        found[source] = [
            list(after_training(tasks, config, seed, test, own).values()) for seed in range(SEEDS)
        ]
    accuracies = np.stack(list(found.values()))  # (source, seed, task)
    # All three are learnt, far above chance, 1/8.
    assert accuracies.mean(1).min() > 0.7, found
    # Student's t of means over seeds, whose spread is that within the sources; it is at least that
    # of a binomial number. 9 comparisons at 0.1 % each; the seeds are fixed.
    freedom = len(sources) * (SEEDS - 1)
    within = np.sqrt(accuracies.var(axis=1, ddof=1).mean(0))
    p = accuracies.mean((0, 1))
    binomial = np.sqrt(np.maximum(p * (1 - p), 1 / TESTS) / TESTS)
    bound = stats.t.isf(5e-4, freedom) * np.maximum(within, binomial) * math.sqrt(2 / SEEDS)
    means = accuracies.mean(1)
    for one in range(3):
        for other in range(one):
            assert (np.abs(means[one] - means[other]) < bound).all(), (found, bound)


def after_training(tasks, config, seed, test, own):
    network = CTRNN(
        tasks.inputs, 40, tasks.outputs, "e-add", contexts=len(NAMES), dt=50.0, seed=seed
    )
    train(network, tasks, config, seed=seed)
    with torch.no_grad():
        outputs = network(test.inputs, test.context, generator=torch.Generator().manual_seed(1))
    return own.accuracy(outputs.outputs, test)
