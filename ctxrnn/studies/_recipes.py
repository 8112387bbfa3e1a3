"""The studies that come with the package, by name and scale; a user's study from a file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxrnn._checks import unknown_name
from ctxrnn.studies._configured import changed, from_dict
from ctxrnn.studies._study import Study

SCALE_NAMES = ("smoke", "quick", "paper")


@dataclass(frozen=True)
class Recipe:
    """A study with its settings at several scales.

    Attributes:
        build: From settings to the study.
        scales: Name of a scale -> settings, a frozen dataclass.
        summary: What it does, in one line.
    """

    build: Callable[[Any], Study]
    scales: Mapping[str, Any]
    summary: str

    def at(self, scale: str, assignments: Sequence[str] = ()) -> Study:
        """Return the study at a scale with some settings changed (`name=value`)."""
        return self.build(changed(self.settings(scale), assignments))

    def settings(self, scale: str) -> Any:
        """Return the settings of a scale.

        Raises:
            ValueError: For an unknown scale.
        """
        if scale not in self.scales:
            raise unknown_name("scale", scale, self.scales)
        return self.scales[scale]


_PLACES = {
    "learning": "ctxrnn.studies._learning",
    "ambiguity": "ctxrnn.studies._ambiguity",
    "packing": "ctxrnn.studies._packing",
    "load": "ctxrnn.studies._load",
    "synergy": "ctxrnn.studies._synergy",
    "timescales": "ctxrnn.studies._timescales",
    "language": "ctxrnn.studies._language",
    "sequential-images": "ctxrnn.studies._sequential_images",
    "comodulation-encoding": "ctxrnn.studies._comodulation_encoding",
    "comodulation-fewshot": "ctxrnn.studies._comodulation_fewshot",
    "comodulation-celeba": "ctxrnn.studies._comodulation_celeba",
    "comodulation-cifar": "ctxrnn.studies._comodulation_cifar",
    "comodulation-architecture": "ctxrnn.studies._comodulation_architecture",
}


def study_names() -> tuple[str, ...]:
    """Return the names of the studies that come with the package.

    Example:
        >>> from ctxrnn.studies import study_names
        >>> study_names()[:4]
        ('learning', 'ambiguity', 'packing', 'load')
    """
    return tuple(_PLACES)


def recipe(name: str) -> Recipe:
    """Return a study that comes with the package.

    Raises:
        ValueError: For an unknown name.
    """
    if name not in _PLACES:
        raise unknown_name("study", name, _PLACES)
    found: Recipe = importlib.import_module(_PLACES[name]).RECIPE
    return found


def study(name: str | Path, scale: str = "quick", assignments: Sequence[str] = ()) -> Study:
    """Return a study by its name, or one of the user's own from a Python file.

    Args:
        name: Name of a study, or path of a file that defines `study`: a `Study`, or a function
            that returns one given the scale.
        scale: "smoke", "quick" or "paper".
        assignments: `name=value` each, to change settings.

    Raises:
        ValueError: For unknown names, scales or settings.
        FileNotFoundError: If there is no such file.

    Example:
        >>> from ctxrnn.studies import study
        >>> packing = study("packing", "smoke")
        >>> packing.question
        'How many tasks fit into N units, with each pathway and with both?'
        >>> learning = study("learning", "smoke", ["variants=none,s-sym", "seeds=1"])
        >>> [cell["variant"] for cell in learning.cells()]
        ['none', 's-sym']
    """
    if Path(name).suffix == ".py":
        return from_file(Path(name), scale).changed(assignments)
    return recipe(str(name)).at(scale, assignments)


def from_file(path: Path, scale: str) -> Study:
    """Return the `study` that a Python file defines."""
    import cloudpickle

    if not path.is_file():
        raise FileNotFoundError(f"no study at {path}: check the path")
    name = f"study_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Modules beside it can be imported, here and in workers, as in any script.
    beside = str(path.resolve().parent)
    if beside not in sys.path:
        sys.path.append(beside)
    spec.loader.exec_module(module)
    # Workers have no such module: its functions travel with the study.
    cloudpickle.register_pickle_by_value(module)
    found = getattr(module, "study", None)
    if callable(found) and not isinstance(found, Study):
        if scale not in SCALE_NAMES:
            raise unknown_name("scale", scale, SCALE_NAMES)
        found = found(scale)
    if not isinstance(found, Study):
        raise ValueError(
            f"{path} must define `study`, a ctxrnn.studies.Study or a function of the scale that "
            f"returns one: got {type(found).__name__}"
        )
    return found


def from_settings(settings: Mapping[str, Any]) -> Study:
    """Rebuild a study that comes with the package from a folder's settings."""
    values = dict(settings)
    name = values.pop("study", None)
    if name == "reproduce":
        from ctxrnn.studies._reproduce import ReproduceSettings, reproduce_study

        return reproduce_study(from_dict(ReproduceSettings, values))
    found = recipe(str(name))
    kind = type(next(iter(found.scales.values())))
    return found.build(from_dict(kind, values))
