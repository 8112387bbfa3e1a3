import numpy as np
import pytest
import torch
from scipy.linalg import expm

from ctxrnn import CTRNN, Chain, Contexts, Drive, Full, Hadamard, Masks, filter_context

F64 = {"dtype": torch.float64}


def identity(x):
    return x


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(dt, units=4, tau=100.0):
    network = CTRNN(
        2, units, 1, dt=dt, tau=tau, noise=0.0, nonlinearity=identity, g=0.5, seed=3, **F64
    )
    with torch.no_grad():
        network.bias.copy_(draw(units, seed=4))
    return network


def test_linear_network_is_a_matrix_power():
    network = linear(dt=20.0)
    x0, steps = draw(1, 4, seed=5), 12
    found = network(torch.zeros(1, steps, 2), None, x0).potentials.detach().numpy()[0]
    step = 0.8 * np.eye(4) + 0.2 * network.weight.detach().numpy()
    offset = 0.2 * network.bias.detach().numpy()
    state = x0.numpy()[0]
    for t in range(steps):
        state = step @ state + offset
        np.testing.assert_allclose(found[t], state, rtol=1e-12, atol=1e-12)


def test_linear_network_converges_to_the_matrix_exponential_at_first_order():
    x0, u, total = draw(1, 4, seed=5), draw(1, 1, 2, seed=6), 200.0
    reference = linear(dt=20.0)
    weight, b = reference.weight.detach().numpy(), reference.bias.detach().numpy()
    drive = b + reference.input_weight.detach().numpy() @ u.numpy()[0, 0]
    flow = (weight - np.eye(4)) / 100.0
    rest = -np.linalg.solve(flow, drive / 100.0)
    exact = rest + expm(flow * total) @ (x0.numpy()[0] - rest)
    steps = np.array([10, 20, 40, 80, 160])
    errors = []
    for count in steps:
        network = linear(dt=total / count)
        found = network(u.expand(1, int(count), 2), None, x0).potentials[0, -1].detach().numpy()
        errors.append(np.abs(found - exact).max())
    slopes = np.diff(np.log(errors)) / np.diff(np.log(total / steps))
    # The error is a dt + b dt^2: the slope tends to 1, and halving dt halves its distance.
    np.testing.assert_allclose(slopes[-1], 1.0, atol=0.02)
    assert (np.abs(np.diff(np.abs(slopes - 1))) < 0.1).all()


def test_fixed_point_of_a_bistable_unit():
    # x = w tanh(x) with w = 2 has the roots 0 (unstable) and +-1.9150080481545.
    network = CTRNN(1, 1, 1, noise=0.0, seed=0, **F64)
    with torch.no_grad():
        network.weight.fill_(2.0)
    x0 = torch.tensor([[0.01], [-0.01], [5.0], [0.0]], dtype=torch.float64)
    found = network(torch.zeros(4, 400, 1), None, x0).potentials[:, -1, 0].detach()
    root = 1.9150080481545
    expected = torch.tensor([root, -root, root, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("scaling", ["stationary", "euler-maruyama"])
@pytest.mark.parametrize("dt", [5.0, 20.0, 50.0, 100.0])
def test_stationary_variance_of_the_noise(dt, scaling, form):
    sigma, trials, units = 0.3, 500, 8
    network = CTRNN(
        1, units, 1, dt=dt, noise=sigma, noise_scaling=scaling, form=form, nonlinearity=identity,
        seed=0, **F64,
    )  # fmt: skip
    with torch.no_grad():
        network.weight.zero_()
    steps = int(1000 / dt)  # ten time constants: what is left of the start is e^-20 of sigma^2
    states = network(torch.zeros(trials, steps, 1), generator=1).potentials[:, -1].detach()
    expected = sigma**2
    if scaling == "euler-maruyama":
        expected /= 1 - dt / 100 / 2
    count = trials * units
    # The mean square of `count` independent normals has relative standard error sqrt(2 / count).
    assert abs(float(states.square().mean()) / expected - 1) < 6 * np.sqrt(2 / count) + np.exp(-18)


def test_noise_of_units_with_their_own_time_constants():
    tau = torch.tensor([20.0, 50.0, 200.0])
    network = CTRNN(1, 3, 1, tau=tau, noise=0.2, nonlinearity=identity, seed=0, **F64)
    with torch.no_grad():
        network.weight.zero_()
    states = network(torch.zeros(4000, 100, 1), generator=1).potentials[:, -1].detach()
    variance = states.square().mean(0) / 0.04
    assert (variance - 1).abs().max() < 6 * np.sqrt(2 / 4000) + np.exp(-20)


def test_noise_repeats_with_the_generator_and_is_off_at_zero():
    network = CTRNN(2, 5, 1, seed=0)
    u = torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(0))
    first, again = network(u, generator=1).outputs, network(u, generator=1).outputs
    assert torch.equal(first, again)
    assert not torch.equal(first, network(u, generator=2).outputs)
    assert torch.equal(network(u, noise=0.0).outputs, network(u, noise=0.0).outputs)


def test_filtered_context_of_a_step_is_an_exponential():
    steps, dt, tau = 40, 20.0, 100.0
    before, after = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    found = filter_context(after.double(), tau, dt, steps=steps, initial=before.double())
    decay = torch.exp(-torch.arange(steps, dtype=torch.float64) * dt / tau)
    torch.testing.assert_close(found[0, :, 0], decay, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found[0, :, 1], 1 - decay, rtol=1e-12, atol=1e-14)


def test_each_pathway_has_its_own_filter():
    u = draw(2, 10, 2)
    context = torch.eye(2, dtype=torch.float64)
    context = context[:, None].expand(2, 10, 2).clone()
    context[:, 5:] = context[:, 5:].flip(-1)
    common = {"contexts": 2, "noise": 0.0, "seed": 0, **F64}
    slow = CTRNN(2, 6, 1, "es", tau_e=50.0, tau_s=400.0, **common)
    plain = CTRNN(2, 6, 1, "es", **common)
    filtered = Contexts(filter_context(context, 50.0, 20.0), filter_context(context, 400.0, 20.0))
    torch.testing.assert_close(slow(u, context).outputs, plain(u, filtered).outputs)
    start = torch.tensor([0.0, 1.0], dtype=torch.float64)
    first = slow(u, torch.eye(2, dtype=torch.float64), initial_context=start)
    wanted = [
        filter_context(torch.eye(2, dtype=torch.float64), tau, 20.0, steps=10, initial=start)
        for tau in (50.0, 400.0)
    ]
    torch.testing.assert_close(first.outputs, plain(u, Contexts(*wanted)).outputs)
    assert not torch.allclose(wanted[0], wanted[1])


def test_dale_sparsity_and_self_connections_hold_through_training():
    network = CTRNN(
        2, 40, 1, "s-sym", contexts=2, excitatory=0.75, density=0.3, self_connections=False, seed=0
    )
    before = network.weight.detach().clone()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    source = torch.Generator().manual_seed(0)
    for _ in range(20):
        u = torch.randn(8, 5, 2, generator=source)
        loss = (network(u, torch.eye(2).repeat(4, 1)).outputs - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weight = network.weight.detach()
    assert not torch.equal(weight, before)
    assert bool((weight[:, :30] >= 0).all())
    assert bool((weight[:, 30:] <= 0).all())
    assert bool((weight.diagonal() == 0).all())
    assert bool((weight[before == 0] == 0).all())
    # 40 x 39 possible connections, each there with probability 0.3.
    share = float((before != 0).double().sum()) / (40 * 39)
    assert abs(share - 0.3) < 6 * np.sqrt(0.3 * 0.7 / (40 * 39))


@pytest.mark.parametrize("options", [{}, {"excitatory": 0.8}, {"density": 0.5}])
def test_spectral_radius_is_as_asked(options):
    network = CTRNN(1, 50, 1, spectral_radius=1.3, seed=0, **options, **F64)
    radius = torch.linalg.eigvals(network.weight.detach()).abs().max()
    torch.testing.assert_close(float(radius), 1.3, rtol=1e-6, atol=0)


def test_initial_weights_have_the_stated_spread():
    network = CTRNN(20, 300, 10, "es", contexts=10, g=1.5, seed=0)
    drive, scaling = network.modulation
    expected = {
        network.weight: 1.5 / 300**0.5,
        network.input_weight: 1 / 20**0.5,
        network.output_weight: 1 / 300**0.5,
        drive.E: 0.5,
        scaling.h: 0.3,
    }
    for parameter, sd in expected.items():
        bound = 6 / np.sqrt(2 * parameter.numel())
        assert abs(float(parameter.detach().std()) / sd - 1) < bound
    relu = CTRNN(2, 5, 1, nonlinearity="relu", seed=0)
    torch.testing.assert_close(relu.weight.detach(), 0.5 * torch.eye(5))


def test_learnt_tau_and_x0_get_gradients_and_tau_stays_above_dt():
    network = CTRNN(2, 4, 1, tau=30.0, dt=20.0, learn_tau=True, learn_x0=True, seed=0, **F64)
    torch.testing.assert_close(float(network.tau.detach()), 30.0)
    names = [name for name, _ in network.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in network.parameters()]

    def run(*parameters):
        own = dict(zip(names, parameters, strict=True))
        u = draw(2, 3, 2)
        return torch.func.functional_call(
            network, own, (u,), {"noise": 0.1, "generator": 1}
        ).outputs

    assert torch.autograd.gradcheck(run, tuple(values))
    with torch.no_grad():
        network.log_tau_excess.fill_(-50.0)
    assert float(network.tau.detach()) >= 20.0


@pytest.mark.parametrize("variant", ["none", "e-gain", "s-mask", "s-add-1", "es-thr-gate-1"])
@pytest.mark.parametrize("form", ["current", "rate"])
def test_gradients_against_finite_differences(variant, form):
    network = CTRNN(
        2, 4, 1, variant, contexts=3, form=form, noise=0.0, seed=0, excitatory=0.5, **F64
    )
    names = [name for name, _ in network.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in network.parameters()]
    context = torch.softmax(draw(2, 3), -1)

    def run(*parameters):
        own = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(network, own, (draw(2, 3, 2, seed=2), context)).outputs

    assert torch.autograd.gradcheck(run, tuple(values))


def test_single_precision_agrees_with_double():
    options = {"contexts": 3, "noise": 0.0, "seed": 0}
    u, c = draw(4, 20, 2), torch.eye(3)[[0, 1, 2, 0]]
    single = CTRNN(2, 16, 2, "es", **options)(u, c).outputs.double()
    double = CTRNN(2, 16, 2, "es", **options, **F64)(u, c).outputs
    # 20 steps of sums of 16 terms at 6e-8 each.
    torch.testing.assert_close(single, double, rtol=0, atol=20 * 16 * 6e-8)


def test_numpy_goes_in_and_out():
    network = CTRNN(2, 4, 1, "e-add", contexts=2, noise=0.0, seed=0)
    u, c = np.zeros((3, 5, 2)), np.eye(2)[[0, 1, 0]]
    found = network(u, c).numpy()
    assert set(found) == {"potentials", "rates", "outputs"}
    wanted = network(torch.zeros(3, 5, 2), torch.eye(2)[[0, 1, 0]]).outputs.detach().numpy()
    np.testing.assert_array_equal(found["outputs"], wanted)


def test_empty_chain_is_no_modulation():
    u = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
    found = CTRNN(2, 4, 1, Chain(), noise=0.0, seed=0)(u).outputs
    torch.testing.assert_close(found, CTRNN(2, 4, 1, noise=0.0, seed=0)(u).outputs, rtol=0, atol=0)


NET = {"contexts": 3, "seed": 0}
GOOD = torch.zeros(4, 5, 2)
CLEAN = torch.eye(3)[[0, 1, 2, 0]]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CTRNN(2, 4, 1, "e-ad", **NET), r"unknown variant 'e-ad'\. Did you mean 'e-add'\?"),
        (lambda: CTRNN(2, 4, 1, "es-add", **NET), "unknown variant 'es-add'"),
        (lambda: CTRNN(2, 4, 1, "s-asym-0", **NET), "unknown variant 's-asym-0'"),
        (lambda: CTRNN(2, 4, 1, "e-add"), "contexts must be given"),
        (
            lambda: CTRNN(2, 4, 1, "s-sym", gain=2, **NET),
            "unknown argument of CTRNN or option of variant 's-sym' 'gain'",
        ),
        (lambda: CTRNN(2, 4, 1, nonlinearity="tan", seed=0), "Did you mean 'tanh'"),
        (lambda: CTRNN(2, 4, 1, form="rates", seed=0), "Did you mean 'rate'"),
        (
            lambda: CTRNN(2, 4, 1, dt=200.0, seed=0),
            r"dt must be in \(0, tau\]: got dt=200.0 ms with",
        ),
        (lambda: CTRNN(2, 4, 1, dt=0.0, seed=0), r"dt must be in \(0, tau\]"),
        (lambda: CTRNN(2, 4, 1, tau=-5.0, seed=0), "tau must be positive and finite: got -5 ms"),
        (lambda: CTRNN(2, 4, 1, tau=[50.0, 60.0], seed=0), r"one per unit, shape \(4,\)"),
        (lambda: CTRNN(2, 4, 1, noise=-1.0, seed=0), "noise must be zero or more"),
        (lambda: CTRNN(2, 0, 1, seed=0), "units must be at least 1: got 0"),
        (lambda: CTRNN(2, 4, 1, excitatory=1.5, seed=0), r"excitatory must lie in \[0, 1\]"),
        (lambda: CTRNN(2, 4, 1, density=0.0, seed=0), "density must be positive"),
        (lambda: CTRNN(2, 4, 1, "s-full", density=0.5, **NET), "act on W, which 's-full' replaces"),
        (lambda: CTRNN(2, 4, 1, Drive(5, 3), seed=0), "units=4 as the network: got 5"),
        (lambda: Chain(Drive(4, 3), Hadamard(4, 2)), "must agree in contexts"),
        (lambda: Chain(Hadamard(4, 3), Full(4, 3)), "must be the first synaptic pathway"),
        (
            lambda: CTRNN(2, 4, 1, Chain(Hadamard(4, 3), Masks(4, 3)), seed=0)(GOOD, CLEAN),
            "put them before other synaptic pathways",
        ),
    ],
)
def test_bad_networks_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            (torch.zeros(4, 5, 3), CLEAN),
            r"\(trial, time, input=2\), none of them 0: got \(4, 5, 3\)",
        ),
        ((torch.zeros(0, 5, 2), CLEAN), "none of them 0"),
        ((torch.zeros(5, 2), CLEAN), "inputs must have shape"),
        ((GOOD * float("nan"), CLEAN), "inputs must be finite: 40 of 40"),
        ((GOOD, CLEAN[:1]), r"\(4, 3\) or \(trial, time, context\) = \(4, 5, 3\): got \(1, 3\)"),
        ((GOOD, CLEAN[:, :2]), r"got \(4, 2\)"),
        ((GOOD, CLEAN / 0), "context must be finite"),
        ((GOOD, Contexts(CLEAN, CLEAN[:2])), r"synaptic context must have shape"),
        ((GOOD,), "context must be given: the pathways of 'es' need one of 3 entries"),
        ((GOOD, CLEAN, torch.zeros(1)), r"x0 must have shape \(4,\) or \(4, 4\): got \(1,\)"),
        ((GOOD, CLEAN, torch.zeros(4, 1)), r"x0 must have shape"),
        ((GOOD, CLEAN, torch.full((4,), float("inf"))), "x0 must be finite"),
    ],
)
def test_bad_calls_are_refused(call, message):
    network = CTRNN(2, 4, 1, "es", **NET)
    with pytest.raises(ValueError, match=message):
        network(*call)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("variant", ["none", "e-gain", "es", "s-full", "s-gate-2"])
def test_cuda_gives_what_the_cpu_gives(variant):
    options = {"contexts": 3, "seed": 0, **F64}
    here, there = CTRNN(2, 9, 1, variant, **options), CTRNN(2, 9, 1, variant, **options).cuda()
    for network in (here, there):
        network(draw(4, 6, 2), CLEAN, generator=1).outputs.square().sum().backward()
    for mine, other in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(other.grad.cpu(), mine.grad, rtol=1e-9, atol=1e-9)


def test_spread_reaches_the_variants_that_bring_their_own_matrix():
    for variant in ("s-full", "s-lowrankW"):
        still = CTRNN(2, 6, 1, variant, g=0.0, **NET)
        assert bool((still.circuit(CLEAN).dense_weight() == 0).all())
        with pytest.raises(ValueError, match="leave them out"):
            CTRNN(2, 6, 1, variant, initial="identity", **NET)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dt": "20"}, TypeError, "dt must be a number"),
        ({"dt": True}, TypeError, "dt must be a number"),
        ({"tau": None}, TypeError, "tau must be a number or one per unit, in ms"),
        ({"tau": "100"}, TypeError, "tau must be a number or one per unit, in ms"),
        ({"dtype": torch.float16}, ValueError, "dtype must be torch.float32 or torch.float64"),
        ({"dtype": "float64"}, ValueError, "dtype must be torch.float32 or torch.float64"),
    ],
)
def test_wrong_types_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        CTRNN(2, 4, 1, seed=0, **options)
