from dataclasses import replace

import numpy as np
import pytest
import torch
from ctxrnn.analysis.ambiguity import Runs

from ctxrnn import CTRNN, Contexts, TrialBatch
from ctxrnn.analysis import (
    CORRUPTIONS,
    ambiguity,
    ambiguity_curve,
    ambiguity_sweep,
    corrupted,
    critical_noise,
    evidence_strength,
    lambda_50,
    mixed_context,
    relative_area,
    robustness_area,
)
from ctxrnn.tasks import task_set


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
        ({"levels": []}, "levels must be a row of at least one number"),
        ({"corruption": "mix"}, "unknown corruption 'mix'"),
        ({"options": {"tau_n": 1.0}}, "corruption 'mix2' has no options"),
        (
            {"corruption": "window", "options": {"window": "delay"}, "levels": [0.0]},
            "periods must be given to find 'delay'",
        ),
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


@pytest.mark.parametrize("pathway", ["both", "excitability", "synaptic"])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_every_corruption_works_on_every_pathway(kind, pathway):
    tasks = task_set(["dlygo", "dlyanti", "dms"], dt=50.0)
    network = CTRNN(tasks.inputs, 8, tasks.outputs, "es", contexts=3, dt=50.0, seed=0)
    one = CORRUPTIONS[kind]
    levels = [one.clean, one.levels[-1]]
    arguments = {"trials": 40, "seed": 1, "corruption": kind}
    table = ambiguity_sweep(network, tasks, levels=levels, pathway=pathway, **arguments)
    pairs = {(k, j) for k in tasks.names for j in tasks.names if j != k}
    expected = pairs if one.other else {(k, "") for k in tasks.names}
    assert set(zip(table["task"], table["other"], strict=True)) == expected
    assert len(table) == 2 * len(expected)
    # The corruption reaches the network, and only through this pathway.
    run = Runs.draw(network, tasks, 4, 1, pathway, kind, None)
    rows, other = torch.arange(12), (run.batch.task + 1) % 3
    seen = run.contexts(rows, levels[-1], other)
    clean = run.batch.context
    for name in ("excitability", "synaptic"):
        same = getattr(seen, name).shape == clean.shape and bool(
            torch.equal(getattr(seen, name), clean)
        )
        assert same == (pathway not in ("both", name))


def test_default_levels_are_those_of_the_corruption():
    table = ambiguity_sweep(
        winner_takes_all(), ThreeTasks(), trials=2, seed=0, corruption="posterior"
    )
    assert tuple(table["level"].unique()) == CORRUPTIONS["posterior"].levels
    table = ambiguity_sweep(winner_takes_all(), ThreeTasks(), trials=2, seed=0)
    assert tuple(table["level"].unique()) == CORRUPTIONS["mix2"].levels


def test_noise_flips_the_winner_as_often_as_it_must():
    # Right if 1 + sigma eta_k is the largest entry: the probability a with delta(a) = 1 / sigma.
    trials = 4000
    table = ambiguity_sweep(
        winner_takes_all(),
        ThreeTasks(),
        levels=[1 / evidence_strength(a, 3) for a in (0.9, 0.6)],
        trials=trials,
        seed=0,
        corruption="noise-frozen",
    )
    for (_, rows), a in zip(table.groupby("level"), (0.9, 0.6), strict=True):
        error = 5 * np.sqrt(a * (1 - a) / trials)
        assert (abs(rows["accuracy"] - a) < error).all()


@pytest.mark.parametrize("kind", ["noise-frozen", "posterior"])
def test_random_numbers_are_common_to_all_levels(kind):
    levels = [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    levels = [1 - level / 2 for level in levels] if kind == "posterior" else levels
    table = ambiguity_sweep(
        winner_takes_all(), ThreeTasks(), levels=levels, trials=30, seed=0, corruption=kind
    )
    # With the same eta a trial that is lost stays lost at higher levels; with fresh ones accuracy
    # of 30 trials would go up and down.
    for _, rows in table.groupby("task"):
        assert (rows["accuracy"].diff().dropna() <= 0).all()
        assert rows["accuracy"].iloc[0] == 1 > rows["accuracy"].iloc[-1]


def test_a_swap_is_forgiven_if_the_right_context_comes_in_time():
    # Of two steps with alpha = 0.2 the first weighs 0.16, the second 0.2.
    table = ambiguity_sweep(
        winner_takes_all(), ThreeTasks(), levels=[0, 20, 40], trials=2, seed=0, corruption="swap"
    )
    np.testing.assert_array_equal(table["accuracy"], table["level"] < 40)


def test_tasks_without_the_window_are_not_measured():
    tasks = task_set(["go", "dlygo"], dt=50.0)
    network = CTRNN(tasks.inputs, 4, tasks.outputs, "e-add", contexts=2, dt=50.0, seed=0)
    table = ambiguity_sweep(
        network, tasks, levels=[0, 1], trials=4, seed=0,
        corruption="window", options={"window": "delay"},
    )  # fmt: skip
    missing = table["accuracy"].isna()
    assert (missing == (table["task"] == "go")).all()
    assert (table["normalised"].isna() == missing).all()
    assert ambiguity_curve(table)["normalised"].notna().all()
    with pytest.raises(ValueError, match="at least one task must have the period"):
        ambiguity_sweep(
            network, task_set(["go", "anti"], dt=50.0), levels=[0], trials=1, seed=0,
            corruption="window", options={"window": "delay"},
        )  # fmt: skip


MIXED = task_set(["go", "dlygo", "dms", "ctxdm1"], dt=50.0)
"""Tasks of unequal length."""


@pytest.mark.parametrize("kind", ["mix2", "noise-ou", "posterior"])
def test_parting_by_length_and_memory_changes_nothing(kind, monkeypatch):
    network = CTRNN(
        MIXED.inputs, 8, MIXED.outputs, "es", contexts=4, dt=50.0, noise=0.0, seed=0,
        dtype=torch.float64,
    )  # fmt: skip
    arguments = {"levels": [0.5, 1.0], "trials": 40, "seed": 3, "corruption": kind}
    table = ambiguity_sweep(network, MIXED, **arguments)
    run = Runs.draw(network, MIXED, 40, 3, "both", kind, None)
    assert len(run.parts()) > 1
    assert sorted(torch.cat(run.parts()).tolist()) == list(range(160))
    monkeypatch.setattr(ambiguity, "_NUMBERS", 1)
    assert max(map(len, run.parts())) == 32
    assert ambiguity_sweep(network, MIXED, **arguments).equals(table)


def test_a_sweep_is_what_single_trials_give():
    network = CTRNN(
        MIXED.inputs, 8, MIXED.outputs, "s-sym", contexts=4, dt=50.0, noise=0.0, seed=0,
        dtype=torch.float64,
    )  # fmt: skip
    table = ambiguity_sweep(network, MIXED, levels=[0.4], trials=20, seed=3)
    batch = Runs.draw(network, MIXED, 20, 3, "both", "mix2", None).batch
    for shift in (1, 2, 3):
        right = []
        for trial in range(len(batch)):
            one = batch.select([trial])
            other = (one.task + shift) % 4
            outputs = network(one.inputs, corrupted("mix2", one.context, 0.4, other=other)).outputs
            right.append(float(MIXED.correct(outputs.detach(), one)))
        right = torch.tensor(right)
        for k, name in enumerate(MIXED.names):
            row = table[(table["task"] == name) & (table["other"] == MIXED.names[(k + shift) % 4])]
            assert row["accuracy"].item() == pytest.approx(float(right[batch.task == k].mean()))


@pytest.mark.parametrize("kind", ["noise-frozen", "noise-ou", "posterior"])
def test_a_corruptions_draw_does_not_depend_on_the_network(kind):
    made = []
    for variant, units in (("e-add", 4), ("s-sym", 300)):
        network = CTRNN(MIXED.inputs, units, MIXED.outputs, variant, contexts=4, dt=50.0, seed=0)
        run = Runs.draw(network, MIXED, 40, 3, "both", kind, None)
        found = [torch.empty(0)] * 160
        for rows in run.parts():
            seen = run.contexts(rows, 0.7, run.batch.task).excitability
            for row, context in zip(rows.tolist(), seen, strict=True):
                found[row] = context
        made.append(found)
    for one, other in zip(*made, strict=True):
        assert torch.equal(one, other)


def test_a_task_set_that_steps_otherwise_is_refused():
    network = CTRNN(MIXED.inputs, 4, MIXED.outputs, "e-add", contexts=4, dt=20.0, seed=0)
    with pytest.raises(ValueError, match="dt"):
        ambiguity_sweep(network, MIXED, levels=[0], trials=1, seed=0)


def test_critical_noise_and_relative_area_of_known_curves():
    assert critical_noise([0.0, 1.0], [0.5, 0.0]) == pytest.approx(0.2)
    assert critical_noise([0.0, 2.0], [1.0, 0.0], fraction=0.25) == pytest.approx(1.5)
    assert critical_noise([0.0, 1.0], [0.8, 0.0], 0.5) == lambda_50([0.0, 1.0], [0.8, 0.0])
    assert np.isnan(critical_noise([0.0, 1.0], [1.0, 0.81]))
    assert np.isnan(critical_noise([0.0, 1.0], [-0.1, -0.2]))
    # p~ = 0.5 (1 - sigma / 2) up to sigma = 2: area 0.25, half of the clean value.
    assert robustness_area([0.0, 1.0, 2.0], [0.5, 0.25, 0.0], upto=2) == pytest.approx(0.25)
    assert relative_area([0.0, 1.0, 2.0], [0.5, 0.25, 0.0], upto=2) == pytest.approx(0.5)
    assert relative_area([1.0, 0.0], [0.4, 0.8], upto=1) == pytest.approx(0.75)
    assert np.isnan(relative_area([0.0, 1.0], [0.0, 0.0]))
    for fraction in (0, 1, 1.5):
        with pytest.raises(ValueError, match="fraction must lie in"):
            critical_noise([0.0, 1.0], [1.0, 0.0], fraction)
