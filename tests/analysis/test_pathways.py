import numpy as np
import pytest
import torch

from ctxrnn import CTRNN, Contexts, TrialBatch, make_generator
from ctxrnn.analysis import conflicting_contexts, cross_context, frozen_pathway

MEASURE = {"trials": 2, "seed": 0}


class Tasks:
    """Task k wants action k, or those given, whatever the stimulus: only the context tells."""

    names = ("a", "b", "c")
    chance = {"a": 0.5, "b": 0.25, "c": 0.0}  # noqa: RUF012
    ceiling = {"a": 1.0, "b": 0.75, "c": 1.0}  # noqa: RUF012

    def __init__(self, actions=(0, 1, 2)):
        self.actions, self.seen = torch.tensor(actions), []

    def sample(self, trials, *, generator):
        task = torch.arange(trials) % 3
        return TrialBatch(
            inputs=torch.ones(trials, 2, 2),
            targets=self.actions[task][:, None].expand(-1, 2),
            mask=torch.ones(trials, 2),
            context=torch.eye(3)[task],
            task=task,
            lengths=torch.full((trials,), 2),
            names=self.names,
            dt=20.0,
        )

    def correct(self, outputs, batch):
        self.seen.append(outputs)
        return batch.last(outputs).argmax(-1) == self.actions[batch.task]


def decided_by(drive, synapses):
    """Unit 1 + k, which stands for action k, gets `drive` in c^e = e_k, `synapses` in c^s = e_k."""
    network = CTRNN(
        2, 4, 3, "es-add-full", contexts=3, noise=0.0, tau=20.0, seed=0, dtype=torch.float64
    )
    excitability, weights = network.modulation
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        # The stimulus keeps unit 0 at tanh(2 * 20) = 1.
        network.input_weight[0] = 20.0
        network.output_weight[:, 1:] = torch.eye(3)
        excitability.E[1:] = drive * torch.eye(3)
        weights.W[:, 1:, 0] = synapses * torch.eye(3)
    return network


@pytest.mark.parametrize(("drive", "synapses", "winner"), [(1, 0.5, "e"), (0.5, 1, "s")])
def test_the_stronger_pathway_decides(drive, synapses, winner):
    table = conflicting_contexts(decided_by(drive, synapses), Tasks(), **MEASURE)
    pairs = list(zip(table["excitability"], table["synaptic"], strict=True))
    assert sorted(pairs) == [(k, j) for k in "abc" for j in "abc" if k != j]
    e, s = (1.0, 0.0) if winner == "e" else (0.0, 1.0)
    assert (table["as_excitability"] == e).all()
    assert (table["as_synaptic"] == s).all()
    right = {"a": 1.0, "b": 1.5, "c": 1.0}
    wrong = {"a": -1.0, "b": -0.5, "c": 0.0}
    as_e = table["excitability"].map(right if e else wrong)
    as_s = table["synaptic"].map(right if s else wrong)
    np.testing.assert_allclose(table["as_excitability_normalised"], as_e)
    np.testing.assert_allclose(table["as_synaptic_normalised"], as_s)
    np.testing.assert_allclose(table["preference"], as_e - as_s)
    np.testing.assert_allclose(table["clean_excitability"], table["excitability"].map(right))
    np.testing.assert_allclose(table["clean_synaptic"], table["synaptic"].map(right))


def test_each_pair_is_its_own():
    """The excitability decides but for task c, which it does not tell."""
    network = decided_by(1, 0.5)
    with torch.no_grad():
        network.modulation.pathways[0].E[:, 2] = 0
    table = conflicting_contexts(network, Tasks(), **MEASURE)
    found = table.set_index(["excitability", "synaptic"])[["as_excitability", "as_synaptic"]]
    for k, j in found.index:
        wanted = [0, 1] if k == "c" else [1, 0]
        np.testing.assert_array_equal(found.loc[(k, j)], wanted)


def test_tasks_that_want_the_same_do_not_conflict():
    table = conflicting_contexts(decided_by(1, 0.5), Tasks((0, 0, 1)), **MEASURE)
    alike = table["excitability"].isin(["a", "b"]) & table["synaptic"].isin(["a", "b"])
    # The excitability says action 0 or 1 for tasks a and b: right for a only.
    a_says = table[alike].set_index("excitability").loc["a"]
    assert (a_says["as_excitability"], a_says["as_synaptic"]) == (1, 1)


def test_cross_context_is_the_similarity_of_tasks():
    found = cross_context(decided_by(1, 1), Tasks(), **MEASURE)
    wanted = np.array([[1, -1, -1], [-0.5, 1.5, -0.5], [0, 0, 1]])
    np.testing.assert_allclose(found.to_numpy(), wanted)
    assert list(found.index) == list(found.columns) == list("abc")
    # Tasks a and c both want action 0: each context is as good as the other's.
    network = decided_by(1, 1)
    with torch.no_grad():
        network.modulation.pathways[0].E.zero_()
        network.modulation.pathways[1].W[2] = network.modulation.pathways[1].W[0]
    found = cross_context(network, Tasks((0, 1, 0)), **MEASURE)
    np.testing.assert_allclose(found.to_numpy(), [[1, -1, 1], [-0.5, 1.5, -0.5], [1, 0, 1]])


def test_a_task_without_a_span_has_no_normalised_accuracy():
    tasks = Tasks()
    tasks.ceiling = {"a": 0.5, "b": 0.75, "c": 1.0}
    found = cross_context(decided_by(1, 1), tasks, **MEASURE)
    assert found.loc["a"].isna().all()
    assert found.drop("a").notna().all(axis=None)


def test_freezing_costs_what_the_pathway_tells():
    for pathway in ("excitability", "synaptic"):
        frozen = frozen_pathway(decided_by(1, 0.5), Tasks(), pathway=pathway, **MEASURE)
        assert len(frozen) == 9
        # The other pathway tells the task, too.
        assert (frozen["accuracy"] == 1).all()
        assert (frozen["cost"] == 0).all()
    alone = decided_by(1, 0.0)
    table = frozen_pathway(alone, Tasks(), pathway="excitability", **MEASURE)
    table = table.set_index(["context", "task"])
    np.testing.assert_array_equal(table.loc["clean", "accuracy"], 1)
    for kind in ("mean", "none"):
        # Nothing tells the task: the first action is taken.
        np.testing.assert_array_equal(table.loc[kind, "accuracy"], [1, 0, 0])
        np.testing.assert_allclose(table.loc[kind, "cost"], [0, 2, 1])
        np.testing.assert_allclose(table.loc[kind, "normalised"], [1, -0.5, 0])
    kept = frozen_pathway(alone, Tasks(), pathway="synaptic", **MEASURE)
    assert (kept["cost"] == 0).all()


@pytest.mark.parametrize("pathway", ["excitability", "synaptic"])
def test_frozen_contexts_are_the_mean_and_zero(pathway):
    network = CTRNN(2, 6, 3, "es", contexts=3, noise=0.3, seed=0, dtype=torch.float64)
    tasks = Tasks()
    frozen_pathway(network, tasks, pathway=pathway, trials=2, seed=5)
    batch = Tasks().sample(6, generator=None)
    for value, got in zip((None, 1 / 3, 0.0), tasks.seen, strict=True):
        clean = batch.context.double()
        frozen = clean if value is None else torch.full_like(clean, value)
        pair = (frozen, clean) if pathway == "excitability" else (clean, frozen)
        wanted = network(batch.inputs, Contexts(*pair), generator=make_generator(5, "noise", 0))
        torch.testing.assert_close(got, wanted.outputs, rtol=1e-12, atol=1e-12)


def test_noise_is_the_same_in_every_condition():
    network = CTRNN(2, 6, 3, "es", contexts=3, noise=0.3, seed=0, dtype=torch.float64)
    with torch.no_grad():
        for parameter in network.modulation.parameters():
            parameter.zero_()
    for measure in (cross_context, conflicting_contexts):
        tasks = Tasks()
        measure(network, tasks, **MEASURE)
        for outputs in tasks.seen[1:]:
            torch.testing.assert_close(outputs, tasks.seen[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("variant", "call", "message"),
    [
        ("e-add", conflicting_contexts, "network must have the excitability and the synaptic path"),
        ("s-sym", conflicting_contexts, "'s-sym' has synaptic; take e.g. 'es-add-sym'"),
        ("none", conflicting_contexts, "'none' has neither"),
        ("none", cross_context, "network must have a context pathway: got the variant 'none'"),
        (
            "e-add",
            lambda *given, **rest: frozen_pathway(*given, pathway="synaptic", **rest),
            "network must have the synaptic pathway: 'e-add' has excitability",
        ),
        (
            "es",
            lambda *given, **rest: frozen_pathway(*given, pathway="both", **rest),
            "unknown pathway 'both'. Known: excitability, synaptic",
        ),
    ],
)
def test_networks_that_lack_a_pathway_are_refused(variant, call, message):
    with pytest.raises(ValueError, match=message):
        call(CTRNN(2, 4, 3, variant, contexts=3, seed=0), Tasks(), **MEASURE)
