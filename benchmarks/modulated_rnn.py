"""Time a training step of ModulatedRNN against torch's recurrent layers of equal parameters.

    python benchmarks/modulated_rnn.py --rounds 20 --budget 20000 60000

benchmarks/README.md says how to read the tables.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from _measure import Report, Verdict, add_options, align, check_rounds, ratio, time_rounds

from ctxrnn import ModulatedRNN
from ctxrnn.studies._recipes import recipe
from ctxrnn.studies._sequence_models import SequenceModel, Shape, sizes
from ctxrnn.studies._sequence_training import loss_of

OWN = "rnn, the compiled loop"
PACKAGES = ("ctxrnn", "torch", "numpy")
SYMBOLS = 64


def stepper(model: SequenceModel, batch: int, steps: int, *, cached: bool) -> Callable[[], object]:
    """Return a call that takes one training step on random symbols."""
    source = torch.Generator().manual_seed(0)
    symbols = torch.randint(SYMBOLS, (steps + 1, batch), generator=source)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)

    def forward() -> torch.Tensor:
        if cached or model.modulated is None:
            return model(symbols[:-1])[0]
        assert model.embedding is not None
        out, _ = model.modulated(model.embedding(symbols[:-1]))
        return model.readout(out)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss_of(forward(), symbols[1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--budget", type=int, nargs="+", default=[20_000, 60_000],
                        help="trainable parameters (default 20000 60000)")  # fmt: skip
    parser.add_argument("--batch", type=int, default=32, help="sequences (default 32)")
    parser.add_argument("--steps", type=int, default=100, help="symbols of each (default 100)")
    parser.add_argument("--outer", action="store_true", help="outer-linear besides")
    add_options(parser, rounds=20, seconds=120, per="per budget")
    options = parser.parse_args()
    check_rounds(parser, options)
    torch.set_num_threads(1)
    work = f"batch {options.batch}, {options.steps} symbols of {SYMBOLS}, one thread"
    report = Report("ModulatedRNN", PACKAGES, options, work)
    settings = recipe("language").settings("quick")
    for budget in options.budget:
        shape = Shape(SYMBOLS, 0, SYMBOLS)
        found = sizes(settings, shape, budget)
        calls, work_of = {}, {}
        for name, size in found.items():
            variants = {name: settings}
            if options.outer and name in ("s-sym", "es-gain-sym"):
                variants[f"{name}, outer-linear"] = dataclasses.replace(
                    settings, interpolation="outer-linear"
                )
            for label, own in variants.items():
                model = SequenceModel(own, name, shape, size, 0)
                work_of[label] = (size.units, model.multiply_adds())
                calls[label] = stepper(model, options.batch, options.steps, cached=True)
                if model.modulated is not None:
                    every = f"{label}, not by symbol"
                    work_of[every] = (size.units, model.multiply_adds())
                    calls[every] = stepper(model, options.batch, options.steps, cached=False)
        size = found["rnn"]
        plain = SequenceModel(settings, "rnn", shape, size, 0)
        plain.layer = ModulatedRNN(size.embedding, size.units, modulation="none", seed=0)
        work_of[OWN] = (size.units, plain.multiply_adds())
        calls[OWN] = stepper(plain, options.batch, options.steps, cached=True)
        times = time_rounds(calls, rounds=options.rounds, seconds=options.seconds)
        rows = [["model", "units", "multiply-adds a step", "ms", "times the LSTM's"]]
        for name, mine in times.items():
            units, products = work_of[name]
            told = ratio(mine, times["lstm"]).format(2)
            rows.append(
                [name, str(units), str(products), f"{1e3 * float(np.median(mine)):.1f}", told]
            )
        report.say("", f"## {budget} parameters", "", *align(rows))
        report.judge(
            [
                Verdict(f"{name} / LSTM, {budget}", ratio(times[name], times["lstm"]), None, None)
                for name in ("e-gain", "s-sym", "es-gain-sym", OWN)
            ]
        )
    report.write()


if __name__ == "__main__":
    main()
