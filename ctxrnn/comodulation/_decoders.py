"""Decoders of Poisson counts that a shared modulator guides (Haimerl et al. 2019, NeurIPS).

All choose stimulus 1 if sum_n v_n k_n + threshold > 0. The modulator tells how much a neuron
matters; in which direction, a handful of labelled trials must tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrnn._checks import unknown_name

from ._encoding import CountTrials, EncodingModel, estimate_coupling

COUNT_DECODERS = ("ml", "ml-aware", "modulator-guided", "rate-guided", "sign-only")
"""Maximum likelihood without and with knowledge of m, and three that know no tuning."""
THRESHOLDS = ("none", "fixed", "aware")


def preferred_sign(trials: CountTrials) -> Tensor:
    """Return the sign of the difference of mean counts, stimulus 1 less 2, (neuron,); 0 for none.

    Args:
        trials: A handful of labelled trials, of both stimuli.

    Raises:
        ValueError: If a stimulus is missing.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import CountTrials, preferred_sign
        >>> counts = torch.tensor([[5.0, 1.0, 2.0], [1.0, 4.0, 2.0]])  # (trial, neuron)
        >>> labelled = CountTrials(counts, modulator=torch.zeros(2), stimulus=torch.tensor([1, 2]))
        >>> preferred_sign(labelled).tolist()
        [1.0, -1.0, 0.0]
    """
    means = []
    for stimulus in (1, 2):
        mine = trials.counts[trials.stimulus == stimulus]
        if not len(mine):
            raise ValueError(
                f"labelled trials must hold both stimuli: none of {len(trials.counts)} is of "
                f"stimulus {stimulus}; draw them balanced"
            )
        means.append(mine.mean(dim=0))
    return (means[0] - means[1]).sign()


@dataclass(frozen=True)
class CountDecoder:
    """Chooses stimulus 1 if sum_n v_n k_n + threshold > 0.

    Attributes:
        weights: v, (neuron,).
        threshold: "none" (0), "fixed", -sum_n (lambda_n(1) - lambda_n(2)), or "aware", the same
            with each neuron's gain in the trial as a factor.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import CountDecoder, CountTrials, EncodingModel
        >>> from ctxrnn.comodulation import decoder_margins
        >>> rates = torch.tensor([[6.0, 2.0], [2.0, 2.0]])  # (stimulus, neuron)
        >>> model = EncodingModel(rates, couplings=torch.ones(2), sigma=0.5)
        >>> decoder = CountDecoder(weights=torch.tensor([1.0, 0.0]), threshold="fixed")
        >>> trials = CountTrials(rates, torch.zeros(2), torch.tensor([1, 2]))  # the mean counts
        >>> decoder_margins(model, [decoder], trials).tolist()  # count of the first neuron less 4
        [[2.0, -2.0]]
    """

    weights: Tensor
    threshold: str

    def __post_init__(self) -> None:
        if self.threshold not in THRESHOLDS:
            raise unknown_name("threshold", self.threshold, THRESHOLDS)


def decoder_margins(
    model: EncodingModel, decoders: Sequence[CountDecoder], trials: CountTrials
) -> Tensor:
    """Return sum_n v_n k_n + threshold of several decoders, (decoder, trial).

    Args:
        model: The population, whose mean counts and gains are in the thresholds.
        decoders: The decoders.
        trials: The trials.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import EncodingConfig, decoder_accuracies, decoder_margins
        >>> from ctxrnn.comodulation import make_count_decoder, make_encoding_model
        >>> model = make_encoding_model(EncodingConfig())
        >>> trials = model.draw(2000, torch.Generator(), balanced=True)
        >>> decoders = [make_count_decoder(name, model) for name in ("ml", "ml-aware")]
        >>> margins = decoder_margins(model, decoders, trials)
        >>> margins.shape
        torch.Size([2, 2000])
        >>> decoder_accuracies(margins, trials.stimulus).diff() > 0  # to know the modulator helps
        tensor([True])
    """
    gap = model.rates[0] - model.rates[1]
    thresholds = {"none": torch.zeros(()), "fixed": -gap.sum()}
    if any(decoder.threshold == "aware" for decoder in decoders):
        thresholds["aware"] = -(model.gains(trials.modulator) @ gap)
    weights = torch.stack([decoder.weights.double() for decoder in decoders])
    # Weights of one size become whole numbers, so that ties are ties and not rounding.
    size = weights.abs().amax(dim=1, keepdim=True)
    size = torch.where(size > 0, size, 1.0)
    sums = size * ((weights / size) @ trials.counts.double().mT)
    return torch.stack(
        [row + thresholds[one.threshold] for row, one in zip(sums, decoders, strict=True)]
    )


def decoder_accuracies(margins: Tensor, stimulus: Tensor) -> Tensor:
    """Return the share of trials whose stimulus is chosen; a margin of 0 chooses stimulus 2.

    Args:
        margins: (decoder, trial).
        stimulus: 1 or 2, (trial,).

    Returns:
        (decoder,).

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import decoder_accuracies
        >>> margins = torch.tensor([[2.0, -1.0, 3.0, -2.0], [-1.0, -1.0, 1.0, 1.0]])
        >>> decoder_accuracies(margins, stimulus=torch.tensor([1, 2, 1, 2])).tolist()
        [1.0, 0.5]
    """
    return ((margins > 0) == (stimulus == 1)).double().mean(dim=-1)


def make_count_decoder(
    name: str,
    model: EncodingModel,
    *,
    sign: Tensor | None = None,
    coupling: Tensor | None = None,
    rates: Tensor | None = None,
) -> CountDecoder:
    """Return one of the five decoders.

    "ml" has v = d and the fixed threshold, "ml-aware" the threshold that knows m, with which it is
    the likelihood ratio. Neither learns. "modulator-guided" has v = w-hat sign and the aware
    threshold; "rate-guided" mean count times sign, of the norm of d, and the fixed threshold;
    "sign-only" the sign, of the norm of d, and none.

    Args:
        name: One of `COUNT_DECODERS`.
        model: The population; the last three use of it the norm of d and the thresholds.
        sign: From `preferred_sign`, for the last three.
        coupling: w-hat from `estimate_coupling`, for "modulator-guided".
        rates: Mean counts as observed, (neuron,), for "rate-guided".

    Raises:
        ValueError: For an unknown name, or if what it needs is missing or of another shape.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import EncodingConfig, make_count_decoder, make_encoding_model
        >>> model = make_encoding_model(EncodingConfig(neurons=5, informative=2))
        >>> decoder = make_count_decoder("sign-only", model, sign=model.d.sign())
        >>> decoder.weights.ne(0).tolist()  # two neurons are informative
        [True, True, False, False, False]
    """
    if name not in COUNT_DECODERS:
        raise unknown_name("decoder", name, COUNT_DECODERS)
    if name.startswith("ml"):
        return CountDecoder(model.d, "fixed" if name == "ml" else "aware")
    known = _needed(name, "sign", sign, model)
    if name == "modulator-guided":
        return CountDecoder(_needed(name, "coupling", coupling, model) * known, "aware")
    if name == "rate-guided":
        return CountDecoder(
            _matched(_needed(name, "rates", rates, model) * known, model.d), "fixed"
        )
    return CountDecoder(_matched(known, model.d), "none")


def _needed(decoder: str, name: str, values: Tensor | None, model: EncodingModel) -> Tensor:
    if values is None or values.shape != model.couplings.shape:
        got = "None" if values is None else f"shape {tuple(values.shape)}"
        raise ValueError(
            f"the decoder {decoder!r} needs `{name}` of {len(model.couplings)} neurons: got {got}"
        )
    return values.double()


def _matched(weights: Tensor, d: Tensor) -> Tensor:
    """Scale weights to the norm of d; weights of 0 stay."""
    size = weights.norm()
    return weights * (d.norm() / size) if size > 0 else weights


def count_decoders(
    model: EncodingModel, learning: CountTrials, labelled: CountTrials
) -> dict[str, CountDecoder]:
    """Return all five decoders as learned from trials.

    Args:
        model: The population.
        learning: T trials whose stimuli nobody knows, for w-hat and mean counts.
        labelled: A handful of labelled trials, for the signs.

    Returns:
        Name -> decoder, in the order of `COUNT_DECODERS`.

    Raises:
        ValueError: If a stimulus is missing among the labelled trials.

    Example:
        >>> import torch
        >>> from ctxrnn.comodulation import EncodingConfig, count_decoders, make_encoding_model
        >>> model, source = make_encoding_model(EncodingConfig()), torch.Generator()
        >>> learning = model.draw(500, source)  # their stimuli are not used
        >>> labelled = model.draw(10, source, balanced=True)
        >>> list(count_decoders(model, learning, labelled))
        ['ml', 'ml-aware', 'modulator-guided', 'rate-guided', 'sign-only']
    """
    sign = preferred_sign(labelled)
    w = estimate_coupling(learning.counts, learning.modulator, model.mean_rates, model.sigma)
    rates = learning.counts.mean(dim=0)
    return {
        name: make_count_decoder(name, model, sign=sign, coupling=w, rates=rates)
        for name in COUNT_DECODERS
    }
