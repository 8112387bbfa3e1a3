import pytest
import torch

from ctxrnn import CTRNN, _fast

CONTEXTS = 4
COVERED = (
    "none",
    "e-add",
    "e-rank2",
    "s-sym",
    "s-asym-2",
    "s-gate-1",
    "s-gate-2",
    "es",
    "es-add-gate-2",
)
NOT_COVERED = ("e-thr", "e-gain", "s-add-1", "s-mask", "s-scalar", "s-lowrankW", "s-full")


def make(variant, **options):
    network = CTRNN(
        3, 7, 2, variant, contexts=CONTEXTS, seed=1, dtype=torch.float64, learn_x0=True, **options
    )
    with torch.no_grad():
        network.x0.normal_(generator=torch.Generator().manual_seed(2))
    return network


def trials(soft):
    source = torch.Generator().manual_seed(3)
    inputs = torch.randn(5, 11, 3, generator=source, dtype=torch.float64, requires_grad=True)
    index = torch.randint(CONTEXTS, (5,), generator=source)
    context = torch.eye(CONTEXTS, dtype=torch.float64)[index]
    if soft:
        context = torch.rand(5, CONTEXTS, generator=source, dtype=torch.float64)
    return inputs, context


def values_and_gradients(network, inputs, context):
    trajectory = network(inputs, context, generator=4)
    source = torch.Generator().manual_seed(5)
    parts = (trajectory.outputs, trajectory.rates, trajectory.potentials)
    total = sum(
        (part * torch.randn(part.shape, generator=source, dtype=part.dtype)).sum() for part in parts
    )
    wanted = [*network.parameters(), inputs]
    return [*parts, *torch.autograd.grad(total, wanted)]


@pytest.mark.parametrize("tau", ["common", "per unit"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "softplus", "sigmoid"])
@pytest.mark.parametrize("variant", COVERED)
def test_values_and_all_gradients_are_those_of_the_plain_loop(variant, nonlinearity, soft, tau):
    times = 100.0 if tau == "common" else torch.linspace(30, 200, 7)
    network = make(variant, nonlinearity=nonlinearity, tau=times)
    inputs, context = trials(soft)
    circuit = network.circuit(context)
    assert _fast.covers(circuit, "current", nonlinearity, network.alpha)
    fast = values_and_gradients(network, inputs, context)
    network.fast = False
    plain = values_and_gradients(network, inputs, context)
    for one, other in zip(fast, plain, strict=True):
        # 11 steps of a few dozen operations each: 1e3 roundings of 1e-16, relative to the size.
        torch.testing.assert_close(
            one, other, rtol=1e-12, atol=1e-12 * (1 + other.abs().max().item())
        )


def test_dale_and_masks_reach_the_fast_loop():
    network = make("s-sym", excitatory=0.7, density=0.6, self_connections=False)
    inputs, context = trials(soft=False)
    fast = values_and_gradients(network, inputs, context)
    network.fast = False
    for one, other in zip(fast, values_and_gradients(network, inputs, context), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["none", "s-asym-2", "s-gate-1"])
def test_gradient_against_finite_differences(variant):
    network = make(variant, noise=0.0)
    inputs, context = trials(soft=True)
    names = [name for name, _ in network.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in network.parameters()]

    def run(u, *parameters):
        found = torch.func.functional_call(
            network, dict(zip(names, parameters, strict=True)), (u, context)
        )
        return found.outputs, found.rates, found.potentials

    short = inputs.detach()[:2, :3].clone().requires_grad_()
    context = context[:2]
    assert torch.autograd.gradcheck(run, (short, *values))


@pytest.mark.parametrize("variant", COVERED)
def test_without_gradient_the_buffers_are_shared_and_the_values_the_same(variant):
    network = make(variant)
    inputs, context = trials(soft=True)
    with_gradient = network(inputs, context, generator=4)
    with torch.no_grad():
        without = network(inputs, context, generator=4)
    assert with_gradient.potentials.requires_grad
    torch.testing.assert_close(without.potentials, with_gradient.potentials, rtol=0, atol=0)
    torch.testing.assert_close(without.rates, with_gradient.rates, rtol=0, atol=0)


@pytest.mark.parametrize("variant", NOT_COVERED)
def test_what_is_not_covered_takes_the_plain_loop(variant, monkeypatch):
    def refuse(*_):
        raise AssertionError("the fast loop was used")

    monkeypatch.setattr(_fast, "run", refuse)
    inputs, context = trials(soft=False)
    make(variant)(inputs, context)
    make("none", form="rate")(inputs, context)
    make("none", learn_tau=True)(inputs, context)
    make("none", nonlinearity=torch.sin)(inputs, context)
    make("e-add")(inputs, context.unsqueeze(1).expand(-1, 11, -1))


def test_second_derivatives_are_refused_not_wrong():
    network = make("none")
    inputs, context = trials(soft=False)
    loss = network(inputs, context, noise=0.0).outputs.square().sum()
    (gradient,) = torch.autograd.grad(loss, network.bias, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
