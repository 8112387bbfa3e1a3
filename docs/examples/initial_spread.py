"""A study of one's own: does the initial spread of the synaptic factors decide how well they learn?

Run it with `ctxrnn study docs/examples/initial_spread.py`; `--scale smoke` tries it in seconds.
"""

import numpy as np

from ctxrnn import TrainConfig
from ctxrnn.analysis import bootstrap_interval, plots
from ctxrnn.studies import NetworkSettings, Study

STEPS = {"smoke": 40, "quick": 2000, "paper": 20000}


def measure(trained):
    """Measure how far training moved the factors h from where they began."""
    (pathway,) = trained.network.modulation
    factors = pathway.h.detach().numpy()
    return {"spread_after": float(np.std(factors))}


def figure(tables):
    """Draw accuracy against the initial spread, with 95 % intervals over networks."""
    drawn = plots.new_figure(size=(3.5, 2.6))
    ax = drawn.axes[0]
    for spread, cells in tables["cells"].groupby("sd"):
        values = cells["relative_mean"].to_numpy()
        interval = bootstrap_interval(values)
        reach = [[interval.mean - interval.low], [interval.high - interval.mean]]
        ax.errorbar(spread, interval.mean, yerr=reach, fmt="s", color="#D55E00", capsize=2)
        ax.plot([spread] * len(values), values, ".", color="0.5", zorder=0)
    ax.set(xscale="log", xlabel="initial sd of h", ylabel="accuracy / ceiling, mean over tasks")
    return drawn


def study(scale):
    """Return the study at a scale."""
    return Study(
        name="initial-spread",
        question="Does the initial spread of the synaptic factors decide how well they learn?",
        grid={
            "sd": [0.01, 0.1, 0.3, 1.0],
            "seed": range(2 if scale == "smoke" else 5),
            "variant": ["s-sym"],
            "units": [24],
        },
        measure=measure,
        figure=figure,
        base=NetworkSettings(
            tasks=("go", "anti", "dms", "dnms"),
            train=TrainConfig(steps=STEPS[scale], learning_rate=3e-3, target=None),
            test_trials=64 if scale == "smoke" else 512,
        ),
    )
