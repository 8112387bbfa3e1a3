"""The command `ctxrnn`. Imports what it needs only when it needs it."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated

import click
import typer

app = typer.Typer(
    name="ctxrnn",
    help="Train and compare context-modulated recurrent networks on many cognitive tasks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the full traceback of an error.")
    ] = False,
) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


@app.command(epilog="Example: ctxrnn reproduce --scale quick --out results/first")
def reproduce(
    scale: Annotated[
        str,
        typer.Option(
            help="smoke (under a minute, learns nothing) or quick (about ten minutes on 2 cores)."
        ),
    ] = "quick",
    out: Annotated[
        Path | None,
        typer.Option(help="Results folder; default results/reproduce-SCALE."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Networks per mechanism; default as the scale says.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes, one thread each; default one per core.")
    ] = None,
) -> None:
    """Train each mechanism at equal parameter counts and make the context ambiguous.

    Trains networks without context, with excitability, synaptic and combined modulation on
    neurogym tasks; measures accuracy, clean and with mixed contexts; writes networks, records
    (Parquet, CSV), figures (PDF, PNG) and report.html into one folder. Stopped at any moment, the
    same command goes on where it was.
    """
    import dataclasses

    from ctxrnn.studies import SCALES
    from ctxrnn.studies import reproduce as run

    settings: object = scale
    if seeds is not None and scale in SCALES:
        settings = dataclasses.replace(SCALES[scale], seeds=seeds)
    folder = run(
        settings,  # type: ignore[arg-type]
        out or Path("results") / f"reproduce-{scale}",
        workers=workers,
        command=shlex.join(["ctxrnn", *sys.argv[1:]]),
    )
    typer.echo(f"report: {folder / 'report.html'}")


@app.command(epilog="Example: ctxrnn models --units 64 --contexts 20")
def models(
    units: Annotated[int, typer.Option(help="N, for the parameter counts.")] = 48,
    inputs: Annotated[int, typer.Option(help="I.")] = 17,
    outputs: Annotated[int, typer.Option(help="O.")] = 9,
    contexts: Annotated[int, typer.Option(help="K.")] = 10,
) -> None:
    """List the pathway variants, their equations and their parameter counts."""
    from ctxrnn import VARIANTS, parameter_count

    examples = {"e-rankR": "e-rank2", "es-*": "es-add-sym"}
    typer.echo(f"{'id':<12}{'parameters':>10}  {'meaning':<46}form")
    for variant in VARIANTS:
        name = examples.get(variant.id, variant.id.replace("-R", "-1"))
        count = parameter_count(
            name, units=units, inputs=inputs, outputs=outputs, contexts=contexts
        )
        typer.echo(f"{name:<12}{count:>10}  {variant.meaning:<46}{variant.form}")
    typer.echo(
        f"\nParameters at N={units}, I={inputs}, O={outputs}, K={contexts}. Ranks are free: "
        "s-asym-2, e-rank8. Combine any e-* with any s-*: es-gain-asym-2."
    )


@app.command(epilog="Example: ctxrnn tasks --dt 50 --ring 8")
def tasks(
    dt: Annotated[float, typer.Option(help="Time step in ms.")] = 20.0,
    ring: Annotated[int, typer.Option(help="Units of each stimulus ring.")] = 16,
) -> None:
    """List the tasks: sizes, trial lengths in ms, chance and ceiling."""
    from ctxrnn.tasks import list_tasks

    typer.echo(list_tasks(dt=dt, ring=ring).to_string(index=False, float_format="{:.3f}".format))


@app.command()
def version() -> None:
    """Print the version."""
    import importlib.metadata

    typer.echo(importlib.metadata.version("ctxrnn"))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status.

    Errors that a user can mend take one line on stderr; `--debug` shows the traceback.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        result = app(args=given, standalone_mode=False)
    except KeyboardInterrupt as stop:
        detail = f" ({stop})" if str(stop) else ""
        typer.echo(f"stopped{detail}; the same command goes on from here", err=True)
        return 130
    except click.exceptions.Abort:
        typer.echo("stopped; the same command goes on from here", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if "--debug" in given:
            raise
        text = " ".join(str(error).split())
        typer.echo(f"error: {text}", err=True)
        return 2
    return int(result or 0)


if __name__ == "__main__":
    raise SystemExit(main())
