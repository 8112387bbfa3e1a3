import math

import pytest
import torch

from ctxrnn import CTRNN, Contexts, filter_context
from ctxrnn._context import check_context

# A few hundred steps, each rounded to 1.1e-16 of values below 1.
EXACT = {"rtol": 1e-12, "atol": 1e-13}


def steps_of(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(1, -1, 1)


def test_one_context_serves_both_pathways():
    c = torch.eye(3)
    both = Contexts.of(c)
    assert both.excitability is c
    assert both.synaptic is c
    assert Contexts.of(both) is both
    assert not both.varies


def test_contexts_of_all_steps_where_one_varies():
    c, over_time = torch.eye(2), torch.arange(12.0).reshape(2, 3, 2)
    contexts = Contexts(c, over_time)
    assert contexts.varies
    flat = contexts.flat(3)
    torch.testing.assert_close(flat.excitability, torch.cat([c, c, c]))
    torch.testing.assert_close(flat.synaptic, torch.cat([over_time[:, t] for t in range(3)]))
    shared = Contexts.of(over_time).flat(3)
    assert shared.excitability is shared.synaptic


@pytest.mark.parametrize("tau", [10.0, 100.0, 1e4])
@pytest.mark.parametrize("dt", [1.0, 20.0])
def test_pulse_is_filtered_by_an_exponential(tau, dt):
    on, off = 30, 70
    signal = torch.zeros(1, 100, 1, dtype=torch.float64)
    signal[:, on:off] = 1
    t = torch.arange(100, dtype=torch.float64) * dt
    rising = 1 - torch.exp(-(t - (on - 1) * dt) / tau)
    falling = (1 - math.exp(-(off - on) * dt / tau)) * torch.exp(-(t - (off - 1) * dt) / tau)
    wanted = torch.where(t < on * dt, 0, torch.where(t < off * dt, rising, falling))
    found = filter_context(signal, tau, dt)
    torch.testing.assert_close(found[0, :, 0], wanted, **EXACT)


def test_first_step_is_the_first_context_or_the_given_one():
    signal = steps_of(3.0, 0.0)
    assert filter_context(signal, 50.0, 20.0)[0, 0, 0] == 3
    initial = torch.tensor([7.0], dtype=torch.float64)
    found = filter_context(signal, 50.0, 20.0, initial=initial)
    # The given context is c_0 itself; the second step moves from it.
    torch.testing.assert_close(found, steps_of(7.0, 7 * math.exp(-20 / 50)), **EXACT)


def test_initial_context_must_be_finite():
    network = CTRNN(1, 3, 1, "e-add", contexts=2, tau_e=50.0)
    with pytest.raises(ValueError, match="initial_context must be finite: 1 of 2 values"):
        network(torch.ones(2, 3, 1), torch.eye(2), initial_context=torch.tensor([math.nan, 0]))


def test_nothing_to_filter_is_returned_as_it_is():
    c, over_time = torch.eye(2), torch.rand(2, 5, 2)
    assert filter_context(c, 100.0, 20.0) is c
    assert filter_context(over_time, 0.0, 20.0) is over_time
    assert filter_context(c, 0.0, 20.0, initial=torch.zeros(2)) is c


def test_initial_context_may_differ_between_trials_and_pathways():
    options = {"contexts": 2, "noise": 0.0, "seed": 0, "dtype": torch.float64}
    network = CTRNN(1, 5, 1, "es", tau_e=60.0, tau_s=200.0, **options)
    plain = CTRNN(1, 5, 1, "es", **options)
    u, c = torch.ones(3, 8, 1), torch.eye(2, dtype=torch.float64)[[0, 1, 0]]
    before = Contexts(c.flip(-1), torch.rand(3, 2, dtype=torch.float64))
    seen = [
        filter_context(c, tau, 20.0, steps=8, initial=initial)
        for tau, initial in ((60.0, before.excitability), (200.0, before.synaptic))
    ]
    torch.testing.assert_close(
        network(u, c, initial_context=before).outputs, plain(u, Contexts(*seen)).outputs, **EXACT
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: filter_context(torch.eye(2), -1.0, 20.0),
            "tau of a context filter must be zero or more and finite: got -1.0 ms",
        ),
        (
            lambda: filter_context(torch.eye(2), 10.0, 20.0, initial=torch.zeros(2)),
            "steps must be given to filter a constant context",
        ),
        (
            lambda: filter_context(torch.rand(3, 5, 2), 10.0, 20.0, initial=torch.zeros(1, 2)),
            r"initial context must have shape \(3, 2\) or \(2,\): got \(1, 2\)",
        ),
        (
            lambda: check_context("context", torch.rand(2, 2), 3, 5, 2),
            r"context must have shape \(trial, context\) = \(3, 2\) or .*: got \(2, 2\)",
        ),
        (
            lambda: check_context("context", torch.rand(3, 1, 2), 3, 5, 2),
            r"got \(3, 1, 2\)",
        ),
        (
            lambda: check_context("context", torch.tensor([[math.inf, 0]]), 1, 5, 2),
            "context must be finite: 1 of 2 values are NaN or infinite",
        ),
    ],
)
def test_wrong_contexts_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
