import dataclasses
import random
import re
import shutil

import pytest
import safetensors.torch
import torch

import ctxrnn
from ctxrnn import TrainConfig, matched_units, parameter_count
from ctxrnn.studies import NetworkSettings, Study, plan_network
from ctxrnn.studies import _grouping as grouping
from ctxrnn.studies._cells import cell_key
from ctxrnn.studies._desk import Desk, run_group
from ctxrnn.studies._networks import Networks
from ctxrnn.studies._plan import source_of, task_order
from ctxrnn.studies._results import ResultsFolder

BASE = NetworkSettings(
    tasks=("go", "anti", "dm1"),
    train=TrainConfig(
        steps=12, batch=12, learning_rate=3e-3, evaluate_every=6, evaluation_trials=15
    ),
    test_trials=8,
)
GRID = {
    "variant": ["none", "s-sym"],
    ("order", "seed"): [(0, 0), (1, 1)],
    "tasks": [2, 3],
    "size": [8],
    "label": ["a", "b"],
}


def measure(trained):
    generator = ctxrnn.make_generator(trained.seed, "x")
    batch = trained.tasks.sample(4, generator=generator)
    outputs = trained.network(batch.inputs, batch.context, generator=generator).outputs
    return {"sum": float(outputs.detach().sum()), "label_seen": trained.cell["label"]}


STUDY = Study("tiny", GRID, measure=measure, base=BASE)


def stored(folder):
    with ResultsFolder(folder).store() as store:
        return {cell_key(row.cell): (row.status, row.record) for row in store.rows()}


def weights(folder):
    return {path.name: ctxrnn.load(path).state_dict() for path in (folder / "networks").iterdir()}


def assert_same(one, other):
    """Records and weights are equal bit for bit."""
    assert stored(one) == stored(other)
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensors in first.items():
        assert all(torch.equal(tensor, second[name][key]) for key, tensor in tensors.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    STUDY.run(folder, executor="inline", progress=False)
    return folder


def test_results_do_not_depend_on_workers_and_executor(whole, tmp_path):
    import sys

    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    STUDY.run(tmp_path / "out", workers=2, progress=False)
    assert_same(whole, tmp_path / "out")


@pytest.mark.parametrize("together", [1, 2, 24])
def test_results_do_not_depend_on_grouping_and_order(whole, tmp_path, together, monkeypatch):
    monkeypatch.setattr(grouping, "TOGETHER", together)
    cells = STUDY.cells()
    random.Random(together).shuffle(cells)
    shuffled = dataclasses.replace(STUDY, grid=cells)
    groups = grouping.grouped(shuffled.worker(), cells, 1)
    assert max(len({STUDY.worker().unit(c) for c in group}) for group in groups) <= together
    shuffled.run(tmp_path / "out", executor="inline", progress=False)
    assert_same(whole, tmp_path / "out")


def test_axes_that_only_label_share_the_network_but_not_the_measure(whole):
    rows = stored(whole)
    files = {record["files"][0] for _, record in rows.values()}
    assert len(rows) == 16
    assert len(files) == 8 == len(list((whole / "networks").iterdir()))
    assert [r["values"]["label_seen"] for _, r in rows.values()].count("a") == 8
    assert not list((whole / "training").iterdir())


def test_paired_networks_see_the_same_trials():
    plans = [
        plan_network(BASE, {"variant": v, "units": n, "seed": 3})
        for v, n in (("none", 8), ("s-sym", 9))
    ]
    assert plans[0].company == plans[1].company
    assert plans[0].identity != plans[1].identity
    other = plan_network(BASE, {"variant": "none", "units": 8, "seed": 4})
    assert other.company != plans[0].company


@pytest.mark.parametrize("training", ["clean", "ambiguous"])
@pytest.mark.parametrize("bank", [0, 16])
def test_trials_are_drawn_once_for_all_networks_that_see_the_same(tmp_path, training, bank):
    base = dataclasses.replace(BASE, bank=bank)
    cells = [{"variant": v, "units": 8, "training": training} for v in ("none", "e-add")]
    source = source_of(plan_network(base, cells[0]))
    drawn = []
    before = type(source).sample

    def counted(self, trials, **more):
        drawn.append((self, trials))
        return before(self, trials, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(source), "sample", counted)
        (tmp_path / "networks").mkdir()
        done = list(Networks(base)(cells, Desk(tmp_path, lambda event: None)))
    assert len(done) == 2
    assert sum(one is source and trials == base.train.batch for one, trials in drawn) == 12


@pytest.mark.parametrize("variant", ["none", "e-gain", "s-sym", "es-add-sym", "s-asym-2"])
@pytest.mark.parametrize("tasks", [1, 3])
def test_equal_parameters_take_the_most_units_within_the_budget(variant, tasks):
    cell = {"variant": variant, "size": 20, "tasks": tasks}
    shape = {"inputs": 1 + 2 * BASE.ring, "outputs": 1 + BASE.ring, "contexts": tasks}
    assert plan_network(BASE, {**cell, "matching": "M1"}).units == 20
    plan = plan_network(BASE, {**cell, "matching": "M2"})
    budget = parameter_count("e-add", units=20, **shape)
    assert plan.units == matched_units(variant, parameters=budget, **shape)
    assert parameter_count(variant, units=plan.units, **shape) <= budget
    assert parameter_count(variant, units=plan.units + 1, **shape) > budget


def test_each_pathway_takes_half_of_the_units_with_m3():
    plan = plan_network(BASE, {"variant": "es-add-sym", "size": 20, "matching": "M3"})
    assert (plan.units, plan.options["on_e"], plan.options["on_s"]) == (20, 0.5, 0.5)
    alone = plan_network(BASE, {"variant": "e-add", "size": 20, "matching": "M3"})
    assert "on_e" not in alone.options


def test_orders_are_permutations_and_nested():
    pool = tuple(ctxrnn.studies._plan.TEN_TASKS)
    orders = [task_order(pool, order, 1) for order in range(20)]
    assert all(sorted(order) == sorted(pool) for order in orders)
    assert len(set(orders)) == 20
    assert task_order(pool, 0, 1) == orders[0] != task_order(pool, 0, 2)
    base = NetworkSettings()
    for count in (1, 4, 10):
        cell = {"variant": "none", "units": 8, "order": 0, "tasks": count}
        assert plan_network(base, cell).tasks == task_order(pool, 0, base.seed)[:count]


def test_axes_override_the_settings_and_none_leaves_them():
    cell = {
        "variant": "none", "units": 8, "tau": 50.0, "noise": 0.1, "input_noise": 0.5, "ring": 4,
        "dt": 25.0, "learning_rate": 0.01, "budget": 2, "bank": 16, "training": "ambiguous",
        "batch": None,
    }  # fmt: skip
    plan = plan_network(BASE, cell)
    assert (plan.options["tau"], plan.options["noise"]) == (50.0, 0.1)
    assert plan.trials == {"dt": 25.0, "ring": 4, "noise": 0.5}
    assert (plan.train.learning_rate, plan.train.batch) == (0.01, 12)
    assert plan.train.steps == 24
    assert (plan.bank, plan.training) == (16, "ambiguous")
    more = dataclasses.replace(BASE, steps_per_task=10)
    assert plan_network(more, {"variant": "none", "units": 8, "tasks": 2}).train.steps == 32


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"units": 8}, "must name its `variant`"),
        ({"variant": "e-ad", "units": 8}, "Did you mean 'e-add'"),
        ({"variant": "none"}, "must give its `units` (N), or `size` and `matching`"),
        ({"variant": "none", "units": 0}, "units must be at least 1"),
        ({"variant": "none", "size": 8, "matching": "M4"}, "unknown matching 'M4'"),
        ({"variant": "none", "units": 8, "tasks": 4}, "at most 3, the size of the pool: got 4"),
        ({"variant": "none", "units": 8, "tasks": 0}, "tasks must be at least 1"),
        ({"variant": "none", "units": 8, "training": "dirty"}, "unknown training 'dirty'"),
        ({"variant": "none", "units": 8, "learning_rate": -1.0}, "learning_rate must be"),
    ],
)
def test_bad_cells_are_refused(cell, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        plan_network(BASE, cell)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ()}, "tasks must be given"),
        ({"tasks": ("go", "go")}, "each once"),
        ({"dt": 0.0}, "dt must be"),
        ({"noise": -1.0}, "noise must be"),
        ({"test_trials": 0}, "test_trials must be at least 1"),
        ({"bank": -1}, "bank must be at least 0"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BASE, **change)


CELLS = [{"variant": v, "units": 6, "label": n} for v in ("none", "s-sym") for n in "ab"]


def collect(folder, measured=measure, cells=CELLS):
    """Compute cells; return what became of them and what was noted."""
    events = []
    run_group(Networks(BASE, measured), cells, Desk(folder, events.append))
    found = {cell_key(event[1]): event[2] for event in events if event[0] in ("done", "failed")}
    return found, [event[1] for event in events if event[0] == "note"]


def test_damaged_network_is_trained_again_and_told(tmp_path):
    before, notes = collect(tmp_path)
    assert notes == []
    plans = [plan_network(BASE, cell) for cell in CELLS[::2]]
    files = [tmp_path / "networks" / f"{plan.name}.safetensors" for plan in plans]
    wanted = ctxrnn.load(files[0]).state_dict()
    data = files[0].read_bytes()
    files[0].write_bytes(data[: len(data) // 2])
    # A whole file of another network is not taken for it either.
    files[1].write_bytes(data)
    after, notes = collect(tmp_path)
    assert len(notes) == 2
    assert all("it is trained again" in note for note in notes)
    assert {k: r.values for k, r in after.items()} == {k: r.values for k, r in before.items()}
    again = ctxrnn.load(files[0]).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in wanted.items())


def test_damaged_checkpoint_only_costs_what_was_half_done(tmp_path):
    before, _ = collect(tmp_path / "a")
    name = plan_network(BASE, CELLS[0]).name
    checkpoint = tmp_path / "b" / "training" / f"{name}.training"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"half a file")
    after, notes = collect(tmp_path / "b")
    assert len(notes) == 1
    assert "this network starts again" in notes[0]
    assert {k: r.values for k, r in after.items()} == {k: r.values for k, r in before.items()}


def test_failing_measure_is_an_error_of_its_cell_and_the_network_is_kept(tmp_path):
    def fails(trained):
        if trained.cell["label"] == "b":
            raise ZeroDivisionError("no b")
        return {"x": 1} if trained.network.variant == "none" else 3

    found, notes = collect(tmp_path, fails)
    told = [r if isinstance(r, str) else r.values["x"] for r in found.values()]
    assert told[0] == 1
    assert told[1].startswith("ZeroDivisionError: no b\n")
    assert told[2].startswith("TypeError: a measure must return a mapping: got int\n")
    assert notes == []
    assert len(list((tmp_path / "networks").iterdir())) == 2


@pytest.mark.parametrize("name", ["seed", "relative_mean", "accuracy"])
def test_measure_may_not_overwrite_the_cell_or_the_clean_test(tmp_path, name):
    study = Study(
        "names", {"variant": ["none"], "units": [6], "seed": [0]}, measure=lambda t: {name: 1.0},
        base=BASE,
    )  # fmt: skip
    study.run(tmp_path / "out", executor="inline", progress=False)
    with ResultsFolder(tmp_path / "out").store() as store:
        (row,) = store.rows()
    assert row.status == "failed"
    assert f"a measure must return names of its own: {name} belongs to the" in row.error


def test_network_whose_file_was_cut_is_trained_again(whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    file = sorted((out / "networks").iterdir())[3]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    STUDY.run(out, executor="inline", progress=False)
    assert safetensors.torch.load_file(file)
    assert_same(whole, out)
