"""CUDA graphs, as far as they can be tested without CUDA: the recording is played by a double."""

import pytest
import torch

from ctxrnn import CTRNN, _graphs, variant_ids


class Double:
    """Records by keeping the loop, plays by calling it on the recorded inputs."""

    def __init__(self):
        self.recorded = self.played = 0

    def record(self, loop, tensors):
        self.recorded += 1
        inputs = [tensor.detach().clone() for tensor in tensors]
        outputs = tuple(torch.full_like(output, torch.nan) for output in loop(*inputs))

        class Graph:
            def replay(graph):
                del graph
                self.played += 1
                for mine, output in zip(outputs, loop(*inputs), strict=True):
                    mine.copy_(output)

        return _graphs._Recording(Graph(), inputs, outputs)


@pytest.fixture
def double(monkeypatch):
    double = Double()
    monkeypatch.setattr(_graphs, "_record", double.record)
    monkeypatch.setattr(_graphs, "wanted", lambda _: True)
    monkeypatch.setattr(_graphs, "_recordings", _graphs.OrderedDict())
    return double


def run(network, seed, trials=4, steps=5, varying=False):
    source = torch.Generator().manual_seed(seed)
    inputs = torch.randn(trials, steps, 2, generator=source, dtype=torch.float64)
    shape = (trials, steps, 3) if varying else (trials, 3)
    context = torch.rand(shape, generator=source, dtype=torch.float64)
    network.zero_grad()
    outputs = network(inputs, context, generator=seed).outputs
    outputs.square().sum().backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    return [outputs.detach(), *gradients]


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", variant_ids())
def test_what_is_played_is_what_is_computed(variant, form, varying, double, monkeypatch):
    network = CTRNN(2, 6, 2, variant, contexts=3, form=form, seed=0, dtype=torch.float64)
    network.loop = "adjoint"
    played = [run(network, seed, varying=varying) for seed in range(3)]
    assert (double.recorded, double.played) == (2, 6)
    monkeypatch.setattr(_graphs, "wanted", lambda _: False)
    for seed, found in enumerate(played):
        for one, other in zip(found, run(network, seed, varying=varying), strict=True):
            assert torch.equal(one, other)


def test_other_shapes_pathways_and_forms_are_recorded_by_themselves(double):
    networks = [
        CTRNN(2, 6, 2, variant, contexts=3, form=form, seed=0, dtype=torch.float64)
        for variant in ("e-gain", "s-asym-1", "s-gate-1")
        for form in ("current", "rate")
    ]
    for network in networks:
        network.loop = "adjoint"
        run(network, 0)
    assert double.recorded == 12
    run(networks[0], 1)
    assert double.recorded == 12
    run(networks[0], 1, trials=5)
    run(networks[0], 1, steps=4)
    assert double.recorded == 16


def test_few_recordings_are_kept(double, monkeypatch):
    monkeypatch.setattr(_graphs, "KEPT", 4)
    network = CTRNN(2, 6, 2, "e-gain", contexts=3, seed=0, dtype=torch.float64)
    network.loop = "adjoint"
    for steps in (3, 4, 5, 3):
        run(network, 0, steps=steps)
    assert len(_graphs._recordings) == 4
    assert double.recorded == 8


def test_they_are_off_unless_asked_for_and_on_cuda(monkeypatch):
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert not _graphs.wanted(cuda)
    monkeypatch.setenv("CTXRNN_CUDA_GRAPHS", "1")
    assert _graphs.wanted(cuda)
    assert not _graphs.wanted(cpu)


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", variant_ids())
def test_on_a_gpu_graphs_change_nothing(variant, form, monkeypatch):
    found = {}
    for graphs in ("0", "1"):
        monkeypatch.setenv("CTXRNN_CUDA_GRAPHS", graphs)
        network = CTRNN(
            2, 6, 2, variant, contexts=3, form=form, seed=0, dtype=torch.float64, device="cuda"
        )
        found[graphs] = [run(network, seed) for seed in range(3)]
    for one, other in zip(found["0"], found["1"], strict=True):
        for mine, theirs in zip(one, other, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
