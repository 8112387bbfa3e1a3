"""The pathway variants by their ids, their parameter counts, and networks of matched size."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ctxrnn._checks import check_count, unknown_name
from ctxrnn._excitability import Drive, Gain, Threshold
from ctxrnn._modulation import AbstractModulation, Chain, Seed, resolve_seed
from ctxrnn._share import check_on, units_on
from ctxrnn._synaptic import Additive, Full, Hadamard, LowRank, Masks, Scalar


@dataclass(frozen=True)
class Variant:
    """One row of the catalogue.

    Attributes:
        id: Its id; R stands for the rank.
        meaning: What it does, in a few words.
        form: The equation.
        extra: Parameters beyond W, B, b, C, d.
    """

    id: str
    meaning: str
    form: str
    extra: str


PATHWAYS: dict[str, Callable[..., AbstractModulation]] = {
    kind.__name__: kind
    for kind in (Drive, Threshold, Gain, Hadamard, Additive, LowRank, Masks, Scalar, Full)
}


VARIANTS: tuple[Variant, ...] = (
    Variant("none", "no context", "W", "0"),
    Variant("e-add", "excitability drive (rule input)", "E c", "N K"),
    Variant("e-thr", "threshold", "x - Theta c", "N K"),
    Variant("e-gain", "intrinsic gain", "G = 1 + Gamma c", "N K"),
    Variant("e-rankR", "low-rank drive", "E = U A", "R K + N R"),
    Variant("s-sym", "base-preserving scaling", "W * (1 1^T + sum_k c_k h_k h_k^T)", "N K"),
    Variant("s-asym-R", "base-preserving, rank R", "W * (1 1^T + sum_k c_k m_k n_k^T)", "2 N R K"),
    Variant("s-gate-R", "base-gated, rank R", "W * sum_k c_k m_k n_k^T", "2 N R K"),
    Variant(
        "s-lowrankW",
        "context scales the components of a low-rank W",
        "U diag(sigmoid(A c + a0)) V^T",
        "R K + R; 2 N R replaces N^2",
    ),
    Variant("s-mask", "shared masks", "W * (1 1^T + sum_l (A c)_l M_l)", "L K (+ L N^2 if learnt)"),
    Variant("s-add-R", "additive low rank", "W + sum_k c_k m_k n_k^T", "2 N R K"),
    Variant("s-scalar", "global scaling", "(1 + f^T c) W", "K"),
    Variant("s-full", "no sharing (upper bound)", "sum_k c_k W_k", "K N^2 replaces N^2"),
    Variant("es-*", "any e-* with any s-* (es: es-add-sym)", "both", "sum of both"),
)

_EXCITABILITY: tuple[tuple[str, Callable[..., AbstractModulation]], ...] = (
    (r"add", Drive),
    (r"thr", Threshold),
    (r"gain", Gain),
    (r"rank(?P<rank>[1-9]\d*)", Drive),
)


def _hadamard(symmetric: bool = False, gated: bool = False) -> Callable[..., AbstractModulation]:
    def build(units: int, contexts: int, **options: Any) -> AbstractModulation:
        return Hadamard(units, contexts, symmetric=symmetric, gated=gated, **options)

    return build


_SYNAPTIC: tuple[tuple[str, Callable[..., AbstractModulation]], ...] = (
    (r"sym", _hadamard(symmetric=True)),
    (r"asym-(?P<rank>[1-9]\d*)", _hadamard()),
    (r"gate-(?P<rank>[1-9]\d*)", _hadamard(gated=True)),
    (r"lowrankW", LowRank),
    (r"mask", Masks),
    (r"add-(?P<rank>[1-9]\d*)", Additive),
    (r"scalar", Scalar),
    (r"full", Full),
)

_EXAMPLES = (
    "none", "e-add", "e-thr", "e-gain", "e-rank2", "s-sym", "s-asym-1", "s-asym-2", "s-gate-1",
    "s-gate-2", "s-lowrankW", "s-mask", "s-add-1", "s-add-2", "s-scalar", "s-full", "es",
    "es-add-sym", "es-gain-asym-1", "es-add-gate-1",
)  # fmt: skip

OPTIONS: dict[str, tuple[str, ...]] = {
    "Drive": ("sd", "on"),
    "Threshold": ("sd", "on"),
    "Gain": ("sd", "on", "positive"),
    "Hadamard": ("sd", "on", "interpolation", "nonnegative"),
    "Additive": ("sd", "on", "interpolation"),
    "LowRank": ("rank", "sd", "g"),
    "Masks": ("masks", "learn", "sd"),
    "Scalar": ("sd",),
    "Full": ("g",),
}

_BY_PATHWAY = ("sd", "on")
"""Options that can be given to one pathway alone, as `sd_e` and `sd_s`."""


def variant_ids() -> tuple[str, ...]:
    """Return the ids of the catalogue with small ranks filled in, combinations by example.

    Example:
        >>> from ctxrnn import variant_ids
        >>> variant_ids()[:6]
        ('none', 'e-add', 'e-thr', 'e-gain', 'e-rank2', 's-sym')
    """
    return _EXAMPLES


def _match(
    part: str, table: tuple[tuple[str, Callable[..., AbstractModulation]], ...]
) -> tuple[Callable[..., AbstractModulation], dict[str, Any]] | None:
    for pattern, build in table:
        found = re.fullmatch(pattern, part)
        if found:
            rank = found.groupdict().get("rank")
            return build, {} if rank is None else {"rank": int(rank)}
    return None


def _parts(variant: str) -> list[tuple[str, Callable[..., AbstractModulation], dict[str, Any]]]:
    """Split an id into (prefix, constructor, options) per pathway."""
    if not isinstance(variant, str):
        raise TypeError(f"variant must be an id such as 'e-add': got {variant!r}")
    if variant == "none":
        return []
    name = "es-add-sym" if variant == "es" else variant
    prefix, _, rest = name.partition("-")
    wanted: list[tuple[str, str]] = []
    if prefix in ("e", "s"):
        wanted = [(prefix, rest)]
    elif prefix == "es":
        first, _, second = rest.partition("-")
        wanted = [("e", first), ("s", second)]
    found = []
    for kind, part in wanted:
        match = _match(part, _EXCITABILITY if kind == "e" else _SYNAPTIC)
        if match:
            found.append((kind, *match))
    if not wanted or len(found) != len(wanted):
        raise unknown_name("variant", variant, _EXAMPLES)
    return found


def check_variant(variant: str) -> str:
    """Return a variant id, or raise ValueError that lists the known ones and the nearest."""
    _parts(variant)
    return variant


def known_options(variant: str) -> tuple[str, ...]:
    """Return the options that the pathways of a variant know, as `modulation` takes them."""
    known: set[str] = set()
    for kind, build, fixed in _parts(variant):
        mine = {*OPTIONS[_class_name(build)]} - set(fixed)
        known |= mine | {f"{name}_{kind}" for name in _BY_PATHWAY if name in mine}
    return tuple(sorted(known))


def modulation(
    variant: str,
    units: int,
    contexts: int,
    *,
    seed: Seed | None = None,
    **options: Any,
) -> Chain:
    """Build the context pathways of a variant.

    Args:
        variant: Id of the catalogue (`ctxrnn models` lists it), e.g. "none", "e-add", "s-sym",
            "s-asym-2", "es-add-sym"; "es" is short for "es-add-sym".
        units: N.
        contexts: K.
        seed: Seed or generator of the initial values. A pathway's numbers do not depend on which
            others it is combined with.
        options: Options of the pathways, given to each that knows them, e.g.
            `interpolation="factor-linear"`, `masks=8`, `positive=True`. `sd_e` and `sd_s` set
            the initial spread of one pathway, `on_e` and `on_s` the units that one acts on:
            `on_e=0.5, on_s=0.5` splits the units between the two, the excitability taking the
            first (matching M3).

    Raises:
        ValueError: For an unknown id or an option that no pathway of it knows.

    Example:
        >>> from ctxrnn import modulation
        >>> chain = modulation("es-gain-asym-2", units=32, contexts=4)
        >>> [(type(pathway).__name__, pathway.pathway) for pathway in chain]
        [('Gain', 'excitability'), ('Hadamard', 'synaptic')]
    """
    parts = _parts(variant)
    check_count("units", units)
    check_count("contexts", contexts)
    base = resolve_seed(seed)
    pathways = []
    used: set[str] = set()
    for kind, build, fixed in parts:
        known = {*OPTIONS[_class_name(build)]} - set(fixed)
        chosen = {name: value for name, value in options.items() if name in known}
        for name in _BY_PATHWAY:
            if name in known and f"{name}_{kind}" in options:
                chosen[name] = options[f"{name}_{kind}"]
                used.add(f"{name}_{kind}")
        used.update(name for name in chosen if name in options)
        pathways.append(build(units, contexts, seed=base, **fixed, **chosen))
    spare = set(options) - used
    if spare:
        known_here = sorted(
            {name for _, build, fixed in parts for name in OPTIONS[_class_name(build)]}
        )
        raise unknown_name(f"option of variant {variant!r}", sorted(spare)[0], known_here or ["-"])
    return Chain(*pathways)


def _class_name(build: Callable[..., AbstractModulation]) -> str:
    return build.__name__ if isinstance(build, type) else "Hadamard"


def parameter_count(
    variant: str,
    *,
    units: int,
    inputs: int,
    outputs: int,
    contexts: int,
    **options: Any,
) -> int:
    """Count the trainable parameters of a variant.

    P = N^2 + N (I + O + 1) + O + kappa N K, with kappa context vectors per task and unit
    (`none` 0; `e-add`, `e-thr`, `e-gain`, `s-sym` 1; `s-asym-R`, `s-gate-R`, `s-add-R` 2 R;
    combinations the sum). Exceptions: `e-rankR` has N R + R K as its last term; `s-lowrankW` has
    2 N R for N^2 and R K + R as its last term; `s-full` has K N^2 for N^2; `s-mask` adds L K, and
    L N^2 if its masks are learnt; `s-scalar` adds K.

    A pathway on a part of the units (`on`) counts their number in place of N.

    Args:
        variant: Id of the catalogue.
        units: N.
        inputs: I.
        outputs: O.
        contexts: K.
        options: As for `modulation`; `rank`, `masks`, `learn` and `on` matter here.

    Raises:
        ValueError: For an unknown id or option.

    Example:
        >>> from ctxrnn import parameter_count
        >>> size = {"units": 128, "inputs": 33, "outputs": 17, "contexts": 20}
        >>> parameter_count("e-add", **size) - parameter_count("none", **size)  # N K
        2560
        >>> parameter_count("s-add-2", **size) - parameter_count("none", **size)  # 2 N R K
        10240
    """
    check_count("units", units)
    check_count("inputs", inputs)
    check_count("outputs", outputs)
    check_count("contexts", contexts)
    for option in options:
        if option not in known_options(variant):
            known = known_options(variant) or ("none",)
            raise unknown_name(f"option of variant {variant!r}", option, known)
    recurrent, extra = units**2, 0
    for kind, build, fixed in _parts(variant):
        name = _class_name(build)
        rank = fixed.get("rank", options.get("rank", 8))
        on = check_on(options.get(f"on_{kind}", options.get("on")))
        first, stop = units_on(on, units, "first" if kind == "e" else "last")
        if name == "Drive" and fixed:
            extra += (stop - first) * rank + rank * contexts
        elif name in ("Drive", "Threshold", "Gain") or (name == "Hadamard" and not fixed):
            extra += (stop - first) * contexts
        elif name in ("Hadamard", "Additive"):
            extra += 2 * (stop - first) * rank * contexts
        elif name == "LowRank":
            recurrent, extra = 2 * units * rank, extra + rank * contexts + rank
        elif name == "Masks":
            masks = options.get("masks", 4)
            extra += masks * contexts + (masks * units**2 if options.get("learn") else 0)
        elif name == "Scalar":
            extra += contexts
        elif name == "Full":
            recurrent = contexts * units**2
    return recurrent + units * (inputs + outputs + 1) + outputs + extra


def matched_units(
    variant: str,
    *,
    parameters: int,
    inputs: int,
    outputs: int,
    contexts: int,
    **options: Any,
) -> int:
    """Return the largest N whose parameter count does not exceed `parameters` (matching M2).

    Args:
        variant: Id of the catalogue.
        parameters: P, the budget.
        inputs: I.
        outputs: O.
        contexts: K.
        options: As for `modulation`; `on` as a fraction only, since N is not known before.

    Raises:
        ValueError: If not even one unit fits.

    Example:
        >>> from ctxrnn import matched_units, parameter_count
        >>> size = {"inputs": 33, "outputs": 17, "contexts": 20}
        >>> budget = parameter_count("e-add", units=128, **size)
        >>> matched_units("none", parameters=budget, **size)
        136
        >>> matched_units("s-full", parameters=budget, **size)  # a W of its own for each context
        34
    """
    for name in ("on", "on_e", "on_s"):
        if isinstance(check_on(options.get(name)), tuple):
            raise ValueError(
                f"{name} must be a fraction where N is sought: got the range {options[name]}"
            )

    def count(units: int) -> int:
        return parameter_count(
            variant, units=units, inputs=inputs, outputs=outputs, contexts=contexts, **options
        )

    return most_units(count, parameters, variant)


def most_units(count: Callable[[int], int], parameters: int, variant: str) -> int:
    """Return the largest N whose parameters, `count(N)`, do not exceed a number.

    Raises:
        ValueError: If not even one unit fits.
    """
    if count(1) > parameters:
        raise ValueError(
            f"parameters must be at least {count(1)} for one unit of {variant!r}: got {parameters}"
        )
    low, high = 1, 2
    while count(high) <= parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= parameters else (low, middle)
    return low


def trainable_parameters(module: torch.nn.Module) -> int:
    """Count the trainable numbers of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
