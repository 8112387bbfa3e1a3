import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from ctxrnn import CTRNN, TrialBatch, filter_context
from ctxrnn.analysis import (
    _scoring,
    context_noise,
    filtered_noise_sweep,
    filtered_noise_variance,
    recovery_latency,
    switch_cost,
    switch_sweep,
    switched_context,
)

DT, STEPS, UNITS = 20.0, 12, 6
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


class ThreeTasks:
    """Task k wants action k; the stimulus tells which task it is, but weakly."""

    names = ("a", "b", "c")
    chance = {"a": 0.5, "b": 0.25, "c": 0.0}  # noqa: RUF012
    ceiling = {"a": 1.0, "b": 0.75, "c": 1.0}  # noqa: RUF012
    steps = STEPS

    def sample(self, trials, *, generator):
        task = torch.arange(trials) % 3
        return TrialBatch(
            inputs=torch.randn(trials, self.steps, 2, generator=generator),
            targets=task[:, None].expand(-1, self.steps),
            mask=torch.ones(trials, self.steps),
            context=torch.eye(3)[task],
            task=task,
            lengths=torch.full((trials,), self.steps),
            names=self.names,
            dt=DT,
        )

    def correct(self, outputs, batch):
        return batch.last(outputs).argmax(-1) == batch.task


class Outputs(ThreeTasks):
    """Keeps what the networks answered."""

    def __init__(self):
        self.seen = []

    def correct(self, outputs, batch):
        self.seen.append(outputs)
        return super().correct(outputs, batch)


def by_drive(variant="e-add", **options):
    """A network whose answer is the largest entry of the last context that it saw."""
    settings = {"contexts": 3, "noise": 0.0, "seed": 0, "dtype": torch.float64, "tau": DT}
    network = CTRNN(2, 3, 3, variant, dt=DT, **(settings | options))
    with torch.no_grad():
        network.weight.zero_()
        network.input_weight.zero_()
        network.output_weight.copy_(torch.eye(3))
        network.modulation.pathways[0].E.copy_(torch.eye(3))
    return network


def contexts():
    eye = torch.eye(3, dtype=torch.float64)
    return eye[[0, 1]], eye[[2, 0]]


@pytest.mark.parametrize("tau", [5.0, 100.0, 1e4])
@pytest.mark.parametrize("delay", [0.0, 7.0, 130.0, 5000.0])
def test_filter_after_a_switch_is_the_closed_form(tau, delay):
    k, j = contexts()
    seen = switched_context(k, j, delay=delay, tau=tau, dt=DT, steps=STEPS)
    for step in range(STEPS):
        wanted = k + (j - k) * math.exp(-(delay + step * DT) / tau)
        torch.testing.assert_close(seen[:, step], wanted, **ROUNDING)


@pytest.mark.parametrize("tau", [0.0, 60.0])
@pytest.mark.parametrize(("delay", "first"), [(-60.0, 3), (-50.0, 3), (-61.0, 4), (-0.1, 1)])
def test_a_switch_inside_the_trial_starts_from_the_other_context(tau, delay, first):
    k, j = contexts()
    seen = switched_context(k, j, delay=delay, tau=tau, dt=DT, steps=STEPS)
    for step in range(STEPS):
        left = 1.0
        if step >= first:
            # The filter takes its first step towards e_k when it first sees it.
            left = 0.0 if tau == 0 else math.exp(-(step - first + 1) * DT / tau)
        torch.testing.assert_close(seen[:, step], k + left * (j - k), **ROUNDING)


def test_a_switch_after_the_trial_or_without_filter_leaves_a_constant_context():
    k, j = contexts()
    after = switched_context(k, j, delay=-1e4, tau=30.0, dt=DT, steps=STEPS)
    torch.testing.assert_close(after, j[:, None].expand(-1, STEPS, -1), rtol=0, atol=0)
    assert switched_context(k, j, delay=0.0, tau=0.0, dt=DT, steps=STEPS) is k


@pytest.mark.parametrize("taus", [(0.0, 80.0), (150.0, 0.0), (80.0, 80.0), (40.0, 400.0)])
@pytest.mark.parametrize("delay", [0.0, 55.0, -100.0])
def test_answers_are_those_of_a_network_with_such_filters(delay, taus):
    tasks = Outputs()
    options = {"contexts": 3, "seed": 4, "dtype": torch.float64, "noise": 0.0}
    network = CTRNN(2, UNITS, 3, "es", **options)
    switch_sweep(network, tasks, delays=delay, tau_e=taus[0], tau_s=taus[1], trials=4, seed=1)
    filtered = CTRNN(2, UNITS, 3, "es", tau_e=taus[0], tau_s=taus[1], **options)
    batch = ThreeTasks().sample(12, generator=_scoring.make_generator(1, "trials"))
    eye = torch.eye(3, dtype=torch.float64)
    clean, *switched = tasks.seen
    torch.testing.assert_close(clean, network(batch.inputs, eye[batch.task]).outputs, **ROUNDING)
    for shift, got in zip((1, 2), switched, strict=True):
        k, j = eye[batch.task], eye[(batch.task + shift) % 3]
        time = torch.arange(STEPS)[None, :, None] * DT
        raw = torch.where(time >= -delay, k[:, None], j[:, None])
        starts = [j if delay < 0 else k + (j - k) * math.exp(-delay / t) if t else k for t in taus]
        initial = _scoring.Contexts(*starts)
        wanted = filtered(batch.inputs, raw, initial_context=initial).outputs
        torch.testing.assert_close(got, wanted, **ROUNDING)


def test_accuracy_turns_where_the_contexts_weigh_the_same():
    tau = 100.0
    table = switch_sweep(
        by_drive(), ThreeTasks(), delays=[0.0, 400.0], tau_e=tau, tau_s=5.0, trials=2, seed=0
    )
    assert (table["accuracy"] == 1).all()
    # With alpha = 1 the answer is the context of the last step: right once exp(-t / tau) < 1/2.
    tasks = ThreeTasks()
    tasks.steps = 2
    turn = tau * math.log(2) - DT
    delays = [turn - 3, turn + 3]
    table = switch_sweep(by_drive(), tasks, delays=delays, tau_e=[0.0, tau], tau_s=0.0, trials=2,
                         seed=0)  # fmt: skip
    early = (table["delay"] == delays[0]) & (table["tau_e"] == tau)
    np.testing.assert_array_equal(table["accuracy"], np.where(early, 0.0, 1.0))
    assert set(zip(table["task"], table["other"], strict=True)) == {
        (k, j) for k in "abc" for j in "abc" if k != j
    }
    assert len(table) == 6 * 2 * 2
    np.testing.assert_allclose(table["cost"], np.where(early, (1 / table["task"].map(
        {"a": 0.5, "b": 0.5, "c": 1.0})), 0.0))  # fmt: skip
    assert (table["clean"] == 1).all()
    cost = switch_cost(table, delays[0]).set_index("tau_e")
    np.testing.assert_allclose(cost.loc[[0.0, tau], "cost"], [0, (2 + 2 + 1) / 3])
    np.testing.assert_allclose(cost.loc[[0.0, tau], "accuracy"], [1, 0])
    latency = recovery_latency(table).set_index("tau_e")["latency"]
    # From 0 to 1 between the two delays, 95 % of the way.
    np.testing.assert_allclose(latency.loc[[0.0, tau]], [delays[0], delays[0] + 0.95 * 6])


def test_a_filter_of_a_missing_pathway_does_nothing():
    tasks = ThreeTasks()
    tasks.steps = 2
    sweep = {"delays": [0.0, 10.0], "trials": 2, "seed": 0}
    table = switch_sweep(by_drive(), tasks, tau_e=0.0, tau_s=[0.0, 1e4], **sweep)
    assert (table["accuracy"] == 1).all()
    scaling = CTRNN(2, 4, 3, "s-sym", contexts=3, seed=0)
    found = switch_sweep(scaling, tasks, tau_e=[0.0, 1e4], tau_s=300.0, **sweep)
    one, other = (found[found["tau_e"] == tau]["accuracy"].to_numpy() for tau in (0.0, 1e4))
    np.testing.assert_array_equal(one, other)


def test_every_condition_has_the_same_trials_and_noise_in_parts_too(monkeypatch):
    network = CTRNN(2, UNITS, 3, "es", contexts=3, seed=4, noise=0.5, dtype=torch.float64)
    for numbers in (_scoring.NUMBERS, 5 * 3 * UNITS * STEPS):
        monkeypatch.setattr(_scoring, "NUMBERS", numbers)
        tasks = Outputs()
        # A filter of 1e-3 ms is none, but takes another way through the engine.
        switch_sweep(network, tasks, delays=[0.0, 20.0], tau_e=1e-3, tau_s=1e-3, trials=7, seed=1)
        clean, *switched = tasks.seen
        # The state at the first step is e_j at delay 0, and e_k 20 ms later.
        for outputs in switched[1::2]:
            torch.testing.assert_close(outputs, clean, rtol=1e-11, atol=1e-11)
        for outputs in switched[::2]:
            assert not torch.allclose(outputs, clean)
        assert len(clean) == 21


def test_the_network_and_torch_are_left_as_they_are():
    network = CTRNN(2, UNITS, 3, "es", contexts=3, seed=4, tau_e=40.0)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    filtered, plain = Outputs(), Outputs()
    sweep = {"delays": 50.0, "tau_e": 9.0, "tau_s": 0.0, "trials": 5, "seed": 1}
    one = switch_sweep(network, filtered, **sweep)
    filtered_noise_sweep(network, ThreeTasks(), levels=1.0, tau_n=50.0, tau_e=9.0, tau_s=0.0,
                         trials=5, seed=1)  # fmt: skip
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(torch.get_rng_state(), state)
    assert (network.tau_e, network.tau_s) == (40.0, 0.0)
    # Its own filter stays out of it.
    two = switch_sweep(CTRNN(2, UNITS, 3, "es", contexts=3, seed=4), plain, **sweep)
    pd.testing.assert_frame_equal(one, two)
    assert all(torch.equal(*pair) for pair in zip(filtered.seen, plain.seen, strict=True))


def test_some_other_tasks_are_drawn_evenly():
    table = switch_sweep(by_drive(), ThreeTasks(), delays=0.0, tau_e=9.0, tau_s=0.0, trials=2,
                         seed=3, others=1)  # fmt: skip
    assert len(table) == 3
    assert set(table["task"]) == set(table["other"]) == set("abc")
    assert (table["task"] != table["other"]).all()


def latencies(delays, accuracies, **options):
    rows = [
        {"task": "a", "other": "b", "delay": d, "tau_e": 1.0, "tau_s": 2.0, "accuracy": p,
         "clean": 0.8, "normalised": p, "cost": 0.8 - p}
        for d, p in zip(delays, accuracies, strict=True)
    ]  # fmt: skip
    return float(recovery_latency(pd.DataFrame(rows), **options)["latency"].iloc[0])


def test_latency_by_hand():
    # 0.95 * 0.8 = 0.76 is 0.26 / 0.3 of the way from 0.5 to 0.8.
    assert latencies([0, 30], [0.5, 0.8]) == pytest.approx(26)
    assert latencies([30, 0], [0.8, 0.5]) == pytest.approx(26)
    assert latencies([0, 30], [0.5, 0.8], tolerance=0.25) == pytest.approx(10)
    assert latencies([0, 30], [0.5, 0.8], tolerance=0.0) == pytest.approx(30)
    assert latencies([0, 30], [0.5, 0.75]) == math.inf
    assert latencies([-40, 0], [0.77, 0.8]) == -40
    # The first time counts.
    assert latencies([0, 10, 20], [0.5, 0.8, 0.5]) == pytest.approx(26 / 3)


@pytest.mark.parametrize("tau", [0.0, 15.0, 400.0])
@pytest.mark.parametrize("tau_n", [0.0, 30.0, 300.0])
def test_variance_of_filtered_noise_solves_the_lyapunov_equation(tau, tau_n):
    a = math.exp(-DT / tau_n) if tau_n else 0.0
    b = math.exp(-DT / tau) if tau else 0.0
    # eta' = a eta + q xi, f' = b f + (1 - b) eta'.
    step = np.array([[a, 0], [(1 - b) * a, b]])
    push = math.sqrt(1 - a * a) * np.array([[1], [1 - b]])
    wanted = solve_discrete_lyapunov(step, push @ push.T)[1, 1]
    assert filtered_noise_variance(tau, tau_n, DT) == pytest.approx(wanted, rel=1e-12)


def test_variance_of_filtered_noise_tends_to_the_continuous_limit():
    tau, tau_n = 70.0, 210.0
    errors = [
        abs(filtered_noise_variance(tau, tau_n, dt) - tau_n / (tau_n + tau)) for dt in (2.0, 1.0)
    ]
    # tanh(dt / 2 tau) coth(dt / 2 tau + dt / 2 tau_n): both odd, so the error is of order dt^2.
    assert errors[0] < (2.0 / tau) ** 2
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize(
    ("tau_n", "tau_e", "tau_s"),
    [(60.0, 0.0, 200.0), (60.0, 200.0, 0.0), (60.0, 50.0, 900.0), (0.0, 90.0, 40.0),
     (200.0, 80.0, 80.0)],
)  # fmt: skip
def test_noise_is_stationary_from_the_first_step_and_shared_by_the_pathways(tau_n, tau_e, tau_s):
    trials, steps = 20_000, 4
    draws = torch.randn(
        2 + steps, trials, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    times = {"tau_n": tau_n, "tau_e": tau_e, "tau_s": tau_s, "dt": DT}
    seen = [noise[..., 0].numpy() for noise in context_noise(draws, **times)]
    a, b, d = (math.exp(-DT / t) if t else 0.0 for t in (tau_n, tau_e, tau_s))
    step = np.array([[a, 0, 0], [(1 - b) * a, b, 0], [(1 - d) * a, 0, d]])
    push = math.sqrt(1 - a * a) * np.array([[1], [1 - b], [1 - d]])
    wanted = solve_discrete_lyapunov(step, push @ push.T)[1:, 1:]
    for t in (0, steps - 1):
        found = np.cov(np.stack([seen[0][:, t], seen[1][:, t]]))
        # A sample covariance of Gaussians has variance (c_ii c_jj + c_ij^2) / n.
        error = np.sqrt((np.outer(np.diag(wanted), np.diag(wanted)) + wanted**2) / trials)
        assert (np.abs(found - wanted) < 5 * error).all()
    # One step on, each filter's state is as correlated with itself as the matrix says.
    lagged = (step @ solve_discrete_lyapunov(step, push @ push.T))[1, 1]
    got = (seen[0][:, 1] * seen[0][:, 0]).mean()
    assert abs(got - lagged) < 5 * math.sqrt(2 * wanted[0, 0] ** 2 / trials)


def test_noise_behind_the_filters_is_the_filtered_noise_itself():
    draws = torch.randn(9, 3, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    times = {"tau_n": 60.0, "dt": DT}
    plain, slow = context_noise(draws, tau_e=0.0, tau_s=80.0, **times)
    wanted = filter_context(plain, 80.0, DT, initial=slow[:, 0])
    torch.testing.assert_close(slow, wanted, **ROUNDING)
    # Filters do not change the noise that they filter.
    again, _ = context_noise(draws, tau_e=0.0, tau_s=5.0, **times)
    assert torch.equal(plain, again)
    one, other = context_noise(draws, tau_e=80.0, tau_s=80.0, **times)
    assert one is other


def test_slow_filters_keep_noise_out():
    table = filtered_noise_sweep(
        by_drive(), ThreeTasks(), levels=[0.0, 1.0], tau_n=40.0, tau_e=[0.0, 40.0, 4000.0],
        tau_s=[0.0, 100.0], trials=400, seed=2,
    )  # fmt: skip
    assert len(table) == 3 * 2 * 3 * 2
    assert (table[table["level"] == 0]["cost"] == 0).all()
    # The answer is right where 1 + sigma f_k exceeds sigma f_j of both others.
    for tau, part in table[table["level"] == 1].groupby("tau_e"):
        sd = math.sqrt(filtered_noise_variance(tau, 40.0, DT))
        x, weights = np.polynomial.hermite_e.hermegauss(80)
        below = torch.special.ndtr(torch.tensor(x + 1 / sd)).numpy()
        wanted = float((weights * below**2).sum() / math.sqrt(2 * math.pi))
        error = math.sqrt(wanted * (1 - wanted) / 1200)
        found = part[part["tau_s"] == 0.0]["accuracy"].mean()
        assert abs(found - wanted) <= 5 * error
        # This network has no synapses that see the context.
        assert part[part["tau_s"] == 100.0]["accuracy"].mean() == found


def test_noise_is_the_same_at_every_level_and_behind_every_filter():
    network, tasks = by_drive(), Outputs()
    filtered_noise_sweep(
        network, tasks, levels=[0.5, 1.0], tau_n=40.0, tau_e=[0.0, 1e-3], tau_s=0.0, trials=5,
        seed=2,
    )  # fmt: skip
    # With alpha = 1 a potential is what the drive was: e_k + sigma f; and the rate its tanh.
    clean, *noisy = (torch.atanh(outputs) for outputs in tasks.seen)
    half, half_filtered, full, full_filtered = (potential - clean for potential in noisy)
    torch.testing.assert_close(2 * half, full, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(half, half_filtered, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(full, full_filtered, rtol=1e-9, atol=1e-9)


SWEEP = {"delays": [0.0], "tau_e": 1.0, "tau_s": 1.0, "trials": 1, "seed": 0}
NOISE = {"levels": [1.0], "tau_n": 10.0, "tau_e": 1.0, "tau_s": 1.0, "trials": 1, "seed": 0}


@pytest.mark.parametrize(
    ("sweep", "change", "error", "message"),
    [
        (switch_sweep, {"tau_e": -1.0}, ValueError, "tau_e must be zero or more and finite"),
        (switch_sweep, {"tau_s": [1, math.inf]}, ValueError, "finite: got inf ms"),
        (switch_sweep, {"delays": math.nan}, ValueError, "delays must be finite: got nan ms"),
        (switch_sweep, {"delays": []}, ValueError, "delays must be at least one number"),
        (switch_sweep, {"delays": "10"}, TypeError, "delays must be a number: got '10'"),
        (switch_sweep, {"trials": 0}, ValueError, "trials must be at least 1"),
        (switch_sweep, {"others": 3}, ValueError, "others must be at most 2, as there are 3"),
        (switch_sweep, {"others": 0}, ValueError, "others must be at least 1"),
        (filtered_noise_sweep, {"tau_e": math.inf}, ValueError, "tau_e must be zero or more and"),
        (filtered_noise_sweep, {"tau_n": math.inf}, ValueError, "tau_n must be zero or more and"),
        (filtered_noise_sweep, {"levels": -0.1}, ValueError, "levels must be zero or more"),
    ],
)
def test_bad_sweeps_are_refused(sweep, change, error, message):
    arguments = (SWEEP if sweep is switch_sweep else NOISE) | change
    with pytest.raises(error, match=message):
        sweep(by_drive(), ThreeTasks(), **arguments)


def test_tasks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="as many contexts as there are tasks: got 4 contexts"):
        switch_sweep(CTRNN(2, 4, 3, "e-add", contexts=4, seed=0), ThreeTasks(), **SWEEP)
    with pytest.raises(ValueError, match="same dt"):
        switch_sweep(CTRNN(2, 4, 3, "e-add", contexts=3, seed=0, dt=10.0), ThreeTasks(), **SWEEP)
    one = ThreeTasks()
    one.names = ("a",)
    with pytest.raises(ValueError, match="at least two tasks: got 1"):
        switch_sweep(CTRNN(2, 4, 3, "e-add", contexts=1, seed=0), one, **SWEEP)


def test_unmeasured_delays_and_impossible_tolerances_are_refused():
    table = switch_sweep(by_drive(), ThreeTasks(), **SWEEP)
    with pytest.raises(ValueError, match="delay must be one of those measured, 0 ms: got 5 ms"):
        switch_cost(table, 5)
    with pytest.raises(ValueError, match=r"tolerance must lie in \[0, 1\): got 1"):
        recovery_latency(table, tolerance=1)
