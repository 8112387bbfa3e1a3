"""The training of one network: everything that a checkpoint holds."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ctxrnn._checkpoint import as_json, network_header, read_tensors, write_tensors
from ctxrnn._checks import make_generator
from ctxrnn._config import Callback, TaskSource, TrainConfig, TrainingHistory
from ctxrnn._feed import check_dt
from ctxrnn._network import CTRNN
from ctxrnn._optimiser import Adam, Flat
from ctxrnn._step import Prepared, add_gradient
from ctxrnn._trials import TrialBatch

logger = logging.getLogger("ctxrnn")


class Run:
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
        self.parameters: dict[str, nn.Parameter] = {
            name: p for name, p in network.named_parameters() if p.requires_grad
        }
        # What is not trained and was perhaps drawn at random: fixed masks, frozen parameters.
        self.fixed: dict[str, Tensor] = {
            name: value
            for name, value in network.state_dict().items()
            if name not in self.parameters
        }
        if not self.parameters:
            raise ValueError("network has no parameter to train: all are frozen")
        self.flat = Flat(self.parameters)
        self.optimizer = Adam(self.flat)
        self.history = TrainingHistory()
        self.step = self.last_evaluation = self.good_checks = 0
        self.best = -math.inf
        self.kept = self._weights()
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.started = time.monotonic()
        self.seconds_before = 0.0
        self.waited = 0.0

    def _weights(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    @property
    def evaluation_due(self) -> bool:
        """Whether an evaluation follows the step that was taken last."""
        due = self.step % self.config.evaluate_every == 0 or self.step == self.config.steps
        return due and self.last_evaluation != self.step

    def take_step(self, prepared: Prepared) -> None:
        """Take one step of the optimiser."""
        generator = self.begin_step(prepared)
        self.end_step(add_gradient(self.network, prepared, generator, self.config))

    def begin_step(self, prepared: Prepared) -> torch.Generator:
        """Clear the gradient; return the source of the noise of this step."""
        check_dt(self.network, prepared.batch)
        self.flat.gradient.zero_()
        return make_generator(self.seed, "noise", self.step)

    def end_step(self, loss: float) -> None:
        """Clip the gradient and let the optimiser take its step."""
        config, flat = self.config, self.flat
        norm = float(torch.linalg.vector_norm(flat.gradient))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._diverge(loss, norm)
            return
        if norm > config.clip:
            flat.gradient.mul_(config.clip / norm)
        self.optimizer.take_step(config.rate(self.step))
        self.step += 1
        self.losses.append(loss)
        self.norms.append(norm)

    def evaluate(self, batch: TrialBatch) -> None:
        """Judge the network by fresh trials, and decide which weights to keep and when to stop."""
        check_dt(self.network, batch)
        generator = make_generator(self.seed, "evaluation noise", self.step)
        with torch.no_grad():
            outputs = self.network(batch.inputs, batch.context, generator=generator).outputs.cpu()
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
            "seconds_waiting": self.waited,
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
            f"training of {self.network.variant!r} with N = {self.network.units} and seed "
            f"{self.seed} diverged at step {self.step + 1}: "
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

    def release(self) -> None:
        """Give each parameter memory of its own again."""
        self.flat.release()

    def _identity(self) -> dict[str, Any]:
        identity = {
            **network_header(self.network),
            "tasks": described(self.tasks),
            "evaluation tasks": described(self.evaluation_tasks),
            "trained": sorted(self.parameters),
        }
        if self.network.nonlinearity_name is None:
            phi = self.network.phi
            identity["nonlinearity"] = getattr(phi, "__name__", type(phi).__name__)
        return as_json({**identity, "config": self.config.to_dict(), "seed": self.seed})

    def write(self, path: str | Path) -> None:
        """Write a checkpoint."""
        tensors: dict[str, Tensor] = {f"network.{name}": p for name, p in self.parameters.items()}
        tensors |= {f"kept.{name}": value for name, value in self.kept.items()}
        tensors |= {f"fixed.{name}": value for name, value in self.fixed.items()}
        for key in ("mean", "square"):
            parts = self.flat.parts(getattr(self.optimizer, key))
            tensors |= {f"adam.{key}.{name}": part for name, part in parts.items()}
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
        self.history = TrainingHistory(**header["history"])
        self.step, self.last_evaluation = header["step"], header["last_evaluation"]
        self._resume_adam(tensors)
        self.good_checks = header["good_checks"]
        self.best = -math.inf if header["best"] is None else header["best"]
        self.losses, self.norms = header["losses"], header["norms"]
        self.seconds_before = header["seconds"]
        if self.history.stopped:
            self.finish()

    def _resume_adam(self, tensors: Mapping[str, Tensor]) -> None:
        self.optimizer.step = self.step
        for key in ("mean", "square"):
            for name, part in self.flat.parts(getattr(self.optimizer, key)).items():
                part.copy_(tensors[f"adam.{key}.{name}"])


def difference(before: Any, now: Any, where: str = "") -> str:
    """Say in one line where two JSON-able values differ; empty if they do not."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        parts = [
            difference(before.get(key), now.get(key), f"{where}.{key}" if where else str(key))
            for key in sorted({*before, *now})
        ]
        return "; ".join(part for part in parts if part)
    return "" if before == now else f"{where or 'value'} was {before!r}, now {now!r}"


def described(tasks: TaskSource) -> Any:
    """Return what a checkpoint tells of its tasks: all of their settings, if they say them."""
    config = getattr(tasks, "config", None)
    return config() if callable(config) else {"names": list(tasks.names)}
