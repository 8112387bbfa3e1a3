import math

import numpy as np
import pandas as pd
import pytest
import torch
from ctxrnn.analysis.ambiguity import Runs
from ctxrnn.analysis.choices import _Field

from ctxrnn import CTRNN, Contexts, TrialBatch, make_generator
from ctxrnn.analysis import (
    ambiguity_sweep,
    choice_shares,
    context_effect,
    corrupted,
    crossing,
    effect_matched_levels,
)
from ctxrnn.tasks import task_set


class Pair:
    """Task a wants action 1; task b wants action 1 on even trials (congruent), else action 2."""

    names = ("a", "b", "c")
    chance = dict.fromkeys(names, 0.0)
    ceiling = dict.fromkeys(names, 1.0)
    twins = (("a", "b"),)

    def sample(self, trials, *, generator):
        task = torch.arange(3).repeat_interleave(trials // 3)
        odd = torch.arange(trials) % 2
        wanted = torch.tensor([[1, 1], [1, 2], [0, 0]])[task, odd]
        return TrialBatch(
            inputs=torch.nn.functional.one_hot(odd, 2).float()[:, None].expand(-1, 2, -1),
            targets=wanted[:, None].expand(-1, 2),
            mask=torch.ones(trials, 2),
            context=torch.eye(3)[task],
            task=task,
            lengths=torch.full((trials,), 2),
            names=self.names,
            dt=20.0,
            conditions={"odd": odd.numpy()},
        )

    def correct(self, outputs, batch):
        return batch.last(outputs).argmax(-1) == batch.last(batch.targets)

    def wanted(self, batch, others):
        odd = torch.from_numpy(batch.conditions["odd"])
        answers = torch.where(others == 0, 1, 1 + odd)
        return torch.where((others == 2) | (batch.task == 2), -1, answers)


def shown(weights):
    """A network whose outputs are the context, times weights, at once."""
    network = CTRNN(2, 3, 3, "e-add", contexts=3, noise=0.0, seed=0, dtype=torch.float64)
    with torch.no_grad():
        network.weight.zero_()
        network.input_weight.zero_()
        network.output_weight.copy_(torch.tensor(weights))
        network.modulation.pathways[0].E.copy_(torch.eye(3))
    return network


# Output 1 follows context a, output 2 context b, output 0 is silent.
WINNER = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_shares_of_a_network_that_answers_for_the_larger_context():
    table = choice_shares(shown(WINNER), Pair(), trials=10, seed=0)
    assert set(zip(table["task"], table["other"], strict=True)) == {("a", "b"), ("b", "a")}
    assert sorted(table["level"].unique()) == pytest.approx(np.arange(21) / 20)
    assert (table["conflicting"] == 5).all()
    assert (table["congruent"] == 5).all()
    table = table[table["level"] != 0.5]
    right = (table["level"] < 0.5).astype(float)
    np.testing.assert_array_equal(table["as_task"], right)
    np.testing.assert_array_equal(table["as_other"], 1 - right)
    np.testing.assert_array_equal(table["neither"], 0)
    # On congruent trials task b's action is 1, which the context of b never asks for.
    a = table["task"] == "a"
    np.testing.assert_array_equal(table["congruent_accuracy"][a], right[a])
    np.testing.assert_array_equal(table["congruent_accuracy"][~a], 1 - right[~a])
    lines = crossing(table)
    np.testing.assert_allclose(lines["level"], 0.5)
    # From 0.45 to 0.55, in steps of 0.1 as 0.5 was left out: 2 / 0.1 / 2.
    np.testing.assert_allclose(lines["slope"], 10.0)


def test_answers_of_neither_task_are_interference():
    # Action 0 wins over both in a mixture.
    blend = [[0.9, 0.9, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    levels = [0.0, 0.05, 0.3, 0.5, 0.7, 0.95, 1.0]
    table = choice_shares(shown(blend), Pair(), levels=levels, trials=4, seed=0)
    a = table[table["task"] == "a"].set_index("level")
    assert a["as_task"].tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert a["neither"].tolist() == [0, 0, 1, 1, 1, 0, 0]
    assert a["as_other"].tolist() == [0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(("corruption", "as_other"), [("swap", 1.0), ("drop", 0.0)])
def test_other_corruptions_are_split_alike(corruption, as_other):
    level = 40.0 if corruption == "swap" else 1.0
    table = choice_shares(
        shown(WINNER), Pair(), levels=[0, level], trials=4, seed=0, corruption=corruption
    )
    np.testing.assert_array_equal(table["as_task"], table["level"] == 0)
    np.testing.assert_array_equal(table["as_other"], as_other * (table["level"] > 0))


def test_choices_are_of_the_pathway_that_is_corrupted():
    table = choice_shares(
        shown(WINNER), Pair(), levels=[0, 1], trials=4, seed=0, pathway="synaptic"
    )
    assert (table["as_task"] == 1).all()


@pytest.mark.parametrize("encoding", ["ring", "vector"])
def test_shares_of_real_tasks_agree_with_the_sweep(encoding):
    names = ["go", "anti", "ctxdm1", "ctxdm2", "dms", "dnms"]
    tasks = task_set(names, encoding=encoding, dt=50.0)
    network = CTRNN(tasks.inputs, 8, tasks.outputs, "e-add", contexts=6, dt=50.0, noise=0, seed=0)
    levels = [0.0, 0.4, 1.0]
    table = choice_shares(network, tasks, levels=levels, trials=60, seed=4)
    assert len(table) == 6 * 3
    shares = table[["as_task", "as_other", "neither"]]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert shares.min().min() >= 0
    sweep = ambiguity_sweep(network, tasks, levels=levels, trials=60, seed=4)
    both = table.merge(sweep, on=["task", "other", "level"])
    whole = both["conflicting"] + both["congruent"] == 60
    # Trials that are neither conflicting nor congruent are near decisions with vectors.
    decisions = both["task"].str.startswith("ctx")
    assert (whole | (decisions & (encoding == "vector"))).all()
    assert whole[decisions].any() == (encoding == "ring")
    right = both["as_task"] * both["conflicting"]
    right += (both["congruent_accuracy"] * both["congruent"]).fillna(0)
    np.testing.assert_allclose(right[whole], (both["accuracy"] * 60)[whole])
    assert (both["congruent"][~decisions] == 0).all()
    assert (both["congruent"][decisions] > 0).all()


def test_near_vectors_are_neither_conflicting_nor_congruent():
    tasks = task_set(["ctxdm1", "ctxdm2"], encoding="vector", noise=0.0)
    network = CTRNN(5, 4, 3, "e-add", contexts=2, seed=0)
    table = choice_shares(network, tasks, levels=[0], trials=400, seed=0)
    # Directions d places apart fit one answer if d 2 pi / 16 < 0.4 pi, so for d = 1, 2, 3: 6 of the
    # 15 other directions; and half of the trials want different answers.
    for count, p in (("conflicting", 0.5 * 9 / 15), ("congruent", 0.5)):
        found = table[count] / 400
        assert (abs(found - p) < 5 * math.sqrt(p * (1 - p) / 400)).all()


def test_trials_on_which_the_twin_has_no_answer_are_left_out():
    tasks = task_set(["ctxdm1", "multidm"], dt=50.0)
    network = CTRNN(tasks.inputs, 4, tasks.outputs, "e-add", contexts=2, dt=50.0, seed=0)
    table = choice_shares(network, tasks, levels=[0], trials=400, seed=0).set_index("task")
    judged = (table["conflicting"] + table["congruent"]) / 400
    assert judged["multidm"] == 1
    # Both modalities weigh the same, and have one of 6 balances each: 1 in 6 cancel.
    assert abs(judged["ctxdm1"] - 5 / 6) < 5 * math.sqrt(5 / 36 / 400)


def test_crossing_of_known_shares():
    levels = np.array([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    table = pd.DataFrame(
        {
            "task": "a", "other": "b", "level": levels,
            "as_task": 0.8 * (1 - levels), "as_other": 0.8 * levels, "neither": 0.2,
        }
    )  # fmt: skip
    flat = crossing(table).iloc[0]
    assert flat["level"] == pytest.approx(0.5)
    assert flat["slope"] == pytest.approx(0.8)
    assert flat["neither"] == pytest.approx(0.2)
    assert crossing(table.sample(frac=1, random_state=0)).iloc[0].equals(flat)
    never = crossing(table[table["level"] < 0.5]).iloc[0]
    assert np.isnan(never["level"])
    assert np.isnan(never["slope"])
    lost = table.assign(as_task=0.0)
    assert np.isnan(crossing(lost)["level"]).all()
    # Between 0.2 and 0.4 the lead falls from 0.6 to -0.2.
    sharp = table.assign(as_task=[1, 0.8, 0.3, 0, 0, 0], as_other=[0, 0.2, 0.5, 1, 1, 1])
    found = crossing(sharp).iloc[0]
    assert found["level"] == pytest.approx(0.35)
    assert found["slope"] == pytest.approx(0.8 / 0.2 / 2)


def test_bad_shares_are_refused():
    tasks = Pair()
    with pytest.raises(ValueError, match="at least two tasks must show the same stimuli"):
        choice_shares(shown(WINNER), task_set(["go", "dm1", "dm2"]), levels=[0], trials=2, seed=0)
    with pytest.raises(TypeError, match="tasks must have twins and wanted"):
        choice_shares(shown(WINNER), object(), levels=[0], trials=2, seed=0)
    with pytest.raises(ValueError, match="level must lie in"):
        choice_shares(shown(WINNER), tasks, levels=[2], trials=2, seed=0)
    table = choice_shares(shown(WINNER), tasks, levels=[0], trials=2, seed=0)
    with pytest.raises(ValueError, match="several for"):
        crossing(pd.concat([table, table]))
    with pytest.raises(ValueError, match="unknown column 'as_task'"):
        crossing(table.drop(columns="as_task"))


TASKS = task_set(["go", "dlyanti", "dms"], dt=50.0)


def build(variant, **options):
    options = {"contexts": 3, "dt": 50.0, "seed": 1, "dtype": torch.float64} | options
    return CTRNN(TASKS.inputs, 12, TASKS.outputs, variant, **options)


def brute_force(network, batch, contexts):
    """Ratio of root mean squares, trial by trial and step by step."""
    moved = size = 0.0
    with torch.no_grad():
        run = network(batch.inputs, batch.context, noise=0.0)
        for trial in range(len(batch)):
            for step in range(int(batch.lengths[trial])):
                before = run.potentials[trial, step - 1] if step else torch.zeros(12)
                x, u = before.to(run.potentials)[None], batch.inputs[trial, step][None].double()
                clean, other = (
                    network.velocity(network.circuit(c[trial][None].double()), x, u)
                    for c in (batch.context, contexts[:, step] if contexts.ndim == 3 else contexts)
                )
                moved += float((other - clean).square().sum())
                size += float(clean.square().sum())
    return math.sqrt(moved / size)


@pytest.mark.parametrize("variant", ["e-add", "e-gain", "s-sym", "es-add-sym"])
@pytest.mark.parametrize("kind", ["noise-frozen", "noise-ou"])
@pytest.mark.parametrize("form", ["current", "rate"])
def test_effect_is_that_of_the_velocities(variant, kind, form):
    network = build(variant, form=form)
    batch = TASKS.sample(6, generator=0)
    steps = batch.inputs.shape[1]
    context = corrupted(kind, batch.context.double(), 0.3, steps=steps, dt=50.0, generator=0)
    expected = brute_force(network, batch, context)
    assert context_effect(network, batch, context) == pytest.approx(expected, rel=1e-9)
    assert context_effect(network, batch, batch.context) == 0


def test_effect_on_an_additive_drive_has_a_closed_form():
    # dF = E sigma eta / tau, in every state.
    network = build("e-add", noise=0.0)
    batch = TASKS.sample(30, generator=0)
    context = corrupted("noise-frozen", batch.context.double(), 0.4, generator=0)
    with torch.no_grad():
        run = network(batch.inputs, batch.context)
        before = torch.cat([torch.zeros(30, 1, 12), run.potentials[:, :-1]], 1)
        # A step is x' - x = dt F without noise.
        field = (run.potentials - before) / network.dt
        shift = (context - batch.context) @ network.modulation.pathways[0].E.T / network.tau
        weight = batch.lengths.double()
        expected = (shift.square().sum(1) * weight).sum() / field[batch.valid].square().sum()
    assert context_effect(network, batch, context) == pytest.approx(math.sqrt(expected), rel=1e-9)


def test_effect_is_one_pathways_and_goes_through_filters():
    batch = TASKS.sample(6, generator=0)
    context = corrupted("noise-frozen", batch.context.double(), 0.4, generator=0)
    network = build("es-add-sym")
    clean = batch.context.double()
    alone = [Contexts(context, clean), Contexts(clean, context), context]
    drive, synapse, both = (context_effect(network, batch, c) for c in alone)
    assert len({drive, synapse, both}) == 3
    assert context_effect(build("e-add"), batch, Contexts(clean, context)) == 0
    # A filter that hardly moves lets no change after the first step through.
    late = clean[:, None].repeat(1, batch.inputs.shape[1], 1)
    late[:, 1:] += 1
    slow = build("e-add", tau_e=1e9)
    assert context_effect(slow, batch, late) < 1e-5 < context_effect(build("e-add"), batch, late)
    assert context_effect(network, batch, context, generator=3) != both


def test_a_network_that_does_not_move_has_no_relative_effect():
    network = build("s-sym")
    batch = TASKS.sample(6, generator=0)
    with torch.no_grad():
        network.input_weight.zero_()
    with pytest.raises(ValueError, match="must move in its clean contexts"):
        context_effect(network, batch, batch.context)


EFFECTS = np.array([0.0, 0.05, 0.1, 0.5])


@pytest.mark.parametrize("variant", ["e-add", "s-sym", "es-add-sym", "s-asym-2"])
@pytest.mark.parametrize("corruption", ["noise-frozen", "noise-ou", "atten"])
def test_levels_are_proportional_to_effects_where_the_field_is_linear(variant, corruption):
    network = build(variant)
    effects = EFFECTS[:3] if corruption == "atten" else EFFECTS
    levels = effect_matched_levels(network, TASKS, effects, corruption=corruption, trials=8, seed=2)
    assert levels[0] == 0
    np.testing.assert_allclose(levels / levels[1], effects / effects[1], rtol=1e-12)


@pytest.mark.parametrize(
    ("variant", "options", "corruption"),
    [
        ("e-gain", {}, "noise-frozen"),
        ("s-asym-2", {"interpolation": "factor-linear"}, "noise-frozen"),
        ("s-lowrankW", {"rank": 3}, "noise-frozen"),
        ("e-add", {}, "posterior"),
        ("e-add", {}, "mix2"),
    ],
)
def test_levels_found_have_their_effects(variant, options, corruption):
    network = build(variant, **options)
    effects = [0.01, 0.03]
    arguments = {"corruption": corruption, "trials": 8, "seed": 2}
    levels = effect_matched_levels(network, TASKS, effects, **arguments)
    run = Runs.draw(network, TASKS, 8, 2, "both", corruption, None)
    field = _Field(network, run.batch, make_generator(2, "ambiguity noise"))
    rows = torch.arange(len(run.batch))
    other = (run.batch.task + 1 + rows % 2) % 3
    found = [field.effect(run.contexts(rows, float(level), other)) for level in levels]
    np.testing.assert_allclose(found, effects, rtol=1e-5)


def test_effects_out_of_reach_are_nan():
    reached = effect_matched_levels(
        build("e-add"), TASKS, [0.1, 50.0], corruption="atten", trials=4, seed=0
    )
    assert np.isfinite(reached[0])
    assert np.isnan(reached[1])
    without = effect_matched_levels(
        build("e-add"), TASKS, [0.0, 0.1], pathway="synaptic", trials=4, seed=0
    )
    plain = effect_matched_levels(build("none"), TASKS, [0.0, 0.1], trials=4, seed=0)
    for levels in (without, plain):
        assert levels[0] == 0
        assert np.isnan(levels[1])


def test_levels_do_not_depend_on_the_size_of_a_drive_that_is_all_there_is():
    # Without W, B, b and noise both F and dF are proportional to E.
    levels = []
    for scale in (1, 3):
        network = build("e-add", noise=0.0)
        with torch.no_grad():
            network.weight.zero_()
            network.input_weight.zero_()
            network.modulation.pathways[0].E.mul_(scale)
        levels.append(effect_matched_levels(network, TASKS, [0.1], trials=8, seed=0))
    np.testing.assert_allclose(*levels, rtol=1e-9)


@pytest.mark.parametrize("effects", [[-0.1], [], [math.nan], [[0.1]]])
def test_bad_effects_are_refused(effects):
    with pytest.raises(ValueError, match="effects must be a row of numbers of zero or more"):
        effect_matched_levels(build("e-add"), TASKS, effects, seed=0)
