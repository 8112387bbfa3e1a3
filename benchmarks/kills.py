"""Kill a small study at random moments; see whether it ends with the same records and weights.

    python benchmarks/kills.py --kills 50 --seed 0

The study trains 24 networks with checkpoints and measures each twice, in two worker processes. It
is run once undisturbed, then again in new folders while workers, the parent or all of them are
killed (SIGKILL) or stopped (SIGINT, SIGTERM) at random moments; the same command is given again
each time, until the study ends, and new folders are begun until there were enough kills. Every
record and every network must equal, bit for bit, that of the undisturbed run. The exit status is 1
if one does not, or if processes stay behind. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from _killed_study import MARKS, study

from ctxrnn import load
from ctxrnn.studies._results import ResultsFolder

KINDS = {"a worker": 0.4, "the parent": 0.2, "all at once": 0.2, "SIGINT": 0.1, "SIGTERM": 0.1}
LONGEST = 0.4
"""Time between two kills, at most, in units of the undisturbed run's."""
PATIENCE = 90.0
"""Seconds that the study has to end after a signal, and workers after their parent."""
_STUDY = Path(__file__).with_name("_killed_study.py")


class Trial:
    """The study in one folder, started again until it ends.

    Args:
        folder: Results folder.
        marks: Folder where measures leave their marks.
    """

    def __init__(self, folder: Path, marks: Path) -> None:
        self.folder, self.marks = folder, marks
        self.log = folder.with_suffix(".log")
        self.starts = self.runs = 0
        self.started = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Give the command."""
        command = [
            sys.executable, "-m", "ctxrnn._cli", "study", str(_STUDY), "--out", str(self.folder),
            "--workers", "2",
        ]  # fmt: skip
        self.runs, self.started = self._runs(), time.time()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, MARKS: str(self.marks), "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self.starts += 1

    def _runs(self) -> int:
        try:
            with ResultsFolder(self.folder).store() as store:
                return len(store.runs())
        except (OSError, ValueError):
            return 0

    def workers(self) -> list[int]:
        """Return the processes of the workers that live."""
        assert self.process is not None
        return [pid for pid, parent in processes().items() if parent == self.process.pid]

    def stage(self) -> str:
        """Tell what the study is doing."""
        if self._runs() == self.runs:
            return "starting"
        with ResultsFolder(self.folder).store() as store:
            rows = store.rows()
        if not rows:
            return "planning"
        if all(row.status == "done" for row in rows):
            return "export"
        workers = self.workers()
        if any((self.marks / str(worker)).exists() for worker in workers):
            return "measuring"
        return "training" if self._computes() else "before a checkpoint"

    def _computes(self) -> bool:
        """Tell whether a file of a network was written since the command was given."""
        files = [*self.folder.glob("training/*"), *self.folder.glob("networks/*")]
        return any(file.stat().st_mtime > self.started for file in files if file.exists())


def processes() -> dict[int, int]:
    """Return all living processes and their parents."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(path.parent.name)] = int(parent)
    return found


def strike(trial: Trial, kind: str) -> tuple[str, float]:
    """Kill or stop something; return what, and how long the workers stayed behind."""
    assert trial.process is not None
    workers = trial.workers()
    if kind == "a worker" and not workers:
        kind = "the parent"
    if kind == "a worker":
        _kill(random.choice(workers))
        return kind, 0.0
    if kind in ("SIGINT", "SIGTERM"):
        trial.process.send_signal(signal.Signals[kind])
    else:
        for victim in [trial.process.pid, *(workers if kind == "all at once" else [])]:
            _kill(victim)
    struck = time.monotonic()
    trial.process.wait(timeout=PATIENCE)
    while set(workers) & set(processes()):
        if time.monotonic() - struck > PATIENCE:
            raise SystemExit(f"after {kind}, workers stay behind: {workers}")
        time.sleep(0.02)
    return kind, time.monotonic() - struck


def _kill(victim: int) -> None:
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return


class Campaign:
    """Trials with kills until there were enough of them."""

    def __init__(self, place: Path, kills: int, longest: float) -> None:
        self.place, self.wanted, self.longest = place, kills, longest
        self.done: Counter[tuple[str, str]] = Counter()
        self.exits: Counter[str] = Counter()
        self.starts, self.slowest = 0, 0.0
        self.folders: list[Path] = []

    @property
    def kills(self) -> int:
        """How many there were."""
        return sum(self.done.values())

    def run(self) -> None:
        """Run trials."""
        while self.kills < self.wanted:
            trial = Trial(self.place / f"killed-{len(self.folders)}", self.place / "marks")
            self._disturb(trial)
            self.starts += trial.starts
            self.folders.append(trial.folder)

    def _disturb(self, trial: Trial) -> None:
        while True:
            if trial.process is None or trial.process.poll() is not None:
                trial.start()
            assert trial.process is not None
            try:
                wait = random.uniform(0, self.longest) if self.kills < self.wanted else None
                code = trial.process.wait(timeout=wait)
            except subprocess.TimeoutExpired:
                self._strike(trial)
                continue
            self.exits[f"status {code} by itself"] += 1
            if code == 0:
                return
            if trial.starts > 5 * self.wanted:
                raise SystemExit(f"the study does not end: see {trial.log}")

    def _strike(self, trial: Trial) -> None:
        kind = random.choices(list(KINDS), list(KINDS.values()))[0]
        stage = trial.stage()
        kind, seconds = strike(trial, kind)
        self.slowest = max(self.slowest, seconds if kind == "the parent" else 0.0)
        self.done[kind, stage] += 1
        assert trial.process is not None
        if kind.startswith("SIG"):
            self.exits[f"status {trial.process.returncode} after {kind}"] += 1
        print(f"{self.kills:4d}  {kind:12s} {stage}", file=sys.stderr, flush=True)


def records(folder: Path) -> dict[str, str]:
    """Return every record, without times, by its cell."""
    with ResultsFolder(folder).store() as store:
        return {json.dumps(r.cell): json.dumps([r.status, r.record]) for r in store.rows()}


def differences(one: Path, other: Path) -> list[str]:
    """Say in which records, tables and networks two folders differ."""
    first, second = records(one), records(other)
    found = [f"cell {c}" for c in first.keys() | second if first.get(c) != second.get(c)]
    if list(first) != list(second):
        found.append("order of the cells")
    tables, again = study.load(one), study.load(other)
    for name in tables.keys() | again:
        pair = [t.get(name) for t in (tables, again)]
        pair = [None if t is None else t.drop(columns="seconds", errors="ignore") for t in pair]
        if pair[0] is None or not pair[0].equals(pair[1]):
            found.append(f"table {name}")
    names = {path.name for folder in (one, other) for path in (folder / "networks").iterdir()}
    for name in sorted(names):
        files = [folder / "networks" / name for folder in (one, other)]
        if not all(file.exists() for file in files):
            found.append(f"network {name} is in one only")
            continue
        weights = [load(file).state_dict() for file in files]
        same = weights[0].keys() == weights[1].keys()
        if not same or not all(torch.equal(w, weights[1][key]) for key, w in weights[0].items()):
            found.append(f"network {name}")
    found += [f"left behind: {path}" for path in other.rglob("*.part")]
    return [f"{other.name}: {item}" for item in found]


def table(done: Counter[tuple[str, str]]) -> list[str]:
    """Return the kills by kind and stage as lines."""
    stages = ("starting", "planning", "before a checkpoint", "training", "measuring", "export")
    lines = [f"| {'kill':12s} | {' | '.join(stages)} | all |", "| --- " * (len(stages) + 2) + "|"]
    for kind in KINDS:
        counts = [done[kind, stage] for stage in stages]
        cells = " | ".join(f"{n:{len(s)}d}" for n, s in zip(counts, stages, strict=True))
        lines.append(f"| {kind:12s} | {cells} | {sum(counts):3d} |")
    return lines


def main() -> int:
    """Run the trials, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="at least so many (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="seed of moments and victims")
    parser.add_argument("--folder", type=Path, help="new folder; by default a temporary one")
    options = parser.parse_args()
    random.seed(options.seed)
    # A shell that starts us in the background lets us, and so the study, ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        place = options.folder or Path(temporary)
        (place / "marks").mkdir(parents=True)
        started = time.monotonic()
        whole = Trial(place / "whole", place / "marks")
        whole.start()
        assert whole.process is not None
        if whole.process.wait() != 0:
            raise SystemExit(whole.log.read_text())
        alone = time.monotonic() - started
        campaign = Campaign(place, options.kills, LONGEST * alone)
        campaign.run()
        found = [d for folder in campaign.folders for d in differences(whole.folder, folder)]
        cells = len(records(whole.folder))
    print("\n".join(table(campaign.done)))
    print(
        f"\n{campaign.kills} kills in {len(campaign.folders)} runs of {cells} cells, "
        f"{campaign.starts} starts, {time.monotonic() - started:.0f} s; undisturbed {alone:.0f} s"
    )
    print(f"after the parent's death the last worker was gone within {campaign.slowest:.1f} s")
    print("; ".join(f"{n} x {how}" for how, n in sorted(campaign.exits.items())))
    wrong = [how for how in campaign.exits if " after " in how and not _allowed(how)]
    print("\n".join(found + wrong) or "records, tables and weights are identical")
    return 1 if found or wrong else 0


def _allowed(how: str) -> bool:
    """Tell whether a process may end so: 130, by the signal as Python starts, or 0 at the end."""
    return how.split()[1] in ("130", "0", "-2", "-15")


if __name__ == "__main__":
    raise SystemExit(main())
