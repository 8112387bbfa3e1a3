"""The commands `ctxrnn study ...`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from ctxrnn.studies._configured import described
from ctxrnn.studies._estimate import estimate
from ctxrnn.studies._progress import duration
from ctxrnn.studies._recipes import Recipe, from_file, from_settings, recipe, study, study_names
from ctxrnn.studies._results import ResultsFolder
from ctxrnn.studies._study import EXECUTORS, Study


def command(name: str) -> click.Command | None:
    """Return a command by its name: `status`, `export`, a study, or a file of the user's."""
    if name in ("status", "export"):
        return {"status": _status, "export": _export}[name]
    if name.endswith(".py"):
        return _study_command(name, None)
    return _study_command(name, recipe(name))


def _study_command(name: str, found: Recipe | None) -> click.Command:
    summary = f"Run the study in {name}." if found is None else found.summary
    default = "quick" if found is None or "quick" in found.scales else next(iter(found.scales))
    scales = "smoke, quick or paper" if found is None else ", ".join(found.scales)
    options = [
        click.Option(["--scale"], default=default, show_default=True, help=f"{scales}."),
        click.Option(
            ["--set", "assignments"], multiple=True, metavar="NAME=VALUE",
            help="Change a setting, e.g. --set seeds=3 --set train.steps=500. May be repeated.",
        ),
        click.Option(
            ["--out"], type=click.Path(path_type=Path),
            help="Results folder.  [default: results/NAME-SCALE]",
        ),
        click.Option(
            ["--executor"], default="local", show_default=True, help=f"{', '.join(EXECUTORS)}.",
        ),
        click.Option(["--address"], help="Address of a Ray cluster.  [default: start one here]"),
        click.Option(
            ["--gpus"], type=float, default=0.0, help="GPUs that each Ray worker reserves."
        ),
        click.Option(
            ["--workers"], type=int, help="Processes, one thread each.  [default: one per core]"
        ),
        click.Option(
            ["--dry-run"], is_flag=True, help="Print the cells, the time and the memory; run none."
        ),
    ]  # fmt: skip
    if found is not None and hasattr(found.settings(default), "data_dir"):
        told = "Folder of the data set (docs/images.md).  [default: the usual place]"
        options.insert(2, click.Option(["--data"], metavar="DIR", help=told))
    epilog = f"Example: ctxrnn study {name} --scale smoke --out results/first"
    return _StudyCommand(
        name, params=options, help=summary, epilog=epilog, found=found,
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip


class _StudyCommand(click.Command):
    """One study; its help lists its settings."""

    def __init__(self, study_name: str, *, found: Recipe | None, **arguments: Any) -> None:
        super().__init__(study_name, callback=self._run, **arguments)
        self.study_name, self.found = study_name, found

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the settings before the example."""
        if self.found is not None:
            scale = "quick" if "quick" in self.found.scales else next(iter(self.found.scales))
            rows = [(path, _short(value)) for path, value in described(self.found.scales[scale])]
            with formatter.section(f"Settings (--set), as at scale {scale}"):
                formatter.write_dl(rows)
        super().format_epilog(ctx, formatter)

    def _run(
        self,
        scale: str,
        assignments: tuple[str, ...],
        out: Path | None,
        executor: str,
        address: str | None,
        gpus: float,
        workers: int | None,
        dry_run: bool,
        data: str | None = None,
    ) -> None:
        if data is not None:
            assignments = (*assignments, f"data_dir={json.dumps(data)}")
        chosen = study(self.study_name, scale, assignments)
        if dry_run:
            missing = ""
            try:
                chosen.check_device(executor)
            except (FileNotFoundError, ImportError) as error:
                missing = " ".join(str(error).split())
            click.echo(estimate(chosen, workers))
            if missing:
                click.echo(f"cannot run yet: {missing}", err=True)
            return
        folder = out or Path("results") / f"{chosen.name}-{scale}"
        told = shlex.join(["ctxrnn", *sys.argv[1:]])
        table = chosen.run(
            folder,
            executor=executor,
            workers=workers,
            address=address,
            gpus=gpus,
            command=told,
        )
        _tell(chosen, folder, len(table))


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) < 60 else text[:57] + "..."


def _tell(chosen: Study, folder: Path, cells: int) -> None:
    findings = folder / "findings.txt"
    if findings.exists():
        click.echo(findings.read_text(encoding="utf-8"), nl=False)
    click.echo(f"{cells} cells; tables, figures and networks in {folder}")
    with ResultsFolder(folder).store() as store:
        failed = store.counts()["failed"]
    if failed:
        raise RuntimeError(
            f"{failed} cells failed, the others are kept: `ctxrnn study status {folder}` tells "
            "why; the same command tries them again"
        )


@click.command(epilog="Example: ctxrnn study status results/packing-quick")
@click.argument("folder", type=click.Path(path_type=Path))
def _status(folder: Path) -> None:
    """Tell how far a study is: cells done, failed and left, and who writes to the folder."""
    results = ResultsFolder(folder)
    settings = results.settings()
    with results.store() as store:
        rows, runs = store.rows(), store.runs()
    counts = dict.fromkeys(("done", "failed", "planned"), 0)
    for row in rows:
        counts[row.status] += 1
    user = results.in_use()
    seconds = sum(row.seconds for row in rows)
    click.echo(f"study     {settings.get('study')}")
    click.echo(
        f"cells     {counts['done']} done, {counts['failed']} failed, {counts['planned']} left"
    )
    click.echo(f"time      {duration(seconds)} of one core; {len(runs)} runs")
    click.echo(f"running   {f'yes, {user}' if user else 'no'}")
    half = len(list((folder / "training").glob("*.training")))
    if half:
        click.echo(f"half done {half} networks, which go on where they were")
    for row in rows:
        if row.status == "failed":
            told = ", ".join(f"{name}={value}" for name, value in row.cell.items())
            click.echo(f"failed    {told}: {row.error.splitlines()[0]}")
    if not user and counts["planned"] + counts["failed"] and runs:
        click.echo(f"go on     {_again(str(runs[-1].get('command')), folder)}")


def _again(told: str, folder: Path) -> str:
    """Return the command of the last run, with the folder where it is now."""
    words = shlex.split(told) if told.startswith("ctxrnn ") else []
    if "--out" not in words[:-1]:
        return told
    words[words.index("--out") + 1] = str(folder)
    return shlex.join(words)


@click.command(epilog="Example: ctxrnn study export results/packing-quick")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--file", type=click.Path(path_type=Path), help="The file of a study of your own.")
@click.option("--scale", default="quick", help="Its scale, if it is a function of the scale.")
def _export(folder: Path, file: Path | None, scale: str) -> None:
    """Write tables (Parquet, CSV), figures and findings again from the records of a folder."""
    settings = ResultsFolder(folder).settings()
    if file is not None:
        chosen = from_file(file, scale)
    elif settings.get("study") in (*study_names(), "reproduce"):
        chosen = from_settings(settings)
    else:
        raise ValueError(
            f"{folder} holds {settings.get('study')!r}, a study of your own: give its --file"
        )
    tables = chosen.export(folder)
    for name, table in tables.items():
        click.echo(f"{folder / name}.csv, .parquet: {len(table)} rows")
