"""Time the making of trials: neurogym's own Dataset beside ctxrnn's task sets.

    python benchmarks/trials.py --rounds 30 --seconds 60 --markdown trials.md

benchmarks/README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from _measure import Spread, align, describe_machine, ratio, time_rounds
from ctxrnn.tasks._seeding import cores

from ctxrnn.studies._plan import TEN_TASKS
from ctxrnn.tasks import YANG19, task_set

PACKAGES = ("ctxrnn", "neurogym", "numpy", "torch")
SETTINGS = {
    "20 tasks, dt 20 ms, ring 16": (tuple(YANG19), 20.0, 16),
    "10 tasks, dt 50 ms, ring 8": (tuple(TEN_TASKS), 50.0, 8),
}
REFERENCE = "neurogym Dataset"
SEQUENCE = 100
PER_TASK = 4
BATCHES = 8


def read_through(datasets: Sequence[Any]) -> Callable[[], int]:
    """Return a call that reads each Dataset's cache once, and returns how many trials were made.

    Trials that a Dataset cuts off at the end of its cache count as well.
    """
    # Listed once, off the clock; adding up their counts takes below 1 % of a call.
    made_by = [core for dataset in datasets for env in dataset.envs for core in cores(env)]
    before = sum(core.num_tr for core in made_by)

    def read() -> int:
        nonlocal before
        for dataset in datasets:
            for _ in range(max(1, dataset._cache_len // dataset.seq_len)):
                dataset()
        last, before = before, sum(core.num_tr for core in made_by)
        return before - last

    return read


def rows_of(
    names: tuple[str, ...], dt: float, ring: int, options: argparse.Namespace
) -> dict[str, Callable[[], int]]:
    """Return a call for each row; it makes trials and returns how many."""
    import neurogym
    from neurogym.utils import scheduler
    from neurogym.wrappers import ScheduleEnvs

    def environments() -> list[Any]:
        return [neurogym.make(f"yang19.{name}-v0", dt=dt, dim_ring=ring) for name in names]

    # As neurogym's documentation shows it: one environment that switches between the tasks.
    envs = environments()
    mixed = ScheduleEnvs(envs, schedule=scheduler.RandomSchedule(len(envs)), env_input=True)
    together = neurogym.Dataset(mixed, batch_size=options.batch, seq_len=SEQUENCE)
    apart = [neurogym.Dataset(env, batch_size=PER_TASK, seq_len=SEQUENCE) for env in environments()]
    settings = {"dt": dt, "ring": ring}
    vectorised = task_set(names, **settings)
    sets = {
        "ctxrnn, one by one": task_set(names, sampler="neurogym", **settings),
        "ctxrnn, vectorised": vectorised,
        "ctxrnn, bank": vectorised.bank(options.bank, generator=0),
    }
    generator = torch.Generator().manual_seed(0)

    def sample(tasks: Any) -> Callable[[], int]:
        # Several, as a Dataset also makes many trials in a call.
        return lambda: sum(
            len(tasks.sample(options.batch, generator=generator)) for _ in range(BATCHES)
        )

    return {
        REFERENCE: read_through([together]),
        "neurogym Dataset, one per task": read_through(apart),
        **{name: sample(tasks) for name, tasks in sets.items()},
    }


def measure(rows: dict[str, Callable[[], int]], options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds per trial in every round, by row."""
    made: dict[str, list[int]] = {name: [] for name in rows}
    calls = {name: lambda name=name: made[name].append(rows[name]()) for name in rows}
    times = time_rounds(calls, rounds=options.rounds, seconds=options.seconds)
    return {
        name: [second / trials for second, trials in zip(
            seconds, made[name][-len(seconds):], strict=True)]
        for name, seconds in times.items()
    }  # fmt: skip


def report(
    per_trial: dict[str, list[float]], batch: int
) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Return the table, heading first, and the same for JSON."""
    table = [["trials from", "trials/s", f"ms per {batch}", "x neurogym Dataset"]]
    records = []
    for name, seconds in per_trial.items():
        rate = Spread.of([1 / second for second in seconds])
        took = Spread.of([1e3 * batch * second for second in seconds])
        faster = ratio(per_trial[REFERENCE], seconds)
        cells = [rate.format(0), took.format(2), "1" if name == REFERENCE else faster.format(1)]
        table.append([name, *cells])
        records.append(
            {"row": name, "trials_per_second": asdict(rate), "ms_per_batch": asdict(took)}
            | {"faster_than_dataset": asdict(faster), "seconds_per_trial": seconds}
        )
    return table, records


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, choices=(1, 2), help="torch threads")
    parser.add_argument("--batch", type=int, default=64, help="trials of a batch")
    parser.add_argument("--bank", type=int, default=1024, help="trials per task in the bank")
    parser.add_argument("--rounds", type=int, default=50, help="rounds at most, per setting")
    parser.add_argument("--seconds", type=float, default=60, help="time budget per setting")
    parser.add_argument("--json", type=Path, help="write every time and ratio here")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error("--rounds must be at least 2: quartiles need two rounds")
    return options


def main() -> None:
    """Measure, print and write the tables."""
    options = parse()
    # gymnasium warns about the names of neurogym's wrappers.
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(options.threads)
    machine = describe_machine(PACKAGES)
    head = [f"- {key}: {value}" for key, value in machine.items()]
    print(*head, sep="\n")
    lines, records = ["# Making trials", "", *head], []
    for title, (names, dt, ring) in SETTINGS.items():
        per_trial = measure(rows_of(names, dt, ring, options), options)
        table, found = report(per_trial, options.batch)
        rounds = len(per_trial[REFERENCE])
        section = ["", f"{title}: median [quartiles] of {rounds} rounds", "", *align(table)]
        print(*section, sep="\n", flush=True)
        lines += section
        records += [{"setting": title, **record} for record in found]
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if options.json:
        work = {key: value for key, value in vars(options).items() if not isinstance(value, Path)}
        content = {"machine": machine, "options": work, "rows": records}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
