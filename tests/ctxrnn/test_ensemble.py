import dataclasses
import functools
import signal
import time

import numpy as np
import pytest
import torch

from ctxrnn import (
    CTRNN,
    Ensemble,
    TrainConfig,
    TrialBatch,
    _stacked,
    make_generator,
    variant_ids,
)
from ctxrnn import train as train_by_default
from ctxrnn._step import Prepared, add_gradient

# One after another, as the compiled loop does: then members are bit for bit what they are alone.
train = functools.partial(train_by_default, stack=False)


class Signs:
    """Two tasks with the same stimuli and opposite answers; the first `easy` ask for one only."""

    names = ("same", "other")

    def __init__(self, scale=2.0, on_sample=None):
        self.scale, self.on_sample, self.count = scale, on_sample, 0

    def sample(self, trials, *, generator):
        self.count += 1
        if self.on_sample:
            self.on_sample(self.count)
        task = torch.arange(trials) * 2 // trials
        sign = torch.randint(2, (trials,), generator=generator)
        inputs = self.scale * (2.0 * sign - 1)[:, None, None].repeat(1, 4, 1)
        inputs = inputs + 0.1 * torch.randn(trials, 4, 1, generator=generator)
        targets = torch.where(task == 0, sign, 1 - sign)[:, None].repeat(1, 4)
        return TrialBatch(
            inputs, targets, torch.ones(trials, 4), torch.eye(2)[task], task,
            torch.full((trials,), 4), self.names, 20.0,
        )  # fmt: skip

    def accuracy(self, outputs, batch):
        right = (batch.last(outputs).argmax(-1) == batch.last(batch.targets)).double()
        return {name: float(right[batch.task == k].mean()) for k, name in enumerate(self.names)}

    def relative(self, accuracy):
        return accuracy


CONFIG = TrainConfig(
    steps=40, batch=16, learning_rate=1e-2, evaluate_every=10, evaluation_trials=32, target=None
)


def make(variant="es", units=6, seed=1, **options):
    return CTRNN(1, units, 2, variant, contexts=2, seed=seed, **options)


def weights(network):
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def rows(history):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in history.rows]


MEMBERS = [
    {"variant": "es", "units": 6, "seed": 1},
    {"variant": "none", "units": 17, "seed": 2},
    {"variant": "e-gain", "units": 33, "seed": 3, "form": "rate"},
    {"variant": "s-full", "units": 6, "seed": 1, "nonlinearity": "softplus"},
    {"variant": "s-asym-2", "units": 8, "seed": 4, "tau": torch.linspace(30, 90, 8)},
    {"variant": "e-add", "units": 5, "seed": 5, "learn_tau": True},
]


@pytest.mark.parametrize("threads", [1, 3])
def test_members_end_with_the_weights_that_they_get_alone(threads):
    alone, histories = [], []
    for index, member in enumerate(MEMBERS):
        network = make(**member)
        histories.append(train(network, Signs(), CONFIG, seed=index % 2))
        alone.append(weights(network))
    ensemble = Ensemble([make(**member) for member in MEMBERS])
    seeds = [index % 2 for index in range(len(MEMBERS))]
    found = train(ensemble, Signs(), CONFIG, seed=seeds, threads=threads)
    for network, expected in zip(ensemble, alone, strict=True):
        assert same(weights(network), expected)
    assert [rows(history) for history in found] == [rows(history) for history in histories]


def test_companions_change_nothing():
    def trained(members):
        ensemble = Ensemble([make(**member) for member in members])
        train(ensemble, Signs(), CONFIG, seed=3)
        return weights(ensemble[0])

    alone = trained(MEMBERS[:1])
    assert same(trained(MEMBERS[:1] + MEMBERS[3:]), alone)
    assert same(trained(MEMBERS), alone)


def test_members_have_tasks_settings_and_seeds_of_their_own():
    tasks = [Signs(2.0), Signs(1.0), Signs(2.0)]
    configs = [
        CONFIG,
        dataclasses.replace(CONFIG, learning_rate=3e-3, batch=8),
        dataclasses.replace(CONFIG, steps=25),
    ]
    ensemble = Ensemble([make(seed=seed) for seed in range(3)])
    histories = train(ensemble, tasks, configs, seed=[5, 6, 7])
    assert [history.rows[-1]["step"] for history in histories] == [40, 40, 25]
    for index in range(3):
        network = make(seed=index)
        train(network, tasks[index], configs[index], seed=5 + index)
        assert same(weights(network), weights(ensemble[index]))


@pytest.mark.parametrize("seeds", [range(4, 6), np.arange(4, 6), (4, 5)])
def test_seeds_come_in_any_sequence(seeds):
    config = dataclasses.replace(CONFIG, steps=3)
    ensemble, other = (Ensemble([make(seed=1), make(seed=2)]) for _ in range(2))
    train(ensemble, Signs(), config, seed=seeds)
    train(other, Signs(), config, seed=[4, 5])
    assert all(same(weights(a), weights(b)) for a, b in zip(ensemble, other, strict=True))


@pytest.mark.gpu
def test_on_a_gpu_members_are_computed_as_one():
    def build():
        return Ensemble([make(**{**member, "device": "cuda"}) for member in MEMBERS])

    together, apart = build(), build()
    config = dataclasses.replace(CONFIG, steps=5, evaluate_every=5)
    train_by_default(together, Signs(), config, seed=0)
    train(apart, Signs(), config, seed=0)
    for one, other in zip(together, apart, strict=True):
        for name, value in weights(one).items():
            torch.testing.assert_close(value, weights(other)[name], rtol=0, atol=2e-2)


def test_members_with_other_tasks_but_the_same_judge_see_their_own_trials():
    judge, tasks = Signs(), [Signs(2.0), Signs(0.5)]
    ensemble = Ensemble([make(seed=1), make(seed=1)])
    train(ensemble, tasks, CONFIG, seed=0, evaluation_tasks=judge)
    for index in range(2):
        alone = make(seed=1)
        train(alone, tasks[index], CONFIG, seed=0, evaluation_tasks=judge)
        assert same(weights(alone), weights(ensemble[index]))


def test_trials_that_are_shared_are_drawn_once():
    shared, own = Signs(), Signs()
    train(Ensemble([make(seed=seed) for seed in range(4)]), shared, CONFIG, seed=0)
    assert shared.count == CONFIG.steps + CONFIG.steps // CONFIG.evaluate_every
    train(Ensemble([make(seed=seed) for seed in range(2)]), own, CONFIG, seed=[0, 1])
    assert own.count == 2 * shared.count


def test_members_that_reach_the_criterion_leave_and_keep_what_they_had():
    easy = dataclasses.replace(CONFIG, target=0.0, patience=1)
    ensemble = Ensemble([make(seed=1), make(seed=2)])
    histories = train(ensemble, Signs(), [easy, CONFIG], seed=0)
    assert [history.stopped for history in histories] == ["criterion", "steps"]
    assert histories[0].rows[-1]["step"] == 10
    alone = make(seed=1)
    train(alone, Signs(), easy, seed=0)
    assert same(weights(alone), weights(ensemble[0]))


def test_a_member_that_diverges_leaves_and_the_others_go_on():
    wild = dataclasses.replace(CONFIG, learning_rate=1e30)
    ensemble = Ensemble([make(seed=1, nonlinearity="relu"), make(seed=2)])
    histories = train(ensemble, Signs(), [wild, CONFIG], seed=0)
    assert [history.stopped for history in histories] == ["diverged", "steps"]
    assert all(torch.isfinite(value).all() for value in weights(ensemble[0]).values())


@pytest.mark.parametrize("at", [1, 10, 23])
def test_interrupted_and_resumed_is_as_uninterrupted(at, tmp_path):
    def press(count):
        if count == at:
            signal.raise_signal(signal.SIGINT)

    def build():
        return Ensemble([make(**member) for member in MEMBERS[:3]])

    whole, again = build(), build()
    expected = train(whole, Signs(), CONFIG, seed=0)
    where = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match=f"resume from {where}"):
        train(build(), Signs(on_sample=press), CONFIG, seed=0, checkpoint=where, ahead=False)
    assert sorted(file.name for file in where.iterdir()) == [
        f"member-{index}.training" for index in range(3)
    ]
    found = train(again, Signs(), CONFIG, seed=0, checkpoint=where)
    assert [rows(history) for history in found] == [rows(history) for history in expected]
    assert all(same(weights(a), weights(b)) for a, b in zip(whole, again, strict=True))


def test_a_member_is_taken_up_alone_and_in_other_company(tmp_path):
    def press(count):
        if count == 15:
            signal.raise_signal(signal.SIGINT)

    files = [tmp_path / name for name in ("a", "b")]
    ensemble = Ensemble([make(seed=1), make("e-add", seed=2)])
    with pytest.raises(KeyboardInterrupt):
        train(ensemble, Signs(on_sample=press), CONFIG, seed=0, checkpoint=files, ahead=False)
    whole = make("e-add", seed=2)
    train(whole, Signs(), CONFIG, seed=0)
    alone = make("e-add", seed=2)
    copy = tmp_path / "copy"
    copy.write_bytes(files[1].read_bytes())
    train(alone, Signs(), CONFIG, seed=0, checkpoint=copy)
    fresh = make("none", seed=9)
    other = Ensemble([fresh, make("e-add", seed=2)])
    train(other, Signs(), CONFIG, seed=0, checkpoint=[tmp_path / "new", files[1]])
    assert same(weights(alone), weights(whole))
    assert same(weights(other[1]), weights(whole))


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_running_an_ensemble_runs_its_members(threads):
    ensemble = Ensemble([make(variant, seed=0) for variant in variant_ids()])
    inputs = torch.randn(4, 5, 1, generator=torch.Generator().manual_seed(0))
    context = torch.eye(2)[[0, 0, 1, 1]]
    seeds = list(range(len(ensemble)))
    found = ensemble(inputs, context, generator=seeds, threads=threads)
    for member, trajectory, seed in zip(ensemble, found, seeds, strict=True):
        alone = member(inputs, context, generator=seed)
        assert torch.equal(trajectory.outputs, alone.outputs)
    with torch.no_grad():
        found = ensemble(inputs, context, generator=3, threads=threads)
    assert not found[0].outputs.requires_grad
    assert torch.equal(found[2].outputs, ensemble[2](inputs, context, generator=3).outputs)


def test_members_are_ordinary_networks():
    networks = [make(seed=seed) for seed in range(3)]
    ensemble = Ensemble(networks)
    assert len(ensemble) == 3
    assert ensemble.unstack() == networks
    assert all(a is b for a, b in zip(ensemble, networks, strict=True))
    of = Ensemble.of(
        1, 2, [{"units": 4, "modulation": "e-add"}, {"units": 7, "seed": 8}], contexts=2, seed=1
    )
    assert [(n.units, n.variant, n.seed) for n in of] == [(4, "e-add", 1), (7, "none", 8)]


def test_after_training_members_have_memory_of_their_own():
    ensemble = Ensemble([make(seed=1)])
    train(ensemble, Signs(), CONFIG, seed=0)
    for parameter in ensemble.parameters():
        assert parameter.untyped_storage().nbytes() == parameter.numel() * 4
        assert parameter.grad is None


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Ensemble([]), ValueError, "at least one member: got none"),
        (lambda: Ensemble([make()] * 2), ValueError, "one is given twice"),
        (lambda: Ensemble([make(), torch.nn.RNN(1, 1)]), TypeError, "must be CTRNNs: got RNN"),
        (
            lambda: Ensemble([make(), make(dtype=torch.float64)]),
            ValueError,
            "same dtype: got torch.float32, torch.float64",
        ),
        (
            lambda: train(Ensemble([make()]), Signs(), CONFIG, seed=[1, 2]),
            ValueError,
            "seed must be one for all members or one for each of the 1: got 2",
        ),
        (
            lambda: train(Ensemble([make()]), Signs(), CONFIG, seed=1.5),
            TypeError,
            "seed must be an integer",
        ),
        (
            lambda: train(Ensemble([make()]), Signs(), CONFIG, seed=1, threads=0),
            ValueError,
            "threads must be at least 1: got 0",
        ),
        (lambda: train(make().weight, Signs(), seed=1), TypeError, "a CTRNN or an Ensemble"),
        (
            lambda: Ensemble([make(), make()])(torch.zeros(1, 2, 1), [torch.eye(2)]),
            ValueError,
            "context must be one for all members or 2: got 1",
        ),
    ],
)
def test_bad_ensembles_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_file_is_not_taken_for_the_folder_of_checkpoints(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="must be a folder, or a list of files"):
        train(Ensemble([make()]), Signs(), CONFIG, seed=0, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="a different file for each member"):
        train(Ensemble([make(), make()]), Signs(), CONFIG, seed=0, checkpoint=[tmp_path / "x"] * 2)


def test_the_number_of_threads_is_read_from_the_environment(monkeypatch):
    from ctxrnn._threads import available_threads, thread_count

    monkeypatch.setenv("CTXRNN_THREADS", "3")
    assert available_threads() == 3
    assert thread_count(None, 2) == 2
    assert thread_count(None, 9) == 3
    assert thread_count(5, 9) == 5
    monkeypatch.setenv("CTXRNN_THREADS", "many")
    with pytest.raises(ValueError, match="CTXRNN_THREADS must be a whole number"):
        available_threads()


def test_torch_gets_its_threads_back_after_training():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(make(), Signs(), CONFIG, seed=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["class", "vector"])
@pytest.mark.parametrize("form", ["current", "rate"])
@pytest.mark.parametrize("nonlinearity", ["tanh", "sigmoid"])
def test_stacked_gradients_are_those_of_each_member(form, nonlinearity, kind):
    options = {"form": form, "nonlinearity": nonlinearity, "dtype": torch.float64, "noise": 0.2}
    members = [
        CTRNN(1, 3 + index % 5, 2, variant, contexts=2, seed=index, learn_x0=True, **options)
        for index, variant in enumerate(variant_ids())
    ]
    members.append(make("e-add", 4, learn_tau=True, **options))
    members.append(make("s-sym", 9, excitatory=0.5, density=0.8, **options))
    device, double = torch.device("cpu"), torch.float64
    batches = []
    for index, trials in enumerate((6, 7)):
        batch = Signs().sample(trials, generator=torch.Generator().manual_seed(index))
        if kind == "vector":
            batch = dataclasses.replace(batch, targets=torch.randn(trials, 4, 2))
        if index:
            batch = batch.select(torch.arange(6))
            batch = dataclasses.replace(
                batch,
                inputs=batch.inputs[:, :3], targets=batch.targets[:, :3], mask=batch.mask[:, :3],
                lengths=batch.lengths - 1,
            )  # fmt: skip
        batches.append(Prepared(batch, device=device, dtype=double))
    given = [batches[index % 2] for index in range(len(members))]
    found = []
    for stacked in (True, False):
        for member in members:
            for parameter in member.parameters():
                parameter.grad = torch.zeros_like(parameter)
        sources = [make_generator(index) for index in range(len(members))]
        if stacked:
            losses = _stacked.add_gradients(members, given, sources)
        else:
            losses = []
            for member, batch, source in zip(members, given, sources, strict=True):
                member.loop = "plain"
                losses.append(add_gradient(member, batch, source, CONFIG))
        gradients = [
            {name: p.grad.clone() for name, p in member.named_parameters()} for member in members
        ]
        found.append((losses, gradients))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    for member, one, other in zip(members, found[0][1], found[1][1], strict=True):
        for name, value in other.items():
            torch.testing.assert_close(
                one[name], value, rtol=0, atol=1e-12, msg=f"{member.variant} {name}"
            )


def test_padding_changes_nothing_bit_for_bit_in_its_own_rows():
    # Whatever stands in the padding of a member, it is neither read nor given a gradient.
    members = [make("es", 3, seed=1, nonlinearity="sigmoid"), make("es", 12, seed=2)]
    assert train(Ensemble(members), Signs(), CONFIG, seed=0, stack=True)[0].stopped == "steps"
    assert [tuple(p.shape) for p in members[0].parameters()] == [
        tuple(p.shape) for p in make("es", 3).parameters()
    ]


def test_stacked_training_ends_where_training_alone_does():
    config = dataclasses.replace(CONFIG, steps=10)
    together = Ensemble([make(**{**member, "dtype": torch.float64}) for member in MEMBERS])
    found = train(together, Signs(), config, seed=list(range(len(MEMBERS))), stack=True)
    for index, member in enumerate(MEMBERS):
        alone = make(**{**member, "dtype": torch.float64})
        history = train(alone, Signs(), config, seed=index)
        assert history.rows[-1]["loss"] == pytest.approx(found[index].rows[-1]["loss"], rel=1e-6)
        for name, value in weights(alone).items():
            # Adam's first steps turn the sign of a gradient of rounding size into a full step.
            torch.testing.assert_close(weights(together[index])[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{"nonlinearity": torch.tanh}, {"nonlinearity": torch.sin}])
def test_members_that_cannot_be_stacked_are_trained_all_the_same(options):
    together = Ensemble([make(seed=1), make(seed=2, **options)])
    train(together, Signs(), CONFIG, seed=0, stack=True)
    alone = make(seed=2, **options)
    train(alone, Signs(), CONFIG, seed=0)
    for name, value in weights(alone).items():
        torch.testing.assert_close(weights(together[1])[name], value, rtol=0, atol=1e-3)


def test_callbacks_have_the_tasks_to_themselves():
    class Busy(Signs):
        busy = False

        def sample(self, trials, *, generator):
            assert not self.busy
            self.busy = True
            time.sleep(0.002)
            try:
                return super().sample(trials, generator=generator)
            finally:
                self.busy = False

    tasks, config = Busy(), dataclasses.replace(CONFIG, evaluate_every=1, steps=15)
    ensemble = Ensemble([make(seed=seed) for seed in range(4)])
    train(
        ensemble, tasks, config, seed=range(4),
        callbacks=[lambda network, row: tasks.sample(8, generator=make_generator(0))],
    )  # fmt: skip


def test_one_generator_is_asked_by_the_members_in_order():
    ensemble = Ensemble([make(seed=seed) for seed in range(8)])
    inputs, context = torch.ones(4, 5, 1), torch.eye(2)[[0, 0, 1, 1]]
    source = torch.Generator().manual_seed(0)
    wanted = [member(inputs, context, generator=source).outputs for member in ensemble]
    for _ in range(5):
        found = ensemble(inputs, context, generator=torch.Generator().manual_seed(0), threads=4)
        assert all(torch.equal(a.outputs, b) for a, b in zip(found, wanted, strict=True))


def test_waiting_is_counted_once_for_all_and_with_evaluations():
    class Slow(Signs):
        def sample(self, trials, *, generator):
            time.sleep(0.01)
            return super().sample(trials, generator=generator)

    config = dataclasses.replace(CONFIG, steps=10, evaluate_every=5)
    ensemble = Ensemble([make(seed=seed) for seed in range(3)])
    histories = train(ensemble, Slow(), config, seed=range(3), ahead=False)
    # Three seeds, ten batches of training each, and two of evaluation.
    assert all(history.rows[-1]["seconds_waiting"] >= 36 * 0.01 for history in histories)


def test_errors_say_which_member_they_are_about(tmp_path):
    with pytest.raises(TypeError, match=r"member 1: .*units"):
        Ensemble.of(1, 2, [{"units": 4}, {"unit": 4}])
    other = CTRNN(1, 4, 2, "e-add", contexts=3, seed=0)
    with pytest.raises(ValueError, match="member 1: network must have as many contexts"):
        train(Ensemble([make(), other]), Signs(), CONFIG, seed=0)
    with pytest.raises(FileNotFoundError, match=r"no folder .*: make it"):
        train(Ensemble([make()]), Signs(), CONFIG, seed=0, checkpoint=tmp_path / "a" / "b")
    (tmp_path / "member-0.training").mkdir()
    with pytest.raises(ValueError, match="is a folder; give another name"):
        train(Ensemble([make()]), Signs(), CONFIG, seed=0, checkpoint=tmp_path)
