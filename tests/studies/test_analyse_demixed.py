"""The part "demixed components" of `analyse`: which trials, from when to when, and what is told."""

import numpy as np
import pytest
import torch

from ctxrnn import CTRNN, TrialBatch, make_generator
from ctxrnn.analysis import condition_averages, fit_dpca
from ctxrnn.studies._analyse_demixed import balanced_design, demixed
from ctxrnn.studies._analyse_view import View
from ctxrnn.tasks import task_set


def view_of(*names, variant="e-add"):
    tasks = task_set(list(names), dt=50, ring=8)
    network = CTRNN(tasks.inputs, 12, tasks.outputs, variant, contexts=len(names), dt=50, seed=1)
    return View(network, tasks, trials=4, starts=4, pairs=(), seed=3)


def batch_of(answers, onsets=None):
    """Trials of one task after another, of 8 and 7 steps in turn; answers: one list per task."""
    task = torch.tensor([k for k, own in enumerate(answers) for _ in own])
    wanted = torch.tensor([answer for own in answers for answer in own])
    lengths = 8 - torch.arange(len(task)) % 2
    valid = torch.arange(8) < lengths[:, None]
    periods = {}
    if onsets is not None:
        periods["decision"] = torch.stack([onsets, torch.where(onsets < 0, -1, lengths)], dim=1)
    return TrialBatch(
        torch.zeros(len(task), 8, 1),
        # Only the last step counts.
        torch.where(torch.arange(8) == lengths[:, None] - 1, wanted[:, None], 9),
        valid.float(),
        torch.eye(len(answers))[task],
        task,
        lengths,
        tuple("abc"[: len(answers)]),
        50.0,
        periods,
    )


def test_tasks_are_dropped_that_cost_more_answers_than_they_add():
    many, few = [1, 2, 3, 4] * 3, [1, 2] * 3
    # With the third task: (3 - 1)(2 - 1) = 2 degrees of freedom; without: (2 - 1)(4 - 1) = 3.
    design = balanced_design(batch_of([many, few, many]))
    assert set(design.labels["context"]) == {0, 2}
    assert set(design.labels["answer"]) == {1, 2, 3, 4}
    # All three: (3 - 1)(3 - 1) = 4.
    design = balanced_design(batch_of([many, [1, 2, 4] * 3, many]))
    assert set(design.labels["context"]) == {0, 1, 2}
    assert set(design.labels["answer"]) == {1, 2, 4}
    assert len(design.rows) == 27
    assert not (design.labels["answer"] == 3).any()


@pytest.mark.parametrize(
    "answers", [[[1, 2] * 3], [[1, 2] * 3, [3, 4] * 3], [[1, 2] * 3, [1, 2] * 2],
                [[1, 2] * 3, [1] * 6]]
)  # fmt: skip
def test_without_shared_answers_there_is_no_design(answers):
    assert balanced_design(batch_of(answers)) is None


def test_window_is_the_one_that_all_trials_have_around_the_cue():
    onsets = torch.tensor([3, 4, 5, 4, 3, 4] * 2)
    design = balanced_design(batch_of([[1, 2] * 3] * 2, onsets))
    # The last trial to be cut has 8 - 5 = 3 steps from its cue, or 7 - 4.
    assert (design.start, design.event) == (-3, "the go cue")
    assert design.steps.shape == (12, 6)
    assert design.steps[:, 3].tolist() == onsets.tolist()
    # Where a trial has no cue, all are aligned to their ends.
    onsets[0] = -1
    design = balanced_design(batch_of([[1, 2] * 3] * 2, onsets))
    assert (design.start, design.event) == (-7, "the end of the trial")
    assert design.steps[:, -1].tolist() == [7, 6] * 6
    assert design.steps.min() == 0


def test_part_holds_what_the_functions_give():
    view = view_of("go", "anti", "dms")
    part = demixed(view)
    count = 16 * view.tasks.outputs
    batch = view.tasks.sample(3 * count, generator=make_generator(3, "analysis", "demixed"))
    with torch.no_grad():
        states = view.network(batch.inputs, batch.context, noise=0.0).potentials.double().numpy()
    # In go and anti the cue comes at step 20 of 30, in dms at 46 of 64; 20 steps before all.
    task, cue = batch.task.numpy(), np.where(batch.task.numpy() == 2, 46, 20)
    answer = batch.targets.numpy()[np.arange(len(task)), batch.valid.sum(dim=1).numpy() - 1]
    rows = np.flatnonzero(answer > 0)
    cut = np.stack([states[r, cue[r] - 20 : cue[r] + 10] for r in rows])
    labels = {"context": task[rows], "answer": answer[rows]}
    assert condition_averages(cut, labels, ("context", "answer")).counts.min() >= 3
    model = fit_dpca(cut, ("context", "answer"), labels=labels, components=5, folds=5, seed=3)
    table = part.tables["demixed"]
    assert table["group"].tolist() == model.table()["group"].tolist()
    assert table["variance"].to_numpy() == pytest.approx(model.table()["variance"].to_numpy())
    assert f"explain {100 * model.explained:.0f} %" in part.caption
    assert "3 contexts (go, anti, dms) x 8 correct answers x 30 steps" in part.caption
    lines = part.figure.axes[0].lines
    assert any((line.get_xdata()[0], line.get_xdata()[-1]) == (-1000, 450) for line in lines)


def test_a_part_without_a_design_says_so():
    part = demixed(view_of("go"))
    assert part.figure is None
    assert not part.tables
    assert "Left out: no two tasks share two answers" in part.caption
