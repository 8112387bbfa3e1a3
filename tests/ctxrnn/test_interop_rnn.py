import pytest
import torch
from torch import nn

from ctxrnn import CTRNN, Contexts, variant_ids
from ctxrnn.interop import from_rnn, to_rnn

F64 = {"dtype": torch.float64}
# Weights of size 1 / sqrt(N) in 60 steps of tanh or contracting relu: far above rounding, far below
# what any wrong term does.
NEAR = {"rtol": 1e-11, "atol": 1e-12}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fill(module, seed=1, spread=1.0):
    """Give every parameter random values, biases and gains included."""
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            scale = spread * max(parameter.shape[-1], 4) ** -0.5
            parameter.copy_(scale * draw(*parameter.shape, seed=100 * seed + index))
    return module


def torch_rnn(units=9, **options):
    return fill(nn.RNN(4, units, batch_first=True, **options, **F64), spread=0.8)


@pytest.mark.parametrize("loop", ["auto", "plain"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_a_network_made_of_an_rnn_computes_what_it_does(nonlinearity, bias, loop):
    rnn = torch_rnn(nonlinearity=nonlinearity, bias=bias)
    readout = fill(nn.Linear(9, 3, bias=bias, **F64), seed=2)
    u, h0 = draw(5, 60, 4), draw(5, 9, seed=3)
    network = from_rnn(rnn, readout, dt=7.0)
    network.loop = loop
    found, (wanted, last) = network(u, None, h0), rnn(u, h0.unsqueeze(0))
    torch.testing.assert_close(found.rates, wanted, **NEAR)
    torch.testing.assert_close(found.rates[:, -1], last[0], **NEAR)
    torch.testing.assert_close(found.outputs, readout(wanted), **NEAR)
    assert (network.dt, float(network.tau), network.noise, network.form) == (7.0, 7.0, 0.0, "rate")
    torch.testing.assert_close(network(u).rates, rnn(u)[0], **NEAR)


def test_without_a_read_out_the_outputs_are_the_rates():
    run = from_rnn(torch_rnn())(draw(2, 20, 4))
    torch.testing.assert_close(run.outputs, run.rates, rtol=0, atol=0)


def test_state_dicts_do_as_well_and_weights_are_copied():
    rnn, readout = torch_rnn(nonlinearity="relu"), fill(nn.Linear(9, 3, **F64), seed=2)
    u = draw(2, 20, 4)
    wanted = readout(rnn(u)[0])
    network = from_rnn(rnn.state_dict(), readout.state_dict(), nonlinearity="relu")
    fill(rnn, seed=9)
    fill(readout, seed=9)
    torch.testing.assert_close(network(u).outputs, wanted, **NEAR)
    assert from_rnn(rnn.state_dict()).nonlinearity_name == "tanh"
    assert all(p.requires_grad and p.is_leaf for p in network.parameters())


def test_float32_stays_float32():
    network = from_rnn(nn.RNN(4, 9), nn.Linear(9, 2))
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_neutral_pathways_leave_the_rnn_what_it_was():
    rnn, u = torch_rnn(), draw(6, 30, 4)
    network = from_rnn(rnn, None, "es-gain-sym", contexts=3, sd=0.0, noise=0.1)
    run = network(u, torch.eye(3).repeat(2, 1), noise=0.0)
    torch.testing.assert_close(run.rates, rnn(u)[0], **NEAR)
    assert network.noise == 0.1


def made(variant, form, nonlinearity="tanh", **options):
    network = CTRNN(
        4, 9, 3, variant, contexts=3, tau=20.0, dt=20.0, form=form, nonlinearity=nonlinearity,
        seed=5, **{"learn_x0": True, **options}, **F64,
    )  # fmt: skip
    return fill(network, spread=0.8)


@pytest.mark.parametrize("form", ["rate", "current"])
@pytest.mark.parametrize("variant", [v for v in variant_ids() if v != "none"])
def test_an_rnn_made_of_a_network_computes_what_it_does_in_a_context(variant, form):
    network = made(variant, form)
    # Entries of both signs, so that some gains are negative, too.
    context = Contexts(2 * draw(3, seed=6), draw(3, seed=7))
    rnn, readout, start = to_rnn(network, context)
    u = draw(5, 60, 4)
    rows = Contexts(context.excitability.expand(5, 3), context.synaptic.expand(5, 3))
    run = network(u, rows, noise=0.0)
    rates, _ = rnn(u, start.expand(1, 5, -1).contiguous())
    torch.testing.assert_close(rates, run.rates, **NEAR)
    torch.testing.assert_close(readout(rates), run.outputs, **NEAR)
    elsewhere, _, _ = to_rnn(network, torch.zeros(3))
    assert (elsewhere(u)[0] - rates).abs().max() > 1e-3


@pytest.mark.parametrize("form", ["rate", "current"])
def test_relu_sparse_weights_and_dales_law_go_along(form):
    network = CTRNN(
        4, 9, 3, "e-gain", contexts=2, tau=20, dt=20, form=form, nonlinearity="relu",
        density=0.5, excitatory=0.6, seed=5, **F64,
    )  # fmt: skip
    rnn, readout, start = to_rnn(network, torch.eye(2)[1])
    u = draw(5, 40, 4)
    run = network(u, torch.eye(2)[1].expand(5, 2), noise=0.0)
    assert not start.any()
    torch.testing.assert_close(readout(rnn(u)[0]), run.outputs, **NEAR)


def test_there_and_back():
    rnn, readout = torch_rnn(), fill(nn.Linear(9, 3, **F64), seed=2)
    again, read, start = to_rnn(from_rnn(rnn, readout))
    for name in ("weight_ih_l0", "weight_hh_l0"):
        assert torch.equal(getattr(again, name), getattr(rnn, name))
    assert torch.equal(again.bias_ih_l0, rnn.bias_ih_l0 + rnn.bias_hh_l0)
    assert not again.bias_hh_l0.any()
    assert not start.any()
    assert torch.equal(read.weight, readout.weight)
    assert torch.equal(read.bias, readout.bias)


def test_time_constants_per_unit_that_equal_dt_are_no_leak():
    network = CTRNN(4, 9, 3, tau=[20.0] * 9, dt=20.0, noise=0.0, seed=0, **F64)
    u = draw(2, 30, 4)
    rates, _ = to_rnn(network)[0](u)
    torch.testing.assert_close(rates, network(u).rates, **NEAR)


@pytest.mark.parametrize(
    ("rnn", "error", "message"),
    [
        (nn.RNN(4, 9, num_layers=2), ValueError, "one layer .* got 2 layers"),
        (nn.RNN(4, 9, bidirectional=True), ValueError, "got a bidirectional one"),
        (nn.GRU(4, 9), TypeError, r"must be a torch.nn.RNN or its state_dict\(\): got GRU"),
        (nn.GRU(4, 9).state_dict(), ValueError, r"weight_ih_l0 must have shape \(9, 4\).*\(27, 4"),
        (nn.RNN(4, 9, num_layers=2).state_dict(), ValueError, "must have the keys of one layer"),
        ({}, ValueError, "got none"),
        ({"rnn.weight_ih_l0": 0}, ValueError, "take prefixes of a whole model off"),
    ],
)
def test_what_is_no_such_rnn_is_refused(rnn, error, message):
    with pytest.raises(error, match=message):
        from_rnn(rnn)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"readout": nn.RNN(9, 2)}, TypeError, "readout must be a torch.nn.Linear"),
        ({"readout": nn.Linear(8, 2)}, ValueError, r"must read 9 units.*got \(2, 8\)"),
        ({"readout": {"weights": 0}}, ValueError, "keys weight and bias: got weights"),
        ({"tau": 50.0}, TypeError, "tau follows from the rnn"),
        ({"density": 0.5}, TypeError, "density follows from the rnn"),
        ({"nonlinearity": "relu"}, ValueError, "must be the rnn's own, 'tanh': got 'relu'"),
        ({"modulation": "s-full", "contexts": 2}, ValueError, "matrix of its own in place of W"),
    ],
)
def test_options_that_contradict_the_rnn_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        from_rnn(nn.RNN(4, 9), **options)


def test_a_state_dict_has_no_sigmoid():
    with pytest.raises(ValueError, match="must be tanh or relu: got 'sigmoid'"):
        from_rnn(nn.RNN(4, 9).state_dict(), nonlinearity="sigmoid")


@pytest.mark.parametrize(
    ("options", "context", "message"),
    [
        ({"tau": 100.0}, None, r"dt must be tau.*got dt=20 ms with tau=100 ms; a leaky"),
        ({"learn_tau": True}, None, "dt must be tau"),
        ({"nonlinearity": "softplus"}, None, "must be tanh or relu.*got 'softplus'"),
        ({"readout": "potentials"}, None, "readout must be 'rates'.*got 'potentials'"),
        ({"modulation": "e-add"}, None, "context must be given"),
        ({"modulation": "e-add"}, torch.eye(2), r"one context, of shape \(2,\): got \(2, 2\)"),
        ({"modulation": "e-add"}, torch.ones(3), r"got \(3,\)"),
        ({"modulation": "e-add"}, [0.0, float("nan")], "context must be finite"),
    ],
)
def test_networks_that_no_rnn_equals_are_refused(options, context, message):
    network = CTRNN(4, 9, 3, **{"tau": 20.0, "contexts": 2, "seed": 0, **options})
    with pytest.raises(ValueError, match=message):
        to_rnn(network, context)


def test_a_network_must_be_a_network():
    with pytest.raises(TypeError, match="network must be a CTRNN: got RNN"):
        to_rnn(nn.RNN(4, 9))


@pytest.mark.gpu
def test_devices_are_kept():
    network = from_rnn(nn.RNN(4, 9, device="cuda"))
    assert network.device.type == "cuda"
    rnn, readout, start = to_rnn(network)
    assert {rnn.weight_hh_l0.device.type, readout.weight.device.type, start.device.type} == {"cuda"}
