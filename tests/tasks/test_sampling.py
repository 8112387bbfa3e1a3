"""Batches: reproducible, pure, balanced, padded, masked, with the rule kept apart."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from ctxrnn.tasks._assemble import loss_mask

from ctxrnn.tasks import YANG19, task_set


def same(one, two):
    assert torch.equal(one.inputs, two.inputs)
    assert torch.equal(one.targets, two.targets)
    assert torch.equal(one.mask, two.mask)
    assert torch.equal(one.task, two.task)
    assert torch.equal(one.context, two.context)
    assert one.conditions.keys() == two.conditions.keys()
    for name, values in one.conditions.items():
        np.testing.assert_array_equal(values, two.conditions[name])
    for name, steps in one.periods.items():
        assert torch.equal(steps, two.periods[name])


def test_equal_generators_give_equal_batches_whatever_came_before():
    tasks = task_set(dt=50.0, ring=8)
    first = tasks.sample(45, generator=torch.Generator().manual_seed(1))
    tasks.sample(7, generator=2)
    tasks.sample(3, generator=3, tasks="go")
    same(first, tasks.sample(45, generator=torch.Generator().manual_seed(1)))
    same(first, task_set(dt=50.0, ring=8).sample(45, generator=torch.Generator().manual_seed(1)))


def test_reading_the_levels_does_not_change_what_is_sampled():
    tasks = task_set(["dm1", "dms"], dt=50.0, ring=8, repairs=False)
    first = tasks.sample(6, generator=1)
    _ = tasks.chance, tasks.ceiling, tasks.describe()
    same(first, tasks.sample(6, generator=1))


def test_a_generator_moves_on_and_seeds_differ():
    tasks = task_set("dm1")
    generator = torch.Generator().manual_seed(0)
    one, two = (tasks.sample(4, generator=generator).inputs.sum() for _ in range(2))
    assert one != two
    assert tasks.sample(4, generator=0).inputs.sum() != tasks.sample(4, generator=1).inputs.sum()


def test_another_process_gives_the_same_batch():
    code = (
        "import torch\nfrom ctxrnn.tasks import task_set\n"
        "batch = task_set(['go', 'dm1', 'dms']).sample(9, generator=4)\n"
        "print(batch.inputs.double().sum().item().hex(), batch.targets.sum().item())"
    )
    got = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    batch = task_set(["go", "dm1", "dms"]).sample(9, generator=4)
    assert got.stderr == ""
    assert got.stdout.split() == [
        batch.inputs.double().sum().item().hex(),
        str(batch.targets.sum().item()),
    ]


def test_a_tasks_trials_do_not_depend_on_the_other_tasks():
    one = task_set(["go", "dm1"]).sample(8, generator=3)
    two = task_set(["dm1", "go"]).sample(8, generator=3)
    assert torch.equal(one.select(one.task == 1).inputs, two.select(two.task == 0).inputs)


def test_batches_do_not_share_memory():
    tasks = task_set("dm1")
    first = tasks.sample(2, generator=0)
    kept = first.inputs.clone()
    tasks.sample(2, generator=1)
    assert torch.equal(first.inputs, kept)


def test_a_timing_function_with_its_own_random_numbers_is_reseeded():
    from neurogym.utils.ngym_random import TruncExp

    tasks = task_set("go", timing={"fixation": TruncExp(500, 200, 2000)})
    first = tasks.sample(5, generator=0)
    tasks.sample(3, generator=1)
    same(first, tasks.sample(5, generator=0))
    assert len(set(first.lengths.tolist())) > 1


def test_trials_are_balanced_and_the_remainder_is_random():
    tasks = task_set(dt=50.0, ring=8)
    extra = set()
    for seed in range(3):
        counts = torch.bincount(tasks.sample(45, generator=seed).task, minlength=20)
        assert counts.sum() == 45
        assert set(counts.tolist()) == {2, 3}
        extra.add(tuple(torch.nonzero(counts == 3).squeeze(-1).tolist()))
    assert len(extra) == 3


def test_unbalanced_trials_choose_their_task_independently():
    tasks = task_set(["go", "anti"])
    counts = [
        int((tasks.sample(40, generator=seed, balanced=False).task == 0).sum())
        for seed in range(10)
    ]
    # Binomial (40, 1/2): equal counts ten times in a row would have probability (1/8)^9.
    assert len(set(counts)) > 1
    assert abs(sum(counts) - 200) < 6 * 10


def test_modalities_are_balanced_in_a_random_order():
    batch = task_set("go").sample(21, generator=7)
    modality = batch.conditions["modality"]
    assert sorted(((modality == 1).sum(), (modality == 2).sum())) == [10, 11]
    assert (np.diff(modality) == 0).any()
    ones = [task_set("go").sample(1, generator=s).conditions["modality"][0] for s in range(20)]
    assert set(ones) == {1, 2}


def test_tasks_may_be_chosen():
    tasks = task_set(["go", "anti", "rtgo"])
    assert tasks.sample(5, generator=0, tasks="anti").task.tolist() == [1] * 5
    subset = tasks.sample(4, generator=0, tasks=["rtgo", "yang19.go-v0"])
    assert subset.task.tolist() == [0, 0, 2, 2]
    each = tasks.sample(4, generator=0, tasks=["rtgo", "go", "rtgo", "anti"])
    assert each.task.tolist() == [2, 0, 2, 1]
    assert each.lengths.tolist() == [50, 75, 50, 75]
    with pytest.raises(ValueError, match="unknown task of this set 'dms'"):
        tasks.sample(4, generator=0, tasks=["dms"])
    with pytest.raises(ValueError, match="one name for each of the 4 trials"):
        tasks.sample(4, generator=0, tasks=["go", "go"])


def test_context_is_one_hot_and_the_stimulus_holds_no_rule():
    tasks = task_set(YANG19, ring=8)
    batch = tasks.sample(40, generator=0)
    assert torch.equal(batch.context, torch.eye(20)[batch.task])
    assert batch.names == YANG19
    assert batch.inputs.shape[2] == tasks.inputs == 17
    pairs = task_set(["dlygo", "dlyanti"], ring=8, noise=0.0).sample(200, generator=0)
    shown = [{row.numpy().tobytes() for row in pairs.inputs[pairs.task == task]} for task in (0, 1)]
    # 100 trials over 8 directions and 2 modalities: all 16 stimuli occur in both tasks but for
    # a probability below 2 * 16 (15/16)^100 = 0.05 per seed; this seed has them.
    assert shown[0] == shown[1]
    assert len(shown[0]) == 16


def test_lengths_padding_and_types():
    batch = task_set(["rtgo", "dlygo"]).sample(4, generator=0)
    assert batch.lengths.tolist() == [50, 50, 100, 100]
    assert batch.inputs.shape == (4, 100, 33)
    for values in (batch.inputs, batch.targets, batch.mask):
        assert (values[:2, 50:] == 0).all()
    assert batch.inputs.dtype == batch.mask.dtype == torch.float32
    assert batch.targets.dtype == torch.int64


def test_mask_and_periods_by_hand():
    batch = task_set("go", dt=20.0).sample(2, generator=0)
    # fixation 500 ms, stimulus 500 ms, no delay, decision 500 ms: 25 + 25 + 25 steps.
    assert batch.mask[0].tolist() == [1.0] * 50 + [0.0] * 5 + [5.0] * 20
    assert batch.periods["fixation"].tolist() == [[0, 25]] * 2
    assert batch.periods["stimulus"].tolist() == [[25, 50]] * 2
    assert batch.periods["decision"].tolist() == batch.periods["response"].tolist()
    assert batch.periods["response"].tolist() == [[50, 75]] * 2
    assert "delay" not in batch.periods
    mixed = task_set(["go", "dlygo"]).sample(2, generator=0)
    assert mixed.periods["delay"].tolist() == [[-1, -1], [50, 75]]


def test_mask_of_withheld_trials_follows_the_period_too():
    batch = task_set("dms", dt=50.0, ring=8).sample(8, generator=0)
    assert (batch.last(batch.targets) == 0).any()
    # 300, 500, 1000, 500 ms, then 900 ms of decision: 46 + 18 steps, the first 2 of them free.
    assert batch.mask.tolist() == [[1.0] * 46 + [0.0] * 2 + [5.0] * 16] * 8


@pytest.mark.parametrize(
    ("dt", "grace", "weights"),
    [
        (100.0, 100.0, [0, 5]),
        (200.0, 100.0, [5]),
        (60.0, 100.0, [0, 0, 5]),
        (20.0, 0.0, [5] * 10),
        (20.0, 1000.0, [0] * 9 + [5]),
        (50.0, 100.0, [0, 0, 5, 5]),
    ],
)
def test_grace_is_cut_so_that_the_last_step_counts(dt, grace, weights):
    batch = task_set("dm2", dt=dt, response_grace=grace).sample(3, generator=0)
    for row, (start, end) in zip(batch.mask, batch.periods["response"], strict=True):
        assert row[start:end].tolist() == weights
        assert (row[:start] == 1).all()


def test_mask_of_small_time_steps_has_no_rounding():
    # In floating point 2.1 / 0.3 is 7.000000000000001.
    mask = loss_mask(np.array([[0, 30]]), np.array([30]), 30, dt=0.3, grace=2.1)
    assert (mask == 0).sum() == 7


def test_conditions_have_nan_where_a_task_has_none():
    batch = task_set(["go", "dms", "ctxdm1"]).sample(6, generator=0)
    c = batch.conditions
    assert np.isnan(c["theta1"][:4]).all()
    assert not np.isnan(c["theta1"][4:]).any()
    assert set(c["match"][2:4]) <= {0.0, 1.0}
    assert np.isnan(c["modality"][4:]).all()
    np.testing.assert_array_equal(c["ground_truth"][:2] + 1, batch.last(batch.targets)[:2])


def test_targets_of_each_family_by_hand():
    batch = task_set(["anti", "ctxdm1", "ctxdm2"], noise=0.0).sample(30, generator=0)
    last = batch.last(batch.targets)
    c = batch.conditions
    index = {key: np.rint(c[key] * 16 / (2 * np.pi)) for key in ("theta1", "theta2")}
    for trial in range(30):
        if batch.task[trial] == 0:
            stimulus = batch.inputs[trial, 30, 1:].reshape(2, 16).sum(0)
            assert int(stimulus.argmax()) == (int(last[trial]) - 1 + 8) % 16
        else:
            mod = int(batch.task[trial])
            first = c[f"coh1_mod{mod}"][trial] > c[f"coh2_mod{mod}"][trial]
            assert last[trial] == 1 + index["theta1" if first else "theta2"][trial]


def test_config_and_pickle_rebuild_the_set():
    tasks = task_set(
        ["go", "dm1"],
        dt=50.0,
        ring=8,
        repairs={"go-cue"},
        noise=0.5,
        response_grace=50.0,
        timing={"fixation": ("uniform", (300, 600))},
    )
    again = task_set(**json.loads(json.dumps(tasks.config())))
    same(tasks.sample(10, generator=0), again.sample(10, generator=0))
    assert again.config() == tasks.config()
    same(tasks.sample(10, generator=0), pickle.loads(pickle.dumps(tasks)).sample(10, generator=0))
    with pytest.raises(ValueError, match="numbers, strings and lists to be stored"):
        task_set("go", timing={"fixation": lambda: 300}).config()


@pytest.mark.parametrize(
    ("trials", "error", "message"),
    [
        (0, ValueError, "trials must be at least 1: got 0"),
        (-3, ValueError, "trials must be at least 1"),
        (2.0, TypeError, "trials must be an integer"),
    ],
)
def test_count_of_trials_is_checked(trials, error, message):
    with pytest.raises(error, match=message):
        task_set("go").sample(trials, generator=0)


@pytest.mark.parametrize("generator", [None, 1.5, True, "0"])
def test_generator_is_checked(generator):
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator or a seed"):
        task_set("go").sample(1, generator=generator)
