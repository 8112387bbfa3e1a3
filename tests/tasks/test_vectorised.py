"""Trials drawn at once: rendered as neurogym renders them, with its noise and by its rules."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from ctxrnn.tasks._assemble import assemble
from ctxrnn.tasks._conditions import Conditions
from ctxrnn.tasks._encoding import directions
from ctxrnn.tasks._recipe import read_recipe
from ctxrnn.tasks._render import slot_ends
from ctxrnn.tasks._vectorised import VectorisedSource

from ctxrnn.tasks import YANG19, task_set

REACH, SINGLE, MATCH = YANG19[:6], YANG19[6:10], YANG19[16:]
SLOTS = (("fixation",), ("stimulus", "stim1", "sample"), ("delay",), ("stim2", "test"),
         ("decision",))  # fmt: skip
MODES = ("mod1", "mod2")


def conditions_of(name, index, ring, dt, trials):
    """What neurogym drew, in the form that the renderer takes."""
    theta = np.linspace(0, 2 * np.pi, ring + 1)[:-1]
    rows = []
    for trial in trials:
        c, strengths = trial.conditions, np.zeros((2, 2))
        modality = int(c.get("modality", 0)) - 1
        if modality >= 0:
            strengths[modality] = 1
        for m, mode in enumerate(MODES):
            strengths[m] += (c.get(f"coh1_{mode}", 0), c.get(f"coh2_{mode}", 0))
        if name in REACH:
            first = second = (c["ground_truth"] + c["anti"] * ring // 2) % ring
        else:
            keys = ("sample_theta", "test_theta") if name in MATCH else ("theta1", "theta2")
            first, second = (int(np.flatnonzero(theta == c[key])[0]) for key in keys)
        lasting = [
            sum(b - a for key, (a, b) in trial.periods.items() if key in names) * dt
            for names in SLOTS
        ]
        answer = answer_of(name, c, first, second, int(trial.truth[-1]))
        rows.append(
            (index, lasting, first, second, modality, strengths, c.get("match", False), answer)
        )
    return rows


def answer_of(name, c, first, second, given):
    """The right class by the rules of the task; `given` only breaks ties."""
    if name in REACH:
        return 1 + c["ground_truth"]
    if name in MATCH:
        return 1 + second if c["match"] == (name in ("dms", "dmc")) else 0
    counted = MODES if "multi" in name else MODES[:1] if name.endswith("dm1") else MODES[1:]
    difference = sum(c[f"coh1_{mode}"] - c[f"coh2_{mode}"] for mode in counted)
    if abs(difference) < 1e-6:
        assert given - 1 in (first, second)
        return given
    return 1 + (first if difference > 0 else second)


def stack(rows):
    return Conditions(*(np.array(column) for column in zip(*rows, strict=True)))


def drawn_by_neurogym(trials, **settings):
    """Every task's trials by neurogym: as a batch, and rendered from their conditions."""
    tasks = task_set(noise=0.0, sampler="neurogym", **settings)
    ring, vector = tasks.ring, tasks.kind == "vector"
    raw, rows = [], []
    for index, source in enumerate(tasks._sources):
        drawn = source.draw(trials, index)
        raw += drawn
        rows += conditions_of(source.name, index, ring, tasks.dt, drawn)
    task = torch.arange(len(tasks.names)).repeat_interleave(trials)
    reference = assemble(
        raw, task, tasks.names, dt=tasks.dt, grace=100.0, ring=ring if vector else None
    )
    recipes = [read_recipe(source) for source in tasks._sources]
    fast = VectorisedSource(tasks._sources, recipes, dt=tasks.dt, vector=vector)
    return reference, fast.render(stack(rows), 0, 100.0)


# --- rendering: exact ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"dt": 20.0, "ring": 16},
        {"dt": 20.0, "ring": 16, "repairs": False},
        {"dt": 50.0, "ring": 8},
        {"dt": 50.0, "ring": 8, "repairs": False},
        {"dt": 10.0, "ring": 4},
        {"dt": 100.0, "ring": 32, "repairs": {"category", "timing"}},
        {"dt": 7.0, "ring": 10, "repairs": {"go-cue", "ties"}},
        {"dt": 20.0, "ring": 8, "encoding": "vector"},
        {"dt": 20.0, "ring": 8, "timing": {"delay": 0, "decision": [100, 300], "fixation": 0}},
        {"dt": 25.0, "ring": 6, "timing": {"delay": ("truncated_exponential", [300, 50, 700]),
                                           "sample": ("uniform", (100, 400)), "stim2": 200}},
    ],
)  # fmt: skip
def test_the_renderer_makes_neurogyms_arrays_of_its_conditions(settings):
    batch, arrays = drawn_by_neurogym(25, **settings)
    # One float32 rounding here, up to three there, of values below 2; vectors are sums of 2 ring.
    atol = 5e-7 if settings.get("encoding") != "vector" else 5e-6
    assert arrays["inputs"].dtype == torch.float32
    for k, name in enumerate(batch.names):
        rows = batch.task == k
        found = arrays["inputs"][rows]
        torch.testing.assert_close(found, batch.inputs[rows], atol=atol, rtol=0, msg=name)
        assert torch.equal(arrays["targets"][rows], batch.targets[rows]), name
        assert torch.equal(arrays["mask"][rows], batch.mask[rows]), name
    for key in ("inputs", "targets", "mask", "lengths"):
        assert arrays[key].dtype == getattr(batch, key).dtype
        assert arrays[key].shape == getattr(batch, key).shape
    assert torch.equal(arrays["lengths"], batch.lengths)
    assert arrays["periods"].keys() == batch.periods.keys()
    for name, steps in batch.periods.items():
        assert torch.equal(arrays["periods"][name], steps), name
        assert arrays["periods"][name].dtype == torch.int64
    assert arrays["conditions"].keys() == batch.conditions.keys()
    for name, values in batch.conditions.items():
        np.testing.assert_array_equal(arrays["conditions"][name], values, err_msg=name)
        assert arrays["conditions"][name].dtype == values.dtype == np.float64


@pytest.mark.parametrize("dt", [20.0, 0.7, 33.3, 0.1])
def test_steps_are_counted_with_neurogyms_rounding(dt):
    tasks = task_set("dlydm1", dt=dt, timing={"delay": ("uniform", (40, 90)), "stim1": 70,
                                              "stim2": 35, "decision": 40})  # fmt: skip
    core = tasks._sources[0].core
    core.rng = np.random.RandomState(0)
    for _ in range(20):
        core.new_trial()
        names = ("fixation", "stim1", "delay", "stim2", "decision")
        ends = slot_ends(np.array([[core._duration[name] for name in names]], dtype=float), dt)
        assert ends[0].tolist() == [core.end_ind[name] for name in names]
        assert ends[0, -1] == len(core.ob)


# --- rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize("repairs", [True, False])
def test_the_right_answer_follows_from_the_conditions(repairs):
    tasks = task_set(dt=50.0, ring=8, repairs=repairs)
    batch = tasks.sample(20 * 150, generator=3)
    theta, last = directions(8), batch.last(batch.targets)
    ties = 0
    for row in range(len(batch)):
        name = batch.names[batch.task[row]]
        c = {key: values[row] for key, values in batch.conditions.items()}
        pair = ("sample_theta", "test_theta") if name in MATCH else ("theta1", "theta2")
        first = second = 0
        if name not in REACH:
            first, second = (int(np.abs(theta - c[key]).argmin()) for key in pair)
        wanted = answer_of(name, c, first, second, int(last[row]))
        assert last[row] == wanted, name
        if name in MATCH:
            border = 4 if repairs else 5
            by_category = (first >= border) == (second >= 4)
            assert c["match"] == (by_category if name.endswith("c") else first == second)
            assert name.endswith("c") or (second - first) % 8 in (0, 4)
        elif name not in REACH:
            assert first != second
        if "multi" in name:
            ties += abs(sum(c[f"coh1_{m}"] - c[f"coh2_{m}"] for m in MODES)) < 1e-6
    assert (ties == 0) == repairs


def test_ties_are_broken_at_random():
    batch = task_set("multidm", dt=50.0, ring=8, repairs=False).sample(4000, generator=0)
    c = batch.conditions
    tied = np.abs(sum(c[f"coh1_{m}"] - c[f"coh2_{m}"] for m in MODES)) < 1e-6
    index = np.rint(c["theta1"] * 8 / (2 * math.pi))
    first = (batch.last(batch.targets).numpy() == 1 + index)[tied]
    assert abs(first.mean() - 0.5) < 6 * 0.5 / math.sqrt(tied.sum())


# --- noise --------------------------------------------------------------------------------------


def noise_of(names, trials, **settings):
    """A batch and its noise: what the same trials show beyond those without noise."""
    loud, quiet = (
        task_set(names, noise=noise, **settings).sample(trials, generator=9) for noise in (1.0, 0.0)
    )
    for key, values in loud.conditions.items():
        np.testing.assert_array_equal(values, quiet.conditions[key])
    return loud, loud.inputs - quiet.inputs


def test_there_is_noise_where_neurogym_has_it_and_nowhere_else():
    batch, noise = noise_of(YANG19, 20 * 30, dt=50.0, ring=8)
    steps = torch.arange(batch.inputs.shape[1])
    expected = torch.zeros_like(noise, dtype=torch.bool)
    modality = torch.from_numpy(np.nan_to_num(batch.conditions["modality"])).long()
    for k, name in enumerate(batch.names):
        rows = torch.nonzero(batch.task == k).squeeze(-1)
        if name in REACH:
            continue
        for period in ("stimulus", "stim1", "stim2", "sample", "test"):
            start, end = batch.periods[period][rows].T[:, :, None]
            inside = (steps >= start) & (steps < end)
            for m in (1, 2):
                shown = inside if name not in MATCH else inside & (modality[rows] == m)[:, None]
                channels = slice(1 + 8 * (m - 1), 1 + 8 * m)
                expected[rows, :, channels] |= shown[..., None]
    assert torch.equal(noise != 0, expected)


@pytest.mark.parametrize(("dt", "ring"), [(20.0, 16), (50.0, 8)])
@pytest.mark.parametrize("name", ["dm2", "ctxdlydm1", "dmc"])
def test_the_noise_is_white_and_normal(name, dt, ring):
    batch, noise = noise_of([name], 600, dt=dt, ring=ring)
    start, end = batch.periods["sample" if name == "dmc" else "stimulus" if name == "dm2"
                               else "stim1"].T  # fmt: skip
    count = int((end - start).unique())
    modality = batch.conditions.get("modality", np.ones(600)).astype(int)
    blocks = torch.stack(
        [noise[t, s : s + count, 1 + ring * (m - 1) : 1 + ring * m]
         for t, (s, m) in enumerate(zip(start.tolist(), modality, strict=True))]
    ).double() * math.sqrt(dt)  # fmt: skip

    def is_zero(values, variance):
        assert abs(values.mean()) < 6 * math.sqrt(variance / values.numel())

    # float32 rounding of a sum below 4 is 1e-7, far below all bounds. Var z^2 = 2, Var z^4 = 96.
    is_zero(blocks, 1)
    is_zero(blocks**2 - 1, 2)
    is_zero(blocks**3, 15)
    is_zero(blocks**4 - 3, 96)
    for one, other in (
        (blocks[:, 1:], blocks[:, :-1]),
        (blocks[:, 2:], blocks[:, :-2]),
        (blocks[..., 1:], blocks[..., :-1]),
        (blocks[1:], blocks[:-1]),
        (blocks[::2], blocks[1::2]),
        (blocks[:300], blocks[300:]),
    ):
        is_zero(one * other, 1)
    # Every unit and every step by itself: a fraction of 1e-9 per test of a chi-square number.
    for axes in ((0, 1), (0, 2)):
        spread = blocks.square().mean(axes)
        n = blocks.numel() / len(spread)
        assert ((spread - 1).abs() < 6.5 * math.sqrt(2 / n)).all()


def test_modalities_stimuli_and_tasks_have_independent_noise():
    batch, noise = noise_of(["dlydm1", "dlydm2"], 800, dt=50.0, ring=8)
    blocks = {}
    for k, name in enumerate(batch.names):
        for period in ("stim1", "stim2"):
            rows = torch.nonzero(batch.task == k).squeeze(-1).tolist()
            starts = batch.periods[period][:, 0].tolist()
            part = torch.stack([noise[t, starts[t] : starts[t] + 10, 1:] for t in rows])
            for m in (0, 1):
                blocks[name, period, m] = part[..., 8 * m : 8 * m + 8].double() * math.sqrt(50)
    keys = list(blocks)
    for i, one in enumerate(keys):
        assert abs(blocks[one].square().mean() - 1) < 6 * math.sqrt(2 / blocks[one].numel())
        for other in keys[:i]:
            product = (blocks[one] * blocks[other]).mean()
            assert abs(product) < 6 / math.sqrt(blocks[one].numel()), (one, other)


# --- the sampler as an option -------------------------------------------------------------------


def test_both_samplers_give_batches_of_the_same_form():
    batches = [
        task_set(dt=50.0, ring=8, sampler=sampler).sample(200, generator=1)
        for sampler in ("vectorised", "neurogym")
    ]
    assert not torch.equal(batches[0].targets, batches[1].targets)
    for one, other in (batches, batches[::-1]):
        assert torch.equal(one.task, other.task)
        assert torch.equal(one.context, other.context)
        assert one.inputs.shape == other.inputs.shape
        assert one.periods.keys() == other.periods.keys()
        assert one.conditions.keys() == other.conditions.keys()
        for key in ("inputs", "targets", "mask", "lengths"):
            assert getattr(one, key).dtype == getattr(other, key).dtype
            assert getattr(one, key).is_contiguous()


def test_the_sampler_is_kept_in_the_configuration():
    assert task_set("go").sampler == "vectorised"
    assert task_set("go").config()["sampler"] == "vectorised"
    for sampler in ("vectorised", "neurogym"):
        tasks = task_set(["go", "dm1"], sampler=sampler)
        for again in (
            task_set(**json.loads(json.dumps(tasks.config()))),
            pickle.loads(pickle.dumps(tasks)),
        ):
            assert again.sampler == sampler
            assert torch.equal(
                again.sample(5, generator=2).inputs, tasks.sample(5, generator=2).inputs
            )
    with pytest.raises(
        ValueError, match=r"unknown sampler 'vectorized'\. Did you mean 'vectorised'"
    ):
        task_set("go", sampler="vectorized")


def test_which_tasks_are_vectorised():
    assert task_set().vectorised == YANG19
    assert task_set(repairs=False).vectorised == YANG19
    assert task_set(sampler="neurogym").vectorised == ()
    assert task_set("GoNogo").vectorised == ()
    timing = {"delay": ("until", 1500)}
    assert task_set(["dm1", "dms"], timing=timing).vectorised == ("dm1",)


def test_what_is_not_understood_is_drawn_by_neurogym_in_the_same_set():
    names = ["dm1", "dms", "go"]
    tasks = task_set(names, timing={"delay": ("until", 1500)}, dt=50.0, ring=8)
    assert tasks.vectorised == ("dm1",)
    batch = tasks.sample(31, generator=0)
    alone = task_set("dm1", dt=50.0, ring=8)
    part = batch.select(batch.task == 0)
    # The seed is drawn after the remainder of the trials is assigned, so it is passed on here.
    task, seed = tasks._request(31, 0, None, True)
    assert torch.equal(task, batch.task)
    direct = alone._draw(torch.zeros(len(part), dtype=torch.int64), seed)
    assert torch.equal(part.inputs, direct.inputs)
    go = batch.select(batch.task == 2)
    assert (go.periods["delay"] == torch.tensor([20, 30])).all()
    assert np.isnan(batch.conditions["theta1"][batch.task != 0]).all()
    assert not np.isnan(batch.conditions["match"][batch.task == 1]).any()
    assert (batch.inputs[~batch.valid] == 0).all()
    assert (batch.mask[~batch.valid] == 0).all()
    bank = tasks.bank(10, generator=0)
    assert torch.equal(bank.pool.inputs, tasks.sample(30, generator=0).inputs)
    assert bank.sample(9, generator=1).periods.keys() == batch.periods.keys()


def test_durations_drawn_by_a_function_are_drawn_by_it():
    timing = {"fixation": lambda: 320.0, "delay": 400}
    tasks = task_set(["dlydm1", "go"], dt=20.0, ring=8, timing=timing)
    assert tasks.vectorised == ("dlydm1", "go")
    batch = tasks.sample(20, generator=0)
    assert (batch.periods["fixation"] == torch.tensor([0, 16])).all()
    assert (batch.periods["delay"].diff(dim=1) == 20).all()


def test_options_of_the_environments_are_read_from_them():
    tasks = task_set("dm1", dt=50.0, ring=8, cohs=[0.5], stim_mod=(True, True), w_mod=(0, 1))
    assert tasks.vectorised == ("dm1",)
    batch = tasks.sample(50, generator=0)
    c = batch.conditions
    assert set(c["coh1_mod1"]) == set(c["coh1_mod2"]) == {0.25, 0.75}
    first = np.where(c["coh1_mod2"] > 0.5, c["theta1"], c["theta2"])
    answer = 1 + np.rint(first * 8 / (2 * math.pi))
    assert np.array_equal(batch.last(batch.targets).numpy(), answer)
    delayed = task_set("dm2", dt=50.0, ring=8, delaycomparison=True).sample(4, generator=0)
    assert {"stim1", "delay", "stim2"} <= delayed.periods.keys()
    assert "stim_period" not in delayed.conditions
    reaction = task_set("go", dt=50.0, ring=8, reaction=True).sample(4, generator=0)
    assert set(reaction.periods) == {"fixation", "decision", "response"}


def test_too_many_coherences_are_left_to_neurogym():
    cohs = list(np.linspace(0.01, 0.9, 200))
    tasks = task_set("multidm", dt=50.0, ring=8, cohs=cohs)
    assert tasks.vectorised == ()
    assert len(tasks.sample(3, generator=0)) == 3


def test_trials_in_any_order_are_those_of_the_ordered_batch():
    tasks = task_set(["go", "dm1", "dms"], dt=50.0, ring=8)
    task = torch.tensor([2, 0, 1, 2, 1, 0])
    mixed, ordered = tasks._draw(task, 7), tasks._draw(task.sort().values, 7)
    for k in range(3):
        one, other = (batch.select(batch.task == k) for batch in (mixed, ordered))
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
