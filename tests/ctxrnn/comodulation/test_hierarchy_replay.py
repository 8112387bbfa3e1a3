"""Few-shot tuning of couplings, step by step, against a replay with autograd and plain sums."""

import pytest
import torch
from torch import nn

from ctxrnn import make_generator
from ctxrnn.comodulation._hierarchy import Smoothing, hidden
from ctxrnn.comodulation.hierarchy import (
    CouplingStack,
    HierarchyConfig,
    Member,
    NoisePass,
    draw_parameters,
    drive_of,
    examples_of,
    fit,
    split_batches,
    unpack,
)

CONFIG = HierarchyConfig(positions=5, orientations=3)
RATE, DRAWS, SIGMA, IMAGES = 1e-2, 40, 0.1, 12


def parts():
    """Drives (1, image, ...), labels that can be learnt, batches, weights; float64."""
    generator = make_generator(3, "drives")
    drive = drive_of(torch.randn(IMAGES, *CONFIG.shape, generator=generator, dtype=torch.float64))
    total = drive.sum((1, 2, 3))
    labels = (total > total.median()).long()
    split = split_batches(IMAGES, IMAGES, 2, 0.5, make_generator(4))
    weights = unpack(10 * draw_parameters(CONFIG, make_generator(9), torch.float64), CONFIG)
    return drive, labels, split, weights


def logits_of(weights, smoothing, theta, gain, drive):
    """Decide at m = 1 without noise."""
    c = smoothing.couplings(theta)
    h = hidden(weights, (drive * c.exp())[None]).h2.flatten(2)[0]
    return (gain * h) @ weights.out[0].mT + weights.bias[0]


def noise_pass(weights, c, shown, m):
    """Covariance of h with m over draws, averaged over images, at the variance that is given."""
    sums = torch.zeros(CONFIG.sizes[2], dtype=torch.float64)
    for image in shown:
        factor = (m[:, None, None, None] * c - 0.5 * SIGMA**2 * c**2).exp()
        h = hidden(weights, (image * factor)[None]).h2.flatten(2)[0]
        sums += ((h - h.mean(0)) * (m - m.mean())[:, None]).mean(0)
    return sums / len(shown)


def replay(arm, epochs):
    """Train by autograd, torch's Adam and plain sums; return theta, g and validation losses."""
    drive, labels, split, weights = parts()
    smoothing = Smoothing(CONFIG, torch.float64)
    theta = torch.ones(1, *CONFIG.shape, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([theta], lr=RATE)
    gain, tau, losses = torch.ones(CONFIG.sizes[2], dtype=torch.float64), 1, []
    draws = make_generator(0, "m")
    train, held = split
    for _ in range(epochs):
        m = SIGMA * torch.randn(len(train), DRAWS, generator=draws, dtype=torch.float64)
        for number, rows in enumerate(train):
            optimiser.zero_grad()
            logits = logits_of(weights, smoothing, theta, gain, drive[rows])
            nn.functional.cross_entropy(logits, labels[rows]).backward()
            optimiser.step()
            if arm is None:
                continue
            with torch.no_grad():
                c = smoothing.couplings(theta)[0]
                shown = drive[rows] if arm == "images" else torch.ones_like(drive[:1])
                q = noise_pass(weights, c, shown, m[number]).clamp_min(0)
                q = q / q.mean() if q.mean() > 0 else torch.ones_like(q)
                gain = (tau * gain + q) / (tau + 1)
                gain, tau = gain / gain.mean(), min(tau + 1, 100)
        with torch.no_grad():
            logits = logits_of(weights, smoothing, theta, gain, drive[held])
            losses.append(float(nn.functional.cross_entropy(logits, labels[held])))
    return theta.detach()[0], gain, losses


def stack_of(arm, nodes=None):
    drive, labels, split, weights = parts()
    order = torch.randperm(CONFIG.sizes[2], generator=make_generator(0))
    return CouplingStack(
        weights, CONFIG, examples_of([drive], [labels], [split]), [Member(0, arm)], RATE,
        NoisePass(draws=DRAWS, sigma=SIGMA, nodes=nodes), [make_generator(0, "m")], order[None],
    )  # fmt: skip


@pytest.mark.parametrize("arm", [None, "images", "blank-exp"])
def test_training_is_its_replay(arm):
    theta, gain, losses = replay(arm, 4)
    stack = stack_of(arm)
    for loss in losses:
        stack.epoch()
        assert float(stack.validation()[0]) == pytest.approx(loss, rel=1e-9)
    found_theta, found_gain = stack.state()
    # Adam turns a rounding of a tiny slope into a step: 1e-9 in place of 1e-15.
    torch.testing.assert_close(found_theta[0], theta, atol=1e-8, rtol=0)
    torch.testing.assert_close(found_gain[0], gain, atol=1e-7, rtol=1e-7)
    assert (theta - 1).abs().max() > 1e-2
    assert (gain != 1).any() == (arm is not None)


def test_the_rule_of_four_nodes_is_near_all_draws():
    _, gain, _ = replay("images", 2)
    stack = stack_of("images", nodes=4)
    for _ in range(2):
        stack.epoch()
    # Off by the kinks of h in m alone.
    assert float((stack.state()[1][0] - gain).square().mean().sqrt()) < 0.02 * float(gain.std())


@pytest.mark.parametrize("arm", [None, "images"])
def test_the_copy_that_is_kept_decides_at_one(arm):
    stack = stack_of(arm)
    losses = [float(stack.validation()[0]), *replay(arm, 6)[2]]
    fitted = fit(stack, 6, None)
    best = min(range(7), key=losses.__getitem__)
    assert int(fitted.epoch[0]) == best
    assert float(fitted.loss[0]) == pytest.approx(losses[best], rel=1e-9)
    theta, gain, _ = replay(arm, best)
    drive, _, _, weights = parts()
    smoothing = Smoothing(CONFIG, torch.float64)
    log_p = stack_of(arm).log_probabilities(
        fitted.state[0], fitted.state[1], drive[None], [Member(0, arm)]
    )
    expected = logits_of(weights, smoothing, theta[None], gain, drive).log_softmax(1)
    torch.testing.assert_close(log_p[0], expected, atol=1e-7, rtol=0)
