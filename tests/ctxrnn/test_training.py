import dataclasses
import logging
import signal

import pytest
import torch

from ctxrnn import CTRNN, TrainConfig, TrialBatch, evaluate, make_generator, train
from ctxrnn._optimiser import Adam


class Sides:
    """Two tasks with the same stimuli and opposite answers: say the sign, or the other one."""

    names = ("same", "other")

    def __init__(self, ceiling=1.0):
        self.top = ceiling
        self.asked = []

    def sample(self, trials, *, generator):
        self.asked.append(generator.initial_seed())
        task = torch.arange(trials) % 2
        sign = torch.randint(2, (trials,), generator=generator)
        inputs = torch.randn(trials, 4, 1, generator=generator) * 0.1
        inputs[:, :2, 0] += 2.0 * sign[:, None] - 1
        answer = torch.where(task == 0, sign, 1 - sign)
        mask = torch.zeros(trials, 4)
        mask[:, 2:] = 1
        return TrialBatch(
            inputs, answer[:, None].repeat(1, 4), mask, torch.eye(2)[task], task,
            torch.full((trials,), 4), self.names, 20.0,
        )  # fmt: skip

    def accuracy(self, outputs, batch):
        right = (batch.last(outputs).argmax(-1) == batch.last(batch.targets)).double()
        return {name: float(right[batch.task == k].mean()) for k, name in enumerate(self.names)}

    def relative(self, accuracy):
        return {name: value / self.top for name, value in accuracy.items()}


def by_task(batch):
    """Sort a batch as training does."""
    return batch.select(batch.task.argsort(stable=True))


def network(variant="e-add", **options):
    return CTRNN(1, 10, 2, variant, contexts=2, seed=1, **options)


SHORT = TrainConfig(
    steps=60, batch=16, learning_rate=1e-2, evaluate_every=15, evaluation_trials=40, target=None
)


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def without_seconds(history):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in history.rows]


@pytest.mark.parametrize("variant", ["e-add", "s-sym"])
def test_context_lets_a_network_learn_what_none_cannot(variant):
    config = dataclasses.replace(SHORT, steps=300, batch=32)
    with_context, none = network(variant), network("none")
    train(with_context, Sides(), config, seed=0)
    train(none, Sides(), config, seed=0)
    assert min(evaluate(with_context, Sides(), 400, generator=1).values()) > 0.95
    without = evaluate(none, Sides(), 2000, generator=1)
    # Same stimuli, opposite answers: the two accuracies add up to one within sampling error.
    assert abs(sum(without.values()) - 1) < 6 * (2 * 0.25 / 1000) ** 0.5


def test_training_repeats_and_depends_on_its_seed():
    runs = []
    for seed in (0, 0, 1):
        net = network()
        train(net, Sides(), SHORT, seed=seed)
        runs.append(weights(net))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_trials_depend_on_seed_and_step_alone():
    first, second = Sides(), Sides()
    train(network("e-add"), first, SHORT, seed=3)
    train(network("s-sym"), second, SHORT, seed=3, ahead=False)
    # Drawn ahead, a batch may come before the evaluation of the step before it.
    assert sorted(first.asked) == sorted(second.asked)
    assert len(set(first.asked)) == SHORT.steps + 4


def test_history_is_a_table():
    history = train(network(), Sides(), SHORT, seed=0)
    table = history.table
    assert table["step"].tolist() == [15, 30, 45, 60]
    assert history.stopped == "steps"
    both = table[["accuracy.same", "accuracy.other"]]
    torch.testing.assert_close(
        torch.tensor(table["relative_mean"]), torch.tensor(both.mean(axis=1))
    )
    assert (table["relative_min"] == both.min(axis=1)).all()


def test_loss_of_a_row_is_the_mean_since_the_one_before():
    config = dataclasses.replace(SHORT, steps=2, evaluate_every=2, learning_rate=1e-12)
    net = network()
    history = train(net, Sides(), config, seed=0)
    from ctxrnn import task_loss

    losses = []
    for step in range(2):
        batch = by_task(Sides().sample(16, generator=make_generator(0, "trials", step)))
        out = net(batch.inputs, batch.context, generator=make_generator(0, "noise", step)).outputs
        losses.append(float(task_loss(out.detach(), batch)))
    assert history.rows[0]["loss"] == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_penalties_are_added_as_stated():
    one = dataclasses.replace(SHORT, steps=1, evaluate_every=1)
    found = {}
    for name, change in {
        "none": {}, "rate": {"rate_penalty": 2.0}, "weight": {"weight_penalty": 3.0},
    }.items():  # fmt: skip
        history = train(network(), Sides(), dataclasses.replace(one, **change), seed=0)
        found[name] = history.rows[0]["loss"]
    net = network()
    batch = by_task(Sides().sample(16, generator=make_generator(0, "trials", 0)))
    run = net(batch.inputs, batch.context, generator=make_generator(0, "noise", 0))
    rate = 2.0 * float(run.rates.detach().square().mean())
    assert found["rate"] - found["none"] == pytest.approx(rate, rel=1e-4)
    weight = 3.0 * float(net.weight.detach().square().sum())
    assert found["weight"] - found["none"] == pytest.approx(weight, rel=1e-4)


def test_gradient_is_clipped_to_the_norm(monkeypatch):
    # One step of Adam hides the size of a gradient, so it is read off the optimiser's average.
    net = network()
    seen = []
    original = Adam.take_step

    def spy(self, rate):
        seen.append(float(self.flat.gradient.norm()))
        original(self, rate)

    monkeypatch.setattr(Adam, "take_step", spy)
    config = dataclasses.replace(SHORT, clip=1e-3, steps=5)
    history = train(net, Sides(), config, seed=0)
    assert max(seen) <= 1e-3 * (1 + 1e-4)
    assert history.rows[0]["gradient_norm"] > 1e-2


def test_rate_falls_for_the_last_part():
    config = TrainConfig(steps=100, learning_rate=1.0, decay=0.2, decay_after=0.7)
    assert [config.rate(step) for step in (0, 69, 70, 99)] == [1.0, 1.0, 0.2, 0.2]


def test_training_stops_after_enough_good_checks():
    config = dataclasses.replace(SHORT, steps=1000, target=0.9, patience=3)
    history = train(network(), Sides(), config, seed=0)
    assert history.stopped == "criterion"
    good = [row["relative_min"] >= 0.9 for row in history.rows]
    assert good[-3:] == [True] * 3
    assert not any(all(good[i : i + 3]) for i in range(len(good) - 3))


class Scripted(Sides):
    """Says what the accuracy at each evaluation is."""

    def __init__(self, script):
        super().__init__()
        self.script = list(script)

    def accuracy(self, outputs, batch):
        value = self.script.pop(0)
        return dict.fromkeys(self.names, value)


@pytest.mark.parametrize(("keep", "step"), [("best", 30), ("last", 60)])
def test_the_weights_to_keep_are_kept(keep, step):
    config = dataclasses.replace(SHORT, keep=keep)
    at = {}
    net = network()
    history = train(
        net, Scripted([0.1, 0.9, 0.2, 0.3]), config, seed=0,
        callbacks=[lambda n, row: at.update({row["step"]: weights(n)})],
    )  # fmt: skip
    assert history.kept_step == step
    assert same(weights(net), at[step])
    assert not same(at[30], at[60])


class Poisoned(Sides):
    """Gives a batch whose loss is infinite at a certain step."""

    def __init__(self, step):
        super().__init__()
        self.step, self.count = step, 0

    def sample(self, trials, *, generator):
        batch = super().sample(trials, generator=generator)
        if trials == SHORT.batch:
            self.count += 1
            if self.count == self.step:
                return dataclasses.replace(batch, inputs=batch.inputs * 1e38)
        return batch


def test_divergence_keeps_the_last_good_weights_and_says_so(caplog):
    net = network(nonlinearity="relu")
    at = {}
    with caplog.at_level(logging.WARNING, logger="ctxrnn"):
        history = train(
            net, Poisoned(40), SHORT, seed=0,
            callbacks=[lambda n, row: at.update({row["step"]: weights(n)})],
        )  # fmt: skip
    assert history.stopped == "diverged"
    assert "diverged at step 40" in history.message
    assert history.message in caplog.text
    assert history.kept_step in (15, 30)
    assert same(weights(net), at[history.kept_step])
    assert all(torch.isfinite(value).all() for value in weights(net).values())


class Interrupting(Sides):
    """Presses Ctrl-C while the batch of a certain step is drawn."""

    def __init__(self, at):
        super().__init__()
        self.at, self.count = at, 0

    def sample(self, trials, *, generator):
        if trials == SHORT.batch:
            self.count += 1
            if self.count == self.at:
                signal.raise_signal(signal.SIGINT)
        return super().sample(trials, generator=generator)


@pytest.mark.parametrize("at", [1, 7, 15, 31, 60])
@pytest.mark.parametrize("variant", ["e-add", "es"])
def test_interrupted_and_resumed_is_as_uninterrupted(variant, at, tmp_path):
    whole = network(variant)
    expected = train(whole, Sides(), SHORT, seed=0)
    path = tmp_path / "run"
    net = network(variant)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=f"interrupted after step {at}; resume from"):
        train(net, Interrupting(at), SHORT, seed=0, checkpoint=path, ahead=False)
    assert signal.getsignal(signal.SIGINT) is handler
    again = network(variant)
    history = train(again, Sides(), SHORT, seed=0, checkpoint=path)
    assert same(weights(again), weights(whole))
    assert without_seconds(history) == without_seconds(expected)
    assert history.kept_step == expected.kept_step


def test_a_finished_run_returns_at_once(tmp_path):
    net = network()
    history = train(net, Sides(), SHORT, seed=0, checkpoint=tmp_path / "run")
    tasks, again = Sides(), network()
    found = train(again, tasks, SHORT, seed=0, checkpoint=tmp_path / "run")
    assert tasks.asked == []
    assert same(weights(again), weights(net))
    assert found.rows == history.rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"steps": 61}}, r"config\.steps was 60, now 61"),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"variant": "s-sym"}, "variant was 'e-add', now 's-sym'"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    train(network(), Sides(), SHORT, seed=0, checkpoint=tmp_path / "run")
    config = dataclasses.replace(SHORT, **change.get("config", {}))
    net = network(change.get("variant", "e-add"))
    with pytest.raises(ValueError, match=message):
        train(net, Sides(), config, seed=change.get("seed", 0), checkpoint=tmp_path / "run")


def test_evaluation_repeats_and_leaves_the_mode_alone():
    net = network().train()
    first = evaluate(net, Sides(), 50, generator=4)
    assert first == evaluate(net, Sides(), 50, generator=4)
    assert net.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"decay": 2.0}, r"decay must lie in \[0, 1\]"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"target": 1.5}, r"target must lie in \[0, 1\]"),
        ({"keep": "bst"}, "Did you mean 'best'"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SHORT, **change)


def test_settings_round_trip_and_refuse_unknown_keys():
    assert TrainConfig.from_dict(SHORT.to_dict()) == SHORT
    with pytest.raises(ValueError, match=r"unknown setting of TrainConfig 'lr'"):
        TrainConfig.from_dict({"lr": 1.0})


def test_contexts_must_match_the_tasks():
    with pytest.raises(ValueError, match="got 3 contexts and 2 tasks"):
        train(CTRNN(1, 4, 2, "e-add", contexts=3, seed=0), Sides(), SHORT, seed=0)


def test_a_penalty_on_weights_that_a_variant_replaces_is_refused():
    config = dataclasses.replace(SHORT, weight_penalty=1.0)
    with pytest.raises(ValueError, match="which 's-full' replaces"):
        train(network("s-full"), Sides(), config, seed=0)


class Described(Sides):
    """Says its settings, as a task set does."""

    inputs, outputs = 1, 2

    def __init__(self, **settings):
        super().__init__()
        self.settings = settings
        self.chance = {"same": settings.get("chance", 0.5)}

    def config(self):
        return self.settings


@pytest.mark.parametrize("finished", [True, False])
def test_a_checkpoint_of_other_task_settings_is_refused(tmp_path, finished):
    tasks = Described(dt=20)
    if finished:
        train(network(), tasks, SHORT, seed=0, checkpoint=tmp_path / "run")
    else:
        with pytest.raises(KeyboardInterrupt):
            train(
                network(), tasks, SHORT, seed=0, checkpoint=tmp_path / "run",
                callbacks=[lambda *_: signal.raise_signal(signal.SIGINT)],
            )  # fmt: skip
    with pytest.raises(ValueError, match=r"tasks\.dt was 20, now 25"):
        train(network(), Described(dt=25), SHORT, seed=0, checkpoint=tmp_path / "run")


def test_a_checkpoint_of_another_callable_is_refused(tmp_path):
    net = network(nonlinearity=torch.sin)
    train(net, Sides(), SHORT, seed=0, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="nonlinearity was 'sin', now 'cos'"):
        train(network(nonlinearity=torch.cos), Sides(), SHORT, seed=0, checkpoint=tmp_path / "run")


def test_what_cannot_end_well_is_refused_before_the_first_step(tmp_path):
    tasks = Described()
    for bad, error, message in (
        (lambda: train(CTRNN(1, 4, 3, seed=0), tasks, SHORT, seed=0), ValueError, "outputs of its"),
        (lambda: train(CTRNN(2, 4, 2, seed=0), tasks, SHORT, seed=0), ValueError, "inputs of its"),
        (lambda: train(network(dt=10.0), tasks, SHORT, seed=0), ValueError, "same dt: got 10 ms"),
        (lambda: evaluate(network(dt=10.0), tasks, 4, generator=0), ValueError, "same dt"),
        (lambda: train(network(), tasks, {"steps": 3}, seed=0), TypeError, "must be a TrainConfig"),
        (lambda: train(network(), tasks, SHORT, seed=1.5), TypeError, "seed must be an integer"),
        (
            lambda: train(network(), tasks, SHORT, seed=0, checkpoint=tmp_path / "no" / "x"),
            FileNotFoundError,
            "no folder .* make it",
        ),
    ):
        with pytest.raises(error, match=message):
            bad()
    # The batches of one step and of the one after it, and that of the evaluation.
    assert len(tasks.asked) <= 3


def test_a_criterion_that_says_nothing_is_told(caplog):
    with caplog.at_level(logging.WARNING, logger="ctxrnn"):
        train(network(), Described(chance=1.0), SHORT, seed=0)
    assert "always fixating is right in every trial of same" in caplog.text
