import sys

import numpy as np
import pytest

from ctxrnn import CTRNN, Ensemble, TrainConfig, train
from ctxrnn.interop import tensorboard
from ctxrnn.tasks import task_set

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

CONFIG = TrainConfig(steps=6, batch=8, evaluate_every=2, evaluation_trials=16, target=None)


@pytest.fixture(scope="module")
def tasks():
    return task_set(["go", "anti"], dt=50, ring=8)


def network_of(tasks, **options):
    return CTRNN(tasks.inputs, 6, tasks.outputs, "e-add", contexts=2, dt=50, **options)


def read(folder):
    """Tag -> pairs of step and value."""
    events = accumulators.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def check(folder, history):
    found = read(folder)
    names = {name.replace("accuracy.", "accuracy/") for name in history.rows[0]} - {"step"}
    assert set(found) == names
    assert {"loss", "relative_min", "accuracy/go", "accuracy/anti"} <= names
    for tag, pairs in found.items():
        name = tag.replace("accuracy/", "accuracy.")
        assert [step for step, _ in pairs] == [row["step"] for row in history.rows]
        wanted = np.float32([row[name] for row in history.rows])
        np.testing.assert_array_equal(np.float32([value for _, value in pairs]), wanted)


def test_the_rows_of_the_history_are_written(tasks, tmp_path):
    network = network_of(tasks, seed=0)
    history = train(
        network, tasks, CONFIG, seed=0, callbacks=[tensorboard(tmp_path / "run")], progress=False
    )
    assert [row["step"] for row in history.rows] == [2, 4, 6]
    check(tmp_path / "run", history)


def test_each_member_of_an_ensemble_is_a_run(tasks, tmp_path):
    ensemble = Ensemble([network_of(tasks, seed=seed) for seed in range(3)])
    histories = train(
        ensemble, tasks, CONFIG, seed=0, callbacks=[tensorboard(tmp_path, ensemble)],
        progress=False, threads=1,
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["member-0", "member-1", "member-2"]
    losses = set()
    for index, history in enumerate(histories):
        check(tmp_path / f"member-{index}", history)
        losses.add(history.rows[0]["loss"])
    assert len(losses) == 3


def test_a_second_training_hides_what_it_repeats(tasks, tmp_path):
    # As after a crash: the first wrote steps 2, 4 and 6, and the second begins at step 4.
    write = tensorboard(tmp_path)
    network = network_of(tasks, seed=0)
    for step in (2, 4, 6):
        write(network, {"step": step, "loss": 1.0})
    again = tensorboard(tmp_path)
    for step in (4, 6, 8):
        again(network, {"step": step, "loss": 2.0})
    assert read(tmp_path) == {"loss": [(2, 1.0), (4, 2.0), (6, 2.0), (8, 2.0)]}


def test_a_second_network_is_refused(tasks, tmp_path):
    write = tensorboard(tmp_path)
    row = {"step": 1, "loss": 1.0}
    write(network_of(tasks), row)
    with pytest.raises(ValueError, match=r"another network.*tensorboard\(folder, ensemble\)"):
        write(network_of(tasks), row)
    ensemble = Ensemble([network_of(tasks)])
    with pytest.raises(ValueError, match="another network"):
        tensorboard(tmp_path, ensemble)(network_of(tasks), row)
    with pytest.raises(TypeError, match="ensemble must be an Ensemble or None: got CTRNN"):
        tensorboard(tmp_path, ensemble[0])


def test_nothing_is_written_before_the_first_evaluation(tmp_path):
    tensorboard(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_tensorboard_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match="tensorboard is not installed: pip install tensorboard"):
        tensorboard(tmp_path)
