"""What `ctxrnn doctor` looks at once torch is loaded: this machine, data sets, folders, speed."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from ctxrnn import _kernel
from ctxrnn._cli_doctor import Check
from ctxrnn._threads import VARIABLE as THREADS
from ctxrnn._threads import available_threads
from ctxrnn.comodulation import _local
from ctxrnn.studies._doctor_data import VARIABLE as DATA
from ctxrnn.studies._doctor_data import data_folder, data_sets
from ctxrnn.studies._doctor_speed import SECONDS, speed

_LEAST_DISK, _LEAST_MEMORY = 1e9, 1e9
_CGROUP = Path("/sys/fs/cgroup")


def examine(*, quick: bool, results: Path, data: Path | None) -> Iterator[Check]:
    """Make all checks, one after another; one that fails is itself a finding.

    Args:
        quick: Leave out the speed check.
        results: Folder that results are to go to.
        data: Folder of data sets, or None for the usual one.
    """
    checks: list[tuple[str, str, Callable[[], Iterator[Check]]]] = [
        ("Machine", "compiled loops", compiled_loops),
        ("Machine", "threads", threads),
        ("Machine", "memory", memory),
        ("Machine", "GPU", gpu),
        ("Data", "data sets", partial(data_sets, data)),
        ("Folders", "results folder", partial(results_folder, results)),
        ("Folders", "data folder", partial(images_folder, data)),
    ]
    if not quick:
        checks.append(("Speed", "training", partial(speed, SECONDS)))
    for group, what, check in checks:
        try:
            yield from check()
        except Exception as error:
            told = f"{type(error).__name__}: {' '.join(str(error).split())}"
            remedy = "a bug, or a broken installation: report it with the output of --json"
            yield Check(group, what, told, "broken", remedy)


def compiled_loops() -> Iterator[Check]:
    """Tell which compiled files are loaded, and how to get them."""
    notes: list[str] = []
    keeper = logging.Handler()
    keeper.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ctxrnn")
    before, logger.handlers = logger.handlers, [keeper]
    try:
        found = [_kernel.library(), _local.library()]
    finally:
        logger.handlers = before
    names = [Path(str(one._name)).name.split(".")[0] for one in found if one is not None]
    told = ", ".join(names) or "none: the loops in torch do the same work, several times slower"
    values = {"loaded": names, "notes": notes}
    if all(one is not None for one in found):
        yield Check("Machine", "compiled loops", told, values=values)
        return
    variable = os.environ.get("CTXRNN_KERNEL")
    if variable:
        told = f"left out by CTXRNN_KERNEL={variable}"
        remedy = "unset CTXRNN_KERNEL, unless that is what you want"
    elif notes:
        told = f"{told} ({'; '.join(notes)})"
        remedy = "install ctxrnn again (in a checkout: pip install -e .)"
    elif any(map(shutil.which, ("cc", "gcc", "clang"))):
        remedy = "install ctxrnn again: pip install -v -e . shows what the compiler says"
    else:
        remedy = "install a C compiler (e.g. apt install gcc), then ctxrnn again: docs/speed.md"
    yield Check("Machine", "compiled loops", told, "doubtful", remedy, values)


def threads() -> Iterator[Check]:
    """Tell how many threads are used, and how many cores there are."""
    total = os.cpu_count() or 1
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    quota = _quota()
    told = f"{total}" if mine == total else f"{mine} of {total} may be used"
    if quota is not None and quota < mine:
        told += f"; this container may use {quota:g} at a time"
    yield Check("Machine", "cores", told, values={"all": total, "mine": mine, "quota": quota})
    given = os.environ.get(THREADS)
    try:
        count = available_threads()
    except ValueError as error:
        remedy = f"export {THREADS}={mine}, or unset it"
        yield Check("Machine", "threads", str(error), "broken", remedy)
        return
    told = f"{count} ({THREADS} is {'not set' if given is None else given})"
    values = {"threads": count, "torch": torch.get_num_threads()}
    most = mine if quota is None else min(mine, max(1, round(quota)))
    if count > most:
        told += f", more than the {most} cores"
        remedy = f"export {THREADS}={most}: more threads than cores slow each other down"
        yield Check("Machine", "threads", told, "doubtful", remedy, values)
    else:
        yield Check("Machine", "threads", told, values=values)


def _quota() -> float | None:
    """Return how many cores a container may use at a time, where that is limited."""
    try:
        limit, period = (_CGROUP / "cpu.max").read_text().split()
        return int(limit) / int(period)
    except (OSError, ValueError):
        return None


def memory() -> Iterator[Check]:
    """Tell how much memory there is, and is free."""
    sizes = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, value = line.split(":")
            sizes[name] = int(value.split()[0]) * 1024
    except (OSError, ValueError):
        yield Check("Machine", "memory", "unknown on this system", "absent")
        return
    total, free = sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        total, free = min(total, limit), min(free, max(0, limit - used))
    except (OSError, ValueError):
        pass
    told, values = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free", {"all": total, "free": free}
    if free < _LEAST_MEMORY:
        remedy = "end other programs, or use fewer --workers: each takes about 0.5 GB"
        yield Check("Machine", "memory", told, "doubtful", remedy, values)
    else:
        yield Check("Machine", "memory", told, values=values)


def gpu() -> Iterator[Check]:
    """Tell which GPUs torch sees; none is fine."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        except (RuntimeError, AssertionError) as error:
            caught, names = [], []
            notes = [" ".join(str(error).split())]
        else:
            notes = [" ".join(str(one.message).split())[:120] for one in caught]
    built = torch.version.cuda
    values = {"names": names, "cuda": built, "notes": notes}
    if names:
        told = f"{', '.join(names)} (CUDA {built})"
        yield Check("Machine", "GPU", told, values=values)
        return
    why = f"torch is built for CUDA {built}" if built else "torch is built without CUDA"
    told = f"none ({'; '.join([why, *notes])}); none is needed"
    yield Check("Machine", "GPU", told, "absent", values=values)


def results_folder(folder: Path) -> Iterator[Check]:
    """Tell whether results can be written, and how much space there is."""
    error = not_writable(folder)
    if error is not None:
        told = f"{folder} cannot be written: {error}"
        remedy = "start ctxrnn in a folder of your own, or choose one with --out"
        yield Check("Folders", "results folder", told, "broken", remedy)
        return
    there = "can be written" if folder.is_dir() else "can be made"
    yield Check("Folders", "results folder", f"{folder} {there}")
    free = shutil.disk_usage(_existing(folder)).free
    told, values = f"{free / 1e9:.1f} GB free for results", {"free": free}
    if free < _LEAST_DISK:
        remedy = "free some space, or choose a folder on another disk with --out"
        yield Check("Folders", "disk", told, "doubtful", remedy, values)
    else:
        yield Check("Folders", "disk", told, values=values)


def images_folder(data: Path | None) -> Iterator[Check]:
    """Tell where data sets are looked for, and whether more can be put there."""
    folder = data_folder(data)
    named = "--data" if data is not None else DATA if os.environ.get(DATA) else ""
    told = f"{folder} ({named})" if named else f"{folder} ({DATA} is not set)"
    if not folder.is_dir():
        remedy = f"make it, or name another with {DATA}" if named else ""
        state = "doubtful" if named else "absent"
        told += ": no such folder" + ("" if named else "; needed for data sets in files only")
        yield Check("Folders", "data folder", told, state, remedy)  # type: ignore[arg-type]
        return
    error = not_writable(folder)
    told += " can be read and written" if error is None else ": read only"
    yield Check("Folders", "data folder", told, values={"writable": error is None})


def not_writable(folder: Path) -> str | None:
    """Return why a file cannot be written to a folder, made first if need be; None if it can.

    Nothing stays behind.
    """
    place = _existing(folder)
    if not place.is_dir():
        return f"{place} is a file"
    try:
        with tempfile.TemporaryDirectory(prefix=".ctxrnn-", dir=place) as made:
            (Path(made) / "file").write_bytes(b"written")
    except OSError as error:
        return error.strerror or str(error)
    return None


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    place = folder.expanduser().absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place
