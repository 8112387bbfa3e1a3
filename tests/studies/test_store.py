import errno
import sqlite3
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

from ctxrnn.studies._store import FORMAT, Result, Store, StoreFullError

CELLS = [{"n": n} for n in range(5)]


def new(path, cells=CELLS):
    store = Store(path / "records.sqlite", create=True)
    store.plan(cells)
    return store


def child(code, *arguments):
    """Start a process that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_records_come_back_as_they_were_in_the_order_planned(tmp_path):
    table = pd.DataFrame({"x": [1, 2], "y": [0.1, np.nan], "z": ["a", "b"]})
    with new(tmp_path) as store:
        values = {"a": np.float64(0.1), "b": np.int32(3), "c": "é", "d": True, "e": None}
        store.write(CELLS[3], Result(values, {"curve": table}, ("networks/x",), 2.5), run=1)
        store.fail(CELLS[1], "ValueError: no\ntraceback", run=1)
    with Store(tmp_path / "records.sqlite") as store:
        rows = store.rows()
        assert store.counts() == {"planned": 3, "done": 1, "failed": 1}
        assert [row.cell for row in store.rows("failed")] == [CELLS[1]]
    assert [row.cell for row in rows] == CELLS
    record = rows[3].record
    assert record["values"] == {"a": 0.1, "b": 3, "c": "é", "d": True, "e": None}
    assert record["files"] == ["networks/x"]
    pd.testing.assert_frame_equal(pd.DataFrame(record["tables"]["curve"]), table)
    assert rows[3].seconds == 2.5
    assert rows[1].error == "ValueError: no\ntraceback"


def test_planning_again_keeps_records_and_appends(tmp_path):
    with new(tmp_path) as store:
        store.write(CELLS[0], Result({"a": 1}), run=1)
        store.plan([{"n": 9}, *CELLS])
        assert [row.cell["n"] for row in store.rows()] == [0, 1, 2, 3, 4, 9]
        assert store.counts()["done"] == 1
        store.forget(CELLS[0])
        assert store.counts()["done"] == 0
        with pytest.raises(ValueError, match="was not planned"):
            store.write({"n": 77}, Result(), run=1)


def test_runs_are_numbered_and_keep_their_provenance(tmp_path):
    with new(tmp_path) as store:
        assert [store.start({"command": "a"}), store.start({"command": "b"})] == [1, 2]
        assert [(run["run"], run["command"]) for run in store.runs()] == [(1, "a"), (2, "b")]


def test_what_was_written_survives_kill_9_in_the_middle_of_a_write(tmp_path):
    new(tmp_path, [{"n": n} for n in range(1000)]).close()
    # Dies by its own hand inside a transaction, after SQLite has begun to change the file.
    code = """
        import os, signal, sys
        from ctxrnn.studies._store import Result, Store
        store = Store(sys.argv[1])
        for n in range(20):
            store.write({"n": n}, Result({"a": n}), run=1)
        connection = store._connection
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE cells SET status = 'done', record = hex(randomblob(20000))")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = child(code, tmp_path / "records.sqlite")
    assert process.wait(timeout=60) == -9
    process.stdout.close()
    assert (tmp_path / "records.sqlite-journal").stat().st_size > 0
    with Store(tmp_path / "records.sqlite") as store:
        done = store.rows("done")
        assert [row.record["values"] for row in done] == [{"a": n} for n in range(20)]
        assert store._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_full_disk_is_told_in_a_line_and_what_was_before_is_kept(tmp_path):
    with new(tmp_path) as store:
        store.write(CELLS[0], Result({"a": 1}), run=1)
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreFullError, match=r"full.*Free some space.*kept") as told:
            store.write(CELLS[1], Result({"a": "x" * 100_000}), run=1)
        assert "\n" not in str(told.value)
        assert isinstance(told.value, OSError)
        store.write(CELLS[2], Result({"a": 3}), run=1)
    with Store(tmp_path / "records.sqlite") as store:
        assert [row.cell for row in store.rows("done")] == [CELLS[0], CELLS[2]]


def test_missing_empty_foreign_damaged_and_newer_files_are_told_apart(tmp_path):
    path = tmp_path / "records.sqlite"
    with pytest.raises(FileNotFoundError, match=r"no study in .*records\.sqlite is missing"):
        Store(path)
    path.touch()
    with pytest.raises(FileNotFoundError, match="is empty"):
        Store(path)
    assert path.stat().st_size == 0
    path.write_text("My thesis. " * 1000)
    with pytest.raises(ValueError, match="is damaged"):
        Store(path, create=True)
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE photos (name TEXT)")
    other.close()
    for create in (False, True):
        with pytest.raises(ValueError, match="was not written by ctxrnn"):
            Store(path, create=create)
    path.unlink()
    with new(tmp_path) as store:
        store._connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(ValueError, match=f"has format {FORMAT + 1}.*upgrade"):
        Store(path)


def test_damage_in_the_middle_is_an_error_in_one_line(tmp_path):
    with new(tmp_path, [{"n": n} for n in range(2000)]):
        pass
    path = tmp_path / "records.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\x07" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged") as told, Store(path) as store:
        store.rows()
    assert "\n" not in str(told.value)


def test_file_that_cannot_be_opened_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="cannot use"):
        Store(tmp_path / "nowhere" / "records.sqlite", create=True)


def test_others_read_whole_records_while_one_process_writes(tmp_path):
    new(tmp_path, [{"n": n} for n in range(200)]).close()
    code = """
        import sys
        from ctxrnn.studies._store import Result, Store
        with Store(sys.argv[1]) as store:
            print("go", flush=True)
            for n in range(200):
                store.write({"n": n}, Result({"a": n, "b": "x" * 5000}), run=1)
                while n == 100 and not Path(sys.argv[1]).with_name("seen").exists():
                    time.sleep(0.01)
    """
    code = "        import time\n        from pathlib import Path" + code
    writer = child(code, tmp_path / "records.sqlite")
    writer.stdout.readline()
    seen = [0]
    while writer.poll() is None:
        with Store(tmp_path / "records.sqlite") as store:
            rows = store.rows("done")
        assert all(row.record["values"]["b"] == "x" * 5000 for row in rows)
        seen.append(len(rows))
        if len(rows) > 100:
            (tmp_path / "seen").touch()
    writer.stdout.close()
    assert writer.returncode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    with Store(tmp_path / "records.sqlite") as store:
        assert store.counts()["done"] == 200


def test_only_a_full_disk_stops_a_study():
    from ctxrnn.studies._desk import stops

    assert stops(OSError(errno.ENOSPC, "full"))
    assert not stops(OSError("odd"))
    assert not stops(ValueError("full"))
