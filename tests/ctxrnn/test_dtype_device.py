"""Types and devices, as PyTorch users expect them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from ctxrnn import CTRNN, Contexts, Ensemble, ModulatedRNN, TrialBatch

VARIANTS = ["none", "es-add-sym", "es-gain-gate-2", "e-thr", "s-lowrankW", "s-mask", "s-full"]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Trials of one context lie next to each other in the first, so that the compiled loop runs it.
CONTEXTS = [torch.eye(3).repeat_interleave(2, 0), draw(6, 3, seed=9).float().sigmoid()]


def build(variant, **options):
    return CTRNN(4, 9, 2, variant, contexts=3, seed=0, noise=0.0, **options)


def outputs(module, u, context=None):
    if isinstance(module, ModulatedRNN):
        return module(u)[0]
    if isinstance(module, Ensemble):
        return torch.cat([run.outputs for run in module(u, context)], -1)
    return module(u, context).outputs


def modules(**options):
    members = [{"units": 9, "modulation": v, "seed": 0} for v in ("e-add", "s-sym")]
    return {
        "network": build("es-add-sym", tau=[50.0] * 5 + [100.0] * 4, learn_x0=True, **options),
        "sparse": build("es-add-sym", density=0.5, excitatory=0.5, **options),
        "learnt tau": build("es-gain-sym", learn_tau=True, tau_e=50.0, **options),
        "ensemble": Ensemble.of(4, 2, members, contexts=3, noise=0.0, **options),
        "layer": ModulatedRNN(
            4, 9, modulation="es-gain-sym", contexts=3, seed=0, num_layers=2, **options
        ),
    }


NAMES = list(modules())


@pytest.mark.parametrize("name", NAMES)
def test_double_computes_in_double(name):
    single, double = modules()[name], modules(dtype=torch.float64)[name]
    u, context = draw(6, 30, 4), CONTEXTS[0]
    wanted = outputs(double, u, context)
    assert wanted.dtype == torch.float64
    rounded = outputs(single, u.float(), context)
    assert rounded.dtype == torch.float32
    # Far from equal to double, but only by rounding.
    error = (rounded - wanted).abs().max()
    assert 0 < error < 1e-5
    # The initial values are those that float32 holds, in either type.
    after = single.double()
    for mine, other in zip(after.state_dict().values(), double.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-7)
        assert mine.dtype == other.dtype == torch.float64
    after.load_state_dict(double.state_dict())
    torch.testing.assert_close(outputs(after, u, context), wanted, rtol=1e-12, atol=1e-12)
    assert outputs(after.float(), u.float(), context).dtype == torch.float32
    assert outputs(copy.deepcopy(double), u, context).equal(wanted)


@pytest.mark.parametrize("context", CONTEXTS, ids=["shared", "mixed"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_double_in_every_loop_and_pathway(variant, context):
    network, u = build(variant).double(), draw(6, 30, 4)
    results = []
    for loop in ("auto", "adjoint", "plain"):
        network.loop = loop
        network.zero_grad()
        run = network(u, context)
        assert {run.potentials.dtype, run.rates.dtype, run.outputs.dtype} == {torch.float64}
        run.outputs.square().sum().backward()
        results.append((run.outputs.detach(), network.input_weight.grad.clone()))
    for found in results[1:]:
        for mine, other in zip(found, results[0], strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-11)


def test_noise_has_the_type_of_the_network():
    network = CTRNN(4, 9, 2, seed=0).double()
    run = network(draw(2, 10, 4), generator=0)
    assert run.rates.dtype == torch.float64
    single = CTRNN(4, 9, 2, seed=0)(draw(2, 10, 4), generator=0)
    torch.testing.assert_close(run.rates.float(), single.rates, rtol=1e-5, atol=1e-5)


def test_other_types_are_cast_to_that_of_the_network():
    network, context = build("es-add-sym"), torch.eye(3).repeat(2, 1)
    u = torch.randint(0, 2, (6, 20, 4), generator=torch.Generator().manual_seed(0))
    wanted = network(u.float(), context)
    for kind in (torch.float64, torch.int64, torch.bool, torch.float16):
        found = network(u.to(kind), context.to(kind), torch.zeros(9, dtype=kind))
        assert torch.equal(found.outputs, wanted.outputs)
        assert found.outputs.dtype == torch.float32
    with pytest.raises(TypeError, match=r"inputs must be real: got torch\.complex64"):
        network(u.to(torch.complex64), context)


def test_arrays_do_as_well_as_tensors():
    network, u, context = build("es-add-sym", tau_e=50.0), draw(6, 20, 4), CONTEXTS[1].double()
    x0, before, other = draw(9), draw(6, 3).abs(), context.flip(0)
    wanted = network(u, Contexts(context, other), x0, initial_context=before)
    found = network(
        u.numpy(), Contexts(context.numpy(), other.numpy()), x0.numpy(),
        initial_context=before.numpy(),
    )  # fmt: skip
    assert torch.equal(found.outputs, wanted.outputs)
    shared = network(u.numpy(), context.numpy()).outputs
    assert torch.equal(shared, network(u, context).outputs)
    circuit = network.circuit(Contexts(context.numpy(), other.numpy()))
    expected = network.circuit(Contexts(context.float(), other.float()))
    assert torch.equal(circuit.current, expected.current)
    assert torch.equal(circuit.dense_weight(), expected.dense_weight())
    ensemble = Ensemble([network])
    assert torch.equal(ensemble(u.numpy(), context.numpy())[0].outputs, shared)


def test_a_layer_is_as_strict_as_torch():
    layer, rnn = ModulatedRNN(4, 9, contexts=3), nn.RNN(4, 9)
    with pytest.raises(ValueError, match=r"must be torch\.float32, as the layer is: got torch"):
        layer(draw(5, 2, 4))
    with pytest.raises((ValueError, RuntimeError)):
        rnn(draw(5, 2, 4))
    with pytest.raises(TypeError, match="input must be a tensor or a packed sequence"):
        layer(draw(5, 2, 4).numpy())


@pytest.mark.parametrize("name", NAMES)
def test_under_autocast_states_keep_their_precision(name):
    module, u = modules()[name], draw(6, 30, 4).float()
    for context in CONTEXTS:
        wanted = outputs(module, u, context)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = outputs(module, u, context)
            assert torch.is_autocast_enabled("cpu")
        assert found.dtype == torch.float32
        if name != "layer":  # Its encoder is an ordinary product.
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("given", [torch.float16, "float64", np.float64, float])
def test_types_that_do_not_exist_are_refused(given):
    for build_one in (lambda: CTRNN(4, 9, 2, dtype=given), lambda: ModulatedRNN(4, 9, dtype=given)):
        with pytest.raises(ValueError, match=r"dtype must be torch\.float32 or torch"):
            build_one()


def test_the_default_type_of_torch_is_followed():
    torch.set_default_dtype(torch.float64)
    try:
        default, chosen = build("es-add-sym"), build("es-add-sym", dtype=torch.float32)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (default.dtype, chosen.dtype) == (torch.float64, torch.float32)
    assert {value.dtype for value in chosen.state_dict().values()} == {torch.float32}


def test_a_batch_moves_as_a_tensor_does():
    batch = TrialBatch(
        inputs=torch.zeros(2, 3, 1), targets=torch.zeros(2, 3, dtype=torch.int64),
        mask=torch.ones(2, 3), context=torch.eye(2), task=torch.tensor([0, 1]),
        lengths=torch.tensor([3, 2]), names=("a", "b"), dt=20.0,
    )  # fmt: skip
    for moved in (
        batch.to(torch.float64),
        batch.to(dtype=torch.float64),
        batch.to("cpu", torch.float64),
        batch.to(device="cpu", dtype=torch.float64),
        batch.to(torch.device("cpu")).to(torch.float64),
    ):
        kinds = (moved.inputs.dtype, moved.mask.dtype, moved.context.dtype, moved.targets.dtype)
        assert kinds == (torch.float64, torch.float64, torch.float64, torch.int64)
    assert batch.to("cpu").inputs.dtype == torch.float32


def test_an_ensemble_tells_device_and_type_of_its_members():
    ensemble = modules()["ensemble"]
    assert (ensemble.device.type, ensemble.dtype) == ("cpu", torch.float32)
    assert ensemble.double().dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_modules_move_to_a_gpu_and_back(name):
    module, u, context = modules(dtype=torch.float64)[name], draw(6, 30, 4), CONTEXTS[0].double()
    wanted = outputs(module, u, context)
    moved = module.to("cuda")
    assert {value.device.type for value in moved.state_dict().values()} == {"cuda"}
    # A network brings what it is given to its own device; a layer is as strict as torch's.
    given = u.cuda() if name == "layer" else u
    found = outputs(moved, given, context)
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        outputs(modules(dtype=torch.float64, device="cuda")[name], u.cuda(), context.cuda()).cpu(),
        wanted, rtol=1e-9, atol=1e-9,
    )  # fmt: skip
    torch.testing.assert_close(outputs(moved.cpu(), u, context), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
def test_arrays_reach_a_network_on_a_gpu():
    network = build("es-add-sym", device="cuda")
    run = network(draw(6, 30, 4).numpy(), CONTEXTS[1].numpy())
    assert run.rates.device.type == "cuda"
    assert run.numpy()["rates"].shape == (6, 30, 9)
    with torch.autocast("cuda", dtype=torch.float16):
        again = network(draw(6, 30, 4), CONTEXTS[1])
    torch.testing.assert_close(again.outputs, run.outputs)
