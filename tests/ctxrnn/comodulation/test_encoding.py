"""The Poisson model with a shared modulator, against closed forms, enumeration and brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from scipy import stats

from ctxrnn.comodulation import (
    COUNT_DECODERS,
    CountDecoder,
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

RATES = torch.tensor([[2.0, 0.5, 1.0, 4.0], [1.0, 1.5, 1.0, 0.5]], dtype=torch.float64)
MODEL = EncodingModel(RATES, torch.tensor([0.7, 1.1, 0.0, 2.0]), 0.5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def moments(model, power):
    """Return E[(k m)^power], mean over stimuli, (neuron,), by quadrature over m.

    Moments of a Poisson count are Touchard polynomials in its mean.
    """
    nodes, weights = torch.as_tensor(np.array(hermegauss(80)))
    weights = weights / weights.sum()
    means = model.rates[:, None] * model.gains(model.sigma * nodes)
    stirling = {1: [1], 2: [1, 1], 3: [1, 3, 1], 4: [1, 7, 6, 1]}[power]
    counts = sum(number * means**j for j, number in enumerate(stirling, 1))
    products = counts * (model.sigma * nodes)[:, None] ** power
    return (weights[:, None] * products).sum(dim=1).mean(dim=0)


def test_expected_product_is_rate_times_variance_times_coupling():
    expected = MODEL.mean_rates * MODEL.sigma**2 * MODEL.couplings
    assert torch.allclose(moments(MODEL, 1), expected, rtol=1e-12, atol=1e-15)


def test_variance_formula_is_that_of_the_quadrature():
    scale = MODEL.sigma**2 * MODEL.mean_rates
    exact = moments(MODEL, 2) / scale**2 - MODEL.couplings**2
    assert torch.allclose(coupling_variance(MODEL), exact, rtol=1e-10)


def test_estimate_is_unbiased_and_has_the_variance_of_the_formula():
    trials = 400_000
    drawn = MODEL.draw(trials, generator())
    scale = MODEL.sigma**2 * MODEL.mean_rates
    variance = coupling_variance(MODEL)
    found = estimate_coupling(drawn.counts, drawn.modulator, MODEL.mean_rates, MODEL.sigma)
    assert ((found - MODEL.couplings).abs() < 5 * (variance / trials).sqrt()).all()
    single = drawn.counts * drawn.modulator[:, None] / scale
    # Var[s^2] = (mu_4 - mu_2^2) / n with the central fourth moment of k m.
    raw = [moments(MODEL, power) / scale**power for power in (1, 2, 3, 4)]
    fourth = raw[3] - 4 * raw[0] * raw[2] + 6 * raw[0] ** 2 * raw[1] - 3 * raw[0] ** 4
    error = ((fourth - variance**2) / trials).sqrt()
    assert ((single.var(dim=0) - variance).abs() < 5 * error).all()
    assert (5 * error < 0.2 * variance)[:3].all()


def test_estimate_by_hand():
    counts = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    found = estimate_coupling(counts, torch.tensor([-1.0, 0.5]), torch.tensor([2.0, 1.0]), 0.5)
    # (-1 + 1.5) / 2 / (0.25 * 2) and 1 / 2 / 0.25.
    assert found.tolist() == [0.5, 2.0]


def test_gains_have_mean_one():
    nodes, weights = hermegauss(40)
    gains = MODEL.gains(torch.as_tensor(0.5 * nodes))
    mean = torch.as_tensor(weights / weights.sum()) @ gains
    assert torch.allclose(mean, torch.ones(4, dtype=torch.float64), rtol=1e-12)


def test_maximum_likelihood_is_the_ratio_of_poisson_likelihoods():
    drawn = MODEL.draw(200, generator())
    gains = MODEL.gains(drawn.modulator)
    for name, factor in (("ml-aware", gains), ("ml", torch.ones_like(gains))):
        logs = [
            stats.poisson.logpmf(drawn.counts.numpy(), (RATES[s] * factor).numpy()).sum(axis=1)
            for s in (0, 1)
        ]
        found = decoder_margins(MODEL, [make_count_decoder(name, MODEL)], drawn)[0]
        assert torch.allclose(found, torch.as_tensor(logs[0] - logs[1]), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("neurons", [1, 2])
def test_accuracy_without_modulation_is_that_of_enumeration(neurons):
    rates = RATES[:, :neurons]
    model = EncodingModel(rates, torch.full((neurons,), 0.8), 1e-6)
    # The mass of counts above 40 is below 1e-30.
    exact = 0.0
    for counts in itertools.product(range(40), repeat=neurons):
        masses = [math.prod(stats.poisson.pmf(counts, rates[s].numpy())) for s in (0, 1)]
        exact += max(masses) / 2
    trials = 200_000
    drawn = model.draw(trials, generator(1))
    for name in ("ml", "ml-aware"):
        found = decoder_accuracies(
            decoder_margins(model, [make_count_decoder(name, model)], drawn), drawn.stimulus
        )
        assert abs(float(found[0]) - exact) < 5 * math.sqrt(exact * (1 - exact) / trials)


def test_no_decoder_beats_the_likelihood_ratio():
    model = make_encoding_model(EncodingConfig(neurons=40, sigma=1.0), 3)
    drawn = model.draw(40_000, generator())
    labelled = model.draw(200, generator(2), balanced=True)
    decoders = count_decoders(model, model.draw(1000, generator(1)), labelled)
    shares = decoder_accuracies(
        decoder_margins(model, list(decoders.values()), drawn), drawn.stimulus
    )
    found = dict(zip(decoders, shares.tolist(), strict=True))
    assert list(found) == list(COUNT_DECODERS)
    assert max(found, key=found.get) == "ml-aware"
    assert found["modulator-guided"] > found["sign-only"] > 0.5


def test_weights_of_the_five_decoders():
    sign = torch.tensor([1.0, -1.0, 0.0, 1.0])
    w, rates = torch.tensor([0.5, -0.2, 3.0, 1.0]), torch.tensor([2.0, 1.0, 1.0, 3.0])
    made = {
        n: make_count_decoder(n, MODEL, sign=sign, coupling=w, rates=rates) for n in COUNT_DECODERS
    }
    norm = MODEL.d.norm()
    assert torch.equal(made["ml"].weights, MODEL.d)
    assert torch.equal(made["ml-aware"].weights, MODEL.d)
    guided = torch.tensor([0.5, 0.2, 0, 1.0]).double()
    assert torch.allclose(made["modulator-guided"].weights, guided)
    assert torch.allclose(made["sign-only"].weights, sign.double() * norm / math.sqrt(3))
    assert made["sign-only"].weights.norm() == pytest.approx(float(norm))
    expected = torch.tensor([2.0, -1.0, 0.0, 3.0]).double() * norm / math.sqrt(14)
    assert torch.allclose(made["rate-guided"].weights, expected)
    assert [made[n].threshold for n in COUNT_DECODERS] == [
        "fixed",
        "aware",
        "aware",
        "fixed",
        "none",
    ]
    zero = make_count_decoder("sign-only", MODEL, sign=torch.zeros(4))
    assert torch.equal(zero.weights, torch.zeros(4).double())


def test_thresholds_by_hand():
    drawn = CountTrials(torch.zeros(2, 4), torch.tensor([0.0, 0.3]), torch.tensor([1, 2]))
    ones = torch.ones(4).double()
    found = decoder_margins(
        MODEL, [CountDecoder(ones, kind) for kind in ("none", "fixed", "aware")], drawn
    )
    gap = RATES[0] - RATES[1]
    w = MODEL.couplings
    assert found[0].tolist() == [0, 0]
    assert found[1].tolist() == pytest.approx([-float(gap.sum())] * 2)
    for trial, m in enumerate((0.0, 0.3)):
        expected = -float((gap * (w * m - w**2 * 0.125).exp()).sum())
        assert float(found[2, trial]) == pytest.approx(expected)
    # A margin of 0 chooses stimulus 2.
    assert decoder_accuracies(found[:1], drawn.stimulus).tolist() == [0.5]


def test_ties_are_not_broken_by_rounding():
    model = EncodingModel(torch.ones(2, 4), torch.zeros(4), 1.0)
    sign = torch.tensor([1.0, -1.0, -1.0, -1.0]).double()
    counts = torch.tensor([[3.0, 1.0, 1.0, 1.0]])
    drawn = CountTrials(counts, torch.zeros(1), torch.tensor([2]))
    found = decoder_margins(model, [CountDecoder(0.1 * sign, "none")], drawn)
    assert found.tolist() == [[0.0]]
    assert decoder_accuracies(found, drawn.stimulus).tolist() == [1.0]


def test_signs_are_those_of_class_means():
    counts = torch.tensor([[1.0, 0, 2], [0, 3, 2], [2.0, 0, 1], [0, 0, 3]])
    drawn = CountTrials(counts, torch.zeros(4), torch.tensor([1, 2, 1, 2]))
    assert preferred_sign(drawn).tolist() == [1, -1, -1]
    with pytest.raises(ValueError, match="none of 1 is of stimulus 2; draw them balanced"):
        preferred_sign(drawn.first(1))
    balanced = MODEL.draw(5, generator(), balanced=True)
    assert balanced.stimulus.tolist() == [1, 2, 1, 2, 1]


def test_population_is_as_its_settings_say():
    config = EncodingConfig(neurons=2000, informative=1000, coupling_noise=0.0, rate=3.0)
    model = make_encoding_model(config, 0)
    assert torch.allclose(model.couplings, model.d.abs())
    assert torch.allclose(model.d[1000:], torch.zeros(1000).double(), atol=1e-12)
    base = (model.rates[0] * model.rates[1]).sqrt().log()
    # Standard errors of a mean and of a standard deviation of n normal values.
    assert abs(float(base.mean()) - math.log(3)) < 5 * 0.5 / math.sqrt(2000)
    assert abs(float(base.std()) - 0.5) < 5 * 0.5 / math.sqrt(4000)
    assert abs(float(model.d[:1000].std()) - 0.5) < 5 * 0.5 / math.sqrt(2000)
    small = make_encoding_model(EncodingConfig(neurons=50, informative=10), 4)
    large = make_encoding_model(EncodingConfig(neurons=80, informative=10), 4)
    assert torch.equal(small.rates, large.rates[:, :50])
    noisy = make_encoding_model(EncodingConfig(neurons=5000, informative=1, coupling_noise=0.2), 0)
    # |noise| of a half-normal law.
    mean = float(noisy.couplings[1:].mean())
    assert abs(mean - 0.2 * math.sqrt(2 / math.pi)) < 5 * 0.2 * 0.6029 / math.sqrt(5000)


def test_draws_repeat_from_a_seed():
    a, b = (MODEL.draw(10, generator(7)) for _ in range(2))
    assert torch.equal(a.counts, b.counts)
    assert torch.equal(a.modulator, b.modulator)
    assert torch.equal(a.first(3).stimulus, b.stimulus[:3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EncodingConfig(neurons=3), "informative must be at most neurons: got 10 of 3"),
        (lambda: EncodingConfig(sigma=0.0), "sigma must be positive"),
        (lambda: EncodingConfig(coupling_noise=-1.0), "coupling_noise must be zero or more"),
        (lambda: EncodingModel(torch.ones(3, 4), torch.ones(4), 1), r"\(2, neuron\).*\(3, 4\)"),
        (lambda: EncodingModel(torch.ones(2, 0), torch.ones(0), 1), "one neuron or more"),
        (lambda: EncodingModel(torch.zeros(2, 4), torch.ones(4), 1), "rates must be positive"),
        (lambda: EncodingModel(torch.ones(2, 1), -torch.ones(1), 1), "couplings zero or more"),
        (lambda: EncodingModel(torch.ones(2, 1), torch.tensor([torch.nan]), 1), "finite: 1 of 1"),
        (lambda: MODEL.draw(0, generator()), "trials must be at least 1"),
        (lambda: CountDecoder(torch.ones(4), "some"), "unknown threshold 'some'"),
        (lambda: make_count_decoder("best", MODEL), "unknown decoder 'best'"),
        (lambda: make_count_decoder("sign-only", MODEL), "needs `sign` of 4 neurons: got None"),
        (
            lambda: make_count_decoder(
                "rate-guided", MODEL, sign=torch.ones(4), rates=torch.ones(3)
            ),
            r"needs `rates` of 4 neurons: got shape \(3,\)",
        ),
        (
            lambda: estimate_coupling(torch.ones(0, 2), torch.ones(0), torch.ones(2), 1),
            r"of one trial or more: got \(0, 2\) and \(0,\)",
        ),
        (
            lambda: coupling_variance(EncodingModel(RATES, torch.ones(4), 0)),
            "sigma must be positive",
        ),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
