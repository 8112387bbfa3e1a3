import json
import os
import platform
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

from ctxrnn.studies._results import ResultsFolder, as_tables, failures
from ctxrnn.studies._store import Result, Row

SETTINGS = {"study": "s", "train": {"steps": 3}, "units": [8]}

HOLD = """
    import sys, json
    from ctxrnn.studies._results import ResultsFolder
    with ResultsFolder(sys.argv[1]).claimed(json.loads(sys.argv[2])):
        print("mine", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes to the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path / "out"), json.dumps(SETTINGS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.communicate()


def claim(folder, settings=SETTINGS):
    with ResultsFolder(folder).claimed(settings) as store:
        return store.counts()


def test_second_process_is_refused_and_told_which_is_there(tmp_path, holder):
    out = tmp_path / "out"
    name = f"process {holder.pid} on {platform.node()}"
    with pytest.raises(OSError, match=f"in use by {name}: wait for it, or choose another folder"):
        claim(out)
    assert ResultsFolder(out).in_use() == name
    # Reading goes on meanwhile.
    with ResultsFolder(out).store() as store:
        assert store.counts()["planned"] == 0
    holder.kill()
    holder.wait()
    assert ResultsFolder(out).in_use() is None
    assert claim(out) == {"planned": 0, "done": 0, "failed": 0}


def test_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), ResultsFolder(tmp_path / "a").claimed(SETTINGS):
        raise RuntimeError
    claim(tmp_path / "a")


def test_other_settings_are_refused_with_the_difference(tmp_path):
    claim(tmp_path / "a")
    other = {"study": "s", "train": {"steps": 4}, "size": 1}
    wanted = (
        r"holds results with other settings: size was None, now 1; train\.steps was 3, now 4; "
        r"units was \[8\], now None\. Choose a new folder"
    )
    with pytest.raises(ValueError, match=wanted):
        claim(tmp_path / "a", other)
    claim(tmp_path / "a")


def test_foreign_folders_are_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="not empty and holds no study"):
        claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match="is a file"):
        claim(tmp_path / "thesis.tex")
    with pytest.raises(OSError, match="cannot make the results folder"):
        claim("/proc/nowhere")
    (tmp_path / "b" / "networks").mkdir(parents=True)
    (tmp_path / "b" / "networks" / "mine.safetensors").touch()
    with pytest.raises(ValueError, match="holds no study"):
        claim(tmp_path / "b")


def test_folder_of_a_run_that_was_killed_before_its_settings_is_taken(tmp_path):
    for name in ("networks", "training"):
        (tmp_path / name).mkdir()
    (tmp_path / ".lock").touch()
    (tmp_path / ".settings.json.abc.part").write_text("{")
    claim(tmp_path)


def test_half_written_files_of_killed_writers_are_deleted(tmp_path):
    claim(tmp_path)
    for name in (".cells.csv.abc.part", "networks/.x.abc.part", "training/.x.abc.part"):
        (tmp_path / name).write_text("half")
    (tmp_path / "networks" / "whole.safetensors").write_text("whole")
    claim(tmp_path)
    assert not list(tmp_path.rglob("*.part"))
    assert (tmp_path / "networks" / "whole.safetensors").exists()


def test_damaged_and_missing_settings_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no study in .*settings\.json is missing"):
        ResultsFolder(tmp_path).settings()
    claim(tmp_path)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json is damaged"):
        claim(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written_is_an_os_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot make the results folder"):
        claim(tmp_path / "a")


def row(cell, values=(), tables=(), status="done", error=""):
    record = {"values": dict(values), "tables": dict(tables), "files": []}
    return Row(cell, status, record if status == "done" else {}, error, 1.5)


def test_tables_have_the_axes_in_front(tmp_path):
    rows = [
        row({"v": "a", "n": 1}, {"x": 0.5}, {"t": {"k": [1, 2], "y": [0.1, None]}}),
        row({"v": "b", "n": 2}, {"x": 0.7}, {"t": {"k": [3], "y": [0.3]}}),
        row({"v": "c", "n": 3}, status="failed", error="ValueError: no\nmore"),
        row({"v": "d", "n": 4}, status="planned"),
    ]
    tables = as_tables(rows)
    assert list(tables["cells"]) == ["v", "n", "x", "seconds"]
    assert tables["cells"]["x"].tolist() == [0.5, 0.7]
    assert list(tables["t"]) == ["v", "n", "k", "y"]
    assert tables["t"]["v"].tolist() == ["a", "a", "b"]
    assert np.isnan(tables["t"]["y"].iloc[1])
    failed = failures(rows)
    assert failed.to_dict("records") == [
        {"v": "c", "n": 3, "error": "ValueError: no", "traceback": "ValueError: no\nmore"}
    ]
    folder = ResultsFolder(tmp_path)
    folder.write_table("t", tables["t"])
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), tables["t"])
    read = pd.read_csv(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(read, tables["t"], check_dtype=False)


def test_empty_tables_of_some_cells_do_not_lose_the_columns():
    empty = {"k": [], "y": []}
    both = [row({"n": 1}, tables={"t": empty}), row({"n": 2}, tables={"t": {"k": [1], "y": [2]}})]
    assert as_tables(both)["t"].to_dict("records") == [{"n": 2, "k": 1, "y": 2}]
    assert list(as_tables(both[:1])["t"]) == ["n", "k", "y"]
    assert len(as_tables([])["cells"]) == 0


def test_record_without_its_files_is_not_whole(tmp_path):
    with ResultsFolder(tmp_path).claimed(SETTINGS) as store:
        store.plan([{"n": 1}])
        store.write({"n": 1}, Result(files=("networks/x",)), run=1)
        (only,) = store.rows()
    assert not ResultsFolder(tmp_path).whole(only)
    (tmp_path / "networks" / "x").touch()
    assert ResultsFolder(tmp_path).whole(only)
