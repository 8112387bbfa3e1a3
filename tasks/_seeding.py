"""Seeding environments, so that nothing of earlier trials is left."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from ctxrnn._checks import derive_seed


def cores(env: Any) -> list[Any]:
    """List the environments below all wrappers; several where a wrapper switches between some."""
    layer = env
    while layer is not layer.unwrapped:
        if "envs" in vars(layer):
            return [core for part in layer.envs for core in cores(part)]
        layer = layer.env
    return [layer]


def seeded(rng: np.random.RandomState, seed: int, purpose: str) -> np.random.RandomState:
    """Start a stream of random numbers again, and return it."""
    rng.seed(derive_seed(seed, purpose) % 2**32)
    return rng


def hashed_uniforms(wanted: Iterable[tuple[str, int]]) -> np.ndarray:
    """Return independent uniform numbers in [0, 1), some for each of several keys, in one array.

    They are the bits of SHAKE-256 of the key: for a few numbers per key, that is several times
    faster than to seed a generator for each, and the same on every machine.

    Args:
        wanted: Pairs of a key and how many numbers it gets.
    """
    bits = b"".join(hashlib.shake_256(key.encode()).digest(8 * count) for key, count in wanted)
    return (np.frombuffer(bits, dtype="<u8") >> np.uint64(11)) * 2.0**-53


def reseed_timing(core: Any, seed: int) -> None:
    """Give every period's own random numbers their own seed."""
    for period, value in core.timing.items():
        if hasattr(value, "seed"):
            value.seed(derive_seed(seed, "timing", period) % 2**32)


def reseed(env: Any, seed: int) -> None:
    """Seed an environment, its wrappers, their schedules and what they switch between."""
    layer = env
    while layer is not env.unwrapped:
        if hasattr(vars(layer).get("schedule"), "seed"):
            vars(layer)["schedule"].seed(derive_seed(seed, "schedule") % 2**32)
        layer = layer.env
    for index, core in enumerate(cores(env)):
        own = derive_seed(seed, "environment", index)
        core.rng = seeded(np.random.RandomState(0), own, "trials")
        for name, value in vars(core).items():
            if isinstance(value, np.random.Generator):
                setattr(core, name, np.random.default_rng(derive_seed(own, name)))
        reseed_timing(core, own)
