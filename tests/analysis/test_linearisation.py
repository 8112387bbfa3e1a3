"""Modes and growth of linear systems whose answers are known."""

import numpy as np
import pytest
import torch
from scipy import integrate, linalg

from ctxrnn import CTRNN
from ctxrnn.analysis import (
    FunctionField,
    NetworkField,
    eigenvalues,
    henrici_index,
    modes,
    modes_of,
    numerical_abscissa,
    transient_growth,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_modes_take_the_matrix_apart():
    a = normal(7, 7)
    found = modes_of(a)
    assert found.right @ np.diag(found.values) @ found.left == pytest.approx(a.astype(complex))
    assert found.left @ found.right == pytest.approx(np.eye(7), abs=1e-12)
    assert (np.diff(found.values.real) <= 1e-12).all()
    assert np.linalg.norm(found.right, axis=0) == pytest.approx(np.ones(7))
    assert (found.condition_numbers >= 1 - 1e-12).all()
    assert modes_of(a + a.T).condition_numbers == pytest.approx(np.ones(7))


def test_modes_of_a_network_are_those_of_its_linearisation():
    made = CTRNN(2, 6, 2, "es-add-sym", contexts=2, seed=0)
    field = NetworkField(made, torch.eye(2))
    x = normal(6)
    matrix = field.linearisation(x, 1)[0].numpy()
    found = modes(field, x, 1)
    assert np.array_equal(found.matrix, matrix)
    assert found.values == pytest.approx(eigenvalues(field, x, 1)[0])
    rows = eigenvalues(field, normal(3, 6), [0, 1, 0])
    assert rows.shape == (3, 6)


def test_selection_vector_tells_what_an_input_leaves_along_a_line():
    """dx/dt = A x with a line attractor: an input b ends at r (l . b), whatever its transient."""
    right, left = np.array([1.0, 1.0]) / np.sqrt(2), np.array([2.0, 0.0]) / np.sqrt(2)
    # The line is r; what the selection vector does not see decays at 0.05 per ms.
    a = -0.05 * (np.eye(2) - np.outer(right, left) / (left @ right))
    found = modes_of(a)
    assert found.values[0] == pytest.approx(0.0, abs=1e-15)
    for b in normal(5, 2):
        end = linalg.expm(a * 2000) @ b
        assert np.linalg.norm(end) / np.linalg.norm(b) == pytest.approx(found.selection(b)[0])
    assert found.selection([[0.0, 3.0]])[0] == pytest.approx(0.0, abs=1e-12)
    assert found.readout([1.0, -1.0])[0] == pytest.approx(0.0, abs=1e-12)
    assert found.readout([[1.0, 1.0]])[0] == pytest.approx(1.0)


def test_modes_of_a_map():
    field = FunctionField(lambda x: x @ torch.tensor([[0.9, 0.0], [0.0, 0.5]]).double(), 2, step=10)
    found = modes(field, np.zeros(2))
    assert found.values == pytest.approx(np.log([0.9, 0.5]) / 10)
    assert found.matrix == pytest.approx(np.diag([0.9, 0.5]))


def test_henrici_index_in_closed_form():
    # A shift has no eigenvalue but 0: all of its norm is departure.
    assert henrici_index(np.diag([1.0, 2.0, 3.0], k=1)) == pytest.approx(1.0)
    assert henrici_index([[1.0, 2.0], [0.0, 3.0]]) == pytest.approx(np.sqrt(4 / 14))
    rotation = linalg.expm(np.array([[0.0, 1.0], [-1.0, 0.0]]))
    assert henrici_index(rotation) == pytest.approx(0.0, abs=1e-15)
    assert henrici_index(np.zeros((2, 2))) == 0
    a = normal(9, 9)
    total = (a**2).sum()
    by_eigenvalues = np.sqrt(1 - (np.abs(np.linalg.eigvals(a)) ** 2).sum() / total)
    assert henrici_index(a) == pytest.approx(by_eigenvalues)


def test_transient_growth_is_reached_by_its_perturbation():
    a = np.array([[-0.01, 0.2], [0.0, -0.02]])
    times = [0.0, 20.0, 100.0, 1000.0]
    growth, best = transient_growth(a, times)
    assert growth[0] == 1.0
    assert growth.max() > 3
    for time, g, v in zip(times, growth, best, strict=True):
        if time:
            end = integrate.solve_ivp(lambda t, x: a @ x, (0, time), v, rtol=1e-10, atol=1e-12)
            assert np.linalg.norm(end.y[:, -1]) == pytest.approx(g, rel=1e-7)
    # Growth at first is exp(t times the numerical abscissa).
    first, _ = transient_growth(a, [1e-4])
    assert np.log(first[0]) / 1e-4 == pytest.approx(numerical_abscissa(a), rel=1e-4)
    assert numerical_abscissa(np.diag([-1.0, -2.0])) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: modes_of(np.zeros((2, 3))), r"matrix must be square: got shape \(2, 3\)"),
        (lambda: modes_of([[1.0, 1.0], [0.0, 1.0]]), "the matrix is defective"),
        (lambda: henrici_index([[np.nan]]), "matrix must be finite"),
        (lambda: transient_growth([[0.0]], [-1.0]), "times must be zero or more"),
        (lambda: modes_of(np.eye(2)).selection([1.0]), r"shape \(row, unit=2\)"),
        (lambda: modes_of(np.eye(2)).selection([0.0, 0.0]), "must not be 0"),
        (lambda: modes(FunctionField(lambda x: x, 2), np.zeros((2, 2))), "single state: got 2"),
        (lambda: eigenvalues(FunctionField(lambda x: x, 2), np.zeros(2), 1), "between 0 and 0"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
