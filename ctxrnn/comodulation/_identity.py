"""What a checkpoint of the first stage must agree in with the run that takes it up."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctxrnn._checkpoint import as_json

from ._data import Examples
from ._network import ComodulatedNetwork

if TYPE_CHECKING:
    from ._pretraining import PretrainConfig


def identity_of(
    network: ComodulatedNetwork, train: Examples, config: PretrainConfig, seed: int
) -> dict[str, Any]:
    """Return what a checkpoint must agree in, as JSON-able values."""
    settings = dataclasses.asdict(config)
    for name in ("workers", "checkpoint_seconds"):
        del settings[name]
    digest = hashlib.sha256()
    for values in (train.labels, train.context, train.rows):
        if values is not None:
            # Arrays that cannot be written are no tensors without a warning.
            plain = values.cpu().numpy() if isinstance(values, torch.Tensor) else values
            digest.update(np.ascontiguousarray(plain).tobytes())
    data = {
        "examples": len(train),
        "fingerprint": getattr(train.inputs, "fingerprint", None),
        "shape": list(train.read(torch.arange(1)).shape[1:]),
        "labels": digest.hexdigest()[:16],
    }
    network_config = dataclasses.asdict(network.config)
    found: dict[str, Any] = as_json(
        {"seed": seed, **settings, "network": network_config, "data": data}
    )
    return found


def differences(here: Any, there: Any, name: str = "") -> list[str]:
    """List where two identities differ."""
    if isinstance(here, dict) and isinstance(there, dict):
        found = []
        for key in [*here, *(key for key in there if key not in here)]:
            below = f"{name}.{key}" if name else key
            found += differences(here.get(key), there.get(key), below)
        return found
    return [] if here == there else [f"{name} is {there!r} there, {here!r} here"]
