"""Seeding environments, so that nothing of earlier trials is left."""

from __future__ import annotations

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
