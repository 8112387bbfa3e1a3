import sys

import numpy as np
import pytest
import torch

from ctxrnn import CTRNN, Ensemble, TrialBatch
from ctxrnn.interop import to_xarray
from ctxrnn.tasks import task_set

xarray = pytest.importorskip("xarray")


def batch_of(dt=25.0, **changes):
    """Three trials of 8, 5 and 6 steps of two tasks."""
    trials, steps = 3, 8
    values = {
        "inputs": torch.randn(trials, steps, 2, generator=torch.Generator().manual_seed(0)),
        "targets": torch.zeros(trials, steps, dtype=torch.int64),
        "mask": torch.ones(trials, steps),
        "context": torch.eye(2)[[0, 1, 0]],
        "task": torch.tensor([0, 1, 0]),
        "lengths": torch.tensor([8, 5, 6]),
        "names": ("go", "wait"),
        "dt": dt,
        "periods": {"stimulus": torch.tensor([[2, 6], [-1, -1], [3, 5]])},
        "conditions": {
            "angle": np.array([0.5, np.nan, 1.5]),
            "side": np.array(["left", None, "right"], dtype=object),
        },
    }
    return TrialBatch(**{**values, **changes})


@pytest.fixture
def network():
    return CTRNN(2, 5, 3, "e-add", contexts=2, dt=25.0, tau=100.0, seed=0)


def test_values_axes_and_padding(network):
    batch = batch_of()
    run = network(batch.inputs, batch.context, generator=1)
    dataset = to_xarray(run, batch)
    assert dataset.potentials.dims == dataset.rates.dims == ("trial", "time", "unit")
    assert dataset.outputs.dims == ("trial", "time", "output")
    assert dataset.sizes == {"trial": 3, "time": 8, "unit": 5, "output": 3}
    for name, values in run.numpy().items():
        assert dataset[name].dtype == np.float32
        for trial, length in enumerate([8, 5, 6]):
            found = dataset[name].values[trial]
            np.testing.assert_array_equal(found[:length], values[trial, :length])
            assert np.isnan(found[length:]).all()
    # The trajectory itself keeps its padding.
    assert not run.rates.isnan().any()


def test_time_is_that_of_the_state(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.input_weight[:, 0] = 1.0
    stimulus = torch.zeros(1, 40, 2)
    stimulus[:, 10:, 0] = 1.0  # on from 250 ms
    x = to_xarray(network(stimulus, torch.eye(2)[:1], noise=0.0), network=network).potentials
    assert x.time.attrs["units"] == "ms"
    since = x.time.values - 250.0
    wanted = np.where(since > 0, 1 - 0.75 ** (since / 25.0), 0.0)
    np.testing.assert_allclose(x.values[0, :, 0], wanted, atol=1e-6)
    assert float(x.sel(time=250.0)[0, 0]) == 0.0
    assert float(x.sel(time=275.0)[0, 0]) == pytest.approx(0.25)


def test_what_is_known_of_each_trial(network):
    batch = batch_of()
    run = network(batch.inputs, batch.context)
    dataset = to_xarray(run, batch)
    assert dataset.task.values.tolist() == ["go", "wait", "go"]
    assert dataset.length.values.tolist() == [8, 5, 6]
    np.testing.assert_array_equal(dataset.angle, [0.5, np.nan, 1.5])
    assert dataset.side.isnull().values.tolist() == [False, True, False]
    assert dataset.side.values[[0, 2]].tolist() == ["left", "right"]
    np.testing.assert_array_equal(dataset.stimulus_start, [50.0, np.nan, 75.0])
    np.testing.assert_array_equal(dataset.stimulus_stop, [150.0, np.nan, 125.0])
    within = (dataset.time > dataset.stimulus_start) & (dataset.time <= dataset.stimulus_stop)
    assert within.transpose("trial", "time").values.nonzero()[1].tolist() == [2, 3, 4, 5, 3, 4]
    assert dataset.rates.groupby("task").mean().sizes["task"] == 2


def test_a_table_holds_the_same(network):
    batch = batch_of()
    run = network(batch.inputs, batch.context)
    table = to_xarray(run, batch).rates.to_dataframe().dropna(subset="rates")
    assert len(table) == (8 + 5 + 6) * 5
    row = table.loc[(1, 3 * 25.0, 4)]
    assert row.rates == run.rates[1, 2, 4].item()
    assert row.task == "wait"


def test_files_hold_the_same(network, tmp_path):
    batch = batch_of(conditions={"angle": np.array([0.5, np.nan, 1.5]), "match": np.eye(3)[0] > 0})
    dataset = to_xarray(network(batch.inputs, batch.context), batch, network=network)
    dataset.to_netcdf(tmp_path / "run.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "run.nc", engine="scipy") as again:
        xarray.testing.assert_allclose(again.load(), dataset, rtol=0, atol=0)
        assert again.time.attrs["units"] == "ms"
        assert again.attrs["tau"] == 100.0


def test_attributes_of_the_network(network):
    run = network(torch.zeros(1, 4, 2), torch.eye(2)[:1])
    assert to_xarray(run, network=network).attrs == {
        "dt": 25.0, "variant": "e-add", "form": "current", "nonlinearity": "tanh", "tau": 100.0,
    }  # fmt: skip
    plain = to_xarray(run)
    assert plain.attrs == {}
    assert plain.time.values.tolist() == [0, 1, 2, 3]
    assert plain.time.attrs == {"units": "step"}
    own = CTRNN(2, 2, 1, nonlinearity=torch.sin, tau=[50.0, 100.0])
    attributes = to_xarray(own(torch.zeros(1, 4, 2)), network=own).attrs
    assert attributes["nonlinearity"] == "sin"
    assert attributes["tau"].tolist() == [50.0, 100.0]


def test_real_tasks_and_the_members_of_an_ensemble():
    tasks = task_set(["go", "dms"], dt=50, ring=8)
    batch = tasks.sample(6, generator=0)
    members = [{"units": 4, "modulation": "e-add"}, {"units": 6, "modulation": "s-sym"}]
    ensemble = Ensemble.of(tasks.inputs, tasks.outputs, members, contexts=2, dt=50, seed=0)
    runs = ensemble(batch.inputs, batch.context, generator=0)
    parts = [to_xarray(run, batch) for run in runs]
    together = xarray.concat(parts, "network", join="outer")
    assert together.rates.sizes["network"] == 2
    np.testing.assert_array_equal(together.rates[1, :, :, :6], parts[1].rates)
    assert np.isnan(together.rates[0, :, :, 4:]).all()
    assert set(parts[0].task.values) == {"go", "dms"}
    assert {"modality", "match", "sample_start", "decision_stop"} <= set(parts[0].coords)


@pytest.mark.parametrize(
    ("batch", "other", "message"),
    [
        (batch_of().select([0, 1]), False, "trajectory, 3 of 8 steps: got 2 of 8"),
        (batch_of(dt=50.0), False, "must have the same dt: got 50 and 25 ms"),
        (batch_of(conditions={"task": np.zeros(3)}), False, "got 'task'; rename it"),
        (batch_of(conditions={"time": np.zeros(3)}), False, "got 'time'; rename it"),
        (batch_of(conditions={"stimulus_stop": np.zeros(3)}), False, "got 'stimulus_stop'"),
        (batch_of(), True, "with 6 units and 3 outputs: got 5 and 3"),
    ],
)
def test_what_does_not_fit_is_refused(network, batch, other, message):
    full = batch_of()
    run = network(full.inputs, full.context)
    if other:
        network = CTRNN(2, 6, 3, dt=25.0)
    with pytest.raises(ValueError, match=message):
        to_xarray(run, batch, network=network)


def test_without_xarray_the_error_says_what_to_install(network, monkeypatch):
    run = network(torch.zeros(1, 4, 2), torch.eye(2)[:1])
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match="xarray is not installed: pip install xarray"):
        to_xarray(run)


def test_detached_parts_are_numpy_arrays_as_in_torch(network):
    stimulus, context = torch.zeros(1, 4, 2), torch.eye(2)[:1]
    run = network(stimulus, context)
    with pytest.raises(RuntimeError, match="requires grad"):
        run.rates.numpy()
    arrays = run.numpy()
    assert {type(array) for array in arrays.values()} == {np.ndarray}
    with torch.no_grad():
        run = network(stimulus, context, generator=0)
    np.testing.assert_array_equal(np.asarray(run.rates), run.numpy()["rates"])
    with torch.inference_mode():
        assert network(stimulus, context).outputs.numpy().shape == (1, 4, 3)
