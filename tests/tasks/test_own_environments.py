"""Environments of a user's own, by the id under which gymnasium knows them."""

import gymnasium
import numpy as np
import pytest
import torch
from neurogym.core import TrialEnv
from neurogym.utils import spaces

from ctxrnn import CTRNN, TrainConfig, train
from ctxrnn.tasks import task_set


class Louder(TrialEnv):
    """Say which of two inputs was the larger one."""

    def __init__(self, dt=100, timing=None, sigma=0.5):
        super().__init__(dt=dt)
        self.sigma = sigma / np.sqrt(dt)
        self.timing = {"fixation": 100, "stimulus": 400, "decision": 200, **(timing or {})}
        self.observation_space = spaces.Box(
            -np.inf, np.inf, shape=(3,), dtype=np.float32, name={"fixation": 0, "stimulus": [1, 2]}
        )
        self.action_space = spaces.Discrete(3, name={"fixation": 0, "choice": [1, 2]})

    def _new_trial(self, **given):
        trial = {"ground_truth": int(self.rng.choice([0, 1])), **given}
        self.add_period(["fixation", "stimulus", "decision"])
        self.add_ob(1, period=["fixation", "stimulus"], where="fixation")
        seen = np.eye(2)[trial["ground_truth"]]
        self.add_ob(seen, period="stimulus", where="stimulus")
        self.add_randn(0, self.sigma, period="stimulus", where="stimulus")
        self.set_groundtruth(trial["ground_truth"], period="decision", where="choice")
        return trial


@pytest.fixture
def registered():
    gymnasium.register(id="Louder-v0", entry_point=Louder)
    yield "Louder-v0"
    gymnasium.envs.registry.pop("Louder-v0")


def test_a_registered_class_is_a_task(registered):
    tasks = task_set(registered, dt=50)
    assert (tasks.inputs, tasks.outputs, tasks.names) == (3, 3, ("Louder",))
    assert tasks.chance == pytest.approx({"Louder": 0.5})
    batch = tasks.sample(40, generator=0)
    assert torch.equal(batch.inputs, tasks.sample(40, generator=0).inputs)
    first, stop = batch.periods["stimulus"].T
    assert (first.unique().tolist(), stop.unique().tolist()) == ([2], [10])
    means = batch.inputs[:, 2:10, 1:].mean(1)
    answers = batch.last(batch.targets)
    assert torch.equal(means.argmax(1) + 1, answers)
    np.testing.assert_array_equal(batch.conditions["ground_truth"], answers - 1)


def test_a_registered_class_takes_its_options_and_is_learnt(registered):
    tasks = task_set(registered, dt=50, timing={"stimulus": 200}, noise=0.5)
    assert tasks.sample(4, generator=0).inputs.shape[1] == 10
    network = CTRNN(tasks.inputs, 16, tasks.outputs, contexts=1, dt=50, seed=0)
    config = TrainConfig(steps=300, learning_rate=1e-2, evaluate_every=50, evaluation_trials=128)
    history = train(network, tasks, config, seed=0, progress=False)
    assert history.rows[-1]["accuracy.Louder"] > 0.95


@pytest.mark.parametrize("given", [Louder, [Louder], ["go", Louder], Louder(), [Louder()]])
def test_classes_and_instances_are_told_how_to_get_a_name(given):
    with pytest.raises(TypeError, match=r"gymnasium\.register\(id='Mine-v0', entry_point=Mine\)"):
        task_set(given)
