"""Training: balanced batches of tasks, Adam, stop at criterion, resume, keep the best weights."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ctxrnn import _stacked
from ctxrnn._checks import check_integer, make_generator
from ctxrnn._config import Callback, TaskSource, TrainConfig, TrainingHistory
from ctxrnn._ensemble import Ensemble
from ctxrnn._feed import Feed, check_dt
from ctxrnn._network import CTRNN
from ctxrnn._run import Run
from ctxrnn._threads import limited, thread_count
from ctxrnn._trials import TrialBatch


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

    Raises:
        ValueError: If tasks and network differ in dt or in their sizes.

    Example:
        >>> from ctxrnn import CTRNN, evaluate
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["go", "anti"], dt=50, ring=8)
        >>> network = CTRNN(tasks.inputs, 32, tasks.outputs, "e-add", contexts=2, dt=50, seed=0)
        >>> accuracy = evaluate(network, tasks, 512, generator=0)
        >>> {name: p < 0.3 for name, p in accuracy.items()}  # untrained, near the chance of 1 in 8
        {'go': True, 'anti': True}
    """
    source = generator if isinstance(generator, torch.Generator) else make_generator(generator)
    return dict(tasks.accuracy(*_answers(network, tasks, trials, source)))


def _answers(
    network: CTRNN, tasks: TaskSource, trials: int, generator: torch.Generator
) -> tuple[Tensor, TrialBatch]:
    """Return the outputs on fresh trials, on the CPU, and the trials."""
    batch = tasks.sample(trials, generator=generator)
    check_dt(network, batch)
    with torch.no_grad():
        outputs = network(batch.inputs, batch.context, generator=generator).outputs
    return outputs.cpu(), batch


@overload
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
    threads: int | None = None,
    ahead: bool = True,
    stack: bool | None = None,
) -> TrainingHistory: ...


@overload
def train(
    network: Ensemble,
    tasks: TaskSource | Sequence[TaskSource],
    config: TrainConfig | Sequence[TrainConfig] | None = None,
    *,
    seed: int | Sequence[int],
    evaluation_tasks: TaskSource | Sequence[TaskSource] | None = None,
    checkpoint: str | Path | Sequence[str | Path] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    threads: int | None = None,
    ahead: bool = True,
    stack: bool | None = None,
) -> list[TrainingHistory]: ...


def train(
    network: CTRNN | Ensemble,
    tasks: Any,
    config: Any = None,
    *,
    seed: Any,
    evaluation_tasks: Any = None,
    checkpoint: Any = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    threads: int | None = None,
    ahead: bool = True,
    stack: bool | None = None,
) -> TrainingHistory | list[TrainingHistory]:
    """Train a network, or the members of an ensemble, in place.

    The trials and the noise of a step depend on the seed and the number of the step alone, so
    that a run that was interrupted ends with the same weights as one that was not, and networks
    trained with the same seed see the same trials in the same order. A member of an ensemble ends
    with the weights that it gets when trained alone; members that are done leave, and the others
    get on faster.

    Args:
        network: The network or the ensemble; its parameters change.
        tasks: Where the training trials come from; for an ensemble, one for all or one each.
        config: How to train, likewise; None for the defaults.
        seed: Seed of trials and noise, likewise. Members with the same tasks, seed and batch size
            share their trials, which are then drawn once.
        evaluation_tasks: Where the trials of evaluations come from; None for `tasks`. Give the
            task set here where `tasks` is a bank of reused trials.
        checkpoint: File to resume from if it exists, and to write at every evaluation and on
            Ctrl-C; None for no checkpoints. For an ensemble one file for each member, or a folder
            for `member-0.training` and so on; a member's file is that of the network alone.
        callbacks: Called as `callback(network, row)` after each evaluation.
        progress: Whether to show a progress bar; None shows one on a terminal.
        threads: Threads that train members side by side; None for as many as the process may use
            (`CTXRNN_THREADS`, or its cores). One network takes one thread.
        ahead: Whether to draw the next step's trials in the background.
        stack: Whether members are computed as one, padded to the largest N, instead of one after
            another; None does so on a GPU. Then a member is what it is alone up to rounding only.

    Returns:
        The history, or one for each member. If the loss or its gradient became NaN or infinite,
        `stopped` is "diverged" and the network holds the last good weights.

    Raises:
        ValueError: If the checkpoint belongs to another network or other settings.
        KeyboardInterrupt: On Ctrl-C, at the end of the step and after the checkpoint was written.

    Example:
        >>> from ctxrnn import CTRNN, TrainConfig, train
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["go", "anti"], dt=50, ring=8)
        >>> network = CTRNN(tasks.inputs, 32, tasks.outputs, "e-add", contexts=2, dt=50, seed=0)
        >>> config = TrainConfig(steps=40, learning_rate=3e-3, evaluate_every=20)
        >>> history = train(network, tasks, config, seed=0)
        >>> [int(row["step"]) for row in history.rows], history.stopped
        ([20, 40], 'steps')
        >>> history.rows[-1]["loss"] < history.rows[0]["loss"]
        True
    """
    alone = isinstance(network, CTRNN)
    if not isinstance(network, CTRNN | Ensemble):
        raise TypeError(f"network must be a CTRNN or an Ensemble: got {type(network).__name__}")
    members = [network] if isinstance(network, CTRNN) else network.unstack()
    count = len(members)
    sources = _each("tasks", tasks, count)
    judges = _each("evaluation_tasks", evaluation_tasks, count)
    settings = [TrainConfig() if c is None else c for c in _each("config", config, count)]
    seeds = _each("seed", seed, count)
    for setting, number in zip(settings, seeds, strict=True):
        if not isinstance(setting, TrainConfig):
            raise TypeError(f"config must be a TrainConfig: got {type(setting).__name__}")
        check_integer("seed", number)
    files = _files(checkpoint, count, alone)
    if stack is None:
        stack = members[0].device.type != "cpu"
    runs: list[Run] = []
    try:
        for member, *rest in zip(members, sources, judges, settings, seeds, strict=True):
            source, judge, setting, number = rest
            with _named(None if alone else len(runs)):
                runs.append(Run(member, source, judge or source, setting, number, callbacks))
        for run, file in zip(runs, files, strict=True):
            if file is not None and file.exists():
                run.resume(file)
        hidden = None if progress is None else not progress
        with contextlib.ExitStack() as resources:
            resources.enter_context(limited())
            background = resources.enter_context(ThreadPoolExecutor(1)) if ahead else None
            loop = _Loop(runs, files, thread_count(threads, count), background, stack)
            loop.go(hidden)
        for run in runs:
            run.finish()
    finally:
        for run in runs:
            run.release()
    histories = [run.history for run in runs]
    return histories[0] if alone else histories


@contextlib.contextmanager
def _named(index: int | None) -> Iterator[None]:
    """Say in an error which member it is about."""
    try:
        yield
    except ValueError as error:
        if index is None:
            raise
        raise ValueError(f"member {index}: {error}") from None


def _each(name: str, value: Any, count: int) -> list[Any]:
    """Return one value per member."""
    if isinstance(value, range | np.ndarray):
        value = list(value)
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(
            f"{name} must be one for all members or one for each of the {count}: got {len(value)}"
        )
    return list(value)


def _files(checkpoint: Any, count: int, alone: bool) -> list[Path | None]:
    """Return the checkpoint file of each member."""
    if checkpoint is None:
        return [None] * count
    if isinstance(checkpoint, list | tuple):
        files = [Path(file) for file in _each("checkpoint", checkpoint, count)]
        if len(set(files)) < count:
            raise ValueError("checkpoint must be a different file for each member")
    elif alone:
        files = [Path(checkpoint)]
    else:
        folder = Path(checkpoint)
        if folder.exists() and not folder.is_dir():
            raise ValueError(
                "checkpoint of an ensemble must be a folder, or a list of files: "
                f"{folder} is a file"
            )
        if not folder.parent.is_dir():
            raise FileNotFoundError(f"no folder {folder.parent} for the checkpoints: make it")
        folder.mkdir(exist_ok=True)
        files = [folder / f"member-{index}.training" for index in range(count)]
    for file in files:
        if not file.parent.is_dir():
            raise FileNotFoundError(f"no folder {file.parent} for the checkpoint: make it")
        if file.is_dir():
            raise ValueError(f"checkpoint must be a file: {file} is a folder; give another name")
    return list(files)


class _Loop:
    """The rounds of a training: in each, every member that is not done takes one step."""

    def __init__(
        self,
        runs: Sequence[Run],
        files: Sequence[Path | None],
        threads: int,
        background: ThreadPoolExecutor | None,
        stack: bool,
    ) -> None:
        self.stack, self.waited = stack, 0.0
        self.runs, self.files, self.threads = list(runs), list(files), threads
        self.background = background
        self._feeds: dict[Any, Feed] = {}

    def _feed(self, run: Run) -> Feed:
        """Return the feed that a run shares with all that see the same trials."""
        config, network = run.config, run.network
        key = (
            id(run.tasks), id(run.evaluation_tasks), run.seed, config.batch, config.steps,
            config.evaluation_trials, run.step,
        )  # fmt: skip
        if key not in self._feeds:
            self._feeds[key] = Feed(
                run.tasks,
                run.evaluation_tasks,
                run.seed,
                trials=config.batch,
                evaluation_trials=config.evaluation_trials,
                steps=config.steps,
                device=network.device,
                dtype=network.dtype,
                ahead=self.background,
            )
        return self._feeds[key]

    def go(self, hidden: bool | None) -> None:
        """Train until every run is done or interrupted."""
        feeds = {id(run): self._feed(run) for run in self.runs if not run.history.stopped}
        total = sum(run.config.steps for run in self.runs)
        done = sum(run.step for run in self.runs)
        with (
            _Interrupt() as interrupt,
            tqdm(total=total, initial=done, disable=hidden, unit="step") as bar,
            ThreadPoolExecutor(self.threads) as pool,
        ):
            variants = list(dict.fromkeys(run.network.variant for run in self.runs))
            many = f"{len(self.runs)} networks" if len(self.runs) > 1 else variants[0]
            bar.set_description(many)
            while active := [run for run in self.runs if not run.history.stopped]:
                started = time.perf_counter()
                prepared = [feeds[id(run)].training(run.step) for run in active]
                self.waited += time.perf_counter() - started
                if self.stack and len(active) > 1:
                    _stacked.take_step(active, prepared)
                else:
                    each = pool.map if self.threads > 1 and len(active) > 1 else map
                    deque(each(Run.take_step, active, prepared), maxlen=0)
                self._judge(active, feeds, bar)
                self._write(active, interrupt.seen)
                bar.update(sum(run.step for run in self.runs) - bar.n)
                if interrupt.seen:
                    raise KeyboardInterrupt(_interrupted(self.runs, self.files))

    def _judge(self, active: Sequence[Run], feeds: dict[int, Feed], bar: Any) -> None:
        due = [run for run in active if not run.history.stopped and run.evaluation_due]
        started = time.perf_counter()
        if due:
            # Callbacks may use the tasks, which need not be safe to use from two threads at once.
            for feed in feeds.values():
                feed.settle()
        batches = [feeds[id(run)].evaluation(run.step) for run in due]
        self.waited += time.perf_counter() - started
        for run, batch in zip(due, batches, strict=True):
            run.waited = self.waited
            run.evaluate(batch)
        rows = [run.history.rows[-1] for run in self.runs if run.history.rows]
        if rows and any(run.last_evaluation == run.step for run in active):
            mean = sum(row["relative_mean"] for row in rows) / len(rows)
            bar.set_postfix_str(f"p/ceiling {mean:.3f}")

    def _write(self, active: Sequence[Run], interrupted: bool) -> None:
        for run, file in self._with_files():
            if file is None or run not in active:
                continue
            if run.last_evaluation == run.step or interrupted or run.history.stopped:
                run.write(file)

    def _with_files(self) -> Iterator[tuple[Run, Path | None]]:
        return zip(self.runs, self.files, strict=True)


def _interrupted(runs: Sequence[Run], files: Sequence[Path | None]) -> str:
    step = max(run.step for run in runs)
    if files[0] is None:
        return f"interrupted after step {step}"
    where = files[0] if len(files) == 1 else files[0].parent
    return f"interrupted after step {step}; resume from {where}"


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
