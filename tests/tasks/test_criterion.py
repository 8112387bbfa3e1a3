"""The criterion of a correct trial and of kept fixation, by hand."""

import math

import pytest
import torch

from ctxrnn import TrialBatch
from ctxrnn.tasks import _criterion as criterion
from ctxrnn.tasks import task_set


def batch_of(targets, lengths=None, response=2):
    trials, steps = targets.shape[:2]
    lengths = torch.full((trials,), steps) if lengths is None else torch.tensor(lengths)
    return TrialBatch(
        inputs=torch.zeros(trials, steps, 5),
        targets=targets,
        mask=torch.ones(trials, steps),
        context=torch.ones(trials, 1),
        task=torch.zeros(trials, dtype=torch.int64),
        lengths=lengths,
        names=("go",),
        dt=20.0,
        periods={"response": torch.tensor([[response, steps]] * trials)},
    )


def test_class_is_judged_at_the_last_valid_step():
    targets = torch.tensor([[0, 0, 0, 2], [0, 0, 1, 0], [0, 0, 0, 0]])
    outputs = torch.nn.functional.one_hot(
        torch.tensor([[1, 1, 1, 2], [0, 0, 1, 2], [0, 0, 0, 1]]), 3
    ).float()
    batch = batch_of(targets, lengths=[4, 3, 4])
    assert criterion.correct(outputs, batch, "class").tolist() == [True, True, False]
    assert criterion.fixation_kept(outputs, batch, "class").tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("fixation", "angle", "right"),
    [
        (0.4, 0.0, True),
        (0.4, 0.199 * math.pi, True),
        (0.4, -0.199 * math.pi, True),
        (0.4, 0.201 * math.pi, False),
        (0.4, math.pi, False),
        (0.4, 2 * math.pi, True),
        (0.6, 0.0, False),
        (0.5, 0.0, False),
    ],
)
@pytest.mark.parametrize("direction", [0.0, 2.0, math.pi])
@pytest.mark.parametrize("length", [0.01, 3.0])
def test_vector_answers(fixation, angle, right, direction, length):
    targets = torch.zeros(1, 4, 3)
    targets[0, 3] = torch.tensor([0.0, math.sin(direction), math.cos(direction)])
    outputs = torch.zeros(1, 4, 3)
    seen = direction + angle
    outputs[0, 3] = torch.tensor([fixation, length * math.sin(seen), length * math.cos(seen)])
    assert criterion.correct(outputs, batch_of(targets), "vector").tolist() == [right]


@pytest.mark.parametrize(("fixation", "right"), [(0.6, True), (0.4, False)])
def test_vector_withhold_asks_for_fixation_only(fixation, right):
    targets = torch.zeros(1, 4, 3)
    targets[..., 0] = 1
    outputs = torch.full((1, 4, 3), 0.7)
    outputs[..., 0] = fixation
    batch = batch_of(targets)
    assert criterion.correct(outputs, batch, "vector").tolist() == [right]
    assert criterion.fixation_kept(outputs, batch, "vector").tolist() == [right]


def test_vector_of_length_zero_is_no_answer():
    targets = torch.zeros(1, 4, 3)
    targets[0, 3, 2] = 1
    assert not criterion.correct(torch.zeros(1, 4, 3), batch_of(targets), "vector").any()


@pytest.mark.parametrize("encoding", ["ring", "vector"])
def test_perfect_and_hasty_answers(encoding):
    tasks = task_set(["go", "dm1", "dms"], dt=50.0, ring=8, encoding=encoding)
    batch = tasks.sample(30, generator=0)
    if encoding == "ring":
        perfect = torch.nn.functional.one_hot(batch.targets, 9).float()
    else:
        perfect = batch.targets.clone()
    assert set(tasks.accuracy(perfect, batch).values()) == {1.0}
    assert set(tasks.accuracy(perfect, batch, fixation=True).values()) == {1.0}
    # Leaving fixation for one step before the response spoils the second score only.
    hasty = perfect.clone()
    rows = torch.arange(30)
    step = batch.periods["response"][:, 0] - 1
    hasty[rows, step] = 0.0
    hasty[rows, step, 1] = 1.0
    assert set(tasks.accuracy(hasty, batch).values()) == {1.0}
    assert set(tasks.accuracy(hasty, batch, fixation=True).values()) == {0.0}
    assert not tasks.fixation_kept(hasty, batch).any()
    # The first response step is free.
    late = perfect.clone()
    late[rows, step + 1] = hasty[rows, step]
    assert tasks.correct(late, batch, fixation=True).all()


def test_accuracy_is_per_task_in_the_batch():
    tasks = task_set(["go", "anti", "rtgo"])
    batch = tasks.sample(4, generator=0, tasks=["go", "rtgo", "rtgo", "go"])
    outputs = torch.nn.functional.one_hot(batch.targets, 17).float()
    outputs[1] = 0.0
    assert tasks.accuracy(outputs, batch) == {"go": 1.0, "rtgo": 0.5}


def test_outputs_must_fit():
    tasks = task_set("go")
    batch = tasks.sample(2, generator=0)
    with pytest.raises(ValueError, match=r"outputs must have shape \(2, 75, 17\)"):
        tasks.accuracy(torch.zeros(2, 75, 3), batch)
    with pytest.raises(ValueError, match=r"got \(2, 74, 17\)"):
        tasks.fixation_kept(torch.zeros(2, 74, 17), batch)
