from dataclasses import replace

import numpy as np
import pytest
import torch

from ctxrnn import TrialBatch, pad_trials


@pytest.fixture
def batch():
    lengths = torch.tensor([2, 4, 3])
    return TrialBatch(
        inputs=torch.arange(24, dtype=torch.float32).reshape(3, 4, 2),
        targets=torch.arange(12).reshape(3, 4),
        mask=torch.ones(3, 4),
        context=torch.eye(2)[[0, 1, 0]],
        task=torch.tensor([0, 1, 0]),
        lengths=lengths,
        names=("a", "b"),
        dt=20.0,
        periods={"decision": torch.tensor([[1, 2], [2, 4], [-1, -1]])},
        conditions={"side": np.array(["left", "right", None], dtype=object)},
    )


def test_last_step_and_valid_steps_leave_out_the_padding(batch):
    assert batch.last(batch.targets).tolist() == [1, 7, 10]
    assert batch.valid.sum(1).tolist() == [2, 4, 3]
    assert len(batch) == 3


def test_select_takes_trials_and_cuts_padding(batch):
    chosen = batch.select([2, 0])
    assert chosen.inputs.shape == (2, 3, 2)
    assert chosen.targets.tolist() == [[8, 9, 10], [0, 1, 2]]
    assert chosen.task.tolist() == [0, 0]
    assert chosen.periods["decision"].tolist() == [[-1, -1], [1, 2]]
    assert list(chosen.conditions["side"]) == [None, "left"]
    by_mask = batch.select(batch.task == 1)
    assert by_mask.lengths.tolist() == [4]
    with pytest.raises(ValueError, match="selection is empty"):
        batch.select(batch.task == 5)


def test_dtype_moves_floats_only(batch):
    double = batch.to(dtype=torch.float64)
    assert double.inputs.dtype == double.mask.dtype == double.context.dtype == torch.float64
    assert double.targets.dtype == torch.int64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": torch.zeros(3, 4)}, r"\(trial, time, input\): got \(3, 4\)"),
        ({"inputs": torch.zeros(0, 4, 2)}, "got 0 trials"),
        ({"mask": torch.ones(3, 1)}, r"mask must have shape \(3, 4\)"),
        ({"context": torch.ones(3, 3)}, r"context must have shape \(3, 2\)"),
        ({"task": torch.zeros(1, dtype=torch.int64)}, r"task must have shape \(3,\)"),
        ({"task": torch.tensor([0, 2, 0])}, r"task must lie in \[0, 1\].*: got 0 to 2"),
        ({"task": torch.tensor([0, -1, 0])}, "got -1 to 0"),
        ({"lengths": torch.tensor([2, 0, 4])}, r"lengths must lie in \[1, 4\].*: got 0 to 4"),
        ({"lengths": torch.tensor([2, 5, 4])}, "got 2 to 5"),
        ({"periods": {"go": torch.zeros(3)}}, r"period 'go' must have shape \(3, 2\)"),
        ({"conditions": {"x": np.zeros(2)}}, "condition 'x' must have 3 values: got 2"),
    ],
)
def test_what_does_not_fit_is_refused(batch, change, message):
    with pytest.raises(ValueError, match=message):
        replace(batch, **change)


def test_padding_is_at_the_end():
    padded = pad_trials([np.ones((1, 2)), np.full((3, 2), 2.0)], value=-1)
    assert padded.tolist() == [[[1, 1], [-1, -1], [-1, -1]], [[2, 2]] * 3]
    with pytest.raises(ValueError, match="got none"):
        pad_trials([])
    with pytest.raises(ValueError, match="differ in length only"):
        pad_trials([np.ones((1, 2)), np.ones((1, 3))])
    with pytest.raises(ValueError, match="must have one dtype: got float64, int64"):
        pad_trials([np.zeros(2, dtype=np.int64), np.full(3, 0.7)])
    with pytest.raises(ValueError, match="padding of int64 cannot be NaN"):
        pad_trials([np.zeros(2, dtype=np.int64)], float("nan"))
    assert np.isnan(pad_trials([np.zeros(1), np.zeros(2)], float("nan"))[0, 1])
