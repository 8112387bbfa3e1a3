"""Newton steps in compiled code against dense matrices, and against the way without it."""

import itertools

import numpy as np
import pytest
import torch

from ctxrnn import CTRNN, _kernel
from ctxrnn.analysis import _solve, fields, vector_field

needs_kernel = pytest.mark.skipif(not _kernel.available(), reason="no compiled code")
EPS = np.finfo(float).eps


def systems(units, points, rest, seed=0, groups=2):
    """Return W, group, slope and right sides; a share `rest` of the slopes is 0."""
    generator = np.random.default_rng([seed, units])
    w = 1.5 * generator.normal(size=(groups, units, units)) / np.sqrt(units)
    slope = generator.uniform(-1, 2, (points, units)) * (generator.random((points, units)) >= rest)
    right = generator.normal(size=(points, units, 2))
    group = generator.integers(0, groups, points)
    return tuple(torch.from_numpy(array) for array in (w, group, slope, right))


def dense(w, group, slope, form):
    scale = slope[:, None, :] if form == "current" else slope[:, :, None]
    return w[group] * scale - torch.eye(w.shape[-1], dtype=torch.float64)


# Around the widths of panels, of vectors and of their tails.
@pytest.mark.parametrize("units", [*range(1, 19), 31, 32, 33, 64, 65, 100])
@pytest.mark.parametrize(
    ("form", "rest"), list(itertools.product(["current", "rate"], [0.0, 0.5, 1.0]))
)
@needs_kernel
def test_newton_steps_solve_the_dense_systems(units, form, rest):
    w, group, slope, right = systems(units, 6, rest)
    found, norm = _solve.newton_steps(w, group, slope, right, form)
    matrix = dense(w, group, slope, form)
    # Backward error of Gaussian elimination with partial pivoting, Higham (2002), theorem 9.5, with
    # a growth factor of at most n^(2/3) for random matrices; both sides of J d = b.
    size = matrix.flatten(1).norm(dim=-1)[:, None] * found.norm(dim=1)
    bound = 3 * units ** (5 / 3) * EPS * (size + right.norm(dim=1))
    assert ((matrix @ found - right).norm(dim=1) <= bound).all()
    busy = (slope != 0).double()
    factorised = (matrix * busy[:, None, :] * busy[:, :, None]).flatten(1).norm(dim=-1)
    expected = torch.where(busy.any(dim=1), factorised, 1.0)
    assert norm.numpy() == pytest.approx(expected.numpy(), rel=1e-12)


@needs_kernel
def test_rows_are_exchanged_where_a_pivot_vanishes():
    # J = [[0, 1], [1, 0]] for W = [[1, 1], [1, 1]]; LU without exchanges divides by 0.
    w, one = torch.ones(1, 2, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    right = torch.tensor([[[3.0], [5.0]]], dtype=torch.float64)
    for form in ("current", "rate"):
        found, _ = _solve.newton_steps(w, torch.zeros(1, dtype=torch.long), one, right, form)
        assert found.flatten().tolist() == [5.0, 3.0]


@needs_kernel
def test_singular_systems_give_nan_and_leave_the_others_alone():
    w, group, slope, right = systems(7, 5, 0.0)
    w[1] = torch.eye(7)  # J = 0 where all slopes are 1
    group[:], slope[3] = 0, 1.0
    group[3] = 1
    found, _ = _solve.newton_steps(w, group, slope, right, "current")
    assert found[3].isnan().all()
    kept = [0, 1, 2, 4]
    alone, _ = _solve.newton_steps(w, group[kept], slope[kept], right[kept], "current")
    assert torch.equal(found[kept], alone)
    assert alone.isfinite().all()


@needs_kernel
def test_not_a_number_stays_with_its_point():
    w, group, slope, right = systems(9, 3, 0.5)
    slope[1, 4] = torch.nan
    found, _ = _solve.newton_steps(w, group, slope, right, "rate")
    assert not found[1].isfinite().all()
    assert found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])
def test_a_network_solves_alike_with_and_without_compiled_code(form, nonlinearity, monkeypatch):
    network = CTRNN(
        2, 20, 1, "es-gain-sym", contexts=3, form=form, nonlinearity=nonlinearity, seed=1
    )
    field = vector_field(network, np.eye(3))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 20, generator=generator, dtype=torch.float64)
    condition = torch.arange(9) % 3
    right = torch.randn(9, 20, 2, generator=generator, dtype=torch.float64)
    here, _ = field.solved(x, condition, right)
    monkeypatch.setattr(fields, "available", lambda: False)
    there, _ = field.solved(x, condition, right)
    matrix = field.jacobian(x, condition)
    condition_number = torch.linalg.cond(matrix).max()
    assert (matrix @ here - right).abs().max() < 1e-12 * condition_number
    assert here.numpy() == pytest.approx(there.numpy(), rel=float(1e-13 * condition_number))


def test_without_compiled_code_newton_steps_say_so(monkeypatch):
    monkeypatch.setattr(_solve, "library", lambda: None)
    with pytest.raises(RuntimeError, match="install ctxrnn again with a C compiler"):
        _solve.newton_steps(*systems(3, 1, 0.0), "current")
