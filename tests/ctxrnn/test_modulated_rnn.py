"""A layer whose context is inferred: the properties of section 15.2, torch's interface, errors."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from ctxrnn import (
    Chain,
    ContextEncoder,
    Gain,
    Hadamard,
    ModulatedRNN,
    ModulatedState,
    _kernel,
    modulation,
    variant_ids,
)

INPUTS, UNITS, CONTEXTS, STEPS, SEQUENCES = 3, 6, 4, 7, 5
SCALED = ("e-add", "e-thr", "e-gain", "e-rank2", "s-sym", "s-asym-1", "s-asym-2", "s-scalar",
          "s-mask", "s-add-1", "es-add-sym", "es-gain-asym-1")  # fmt: skip


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def inputs(seed=0, steps=STEPS, sequences=SEQUENCES):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(steps, sequences, INPUTS, generator=source)


def made(variant="es-gain-sym", layers=1, **options):
    return ModulatedRNN(
        INPUTS, UNITS, layers, variant, contexts=CONTEXTS, seed=3, **{**_spread(variant), **options}
    )


def _spread(variant):
    """Return a spread at which pathways matter, where they have one."""
    return {} if variant in ("none", "s-full") else {"sd": 0.5}


def by_hand(layer, u, r, *, alpha=1.0):
    """Write the equation out for one layer: dense matrices, sequence by sequence, step by step."""
    found = []
    for step in u:
        new = []
        for k in range(len(step)):
            c = layer.encoder(step[k : k + 1], r[k : k + 1])
            circuit = layer.circuit(c)
            dense = circuit.dense_weight()
            w = dense[0] if dense.ndim == 3 else dense
            current = circuit.current.expand(1, layer.units)[0]
            total = w @ r[k] + layer.input_weight @ step[k] + current
            if circuit.threshold is not None:
                total = total - circuit.threshold[0]
            if circuit.gain is not None:
                total = circuit.gain[0] * total
            new.append((1 - alpha) * r[k] + alpha * torch.tanh(total))
        r = torch.stack(new)
        found.append(r)
    return torch.stack(found)


@pytest.mark.parametrize("variant", [v for v in variant_ids() if v != "none"])
@pytest.mark.parametrize("state_term", [False, True])
def test_the_layer_is_its_equation(variant, state_term):
    layer = made(variant, state_term=state_term, alpha=0.7)
    out, last = layer(inputs())
    expected = by_hand(layer.layers[0], inputs(), torch.zeros(SEQUENCES, UNITS), alpha=0.7)
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(last, expected[-1:], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("variant", SCALED)
@pytest.mark.parametrize("layers", [1, 2])
def test_neutral_pathways_are_torchs_layer(variant, layers):
    rnn = nn.RNN(INPUTS, UNITS, layers)
    layer = ModulatedRNN.from_rnn(rnn, variant, contexts=CONTEXTS, sd=0.0)
    u, start = inputs(), torch.randn(layers, SEQUENCES, UNITS)
    found, expected = layer(u, start), rnn(u, start)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-13, rtol=1e-12)
    # So are the gradients of what they share.
    found[0].square().sum().backward()
    expected[0].square().sum().backward()
    for number, one in enumerate(layer.layers):
        for mine, name in (("weight", "weight_hh"), ("input_weight", "weight_ih")):
            theirs = getattr(rnn, f"{name}_l{number}").grad
            torch.testing.assert_close(getattr(one, mine).grad, theirs, atol=1e-12, rtol=1e-10)
        bias = rnn.get_parameter(f"bias_hh_l{number}").grad
        torch.testing.assert_close(one.bias.grad, bias, atol=1e-12, rtol=1e-10)


def test_relu_too():
    rnn = nn.RNN(INPUTS, UNITS, nonlinearity="relu", bias=False, batch_first=True)
    layer = ModulatedRNN.from_rnn(rnn, "e-gain", contexts=2, sd=0.0)
    u = inputs()
    torch.testing.assert_close(layer(u)[0], rnn(u)[0], atol=1e-13, rtol=1e-12)


@pytest.mark.parametrize("variant", ["es-add-sym", "s-gate-2", "e-gain"])
def test_a_constant_context_is_a_plain_layer(variant):
    layer = made(variant)
    (one,) = layer.layers
    one.encoder.A_c.data.zero_()
    one.encoder.a_c.data.copy_(torch.randn(CONTEXTS))
    c = torch.softmax(one.encoder.a_c, 0)[None]
    circuit = one.circuit(c)
    gain = torch.ones(UNITS) if circuit.gain is None else circuit.gain[0]
    rnn = nn.RNN(INPUTS, UNITS)
    dense = circuit.dense_weight()
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(gain[:, None] * (dense[0] if dense.ndim == 3 else dense))
        rnn.weight_ih_l0.copy_(gain[:, None] * one.input_weight)
        rnn.bias_ih_l0.copy_(gain * circuit.current.expand(1, UNITS)[0])
        rnn.bias_hh_l0.zero_()
    torch.testing.assert_close(layer(inputs())[0], rnn(inputs())[0], atol=1e-12, rtol=1e-12)


def _with_input_weights(layer, rows, bias):
    """Return a plain layer of the same W with other input weights."""
    plain = ModulatedRNN(rows.shape[1], UNITS, modulation="none", contexts=CONTEXTS, seed=3)
    with torch.no_grad():
        plain.layers[0].weight.copy_(layer.layers[0].weight)
        plain.layers[0].input_weight.copy_(rows)
        plain.layers[0].bias.copy_(bias)
    return plain


def test_a_drive_adds_nothing_with_a_linear_encoder():
    layer = made("e-add", squash="linear")
    (one,) = layer.layers
    E = next(iter(one.modulation)).E
    plain = _with_input_weights(
        layer, one.input_weight + E @ one.encoder.A_c, one.bias + E @ one.encoder.a_c
    )
    torch.testing.assert_close(layer(inputs())[0], plain(inputs())[0], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("hidden", [None, 5])
def test_a_drive_adds_nothing_with_symbols(hidden):
    layer = made("e-add", squash="sigmoid", encoder_hidden=hidden)
    (one,) = layer.layers
    columns = torch.eye(INPUTS)
    E = next(iter(one.modulation)).E
    plain = _with_input_weights(layer, one.input_weight + E @ one.encoder(columns).mT, one.bias)
    symbols = torch.randint(INPUTS, (STEPS, SEQUENCES))
    u = nn.functional.one_hot(symbols, INPUTS).double()
    torch.testing.assert_close(layer(u)[0], plain(u)[0], atol=1e-12, rtol=1e-12)
    # A gain, the state, or a filter is another matter.
    for other in (
        made("e-gain", encoder_hidden=hidden),
        made("e-add", state_term=True, encoder_hidden=hidden),
        made("e-add", tau_e=3.0, encoder_hidden=hidden),
    ):
        (two,) = other.layers
        pathway = next(iter(two.modulation))
        if hasattr(pathway, "E"):
            rows = two.input_weight + pathway.E @ two.encoder(columns, torch.zeros(1, UNITS)).mT
        else:
            rows = two.input_weight
        differ = other(u)[0] - _with_input_weights(other, rows, two.bias)(u)[0]
        assert differ.abs().max() > 1e-3


def test_every_symbol_has_a_matrix_of_its_own():
    layer = made("s-asym-1")
    (one,) = layer.layers
    symbols = torch.randint(INPUTS, (STEPS, SEQUENCES))
    matrices = one.circuit(one.encoder(torch.eye(INPUTS))).dense_weight()
    r = torch.zeros(SEQUENCES, UNITS)
    for now in symbols:
        current = one.input_weight.mT[now] + one.bias
        r = torch.tanh(torch.einsum("tij,tj->ti", matrices[now], r) + current)
    out, _ = layer(nn.functional.one_hot(symbols, INPUTS).double())
    torch.testing.assert_close(out[-1], r, atol=1e-12, rtol=1e-12)


KINDS = {
    "plain": {},
    "state": {"state_term": True},
    "filtered": {"tau_e": 2.0, "tau_s": 5.0},
    "one filter": {"tau_s": 3.0},
    "state, filtered": {"state_term": True, "tau_e": 2.5},
    "leaky": {"alpha": 0.3, "encoder_hidden": 3, "squash": "tanh"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
def test_chunks_with_a_carried_state_are_the_whole(kind, layers):
    layer = made(layers=layers, **KINDS[kind])
    u = inputs(steps=9)
    whole, end = layer(u)
    state, parts = None, []
    for part in u.split([2, 1, 6]):
        out, state = layer(part, state)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(state, end, atol=1e-12, rtol=1e-12)
    filtered = "filter" in kind
    assert isinstance(end, ModulatedState) == filtered
    if filtered:
        assert (end.excitability is None) == ("tau_e" not in KINDS[kind])
        assert end.hidden.shape == (layers, SEQUENCES, UNITS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_sees_a_later_one(kind):
    layer = made(layers=2, **KINDS[kind])
    u = inputs()
    changed = u.clone()
    changed[4:] += 1.0
    a, b = layer(u)[0], layer(changed)[0]
    assert torch.equal(a[:4], b[:4])
    assert (a[4] - b[4]).abs().min() > 1e-6


def test_a_filter_is_its_recursion():
    layer = made(tau_e=4.0)
    trace = layer.trace(inputs())
    inferred, seen = trace.inferred[0], trace.contexts[0].excitability
    state = inferred[0]
    rate = 1 - torch.exp(torch.tensor(-1 / 4.0))
    for step in range(STEPS):
        state = state + rate * (inferred[step] - state)
        torch.testing.assert_close(seen[step], state)
    assert trace.contexts[0].synaptic is inferred
    torch.testing.assert_close(trace.state.excitability[0], state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["es-gain-sym", "s-gate-2", "s-lowrankW", "none"])
def test_symbols_give_what_their_embeddings_give(kind, variant):
    layer = made(variant, layers=2, **KINDS[kind])
    table = torch.randn(11, INPUTS, requires_grad=True)
    symbols = torch.randint(11, (STEPS, SEQUENCES))
    found, expected = layer.embedded(symbols, table), layer(table[symbols])
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    wanted = [table, *layer.parameters()]
    gradients = [
        torch.autograd.grad(out.cos().sum(), wanted, allow_unused=True)
        for out in (found[0], expected[0])
    ]
    torch.testing.assert_close(*gradients, atol=1e-11, rtol=1e-10)
    a, b = layer.trace_embedded(symbols, table), layer.trace(table[symbols])
    torch.testing.assert_close(a.rates, b.rates, atol=1e-12, rtol=1e-12)
    if variant != "none":
        torch.testing.assert_close(a.inferred, b.inferred, atol=1e-12, rtol=1e-12)


def _gradients(layer, loop, u, start):
    layer.loop = loop
    wanted = [u, start, *layer.parameters()]
    out, _ = layer(u, start)
    return out, torch.autograd.grad(out.sin().sum(), wanted)


@pytest.mark.parametrize("variant", ["none", "es-add-sym", "es-gain-asym-2", "s-gate-1", "e-thr"])
@pytest.mark.parametrize("interpolation", ["outer-linear", "factor-linear"])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "softplus", "sigmoid"])
def test_all_loops_have_the_same_gradient(variant, interpolation, nonlinearity):
    options = {"interpolation": interpolation} if "s-" in variant else {}
    layer = made(variant, 2, alpha=0.6, tau_e=2.0, nonlinearity=nonlinearity, **options)
    u = inputs().requires_grad_()
    start = torch.randn(2, SEQUENCES, UNITS, requires_grad=True)
    plain = _gradients(layer, "plain", u, start)
    covered = _kernel.available() and variant != "e-thr"
    for loop in ("auto", "adjoint", *(["compiled"] if covered else [])):
        found = _gradients(layer, loop, u, start)
        torch.testing.assert_close(found, plain, atol=1e-12, rtol=1e-10)
    if not covered:
        with pytest.raises(RuntimeError, match="compiled loop"):
            _gradients(layer, "compiled", u, start)


@pytest.mark.parametrize("units", [1, 15, 16, 17, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("symbols", [False, True])
def test_the_compiled_loop_at_any_size(units, dtype, symbols):
    steps, sequences = 23, 9
    layer = ModulatedRNN(
        4, units, 1, "es-gain-asym-2", contexts=3, seed=0, sd=0.3, dtype=dtype, alpha=0.8
    )
    source = torch.Generator().manual_seed(1)
    table = torch.randn(5, 4, generator=source).to(dtype).requires_grad_()
    read = torch.randint(5, (steps, sequences), generator=source)
    start = torch.randn(1, sequences, units, generator=source).to(dtype).requires_grad_()
    wanted = [table, start, *layer.parameters()]
    found = []
    for loop in ("compiled", "plain"):
        if loop == "compiled" and not _kernel.available():
            pytest.skip("no compiled loop")
        layer.loop = loop
        out, _ = layer.embedded(read, table, start) if symbols else layer(table[read], start)
        found.append((out, *torch.autograd.grad((out * out.cos()).sum(), wanted)))
    # A rounding error of each of some hundred additions, over the steps.
    size = max(float(value.detach().abs().max()) for value in found[1])
    bound = 200 * steps * torch.finfo(dtype).eps * max(1.0, size)
    for a, b in zip(*found, strict=True):
        assert float((a - b).detach().abs().max()) < bound


def test_without_gradients_nothing_is_kept():
    layer = made()
    with torch.no_grad():
        calm = layer(inputs())[0]
    assert torch.equal(calm, layer(inputs())[0])


def test_the_compiled_loop_reads_any_layout():
    layer = made(batch_first=True)
    u = inputs().transpose(0, 1)
    start = torch.randn(UNITS, SEQUENCES, 1).permute(2, 1, 0)
    assert not start.is_contiguous()
    layer.loop = "plain"
    expected = layer(u, start)[0]
    layer.loop = "auto"
    torch.testing.assert_close(layer(u, start)[0], expected, atol=1e-13, rtol=0)
    table = torch.randn(UNITS, INPUTS).mT.contiguous().mT[:4]
    symbols = torch.randint(4, (SEQUENCES, STEPS))
    out = layer.embedded(symbols, table)[0]
    torch.testing.assert_close(out, layer(table[symbols])[0], atol=1e-13, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_differences(kind):
    layer = ModulatedRNN(2, 3, 1, "es-gain-sym", contexts=2, seed=1, sd=0.4, **KINDS[kind])
    names = [name for name, _ in layer.named_parameters()]

    def run(u, *values):
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, given, (u,))[0]

    u = torch.randn(4, 2, 2, requires_grad=True)
    values = [value.detach().clone().requires_grad_() for value in layer.parameters()]
    torch.autograd.gradcheck(run, (u, *values))


def test_layouts_of_the_input():
    layer = made(layers=2, tau_s=2.0)
    turned = made(layers=2, tau_s=2.0, batch_first=True)
    u = inputs()
    out, state = layer(u)
    other, same = turned(u.transpose(0, 1))
    assert torch.equal(other.transpose(0, 1), out)
    torch.testing.assert_close(same, state, rtol=0, atol=0)
    alone, its = layer(u[:, 2])
    assert alone.shape == (STEPS, UNITS)
    torch.testing.assert_close(alone, out[:, 2], atol=1e-13, rtol=0)
    assert its.hidden.shape == (2, UNITS)
    assert its.synaptic.shape == (2, CONTEXTS)
    again, _ = layer(u[:, 2], its)
    torch.testing.assert_close(again, layer(u, state)[0][:, 2], atol=1e-13, rtol=0)
    trace = turned.trace(u.transpose(0, 1))
    assert trace.inferred[1].shape == (SEQUENCES, STEPS, CONTEXTS)
    given = turned(u.transpose(0, 1), contexts=trace.inferred)
    torch.testing.assert_close(given[0], other, atol=1e-13, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sort", [True, False])
def test_packed_sequences(kind, sort):
    layer = made(layers=2, **KINDS[kind])
    lengths = [7, 5, 5, 2, 1] if sort else [2, 7, 1, 5, 5]
    several = [inputs(seed=k, steps=n, sequences=1)[:, 0] for k, n in enumerate(lengths)]
    start = torch.randn(2, SEQUENCES, UNITS)
    packed = pack_sequence(several, enforce_sorted=sort)
    out, state = layer(packed, start)
    rnn = nn.RNN(INPUTS, UNITS, 2)
    like, _ = rnn(packed)
    assert torch.equal(out.batch_sizes, like.batch_sizes)
    assert sort or torch.equal(out.unsorted_indices, like.unsorted_indices)
    padded, found = pad_packed_sequence(out)
    assert found.tolist() == lengths
    hidden = state.hidden if isinstance(state, ModulatedState) else state
    for k, one in enumerate(several):
        alone, its = layer(one, start[:, k])
        torch.testing.assert_close(padded[: lengths[k], k], alone, atol=1e-13, rtol=0)
        last = its.hidden if isinstance(its, ModulatedState) else its
        torch.testing.assert_close(hidden[:, k], last, atol=1e-13, rtol=0)
        if isinstance(its, ModulatedState) and its.excitability is not None:
            torch.testing.assert_close(
                state.excitability[:, k], its.excitability, atol=1e-13, rtol=0
            )


def test_dropout_acts_between_layers_in_training():
    layer = made(layers=2, dropout=0.5)
    u = inputs()
    layer.eval()
    calm = layer.trace(u)
    plain = made(layers=2)
    assert torch.equal(calm.rates[-1], plain(u)[0])
    layer.train()
    torch.manual_seed(0)
    noisy = layer.trace(u)
    # The first layer, and what is returned of the last, lose nothing.
    assert torch.equal(noisy.rates[0], calm.rates[0])
    assert not torch.equal(noisy.rates[1], calm.rates[1])
    assert (noisy.rates[1] != 0).all()
    torch.manual_seed(0)
    kept = nn.functional.dropout(calm.rates[0], 0.5)
    second = plain.layers[1].run(kept, plain._start(None, SEQUENCES, False)[1])
    assert torch.equal(noisy.rates[1], second.rates)
    assert torch.equal(made(dropout=0.5)(u)[0], made()(u)[0])


def test_given_contexts_take_the_encoders_place():
    layer = made(layers=2)
    u = inputs()
    trace = layer.trace(u)
    own = layer(u, contexts=trace.inferred)
    torch.testing.assert_close(own[0], trace.rates[-1], atol=1e-13, rtol=0)
    swapped = trace.inferred[0].roll(1, dims=1)
    other = layer(u, contexts=(swapped, None))[0]
    assert (other - trace.rates[-1]).abs().max() > 1e-3
    first = layer.layers[0].run(u, layer._start(None, SEQUENCES, False)[0], swapped)
    second = layer.layers[1].run(first.rates, layer._start(None, SEQUENCES, False)[1])
    torch.testing.assert_close(other, second.rates, atol=1e-13, rtol=0)
    # With a state term, too, which is then not seen.
    stateful = made(state_term=True)
    assert stateful(u, contexts=trace.inferred[0])[0].shape == (STEPS, SEQUENCES, UNITS)


@pytest.mark.parametrize(
    ("variant", "kappa", "options"),
    [
        ("e-add", 1, {}),
        ("es-gain-sym", 2, {}),
        ("es-add-asym-2", 5, {}),
        ("es-gain-sym", 2, {"state_term": True}),
        ("e-gain", 1, {"encoder_hidden": 9}),
    ],
)
def test_parameters_are_counted_as_in_the_specification(variant, kappa, options):
    N, I, K = UNITS, INPUTS, CONTEXTS  # noqa: E741
    layer = made(variant, **options)
    H = options.get("encoder_hidden")
    encoder = K * (I + 1) if H is None else H * (I + 1) + K * (H + 1)
    encoder += K * N if options.get("state_term") else 0
    assert layer.parameter_count() == N**2 + N * (I + 1) + kappa * N * K + encoder


@pytest.mark.parametrize(
    ("variant", "interpolation", "products", "mixing"),
    [
        ("s-sym", "outer-linear", 1 + CONTEXTS, 0),
        ("s-sym", "factor-linear", 2, CONTEXTS * UNITS),
        ("s-asym-2", "outer-linear", 1 + 2 * CONTEXTS, 0),
        ("s-asym-2", "factor-linear", 3, 4 * CONTEXTS * UNITS),
        ("s-gate-1", "factor-linear", 1, 2 * CONTEXTS * UNITS),
    ],
)
def test_multiply_adds_are_counted(variant, interpolation, products, mixing):
    layer = made(variant, interpolation=interpolation)
    read = UNITS * INPUTS + CONTEXTS * INPUTS
    assert layer.multiply_adds(embedded=True) == products * UNITS**2
    # Where contexts are mixed by a product of matrices it counts.
    assert layer.multiply_adds() == products * UNITS**2 + read + mixing


def test_a_seed_makes_the_layer():
    a, b = made(layers=2), made(layers=2)
    for (name, mine), (_, other) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        assert torch.equal(mine, other), name
    c = ModulatedRNN(INPUTS, UNITS, 2, "e-add", contexts=CONTEXTS, seed=3)
    assert torch.equal(a.layers[1].weight, c.layers[1].weight)
    assert not torch.equal(a.layers[0].weight, a.layers[1].weight)
    d = ModulatedRNN(INPUTS, UNITS, 2, "e-add", contexts=CONTEXTS, seed=4)
    assert not torch.equal(d.layers[0].weight, c.layers[0].weight)
    span = UNITS**-0.5
    for values in (a.layers[0].weight, a.layers[0].input_weight):
        assert values.abs().max() <= span
    assert a.layers[0].bias.abs().max() <= 2 * span


def test_pathways_start_near_neutral():
    layer = ModulatedRNN(2, 400, modulation="es-gain-sym", contexts=8, seed=0)
    gain, scaling = layer.layers[0].modulation
    # 3,200 numbers each: the standard error of a spread of 0.1 is 0.1 / sqrt(6400).
    for values in (gain.Gamma, scaling.h):
        assert float(values.detach().std()) == pytest.approx(0.1, abs=5 * 0.1 / 6400**0.5)
    given = ModulatedRNN(2, 400, modulation="es-gain-sym", contexts=8, seed=0, sd_e=0.2)
    assert float(given.layers[0].modulation.pathways[0].Gamma.detach().std()) > 0.19
    full = ModulatedRNN(2, 400, modulation="s-full", contexts=2, seed=0)
    plain = ModulatedRNN(2, 400, modulation="none", seed=0)
    spread = float(plain.layers[0].weight.detach().std())
    (pathway,) = full.layers[0].modulation
    assert float(pathway.W.detach().std()) == pytest.approx(spread, rel=0.01)


def test_it_is_a_module():
    layer = made(layers=2, tau_e=2.0)
    other = made(layers=2, tau_e=2.0)
    with torch.no_grad():
        for value in layer.parameters():
            value.add_(0.1)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(inputs())[0], layer(inputs())[0])
    assert torch.equal(copy.deepcopy(layer)(inputs())[0], layer(inputs())[0])
    single = copy.deepcopy(layer).float()
    assert single(inputs().float())[0].dtype == torch.float32
    assert "modulation='es-gain-sym'" in repr(layer)
    built = ModulatedRNN(INPUTS, UNITS, contexts=2, dtype=torch.float32)
    assert built.layers[0].weight.dtype == torch.float32


def test_modules_as_pathways_and_encoder():
    chain = Chain(Gain(UNITS, CONTEXTS, seed=0), Hadamard(UNITS, CONTEXTS, symmetric=True, seed=0))
    encoder = ContextEncoder(INPUTS, CONTEXTS, squash="sigmoid", seed=0)
    layer = ModulatedRNN(INPUTS, UNITS, 1, chain, contexts=CONTEXTS, encoder=encoder)
    assert layer.layers[0].encoder is encoder
    assert layer(inputs())[0].shape == (STEPS, SEQUENCES, UNITS)
    one = ModulatedRNN(INPUTS, UNITS, 1, Gain(UNITS, CONTEXTS, seed=0), contexts=CONTEXTS)
    assert len(one.layers[0].modulation) == 1


@pytest.mark.parametrize("squash", ["softmax", "sigmoid", "tanh", "linear"])
def test_encoders(squash):
    encoder = ContextEncoder(INPUTS, CONTEXTS, squash=squash, hidden=5, units=UNITS, seed=0)
    encoder.a_c.data.normal_()
    encoder.a_1.data.normal_()
    u, r = torch.randn(8, INPUTS), torch.randn(8, UNITS)
    drive = torch.tanh(u @ encoder.A_1.mT + encoder.a_1) @ encoder.A_c.mT + encoder.a_c
    drive = drive + r @ encoder.A_h.mT
    expected = {
        "softmax": drive.exp() / drive.exp().sum(-1, keepdim=True),
        "sigmoid": 1 / (1 + (-drive).exp()),
        "tanh": torch.tanh(drive),
        "linear": drive,
    }[squash]
    torch.testing.assert_close(encoder(u, r), expected)
    assert encoder.bounded == (squash != "linear")
    again = ContextEncoder(**encoder.config(), seed=0)
    assert torch.equal(again.A_h, encoder.A_h)


def test_an_unbounded_context_that_diverges_is_told():
    layer = made("s-sym", squash="linear", nonlinearity="relu")
    with pytest.raises(FloatingPointError, match=r"the state of layer 0 left the numbers at step"):
        layer(1e80 * inputs(steps=40))
    with pytest.raises(FloatingPointError, match="bounded encoder"):
        made("s-sym", squash="linear")(1e308 * inputs())
    # Bounded ones do not, however large the input.
    assert torch.isfinite(made("s-sym")(1e80 * inputs())[0]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(inputs()[..., :2]), r"input must have shape \(time, sequence, input=3\)"),
        (lambda m: m(inputs()[:0]), "one sequence and one step at least"),
        (lambda m: m(inputs()[:, :0]), "one sequence and one step at least"),
        (lambda m: m(inputs().float()), "input must be torch.float64"),
        (lambda m: m(inputs(), torch.zeros(1, 2, UNITS)), r"state \(hidden\) must have shape"),
        (lambda m: m(inputs()[:, 0], torch.zeros(1, 1, UNITS)), r"= \(1, 6\)"),
        (
            lambda m: m(inputs(), ModulatedState(torch.zeros(1, 5, UNITS), torch.zeros(1, 5, 2))),
            r"state \(excitability\) must have shape .* = \(1, 5, 4\)",
        ),
        (lambda m: m(inputs(), contexts=torch.zeros(7, 5, 2)), "contexts must have 7 steps"),
        (lambda m: m(inputs(), contexts=[None, None]), "contexts must be 1, one per layer: got 2"),
        (lambda m: m.embedded(torch.zeros(2, 2), torch.zeros(3, 3)), "symbols must be integers"),
        (
            lambda m: m.embedded(torch.full((2, 2), 3), torch.zeros(3, 3)),
            "symbols must be 0 to 2: got 3 to 3",
        ),
        (
            lambda m: m.embedded(torch.zeros(2, 2).long(), torch.zeros(3, 2)),
            r"table must have shape \(symbol, input=3\)",
        ),
        (
            lambda m: m(pack_padded_sequence(torch.zeros(3, 2, 5), [3, 2])),
            "input must have 3 channels: got 5",
        ),
        (lambda m: setattr(m, "loop", "fast"), "loop must be one of auto, compiled"),
    ],
)  # fmt: skip
def test_calls_that_do_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call(made())


def test_a_sequence_of_one_step():
    out, state = made(tau_e=2.0)(inputs(steps=1))
    assert torch.equal(out, state.hidden)


def test_the_adjoint_loop_says_what_it_does_not_cover():
    layer = made(state_term=True)
    layer.loop = "adjoint"
    with pytest.raises(RuntimeError, match="depends on the state"):
        layer(inputs())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: made("e-ad"), "unknown variant 'e-ad'"),
        (lambda: made(squash="soft"), "unknown squash 'soft'. Did you mean 'softmax'"),
        (lambda: made(nonlinearity="gelu"), "unknown nonlinearity"),
        (lambda: made(alpha=0.0), r"alpha must be in \(0, 1\]"),
        (lambda: made(tau_e=-1.0), "tau_e must be zero or more"),
        (lambda: made(dropout=1.5), "dropout must lie in"),
        (lambda: ModulatedRNN(3, 6, 0), "num_layers must be at least 1"),
        (lambda: ModulatedRNN(3, 0), "hidden_size must be at least 1"),
        (lambda: ModulatedRNN(3, 6, contexts=0), "contexts must be at least 1"),
        (lambda: ModulatedRNN(3, 6, dtype=torch.float16), "dtype must be"),
        (lambda: ModulatedRNN(3, 6, 1, Gain(5, 8)), "must have units=6, as the layer has: got 5"),
        (lambda: ModulatedRNN(3, 6, 1, Gain(6, 8), sd=0.1), "for a modulation given by id"),
        (lambda: ModulatedRNN(3, 6, 2, Gain(6, 8)), "by name for several layers"),
        (
            lambda: ModulatedRNN(3, 6, contexts=4, encoder=ContextEncoder(2, 4)),
            "must turn 3 inputs into 4 contexts: got one of 2 and 4",
        ),
        (
            lambda: ModulatedRNN(3, 6, encoder=ContextEncoder(3, 8), squash="tanh"),
            "the encoder's own",
        ),
        (
            lambda: ModulatedRNN.from_rnn(nn.RNN(3, 6, bidirectional=True)),
            "forward in time only",
        ),
        (lambda: ModulatedRNN.from_rnn(nn.RNN(3, 6), "s-full"), "in place of W"),
        (lambda: made(ranks=3), "unknown option"),
    ],
)
def test_layers_that_cannot_be(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_module_chain_is_used_as_it_is():
    chain = modulation("s-sym", UNITS, CONTEXTS, seed=0)
    layer = ModulatedRNN(INPUTS, UNITS, 1, chain, contexts=CONTEXTS)
    assert layer.layers[0].modulation is chain


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_symbols_of_any_integer_type(kind):
    layer, table = made(), torch.randn(7, INPUTS)
    symbols = torch.randint(7, (STEPS, SEQUENCES))
    expected = layer.embedded(symbols, table)[0]
    assert torch.equal(layer.embedded(symbols.to(kind), table)[0], expected)


@pytest.mark.parametrize("variant", ["e-gain", "es-gain-sym", "s-gate-1", "e-add"])
def test_under_autocast_it_is_near_what_it_is_without(variant):
    layer = made(variant).float()
    u = inputs(steps=30).float()
    expected = layer(u)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(u)[0]
        out.float().sum().backward()
    assert out.dtype == torch.float32
    # bfloat16 has 8 bits; errors are carried through the steps.
    assert float((out - expected).detach().abs().max()) < 0.1
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)


def test_padding_of_packed_sequences_is_not_judged():
    layer = ModulatedRNN(1, 1, modulation="none", nonlinearity="relu", seed=0)
    with torch.no_grad():
        layer.layers[0].weight.fill_(4.0)
        layer.layers[0].input_weight.fill_(1.0)
        layer.layers[0].bias.fill_(1.0)
    several = [torch.full((600, 1), -10.0), torch.ones(3, 1)]
    out, last = layer(pack_sequence(several))
    assert last[0, :, 0].tolist() == [0.0, 42.0]
    padded, _ = pad_packed_sequence(out)
    assert torch.isfinite(padded).all()
    with pytest.raises(FloatingPointError, match="left the numbers at step"):
        layer(torch.ones(600, 1))


def test_states_and_inputs_of_other_kinds():
    layer = made(tau_e=2.0)
    _, state = layer(inputs())
    plain = layer(inputs(), state)[0]
    assert torch.equal(layer(inputs(), tuple(part for part in state))[0], plain)
    with pytest.raises(TypeError, match="state must be a tensor or a ModulatedState: got dict"):
        layer(inputs(), {})
    with pytest.raises(ValueError, match=r"input must be torch\.float64, as the layer is: got"):
        layer(pack_sequence([inputs().float()[:, 0]]))
    trace = layer.trace(inputs())
    single = layer(inputs(), contexts=trace.inferred[0].float())[0]
    torch.testing.assert_close(single, trace.rates[0], atol=1e-6, rtol=0)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.RNN: got GRU"):
        ModulatedRNN.from_rnn(nn.GRU(3, 6))
