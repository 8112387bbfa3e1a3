"""The command `ctxrnn`. Imports what it needs only when it needs it."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ctxrnn import _cli_completion as names
from ctxrnn._cli_contact import overview
from ctxrnn._cli_contact import told as one_line

if TYPE_CHECKING:
    from ctxrnn._cli_doctor import Check


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="Example: ctxrnn reproduce --scale quick",
    invoke_without_command=True,
)
@click.version_option(package_name="ctxrnn", message="%(version)s")
@click.option("--debug", is_flag=True, help="Show the full traceback of an error.")
@click.pass_context
def app(ctx: click.Context, debug: bool) -> None:
    """Train and compare context-modulated recurrent networks on many cognitive tasks."""
    logger = logging.getLogger("ctxrnn")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler())
    if ctx.invoked_subcommand is None:
        click.echo(overview())


@app.command(epilog="Example: ctxrnn reproduce --scale quick --out results/first")
@click.option(
    "--scale",
    default="quick",
    shell_complete=names.one_of(names.REPRODUCE_SCALES),
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
        return list(names.SUMMARIES)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List studies and commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(names.SUMMARIES.items()))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a study or a command; an unknown name is an error that lists the known ones."""
        if ctx.resilient_parsing:
            return names.study_stand_in(cmd_name)
        from ctxrnn.studies._command import command

        return command(cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of studies and commands without loading them."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return names.studies(incomplete)


@app.group(
    cls=_Studies,
    epilog="Examples:\n\n\b\n"
    "ctxrnn study packing --dry-run\n"
    "ctxrnn study packing --scale smoke --out results/first\n"
    "ctxrnn study status results/first\n"
    "ctxrnn study docs/examples/initial_spread.py --scale smoke",
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
@click.option(
    "--pairs",
    shell_complete=names.several_of(names.TASKS, ",:"),
    help="Contexts between which points are followed: go:anti,dms:dnms.",
)
@click.option(
    "--tasks",
    "task_names",
    shell_complete=names.several_of(names.TASKS),
    help="Tasks, if the file does not note them: go,anti,dms.",
)
@click.option("--dt", default=20.0, help="Time step of --tasks in ms.")
@click.option("--ring", default=16, help="Units of each stimulus ring of --tasks.")
@click.option("--seed", default=0, help="Seed of trials and starts.")
def analyse(
    networks: tuple[Path, ...],
    out: Path | None,
    trials: int,
    starts: int,
    pairs: str | None,
    task_names: str | None,
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

    tasks = None if task_names is None else task_set(task_names.split(","), dt=dt, ring=ring)
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


@app.command(epilog="Example: ctxrnn models --units 64 --contexts 20 s-sym es-gain-asym-2")
@click.argument("variants", nargs=-1, shell_complete=names.one_of(names.VARIANTS))
@click.option("--units", default=48, help="N.")
@click.option("--inputs", default=17, help="I.")
@click.option("--outputs", default=9, help="O.")
@click.option("--contexts", default=10, help="K.")
def models(variants: tuple[str, ...], units: int, inputs: int, outputs: int, contexts: int) -> None:
    """List the pathway variants, their equations and their parameter counts.

    Of VARIANTS only, where some are named; combinations, too.
    """
    from ctxrnn import VARIANTS, parameter_count

    examples = {"e-rankR": "e-rank2", "es-*": "es-add-sym"}
    known = {examples.get(v.id, v.id.replace("-R", "-1")): v for v in VARIANTS}
    lines = []
    for name in variants or known:
        count = parameter_count(
            name, units=units, inputs=inputs, outputs=outputs, contexts=contexts
        )
        lines.append(f"{name:<16}{count:>10}")
        if name in known:
            lines[-1] += f"  {known[name].meaning:<46}{known[name].form}"
    click.echo(f"{'id':<16}{'parameters':>10}  {'meaning':<46}form")
    click.echo("\n".join(lines))
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


@app.command(epilog="Example: ctxrnn doctor --quick")
@click.option("--quick", is_flag=True, help="Leave out the speed check of 5 seconds.")
@click.option(
    "--json",
    "file",
    type=click.Path(path_type=Path),
    help="Write everything to a file, for a bug report; without names of users or folders.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results"),
    help="Results folder that is wanted.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of data sets.  [default: CTXRNN_DATA, or data]",
)
def doctor(quick: bool, file: Path | None, out: Path, data: Path | None) -> int:
    """Look at what is installed and at this machine: what is wrong, and how to mend it.

    Versions, compiled loops, threads, memory, GPU, extras, data sets, folders, and the speed of
    training beside torch.nn.RNN. docs/first-contact.md explains each line. The exit status is 1
    where something is broken that every user needs, else 0.
    """
    from ctxrnn._cli_doctor import verdict, write_report

    found: list[Check] = []
    for check in _checks(quick, out, data):
        if not found or found[-1].group != check.group:
            click.echo(("\n" if found else "") + check.group)
        click.echo(str(check))
        found.append(check)
    click.echo(f"\n{verdict(found)}")
    if file is not None:
        write_report(file, found, folders=[out, *([data] if data else [])])
        click.echo(f"written: {file}")
    return int(any(check.state == "broken" for check in found))


def _checks(quick: bool, out: Path, data: Path | None) -> Iterator[Check]:
    """Make the checks that need nothing, and then those that need torch and all the rest."""
    from ctxrnn._cli_doctor import installed, loaded

    yield from installed()
    broken = loaded()
    if broken is not None:
        yield broken
        return
    from ctxrnn.studies._doctor import examine

    yield from examine(quick=quick, results=out, data=data)


@app.command(epilog="Example: ctxrnn completion bash")
@click.argument("shell", type=click.Choice(names.SHELLS))
def completion(shell: str) -> None:
    """Print the script that lets a shell complete commands, studies, variants and tasks.

    Where it belongs is told on stderr.
    """
    click.echo(names.script(app, shell), nl=False)
    click.echo(names.PLACES[shell], err=True)


@app.command(epilog="Example: ctxrnn version")
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
        click.echo(f"error: {one_line(error)}", err=True)
        return 2
    except ImportError as error:
        # A library that is not there or broken; an import of ours that fails is a bug.
        if "--debug" in given or (error.name or "").startswith("ctxrnn."):
            raise
        click.echo(f"error: {one_line(error)}; `ctxrnn doctor` tells what is installed", err=True)
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
