"""neurogym tasks outside yang19."""

import gymnasium
import numpy as np
import pytest
import torch
from ctxrnn.tasks._raw import response_of

from ctxrnn.tasks import YANG19, list_tasks, neurogym_ids, task_set


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("PerceptualDecisionMaking-v0", 3, 3),
        ("GoNogo", 3, 2),
        ("DelayMatchSample-v0", 3, 3),
        ("DelayMatchCategory", 3, 3),
        ("PostDecisionWager", 4, 4),
        ("HierarchicalReasoning", 5, 5),
        ("perceptualdecisionmaking.ibl20-v0", 3, 3),
        ("ReachingDelayResponse", 2, 2),
    ],
)
def test_native_tasks_sample_reproducibly(name, inputs, outputs):
    tasks = task_set(name)
    assert (tasks.inputs, tasks.outputs) == (inputs, outputs)
    first = tasks.sample(12, generator=1)
    tasks.sample(25, generator=2)
    again = tasks.sample(12, generator=1)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)
    assert torch.equal(first.inputs, task_set(name).sample(12, generator=1).inputs)
    assert not torch.equal(
        first.targets, tasks.sample(12, generator=3).targets[:, : first.targets.shape[1]]
    )
    assert first.context.tolist() == [[1.0]] * 12
    response = first.periods["response"]
    assert (response[:, 0] < response[:, 1]).all()
    assert (response[:, 1] <= first.lengths).all()
    assert (first.mask[first.valid].reshape(-1) >= 0).all()
    assert (first.last(first.mask) == 5).all()
    assert tasks.ceiling == {tasks.names[0]: 1.0}


def test_blocks_do_not_depend_on_when_a_task_was_built():
    # Unseeded, six builds would agree in their first block's length with probability 11^-5.
    batches = [task_set("HierarchicalReasoning").sample(25, generator=0) for _ in range(6)]
    rules = [batch.conditions["rule"] for batch in batches]
    assert len(set(rules[0])) == 2
    for other in rules[1:]:
        np.testing.assert_array_equal(other, rules[0])


def test_a_users_mixture_of_environments_is_reproducible():
    from neurogym.utils.scheduler import RandomSchedule
    from neurogym.wrappers import ScheduleEnvs

    def mixture(dt):
        make = gymnasium.envs.registration.load_env_creator
        creator = make("neurogym.envs.native.perceptualdecisionmaking:PerceptualDecisionMaking")
        parts = [
            creator(dt=dt, timing={"stimulus": 400 * k, "fixation": 100}, cohs=[k])
            for k in (1, 2, 3)
        ]
        return ScheduleEnvs(parts, RandomSchedule(3))

    gymnasium.register("Mixture-v0", entry_point=mixture)
    try:
        tasks = task_set("Mixture")
        first = tasks.sample(30, generator=0)
        tasks.sample(5, generator=1)
        assert set(first.conditions["coh"]) == {1.0, 2.0, 3.0}
        for again in (tasks, task_set("Mixture")):
            assert torch.equal(again.sample(30, generator=0).inputs, first.inputs)
        other = tasks.sample(30, generator=1)
        assert not np.array_equal(other.conditions["coh"], first.conditions["coh"])
        quiet = task_set("Mixture", noise=0.0).sample(30, generator=0)
        assert quiet.inputs[:, 10:20, 1].std(dim=1).max() < 1e-6
    finally:
        gymnasium.registry.pop("Mixture-v0")


def test_a_task_without_decision_period_responds_where_the_truth_leaves_fixation():
    batch = task_set("DelayMatchCategory", dt=50.0).sample(6, generator=0)
    assert "decision" not in batch.periods
    active = batch.targets > 0
    assert torch.equal(batch.periods["response"][:, 0], active.int().argmax(1))
    assert torch.equal(batch.periods["response"][:, 0], batch.periods["test"][:, 0])


def test_response_rule_by_hand():
    truth = np.array([0, 0, 1, 0])
    assert response_of({"decision": (1, 4)}, truth) == (1, 4)
    assert response_of({"cue": (0, 2)}, truth) == (2, 4)
    assert response_of({"cue": (0, 2), "wait": (2, 4)}, np.zeros(4, int)) == (2, 4)
    assert response_of({}, np.zeros(4, int)) == (0, 4)
    assert response_of({}, np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 0.5]])) == (2, 3)


def test_periods_of_some_trials_only_are_marked_absent():
    batch = task_set("PostDecisionWager").sample(20, generator=0)
    wager = batch.conditions["wager"] == 1
    assert wager.any()
    assert not wager.all()
    assert torch.equal(batch.periods["pre_sure"][:, 0] >= 0, torch.tensor(wager))


def test_noise_scales_and_continuous_targets_are_floats():
    quiet, loud = (
        task_set("PerceptualDecisionMaking", noise=noise).sample(10, generator=0)
        for noise in (0.0, 2.0)
    )
    steps = slice(10, 50)
    assert quiet.inputs[:, steps, 1].std(dim=1).max() < 1e-6
    assert loud.inputs[:, steps, 1].std(dim=1).min() > 0.2
    batch = task_set("ReachingDelayResponse").sample(3, generator=0)
    assert task_set("ReachingDelayResponse").kind == "regression"
    assert batch.targets.dtype == torch.float32
    assert batch.targets.shape[2] == 2


def test_continuous_actions_are_right_within_a_tenth_of_their_range():
    tasks = task_set("ReachingDelayResponse")
    batch = tasks.sample(200, generator=0)
    span = torch.tensor([2.0, 3.0])  # Box(-1, [1, 2])
    for share, right in ((0.0, 1.0), (0.099, 1.0), (-0.099, 1.0), (0.101, 0.0)):
        for channel in range(2):
            outputs = batch.targets.clone()
            outputs[..., channel] += share * span[channel]
            assert tasks.accuracy(outputs, batch) == {tasks.names[0]: right}
    assert tasks.fixation_kept(batch.targets, batch).all()
    source = torch.Generator().manual_seed(1)
    guess = torch.rand(200, batch.inputs.shape[1], 2, generator=source) * span - 1
    found = tasks.accuracy(guess, batch)[tasks.names[0]]
    p = tasks.chance[tasks.names[0]]
    assert 0 < p < 0.04 + 1e-9
    # Both are sampled: 200 trials here, 2,000 there.
    assert abs(found - p) < 6 * (0.04 * (1 / 200 + 1 / 2000)) ** 0.5


def test_options_reach_the_environment():
    tasks = task_set("PerceptualDecisionMaking", cohs=[100], timing={"stimulus": 400})
    batch = tasks.sample(5, generator=0)
    assert set(batch.conditions["coh"]) == {100.0}
    assert (batch.periods["stimulus"].diff(dim=1) == 20).all()


def test_the_list_of_yang19_tasks_is_neurogyms():
    from neurogym.envs.collections import get_collection

    assert get_collection("yang19") == [f"yang19.{name}-v0" for name in YANG19]


def test_list_tasks():
    table = list_tasks(dt=50.0, ring=8)
    assert list(table.columns) == [
        "name", "family", "inputs", "outputs", "shortest_ms", "mean_ms", "longest_ms",
        "chance", "ceiling", "repairs",
    ]  # fmt: skip
    assert table["name"].tolist() == list(YANG19)
    rows = table.set_index("name")
    assert rows.loc["go", ["inputs", "outputs", "mean_ms", "chance"]].tolist() == [
        17,
        9,
        1500,
        0.125,
    ]
    # Fixation of 200 to 450 ms, then 500 + 200 ms, or 500 + 1000 + 500 + 200 ms.
    assert rows.loc["dm1", ["shortest_ms", "longest_ms"]].tolist() == [900, 1150]
    assert rows.loc["multidlydm", ["shortest_ms", "longest_ms"]].tolist() == [2400, 2650]
    assert rows.loc["dms", "longest_ms"] == 3200
    assert rows.loc["multidm", "repairs"] == "go-cue, ties"
    assert rows.loc["go", "repairs"] == ""


def test_neurogym_ids():
    every, usable = neurogym_ids(), neurogym_ids(check=True)
    assert set(usable) < set(every)
    assert not any(name.startswith("yang19") for name in every)
    assert {"GoNogo-v0", "PerceptualDecisionMaking-v0"} <= set(usable)
    assert not {"Bandit-v0", "Null-v0", "AnnubesEnv-v0", "PulseDecisionMaking-v0"} & set(usable)
    assert "PulseDecisionMaking-v0" in neurogym_ids(dt=10.0, check=True)
