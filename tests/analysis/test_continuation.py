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
