"""Networks of the few-shot study: digit pretraining, refit to Gabors, tuning in every mode."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ctxrnn import make_generator
from ctxrnn._checkpoint import write_atomically
from ctxrnn.comodulation import hierarchy as net
from ctxrnn.comodulation.hierarchy import (
    CouplingStack,
    Examples,
    HierarchyConfig,
    Member,
    OutputStack,
    WeightStack,
)
from ctxrnn.studies._comodulation_fewshot_settings import STOCHASTIC, TASKS, FewshotSettings
from ctxrnn.studies._desk import Desk
from ctxrnn.tasks import images as shown


@functools.cache
def bank_of_patches() -> shown.GaborBank:
    """Return the patches, which take a moment to compute."""
    return shown.GaborBank()


@dataclass(frozen=True)
class TaskData:
    """Drives of all tasks: to tune with, and to test with, (task, image, row, column, angle)."""

    examples: Examples
    test: Tensor
    test_labels: Tensor


def task_of(
    settings: FewshotSettings, bank: shown.GaborBank, seed: int, number: int
) -> shown.GaborTask:
    """Return a task of a seed: its two orientations, its place, the places of its distractors."""
    orientations, location = TASKS[number]
    places = make_generator(seed, "fewshot", "places", number)
    return shown.gabor_task(
        bank, orientations, location, generator=places, distractors=settings.distractors
    )


def task_data(
    settings: FewshotSettings, seed: int, samples: int, bank: shown.GaborBank
) -> TaskData:
    """Draw the images of all tasks and choose the tuning sets; the same for every mode."""
    drives: list[Tensor] = []
    labels: list[Tensor] = []
    tests: list[Tensor] = []
    test_labels: list[Tensor] = []
    splits: list[tuple[Tensor, Tensor]] = []
    for number in range(len(TASKS)):
        task = task_of(settings, bank, seed, number)
        for what, count, inputs, answers in (
            ("tune", settings.task_images, drives, labels),
            ("test", settings.test_images, tests, test_labels),
        ):
            own = make_generator(seed, "fewshot", what, number)
            images, wanted = task.draw(bank, count, generator=own, noise=settings.image_noise)
            inputs.append(net.drive_of(bank.responses(images)))
            answers.append(wanted)
        batches = make_generator(seed, "fewshot", "batches", number, samples)
        splits.append(
            net.split_batches(
                settings.task_images, samples, settings.batch, settings.fraction, batches
            )
        )
    examples = net.examples_of(drives, labels, splits)
    return TaskData(examples, torch.stack(tests), torch.stack(test_labels))


def pretrained(
    settings: FewshotSettings, seed: int, bank: shown.GaborBank, desk: Desk
) -> tuple[Tensor, dict[str, Any]]:
    """Return the parameters after digits and refit, and what is known of them; read or trained."""
    from safetensors import safe_open
    from safetensors.torch import save

    name = f"networks/pretrained-{seed}.safetensors"
    path = desk.path(name)
    if not path.exists():
        flat, known = pretrain(settings, seed, bank)
        told = {key: repr(float(value)) for key, value in known.items()}
        write_atomically(path, save({"parameters": flat}, metadata=told))
        desk.keep(name)
    with safe_open(str(path), framework="pt") as opened:
        flat = opened.get_tensor("parameters")
        known = {key: float(value) for key, value in (opened.metadata() or {}).items()}
    return flat, known


def pretrain(
    settings: FewshotSettings, seed: int, bank: shown.GaborBank
) -> tuple[Tensor, dict[str, float]]:
    """Train all weights on canvases of digits, then the output layer on single Gabors, at m = 0."""
    config = HierarchyConfig()
    one = torch.zeros(1, dtype=torch.long)
    train, test = shown.mnist_pools(test=settings.pools[1])
    options = {"noise": settings.image_noise}
    own = make_generator(seed, "fewshot", "digits")
    canvases, labels = shown.digit_canvases(
        *train, settings.pretrain_images, generator=own, **options
    )
    drives = net.drive_of(bank.responses(canvases))
    split = _first_split(settings, len(drives), settings.pretrain_images, own)
    flat = net.draw_parameters(config, make_generator(seed, "fewshot", "weights"))
    stack = WeightStack(
        flat, config, net.examples_of([drives], [labels], [split]), one, settings.rate
    )
    digits = net.fit(stack, settings.first_epochs, settings.first_patience)
    flat = digits.state[0]
    weights = net.unpack(flat, config)
    canvases, labels = shown.digit_canvases(
        *test,
        settings.pools[1],
        generator=make_generator(seed, "fewshot", "test digits"),
        **options,
    )
    known = {
        "digit_accuracy": accuracy(weights, net.drive_of(bank.responses(canvases)), labels),
        "digit_epoch": float(digits.epoch[0]),
        "digit_loss": float(digits.loss[0]),
    }
    own = make_generator(seed, "fewshot", "gabors")
    images, labels = shown.single_gabors(bank, generator=own, **options)
    activity = net.last_activity(weights, net.drive_of(bank.responses(images)))
    split = _first_split(settings, len(images), settings.refit_images, own)
    examples = net.examples_of([activity], [labels], [split])
    output = OutputStack((weights.out, weights.bias), examples, one, settings.rate)
    refit = net.fit(output, settings.first_epochs, settings.first_patience)
    weights.out.copy_(refit.state[0])
    weights.bias.copy_(refit.state[1])
    own = make_generator(seed, "fewshot", "test gabors")
    images, labels = shown.single_gabors(bank, generator=own, **options)
    known |= {
        "gabor_accuracy": accuracy(weights, net.drive_of(bank.responses(images)), labels),
        "gabor_epoch": float(refit.epoch[0]),
        "gabor_loss": float(refit.loss[0]),
    }
    return flat, known


def _first_split(
    settings: FewshotSettings, images: int, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    return net.split_batches(
        images, min(images, count), settings.first_batch, settings.first_fraction, generator
    )


def accuracy(weights: net.Weights, drives: Tensor, labels: Tensor) -> float:
    """Return the share of images whose likeliest class of all is right, at m = 0 and g = 1."""
    chosen = net.log_probabilities(weights, drives).argmax(1)
    return float((chosen == labels).double().mean())


def _tune_weights(
    settings: FewshotSettings,
    seed: int,
    samples: int,
    flat: Tensor,
    data: TaskData,
    modes: Sequence[str],
    report: Callable[[float], None],
) -> list[dict[str, Any]]:
    config, tasks = HierarchyConfig(), torch.arange(len(TASKS))
    stack = WeightStack(flat.repeat(len(TASKS), 1), config, data.examples, tasks, settings.rate)
    fitted = net.fit(stack, settings.epochs, settings.patience, report)
    right = [
        accuracy(net.unpack(fitted.state[0][k, None], config), data.test[k], data.test_labels[k])
        for k in range(len(TASKS))
    ]
    return [_row("weights", k, right[k], fitted, k) for k in range(len(TASKS))]


def _tune_decoder(
    settings: FewshotSettings,
    seed: int,
    samples: int,
    flat: Tensor,
    data: TaskData,
    modes: Sequence[str],
    report: Callable[[float], None],
) -> list[dict[str, Any]]:
    weights, count = net.unpack(flat, HierarchyConfig()), len(TASKS)
    given = data.examples
    examples = Examples(
        torch.stack([net.last_activity(weights, x.flatten(0, 1)) for x in given.train]).unflatten(
            1, given.train.shape[1:3]
        ),
        given.train_labels,
        torch.stack([net.last_activity(weights, x) for x in given.validation]),
        given.validation_labels,
    )
    start = (weights.out.repeat(count, 1, 1), weights.bias.repeat(count, 1))
    stack = OutputStack(start, examples, torch.arange(count), settings.rate)
    fitted = net.fit(stack, settings.epochs, settings.patience, report)
    rows = []
    for k in range(count):
        own = weights._replace(out=fitted.state[0][k, None], bias=fitted.state[1][k, None])
        right = accuracy(own, data.test[k], data.test_labels[k])
        rows.append(_row("decoder", k, right, fitted, k))
    return rows


def _tune_couplings(
    settings: FewshotSettings,
    seed: int,
    samples: int,
    flat: Tensor,
    data: TaskData,
    modes: Sequence[str],
    report: Callable[[float], None],
) -> list[dict[str, Any]]:
    config = HierarchyConfig()
    entries = [(mode, k) for mode in modes for k in range(len(TASKS))]
    orders = [
        torch.randperm(
            config.sizes[2], generator=make_generator(seed, "fewshot", "exchange", k, samples)
        )
        for k in range(len(TASKS))
    ]
    stack = CouplingStack(
        net.unpack(flat, config),
        config,
        data.examples,
        [Member(k, STOCHASTIC.get(mode)) for mode, k in entries],
        settings.coupling_rate,
        settings.noise,
        [make_generator(seed, "fewshot", "modulator", k, samples) for k in range(len(TASKS))],
        torch.stack(orders),
    )
    members = stack.members
    fitted = net.fit(stack, settings.epochs, settings.patience, report)
    theta, gain = fitted.state
    log_p = stack.log_probabilities(theta, gain, data.test, members)
    rows = []
    for place, (mode, k) in enumerate(entries):
        right = (log_p[place].argmax(1) == data.test_labels[k]).double().mean()
        rows.append(
            _row(mode, k, float(right), fitted, place)
            | {
                "gain_largest": float(gain[place].max()),
                "gain_zero": float((gain[place] == 0).double().mean()),
                "gain_effective": float(gain[place].sum() ** 2 / (gain[place] ** 2).sum()),
                "theta_change": float((theta[place] - 1).square().mean().sqrt()),
            }
        )
    return rows


TUNERS = {"weights": _tune_weights, "decoder": _tune_decoder, "couplings": _tune_couplings}


def _row(mode: str, task: int, right: float, fitted: net.Fitted, place: int) -> dict[str, Any]:
    return {
        "mode": mode,
        "task": task,
        "accuracy": 100 * right,
        "loss": float(fitted.loss[place]),
        "epoch": int(fitted.epoch[place]),
        "wait": int(fitted.wait[place]),
        "ran": int(fitted.ran[place]),
    }
