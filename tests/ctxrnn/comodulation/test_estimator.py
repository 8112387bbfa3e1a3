"""The decoder gain against quadrature, Jacobian-vector products and hand-computed cases."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ctxrnn.comodulation import (
    ComodulatedNetwork,
    Covariance,
    EncoderConfig,
    Head,
    Modulation,
    ModulationConfig,
    NetworkConfig,
    condition,
    draw_modulator,
    rectified_gain,
)

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def network(head=None, decoder=(12, 10), seed=0):
    config = NetworkConfig(EncoderConfig("small"), decoder, head or Head.attributes(3))
    return ComodulatedNetwork(config, seed=seed).double().eval()


def modulation(model, name="comod", couplings=None, **options):
    made = Modulation(
        condition(name), ModulationConfig(**options), model.head.contexts, model.channels,
        model.units,
    ).double()  # fmt: skip
    if couplings is not None:
        with torch.no_grad():
            made.controller.theta.copy_(couplings.sqrt())
    return made


def features(model, images, seed=1):
    return normal(images, model.channels, 1, 1, seed=seed).abs()


def by_quadrature(activity, h, c, sigma, nodes=64):
    """E[m a(m)] / sigma^2 averaged over images: what the estimator estimates."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / math.sqrt(2 * math.pi)
    total = 0
    for z, weight in zip(points, weights, strict=True):
        m = sigma * z
        scale = (m * c - sigma**2 / 2 * c**2).exp()
        total = total + weight * m * activity(h, scale).mean(dim=0)
    return total / sigma**2


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0])
def test_a_linear_decoder_gives_the_couplings_seen_through_it(sigma):
    model = network(decoder=(9,))
    model.decoder = nn.Sequential(nn.Linear(model.channels, 9).double())
    c = 1.5 * torch.rand(3, model.channels, generator=torch.Generator().manual_seed(2), dtype=F64)
    h = features(model, 4)
    found = by_quadrature(model.activity, h, c, sigma)
    weight = model.decoder[0].weight
    expected = (h.flatten(1).mean(dim=0) * c) @ weight.mT
    # E[m exp(m c - s^2 c^2 / 2)] = s^2 c at any s.
    assert found.detach().numpy() == pytest.approx(expected.detach().numpy(), abs=1e-10)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0])
def test_the_estimator_finds_the_couplings_through_a_linear_decoder(sigma):
    images = 4000
    model = network(decoder=(9,))
    model.decoder = nn.Sequential(nn.Linear(model.channels, 9).double())
    c = 1.5 * torch.rand(3, model.channels, generator=torch.Generator().manual_seed(2), dtype=F64)
    made, h = modulation(model, couplings=c, sigma=sigma), features(model, images)
    draws = draw_modulator(images, 3, sigma=sigma, generator=torch.Generator().manual_seed(0))
    sums = Covariance(3, 9, sigma)
    with torch.no_grad():
        model.covariance(h, made, draws, sums)
        weight, x = model.decoder[0].weight, h.flatten(1)
        q = (x.mean(dim=0) * c) @ weight.mT
        # What each image adds, less what it adds on average: its error.
        m = draws.m[0][..., None]
        slope = m * (-(sigma**2) / 2 * c**2).exp() * torch.sinh(m * c) / sigma**2
        error = torch.einsum("bkc,uc->bku", x[:, None] * (slope - c), weight)
    bound = 5 * error.std(dim=0) / math.sqrt(images)
    assert ((sums.raw() - q).abs() <= bound).all()
    assert ((sums.raw() - q).abs() > 0).all()
    # P / M - p / n = (P - p) / n - (P / M) (M - n) / n.
    positive, g = q.clamp_min(0), sums.gain()
    mean = positive.mean(dim=1, keepdim=True)
    slack = (bound + g * bound.mean(dim=1, keepdim=True)) / mean
    assert ((g - positive / mean).abs() <= slack).all()


def test_the_estimator_tends_to_the_jacobian_vector_product():
    sigma, repeats = 1e-3, 500
    model = network()
    c = 1.5 * torch.rand(3, model.channels, generator=torch.Generator().manual_seed(2), dtype=F64)
    few = features(model, 6)
    made, h = modulation(model, couplings=c, sigma=sigma), few.repeat(repeats, 1, 1, 1)
    draws = draw_modulator(len(h), 3, sigma=sigma, generator=torch.Generator().manual_seed(0))
    sums = Covariance(3, model.units, sigma)
    with torch.no_grad():
        model.covariance(h, made, draws, sums)
    for k in range(3):
        along = few * c[k][:, None, None]
        _, each = torch.autograd.functional.jvp(lambda x: model.activity(x)[:, 0], few, along)
        # No kink is within reach: an image adds (m / sigma)^2 a', whose variance is 2 a'^2.
        bound = 5 * (2 * each.square().mean(dim=0) / len(h)).sqrt() * (1 + 1e-3) + 1e-9
        assert ((sums.raw()[k] - each.mean(dim=0)).abs() <= bound).all()
        positive = sums.raw()[k].clamp_min(0)
        assert (sums.gain()[k] - positive / positive.mean()).abs().max() < 1e-12


def test_every_image_and_context_has_a_draw_of_its_own():
    for axis in ("antithetic", "naive", "single"):
        draws = draw_modulator(
            7, 3, sigma=0.3, generator=torch.Generator().manual_seed(0), axis=axis, draws=11
        )
        rows = 11 if axis == "single" else 7
        assert draws.m.shape == ((2 if axis == "antithetic" else 1), rows, 3)
        assert len(draws.m.unique()) == draws.m.numel()
        assert draws.labels.equal(draws.m)


@pytest.mark.parametrize("axis", ["antithetic", "naive", "single"])
def test_the_sums_estimate_the_expectation(axis):
    sigma, images = 0.5, 4000
    model = network()
    c = 1.5 * torch.rand(3, model.channels, generator=torch.Generator().manual_seed(2), dtype=F64)
    made = modulation(model, couplings=c, sigma=sigma, noise_axis=axis, draws=images)
    h = features(model, 1).expand(images, -1, -1, -1)
    draws = draw_modulator(
        images, 3, sigma=sigma, generator=torch.Generator().manual_seed(0), axis=axis, draws=images
    )
    sums = Covariance(3, model.units, sigma)
    with torch.no_grad():
        model.covariance(h, made, draws, sums)
    found = sums.raw()
    # By a fine grid, since units that are seldom active have kinks where quadrature has no node.
    z = torch.linspace(-8, 8, 4001, dtype=F64)
    weight = (-(z**2) / 2).exp() / (-(z**2) / 2).exp().sum()
    with torch.no_grad():
        a = model.activity(
            h[:1].expand(4001, -1, -1, -1), made.scale((sigma * z)[:, None].expand(-1, 3), sigma**2)
        )
    moved = sigma * z[:, None, None] * (a - torch.einsum("z,zku->ku", weight, a)) / sigma**2
    expected = torch.einsum("z,zku->ku", weight, moved)
    # Five standard errors of the mean over draws of m (a - E a) / sigma^2.
    variance = torch.einsum("z,zku->ku", weight, (moved - expected) ** 2)
    bound = 5 * (variance / images).sqrt() + 1e-12
    assert ((found - expected).abs() <= bound).all()
    assert (found - expected).abs().max() > 0


def test_small_noise_gives_the_jacobian_vector_product():
    model = network()
    c = 1.5 * torch.rand(3, model.channels, generator=torch.Generator().manual_seed(2), dtype=F64)
    h = features(model, 6)
    products = []
    for k in range(3):
        along = h * c[k][:, None, None]
        _, product = torch.autograd.functional.jvp(lambda x: model.activity(x)[:, 0], h, along)
        products.append(product.mean(dim=0))
    exact = torch.stack(products)
    off = [
        (by_quadrature(model.activity, h, c, sigma) - exact).abs().max().item()
        for sigma in (0.3, 0.1, 0.01, 1e-3)
    ]
    # Kinks within reach of the noise make the difference; none is within reach of the last.
    assert off == sorted(off, reverse=True)
    assert off[2] < 0.1 * exact.max().item()
    assert off[3] < 1e-12


def test_the_antithetic_formula_by_hand():
    m = torch.tensor([[[0.2], [-0.5]], [[-0.2], [0.5]]], dtype=F64)
    a = normal(2, 2, 1, 3)
    sums = Covariance(1, 3, 0.3)
    sums.add(a, m, torch.ones(2, 3, dtype=F64))
    expected = sum(m[0, b, 0] * (a[0, b, 0] - a[1, b, 0]) for b in range(2)) / (2 * 2 * 0.3**2)
    assert sums.raw()[0].numpy() == pytest.approx(expected.numpy())
    # A sum over parts is the sum over all.
    parts = Covariance(1, 3, 0.3)
    for b in range(2):
        parts.add(a[:, b : b + 1], m[:, b : b + 1], torch.ones(1, 3, dtype=F64))
    assert parts.raw().numpy() == pytest.approx(sums.raw().numpy())


def test_the_naive_estimate_is_the_plain_covariance_and_correlation():
    m, a = normal(1, 50, 2), normal(1, 50, 2, 4, seed=1)
    sums = Covariance(2, 4, 0.7)
    sums.add(a, m, torch.ones(50, 4, dtype=F64))
    for k in range(2):
        stacked = np.concatenate([m[0, :, k : k + 1].numpy(), a[0, :, k].numpy()], axis=1)
        covariance = np.cov(stacked, rowvar=False, bias=True)
        assert sums.raw()[k].numpy() == pytest.approx(covariance[0, 1:] / 0.7**2)
        corr = covariance[0, 1:] / np.sqrt(np.diag(covariance)[1:]) / 0.7
        assert sums.raw("corr")[k].numpy() == pytest.approx(corr)


def test_images_of_other_contexts_do_not_count():
    m, a = normal(1, 6, 2), normal(1, 6, 2, 4, seed=1)
    rest = normal(6, 4, seed=2).abs()
    weight = torch.tensor([[1, 0], [0, 1], [1, 0], [1, 0], [0, 1], [1, 0]])
    sums = Covariance(2, 4, 1.0)
    sums.add(a, m, rest, weight)
    for k in range(2):
        mine = weight[:, k].bool()
        alone = Covariance(1, 4, 1.0)
        alone.add(a[:, mine, k : k + 1], m[:, mine, k : k + 1], rest[mine])
        assert sums.raw()[k].numpy() == pytest.approx(alone.raw()[0].numpy())
        assert sums.gain()[k].numpy() == pytest.approx(alone.gain()[0].numpy())
    assert sums.images.tolist() == [4, 2]
    empty = Covariance(2, 4, 1.0)
    empty.add(a, m, rest, torch.tensor([[1, 0]] * 6))
    assert (empty.gain()[1] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("axis", ["antithetic", "naive", "single"])
def test_a_blank_input_gives_a_gain_of_one(dtype, sigma, axis):
    model = network().to(dtype)
    made = modulation(model, sigma=sigma, noise_axis=axis, draws=40).to(dtype)
    h = torch.zeros(40, model.channels, 1, 1, dtype=dtype)
    source = torch.Generator().manual_seed(0)
    draws = draw_modulator(40, 3, sigma=sigma, generator=source, axis=axis, draws=40)
    sums = Covariance(3, model.units, sigma)
    with torch.no_grad():
        model.covariance(h, made, draws, sums)
    assert (sums.gain() == 1).all()


@pytest.mark.parametrize("sigma", [1e-3, 0.03, 0.3])
def test_genuine_gains_are_above_the_floor_at_the_smallest_noise(sigma):
    model = network().float()
    made = modulation(model, sigma=sigma).float()
    h = features(model, 40).float()
    draws = draw_modulator(40, 3, sigma=sigma, generator=torch.Generator().manual_seed(0))
    sums = Covariance(3, model.units, sigma)
    with torch.no_grad():
        model.covariance(h, made, draws, sums)
    resting = sums.rest.mean(dim=1) / sums.images
    assert (sums.raw().clamp_min(0).mean(dim=1) > 1e3 * 1e-6 * resting).all()
    assert (sums.gain() != 1).all(dim=1).all()


def test_a_shuffled_label_has_no_covariance():
    sigma, images = 0.3, 2000
    model = network()
    made = modulation(model, "shuffled-label", sigma=sigma)
    h = features(model, images)
    draws = draw_modulator(
        images, 3, sigma=sigma, generator=torch.Generator().manual_seed(0), shuffled=True
    )
    assert (
        draws.labels.flatten(0, 1)
        .sort(dim=0)
        .values.equal(draws.m.flatten(0, 1).sort(dim=0).values)
    )
    sums = Covariance(3, model.units, sigma)
    with torch.no_grad():
        model.covariance(h, made, draws, sums)
    variance = sums.square / sums.count[:, None] - (sums.total / sums.count[:, None]) ** 2
    # cov of n draws of independent label and activity: sd(m) sd(a) / sqrt(n), over sigma^2.
    error = (variance / sums.count[:, None]).sqrt() / sigma
    assert (sums.raw().abs() <= 4.5 * error + 1e-15).all()
    # Rectified it is a sparse random gain of mean 1, not 1.
    assert (sums.gain() != 1).any()


def test_antithetic_draws_vary_less_than_naive_ones():
    model, sigma = network(), 0.2
    h = features(model, 16)
    found = {}
    for axis in ("antithetic", "naive"):
        made = modulation(model, sigma=sigma, noise_axis=axis)
        rows = []
        for seed in range(60):
            source = torch.Generator().manual_seed(seed)
            draws = draw_modulator(16, 3, sigma=sigma, generator=source, axis=axis)
            sums = Covariance(3, model.units, sigma)
            with torch.no_grad():
                model.covariance(h, made, draws, sums)
            rows.append(sums.raw())
        found[axis] = torch.stack(rows).var(dim=0)
    # A ratio of variances of 60 draws each: F(59, 59) exceeds 2.2 by chance in 0.2 % of cases.
    assert (found["antithetic"] <= 2.2 * found["naive"] + 1e-15).all()
    assert found["antithetic"].mean() < found["naive"].mean() / 3


def test_rectified_gains_are_not_negative_and_have_mean_one():
    q = normal(5, 8)
    q[3], q[4] = -1.0, torch.tensor([1e-9] * 8)
    found = rectified_gain(q, torch.tensor([1.0] * 5, dtype=F64))
    assert (found >= 0).all()
    assert found.mean(dim=1).numpy() == pytest.approx(np.ones(5))
    assert found[0].numpy() == pytest.approx((q[0].clamp_min(0) / q[0].clamp_min(0).mean()).numpy())
    # No positive covariance, or one that is rounding.
    assert (found[3:] == 1).all()


def test_the_floor_is_a_millionth_of_the_mean_activity():
    q = torch.tensor([[1.0, 3.0]], dtype=F64)
    for share, genuine in ((1e-5, True), (1.1e-6, True), (0.9e-6, False)):
        found = rectified_gain(q * share / 2 * 5, torch.tensor([5.0], dtype=F64))
        assert found[0].tolist() == pytest.approx([0.5, 1.5] if genuine else [1.0, 1.0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_covariance_that_is_not_finite_is_an_error(bad):
    message = "the noise pass gave no decoder gain: 1 of 3 covariances .* NaN or infinite"
    resting = torch.ones(1, dtype=F64)
    with pytest.raises(FloatingPointError, match=message):
        rectified_gain(torch.tensor([[bad, 3.0, 1.0]], dtype=F64), resting)
    with pytest.raises(FloatingPointError, match="gave no decoder gain"):
        rectified_gain(torch.ones(1, 3, dtype=F64), resting * bad)
    sums = Covariance(1, 3, 0.1)
    a = normal(2, 2, 1, 3)
    a[0, 1, 0, 2] = bad
    sums.add(a, normal(2, 2, 1), torch.ones(2, 3, dtype=F64))
    with pytest.raises(FloatingPointError, match="elsewhere gave no decoder gain"):
        sums.gain(where="elsewhere")


def test_a_batch_of_one_gives_no_nan():
    model = network()
    for axis in ("antithetic", "naive", "single"):
        made = modulation(model, noise_axis=axis, draws=2)
        draws = draw_modulator(
            1, 3, sigma=0.1, generator=torch.Generator().manual_seed(0), axis=axis, draws=2
        )
        for stat in ("cov", "corr"):
            sums = Covariance(3, model.units, 0.1)
            with torch.no_grad():
                model.covariance(features(model, 1), made, draws, sums)
            assert sums.gain(stat).isfinite().all()


def test_the_gradient_goes_through_the_gain():
    model = network(decoder=(6, 5))
    made = modulation(model, "comod-0", sigma=0.3)
    h = features(model, 3)
    draws = draw_modulator(3, 3, sigma=0.3, generator=torch.Generator().manual_seed(0))

    def gain(theta):
        with torch.no_grad():
            made.controller.theta.copy_(theta)
        sums = model.covariance(h, made, draws, Covariance(3, model.units, 0.3))
        return (sums.gain() * torch.arange(5, dtype=F64)).sum()

    theta = 0.3 + 0.1 * normal(3, model.channels, seed=4)
    gain(theta).backward()
    slope = made.controller.theta.grad.clone()
    along = normal(3, model.channels, seed=5)
    step = 1e-5
    with torch.no_grad():
        numeric = (gain(theta + step * along) - gain(theta - step * along)) / (2 * step)
    # Central differences: error step^2 times a third derivative, and rounding eps / step.
    assert float((slope * along).sum()) == pytest.approx(float(numeric), rel=1e-6, abs=1e-9)
    assert slope.abs().max() > 0
