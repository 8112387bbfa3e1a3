"""Ray: a real cluster of two CPUs on this machine, that loses workers."""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from ctxrnn import TrainConfig, load
from ctxrnn.studies import _ray
from ctxrnn.studies._desk import EachCell
from ctxrnn.studies._local import PATIENCE, LocalExecutor
from ctxrnn.studies._plan import NetworkSettings
from ctxrnn.studies._ray import RayExecutor
from ctxrnn.studies._ray_actor import Sending
from ctxrnn.studies._ray_cluster import _reach, connected
from ctxrnn.studies._store import Result
from ctxrnn.studies._study import Study

# Ray leaves pipes and log files of its processes to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
BASE = NetworkSettings(
    tasks=("go", "anti"),
    train=TrainConfig(steps=20, evaluate_every=10, evaluation_trials=16, batch=8),
    test_trials=16,
)
# `repeat` only labels: the three cells of a network are one group.
GRID = {"variant": ["e-add", "s-sym"], "units": [6], "repeat": [0, 1, 2]}


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", reason='needs Ray: pip install "ctxrnn[cluster]"')
    with connected(None, cpus=2.0):
        yield


def networks(measure):
    return Study("ray", GRID, measure=measure, base=BASE)


def functions(function, cells):
    """A study whose cells are calls of a function."""
    return Study("calls", [{"x": x} for x in range(cells)], work=function)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The records and the folder of the undisturbed study on this machine."""
    folder = tmp_path_factory.mktemp("local")

    def measure(trained):
        return {"half": trained.network.units / 2}

    return networks(measure).run(folder, executor=LocalExecutor(2), progress=False), folder


def check_same(records, folder, local):
    wanted, there = local
    pd.testing.assert_frame_equal(
        records.drop(columns="seconds"), wanted.drop(columns="seconds"), check_exact=True
    )
    for name in wanted["network"]:
        one, other = load(folder / name).state_dict(), load(there / name).state_dict()
        assert one.keys() == other.keys()
        for key in one:
            assert torch.equal(one[key], other[key]), (name, key)


def gone(pid):
    """Whether a process has ended, be it that nobody has asked for its status yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("shared", [True, False])
def test_records_and_weights_are_those_of_local_workers(
    cluster, local, tmp_path, monkeypatch, shared
):
    if not shared:
        # Without the token the workers cannot know that this is the study's folder.
        monkeypatch.setattr(_ray, "placed", lambda token: contextlib.nullcontext())
    folder, places = tmp_path / "ray", tmp_path / "places"
    places.mkdir()

    def measure(trained):
        # Where the worker keeps its networks, as the files that it has written tell.
        name = trained.cell["variant"]
        for path in Path(tempfile.gettempdir()).glob(f"ctxrnn-*/networks/{name}*"):
            (places / name).write_text(str(path))
        return {"half": trained.network.units / 2}

    records = networks(measure).run(folder, executor=RayExecutor(2), progress=False)
    check_same(records, folder, local)
    assert not list(folder.glob(".shared-*"))
    elsewhere = [Path(path.read_text()) for path in places.iterdir()]
    assert len(elsewhere) == (0 if shared else 2)
    # The workers' own folders go with them.
    assert not any(path.exists() for path in elsewhere)
    assert not list((folder / "training").glob("*"))


class Watched(RayExecutor):
    """Keeps the events, and calls a function with each after it was passed on."""

    def __init__(self, *arguments, after=lambda event: None, **named):
        super().__init__(*arguments, **named)
        self.after, self.events = after, []

    def run(self, work, groups, folder, emit):
        def tell(event):
            emit(event)
            self.events.append(event)
            self.after(event)

        super().run(work, groups, folder, tell)

    def done(self, **axes):
        finished = [event[1] for event in list(self.events) if event[0] == "done"]
        return any(axes.items() <= cell.items() for cell in finished)


@pytest.mark.timeout(240)
def test_killed_workers_change_no_record(cluster, local, tmp_path, capfd):
    notes = tmp_path / "notes"
    notes.mkdir()

    def measure(trained):
        name = "{variant}-{repeat}".format(**trained.cell)
        with (notes / f"{name}.calls").open("a") as stream:
            stream.write("x")
        # The second cell of each group waits for its end, the first time.
        pids = notes / trained.cell["variant"]
        if trained.cell["repeat"] == 1 and not pids.exists():
            pids.with_suffix(".part").write_text(f"{os.getpid()} {os.getppid()}")
            pids.with_suffix(".part").rename(pids)
            time.sleep(100)
        return {"half": trained.network.units / 2}

    executor, workers = Watched(2), []

    def kill(variant, which):
        wait_for((notes / variant).exists, 100)
        wait_for(lambda: executor.done(variant=variant, repeat=0))
        pids = [int(pid) for pid in (notes / variant).read_text().split()]
        workers.append(pids[0])
        os.kill(pids[which], signal.SIGKILL)

    # One worker process, and the Ray process that keeps the other one.
    killers = [threading.Thread(target=kill, args=each) for each in (("e-add", 0), ("s-sym", 1))]
    for killer in killers:
        killer.start()
    records = networks(measure).run(tmp_path / "ray", executor=executor, progress=False)
    for killer in killers:
        killer.join()
    check_same(records, tmp_path / "ray", local)
    told = {event[1] for event in executor.events if event[0] == "note"}
    assert told == {
        "a worker was killed by SIGKILL (out of memory?); its 2 cells are tried again",
        "a worker was lost with its node or its Ray process; its 2 cells are tried again",
    }
    assert tuple(capfd.readouterr()) == ("", ""), "Ray wrote on the terminal"
    # A worker whose actor is gone ends by itself.
    wait_for(lambda: all(map(gone, workers)))
    calls = {path.stem: len(path.read_text()) for path in notes.glob("*.calls")}
    again = {name for name, count in calls.items() if count == 2}
    assert again == {"e-add-1", "s-sym-1"}
    assert sum(calls.values()) == 6 + 2, "a finished cell was computed again"


def test_errors_and_deaths_of_cells_are_recorded_and_the_others_go_on(cluster, tmp_path):
    def work(cell):
        with (tmp_path / f"{cell['x']}.calls").open("a") as stream:
            stream.write("x")
        if cell["x"] == 1:
            raise LookupError("no such thing")
        if cell["x"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": cell["x"] ** 2, "threads": os.environ["OMP_NUM_THREADS"]}

    # More workers than CPUs: the third waits for a place, and nobody for the third.
    study = functions(work, 6)
    records = study.run(tmp_path / "ray", executor=RayExecutor(3, retries=0), progress=False)
    assert dict(zip(records["x"], records["square"], strict=True)) == {0: 0, 3: 9, 4: 16, 5: 25}
    assert set(records["threads"]) == {"1"}
    failed = study.load(tmp_path / "ray")["failures"].set_index("x")["error"]
    assert failed[1] == "LookupError: no such thing"
    assert failed[2].startswith(
        "RuntimeError: its worker died in 1 of 1 tries; the last one was killed by SIGKILL"
    )
    assert (tmp_path / "1.calls").read_text() == "x", "an error was tried again"


def test_ctrl_c_leaves_checkpoints_and_the_cluster(cluster, tmp_path):
    import ray

    interrupted = []

    def interrupt(event):
        if event[0] == "step":
            interrupted.append(time.monotonic())
            raise KeyboardInterrupt

    base = dataclasses.replace(BASE, train=dataclasses.replace(BASE.train, steps=100_000))
    study = Study("long", {"variant": ["none"], "units": [6]}, base=base)
    with pytest.raises(KeyboardInterrupt):
        study.run(tmp_path, executor=Watched(1, after=interrupt), progress=False)
    # A worker that does not stop by itself is ended only after PATIENCE.
    assert time.monotonic() - interrupted[0] < PATIENCE
    assert list((tmp_path / "training").glob("*.training"))
    assert ray.is_initialized()
    # All places are free again.
    wait_for(lambda: ray.available_resources().get("CPU") == 2.0)


def test_a_full_disk_stops_the_study(cluster, tmp_path):
    def work(cell):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        functions(work, 2).run(tmp_path, executor=RayExecutor(1), progress=False)
    assert caught.value.errno == errno.ENOSPC


def test_work_that_a_worker_cannot_load_is_one_line(cluster, tmp_path):
    class Stranger:
        def __reduce__(self):
            return __import__, ("a_module_of_the_driver_alone",)

    stranger = Stranger()
    with pytest.raises(RuntimeError, match=r"no worker could start.*No module named 'a_module_of"):
        functions(lambda cell: {"y": stranger}, 1).run(
            tmp_path, executor=RayExecutor(1, retries=0), progress=False
        )


SCRIPT = """
    import json, signal, sys, time
    from pathlib import Path
    import ray
    from ctxrnn import TrainConfig
    from ctxrnn.studies import NetworkSettings, Study
    train = TrainConfig(steps=100000, evaluate_every=10, evaluation_trials=16, batch=8)
    base = NetworkSettings(tasks=("go", "anti"), train=train, test_trials=16)
    folder = Path(sys.argv[1])
    from ctxrnn.studies._ray import RayExecutor
    class Told(RayExecutor):
        def run(self, work, groups, folder, emit):
            def tell(event):
                emit(event)
                if event[0] == "step" and not (folder / "session").exists():
                    node = ray.nodes()[0]["NodeManagerAddress"]
                    session = ray._private.worker._global_node.get_session_dir_path()
                    (folder / "session.part").write_text(json.dumps([node, session]))
                    (folder / "session.part").rename(folder / "session")
            super().run(work, groups, folder, tell)
    handler = signal.getsignal(signal.SIGTERM)
    study = Study("own", {"variant": ["none"], "units": [6]}, base=base)
    try:
        study.run(folder, executor=Told(1), progress=False)
    except KeyboardInterrupt:
        assert not ray.is_initialized()
        assert signal.getsignal(signal.SIGTERM) == handler
        print("stopped")
"""


@pytest.mark.timeout(240)
def test_a_cluster_of_its_own_is_local_silent_and_ends_with_ctrl_c(tmp_path):
    pytest.importorskip("ray", reason='needs Ray: pip install "ctxrnn[cluster]"')
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    folder = tmp_path / "own"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, script, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_for(lambda: (folder / "session").exists() or process.poll() is not None, 100)
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (printed, errors) == ("stopped\n", "")
    node, session = json.loads((folder / "session").read_text())
    assert node == "127.0.0.1"
    assert list((folder / "training").glob("*.training"))
    # Every process of a session names it in its command line.
    wait_for(lambda: not _processes_of(session))


def _processes_of(session):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if session.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


class FakeProcess:
    """A worker that is always ready and says nothing."""

    def __init__(self, slot):
        self.slot, self.ready, self.left, self.given = slot, True, {}, []

    def give(self, group):
        self.left = {f'{{"x":{cell["x"]}}}': cell for cell in group}
        self.given.append(group)

    def ended(self):
        return "was lost"

    def close(self):
        pass


def crew_of(monkeypatch, groups, retries=3):
    started, events = [], []
    monkeypatch.setattr(
        _ray, "_Remote", lambda slot, bench, inbox: started.append(FakeProcess(slot)) or started[-1]
    )
    crew = _ray._RayCrew(2, lambda: None, groups, events.append, retries)
    for slot in range(2):
        crew._start(slot)
        crew._take(started[slot], ("ready",))
    return crew, started, events


def test_cells_of_a_lost_worker_go_to_an_idle_one_and_no_new_one_is_waited_for(monkeypatch):
    groups = [[{"x": 0}, {"x": 1}], [{"x": 2}]]
    crew, (one, other), _ = crew_of(monkeypatch, groups)
    crew._take(other, ("done", {"x": 2}, Result()))
    crew._take(other, ("idle",))
    crew._take(one, ("done", {"x": 0}, Result()))
    crew._take(one, None)
    # What was finished is not given out again.
    assert other.given == [[{"x": 2}], [{"x": 1}]]
    assert set(crew.crew.values()) == {other}


def test_a_group_is_tried_whole_then_one_by_one_then_given_up(monkeypatch):
    crew, started, events = crew_of(monkeypatch, [[{"x": 0}, {"x": 1}], [{"x": 2}]], retries=3)
    process, given = started[0], []
    for _ in range(4):
        given.append(process.given[-1])
        crew._take(process, None)
        if process is not started[-1]:
            process = started[-1]
            crew._take(process, ("ready",))
    assert given == [[{"x": 0}, {"x": 1}]] * 2 + [[{"x": 0}]] * 2
    failed = [event for event in events if event[0] == "failed"]
    assert failed == [
        ("failed", {"x": 0}, "RuntimeError: its worker died in 4 of 4 tries; the last one was lost")
    ]
    assert process.given[-1] == [{"x": 1}]


def test_what_became_of_a_cell_is_told_once(monkeypatch):
    crew, (one, _), events = crew_of(monkeypatch, [[{"x": 0}], [{"x": 1}]])
    for outcome in (("done", {"x": 0}, Result()), ("failed", {"x": 0}, "E: late")):
        crew._take(one, ("step", {"x": 0}, 1.0))
        crew._take(one, outcome)
    assert [event[0] for event in events if event[0] != "group"] == ["step", "done", "step"]


def test_the_user_is_told_what_is_waited_for(monkeypatch):
    crew, (one, other), events = crew_of(monkeypatch, [[{"x": 0}], [{"x": 1}]])
    one.ready = other.ready = False
    crew.since -= _ray._WAIT + 1
    for _ in range(3):
        crew._tell(("tick",))
    (note,) = [event[1] for event in events if event[0] == "note"]
    assert "no free place" in note


def test_without_ray_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match=r'^executor.*not installed.*"ctxrnn\[cluster\]"') as e:
        functions(lambda cell: {}, 1).run(tmp_path / "none", executor="ray")
    assert "\n" not in str(e.value)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers must be"),
        ({"address": "ray://head:10001"}, "HOST:PORT.*'ray://head:10001'.*on a machine of"),
        ({"cpus": 0.0}, "cpus must be"),
        ({"gpus": -1.0}, "gpus must be"),
        ({"retries": -1}, "retries must be"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RayExecutor(**arguments)


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("127.0.0.1:{port}", ConnectionError, "^no Ray cluster answers at 127.0.0.1:.*ray status"),
        ("head", ValueError, "HOST:PORT or 'auto': got 'head'"),
    ],
)
def test_an_address_where_nobody_is_is_one_line(address, error, message):
    pytest.importorskip("ray", reason='needs Ray: pip install "ctxrnn[cluster]"')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(error, match=message):
        _reach(address.format(port=port))


def test_workers_are_as_many_as_fit(cluster):
    assert RayExecutor().slots == 2
    assert RayExecutor(cpus=0.5).slots == 4
    assert RayExecutor(7).slots == 7


def test_each_cell_is_pickled_without_the_folder():
    sending = Sending(__import__("cloudpickle").dumps(EachCell(lambda cell: {"y": 1})))

    class Desk:
        folder, emit = Path("."), logging.debug

    ((cell, result),) = sending([{"x": 1}], Desk)
    assert (cell, result.values) == ({"x": 1}, {"y": 1})
