"""Interrupted runs, and the weights that a run is left with, in the cases that are easy to miss."""

import dataclasses
import math
import signal

import pytest
import torch

from ctxrnn import CTRNN, Chain, Drive, Masks, TrainConfig, TrialBatch, train
from ctxrnn._optimiser import Adam

CONFIG = TrainConfig(
    steps=12, batch=8, learning_rate=1e-2, evaluate_every=5, evaluation_trials=10, target=None
)


class Signs:
    """Say the sign of the stimulus, or the opposite one."""

    names = ("same", "other")

    def __init__(self, script=None, on_sample=None):
        self.script, self.on_sample, self.count = script, on_sample, 0

    def sample(self, trials, *, generator):
        self.count += 1
        if self.on_sample:
            self.on_sample(self.count)
        task = torch.arange(trials) % 2
        sign = torch.randint(2, (trials,), generator=generator)
        inputs = (2.0 * sign - 1)[:, None, None].repeat(1, 3, 1)
        targets = torch.where(task == 0, sign, 1 - sign)[:, None].repeat(1, 3)
        length = torch.full((trials,), 3)
        return TrialBatch(
            inputs, targets, torch.ones(trials, 3), torch.eye(2)[task], task, length,
            self.names, 20.0,
        )  # fmt: skip

    def accuracy(self, outputs, batch):
        if self.script is not None:
            return dict.fromkeys(self.names, self.script.pop(0))
        right = (batch.last(outputs).argmax(-1) == batch.last(batch.targets)).double()
        return {name: float(right[batch.task == k].mean()) for k, name in enumerate(self.names)}

    def relative(self, accuracy):
        return accuracy


def network(variant="es", **options):
    return CTRNN(1, 6, 2, variant, contexts=2, seed=1, **options)


def weights(net):
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def rows(history):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in history.rows]


def press(at):
    def on_sample(count):
        if count == at:
            signal.raise_signal(signal.SIGINT)

    return on_sample


@pytest.mark.parametrize(
    "options",
    [
        {"excitatory": 0.5, "density": 0.7},
        {"learn_tau": True, "learn_x0": True},
        {"dtype": torch.float64, "form": "rate"},
    ],
)
def test_a_run_interrupted_twice_ends_as_an_uninterrupted_one(options, tmp_path):
    whole = network(**options)
    wanted = train(whole, Signs(), CONFIG, seed=3, evaluation_tasks=Signs())
    path = tmp_path / "run"
    for at in (4, 3):
        with pytest.raises(KeyboardInterrupt, match="resume from"):
            train(
                network(**options), Signs(on_sample=press(at)), CONFIG, seed=3,
                evaluation_tasks=Signs(), checkpoint=path,
            )  # fmt: skip
    again = network(**options)
    found = train(again, Signs(), CONFIG, seed=3, evaluation_tasks=Signs(), checkpoint=path)
    assert same(weights(again), weights(whole))
    assert rows(found) == rows(wanted)
    assert [row["step"] for row in found.rows] == [5, 10, 12]


def test_ctrl_c_in_a_callback_takes_effect_after_the_checkpoint(tmp_path):
    whole, path = network(), tmp_path / "run"
    wanted = train(whole, Signs(), CONFIG, seed=3)

    def callback(net, row):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="interrupted after step 5"):
        train(network(), Signs(), CONFIG, seed=3, checkpoint=path, callbacks=[callback])
    again = network()
    found = train(again, Signs(), CONFIG, seed=3, checkpoint=path)
    assert same(weights(again), weights(whole))
    assert rows(found) == rows(wanted)


def test_a_second_ctrl_c_stops_at_once_and_the_checkpoint_stays(tmp_path):
    path, handler = tmp_path / "run", signal.getsignal(signal.SIGINT)

    def twice(count):
        if count == 8:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    tasks = Signs(on_sample=twice)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(
            network(), tasks, CONFIG, seed=3, evaluation_tasks=Signs(), checkpoint=path,
            ahead=False,
        )  # fmt: skip
    assert not caught.value.args
    assert tasks.count == 8
    assert signal.getsignal(signal.SIGINT) is handler
    whole, again = network(), network()
    train(whole, Signs(), CONFIG, seed=3)
    train(again, Signs(), CONFIG, seed=3, checkpoint=path)
    assert same(weights(again), weights(whole))


def test_without_a_checkpoint_ctrl_c_promises_none():
    with pytest.raises(KeyboardInterrupt, match=r"^interrupted after step 2$"):
        train(network(), Signs(on_sample=press(2)), CONFIG, seed=3, ahead=False)


def test_masks_drawn_anew_are_replaced_by_those_of_the_checkpoint(tmp_path):
    def build(seed):
        return CTRNN(1, 6, 2, Chain(Masks(6, 2, seed=seed), Drive(6, 2, seed=seed)), seed=1)

    whole, path = build(0), tmp_path / "run"
    train(whole, Signs(), CONFIG, seed=3)
    with pytest.raises(KeyboardInterrupt):
        train(build(0), Signs(on_sample=press(7)), CONFIG, seed=3, checkpoint=path)
    again = build(5)
    assert not torch.equal(again.modulation.pathways[0].M, whole.modulation.pathways[0].M)
    train(again, Signs(), CONFIG, seed=3, checkpoint=path)
    assert same(weights(again), weights(whole))


def test_frozen_parameters_stay_and_must_be_the_same_ones(tmp_path):
    def build(*frozen, shift=0.0):
        net = network()
        for name in frozen:
            getattr(net, name).requires_grad_(False).add_(shift)
        return net

    path = tmp_path / "run"
    whole = build("weight", shift=0.5)
    before = whole.weight.clone()
    train(whole, Signs(), CONFIG, seed=3)
    assert torch.equal(whole.weight, before)
    with pytest.raises(KeyboardInterrupt):
        train(
            build("weight", shift=0.5), Signs(on_sample=press(7)), CONFIG, seed=3, checkpoint=path
        )
    with pytest.raises(ValueError, match="belongs to another run: trained was"):
        train(build("bias"), Signs(), CONFIG, seed=3, checkpoint=path)
    again = build("weight")
    train(again, Signs(), CONFIG, seed=3, checkpoint=path)
    assert same(weights(again), weights(whole))


@pytest.mark.parametrize(
    ("script", "kept"), [([0.5, 0.9, 0.2], 10), ([0.9, 0.9, 0.2], 10), ([0.9, 0.5, 0.9], 12)]
)
def test_best_weights_are_kept_and_the_later_ones_on_ties(script, kept):
    at, net = {}, network()
    history = train(
        net, Signs(), CONFIG, seed=3, evaluation_tasks=Signs(script=list(script)),
        callbacks=[lambda n, row: at.update({row["step"]: weights(n)})],
    )  # fmt: skip
    assert history.kept_step == kept
    assert same(weights(net), at[kept])


def test_best_weights_outlast_an_interruption(tmp_path):
    at, path, net = {}, tmp_path / "run", network()
    with pytest.raises(KeyboardInterrupt):
        train(
            network(), Signs(on_sample=press(7)), CONFIG, seed=3, checkpoint=path,
            evaluation_tasks=Signs(script=[0.9]),
            callbacks=[lambda n, row: at.update({row["step"]: weights(n)})],
        )  # fmt: skip
    history = train(
        net, Signs(), CONFIG, seed=3, checkpoint=path, evaluation_tasks=Signs(script=[0.2, 0.8])
    )
    assert history.kept_step == 5
    assert same(weights(net), at[5])


def test_ceilings_of_the_tasks_count_in_the_criterion():
    class Limited(Signs):
        def relative(self, accuracy):
            return {"same": accuracy["same"] / 0.8, "other": accuracy["other"]}

    config = dataclasses.replace(CONFIG, evaluate_every=1, target=0.9, patience=1)
    history = train(network(), Signs(), config, seed=3, evaluation_tasks=Limited(script=[0.8, 0.9]))
    assert history.stopped == "criterion"
    assert [row["relative_min"] for row in history.rows] == [0.8, 0.9]
    assert history.rows[0]["relative_mean"] == pytest.approx(0.9, rel=1e-12)
    assert history.rows[0]["accuracy.same"] == 0.8


def test_checks_must_be_good_in_a_row_also_across_an_interruption(tmp_path):
    config = dataclasses.replace(CONFIG, evaluate_every=1, target=0.9, patience=3)
    script, path = [0.9, 0.9, 0.8, 0.9, 0.9, 0.9], tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(
            network(), Signs(on_sample=press(5)), config, seed=3, checkpoint=path, ahead=False,
            evaluation_tasks=Signs(script=script[:5]),
        )  # fmt: skip
    evaluation = Signs(script=script[5:])
    history = train(
        network(), Signs(), config, seed=3, checkpoint=path, evaluation_tasks=evaluation
    )
    assert history.stopped == "criterion"
    assert len(history.rows) == 6


@pytest.mark.parametrize("keep", ["best", "last"])
def test_weights_whose_outputs_are_not_finite_are_never_kept(keep):
    config = dataclasses.replace(CONFIG, evaluate_every=1, learning_rate=1e30, keep=keep)
    net = network(nonlinearity="relu")
    before = weights(net)
    history = train(net, Signs(), config, seed=3)
    assert history.stopped == "diverged"
    assert "try a lower learning_rate (was 1e+30)" in history.message
    assert same(weights(net), before)
    assert history.kept_step == 0
    assert torch.isfinite(net(torch.ones(2, 3, 1), torch.eye(2)).outputs).all()


def test_a_diverged_run_stays_diverged_when_taken_up(tmp_path):
    config = dataclasses.replace(CONFIG, learning_rate=1e30)
    path, net = tmp_path / "run", network(nonlinearity="relu")
    first = train(net, Signs(), config, seed=3, checkpoint=path)
    tasks, again = Signs(), network(nonlinearity="relu")
    second = train(again, tasks, config, seed=3, checkpoint=path)
    assert (second.stopped, second.message) == ("diverged", first.message)
    assert tasks.count == 0
    assert same(weights(again), weights(net))


def test_penalties_ignore_padding_and_the_rate_of_learning_follows_its_plan(monkeypatch):
    class Padded(Signs):
        def sample(self, trials, *, generator):
            batch = super().sample(trials, generator=generator)
            return dataclasses.replace(
                batch,
                inputs=torch.cat([batch.inputs, torch.full((trials, 4, 1), 9.0)], 1),
                targets=torch.cat([batch.targets, torch.zeros(trials, 4, dtype=torch.int64)], 1),
                mask=torch.cat([batch.mask, torch.zeros(trials, 4)], 1),
            )

    rates = []

    original = Adam.take_step

    def note(self, rate):
        rates.append(rate)
        original(self, rate)

    config = dataclasses.replace(CONFIG, rate_penalty=1.0, steps=10)
    with monkeypatch.context() as patch:
        patch.setattr(Adam, "take_step", note)
        one = train(network(noise=0.0), Signs(), config, seed=3)
    assert rates == [1e-2] * 7 + [1e-2 * 0.2] * 3
    other = train(network(noise=0.0), Padded(), config, seed=3)
    # Float32 sums in another order, ten steps on: 1e3 roundings of 6e-8.
    for first, second in zip(one.rows, other.rows, strict=True):
        assert math.isclose(first["loss"], second["loss"], rel_tol=1e-4)
