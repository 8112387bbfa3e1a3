"""Dynamics of the main job's networks: what is recorded, summed up, drawn and told."""

import dataclasses
import logging
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import ctxrnn
from ctxrnn.analysis import fit_pca, participation_ratio, plots
from ctxrnn.studies import (
    NetworkSettings,
    ReproduceSettings,
    _dynamics,
    _dynamics_figures,
    reproduce,
)
from ctxrnn.studies._dynamics import measure_dynamics
from ctxrnn.studies._dynamics_figures import as_branches
from ctxrnn.studies._dynamics_tables import network_summary, path_table
from ctxrnn.studies._reproduce import reproduce_study
from ctxrnn.studies._results import ResultsFolder
from ctxrnn.tasks import task_set

TASKS = task_set(["go", "anti", "dms"], dt=50, ring=8)
TINY = ReproduceSettings(
    variants=("none", "e-add", "s-sym"),
    units=8,
    seeds=1,
    levels=(0.0, 0.5, 1.0),
    ambiguity_trials=4,
    dynamics_starts=6,
    dynamics_trials=4,
    base=NetworkSettings(
        tasks=("go", "anti", "dm1"),
        train=ctxrnn.TrainConfig(
            steps=10, batch=12, learning_rate=3e-3, evaluate_every=10, evaluation_trials=12
        ),
        bank=8,
        test_trials=8,
    ),
)
ASKED = {"trials": 4, "starts": 8, "levels": (0.0, 0.5, 1.0), "choices": 6, "seed": 3}


def made(variant, **more):
    return ctxrnn.CTRNN(TASKS.inputs, 10, TASKS.outputs, variant, contexts=3, dt=50, seed=1, **more)


def measured(variant, **more):
    return measure_dynamics(made(variant, **more), TASKS, **ASKED)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dynamics") / "out"
    reproduce_study(TINY).run(folder, executor="inline", progress=False)
    return folder


def records(folder):
    with ResultsFolder(folder).store() as store:
        return {row.cell["variant"]: row.record for row in store.rows("done")}


def test_state_dependence_is_that_of_the_velocities():
    """The index from CTRNN.velocity in float64, at states of a run of our own."""
    network = made("s-sym", dtype=torch.float64)
    table = measure_dynamics(network, TASKS, **ASKED)["state_dependence"]
    batch = TASKS.sample(4 * 3, generator=ctxrnn.make_generator(3, "analysis"))
    with torch.no_grad():
        run = network(batch.inputs.double(), batch.context.double(), noise=0.0)
        states = run.potentials[batch.task.argsort(stable=True)][
            batch.valid[batch.task.argsort(stable=True)]
        ]
        states = states[np.linspace(0, len(states) - 1, 400).astype(int)]
        cue = torch.zeros(TASKS.inputs, dtype=torch.float64)
        cue[0] = 1
        flows = [
            network.velocity(
                network.circuit(torch.eye(3, dtype=torch.float64)[k : k + 1]), states, cue
            )
            for k in range(3)
        ]
    change = flows[0] - flows[1]
    expected = 1 - change.mean(0).square().sum() / change.square().sum(1).mean()
    (row,) = table[(table["a"] == "go") & (table["b"] == "anti")].itertuples()
    assert row.state_dependence == pytest.approx(float(expected), rel=1e-6)
    assert float(expected) > 0


def test_drive_has_no_state_dependence_and_a_network_without_context_no_paths():
    assert (measured("e-add")["state_dependence"]["state_dependence"] == 0).all()
    plain = measured("none")
    assert set(plain) == {"fixed_points", "trajectories", "dimensions", "subspaces"}
    assert set(plain["fixed_points"]["task"]) <= {"no context"}


def test_tables_are_of_the_states_that_were_visited():
    found = measured("es-add-sym", g=1.8)
    batch = TASKS.sample(4 * 3, generator=ctxrnn.make_generator(3, "analysis"))
    run = made("es-add-sym", g=1.8)(batch.inputs, batch.context, noise=0.0)
    states = run.potentials.detach().double().numpy()
    for k, name in enumerate(TASKS.names):
        rows = batch.task.numpy() == k
        mine = states[rows][batch.valid[rows].numpy()]
        dimensions = found["dimensions"]
        (row,) = dimensions[dimensions["task"] == name].itertuples()
        assert row.participation_ratio == pytest.approx(participation_ratio(mine), rel=1e-5)
    plane = fit_pca(states[batch.valid.numpy()])
    paths = found["trajectories"]
    assert set(paths["task"]) == {"go", "anti"}
    assert paths["share_1"].iloc[0] == pytest.approx(plane.ratios[0])
    starts = paths[paths["step"] == 0][["pc_1", "pc_2"]].to_numpy()
    assert starts[0] == pytest.approx(plane.project(states[0, 0])[:2], abs=1e-4)


def test_branches_lead_from_one_context_to_the_other():
    """At both ends of a path stable points are those that were found in the contexts."""
    found = measured("es-add-sym", g=1.8)
    branches, points = found["branches"], found["fixed_points"]
    assert set(zip(branches["from"], branches["to"], strict=True)) == {("go", "anti")}
    for task, end in (("go", 0.0), ("anti", 1.0)):
        mine = points[(points["task"] == task) & (points["kind"] == "stable")]
        there = branches[branches["parameter"] == end]
        assert len(mine)
        for place in mine[["pc_1", "pc_2"]].to_numpy():
            gaps = np.linalg.norm(there[["pc_1", "pc_2"]].to_numpy() - place, axis=1)
            assert gaps.min() < 1e-6
            assert there["index"].iloc[int(gaps.argmin())] == 0
    assert set(found["choices"]["level"]) == {0.0, 0.5, 1.0}


@pytest.mark.parametrize("broken", ["compare_subspaces", "choice_shares", "View"])
def test_a_part_that_fails_is_told_and_the_others_are_kept(monkeypatch, broken):
    def fail(*_args, **_options):
        raise FloatingPointError("no\nsuch thing")

    monkeypatch.setattr(_dynamics, broken, fail)
    found = measured("s-sym")
    label = {"compare_subspaces": "spaces", "choice_shares": "choices", "View": "runs"}[broken]
    assert found["dynamics_failed"] == f"{label}: FloatingPointError: no such thing"
    assert ("state_dependence" in found) == (broken != "View")
    lost = {"compare_subspaces": "subspaces", "choice_shares": "choices"}.get(broken)
    assert lost not in found


def test_what_would_stop_a_study_stops_here(monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_dynamics, "compare_subspaces", full)
    with pytest.raises(OSError, match="No space"):
        measured("s-sym")


def test_failing_dynamics_keep_the_records_and_are_told_in_the_report(
    tmp_path, monkeypatch, caplog
):
    def fail(*_args, **_options):
        raise ValueError("spaces & angles")

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(_dynamics, "compare_subspaces", fail)
        reproduce_study(TINY).run(out, executor="inline", progress=False)
    before = records(out)
    assert all("accuracy" in record["tables"] for record in before.values())
    with caplog.at_level(logging.WARNING, "ctxrnn"):
        reproduce(TINY, out, workers=1, progress=False)
    assert "e-add, network 0: spaces: ValueError: spaces & angles" in caplog.text
    page = (out / "report.html").read_text()
    assert "3 of 3 networks some of the dynamics could not be computed" in page
    assert "s-sym, network 0: spaces: ValueError: spaces &amp; angles" in page
    assert records(out) == before
    networks = pd.read_parquet(out / "networks.parquet")
    assert networks["angle"].isna().all()
    assert networks.set_index("variant").loc["s-sym", "state_dependence"] > 0


def test_failing_figure_is_told_in_its_place(finished, tmp_path, monkeypatch, caplog):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    before = records(out)
    old = (out / "figures" / "bifurcations.png").read_bytes()

    def fail(_tables):
        raise KeyError("no such column")

    monkeypatch.setattr(_dynamics_figures, "_bifurcations", fail)
    with caplog.at_level(logging.WARNING, "ctxrnn"):
        reproduce(TINY, out, workers=1, progress=False)
    assert "the figure bifurcations could not be drawn: KeyError: 'no such column'" in caplog.text
    assert records(out) == before
    assert (out / "report.html").exists()
    assert (out / "figures" / "bifurcations.png").read_bytes() != old
    assert (out / "figures" / "dynamics.png").stat().st_size > 10_000


def test_records_are_those_of_a_direct_call_on_the_saved_network(finished):
    record = records(finished)["s-sym"]
    network = ctxrnn.load(finished / record["files"][0])
    tasks = task_set(**ctxrnn.load_notes(finished / record["files"][0])["tasks"])
    seed = ctxrnn.derive_seed(record["values"]["network_seed"], "measure")
    found = measure_dynamics(
        network, tasks, trials=4, starts=6, levels=TINY.levels, choices=4, seed=seed
    )
    assert "dynamics_failed" not in record["values"]
    for name, table in found.items():
        kept = pd.DataFrame(record["tables"][name])
        pd.testing.assert_frame_equal(kept, table, check_dtype=False, rtol=1e-9, atol=1e-9)


def test_summary_of_networks_is_that_of_their_tables(finished):
    tables = {
        name: pd.read_parquet(finished / f"{name}.parquet")
        for name in ("networks", "state_dependence", "subspaces", "fixed_points", "paths")
    }
    networks = tables["networks"].set_index("variant")
    assert networks.loc["e-add", "state_dependence"] == 0
    assert math.isnan(networks.loc["none", "state_dependence"])
    for variant in TINY.variants:
        mine = {name: table[table["variant"] == variant] for name, table in tables.items()}
        angles = np.degrees(mine["subspaces"]["mean"]).mean()
        assert networks.loc[variant, "angle"] == pytest.approx(angles)
        stable = (mine["fixed_points"]["kind"] == "stable").sum()
        contexts = 1 if variant == "none" else 3
        assert networks.loc[variant, "stable_points"] == pytest.approx(stable / contexts)
    assert set(tables["paths"]["variant"]) == {"e-add", "s-sym"}


def choices(task, other, lead):
    """Answers as the task fall from 1 to 0 between two levels, around their crossing."""
    levels = np.array([0.0, lead - 0.1, lead + 0.1, 1.0])
    share = np.array([1.0, 1.0, 0.0, 0.0])
    return pd.DataFrame(
        {
            "variant": "s-sym", "seed": 0, "task": task, "other": other, "level": levels,
            "as_task": share, "as_other": 1 - share, "neither": 0.0,
        }
    )  # fmt: skip


def crafted(events):
    rows = pd.DataFrame(events, columns=["kind", "parameter", "index"]).assign(
        variant="s-sym", seed=0, branch=0, **{"from": "go", "to": "anti"}
    )
    branches = pd.DataFrame(
        {"variant": "s-sym", "seed": 0, "from": "go", "to": "anti", "branch": [0, 0, 1],
         "cut": [False, False, True]}
    )  # fmt: skip
    shares = pd.concat([choices("go", "anti", 0.3), choices("anti", "go", 0.6)])
    return {"bifurcations": rows, "branches": branches, "choices": shares}


def test_paths_set_crossings_of_both_tasks_beside_bifurcations_of_stable_points():
    """0.3 on trials of go and 1 - 0.6 on those of anti: 0.35, nearest to 0.5 and not to 0.34."""
    events = [("fold", 0.5, 0), ("fold", 0.34, 1), ("Hopf", 0.9, 0)]
    (row,) = path_table(crafted(events)).itertuples()
    assert (row.crossing_from, row.crossing_to) == pytest.approx((0.3, 0.4))
    assert row.crossing == pytest.approx(0.35)
    assert (row.bifurcation, row.kind, row.bifurcations) == (0.5, "fold", 2)
    assert row.distance == pytest.approx(0.15)
    assert row.cut == 1
    table = path_table(crafted([("fold", 0.34, 1)]))
    assert table["bifurcations"].tolist() == [0]
    assert table["bifurcation"].isna().all()
    found = network_summary({"paths": table}, contexts=2)
    assert found["smooth_paths"] == 1
    assert math.isnan(found["angle"])
    assert path_table({}) is None


def test_branches_of_a_table_are_drawn_with_bifurcations_of_stable_points_alone():
    points = pd.DataFrame(
        {
            "branch": [0, 0, 0], "step": [0, 1, 2], "parameter": [0.0, 0.5, 1.0],
            "index": [0, 0, 1], "leading": -1.0, "pc_1": [1.0, 2.0, 3.0], "pc_2": 0.0,
        }
    )  # fmt: skip
    events = pd.DataFrame(
        {
            "branch": [0, 0], "kind": ["fold", "Hopf"], "parameter": [0.7, 0.9], "index": [0, 1],
            "pc_1": [2.4, 2.8], "pc_2": 0.0,
        }
    )  # fmt: skip
    (branch,) = as_branches(points, events)
    assert [event.kind for event in branch.bifurcations] == ["fold"]
    assert branch.stable.tolist() == [True, True, False]
    with plots.style():
        ax = plots.new_figure(size=(3, 3)).axes[0]
        plots.bifurcation_diagram(ax, as_branches(points, None), 0, colour="red")
    assert {line.get_color() for line in ax.lines} == {"red"}


def test_dynamics_count_in_the_estimate_of_the_time():
    cell = {"variant": "s-sym", "seed": 0, "units": 51}
    costs = {
        starts: reproduce_study(dataclasses.replace(TINY, dynamics_starts=starts))
        .worker()
        .cost(cell)
        for starts in (0, 6, 600)
    }
    assert 0 < costs[0] < costs[6] < costs[600]
