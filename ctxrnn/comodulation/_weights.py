"""Weights of torchvision's ResNet-18 from files, which may be missing, damaged or another's."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ctxrnn._checkpoint import CheckpointError

IMAGENET = "imagenet"


def load_pretrained(network: nn.Module, weights: str) -> None:
    """Load weights into torchvision's resnet18.

    Args:
        network: The network.
        weights: "imagenet" (in torchvision's cache), or the path of a safetensors file.

    Raises:
        FileNotFoundError: If the file is missing.
        CheckpointError: If it is damaged, or holds another network's.
    """
    path, found, remedy = _pretrained(weights)
    wrong = _misfit(found, network.state_dict())
    if wrong:
        raise CheckpointError(
            f"{path} does not hold weights of torchvision's ResNet-18: {wrong}. {remedy}"
        )
    network.load_state_dict(found)


def _pretrained(weights: str) -> tuple[Path, dict[str, Tensor], str]:
    """Read a state dict of torchvision's resnet18, from its cache or a safetensors file.

    Returns:
        The file, what it holds, and what to do if that does not fit.
    """
    if weights != IMAGENET:
        path = Path(weights)
        if not path.is_file():
            raise FileNotFoundError(
                f"no weights at {weights}: check the path, or weights='imagenet'"
            )
        remedy = (
            "Write the state dict of torchvision's resnet18 again with "
            "safetensors.torch.save_file, or use weights='imagenet'"
        )
        return path, _read(path, _safetensors, "a safetensors file", remedy), remedy
    from torchvision.models import ResNet18_Weights

    name = str(ResNet18_Weights.IMAGENET1K_V1.url).rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        raise FileNotFoundError(
            f"ImageNet weights of ResNet-18 are not here: {path} is missing. Let torchvision "
            "download them once (resnet18(weights='IMAGENET1K_V1')), or train from random weights "
            "(weights=None) and say so"
        )
    remedy = "Remove the file and let torchvision download it again"
    return path, _read(path, _pth, "a file of torch.save", remedy), remedy


def _safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def _pth(path: Path) -> Any:
    with warnings.catch_warnings():
        # What is odd about a file is told by the error, in a line.
        warnings.simplefilter("ignore")
        # Tensors alone: other pickles could run code.
        return torch.load(path, map_location="cpu", weights_only=True)


def _read(path: Path, reader: Callable[[Path], Any], kind: str, remedy: str) -> dict[str, Tensor]:
    """Read a state dict, or say in a line that the file is damaged."""
    from safetensors import SafetensorError

    damaged = (
        SafetensorError, pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError,
        KeyError, IndexError, TypeError, AttributeError, ImportError,
    )  # fmt: skip
    try:
        return dict(reader(path))
    except PermissionError:
        raise
    except damaged as error:
        raise CheckpointError(f"{path} is damaged, or not {kind}. {remedy}") from error


def _misfit(weights: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> str:
    """Say what keeps weights from being loaded; nothing if they fit."""
    for name, value in wanted.items():
        if name not in weights:
            # Older files lack the count of batches, which nothing here uses.
            if name.endswith("num_batches_tracked"):
                continue
            return f"{name} is missing"
        found = weights[name]
        if not isinstance(found, Tensor):
            return f"{name} is a {type(found).__name__}, not a tensor"
        if found.shape != value.shape:
            return f"{name} has shape {tuple(found.shape)}, not {tuple(value.shape)}"
        if not bool(found.isfinite().all()):
            return f"{name} holds NaN or infinite numbers"
    more = [str(name) for name in weights if name not in wanted]
    return f"{more[0]} is not of this network" if more else ""
