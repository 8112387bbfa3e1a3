"""The standard analysis of one trained network: figures, tables and a page."""

from __future__ import annotations

import contextlib
import html
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn import CTRNN, load, load_notes
from ctxrnn._checkpoint import versions, write_atomically
from ctxrnn._checks import check_count, unknown_name
from ctxrnn._threads import limited
from ctxrnn.studies._desk import stops
from ctxrnn.studies._page import figure_of, page_of, scrolling, table_of
from ctxrnn.studies._results import ResultsFolder

if TYPE_CHECKING:
    import pandas as pd

    from ctxrnn.studies._analyse_view import Part, View
    from ctxrnn.tasks import TaskSet

logger = logging.getLogger(__name__)

_ABOUT = "analysis.json"
_MOST_PAIRS = 4


def analyse(
    network: CTRNN | str | Path,
    tasks: TaskSet | None = None,
    folder: str | Path | None = None,
    *,
    trials: int = 64,
    starts: int = 64,
    pairs: Sequence[tuple[str, str]] | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Path:
    """Take a trained network apart: behaviour, fixed points, geometry, units, weights.

    Computed by one thread: the matrices are small. A part that fails is told, with a warning and
    on the page, and the others go on.

    Args:
        network: The network, or the file that it was saved in; it is not changed.
        tasks: Its tasks, task k with context e_k; None takes those noted in the file.
        folder: Where to write; None for `results/analyse-NAME`. A folder of an earlier analysis is
            overwritten, one that holds other things refused.
        trials: Trials per task.
        starts: Starts of the search for fixed points in each context.
        pairs: Pairs of tasks between whose contexts fixed points are followed; None takes up to
            four whose stimuli are the same while their answers differ, else the first ones.
        seed: Seed of trials and starts.
        progress: Whether to show progress; None shows it on a terminal.

    Returns:
        The folder: report.html, tables (Parquet, CSV), figures/ (PDF, PNG).

    Raises:
        ValueError: If the tasks are not known or do not fit, or the folder holds other things.
        OSError: If a file cannot be read or written.

    Example:
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.studies import analyse
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set("go", dt=50, ring=8)
        >>> network = CTRNN(tasks.inputs, 8, tasks.outputs, dt=50)  # in earnest a trained one
        >>> folder = analyse(network, tasks, "analysis", trials=4, starts=4)
        >>> (folder / "report.html").exists(), (folder / "fixed_points.csv").exists()
        (True, True)
    """
    from threadpoolctl import threadpool_limits
    from tqdm import tqdm

    from ctxrnn.analysis import plots
    from ctxrnn.studies._analyse_parts import PARTS, View

    check_count("trials", trials, minimum=4)
    check_count("starts", starts)
    name = "network"
    if not isinstance(network, CTRNN):
        name, path = Path(network).stem, Path(network)
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name the files of networks in it{_within(path)}")
        network = load(path)
        tasks = _noted_tasks(path) if tasks is None else tasks
    if tasks is None:
        raise ValueError("tasks must be given for a network that does not come from a file")
    _check_fit(network, tasks)
    chosen = _pairs(tasks, pairs)
    results = ResultsFolder(Path("results") / f"analyse-{name}" if folder is None else folder)
    _claim(results.path, name)
    with limited(), threadpool_limits(1):
        view = View(network, tasks, trials=trials, starts=starts, pairs=chosen, seed=seed)
    page = [f"<h1>{html.escape(name)}</h1>", _about(network, view)]
    wanted = [part for part in PARTS if view.modulated or not part[2]]
    shown = None if progress is None else not progress
    with (
        limited(),
        threadpool_limits(1),
        plots.style(),
        tqdm(wanted, disable=shown, unit="part", leave=False) as bar,
    ):
        for label, function, _ in bar:
            bar.set_description(label)
            try:
                page += _written(results, label, function(view))
            except Exception as error:
                if stops(error):
                    raise
                told = f"{type(error).__name__}: {' '.join(str(error).split())}"
                logger.debug("traceback", exc_info=True)
                warnings.warn(f"{label} was left out: {told}", stacklevel=2)
                page.append(f"<h2>{label}</h2><p>Left out: {html.escape(told)}</p>")
    if not view.modulated:
        page.append("<p>Without contexts there is nothing to follow or compare between them.</p>")
    made = ", ".join(f"{key} {value}" for key, value in versions().items())
    page.append(
        f"<p>Seed {seed}, {trials} trials per task, {starts} starts per context; "
        f"{html.escape(made)}. Tables beside this page, figures as PDF and PNG in "
        "<code>figures/</code>.</p>"
    )
    write_atomically(results.path / "report.html", page_of(name, page).encode())
    return results.path


def _within(folder: Path) -> str:
    """Return where the networks of a results folder are, as an example."""
    for place in (folder, folder / "networks"):
        if next(place.glob("*.safetensors"), None) is not None:
            return f", such as {place}/*.safetensors"
    return ""


def analyse_each(
    networks: Sequence[Path], tasks: TaskSet | None = None, out: Path | None = None, **options: Any
) -> Iterator[tuple[Path | None, str]]:
    """Analyse several networks one after another, each into a folder of its own.

    Args:
        networks: Their files.
        tasks: See `analyse`.
        out: The folder of a single network, or the one in which those of several are made; None for
            `results/analyse-NAME` each.
        options: See `analyse`.

    Yields:
        Of each network its folder, or None and why it could not be analysed. The error of a single
        one is raised.
    """
    for path, folder in zip(networks, _folders(networks, out), strict=True):
        try:
            found = analyse(path, tasks, folder, **options)
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            if len(networks) == 1 or stops(error):
                raise
            # Most errors name the file themselves.
            told = " ".join(str(error).split())
            yield None, told if str(path) in told else f"{path}: {told}"
        else:
            yield found, ""


def _folders(networks: Sequence[Path], out: Path | None) -> list[Path | None]:
    """Return where each network's analysis goes; None for the default of a single one."""
    if len(networks) == 1:
        return [out]
    names = [path.stem for path in networks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"networks must have different file names, as their folders are called after them: got "
            f"{twice} twice; analyse them apart, with --out"
        )
    return [(out or Path("results")) / f"analyse-{name}" for name in names]


def _noted_tasks(path: str | Path) -> TaskSet:
    from ctxrnn.tasks import task_set

    notes = load_notes(path)
    if not isinstance(notes.get("tasks"), dict):
        raise ValueError(
            f"{path} does not note the tasks of its network: name them (--tasks go,anti --dt 50 "
            "--ring 8; in Python, tasks=task_set(...)), or save it with "
            'notes={"tasks": tasks.config()}'
        )
    return task_set(**notes["tasks"])


def _check_fit(network: CTRNN, tasks: TaskSet) -> None:
    for what, ours, theirs in (
        ("inputs", network.inputs, tasks.inputs),
        ("outputs", network.outputs, tasks.outputs),
        ("contexts", network.contexts or len(tasks.names), len(tasks.names)),
    ):
        if ours != theirs:
            raise ValueError(
                f"the tasks do not fit the network: it has {ours} {what}, they have {theirs}; give "
                "the tasks, dt and ring that it was trained with"
            )


def _pairs(tasks: TaskSet, pairs: Sequence[tuple[str, str]] | None) -> tuple[tuple[str, str], ...]:
    if pairs is None:
        found = list(tasks.twins) or list(zip(tasks.names[:-1], tasks.names[1:], strict=True))
        return tuple(found[:_MOST_PAIRS])
    for pair in pairs:
        for task in pair:
            if task not in tasks.names:
                raise unknown_name("task", task, tasks.names)
        if len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(f"a pair must be two different tasks: got {tuple(pair)}")
    return tuple((a, b) for a, b in pairs)


def _claim(path: Path, name: str) -> None:
    """Make the folder ours, unless it holds what is not an analysis."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file: choose a folder with --out")
    if path.is_dir() and any(path.iterdir()) and not (path / _ABOUT).exists():
        raise ValueError(f"{path} holds other things: choose another folder with --out")
    (path / "figures").mkdir(parents=True, exist_ok=True)
    write_atomically(path / _ABOUT, json.dumps({"network": name}).encode())


def _about(network: CTRNN, view: View) -> str:
    kind = network.nonlinearity_name or "own nonlinearity"
    return (
        f"<p>{html.escape(str(network.variant))}, N = {network.units}, {html.escape(str(kind))}, "
        f"{network.form} form, dt {network.dt:g} ms; {len(view.names)} tasks: "
        f"{html.escape(', '.join(view.names))}.</p>"
    )


def _written(results: ResultsFolder, label: str, part: Part) -> list[str]:
    """Write tables and figure of a part; return its section of the page."""
    from ctxrnn.analysis import plots

    section = [f"<h2>{html.escape(part.title)}</h2>"]
    for name, table in part.tables.items():
        results.write_table(name, table)
    if part.figure is not None:
        plots.save_figure(part.figure, results.path / "figures" / label)
        image = results.path / "figures" / f"{label}.png"
        section.append(figure_of(image, part.title, html.escape(part.caption)))
    else:
        section.append(f"<p>{html.escape(part.caption)}</p>")
    if part.shown is not None:
        section.append(scrolling(_html(part.tables[part.shown])))
    return section


def _html(table: pd.DataFrame) -> str:
    def cell(value: Any) -> str:
        with contextlib.suppress(TypeError, ValueError):
            if isinstance(value, float | np.floating):
                return f"{value:.3g}"
        return html.escape(str(value))

    rows = [[cell(value) for value in row] for row in table.itertuples(index=False)]
    return table_of([html.escape(str(column)) for column in table.columns], rows)
