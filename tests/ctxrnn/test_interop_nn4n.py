import importlib.metadata
import logging
import sys

import numpy as np
import pytest
import torch

from ctxrnn import CTRNN, Contexts, load, save, variant_ids
from ctxrnn.interop import from_nn4n, to_nn4n

nn4n_model = pytest.importorskip("nn4n.model")

# nn4n computes in float32: errors of about 1e-7 a step, kept small by the leak.
NEAR = {"rtol": 1e-4, "atol": 2e-5}
STEPS = 60


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fill(module, seed=1, spread=0.8):
    """Give every parameter random values, biases and gains included."""
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            scale = spread * max(parameter.shape[-1], 4) ** -0.5
            parameter.copy_(scale * draw(*parameter.shape, seed=100 * seed + index))
    return module


def theirs(**options):
    options = {"dims": [4, 9, 3], "tau": 100, "dt": 20, "biases": "zero", **options}
    return fill(nn4n_model.CTRNN(**options))


def same(model, run, u):
    """Compare outputs and states of a model of theirs with a run of ours."""
    outputs, (rates,) = model(u.transpose(0, 1))
    torch.testing.assert_close(rates.transpose(0, 1), run.rates.float(), **NEAR)
    torch.testing.assert_close(outputs.transpose(0, 1), run.outputs.float(), **NEAR)


@pytest.mark.parametrize("init_state", ["zero", "learn"])
@pytest.mark.parametrize("dt", [5, 20, 100])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "retanh"])
def test_a_network_made_of_a_model_computes_what_it_does(activation, dt, init_state):
    model = theirs(activation=activation, dt=dt, init_state=init_state)
    if init_state == "zero":
        # A parameter of nn4n's that this setting leaves out.
        assert model.recurrent_layer.hidden_state.any()
    network, u = from_nn4n(model), draw(5, STEPS, 4)
    assert (network.dt, float(network.tau)) == (dt, 100.0)
    same(model, network(u), u)
    same(model, network.double()(u), u)


def test_defaults_of_nn4n():
    model = nn4n_model.CTRNN()
    network = from_nn4n(model)
    u = draw(2, STEPS, 1)
    same(model, network(u), u)
    assert (network.units, network.dt, float(network.tau), network.noise) == (100, 10.0, 100.0, 0.0)


def test_both_biases_count_and_weights_are_copied():
    model, u = theirs(), draw(2, STEPS, 4)
    network = from_nn4n(model)
    assert torch.equal(
        network.bias,
        model.recurrent_layer.input_layer.bias + model.recurrent_layer.hidden_layer.bias,
    )
    before = network(u).outputs
    fill(model, seed=8)
    assert torch.equal(network(u).outputs, before)


@pytest.mark.parametrize("training", [True, False])
def test_masks_count_as_in_the_next_run(training, caplog):
    shapes = [(4, 9), (9, 9), (9, 3)]
    model = theirs(
        sparsity_masks=[(draw(*s, seed=3) > 0).numpy().astype(float) for s in shapes],
        ei_masks=[np.sign(draw(*s, seed=4).numpy()) for s in shapes],
    )
    # Random values break the masks, as a step of an optimiser does.
    assert not training or model.training
    if not training:
        model.eval()
    with caplog.at_level(logging.WARNING, "ctxrnn"):
        network = from_nn4n(model)
    assert "masks of the nn4n model do not come along" in caplog.text
    assert bool((network.weight == 0).any()) is training
    u = draw(2, STEPS, 4)
    same(model, network(u), u)


def test_noise_is_the_same_in_distribution():
    model = theirs(preact_noise=0.3, dt=30)
    network = from_nn4n(model)
    assert float(network.noise_scale()) == pytest.approx(0.3, rel=1e-12)
    model.train()
    u, trials = torch.zeros(20000, 1, 4), 20000
    with torch.no_grad():
        model.recurrent_layer.activation = lambda v: v
        torch.manual_seed(0)
        (there,) = model(u.transpose(0, 1))[1]
        here = network(u, generator=1).potentials
    # One step from rest: a constant and noise of standard deviation alpha * 0.3.
    for first, second in ((there[0], here[:, 0]), (here[:, 0], there[0])):
        spread = first.std(dim=0)
        assert ((spread - 0.3 * 0.3).abs() < 6 * 0.09 / (2 * trials) ** 0.5).all()
        gap = (first.mean(0) - second.mean(0)).abs()
        assert (gap < 6 * 0.09 * (2 / trials) ** 0.5).all()


@pytest.mark.parametrize("variant", [v for v in variant_ids() if v != "none"])
def test_a_model_made_of_a_network_computes_what_it_does_in_a_context(variant):
    network = fill(CTRNN(4, 9, 3, variant, contexts=3, seed=5, noise=0.0, learn_x0=True, dt=30.0))
    context = Contexts(2 * draw(3, seed=6), draw(3, seed=7))
    model, u = to_nn4n(network, context), draw(5, STEPS, 4)
    rows = Contexts(context.excitability.expand(5, 3), context.synaptic.expand(5, 3))
    same(model, network(u, rows), u)
    same(model, from_nn4n(model)(u), u)


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh", "sigmoid"])
def test_nonlinearities_and_noise_go_along(nonlinearity):
    network = fill(CTRNN(4, 9, 3, nonlinearity=nonlinearity, noise=0.2, seed=5))
    model, u = to_nn4n(network), draw(5, STEPS, 4)
    same(model, network(u, noise=0.0), u)
    assert model.preact_noise == pytest.approx(float(network.noise_scale()))
    assert from_nn4n(model).noise == pytest.approx(0.2)


def test_the_rate_form_without_a_leak_is_covered():
    network = fill(
        CTRNN(4, 9, 3, "es-gain-sym", contexts=2, form="rate", tau=20, dt=20, noise=0.0, seed=5)
    )
    context, u = torch.tensor([0.3, -1.0]), draw(5, STEPS, 4)
    same(to_nn4n(network, context), network(u, context.expand(5, 2)), u)


def test_there_and_back():
    model = theirs(activation="retanh", init_state="learn", dt=30, preact_noise=0.1)
    again = to_nn4n(from_nn4n(model))
    for name, value in model.state_dict().items():
        if not name.endswith(("hidden_layer.bias", "input_layer.bias")):
            assert torch.equal(again.state_dict()[name], value), name
    layer = model.recurrent_layer
    assert torch.equal(
        again.recurrent_layer.hidden_layer.bias, layer.hidden_layer.bias + layer.input_layer.bias
    )
    assert (again.recurrent_layer.act, again.recurrent_layer.alpha) == ("retanh", 0.3)
    assert again.preact_noise == pytest.approx(0.1)


def test_a_network_made_of_a_model_can_be_saved(tmp_path):
    network = from_nn4n(theirs(activation="tanh", init_state="learn"))
    save(network, tmp_path / "network.safetensors")
    u = draw(2, 20, 4)
    assert torch.equal(load(tmp_path / "network.safetensors")(u).outputs, network(u).outputs)


def test_dales_law_is_left_behind_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "ctxrnn"):
        to_nn4n(CTRNN(4, 9, 3, excitatory=0.8, seed=0))
    assert "Dale's law and masks of the network do not go along" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_state": "keep"}, "init_state must be 'zero' or 'learn': got 'keep'"),
        ({"postact_noise": 0.1}, "postact_noise must be 0.*got 0.1; set model.postact_noise = 0"),
        ({"dt": 200}, "dt must be at most tau: got dt=200 ms with tau=100 ms"),
    ],
)
def test_models_without_our_equation_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        from_nn4n(theirs(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"nonlinearity": "softplus"},
            "must be relu, tanh or sigmoid, which nn4n has: got 'softplus'",
        ),
        ({"nonlinearity": torch.sin}, "must be relu, tanh or sigmoid"),
        ({"tau": [50.0, *[100.0] * 8]}, "tau must be one for all units.*got 50 to 100 ms"),
        ({"form": "rate"}, "unless dt = tau: got 'rate' with dt=20 ms and tau=100 ms"),
        ({"form": "rate", "tau": 20, "nonlinearity": "sigmoid"}, "must start at rates of 0"),
        ({"readout": "potentials"}, "readout must be 'rates', as in nn4n: got 'potentials'"),
        ({"modulation": "e-gain"}, "noise must be 0.*got 0.05; set network.noise = 0"),
    ],
)
def test_networks_without_their_equation_are_refused(options, message):
    network = CTRNN(4, 9, 3, **{"contexts": 2, "seed": 0, **options})
    context = torch.ones(2) if "modulation" in options else None
    with pytest.raises(ValueError, match=message):
        to_nn4n(network, context)


def test_a_model_must_be_theirs():
    with pytest.raises(TypeError, match=r"must be an nn4n\.model.CTRNN: got CTRNN"):
        from_nn4n(CTRNN(4, 9, 3))


def test_other_versions_and_none_at_all_are_named(monkeypatch):
    network = CTRNN(4, 9, 3)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.0")
    with pytest.raises(ValueError, match=r"nn4n must be 1.1.1.*got 2.0; pip install nn4n==1.1.1"):
        to_nn4n(network)
    monkeypatch.setitem(sys.modules, "nn4n.model", None)
    with pytest.raises(ImportError, match=r"nn4n is not installed: pip install nn4n==1\.1\.1"):
        to_nn4n(network)
