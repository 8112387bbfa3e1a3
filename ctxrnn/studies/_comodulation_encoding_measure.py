"""Populations of Poisson neurons with a shared modulator: their settings, and what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import stats

from ctxrnn import derive_seed, make_generator
from ctxrnn._checks import check_count
from ctxrnn.comodulation import (
    CountTrials,
    EncodingConfig,
    EncodingModel,
    count_decoders,
    coupling_variance,
    decoder_accuracies,
    decoder_margins,
    estimate_coupling,
    make_count_decoder,
    make_encoding_model,
    preferred_sign,
)
from ctxrnn.studies._cells import Cell
from ctxrnn.studies._configured import to_dict

if TYPE_CHECKING:
    import pandas as pd

GUIDED = "modulator-guided"
RIGHT_SIGNS = "modulator-guided, right signs"
"""A control: the signs of informative neurons are given."""


@dataclass(frozen=True)
class EncodingSettings:
    """Settings of the study `comodulation-encoding`.

    Attributes:
        neurons: Sizes N of populations.
        sigmas: Standard deviations of the modulator.
        trials: Numbers T of trials from which w-hat and mean counts are learned.
        labelled: Labelled trials from which signs are learned, half of each stimulus.
        seeds: Populations; those of one seed share their first neurons over all N.
        repeats: Times that everything is learned anew from other trials.
        test_trials: Trials that decoders are tested on.
        variance_repeats: Estimates of w-hat behind each variance.
        variance_trials: Numbers of trials at which the variance is measured.
        shown: Neurons of each population that the tables name one by one.
        informative: Neurons with d other than 0.
        rate: Median of the geometric mean of both mean counts.
        rate_spread: Standard deviation of its logarithm.
        difference: Standard deviation of d of informative neurons.
        coupling_noise: Standard deviation of the noise in w = |d + noise|.
    """

    neurons: tuple[int, ...] = (20, 100, 500)
    sigmas: tuple[float, ...] = (0.5, 1.0)
    trials: tuple[int, ...] = (10, 30, 100, 300, 1000, 3000)
    labelled: int = 20
    seeds: int = 10
    repeats: int = 10
    test_trials: int = 5000
    variance_repeats: int = 200
    variance_trials: tuple[int, ...] = (10, 100)
    shown: int = 40
    informative: int = 10
    rate: float = 1.0
    rate_spread: float = 0.5
    difference: float = 0.5
    coupling_noise: float = 0.1

    def __post_init__(self) -> None:
        for name in ("seeds", "repeats", "test_trials", "shown"):
            check_count(name, getattr(self, name))
        check_count("labelled", self.labelled, 2)
        check_count("variance_repeats", self.variance_repeats, 2)
        for name in ("neurons", "sigmas", "trials", "variance_trials"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be given, each once: got {list(values)}")
        for count in (*self.trials, *self.variance_trials):
            check_count("trials", count)
        for neurons in self.neurons:
            for sigma in self.sigmas:
                self.population(neurons, sigma)

    def population(self, neurons: int, sigma: float) -> EncodingConfig:
        """Return the settings of a population."""
        names = ("informative", "rate", "rate_spread", "difference", "coupling_noise")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        return EncodingConfig(neurons=neurons, sigma=sigma, **given)


def seconds(settings: EncodingSettings, cell: Cell) -> float:
    """Return the time of a cell: drawing counts, and testing, dominate."""
    drawn = settings.repeats * max(settings.trials) + settings.test_trials
    drawn += settings.variance_repeats * sum(settings.variance_trials)
    tested = settings.repeats * len(settings.trials) * 6 * settings.test_trials
    return 1e-7 * drawn * int(cell["neurons"]) + 1e-9 * tested * (int(cell["neurons"]) + 200)


def measure_population(settings: EncodingSettings, cell: Cell) -> dict[str, Any]:
    """Measure one population: estimates of w, their variance, and all decoders."""
    config = settings.population(int(cell["neurons"]), float(cell["sigma"]))
    seed = int(cell["seed"])
    model = make_encoding_model(config, derive_seed(seed, "population"))
    source = make_generator(seed, "trials", config.neurons, config.sigma)
    test = model.draw(settings.test_trials, source)
    learned = [
        (
            model.draw(max(settings.trials), source),
            model.draw(settings.labelled, source, balanced=True),
        )
        for _ in range(settings.repeats)
    ]
    informative = model.d[: config.informative].sign()
    wrong = [
        float((preferred_sign(labelled)[: config.informative] != informative).double().mean())
        for _, labelled in learned
    ]
    flags = {name: value for name, value in to_dict(settings).items() if np.isscalar(value)}
    flags = {name: value for name, value in flags.items() if name not in ("seeds", "shown")}
    return {
        **flags,
        "signs_wrong": float(np.mean(wrong)),
        "decoders": _decoders(settings, model, learned, test),
        "estimates": _estimates(settings, model, [trials for trials, _ in learned]),
        "variances": _variances(settings, model, source),
    }


def _decoders(
    settings: EncodingSettings,
    model: EncodingModel,
    learned: Sequence[tuple[CountTrials, CountTrials]],
    test: CountTrials,
) -> pd.DataFrame:
    """Test all decoders, learned from growing numbers of the same trials; means over repeats."""
    import pandas as pd

    rows = []
    first = test.stimulus.numpy() == 1
    for learning, labelled in learned:
        made = {}
        for trials in settings.trials:
            for name, decoder in count_decoders(model, learning.first(trials), labelled).items():
                made[trials, name] = decoder
            sign = torch.where(model.d != 0, model.d.sign(), preferred_sign(labelled))
            w = _coupling(model, learning.first(trials))
            made[trials, RIGHT_SIGNS] = make_count_decoder(GUIDED, model, sign=sign, coupling=w)
        margins = decoder_margins(model, list(made.values()), test)
        shares = decoder_accuracies(margins, test.stimulus).tolist()
        areas = areas_under_roc(margins.numpy(), first)
        for (trials, name), share, area in zip(made, shares, areas, strict=True):
            rows.append({"trials": trials, "decoder": name, "accuracy": share, "auc": area})
    return pd.DataFrame(rows).groupby(["trials", "decoder"], sort=False).mean().reset_index()


def areas_under_roc(margins: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the share of pairs of trials that each row orders rightly, ties half (Mann-Whitney).

    Args:
        margins: (decoder, trial).
        first: Whether the stimulus is 1, (trial,).

    Returns:
        (decoder,); NaN where one of the stimuli is missing.
    """
    ones, others = float(first.sum()), float((~first).sum())
    ranks = stats.rankdata(margins, axis=1)[:, first].sum(axis=1)
    if not ones * others:
        return np.full(len(margins), np.nan)
    return np.asarray((ranks - ones * (ones + 1) / 2) / (ones * others))


def _coupling(model: EncodingModel, trials: CountTrials) -> torch.Tensor:
    return estimate_coupling(trials.counts, trials.modulator, model.mean_rates, model.sigma)


def _estimates(
    settings: EncodingSettings, model: EncodingModel, learned: Sequence[CountTrials]
) -> pd.DataFrame:
    """Return w and w-hat of the first repeat, and over repeats its correlation with w."""
    import pandas as pd

    parts = []
    w = model.couplings.numpy()
    shown = min(settings.shown, len(w))
    for trials in settings.trials:
        found = np.stack([_coupling(model, one.first(trials)).numpy() for one in learned])
        like = [float(np.corrcoef(one, w)[0, 1]) if len(w) > 1 else np.nan for one in found]
        parts.append(
            pd.DataFrame(
                {
                    "trials": trials, "neuron": np.arange(shown), "w": w[:shown],
                    "w_hat": found[0, :shown], "correlation": float(np.mean(like)),
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _variances(
    settings: EncodingSettings, model: EncodingModel, source: torch.Generator
) -> pd.DataFrame:
    """Return mean and variance of w-hat over repeats beside theory, neuron by neuron."""
    import pandas as pd

    theory = coupling_variance(model).numpy()
    shown = min(settings.shown, len(theory))
    parts = []
    for trials in settings.variance_trials:
        found = np.stack(
            [
                _coupling(model, model.draw(trials, source)).numpy()
                for _ in range(settings.variance_repeats)
            ]
        )
        measured = found.var(axis=0, ddof=1)
        parts.append(
            pd.DataFrame(
                {
                    "trials": trials, "neuron": np.arange(shown),
                    "w": model.couplings.numpy()[:shown], "mean": found.mean(axis=0)[:shown],
                    "theory": theory[:shown] / trials, "variance": measured[:shown],
                    # Over all neurons of the population, each counting the same.
                    "ratio": float((measured * trials / theory).mean()),
                    "bias": float((found.mean(axis=0) - model.couplings.numpy()).mean()),
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)
