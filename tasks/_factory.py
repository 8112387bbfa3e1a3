"""Making sets of tasks by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ctxrnn._checks import check_count, check_not_negative, check_positive, unknown_name

from ._catalogue import FAMILY, YANG19, resolve_repairs, short_name
from ._task_set import TaskSet
from ._timing import check_timing

if TYPE_CHECKING:
    from ._neurogym import Source

_ENCODINGS = ("ring", "vector")
_SAMPLERS = ("vectorised", "neurogym")
_REGISTER = (
    "an environment of your own gets a name by gymnasium.register(id='Mine-v0', entry_point=Mine)"
)


def _resolve_names(names: str | Iterable[str]) -> list[str]:
    if not isinstance(names, Iterable) or isinstance(names, type):
        raise TypeError(f"names must be the name of a task, or several: got {names!r}; {_REGISTER}")
    listed = [names] if isinstance(names, str) else list(names)
    resolved: list[str] = []
    for name in listed:
        if not isinstance(name, str):
            raise TypeError(f"the name of a task must be a string: got {name!r}; {_REGISTER}")
        resolved += YANG19 if name == "yang19" else (name,)
    if not resolved:
        raise ValueError("names must hold at least one task: got none")
    short = [short_name(name) for name in resolved]
    twice = sorted({name for name in short if short.count(name) > 1})
    if twice:
        raise ValueError(f"every task may occur only once: got {', '.join(twice)} more than once")
    return resolved


def _check_alike(sources: Sequence[Source]) -> None:
    sizes: dict[tuple[str, int, int], list[str]] = {}
    for source in sources:
        sizes.setdefault((source.kind, source.inputs, source.outputs), []).append(source.name)
    if len(sizes) > 1:
        listed = "; ".join(
            f"{', '.join(names)}: {inputs} inputs, {outputs} outputs ({kind})"
            for (kind, inputs, outputs), names in sizes.items()
        )
        raise ValueError(
            f"the tasks of a set must have equal inputs and outputs, for one network: got {listed}"
        )


def _check_settings(dt: float, ring: int, encoding: str, noise: float, grace: float) -> None:
    check_positive("dt", dt, "ms")
    check_count("ring", ring, 4)
    if ring % 2:
        raise ValueError(f"ring must be even, as match tasks need opposite directions: got {ring}")
    check_not_negative("noise", noise)
    check_not_negative("response_grace", grace, "ms")
    if encoding not in _ENCODINGS:
        raise unknown_name("encoding", encoding, _ENCODINGS)


def task_set(
    names: str | Iterable[str] = "yang19",
    *,
    dt: float = 20.0,
    ring: int = 16,
    encoding: str = "ring",
    repairs: bool | Iterable[str] | None = None,
    noise: float = 1.0,
    response_grace: float = 100.0,
    sampler: str = "vectorised",
    **env_options: Any,
) -> TaskSet:
    """Make a set of neurogym tasks that one network can learn.

    Args:
        names: "yang19" for the 20 tasks of Yang et al. (2019), one task or several: short names
            ("go"), neurogym ids ("yang19.go-v0"), or any installed neurogym id with ground truth
            ("GoNogo-v0").
        dt: Time step in ms; at most the shortest period.
        ring: Directions R on the ring (yang19 only): even, at least 4.
        encoding: "ring" for classes (inputs 1 + 2 R: fixation and one ring per modality; outputs
            1 + R: fixation and the directions), "vector" for vectors (inputs 5: fixation, then
            sine and cosine per modality; outputs 3: fixation, sine, cosine). The vector is the
            population vector of the ring, of length 1 for a stimulus of strength 1. yang19 only.
        repairs: Which of neurogym's oddities to mend in yang19 tasks (see `REPAIRS`): None or
            True for all, False for none, or a set of names.
        noise: Factor on neurogym's input noise, whose standard deviation per step is
            1 / sqrt(dt / ms); reach tasks have none.
        response_grace: Start of the response without weight in the loss, in ms; cut where
            needed so that the last step has weight.
        sampler: "vectorised" draws the trials of yang19 tasks all at once, with neurogym's
            distribution; tasks outside yang19, and options that it does not know, are still drawn
            by neurogym, one by one (`TaskSet.vectorised` lists the others).
            "neurogym" draws every trial so: the reference, and over ten times slower.
        **env_options: Passed to each environment. `timing` maps periods to durations in ms; it
            applies to the tasks that have the period.

    Raises:
        ValueError: If a name is unknown or occurs twice, sizes differ, a task has no ground
            truth, or a setting is out of range.

    References:
        Yang et al. (2019), Nature Neuroscience 22, 297-306; neurogym 2.3.

    Example:
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["go", "anti"], dt=50, ring=8)
        >>> tasks.inputs, tasks.outputs  # fixation and two rings; fixation and one ring
        (17, 9)
        >>> batch = tasks.sample(6, generator=0)
        >>> [batch.names[k] for k in batch.task], batch.context.shape
        (['go', 'go', 'go', 'anti', 'anti', 'anti'], torch.Size([6, 2]))
    """
    _check_settings(dt, ring, encoding, noise, response_grace)
    if env_options.get("timing") is not None:
        check_timing(env_options["timing"])
    if sampler not in _SAMPLERS:
        raise unknown_name("sampler", sampler, _SAMPLERS)
    chosen = resolve_repairs(repairs)
    resolved = _resolve_names(names)
    foreign = [name for name in resolved if short_name(name) not in FAMILY]
    from ._neurogym import Source, full_id

    for name in resolved:
        full_id(name)
    if encoding == "vector" and foreign:
        raise ValueError(
            f"encoding 'vector' exists for yang19 tasks only: got {', '.join(foreign)}; "
            "use encoding='ring'"
        )
    sources = [
        Source(name, dt=float(dt), ring=int(ring), noise=noise, repairs=chosen, options=env_options)
        for name in resolved
    ]
    _check_alike(sources)
    periods = {period for source in sources for period in source.core.timing}
    for period in env_options.get("timing") or {}:
        if period not in periods:
            raise unknown_name("period", period, periods)
    return TaskSet(
        sources,
        dt=float(dt),
        ring=int(ring),
        encoding=encoding,
        repairs=chosen,
        noise=float(noise),
        response_grace=float(response_grace),
        sampler=sampler,
        options=env_options,
    )
