from dataclasses import replace

import numpy as np
import pytest
import torch

from ctxrnn import CTRNN, Contexts, TrialBatch
from ctxrnn.analysis import (
    ambiguity_curve,
    ambiguity_sweep,
    lambda_50,
    mixed_context,
    robustness_area,
)


class ThreeTasks:
    """Task k wants action k, whatever the stimulus: only the context tells."""

    names = ("a", "b", "c")
    chance = {"a": 0.5, "b": 0.25, "c": 0.0}  # noqa: RUF012
    ceiling = {"a": 1.0, "b": 0.75, "c": 1.0}  # noqa: RUF012

    def sample(self, trials, *, generator):
        task = torch.arange(trials) % 3
        return TrialBatch(
            inputs=torch.zeros(trials, 2, 2),
            targets=task[:, None].expand(-1, 2),
            mask=torch.ones(trials, 2),
            context=torch.eye(3)[task],
            task=task,
            lengths=torch.full((trials,), 2),
            names=self.names,
            dt=20.0,
        )

    def correct(self, outputs, batch):
        return batch.last(outputs).argmax(-1) == batch.task


def winner_takes_all(variant="e-add", **options):
    """A network whose answer is the larger entry of the context, by construction."""
    network = CTRNN(2, 3, 3, variant, contexts=3, noise=0.0, seed=0, dtype=torch.float64, **options)
    with torch.no_grad():
        network.weight.zero_()
        network.input_weight.zero_()
        network.output_weight.copy_(torch.eye(3))
        network.modulation.pathways[0].E.copy_(torch.eye(3))
    return network


def test_mixture_by_hand():
    clean = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    mixed = mixed_context(clean, torch.tensor([2, 0]), 0.25)
    torch.testing.assert_close(mixed, torch.tensor([[0.75, 0.0, 0.25], [0.25, 0.0, 0.75]]))


def test_every_pair_is_swept_and_the_larger_context_wins():
    levels = [0.0, 0.4, 0.6, 1.0]
    table = ambiguity_sweep(winner_takes_all(), ThreeTasks(), levels=levels, trials=4, seed=0)
    pairs = set(zip(table["task"], table["other"], strict=True))
    assert pairs == {(k, j) for k in "abc" for j in "abc" if k != j}
    assert len(table) == 6 * len(levels)
    expected = (table["level"] < 0.5).astype(float)
    np.testing.assert_array_equal(table["accuracy"], expected)
    a, b = table["task"] == "a", table["task"] == "b"
    np.testing.assert_allclose(table["normalised"][a], (expected[a] - 0.5) / 0.5)
    np.testing.assert_allclose(table["normalised"][b], (expected[b] - 0.25) / 0.5)


def test_one_pathway_can_be_corrupted_alone():
    network = winner_takes_all()
    sweep = {
        pathway: ambiguity_sweep(
            network, ThreeTasks(), levels=[0.0, 1.0], trials=2, seed=0, pathway=pathway
        )
        for pathway in ("both", "excitability", "synaptic")
    }
    wrong = sweep["both"].query("level == 1")["accuracy"]
    assert (wrong == 0).all()
    assert sweep["excitability"].equals(sweep["both"])
    assert (sweep["synaptic"]["accuracy"] == 1).all()


def test_sweep_at_level_zero_is_the_clean_accuracy():
    network = CTRNN(2, 8, 3, "es", contexts=3, seed=3)
    tasks = ThreeTasks()
    table = ambiguity_sweep(network, tasks, levels=[0.0], trials=32, seed=5)
    batch = tasks.sample(96, generator=None)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        quiet = network(batch.inputs, batch.context, generator=source, noise=0.0).outputs
        again = ambiguity_sweep(network, tasks, levels=[0.0], trials=32, seed=5)
    assert table.equals(again)
    # Neither the other task nor the draw of noise matters at level 0.
    assert (table.groupby("task")["accuracy"].nunique() == 1).all()
    assert quiet.shape == (96, 2, 3)


def test_curve_averages_over_others_then_tasks():
    table = ambiguity_sweep(winner_takes_all(), ThreeTasks(), levels=[0.0, 1.0], trials=1, seed=0)
    table = table[~((table["task"] == "a") & (table["other"] == "c"))]
    curve = ambiguity_curve(table)
    np.testing.assert_allclose(curve["accuracy"], [1.0, 0.0])
    np.testing.assert_allclose(
        curve["normalised"], [(1 + 1.5 + 1) / 3, (-1 - 0.5 + 0) / 3], rtol=1e-12
    )


def test_area_of_known_curves():
    levels = np.linspace(0, 1, 11)
    assert robustness_area(levels, np.ones(11)) == pytest.approx(1.0)
    # int_0^0.5 (1 - x) dx / 0.5 = 0.75; exact for straight lines, also between levels.
    assert robustness_area(levels, 1 - levels) == pytest.approx(0.75)
    assert robustness_area([0.0, 0.4, 0.8], [1.0, 0.6, 0.2]) == pytest.approx(0.75)
    assert robustness_area([0.8, 0.0, 0.4], [0.2, 1.0, 0.6]) == pytest.approx(0.75)


def test_half_way_point_of_known_curves():
    assert lambda_50([0.0, 1.0], [0.8, 0.0]) == pytest.approx(0.5)
    assert lambda_50([0.0, 0.2, 0.4], [1.0, 0.9, 0.1]) == pytest.approx(0.3)
    assert np.isnan(lambda_50([0.0, 1.0], [1.0, 0.6]))
    assert np.isnan(lambda_50([0.0, 1.0], [0.0, 0.0]))
    # It is the first crossing that counts.
    assert lambda_50([0.0, 0.2, 0.4, 0.6], [1.0, 0.0, 1.0, 0.0]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: robustness_area([0.1, 0.5], [1, 1]), "run from 0"),
        (lambda: robustness_area([0.0, 0.4], [1, 1]), "to at least 0.5"),
        (lambda: robustness_area([0.0, 0.0, 1.0], [1, 1, 1]), "differ from each other"),
        (lambda: robustness_area([0.0, 0.5], [1, float("nan")]), "finite"),
        (lambda: lambda_50([0.1, 0.5], [1, 0]), "start at 0"),
        (lambda: lambda_50([0.0], [1]), "equally long"),
        (lambda: mixed_context(torch.eye(2), torch.tensor([1, 0]), 1.5), "level must lie"),
    ],
)
def test_bad_curves_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pathway": "synapse"}, "unknown pathway 'synapse'. Did you mean 'synaptic'"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"levels": [2.0]}, "level must lie in"),
    ],
)
def test_bad_sweeps_are_refused(change, message):
    arguments = {"levels": [0.0], "trials": 1, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        ambiguity_sweep(winner_takes_all(), ThreeTasks(), **arguments)


def test_one_task_cannot_be_ambiguous():
    class OneTask(ThreeTasks):
        names = ("a",)

    with pytest.raises(ValueError, match="at least two tasks"):
        ambiguity_sweep(winner_takes_all(), OneTask(), levels=[0.0], trials=1, seed=0)


def test_contexts_of_the_pathways_are_told_apart_by_the_network():
    batch = ThreeTasks().sample(6, generator=None)
    batch = replace(batch, context=batch.context.double())
    network = winner_takes_all()
    swapped = batch.context.roll(1, dims=-1)
    by_drive = network(batch.inputs, Contexts(swapped, batch.context)).outputs
    plain = network(batch.inputs, swapped).outputs
    torch.testing.assert_close(by_drive, plain)
