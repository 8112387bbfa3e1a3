"""Branches and bifurcations at parameters that are known."""

import numpy as np
import pytest
import torch
from scipy import optimize

from ctxrnn import CTRNN, Contexts
from ctxrnn.analysis import (
    ContextPath,
    FunctionField,
    NetworkField,
    find_fixed_points,
    follow_fixed_points,
)

STARTS = np.linspace(-3, 3, 13)[:, None]


def one_unit(function, **more):
    return lambda p: FunctionField(lambda x: function(x, p), 1, **more)


def kinds(branches):
    return [(row.kind, row.parameter) for row in branches.bifurcations().itertuples()]


def test_curve_with_two_folds_is_one_branch():
    """p + x - x^3 / 3 = 0 turns at x = +-1, p = -+2/3; between them it is unstable."""
    found = follow_fixed_points(one_unit(lambda x, p: p + x - x**3 / 3), STARTS, bounds=(-2, 2))
    (branch,) = found
    assert branch.parameter + branch.x[:, 0] - branch.x[:, 0] ** 3 / 3 == pytest.approx(
        np.zeros(len(branch)), abs=1e-9
    )
    assert [kind for kind, _ in kinds(found)] == ["fold", "fold"]
    assert sorted(p for _, p in kinds(found)) == pytest.approx([-2 / 3, 2 / 3], abs=1e-8)
    for event in branch.bifurcations:
        assert abs(event.x[0]) == pytest.approx(1.0, abs=1e-4)
        assert abs(event.direction[0]) == pytest.approx(1.0)
    inside = np.abs(branch.x[:, 0]) < 0.99
    assert (branch.index[inside] == 1).all()
    assert branch.stable[np.abs(branch.x[:, 0]) > 1.01].all()
    assert branch.ends == ("range", "range")
    assert branch.parameter[[0, -1]] == pytest.approx([-2, 2])
    assert np.sort(branch.at(0.0)[:, 0]) == pytest.approx([-np.sqrt(3), 0, np.sqrt(3)], abs=0.02)


@pytest.mark.parametrize("gain", [1.0, 2.5])
def test_pitchfork_of_two_units_at_known_gain(gain):
    """tau dx/dt = -x + p (gain / 2) 1 1^T tanh(x): 0 loses its stability at p = 1 / gain."""

    def path(p):
        made = CTRNN(1, 2, 1, dtype=torch.float64, seed=0)
        with torch.no_grad():
            made.weight.fill_(p * gain / 2)
        return NetworkField(made)

    found = follow_fixed_points(path, np.zeros((1, 2)), search=[0.0], bounds=(0.0, 2 / gain))
    assert len(found) == 2
    assert [kind for kind, _ in kinds(found)] == ["pitchfork", "pitchfork"]
    for _, p in kinds(found):
        assert p == pytest.approx(1 / gain, abs=1e-6)
    (event,) = found[0].bifurcations
    assert event.index == 0
    assert np.abs(event.direction) == pytest.approx(np.full(2, np.sqrt(0.5)), abs=1e-6)
    root = optimize.brentq(lambda x: 2 * np.tanh(x) - x, 1, 3)
    assert np.sort(found[1].x[[0, -1], 0]) == pytest.approx([-root, root], abs=1e-8)
    assert found[1].stable[np.abs(found[1].x[:, 0]) > 1e-2].all()
    assert found[0].index[[0, -1]].tolist() == [0, 1]
    alone = follow_fixed_points(
        path, np.zeros((1, 2)), search=[0.0], bounds=(0.0, 2 / gain), switch=False
    )
    assert [kind for kind, _ in kinds(alone)] == ["branch point"]


@pytest.mark.parametrize("others", [-1.0, 1.0])
def test_index_of_a_fold_counts_the_modes_that_are_unstable_on_both_sides(others):
    """Beside p + x - x^3 / 3 = 0 a second state y decays or grows by itself."""

    def path(p):
        def flow(z):
            x, y = z.T
            return torch.stack([p + x - x**3 / 3, others * y], dim=1)

        return FunctionField(flow, 2)

    starts = np.column_stack([STARTS, np.zeros(len(STARTS))])
    found = follow_fixed_points(path, starts, bounds=(-2, 2))
    table = found.bifurcations()
    assert table["kind"].tolist() == ["fold", "fold"]
    assert table["index"].tolist() == [int(others > 0)] * 2


def test_transcritical_branches_cross():
    found = follow_fixed_points(one_unit(lambda x, p: p * x - x**2), STARTS, bounds=(-1, 1))
    assert len(found) == 2
    assert [kind for kind, _ in kinds(found)] == ["branch point", "branch point"]
    for _, p in kinds(found):
        assert p == pytest.approx(0.0, abs=1e-6)
    ends = sorted((branch.x[0, 0].round(6), branch.x[-1, 0].round(6)) for branch in found)
    assert ends == [(-1, 1), (0, 0)]


def test_hopf_point_of_a_van_der_pol_oscillator():
    """dx/dt = w y, dy/dt = w (p (1 - x^2) y - x): at p = 0 the origin starts to oscillate at w."""
    w = 0.05

    def path(p):
        def flow(z):
            x, y = z.T
            return torch.stack([w * y, w * (p * (1 - x**2) * y - x)], dim=1)

        return FunctionField(flow, 2, tau=1 / w)

    found = follow_fixed_points(path, np.random.default_rng(0).normal(size=(9, 2)), bounds=(-1, 1))
    (branch,) = found
    ((kind, p),) = kinds(found)
    assert kind == "Hopf"
    assert p == pytest.approx(0.0, abs=1e-8)
    assert branch.bifurcations[0].frequency == pytest.approx(1000 * w / (2 * np.pi))
    assert branch.index[[0, -1]].tolist() == [0, 2]


def test_closed_branch_is_followed_once():
    """x^2 + p^2 = 1 / 4 lies within the range, and has two folds."""
    found = follow_fixed_points(
        one_unit(lambda x, p: p**2 + x**2 - 0.25), [[0.4], [-0.4]], search=[0.0], bounds=(-1, 1)
    )
    (branch,) = found
    assert branch.ends == ("closed", "closed")
    assert sorted(p for _, p in kinds(found)) == pytest.approx([-0.5, 0.5], abs=1e-8)
    assert np.allclose(branch.x[0], branch.x[-1])
    assert branch.parameter**2 + branch.x[:, 0] ** 2 == pytest.approx(0.25)


def test_path_between_contexts_is_the_network_there():
    made = CTRNN(2, 6, 2, "es-add-sym", contexts=3, seed=0)
    ends = np.eye(3)[:2]
    path = ContextPath(made, *ends, [0.1, 0.2])
    x = torch.tensor(np.random.default_rng(0).normal(size=(1, 6)))
    for share in (0.0, 0.3, 1.0):
        context = (1 - share) * ends[0] + share * ends[1]
        expected = NetworkField(made, context, [0.1, 0.2]).velocity(x)
        assert torch.allclose(path(share).velocity(x), expected, atol=1e-15)
    alone = ContextPath(
        made, Contexts.of(torch.tensor(ends[:1])),
        Contexts(torch.tensor(ends[1:]), torch.tensor(ends[:1])), [0.1, 0.2],
    )  # fmt: skip
    apart = Contexts(torch.tensor([[0.5, 0.5, 0]]), torch.tensor(ends[:1]))
    assert torch.allclose(alone(0.5).velocity(x), NetworkField(made, apart, [0.1, 0.2]).velocity(x))


@pytest.mark.parametrize("variant", ["e-add", "s-sym", "e-gain"])
def test_branches_of_a_network_hold_the_points_found_on_the_way(variant):
    """Every fixed point found at any parameter lies on a branch, once as many starts are used."""
    made = CTRNN(2, 5, 2, variant, contexts=2, seed=3, g=2.2, dtype=torch.float64)
    path = ContextPath(made, [1.0, 0.0], [0.0, 1.0], [0.3, -0.4])
    starts = np.random.default_rng(0).normal(size=(60, 5), scale=2.0)
    at = np.linspace(0, 1, 6)
    found = follow_fixed_points(path, starts, search=at)
    for branch in found:
        residual = [path(p).residual(torch.tensor(x)[None], torch.zeros(1).long()).norm()
                    for p, x in zip(branch.parameter, branch.x, strict=True)]  # fmt: skip
        assert max(residual) <= 1e-10
        assert "lost" not in branch.ends
        assert "steps" not in branch.ends
    for p in at:
        points = find_fixed_points(path(p), starts=starts).x
        crossing = np.concatenate([branch.at(p) for branch in found])
        away = np.linalg.norm(points[:, None] - crossing, axis=-1).min(axis=1)
        assert away.max() < 0.1
    table = found.table()
    assert set(table.columns) == {"branch", "step", "parameter", "index", "stable", "leading"}
    assert len(table) == sum(map(len, found))


def test_given_points_are_followed():
    path = one_unit(lambda x, p: p + x - x**3 / 3)
    found = follow_fixed_points(path, points=[(-2.0, [-2.3553014])], bounds=(-2, 2))
    assert len(found) == 1
    assert len(found[0].bifurcations) == 2


def test_branch_that_ends_where_the_field_does_is_told():
    path = one_unit(lambda x, p: torch.where(x > 0, torch.sqrt(x.clamp(min=0)) - p, x * 0 + 7.0))
    found = follow_fixed_points(path, points=[(1.0, [1.0])], bounds=(-1, 2))
    assert sorted(found[0].ends) == ["lost", "range"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "starts or points must be given"),
        ({"starts": STARTS, "bounds": (1, 0)}, "bounds must be a rising pair"),
        ({"starts": STARTS, "step": 0.0}, "step must be positive"),
        ({"starts": STARTS, "steps": 0}, "steps must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        follow_fixed_points(one_unit(lambda x, p: p - x), **arguments)


def test_bad_paths_are_refused():
    with pytest.raises(ValueError, match="path must give one condition: got 2"):
        follow_fixed_points(
            lambda p: FunctionField(lambda x, c: p - x, 1, conditions=2), points=[(0.0, [0.0])]
        )
    with pytest.raises(ValueError, match="needs a network with contexts"):
        ContextPath(CTRNN(2, 4, 2), None, None)
    with pytest.raises(ValueError, match="between two single contexts"):
        ContextPath(CTRNN(2, 4, 2, "e-add", contexts=2), np.eye(2), np.eye(2))


def decoupled(*modes):
    """Return a field of pitchforks (p - p_i) x_i - x_i^3, beside an oscillation that dies out."""

    def path(p):
        def flow(x):
            pitchforks = [(p - at) * x[:, i] - x[:, i] ** 3 for i, at in enumerate(modes)]
            y, z = x[:, -2], x[:, -1]
            return torch.stack([*pitchforks, -y - 3 * z, 3 * y - z], dim=1)

        return FunctionField(flow, len(modes) + 2)

    return path


def test_two_modes_that_cross_in_one_step_are_two_pitchforks():
    """Where both have crossed, four branches have left the trivial one, and cross in turn."""
    found = follow_fixed_points(decoupled(0.2, 0.21), np.zeros((1, 4)))
    assert set(found.bifurcations()["kind"]) == {"pitchfork"}
    assert [event.parameter for event in found[0].bifurcations] == pytest.approx([0.2, 0.21])
    assert [event.index for event in found[0].bifurcations] == [0, 1]
    assert len(found) == 5
    at = np.concatenate([branch.at(0.9) for branch in found])[:, :2]
    sides = np.array([[a, b] for a in (-1, 0, 1) for b in (-1, 0, 1)]) * np.sqrt([0.7, 0.69])
    assert np.linalg.norm(at[:, None] - sides, axis=-1).min(axis=0).max() < 0.05
    assert len(at) == 9


def test_modes_that_cross_at_one_point_are_told_as_multiple():
    found = follow_fixed_points(decoupled(0.2, 0.2), np.zeros((1, 4)))
    (event,) = found[0].bifurcations
    assert (event.kind, event.modes, event.index, event.frequency) == ("multiple", 2, 0, 0)
    assert event.parameter == pytest.approx(0.2, abs=1e-5)
    assert found.bifurcations()["modes"].tolist() == [2]


@pytest.mark.parametrize(("side", "indices"), [(1, (0, 1)), (-1, (0, 0))])
def test_fold_and_hopf_point_in_one_step_are_told_apart(side, indices):
    """A fold at x = 0, unstable above; an oscillation of frequency 0.3 beyond x = side / 50.

    With side = -1 one mode becomes stable and two unstable: in all one, as at a fold alone.
    """

    def path(p):
        def flow(z):
            x, a, b = z.T
            growth = side * x - 0.02
            return torch.stack([p - 0.5 + x**2, growth * a - 0.3 * b, 0.3 * a + growth * b], dim=1)

        return FunctionField(flow, 3)

    begin = (0.0, [-side * np.sqrt(0.5), 0, 0])
    (branch,) = follow_fixed_points(path, points=[begin], largest=0.2)
    assert sorted(event.kind for event in branch.bifurcations) == ["Hopf", "fold"]
    hopf, fold = sorted(branch.bifurcations, key=lambda event: event.kind)
    assert (fold.parameter, hopf.parameter) == pytest.approx((0.5, 0.4996))
    assert (fold.index, hopf.index) == indices
    assert (fold.modes, hopf.modes) == (1, 2)
    assert hopf.x[0] == pytest.approx(side / 50)
    assert hopf.frequency == pytest.approx(300 / (2 * np.pi))


def test_jump_of_modes_at_a_kink_is_no_hopf_point():
    """At x = 0 a pair goes from decay to growth without passing the imaginary axis."""

    def path(p):
        def flow(z):
            x, a, b = z.T
            growth = torch.where(x > 0, 0.1, -0.1)
            return torch.stack([p - 0.5 - x, growth * a - b, a + growth * b], dim=1)

        return FunctionField(flow, 3)

    (event,) = follow_fixed_points(path, points=[(0.0, [-0.5, 0, 0])])[0].bifurcations
    assert (event.kind, event.modes) == ("multiple", 2)
    assert event.parameter == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("angle", [*np.linspace(0, 2 * np.pi, 40, endpoint=False), 3.155])
def test_closed_branch_has_its_folds_wherever_it_begins(angle):
    start = (0.5 + 0.3 * np.cos(angle), [0.3 * np.sin(angle)])
    found = follow_fixed_points(
        one_unit(lambda x, p: 0.09 - (p - 0.5) ** 2 - x**2), points=[start], largest=0.1
    )
    (branch,) = found
    assert branch.ends == ("closed", "closed")
    assert [kind for kind, _ in kinds(found)] == ["fold", "fold"]
    assert sorted(p for _, p in kinds(found)) == pytest.approx([0.2, 0.8], abs=1e-8)


@pytest.mark.parametrize("begin", [0.02, 0.1, -0.05, 1.0])
def test_figure_of_eight_closes_after_both_lobes(begin):
    """(x^2 + q^2)^2 = q^2 - x^2 crosses itself at q = 0; begun near there it passes twice."""
    share = lambda t: (np.cos(t), np.sin(t) * np.cos(t))  # noqa: E731
    q, x = np.array(share(np.pi / 2 - begin)) / (1 + np.sin(np.pi / 2 - begin) ** 2)
    found = follow_fixed_points(
        one_unit(lambda x, p: (x**2 + p**2) ** 2 - p**2 + x**2),
        points=[(q, [x])],
        bounds=(-2, 2),
    )
    (branch,) = found
    assert branch.ends == ("closed", "closed")
    assert sorted(p for kind, p in kinds(found) if kind == "fold") == pytest.approx([-1, 1])
    crossings = [p for kind, p in kinds(found) if kind == "branch point"]
    assert crossings == pytest.approx([0, 0], abs=1e-5)


@pytest.mark.parametrize("depth", [0.1, 0.01, 0.001])
def test_small_s_is_one_branch_that_is_not_stepped_over(depth):
    """p - 1/2 + e x - x^3 = 0 turns at x = +-sqrt(e / 3), over a range of p that is e^1.5."""
    found = follow_fixed_points(
        one_unit(lambda x, p: p - 0.5 + depth * x - x**3), np.linspace(-1, 1, 9)[:, None]
    )
    (branch,) = found
    turns = 2 * np.sqrt(depth**3 / 27) * np.array([-1, 1])
    assert sorted(p - 0.5 for _, p in kinds(found)) == pytest.approx(turns, abs=1e-9)
    inside = np.abs(branch.x[:, 0]) < np.sqrt(depth / 3) - 1e-9
    assert inside.any()
    assert (branch.index == inside).all()


def test_branches_do_not_depend_on_the_steps():
    made = CTRNN(2, 12, 2, "e-add", contexts=2, seed=0, g=3.0, dtype=torch.float64)
    path = ContextPath(made, [2.0, 0.0], [0.0, 2.0], [0.3, -0.4])
    starts = np.random.default_rng(0).normal(size=(20, 12), scale=2.0)
    usual, fine = (follow_fixed_points(path, starts, largest=most) for most in (0.5, 0.05))
    rows = [
        sorted(zip(t["kind"], t["parameter"].round(6), t["index"], strict=True))
        for t in (usual.bifurcations(), fine.bifurcations())
    ]
    assert len(rows[0]) > 5
    assert rows[0] == rows[1]
    assert len(set(rows[0])) == len(rows[0])
    assert len(usual) == len(fine)


def test_period_doubling_of_the_logistic_map():
    """1 - 1 / p has the multiplier 2 - p; at p = 1 it crosses 0, at p = 2 the multiplier is 0."""
    path = one_unit(lambda x, p: p * x * (1 - x), step=2.0)
    found = follow_fixed_points(path, [[0.5]], search=[2.0], bounds=(2, 3.6))
    ((kind, p),) = kinds(found)
    assert (kind, p) == ("period doubling", pytest.approx(3.0, abs=1e-8))
    (event,) = found[0].bifurcations
    assert event.x == pytest.approx([2 / 3])
    assert event.frequency == pytest.approx(1000 / 4)
    assert (event.index, event.modes) == (0, 1)
    whole = follow_fixed_points(path, [[0.0], [0.5]], bounds=(0.5, 3.6))
    assert [kind for kind, _ in kinds(whole)].count("branch point") == 2
    assert [kind for kind, _ in kinds(whole)].count("period doubling") == 1


def test_neimark_sacker_point_of_a_map():
    """z -> (1 + p - |z|^2) e^(iw) z: at p = 0 the origin starts to turn by w a step."""
    w = 0.7
    turn = torch.tensor([[np.cos(w), np.sin(w)], [-np.sin(w), np.cos(w)]])

    def path(p):
        def step(z):
            return (1 + p - (z**2).sum(dim=1, keepdim=True)) * (z @ turn)

        return FunctionField(step, 2, step=2.0)

    found = follow_fixed_points(path, np.zeros((1, 2)), bounds=(-0.5, 0.5))
    (event,) = found[0].bifurcations
    assert (event.kind, event.modes) == ("Neimark-Sacker", 2)
    assert event.parameter == pytest.approx(0.0, abs=1e-8)
    assert event.frequency == pytest.approx(1000 * w / (2 * np.pi * 2))


def test_bifurcation_on_the_step_that_meets_the_bound_is_found():
    found = follow_fixed_points(
        one_unit(lambda x, p: (p - 0.97) * x - x**3), points=[(0.0, [0.0])], bounds=(0.0, 1.0)
    )
    assert [event.kind for event in found[0].bifurcations] == ["pitchfork"]
    assert found[0].bifurcations[0].parameter == pytest.approx(0.97)
    assert found[0].parameter[-2] < 0.97


@pytest.mark.parametrize(("slope", "weight", "bound"), [(4, -300, 0.02), (0.5, 380, 0.06)])
def test_branch_is_switched_to_by_a_shorter_step_where_the_old_one_bends_back(slope, weight, bound):
    """x = 400 p^3 meets the plane in which a long step looks for p = slope x.

    With the first bound it does so beyond it, with the second within.
    """

    def flow(x, p):
        return (x - 400 * p**3) * (p - slope * x) * torch.exp(weight * p * x)

    found = follow_fixed_points(
        one_unit(flow), points=[(-bound, [-400 * bound**3])], bounds=(-bound, bound)
    )
    assert len(found) == 2
    assert found[1].x[:, 0] == pytest.approx(found[1].parameter / slope, abs=1e-6)
    assert np.abs(found[1].parameter).max() <= bound
