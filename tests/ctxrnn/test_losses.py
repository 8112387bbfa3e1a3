import math
from dataclasses import replace

import pytest
import torch

from ctxrnn import TrialBatch, cross_entropy, squared_error, task_loss


def batch_of(targets, mask, task):
    trials, steps = mask.shape
    names = ("a", "b", "c")
    return TrialBatch(
        inputs=torch.zeros(trials, steps, 1),
        targets=targets,
        mask=mask,
        context=torch.eye(3)[task],
        task=task,
        lengths=torch.full((trials,), steps),
        names=names,
        dt=20.0,
    )


MASK = torch.tensor([[1.0, 5.0], [1.0, 0.0], [2.0, 2.0]])
TASK = torch.tensor([0, 0, 1])


def test_cross_entropy_by_hand():
    targets = torch.tensor([[0, 1], [1, 0], [0, 0]])
    outputs = torch.zeros(3, 2, 2)
    outputs[0, 1] = torch.tensor([0.0, math.log(3)])
    # Uniform logits cost log 2; the one step with odds 3 : 1 for the right class log(4 / 3).
    first = (math.log(2) + 5 * math.log(4 / 3) + math.log(2)) / (1 + 5 + 1)
    expected = (first + math.log(2)) / 2
    found = cross_entropy(outputs, batch_of(targets, MASK, TASK))
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_squared_error_by_hand():
    targets = torch.zeros(3, 2, 2)
    outputs = torch.zeros(3, 2, 2)
    outputs[0, 1] = torch.tensor([1.0, 3.0])
    outputs[2] = 2.0
    first = 5 * (1 + 9) / 2 / 7
    assert float(squared_error(outputs, batch_of(targets, MASK, TASK))) == pytest.approx(
        (first + 4) / 2
    )


def test_a_task_weighs_the_same_however_many_trials_it_has():
    outputs = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    batch = batch_of(torch.zeros(3, 2, 2), MASK, TASK)
    repeated = batch.select([0, 1, 2, 2, 2])
    torch.testing.assert_close(
        squared_error(outputs[[0, 1, 2, 2, 2]], repeated), squared_error(outputs, batch)
    )


def test_steps_without_weight_do_not_matter():
    batch = batch_of(torch.zeros(3, 2, 2), MASK, TASK)
    outputs = torch.ones(3, 2, 2)
    other = outputs.clone()
    other[1, 1] = 100.0
    torch.testing.assert_close(squared_error(outputs, batch), squared_error(other, batch))


def test_the_loss_follows_the_targets():
    classes = batch_of(torch.zeros(3, 2, dtype=torch.int64), MASK, TASK)
    values = batch_of(torch.zeros(3, 2, 2), MASK, TASK)
    outputs = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(task_loss(outputs, classes), cross_entropy(outputs, classes))
    assert torch.equal(task_loss(outputs, values), squared_error(outputs, values))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c, v: cross_entropy(torch.zeros(3, 2, 2), v), TypeError, r"classes \(int64\)"),
        (lambda c, v: squared_error(torch.zeros(3, 2, 2), c), TypeError, "floating point"),
        (
            lambda c, v: cross_entropy(torch.zeros(3, 2, 2), replace(c, targets=c.targets.int())),
            TypeError,
            r"targets must be classes",
        ),
        (
            lambda c, v: cross_entropy(torch.zeros(3, 1, 2), c),
            ValueError,
            r"match targets \(3, 2\)",
        ),
        (
            lambda c, v: squared_error(torch.zeros(3, 2, 1), v),
            ValueError,
            r"match targets \(3, 2, 2\)",
        ),
        (
            lambda c, v: squared_error(torch.zeros(3, 2, 2), replace(v, mask=v.mask * 0)),
            ValueError,
            "must weigh at least one step",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    classes = batch_of(torch.zeros(3, 2, dtype=torch.int64), MASK, TASK)
    values = batch_of(torch.zeros(3, 2, 2), MASK, TASK)
    with pytest.raises(error, match=message):
        call(classes, values)
