"""Every repair mends its oddity, and without repairs the trials are neurogym's own."""

import math

import neurogym
import numpy as np
import pytest
import torch
from ctxrnn.tasks._neurogym import quiet

from ctxrnn.tasks import REPAIRS, YANG19, task_set

REACH = YANG19[:6]
CUED = YANG19[6:]
MATCH = YANG19[16:]


def fixation_channel(batch):
    """Whether the fixation input is on, and whether the response has not begun, per valid step."""
    steps = torch.arange(batch.inputs.shape[1])
    before = steps < batch.periods["decision"][:, :1]
    return (batch.inputs[..., 0] == 1)[batch.valid], before[batch.valid]


def sample_test_match(batch, ring):
    """Index of the sample and of the test on the ring, and whether the trial asks for an answer."""
    to_index = ring / (2 * math.pi)
    sample = np.rint(batch.conditions["sample_theta"] * to_index).astype(int)
    test = np.rint(batch.conditions["test_theta"] * to_index).astype(int)
    return sample, test, batch.last(batch.targets).numpy()


@pytest.mark.parametrize("name", YANG19)
@pytest.mark.parametrize("dt", [20.0, 50.0])
def test_without_repairs_the_trials_are_neurogyms_bit_for_bit(name, dt):
    source = task_set(name, dt=dt, repairs=False)._sources[0]
    drawn = source.draw(12, 5)
    env = neurogym.make(f"yang19.{name}-v0", dt=dt).env
    parts = getattr(env, "envs", [env])
    source.draw(0, 5)  # the stream of seed 5, from its start
    rng = np.random.RandomState()
    rng.set_state(source._rng.get_state())
    for part in parts:
        part.unwrapped.rng = rng
    for trial in drawn:
        part = parts[trial.conditions.get("modality", 1) - 1]
        conditions = part.new_trial()
        core = part.unwrapped
        assert np.array_equal(trial.inputs, core.ob)
        assert trial.inputs.dtype == core.ob.dtype
        assert np.array_equal(trial.truth, core.gt)
        for key, value in conditions.items():
            if key == "ground_truth" and name in MATCH:
                assert trial.conditions["match"] == (value == "match")
            else:
                assert trial.conditions[key] == value
        for period, start in core.start_ind.items():
            if core.end_ind[period] > start:
                assert trial.periods[period] == (start, core.end_ind[period])


def test_the_modality_is_the_one_that_neurogyms_wrapper_picks():
    with quiet():
        env = neurogym.make("yang19.go-v0", dt=20).env
        env.new_trial()
    seen = {int(np.abs(e.unwrapped.observation_space.name["stimulus"]).min()) for e in env.envs}
    assert seen == {1, 17}
    batch = task_set("go").sample(10, generator=0)
    for inputs, modality in zip(batch.inputs, batch.conditions["modality"], strict=True):
        shown = inputs[:, 1:17] if modality == 1 else inputs[:, 17:]
        hidden = inputs[:, 17:] if modality == 1 else inputs[:, 1:17]
        assert shown.abs().max() > 0.7
        assert hidden.abs().max() == 0


@pytest.mark.parametrize("name", CUED)
def test_go_cue_stays_on_until_the_decision(name):
    on, before = fixation_channel(task_set(name).sample(8, generator=1))
    assert torch.equal(on, before)


@pytest.mark.parametrize("name", CUED)
def test_without_the_repair_the_cue_goes_off_early(name):
    batch = task_set(name, repairs=set(REPAIRS) - {"go-cue"}).sample(8, generator=1)
    on, before = fixation_channel(batch)
    assert not torch.equal(on, before)
    steps = torch.arange(batch.inputs.shape[1])
    assert torch.equal(on, (steps < batch.periods["fixation"][:, 1:])[batch.valid])


@pytest.mark.parametrize("name", REACH)
def test_reach_tasks_have_a_go_cue_by_themselves(name):
    on, before = fixation_channel(task_set(name, repairs=False).sample(8, generator=1))
    assert torch.equal(on, before)


def test_durations_are_equal_in_the_decision_family():
    names = ("dm1", "dm2", "ctxdm1", "ctxdm2", "multidm")
    steps = task_set(names).sample(100, generator=2).periods["stimulus"]
    assert ((steps[:, 1] - steps[:, 0]) == 25).all()


def test_without_the_repair_dm1_draws_its_duration():
    steps = task_set("dm1", repairs=set(REPAIRS) - {"durations"}).sample(60, generator=2)
    steps = steps.periods["stimulus"]
    # 60 trials miss one of three lengths with probability below 3 (2/3)^60 = 1e-10.
    assert set((steps[:, 1] - steps[:, 0]).tolist()) == {10, 20, 30}


@pytest.mark.parametrize(("name", "go_on_match"), [("dmc", True), ("dnmc", False)])
def test_category_has_one_rule(name, go_on_match):
    batch = task_set(name, ring=8).sample(400, generator=3)
    sample, test, answer = sample_test_match(batch, 8)
    match = (sample >= 4) == (test >= 4)
    assert np.array_equal(batch.conditions["match"], match)
    assert np.array_equal(answer, np.where(match == go_on_match, test + 1, 0))
    # The misjudged direction still occurs: its count is binomial (400, 1/8), within 6 sigma.
    assert abs((sample == 4).sum() - 50) < 6 * math.sqrt(400 * 7 / 64)
    assert abs(match.sum() - 200) < 6 * 10
    steps = torch.arange(batch.inputs.shape[1])
    early = steps < batch.periods["decision"][:, :1]
    assert (batch.targets[early] == 0).all()


@pytest.mark.parametrize(("name", "go_on_match"), [("dmc", True), ("dnmc", False)])
def test_without_the_repair_one_sample_is_misjudged(name, go_on_match):
    batch = task_set(name, ring=8, repairs=False).sample(400, generator=3)
    sample, test, answer = sample_test_match(batch, 8)
    match = (sample >= 4) == (test >= 4)
    wrong = (answer > 0) != (match == go_on_match)
    assert np.array_equal(wrong, sample == 4)


def balance(batch):
    """Summed strength of the first direction minus that of the second."""
    c = batch.conditions
    return c["coh1_mod1"] + c["coh1_mod2"] - c["coh2_mod1"] - c["coh2_mod2"]


@pytest.mark.parametrize("name", ["multidm", "multidlydm"])
def test_ties_are_redrawn(name):
    batch = task_set(name).sample(300, generator=4)
    difference = balance(batch)
    assert np.abs(difference).min() > 0.01
    first = np.where(difference > 0, batch.conditions["theta1"], batch.conditions["theta2"])
    assert np.array_equal(
        batch.last(batch.targets).numpy(), 1 + np.rint(first * 16 / (2 * math.pi)).astype(int)
    )


@pytest.mark.parametrize(("name", "share"), [("multidm", 1 / 8), ("multidlydm", 1 / 6)])
def test_without_the_repair_ties_are_as_frequent_as_counted(name, share):
    ties = np.abs(balance(task_set(name, repairs=False).sample(600, generator=4))) < 1e-6
    # 8 of 64 pairs of signed coherences, 6 of 36 pairs of ordered pairs; binomial, 6 sigma.
    assert abs(ties.mean() - share) < 6 * math.sqrt(share * (1 - share) / 600)


@pytest.mark.parametrize("name", ["dlygo", "dlyanti"])
def test_timing_is_honoured(name):
    batch = task_set(name, timing={"delay": 300, "stimulus": 200}).sample(4, generator=5)
    assert (batch.periods["delay"].diff(dim=1) == 15).all()
    assert (batch.periods["stimulus"].diff(dim=1) == 10).all()
    own = task_set(name).sample(4, generator=5)
    assert (own.periods["delay"].diff(dim=1) == 25).all()


@pytest.mark.parametrize("name", ["dlygo", "dlyanti"])
def test_without_the_repair_timing_is_overwritten(name):
    batch = task_set(name, timing={"delay": 300, "stimulus": 200}, repairs=False)
    batch = batch.sample(4, generator=5)
    assert (batch.periods["delay"].diff(dim=1) == 25).all()
    assert (batch.periods["stimulus"].diff(dim=1) == 25).all()


def test_a_users_stimulus_duration_wins_over_the_repaired_one():
    batch = task_set("dm1", timing={"stimulus": 300}).sample(4, generator=0)
    assert (batch.periods["stimulus"].diff(dim=1) == 15).all()


def test_noise_is_one_over_the_root_of_dt_and_scales():
    for noise, dt in ((1.0, 20.0), (0.3, 50.0)):
        batch = task_set("dm1", dt=dt, noise=noise).sample(40, generator=6)
        start, end = batch.periods["stimulus"][:, :1], batch.periods["stimulus"][:, 1:]
        steps = torch.arange(batch.inputs.shape[1])
        silent = batch.inputs[(steps >= start) & (steps < end)][:, 17:]
        # The sd of a sample of n normal numbers has relative standard error 1 / sqrt(2 n).
        wanted = noise / math.sqrt(dt)
        assert abs(silent.std().item() / wanted - 1) < 6 / math.sqrt(2 * silent.numel())
    clean = task_set(["dm1", "dms"], noise=0.0).sample(8, generator=6)
    assert (clean.inputs >= 0).all()
