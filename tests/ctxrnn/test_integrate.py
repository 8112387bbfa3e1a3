from dataclasses import replace

import numpy as np
import pytest
import torch

from ctxrnn import CTRNN, AbstractModulation, Chain, Contexts, Drive, variant_ids
from ctxrnn._noise import draw_key, normals

# A dozen steps of a few dozen additions near 1, each rounded to 1.1e-16.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
CONTEXTS = 3
F64 = {"dtype": torch.float64}


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(variant, **options):
    return CTRNN(2, 5, 2, variant, **{"contexts": CONTEXTS, "seed": 1, **F64, **options})


def trials(steps=7):
    return random(4, steps, 2, seed=2), torch.softmax(random(4, CONTEXTS, seed=3), -1)


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", variant_ids())
def test_a_context_repeated_over_time_is_a_constant_one(variant, form):
    network = make(variant, form=form)
    inputs, context = trials()
    constant = network(inputs, context, generator=5)
    repeated = network(inputs, context.unsqueeze(1).expand(-1, 7, -1), generator=5)
    for name in ("potentials", "rates", "outputs"):
        torch.testing.assert_close(getattr(repeated, name), getattr(constant, name), **EXACT)


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("scaling", ["stationary", "euler-maruyama"])
@pytest.mark.parametrize("learn_tau", [False, True])
def test_noise_enters_as_the_equation_says(form, varying, scaling, learn_tau):
    tau = torch.linspace(25, 90, 5)
    network = make("es-gain-sym", form=form, noise=0.4, noise_scaling=scaling, tau=tau)
    if learn_tau:
        network = make(
            "es-gain-sym", form=form, noise=0.4, noise_scaling=scaling, tau=tau, learn_tau=True
        )
    inputs, context = trials()
    source = torch.Generator().manual_seed(6)
    xi = normals(draw_key(torch.Generator().manual_seed(6)), 7, 4, 5).double()
    given = context.unsqueeze(1).expand(-1, 7, -1) if varying else context
    found = network(inputs, given, generator=source)
    alpha = 20.0 / tau.double()
    size = (2 - alpha if scaling == "stationary" else 2.0) / alpha
    circuit = network.circuit(context)
    z = torch.zeros(4, 5, **F64)
    for t in range(7):
        current = inputs[:, t] @ network.input_weight.mT + circuit.current
        current = current + 0.4 * size.sqrt() * xi[t]
        r = z if form == "rate" else torch.tanh(circuit.gain * z)
        total = circuit.propagate(r) + current
        z = (1 - alpha) * z + alpha * (
            torch.tanh(circuit.gain * total) if form == "rate" else total
        )
        torch.testing.assert_close(found.potentials[:, t], z, **EXACT)


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", ["none", "e-thr", "es-gain-asym-1", "s-full"])
def test_a_step_without_noise_follows_the_vector_field(variant, form):
    network = make(variant, form=form, noise=0.0, tau=33.3, dt=7.7)
    inputs, context = trials(steps=1)
    x0 = random(4, 5, seed=4)
    circuit = network.circuit(context)
    step = x0 + 7.7 * network.velocity(circuit, x0, inputs[:, 0])
    torch.testing.assert_close(network(inputs, context, x0).potentials[:, 0], step, **EXACT)


def test_time_constants_keep_double_precision():
    for tau in (33.3, [33.3] * 5):
        assert (make("none", tau=tau).tau == torch.tensor(33.3, **F64)).all()
    learnt = make("none", tau=33.3, learn_tau=True).tau.item()
    # One exponential and one logarithm, rounded to 1.1e-16 each.
    assert abs(learnt / 33.3 - 1) < 1e-14


@pytest.mark.parametrize("variant", ["none", "es", "s-mask"])
@pytest.mark.parametrize("form", ["current", "rate"])
def test_each_trial_is_run_as_if_alone(variant, form):
    network = make(variant, form=form, noise=0.0)
    inputs, context = trials()
    together = network(inputs, context).outputs
    for trial in range(4):
        alone = network(inputs[trial : trial + 1], context[trial : trial + 1]).outputs
        torch.testing.assert_close(alone[0], together[trial], **EXACT)


def test_a_run_can_be_taken_up_where_it_ended():
    network = make("es-thr-gate-1", noise=0.0)
    inputs, context = trials()
    whole = network(inputs, context).potentials
    first = network(inputs[:, :3], context).potentials
    rest = network(inputs[:, 3:], context, first[:, -1]).potentials
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, **EXACT)


class InputGate(AbstractModulation):
    """A pathway of the user's own that acts on the input weights."""

    pathway = "excitability"

    def modulate(self, circuit, context):
        return replace(circuit, input_weight=circuit.input_weight * context.mean())

    def config(self):
        return {"units": self.units, "contexts": self.contexts}


def test_own_pathways_may_change_the_input_weights():
    network = make(Chain(InputGate(5, CONTEXTS), Drive(5, CONTEXTS, seed=0)), noise=0.0)
    inputs, _ = trials()
    context = torch.full((4, CONTEXTS), 2.0, **F64)
    plain = make(Chain(network.modulation.pathways[1]), noise=0.0)
    wanted = plain(2 * inputs, context).potentials
    torch.testing.assert_close(network(inputs, context).potentials, wanted, **EXACT)
    varying = context.unsqueeze(1).expand(-1, 7, -1)
    torch.testing.assert_close(network(inputs, varying).potentials, wanted, **EXACT)


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", ["e-thr", "s-full", "s-lowrankW", "es-rank2-asym-1"])
def test_gradients_through_contexts_that_vary_and_are_filtered(variant, form):
    network = CTRNN(
        1, 3, 1, variant, contexts=2, noise=0.0, seed=0, form=form, learn_x0=True, tau_e=30.0,
        tau_s=80.0, readout="potentials", density=1.0, **F64,
    )  # fmt: skip
    names = [name for name, _ in network.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in network.parameters()]
    first = random(2, 3, 2, seed=1).requires_grad_()
    second = random(2, 3, 2, seed=2).requires_grad_()

    def run(c_e, c_s, *parameters):
        own = dict(zip(names, parameters, strict=True))
        inputs = random(2, 3, 1, seed=3)
        return torch.func.functional_call(network, own, (inputs, Contexts(c_e, c_s))).outputs

    assert torch.autograd.gradcheck(run, (first, second, *values))


def test_seeds_of_the_noise_may_be_any_integer():
    network = make("none")
    inputs, _ = trials()
    wanted = network(inputs, generator=5).outputs
    assert torch.equal(network(inputs, generator=np.int64(5)).outputs, wanted)
    with pytest.raises(TypeError, match="generator must be an integer: got 'a'"):
        network(inputs, generator="a")


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", variant_ids())
def test_cuda_gives_the_values_and_gradients_of_the_cpu(variant, form):
    inputs, context = trials()
    found = []
    for device in ("cpu", "cuda"):
        network = make(variant, form=form, device=device)
        trajectory = network(inputs, context, generator=5)
        trajectory.outputs.square().sum().backward()
        found.append([trajectory.outputs, *(p.grad for p in network.parameters())])
    for here, there in zip(*found, strict=True):
        # Sums in another order: a thousand roundings of values up to 10.
        torch.testing.assert_close(there.cpu(), here, rtol=1e-11, atol=1e-11)
