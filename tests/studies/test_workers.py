import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cloudpickle
import pandas as pd
import pytest

from ctxrnn.studies import Study
from ctxrnn.studies._desk import Desk, EachCell, as_result, run_group
from ctxrnn.studies._local import LocalExecutor
from ctxrnn.studies._results import ResultsFolder
from ctxrnn.studies._store import Result, StoreFullError

# Workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

CELLS = [{"n": n} for n in range(6)]


class Works(EachCell):
    """n -> 10 n, but something goes wrong at n = 3, or elsewhere."""

    def __init__(self, flag="", wrong=None, at=3):
        super().__init__(self.one)
        self.flag, self.wrong, self.at = flag, wrong, at

    def one(self, cell):
        print("a measure may print")  # noqa: T201
        if cell["n"] == self.at and self.wrong is not None:
            getattr(self, self.wrong)()
        return {"ten": 10 * cell["n"], "t": pd.DataFrame({"k": [1, 2]})}

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def die_once(self):
        if not Path(self.flag).exists():
            Path(self.flag).touch()
            self.die()

    def fail(self):
        raise ZeroDivisionError("three is too many")

    def fail_once(self):
        if not Path(self.flag).exists():
            Path(self.flag).touch()
            self.fail()

    def full(self):
        raise OSError(errno.ENOSPC, "cannot write networks/x: No space left on device")


def a_study(work=None, cells=CELLS):
    return Study("tiny", list(cells), work=work or Works())


def stored(folder):
    with ResultsFolder(folder).store() as store:
        return {row.cell["n"]: row for row in store.rows()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    a_study().run(folder, executor="inline", progress=False)
    return {n: row.record for n, row in stored(folder).items()}


def test_worker_killed_in_mid_group_is_replaced_and_nothing_is_lost(tmp_path, undisturbed, capfd):
    study = a_study(Works(str(tmp_path / "flag"), "die_once"))
    table = study.run(tmp_path / "out", workers=1)
    assert (tmp_path / "flag").exists()
    assert table["ten"].tolist() == [0, 10, 20, 30, 40, 50]
    rows = stored(tmp_path / "out")
    assert {n: row.record for n, row in rows.items()} == undisturbed
    assert "a worker was killed by SIGKILL (out of memory?); its" in capfd.readouterr().err


def test_cell_that_always_kills_its_worker_is_recorded_and_the_others_are_done(tmp_path):
    # The first of a group of two: its companion dies with it twice, then each is tried alone.
    study = a_study(Works(wrong="die", at=2))
    table = study.run(tmp_path / "out", workers=1, progress=False)
    assert table["n"].tolist() == [0, 1, 3, 4, 5]
    row = stored(tmp_path / "out")[2]
    assert row.status == "failed"
    assert row.error.startswith("RuntimeError: its worker was killed by SIGKILL")


def test_error_of_a_cell_is_recorded_with_its_traceback_and_tried_again(tmp_path, undisturbed):
    study = a_study(Works(str(tmp_path / "flag"), "fail_once"))
    folder = tmp_path / "out"
    table = study.run(folder, workers=1, progress=False)
    assert table["n"].tolist() == [0, 1, 2, 4, 5]
    error = stored(folder)[3].error
    assert error.splitlines()[0] == "ZeroDivisionError: three is too many"
    assert "in fail_once" in error
    failed = study.load(folder)["failures"]
    assert failed[["n", "error"]].to_dict("records") == [
        {"n": 3, "error": "ZeroDivisionError: three is too many"}
    ]
    study.run(folder, workers=1, progress=False)
    assert {n: row.record for n, row in stored(folder).items()} == undisturbed
    assert "failures" not in study.load(folder)


@pytest.mark.parametrize("executor", ["local", "inline"])
def test_full_disk_stops_the_study_in_a_line_and_the_rest_is_kept(tmp_path, executor):
    study = a_study(Works(wrong="full"))
    with pytest.raises(OSError, match="cannot write networks/x: No space left") as told:
        study.run(
            tmp_path / "out", executor=executor, workers=1 if executor == "local" else None,
            progress=False,
        )  # fmt: skip
    assert str(told.value).count("Errno") == 1
    assert told.value.errno == errno.ENOSPC
    assert "\n" not in str(told.value)
    states = {n: row.status for n, row in stored(tmp_path / "out").items()}
    assert states[3] == "planned"
    assert 0 < list(states.values()).count("done") < 6
    assert "failed" not in states.values()


def test_full_store_ends_an_inline_study_too(tmp_path, monkeypatch):
    from ctxrnn.studies._store import Store

    before = Store.write

    def write(self, cell, *arguments, **more):
        if cell["n"] == 2:
            raise StoreFullError("cannot write records.sqlite: full")
        before(self, cell, *arguments, **more)

    monkeypatch.setattr(Store, "write", write)
    with pytest.raises(StoreFullError):
        a_study().run(tmp_path / "out", executor="inline", progress=False)
    states = [row.status for row in stored(tmp_path / "out").values()]
    assert states[2] == "planned"
    assert "failed" not in states


def collect(work, cells=CELLS):
    events = []
    run_group(work, cells, Desk(Path("."), events.append))
    return {(e[0], e[1]["n"]): e[2] for e in events if e[0] in ("done", "failed")}


class Together:
    """Computes all cells, then breaks down if `bad` is among them; gives no result for `mute`."""

    def __init__(self, bad=None, mute=None, strange=None):
        self.bad, self.mute, self.strange = bad, mute, strange

    def __call__(self, cells, desk):
        if {"n": self.bad} in cells:
            raise ValueError(f"{len(cells)} at once")
        for cell in cells:
            if cell["n"] != self.mute:
                yield cell, Result({"n": cell["n"]})
        if self.strange is not None:
            yield {"n": self.strange}, Result()


def test_group_that_fails_as_a_whole_goes_on_one_by_one():
    found = collect(Together(bad=2))
    assert {key for key in found if key[0] == "done"} == {("done", n) for n in (0, 1, 3, 4, 5)}
    assert found["failed", 2].startswith("ValueError: 1 at once\n")


def test_cells_without_result_or_with_two_are_errors():
    found = collect(Together(mute=4))
    assert found["failed", 4] == "RuntimeError: the work gave no result for this cell"
    assert sum(kind == "done" for kind, _ in found) == 5
    assert len(collect(Together(strange=1))) == 6


def test_group_error_that_names_no_cell_does_not_repeat_finished_ones():
    done = []

    class Counts(EachCell):
        def __call__(self, cells, desk):
            for cell in cells:
                done.append(cell["n"])
                if cell["n"] == 3 and len(cells) > 1:
                    raise ValueError("breaks")
                yield cell, Result()

    found = collect(Counts(None))
    assert {kind for kind, _ in found} == {"done"}
    assert done == [0, 1, 2, 3, 3, 4, 5]


def test_what_cannot_be_stored_is_an_error_of_its_cell():
    with pytest.raises(TypeError, match=r"must return a mapping.*got float"):
        as_result(0.5)
    with pytest.raises(TypeError, match=r"'x' must be a number .*, string, boolean, None or a"):
        as_result({"x": 1j})
    with pytest.raises(TypeError, match=r"table 't' must hold numbers .*, strings and booleans"):
        as_result({"t": pd.DataFrame({"when": [pd.Timestamp(0)]})})


BROKEN = """
    import ctxrnn
    class Broken:
        def __reduce__(self):
            import absent_module_of_the_user
    def load():
        raise ImportError("no such package here")
    class Sent:
        def __reduce__(self):
            return load, ()
        def unit(self, cell): return cell["n"]
        def shared(self, cell): return None
        def cost(self, cell): return 1.0
    from ctxrnn.studies import Study
    try:
        Study("s", {"n": [1]}, work=Sent()).run("out", workers=1, progress=False)
    except RuntimeError as error:
        print(error)
"""


def script(tmp_path, code, *, wait=True):
    (tmp_path / "script.py").write_text(textwrap.dedent(code))
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if not wait:
        return process
    out, err = process.communicate(timeout=100)
    return process.returncode, out, err


def test_worker_that_cannot_start_ends_the_study_in_a_line(tmp_path):
    code, out, err = script(tmp_path, BROKEN)
    assert out == "a worker could not start: its process ended with status 1; see above\n"
    assert "ImportError: no such package here" in err
    assert code == 0


def test_script_without_a_main_guard_runs_once(tmp_path):
    code = """
        from ctxrnn.studies import Study
        print("the script runs")
        factor = 7
        def measured(cell):
            return {"x": factor * cell["n"]}
        table = Study("mine", {"n": [1, 2, 3]}, work=measured).run("out", workers=2, progress=False)
        print(table["x"].tolist())
    """
    status, out, err = script(tmp_path, code)
    assert status == 0, err
    assert out == "the script runs\n[7, 14, 21]\n"


SLOW = """
    import os, time
    from pathlib import Path
    from ctxrnn.studies import Study
    def measured(cell):
        Path(f"worker-{os.getpid()}").touch()
        # So long that only the end of its process ends it, until a file says otherwise.
        time.sleep(0.1 if cell["n"] < 4 or Path("again").exists() else 60)
        return {"x": 7 * cell["n"]}
    Study("mine", {"n": list(range(12))}, work=measured).run("out", workers=2, progress=False)
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_workers_end_with_their_killed_parent_and_the_same_command_goes_on(tmp_path):
    process = script(tmp_path, SLOW, wait=False)
    end = time.monotonic() + 90
    while not (tmp_path / "out").exists() or not any(
        row.status == "done" for row in stored_or_none(tmp_path / "out").values()
    ):
        assert time.monotonic() < end
        time.sleep(0.05)
    workers = [int(path.name.split("-")[1]) for path in tmp_path.glob("worker-*")]
    process.kill()
    process.communicate()
    struck = time.monotonic()
    while any(alive(worker) for worker in workers):
        assert time.monotonic() - struck < 10, "workers stay behind"
        time.sleep(0.02)
    before = {n: row for n, row in stored(tmp_path / "out").items() if row.status == "done"}
    assert 1 <= len(before) < 12
    (tmp_path / "again").touch()
    status, _, err = script(tmp_path, SLOW)
    assert status == 0, err
    after = stored(tmp_path / "out")
    assert [row.record["values"]["x"] for row in after.values()] == [7 * n for n in range(12)]
    assert {n: after[n] for n in before} == before


def stored_or_none(folder):
    try:
        return stored(folder)
    except (OSError, ValueError):
        return {}


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a small disk")
def test_real_full_disk_is_told_in_a_line_and_the_study_goes_on_with_space(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    code = """
        import json, os, sys
        from ctxrnn.studies import Study
        from ctxrnn.studies._results import ResultsFolder
        fill = os.environ.get("FILL") == "1"
        study = Study("mine", {"n": list(range(8))}, work=lambda cell: {"x": "y" * 30000})
        try:
            print(len(study.run(sys.argv[1], workers=1, progress=False)))
        except OSError as error:
            print(type(error).__name__, str(error).count(chr(10)), "Free some space" in str(error))
        with ResultsFolder(sys.argv[1]).store() as store:
            print(json.dumps(store.counts()))
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(code))
    run = f"{sys.executable} {tmp_path}/script.py {disk}/out"
    commands = (
        f"mount -t tmpfs -o size=200k tmpfs {disk} || exit 77; {run}; "
        f"mount -o remount,size=20m {disk}; {run}"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", commands], capture_output=True, text=True, timeout=110
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("mounting is not permitted here")
    first, counts, cells, later = done.stdout.splitlines()
    assert first == "StoreFullError 0 True", done.stderr
    counts = json.loads(counts)
    assert counts["done"] >= 1
    assert counts["failed"] == 0
    assert cells == "8", done.stderr
    assert json.loads(later)["done"] == 8


def test_executor_of_ones_own_is_used(tmp_path):
    used = []

    class Mine(LocalExecutor):
        def run(self, work, groups, folder, emit):
            used.append(len(groups))
            super().run(work, groups, folder, emit)

    table = a_study().run(tmp_path / "out", executor=Mine(1), progress=False)
    assert len(table) == 6
    assert used == [3]


class Spread(EachCell):
    """The first cell kills its worker; the others take a while and tell which worker they had."""

    def __init__(self):
        super().__init__(self.one)

    def one(self, cell):
        if cell["n"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.0 if cell["n"] == 9 else 0.7)
        return {"worker": os.getpid()}


def test_cells_of_a_dead_worker_are_shared_with_workers_that_have_nothing_to_do(tmp_path):
    events = []
    groups = [[{"n": n} for n in range(4)], [{"n": 9}]]
    LocalExecutor(2).run(Spread(), groups, tmp_path, events.append)
    (failed,) = [event for event in events if event[0] == "failed"]
    assert failed[1] == {"n": 0}
    done = {e[1]["n"]: e[2].values["worker"] for e in events if e[0] == "done"}
    assert sorted(done) == [1, 2, 3, 9]
    assert len({done[n] for n in (1, 2, 3)}) == 2


def test_folder_of_our_name_in_the_current_one_is_not_taken_by_workers(tmp_path):
    here = tmp_path / "here"
    (here / "ctxrnn").mkdir(parents=True)
    (here / "ctxrnn" / "__init__.py").write_text("raise ImportError('foreign')")
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "from ctxrnn.studies import Study\n"
        "s = Study('s', {'n': [1]}, work=lambda cell: {'x': cell['n']})\n"
        "print(s.run('out', workers=1, progress=False)['x'].tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=here, capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "[1]\n", done.stderr
