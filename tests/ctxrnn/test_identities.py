"""The equation against NumPy loops written from the table of variants, and its exact identities.

Everything runs in float64 without noise. Sums of at most a few hundred terms of size one: 1e-12
relative is some thousand roundings.
"""

import copy

import numpy as np
import pytest
import torch

from ctxrnn import CTRNN, Contexts, variant_ids
from ctxrnn._noise import draw_key, normals

N, INPUTS, OUTPUTS, K, T, B = 6, 3, 2, 4, 9, 5
CLOSE = {"rtol": 1e-12, "atol": 1e-12}
VARIANTS = (
    *variant_ids(),
    "s-asym-3",
    "s-gate-3",
    "es-thr-full",
    "es-gain-mask",
    "es-rank1-lowrankW",
)
FORMS = ("current", "rate")


def make(variant, seed=1, **options):
    options = {"contexts": K, "noise": 0.0, "seed": seed, "dtype": torch.float64} | options
    network = CTRNN(INPUTS, N, OUTPUTS, variant, **options)
    with torch.no_grad():
        source = torch.Generator().manual_seed(seed + 100)
        network.bias.normal_(generator=source)
        network.output_bias.normal_(generator=source)
    return network


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(seed=7):
    index = torch.randint(K, (B,), generator=torch.Generator().manual_seed(seed))
    return torch.eye(K, dtype=torch.float64)[index]


CONTEXTS = {
    "one-hot": one_hot(),
    "soft": torch.softmax(draw(B, K, seed=8), -1),
    "two of four": torch.tensor([[0.7, 0.3, 0, 0]] * B, dtype=torch.float64),
    "none": torch.zeros(B, K, dtype=torch.float64),
    "any": draw(B, K, seed=9),
}


def parameters_of(pathway):
    names = {**dict(pathway.named_parameters()), **dict(pathway.named_buffers())}
    return {name: value.detach().numpy() for name, value in names.items()}


def hadamard_factor(pathway, p, c):
    factor = np.zeros((N, N)) if pathway.gated else np.ones((N, N))
    post, pre = (p["h"], p["h"]) if pathway.symmetric else (p["m"], p["n"])
    if pathway.nonnegative:
        post, pre = np.log1p(np.exp(post)), np.log1p(np.exp(pre))
    for rho in range(pathway.rank):
        if pathway.interpolation == "outer-linear":
            for k in range(K):
                factor += c[k] * np.outer(post[k, rho], pre[k, rho])
        else:
            m = sum(c[k] * post[k, rho] for k in range(K))
            n = sum(c[k] * pre[k, rho] for k in range(K))
            factor += np.outer(m, n)
    return factor


def reference_parts(network, c_e, c_s):
    """Effective W, drive, gain and threshold of one trial, by loops."""
    weight = None if network.weight is None else network.weight.detach().numpy()
    drive, gain, threshold = np.zeros(N), np.ones(N), np.zeros(N)
    for pathway in network.modulation:
        p = parameters_of(pathway)
        kind = type(pathway).__name__
        if kind == "Drive":
            matrix = p["E"] if pathway.rank is None else p["U"] @ p["A"]
            drive = drive + sum(c_e[k] * matrix[:, k] for k in range(K))
        elif kind == "Threshold":
            threshold = threshold + sum(c_e[k] * p["Theta"][:, k] for k in range(K))
        elif kind == "Gain":
            change = sum(c_e[k] * p["Gamma"][:, k] for k in range(K))
            gain = gain * (np.exp(change) if pathway.positive else 1 + change)
        elif kind == "Hadamard":
            weight = weight * hadamard_factor(pathway, p, c_s)
        elif kind == "LowRank":
            strength = 1 / (1 + np.exp(-(p["A"] @ c_s + p["a0"])))
            weight = p["U"] @ np.diag(strength) @ p["V"].T
        elif kind == "Masks":
            z = p["A"] @ c_s
            weight = weight * (1 + sum(z[j] * p["M"][j] for j in range(len(z))))
        elif kind == "Additive":
            for rho in range(pathway.rank):
                if pathway.interpolation == "outer-linear":
                    for k in range(K):
                        weight = weight + c_s[k] * np.outer(p["m"][k, rho], p["n"][k, rho])
                else:
                    m = sum(c_s[k] * p["m"][k, rho] for k in range(K))
                    n = sum(c_s[k] * p["n"][k, rho] for k in range(K))
                    weight = weight + np.outer(m, n)
        elif kind == "Scalar":
            weight = (1 + p["f"] @ c_s) * weight
        elif kind == "Full":
            weight = sum(c_s[k] * p["W"][k] for k in range(K))
        else:
            raise AssertionError(kind)
    return weight, drive, gain, threshold


def reference_run(network, inputs, c_e, c_s, phi=np.tanh):
    """The spec's equations, one trial and one step after the other."""
    inputs = inputs.numpy()
    own = {name: value.detach().numpy() for name, value in network.named_parameters()}
    alpha = network.dt / network.tau.numpy()
    states = np.zeros((len(inputs), T, N))
    rates = np.zeros((len(inputs), T, N))
    for b in range(len(inputs)):
        z = np.zeros(N)
        for t in range(T):
            weight, drive, gain, threshold = reference_parts(network, c_e[b, t], c_s[b, t])
            given = own["input_weight"] @ inputs[b, t] + own["bias"] + drive
            if network.form == "current":
                r = phi(gain * (z - threshold))
                z = (1 - alpha) * z + alpha * (weight @ r + given)
                rates[b, t] = phi(gain * (z - threshold))
            else:
                z = (1 - alpha) * z + alpha * phi(gain * (weight @ z + given - threshold))
                rates[b, t] = z
            states[b, t] = z
    seen = rates if network.readout == "rates" else states
    return states, rates, seen @ own["output_weight"].T + own["output_bias"]


def options_of(variant, interpolation):
    scaled = ("sym", "asym", "gate", "s-add", "es")
    return {"interpolation": interpolation} if any(s in variant for s in scaled[:3]) else {}


@pytest.mark.parametrize("loop", ["auto", "adjoint", "plain"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_trajectory_is_that_of_the_equation(variant, form, loop):
    network = make(variant, form=form, tau=torch.linspace(40, 120, N))
    network.loop = loop
    inputs = draw(B, T, INPUTS, seed=2)
    context = CONTEXTS["soft"]
    steady = context[:, None].expand(B, T, K).numpy()
    trajectory = network(inputs, context)
    found = (trajectory.potentials, trajectory.rates, trajectory.outputs)
    for mine, wanted in zip(found, reference_run(network, inputs, steady, steady), strict=True):
        np.testing.assert_allclose(mine.detach(), wanted, **CLOSE)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "variant", ["e-add", "e-thr", "e-gain", "s-asym-2", "s-lowrankW", "es-gain-sym"]
)
def test_contexts_that_vary_and_differ_between_pathways(variant, form):
    network = make(variant, form=form, readout="potentials")
    inputs, c_e, c_s = draw(B, T, INPUTS, seed=2), draw(B, T, K, seed=3), draw(B, T, K, seed=4)
    trajectory = network(inputs, Contexts(c_e, c_s))
    found = (trajectory.potentials, trajectory.rates, trajectory.outputs)
    wanted = reference_run(network, inputs, c_e.numpy(), c_s.numpy())
    for mine, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine.detach(), other, **CLOSE)


@pytest.mark.parametrize("interpolation", ["outer-linear", "factor-linear"])
@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "none" and not v.startswith("e-")])
def test_factored_weights_are_the_dense_ones(variant, name, interpolation):
    network = make(variant, **options_of(variant, interpolation))
    context, rates = CONTEXTS[name], draw(B, N, seed=5)
    circuit = network.circuit(context)
    dense = np.stack([reference_parts(network, c, c)[0] for c in context.numpy()])
    wanted = np.einsum("bij,bj->bi", dense, rates)
    np.testing.assert_allclose(circuit.propagate(rates).detach(), wanted, **CLOSE)
    current = draw(B, N, seed=6)
    np.testing.assert_allclose(
        circuit.propagate(rates, current).detach(), wanted + current.numpy(), **CLOSE
    )
    shown = circuit.dense_weight().detach().expand(B, N, N)
    np.testing.assert_allclose(shown, dense, **CLOSE)


def test_nonnegative_factors_keep_every_sign():
    network = make("s-asym-2", nonnegative=True)
    dense = np.stack([reference_parts(network, c, c)[0] for c in np.eye(K)])
    found = network.circuit(torch.eye(K, dtype=torch.float64)).dense_weight().detach()
    np.testing.assert_allclose(found, dense, **CLOSE)
    assert bool((found * network.weight > 0).all())


def outputs_of(network, inputs, context):
    return network(inputs, context).outputs.detach()


def test_1_rule_input_is_the_additive_drive():
    network = make("e-add")
    plain = CTRNN(INPUTS + K, N, OUTPUTS, noise=0.0, seed=5, dtype=torch.float64)
    shared = ("weight", "bias", "output_weight", "output_bias")
    with torch.no_grad():
        for name in shared:
            getattr(plain, name).copy_(getattr(network, name))
        drive = network.modulation.pathways[0].E
        plain.input_weight.copy_(torch.cat([network.input_weight, drive], dim=1))
    inputs, context = draw(B, T, INPUTS), CONTEXTS["soft"]
    rule = context[:, None].expand(B, T, K)
    joined = plain(torch.cat([inputs, rule], dim=-1)).outputs
    torch.testing.assert_close(outputs_of(network, inputs, context), joined.detach(), **CLOSE)


@pytest.mark.parametrize("varies", [False, True])
def test_2_threshold_is_a_drive_in_shifted_coordinates(varies):
    network = make("e-thr")
    theta = network.modulation.pathways[0].Theta.detach()
    inputs = draw(B, T, INPUTS)
    context = draw(B, T, K, seed=3) if varies else CONTEXTS["soft"]
    x0 = draw(B, N, seed=4)
    potentials = network(inputs, context, x0).potentials.detach()
    steady = context if varies else context[:, None].expand(B, T, K)
    shift = steady @ theta.mT
    alpha = network.alpha
    y = x0 - shift[:, 0]
    for t in range(T):
        total = torch.tanh(y) @ network.weight.detach().mT
        total = total + inputs[:, t] @ network.input_weight.detach().mT + network.bias.detach()
        y = (1 - alpha) * y + alpha * (total - shift[:, t])
        following = shift[:, min(t + 1, T - 1)]
        y = y - (following - shift[:, t])
        torch.testing.assert_close(potentials[:, t], y + following, **CLOSE)


def test_2_threshold_in_the_rate_form_is_a_negative_drive():
    network, other = make("e-thr", form="rate"), make("e-add", form="rate")
    with torch.no_grad():
        other.modulation.pathways[0].E.copy_(-network.modulation.pathways[0].Theta)
    inputs, context = draw(B, T, INPUTS), CONTEXTS["any"]
    torch.testing.assert_close(
        outputs_of(network, inputs, context), outputs_of(other, inputs, context), **CLOSE
    )


def test_3_rank_one_scaling_is_scaling_before_and_after():
    network = make("s-gate-1")
    pathway = network.modulation.pathways[0]
    dense = network.circuit(torch.eye(K, dtype=torch.float64)).dense_weight()
    for k in range(K):
        product = torch.diag(pathway.m[k, 0]) @ network.weight @ torch.diag(pathway.n[k, 0])
        torch.testing.assert_close(dense[k], product, **CLOSE)


def test_4_gain_is_presynaptic_scaling_for_relu_in_the_current_form():
    network = make("e-gain", nonlinearity="relu", positive=True, initial="gaussian")
    inputs = draw(B, T, INPUTS)
    for k in range(K):
        context = torch.eye(K, dtype=torch.float64)[k].expand(B, K)
        gain = network.circuit(context).gain[0].detach()
        plain = make("none", nonlinearity="relu", initial="gaussian")
        with torch.no_grad():
            plain.weight.copy_(network.weight * gain)
            plain.output_weight.copy_(network.output_weight * gain)
        torch.testing.assert_close(
            outputs_of(network, inputs, context), outputs_of(plain, inputs, None), **CLOSE
        )


@pytest.mark.parametrize("nonlinearity", ["tanh", "sigmoid", "softplus"])
def test_4_gain_is_postsynaptic_scaling_in_the_rate_form(nonlinearity):
    options = {"form": "rate", "nonlinearity": nonlinearity, "noise": 0.1}
    network = make("e-gain", **options)
    inputs = draw(B, T, INPUTS)
    for k in range(K):
        context = torch.eye(K, dtype=torch.float64)[k].expand(B, K)
        gain = network.circuit(context).gain[0].detach()
        plain = make("none", **options)
        with torch.no_grad():
            for name in ("weight", "input_weight"):
                getattr(plain, name).mul_(gain[:, None])
            plain.bias.mul_(gain)
        # The noise is scaled too: drawn alike, and passed as part of the input current.
        scale = network.noise_scale()
        xi = normals(draw_key(torch.Generator().manual_seed(3)), T, B, N).double()
        source = torch.Generator().manual_seed(3)
        found = network(inputs, context, generator=source).rates.detach()
        state = torch.zeros(B, N, dtype=torch.float64)
        for t in range(T):
            total = state @ plain.weight.mT + inputs[:, t] @ plain.input_weight.mT + plain.bias
            state = torch.lerp(state, plain.phi(total + gain * scale * xi[t]), plain.alpha)
            torch.testing.assert_close(found[:, t], state.detach(), **CLOSE)


def test_5_symmetric_scaling_adds_a_scaled_copy():
    network = make("s-sym")
    dense = network.circuit(torch.eye(K, dtype=torch.float64)).dense_weight()
    h = network.modulation.pathways[0].h[:, 0]
    for k in range(K):
        wanted = network.weight + torch.diag(h[k]) @ network.weight @ torch.diag(h[k])
        torch.testing.assert_close(dense[k], wanted, **CLOSE)


def difference_of_fields(network, x, first, second):
    u = draw(INPUTS, seed=6)
    fields = [network.velocity(network.circuit(c.expand(len(x), K)), x, u) for c in (first, second)]
    return (fields[0] - fields[1]).detach()


def jacobian(network, x, context):
    u = draw(INPUTS, seed=6)
    circuit = network.circuit(context[None])
    return torch.autograd.functional.jacobian(
        lambda state: network.velocity(circuit, state[None], u)[0], x
    )


def test_6_drive_shifts_the_field_alike_everywhere_and_leaves_its_jacobian():
    network = make("e-add")
    x, (c, d) = draw(B, N, seed=3), CONTEXTS["soft"][:2]
    shift = (c - d) @ network.modulation.pathways[0].E.detach().mT / network.tau
    torch.testing.assert_close(difference_of_fields(network, x, c, d), shift.expand(B, N), **CLOSE)
    torch.testing.assert_close(jacobian(network, x[0], c), jacobian(network, x[0], d), **CLOSE)


@pytest.mark.parametrize(
    "variant", ["s-sym", "s-asym-2", "s-gate-1", "s-add-1", "s-scalar", "s-mask"]
)
def test_6_synapses_change_the_field_by_the_state_and_its_jacobian(variant):
    network = make(variant)
    x, (c, d) = draw(B, N, seed=3), CONTEXTS["soft"][:2]
    dense = network.circuit(torch.stack([c, d])).dense_weight().detach()
    change = dense[0] - dense[1]
    wanted = torch.tanh(x) @ change.mT / network.tau
    torch.testing.assert_close(difference_of_fields(network, x, c, d), wanted, **CLOSE)
    at_rest = difference_of_fields(network, torch.zeros(1, N, dtype=torch.float64), c, d)
    torch.testing.assert_close(at_rest, torch.zeros_like(at_rest), **CLOSE)
    slope = torch.diag(1 - torch.tanh(x[0]) ** 2)
    torch.testing.assert_close(
        jacobian(network, x[0], c) - jacobian(network, x[0], d),
        change @ slope / network.tau,
        **CLOSE,
    )


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.startswith("s-")])
def test_7_context_is_invisible_at_rest_for_synapses(variant):
    network = make(variant)
    with torch.no_grad():
        network.bias.zero_()
    rest = torch.zeros(K, N, dtype=torch.float64)
    circuit = network.circuit(torch.eye(K, dtype=torch.float64))
    speed = network.velocity(circuit, rest, torch.zeros(INPUTS, dtype=torch.float64))
    assert bool((speed == 0).all())


def test_7_context_is_visible_at_rest_for_the_drive():
    network = make("e-add")
    rest = torch.zeros(K, N, dtype=torch.float64)
    circuit = network.circuit(torch.eye(K, dtype=torch.float64))
    speed = network.velocity(circuit, rest, torch.zeros(INPUTS, dtype=torch.float64))
    assert bool((speed.abs().max(-1).values > 1e-4).all())


NEUTRAL = {
    "e-add": {"E": 0.0},
    "e-thr": {"Theta": 0.0},
    "e-gain": {"Gamma": 0.0},
    "e-rank2": {"A": 0.0},
    "s-sym": {"h": 0.0},
    "s-asym-2": {"m": 0.0},
    "s-gate-1": {"m": 1.0, "n": 1.0},
    "s-add-2": {"n": 0.0},
    "s-scalar": {"f": 0.0},
    "s-mask": {"A": 0.0},
    "s-full": {},
    "es-add-sym": {"E": 0.0, "h": 0.0},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("variant", NEUTRAL)
def test_8_neutral_values_give_the_plain_network_and_its_gradients(variant, form):
    network, plain = make(variant, form=form), make("none", form=form)
    with torch.no_grad():
        for name, parameter in network.modulation.named_parameters():
            short = name.split(".")[-1]
            if short in NEUTRAL[variant]:
                parameter.fill_(NEUTRAL[variant][short])
            if variant == "s-full":
                parameter.copy_(plain.weight.expand_as(parameter))
    inputs, context = draw(B, T, INPUTS), CONTEXTS["soft"]
    wanted = draw(B, T, OUTPUTS, seed=9)
    losses = []
    for net, c in ((network, context), (plain, None)):
        loss = (net(inputs, c).outputs - wanted).square().sum()
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[0], losses[1], **CLOSE)
    mine = dict(network.named_parameters())
    for name, parameter in plain.named_parameters():
        if name == "weight" and variant == "s-full":
            gradient = mine["modulation.pathways.0.W"].grad.sum(0)
        else:
            gradient = mine[name].grad
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-10, atol=1e-10)


def test_9_interpolations_agree_on_one_hot_contexts_and_differ_between():
    for variant in ("s-sym", "s-asym-2", "s-gate-2", "s-add-2"):
        outer = make(variant, interpolation="outer-linear")
        factor = make(variant, interpolation="factor-linear")
        pure, soft = CONTEXTS["one-hot"], CONTEXTS["soft"]
        torch.testing.assert_close(
            outer.circuit(pure).dense_weight(), factor.circuit(pure).dense_weight(), **CLOSE
        )
        apart = outer.circuit(soft).dense_weight() - factor.circuit(soft).dense_weight()
        assert apart.abs().max() > 1e-3


def test_9_symmetric_is_asymmetric_with_equal_factors():
    symmetric, asymmetric = make("s-sym"), make("s-asym-1")
    with torch.no_grad():
        asymmetric.modulation.pathways[0].m.copy_(symmetric.modulation.pathways[0].h)
        asymmetric.modulation.pathways[0].n.copy_(symmetric.modulation.pathways[0].h)
    soft = CONTEXTS["any"]
    torch.testing.assert_close(
        symmetric.circuit(soft).dense_weight(), asymmetric.circuit(soft).dense_weight(), **CLOSE
    )


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v.startswith("s-") and v != "s-full"])
def test_9_full_represents_every_synaptic_variant_on_one_hot_contexts(variant):
    network, full = make(variant), make("s-full")
    with torch.no_grad():
        dense = network.circuit(torch.eye(K, dtype=torch.float64)).dense_weight()
        full.modulation.pathways[0].W.copy_(dense)
        for name in ("input_weight", "bias", "output_weight", "output_bias"):
            getattr(full, name).copy_(getattr(network, name))
    inputs, context = draw(B, T, INPUTS), CONTEXTS["one-hot"]
    torch.testing.assert_close(
        outputs_of(network, inputs, context), outputs_of(full, inputs, context), **CLOSE
    )


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "none"])
def test_gradient_reaches_the_context_also_where_it_is_zero(variant):
    network = make(variant)
    inputs = draw(2, 3, INPUTS)
    context = torch.eye(K, dtype=torch.float64)[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda c: network(inputs, c).outputs, (context,))


def test_trials_in_another_order_and_padding_change_nothing():
    network = make("es")
    inputs, context = draw(B, T, INPUTS), CONTEXTS["one-hot"]
    found = outputs_of(network, inputs, context)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(
        outputs_of(network, inputs[order], context[order]), found[order], **CLOSE
    )
    padded = torch.cat([inputs, torch.full((B, 4, INPUTS), 9.0, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(outputs_of(network, padded, context)[:, :T], found, **CLOSE)


def test_variants_of_one_seed_share_what_they_have_in_common():
    plain = make("none")
    for variant in VARIANTS:
        own = dict(make(variant).named_parameters())
        for name, parameter in plain.named_parameters():
            if name in own:
                assert torch.equal(own[name], parameter)
    alone, both = make("s-sym"), make("es-add-sym")
    assert torch.equal(alone.modulation.pathways[0].h, both.modulation.pathways[1].h)


class _LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return found


@pytest.mark.parametrize("loop", ["auto", "adjoint", "plain"])
@pytest.mark.parametrize("variant", variant_ids())
def test_no_matrix_is_formed_per_trial(variant, loop):
    units, trials, steps = 64, 48, 3
    network = CTRNN(INPUTS, units, OUTPUTS, variant, contexts=K, seed=0)
    network.loop = loop
    context = torch.eye(K)[torch.arange(trials) % K]
    with _LargestTensor() as seen:
        network(torch.randn(trials, steps, INPUTS), context).outputs.sum().backward()
    # A matrix per trial would hold trials N^2; what is shared between trials K N^2 at most. The
    # largest of the others are the K answers of all trials at all steps.
    assert seen.largest <= max(K * units**2, steps * trials * K * units)
    assert seen.largest < trials * units**2 / 4


def test_copying_a_network_copies_its_pathways():
    network = make("es")
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.modulation.pathways[0].E.zero_()
    assert network.modulation.pathways[0].E.abs().sum() > 0
