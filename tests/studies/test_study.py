import contextlib
import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from ctxrnn._checkpoint import as_json
from ctxrnn._cli import main
from ctxrnn.studies import NetworkSettings, Study
from ctxrnn.studies import study as packaged
from ctxrnn.studies._local import InlineExecutor
from ctxrnn.studies._results import ResultsFolder
from ctxrnn.studies._study import completed

FAILING = {5}


def probed(cell):
    if cell["n"] in FAILING:
        raise ValueError(f"no {cell['n']}")
    return {"above": cell["n"] >= 11, "half": pd.DataFrame({"h": [cell["n"] / 2]})}


def bisection(finished):
    """Look for the least n in 0..16 with n >= 11."""
    cells = [{"n": 0}, {"n": 16}]
    if len(finished):
        cells += [{"n": n} for n in finished["n"]]
        low = finished.loc[~finished["above"].astype(bool), "n"].max()
        high = finished.loc[finished["above"].astype(bool), "n"].min()
        if high - low > 1:
            cells.append({"n": int(low + high) // 2})
    return cells


def states(folder):
    with ResultsFolder(folder).store() as store:
        return [(row.cell["n"], row.status) for row in store.rows()]


def states_if_any(folder):
    try:
        return states(folder)
    except (OSError, ValueError):
        return []


def run(study, folder):
    return study.run(folder, executor="inline", progress=False)


def test_adaptive_grid_runs_until_it_wants_nothing_new(tmp_path):
    study = Study("bisection", bisection, work=probed)
    table = run(study, tmp_path / "out")
    assert table["n"].tolist() == [0, 16, 8, 12, 10, 11]
    assert table.loc[table["above"], "n"].min() == 11
    before = states(tmp_path / "out")
    run(study, tmp_path / "out")
    assert states(tmp_path / "out") == before


def test_rounds_of_an_adaptive_grid_share_what_the_executor_holds_open(tmp_path):
    class Counting(InlineExecutor):
        opened = closed = rounds = 0

        @contextlib.contextmanager
        def session(self):
            self.opened += 1
            yield
            self.closed += 1

        def run(self, *arguments):
            assert self.opened == self.closed + 1
            self.rounds += 1
            super().run(*arguments)

    executor, study = Counting(), Study("bisection", bisection, work=probed)
    for _ in range(2):  # the second time nothing is missing, and nothing is opened
        study.run(tmp_path / "out", executor=executor, progress=False)
        assert (executor.opened, executor.closed, executor.rounds) == (1, 1, 5)


def test_adaptive_grid_that_is_stopped_goes_on_with_the_same_cells(tmp_path):
    run(Study("bisection", bisection, work=probed), tmp_path / "whole")

    def stopping(cell):
        if cell["n"] == 12 and not (tmp_path / "flag").exists():
            (tmp_path / "flag").touch()
            raise KeyboardInterrupt
        return probed(cell)

    study = Study("bisection", bisection, work=stopping)
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path / "out")
    assert states(tmp_path / "out")[-1] == (12, "planned")
    run(study, tmp_path / "out")
    assert states(tmp_path / "out") == states(tmp_path / "whole")


def test_failed_cell_of_an_adaptive_grid_does_not_loop(tmp_path):
    calls = []

    def wanted(finished):
        calls.append(len(finished))
        return [{"n": n} for n in (4, 5, *([6] if len(finished) else []))]

    run(Study("failing", wanted, work=probed), tmp_path / "out")
    assert states(tmp_path / "out") == [(4, "done"), (5, "failed"), (6, "done")]
    assert len(calls) <= 4


def test_adaptive_grid_may_start_with_nothing(tmp_path):
    assert len(run(Study("nothing", lambda finished: [], work=probed), tmp_path / "out")) == 0


def figure(tables):
    drawn, axes = plt.subplots()
    axes.plot(tables["cells"]["n"], tables["cells"]["twice"])
    return drawn


WHOLE = Study(
    "whole",
    {"n": [1, 2, 3]},
    work=lambda cell: {"twice": 2 * cell["n"]},
    figure=figure,
    tables=lambda tables: {"sums": pd.DataFrame({"sum": [tables["cells"]["twice"].sum()]})},
    findings=lambda tables: [f"The sum is {tables['sums']['sum'][0]}."],
)


def test_tables_figures_and_findings_are_written_and_made_again(tmp_path):
    out = tmp_path / "out"
    run(WHOLE, out)
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {name for name in written if not name.startswith(".")} == {
        "settings.json", "provenance.json", "records.sqlite", "findings.txt", "cells.csv",
        "cells.parquet", "sums.csv", "sums.parquet", "figures/whole.pdf", "figures/whole.png",
    }  # fmt: skip
    assert (out / "findings.txt").read_text() == "The sum is 12.\n"
    for name in ("cells.csv", "figures/whole.png", "findings.txt"):
        (out / name).unlink()
    tables = WHOLE.export(out)
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == written
    assert tables["sums"]["sum"].tolist() == [12]
    pd.testing.assert_frame_equal(WHOLE.load(out)["cells"], tables["cells"])
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["runs"][0]["command"] == "Study('whole').run(...)"


def test_other_grid_or_settings_in_one_folder_are_refused(tmp_path):
    run(WHOLE, tmp_path / "out")
    with pytest.raises(ValueError, match=r"grid\.n was \[1, 2, 3\], now \[1, 2\]"):
        run(WHOLE.changed(["n=1,2"]), tmp_path / "out")
    other = Study("other", {"n": [1, 2, 3]}, work=probed)
    with pytest.raises(ValueError, match="study was 'whole', now 'other'"):
        run(other, tmp_path / "out")


def fails(*_):
    raise ZeroDivisionError("no luck")


@pytest.mark.parametrize("part", ["tables", "figure", "findings"])
def test_what_is_made_of_the_records_may_fail_without_losing_them(tmp_path, caplog, part):
    out = tmp_path / "out"
    more = {"findings": None} if part == "tables" else {}
    table = run(dataclasses.replace(WHOLE, **{**more, part: fails}), out)
    assert table["twice"].tolist() == [2, 4, 6]
    assert pd.read_csv(out / "cells.csv")["twice"].tolist() == [2, 4, 6]
    assert (out / "provenance.json").exists()
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1
    assert "could not be made: ZeroDivisionError: no luck. The records are whole" in told[0]
    assert (out / "figures" / "whole.png").exists() == (part != "figure")
    WHOLE.export(out)
    assert (out / "findings.txt").read_text() == "The sum is 12.\n"
    assert (out / "figures" / "whole.png").exists()


def test_full_disk_while_tables_are_written_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run(dataclasses.replace(WHOLE, figure=full), tmp_path / "out")


def test_findings_of_an_unfinished_study_say_so_first(tmp_path, capsys):
    study = Study(
        "part", {"n": [4, 5, 6]}, work=probed, findings=lambda t: [f"{len(t['cells'])} found"]
    )
    run(study, tmp_path / "out")
    told = "UNFINISHED: 2 of 3 cells are done; 1 failed.\n2 found\n"
    assert (tmp_path / "out" / "findings.txt").read_text() == told


@pytest.mark.parametrize(
    ("grid", "measured"),
    [
        ([1, 2], {1: 1.5, 2: "never"}),
        ([1, "a"], {1: True, "a": 2.0}),
    ],
)
def test_values_of_several_types_are_written(tmp_path, grid, measured):
    table = run(Study("mixed", {"n": grid}, work=lambda c: {"y": measured[c["n"]]}), tmp_path / "o")
    assert table["y"].tolist() == list(measured.values())
    written = pd.read_parquet(tmp_path / "o" / "cells.parquet")
    assert written["y"].tolist() == [str(value) for value in measured.values()]


H = pd.DataFrame({"h": [1, 2]})


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"n": 3}, "a measure must return names of its own: n belongs to the cell"),
        ({"cells": H}, "not like a table of the study .*: got 'cells'"),
        ({"failures": H}, "not like a table of the study .*: got 'failures'"),
        ({"../h": H}, r"must be named by letters.*: got '\.\./h'"),
        ({"h": pd.concat([H, H], axis=1)}, "columns of a measure's table must differ: 'h' has 'h'"),
        ({"h": pd.DataFrame({"x": [{"a": 1}]})}, "table 'h' must hold .*: column 'x' holds dict"),
        ({"h": pd.DataFrame({"x": [1, [2]]})}, "table 'h' must hold .*: column 'x' holds list"),
        ({"h": pd.DataFrame({"x": [2**70]})}, r"of 64 bits.*: column 'x' holds 1.18e\+21"),
        ({"h": pd.DataFrame({"x": [1j]})}, "column 'x' holds complex"),
        ({"x": 2**70}, r"'x' must be a number \(of 64 bits\).*: got 1.18e\+21"),
        ({"x": [1, 2]}, "'x' must be a number .*: got list"),
    ],
)
def test_what_cannot_be_written_fails_the_cell(tmp_path, measured, message):
    run(Study("names", {"n": [1]}, work=lambda cell: measured), tmp_path / "out")
    with ResultsFolder(tmp_path / "out").store() as store:
        (row,) = store.rows()
    assert row.status == "failed"
    assert re.search(message, row.error)


def test_large_integers_keep_their_digits_beside_gaps(tmp_path):
    work = lambda cell: {"x": 2**62 + 1, "y": 3} if cell["n"] else {}  # noqa: E731
    run(Study("digits", {"n": [0, 1]}, work=work), tmp_path / "out")
    text = (tmp_path / "out" / "cells.csv").read_text()
    assert str(2**62 + 1) in text
    assert pd.read_parquet(tmp_path / "out" / "cells.parquet")["x"].dropna().tolist() == [2**62 + 1]


def test_table_that_cannot_be_written_does_not_stop_the_others(tmp_path, monkeypatch, caplog):
    whole = ResultsFolder.write_table

    def fails(self, name, table):
        if name == "cells":
            raise ValueError("no such type")
        whole(self, name, table)

    monkeypatch.setattr(ResultsFolder, "write_table", fails)
    run(Study("one", {"n": [1]}, work=lambda cell: {"h": H}), tmp_path / "out")
    assert "the table cells could not be made: ValueError: no such type" in caplog.text
    assert (tmp_path / "out" / "h.csv").exists()


def test_index_of_a_measured_table_is_kept_as_columns(tmp_path):
    def work(cell):
        table = pd.DataFrame({"unit": ["a", "b", "b"], "v": [1, 2, 3]})
        return {"by": table.groupby("unit").sum()}

    study = Study("index", {"n": [1]}, work=work)
    run(study, tmp_path / "out")
    assert study.load(tmp_path / "out")["by"][["unit", "v"]].to_numpy().tolist() == [
        ["a", 1],
        ["b", 5],
    ]


def test_axis_may_not_be_named_like_a_column_of_the_table():
    with pytest.raises(ValueError, match="an axis must not be named 'seconds'"):
        Study("s", {"seconds": [1]}, work=probed).cells()


def test_settings_that_would_do_nothing_are_refused():
    with pytest.raises(ValueError, match="packing has settings of its own: change them with"):
        packaged("packing", "smoke").changed(["train.steps=3"])
    with pytest.raises(ValueError, match="only the axes of its grid can be set, got steps=3"):
        WHOLE.changed(["n=1", "steps=3"])


def test_folder_of_an_older_version_is_taken_if_only_defaults_were_added(tmp_path):
    study = packaged("learning", "smoke")
    results = ResultsFolder(tmp_path / "out")
    before = json.loads(json.dumps(as_json(study.identity())))
    assert before.pop("theta") is not None
    assert before["base"].pop("input_noise", "missing") != "missing"
    with results.claimed(before):
        pass
    with results.claimed(study.identity(), completed):
        pass
    changed = packaged("learning", "smoke", ["theta=0.5"])
    with (
        pytest.raises(ValueError, match=r"theta was .*, now 0\.5"),
        results.claimed(changed.identity(), completed),
    ):
        pass


def test_axes_and_settings_are_changed_by_name():
    study = Study("s", {"variant": ["none"], "units": [8]}).changed(["units=16,32", "steps=7"])
    assert [cell["units"] for cell in study.cells()] == [16, 32]
    assert study.base.train.steps == 7
    assert study.base.tasks == NetworkSettings().tasks
    with pytest.raises(ValueError, match="unknown setting 'unit'"):
        study.changed(["unit=3"])
    joint = Study("j", {("order", "seed"): [(0, 0), (1, 0)], "units": [8]})
    assert [cell["units"] for cell in joint.changed(["units=9"]).cells()] == [9, 9]
    with pytest.raises(ValueError, match=r"seed is set together .* \(order, seed\): change it"):
        joint.changed(["seed=1,2"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"executor": "slurm"}, "unknown executor 'slurm'"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"address": "x"}, "address is for executor='ray'"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_made(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        WHOLE.run(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


MINE = """
    \"\"\"My first study: how large are the rates at the end?\"\"\"
    import matplotlib.pyplot as plt
    import ctxrnn
    from ctxrnn import TrainConfig
    from ctxrnn.studies import NetworkSettings, Study

    STEPS = {"smoke": 10, "quick": 1000, "paper": 10000}

    def measure(trained):
        generator = ctxrnn.make_generator(trained.seed, "rates")
        batch = trained.tasks.sample(8, generator=generator)
        rates = trained.network(batch.inputs, batch.context, generator=generator).rates
        return {"mean_rate": float(rates.detach().abs().mean())}

    def draw(tables):
        figure, axes = plt.subplots()
        tables["cells"].boxplot("mean_rate", by="variant", ax=axes)
        return figure

    def study(scale):
        train = TrainConfig(
            steps=STEPS[scale], batch=16, evaluate_every=5, evaluation_trials=16, target=None
        )
        return Study(
            "rates",
            {"variant": ["none", "e-add"], "seed": [0, 1], "units": [8]},
            measure=measure,
            figure=draw,
            findings=lambda t: [f"{len(t['cells'])} networks"],
            base=NetworkSettings(tasks=("go", "anti"), train=train, test_trials=8),
        )
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A user's study that was run by the command: the file, the folder, and what was printed."""
    place = tmp_path_factory.mktemp("mine")
    file = place / "my_study.py"
    file.write_text(textwrap.dedent(MINE).lstrip())
    assert len(file.read_text().splitlines()) < 60
    done = subprocess.run(
        [*COMMAND, str(file), "--scale", "smoke", "--out", "out", "--workers", "1"],
        cwd=place, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    return file, place / "out", done


COMMAND = [sys.executable, "-m", "ctxrnn._cli", "study"]


def cli(capsys, *arguments):
    status = main(["study", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_study_of_ones_own_runs_from_its_file(mine):
    _, out, done = mine
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4 networks\n4 cells; tables, figures and networks in out\n"
    cells = pd.read_csv(out / "cells.csv")
    assert len(cells) == 4
    assert cells["mean_rate"].between(0, 1).all()
    assert (out / "figures" / "rates.png").exists()
    assert len(list((out / "networks").iterdir())) == 4


def test_status_tells_how_far_a_study_is(mine, capsys):
    file, out, _ = mine
    status, text, _ = cli(capsys, "status", out)
    assert status == 0
    assert "study     rates\ncells     4 done, 0 failed, 0 left\n" in text
    assert "running   no" in text
    with ResultsFolder(out).claimed(json.loads((out / "settings.json").read_text())) as store:
        _, text, _ = cli(capsys, "status", out)
        assert f"running   yes, process {os.getpid()} on" in text
        cell = store.rows()[1].cell
        before = store.rows()[1].record
        store.fail(cell, "ValueError: odd\ntraceback", 1)
    _, text, _ = cli(capsys, "status", out)
    assert "3 done, 1 failed, 0 left" in text
    assert re.search(r"failed    variant=.*: ValueError: odd\n", text)
    assert re.search(rf"go on     ctxrnn study {file} --scale smoke", text)
    moved = out.parent / "moved"
    out.rename(moved)
    _, text, _ = cli(capsys, "status", moved)
    assert re.search(rf"go on     ctxrnn study {file} .* --out {moved} ", text)
    moved.rename(out)
    # The same command tries it again, without training.
    status, text, _ = cli(capsys, file, "--scale", "smoke", "--out", out, "--executor", "inline")
    assert status == 0
    with ResultsFolder(out).store() as store:
        assert store.rows()[1].record == before


def test_export_makes_tables_and_figures_again(mine, capsys):
    file, out, _ = mine
    (out / "cells.csv").unlink()
    status, _, err = cli(capsys, "export", out)
    assert status == 2
    assert "holds 'rates', a study of your own: give its --file" in err
    status, text, _ = cli(capsys, "export", out, "--file", file, "--scale", "smoke")
    assert status == 0
    assert "cells.csv, .parquet: 4 rows" in text
    assert (out / "cells.csv").exists()


def test_changed_settings_in_a_folder_are_refused_in_a_line(mine, capsys):
    file, out, _ = mine
    arguments = (file, "--scale", "smoke", "--out", out, "--set", "steps=11", "--set", "units=9")
    status, _, err = cli(capsys, *arguments)
    assert status == 2
    assert "base.train.steps was 10, now 11; grid.units was [8], now [9]" in err
    assert "Traceback" not in err


def test_dry_run_tells_cells_and_time_and_makes_nothing(mine, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file, _, _ = mine
    status, text, _ = cli(capsys, file, "--scale", "paper", "--dry-run")
    assert status == 0
    assert "rates: 4 cells, 4 networks" in text
    assert not list(tmp_path.iterdir())


def test_help_lists_studies_and_settings(capsys):
    status, text, _ = cli(capsys, "learning", "--help")
    assert status == 0
    for word in ("--scale", "--set", "--dry-run", "train.steps", "variants", "Example: ctxrnn"):
        assert word in text
    status, text, _ = cli(capsys, "--help")
    assert status == 0
    for word in ("learning", "packing", "status", "export"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lerning"], "unknown study 'lerning'. Did you mean 'learning'"),
        (["learning", "--scale", "huge"], "unknown scale 'huge'"),
        (["learning", "--scale", "smoke", "--set", "sead=1"], "unknown setting"),
        (["learning", "--scale", "smoke", "--set", "seeds=1.5"], "seeds must be a whole number"),
        (["learning", "--scale", "smoke", "--executor", "slurm"], "unknown executor 'slurm'"),
        (["learning", "--set", "device=cuda"], "device=cuda was asked for, but torch sees 0 GPUs"),
        (["learning", "--set", "device=cuda", "--dry-run"], "torch sees 0 GPUs: use device=cpu"),
        (["ambiguity", "--set", "effects=0.2,0.4"], "effects must be at least 2 numbers"),
        (["nowhere.py"], "no study at nowhere.py"),
        (["status", "nowhere"], "no study in nowhere"),
        (["export", "nowhere"], "no study in nowhere"),
    ],
)
def test_errors_take_one_line(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    status, _, err = cli(capsys, *arguments)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "must define `study`, a ctxrnn.studies.Study or a function.*got NoneType"),
        ("study = lambda scale: 3", "must define `study`.*got int"),
    ],
)
def test_file_without_a_study_is_told(tmp_path, capsys, text, message):
    (tmp_path / "mine.py").write_text(text)
    status, _, err = cli(capsys, tmp_path / "mine.py")
    assert status == 2
    assert re.search(message, err)


def test_errors_of_cells_are_told_at_the_end(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "from ctxrnn.studies import Study\n"
        "study = Study('inverse', {'n': [0, 1]}, work=lambda cell: {'x': 1 / cell['n']})\n"
    )
    out = tmp_path / "out"
    status, text, err = cli(capsys, file, "--out", out, "--executor", "inline")
    assert status == 2
    assert text == f"1 cells; tables, figures and networks in {out}\n"
    assert "1 cells failed, the others are kept" in err
    assert "failed: n=0: ZeroDivisionError" in err


def test_file_may_import_modules_that_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "beside_it.py").write_text("def ten(cell):\n    return {'ten': 10 * cell['n']}\n")
    (tmp_path / "mine.py").write_text(
        "from beside_it import ten\nfrom ctxrnn.studies import Study\n"
        "study = Study('tens', {'n': [1, 2]}, work=ten)\n"
    )
    chosen = packaged(tmp_path / "mine.py")
    assert chosen.run(tmp_path / "out", workers=1, progress=False)["ten"].tolist() == [10, 20]


SLOW = """
    import time
    from ctxrnn.studies import Study
    def measured(cell):
        time.sleep(0.3)
        return {"x": cell["n"]}
    study = Study("slow", {"n": list(range(10))}, work=measured)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_stopped_study_says_so_in_a_line_and_can_be_resumed(tmp_path, sent):
    (tmp_path / "slow.py").write_text(textwrap.dedent(SLOW))
    command = [*COMMAND, "slow.py", "--out", "out", "--workers", "1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 90
    while not any(status == "done" for _, status in states_if_any(tmp_path / "out")):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err.strip().splitlines()[-1] == "stopped; the same command goes on from here"
    assert "Traceback" not in err
    before = states(tmp_path / "out")
    assert len(before) == 10
    assert 0 < sum(status == "done" for _, status in before) < 10
    # In this process: the command is the same.
    from ctxrnn.studies._recipes import study

    run(study(tmp_path / "slow.py"), tmp_path / "out")
    assert states(tmp_path / "out") == [(n, "done") for n in range(10)]
