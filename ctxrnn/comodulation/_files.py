"""Networks of the convolutional branch in files, and features kept on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctxrnn._checkpoint import CheckpointError, read_tensors, write_tensors
from ctxrnn._checks import check_count

from ._data import Source
from ._encoders import Encoder, EncoderConfig
from ._network import ComodulatedNetwork, Head, NetworkConfig

logger = logging.getLogger("ctxrnn")

_KIND = "comodulated network"


def save_network(
    network: ComodulatedNetwork, path: str | Path, *, notes: Mapping[str, Any] | None = None
) -> None:
    """Save a network as one safetensors file with a JSON header.

    Args:
        network: The network.
        path: The file; written atomically.
        notes: JSON-able values to keep beside it.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> from ctxrnn.comodulation import ComodulatedNetwork, EncoderConfig, NetworkConfig
        >>> from ctxrnn.comodulation import load_network, save_network
        >>> network = ComodulatedNetwork(NetworkConfig(EncoderConfig("small"), decoder=(16,)))
        >>> save_network(network, "network.safetensors", notes={"data": "digits"})
        >>> load_network("network.safetensors")[1]
        {'data': 'digits'}
    """
    header = {"config": dataclasses.asdict(network.config), "notes": dict(notes or {})}
    write_tensors(path, network.state_dict(), header, _KIND)


def load_network(path: str | Path) -> tuple[ComodulatedNetwork, dict[str, Any]]:
    """Load what `save_network` wrote: the network, and the notes.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a whole, unaltered network of this kind.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import ComodulatedNetwork, EncoderConfig, NetworkConfig
        >>> from ctxrnn.comodulation import load_network, save_network
        >>> network = ComodulatedNetwork(NetworkConfig(EncoderConfig("small"), decoder=(16,)))
        >>> save_network(network, "network.safetensors")
        >>> again, notes = load_network("network.safetensors")
        >>> torch.equal(again.readout.weight, network.readout.weight)
        True
    """
    tensors, header = read_tensors(path, _KIND)
    try:
        network = ComodulatedNetwork(network_config(header["config"]))
        network.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        told = str(error).splitlines()[0]
        raise CheckpointError(f"{path} does not fit its own description: {told}") from error
    return network.eval(), dict(header["notes"])


def network_config(values: Mapping[str, Any]) -> NetworkConfig:
    """Rebuild a configuration from `dataclasses.asdict` of it, or its JSON.

    Weights that the encoder was built from are not read again; the file has its own.
    """
    head = values["head"]
    encoder = EncoderConfig(**values["encoder"])
    plain = dataclasses.replace(encoder, weights=None, normalised=encoder.normalises)
    return NetworkConfig(
        plain,
        tuple(values["decoder"]),
        Head(
            head["outputs"], head["contexts"], tuple(head["row"]),
            tuple(tuple(members) for members in head["allowed"]),
        ),
    )  # fmt: skip


def features_key(encoder: Encoder, fingerprint: str, dtype: str) -> str:
    """Return what names the features of some data: weights below the cut, the data, precision."""
    digest = hashlib.sha256(
        json.dumps([fingerprint, dtype, encoder.layer, encoder.normalised]).encode()
    )
    kept = ("stem.", *(f"layers.{name}." for name in list(encoder.layers)[: encoder.cut]))
    for name, value in encoder.state_dict().items():
        if name.startswith(kept):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


@torch.no_grad()
def cached_features(
    encoder: Encoder,
    source: Source,
    count: int,
    folder: str | Path,
    fingerprint: str,
    *,
    dtype: str = "float16",
    batch: int = 512,
    report: Callable[[float], Any] | None = None,
) -> np.ndarray:
    """Return h of all images, (image, channel, height, width), from a file that is mapped.

    The file is made once for the weights below the cut, the data and the precision, and renamed
    when it is whole.

    Args:
        encoder: The encoder, in evaluation mode, on its device.
        source: The images.
        count: How many.
        folder: Where files lie; made if it is missing.
        fingerprint: Of the data.
        dtype: "float16" or "float32".
        batch: Images at once.
        report: Told the share of the work that is done.

    Raises:
        OSError: If the file cannot be written.

    Example:
        >>> from ctxrnn.comodulation import EncoderConfig, cached_features, make_encoder
        >>> from ctxrnn.tasks import image_set
        >>> digits = image_set("digits")
        >>> encoder = make_encoder(EncoderConfig("small", channels=1)).eval()
        >>> h = cached_features(encoder, digits, 100, "features", digits.fingerprint)
        >>> h.shape, h.dtype.name
        ((100, 64, 1, 1), 'float16')
    """
    check_count("batch", batch)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"features-{features_key(encoder, fingerprint, dtype)}.npy"
    device = next(encoder.parameters()).device
    was = encoder.training
    encoder.eval()
    one = encoder.below(torch.as_tensor(source.read(np.arange(1))).to(device))
    shape = (count, *one.shape[1:])
    found = _mapped(path, shape, dtype)
    if found is None:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=folder)
        os.close(handle)
        try:
            made = np.lib.format.open_memmap(name, mode="w+", dtype=dtype, shape=shape)
            for first in range(0, count, batch):
                rows = np.arange(first, min(first + batch, count))
                h = encoder.below(torch.as_tensor(source.read(rows)).to(device))
                made[rows] = h.to(getattr(torch, dtype)).cpu().numpy()
                if report is not None:
                    report((rows[-1] + 1) / count)
            made.flush()
            del made
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
        found = np.load(path, mmap_mode="r")
    encoder.train(was)
    return found


def _mapped(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray | None:
    """Return the features in a file, or None if it is missing or damaged."""
    if not path.exists():
        return None
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        logger.warning("%s is damaged (%s) and is made again", path, error)
        return None
    return found if found.shape == shape and found.dtype == dtype else None
