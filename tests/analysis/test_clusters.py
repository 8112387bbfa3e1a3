"""Which units serve which tasks, on networks whose units are known."""

import numpy as np
import pandas as pd
import pytest
import torch
from ctxrnn.analysis.clusters import _rates, _variance

from ctxrnn import CTRNN, TrialBatch
from ctxrnn.analysis import (
    lesion_clusters,
    lesioned,
    normalised_variance,
    task_variance,
    unit_clusters,
)


class TwoTasks:
    """Two tasks on one input each; the answer is the sign of the task's own input."""

    names = ("a", "b")

    def __init__(self):
        self.chance, self.ceiling = {"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 1.0}

    def sample(self, trials, *, generator):
        u = torch.zeros(trials, 8, 2)
        task = torch.arange(trials) % 2
        value = torch.randn(trials, generator=generator)
        u[torch.arange(trials), 3:, task] = value[:, None]
        lengths = torch.where(task == 0, 6, 8)
        return TrialBatch(
            u, (value > 0).long()[:, None].expand(-1, 8).contiguous(),
            (torch.arange(8) < lengths[:, None]).float(), torch.eye(2)[task], task, lengths,
            self.names, 20.0, {"fixation": torch.tensor([[0, 3]]).expand(trials, 2)},
        )  # fmt: skip

    def correct(self, outputs, batch):
        last = outputs[torch.arange(len(batch)), batch.lengths - 1]
        return last.argmax(-1) == batch.targets[:, 0]


def split_network(form="current"):
    """Units 0 to 3 see the first input, 4 to 7 the second; 8 and 9 see nothing."""
    made = CTRNN(2, 10, 2, tau=20.0, dt=20.0, noise=0.0, seed=0, form=form)
    with torch.no_grad():
        made.weight.zero_()
        made.input_weight.zero_()
        made.input_weight[:4, 0] = torch.tensor([1.0, -0.5, 2.0, 1.5])
        made.input_weight[4:8, 1] = torch.tensor([1.0, -0.5, 2.0, 1.5])
        made.output_weight.zero_()
        made.output_weight[1, 0] = made.output_weight[1, 4] = 1.0
    return made


def test_task_variance_is_that_of_the_rates_after_fixation():
    made, tasks = split_network(), TwoTasks()
    found = task_variance(made, tasks, trials=400, seed=1)
    from ctxrnn import make_generator

    batch = tasks.sample(800, generator=make_generator(1, "task variance"))
    value = batch.inputs[:, 5].sum(dim=1).numpy()
    for unit in range(8):
        task = "ab"[unit // 4]
        rows = batch.task.numpy() == unit // 4
        weight = [1.0, -0.5, 2.0, 1.5][unit % 4]
        # With dt = tau the rate follows at once: tanh(w u) at every step after fixation.
        assert found.loc[unit, task] == pytest.approx(np.tanh(weight * value[rows]).var(), rel=1e-5)
        assert found.loc[unit, "ba"[unit // 4]] == 0
    assert (found.loc[8:] == 0).all().all()


def test_steps_beyond_a_trial_are_left_out():
    """The shorter task's padding holds the stimulus too, and must not count."""
    tasks = TwoTasks()
    whole = tasks.sample

    def spoilt(trials, *, generator):
        batch = whole(trials, generator=generator)
        batch.inputs[batch.task == 0, 6:] = 100 * torch.randn(trials // 2, 2, 2)
        return batch

    before = task_variance(split_network(), tasks, trials=50, seed=0)
    tasks.sample = spoilt
    after = task_variance(split_network(), tasks, trials=50, seed=0)
    pd.testing.assert_frame_equal(before, after)


def test_units_are_grouped_by_the_tasks_they_serve():
    variance = task_variance(split_network(), TwoTasks(), trials=100, seed=0)
    normalised = normalised_variance(variance)
    assert list(normalised.index) == list(range(8))
    assert (normalised.max(axis=1) == 1).all()
    found = unit_clusters(normalised)
    assert found["cluster"].nunique() == 2
    assert found.groupby("cluster")["unit"].agg(set).tolist() in (
        [{0, 1, 2, 3}, {4, 5, 6, 7}],
        [{4, 5, 6, 7}, {0, 1, 2, 3}],
    )
    assert found["silhouette"].tolist() == pytest.approx([1.0] * 8)
    assert found.attrs["silhouettes"][2] == pytest.approx(1.0)
    assert unit_clusters(normalised, clusters=2)["cluster"].tolist() == found["cluster"].tolist()


@pytest.mark.parametrize("form", ["current", "rate"])
def test_lesions_silence_units_and_leave_the_network(form):
    made = split_network(form)
    cut = lesioned(made, [0, 9])
    u = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(0))
    before, after = made(u, None, noise=0.0), cut(u, None, noise=0.0)
    assert (after.rates[..., [0, 9]] == 0).all()
    rest = [1, 2, 3, 4, 5, 6, 7, 8]
    # Sums over other units, in another order, in float32.
    assert torch.allclose(after.rates[..., rest], before.rates[..., rest], atol=1e-6)
    assert made.nonlinearity_name == "tanh"
    assert torch.allclose(lesioned(made, [])(u, None, noise=0.0).outputs, before.outputs, atol=1e-6)
    with pytest.raises(ValueError, match="units must lie between 0 and 9: got -1 to 3"):
        lesioned(made, [-1, 3])


@pytest.mark.parametrize("variant", ["s-add-1", "s-sym", "s-full", "es-add-sym"])
def test_silent_units_act_on_no_other_in_any_variant(variant):
    made = CTRNN(2, 6, 2, variant, contexts=2, seed=0)
    cut = lesioned(made, [2])
    u, c = torch.randn(3, 5, 2), torch.eye(2)[[0, 1, 0]]
    first = cut(u, c, noise=0.0).rates
    moved = torch.zeros(3, 6)
    moved[:, 2] = 5.0
    assert torch.allclose(cut(u, c, noise=0.0, x0=moved).rates, first)


def test_lesion_of_a_cluster_spares_the_other_task():
    made, tasks = split_network(), TwoTasks()
    groups = pd.DataFrame({"unit": range(8), "cluster": [0] * 4 + [1] * 4})
    found = lesion_clusters(made, tasks, groups, trials=300, seed=0).set_index(["cluster", "task"])
    assert found.loc[(-1, "a"), "accuracy"] == 1.0
    assert found.loc[(0, "b"), "change"] == 0
    assert found.loc[(1, "a"), "change"] == 0
    # Without the units that see its input a task is answered at chance, by the first output.
    for cluster, task in ((0, "a"), (1, "b")):
        accuracy = found.loc[(cluster, task), "accuracy"]
        assert abs(accuracy - 0.5) < 5 * np.sqrt(0.25 / 300)
        assert found.loc[(cluster, task), "change"] == pytest.approx(2 * accuracy - 2)
    assert found.loc[(0, "a"), "units"] == 4


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="trials must be at least 2"):
        task_variance(split_network(), TwoTasks(), trials=1, seed=0)
    with pytest.raises(ValueError, match="too few units to group: got 2"):
        unit_clusters(pd.DataFrame(np.eye(2)))
    with pytest.raises(ValueError, match="units hardly differ: got 1 kinds"):
        unit_clusters(pd.DataFrame(np.ones((5, 2))))


def test_variance_counts_no_noise_and_no_step_of_a_single_trial():
    made = CTRNN(1, 4, 1, "e-add", contexts=1, noise=1.0, seed=0)
    inputs = torch.ones(3, 5, 1)
    rates = _rates(made, inputs, torch.ones(3, 1))
    assert np.abs(rates - rates[0]).max() < 1e-6
    rates = np.array([[[1.0], [5.0]], [[3.0], [9.0]]])
    assert _variance(rates, np.array([[True, True], [True, False]])) == pytest.approx([1.0])
