import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import ctxrnn
from ctxrnn.studies import SCALES, NetworkSettings, ReproduceSettings, reproduce
from ctxrnn.studies._configured import from_dict, to_dict
from ctxrnn.studies._reproduce import sized
from ctxrnn.studies._results import ResultsFolder

TINY = ReproduceSettings(
    variants=("none", "s-sym"),
    units=8,
    seeds=1,
    levels=(0.0, 0.5, 1.0),
    ambiguity_trials=4,
    dynamics_starts=6,
    dynamics_trials=4,
    base=NetworkSettings(
        tasks=("go", "anti", "dm1"),
        train=ctxrnn.TrainConfig(
            steps=20, batch=12, learning_rate=3e-3, evaluate_every=10, evaluation_trials=12
        ),
        bank=8,
        test_trials=8,
    ),
)
MEASURED = ("accuracy", "learning", "ambiguity")
DYNAMICS = (
    "fixed_points", "trajectories", "dimensions", "subspaces", "state_dependence", "branches",
    "bifurcations", "choices",
)  # fmt: skip
TABLES = ("cells", "networks", *MEASURED, *DYNAMICS, "paths", "crossing_tests")
FIGURES = ("learning", "ambiguity", "tasks", "dynamics", "bifurcations")


def records(folder):
    with ResultsFolder(folder).store() as store:
        return {row.cell["variant"]: row.record for row in store.rows("done")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reproduce(TINY, tmp_path_factory.mktemp("study") / "out", workers=1, progress=False)


def test_everything_promised_is_written(finished):
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    wanted = {"settings.json", "provenance.json", "report.html", "records.sqlite"}
    wanted |= {f"{name}.{ending}" for name in TABLES for ending in ("parquet", "csv")}
    wanted |= {f"figures/{n}.{e}" for n in FIGURES for e in ("pdf", "png")}
    wanted |= {record["files"][0] for record in records(finished).values()}
    assert {name for name in names if not name.startswith(".")} == wanted
    assert len([name for name in names if name.startswith("networks/")]) == 2


def test_records_agree_between_parquet_and_csv_and_with_each_other(finished):
    tables = {name: pd.read_parquet(finished / f"{name}.parquet") for name in TABLES}
    for name, table in tables.items():
        read = pd.read_csv(finished / f"{name}.csv")
        table = table.where(table.notna(), np.nan)
        pd.testing.assert_frame_equal(read, table, check_dtype=False, rtol=1e-12)
    assert len(tables["networks"]) == 2
    assert len(tables["accuracy"]) == 2 * 3
    assert len(tables["learning"]) == 2 * 2
    assert len(tables["ambiguity"]) == 2 * 3 * 2 * 3
    mean = tables["accuracy"].groupby("variant")["relative"].mean()
    networks = tables["networks"].set_index("variant")
    for variant in ("none", "s-sym"):
        assert networks.loc[variant, "relative_mean"] == pytest.approx(mean[variant])


def test_saved_network_has_the_recorded_accuracy(finished):
    from ctxrnn.tasks import task_set

    record = records(finished)["s-sym"]
    path = finished / record["files"][0]
    network, notes = ctxrnn.load(path), ctxrnn.load_notes(path)
    tasks = task_set(**notes["tasks"])
    source = ctxrnn.make_generator(record["values"]["network_seed"], "test")
    batch = tasks.sample(TINY.base.test_trials * 3, generator=source)
    outputs = network(batch.inputs, batch.context, generator=source).outputs
    table = record["tables"]["accuracy"]
    recorded = dict(zip(table["task"], table["accuracy"], strict=True))
    assert dict(tasks.accuracy(outputs, batch)) == pytest.approx(recorded)
    assert network.parameter_count() == record["values"]["parameters"]


def test_report_is_self_contained_and_tells_where_it_comes_from(finished):
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(FIGURES)
    assert not re.findall(r"src=['\"](?!data:)", page)
    links = re.findall(r"href=['\"]([^'\"]*)", page)
    assert {f"{name}.csv" for name in TABLES} | {"provenance.json"} <= set(links)
    # Files beside the page, and nothing elsewhere.
    assert all((finished / link).exists() for link in links)
    assert all("alt=" in tag for tag in re.findall(r"<img[^>]*>", page))
    seed = records(finished)["none"]["values"]["network_seed"]
    provenance = json.loads((finished / "provenance.json").read_text())
    told = provenance["commit"] or "not a checkout"
    for text in (str(seed), ctxrnn._checkpoint.versions()["torch"], "reproduce", told):
        assert text in page


def test_finished_networks_are_not_trained_again(finished):
    before = {p: p.stat().st_mtime_ns for p in (finished / "networks").iterdir()}
    (finished / "report.html").unlink()
    reproduce(TINY, finished, workers=1, progress=False)
    assert {p: p.stat().st_mtime_ns for p in (finished / "networks").iterdir()} == before
    assert (finished / "report.html").exists()


def test_lost_network_is_made_again_with_the_same_result(finished):
    before = records(finished)
    (finished / before["s-sym"]["files"][0]).unlink()
    reproduce(TINY, finished, workers=1, progress=False)
    assert records(finished) == before
    assert (finished / before["s-sym"]["files"][0]).exists()


def test_other_settings_are_refused_with_their_difference(finished):
    train = dataclasses.replace(TINY.base.train, steps=21)
    base = dataclasses.replace(TINY.base, train=train)
    other = dataclasses.replace(TINY, base=base, units=9)
    with pytest.raises(ValueError, match=r"base\.train\.steps was 20, now 21; units was 8, now 9"):
        reproduce(other, finished, progress=False)


def test_folder_of_a_version_without_dynamics_is_refused(finished, tmp_path):
    settings = json.loads((finished / "settings.json").read_text())
    del settings["dynamics_starts"], settings["dynamics_trials"]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="other settings: dynamics_starts was 0, now 6"):
        reproduce(TINY, tmp_path, progress=False)


def test_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not empty and holds no study"):
        reproduce(TINY, tmp_path, progress=False)
    with pytest.raises(ValueError, match="is a file"):
        reproduce(TINY, tmp_path / "thesis.tex", progress=False)
    with pytest.raises(OSError, match="cannot make the results folder"):
        reproduce(TINY, "/proc/nowhere/out", progress=False)


def test_failing_network_is_reported_and_the_others_are_kept(tmp_path):
    out = tmp_path / "out"
    settings = dataclasses.replace(TINY, variants=("none", "e-add"))
    reproduce(settings, out, workers=1, progress=False)
    before = records(out)
    file = out / before["e-add"]["files"][0]
    file.unlink()
    # A folder in the way of its training checkpoint makes this cell fail.
    checkpoint = out / "training" / f"{file.stem}.training"
    checkpoint.mkdir()
    with pytest.raises(RuntimeError, match="1 of 2 networks failed; finished ones are kept"):
        reproduce(settings, out, workers=1, progress=False)
    assert set(records(out)) == {"none"}
    # A damaged one only costs what was half done.
    checkpoint.rmdir()
    checkpoint.write_bytes(b"not a checkpoint")
    reproduce(settings, out, workers=1, progress=False)
    assert records(out) == before


@pytest.mark.parametrize("scale", ["smoke", "quick"])
def test_variants_have_equal_parameter_counts(scale):
    settings = SCALES[scale]
    found = sized(settings)
    counts = np.array([count for _, count in found.values()])
    units = np.array([n for n, _ in found.values()])
    assert found["es-add-sym"][0] == settings.units
    # One more unit would exceed the budget, so no count is further below it than one unit costs.
    budget = counts.max()
    cost = 2 * units + 17 + 9 + 2 + 2 * len(settings.base.tasks)
    assert (counts <= budget).all()
    assert (budget - counts < cost).all()


def test_quick_scale_spans_the_families_with_conflicts():
    settings = SCALES["quick"]
    assert len(settings.base.tasks) >= 8
    assert {"go", "anti", "ctxdm1", "ctxdm2", "dms", "dnms"} <= set(settings.base.tasks)
    assert settings.seeds >= 2
    assert settings.variants == ("none", "e-add", "s-sym", "es-add-sym")


def test_settings_round_trip_and_refuse_unknown_keys():
    settings = SCALES["quick"]
    again = from_dict(ReproduceSettings, json.loads(json.dumps(to_dict(settings))))
    assert again == settings
    with pytest.raises(ValueError, match="unknown setting 'unit'"):
        from_dict(ReproduceSettings, {"unit": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": ("none", "e-ad")}, "unknown variant 'e-ad'. Did you mean 'e-add'"),
        ({"variants": ("none", "none")}, "each once"),
        ({"base": NetworkSettings(tasks=("go",))}, "at least two tasks"),
        ({"seeds": 0}, "seeds must be at least 1"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def _start(folder, *extra):
    command = [
        sys.executable, "-m", "ctxrnn._cli", "reproduce", "--scale", "smoke", "--out", str(folder),
        *extra,
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.mark.parametrize("whole_group", [True, False])
def test_ctrl_c_is_clean_and_the_same_command_goes_on(tmp_path, whole_group):
    out = tmp_path / "out"
    process = _start(out, "--workers", "1", "--seeds", "1")
    _wait_for(lambda: list(out.glob("training/*.training")) or list(out.glob("networks/*.s*")), 90)
    if whole_group:  # as a terminal does
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "the same command goes on" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert not list(out.rglob("*.part"))
    assert not (out / "report.html").exists()
    again = _start(out, "--seeds", "1")
    stdout, stderr = again.communicate(timeout=110)
    assert again.returncode == 0, stderr
    assert (out / "report.html").exists()
    assert "report.html" in stdout
