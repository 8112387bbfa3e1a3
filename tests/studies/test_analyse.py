"""`analyse`: the standard figures and tables of one network."""

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
from ctxrnn.studies import _analyse_parts, analyse
from ctxrnn.tasks import task_set

TASKS = task_set(["go", "anti", "dms"], dt=50, ring=8)


def made(variant, units=12):
    return CTRNN(
        TASKS.inputs, units, TASKS.outputs, variant, contexts=len(TASKS.names), dt=50, seed=1
    )


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
        if label != "accuracy":
            assert (analysed / "figures" / f"{label}.pdf").read_bytes()[:5] == b"%PDF-"
            assert (analysed / "figures" / f"{label}.png").stat().st_size > 5000
    assert page.count("<img") == len(_analyse_parts.PARTS) - 1
    assert "Left out" not in page
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
    assert set(read(analysed, "branches")["from"]) == {"go", "dms"} - {"dms"}
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


def test_the_same_seed_gives_the_same_tables(analysed, tmp_path):
    again = analyse(made("es-add-sym"), TASKS, tmp_path / "again", trials=8, starts=16)
    for name in ("fixed_points", "bifurcations", "clusters", "accuracy"):
        pd.testing.assert_frame_equal(read(analysed, name), read(again, name))


def test_a_part_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(view):
        raise ValueError("no such\nthing")

    parts = (("geometry", broken, False), *_analyse_parts.PARTS[:1])
    monkeypatch.setattr(_analyse_parts, "PARTS", parts)
    with pytest.warns(UserWarning, match="geometry was left out: no such thing"):
        found = analyse(made("e-add"), TASKS, tmp_path / "out", trials=4, starts=4)
    assert "Left out: no such thing" in (found / "report.html").read_text()
    assert (found / "accuracy.csv").exists()


def test_command_and_its_errors(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_analyse_parts, "PARTS", _analyse_parts.PARTS[:1])
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
    ):
        assert main(["analyse", *arguments]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    with pytest.raises(ValueError, match="tasks must be given"):
        analyse(made("e-add"))
    assert torch.is_grad_enabled()
