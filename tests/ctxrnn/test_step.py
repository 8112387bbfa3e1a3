"""The compiled training step against autograd."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ctxrnn import (
    CTRNN,
    TrainConfig,
    TrialBatch,
    _kernel,
    _step,
    make_generator,
    task_loss,
    variant_ids,
)
from ctxrnn._losses import step_weights
from ctxrnn._step import Prepared, add_gradient

pytestmark = pytest.mark.skipif(not _kernel.available(), reason="the kernel is not compiled")
ROOT = Path(__file__).parents[2]
TASKS, TRIALS, STEPS, INPUTS, OUTPUTS = 3, 8, 6, 4, 5


def batch(kind="class", dtype=torch.float64, outputs=OUTPUTS):
    source = torch.Generator().manual_seed(0)
    task = torch.arange(TRIALS) * TASKS // TRIALS
    targets = torch.randint(outputs, (TRIALS, STEPS), generator=source)
    if kind == "vector":
        targets = torch.randn(TRIALS, STEPS, outputs, generator=source).to(dtype)
    mask = torch.rand(TRIALS, STEPS, generator=source).to(dtype)
    mask[:, 1] = 0
    mask[task == 2] = 0
    return TrialBatch(
        torch.randn(TRIALS, STEPS, INPUTS, generator=source).to(dtype), targets, mask,
        torch.eye(TASKS, dtype=dtype)[task], task, torch.full((TRIALS,), STEPS), ("a", "b", "c"),
        20.0,
    )  # fmt: skip


def gradients(network, trials, config, loop):
    network.loop = loop
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    prepared = Prepared(trials, device=torch.device("cpu"), dtype=network.dtype)
    loss = add_gradient(network, prepared, make_generator(1), config)
    return loss, {name: p.grad.clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("kind", ["class", "vector"])
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", variant_ids())
def test_loss_and_gradient_are_those_of_autograd(variant, form, kind):
    network = CTRNN(
        INPUTS, 7, OUTPUTS, variant, contexts=TASKS, form=form, seed=0, dtype=torch.float64,
        learn_x0=True,
    )  # fmt: skip
    penalised = not network.modulation.replaces_weight
    config = TrainConfig(weight_penalty=0.1 if penalised else 0.0)
    loss, found = gradients(network, batch(kind), config, "compiled")
    wanted_loss, wanted = gradients(network, batch(kind), config, "plain")
    assert loss == pytest.approx(wanted_loss, rel=1e-12)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("outputs", [1, 2, 17, 40])
@pytest.mark.parametrize("kind", ["class", "vector"])
def test_compiled_losses_are_those_of_torch(kind, outputs, dtype):
    trials = batch(kind, dtype, outputs)
    source = torch.Generator().manual_seed(2)
    logits = 5 * torch.randn(TRIALS, STEPS, outputs, generator=source).to(dtype)
    logits[0, 0, 0] = 80.0
    logits[1, 0, 0] = -80.0
    logits = logits.transpose(0, 1).contiguous().requires_grad_()
    targets = trials.targets.transpose(0, 1).contiguous()
    weights = step_weights(trials).transpose(0, 1).contiguous()
    grad = torch.full_like(logits, torch.nan)
    loss = _kernel.loss(logits.detach(), targets, weights, grad)
    wanted = task_loss(logits.transpose(0, 1), trials)
    (wanted_grad,) = torch.autograd.grad(wanted, logits)
    # Sums of some hundred numbers up to 80.
    size = 1e-5 if dtype == torch.float32 else 1e-13
    assert loss == pytest.approx(float(wanted.detach()), rel=size)
    torch.testing.assert_close(grad, wanted_grad, rtol=0, atol=size)


@pytest.mark.parametrize("target", [-1, OUTPUTS])
def test_a_class_outside_the_outputs_never_reaches_the_compiled_loss(target):
    trials = batch()
    trials.targets[0, 0] = target
    network = CTRNN(INPUTS, 7, OUTPUTS, "e-add", contexts=TASKS, seed=0, dtype=torch.float64)
    with pytest.raises(ValueError, match="must be classes 0 to 4, as the network has 5 outputs"):
        gradients(network, trials, TrainConfig(), "auto")


def test_bad_inputs_are_refused_before_the_loop():
    trials = batch()
    trials.inputs[2, 3, 1] = torch.nan
    with pytest.raises(ValueError, match="inputs must be finite: 1 of"):
        Prepared(trials, device=torch.device("cpu"), dtype=torch.float64)


def test_diverged_outputs_give_a_loss_that_is_not_finite():
    network = CTRNN(INPUTS, 7, OUTPUTS, "e-add", contexts=TASKS, seed=0, dtype=torch.float32)
    for value in (torch.nan, torch.inf):
        with torch.no_grad():
            network.output_bias[0] = value
        for kind in ("class", "vector"):
            loss, _ = gradients(network, batch(kind, torch.float32), TrainConfig(), "compiled")
            assert not torch.isfinite(torch.tensor(loss))


@pytest.mark.parametrize("steps", [1, 2, 4, 5])
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", ["none", "es-gain-asym-1", "e-thr"])
def test_long_trials_are_run_in_segments_with_the_same_result(variant, form, steps, monkeypatch):
    network = CTRNN(
        INPUTS, 7, OUTPUTS, variant, contexts=TASKS, form=form, seed=0, dtype=torch.float64,
        learn_x0=True, noise=0.3,
    )  # fmt: skip
    whole_loss, whole = gradients(network, batch(), TrainConfig(), "compiled")
    arrays = 2 if form == "rate" or "gain" in variant else 1
    monkeypatch.setattr(_step, "MEMORY", steps * arrays * TRIALS * 16 * 8)
    loss, found = gradients(network, batch(), TrainConfig(), "compiled")
    assert loss == pytest.approx(whole_loss, rel=1e-13)
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-13, msg=name)


@pytest.mark.parametrize("segment", [None, 2, 3])
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("variant", ["none", "e-add", "es-gain-asym-1"])
def test_steps_that_no_loss_looks_at_are_not_run(variant, form, segment, monkeypatch):
    trials = batch()
    trials = dataclasses.replace(trials, mask=trials.mask + 1)
    # Tasks of 2, 6 and 3 steps; the trials of the first differ; one trial counts nothing at all.
    for rows, length in ((slice(0, 2), 2), (slice(2, 3), 1), (slice(6, 7), 3), (slice(7, 8), 0)):
        trials.mask[rows, length:] = 0
    network = CTRNN(
        INPUTS, 7, OUTPUTS, variant, contexts=TASKS, form=form, seed=0, dtype=torch.float64,
        noise=0.3,
    )  # fmt: skip
    prepared = Prepared(trials, device=torch.device("cpu"), dtype=torch.float64)
    setting = _kernel.Setting(
        form, "tanh", "rates", torch.tensor([0, TRIALS]), torch.tensor([0]), None, torch.zeros(7),
        None,
    )  # fmt: skip
    parted = prepared.parted(setting)
    assert parted.first.tolist() == [0, 3, 6, 8]
    assert parted.until.tolist() == [2, 6, 3]
    if segment:
        arrays = 2 if form == "rate" or "gain" in variant else 1
        monkeypatch.setattr(_step, "MEMORY", segment * arrays * TRIALS * 16 * 8)
    monkeypatch.setattr(_step, "_workspace", _Poisoned())
    loss, found = gradients(network, trials, TrainConfig(), "compiled")
    wanted_loss, wanted = gradients(network, trials, TrainConfig(), "plain")
    assert loss == pytest.approx(wanted_loss, rel=1e-12)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12, msg=name)


class _Poisoned:
    """Memory in which everything is NaN until it is written."""

    def take(self, name, shape, dtype):
        del name
        return torch.full(shape, torch.nan, dtype=dtype)


def test_memory_is_written_before_it_is_read():
    # The C library then hands out memory full of 3e38, whose square is infinite.
    code = """
import dataclasses, torch
from tests.ctxrnn.test_step import *
for kind in ("class", "vector"):
    for variant in ("none", "es-gain-asym-1"):
        for form in ("current", "rate"):
            trials = batch(kind, torch.float32)
            trials.mask[:3, 2:] = 0  # And those of the last task count nothing at all.
            network = CTRNN(INPUTS, 7, OUTPUTS, variant, contexts=TASKS, form=form, seed=0)
            loss, found = gradients(network, trials, TrainConfig(), "compiled")
            wanted, _ = gradients(network, trials, TrainConfig(), "plain")
            assert abs(loss - wanted) < 1e-4 * wanted, (kind, variant, form, loss, wanted)
            assert all(value.isfinite().all() for value in found.values())
"""
    environment = {**os.environ, "MALLOC_PERTURB_": str(0x80), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda b: {"targets": b.targets.int()},
        lambda b: {"targets": b.targets.to(torch.uint8)},
        lambda b: {"targets": b.targets.double()},
        lambda b: {"targets": b.targets.unsqueeze(-1).repeat(1, 1, 4)},
        lambda b: {"task": b.task.int()},
    ],
)
def test_trials_that_the_loop_would_misread_are_refused(change):
    with pytest.raises(TypeError, match=r"(targets must be classes|task must be int64)"):
        dataclasses.replace(batch(), **change(batch()))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_masks_of_any_type_weigh_alike(dtype):
    network = CTRNN(INPUTS, 7, OUTPUTS, "e-add", contexts=TASKS, seed=0, dtype=torch.float64)
    mask = batch().mask > 0.3
    losses = [
        gradients(network, dataclasses.replace(batch(), mask=mask.to(kind)), TrainConfig(), loop)[0]
        for kind, loop in ((dtype, "compiled"), (dtype, "plain"), (torch.float64, "compiled"))
    ]
    assert losses == pytest.approx([losses[-1]] * 3, rel=1e-6)


def test_wanted_outputs_must_be_those_of_the_network():
    network = CTRNN(INPUTS, 7, OUTPUTS + 1, "e-add", contexts=TASKS, seed=0, dtype=torch.float64)
    with pytest.raises(ValueError, match="must have the 6 outputs of the network: got 5"):
        gradients(network, batch("vector"), TrainConfig(), "auto")


def test_the_kernel_refuses_what_it_would_misread():
    outputs, grad = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    good = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3)
    _kernel.loss(outputs, *good, grad)
    for targets, weight in (
        (good[0].int(), good[1]),
        (good[0][:1], good[1]),
        (good[0], good[1].double()),
        (good[0], good[1][:1]),
        (outputs.double(), good[1]),
        (outputs[..., :2], good[1]),
    ):
        with pytest.raises(TypeError, match="do not fit outputs"):
            _kernel.loss(outputs, targets, weight, grad)


def test_a_library_of_other_sources_is_left_out(monkeypatch, caplog):
    monkeypatch.setattr(_kernel, "_of_these_sources", lambda _: False)
    assert _kernel.library.__wrapped__() is None
    assert "was compiled from other sources and is left out" in caplog.text
