import math

import numpy as np
import pytest
import torch
from ctxrnn.analysis.corruption import covered, window_steps
from scipy.stats import norm

from ctxrnn.analysis import CORRUPTIONS, corrupted, evidence_strength, ou_noise

EYE = torch.eye(3, dtype=torch.float64)
TASK = torch.tensor([0, 2])
CLEAN = EYE[TASK]
OTHER = torch.tensor([1, 0])
# Trial 0: fixation, stimulus, delay, test, response; trial 1 has no delay and no test.
PERIODS = {
    "fixation": torch.tensor([[0, 2], [0, 1]]),
    "stimulus": torch.tensor([[2, 4], [1, 3]]),
    "delay": torch.tensor([[4, 6], [-1, -1]]),
    "test": torch.tensor([[6, 7], [-1, -1]]),
    "response": torch.tensor([[7, 9], [3, 6]]),
}
TIME = {"steps": 10, "dt": 20.0}
EVERYTHING = {"other": OTHER, "periods": PERIODS, "generator": 0, **TIME}


def equal(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-15, atol=1e-15)


def test_mixtures_and_attenuation_by_hand():
    mixed = [[0.75, 0.25, 0], [0.25, 0, 0.75]]
    equal(corrupted("mix2", CLEAN, 0.25, other=OTHER), torch.tensor(mixed).double())
    uniform = 0.7 * CLEAN + 0.1
    torch.testing.assert_close(corrupted("mixU", CLEAN, 0.3), uniform, rtol=1e-15, atol=1e-16)
    equal(corrupted("atten", CLEAN, 0.25), 0.75 * CLEAN)
    equal(corrupted("drop", CLEAN, 1), 0 * CLEAN)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_clean_level_gives_the_context_itself(kind):
    assert corrupted(kind, CLEAN, CORRUPTIONS[kind].clean, **EVERYTHING) is CLEAN


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_type_and_seed(kind, dtype):
    one = CORRUPTIONS[kind]
    clean = CLEAN.to(dtype)
    level = 0.5 if kind not in ("drop", "swap") else 1.0
    made = corrupted(kind, clean, level, **EVERYTHING)
    assert made.dtype == dtype
    assert made.shape == ((2, 10, 3) if one.varies else (2, 3))
    assert torch.equal(made, corrupted(kind, clean, level, **EVERYTHING))
    changed = corrupted(kind, clean, level, **(EVERYTHING | {"generator": 1}))
    assert torch.equal(made, changed) != one.random
    # The numbers do not depend on the type.
    torch.testing.assert_close(made.double(), corrupted(kind, CLEAN, level, **EVERYTHING))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_catalogue_agrees_with_itself(kind):
    one = CORRUPTIONS[kind]
    assert one.id == kind
    assert one.clean in one.levels
    for level in one.levels:
        corrupted(kind, CLEAN, level, **EVERYTHING)


def test_frozen_noise_is_white_and_common_to_all_levels():
    trials = 20_000
    clean = EYE[torch.zeros(trials, dtype=torch.int64)]
    eta = corrupted("noise-frozen", clean, 1.0, generator=3) - clean
    covariance = eta.T @ eta / trials
    # Standard errors: 1 / sqrt(n) of means and covariances, sqrt(2 / n) of variances.
    assert eta.mean(0).abs().max() < 5 / math.sqrt(trials)
    assert (covariance - EYE).abs().max() < 5 * math.sqrt(2 / trials)
    fifth = corrupted("noise-frozen", clean, 0.2, generator=3) - clean
    torch.testing.assert_close(fifth, 0.2 * eta, rtol=0, atol=1e-15)


@pytest.mark.parametrize("tau_n", [0.0, 7.0, 100.0, 1e6])
def test_ornstein_uhlenbeck_noise_has_its_covariance_exactly(tau_n):
    steps, dt = 12, 20.0
    # The process is linear in its draws, so unit draws give the matrix L, and L L^T the covariance.
    matrix = ou_noise(torch.eye(steps, dtype=torch.float64)[:, :, None], tau_n, dt)[..., 0].T
    lag = (torch.arange(steps)[:, None] - torch.arange(steps)).abs().double() * dt
    expected = torch.exp(-lag / tau_n) if tau_n else (lag == 0).double()
    torch.testing.assert_close(matrix @ matrix.T, expected.double(), rtol=1e-12, atol=1e-12)


def test_ornstein_uhlenbeck_context_uses_the_levels_and_the_clean_context():
    once, twice = (
        corrupted("noise-ou", CLEAN, level, generator=1, tau_n=40.0, **TIME) - CLEAN[:, None]
        for level in (0.5, 1.0)
    )
    torch.testing.assert_close(2 * once, twice, rtol=0, atol=1e-15)
    draws = torch.randn((10, 2, 3), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    source = torch.Generator().manual_seed(9)
    made = corrupted("noise-ou", CLEAN, 1.0, generator=source, tau_n=40.0, **TIME)
    torch.testing.assert_close(made - CLEAN[:, None], ou_noise(draws, 40.0, 20.0))


def present(window, **options):
    made = corrupted("window", CLEAN, 1.0, periods=PERIODS, window=window, **options, **TIME)
    rest = made[0, :, 1:].abs().sum() + made[1, :, :2].abs().sum()
    assert rest == 0
    return [made[0, :, 0].int().tolist(), made[1, :, 2].int().tolist()]


def test_windows_by_name():
    assert present("early") == [[1] * 4 + [0] * 6, [1] * 3 + [0] * 7]
    assert present("late") == [[0] * 6 + [1] * 4, [0] * 3 + [1] * 7]
    assert present("stimulus") == [[0, 0, 1, 1] + [0] * 6, [0, 1, 1] + [0] * 7]
    assert window_steps("delay", PERIODS).tolist() == [[4, 6], [-1, -1]]
    assert covered("window", {"window": "delay"}, PERIODS, 2).tolist() == [True, False]
    assert covered("window", {}, PERIODS, 2).all()
    first = {name: span[:1] for name, span in PERIODS.items()}
    parts = [
        corrupted("window", CLEAN[:1], 1.0, periods=first, window=name, **TIME)
        for name in ("early", "delay", "late")
    ]
    equal(sum(parts), CLEAN[:1, None].expand(1, 10, 3))


def test_windows_in_ms_and_their_depth():
    made = corrupted("window", CLEAN, 0.25, onset=40.0, duration=60.0, **TIME)
    weights = [0.75] * 2 + [1.0] * 3 + [0.75] * 5
    equal(made, CLEAN[:, None] * torch.tensor(weights).double()[:, None])
    # With neither, the window is the early one.
    default = corrupted("window", CLEAN, 1.0, periods=PERIODS, **TIME)
    equal(default, corrupted("window", CLEAN, 1.0, periods=PERIODS, window="early", **TIME))


def test_swaps_by_hand():
    made = corrupted("swap", CLEAN, 60.0, other=OTHER, **TIME)
    wrong, right = EYE[OTHER][:, None], CLEAN[:, None]
    equal(made, torch.cat([wrong.expand(2, 3, 3), right.expand(2, 7, 3)], 1))
    made = corrupted("swap", CLEAN, 40.0, other=OTHER, phase=100.0, **TIME)
    parts = [right.expand(2, 5, 3), wrong.expand(2, 2, 3), right.expand(2, 3, 3)]
    equal(made, torch.cat(parts, 1))
    made = corrupted("swap", CLEAN, 40.0, other=OTHER, phase="stimulus", periods=PERIODS, **TIME)
    assert made[0, :, 1].tolist() == [0, 0, 1, 1] + [0] * 6
    assert made[1, :, 0].tolist() == [0, 1, 1] + [0] * 7


def test_steps_survive_the_rounding_of_multiples_of_dt():
    # In binary 3 * 0.7 is below 2.1, and 7 * 0.7 below 2.1 + 2.8.
    made = corrupted("swap", CLEAN, 2.8, other=OTHER, phase=2.1, steps=10, dt=0.7)
    assert made[0, :, 1].tolist() == [0] * 3 + [1] * 4 + [0] * 3


@pytest.mark.parametrize("accuracy", [0.5, 0.6, 0.9, 0.999, 1 - 1e-9])
def test_evidence_for_two_tasks_has_a_closed_form(accuracy):
    expected = math.sqrt(2) * norm.ppf(accuracy)
    assert evidence_strength(accuracy, 2) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_evidence_at_chance_and_at_certainty():
    assert evidence_strength(0.1, 10) == pytest.approx(0, abs=1e-9)
    assert evidence_strength(1.0, 10) == math.inf


@pytest.mark.parametrize(("accuracy", "contexts"), [(0.6, 3), (0.9, 10)])
def test_posterior_has_its_accuracy_and_is_calibrated(accuracy, contexts):
    trials = 40_000
    task = torch.arange(trials) % contexts
    clean = torch.eye(contexts, dtype=torch.float64)[task]
    made = corrupted("posterior", clean, accuracy, generator=2)
    torch.testing.assert_close(made.sum(1), torch.ones(trials, dtype=torch.float64))
    top, chosen = made.max(1)
    right = (chosen == task).double()
    assert abs(float(right.mean()) - accuracy) < 5 * math.sqrt(accuracy * (1 - accuracy) / trials)
    # A calibrated posterior is right as often as it says.
    gap = (top - right).numpy()
    assert abs(gap.mean()) < 5 * gap.std() / math.sqrt(trials)
    sharp = corrupted("posterior", clean, accuracy, generator=2, temperature=0.5)
    gap = (sharp.max(1).values - right).numpy()
    assert gap.mean() > 5 * gap.std() / math.sqrt(trials)
    torch.testing.assert_close(sharp, made**2 / (made**2).sum(1, keepdim=True))


def test_posterior_at_chance_is_uniform():
    made = corrupted("posterior", CLEAN, 1 / 3, generator=0)
    np.testing.assert_allclose(made, 1 / 3, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "level", "change", "message"),
    [
        ("mix3", 0.1, {}, "unknown corruption 'mix3'. Did you mean 'mix"),
        ("mix2", 1.1, {}, "level must lie in"),
        ("mix2", 0.1, {"other": None}, "other must be given for 'mix2'"),
        ("mix2", 0.1, {"other": torch.tensor([0])}, r"other must have shape \(2,\)"),
        ("mix2", 0.1, {"other": torch.tensor([0, 3])}, "other must lie in \\[0, 2\\]: got 0 to 3"),
        ("noise-frozen", -0.1, {}, "level of 'noise-frozen' must be zero or more"),
        ("noise-frozen", 0.1, {"generator": None}, "generator must be given for 'noise-frozen'"),
        ("noise-ou", 0.1, {"tau_n": -1.0}, "tau_n must be zero or more"),
        ("noise-ou", 0.1, {"steps": None}, "steps and dt must be given for 'noise-ou'"),
        ("noise-ou", 0.1, {"tau": 1.0}, "unknown option of corruption 'noise-ou' 'tau'"),
        ("atten", 0.1, {"tau": 1.0}, "corruption 'atten' has no options"),
        ("drop", 0.5, {}, "level must be 0 or 1 for 'drop'"),
        ("posterior", 0.2, {}, r"level must lie in \[1 / K, 1\] = \[0.333333, 1\]"),
        ("posterior", 0.9, {"temperature": 0.0}, "temperature must be positive"),
        (
            "window",
            0.1,
            {"window": "erly"},
            "unknown window or period 'erly'. Did you mean 'early'",
        ),
        ("window", 0.1, {"window": "delay"}, "period 'delay': 1 of 2 lack it"),
        ("window", 0.1, {"periods": None}, "periods must be given to find 'early'"),
        ("window", 0.1, {"onset": 20.0}, "by onset and duration in ms, or by name"),
        ("swap", 20.0, {"phase": -1.0}, "phase must be zero or more"),
    ],
)
def test_bad_requests_are_refused(kind, level, change, message):
    with pytest.raises(ValueError, match=message):
        corrupted(kind, CLEAN, level, **(EVERYTHING | change))


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (CLEAN[0], "context must be a"),
        (CLEAN.long(), "context must be a"),
        (CLEAN[:, :1], "at least 2 entries"),
        (CLEAN * math.nan, "context must be finite"),
    ],
)
def test_bad_contexts_are_refused(context, message):
    with pytest.raises(ValueError, match=message):
        corrupted("mixU", context, 0.1)


def test_a_generator_must_be_one():
    with pytest.raises(TypeError, match="generator must be an integer"):
        corrupted("noise-frozen", CLEAN, 0.1, generator=0.5)
