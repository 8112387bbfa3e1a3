"""Behavioural crossings beside bifurcations."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from ctxrnn.analysis._permutations import permutation_p, permuted
from ctxrnn.analysis.crossings import compare_crossings

from ctxrnn import CTRNN
from ctxrnn.analysis import ContextPath, FunctionField, bootstrap_interval, follow_fixed_points


def found(*places, kind="fold"):
    return pd.DataFrame({"branch": 0, "kind": kind, "parameter": list(places), "frequency": 0.0})


def test_nearest_bifurcation_of_a_known_diagram():
    # x' = p + x - x^3 / 3 folds at p = -2/3 and 2/3.
    branches = follow_fixed_points(
        lambda p: FunctionField(lambda x: p + x - x**3 / 3, 1), [[0.0]], bounds=(-2, 2)
    )
    for given in (branches, branches.bifurcations()):
        result = compare_crossings(given, 0.5)
        (row,) = result.table.to_dict("records")
        assert row["bifurcation"] == pytest.approx(2 / 3, abs=1e-6)
        assert row["distance"] == pytest.approx(2 / 3 - 0.5, abs=1e-6)
        assert (row["kind"], row["bifurcations"], row["crossing"]) == ("fold", 2, 0.5)
        assert result.mean_distance == pytest.approx(1 / 6, abs=1e-6)
        assert np.isnan([result.p, result.correlation.mean, result.correlation.low]).all()
    assert compare_crossings(branches, -0.1).table["bifurcation"][0] == pytest.approx(-2 / 3)


def test_path_of_a_bistable_network_bifurcates_where_its_drive_says():
    # One unit, tau x' = -x + 2 tanh x + e, folds at |e| = 2 tanh x - x with 2 (1 - tanh^2 x) = 1.
    network = CTRNN(1, 1, 1, "e-add", contexts=2, dtype=torch.float64, seed=0)
    drive = 1.0
    with torch.no_grad():
        network.weight.fill_(2.0)
        network.bias.zero_()
        network.modulation.pathways[0].E.copy_(torch.tensor([[-drive, drive]]))
    path = ContextPath(network, [1.0, 0.0], [0.0, 1.0])
    branches = follow_fixed_points(path, [[-2.0], [0.0], [2.0]])
    edge = 2 * np.sqrt(0.5) - np.arctanh(np.sqrt(0.5))
    result = compare_crossings(branches, 0.8)
    # e(lambda) = drive (2 lambda - 1).
    assert result.table["bifurcation"][0] == pytest.approx((1 + edge / drive) / 2, abs=1e-5)


def test_paths_without_bifurcations_are_left_out_and_counted():
    none = found()
    result = compare_crossings([found(0.4), none, found(0.5)], [0.5, 0.5, np.nan])
    assert result.compared == 1
    assert result.table["bifurcation"].isna().tolist() == [False, True, True]
    assert result.table["bifurcations"].tolist() == [1, 0, 1]
    assert "2 of 3 paths left out" in str(result)
    nothing = compare_crossings([none, none], [0.5, 0.4])
    assert nothing.compared == 0
    assert np.isnan([nothing.mean_distance, nothing.p, nothing.correlation.mean]).all()
    assert str(nothing).startswith("none of 2")


def test_only_the_kinds_asked_for_count():
    table = pd.concat([found(0.5, kind="Hopf"), found(0.1)], ignore_index=True)
    assert compare_crossings(table, 0.5).table["kind"][0] == "Hopf"
    only = compare_crossings(table, 0.5, kinds=["fold"]).table
    assert (only["kind"][0], only["bifurcations"][0]) == ("fold", 1)
    with pytest.raises(ValueError, match="unknown kind 'folds'"):
        compare_crossings(table, 0.5, kinds=["folds"])


def test_correlation_and_p_are_those_of_brute_force():
    generator = np.random.default_rng(0)
    places = [generator.random(2) for _ in range(6)]
    stars = np.array([place[0] for place in places]) + 0.05 * generator.normal(size=6)
    result = compare_crossings([found(*place) for place in places], stars)

    def distances(stars):
        return np.array([np.abs(p - s).min() for p, s in zip(places, stars, strict=True)])

    own = distances(stars).mean()
    others = [distances(stars[list(o)]).mean() for o in itertools.permutations(range(6))]
    assert result.mean_distance == pytest.approx(own)
    assert result.exact
    assert result.p == pytest.approx(np.mean(np.array(others) <= own + 1e-12))
    nearest = result.table["bifurcation"].to_numpy()
    assert result.correlation.mean == pytest.approx(np.corrcoef(stars, nearest)[0, 1])
    # The bootstrap is that of the package, over pairs.
    pairs = dict(enumerate(zip(stars, nearest, strict=True)))

    def statistic(index, axis):
        drawn = np.array(list(pairs.values()))[index.astype(int)]
        d = drawn - drawn.mean(axis=-2, keepdims=True)
        with np.errstate(invalid="ignore"):
            return (d[..., 0] * d[..., 1]).sum(-1) / np.sqrt((d**2).sum(-2).prod(-1))

    same = bootstrap_interval(np.arange(6.0), statistic=statistic, resamples=10_000)
    assert result.correlation.low == pytest.approx(same.low)
    assert result.correlation.high == pytest.approx(same.high)


def test_many_bifurcations_are_near_to_anything():
    """A dense path correlates by choice of the nearest; the test does not take it for evidence."""
    grid = found(*np.linspace(0, 1, 101))
    stars = np.random.default_rng(0).random(20)
    result = compare_crossings([grid] * 20, stars, permutations=500)
    assert result.correlation.mean > 0.99
    assert result.p == 1
    own = compare_crossings([found(star) for star in stars], stars, permutations=500)
    assert own.p == pytest.approx(1 / 501)
    assert own.correlation.low > 0.99


def test_groups_limit_the_exchange():
    stars = [0.1, 0.9, 0.1, 0.9]
    paths = [found(star) for star in stars]
    result = compare_crossings(paths, stars, groups=["a", "a", "b", "b"])
    # Two orders in each of two groups, of which one fits.
    assert (result.p, result.exact) == (0.25, True)
    assert result.table["group"].tolist() == ["a", "a", "b", "b"]
    assert np.isnan(result.correlation.low)
    # Freely exchanged, 4 of 24 orders fit.
    assert compare_crossings(paths, stars).p == pytest.approx(4 / 24)
    assert np.isnan(compare_crossings(paths, stars, groups=list("abcd")).p)


def test_permutations_within_groups_stay_there():
    groups = np.array([0, 1, 0, 2, 1])
    orders, exact = permuted(5, 100, 0, groups)
    listed = [tuple(order) for order in orders]
    assert exact
    assert len(set(listed)) == len(listed) == 4
    drawn, exact = permuted(5, 3, 0, groups)
    for order in [*listed, *drawn]:
        assert (groups[list(order)] == groups).all()
    assert not exact
    assert permutation_p(1.0, np.array([0.0, 1.0]), True) == 0.5
    assert permutation_p(1.0, np.array([0.0, 0.0]), False) == pytest.approx(1 / 3)


def test_one_crossing_is_needed_for_each_path():
    with pytest.raises(ValueError, match="each of 2 paths"):
        compare_crossings([found(0.1), found(0.2)], [0.1])
    with pytest.raises(ValueError, match="each of 0 paths"):
        compare_crossings([], [])
    with pytest.raises(ValueError, match="NaN where behaviour"):
        compare_crossings(found(0.1), np.inf)
