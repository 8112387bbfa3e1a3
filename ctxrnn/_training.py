"""Training: balanced batches of tasks, Adam, stop at criterion, resume, keep the best weights."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from ctxrnn._checkpoint import as_json, network_header, read_tensors, write_tensors
from ctxrnn._checks import (
    check_count,
    check_fraction,
    check_integer,
    check_not_negative,
    check_positive,
    make_generator,
    unknown_name,
)
from ctxrnn._losses import task_loss
from ctxrnn._network import CTRNN
from ctxrnn._trials import TrialBatch

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("ctxrnn")


class TaskSource(Protocol):
    """What `train` and `evaluate` need of a task set."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks, in the order of the context."""

    def sample(self, trials: int, *, generator: torch.Generator) -> TrialBatch:
        """Draw a balanced batch."""

    def accuracy(self, outputs: Tensor, batch: TrialBatch) -> Mapping[str, float]:
        """Return the fraction of correct trials of each task in the batch."""

    def relative(self, accuracy: Mapping[str, float]) -> Mapping[str, float]:
        """Return each accuracy divided by the ceiling of its task."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: Optimiser steps at most.
        batch: Trials per step, tasks mixed and balanced.
        learning_rate: Adam's rate.
        decay: The rate is multiplied by this for the last part of the steps.
        decay_after: Fraction of the steps after which that happens.
        clip: Largest global norm of the gradient; infinity for no clipping.
        rate_penalty: beta_r, times the mean squared rate.
        weight_penalty: beta_w, times the squared norm of W; not for variants that replace W.
        evaluate_every: Steps between evaluations on fresh trials.
        evaluation_trials: Trials of each evaluation, tasks balanced.
        target: Stop once the minimum over tasks of p / p_ceil reaches this; None never stops.
        patience: At that many evaluations in a row.
        keep: "best" keeps the weights with the highest mean of p / p_ceil at an evaluation, the
            later ones on ties; "last" keeps the last.
    """

    steps: int = 5000
    batch: int = 64
    learning_rate: float = 1e-3
    decay: float = 0.2
    decay_after: float = 0.7
    clip: float = 1.0
    rate_penalty: float = 0.0
    weight_penalty: float = 0.0
    evaluate_every: int = 250
    evaluation_trials: int = 512
    target: float | None = 0.97
    patience: int = 3
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "evaluation_trials", "patience"):
            check_count(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate)
        check_fraction("decay", self.decay)
        check_fraction("decay_after", self.decay_after)
        if not (self.clip > 0):
            raise ValueError(f"clip must be positive (infinity for none): got {self.clip}")
        check_not_negative("rate_penalty", self.rate_penalty)
        check_not_negative("weight_penalty", self.weight_penalty)
        if self.target is not None:
            check_fraction("target", self.target)
        if self.keep not in ("best", "last"):
            raise unknown_name("keep", self.keep, ("best", "last"))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Rebuild from `to_dict`; unknown keys are refused."""
        known = {item.name for item in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise unknown_name("setting of TrainConfig", name, known)
        return cls(**values)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        late = step >= self.decay_after * self.steps
        return self.learning_rate * (self.decay if late else 1.0)


@dataclass
class TrainingHistory:
    """What happened in training.

    Attributes:
        rows: One per evaluation: step, loss (mean since the one before), gradient norm, seconds,
            mean and minimum of p / p_ceil, and accuracy per task as "accuracy.NAME".
        stopped: Why training ended: "steps", "criterion", "diverged", or "" while it runs.
        message: The same in words, where there is more to say.
        kept_step: Step of the weights that the network was left with.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    stopped: str = ""
    message: str = ""
    kept_step: int = 0

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(self.rows)


Callback = Callable[[CTRNN, dict[str, float]], None]


def evaluate(
    network: CTRNN,
    tasks: TaskSource,
    trials: int,
    *,
    generator: torch.Generator | int,
) -> dict[str, float]:
    """Measure the accuracy per task on fresh trials.

    Args:
        network: The network; left in the mode it is in.
        tasks: Task set.
        trials: Number of trials, spread over the tasks.
        generator: Source of trials and noise, or a seed.

    Returns:
        Task name -> fraction of correct trials.
    """
    source = generator if isinstance(generator, torch.Generator) else make_generator(generator)
    return dict(tasks.accuracy(*_answers(network, tasks, trials, source)))


def _check_dt(network: CTRNN, batch: TrialBatch) -> None:
    if not math.isclose(network.dt, batch.dt, rel_tol=1e-9):
        raise ValueError(
            f"network and tasks must have the same dt: got {network.dt:g} ms and {batch.dt:g} ms"
        )


def _answers(
    network: CTRNN, tasks: TaskSource, trials: int, generator: torch.Generator
) -> tuple[Tensor, TrialBatch]:
    """Return the outputs on fresh trials, on the CPU, and the trials."""
    batch = tasks.sample(trials, generator=generator)
    _check_dt(network, batch)
    with torch.no_grad():
        outputs = network(batch.inputs, batch.context, generator=generator).outputs
    return outputs.cpu(), batch


def train(
    network: CTRNN,
    tasks: TaskSource,
    config: TrainConfig | None = None,
    *,
    seed: int,
    evaluation_tasks: TaskSource | None = None,
    checkpoint: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> TrainingHistory:
    """Train a network in place.

    The trials and the noise of a step depend on the seed and the number of the step alone, so
    that a run that was interrupted ends with the same weights as one that was not, and networks
    trained with the same seed see the same trials in the same order.

    Args:
        network: The network; its parameters change.
        tasks: Where the training trials come from.
        config: How to train; None for the defaults.
        seed: Seed of trials and noise.
        evaluation_tasks: Where the trials of evaluations come from; None for `tasks`. Give the
            task set here where `tasks` is a bank of reused trials.
        checkpoint: File to resume from if it exists, and to write at every evaluation and on
            Ctrl-C; None for no checkpoints.
        callbacks: Called as `callback(network, row)` after each evaluation.
        progress: Whether to show a progress bar; None shows one on a terminal.

    Returns:
        The history. If the loss or its gradient became NaN or infinite, `stopped` is "diverged"
        and the network holds the last good weights.

    Raises:
        ValueError: If the checkpoint belongs to another network or other settings.
        KeyboardInterrupt: On Ctrl-C, at the end of the step and after the checkpoint was written.
    """
    config = TrainConfig() if config is None else config
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config must be a TrainConfig: got {type(config).__name__}")
    check_integer("seed", seed)
    if checkpoint is not None and not Path(checkpoint).parent.is_dir():
        raise FileNotFoundError(f"no folder {Path(checkpoint).parent} for the checkpoint: make it")
    run = _Run(network, tasks, evaluation_tasks or tasks, config, seed, callbacks)
    if checkpoint is not None and Path(checkpoint).exists():
        run.resume(checkpoint)
    if run.history.stopped:
        return run.history
    hidden = None if progress is None else not progress
    with (
        _Interrupt() as interrupt,
        tqdm(total=config.steps, initial=run.step, disable=hidden, unit="step") as bar,
    ):
        bar.set_description(network.variant)
        while not run.history.stopped:
            run.advance()
            bar.update(run.step - bar.n)
            evaluated = run.step == run.last_evaluation
            if evaluated and run.history.rows:
                bar.set_postfix_str(f"p/ceiling {run.history.rows[-1]['relative_mean']:.3f}")
            if checkpoint is not None and (evaluated or interrupt.seen or run.history.stopped):
                run.write(checkpoint)
            if interrupt.seen:
                where = f"; resume from {checkpoint}" if checkpoint is not None else ""
                raise KeyboardInterrupt(f"interrupted after step {run.step}{where}")
    run.finish()
    return run.history


def _described(tasks: TaskSource) -> Any:
    """Return what a checkpoint tells of its tasks: all of their settings, if they say them."""
    config = getattr(tasks, "config", None)
    return config() if callable(config) else {"names": list(tasks.names)}


class _Interrupt:
    """Puts Ctrl-C off to the end of a step, so that weights and optimiser agree."""

    def __init__(self) -> None:
        self.seen = False
        self._before: Any = None

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


class _Run:
    """State of one training run; everything that a checkpoint holds."""

    def __init__(
        self,
        network: CTRNN,
        tasks: TaskSource,
        evaluation_tasks: TaskSource,
        config: TrainConfig,
        seed: int,
        callbacks: Sequence[Callback],
    ) -> None:
        if network.contexts is not None and network.contexts != len(tasks.names):
            raise ValueError(
                f"network must have as many contexts as there are tasks: got {network.contexts} "
                f"contexts and {len(tasks.names)} tasks"
            )
        vacuous = [name for name, p in getattr(tasks, "chance", {}).items() if p >= 1]
        if vacuous:
            logger.warning(
                "always fixating is right in every trial of %s: accuracy says nothing there, "
                "watch the loss",
                ", ".join(vacuous),
            )
        for name in ("inputs", "outputs"):
            want = getattr(tasks, name, None)
            if want is not None and want != getattr(network, name):
                raise ValueError(
                    f"network must have the {name} of its tasks: got {getattr(network, name)} and "
                    f"{want}"
                )
        if config.weight_penalty > 0 and network.weight is None:
            raise ValueError(
                f"weight_penalty acts on W, which {network.variant!r} replaces by a matrix of its "
                "own: leave it at 0"
            )
        self.network, self.tasks, self.evaluation_tasks = network, tasks, evaluation_tasks
        self.config, self.seed, self.callbacks = config, seed, callbacks
        self.parameters: dict[str, Tensor] = {
            name: p for name, p in network.named_parameters() if p.requires_grad
        }
        # What is not trained and was perhaps drawn at random: fixed masks, frozen parameters.
        self.fixed: dict[str, Tensor] = {
            name: value
            for name, value in network.state_dict().items()
            if name not in self.parameters
        }
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=config.learning_rate)
        self.history = TrainingHistory()
        self.step = self.last_evaluation = self.good_checks = 0
        self.best = -math.inf
        self.kept = self._weights()
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.started = time.monotonic()
        self.seconds_before = 0.0

    def _weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def advance(self) -> None:
        """Take one step, and evaluate where it is due."""
        config, step = self.config, self.step
        batch = self.tasks.sample(config.batch, generator=make_generator(self.seed, "trials", step))
        _check_dt(self.network, batch)
        batch = batch.to(device=self.network.device, dtype=self.network.dtype)
        loss = self._loss(batch, make_generator(self.seed, "noise", step))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.clip)
        value, size = float(loss.detach()), float(norm)
        if not (math.isfinite(value) and math.isfinite(size)):
            self._diverge(value, size)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(step)
        self.optimizer.step()
        self.step += 1
        self.losses.append(value)
        self.norms.append(size)
        if self.step % config.evaluate_every == 0 or self.step == config.steps:
            self._evaluate()

    def _loss(self, batch: TrialBatch, generator: torch.Generator) -> Tensor:
        config = self.config
        trajectory = self.network(batch.inputs, batch.context, generator=generator)
        loss = task_loss(trajectory.outputs, batch)
        if config.rate_penalty > 0:
            squared = trajectory.rates.square().mean(-1)[batch.valid].mean()
            loss = loss + config.rate_penalty * squared
        if config.weight_penalty > 0:
            loss = loss + config.weight_penalty * self.network.weight.square().sum()
        return loss

    def _evaluate(self) -> None:
        generator = make_generator(self.seed, "evaluation", self.step)
        outputs, batch = _answers(
            self.network, self.evaluation_tasks, self.config.evaluation_trials, generator
        )
        if not bool(torch.isfinite(outputs).all()):
            # Accuracies of NaN mean nothing, and such weights must not become the ones to keep.
            self._diverge(math.nan, self.norms[-1])
            return
        accuracy = dict(self.evaluation_tasks.accuracy(outputs, batch))
        relative = self.evaluation_tasks.relative(accuracy)
        values = [float(relative[name]) for name in accuracy]
        row = {
            "step": self.step,
            "loss": sum(self.losses) / len(self.losses),
            "gradient_norm": sum(self.norms) / len(self.norms),
            "seconds": self.seconds_before + time.monotonic() - self.started,
            "relative_mean": sum(values) / len(values),
            "relative_min": min(values),
            **{f"accuracy.{name}": float(value) for name, value in accuracy.items()},
        }
        self.losses, self.norms, self.last_evaluation = [], [], self.step
        self.history.rows.append(row)
        if self.config.keep == "last" or row["relative_mean"] >= self.best:
            self.best, self.history.kept_step = row["relative_mean"], self.step
            self.kept = self._weights()
        target = self.config.target
        reached = target is not None and row["relative_min"] >= target
        self.good_checks = self.good_checks + 1 if reached else 0
        if self.good_checks >= self.config.patience:
            self.history.stopped = "criterion"
        elif self.step >= self.config.steps:
            self.history.stopped = "steps"
        for callback in self.callbacks:
            callback(self.network, row)

    def _diverge(self, loss: float, norm: float) -> None:
        self.history.stopped = "diverged"
        self.history.message = (
            f"training of {self.network.variant!r} diverged at step {self.step + 1}: "
            f"loss {loss:g}, gradient norm {norm:g}. Kept the weights of step "
            f"{self.history.kept_step}; try a lower learning_rate (was "
            f"{self.config.rate(self.step):g}) or a smaller clip"
        )
        logger.warning(self.history.message)

    def finish(self) -> None:
        """Leave the network with the weights to keep."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.kept[name])

    def _identity(self) -> dict[str, Any]:
        described = {
            **network_header(self.network),
            "tasks": _described(self.tasks),
            "evaluation tasks": _described(self.evaluation_tasks),
            "trained": sorted(self.parameters),
        }
        if self.network.nonlinearity_name is None:
            phi = self.network.phi
            described["nonlinearity"] = getattr(phi, "__name__", type(phi).__name__)
        return as_json({**described, "config": self.config.to_dict(), "seed": self.seed})

    def write(self, path: str | Path) -> None:
        """Write a checkpoint."""
        tensors = {f"network.{name}": p for name, p in self.parameters.items()}
        tensors |= {f"kept.{name}": value for name, value in self.kept.items()}
        tensors |= {f"fixed.{name}": value for name, value in self.fixed.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = value
        header = {
            "run": self._identity(),
            "history": dataclasses.asdict(self.history),
            "step": self.step,
            "last_evaluation": self.last_evaluation,
            "good_checks": self.good_checks,
            "best": None if math.isinf(self.best) else self.best,
            "losses": self.losses,
            "norms": self.norms,
            "seconds": self.seconds_before + time.monotonic() - self.started,
        }
        write_tensors(path, tensors, header, "training run")

    def resume(self, path: str | Path) -> None:
        """Take up the state of a checkpoint."""
        tensors, header = read_tensors(path, "training run")
        differing = difference(header["run"], self._identity())
        if differing:
            raise ValueError(
                f"{path} belongs to another run: {differing}. Give another checkpoint file, or "
                "the same settings"
            )
        with torch.no_grad():
            for name, value in self.fixed.items():
                value.copy_(tensors[f"fixed.{name}"])
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"network.{name}"])
                self.kept[name] = tensors[f"kept.{name}"].to(parameter)
                state = {
                    key: tensors[f"adam.{key}.{name}"]
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"adam.{key}.{name}" in tensors
                }
                self.optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter)
                    for key, value in state.items()
                }
        self.history = TrainingHistory(**header["history"])
        self.step, self.last_evaluation = header["step"], header["last_evaluation"]
        self.good_checks = header["good_checks"]
        self.best = -math.inf if header["best"] is None else header["best"]
        self.losses, self.norms = header["losses"], header["norms"]
        self.seconds_before = header["seconds"]
        if self.history.stopped:
            self.finish()


def difference(before: Any, now: Any, where: str = "") -> str:
    """Say in one line where two JSON-able values differ; empty if they do not."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        parts = [
            difference(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
            for key in sorted({*before, *now})
        ]
        return "; ".join(part for part in parts if part)
    return "" if before == now else f"{where or 'value'} was {before!r}, now {now!r}"
