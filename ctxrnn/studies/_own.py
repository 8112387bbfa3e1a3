"""Pathways of the user's own in a study of networks."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ctxrnn import AbstractModulation, Chain, parameter_count, variant_ids
from ctxrnn._catalogue import check_variant, most_units, trainable_parameters
from ctxrnn._checks import unknown_name

Pathways = Mapping[str, Callable[..., AbstractModulation | Chain]]
"""Id -> class, or function, that makes a pathway of (units, contexts, seed=..., options)."""
_GIVEN = ("units", "contexts", "seed")


def check_own(pathways: Pathways) -> None:
    """Raise an error unless ids are new, and classes can be built as the catalogue's are.

    Raises:
        ValueError: If an id is one of the catalogue's.
        TypeError: If a class does not take units and contexts.
    """
    for name, build in pathways.items():
        try:
            check_variant(name)
        except ValueError:
            pass
        else:
            raise ValueError(f"{name!r} is a variant of the catalogue: choose another id for yours")
        missing = {"units", "contexts"} - set(inspect.signature(build).parameters)
        if missing:
            raise TypeError(
                f"the pathway {name!r} must take units and contexts, as (units, contexts, *, seed)"
                f": got {build.__name__}{inspect.signature(build)}"
            )


def check_known(variant: str, pathways: Pathways) -> str:
    """Return the id of a variant, the user's own included; unknown ones are an error."""
    if variant in pathways:
        return variant
    if pathways:
        try:
            return check_variant(variant)
        except ValueError:
            raise unknown_name("variant", variant, [*pathways, *variant_ids()]) from None
    return check_variant(variant)


def digest_of(build: Callable[..., Any]) -> str:
    """Return what tells the code of a pathway from another's: a digest of its source."""
    try:
        source = inspect.getsource(build)
    except (OSError, TypeError):  # typed into an interpreter
        return getattr(build, "__qualname__", repr(build))
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def own_options(build: Callable[..., Any]) -> tuple[str, ...]:
    """Return the options of a pathway of the user's own: arguments but units, contexts, seed."""
    named = inspect.signature(build).parameters.values()
    return tuple(p.name for p in named if p.kind != p.VAR_KEYWORD and p.name not in _GIVEN)


def build_own(
    build: Callable[..., Any], units: int, contexts: int, seed: int, options: Mapping[str, Any]
) -> Chain:
    """Build a pathway of the user's own; torch's global generator stays as it is."""
    given = {name: options[name] for name in own_options(build) if name in options}
    if "seed" in inspect.signature(build).parameters:
        given["seed"] = seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = build(units=units, contexts=contexts, **given)
    return made if isinstance(made, Chain) else Chain(made)


def own_matched_units(
    build: Callable[..., Any], budget: int, shape: Mapping[str, int], options: Mapping[str, Any]
) -> int:
    """Return the most units whose parameters do not exceed a budget (matching M2)."""

    def count(units: int) -> int:
        chain = build_own(build, units, shape["contexts"], 0, options)
        base = parameter_count("none", units=units, **shape)
        return base + trainable_parameters(chain) - (units**2 if chain.replaces_weight else 0)

    return most_units(count, budget, getattr(build, "__name__", "the pathway"))
