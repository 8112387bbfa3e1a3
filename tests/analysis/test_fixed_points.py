"""Fixed points of systems whose points are known in closed form, or by exhaustive search."""

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from ctxrnn.analysis._cycles import find_cycles
from ctxrnn.analysis._newton import STATIONARY, Limits, descend, unfinished
from ctxrnn.analysis._search import follow_flow
from ctxrnn.analysis.fixed_points import _Found
from scipy import optimize

from ctxrnn import CTRNN, Contexts, Ensemble
from ctxrnn.analysis import (
    FunctionField,
    NetworkField,
    attractor_sets,
    find_fixed_points,
    module_field,
    vector_field,
    visited_states,
)

F64 = torch.float64
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def network(weight, *, nonlinearity="tanh", form="current", bias=None, tau=100.0, **more):
    """A network without context whose recurrent weights are given."""
    size = len(weight)
    made = CTRNN(
        1, size, 1, nonlinearity=nonlinearity, form=form, tau=tau, dtype=F64, seed=0, **more
    )
    with torch.no_grad():
        made.weight.copy_(torch.as_tensor(weight, dtype=F64))
        if bias is not None:
            made.bias.copy_(torch.as_tensor(bias, dtype=F64))
    return made


def normal(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=shape)


def pitchfork(gain):
    """The root x > 0 of x = gain tanh x."""
    return optimize.brentq(lambda x: gain * np.tanh(x) - x, 1e-6, gain + 1)


def test_linear_network_has_one_point_with_the_spectrum_of_its_matrix():
    matrix = normal(6, 6, scale=0.3)
    b = normal(6, seed=1)
    linear = network(matrix, nonlinearity=lambda z: z, bias=b)
    found = find_fixed_points(linear, starts=normal(20, 6, seed=2, scale=10.0))
    assert len(found) == 1
    assert found.x[0] == pytest.approx(np.linalg.solve(np.eye(6) - matrix, b), abs=1e-12)
    expected = (np.linalg.eigvals(matrix) - 1) / 100.0
    assert np.sort_complex(found.eigenvalues[0]) == pytest.approx(np.sort_complex(expected))
    assert found.count.tolist() == [20]
    assert found.converged.all()
    # The Newton step is exact, and shortened where it is longer than the state.
    assert found.starts["iterations"].max() <= 3


@pytest.mark.parametrize("form", ["current", "rate"])
def test_bistable_unit(form):
    found = find_fixed_points(network([[2.0]], form=form), starts=np.linspace(-3, 3, 30)[:, None])
    root = pitchfork(2.0)
    # r = tanh(2 r) has the roots tanh(x) of x = 2 tanh(x).
    root = root if form == "current" else np.tanh(root)
    assert np.sort(found.x[:, 0]) == pytest.approx([-root, 0.0, root], abs=1e-11)
    assert dict(zip(np.sign(found.x[:, 0].round(9)), found.kind, strict=True)) == {
        -1: "stable node", 0: "unstable node", 1: "stable node",
    }  # fmt: skip
    slope = 2 * (1 - np.tanh(pitchfork(2.0)) ** 2)
    expected = {0: (2 - 1) / 100, 1: (slope - 1) / 100, -1: (slope - 1) / 100}
    for x, value in zip(found.x[:, 0].round(9), found.eigenvalues[:, 0], strict=True):
        assert value == pytest.approx(expected[int(np.sign(x))], abs=1e-9)
    unstable = found.select(found.kind == "unstable node")
    assert unstable.time_constants[0, 0] == pytest.approx(-100.0)


@pytest.mark.parametrize(("gain", "points"), [(0.9, 1), (1.1, 3)])
def test_pitchfork_of_two_units_lies_where_gain_is_one(gain, points):
    """W = gain (1 1^T) / 2: the even mode has gain `gain`, the odd one decays."""
    found = find_fixed_points(network(np.full((2, 2), gain / 2)), starts=normal(50, 2, scale=2.0))
    assert len(found) == points
    if points == 3:
        saddle = found.select(found.kind == "saddle")
        assert saddle.index.tolist() == [1]
        outer = found.select(found.stable).x
        assert np.abs(outer) == pytest.approx(np.full((2, 2), pitchfork(gain)), abs=1e-9)


def test_flip_flops_made_by_hand_have_all_points_and_no_other():
    """Three bistable units hardly coupled: 3^3 points, 2^3 of them stable."""
    weight = np.diag([2.0, 2.0, 2.0]) + 0.05 * normal(3, 3)
    corners = np.array(list(itertools.product([-1, 1], repeat=3))) * pitchfork(2.0)
    starts = np.repeat(corners, 5, axis=0) + normal(40, 3, seed=1, scale=0.05)
    found = find_fixed_points(network(weight), starts=starts)
    assert np.bincount(found.index).tolist() == [8, 12, 6, 1]
    # Those between the corners were reached by no start.
    assert (found.count[found.index > 0] == 0).all()
    assert (found.speed <= 1e-11).all()
    assert not found.outlier.any()
    alone = find_fixed_points(network(weight), starts=starts, between=0)
    assert np.bincount(alone.index).tolist() == [8]


def test_planted_memories_are_all_found_and_none_is_invented():
    """Orthogonal patterns with steep units: x = W tanh(x) along each, and mixtures of them."""
    patterns = np.array([[1, 1, 1, 1, 1, 1, 1, 1], [1, -1, 1, -1, 1, -1, 1, -1]], dtype=float)
    weight = 3.0 * patterns.T @ patterns / 8
    starts = np.concatenate([patterns, -patterns]) * 3.0
    starts = np.repeat(starts, 10, axis=0) + normal(40, 8, scale=0.3)
    found = find_fixed_points(network(weight), starts=starts)
    stable = found.x[found.stable]
    root = pitchfork(3.0)
    for sign, pattern in itertools.product((1, -1), patterns):
        assert np.abs(stable - sign * root * pattern).max(axis=1).min() < 1e-9
    # Every point solves x = W tanh(x), and the plane of the patterns holds no other than these:
    # 0, +- each pattern, and the four mixtures in which half of the units are silent.
    residual = np.tanh(found.x) @ weight.T - found.x
    assert np.abs(residual).max() < 1e-11
    assert len(stable) == 4
    assert len(found) == 9


def ring(units=32, gain=1.4):
    """A rotation-invariant network: cosine weights, an attractor for every direction."""
    angle = 2 * np.pi * np.arange(units) / units
    return network(2 * gain / units * np.cos(angle[:, None] - angle)), angle


def test_ring_attractor_has_a_marginal_mode_and_known_amplitude():
    made, angle = ring()
    starts = np.array([np.cos(angle - d) for d in np.linspace(0, 6, 25)])
    found = find_fixed_points(made, starts=starts, between=0)
    assert (found.kind == "marginal").all()
    amplitude = optimize.brentq(
        lambda a: 2 * 1.4 / 32 * np.cos(angle) @ np.tanh(a * np.cos(angle)) - a, 0.1, 3
    )
    fitted = np.abs(found.x @ np.exp(1j * angle)) * 2 / 32
    assert fitted == pytest.approx(np.full(len(found), amplitude), abs=1e-6)
    assert (np.abs(found.eigenvalues[:, 0]) * 100 < 1e-3).all()
    assert (found.eigenvalues[:, 2:].real * 100 < -0.99).all()
    # Points along the ring stay apart: they are not one point.
    assert len(found) > 15


def test_line_attractor_of_a_linear_network_is_marginal():
    vector = np.array([0.6, 0.8])
    made = network(np.outer(vector, vector), nonlinearity=lambda z: z)
    found = find_fixed_points(made, starts=normal(30, 2), between=0)
    assert (found.kind == "marginal").all()
    assert np.abs(found.x @ [-0.8, 0.6]).max() < 1e-10
    assert found.converged.all()


def test_attractors_are_told_apart_by_their_shape():
    made, angle = ring()
    starts = np.array([np.cos(angle - d) for d in np.linspace(0, 2 * np.pi, 40, endpoint=False)])
    found = find_fixed_points(made, starts=starts, between=0)
    (row,) = attractor_sets(found).to_dict("records")
    assert (row["kind"], row["points"], row["dimension"]) == ("ring", len(found), 1)
    radius = np.linalg.norm(found.x, axis=1).mean()
    # A polygon of 40 corners is shorter than its circle by (pi / 40)^2 / 6.
    assert row["length"] == pytest.approx(2 * np.pi * radius, rel=0.02)
    arc = find_fixed_points(made, starts=starts[:20], between=0)
    (row,) = attractor_sets(arc).to_dict("records")
    assert row["kind"] == "line"
    vector = np.array([0.6, 0.8])
    line = network(np.outer(vector, vector), nonlinearity=lambda z: z)
    along = np.linspace(-2, 2, 30)[:, None] * vector
    found = find_fixed_points(line, starts=along + normal(30, 2, scale=0.02), between=0)
    (row,) = attractor_sets(found).to_dict("records")
    assert row["kind"] == "line"
    assert row["length"] == pytest.approx(np.ptp(found.x @ vector))
    # Steps go across the line, and not along it.
    assert np.sort(found.x @ vector) == pytest.approx(np.linspace(-2, 2, 30), abs=0.1)
    plane = network(np.eye(2), nonlinearity=lambda z: z)
    found = find_fixed_points(plane, starts=normal(30, 2), between=0)
    assert attractor_sets(found)["kind"].tolist() == ["plane"]
    points = find_fixed_points(network(2 * np.eye(2)), starts=normal(40, 2, scale=2.0))
    table = attractor_sets(points)
    assert table["kind"].tolist() == ["point"] * 4
    assert sorted(table["members"].sum()) == sorted(np.flatnonzero(points.stable))


@pytest.mark.parametrize("seed", range(6))
def test_points_of_small_random_networks_are_those_of_an_exhaustive_search(seed):
    """Roots of x = W tanh(x) + b, |x_i| <= sum_j |W_ij| + |b_i|, from a dense grid by SciPy."""
    size = 2 + seed % 2
    weight, b = normal(size, size, seed=seed, scale=2.5), normal(size, seed=seed + 50, scale=0.3)
    bound = np.abs(weight).sum(axis=1) + np.abs(b)
    axes = [np.linspace(-r, r, 25 if size == 2 else 13) for r in bound]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, size)

    def residual(x):
        return weight @ np.tanh(x) + b - x

    def slope(x):
        return weight * (1 - np.tanh(x) ** 2) - np.eye(size)

    roots = []
    for start in grid:
        answer = optimize.root(residual, start, jac=slope, tol=1e-13)
        new = all(np.linalg.norm(answer.x - root) > 1e-3 for root in roots)
        if np.abs(residual(answer.x)).max() < 1e-10 and new:
            roots.append(answer.x)
    found = find_fixed_points(network(weight, bias=b), starts=grid[::3])
    assert len(found) == len(roots)
    away = np.linalg.norm(found.x[:, None] - np.array(roots), axis=-1)
    assert away.min(axis=1).max() < 1e-9
    assert found.slow.sum() == 0


@pytest.mark.parametrize("seed", range(20))
def test_points_of_planted_networks_are_all_found_and_no_other(monkeypatch, seed):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    system = importlib.import_module("_planted").planted(64, 3, seed)
    found = find_fixed_points(system.network, starts=system.starts(256))
    away = np.linalg.norm(found.x[~found.slow][:, None] - system.points, axis=-1)
    assert away.min(axis=1).max() < 1e-6
    assert away.min(axis=0).max() < 1e-6
    nearest = away.argmin(axis=1)
    assert (found.index[~found.slow] == system.index[nearest]).all()


def test_slow_points_are_kept_apart_from_fixed_ones():
    """Just after a fold, as 0.01 + x^2, q keeps a minimum that is no root."""
    fold = lambda x: 0.01 + x**2  # noqa: E731
    field = FunctionField(fold, 1, tau=1.0)
    found = find_fixed_points(field, starts=np.linspace(-1, 1, 20)[:, None], slow=0.02)
    assert found.slow.tolist() == [True]
    assert found.x[0, 0] == pytest.approx(0.0, abs=1e-6)
    assert found.speed[0] == pytest.approx(0.01)
    assert set(found.starts["end"]) == {"slow"}
    assert not found.converged.any()
    none = find_fixed_points(field, starts=np.linspace(-1, 1, 20)[:, None], slow=0.005)
    assert len(none) == 0
    # No root and nothing slow: the flow goes through the gap and away.
    assert set(none.starts["end"]) == {"diverged"}


def test_starts_whose_flow_comes_to_no_point_are_stalled():
    """x -> x + golden mean mod 1 stays in [0, 1), rests nowhere, and never returns."""
    turning = FunctionField(lambda x: (x + (5**0.5 - 1) / 2) % 1, 1, step=1.0)
    found = find_fixed_points(turning, starts=np.linspace(0, 0.9, 7)[:, None])
    assert len(found) == 0
    assert set(found.starts["end"]) == {"stalled"}
    assert found.starts["period"].isna().all()
    assert found.table().empty


def around(x):
    """Every flow comes to the circle r = 1, z = 0, round in a time of pi; there is no root."""
    r2 = x[:, 0] ** 2 + x[:, 1] ** 2
    return torch.stack(
        [x[:, 0] * (1 - r2) - 2 * x[:, 1], x[:, 1] * (1 - r2) + 2 * x[:, 0], 1 - r2 - x[:, 2] * r2],
        dim=-1,
    )


@pytest.mark.parametrize("tau", [1.0, 50.0])
@pytest.mark.parametrize("method", ["newton", "krylov"])
def test_cycles_are_told_with_their_period(tau, method):
    field = FunctionField(lambda x: around(x) / tau, 3, tau=tau)
    starts = normal(8, 3, seed=1)
    found = find_fixed_points(field, starts=starts, method=method)
    assert len(found) == 0
    assert set(found.starts["end"]) == {"cycle"}
    assert found.starts["period"].to_numpy() == pytest.approx(np.full(8, np.pi * tau), rel=1e-3)
    assert found.ends.shape == (8, 3)
    assert np.hypot(*found.ends.T[:2]) == pytest.approx(np.ones(8), abs=1e-3)
    # |R| on the circle is 2.
    assert found.starts["speed"].to_numpy() == pytest.approx(np.full(8, 2.0), abs=1e-2)
    assert "8 cycle" in str(found)


def test_of_many_flows_a_sample_is_followed_first(monkeypatch):
    counts = []

    def counted(field, x, condition, slow):
        counts.append(len(x))
        return find_cycles(field, x, condition, slow)

    monkeypatch.setattr("ctxrnn.analysis._search.find_cycles", counted)
    starts = normal(50, 3)
    found = find_fixed_points(FunctionField(around, 3), starts=starts)
    assert set(found.starts["end"]) == {"cycle"}
    assert counts == [13, 37]
    counts.clear()
    turning = FunctionField(lambda x: (x + (5**0.5 - 1) / 2) % 1, 1, step=1.0)
    found = find_fixed_points(turning, starts=np.linspace(0, 0.9, 50)[:, None])
    assert set(found.starts["end"]) == {"stalled"}
    assert counts == [13]


def test_cycle_of_a_map_has_the_period_of_its_steps():
    turning = FunctionField(lambda x: (x + 0.3) % 1, 1, step=5.0)
    found = find_fixed_points(turning, starts=np.linspace(0, 0.9, 7)[:, None])
    assert set(found.starts["end"]) == {"cycle"}
    assert found.starts["period"].to_numpy() == pytest.approx(np.full(7, 10 * 5.0))


def test_period_is_that_of_the_units_own_time_constants():
    """50 dx/dt = -2 y, 200 dy/dt = 3 x: an ellipse, round at sqrt(6 / (50 * 200)) per ms."""
    made = network([[1.0, -2.0], [3.0, 1.0]], nonlinearity=lambda z: z, tau=np.array([50.0, 200]))
    cycles = find_cycles(
        vector_field(made), torch.tensor(normal(5, 2)), torch.zeros(5, dtype=torch.long), 1e-2
    )
    expected = 2 * np.pi / np.sqrt(6 / (50 * 200))
    assert cycles.period.numpy() == pytest.approx(np.full(5, expected), rel=1e-3)


def test_chaos_decay_and_two_turns_at_once_are_no_cycles():
    def lorenz(x):
        return torch.stack(
            [10 * (x[:, 1] - x[:, 0]), x[:, 0] * (28 - x[:, 2]) - x[:, 1],
             x[:, 0] * x[:, 1] - 8 / 3 * x[:, 2]], dim=-1,
        )  # fmt: skip

    def turns(x, rate, speed):
        one = torch.stack([-x[:, 1], x[:, 0]], dim=-1)
        return rate * x + speed * one

    def twice(x):
        parts = [(x[:, :2], 1.0), (x[:, 2:], (1 + 5**0.5) / 2)]
        return torch.cat(
            [turns(p, 1 - p.square().sum(-1, keepdim=True), speed) for p, speed in parts], dim=-1
        )

    for function, units in ((lorenz, 3), (twice, 4), (lambda x: turns(x, -0.005, 1.0), 2)):
        x = torch.tensor(normal(6, units, seed=2)) + 1
        field = FunctionField(function, units)
        cycles = find_cycles(field, x, torch.zeros(6, dtype=torch.long), 1e-3)
        assert torch.isnan(cycles.period).all()


def test_a_flow_that_is_late_is_followed_to_its_point():
    """Past the remains of a fold, e + x^2, it takes pi / sqrt(e) = 222 time units."""
    field = FunctionField(lambda x: 2e-4 + x**2 - 0.5 * x.clamp(min=0) ** 3, 1)
    found = find_fixed_points(field, starts=[[-0.5], [-0.2]], slow=1e-5, between=0)
    assert found.starts["end"].tolist() == ["fixed"] * 2
    assert found.x == pytest.approx(np.array([[2.0]]), abs=1e-3)
    assert found.ends == pytest.approx(np.repeat(found.x, 2, axis=0), abs=1e-9)


def test_ends_are_kept_for_every_start():
    field = FunctionField(lambda x: x * (1 - x), 1)
    found = find_fixed_points(field, starts=[[0.1], [3.0], [-1e-3], [-3.0]], iterations=1)
    far = found.starts["end"] == "diverged"
    assert far.any()
    assert (found.ends[far] < -1e3).all()
    points = found.starts["point"].to_numpy()[~far]
    assert found.ends[~far] == pytest.approx(found.x[points], abs=1e-3)
    assert found.select([0]).ends.shape == found.ends.shape


def test_starts_that_diverge_are_told():
    """1 + x^2 has no root and leaves all bounds at a finite time, 1 + x / 50 late."""
    for function in (lambda x: 1 + x**2, lambda x: 1 + 0.02 * x.clamp(min=0)):
        starts = np.array([[0.5], [1.0], [-2.0]])
        found = find_fixed_points(FunctionField(function, 1), starts=starts, slow=0.0)
        assert found.starts["end"].tolist() == ["diverged"] * 3
        assert found.starts["point"].tolist() == [-1] * 3
        assert len(found) == 0


def test_a_start_has_not_diverged_because_newton_steps_went_away():
    """1 / (1 + x^2): Newton steps lead away for ever, the flow is at 6.7 after 100 time units."""
    field = FunctionField(lambda x: 1 / (1 + x**2), 1)
    found = find_fixed_points(field, starts=np.array([[0.5], [1.0], [-2.0]]), slow=0.0)
    assert found.starts["end"].tolist() == ["stalled"] * 3


@pytest.mark.parametrize(
    ("function", "starts", "root"),
    [
        (lambda x: 3000 * torch.tanh(x / 1000 + 0.5) - x, [0.0], None),
        (lambda x: 3000 * torch.sigmoid((x - 1) * 3) - x, [0.9, 1.5], 3000.0),
        (lambda x: -x / (1 + x**2) ** 2, [2.0, 3.0], 0.0),
    ],
)
def test_bounded_flows_are_followed_however_far_newton_steps_go(function, starts, root):
    found = find_fixed_points(FunctionField(function, 1), starts=np.array(starts)[:, None])
    if root is None:
        root = optimize.brentq(lambda x: 3000 * np.tanh(x / 1000 + 0.5) - x, 100, 3100)
    assert set(found.starts["end"]) == {"fixed"}
    stable = found.select(found.stable)
    assert stable.x == pytest.approx(np.array([[root]]), abs=1e-9)
    assert stable.count.tolist() == [len(starts)]


def test_reach_bounds_the_flow():
    field = FunctionField(lambda x: 1e8 * torch.tanh(x / 1e7 + 0.5) - x, 1)
    ends = [
        find_fixed_points(field, starts=[[0.0]], tolerance=1e-6, **more).starts["end"].tolist()
        for more in ({}, {"reach": 1e9})
    ]
    assert ends == [["diverged"], ["fixed"]]


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "softplus", "sigmoid", torch.sin])
@pytest.mark.parametrize(
    "variant", ["e-add", "e-gain", "s-sym", "s-gate-2", "es-add-sym", "s-full"]
)
def test_jacobian_is_exact(variant, nonlinearity, form):
    made = CTRNN(
        2, 5, 2, variant, contexts=3, nonlinearity=nonlinearity, form=form, seed=0,
        tau=np.linspace(50, 150, 5),
    )  # fmt: skip
    context = torch.tensor([[1.0, 0, 0], [0.2, 0.5, 0.3], [0, 1.2, -0.1]])
    field = NetworkField(made, context, normal(3, 2))
    x = torch.tensor(normal(6, 5, seed=3))
    condition = torch.arange(6) % 3
    jacobian = field.linearisation(x, condition)
    for row in range(6):
        automatic = torch.autograd.functional.jacobian(
            lambda z, row=row: field.residual(z[None], condition[row : row + 1])[0], x[row]
        )
        assert torch.allclose(jacobian[row], automatic * field.rates[:, None], atol=1e-14)
        step = 1e-6
        shifts = step * torch.eye(5, dtype=F64)
        up, down = (field.velocity(x[row] + s * shifts, condition[row]) for s in (1, -1))
        assert torch.allclose(jacobian[row], ((up - down) / (2 * step)).T, atol=1e-9)


def test_velocity_is_that_of_the_network_in_each_condition():
    made = CTRNN(2, 5, 2, "es-add-sym", contexts=3, seed=0, dtype=F64)
    context, u = torch.eye(3, dtype=F64), torch.tensor(normal(3, 2))
    x = torch.tensor(normal(3, 5, seed=1))
    expected = made.velocity(made.circuit(context), x, u).detach()
    assert torch.allclose(NetworkField(made, context, u).velocity(x, torch.arange(3)), expected)
    apart = Contexts(context[:1], context[1:2])
    expected = made.velocity(made.circuit(apart), x[:1], u[:1]).detach()
    assert torch.allclose(NetworkField(made, apart, u[0]).velocity(x[:1]), expected)


@pytest.mark.parametrize("kind", [torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM])
@pytest.mark.parametrize("layers", [1, 2, "cell"])
def test_recurrent_layers_of_torch(kind, layers):
    torch.manual_seed(0)
    if layers == "cell":
        made = {torch.nn.RNN: torch.nn.RNNCell, torch.nn.GRU: torch.nn.GRUCell}.get(
            kind, torch.nn.LSTMCell
        )(2, 4)
    else:
        made = kind(2, 4, layers)
    u = normal(2, 2)
    field = module_field(made, u, step=10.0)
    found = find_fixed_points(field, starts=normal(10, field.units, scale=0.3))
    assert set(found.condition) == {0, 1}
    assert found.converged.all()
    made = made.double()
    for x, number in zip(found.x, found.condition, strict=True):
        # Run the layer itself for long: a stable point is where it stays.
        state = torch.tensor(x).reshape(-1, 1, 1, 4)
        stimulus = torch.tensor(u[number]).expand(1, 1, 2)
        with torch.no_grad():
            if layers == "cell":
                after = made(
                    stimulus[0], (state[0, 0], state[1, 0]) if len(state) == 2 else state[0, 0]
                )
                after = torch.cat(after, -1) if len(state) == 2 else after
                after = after.reshape(-1)
            else:
                half = state.reshape(-1, layers, 1, 4)
                _, after = made(stimulus, (half[0], half[1]) if len(half) == 2 else half[0])
                after = torch.stack(after) if len(half) == 2 else after
                after = after.reshape(-1)
        assert torch.allclose(after, torch.tensor(x), atol=1e-10)
    jacobian = field.jacobian(*field.checked(found.x[:1], 0)) + torch.eye(field.units)
    multipliers = np.exp(found.eigenvalues[0] * 10.0)
    expected = np.linalg.eigvals(jacobian[0].numpy())
    assert np.sort(np.abs(multipliers)) == pytest.approx(np.sort(np.abs(expected)))


@pytest.mark.parametrize("kind", [torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM])
def test_layers_with_the_batch_first_are_the_same_map(kind):
    made = kind(2, 4, 2)
    other = kind(2, 4, 2, batch_first=True)
    other.load_state_dict(made.state_dict())
    u = normal(2, 2)
    fields = [module_field(one, u) for one in (made, other)]
    x = torch.tensor(normal(5, fields[0].units))
    for number in range(2):
        assert torch.equal(*(field.velocity(x, number) for field in fields))
    assert other.batch_first  # the layer itself is left as it is


def test_stability_of_a_map_is_that_of_its_multipliers():
    field = FunctionField(lambda x: torch.cat([-0.5 * x[:, :1], 1.1 * x[:, 1:]], 1), 2, step=20.0)
    found = find_fixed_points(field, starts=normal(5, 2))
    assert found.index.tolist() == [1]
    assert found.eigenvalues[0, 0] == pytest.approx(np.log(1.1) / 20)
    assert found.eigenvalues[0, 1].real == pytest.approx(np.log(0.5) / 20)
    # A mode that changes sign at every step has a period of two of them.
    assert found.frequencies[0, 1] == pytest.approx(1000 / 40)


def test_conditions_are_searched_together_as_one_by_one():
    made = CTRNN(2, 12, 2, "es-add-sym", contexts=3, g=1.6, seed=1)
    starts = normal(40, 12)
    together = find_fixed_points(made, torch.eye(3), [0.3, -0.2], starts=starts)
    for number in range(3):
        alone = find_fixed_points(made, torch.eye(3)[number], [0.3, -0.2], starts=starts)
        mine = together.select(together.condition == number)
        assert len(mine) == len(alone)
        assert np.allclose(mine.x, alone.x, atol=1e-9)
    assert together.table()["context"].tolist() == together.condition.tolist()


def test_network_is_left_as_it_was():
    made = CTRNN(2, 6, 2, "s-sym", contexts=2, seed=0)
    made(torch.ones(1, 3, 2), torch.eye(2)[:1]).outputs.sum().backward()
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    gradients = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}
    made.train()
    starts = normal(5, 6)
    kept = starts.copy()
    find_fixed_points(made, torch.eye(2), starts=starts)
    assert made.training
    assert made.dtype == torch.float32
    assert np.array_equal(starts, kept)
    for name, p in made.named_parameters():
        assert p.requires_grad
        assert torch.equal(p, before[name])
        assert p.grad is None or torch.equal(p.grad, gradients[name])


def test_one_start_is_enough_and_nothing_is_printed(capfd):
    found = find_fixed_points(network([[2.0]]), starts=np.array([1.5]))
    assert found.x == pytest.approx(np.array([[pitchfork(2.0)]]))
    assert not found.outlier.any()
    assert capfd.readouterr() == ("", "")


def test_member_of_an_ensemble_is_a_network():
    members = [CTRNN(2, n, 2, "e-add", contexts=2, seed=n) for n in (4, 6)]
    found = find_fixed_points(Ensemble(members)[1], torch.eye(2), starts=normal(8, 6))
    assert found.x.shape[1] == 6


def test_an_ensemble_is_to_be_taken_apart_first():
    members = [CTRNN(2, n, 2, "e-add", contexts=2, seed=n) for n in (4, 6)]
    with pytest.raises(TypeError, match=r"ensemble.*unstack\(\)"):
        find_fixed_points(Ensemble(members), torch.eye(2), starts=normal(8, 6))


def test_a_map_that_changes_sign_is_a_focus_of_two_steps():
    field = FunctionField(lambda x: -0.5 * x, 1, step=10.0)
    found = find_fixed_points(field, starts=[[1.0]])
    assert found.kind.tolist() == ["stable focus"]
    assert found.frequencies == pytest.approx(np.array([[50.0]]))


def test_starts_of_each_condition_may_be_its_own():
    made = network([[2.0]])
    field = vector_field(made, None, [[0.0], [0.0]])
    found = find_fixed_points(field, starts=np.array([[[1.0]], [[-1.0]]]), between=0)
    assert np.sign(found.x[:, 0]).tolist() == [1, -1]
    assert found.condition.tolist() == [0, 1]


def test_far_points_are_marked_and_kept():
    # tau makes the residual one of the size of x, which the tolerance is for.
    field = FunctionField(lambda x: (x - 1) * (x - 2) * (x - 500), 1, tau=1e-5)
    near = 1.5 + normal(300, 1, scale=0.3)
    found = find_fixed_points(field, starts=np.concatenate([near, [[499.0]]]), between=0)
    order = np.argsort(found.x[:, 0])
    assert found.x[order, 0] == pytest.approx([1.0, 2.0, 500.0])
    assert found.outlier[order].tolist() == [False, False, True]


def test_unit_at_the_kink_of_relu_is_marked():
    made = network(np.zeros((2, 2)), nonlinearity="relu", bias=[0.0, 1.0])
    found = find_fixed_points(made, starts=normal(5, 2))
    assert found.x == pytest.approx(np.array([[0.0, 1.0]]), abs=1e-12)
    assert found.kink.tolist() == [True]


def test_kinks_are_those_of_the_gained_and_shifted_potential():
    made = network(np.zeros((2, 2)), nonlinearity="relu")
    field = vector_field(made)
    field._threshold = torch.tensor([[0.5, -1.0]], dtype=F64)
    field._gain = torch.tensor([[1e-3, 1.0]], dtype=F64)
    x = torch.tensor([[0.5, 1.0], [0.0, 1.0], [0.5 + 1e-7, 1.0], [1.0, -1.0 + 1e-7]], dtype=F64)
    kinks = field.kinks(x, torch.zeros(4, dtype=torch.long))
    assert kinks.tolist() == [True, False, True, False]


def test_distance_is_from_the_nearest_start():
    found = find_fixed_points(FunctionField(lambda x: 1 - x, 1), starts=[[3.0], [1.5], [-4.0]])
    assert found.distance == pytest.approx([0.5])


@pytest.mark.parametrize(("root", "far"), [(9.0, False), (11.0, True)])
def test_outliers_are_farther_than_ten_mean_distances(root, far):
    found = find_fixed_points(FunctionField(lambda x: root - x, 1), starts=[[1.0], [-1.0]])
    assert found.outlier.tolist() == [far]


def test_marginal_modes_are_told_by_the_mean_rate():
    """Rates 1/50 and 1/200 have the mean 0.0125 per ms: modes below 1.25e-5 per ms are marginal."""
    for slowness, kind in ((1.6e-5, "stable node"), (1.1e-5, "marginal")):
        weight = np.diag([1 - 50 * slowness, 0.0])
        made = network(weight, nonlinearity=lambda z: z, tau=np.array([50.0, 200.0]))
        found = find_fixed_points(made, starts=np.ones((1, 2)))
        assert found.kind.tolist() == [kind]


def test_of_ends_that_are_one_the_calmest_is_the_point():
    field = FunctionField(lambda x: -x, 1)
    starts = [[9e-4], [1e-5], [5e-4]]
    found = find_fixed_points(field, starts=starts, tolerance=1e-3, unique=1e-2)
    assert found.x == pytest.approx(np.array([[1e-5]]))
    assert found.speed == pytest.approx([1e-5])


def test_midpoints_are_tried_nearest_first_and_give_no_slow_points():
    found = _Found(FunctionField(lambda x: -x, 1), 1e-3, 1e-2)
    for x in (-10.0, 0.0, 1.0):
        found._new(torch.tensor([x], dtype=F64), torch.tensor(0.0, dtype=F64), 0, slow=False)
    assert found.middles(limit=1)[0].tolist() == [[0.5]]
    assert found.middles(limit=1)[0].tolist() == [[-5.0]]
    ends = unfinished(torch.tensor([[5.0]], dtype=F64))
    ends.size[:], ends.state[:] = 1e-3, STATIONARY
    where = torch.zeros(1, dtype=torch.long)
    found.add(ends, where, given=False)
    assert len(found.x) == 3
    found.add(ends, where, given=True)
    assert found.is_slow.tolist() == [False] * 3 + [True]


def test_newton_steps_are_tried_from_the_middle_of_a_cycle(monkeypatch):
    tried = []

    def recorded(field, x, *more, **options):
        tried.append(x.clone())
        return descend(field, x, *more, **options)

    monkeypatch.setattr("ctxrnn.analysis._search.descend", recorded)
    centre = torch.tensor([30.0, 40.0, 0.0], dtype=F64)
    field = FunctionField(lambda x: around(x - centre), 3)
    find_fixed_points(field, starts=centre.numpy()[None] + np.array([1.0, 0.5, 0.0]))
    # All others are states of the flow, at a distance of 1.
    assert min(float((x - centre)[:, :2].norm(dim=-1).min()) for x in tried) < 0.2


def test_visited_states_are_drawn_from_the_trajectory():
    made = CTRNN(2, 6, 2, "e-add", contexts=2, seed=0)
    run = made(torch.randn(3, 10, 2), torch.eye(2)[[0, 1, 1]], generator=0)
    drawn = visited_states(run, 20, noise=0.0)
    flat = run.potentials.detach().reshape(-1, 6).double().numpy()
    assert len({tuple(row) for row in drawn}) == 20
    assert all((np.abs(flat - row).max(axis=1) == 0).any() for row in drawn)
    assert np.array_equal(visited_states(run, 20), visited_states(run, 20))
    assert len(visited_states(run, 1000)) == 30
    noisy = visited_states(np.zeros((4000, 6)), 4000, noise=0.05)
    assert noisy.std() == pytest.approx(0.05, rel=5 / np.sqrt(2 * noisy.size))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "starts must be given: states that the network visits"),
        ({"starts": np.zeros((0, 4))}, "starts must hold at least one state"),
        ({"starts": np.zeros((3, 5))}, r"starts must have shape \(start, unit=4\): got \(3, 5\)"),
        ({"starts": np.full((2, 4), np.nan)}, "states must be finite"),
        ({"starts": np.zeros((3, 2, 4))}, "must have 2 conditions: got 3"),
        ({"starts": np.zeros((3, 4)), "tolerance": 0.0}, "tolerance must be positive"),
        ({"starts": np.zeros((3, 4)), "iterations": 0}, "iterations must be at least 1"),
        ({"starts": np.zeros((3, 4)), "inputs": np.zeros((2, 5, 2))}, "constant in time"),
        ({"starts": np.zeros((3, 4)), "inputs": np.zeros((3, 2))}, "one for each of 3 conditions"),
        ({"starts": np.zeros((3, 4)), "inputs": np.zeros((2, 3))}, r"shape \(condition, 2\)"),
        ({"starts": np.zeros((3, 4)), "inputs": [np.nan, 0.0]}, "inputs must be finite"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    made = CTRNN(2, 4, 2, "e-add", contexts=2, seed=0)
    with pytest.raises(ValueError, match=message):
        find_fixed_points(made, torch.eye(2), **arguments)


def test_bad_systems_are_refused():
    with pytest.raises(ValueError, match="context must be given"):
        find_fixed_points(CTRNN(2, 4, 2, "e-add", contexts=2), starts=np.zeros((1, 4)))
    with pytest.raises(ValueError, match="context must be constant in time"):
        vector_field(CTRNN(2, 4, 2, "e-add", contexts=2), torch.zeros(2, 5, 2))
    with pytest.raises(TypeError, match="wrap a function as FunctionField"):
        find_fixed_points(lambda x: x, starts=np.zeros((1, 4)))
    with pytest.raises(TypeError, match="wrap it in a function"):
        find_fixed_points(torch.nn.Linear(2, 2), starts=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="in one direction"):
        module_field(torch.nn.GRU(2, 4, bidirectional=True), [0.0, 0.0])
    with pytest.raises(ValueError, match="one state for each"):
        find_fixed_points(FunctionField(lambda x: x[:1], 2), starts=np.zeros((3, 2)))


def test_contexts_outside_the_simplex_are_allowed_and_noted():
    made = CTRNN(1, 8, 1, "e-add", contexts=2, seed=0)
    contexts = [[1.0, 0.0], [0.3, 0.7], [1.5, -0.5], [0.5, 0.6], [0.5, 0.501], [-1e-3, 1.001]]
    found = find_fixed_points(made, contexts, starts=normal(5, 8))
    table = found.table().drop_duplicates("condition")
    assert table["simplex"].tolist() == [True, True, False, False, False, False]
    parted = Contexts(torch.tensor([[0.5, 0.5]]), torch.tensor([[2.0, 0.0]]))
    both = CTRNN(1, 8, 1, "es-add-sym", contexts=2, seed=0)
    assert vector_field(both, parted).labels["simplex"] == [False]


def test_krylov_search_agrees_with_newton_and_needs_no_jacobian(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    system = importlib.import_module("_planted").planted(30, 2, 3)
    field = vector_field(system.network)
    expected = find_fixed_points(field, starts=system.starts(64))

    def jacobian(*_):
        raise AssertionError("a Jacobian")

    with monkeypatch.context() as patch:
        patch.setattr(type(field), "jacobian", jacobian)
        found = find_fixed_points(field, starts=system.starts(64), method="krylov")
    known = np.linalg.norm(found.x[:, None] - expected.x, axis=-1)
    assert known.min(axis=1).max() < 1e-8
    stable = known.min(axis=0)[expected.stable]
    assert len(stable) == 4
    assert stable.max() < 1e-8
    assert (found.speed <= 1e-11).all()


def test_large_fields_are_searched_without_jacobians():
    """5,000 units of which each feels itself alone: x = 2 tanh x."""
    large = FunctionField(lambda x: 2 * torch.tanh(x) - x, 5000)
    signs = np.sign(normal(3, 5000))
    found = find_fixed_points(large, starts=1.5 * signs, between=0)
    order = found.starts["point"].to_numpy()
    assert sorted(order) == [0, 1, 2]
    assert found.x[order] == pytest.approx(pitchfork(2.0) * signs, abs=1e-9)
    with pytest.raises(ValueError, match="method"):
        find_fixed_points(large, starts=signs, method="adam")


def test_points_hold_no_memory_of_the_search():
    """What is kept goes with every pickled result."""
    found = find_fixed_points(network(normal(30, 30, scale=0.3)), starts=normal(200, 30))
    sizes = [v.numel() for v in vars(found.field).values() if isinstance(v, torch.Tensor)]
    assert max(sizes) <= 30 * 30


@pytest.mark.parametrize("gained", [False, True])
def test_relu_networks_solve_with_the_units_at_work(gained):
    made = network(normal(20, 20, scale=0.5), nonlinearity="relu")
    if gained:
        made = CTRNN(1, 20, 1, "e-gain", contexts=2, nonlinearity="relu", dtype=F64, seed=0)
        with torch.no_grad():
            for value in made.modulation.parameters():
                value.normal_(generator=torch.Generator().manual_seed(3))
    field = vector_field(made, np.eye(2) if gained else None)
    x = torch.from_numpy(normal(50, 20, seed=1))
    x[:, :8] = -x[:, :8].abs()
    where = torch.arange(50) % field.conditions
    right = torch.from_numpy(normal(50, 20, 2, seed=2))
    found, _ = field.solved(x, where, right)
    expected = np.linalg.solve(field.jacobian(x, where).numpy(), right.numpy())
    assert found.numpy() == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_the_coarse_field_is_the_same_in_single_precision():
    network = CTRNN(2, 12, 1, "es-gain-sym", contexts=2, nonlinearity="relu", seed=3)
    field = vector_field(network, np.eye(2))
    coarse = field.coarse()
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    condition = torch.arange(8) % 2
    fine, rough = field.residual(x, condition), coarse.residual(x.float(), condition)
    assert (fine.dtype, rough.dtype) == (torch.float64, torch.float32)
    # Sums of 13 products of numbers of about 1.
    assert (fine - rough).abs().max() < 13 * 4 * torch.finfo(torch.float32).eps
    drift = follow_flow(field, x, condition, Limits(1e-11, 1e-2, 200, 1e3))
    assert {drift.x.dtype, drift.mean.dtype, drift.nearest.dtype} == {torch.float64}
