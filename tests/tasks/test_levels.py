"""Chance by running its policies; ceilings against other computations and real trials."""

import itertools
import math

import numpy as np
import pytest
import torch
from ctxrnn.tasks._encoding import bumps, directions, projection
from scipy.special import ndtr

from ctxrnn.tasks import YANG19, task_set
from ctxrnn.tasks import _observer as observer

REACH, SINGLE, MATCH = YANG19[:6], YANG19[6:10], YANG19[16:]


def within(p, wanted, trials):
    """Whether a fraction of binomial trials lies within 6 standard errors."""
    return abs(p - wanted) <= 6 * math.sqrt(max(wanted * (1 - wanted), 1 / trials) / trials)


# --- chance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ring", "vector"])
def test_chance_is_the_better_of_the_two_policies(encoding):
    tasks = task_set(dt=50.0, ring=8, encoding=encoding)
    batch = tasks.sample(20 * 60, generator=0)
    shape = (*batch.inputs.shape[:2], tasks.outputs)
    fixate = torch.zeros(shape)
    fixate[..., 0] = 1
    fixated = tasks.accuracy(fixate, batch)
    generator = torch.Generator().manual_seed(1)
    rounds = 10
    hits = torch.zeros(len(batch))
    for _ in range(rounds):
        answer = torch.zeros(shape)
        if encoding == "ring":
            choice = torch.randint(1, 9, (len(batch), 1, 1), generator=generator)
            answer.scatter_(2, choice.expand(-1, shape[1], 1), 1.0)
        else:
            angle = 2 * math.pi * torch.rand(len(batch), 1, generator=generator)
            answer[..., 1], answer[..., 2] = angle.sin(), angle.cos()
        hits += tasks.correct(answer, batch)
    hit = 1 / 8 if encoding == "ring" else 0.2
    for k, name in enumerate(YANG19):
        rows = batch.task == k
        asked = 1 - fixated[name]
        random = hits[rows].sum().item() / (60 * rounds)
        if name in MATCH:
            assert within(asked, 0.5, 60)
            assert tasks.chance[name] == 0.5
        else:
            assert asked == 1
            assert tasks.chance[name] == pytest.approx(hit)
        assert within(random / asked, hit, 60 * rounds * asked)


def test_chance_of_other_tasks_is_measured():
    chance = task_set("PerceptualDecisionMaking").chance["PerceptualDecisionMaking"]
    assert chance == 0.5
    assert within(task_set("GoNogo").chance["GoNogo"], 0.5, 2000)


def test_normalised_and_relative_accuracy():
    tasks = task_set(["go", "dm1", "dms"])
    ceiling = tasks.ceiling["dm1"]
    assert tasks.normalised({"go": 1.0, "dms": 0.75}) == {"go": 1.0, "dms": pytest.approx(0.5)}
    assert tasks.normalised({"dm1": ceiling})["dm1"] == pytest.approx(1)
    assert tasks.normalised({"dm1": 1 / 16})["dm1"] == pytest.approx(0)
    assert tasks.relative({"dm1": ceiling / 2}) == {"dm1": pytest.approx(0.5)}
    with pytest.raises(ValueError, match="unknown task of this set 'anti'"):
        tasks.relative({"anti": 1.0})


# --- ceilings: limits and known numbers -------------------------------------------------------


def test_ceilings_agree_with_the_simulated_observers():
    ceiling = task_set(dt=20.0, ring=16).ceiling
    ties = task_set(["dm1", "multidm", "multidlydm"], repairs=False).ceiling
    for name in SINGLE:
        assert 0.95 < ceiling[name] < 0.97
    # Simulated before with 3,000 trials: 0.91, i.e. within 6 standard errors of 0.005.
    assert abs(ties["multidm"] - 0.91) < 6 * 0.0055
    assert ties["multidm"] == pytest.approx(1 / 16 + 7 / 8 * ceiling["multidm"], abs=1e-12)
    assert ties["multidlydm"] == pytest.approx(1 / 12 + 5 / 6 * ceiling["multidlydm"], abs=1e-12)
    for name in REACH:
        assert ceiling[name] == 1
    # dm1 of neurogym: the mean over 200, 400 and 600 ms of the closed form.
    parts = [task_set("dm1", timing={"stimulus": t}).ceiling["dm1"] for t in (200, 400, 600)]
    assert ties["dm1"] == pytest.approx(np.mean(parts), abs=1e-12)


@pytest.mark.parametrize("encoding", ["ring", "vector"])
def test_ceilings_without_noise_are_set_by_ties(encoding):
    clean = task_set(dt=50.0, ring=8, noise=0.0, encoding=encoding).ceiling
    assert all(value == 1 for value in clean.values())
    if encoding == "ring":
        ties = task_set(["multidm", "multidlydm"], noise=0.0, repairs=False).ceiling
        assert ties == {"multidm": pytest.approx(15 / 16), "multidlydm": pytest.approx(11 / 12)}


def test_ceilings_under_overwhelming_noise():
    ceiling = task_set(["dm1", "multidlydm", "dms"], dt=50.0, ring=8, noise=1e6).ceiling
    # One of two directions, both known, is guessed; match tasks are best answered by fixating.
    assert ceiling["dm1"] == pytest.approx(0.5, abs=1e-4)
    assert ceiling["multidlydm"] == pytest.approx(0.5, abs=1e-4)
    assert ceiling["dms"] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("go_on_match", [True, False])
def test_the_rule_of_neurogyms_samples_is_known_to_the_observer(go_on_match):
    # Hardly anything is seen of the sample, and everything of the test. By neurogym's rule 5 of 8
    # samples are in the first category, so that a test in it matches with probability 5/8.
    for one_rule, wanted in ((True, 1 / 2), (False, 5 / 8)):
        task = observer.Match(8, 50.0, (((1, 10**6), 1.0),), False, True, go_on_match, one_rule)
        assert observer.ceiling(task) == pytest.approx(wanted, abs=0.005)
    timing = {"sample": 20, "test": 4000}
    name = "dmc" if go_on_match else "dnmc"
    repaired, own = (
        task_set(name, ring=8, noise=10.0, timing=timing, repairs=r).ceiling[name]
        for r in (True, False)
    )
    assert own > repaired + 0.05


@pytest.mark.parametrize(("ring", "covered"), [(8, 1), (16, 3)])
def test_single_decisions_on_vectors_have_this_closed_form(ring, covered):
    # Unit vectors d steps apart differ by 2 sin(pi d / ring); the stimulus is shown for 25 steps.
    _, noise = templates_and_noise(ring, "vector", 1.0, 20.0)
    c = np.array([0.08, 0.16, 0.32, 0.64])
    parts = [
        1.0
        if min(d, ring - d) <= covered
        else ndtr(c * math.sin(math.pi * d / ring) * 5 / noise).mean()
        for d in range(1, ring)
    ]
    ceiling = task_set("dm1", ring=ring, encoding="vector").ceiling["dm1"]
    assert ceiling == pytest.approx(np.mean(parts), abs=1e-9)


def test_ceilings_fall_with_noise_and_rise_with_duration():
    by_noise = [task_set("multidm", ring=8, dt=50.0, noise=n).ceiling["multidm"] for n in (1, 2, 4)]
    assert by_noise == sorted(by_noise, reverse=True)
    assert by_noise[0] - by_noise[2] > 0.05
    longer = [
        task_set("dlydm1", ring=8, noise=4.0, timing={"stim1": t}).ceiling["dlydm1"]
        for t in (200, 1000)
    ]
    assert longer[0] < longer[1] - 0.01


# --- ceilings: other computations -------------------------------------------------------------


@pytest.mark.parametrize("snr", [0.5, 3.0, 12.0])
def test_sobol_average_meets_the_closed_form(snr):
    c = np.array([0.08, 0.16, 0.32, 0.64])
    means = snr * np.concatenate([c, -c])[:, None]
    got = observer._larger_posterior(means, np.arange(8) < 4)
    assert got == pytest.approx(float(ndtr(c * snr).mean()), abs=1e-3)


@pytest.mark.parametrize("snr", [1.0, 8.0, 20.0])
def test_two_modalities_meet_a_grid_quadrature(snr):
    c = np.array([0.08, 0.16, 0.32, 0.64])
    signed = np.concatenate([c, -c])
    z = np.arange(-0.64 * snr - 7, 0.64 * snr + 7, 0.05)
    # Trapezoid: the kinks leave an error of the order of the square of the step, 0.0025.
    density = np.exp(-((z[:, None] - snr * signed) ** 2) / 2) / math.sqrt(2 * math.pi)
    total = signed[:, None] + signed[None, :]
    first = density @ np.where(total > 1e-9, 1.0, 0.0) @ density.T
    second = density @ np.where(total < -1e-9, 1.0, 0.0) @ density.T
    quadrature = np.maximum(first, second).sum() * 0.05**2 / 56
    got = observer._compare((snr,), tuple(c), (1.0, 1.0), False, True)
    assert got == pytest.approx(quadrature, abs=1.5e-3)


def test_delayed_comparison_of_two_modalities_meets_monte_carlo():
    snr, c = np.array([4.0, 6.0]), (0.3, 0.6, 1.0)
    pairs = np.array(list(itertools.permutations(c, 2)))
    states = np.array(list(itertools.product(range(6), range(6))))
    balance = (pairs[:, 0] - pairs[:, 1])[states].sum(1)
    states, balance = states[np.abs(balance) > 1e-9], balance[np.abs(balance) > 1e-9]
    means = (pairs * snr)[states].reshape(-1, 4)
    rng = np.random.default_rng(1)
    true = rng.integers(len(means), size=20000)
    data = means[true] + rng.standard_normal((20000, 4))
    log = -((data[:, None, :] - means) ** 2).sum(-1) / 2
    weight = np.exp(log - log.max(1, keepdims=True))
    says_first = weight[:, balance > 0].sum(1) > weight[:, balance < 0].sum(1)
    right = (says_first == (balance[true] > 0)).mean()
    got = observer._compare(tuple(snr), c, (1.0, 1.0), True, True)
    assert within(right, got, 20000)
    assert 0.8 < got < 0.99


# --- ceilings: an observer at work on sampled trials ------------------------------------------


def mean_stimuli(batch, period, encoding):
    """Mean input in a period, (trial, modality, channel), and its steps, which all trials share."""
    steps = batch.periods[period]
    count = int((steps[:, 1] - steps[:, 0]).unique())
    rows = [u[a:b, 1:].double().mean(0) for u, (a, b) in zip(batch.inputs, steps, strict=True)]
    return torch.stack(rows).numpy().reshape(len(batch), 2, -1), count


def templates_and_noise(ring, encoding, noise, dt):
    sd = noise / math.sqrt(dt)
    if encoding == "ring":
        return bumps(ring), sd
    matrix = projection(ring)
    return bumps(ring) @ matrix, sd * math.sqrt((matrix[:, 0] ** 2).sum())


def decide(batch, name, cohs, delayed, ring, encoding, noise):
    """Compare all hypotheses on the raw stimuli, told both directions; index of the winner."""
    templates, sd = templates_and_noise(ring, encoding, noise, batch.dt)
    first = np.rint(batch.conditions["theta1"] * ring / (2 * math.pi)).astype(int)
    second = np.rint(batch.conditions["theta2"] * ring / (2 * math.pi)).astype(int)
    periods = ("stim1", "stim2") if delayed else ("stimulus",)
    seen = [mean_stimuli(batch, period, encoding) for period in periods]
    if delayed:
        pairs = list(itertools.permutations(cohs, 2))
    else:
        pairs = [((1 + s * c) / 2, (1 - s * c) / 2) for c in cohs for s in (1, -1)]
    modalities = (0, 1) if name.startswith("multi") else (0,)
    score = np.zeros((len(batch), 2))
    for combination in itertools.product(pairs, repeat=len(modalities)):
        balance = sum(a - b for a, b in combination)
        if abs(balance) < 1e-9:
            continue
        log = np.zeros(len(batch))
        for modality, (a, b) in zip(modalities, combination, strict=True):
            parts = [a * templates[first], b * templates[second]]
            expected = parts if delayed else [parts[0] + parts[1]]
            for (mean, count), want in zip(seen, expected, strict=True):
                log -= count * ((mean[:, modality] - want) ** 2).sum(1) / (2 * sd**2)
        # Likelihoods relative to a trial's best would need two passes; these do not underflow.
        score[:, int(balance < 0)] += np.exp(log - log_offset(seen, modalities, sd))
    return np.where(score[:, 0] >= score[:, 1], first, second), first, second


def log_offset(seen, modalities, sd):
    """Log-likelihood of a stimulus at half strength is about minus half the channels."""
    channels = sum(mean.shape[2] for mean, _ in seen) * len(modalities)
    return -channels / 2


@pytest.mark.parametrize(
    ("name", "noise", "encoding", "trials"),
    [
        ("dm1", 1.0, "ring", 1500),
        ("dm1", 1.0, "vector", 1500),
        ("multidm", 1.0, "ring", 1500),
        ("dlydm1", 3.0, "ring", 800),
        ("multidlydm", 3.0, "ring", 800),
    ],
)
def test_an_observer_attains_the_ceiling_of_decisions(name, noise, encoding, trials):
    tasks = task_set(name, dt=50.0, ring=8, noise=noise, encoding=encoding)
    batch = tasks.sample(trials, generator=11)
    delayed = "dly" in name
    cohs = (0.3, 0.6, 1.0) if delayed else (0.08, 0.16, 0.32, 0.64)
    index, first, second = decide(batch, name, cohs, delayed, 8, encoding, noise)
    outputs = torch.zeros(*batch.inputs.shape[:2], tasks.outputs)
    if encoding == "ring":
        outputs[np.arange(trials), :, index + 1] = 1
    else:
        angle = directions(8)[index]
        gap = np.minimum((first - second) % 8, (second - first) % 8)
        # 0.2 pi allows one step of pi / 4 only from the middle between two neighbours.
        between = np.angle(np.exp(1j * directions(8)[first]) + np.exp(1j * directions(8)[second]))
        angle = np.where(gap == 1, between, angle)
        outputs[..., 1] = torch.from_numpy(np.sin(angle))[:, None]
        outputs[..., 2] = torch.from_numpy(np.cos(angle))[:, None]
    p = tasks.accuracy(outputs, batch)[name]
    assert tasks.ceiling[name] < 0.995
    assert within(p, tasks.ceiling[name], trials)


@pytest.mark.parametrize(
    ("name", "encoding", "repairs", "noise"),
    [
        ("dms", "ring", True, 6.0),
        ("dnmc", "ring", True, 6.0),
        ("dmc", "ring", False, 6.0),
        ("dmc", "vector", True, 3.0),
    ],
)
def test_an_observer_attains_the_ceiling_of_matches(name, encoding, repairs, noise):
    trials, ring = 3000, 8
    tasks = task_set(name, dt=50.0, ring=ring, noise=noise, encoding=encoding, repairs=repairs)
    batch = tasks.sample(trials, generator=12)
    templates, sd = templates_and_noise(ring, encoding, noise, 50.0)
    rows, modality = np.arange(trials), batch.conditions["modality"].astype(int) - 1
    log = []
    for period in ("sample", "test"):
        mean, count = mean_stimuli(batch, period, encoding)
        distance = ((mean[rows, modality][:, None] - templates) ** 2).sum(-1)
        log.append(-count * (distance - distance.min(1, keepdims=True)) / (2 * sd**2))
    p_sample, p_test = np.exp(log[0]), np.exp(log[1])
    go, rest = np.zeros((trials, ring)), np.zeros(trials)
    for s, t in itertools.product(range(ring), range(ring)):
        if name.endswith("ms"):
            prior = 0.5 * ((s == t) + ((s - t) % ring == 4))
            match = s == t
        else:
            prior, match = 1.0, ((s >= 4) if repairs else (s > 4)) == (t >= 4)
        weight = prior * p_sample[:, s] * p_test[:, t]
        if match != name.startswith("dn"):
            go[:, t] += weight
        else:
            rest += weight
    outputs = torch.zeros(*batch.inputs.shape[:2], tasks.outputs)
    if encoding == "ring":
        answer = np.where(rest > go.max(1), 0, go.argmax(1) + 1)
        outputs[rows, :, answer] = 1
    else:
        both = go + np.roll(go, -1, axis=1)
        angle = (both.argmax(1) + 0.5) * 2 * math.pi / ring
        outputs[..., 0] = torch.from_numpy((rest > both.max(1)).astype(float))[:, None]
        outputs[..., 1] = torch.from_numpy(np.sin(angle))[:, None]
        outputs[..., 2] = torch.from_numpy(np.cos(angle))[:, None]
    p = tasks.accuracy(outputs, batch)[name]
    assert 0.6 < tasks.ceiling[name] < 0.99
    # The ceiling itself has a standard error below 0.0015.
    wanted = tasks.ceiling[name]
    assert abs(p - wanted) < 6 * math.sqrt(wanted * (1 - wanted) / trials) + 6 * 0.0015


def test_how_many_directions_a_vector_answer_covers():
    # 0.4 pi holds, strictly, 1 step of 2 pi / 8, 3 steps of 2 pi / 16, 1 step of 2 pi / 10.
    assert [observer.window(ring, True) for ring in (4, 8, 10, 16, 20)] == [1, 2, 2, 4, 4]
    assert observer.window(16, False) == 1
