"""What the figures of dynamics draw."""

import numpy as np
import pytest
import torch

from ctxrnn import CTRNN
from ctxrnn.analysis import (
    FunctionField,
    NetworkField,
    compare_subspaces,
    find_fixed_points,
    fit_pca,
    flow_on_plane,
    follow_fixed_points,
    plots,
)


@pytest.fixture
def ax():
    with plots.style():
        yield plots.new_figure(size=(3, 3)).axes[0]


def bistable(units=2):
    made = CTRNN(1, units, 1, "e-add", contexts=2, dtype=torch.float64, seed=0, sd=0.005)
    with torch.no_grad():
        made.weight.copy_(2.0 * torch.eye(units))
    return NetworkField(made, torch.eye(2))


def points():
    grid = np.stack(np.meshgrid(*[np.linspace(-2, 2, 5)] * 2), axis=-1).reshape(-1, 2)
    return find_fixed_points(bistable(), starts=grid)


def test_points_are_drawn_by_their_kind_with_unstable_directions(ax):
    found = points()
    assert len(found) == 18
    plane = fit_pca(np.random.default_rng(0).normal(size=(50, 2)))
    paths = {"a": np.zeros((2, 7, 2)), "b": np.ones((7, 2))}
    plots.trajectories(ax, plane, paths, points=found)
    marks = [line for line in ax.lines if line.get_marker() in ("o", "X", "D", "s")]
    assert len(marks) == 18
    filled = [m for m in marks if m.get_marker() == "o" and m.get_fillstyle() == "full"]
    assert len(filled) == 8
    assert sum(m.get_marker() == "X" for m in marks) == 8
    # Saddles of index 1 have one line each; beginnings of trajectories are dots.
    assert len(ax.lines) == 18 + 8 + 2 * 3
    drawn = np.array([m.get_xydata()[0] for m in marks])
    assert drawn == pytest.approx(plane.project(found.x))
    assert "%" in ax.get_xlabel()
    assert ax.get_legend_handles_labels()[1] == ["a", "b"]
    handles, names = plots.point_key()
    assert names == [
        "stable point", "saddle", "unstable point", "marginal point", "slow point",
    ]  # fmt: skip
    assert len({(h.get_marker(), h.get_fillstyle()) for h in handles}) == 5


def directions(ax, field):
    """Directions drawn at the saddle at 0, (line, 2)."""
    found = find_fixed_points(field, starts=np.zeros((1, field.units)), between=0)
    assert found.kind.tolist() == ["saddle"]
    plane = fit_pca(np.random.default_rng(0).normal(size=(500, field.units)), field.units)
    paths = {"a": np.zeros((2, field.units)) + np.eye(2, field.units)}
    plots.trajectories(ax, plane, paths, points=found)
    (mark,) = [line for line in ax.lines if line.get_marker() == "X"]
    lines = [li for li in ax.lines if li.get_marker() == "None" and li.get_linewidth() == 1.4]
    assert mark.get_xdata() == pytest.approx(plane.project(np.zeros((1, field.units)))[:, 0])
    drawn = np.array([np.diff(line.get_xydata(), axis=0)[0] for line in lines]).reshape(-1, 2)
    return drawn, plane.components[:2]


@pytest.mark.parametrize("multiplier", [-2.0, 2.0])
def test_directions_of_maps_are_those_of_multipliers_beyond_one(ax, multiplier):
    field = FunctionField(lambda x: x * torch.tensor([multiplier, 0.5]), 2, step=1.0)
    drawn, components = directions(ax, field)
    expected = components @ np.array([1.0, 0.0])
    assert len(drawn) == 1
    assert abs(drawn[0] @ expected) == pytest.approx(np.linalg.norm(drawn[0]))


@pytest.mark.parametrize("step", [None, 1.0])
def test_a_complex_pair_is_drawn_as_real_and_imaginary_part(ax, step):
    """The plane of the first two units; of the map |mu| is 1.5 though Re mu is 0.2."""
    turn = np.sqrt(1.5**2 - 0.2**2)

    def function(x):
        parts = [0.2 * x[:, 0] - turn * x[:, 1], turn * x[:, 0] + 0.2 * x[:, 1], -0.5 * x[:, 2]]
        return torch.stack(parts, dim=-1)

    drawn, components = directions(ax, FunctionField(function, 3, step=step))
    assert len(drawn) == 2
    units = np.linalg.lstsq(components[:, :2], drawn.T, rcond=None)[0].T
    assert abs(units[0] @ units[1]) < 1e-8 * np.linalg.norm(units[0]) * np.linalg.norm(units[1])


def test_spectrum_of_a_map_is_in_units_of_its_step(ax):
    field = FunctionField(lambda x: x * torch.tensor([0.8, 0.5]), 2, step=10.0)
    found = find_fixed_points(field, starts=np.zeros((1, 2)))
    plots.spectrum(ax, found)
    (line,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert line.get_xdata() == pytest.approx(np.log([0.8, 0.5]))
    assert r"\tau" not in ax.get_xlabel()
    assert r"\log\mu" in ax.get_xlabel()


def test_spectrum_is_in_units_of_the_time_constant(ax):
    found = points()
    plots.spectrum(ax, found, rows=[0])
    (line,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert line.get_xdata() == pytest.approx(found.eigenvalues[0].real * 100)
    assert r"\tau" in ax.get_xlabel()


def test_branches_are_solid_where_stable(ax):
    found = follow_fixed_points(
        lambda p: FunctionField(lambda x: p + x - x**3 / 3, 1), [[0.0]], bounds=(-2, 2)
    )
    plots.bifurcation_diagram(ax, found, label="x")
    solid = [line for line in ax.lines if line.get_linestyle() == "-"]
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert (len(solid), len(dotted)) == (2, 1)
    # Lines change at the folds themselves, x = 1 and -1.
    assert np.sort(dotted[0].get_ydata()[[0, -1]]) == pytest.approx([-1, 1], abs=1e-4)
    assert np.abs(dotted[0].get_ydata()).max() <= 1.0001
    ends = np.concatenate([line.get_ydata()[[0, -1]] for line in solid])
    assert np.sort(np.abs(ends))[:2] == pytest.approx([1, 1], abs=1e-4)
    events = [line for line in ax.lines if line.get_marker() == "o"]
    assert sorted(line.get_xdata()[0] for line in events) == pytest.approx([-2 / 3, 2 / 3])
    other = plots.new_figure(size=(3, 3)).axes[0]
    plots.bifurcation_diagram(other, found, np.array([-1.0]))
    assert other.lines[0].get_ydata() == pytest.approx(-ax.lines[0].get_ydata())


def test_bifurcations_of_every_kind_have_a_marker_and_a_key(ax):
    map_ = follow_fixed_points(
        lambda p: FunctionField(lambda x: p * x * (1 - x), 1, step=1.0), [[0.5]], bounds=(2, 3.6)
    )
    plots.bifurcation_diagram(ax, map_)
    (event,) = [line for line in ax.lines if line.get_marker() == "P"]
    assert event.get_xdata() == pytest.approx([3.0])
    both = follow_fixed_points(
        lambda p: FunctionField(lambda x: (p - 0.5) * x - x**3, 2), np.zeros((1, 2))
    )
    plots.bifurcation_diagram(ax, both)
    assert len([line for line in ax.lines if line.get_marker() == "*"]) == 1
    kinds = [*map_.bifurcations()["kind"], *both.bifurcations()["kind"], "Neimark-Sacker"]
    handles, texts = plots.event_key(kinds)
    assert [handle.get_marker() for handle in handles] == ["v", "P", "*"]
    assert texts == ["Neimark-Sacker", "period doubling", "multiple"]


def test_matrix_shows_angles_in_degrees(ax):
    states = {"a": np.eye(4)[:3], "b": np.eye(4)[:3], "c": np.eye(4)[[0, 3]]}
    table = compare_subspaces(states, share=0.999)
    plots.subspace_matrix(ax, table, "largest")
    shown = ax.images[0].get_array()
    assert shown[0, 1] == pytest.approx(0, abs=1e-5)
    assert shown[0, 2] == pytest.approx(
        np.degrees(table.set_index(["a", "b"]).loc[("a", "c"), "largest"])
    )
    assert np.isnan(np.ma.filled(shown, np.nan)[0, 0])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b", "c"]
    figure = plots.new_figure(1, 2, size=(4, 2))
    plots.subspace_matrix(figure.axes[0], table, "captured", bar=figure.axes[1])
    assert figure.axes[1].get_ylabel() == "variance captured"


def test_flow_covers_its_plane(ax):
    plane = fit_pca(np.random.default_rng(0).normal(size=(50, 2)))
    grid, velocity = flow_on_plane(bistable(), plane, points=8, reach=((-2, 2), (-1, 1)))
    plots.flow(ax, grid, velocity)
    assert ax.get_xlim() == pytest.approx((grid[0, 0, 0], grid[0, -1, 0]))
    assert ax.collections


def test_many_contexts_have_colours_of_a_map():
    assert len(set(plots.colours_of(list(range(7))).values())) == 7
    assert len(set(plots.colours_of(list(range(20))).values())) == 20
