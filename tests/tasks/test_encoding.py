"""The vector encoding: an exact linear projection of neurogym's ring."""

import math

import numpy as np
import pytest
import torch
from ctxrnn.tasks._encoding import bumps, directions, input_projection, projection
from neurogym.envs.collections.yang19 import _gaussianbump

from ctxrnn.tasks import task_set

# Inputs are float32 (relative rounding 6e-8) and sums run over at most 32 of them.
ROUNDING = 1e-5


@pytest.mark.parametrize("ring", [4, 6, 8, 16, 32])
def test_bumps_are_neurogyms(ring):
    theta = directions(ring)
    for i in range(ring):
        np.testing.assert_allclose(bumps(ring)[i], _gaussianbump(theta[i], theta, 1), atol=1e-12)


@pytest.mark.parametrize("ring", [4, 6, 8, 16, 32])
def test_a_noiseless_bump_becomes_the_unit_vector_of_its_direction(ring):
    theta = directions(ring)
    wanted = np.stack([np.sin(theta), np.cos(theta)], 1)
    np.testing.assert_allclose(bumps(ring) @ projection(ring), wanted, atol=1e-12)


@pytest.mark.parametrize("ring", [8, 16])
def test_white_noise_stays_white(ring):
    covariance = projection(ring).T @ projection(ring)
    assert covariance[0, 0] == pytest.approx(covariance[1, 1])
    assert covariance[0, 1] == pytest.approx(0, abs=1e-12)
    length = bumps(ring)[0] @ np.cos(directions(ring))
    assert covariance[0, 0] == pytest.approx(ring / 2 / length**2)


def test_vector_batch_is_the_projected_ring_batch():
    names = ["go", "ctxdm2", "dms"]
    ring = task_set(names, ring=8).sample(12, generator=0)
    vector = task_set(names, ring=8, encoding="vector").sample(12, generator=0)
    torch.testing.assert_close(
        vector.inputs, ring.inputs @ torch.tensor(input_projection(8)), atol=ROUNDING, rtol=0
    )
    assert torch.equal(vector.mask, ring.mask)
    assert torch.equal(vector.targets[..., 0] == 1, (ring.targets == 0) & ring.valid)
    angle = 2 * math.pi * (ring.targets - 1) / 8
    go = ring.targets > 0
    torch.testing.assert_close(vector.targets[..., 1][go], angle[go].sin())
    torch.testing.assert_close(vector.targets[..., 2][go], angle[go].cos())
    assert (vector.targets[..., 1:][~go] == 0).all()


def test_channels_are_fixation_then_sine_and_cosine_per_modality():
    tasks = task_set(["go", "anti"], encoding="vector")
    assert (tasks.inputs, tasks.outputs, tasks.kind) == (5, 3, "vector")
    batch = tasks.sample(40, generator=0)
    for row in range(40):
        step = int(batch.periods["stimulus"][row, 0])
        modality = int(batch.conditions["modality"][row])
        shown = batch.inputs[row, step, 2 * modality - 1 : 2 * modality + 1]
        hidden = batch.inputs[row, step, 5 - 2 * modality : 7 - 2 * modality]
        answer = batch.targets[row, -1, 1:] * (1 if batch.task[row] == 0 else -1)
        torch.testing.assert_close(shown, answer, atol=ROUNDING, rtol=0)
        assert (hidden == 0).all()
        assert batch.inputs[row, 0, 0] == 1


def test_withheld_trials_keep_the_fixation_target():
    batch = task_set("dms", encoding="vector").sample(40, generator=0)
    assert torch.equal(
        (batch.targets[..., 0] == 1).all(1), torch.tensor(batch.conditions["match"] == 0)
    )


def test_padding_is_zero():
    batch = task_set(["rtgo", "dlygo"], encoding="vector").sample(2, generator=0)
    assert (batch.inputs[0, 50:] == 0).all()
    assert (batch.targets[0, 50:] == 0).all()
