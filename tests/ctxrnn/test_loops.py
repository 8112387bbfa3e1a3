"""The three time loops against each other, over the whole catalogue."""

import os
import shutil

import pytest
import torch

from ctxrnn import (
    CTRNN,
    Chain,
    Contexts,
    Drive,
    Gain,
    Hadamard,
    Recurrence,
    Threshold,
    _adjoint,
    _kernel,
    variant_ids,
)

CONTEXTS, TRIALS, STEPS, UNITS = 4, 10, 11, 7
# A step adds up a few dozen products of numbers near 1, and 11 steps follow each other: 1e3
# roundings of 1e-16, in relation to the largest value.
ROUNDING = 1e-12
needs_kernel = pytest.mark.skipif(not _kernel.available(), reason="the kernel is not compiled")
fast_loop = pytest.mark.parametrize(
    "loop", [pytest.param("compiled", marks=needs_kernel), "adjoint"]
)


def make(variant, **options):
    network = CTRNN(
        3, UNITS, 2, variant, contexts=CONTEXTS, seed=1, dtype=torch.float64, learn_x0=True,
        **options,
    )  # fmt: skip
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            # No zeros and no ties, so that every gradient counts.
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source).double())
    return network


def trials(kind="one-hot"):
    source = torch.Generator().manual_seed(3)
    inputs = torch.randn(TRIALS, STEPS, 3, generator=source, dtype=torch.float64).requires_grad_()
    index = torch.arange(TRIALS) * CONTEXTS // TRIALS
    context = torch.eye(CONTEXTS, dtype=torch.float64)[index]
    soft = torch.rand(TRIALS, STEPS, CONTEXTS, generator=source, dtype=torch.float64)
    return inputs, {
        "one-hot": context,
        "interleaved": context[torch.arange(TRIALS) * 7 % TRIALS],
        "soft": soft[:, 0],
        "soft, shared": soft[0, :CONTEXTS][index],
        "varying": soft,
        "varying synaptic": Contexts(context, soft),
        "one each": Contexts(context, context.flip(-1)),
    }[kind]


def values_and_gradients(network, inputs, context, **options):
    trajectory = network(inputs, context, generator=4, **options)
    source = torch.Generator().manual_seed(5)
    parts = (trajectory.outputs, trajectory.rates, trajectory.potentials)
    total = sum(
        (part * torch.randn(part.shape, generator=source, dtype=part.dtype)).sum() for part in parts
    )
    wanted = [*network.parameters(), inputs]
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    return [*parts, *gradients], [
        "outputs",
        "rates",
        "potentials",
        *dict(network.named_parameters()),
    ]


def compare(network, inputs, context, loop, tolerance=ROUNDING, **options):
    network.loop = "plain"
    plain, names = values_and_gradients(network, inputs, context, **options)
    network.loop = loop
    fast, _ = values_and_gradients(network, inputs, context, **options)
    for name, one, other in zip([*names, "inputs"], fast, plain, strict=True):
        wanted = torch.zeros_like(one) if other is None else other
        got = torch.zeros_like(wanted) if one is None else one
        allowed = tolerance * (1 + wanted.abs().max().item())
        assert torch.allclose(got, wanted, rtol=0, atol=allowed), name


@pytest.mark.skipif(os.environ.get("CTXRNN_KERNEL") is not None, reason="the kernel is left out")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_kernel_is_there_where_there_is_a_compiler():
    assert _kernel.available()


@fast_loop
@pytest.mark.parametrize("kind", ["one-hot", "interleaved", "soft, shared", "one each"])
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", variant_ids())
def test_values_and_all_gradients_are_those_of_the_plain_loop(variant, form, kind, loop):
    inputs, context = trials(kind)
    compare(make(variant, form=form), inputs, context, loop)


@pytest.mark.parametrize("kind", ["soft", "varying", "varying synaptic"])
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", variant_ids())
def test_the_adjoint_loop_takes_contexts_of_every_trial_and_step(variant, form, kind):
    inputs, context = trials(kind)
    compare(make(variant, form=form), inputs, context, "adjoint")


@needs_kernel
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", ["none", "e-add", "e-gain", "e-thr", "e-rank2"])
def test_the_compiled_loop_takes_soft_contexts_that_leave_the_weights_alone(variant, form):
    inputs, context = trials("soft")
    compare(make(variant, form=form), inputs, context, "compiled")


@fast_loop
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "softplus", "sigmoid"])
@pytest.mark.parametrize(
    "options",
    [
        {"tau": torch.linspace(30, 200, UNITS)},
        {"readout": "potentials"},
        {"excitatory": 0.7, "density": 0.6, "self_connections": False},
        {"noise": 0.0},
        {"noise_scaling": "euler-maruyama", "noise": 0.3},
        {"on_e": 0.6, "on_s": (2, 5)},
    ],
    ids=lambda options: " ".join(options),
)
def test_every_option_of_the_network(options, nonlinearity, form, loop):
    inputs, context = trials()
    network = make("es-gain-asym-1", nonlinearity=nonlinearity, form=form, **options)
    # torch takes softplus(x) = x above 20, which is wrong by exp(-20) = 2e-9.
    compare(network, inputs, context, loop, 1e-7 if nonlinearity == "softplus" else ROUNDING)


@fast_loop
@pytest.mark.parametrize("readout", ["rates", "potentials"])
@pytest.mark.parametrize("form", ["current", "rate"])
def test_thresholds_gains_and_several_scalings_in_one_chain(form, readout, loop):
    sizes = {"units": UNITS, "contexts": CONTEXTS}
    chain = Chain(
        Threshold(**sizes, seed=1), Gain(**sizes, seed=2), Hadamard(**sizes, rank=2, seed=3),
        Threshold(**sizes, seed=4), Gain(**sizes, positive=True, seed=5),
        Hadamard(**sizes, gated=True, seed=6), Drive(**sizes, seed=7),
    )  # fmt: skip
    inputs, context = trials()
    compare(make(chain, form=form, readout=readout), inputs, context, loop)


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_time_constants_are_learnt(form, noise):
    inputs, context = trials()
    network = make("es", form=form, learn_tau=True, tau=torch.linspace(30, 200, UNITS), noise=noise)
    compare(network, inputs, context, "adjoint")
    assert network.log_tau_excess.requires_grad


def test_contexts_get_their_gradient():
    for kind in ("soft", "soft, shared", "one-hot", "varying"):
        network = make("es-gain-asym-1")
        inputs, context = trials(kind)
        found = {}
        for network.loop in ("auto", "plain"):
            seen = context.clone().requires_grad_()
            outputs = network(inputs, seen, generator=4).outputs
            (found[network.loop],) = torch.autograd.grad(outputs.square().sum(), seen)
        torch.testing.assert_close(found["auto"], found["plain"], rtol=1e-11, atol=ROUNDING)


@pytest.mark.parametrize("varying", [False, True])
def test_the_part_that_is_differentiated_side_by_side_changes_nothing(varying, monkeypatch):
    # Three steps at a time: the last part is shorter.
    monkeypatch.setattr(_adjoint, "CHUNK", 3 * TRIALS * UNITS)
    inputs, context = trials("varying" if varying else "soft")
    compare(make("es-gain-asym-1", form="rate"), inputs, context, "adjoint")


@fast_loop
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", ["none", "s-asym-2", "s-gate-1", "es-gain-asym-1"])
def test_gradient_against_finite_differences(variant, form, loop):
    network = make(variant, noise=0.0, form=form)
    network.loop = loop
    inputs, context = trials("soft, shared")
    names = [name for name, _ in network.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in network.parameters()]

    def run(u, *parameters):
        found = torch.func.functional_call(
            network, dict(zip(names, parameters, strict=True)), (u, context[:4])
        )
        return found.outputs, found.rates, found.potentials

    short = inputs.detach()[:4, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (short, *values))


@needs_kernel
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "softplus", "sigmoid"])
@pytest.mark.parametrize(
    ("units", "outputs", "sizes"),
    [(1, 1, [2, 2]), (15, 16, [7, 1]), (16, 17, [64]), (33, 2, [6, 7, 13]), (70, 3, [5, 2]),
     (129, 33, [3, 3])],
)  # fmt: skip
def test_all_sizes_in_single_precision(units, outputs, sizes, nonlinearity):
    options = {"contexts": len(sizes), "seed": 0, "nonlinearity": nonlinearity, "noise": 0.1}
    double = CTRNN(5, units, outputs, "es", dtype=torch.float64, **options)
    single = CTRNN(5, units, outputs, "es", dtype=torch.float32, **options)
    single.load_state_dict(double.state_dict())
    double.load_state_dict(single.state_dict())
    double.loop, single.loop = "plain", "compiled"
    context = torch.eye(len(sizes)).repeat_interleave(torch.tensor(sizes), dim=0)
    inputs = torch.randn(len(context), 9, 5, generator=torch.Generator().manual_seed(1))
    got, wanted = ({}, {})
    for network, found in ((single, got), (double, wanted)):
        trajectory = network(inputs, context, generator=2)
        trajectory.outputs.square().sum().backward()
        found |= {name: p.grad for name, p in network.named_parameters()}
        found |= {"potentials": trajectory.potentials, "outputs": trajectory.outputs}
    for name, value in wanted.items():
        # 9 steps and sums of up to 129 or 9 * 64 terms: fewer than 1e3 roundings of 6e-8 that
        # add up, relative to the largest value.
        allowed = 6e-5 * (1e-3 + value.abs().max().item())
        assert torch.allclose(got[name].double(), value, rtol=0, atol=allowed), name


@fast_loop
def test_gradients_that_are_not_wanted_are_not_made(loop):
    network = make("es")
    network.loop = loop
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name == "weight")
    inputs, context = trials()
    outputs = network(inputs.detach(), context, generator=4).outputs
    outputs.sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is not None] == ["weight"]
    with torch.no_grad():
        assert not network(inputs, context, generator=4).outputs.requires_grad


def test_what_a_loop_does_not_cover_is_refused_by_name():
    inputs, context = trials("varying")
    network = make("e-add")
    network.loop = "compiled"
    with pytest.raises(RuntimeError, match="compiled loop is not installed, or does not cover"):
        network(inputs, context)
    network = make("none", nonlinearity=torch.sin)
    network.loop = "adjoint"
    with pytest.raises(RuntimeError, match="needs a named nonlinearity"):
        network(inputs.detach())
    network.loop = "fast"
    with pytest.raises(ValueError, match="must be one of auto, compiled, adjoint, plain"):
        network(inputs.detach())


def test_a_recurrence_without_pullback_takes_the_plain_loop():
    class Own(Recurrence):
        def __call__(self, rates):
            return rates

        def dense(self):
            return torch.eye(UNITS)

    network = make("none")
    circuit = network.circuit()
    assert _adjoint.covers(circuit)
    assert not _adjoint.covers(type(circuit)(Own(), circuit.input_weight, circuit.current))


@fast_loop
def test_second_derivatives_are_refused_not_wrong(loop):
    network = make("none")
    network.loop = loop
    inputs, context = trials()
    loss = network(inputs, context, noise=0.0).outputs.square().sum()
    (gradient,) = torch.autograd.grad(loss, network.bias, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "softplus", "sigmoid"])
@pytest.mark.parametrize("loop", ["auto", "adjoint", "plain"])
def test_nan_in_a_weight_is_seen_in_the_outputs(loop, nonlinearity):
    network = make("e-add", nonlinearity=nonlinearity)
    network.loop = loop
    with torch.no_grad():
        network.weight[0, 0] = torch.nan
    inputs, context = trials()
    assert network(inputs.detach(), context).outputs.isnan().any()
