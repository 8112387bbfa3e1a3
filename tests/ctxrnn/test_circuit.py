import pytest
import torch

from ctxrnn._circuit import (
    Circuit,
    Components,
    Dense,
    Mixture,
    Rescaled,
    Scaled,
    WithLowRank,
)

UNITS, TRIALS = 4, 3
# Nested maps add a few dozen terms near 1, each rounded to 1.1e-16.
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def maps():
    dense = Dense(random(UNITS, UNITS, seed=1))
    post, pre = random(2, TRIALS, UNITS, seed=2), random(2, TRIALS, UNITS, seed=3)
    scaled = Scaled(dense, post, pre, keep_base=True)
    gated = Scaled(dense, post[:1], pre[:1], keep_base=False)
    added = WithLowRank(dense, post, pre)
    components = Components(
        random(UNITS, 2, seed=4), random(UNITS, 2, seed=5), random(TRIALS, 2, seed=6)
    )
    mixture = Mixture(dense, random(2, UNITS, UNITS, seed=7), random(TRIALS, 2, seed=8))
    factor = random(TRIALS, 1, seed=9)
    return {
        "dense": dense,
        "scaled": scaled,
        "scaled once": Scaled(dense, post[:1], pre[:1], keep_base=True),
        "gated": gated,
        "gated twice": Scaled(dense, post, pre, keep_base=False),
        "scaled by nothing": Scaled(dense, post[:0], pre[:0], keep_base=True),
        "gated by nothing": Scaled(dense, post[:0], pre[:0], keep_base=False),
        "added": added,
        "shared factors": WithLowRank(dense, post[:, :1], pre[:, :1]),
        "low rank alone": WithLowRank(None, post, pre),
        "components": components,
        "mixture": mixture,
        "mixture alone": Mixture(None, mixture.weights, mixture.coefficients),
        "rescaled": Rescaled(dense, factor),
        "scaled, scaled": Scaled(scaled, pre, post, keep_base=True),
        "gated, scaled": Scaled(scaled, pre, post, keep_base=False),
        "scaled, gated": Scaled(gated, pre, post, keep_base=True),
        "scaled, added": Scaled(added, pre, post, keep_base=True),
        "scaled, components": Scaled(components, post, pre, keep_base=True),
        "added, components": WithLowRank(components, post, pre),
        "scaled, mixture": Scaled(mixture, post, pre, keep_base=True),
        "added, mixture": WithLowRank(mixture, post, pre),
        "rescaled, mixture": Rescaled(mixture, factor),
        "scaled, rescaled": Scaled(Rescaled(added, factor), post, pre, keep_base=True),
    }


@pytest.mark.parametrize("name", maps())
def test_a_map_is_its_matrix(name):
    recurrent, rates = maps()[name], random(TRIALS, UNITS, seed=10)
    matrix = recurrent.dense().expand(TRIALS, UNITS, UNITS)
    wanted = (matrix @ rates.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(recurrent(rates), wanted, **EXACT)


@pytest.mark.parametrize("name", maps())
def test_a_map_takes_axes_in_front_of_the_trial(name):
    recurrent, rates = maps()[name], random(5, 2, TRIALS, UNITS, seed=10)
    each = torch.stack([torch.stack([recurrent(part) for part in row]) for row in rates])
    torch.testing.assert_close(recurrent(rates), each, **EXACT)


@pytest.mark.parametrize("name", maps())
@pytest.mark.parametrize("shape", [(UNITS,), (TRIALS, UNITS)])
def test_adding_onto_a_current_is_the_sum(name, shape):
    recurrent, rates = maps()[name], random(TRIALS, UNITS, seed=10)
    current = random(*shape, seed=11)
    before = current.clone()
    torch.testing.assert_close(recurrent.onto(current, rates), current + recurrent(rates), **EXACT)
    assert torch.equal(current, before)


@pytest.mark.parametrize("name", sorted(maps()))
def test_the_pullback_is_the_transposed_map(name):
    recurrent = maps()[name]
    rates, gradient = random(TRIALS, UNITS, seed=12), random(TRIALS, UNITS, seed=13)
    left = (recurrent.pullback(gradient) * rates).sum(-1)
    right = (gradient * recurrent(rates)).sum(-1)
    torch.testing.assert_close(left, right, **EXACT)


def test_gain_and_threshold_are_neutral_where_missing():
    x = random(TRIALS, UNITS)
    circuit = Circuit(maps()["dense"], random(UNITS, 2), random(UNITS))
    assert circuit.excite(x) is x
    gain, threshold = random(TRIALS, UNITS, seed=1), random(TRIALS, UNITS, seed=2)
    circuit = Circuit(None, random(UNITS, 2), random(UNITS), gain, threshold)
    torch.testing.assert_close(circuit.excite(x), gain * (x - threshold), **EXACT)


def test_a_circuit_without_weights_says_so():
    circuit = Circuit(None, random(UNITS, 2), random(UNITS))
    with pytest.raises(ValueError, match="no recurrent weights: no pathway has set them"):
        circuit.propagate(random(TRIALS, UNITS))
    with pytest.raises(ValueError, match="no recurrent weights"):
        circuit.dense_weight()
