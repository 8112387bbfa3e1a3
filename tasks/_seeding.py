"""Seeding environments, so that nothing of earlier trials is left."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctxrnn._checks import derive_seed


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
    """Seed an environment, its wrappers and their schedules."""
    layer = env
    while layer is not env.unwrapped:
        if hasattr(vars(layer).get("schedule"), "seed"):
            vars(layer)["schedule"].seed(derive_seed(seed, "schedule") % 2**32)
        layer = layer.env
    core = env.unwrapped
    core.rng = seeded(np.random.RandomState(0), seed, "trials")
    for name, value in vars(core).items():
        if isinstance(value, np.random.Generator):
            setattr(core, name, np.random.default_rng(derive_seed(seed, name)))
    reseed_timing(core, seed)
