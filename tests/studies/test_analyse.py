"""`analyse`: the standard figures and tables of one network."""

import re
import types

import numpy as np
import pandas as pd
import pytest
import torch

import ctxrnn
from ctxrnn import CTRNN
from ctxrnn._cli import main
from ctxrnn.analysis import (
    find_fixed_points,
    state_dependence,
    vector_field,
    visited_states,
)
from ctxrnn.studies import (
    _analyse_behaviour,
    _analyse_epochs,
    _analyse_geometry,
    _analyse_parts,
    _analyse_points,
    _analyse_units,
    analyse,
)
from ctxrnn.studies._analyse_epochs import epochs_of, representative
from ctxrnn.tasks import task_set

TASKS = task_set(["go", "anti", "dms"], dt=50, ring=8)
# These tasks have no evidence.
WITHOUT_FIGURE = {"accuracy", "psychometric"}


def made(variant, units=12, **options):
    return CTRNN(
        TASKS.inputs, units, TASKS.outputs, variant, contexts=len(TASKS.names), dt=50, seed=1,
        **options,
    )  # fmt: skip


def saved(folder, variant="es-add-sym", **notes):
    path = folder / f"{variant}.safetensors"
    ctxrnn.save(made(variant), path, notes={"tasks": TASKS.config(), **notes})
    return path


def read(folder, name):
    table = pd.read_parquet(folder / f"{name}.parquet")
    assert list(pd.read_csv(folder / f"{name}.csv").columns) == list(table.columns)
    return table


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("analysed")
    path = saved(folder)
    before = path.read_bytes()
    found = analyse(path, folder=folder / "out", trials=8, starts=16)
    assert path.read_bytes() == before
    return found


def test_everything_is_written_and_on_the_page(analysed):
    page = (analysed / "report.html").read_text()
    for label, _, _ in _analyse_parts.PARTS:
        if label not in WITHOUT_FIGURE:
            assert (analysed / "figures" / f"{label}.pdf").read_bytes()[:5] == b"%PDF-"
            assert (analysed / "figures" / f"{label}.png").stat().st_size > 5000
    assert page.count("<img") == len(_analyse_parts.PARTS) - len(WITHOUT_FIGURE)
    assert page.count("Left out") == 1
    assert "no task shows two stimuli" in page
    assert all(re.search(r'alt="[^"]{20,}"', tag) for tag in re.findall(r"<img[^>]*>", page))
    assert page.count("<div class='scroll'><table>") == page.count("<table>") > 3
    assert "es-add-sym, N = 12" in page


def test_tables_hold_what_the_functions_give(analysed):
    network = made("es-add-sym")
    view = _analyse_parts.View(network, TASKS, trials=8, starts=16, pairs=(("go", "anti"),), seed=0)
    # The fixation cue and nothing else.
    assert view.stimulus.tolist() == [1.0] + [0.0] * (TASKS.inputs - 1)
    states = np.concatenate([view.visited(k) for k in range(3)])
    starts = visited_states(states, 16, seed=0)
    points = find_fixed_points(network, np.eye(3), view.stimulus, starts)
    table = read(analysed, "fixed_points")
    assert table["speed"].to_numpy() == pytest.approx(points.speed)
    assert table["task"].tolist() == [TASKS.names[k] for k in points.condition]
    assert read(analysed, "kinds").set_index("task").to_numpy().sum() == len(points)
    dependence = read(analysed, "state_dependence").set_index(["a", "b"])["state_dependence"]
    field = vector_field(network, np.eye(3), view.stimulus)
    direct = state_dependence(field, view.few(states))["state_dependence"]
    assert dependence.to_numpy() == pytest.approx(direct.to_numpy())
    assert (dependence > 0).all()
    assert set(read(analysed, "branches")["from"]) == {"go"}
    assert read(analysed, "accuracy")["task"].tolist() == list(TASKS.names)


def test_visited_states_leave_out_padding_and_averages_are_by_answer():
    view = _analyse_parts.View(made("e-add"), TASKS, trials=16, starts=4, pairs=(), seed=0)
    for k in range(3):
        rows = (view.batch.task == k).nonzero()[:, 0]
        assert len(view.visited(k)) == int(view.batch.valid[rows].sum())
    # The answer of dms is a direction or none.
    answers = {int(view.batch.targets[r][view.batch.valid[r]][-1]) for r in view.rows(0)}
    assert len(view.averages(0)) == len(answers) > 2


def test_drive_shifts_the_flow_and_a_network_without_contexts_is_taken_apart_too(tmp_path):
    shifted = analyse(saved(tmp_path, "e-add"), folder=tmp_path / "e", trials=4, starts=4)
    assert (read(shifted, "state_dependence")["state_dependence"] == 0).all()
    plain = analyse(saved(tmp_path, "none"), folder=tmp_path / "n", trials=4, starts=4)
    assert not (plain / "state_dependence.csv").exists()
    assert read(plain, "kinds")["task"].tolist() == ["no context"]
    assert "Without contexts" in (plain / "report.html").read_text()


def view_of(network, tasks=TASKS, trials=16, starts=8, pairs=(("go", "anti"),)):
    return _analyse_parts.View(network, tasks, trials=trials, starts=starts, pairs=pairs, seed=0)


def test_epochs_hold_the_input_of_one_trial_constant():
    view = view_of(made("s-sym"))
    assert epochs_of(view) == {
        "fixation": [0, 1, 2], "stimulus": [0, 1, 2], "delay": [2], "2nd stimulus": [2],
        "response": [0, 1, 2],
    }  # fmt: skip
    row = view.rows(2)[0]
    first, after = view.batch.periods["sample"][row].tolist()
    shown = view.batch.inputs[row, first:after].double().mean(dim=0).numpy()
    assert representative(view, 2, "stimulus") == pytest.approx(shown)
    assert shown[1:].max() > 0.5
    # The cue alone, and in the response not even that; go shows its stimulus till the end.
    assert representative(view, 2, "delay") == pytest.approx(view.stimulus)
    assert representative(view, 2, "response") == pytest.approx(np.zeros(TASKS.inputs))


def test_points_of_an_epoch_are_those_of_its_context_and_input():
    network = made("s-sym", dtype=torch.float64, g=1.8)
    view = view_of(network)
    part = _analyse_points.epoch_points(view)
    table, counts = part.tables["epoch_points"], part.tables["epoch_kinds"]
    assert len(counts) == 3 + 3 + 1 + 1 + 3
    assert counts[list(_analyse_points.KINDS)].to_numpy().sum() == len(table)
    for k, epoch in ((0, "stimulus"), (1, "fixation"), (2, "delay")):
        starts = visited_states(view.visited(k), view.starts, seed=0)
        direct = find_fixed_points(network, np.eye(3)[k], representative(view, k, epoch), starts)
        mine = table[(table["task"] == TASKS.names[k]) & (table["epoch"] == epoch)]
        assert mine["time_constant"].tolist() == pytest.approx(direct.time_constants[:, 0].tolist())
        # Roots of the network's own velocity, in its context and with that input.
        u = torch.tensor(representative(view, k, epoch))
        circuit = network.circuit(torch.eye(3, dtype=torch.float64)[k : k + 1])
        with torch.no_grad():
            speed = 100 * network.velocity(circuit, torch.tensor(direct.x), u).norm(dim=1)
        assert float(speed[~torch.tensor(direct.slow)].max()) < 1e-9


def test_separation_is_distance_over_spread():
    view = view_of(made("s-sym"))
    part = _analyse_epochs.separation(view)
    table = part.tables["centroids"]
    rows = table[table["epoch"] == "response"]
    (row,) = rows[(rows["a"] == "go") & (rows["b"] == "dms")].itertuples()
    states = []
    for k in (0, 2):
        mine = []
        for r in view.rows(k):
            first, after = view.batch.periods["response"][r].tolist()
            mine.append(view.states[r, first:after])
        states.append(np.concatenate(mine))
    gap = np.linalg.norm(states[0].mean(0) - states[1].mean(0))
    spread = np.sqrt(np.mean([s.var(axis=0, ddof=1).sum() for s in states]))
    assert row.ratio == pytest.approx(gap / spread)
    assert set(table[table["epoch"] == "delay"]["a"]) == set()


def test_tangling_is_of_the_paths_and_in_time_constants():
    """By a double loop over the states of mean trajectories."""
    view = view_of(made("e-add"))
    table = _analyse_geometry.tangled(view).tables["tangling"].set_index(["a", "b"])["tangling_90"]
    x = {k: view.averages(k) for k in (0, 2)}
    states = {k: np.concatenate([p[:-1] for p in paths]) for k, paths in x.items()}
    speeds = {k: np.concatenate([np.diff(p, axis=0) / 50 for p in paths]) for k, paths in x.items()}
    epsilon = 0.1 * np.concatenate([states[0], states[2]]).var(axis=0).sum()
    worst = []
    for a, v in zip(states[0], speeds[0], strict=True):
        q = [
            ((v - w) ** 2).sum() / (((a - b) ** 2).sum() + epsilon)
            for b, w in zip(states[2], speeds[2], strict=True)
        ]
        worst.append(max(q))
    assert table["go", "dms"] == pytest.approx(np.quantile(worst, 0.9) * 100**2)
    assert len(table) == 9


def test_lesions_are_drawn_as_measured():
    view = view_of(made("s-sym", units=14, g=1.5))
    part = _analyse_units.lesions(view)
    table, ax = part.tables["lesions"], part.figure.axes[0]
    shown = np.asarray(ax.images[0].get_array())
    clusters = table["cluster"].max() + 1
    assert shown.shape == (clusters, 3)
    cell = table[(table["cluster"] == clusters - 1) & (table["task"] == "dms")]["change"]
    assert shown[-1, 2] == pytest.approx(float(cell.iloc[0]))
    assert [t.get_text() for t in ax.get_xticklabels()] == list(TASKS.names)


class Observer(torch.nn.Module):
    """Answers by the evidence in one modality, as if it were a network."""

    def __init__(self, tasks, modality):
        super().__init__()
        self.tasks, self.modality = tasks, modality

    def forward(self, inputs, context, *, generator=None, noise=None):
        ring = inputs[..., 1:].reshape(*inputs.shape[:2], 2, 8)[:, :, self.modality]
        places = ring.clamp(min=0).sum(dim=1).argmax(dim=-1) + 1
        outputs = torch.nn.functional.one_hot(places, 9).to(torch.float32)
        return types.SimpleNamespace(outputs=outputs[:, None].expand(-1, inputs.shape[1], -1))


@pytest.mark.parametrize("modality", [0, 1])
def test_choices_of_an_observer_follow_the_evidence_that_it_sees(modality):
    tasks = task_set(["ctxdm1", "ctxdm2"], dt=50, ring=8)
    network = CTRNN(tasks.inputs, 8, tasks.outputs, "e-add", contexts=2, dt=50, seed=0)
    view = view_of(network, tasks, trials=4, starts=2, pairs=())
    view.network = Observer(tasks, modality)
    fits = _analyse_behaviour.psychometric(view).tables["psychometric"]
    fits = fits.set_index(["task", "evidence"])
    for task, own in (("ctxdm1", 0), ("ctxdm2", 1)):
        seen, unseen = ("relevant", "irrelevant") if own == modality else ("irrelevant", "relevant")
        assert fits.loc[(task, seen), "slope"] > 8
        assert abs(fits.loc[(task, unseen), "slope"]) < 2


def test_paths_stand_beside_the_choices_on_them(analysed):
    (row,) = read(analysed, "paths").itertuples()
    shares, events = read(analysed, "choices"), read(analysed, "bifurcations")
    assert set(zip(shares["task"], shares["other"], strict=True)) == {
        ("go", "anti"), ("anti", "go"),
    }  # fmt: skip
    assert row.all_bifurcations == len(events)
    assert row.bifurcations == (events["index"] == 0).sum()


def test_the_same_seed_gives_the_same_tables(analysed, tmp_path):
    again = analyse(made("es-add-sym"), TASKS, tmp_path / "again", trials=8, starts=16)
    for name in ("fixed_points", "bifurcations", "clusters", "accuracy"):
        pd.testing.assert_frame_equal(read(analysed, name), read(again, name))


def test_a_part_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(view):
        raise ValueError("no such\nthing")

    parts = (("geometry", broken, False), *_analyse_parts.PARTS[:1])
    monkeypatch.setattr(_analyse_parts, "PARTS", parts)
    with pytest.warns(UserWarning, match="geometry was left out: ValueError: no such thing"):
        found = analyse(made("e-add"), TASKS, tmp_path / "out", trials=4, starts=4)
    assert "Left out: ValueError: no such thing" in (found / "report.html").read_text()
    assert (found / "accuracy.csv").exists()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(_analyse_parts, "PARTS", _analyse_parts.PARTS[:1])


def test_command_and_its_errors(tmp_path, capsys, quick):
    path = saved(tmp_path)
    out = str(tmp_path / "out")
    assert main(["analyse", str(path), "--out", out, "--pairs", "go:dms", "--trials", "4"]) == 0
    assert main(["analyse", str(path), "--out", out, "--trials", "4"]) == 0
    assert "report.html" in capsys.readouterr().out
    bare = tmp_path / "bare.safetensors"
    ctxrnn.save(made("e-add"), bare)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for arguments, told in (
        ([str(bare)], "does not note the tasks"),
        ([str(bare), "--tasks", "go,anti"], "the tasks do not fit the network: it has 17 inputs"),
        ([str(bare), "--tasks", "go,anti", "--ring", "8"], "it has 3 contexts, they have 2"),
        ([str(path), "--pairs", "go"], "--pairs must look like"),
        ([str(path), "--pairs", "go:gone"], "unknown task"),
        ([str(path), "--pairs", "go:go"], "two different tasks"),
        ([str(path), "--out", str(tmp_path / "full")], "holds other things"),
        ([str(path), "--out", str(path)], "is a file"),
        ([str(path), "--trials", "1"], "trials"),
        ([str(tmp_path / "none.safetensors")], "no checkpoint"),
        ([str(tmp_path / "full")], "full is a folder: name the files of networks in it"),
        ([str(tmp_path)], f"is a folder: name the files of networks in it, such as {tmp_path}/*"),
        ([str(tmp_path / "full" / "thesis.tex")], "thesis.tex"),
    ):
        assert main(["analyse", *arguments]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    with pytest.raises(ValueError, match="tasks must be given"):
        analyse(made("e-add"))
    assert torch.is_grad_enabled()


def test_several_networks_each_get_a_folder_and_failing_ones_are_told_at_the_end(
    tmp_path, capsys, quick, monkeypatch
):
    paths = [saved(tmp_path, variant) for variant in ("e-add", "s-sym")]
    foreign = tmp_path / "notes.txt"
    foreign.write_text("not a network")
    missing = tmp_path / "gone.safetensors"
    monkeypatch.chdir(tmp_path)
    given = [str(path) for path in (paths[0], foreign, missing, paths[1])]
    assert main(["analyse", *given, "--trials", "4"]) == 2
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"report: results/analyse-{name}/report.html" for name in ("e-add", "s-sym")
    ]
    assert told.err.count("\n") == 1
    assert "2 of 4 networks could not be analysed" in told.err
    assert str(foreign) in told.err
    assert f"no checkpoint at {missing}" in told.err
    assert (tmp_path / "results" / "analyse-s-sym" / "accuracy.csv").exists()

    out = tmp_path / "out"
    assert main(["analyse", *map(str, paths), "--trials", "4", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"analyse-e-add", "analyse-s-sym"}
    twin = tmp_path / "other"
    twin.mkdir()
    same = saved(twin, "e-add")
    assert main(["analyse", str(paths[0]), str(same), "--trials", "4"]) == 2
    assert "networks must have different file names" in capsys.readouterr().err


def test_a_network_is_left_as_it_was():
    network = made("es-add-sym").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    view = view_of(network)
    _analyse_units.lesions(view)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
