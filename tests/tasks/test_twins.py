import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from ctxrnn.tasks._assemble import assemble
from ctxrnn.tasks._encoding import vector_targets

from ctxrnn.tasks import task_set

PAIRS = {
    ("go", "anti"), ("rtgo", "rtanti"), ("dlygo", "dlyanti"),
    ("ctxdm1", "ctxdm2"), ("ctxdm1", "multidm"), ("ctxdm2", "multidm"),
    ("ctxdlydm1", "ctxdlydm2"), ("ctxdlydm1", "multidlydm"), ("ctxdlydm2", "multidlydm"),
    ("dms", "dnms"), ("dmc", "dnmc"),
}  # fmt: skip
BOTH_WAYS = sorted(PAIRS | {(b, a) for a, b in PAIRS})


def full(batch, index):
    return torch.full((len(batch),), index)


@pytest.mark.parametrize("sampler", ["vectorised", "neurogym"])
def test_twins_of_the_twenty_tasks(sampler):
    tasks = task_set(sampler=sampler)
    assert set(tasks.twins) == PAIRS
    assert len(tasks.twins) == len(PAIRS)


def test_tasks_that_differ_in_their_stimuli_are_no_twins():
    assert task_set(["go", "dlygo", "dm1", "dm2"]).twins == ()
    assert task_set(["ctxdm1", "dm1", "dmc", "dms"]).twins == ()
    # Without the repair dlygo and dlyanti keep their own timing; both do.
    timing = {"delay": 200}
    assert task_set(["dlygo", "dlyanti"], repairs=False, timing=timing).twins
    assert task_set(["GoNogo-v0"]).twins == ()


def neurogym_trials(tasks, name, trials):
    """Draw with the same random numbers for every task, as neurogym's own environments do."""
    return tasks._sources[tasks.names.index(name)].draw(trials, 7)


@pytest.mark.parametrize("repairs", [True, ("go-cue", "durations", "timing"), False])
@pytest.mark.parametrize("pair", BOTH_WAYS, ids="->".join)
def test_wanted_is_the_ground_truth_of_the_twins_own_trial_with_the_same_stimulus(pair, repairs):
    chosen = repairs if repairs is not True else ("go-cue", "durations", "category", "timing")
    tasks = task_set(pair, sampler="neurogym", repairs=chosen, noise=0.0, dt=50.0)
    own, twin = (neurogym_trials(tasks, name, 300) for name in pair)
    answers: dict[bytes, set[int]] = {}
    for trial in twin:
        answers.setdefault(trial.inputs.tobytes(), set()).add(int(trial.truth[-1]))
    task = torch.zeros(len(own), dtype=torch.int64)
    batch = assemble(own, task, tasks.names, dt=tasks.dt, grace=100.0)
    wanted = tasks.wanted(batch, full(batch, 1)).tolist()
    judged = 0
    for trial, answer in zip(own, wanted, strict=True):
        given = answers.get(trial.inputs.tobytes(), set())
        c = trial.conditions
        tied = pair[1].startswith("multi") and np.isclose(
            c["coh1_mod1"] + c["coh1_mod2"], c["coh2_mod1"] + c["coh2_mod2"]
        )
        if tied:
            assert answer == -1
        elif given:
            assert given == {answer}
            judged += 1
    assert judged > 150
    if pair[1].startswith("multi"):
        assert 0.02 < np.mean(np.array(wanted) == -1) < 0.4


@pytest.mark.parametrize("vector", [False, True])
def test_own_task_twins_and_strangers(vector):
    names = ["go", "anti", "dm1"]
    tasks = task_set(names, encoding="vector" if vector else "ring")
    batch = tasks.sample(30, generator=0)
    own = tasks.wanted(batch, batch.task)
    assert torch.equal(own, batch.last(batch.targets))
    strange = tasks.wanted(batch, full(batch, 2))[batch.task != 2]
    assert bool(strange.isnan().all() if vector else (strange == -1).all())
    half = tasks.wanted(batch, full(batch, 1))[batch.task == 0]
    truth = own[batch.task == 0]
    if vector:
        torch.testing.assert_close(half[:, 1:], -truth[:, 1:], atol=1e-6, rtol=0)
        assert (half[:, 0] == 0).all()
    else:
        assert torch.equal(half, (truth - 1 + 8) % 16 + 1)
    mixed = tasks.wanted(batch, (1 - batch.task).clamp(min=0))
    assert torch.equal(mixed[batch.task == 0], half)


def test_decisions_of_the_vectorised_sampler_agree_with_what_is_seen():
    names = ["ctxdm1", "ctxdm2", "multidm", "ctxdlydm1", "ctxdlydm2"]
    tasks = task_set(names, noise=0.0)
    batch = tasks.sample(500, generator=1)
    for own, twin, modality in [(0, 1, 1), (1, 0, 0), (2, 0, 0), (2, 1, 1), (3, 4, 1), (4, 3, 0)]:
        part = batch.select(batch.task == own)
        ring = part.inputs[..., 1 + 16 * modality : 17 + 16 * modality].amax(1)
        first, second = (
            torch.from_numpy(part.conditions[name] * 8 / np.pi).round().long()
            for name in ("theta1", "theta2")
        )
        # Without noise the stronger direction is the more active one of the two.
        rows = torch.arange(len(part))
        stronger = torch.where(ring[rows, first] > ring[rows, second], first, second)
        assert torch.equal(tasks.wanted(part, full(part, twin)), 1 + stronger)


@pytest.mark.parametrize("pair", [("dms", "dnms"), ("dmc", "dnmc")])
def test_match_tasks_want_the_test_exactly_where_the_twin_does_not(pair):
    tasks = task_set(pair, noise=0.0)
    batch = tasks.sample(200, generator=1)
    own, twin = batch.last(batch.targets), tasks.wanted(batch, 1 - batch.task)
    assert ((own == 0) != (twin == 0)).all()
    seen = batch.inputs[torch.arange(200), batch.periods["test"][:, 0], 1:]
    shown = torch.maximum(seen[:, :16], seen[:, 16:]).argmax(-1)
    assert torch.equal(own + twin, 1 + shown)


def test_vectors_are_those_of_the_classes_in_both_samplers_and_from_a_pool():
    names = ["dms", "dnms", "ctxdm1", "multidm", "rtgo", "rtanti"]
    twin = torch.tensor([1, 0, 3, 2, 5, 4])
    ring, vector = (task_set(names, encoding=encoding) for encoding in ("ring", "vector"))
    answers, wanted = (
        tasks.wanted(batch, twin[batch.task])
        for tasks in (ring, vector)
        for batch in [tasks.sample(240, generator=2)]
    )
    known = answers >= 0
    assert wanted[~known].isnan().all()
    assert 0 < int((~known).sum()) < 40
    expected = torch.from_numpy(vector_targets(answers[known].numpy(), 16))
    assert torch.equal(wanted[known], expected)
    bank = ring.bank(40, generator=2)
    assert torch.equal(bank.wanted(bank.pool, twin[bank.pool.task]), answers)
    assert pickle.loads(pickle.dumps(ring)).twins == ring.twins == bank.twins


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b, o: (b, o[:1]), r"others must have shape \(4,\)"),
        (lambda b, o: (b, o.float()), "type int64: got"),
        (lambda b, o: (b, o + 1), r"others must lie in \[0, 1\]: got 1 to 2"),
        (lambda b, o: (task_set(["go"]).sample(4, generator=0), o), "the batch must be of these"),
    ],
)
def test_bad_requests_are_refused(change, message):
    tasks = task_set(["go", "anti"])
    batch = tasks.sample(4, generator=0)
    with pytest.raises(ValueError, match=message):
        tasks.wanted(*change(batch, 1 - batch.task))


def test_a_batch_without_conditions_is_refused():
    tasks = task_set(["go", "anti"])
    batch = replace(tasks.sample(4, generator=0), conditions={})
    with pytest.raises(ValueError, match=r"must hold the condition 'anti'.*no conditions"):
        tasks.wanted(batch, 1 - batch.task)
