"""Studies of networks with pathways of the user's own."""

import sys
from dataclasses import replace

import cloudpickle
import pytest
import torch

import ctxrnn
from ctxrnn import AbstractModulation, Chain, Gain, TrainConfig, parameter_count
from ctxrnn.analysis import plots
from ctxrnn.studies import NetworkSettings, Study, estimate, plan_network
from ctxrnn.studies._networks import Networks

# Workers do not import the tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

BASE = NetworkSettings(
    tasks=("rtgo", "rtanti"), dt=100, ring=4, test_trials=32,
    train=TrainConfig(steps=6, batch=8, evaluate_every=3, evaluation_trials=8, target=None),
)  # fmt: skip


class Gating(AbstractModulation):
    """Silence a random part of the neurons in each context."""

    pathway = "excitability"

    def __init__(self, units, contexts, *, share=0.5, seed=0):
        super().__init__(units, contexts)
        self.share = share
        drawn = torch.rand(units, contexts, generator=ctxrnn.make_generator(seed, "Gating"))
        self.register_buffer("open", (drawn >= share).float())

    def modulate(self, circuit, context):
        return replace(circuit, gain=context @ self.open.mT)

    def config(self):
        return {"units": self.units, "contexts": self.contexts, "share": self.share}


def both(units, contexts, seed):
    """Two pathways: a gain after a gate."""
    return Chain(Gating(units, contexts, seed=seed), Gain(units, contexts, seed=seed))


def study(**changes):
    given = {
        "grid": {"variant": ["e-gating", "e-add"], "units": [6], "seed": [0, 1], "share": [0.5]},
        "base": BASE, "pathways": {"e-gating": Gating},
    } | changes  # fmt: skip
    return Study("gating", **given)


def test_it_runs_on_workers_and_is_taken_up_again(tmp_path):
    table = study().run(tmp_path, executor="local", workers=2, progress=False)
    assert table["variant"].tolist().count("e-gating") == 2
    for row in table.to_dict("records"):
        kinds = {"Gating": Gating}
        network = ctxrnn.load(tmp_path / row["network"], pathways=kinds)
        assert network.variant == row["variant"]
        if row["variant"] == "e-gating":
            (pathway,) = network.modulation
            expected = Gating(6, 2, seed=row["network_seed"])
            assert torch.equal(pathway.open, expected.open)
            run = network(torch.ones(1, 20, network.inputs), torch.eye(2)[:1], noise=0.0)
            assert torch.equal(run.rates[0].abs().amax(0) > 0, pathway.open[:, 0] > 0)
    inline = study().run(tmp_path / "inline", executor="inline", progress=False)
    order = ["variant", "seed"]
    first, second = (t.sort_values(order)["relative_mean"].tolist() for t in (table, inline))
    assert first == pytest.approx(second, abs=0.1)
    # Networks that are kept are not trained again, for a new measure neither.
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "networks").iterdir()}
    measured = Networks(BASE, None, pathways={"e-gating": Gating})
    assert measured.plan({"variant": "e-gating", "units": 6}).variant == "e-gating"
    more = study(measure=lambda trained: {"held": trained.network.modulation.contexts})
    (tmp_path / "records.sqlite").unlink()
    again = more.run(tmp_path, executor="inline", progress=False)
    assert len(again) == 4
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "networks").iterdir()} == kept


def test_pairs_start_from_the_same_weights():
    work = Networks(BASE, None, pathways={"e-gating": Gating})
    from ctxrnn.studies._networks import _network

    cells = [{"variant": v, "units": 6, "seed": 3} for v in ("e-gating", "e-add")]
    plans = [work.plan(cell) for cell in cells]
    assert plans[0].company == plans[1].company
    a, b = (_network(plan, None, work.pathways) for plan in plans)
    assert torch.equal(a.weight, b.weight)
    assert torch.equal(a.input_weight, b.input_weight)


def test_options_of_the_class_are_axes():
    own = {"e-gating": Gating, "e-two": both}
    cell = {"variant": "e-gating", "units": 9, "share": 0.9, "sd": 0.2}
    plan = plan_network(BASE, cell, own)
    assert plan.options["share"] == 0.9
    assert "sd" not in plan.options
    # A label to a variant that has no such option.
    other = plan_network(BASE, {**cell, "variant": "e-add"}, own)
    assert other.options["sd"] == 0.2
    assert "share" not in other.options


def test_sizes_are_matched_by_parameters():
    own = {"e-gating": Gating, "e-two": both}
    shape = {"inputs": 9, "outputs": 5, "contexts": 2}
    budget = parameter_count("e-add", units=20, **shape)
    found = {}
    for variant in own:
        cell = {"variant": variant, "size": 20, "matching": "M2"}
        found[variant] = plan_network(BASE, cell, own).units
    # Nothing is learnt in a gate; a gain has as many parameters as a drive.
    none = parameter_count("none", units=found["e-gating"], **shape)
    assert none <= budget < parameter_count("none", units=found["e-gating"] + 1, **shape)
    assert found["e-two"] == 20


def test_what_cannot_be_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"'e-add' is a variant of the catalogue: choose another"):
        study(pathways={"e-add": Gating}).run(tmp_path, executor="inline", progress=False)
    with pytest.raises(TypeError, match=r"'x' must take units and contexts.*got <lambda>\(n\)"):
        study(pathways={"x": lambda n: n}).run(tmp_path / "x", executor="inline", progress=False)
    with pytest.raises(ValueError, match=r"unknown variant 'e-gatin'.*e-gating"):
        plan_network(BASE, {"variant": "e-gatin", "units": 4}, {"e-gating": Gating})
    with pytest.raises(ValueError, match="unknown variant 'e-gating'"):
        plan_network(BASE, {"variant": "e-gating", "units": 4})


def test_costs_and_figures_know_them():
    assert "4 cells, 4 networks" in estimate(study())
    assert plots.mechanism("e-gating") == "excitability"
    assert plots.variant_label("e-gating") == "excitability (e-gating)"
    assert plots.variant_label("mine") == "mine"


def test_workers_find_modules_that_the_user_finds(tmp_path, monkeypatch):
    (tmp_path / "my_pathways.py").write_text(
        "from ctxrnn import Gain\n\nclass Mine(Gain):\n    pass\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_pathways

    chosen = study(
        pathways={"e-mine": my_pathways.Mine}, grid={"variant": ["e-mine"], "units": [4]}
    )
    table = chosen.run(tmp_path / "out", workers=1, progress=False)
    assert table["variant"].tolist() == ["e-mine"]


def test_a_folder_remembers_the_code_of_a_pathway(tmp_path):
    class Other(Gating):
        def modulate(self, circuit, context):
            return circuit

    assert study().identity() == study().identity()
    one = {"grid": {"variant": ["e-gating"], "units": [4]}}
    study(**one).run(tmp_path, executor="inline", progress=False)
    with pytest.raises(ValueError, match=r"holds results with other settings.*pathways"):
        study(**one, pathways={"e-gating": Other}).run(tmp_path, executor="inline", progress=False)
    assert "pathways" not in Study("plain", {"variant": ["e-add"], "units": [4]}).identity()
