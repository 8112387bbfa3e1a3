"""Contexts that translate the vector field, and contexts that deform it."""

import numpy as np
import pytest
import torch

from ctxrnn import CTRNN
from ctxrnn.analysis import FunctionField, NetworkField, fit_pca, flow_on_plane, state_dependence


def states(units, seed=0):
    return np.random.default_rng(seed).normal(size=(200, units))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("variant", ["e-add", "e-rank2"])
def test_drive_translates_the_field(variant, nonlinearity):
    made = CTRNN(2, 12, 2, variant, contexts=3, nonlinearity=nonlinearity, seed=0)
    table = state_dependence(NetworkField(made, torch.eye(3), [0.3, 0.1]), states(12))
    assert table["state_dependence"].tolist() == [0.0, 0.0, 0.0]
    assert (table["effect"] > 0.05).all()


@pytest.mark.parametrize(
    "variant", ["s-sym", "s-asym-1", "s-gate-1", "s-scalar", "s-add-1", "s-full"]
)
def test_synapses_deform_the_field(variant):
    made = CTRNN(2, 12, 2, variant, contexts=3, seed=0)
    with torch.no_grad():
        for parameter in made.modulation.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    table = state_dependence(NetworkField(made, torch.eye(3)), states(12))
    assert (table["state_dependence"] > 0.1).all()
    assert (table["state_dependence"] <= 1 + 1e-12).all()


def test_index_is_that_of_its_definition():
    made = CTRNN(2, 6, 2, "es-add-sym", contexts=2, seed=0)
    field, x = NetworkField(made, torch.eye(2)), states(6)
    (row,) = state_dependence(field, x).to_dict("records")
    change = (field.velocity(x, 0) - field.velocity(x, 1)).numpy()
    mean, square = change.mean(axis=0), (change**2).sum(axis=1).mean()
    assert row["state_dependence"] == pytest.approx(1 - (mean**2).sum() / square)
    both = np.mean([(field.velocity(x, n).numpy() ** 2).sum(axis=1).mean() for n in (0, 1)])
    assert row["effect"] == pytest.approx(np.sqrt(square / both))


def test_equal_contexts_have_no_index():
    made = CTRNN(2, 6, 2, "s-sym", contexts=2, seed=0)
    field = NetworkField(made, torch.eye(2)[[0, 0]])
    (row,) = state_dependence(field, states(6)).to_dict("records")
    assert np.isnan(row["state_dependence"])
    assert row["effect"] == 0
    with pytest.raises(ValueError, match="at least two conditions"):
        state_dependence(NetworkField(made, torch.eye(2)[0]), states(6))


def test_flow_on_a_plane_is_the_projection():
    matrix = torch.tensor([[-1.0, 0.5, 0.0], [-0.5, -1.0, 0.0], [0.0, 0.0, -3.0]]).double()
    field = FunctionField(lambda x: x @ matrix.T, 3)
    plane = fit_pca(np.random.default_rng(0).normal(size=(500, 3)) * [3.0, 2.0, 0.01])
    grid, flow = flow_on_plane(field, plane, around=np.zeros(3), points=5, reach=((-2, 2), (-1, 1)))
    assert grid.shape == flow.shape == (5, 5, 2)
    offset = -plane.mean @ plane.components[:2].T
    axes = plane.components[:2]
    expected = ((grid - offset) @ axes) @ matrix.numpy().T @ axes.T
    assert flow == pytest.approx(expected)
    assert (grid - offset)[..., 0].min() == pytest.approx(-2)
    with pytest.raises(ValueError, match="two components"):
        flow_on_plane(field, fit_pca(states(3), 1))
