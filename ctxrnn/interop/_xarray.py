"""Trajectories as xarray datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ctxrnn._network import CTRNN
from ctxrnn._trajectory import Trajectory
from ctxrnn._trials import TrialBatch

from ._optional import missing

if TYPE_CHECKING:
    import xarray


def to_xarray(
    trajectory: Trajectory, batch: TrialBatch | None = None, *, network: CTRNN | None = None
) -> xarray.Dataset:
    """Return a trajectory with its axes named, as an xarray dataset.

    `dataset.to_dataframe()`, or of one variable, gives a pandas table with one row for each trial,
    step and unit; `dataset.to_netcdf(file)` writes it.

    Args:
        trajectory: What a network did.
        batch: The trials that it ran. Adds what is known of them, and puts NaN in the padding.
        network: The network that ran them. Adds dt, where there is no batch, and attributes:
            variant, form, nonlinearity and tau.

    Returns:
        `potentials`, `rates` (trial, time, unit) and `outputs` (trial, time, output). `time` is
        that of each state in ms: step t ends at (t + 1) dt; with neither batch nor network it
        counts steps. With a batch, each trial has its `task`, `length` in steps, its conditions by
        their names, and for each period its start and stop in ms, e.g. `stimulus_start`: the
        states of a period are those with start < time <= stop; NaN where there is no such period.

    Raises:
        ValueError: If trajectory, batch and network do not fit, or a condition has the name of
            something else in the dataset.

    Example:
        >>> import ctxrnn
        >>> from ctxrnn.interop import to_xarray
        >>> from ctxrnn.tasks import task_set
        >>> tasks = task_set(["go", "anti"], dt=50, ring=8)
        >>> network = ctxrnn.CTRNN(tasks.inputs, 16, tasks.outputs, "e-add", contexts=2, dt=50)
        >>> batch = tasks.sample(6, generator=0)
        >>> dataset = to_xarray(network(batch.inputs, batch.context), batch)
        >>> go = dataset.rates.where(dataset.task == "go", drop=True)
        >>> go.sizes["trial"], go.mean("trial").dims
        (3, ('time', 'unit'))
    """
    try:
        import xarray
    except ImportError:
        raise missing("xarray") from None
    _check_fit(trajectory, batch, network)
    values = trajectory.numpy()
    if batch is not None:
        padding = ~batch.valid.cpu().numpy()
        if padding.any():
            values = {name: _without(array, padding) for name, array in values.items()}
    trials, steps, units = values["rates"].shape
    known = network if batch is None else batch
    dt = None if known is None else known.dt
    dims = {"potentials": "unit", "rates": "unit", "outputs": "output"}
    dataset = xarray.Dataset(
        {name: (("trial", "time", last), values[name]) for name, last in dims.items()},
        coords={
            "trial": np.arange(trials),
            "time": ("time", *_times(steps, dt)),
            "unit": np.arange(units),
            "output": np.arange(values["outputs"].shape[-1]),
        },
        attrs={} if dt is None else {"dt": dt},
    )
    if batch is not None:
        dataset = dataset.assign_coords(_of_trials(batch, set(map(str, dataset.variables))))
    if network is not None:
        tau = network.tau.detach().cpu().double().numpy()
        dataset.attrs |= {
            "variant": network.variant,
            "form": network.form,
            "nonlinearity": network.nonlinearity_name or getattr(network.phi, "__name__", "own"),
            "tau": tau if tau.ndim else float(tau),
        }
    return dataset


def _check_fit(trajectory: Trajectory, batch: TrialBatch | None, network: CTRNN | None) -> None:
    """Raise ValueError unless all three are of the same run."""
    trials, steps, units = trajectory.rates.shape
    outputs = trajectory.outputs.shape[-1]
    if network is not None and (network.units, network.outputs) != (units, outputs):
        raise ValueError(
            f"trajectory must be one of the network, with {network.units} units and "
            f"{network.outputs} outputs: got {units} and {outputs}"
        )
    if batch is not None and tuple(batch.inputs.shape[:2]) != (trials, steps):
        raise ValueError(
            f"batch must hold the trials of the trajectory, {trials} of {steps} steps: got "
            f"{batch.inputs.shape[0]} of {batch.inputs.shape[1]}"
        )
    if batch is not None and network is not None and batch.dt != network.dt:
        raise ValueError(
            f"batch and network must have the same dt: got {batch.dt:g} and {network.dt:g} ms"
        )


def _times(steps: int, dt: float | None) -> tuple[np.ndarray, dict[str, str]]:
    """Return the time of each state, and its attributes."""
    if dt is None:
        return np.arange(steps), {"units": "step"}
    return (np.arange(steps) + 1) * dt, {"units": "ms", "long_name": "time since the trial began"}


def _without(array: np.ndarray, padding: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[padding] = np.nan
    return array


def _of_trials(batch: TrialBatch, taken: set[str]) -> dict[str, Any]:
    """Return what is known of each trial, as coordinates along the axis of trials."""
    found: dict[str, Any] = {
        "task": ("trial", np.array(batch.names)[batch.task.cpu().numpy()]),
        "length": ("trial", batch.lengths.cpu().numpy()),
    }
    for name, steps in batch.periods.items():
        first, stop = steps.cpu().double().numpy().T * batch.dt
        for end, values in (("start", first), ("stop", stop)):
            none = np.where(first < 0, np.nan, values)
            found[f"{name}_{end}"] = ("trial", none, {"units": "ms"})
    for name, condition in batch.conditions.items():
        if name in taken | set(found):
            raise ValueError(
                f"a condition must not be named as another part of the dataset: got {name!r}; "
                "rename it in batch.conditions (dataclasses.replace)"
            )
        found[name] = ("trial", np.asarray(condition))
    return found
