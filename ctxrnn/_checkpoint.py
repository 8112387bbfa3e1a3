"""Save and load networks: safetensors with a JSON header; nothing is ever unpickled."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from ctxrnn._catalogue import PATHWAYS
from ctxrnn._encoder import ContextEncoder
from ctxrnn._modulated_layer import ModulatedLayer
from ctxrnn._modulated_rnn import ModulatedRNN
from ctxrnn._modulation import AbstractModulation, Chain
from ctxrnn._network import CTRNN, Nonlinearity

FORMAT = 1
_KEY = "ctxrnn"


class CheckpointError(ValueError):
    """A file that is not a whole, unaltered checkpoint of this program.

    Example:
        >>> from pathlib import Path
        >>> from ctxrnn import CheckpointError, load
        >>> _ = Path("network.safetensors").write_bytes(b"cut off")
        >>> try:
        ...     network = load("network.safetensors")
        ... except CheckpointError as error:
        ...     print(error)
        network.safetensors is truncated, damaged, or not a checkpoint ...: restore it from a copy
    """


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("ctxrnn", "numpy", "neurogym"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file so that it is either whole or not there; an older one stays until then.

    Raises:
        OSError: If the folder is missing, not writable, or full; says which file and why.
    """
    path = Path(path)
    handle = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Free some space" if full else "Make the folder, or choose one that can be written"
        raise OSError(
            error.errno,
            f"cannot write {path}: {error.strerror or error}. {remedy}; what was written before is "
            "kept",
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any], kind: str
) -> None:
    """Write named tensors and a JSON header as one safetensors file, atomically.

    Args:
        path: The file.
        tensors: What to store.
        header: JSON-able; told back by `read_tensors`.
        kind: What the file holds, e.g. "network"; `read_tensors` refuses another kind.
    """
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    body = as_json({"format": FORMAT, "kind": kind, "versions": versions(), **header})
    body["digest"] = _digest(plain, body)
    write_atomically(path, to_bytes(plain, metadata={_KEY: json.dumps(body)}))


def read_tensors(path: str | Path, *kinds: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote, after checking that it is whole and unaltered.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is truncated, altered, of a newer version, of another kind,
            a pickle, or foreign; one line that says which.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: check the path")
    with open(path, "rb") as stream:
        start = stream.read(9)
    # A safetensors file is the length of its header, which may start with any byte, and then "{".
    if start[8:] != b"{" and (start[:4] == b"PK\x03\x04" or start[:1] == b"\x80"):
        raise CheckpointError(
            f"{path} is a pickle or zip (torch.save?), which is never opened here because it could "
            "run code: write it again with ctxrnn.save"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is truncated, damaged, or not a checkpoint ({error}): restore it from a copy"
        ) from error
    if _KEY not in metadata:
        raise CheckpointError(f"{path} was not written by ctxrnn: it lacks the header {_KEY!r}")
    try:
        header = json.loads(metadata[_KEY])
        written, wanted = header["format"], header.pop("digest")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} has a damaged header: restore it from a copy") from error
    if not isinstance(written, int) or written > FORMAT:
        version = header.get("versions", {}).get("ctxrnn", "unknown")
        raise CheckpointError(
            f"{path} has format {written}, written by ctxrnn {version}; this version reads up to "
            f"{FORMAT}: upgrade ctxrnn"
        )
    if _digest(tensors, header) != wanted:
        raise CheckpointError(
            f"{path} was altered after it was written (its digest does not match): restore it "
            "from a copy"
        )
    if header["kind"] not in kinds:
        readers = {"network": "ctxrnn.load", "layer": "ctxrnn.load_layer"}
        remedy = f": use {readers[header['kind']]}" if header["kind"] in readers else ""
        raise CheckpointError(
            f"{path} holds a {header['kind']}, not a {' or '.join(kinds)}{remedy}"
        )
    return tensors, header


def pathways_of(chain: Chain) -> list[dict[str, Any]]:
    """Return what rebuilds pathways, apart from their tensors, as JSON-able values.

    Raises:
        ValueError: If `config` of a pathway of the user's own does not return all that its
            constructor takes: another network would be loaded.
    """
    found = []
    for pathway in chain:
        kind, options = type(pathway), pathway.config()
        if PATHWAYS.get(kind.__name__) is not kind:
            named = inspect.signature(kind).parameters.values()
            taken = [p.name for p in named if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            for name in taken:
                if name not in options and name != "seed":
                    raise ValueError(
                        f"config() of {kind.__name__} must return every argument of its "
                        f"constructor but the seed: {name!r} is missing"
                    )
        found.append({"kind": kind.__name__, "options": options})
    return found


def network_header(network: CTRNN) -> dict[str, Any]:
    """Return what rebuilds a network, apart from its tensors, as JSON-able values."""
    dtype = str(network.dtype).removeprefix("torch.")
    return {
        "variant": network.variant,
        "network": {**network.config, "noise": network.noise},
        "pathways": pathways_of(network.modulation),
        "dtype": dtype,
    }


def layer_header(layer: ModulatedRNN) -> dict[str, Any]:
    """Return what rebuilds a layer, apart from its tensors, as JSON-able values."""
    custom = layer.variant == "custom"
    first = layer.layers[0]
    assert isinstance(first, ModulatedLayer)
    encoder = first.encoder if layer.encoder_given else None
    return {
        "variant": layer.variant,
        "layer": layer.config,
        "pathways": pathways_of(first.modulation) if custom else None,
        "encoder": None
        if encoder is None
        else {"kind": type(encoder).__name__, "options": encoder.config()},
        "dtype": str(first.input_weight.dtype).removeprefix("torch."),
    }


def save(
    network: CTRNN | ModulatedRNN, path: str | Path, *, notes: Mapping[str, Any] | None = None
) -> None:
    """Save a network, or a modulated layer, as one safetensors file with a JSON header.

    Args:
        network: The network (`load` reads it), or the layer (`load_layer`).
        path: The file; written atomically, an older one is replaced.
        notes: JSON-able values to keep beside it (task names, settings); `load_notes` reads them.

    Raises:
        OSError: If the file cannot be written.
        TypeError: If it is another module, such as a model that holds a layer.

    Example:
        >>> from ctxrnn import CTRNN, load_notes, save
        >>> network = CTRNN(inputs=3, units=16, outputs=2, modulation="e-add", contexts=2)
        >>> save(network, "network.safetensors", notes={"tasks": ["go", "anti"]})
        >>> load_notes("network.safetensors")
        {'tasks': ['go', 'anti']}
    """
    if isinstance(network, CTRNN):
        kind, header = "network", network_header(network)
    elif isinstance(network, ModulatedRNN):
        kind, header = "layer", layer_header(network)
    else:
        raise TypeError(
            f"network must be a CTRNN or a ModulatedRNN: got {type(network).__name__}. Of a model "
            "that holds a ModulatedRNN save the layer, or the model's state_dict()"
        )
    for name, value in network.named_parameters():
        if value.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"parameters must be float32 or float64, which can be loaded again: {name} is "
                f"{value.dtype}; use .float() before saving"
            )
    write_tensors(path, network.state_dict(), {**header, "notes": dict(notes or {})}, kind)


def load(
    path: str | Path,
    *,
    nonlinearity: Nonlinearity | None = None,
    pathways: Mapping[str, Callable[..., AbstractModulation]] | None = None,
    device: torch.device | str | None = None,
) -> CTRNN:
    """Load a network that `save` wrote.

    Args:
        path: The file.
        nonlinearity: The callable, for a network that was built with one of the user's own.
        pathways: Class name -> class, for pathways of the user's own.
        device: Where to put the network.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is not a whole, unaltered network.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN, load, save
        >>> network = CTRNN(inputs=3, units=16, outputs=2, modulation="e-add", contexts=2)
        >>> save(network, "network.safetensors")
        >>> stimulus, context = torch.randn(2, 50, 3), torch.eye(2)
        >>> again = load("network.safetensors")(stimulus, context, generator=0)
        >>> torch.equal(again.outputs, network(stimulus, context, generator=0).outputs)
        True
    """
    tensors, header = read_tensors(path, "network")
    chain = _rebuilt(path, header["pathways"], pathways)
    config = dict(header["network"])
    if config["nonlinearity"] is None:
        if nonlinearity is None:
            raise CheckpointError(
                f"{path} was built with a nonlinearity of the user's own: pass nonlinearity=..."
            )
        config["nonlinearity"] = nonlinearity
    network = CTRNN(**config, modulation=chain, dtype=getattr(torch, header["dtype"]))
    network.variant = header["variant"]
    _fill(network, tensors, path)
    return network.to(device)


def load_layer(
    path: str | Path,
    *,
    pathways: Mapping[str, Callable[..., AbstractModulation]] | None = None,
    encoder: type[ContextEncoder] | None = None,
    device: torch.device | str | None = None,
) -> ModulatedRNN:
    """Load a modulated layer that `save` wrote.

    Args:
        path: The file.
        pathways: Class name -> class, for pathways of the user's own.
        encoder: The class of the encoder, for one of the user's own.
        device: Where to put the layer.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is not a whole, unaltered layer.

    Example:
        >>> import torch
        >>> from ctxrnn import ModulatedRNN, load_layer, save
        >>> layer = ModulatedRNN(10, 32, modulation="e-gain", contexts=4)
        >>> save(layer, "layer.safetensors")
        >>> sequences = torch.randn(100, 5, 10)  # (time, sequence, input)
        >>> torch.equal(load_layer("layer.safetensors")(sequences)[0], layer(sequences)[0])
        True
    """
    tensors, header = read_tensors(path, "layer")
    modulation: str | Chain = header["variant"]
    if header["pathways"] is not None:
        modulation = _rebuilt(path, header["pathways"], pathways)
    told = header["encoder"]
    kind = None if told is None else told["kind"]
    classes = {cls.__name__: cls for cls in (ContextEncoder, encoder) if cls is not None}
    if kind is not None and kind not in classes:
        raise CheckpointError(
            f"{path} uses the encoder {kind!r}, which is not known here: pass encoder={kind}"
        )
    if encoder is not None and kind != encoder.__name__:
        raise CheckpointError(
            f"{path} holds {f'the encoder {kind!r}' if kind else 'no encoder of its own'}: do not "
            f"pass encoder={encoder.__name__}"
        )
    # Initial values are replaced below; torch's global generator stays as it is.
    with torch.random.fork_rng(devices=[]):
        given = None if kind is None else classes[kind](**told["options"])
        layer = ModulatedRNN(
            modulation=modulation, encoder=given, dtype=getattr(torch, header["dtype"]),
            **header["layer"],
        )  # fmt: skip
    _fill(layer, tensors, path)
    return layer.to(device)


def _rebuilt(
    path: str | Path,
    pathways: list[dict[str, Any]],
    own: Mapping[str, Callable[..., AbstractModulation]] | None,
) -> Chain:
    known = {**PATHWAYS, **(own or {})}
    chain = []
    for pathway in pathways:
        if pathway["kind"] not in known:
            raise CheckpointError(
                f"{path} uses the pathway {pathway['kind']!r}, which is not known here: pass "
                f"pathways={{{pathway['kind']!r}: {pathway['kind']}}}"
            )
        # Their initial values are replaced; torch's global generator stays as it is.
        with torch.random.fork_rng(devices=[]):
            chain.append(known[pathway["kind"]](**pathway["options"]))
    return Chain(*chain)


def _fill(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    missing = set(module.state_dict()) ^ set(tensors)
    if missing:
        raise CheckpointError(f"{path} does not fit its own description: {sorted(missing)}")
    module.load_state_dict(tensors)


def load_notes(path: str | Path) -> dict[str, Any]:
    """Return the notes that were saved with a network or a layer.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is not a whole, unaltered network or layer.

    Example:
        >>> from ctxrnn import CTRNN, load_notes, save
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["go", "anti"], dt=50)
        >>> network = CTRNN(tasks.inputs, 16, tasks.outputs, "e-add", contexts=2, dt=50)
        >>> save(network, "network.safetensors", notes={"tasks": tasks.config()})
        >>> task_set(**load_notes("network.safetensors")["tasks"])
        TaskSet(go, anti; dt=50 ms, class)
    """
    return dict(read_tensors(path, "network", "layer")[1]["notes"])


def as_json(value: Any) -> Any:
    """Turn NumPy scalars and arrays, paths and tuples into JSON-able values."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | Tensor):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value
