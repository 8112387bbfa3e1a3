"""Poisson neurons with one shared modulator (Haimerl et al. 2019, NeurIPS).

    m ~ N(0, sigma^2),    k_n ~ Poisson(lambda_n(s) exp(w_n m - sigma^2 w_n^2 / 2)),    s in {1, 2}
    d_n = log(lambda_n(1) / lambda_n(2)),    w_n = |d_n + noise|

Neurons that matter for the task fluctuate with the modulator, so that the covariance of a count
with the modulator tells how much the neuron matters. It does not tell in which direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrnn._checks import (
    check_count,
    check_finite,
    check_not_negative,
    check_positive,
    make_generator,
)


@dataclass(frozen=True)
class EncodingConfig:
    """A population of neurons, of which some are informative.

    Attributes:
        neurons: N.
        informative: Number of neurons with d other than 0.
        rate: Median of the geometric mean of both mean counts, per trial.
        rate_spread: Standard deviation of its logarithm over neurons.
        difference: Standard deviation of d over informative neurons.
        coupling_noise: Standard deviation of the noise in w.
        sigma: Standard deviation of the modulator.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> from ctxrnn.comodulation import EncodingConfig, make_encoding_model
        >>> config = EncodingConfig(neurons=50, informative=5)
        >>> int((make_encoding_model(config).d != 0).sum())
        5
    """

    neurons: int = 100
    informative: int = 10
    rate: float = 1.0
    rate_spread: float = 0.5
    difference: float = 0.5
    coupling_noise: float = 0.1
    sigma: float = 0.5

    def __post_init__(self) -> None:
        check_count("neurons", self.neurons)
        check_count("informative", self.informative)
        if self.informative > self.neurons:
            raise ValueError(
                f"informative must be at most neurons: got {self.informative} of {self.neurons}"
            )
        for name in ("rate", "difference", "sigma"):
            check_positive(name, getattr(self, name))
        for name in ("rate_spread", "coupling_noise"):
            check_not_negative(name, getattr(self, name))


@dataclass(frozen=True)
class CountTrials:
    """Counts of trials.

    Attributes:
        counts: k, (trial, neuron).
        modulator: m, (trial,).
        stimulus: s, 1 or 2, (trial,).

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import EncodingConfig, make_encoding_model
        >>> model = make_encoding_model(EncodingConfig(neurons=50))
        >>> trials = model.draw(200, torch.Generator())
        >>> trials.counts.shape, trials.first(20).counts.shape
        (torch.Size([200, 50]), torch.Size([20, 50]))
    """

    counts: Tensor
    modulator: Tensor
    stimulus: Tensor

    def first(self, number: int) -> CountTrials:
        """Return the first trials."""
        return CountTrials(self.counts[:number], self.modulator[:number], self.stimulus[:number])


class EncodingModel:
    """Neurons with mean counts in two stimuli and couplings to one modulator.

        k_n ~ Poisson(lambda_n(s) exp(w_n m - sigma^2 w_n^2 / 2)),   m ~ N(0, sigma^2)

    After Haimerl et al. (2019), NeurIPS.

    Args:
        rates: lambda, mean counts per trial, (2, neuron).
        couplings: w, (neuron,).
        sigma: Standard deviation of the modulator; 0 leaves it out.

    Raises:
        ValueError: If shapes do not fit, rates are not positive or couplings negative.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import EncodingModel
        >>> rates = torch.tensor([[4.0, 1.0], [1.0, 1.0]])  # (stimulus, neuron), counts per trial
        >>> model = EncodingModel(rates, couplings=torch.tensor([1.0, 0.0]), sigma=0.5)
        >>> model.d.round(decimals=2).tolist()  # log 4: the first neuron tells the stimuli apart
        [1.39, 0.0]
        >>> model.gains(torch.tensor([0.5])).round(decimals=2).tolist()  # and follows the modulator
        [[1.45, 1.0]]
    """

    def __init__(self, rates: Tensor, couplings: Tensor, sigma: float) -> None:
        rates, couplings = torch.as_tensor(rates).double(), torch.as_tensor(couplings).double()
        if rates.ndim != 2 or len(rates) != 2 or couplings.shape != rates.shape[1:]:
            raise ValueError(
                "rates must be (2, neuron) and couplings (neuron,): got "
                f"{tuple(rates.shape)} and {tuple(couplings.shape)}"
            )
        if not rates.numel():
            raise ValueError("rates must be of one neuron or more: got none")
        check_finite("rates", rates, "Give mean counts.")
        check_finite("couplings", couplings, "Give w of every neuron.")
        if (rates <= 0).any() or (couplings < 0).any():
            raise ValueError(
                "rates must be positive and couplings zero or more: got at least "
                f"{float(rates.min()):g} and {float(couplings.min()):g}"
            )
        check_not_negative("sigma", sigma)
        self.rates, self.couplings, self.sigma = rates, couplings, float(sigma)

    @property
    def d(self) -> Tensor:
        """Log ratio d of both mean counts, (neuron,)."""
        return (self.rates[0] / self.rates[1]).log()

    @property
    def mean_rates(self) -> Tensor:
        """Mean of lambda over both stimuli, (neuron,)."""
        return self.rates.mean(dim=0)

    def gains(self, modulator: Tensor) -> Tensor:
        """Return exp(w m - sigma^2 w^2 / 2), of mean 1 over m, (trial, neuron)."""
        w = self.couplings
        return (modulator.double()[:, None] * w - 0.5 * self.sigma**2 * w**2).exp()

    def draw(
        self, trials: int, generator: torch.Generator, *, balanced: bool = False
    ) -> CountTrials:
        """Draw trials.

        Args:
            trials: Number of trials.
            generator: Generator.
            balanced: Whether both stimuli come equally often, one after the other, or each with
                probability 1/2.
        """
        check_count("trials", trials)
        alternating = torch.arange(trials) % 2
        first = alternating if balanced else torch.randint(2, (trials,), generator=generator)
        m = self.sigma * torch.randn(trials, generator=generator, dtype=torch.float64)
        means = self.rates[first] * self.gains(m)
        return CountTrials(torch.poisson(means, generator=generator), m, first + 1)


def make_encoding_model(config: EncodingConfig, seed: int | torch.Generator = 0) -> EncodingModel:
    """Draw a population: lambda(1) = b e^(d / 2), lambda(2) = b e^(-d / 2), w = |d + noise|.

    The first neurons are the informative ones; b is log-normal, d and the noise are normal.

    Args:
        config: The population.
        seed: Seed or generator. Populations of one seed share their first neurons.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import EncodingConfig, make_encoding_model
        >>> config = EncodingConfig(neurons=20, informative=5, coupling_noise=0.0)
        >>> model = make_encoding_model(config)
        >>> torch.allclose(model.couplings, model.d.abs())  # w = |d| without noise
        True
    """
    source = make_generator(seed, "encoding")
    # Of a size that is no multiple of 16 the generator would draw the last numbers otherwise.
    size = 16 * -(-config.neurons // 16)
    draws = torch.randn(size, 3, generator=source, dtype=torch.float64)[: config.neurons]
    base = config.rate * (config.rate_spread * draws[:, 0]).exp()
    d = config.difference * draws[:, 1]
    d[config.informative :] = 0
    w = (d + config.coupling_noise * draws[:, 2]).abs()
    return EncodingModel(
        torch.stack([base * (d / 2).exp(), base * (-d / 2).exp()]), w, config.sigma
    )


def estimate_coupling(
    counts: Tensor, modulator: Tensor, mean_rates: Tensor, sigma: float
) -> Tensor:
    """Return w-hat = mean_t[k m] / (sigma^2 mean rate), from trials without labels.

    It is unbiased, since E[k m] = lambda sigma^2 w, and may be negative.

    Args:
        counts: k, (trial, neuron).
        modulator: m, (trial,).
        mean_rates: Mean of lambda over both stimuli, (neuron,).
        sigma: Standard deviation of the modulator.

    Returns:
        (neuron,).

    Raises:
        ValueError: If shapes do not fit or sigma is not positive.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import EncodingModel, estimate_coupling
        >>> couplings = torch.tensor([0.2, 0.5, 1.0])
        >>> model = EncodingModel(torch.full((2, 3), 5.0), couplings, sigma=0.5)
        >>> trials = model.draw(100_000, torch.Generator())
        >>> w = estimate_coupling(trials.counts, trials.modulator, model.mean_rates, model.sigma)
        >>> w.round(decimals=1).tolist()
        [0.2, 0.5, 1.0]
    """
    check_positive("sigma", sigma)
    if counts.ndim != 2 or not len(counts) or modulator.shape != counts.shape[:1]:
        raise ValueError(
            "counts must be (trial, neuron) and modulator (trial,), of one trial or more: got "
            f"{tuple(counts.shape)} and {tuple(modulator.shape)}"
        )
    return modulator.double() @ counts.double() / (len(counts) * sigma**2 * mean_rates.double())


def coupling_variance(model: EncodingModel) -> Tensor:
    """Return the variance of w-hat from one trial, (neuron,); from T trials it is 1 / T of that.

        mean[lambda^2] e^(sigma^2 w^2) (4 sigma^2 w^2 + 1) / (mean[lambda]^2 sigma^2)
            + (sigma^2 w^2 + 1) / (mean[lambda] sigma^2) - w^2,

    means over both stimuli, which are equally likely.

    Raises:
        ValueError: If the model has no modulator, sigma = 0.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import EncodingModel, coupling_variance
        >>> rates = torch.tensor([[1.0, 10.0], [1.0, 10.0]])
        >>> model = EncodingModel(rates, couplings=torch.zeros(2), sigma=0.5)
        >>> coupling_variance(model).tolist()  # at w = 0: (1 + 1 / rate) / sigma^2
        [8.0, 4.4]
    """
    check_positive("sigma", model.sigma)
    variance, w2 = model.sigma**2, model.couplings**2
    square = (model.rates**2).mean(dim=0) / model.mean_rates**2
    shared = square * (variance * w2).exp() * (4 * variance * w2 + 1) / variance
    return shared + (variance * w2 + 1) / (model.mean_rates * variance) - w2
