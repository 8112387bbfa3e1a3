"""The first stage: the whole network on the full task, without modulation."""

from __future__ import annotations

import copy
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ctxrnn._checkpoint import CheckpointError, read_tensors, write_tensors
from ctxrnn._checks import (
    check_count,
    check_not_negative,
    check_positive,
    make_generator,
    unknown_name,
)

from ._data import Batch, Examples, batches, epoch_order
from ._identity import differences, identity_of
from ._network import ComodulatedNetwork
from ._tuning import Score, check_inputs, loss_of, predict

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class PretrainConfig:
    """How the network is trained.

    Attributes:
        lengths: Numbers of epochs E_1; for each the best epoch so far on validation is kept. With a
            constant rate one run serves all lengths; with "cosine" there may be one.
        batch: Images per step, over all processes.
        optimiser: "adam", or "sgd" (momentum 0.9).
        learning_rate: Its rate.
        weight_decay: Its weight decay.
        schedule: "constant" or "cosine".
        augment: "none", or "crop-flip" (shifted by up to an eighth of the size, mirrored).
        precision: "float32", or mixed: "bfloat16", "float16" (with scaling of the loss).
        workers: Processes that read images ahead, where they are decoded from files.
        checkpoint_seconds: Time between checkpoints within an epoch.

    Raises:
        ValueError: If a setting is unknown or out of range, or lengths do not rise.

    Example:
        >>> from ctxrnn.comodulation import PretrainConfig
        >>> config = PretrainConfig(lengths=(5, 10), batch=64)
        >>> config.lengths[-1] * -(-1000 // config.batch)  # optimiser steps on 1,000 images
        160
    """

    lengths: tuple[int, ...] = (10,)
    batch: int = 256
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    augment: Literal["none", "crop-flip"] = "none"
    precision: str = "float32"
    workers: int = 0
    checkpoint_seconds: float = 300.0

    def __post_init__(self) -> None:
        for length in self.lengths:
            check_count("lengths", length)
        if not self.lengths or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"lengths must rise: got {self.lengths}")
        if self.schedule == "cosine" and len(self.lengths) > 1:
            raise ValueError(
                "schedule='cosine' must have one length, on which the rate depends: make a run for "
                f"each; got {self.lengths}"
            )
        check_count("batch", self.batch)
        check_count("workers", self.workers, minimum=0)
        check_positive("learning_rate", self.learning_rate)
        check_not_negative("weight_decay", self.weight_decay)
        check_not_negative("checkpoint_seconds", self.checkpoint_seconds)
        known: dict[str, Sequence[str]] = {
            "optimiser": ("adam", "sgd"), "schedule": ("constant", "cosine"),
            "augment": ("none", "crop-flip"), "precision": tuple(PRECISIONS),
        }  # fmt: skip
        for name, names in known.items():
            if getattr(self, name) not in names:
                raise unknown_name(name, getattr(self, name), names)


@dataclass
class Pretrained:
    """What the first stage gave.

    Attributes:
        states: Length E_1 -> state dict of its best epoch.
        epochs: Length -> that epoch.
        history: One row per epoch: epoch, loss, images_per_second, and what the score told.

    Example: that of `pretrain`.
    """

    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def augmented(images: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its size (zeros enter) and mirror half of them."""
    if how == "none":
        return images
    count, _, height, width = images.shape
    reach = max(1, height // 8)
    padded = nn.functional.pad(images, (reach,) * 4)
    draw = {"generator": generator}
    down = torch.randint(2 * reach + 1, (count, 1), **draw).to(images.device)  # type: ignore[call-overload]
    right = torch.randint(2 * reach + 1, (count, 1), **draw).to(images.device)  # type: ignore[call-overload]
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.arange(width, device=images.device)
    mirrored = (torch.rand(count, 1, generator=generator) < 0.5).to(images.device)
    columns = torch.where(mirrored, columns.flip(1), columns)
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


class _Team:
    """The processes that train together, started by torchrun; one alone is a team, too."""

    def __init__(self, device: torch.device) -> None:
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        if self.size > 1 and not torch.distributed.is_initialized():
            kind = "nccl" if device.type == "cuda" else "gloo"
            torch.distributed.init_process_group(kind)

    def wrapped(self, network: nn.Module) -> nn.Module:
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network)

    def mine(self, order: Tensor, batch: int) -> tuple[Tensor, int]:
        """Return this process's part of every batch, and its size."""
        if self.size == 1:
            return order, batch
        each = batch // self.size
        if each * self.size != batch:
            raise ValueError(f"batch must be a multiple of {self.size} processes: got {batch}")
        whole = order[: len(order) // batch * batch].reshape(-1, self.size, each)
        return whole[:, self.rank].reshape(-1), each


class _Whole(nn.Module):
    """From images to logits, as one forward pass."""

    def __init__(self, network: ComodulatedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, context: Tensor | None) -> Tensor:
        network = self.network
        h = network.encoder.below(images)
        return network(h, None, context)


class _Run:
    """A run of the first stage under way."""

    def __init__(
        self,
        network: ComodulatedNetwork,
        config: PretrainConfig,
        seed: int,
        identity: Mapping[str, Any],
    ) -> None:
        self.network, self.config, self.seed = network, config, seed
        self.identity = dict(identity)
        self.device = network.readout.weight.device
        self.team = _Team(self.device)
        if self.device.type == "cuda":
            network.to(memory_format=torch.channels_last)
        self.whole = self.team.wrapped(_Whole(network))
        kind: Any = torch.optim.Adam if config.optimiser == "adam" else torch.optim.SGD
        more = {} if config.optimiser == "adam" else {"momentum": 0.9}
        self.optimiser = kind(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, **more
        )
        self.dtype = PRECISIONS[config.precision]
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.dtype is torch.float16 and self.device.type == "cuda"
        )
        self.result = Pretrained()
        self.best, self.loss, self.epoch, self.number = -torch.inf, 0.0, 1, 0
        self.rate = 0.0
        self.best_state: dict[str, Tensor] = {}
        self.best_epoch = 0

    def step(self, batch: Batch, epoch: int, number: int, total: int) -> float:
        """Take a step; return the loss."""
        config = self.config
        if config.schedule == "cosine":
            share = ((epoch - 1) * total + number) / (config.lengths[-1] * total)
            rate = config.learning_rate * (1 + float(torch.cos(torch.tensor(torch.pi * share)))) / 2
            for group in self.optimiser.param_groups:
                group["lr"] = rate
        source = make_generator(self.seed, "augment", epoch, number, self.team.rank)
        images = augmented(batch.inputs, config.augment, source)
        if self.device.type == "cuda":
            images = images.contiguous(memory_format=torch.channels_last)
        self.optimiser.zero_grad()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            loss = loss_of(self.whole(images, batch.context), batch.labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return float(loss.detach())

    def ended(self, epoch: int, told: Mapping[str, float], row: Mapping[str, float]) -> None:
        """Take in the score of an epoch; keep the best up to each length."""
        if epoch in self.config.lengths and not max(self.best, float(told["score"])) > -torch.inf:
            raise FloatingPointError(
                f"the score is {told['score']} in every epoch up to {epoch}: look for NaN in the "
                "validation set, or use a smaller learning rate than "
                f"{self.config.learning_rate:g}"
            )
        self.result.history.append({"epoch": epoch + 0.0, **row, **told})
        if float(told["score"]) > self.best:
            self.best, self.best_epoch = float(told["score"]), epoch
            self.best_state = copy.deepcopy(self.network.state_dict())
        if epoch in self.config.lengths:
            self.result.states[epoch] = self.best_state
            self.result.epochs[epoch] = self.best_epoch

    def save(self, path: Path) -> None:
        """Write everything that going on needs."""
        if self.team.rank:
            return
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best_state.items()}
        for length, state in self.result.states.items():
            tensors |= {f"kept{length}.{k}": v for k, v in state.items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            for key, value in state.items():
                if value is not None:
                    tensors[f"optimiser.{number}.{key}"] = torch.as_tensor(value)
        header = {
            "epoch": self.epoch, "number": self.number, "loss": self.loss, "best": self.best,
            "best_epoch": self.best_epoch, "epochs": self.result.epochs,
            "history": self.result.history, "scaler": self.scaler.state_dict(),
            "rate": self.rate, "identity": self.identity,
        }  # fmt: skip
        write_tensors(path, tensors, header, "first stage")

    def take_up(self, path: Path) -> None:
        """Go on from a checkpoint."""
        tensors, header = read_tensors(path, "first stage")
        remedy = "choose another file for the checkpoint, or remove this one to start again"
        if "identity" not in header:
            raise CheckpointError(f"{path} is of an older version, without its settings: {remedy}")
        other = differences(self.identity, header["identity"])
        if other:
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            raise CheckpointError(
                f"{path} is of another run ({'; '.join(other[:3])}{more}): {remedy}"
            )
        try:
            self._restore(tensors, header)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            told = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path} does not fit this run ({told}): {remedy}") from error

    def _restore(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.network.load_state_dict(part("network."))
        self.best_state = {k: v.to(self.device) for k, v in part("best.").items()}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optimiser.").items():
            number, key = name.split(".", 1)
            state.setdefault(int(number), {})[key] = value
        whole = self.optimiser.state_dict()
        self.optimiser.load_state_dict({**whole, "state": state})
        if header["scaler"]:
            self.scaler.load_state_dict(header["scaler"])
        self.epoch, self.number, self.loss = header["epoch"], header["number"], header["loss"]
        self.best = -torch.inf if header["best"] is None else header["best"]
        self.best_epoch, self.rate = header["best_epoch"], header["rate"]
        self.result.history = header["history"]
        for length, epoch in header["epochs"].items():
            self.result.epochs[int(length)] = epoch
            self.result.states[int(length)] = part(f"kept{length}.")


def _checked(network: ComodulatedNetwork, name: str, examples: Examples) -> Examples:
    """Return examples that are known to be images."""
    if not len(examples):
        raise ValueError(f"{name} must hold one image at least: got none")
    network.head.check(name, examples.labels, examples.context)
    if examples.images is False:
        raise ValueError(f"the first stage trains the encoder: give images in {name}, not features")
    network.takes_images(examples.read(torch.arange(1)), True)
    return dataclasses.replace(examples, images=True)


def pretrain(
    network: ComodulatedNetwork,
    train: Examples,
    validation: Examples,
    *,
    score: Score,
    config: PretrainConfig | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    report: Callable[[Mapping[str, float]], Any] | None = None,
) -> Pretrained:
    """Train encoder, decoder and read-out together; keep the best epoch up to each length.

    Under torchrun the processes share every batch (`torchrun --nproc-per-node 4 ...`).

    Args:
        network: The network, on its device; it is trained in place and ends as of the last epoch.
        train: Images, bytes or numbers in [0, 1].
        validation: Images.
        score: From logits and labels to named numbers, with "score" to choose by.
        config: How it is trained.
        seed: Seed of the order of images and their augmentation.
        checkpoint: File to take up where there is one, written at the end of epochs and within
            them; the run goes on as if it had not been interrupted. None keeps none.
        report: Told "epoch", "share" of the work done, "loss" and "images_per_second".

    Raises:
        ValueError: If images hold NaN, or images, labels or contexts do not fit the network.
        FloatingPointError: If the loss is not finite, or no score up to a length is a number.
        CheckpointError: If the checkpoint is damaged or another run's: other settings, network,
            data or seed.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import ComodulatedNetwork, EncoderConfig, Examples, Head
        >>> from ctxrnn.comodulation import NetworkConfig, PretrainConfig, pretrain
        >>> from ctxrnn.tasks import image_set
        >>> digits = image_set("digits")  # with 8 attributes
        >>> train, validation = (
        ...     Examples(digits, torch.tensor(digits.labels[rows]), rows=rows)
        ...     for rows in (digits.rows("train")[:512], digits.rows("validation"))
        ... )
        >>> parts = NetworkConfig(EncoderConfig("small", channels=1), (32,), Head.attributes(8))
        >>> network = ComodulatedNetwork(parts)
        >>> def score(logits, labels):
        ...     return {"score": float(((logits > 0) == labels).float().mean())}
        >>> config = PretrainConfig(lengths=(2,), batch=32, learning_rate=3e-3)
        >>> found = pretrain(network, train, validation, score=score, config=config)
        >>> found.history[-1]["score"] > 0.8  # share of right attributes
        True
    """
    config, path = config or PretrainConfig(), None if checkpoint is None else Path(checkpoint)
    train, validation = (
        _checked(network, name, examples)
        for name, examples in (("train", train), ("validation", validation))
    )
    run = _Run(network, config, seed, identity_of(network, train, config, seed))
    if path is not None and path.exists():
        run.take_up(path)
    longest = config.lengths[-1]
    while run.epoch <= longest:
        order, each = run.team.mine(epoch_order(len(train), seed, run.epoch), config.batch)
        total = -(-len(order) // each)
        network.train()
        begun, saved = time.monotonic(), time.monotonic()
        since = run.number
        for number, batch in batches(
            train, order, each, device=run.device, workers=config.workers, first=run.number
        ):
            loss = run.step(batch, run.epoch, number, total)
            if loss != loss or loss == float("inf"):
                check_inputs(f"the training set at step {number} of epoch {run.epoch}", batch)
                raise FloatingPointError(
                    f"the loss is {loss} at step {number} of epoch {run.epoch}: use a smaller "
                    f"learning rate than {config.learning_rate:g}"
                )
            run.loss += loss
            run.number = number + 1
            run.rate = (run.number - since) * config.batch / max(time.monotonic() - begun, 1e-9)
            if report is not None:
                share = (run.epoch - 1 + run.number / total) / longest
                told = {"loss": run.loss / run.number, "images_per_second": run.rate}
                report({"epoch": run.epoch, "share": share, **told})
            if path is not None and time.monotonic() - saved > config.checkpoint_seconds:
                run.save(path)
                saved = time.monotonic()
        found = score(predict(network, validation), validation.labels)
        row = {"loss": run.loss / max(run.number, 1), "images_per_second": run.rate}
        run.ended(run.epoch, found, row)
        run.epoch, run.number, run.loss = run.epoch + 1, 0, 0.0
        if path is not None:
            run.save(path)
    network.eval()
    return run.result
