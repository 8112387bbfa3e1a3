"""Tuning against its equations, step by step and written out here, on a tiny network in float64."""

import math

import pytest
import torch

from ctxrnn import make_generator
from ctxrnn.comodulation import (
    ComodulatedNetwork,
    Covariance,
    EncoderConfig,
    Examples,
    Head,
    Modulation,
    ModulationConfig,
    NetworkConfig,
    TuningConfig,
    condition,
    draw_modulator,
    tune,
)

F64 = torch.float64
SEED, K, BATCH, EPOCHS, RATE = 5, 3, 4, 2, 0.05


def network():
    config = NetworkConfig(EncoderConfig("small"), (7, 6), Head.attributes(K))
    return ComodulatedNetwork(config, seed=2).double().eval()


def examples(count, seed):
    source = torch.Generator().manual_seed(seed)
    # Numbers that float32, in which features are read, holds exactly.
    h = torch.randn(count, 64, 1, 1, generator=source).abs().double()
    return Examples(h, torch.randint(2, (count, K), generator=source))


class Replay:
    """The whole of tuning for heads of attributes, at a layer that nothing lies above."""

    def __init__(
        self, model, *, mu=1.0, noisy=False, gain="one", through=False, sigma=0.1, center=0.0,
        axis="antithetic", stat="cov", form="exp", tau_max=100.0, eval_gain="probe",
    ):  # fmt: skip
        state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.layers = [(state[f"decoder.{n}.weight"], state[f"decoder.{n}.bias"]) for n in (0, 2)]
        self.w, self.b = state["readout.weight"], state["readout.bias"]
        self.mu, self.noisy, self.kind, self.through = mu, noisy, gain, through
        self.sigma, self.center, self.axis, self.stat = sigma, center, axis, stat
        self.form, self.tau_max, self.eval_gain = form, tau_max, eval_gain
        self.theta = torch.full((K, 64), 0.3).double().requires_grad_()
        self.first, self.second = torch.zeros_like(self.theta), torch.zeros_like(self.theta)
        self.g, self.tau, self.steps = torch.ones(K, 6, dtype=F64), 1.0, 0
        self.order = None
        if gain == "permuted":
            source = make_generator(SEED, "permutation")
            self.order = [torch.randperm(6, generator=source) for _ in range(K)]

    def activity(self, h, m, variance):
        """a, (image, context, unit), for m (image, context)."""
        c = self.theta**2
        m = m[:, :, None]
        scale = torch.exp(m * c - variance * c**2 / 2) if self.form == "exp" else 1 + m * c
        a = h[:, None] * scale
        for weight, bias in self.layers:
            a = torch.clamp(a @ weight.T + bias, min=0)
        return a

    def fresh(self, h, source):
        """g of a noise pass, whose random numbers come from `source`."""
        n = len(h)
        m = self.sigma * torch.randn(1, n, K, generator=source, dtype=F64)
        if self.axis == "antithetic":
            m = torch.cat([m, -m])
        labels = m.clone()
        if self.kind == "shuffled":
            flat = m.reshape(-1, K)
            for k in range(K):
                labels.view(-1, K)[:, k] = flat[torch.randperm(len(flat), generator=source), k]
        a = torch.stack([self.activity(h, d + self.center, self.sigma**2) for d in m])
        rest = self.activity(h, torch.zeros(n, K, dtype=F64), 0.0)
        gains = []
        for k in range(K):
            x, y = labels[..., k].reshape(-1), a[..., k, :].reshape(-1, 6)
            q = (x - x.mean()) @ (y - y.mean(0)) / len(x) / self.sigma**2
            if self.stat == "corr":
                deviation = y.std(0, unbiased=False)
                q = q * self.sigma / torch.where(deviation > 0, deviation, math.inf)
            q = torch.clamp(q, min=0)
            tiny = q.mean() <= 1e-6 * rest[:, k].mean()
            gains.append(torch.ones(6, dtype=F64) if tiny else q / q.mean())
        return torch.stack(gains)

    def shown(self, g):
        if self.order is None:
            return g
        return torch.stack([g[k][self.order[k]] for k in range(K)])

    def logits(self, h, g, noise=None):
        m = torch.full((len(h), K), self.mu, dtype=F64) if noise is None else self.mu + noise
        a = self.activity(h, m.double(), 0 if noise is None else self.sigma**2)
        return torch.einsum("bki,ki,ki->bk", a, g, self.w) + self.b

    def step(self, h, labels, epoch, number):
        """A decision pass, a step of Adam, a noise pass; return the gradient."""
        noise, g = None, self.shown(self.g)
        if self.noisy:
            source = make_generator(SEED, "noise", epoch, number)
            # In float32, as mu + noise is.
            noise = self.sigma * torch.randn(len(h), K, generator=source)
        if self.through:
            g = self.shown(self.fresh(h, make_generator(SEED, "noise", epoch, number)))
        z, y = self.logits(h, g, noise), labels.double()
        loss = (torch.log1p(torch.exp(z)) - y * z).mean()
        (slope,) = torch.autograd.grad(loss, self.theta)
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * slope
        self.second = 0.999 * self.second + 0.001 * slope**2
        mean = self.first / (1 - 0.9**self.steps)
        deviation = (self.second / (1 - 0.999**self.steps)).sqrt() + 1e-8
        self.theta = (self.theta - RATE * mean / deviation).detach().requires_grad_()
        if self.kind in ("noise", "shuffled", "permuted") and not self.through:
            with torch.no_grad():
                fresh = self.fresh(h, make_generator(SEED, "noise", epoch, number))
            self.g = (self.tau * self.g + fresh) / (self.tau + 1)
            self.g = self.g / self.g.mean(dim=1, keepdim=True)
            self.tau = min(self.tau + 1, self.tau_max)
        return slope

    @torch.no_grad()
    def tested(self, validation, probe):
        """The gain at test and logits of validation."""
        g = self.shown(self.g)
        if self.kind != "one" and (self.through or self.eval_gain == "probe"):
            g = self.shown(self.fresh(probe, make_generator(SEED, "probe")))
        return g, self.logits(validation, g)


NOISE = {"gain": "noise"}
CASES = {
    "attention": ("attention", {}, {}),
    "attention, mu": ("attention", {"mu": 0.5}, {"mu": 0.5}),
    "comod": ("comod", {}, NOISE),
    "comod, mu": ("comod", {"mu": 0.5}, {**NOISE, "mu": 0.5}),
    "comod, through": ("comod", {"gain_grad": "through"}, {**NOISE, "through": True}),
    "comod, mu 0 through": (
        "comod", {"mu": 0.0, "gain_grad": "through"}, {**NOISE, "through": True, "mu": 0.0}),
    "comod, short memory": ("comod", {"tau_max": 2.0}, {**NOISE, "tau_max": 2.0}),
    "comod, large noise": ("comod", {"sigma": 0.7}, {**NOISE, "sigma": 0.7}),
    "comod, centre": ("comod", {"noise_center": 0.8}, {**NOISE, "center": 0.8}),
    "comod, naive": ("comod", {"noise_axis": "naive"}, {**NOISE, "axis": "naive"}),
    "comod, corr": ("comod", {"gain_stat": "corr"}, {**NOISE, "stat": "corr"}),
    "comod, linear": ("comod", {"gain_form": "linear"}, {**NOISE, "form": "linear"}),
    "comod, running": ("comod", {"eval_gain": "running"}, {**NOISE, "eval_gain": "running"}),
    "comod-0": ("comod-0", {}, {**NOISE, "through": True, "mu": 0.0}),
    "comod-0, running": (
        "comod-0", {"eval_gain": "running"},
        {**NOISE, "through": True, "mu": 0.0, "eval_gain": "running"}),
    "shuffled-label": ("shuffled-label", {}, {"gain": "shuffled"}),
    "permuted-gain": ("permuted-gain", {}, {"gain": "permuted"}),
    "permuted-gain, running": (
        "permuted-gain", {"eval_gain": "running"}, {"gain": "permuted", "eval_gain": "running"}),
    "input-noise": ("input-noise", {"sigma": 0.5}, {"noisy": True, "sigma": 0.5}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_tuning_follows_its_equations(case, monkeypatch):
    """Gradients, couplings, running gain, gain at test and logits after each step."""
    name, options, settings = CASES[case]
    model = network()
    train, validation, probe = examples(10, 0), examples(6, 1), examples(5, 2)
    slopes, told = [], []
    step = torch.optim.Adam.step

    def watched(self, *args, **more):
        slopes.append(self.param_groups[0]["params"][0].grad.clone())
        return step(self, *args, **more)

    def score(logits, _):
        told.append(logits.clone())
        # Epoch 0, two steps and the end of the first epoch, the end of the second.
        return {"score": [0.0, 0.0, 0.0, 2.0, 1.0][len(told) - 1]}

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    found = tune(
        model, condition(name), train, validation, probe, score=score,
        options=ModulationConfig(**options), seed=SEED,
        config=TuningConfig(epochs=EPOCHS, batch=BATCH, learning_rate=RATE, log_every=1),
    )  # fmt: skip

    replay = Replay(model, **settings)
    h, inside = train.inputs[:, :, 0, 0], validation.inputs[:, :, 0, 0]
    rows = probe.inputs[:, :, 0, 0]
    expected = [replay.tested(inside, rows)]
    exact, kept = [], None
    for epoch in range(1, EPOCHS + 1):
        order = torch.randperm(10, generator=make_generator(SEED, "order", epoch))
        for number in range(3):
            mine = order[BATCH * number : BATCH * (number + 1)]
            exact.append(replay.step(h[mine], train.labels[mine], epoch, number))
            if epoch == 1 or number == 2:
                expected.append(replay.tested(inside, rows))
        if epoch == 1:
            kept = replay.theta.detach().clone(), replay.g.clone(), replay.tau, expected[-1]
    assert len(slopes) == len(exact) == 6
    # Rounding of some hundred operations, carried on by six steps.
    close = {"rel": 1e-9, "abs": 1e-12}
    for ours, theirs in zip(slopes, exact, strict=True):
        assert ours.dtype == F64
        assert ours.numpy() == pytest.approx(theirs.numpy(), **close)
        assert theirs.abs().max() > 1e-5
    for ours, (_, theirs) in zip(told, expected, strict=True):
        assert ours.numpy() == pytest.approx(theirs.numpy(), **close)
    # Couplings, gains and logits of the first epoch, which scored best.
    theta, g, tau, (gain, logits) = kept
    assert found.kept_epoch == 1
    assert found.modulation.controller.theta.detach().numpy() == pytest.approx(
        theta.numpy(), **close
    )
    assert found.modulation.g.numpy() == pytest.approx(g.numpy(), **close)
    assert found.modulation.tau.tolist() == [tau] * K
    assert found.gain.numpy() == pytest.approx(gain.numpy(), **close)
    assert found.predict(validation).numpy() == pytest.approx(logits.numpy(), **close)
    if settings.get("gain", "one") != "one":
        assert (gain - 1).abs().max() > 0.1


def test_the_gradient_through_the_gain_is_another():
    """At mu = 1 and the same g, detached or not: both against autograd of the equations."""
    model, train = network(), examples(8, 3)
    h, y = train.inputs, train.labels.double()
    slopes, exact = {}, {}
    for through in (False, True):
        options = ModulationConfig(gain_grad="through" if through else None)
        made = Modulation(condition("comod"), options, K, 64, 6).double()
        assert made.condition.through is through
        source = make_generator(SEED, "noise", 1, 0)
        draws = draw_modulator(8, K, sigma=0.1, generator=source)
        g = model.covariance(h, made, draws, Covariance(K, 6, 0.1)).gain()
        z = model(h, made, gain=g if through else g.detach())
        loss = torch.nn.functional.binary_cross_entropy_with_logits(z, y)
        (slopes[through],) = torch.autograd.grad(loss, made.controller.theta)

        replay = Replay(model, gain="noise", through=through)
        g = replay.fresh(h[:, :, 0, 0], make_generator(SEED, "noise", 1, 0))
        z = replay.logits(h[:, :, 0, 0], g if through else g.detach())
        (exact[through],) = torch.autograd.grad(
            (torch.log1p(torch.exp(z)) - y * z).mean(), replay.theta
        )
        assert (slopes[through] - exact[through]).abs().max() < 1e-12
    assert (slopes[True] - slopes[False]).abs().max() > 0.1 * slopes[True].abs().max()
