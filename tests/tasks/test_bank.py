"""A bank hands out trials of its pool, with the distribution of fresh ones."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from ctxrnn.tasks import TrialBank, task_set


@pytest.fixture(scope="module")
def tasks():
    return task_set(["go", "dm1", "dms"], dt=50.0, ring=8)


@pytest.fixture(scope="module")
def bank(tasks):
    return tasks.bank(200, generator=0)


def test_a_bank_has_what_its_set_has(tasks, bank):
    assert isinstance(bank, TrialBank)
    for name in ("names", "inputs", "outputs", "dt", "ring", "kind", "chance", "ceiling"):
        assert getattr(bank, name) == getattr(tasks, name)
    assert bank.config() == tasks.config()
    assert torch.bincount(bank.pool.task).tolist() == [200, 200, 200]
    assert torch.equal(bank.pool.inputs, tasks.sample(600, generator=0).inputs)


def test_sampling_is_reproducible_and_balanced(bank):
    one, two = (bank.sample(31, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.inputs, two.inputs)
    assert set(torch.bincount(one.task).tolist()) == {10, 11}
    three, four = (bank.sample(30, generator=seed).inputs for seed in (3, 4))
    assert not torch.equal(three, four)
    assert bank.sample(3, generator=0, tasks=["dms", "go", "dms"]).task.tolist() == [2, 0, 2]
    with pytest.raises(ValueError, match="trials must be at least 1"):
        bank.sample(0, generator=0)


def test_trials_come_from_the_pool_with_their_own_task(bank):
    batch = bank.sample(30, generator=5)
    for row in range(30):
        length = int(batch.lengths[row])
        same = (bank.pool.inputs[:, :length] == batch.inputs[row, :length]).all(-1).all(-1)
        same &= (bank.pool.lengths == length) & (bank.pool.task == batch.task[row])
        assert same.any()
        found = int(same.nonzero()[0])
        assert torch.equal(bank.pool.targets[found, :length], batch.targets[row, :length])
        assert torch.equal(bank.pool.mask[found, :length], batch.mask[row, :length])


def test_conditions_are_as_frequent_as_fresh_ones(tasks):
    pool, fresh = tasks.bank(1500, generator=1), tasks.sample(4500, generator=2)
    reused = pool.sample(4500, generator=3)
    rows = {name: (b.task == k).numpy() for k, name in enumerate(tasks.names) for b in [fresh]}
    for name, key, values, p in (
        ("go", "ground_truth", range(8), 1 / 8),
        ("go", "modality", (1, 2), 1 / 2),
        ("dms", "match", (0, 1), 1 / 2),
        ("dm1", "coh1_mod1", (0.82, 0.66, 0.58, 0.54, 0.46, 0.42, 0.34, 0.18), 1 / 8),
    ):
        for value in values:
            once = np.isclose(fresh.conditions[key][rows[name]], value).mean()
            again = np.isclose(reused.conditions[key][rows[name]], value).mean()
            assert abs(once - p) < 6 * math.sqrt(p * (1 - p) / 1500)
            # Two binomial draws on top of each other: the pool's and the picking's.
            assert abs(again - p) < 6 * math.sqrt(2 * p * (1 - p) / 1500)


@pytest.mark.parametrize(("name", "kinds_of_trials"), [("go", 8), ("dm1", 200)])
def test_trials_are_picked_evenly(bank, name, kinds_of_trials):
    # Every trial of the pool is picked 20,000 / 200 = 100 times on average; Poisson, 6 sigma.
    rng = torch.Generator().manual_seed(0)
    picked = bank.sample(20000, generator=rng, tasks=name)
    key = picked.inputs.double().sum((1, 2)) * 1000 + picked.targets.sum(1)
    pool = bank.pool.select(bank.pool.task == bank.names.index(name))
    pool_key = pool.inputs.double().sum((1, 2)) * 1000 + pool.targets.sum(1)
    kinds, copies = np.unique(pool_key.numpy().round(3), return_counts=True)
    found, counts = np.unique(key.numpy().round(3), return_counts=True)
    assert len(kinds) == kinds_of_trials
    assert np.array_equal(kinds, found)
    assert (np.abs(counts - 100 * copies) < 6 * np.sqrt(100 * copies)).all()


def test_pickle_and_copy(bank):
    for other in (pickle.loads(pickle.dumps(bank)), copy.deepcopy(bank)):
        assert torch.equal(other.sample(9, generator=1).inputs, bank.sample(9, generator=1).inputs)


def test_the_pool_must_hold_a_trial(tasks):
    with pytest.raises(ValueError, match="trials_per_task must be at least 1: got 0"):
        tasks.bank(0, generator=0)


def test_the_pool_is_stored_without_padding(bank):
    stored = bank._stored
    assert len(stored.inputs) == len(stored.targets) == 1 + int(bank.pool.lengths.sum())
    fresh = task_set(["go", "dm1", "dms"], dt=50.0, ring=8).sample(600, generator=0)
    for key in ("inputs", "targets", "mask", "context", "task", "lengths"):
        assert torch.equal(getattr(bank.pool, key), getattr(fresh, key))
        assert getattr(bank.pool, key).dtype == getattr(fresh, key).dtype
    assert bank.pool.periods.keys() == fresh.periods.keys()
    for name, steps in fresh.periods.items():
        assert torch.equal(bank.pool.periods[name], steps)
    assert bank.pool.conditions.keys() == fresh.conditions.keys()
    for name, values in fresh.conditions.items():
        np.testing.assert_array_equal(bank.pool.conditions[name], values)
    batch = bank.sample(20, generator=4)
    for values in (batch.inputs, batch.targets, batch.mask):
        assert (values[~batch.valid] == 0).all()


@pytest.mark.parametrize("name", ["ReachingDelayResponse", "PostDecisionWager"])
def test_other_tasks_have_banks_too(name):
    tasks = task_set(name)
    pool, fresh = tasks.bank(15, generator=2).pool, tasks.sample(15, generator=2)
    for key in ("inputs", "targets", "mask"):
        assert torch.equal(getattr(pool, key), getattr(fresh, key))
    for period, steps in fresh.periods.items():
        assert torch.equal(pool.periods[period], steps)
