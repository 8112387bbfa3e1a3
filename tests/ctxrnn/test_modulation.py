"""Pathways against the formulas of the specification, written out by loops; more of its identities.

`test_identities.py` holds the identities in their plain form; here are the other forms of them.
"""

import dataclasses

import numpy as np
import pytest
import torch

from ctxrnn import (
    CTRNN,
    AbstractModulation,
    Additive,
    Chain,
    Contexts,
    Drive,
    Gain,
    Hadamard,
    Masks,
    Recurrence,
    Threshold,
    TrainConfig,
    TrialBatch,
    _kernel,
    _stacked,
    load,
    modulation,
    save,
    variant_ids,
)
from ctxrnn._step import Prepared, add_gradient

UNITS, CONTEXTS, TRIALS = 5, 4, 6
# At most a few hundred additions of terms near 1, each rounded to 1.1e-16.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
SYNAPTIC_CHANGES = ("s-sym", "s-asym-2", "s-gate-2", "s-lowrankW", "s-mask", "s-add-2", "s-scalar")
MORE = (
    "e-rank3",
    "s-asym-3",
    "s-gate-3",
    "s-add-3",
    "es-thr-lowrankW",
    "es-gain-mask",
    "es-rank2-add-2",
    "es-add-scalar",
    "es-thr-full",
)
FACTORS = {"interpolation": "factor-linear"}
CASES = [
    *((variant, {}) for variant in (*variant_ids(), *MORE)),
    *((variant, FACTORS) for variant in ("s-sym", "s-asym-2", "s-gate-2", "s-add-2", "es")),
    *((variant, {"nonnegative": True}) for variant in ("s-sym", "s-asym-2", "s-gate-2")),
    ("s-sym", {"nonnegative": True, **FACTORS}),
    ("s-mask", {"learn": True, "masks": 2}),
    ("s-lowrankW", {"rank": 3}),
    ("e-gain", {"positive": True}),
]
LABELS = ["-".join([variant, *map(str, options.values())]) for variant, options in CASES]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(variant, options=None, **arguments):
    settings = {"contexts": CONTEXTS, "noise": 0.0, "seed": 3, "dtype": torch.float64}
    network = CTRNN(2, UNITS, 2, variant, **{**settings, **arguments}, **(options or {}))
    with torch.no_grad():
        network.bias.copy_(0.3 * random(UNITS, seed=1))
        network.output_bias.copy_(random(2, seed=2))
        for name, parameter in network.modulation.named_parameters():
            if name.endswith("a0"):
                parameter.copy_(random(*parameter.shape, seed=12))
    return network


def contexts(kind):
    one_hot = torch.eye(CONTEXTS, dtype=torch.float64)[[2, 0, 3, 3, 1, 0]]
    return {
        "one-hot": one_hot,
        "soft": torch.softmax(random(TRIALS, CONTEXTS, seed=4), -1),
        "two active": 0.7 * one_hot + 0.3 * one_hot.roll(1, 0),
        "negative": random(TRIALS, CONTEXTS, seed=5),
        "zero": torch.zeros(TRIALS, CONTEXTS, dtype=torch.float64),
        "some zero": one_hot * torch.tensor([[1.0], [0], [1], [0], [2], [-1]]),
    }[kind]


KINDS = ("one-hot", "soft", "two active", "negative", "zero", "some zero")


def numbers(pathway):
    return {name: value.numpy() for name, value in pathway.state_dict().items()}


def low_rank(pathway, c):
    """sum_k c_k sum_rho m n^T, or the factors mixed first."""
    values = numbers(pathway)
    post = values.get("h", values.get("m"))
    pre = values.get("h", values.get("n"))
    if getattr(pathway, "nonnegative", False):
        post, pre = np.log1p(np.exp(post)), np.log1p(np.exp(pre))
    total = np.zeros((UNITS, UNITS))
    for rho in range(pathway.rank):
        if pathway.interpolation == "factor-linear":
            left = sum(c[k] * post[k, rho] for k in range(CONTEXTS))
            right = sum(c[k] * pre[k, rho] for k in range(CONTEXTS))
            total += np.outer(left, right)
        else:
            for k in range(CONTEXTS):
                total += c[k] * np.outer(post[k, rho], pre[k, rho])
    return total


def weight_by_loops(pathway, base, c):
    values = numbers(pathway)
    kind = type(pathway).__name__
    if kind == "Hadamard":
        ones = 0.0 if pathway.gated else 1.0
        return base * (ones + low_rank(pathway, c))
    if kind == "Additive":
        return base + low_rank(pathway, c)
    if kind == "LowRank":
        s = 1 / (1 + np.exp(-(values["A"] @ c + values["a0"])))
        return values["U"] @ np.diag(s) @ values["V"].T
    if kind == "Masks":
        z = values["A"] @ c
        return base * (1 + sum(z[i] * values["M"][i] for i in range(pathway.masks)))
    if kind == "Scalar":
        return (1 + values["f"] @ c) * base
    if kind == "Full":
        return sum(c[k] * values["W"][k] for k in range(CONTEXTS))
    return base


def excitability_by_loops(chain, c):
    drive, threshold, gain = np.zeros(UNITS), np.zeros(UNITS), np.ones(UNITS)
    for pathway in chain:
        values = numbers(pathway)
        kind = type(pathway).__name__
        if kind == "Drive":
            matrix = values["E"] if pathway.rank is None else values["U"] @ values["A"]
            drive = drive + matrix @ c
        elif kind == "Threshold":
            threshold = threshold + values["Theta"] @ c
        elif kind == "Gain":
            change = values["Gamma"] @ c
            gain = gain * (np.exp(change) if pathway.positive else 1 + change)
    return drive, threshold, gain


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("variant", "options"), CASES, ids=LABELS)
def test_circuit_is_the_formula_of_the_specification(variant, options, kind):
    network, context, rates = make(variant, options), contexts(kind), random(TRIALS, UNITS, seed=6)
    circuit = network.circuit(context)
    propagated, dense = circuit.propagate(rates), circuit.dense_weight()
    excited = circuit.excite(rates)
    plain = None if network.weight is None else network.weight.detach().numpy()
    for trial in range(TRIALS):
        c = context[trial].numpy()
        weight = plain
        for pathway in network.modulation:
            weight = weight_by_loops(pathway, weight, c)
        drive, threshold, gain = excitability_by_loops(network.modulation, c)
        r = rates[trial].numpy()
        got = dense if dense.ndim == 2 else dense[trial]
        current = circuit.current if circuit.current.ndim == 1 else circuit.current[trial]
        np.testing.assert_allclose(got.detach().numpy(), weight, **EXACT)
        np.testing.assert_allclose(propagated[trial].detach().numpy(), weight @ r, **EXACT)
        bias = network.bias.detach().numpy()
        np.testing.assert_allclose(current.detach().numpy(), bias + drive, **EXACT)
        np.testing.assert_allclose(excited[trial].detach().numpy(), gain * (r - threshold), **EXACT)


@pytest.mark.parametrize(
    ("variant", "options"), [case for case in CASES if case[1]], ids=LABELS[-12:]
)
def test_gradient_of_the_context_is_right_also_at_zero_entries(variant, options):
    network, rates = make(variant, options), random(TRIALS, UNITS, seed=6)

    def run(c):
        circuit = network.circuit(c)
        return circuit.propagate(rates, circuit.current.expand_as(rates)) + circuit.excite(rates)

    assert torch.autograd.gradcheck(run, contexts("some zero").clone().requires_grad_())


@pytest.mark.parametrize("variant", ["s-sym", "s-gate-2", "s-asym-2", "es"])
def test_zero_context_reaches_every_gradient_of_training(variant):
    network, context = make(variant), contexts("zero")
    inputs = random(TRIALS, 3, 2)
    found = {}
    for loop in ("auto", "adjoint", "plain"):
        network.loop = loop
        network.zero_grad()
        outputs = network(inputs, context).outputs
        outputs.square().sum().backward()
        found[loop] = [outputs.detach(), *(p.grad for p in network.parameters())]
    for loop in ("auto", "adjoint"):
        for one, other in zip(found[loop], found["plain"], strict=True):
            wanted = torch.zeros_like(other) if one is None else one
            torch.testing.assert_close(wanted, other, **EXACT)


def test_each_pathway_sees_its_own_context():
    network = make("es-add-sym")
    first, second = contexts("soft"), contexts("one-hot")
    circuit = network.circuit(Contexts(excitability=first, synaptic=second))
    drive, scaling = network.modulation
    torch.testing.assert_close(circuit.current, network.bias + first @ drive.E.mT, **EXACT)
    for trial in range(TRIALS):
        weight = weight_by_loops(scaling, network.weight.detach().numpy(), second[trial].numpy())
        np.testing.assert_allclose(circuit.dense_weight()[trial].detach().numpy(), weight, **EXACT)


@pytest.mark.parametrize("kind", ["one-hot", "soft"])
def test_pathways_of_one_kind_compose_in_order(kind):
    sizes = (UNITS, CONTEXTS)
    chain = Chain(
        Drive(*sizes, seed=1),
        Drive(*sizes, rank=2, seed=2),
        Gain(*sizes, seed=3),
        Gain(*sizes, positive=True, seed=4),
        *modulation("es-thr-mask", *sizes, seed=5),
        *modulation("s-add-2", *sizes, seed=6),
        *modulation("s-asym-2", *sizes, seed=7),
        *modulation("es-thr-gate-1", *sizes, seed=8),
        *modulation("s-scalar", *sizes, seed=9),
        *modulation("s-add-1", *sizes, seed=10),
    ).double()
    network, context, rates = make(chain), contexts(kind), random(TRIALS, UNITS, seed=6)
    circuit = network.circuit(context)
    for trial in range(TRIALS):
        c, weight = context[trial].numpy(), network.weight.detach().numpy()
        for pathway in chain:
            weight = weight_by_loops(pathway, weight, c)
        drive, threshold, gain = excitability_by_loops(chain, c)
        got = circuit.dense_weight()[trial].detach().numpy()
        np.testing.assert_allclose(got, weight, **EXACT)
        got = circuit.propagate(rates, circuit.current)[trial].detach().numpy()
        wanted = weight @ rates[trial].numpy() + network.bias.detach().numpy() + drive
        np.testing.assert_allclose(got, wanted, **EXACT)
        wanted = gain * (rates[trial].numpy() - threshold)
        got = circuit.excite(rates)[trial].detach().numpy()
        np.testing.assert_allclose(got, wanted, **EXACT)


def run_both(one, other, context=None, **arguments):
    inputs = random(TRIALS, 7, 2, seed=8)
    context = contexts("one-hot") if context is None else context
    return one(inputs, context, **arguments), other(inputs, context, **arguments)


def share(source, target):
    """Give `target` the plain parameters of `source`."""
    with torch.no_grad():
        for name in ("weight", "input_weight", "bias", "output_weight", "output_bias"):
            if getattr(source, name) is not None and getattr(target, name) is not None:
                getattr(target, name).copy_(getattr(source, name))
    return target


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("time", ["constant", "varying"])
def test_identity_1_rule_inputs_are_the_additive_drive(form, time):
    network = make("e-add", form=form)
    rule = CTRNN(2 + CONTEXTS, UNITS, 2, noise=0.0, form=form, dtype=torch.float64)
    with torch.no_grad():
        for name in ("weight", "bias", "output_weight", "output_bias"):
            getattr(rule, name).copy_(getattr(network, name))
        drive = network.modulation.pathways[0].E
        rule.input_weight.copy_(torch.cat([network.input_weight, drive], 1))
    inputs, context = random(TRIALS, 7, 2, seed=8), contexts("soft")
    if time == "varying":
        context = random(TRIALS, 7, CONTEXTS, seed=9)
    over_time = context if time == "varying" else context.unsqueeze(1).expand(-1, 7, -1)
    got = network(inputs, context)
    wanted = rule(torch.cat([inputs, over_time], -1))
    torch.testing.assert_close(got.potentials, wanted.potentials, **EXACT)
    torch.testing.assert_close(got.outputs, wanted.outputs, **EXACT)


@pytest.mark.parametrize(("shifted", "driven"), [("e-thr", "e-add"), ("es-thr-sym", "es-add-sym")])
def test_identity_2_static_threshold_is_a_shifted_drive(shifted, driven):
    with_threshold = make(shifted)
    with_drive = share(with_threshold, make(driven))
    theta = with_threshold.modulation.pathways[0].Theta
    with torch.no_grad():
        with_drive.modulation.pathways[0].E.copy_(-theta)
    context, start = contexts("soft"), random(TRIALS, UNITS, seed=10)
    inputs = random(TRIALS, 7, 2, seed=8)
    shift = context @ theta.mT
    x = with_threshold(inputs, context, start)
    y = with_drive(inputs, context, start - shift)
    torch.testing.assert_close(x.potentials - shift.unsqueeze(1), y.potentials, **EXACT)
    torch.testing.assert_close(x.rates, y.rates, **EXACT)
    torch.testing.assert_close(x.outputs, y.outputs, **EXACT)


@pytest.mark.parametrize("positive", [True, False])
def test_identity_4_gain_of_relu_scales_what_it_sends(positive):
    network = make("e-gain", {"positive": positive, "sd": 0.1}, nonlinearity="relu", g=2.0)
    inputs = random(1, 9, 2, seed=8)
    for c in contexts("two active"):
        change = network.modulation.pathways[0].Gamma @ c
        gain = change.exp() if positive else 1 + change
        assert (gain > 0).all()
        scaled = share(network, make("none", nonlinearity="relu"))
        with torch.no_grad():
            scaled.weight.mul_(gain)
            scaled.output_weight.mul_(gain)
        got, wanted = network(inputs, c[None]), scaled(inputs)
        assert (wanted.rates > 0).any()
        torch.testing.assert_close(got.potentials, wanted.potentials, **EXACT)
        torch.testing.assert_close(got.rates, gain * wanted.rates, **EXACT)
        torch.testing.assert_close(got.outputs, wanted.outputs, **EXACT)


@pytest.mark.parametrize("nonlinearity", ["tanh", "softplus"])
def test_identity_4_gain_in_rate_form_scales_what_arrives(nonlinearity):
    chain = Chain(Drive(UNITS, CONTEXTS, seed=1), Gain(UNITS, CONTEXTS, seed=2)).double()
    arguments = {"noise": 0.0, "form": "rate", "nonlinearity": nonlinearity}
    arguments["dtype"] = torch.float64
    # The last inputs reach one neuron each, as its noise does.
    network = CTRNN(2 + UNITS, UNITS, 2, chain, seed=3, **arguments)
    scaled = CTRNN(2 + UNITS, UNITS, 2, seed=3, **arguments)
    drive, gamma = chain.pathways[0].E, chain.pathways[1].Gamma
    inputs = random(1, 9, 2 + UNITS, seed=8)
    for c in contexts("soft"):
        gain = 1 + gamma @ c
        with torch.no_grad():
            network.input_weight[:, 2:] = torch.eye(UNITS)
            scaled.weight.copy_(gain[:, None] * network.weight)
            scaled.input_weight.copy_(gain[:, None] * network.input_weight)
            scaled.bias.copy_(gain * (network.bias + drive @ c))
        got, wanted = network(inputs, c[None]), scaled(inputs)
        torch.testing.assert_close(got.rates, wanted.rates, **EXACT)
        torch.testing.assert_close(got.outputs, wanted.outputs, **EXACT)


def jacobian(network, circuit, x, u):
    return torch.stack(
        [
            torch.autograd.functional.jacobian(
                lambda state: network.velocity(circuit, state[None], u)[0], row
            )
            for row in x
        ]
    )


def two_contexts(network):
    one = contexts("soft")[:1]
    other = contexts("negative")[1:2]
    return one, other, network.circuit(one), network.circuit(other)


def test_identity_6_in_rate_form_a_drive_changes_the_field_by_the_state():
    network = make("e-add", form="rate")
    _, _, first, second = two_contexts(network)
    x, u = random(TRIALS, UNITS, seed=6), random(2, seed=7)
    difference = network.velocity(first, x, u) - network.velocity(second, x, u)
    assert (difference.std(0) > 1e-2 * difference.abs().max(0).values).all()


def test_identity_6_threshold_translates_in_shifted_coordinates():
    network = make("e-thr")
    theta = network.modulation.pathways[0].Theta
    one, other, first, second = two_contexts(network)
    y, u = 2 * random(TRIALS, UNITS, seed=6), random(2, seed=7)
    difference = network.velocity(first, y + one @ theta.mT, u) - network.velocity(
        second, y + other @ theta.mT, u
    )
    wanted = -(one - other) @ theta.mT / 100.0
    torch.testing.assert_close(difference, wanted.expand_as(difference), **EXACT)


@pytest.mark.parametrize("variant", [*SYNAPTIC_CHANGES, "s-full"])
def test_identity_6_synapses_deform_the_vector_field(variant):
    network = make(variant)
    _, _, first, second = two_contexts(network)
    x, u = 2 * random(TRIALS, UNITS, seed=6), random(2, seed=7)
    x[0] = 0
    change = (first.dense_weight() - second.dense_weight()).squeeze(0) / 100.0
    assert change.abs().max() > 1e-5
    difference = network.velocity(first, x, u) - network.velocity(second, x, u)
    torch.testing.assert_close(difference, torch.tanh(x) @ change.mT, **EXACT)
    torch.testing.assert_close(difference[0], torch.zeros_like(difference[0]), **EXACT)
    got = jacobian(network, first, x, u) - jacobian(network, second, x, u)
    torch.testing.assert_close(got, change * (1 - torch.tanh(x) ** 2).unsqueeze(-2), **EXACT)


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", [*SYNAPTIC_CHANGES, "s-full"])
def test_identity_7_synaptic_context_is_invisible_at_rest(variant, form):
    network = make(variant, form=form)
    with torch.no_grad():
        network.bias.zero_()
    context, rest = contexts("negative"), torch.zeros(TRIALS, UNITS, dtype=torch.float64)
    silence = torch.zeros(TRIALS, 5, 2, dtype=torch.float64)
    assert (network.velocity(network.circuit(context), rest, silence[:, 0]) == 0).all()
    assert (network(silence, context).potentials == 0).all()


NEUTRAL = [
    ("e-add", {}, {"E": 0.0}),
    ("e-thr", {}, {"Theta": 0.0}),
    ("e-gain", {}, {"Gamma": 0.0}),
    ("e-gain", {"positive": True}, {"Gamma": 0.0}),
    ("e-rank2", {}, {"A": 0.0}),
    ("s-sym", {}, {"h": 0.0}),
    ("s-asym-2", {}, {"m": 0.0}),
    ("s-asym-2", {}, {"n": 0.0}),
    ("s-asym-2", FACTORS, {"m": 0.0}),
    ("s-gate-1", {}, {"m": 1.0, "n": 1.0}),
    ("s-gate-1", FACTORS, {"m": 1.0, "n": 1.0}),
    ("s-mask", {}, {"A": 0.0}),
    ("s-add-2", {}, {"m": 0.0}),
    ("s-add-2", {}, {"n": 0.0}),
    ("s-scalar", {}, {"f": 0.0}),
    ("es-add-sym", {}, {"E": 0.0, "h": 0.0}),
]


def plain_gradients(network, trajectory):
    target = random(*trajectory.outputs.shape, seed=11)
    loss = (trajectory.outputs - target).square().sum() + trajectory.rates.square().sum()
    names = ("weight", "input_weight", "bias", "output_weight", "output_bias")
    return torch.autograd.grad(loss, [getattr(network, name) for name in names])


@pytest.mark.parametrize("loop", ["auto", "adjoint", "plain"])
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("kind", ["one-hot", "soft"])
@pytest.mark.parametrize(("variant", "options", "values"), NEUTRAL)
def test_identity_8_neutral_values_give_the_plain_network(
    variant, options, values, kind, form, loop
):
    network = make(variant, options, form=form)
    with torch.no_grad():
        for pathway in network.modulation:
            for name, parameter in pathway.named_parameters():
                if name in values:
                    parameter.fill_(values[name])
    plain = share(network, make("none", form=form))
    network.loop = loop
    got, wanted = run_both(network, plain, contexts(kind))
    torch.testing.assert_close(got.potentials, wanted.potentials, **EXACT)
    torch.testing.assert_close(got.outputs, wanted.outputs, **EXACT)
    for one, other in zip(
        plain_gradients(network, got), plain_gradients(plain, wanted), strict=True
    ):
        # Sums over 6 trials and 7 steps of terms up to 100.
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("kind", ["one-hot", "soft"])
def test_identity_8_equal_matrices_of_all_contexts_give_the_plain_network(kind, form):
    plain, network = make("none", form=form), make("s-full", form=form)
    share(plain, network)
    matrices = network.modulation.pathways[0].W
    with torch.no_grad():
        matrices.copy_(plain.weight.expand_as(matrices))
    got, wanted = run_both(network, plain, contexts(kind))
    torch.testing.assert_close(got.outputs, wanted.outputs, **EXACT)
    target = random(*got.outputs.shape, seed=11)
    (one,) = torch.autograd.grad((got.outputs - target).square().sum(), matrices)
    (other,) = torch.autograd.grad((wanted.outputs - target).square().sum(), plain.weight)
    torch.testing.assert_close(one.sum(0), other, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("interpolation", ["outer-linear", "factor-linear"])
@pytest.mark.parametrize("kind", ["one-hot", "soft", "negative"])
def test_identity_9_symmetric_is_asymmetric_with_equal_factors(kind, interpolation):
    options = {"interpolation": interpolation}
    symmetric, asymmetric = make("s-sym", options), make("s-asym-1", options)
    with torch.no_grad():
        for name in ("m", "n"):
            getattr(asymmetric.modulation.pathways[0], name).copy_(
                symmetric.modulation.pathways[0].h
            )
    one, other = run_both(symmetric, asymmetric, contexts(kind))
    torch.testing.assert_close(one.potentials, other.potentials, **EXACT)


@pytest.mark.parametrize(
    ("variant", "name", "mean", "sd"),
    [
        ("e-add", "E", 0.0, 0.5),
        ("e-thr", "Theta", 0.0, 0.5),
        ("e-gain", "Gamma", 0.0, 0.3),
        ("s-sym", "h", 0.0, 0.3),
        ("s-asym-1", "m", 0.0, 0.3),
        ("s-asym-2", "n", 0.0, 0.3),
        ("s-gate-1", "m", 1.0, 0.3),
        ("s-add-1", "n", 0.0, 200**-0.5),
        ("s-full", "W", 0.0, 200**-0.5),
    ],
)
def test_initial_spread(variant, name, mean, sd):
    (pathway,) = modulation(variant, 200, 20, seed=0)
    values = getattr(pathway, name)
    # Five standard errors of the mean and of the standard deviation.
    assert abs(values.mean().item() - mean) < 5 * sd / values.numel() ** 0.5
    assert abs(values.std().item() / sd - 1) < 5 / (2 * values.numel()) ** 0.5


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_products_start_with_the_spread_of_what_they_stand_for(rank):
    (drive,) = modulation(f"e-rank{rank}", 300, 60, seed=0)
    (matrix,) = modulation("s-lowrankW", 300, 3, seed=0, rank=rank, sd=0.0)
    (gated,) = modulation(f"s-gate-{rank}", 300, 60, seed=0)
    drives = (drive.U @ drive.A).detach()
    weights = matrix.modulate(CTRNN(1, 300, 1).base_circuit(), torch.ones(1, 3)).recurrent.dense()
    scaling = torch.einsum("kri,krj->kij", gated.m, gated.n).mean().item()
    # The entries of U A share its 300 R and 60 R numbers; the smaller factor sets the error, each
    # square with a relative spread of sqrt(2), and the root halves it. Five standard errors.
    assert (
        abs(drives.std().item() / 0.5 - 1)
        < 5 / (2 * 60 * rank) ** 0.5 + 5 / (2 * 300 * rank) ** 0.5
    )
    assert abs(weights.detach().std().item() * 300**0.5 - 1) < 2 * 5 / (2 * 300 * rank) ** 0.5
    # m and n are 1 +- 0.3 over sqrt(R): the mean of their product sum is 1.
    assert abs(scaling - 1) < 5 * 2 * 0.3 / (300 * 60 * rank) ** 0.5


def test_no_factor_of_a_product_starts_at_zero():
    for variant in ("s-sym", "s-asym-2", "s-add-2", "e-rank2", "s-lowrankW"):
        for name, parameter in modulation(variant, 6, 3, seed=0).named_parameters():
            if not name.endswith("a0"):
                assert (parameter != 0).all(), (variant, name)


@pytest.mark.parametrize("variant", ["s-sym", "s-asym-2", "s-gate-2"])
def test_nonnegative_factors_keep_signs_and_start_at_the_same_magnitude(variant):
    (free,) = modulation(variant, 6, 3, seed=0)
    (bounded,) = modulation(variant, 6, 3, seed=0, nonnegative=True)
    for one, other in zip(free.factors(), bounded.factors(), strict=True):
        assert (other > 0).all()
        # Magnitudes below 1e-4 are raised to it; the rest is float32 rounding of exp and log.
        torch.testing.assert_close(other, one.abs().clamp_min(1e-4), rtol=1e-3, atol=1e-6)


def test_empty_chain_returns_the_circuit_itself():
    circuit = make("none").base_circuit()
    assert Chain()(circuit, contexts("soft")) is circuit
    assert Chain().units is None
    assert len(Chain()) == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Chain(Drive(3, 2), Drive(4, 2)), r"agree in units: got \[3, 4\]"),
        (lambda: Chain(Drive(3, 2), Drive(3, 5)), r"agree in contexts: got \[2, 5\]"),
        (
            lambda: Chain(*modulation("s-sym", 3, 2), *modulation("s-full", 3, 2)),
            "Full brings its own recurrent matrix and must be the first synaptic pathway",
        ),
        (lambda: Drive(0, 2), "units must be at least 1: got 0"),
        (lambda: Drive(3, 0), "contexts must be at least 1: got 0"),
        (lambda: Drive(3, 2, rank=0), "rank must be at least 1: got 0"),
        (lambda: Drive(3, 2, sd=-1.0), "sd must be zero or more and finite: got -1.0"),
        (lambda: Gain(3, 2, sd=float("nan")), "sd must be zero or more and finite: got nan"),
        (
            lambda: Hadamard(3, 2, interpolation="linear"),
            "interpolation must be 'outer-linear' or 'factor-linear': got 'linear'",
        ),
        (lambda: Masks(3, 2, masks=0), "masks must be at least 1: got 0"),
    ],
)
def test_wrong_pathways_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_chain_within_a_chain_is_refused():
    with pytest.raises(TypeError, match="pathways of a Chain must be pathways: got Chain"):
        Chain(Drive(3, 2), Chain(Drive(3, 2)))


def test_a_pathway_that_scales_needs_something_to_scale():
    masks_late = Chain(*modulation("s-sym", 3, 2), *modulation("s-mask", 3, 2))
    network = CTRNN(1, 3, 1, masks_late, contexts=2)
    with pytest.raises(ValueError, match="put them before other synaptic pathways"):
        network.circuit(torch.ones(1, 2))
    (scalar,) = modulation("s-scalar", 3, 2)
    circuit = CTRNN(1, 3, 1, "s-full", contexts=2).base_circuit()
    with pytest.raises(ValueError, match="Scalar scales recurrent weights and must come after"):
        scalar(circuit, torch.ones(1, 2))


def test_context_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"context must have 2 entries.*got shape \(1, 3\)"):
        Drive(3, 2)(CTRNN(1, 3, 1).base_circuit(), torch.ones(1, 3))
    for wrong in (torch.ones(2), torch.ones(4, 5, 2)):
        with pytest.raises(ValueError, match=r"must have shape \(trial, context=2\): got"):
            Drive(3, 2)(CTRNN(1, 3, 1).base_circuit(), wrong)


def test_a_circuit_takes_contexts_of_any_kind_of_number():
    network = make("es")
    wanted = network.circuit(torch.eye(CONTEXTS, dtype=torch.float64)).dense_weight()
    for context in (np.eye(CONTEXTS), torch.eye(CONTEXTS, dtype=torch.int64)):
        torch.testing.assert_close(network.circuit(context).dense_weight(), wanted, **EXACT)


def test_seeds_may_be_any_integer_or_a_generator():
    wanted = Drive(3, 2, seed=5).E
    assert torch.equal(Drive(3, 2, seed=np.int64(5)).E, wanted)
    one = Drive(3, 2, seed=torch.Generator().manual_seed(1)).E
    other = Drive(3, 2, seed=torch.Generator().manual_seed(1)).E
    assert torch.equal(one, other)
    assert not torch.equal(one, wanted)


PARTIAL = {
    "e-add": 0.0,
    "e-rank2": 0.0,
    "e-thr": 0.0,
    "e-gain": 0.0,
    "s-sym": 0.0,
    "s-asym-2": 0.0,
    "s-gate-1": 1.0,
    "s-gate-2": 2**-0.5,
    "s-add-2": 0.0,
    "es-add-sym": 0.0,
    "es-gain-asym-1": 0.0,
}
BY_UNIT = {"E": 0, "U": 0, "Theta": 0, "Gamma": 0, "h": -1, "m": -1, "n": -1}


def with_neutral_units(network, spans, neutral):
    """Set what belongs to the units that are off to its neutral value; return what is on."""
    kept = {}
    for pathway, (first, stop) in zip(network.modulation, spans, strict=True):
        for name, value in pathway.named_parameters():
            if name in BY_UNIT:
                rows = value.detach().movedim(BY_UNIT[name], 0)
                rows[:first], rows[stop:] = neutral, neutral
                value = value.detach().narrow(BY_UNIT[name], first, stop - first)
            kept[pathway.pathway, name] = value
    return kept


@pytest.mark.parametrize("kind", ["one-hot", "soft", "negative"])
@pytest.mark.parametrize("interpolation", ["outer-linear", "factor-linear"])
@pytest.mark.parametrize("variant", PARTIAL)
def test_a_pathway_on_some_units_is_the_full_one_with_neutral_others(variant, interpolation, kind):
    ids = ("sym", "asym", "gate", "s-add")
    factors = {"interpolation": interpolation} if any(part in variant for part in ids) else {}
    whole, part = make(variant, factors), make(variant, {**factors, "on": 0.4})
    # Of 5 units the first share of 2, and the last.
    spans = [(0, 2) if p.pathway == "excitability" else (3, 5) for p in whole.modulation]
    kept = with_neutral_units(whole, spans, PARTIAL[variant])
    inputs, context = random(TRIALS, 7, 2, seed=9), contexts(kind)
    results = []
    for network in (whole, part):
        outputs = network(inputs, context).outputs
        outputs.square().sum().backward()
        results.append(outputs.detach())
    torch.testing.assert_close(results[0], results[1], **EXACT)
    torch.testing.assert_close(whole.weight.grad, part.weight.grad, **EXACT)
    for pathway, other, (first, stop) in zip(part.modulation, whole.modulation, spans, strict=True):
        for name, value in pathway.named_parameters():
            # Equal before training: paired comparisons start from the same numbers.
            assert torch.equal(value, kept[pathway.pathway, name])
            gradient = getattr(other, name).grad
            if name in BY_UNIT:
                gradient = gradient.narrow(BY_UNIT[name], first, stop - first)
            torch.testing.assert_close(value.grad, gradient, **EXACT)


@pytest.mark.parametrize("kind", ["soft", "negative"])
def test_nonnegative_factors_of_some_units_leave_the_others_alone(kind):
    network = make("s-sym", {"nonnegative": True, "on": (1, 3)})
    weight = network.circuit(contexts(kind)).dense_weight().detach()
    base = network.weight.detach().expand_as(weight)
    on = torch.tensor([False, True, True, False, False])
    both = on[:, None] & on
    assert torch.equal(weight[:, ~both], base[:, ~both])
    assert (weight[:, both] != base[:, both]).all()


needs_kernel = pytest.mark.skipif(not _kernel.available(), reason="the kernel is not compiled")


@pytest.mark.parametrize(
    ("kind", "loop"),
    [
        pytest.param("one-hot", "compiled", marks=needs_kernel),
        ("one-hot", "adjoint"),
        ("varying", "adjoint"),
    ],
)
def test_loops_agree_where_each_pathway_has_its_half(kind, loop):
    network = make("es", {"on": 0.5})
    inputs = random(TRIALS, 7, 2, seed=9)
    context = (
        random(TRIALS, 7, CONTEXTS, seed=4) if kind == "varying" else contexts(kind).sort(0)[0]
    )
    found = {}
    for name in (loop, "plain"):
        network.loop = name
        outputs = network(inputs, context).outputs
        found[name] = [
            outputs.detach(),
            *torch.autograd.grad(outputs.square().sum(), list(network.parameters())),
        ]
    for one, other in zip(found[loop], found["plain"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_pathways_on_half_of_the_units_are_saved_and_loaded(tmp_path):
    network = make("es-add-asym-2", {"on_e": 0.5, "on_s": (1, 4)})
    save(network, tmp_path / "half")
    again = load(tmp_path / "half")
    drive, scaling = again.modulation
    assert (drive.on, drive.span, scaling.on, scaling.span) == (0.5, (0, 3), (1, 4), (1, 4))
    inputs, context = random(TRIALS, 7, 2, seed=9), contexts("one-hot")
    assert torch.equal(again(inputs, context).outputs, network(inputs, context).outputs)
    assert again.modulation.pathways[0].E.shape == (3, CONTEXTS)


def test_members_with_pathways_on_some_units_are_stacked():
    """Networks of several sizes as one computation, against each by itself in the plain loop."""
    # Trials two by two: contexts of fewer trials are not worth a group of their own.
    task = torch.arange(TRIALS) // 2
    batch = TrialBatch(
        inputs=random(TRIALS, 7, 2, seed=9),
        targets=random(TRIALS, 7, 2, seed=10),
        mask=torch.ones(TRIALS, 7),
        context=torch.eye(CONTEXTS)[task],
        task=task,
        lengths=torch.full((TRIALS,), 7),
        names=tuple("abcd"),
        dt=20.0,
    )
    options = {"contexts": CONTEXTS, "dtype": torch.float64, "seed": 3}
    members = [
        CTRNN(2, units, 2, variant, on=0.5, **options)
        for units, variant in ((5, "es"), (8, "es-gain-gate-2"), (3, "es-thr-asym-1"))
    ]
    prepared = Prepared(batch, device=torch.device("cpu"), dtype=torch.float64)
    found = []
    for stacked in (True, False):
        for member in members:
            member.zero_grad()
        sources = [torch.Generator().manual_seed(index) for index in range(3)]
        if stacked:
            losses = _stacked.add_gradients(members, [prepared] * 3, sources)
        else:
            losses = []
            for member, source in zip(members, sources, strict=True):
                member.loop = "plain"
                losses.append(add_gradient(member, prepared, source, TrainConfig()))
        found.append((losses, [p.grad.clone() for m in members for p in m.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize(
    ("on", "error", "message"),
    [
        (0, ValueError, r"on must be a fraction of the units in \(0, 1\], or a pair"),
        (1.5, ValueError, r"in \(0, 1\].*: got 1\.5"),
        (float("nan"), ValueError, r"in \(0, 1\]"),
        ((2, 9), ValueError, r"0 <= first < stop <= 5, as there are 5 units: got \(2, 9\)"),
        ((3, 3), ValueError, r"first < stop"),
        ((1, 2, 3), ValueError, "on must be a fraction, or the first unit and the one after"),
        ("half", TypeError, "on must be a number: got 'half'"),
        ((0.5, 2), TypeError, r"on must be an integer: got 0\.5"),
    ],
)
@pytest.mark.parametrize("kind", [Drive, Threshold, Gain, Hadamard, Additive])
def test_units_that_do_not_exist_are_refused(kind, on, error, message):
    with pytest.raises(error, match=message):
        kind(5, 2, on=on)


# What a pathway of the user's own returns is checked: the compiled loop trusts it.


class Returns(AbstractModulation):
    """A pathway that sets one part of the circuit to what it is told."""

    pathway = "excitability"

    def __init__(self, part, value):
        super().__init__(6, 2)
        self.part, self.value = part, value

    def modulate(self, circuit, context):
        value = self.value(context) if callable(self.value) else self.value
        return dataclasses.replace(circuit, **{self.part: value})

    def config(self):
        return {}


def answers(part, value, loop):
    network = CTRNN(3, 6, 2, Returns(part, value), contexts=2, noise=0, seed=0)
    network.loop = loop
    context = torch.eye(2)[torch.arange(10) % 2]
    return network(torch.ones(10, 8, 3), context).outputs.detach()


@pytest.mark.parametrize("loop", ["auto", "plain"])
@pytest.mark.parametrize("part", ["gain", "threshold", "current"])
def test_one_value_for_all_units_is_spread(part, loop):
    def whole(context):
        return (1 + context[:, :1]).expand(-1, 6)

    expected = answers(part, whole, loop)
    for same in (lambda c: 1 + c[:, :1], lambda c: (1 + c[:, :1]).double(),
                 lambda c: whole(c).double()):  # fmt: skip
        assert torch.allclose(answers(part, same, loop), expected, atol=1e-6)
    one = answers(part, lambda c: torch.full((len(c), 6), 1.5), loop)
    for same in (torch.tensor(1.5), torch.full((6,), 1.5), torch.full((1, 6), 1.5)):
        assert torch.allclose(answers(part, same, loop), one, atol=1e-6)


@pytest.mark.parametrize("loop", ["auto", "plain"])
@pytest.mark.parametrize("part", ["gain", "threshold", "current"])
@pytest.mark.parametrize(
    "value",
    [
        lambda c: torch.ones(len(c), 3),
        lambda c: torch.ones(len(c), 8),
        lambda c: torch.ones(6, len(c)),
        lambda c: torch.ones(len(c) + 1, 6),
        lambda c: torch.ones(1, len(c), 6),
        lambda c: torch.ones(3),
    ],
)
def test_wrong_shapes_of_a_pathway_are_an_error(part, value, loop):
    with pytest.raises(ValueError, match=rf"{part} of Returns must have shape \(trial, unit\) = "):
        answers(part, value, loop)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("gain", 2.0, "gain of Returns must be a tensor: got float"),
        ("recurrent", None, "whose recurrent is a ctxrnn.Recurrence: got NoneType"),
        ("recurrent", torch.eye(6), "whose recurrent is a ctxrnn.Recurrence: got Tensor"),
        ("input_weight", torch.ones(10, 6, 3), r"input_weight of Returns must keep its shape"),
    ],
)
def test_other_parts_of_a_pathway_are_checked(part, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        answers(part, value, "auto")


@needs_kernel
def test_a_recurrence_of_the_users_own_has_the_shape_of_w():
    @dataclasses.dataclass(frozen=True)
    class Small(Recurrence):
        size: tuple

        def __call__(self, rates):
            return 0 * rates

        def dense(self):
            return torch.zeros(self.size)

    for size in ((3, 3), (5, 6, 6), (6,)):
        with pytest.raises(ValueError, match=r"dense\(\) of Small must have shape"):
            answers("recurrent", lambda c, size=size: Small(size), "compiled")
    for size in ((6, 6), (2, 6, 6)):
        assert answers("recurrent", lambda c, size=size: Small(size), "compiled").shape == (
            10,
            8,
            2,
        )


def test_a_pathway_says_what_it_sees_and_returns_a_circuit():
    class Neither(Returns):
        pathway = "both"

        def modulate(self, circuit, context):
            return context

    with pytest.raises(TypeError, match="Neither must say which context it sees"):
        Neither("gain", None)
    Neither.pathway = "synaptic"
    network = CTRNN(3, 6, 2, Neither("gain", None), contexts=2)
    with pytest.raises(TypeError, match="modulate of Neither must return a Circuit: got Tensor"):
        network(torch.ones(1, 2, 3), torch.eye(2)[:1])
