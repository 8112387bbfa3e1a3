"""The command `ctxrnn`. Imports what it needs only when it needs it."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import threading
from pathlib import Path

import click


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="Start with: ctxrnn reproduce --scale quick",
)
@click.version_option(package_name="ctxrnn", message="%(version)s")
@click.option("--debug", is_flag=True, help="Show the full traceback of an error.")
def app(debug: bool) -> None:
    """Train and compare context-modulated recurrent networks on many cognitive tasks."""
    logger = logging.getLogger("ctxrnn")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler())


@app.command(epilog="Example: ctxrnn reproduce --scale quick --out results/first")
@click.option(
    "--scale",
    default="quick",
    help="smoke (under a minute; learns nothing) or quick (about two minutes on 2 cores).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Results folder.  [default: results/reproduce-SCALE]",
)
@click.option("--seeds", type=int, help="Networks per mechanism.  [default: as the scale says]")
@click.option("--workers", type=int, help="Processes, one thread each.  [default: one per core]")
def reproduce(scale: str, out: Path | None, seeds: int | None, workers: int | None) -> None:
    """Train and compare mechanisms: many tasks, ambiguous contexts, dynamics.

    Trains networks without context and with excitability, synaptic and combined modulation on
    neurogym tasks at equal parameter counts; measures accuracy, clean and with mixed contexts, and
    what the contexts do to the dynamics; writes networks, records
    (Parquet, CSV), figures (PDF, PNG) and report.html into one folder. Stopped at any moment, the
    same command goes on where it was.
    """
    import dataclasses

    from ctxrnn._checks import unknown_name
    from ctxrnn.studies import SCALES
    from ctxrnn.studies import reproduce as run

    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    settings = SCALES[scale]
    if seeds is not None:
        settings = dataclasses.replace(settings, seeds=seeds)
    folder = run(
        settings,
        out or Path("results") / f"reproduce-{scale}",
        workers=workers,
        command=shlex.join(["ctxrnn", *sys.argv[1:]]),
    )
    click.echo(f"report: {folder / 'report.html'}")


class _Studies(click.Group):
    """The studies by name; imported only when one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the studies and of the commands on results folders."""
        from ctxrnn.studies._command import command_names

        return command_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a study or a command; an unknown name is an error that lists the known ones."""
        from ctxrnn.studies._command import command

        return command(cmd_name)


@app.group(
    cls=_Studies,
    epilog="Examples: ctxrnn study packing --scale quick; ctxrnn study packing --help; "
    "ctxrnn study my_study.py; ctxrnn study status results/packing-quick",
)
def study() -> None:
    """Run a study: a grid of networks, trained, measured, drawn; resumable.

    Stopped at any moment, the same command goes on where it was. A study of your own is a Python
    file; docs/studies.md shows one.
    """


@app.command(epilog="Example: ctxrnn analyse results/reproduce-quick/networks/s-sym_*.safetensors")
@click.argument("networks", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder; of several networks, the one that theirs are made in.  "
    "[default: results/analyse-NAME]",
)
@click.option("--trials", default=64, help="Trials per task.")
@click.option("--starts", default=64, help="Starts of the search for fixed points per context.")
@click.option("--pairs", help="Contexts between which points are followed: go:anti,dms:dnms.")
@click.option("--tasks", "names", help="Tasks, if the file does not note them: go,anti,dms.")
@click.option("--dt", default=20.0, help="Time step of --tasks in ms.")
@click.option("--ring", default=16, help="Units of each stimulus ring of --tasks.")
@click.option("--seed", default=0, help="Seed of trials and starts.")
def analyse(
    networks: tuple[Path, ...],
    out: Path | None,
    trials: int,
    starts: int,
    pairs: str | None,
    names: str | None,
    dt: float,
    ring: int,
    seed: int,
) -> None:
    """Take trained networks apart: what do their contexts do to their dynamics?

    Writes figures (PDF, PNG), tables (Parquet, CSV) and report.html: accuracy and psychometric
    curves, trajectories, fixed points with the stimulus off and in each epoch, how they move
    between contexts beside the choices there, subspaces, tangling, deformation of the flow, units,
    lesions and weights. NETWORKS are files written by `ctxrnn.save`, a study or `reproduce`; of
    several, each gets a folder of its own.
    """
    from ctxrnn.studies._analyse import analyse_each
    from ctxrnn.tasks import task_set

    tasks = None if names is None else task_set(names.split(","), dt=dt, ring=ring)
    chosen = None
    if pairs is not None:
        parted = [pair.split(":") for pair in pairs.split(",")]
        if any(len(pair) != 2 for pair in parted):
            raise ValueError(f"--pairs must look like go:anti,dms:dnms: got {pairs}")
        chosen = [(a, b) for a, b in parted]
    failed = []
    for folder, told in analyse_each(
        networks, tasks, out, trials=trials, starts=starts, pairs=chosen, seed=seed
    ):
        if folder is None:
            failed.append(told)
        else:
            click.echo(f"report: {folder / 'report.html'}")
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(networks)} networks could not be analysed: {'; '.join(failed)}"
        )


@app.command(epilog="Example: ctxrnn models --units 64 --contexts 20")
@click.option("--units", default=48, help="N.")
@click.option("--inputs", default=17, help="I.")
@click.option("--outputs", default=9, help="O.")
@click.option("--contexts", default=10, help="K.")
def models(units: int, inputs: int, outputs: int, contexts: int) -> None:
    """List the pathway variants, their equations and their parameter counts."""
    from ctxrnn import VARIANTS, parameter_count

    examples = {"e-rankR": "e-rank2", "es-*": "es-add-sym"}
    click.echo(f"{'id':<12}{'parameters':>10}  {'meaning':<46}form")
    for variant in VARIANTS:
        name = examples.get(variant.id, variant.id.replace("-R", "-1"))
        count = parameter_count(
            name, units=units, inputs=inputs, outputs=outputs, contexts=contexts
        )
        click.echo(f"{name:<12}{count:>10}  {variant.meaning:<46}{variant.form}")
    click.echo(
        f"\nParameters at N={units}, I={inputs}, O={outputs}, K={contexts}. Ranks are free: "
        "s-asym-2, e-rank8. Combine any e-* with any s-*: es-gain-asym-2."
    )


@app.command(epilog="Example: ctxrnn tasks --dt 50 --ring 8")
@click.option("--dt", default=20.0, help="Time step in ms.")
@click.option("--ring", default=16, help="Units of each stimulus ring.")
def tasks(dt: float, ring: int) -> None:
    """List the tasks: sizes, trial lengths in ms, chance and ceiling."""
    from ctxrnn.tasks import list_tasks

    click.echo(list_tasks(dt=dt, ring=ring).to_string(index=False, float_format="{:.3f}".format))


@app.command()
def version() -> None:
    """Print the version."""
    import importlib.metadata

    click.echo(importlib.metadata.version("ctxrnn"))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status.

    Errors that a user can mend take one line on stderr; `--debug` shows the traceback.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if arguments is None:
        _end_like_ctrl_c()
    try:
        result = app.main(args=given, prog_name="ctxrnn", standalone_mode=False)
    except KeyboardInterrupt as stop:
        return _stopped(str(stop))
    except click.Abort:
        return _stopped("")
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if "--debug" in given:
            raise
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        return 2
    return int(result or 0)


def _end_like_ctrl_c() -> None:
    """Let a request to end (SIGTERM, as batch systems send) stop as cleanly as Ctrl-C."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _stopped(detail: str) -> int:
    where = f" ({detail})" if detail else ""
    click.echo(f"stopped{where}; the same command goes on from here", err=True)
    return 130


if __name__ == "__main__":
    raise SystemExit(main())
