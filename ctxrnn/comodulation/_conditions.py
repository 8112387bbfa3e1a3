"""The conditions that are compared: what is trained, how it decides, where gains come from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ctxrnn._checks import (
    check_count,
    check_not_negative,
    check_number,
    check_positive,
    unknown_name,
)

Part = Literal["controller", "gain", "bias", "readout", "decoder", "encoder", "film"]
GAINS = ("one", "noise", "shuffled", "permuted", "learned")
# The smallest normal float32.
_SMALLEST = 2.0**-126


@dataclass(frozen=True)
class Condition:
    """One way to tune a pretrained network to its contexts.

    Attributes:
        name: Its name.
        trained: Which parameters are trained: "controller" (theta), "film" (gamma and beta of every
            channel), "gain" (a free decoder gain), "bias", "readout", "decoder", "encoder".
        mu: Value of the modulator in the decision, None for no modulation of channels.
        gain: Where the decoder gain comes from: "one", "noise" (covariance with the modulator),
            "shuffled" (the modulator permuted across draws first), "permuted" (units of the gain
            permuted), "learned".
        through: Whether the gradient goes through the gain; else g is a running mean.
        noisy: Whether the modulator is noisy during training, about mu.
        meaning: What it is, in a sentence.

    Raises:
        ValueError: For an unknown part or gain, or where no gradient would reach what is trained.

    Example:
        >>> from dataclasses import replace
        >>> from ctxrnn.comodulation import condition
        >>> comod = condition("comod")
        >>> comod.trained, comod.mu, comod.gain
        (('controller',), 1.0, 'noise')
        >>> replace(comod, name="strong", mu=2.0).stochastic  # a condition of one's own
        True
    """

    name: str
    trained: tuple[Part, ...] = ()
    mu: float | None = None
    gain: str = "one"
    through: bool = False
    noisy: bool = False
    meaning: str = ""

    def __post_init__(self) -> None:
        for part in self.trained:
            if part not in get_args(Part):
                raise unknown_name(f"part in trained of {self.name!r}", part, get_args(Part))
        if self.gain not in GAINS:
            raise unknown_name(f"gain of {self.name!r}", self.gain, GAINS)
        if self.mu is not None and not math.isfinite(check_number("mu", self.mu)):
            raise ValueError(f"mu of {self.name!r} must be finite, or None: got {self.mu}")
        coupled = "controller" in self.trained
        for wrong, must in (
            (
                self.stochastic and not coupled,
                "with a gain from noise must train the controller, whose couplings carry the noise",
            ),
            (
                self.through and not self.stochastic,
                "has through=True, which must come with a gain from noise: 'noise', 'shuffled' or "
                "'permuted'",
            ),
            (
                self.noisy and (self.mu is None or not coupled),
                "has noisy=True, which must come with a mu, about which the noise is, and the "
                "controller trained",
            ),
            (
                ("gain" in self.trained) != (self.gain == "learned"),
                "must have both 'gain' in trained and gain='learned', or neither",
            ),
        ):
            if wrong:
                raise ValueError(f"condition {self.name!r} {must}")
        if coupled and not self.mu and not self.through and not self.noisy:
            mu = None if self.mu is None else f"{self.mu:g}"
            raise ValueError(
                f"condition {self.name!r}: mu={mu} must come with the gradient through the "
                "gain (a gain from noise, gain_grad='through'): otherwise none reaches the "
                "couplings; or set mu above 0"
            )

    @property
    def stochastic(self) -> bool:
        """Whether noise passes are needed for its decoder gain."""
        return self.gain in ("noise", "shuffled", "permuted")


CONDITIONS: dict[str, Condition] = {
    condition.name: condition
    for condition in (
        Condition("none", meaning="the pretrained network as it is"),
        Condition(
            "attention", ("controller",), 1.0,
            meaning="couplings tuned, modulator at its mean: a deterministic gain",
        ),
        Condition(
            "comod", ("controller",), 1.0, "noise",
            meaning="as attention, and the decoder gain from the covariance with the noise",
        ),
        Condition(
            "comod-0", ("controller",), 0.0, "noise", through=True,
            meaning="decisions without modulation, gradient through the decoder gain",
        ),
        Condition(
            "shuffled-label", ("controller",), 1.0, "shuffled",
            meaning="as comod, the modulator permuted across draws",
        ),
        Condition(
            "permuted-gain", ("controller",), 1.0, "permuted",
            meaning="as comod, the gains given to other units",
        ),
        Condition(
            "input-noise", ("controller",), 1.0, noisy=True,
            meaning="attention with the same noise during training, no decoder gain",
        ),
        Condition(
            "learned-gain", ("controller", "gain"), 1.0, "learned",
            meaning="attention with a free decoder gain per context: more parameters",
        ),
        Condition("bias-only", ("bias",), meaning="one scalar per output"),
        Condition("last-layer", ("readout",), meaning="the read-out alone"),
        Condition("decoder", ("decoder", "readout"), meaning="the decoder and the read-out"),
        Condition("full", ("encoder", "decoder", "readout"), meaning="everything"),
        Condition("film", ("film",), meaning="a scale and a shift of every channel and context"),
    )
}  # fmt: skip


def condition(name: str) -> Condition:
    """Return a condition by its name.

    Args:
        name: One of `CONDITIONS`.

    Raises:
        ValueError: For an unknown name.

    Example:
        >>> from ctxrnn.comodulation import condition
        >>> condition("attention").meaning
        'couplings tuned, modulator at its mean: a deterministic gain'
        >>> condition("attention").stochastic, condition("comod").stochastic
        (False, True)
    """
    if name not in CONDITIONS:
        raise unknown_name("condition", name, CONDITIONS)
    return CONDITIONS[name]


@dataclass(frozen=True)
class ModulationConfig:
    """How channels are modulated and the decoder gain is estimated; the unknowns of the model.

    Attributes:
        gain_form: exp(m c - s^2 c^2 / 2) ("exp") or 1 + m c ("linear").
        gain_stat: "cov" (covariance over sigma^2) or "corr" (over the unit's deviation, times
            sigma).
        noise_axis: Draws of the modulator: "antithetic" (m and -m for each image and context),
            "naive" (one for each image and context), "single" (many for one image).
        draws: Number of draws for noise_axis="single".
        sigma: Standard deviation of m.
        noise_center: Mean of m in the gain pass.
        controller: "table" (c = theta^2) or "mlp" (one hidden layer, softplus).
        theta_init: Initial theta of the table, not 0, where its gradient vanishes.
        hidden: Hidden units of the controller "mlp".
        probe_scope: Images for the gain of context k: "all", or its "own_context".
        eval_gain: Decoder gain at test: from the "probe" set, or the "running" mean of training,
            where there is one: with the gradient through the gain it is from the probe set.
        tau_max: Longest memory of the running mean, in steps.
        mu: Value of the modulator in decisions, of all conditions that have one; None for the
            condition's own.
        gain_grad: Whether the gradient goes through a gain that comes from noise ("through"), or
            the gain is a running mean ("detached"); None for the condition's own.

    Raises:
        ValueError: If a setting is unknown or out of range.

    Example:
        >>> from ctxrnn.comodulation import ModulationConfig, condition
        >>> config = ModulationConfig(mu=2.0, sigma=0.2)
        >>> condition("attention").mu, config.applied(condition("attention")).mu
        (1.0, 2.0)
    """

    gain_form: Literal["exp", "linear"] = "exp"
    gain_stat: Literal["cov", "corr"] = "cov"
    noise_axis: Literal["antithetic", "naive", "single"] = "antithetic"
    draws: int = 500
    sigma: float = 0.1
    noise_center: float = 0.0
    controller: Literal["table", "mlp"] = "table"
    theta_init: float = 0.3
    hidden: int = 32
    probe_scope: Literal["all", "own_context"] = "all"
    eval_gain: Literal["probe", "running"] = "probe"
    tau_max: float = 100.0
    mu: float | None = None
    gain_grad: Literal["detached", "through"] | None = None

    def __post_init__(self) -> None:
        known = {
            "gain_form": ("exp", "linear"),
            "gain_stat": ("cov", "corr"),
            "noise_axis": ("antithetic", "naive", "single"),
            "controller": ("table", "mlp"),
            "probe_scope": ("all", "own_context"),
            "eval_gain": ("probe", "running"),
        }
        for name, names in known.items():
            if getattr(self, name) not in names:
                raise unknown_name(name, getattr(self, name), names)
        check_count("draws", self.draws, minimum=2)
        check_count("hidden", self.hidden)
        check_positive("sigma", self.sigma)
        check_positive("tau_max", self.tau_max)
        check_not_negative("noise_center", self.noise_center)
        theta = check_number("theta_init", self.theta_init)
        if not math.isfinite(theta):
            raise ValueError(f"theta_init must be finite: got {theta}; the default is 0.3")
        # Couplings are float32, in which a smaller square is 0.
        if theta**2 < _SMALLEST:
            raise ValueError(
                "theta_init must not be 0, nor so small that its square is: the gradient of "
                f"c = theta^2 vanishes there; got {theta:g}, the default is 0.3"
            )
        if self.gain_grad is not None and self.gain_grad not in ("detached", "through"):
            raise unknown_name("gain_grad", self.gain_grad, ("detached", "through"))
        if self.mu is not None:
            check_not_negative("mu", self.mu)
            if self.mu == 0 and self.gain_grad == "detached":
                raise ValueError(
                    "mu=0 must come with the gradient through the gain, gain_grad='through': "
                    "otherwise none reaches the couplings"
                )

    def applied(self, to: Condition) -> Condition:
        """Return a condition with these `mu` and `gain_grad` in place of its own.

        Raises:
            ValueError: If no gradient would reach the couplings.
        """
        mu = to.mu if self.mu is None or to.mu is None else self.mu
        through = to.through
        if to.stochastic and self.gain_grad is not None:
            through = self.gain_grad == "through"
        return replace(to, mu=mu, through=through)
