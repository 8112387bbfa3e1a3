"""The continuous-time recurrent network and what it returns."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from ctxrnn._catalogue import known_options, trainable_parameters
from ctxrnn._catalogue import modulation as build_modulation
from ctxrnn._checks import (
    check_count,
    check_finite,
    check_integer,
    check_not_negative,
    check_number,
    make_generator,
    unknown_name,
)
from ctxrnn._circuit import Circuit, Dense
from ctxrnn._connectivity import Dale, Masked, connection_mask, dale_signs, initial_weight
from ctxrnn._context import Contexts, check_context, filter_context
from ctxrnn._integrate import integrate
from ctxrnn._modulation import AbstractModulation, Chain, Seed, resolve_seed
from ctxrnn._noise import RecurrentNoise, draw_key
from ctxrnn._trajectory import Trajectory

Nonlinearity = Callable[[Tensor], Tensor]

NONLINEARITIES: Mapping[str, Nonlinearity] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softplus": functional.softplus,
    "sigmoid": torch.sigmoid,
}


class CTRNN(nn.Module):
    r"""Continuous-time recurrent network with context pathways.

    Current form (default):

        tau dx/dt = -x + W(c) r + B u + b + E c + noise,   r = phi(G(c) (x - Theta c))

    Rate form:

        tau dr/dt = -r + phi(G(c) (W(c) r + B u + b + E c - Theta c + noise))

    and y = C r + d (or C x + d). A step of length dt is x <- (1 - alpha) x + alpha (...), with
    alpha = dt / tau. The noise of a step is sigma sqrt((2 - alpha) / alpha) xi, xi ~ N(0, 1), so
    that the stationary variance of a unit without recurrent input is sigma^2 at every dt; the
    Euler-Maruyama choice, sigma sqrt(2 / alpha) xi, gives sigma^2 / (1 - alpha / 2).

    Args:
        inputs: I, size of the stimulus.
        units: N.
        outputs: O.
        modulation: Context pathways: an id of the catalogue ("e-add", "es-add-sym", ...; needs
            `contexts`), a pathway, a Chain, or None.
        contexts: K; taken from the pathways where they are given as modules.
        tau: Time constant in ms: one number, or one per unit.
        dt: Time step in ms, in (0, tau].
        noise: sigma, standard deviation of the recurrent noise.
        noise_scaling: "stationary" or "euler-maruyama", see above.
        nonlinearity: "tanh", "relu", "softplus", "sigmoid", or a callable on tensors.
        form: "current" or "rate".
        readout: What is read out, "rates" or "potentials".
        learn_tau: Whether tau is trained; it stays above dt.
        learn_x0: Whether the initial state is trained; otherwise it is 0.
        initial: Initial W, "gaussian" or "identity"; None chooses the Gaussian for tanh and
            sigmoid and the identity for relu and softplus, but never under Dale's law, where
            a zero weight has no gradient.
        g: Spread of the initial W: N(0, g^2 / N), or 0.5 g times the identity.
        spectral_radius: Scale the initial W to this spectral radius; None leaves it.
        excitatory: Fraction of excitatory neurons under Dale's law (they come first); None for
            free signs.
        density: Probability that a connection exists.
        self_connections: Whether a neuron may project to itself.
        tau_e: Time constant in ms of the low-pass filter of the excitability context; 0 for none.
        tau_s: Likewise of the synaptic context.
        seed: Seed of the initial values, or a generator; None draws one from torch's global
            generator. Each parameter draws by its own name, so that networks which differ in
            their pathways start from the same W, B and C.
        device: Where the parameters live.
        dtype: torch.float32 or torch.float64.
        options: Options of the pathways, where `modulation` is an id.

    Attributes:
        config: The arguments as JSON-able values, for checkpoints.
        loop: Which time loop runs the network; all give the same numbers up to rounding. "auto"
            takes the fastest that covers the case; "compiled" (CPU, contexts constant in time),
            "adjoint" (in torch, with a gradient of its own), "plain" (autograd; can be
            differentiated twice).

    Raises:
        ValueError: For arguments out of range; unknown names list the known ones.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> network = CTRNN(3, units=32, outputs=2, modulation="es-add-sym", contexts=4, seed=0)
        >>> stimulus = torch.ones(2, 50, 3)  # two equal trials of 50 steps of 20 ms
        >>> run = network(stimulus, torch.eye(4)[:2], noise=0.0)  # in two contexts
        >>> run.rates.shape, run.outputs.shape
        (torch.Size([2, 50, 32]), torch.Size([2, 50, 2]))
        >>> bool((run.outputs[0] - run.outputs[1]).abs().max() > 0.1)  # the context matters
        True
    """

    loop: str = "auto"

    def __init__(
        self,
        inputs: int,
        units: int,
        outputs: int,
        modulation: str | AbstractModulation | Chain | None = None,
        *,
        contexts: int | None = None,
        tau: float | Tensor | np.ndarray | list[float] = 100.0,
        dt: float = 20.0,
        noise: float = 0.05,
        noise_scaling: Literal["stationary", "euler-maruyama"] = "stationary",
        nonlinearity: str | Nonlinearity = "tanh",
        form: Literal["current", "rate"] = "current",
        readout: Literal["rates", "potentials"] = "rates",
        learn_tau: bool = False,
        learn_x0: bool = False,
        initial: Literal["gaussian", "identity"] | None = None,
        g: float = 1.0,
        spectral_radius: float | None = None,
        excitatory: float | None = None,
        density: float = 1.0,
        self_connections: bool = True,
        tau_e: float = 0.0,
        tau_s: float = 0.0,
        seed: Seed | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._tau: Tensor
        for name, size in (("inputs", inputs), ("units", units), ("outputs", outputs)):
            check_count(name, size)
        check_number("dt", dt)
        check_not_negative("noise", noise)
        if dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64: got {dtype!r}")
        check_not_negative("tau_e", tau_e, "ms")
        check_not_negative("tau_s", tau_s, "ms")
        _check_choice("form", form, ("current", "rate"))
        _check_choice("readout", readout, ("rates", "potentials"))
        _check_choice("noise_scaling", noise_scaling, ("stationary", "euler-maruyama"))
        base = resolve_seed(seed)
        if isinstance(modulation, str) and "g" in known_options(modulation):
            options = {"g": g, **options}
        self.inputs, self.units, self.outputs = inputs, units, outputs
        self.dt, self.noise, self.noise_scaling = float(dt), float(noise), noise_scaling
        self.form, self.readout = form, readout
        self.tau_e, self.tau_s, self.seed = float(tau_e), float(tau_s), base
        self.variant, self.modulation, self.contexts = _pathways(
            modulation, units, contexts, base, options
        )
        self.nonlinearity_name, self.phi = _nonlinearity(nonlinearity)
        self._make_tau(tau, learn_tau, dtype or torch.get_default_dtype())
        self._make_weights(initial, g, spectral_radius, excitatory, density, self_connections)
        self.x0 = nn.Parameter(torch.zeros(units)) if learn_x0 else None
        self.config: dict[str, Any] = {
            "inputs": inputs, "units": units, "outputs": outputs, "contexts": self.contexts,
            "tau": self._given_tau, "dt": self.dt,
            "noise": self.noise, "noise_scaling": noise_scaling,
            "nonlinearity": self.nonlinearity_name, "form": form, "readout": readout,
            "learn_tau": learn_tau, "learn_x0": learn_x0, "initial": initial, "g": g,
            "spectral_radius": spectral_radius, "excitatory": excitatory, "density": density,
            "self_connections": self_connections, "tau_e": self.tau_e, "tau_s": self.tau_s,
            "seed": base,
        }  # fmt: skip
        self.to(device=device, dtype=dtype)

    def _make_tau(self, tau: Any, learn: bool, dtype: torch.dtype) -> None:
        try:
            values = torch.as_tensor(tau, dtype=torch.float64).detach()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"tau must be a number or one per unit, in ms: got {tau!r}") from None
        self._given_tau = values.tolist()
        if tuple(values.shape) not in ((), (self.units,)):
            raise ValueError(
                f"tau must be one number or one per unit, shape ({self.units},): "
                f"got shape {tuple(values.shape)}"
            )
        if not bool((torch.isfinite(values) & (values > 0)).all()):
            raise ValueError(f"tau must be positive and finite: got {brief(values)} ms")
        if not (math.isfinite(self.dt) and 0 < self.dt <= float(values.min())):
            raise ValueError(
                f"dt must be in (0, tau]: got dt={self.dt} ms with tau={brief(values)} ms"
            )
        self._fixed_alpha: float | None = None
        if learn:
            excess = (values - self.dt).clamp_min(1e-3 * self.dt)
            self.log_tau_excess = nn.Parameter(excess.log().to(dtype))
            return
        self.register_buffer("_tau", values.to(dtype))
        if values.ndim == 0:
            self._fixed_alpha = self.dt / float(values)

    def _make_weights(
        self,
        initial: str | None,
        g: float,
        spectral_radius: float | None,
        excitatory: float | None,
        density: float,
        self_connections: bool,
    ) -> None:
        base, units = self.seed, self.units
        sparse = density != 1.0 or not self_connections
        if self.modulation.replaces_weight:
            own_g = self.variant == "custom" and g != 1.0
            given = (excitatory, spectral_radius, initial)
            if sparse or own_g or any(value is not None for value in given):
                raise ValueError(
                    "density, self_connections, excitatory, spectral_radius and initial (and g, "
                    f"for pathways given as modules) act on W, which {self.variant!r} replaces by "
                    "a matrix of its own: leave them out"
                )
            self.register_parameter("weight", None)
        else:
            mask = sign = None
            if sparse:
                mask = connection_mask(
                    units,
                    density=density,
                    self_connections=self_connections,
                    generator=make_generator(base, "mask"),
                )
            if excitatory is not None:
                sign = dale_signs(units, excitatory)
            if initial == "identity" and excitatory is not None:
                raise ValueError(
                    "initial must be 'gaussian' under Dale's law: weights are |raw| * sign, and "
                    "those that start at zero have no gradient and would never be learnt"
                )
            identity = self.nonlinearity_name in ("relu", "softplus") and self_connections
            identity = identity and excitatory is None
            kind = initial or ("identity" if identity else "gaussian")
            self.weight = nn.Parameter(
                initial_weight(
                    units,
                    kind=kind,
                    g=g,
                    generator=make_generator(base, "W"),
                    mask=mask,
                    sign=sign,
                    spectral_radius=spectral_radius,
                )
            )
            if sign is not None:
                parametrize.register_parametrization(self, "weight", Dale(sign))
            if mask is not None:
                parametrize.register_parametrization(self, "weight", Masked(mask))
        self.input_weight = self._gaussian("B", (units, self.inputs), self.inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(units))
        self.output_weight = self._gaussian("C", (self.outputs, units), units**-0.5)
        self.output_bias = nn.Parameter(torch.zeros(self.outputs))

    def _gaussian(self, name: str, shape: tuple[int, int], sd: float) -> nn.Parameter:
        drawn = torch.randn(shape, generator=make_generator(self.seed, name), dtype=torch.float64)
        return nn.Parameter((drawn * sd).to(torch.get_default_dtype()))

    @property
    def tau(self) -> Tensor:
        """Time constant in ms, () or (unit,)."""
        if hasattr(self, "log_tau_excess"):
            return self.dt + self.log_tau_excess.exp()
        return self._tau

    @property
    def alpha(self) -> Tensor | float:
        """Leak of one step, dt / tau; a number where tau is common and fixed."""
        return self.dt / self.tau if self._fixed_alpha is None else self._fixed_alpha

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.input_weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters."""
        return self.input_weight.dtype

    def parameter_count(self) -> int:
        """Return the number of trainable parameters, context pathways included."""
        return trainable_parameters(self)

    def base_circuit(self) -> Circuit:
        """Return the circuit without context: W, B and b."""
        recurrent = None if self.weight is None else Dense(self.weight)
        return Circuit(recurrent, self.input_weight, self.bias)

    def circuit(self, context: Tensor | np.ndarray | Contexts | None = None) -> Circuit:
        """Return the effective parameters in a context.

        Args:
            context: c, (trial, context), or one for each pathway; None only for a network without
                pathways.
        """
        base = self.base_circuit()
        if context is None:
            self._check_no_context()
            return base
        given = Contexts.of(context)  # type: ignore[arg-type]
        excitability = synaptic = self._cast("context", given.excitability)
        if given.synaptic is not given.excitability:
            synaptic = self._cast("context", given.synaptic)
        return self.modulation(base, Contexts(excitability, synaptic))

    def rates(self, circuit: Circuit, state: Tensor) -> Tensor:
        """Return r of a state: phi(G (x - Theta c)), or the state itself in the rate form."""
        return state if self.form == "rate" else self.phi(circuit.excite(state))

    def target(self, circuit: Circuit, rates: Tensor, current: Tensor) -> Tensor:
        """Return what the state relaxes to; `current` is all of the current but the recurrent."""
        total = circuit.propagate(rates, current)
        return self.phi(circuit.excite(total)) if self.form == "rate" else total

    def velocity(self, circuit: Circuit, x: Tensor, u: Tensor) -> Tensor:
        """Return the noise-free vector field dx/dt (dr/dt in the rate form), per ms.

        Args:
            circuit: Effective parameters, from `circuit(context)`.
            x: State, (trial, unit).
            u: Stimulus, (trial, input) or (input,).
        """
        current = u @ circuit.input_weight.mT + circuit.current
        return (self.target(circuit, self.rates(circuit, x), current) - x) / self.tau

    def read_out(self, potentials: Tensor, rates: Tensor) -> Tensor:
        """Return y = C r + d, or C x + d, (..., output)."""
        seen = rates if self.readout == "rates" else potentials
        return functional.linear(seen, self.output_weight, self.output_bias)

    def noise_scale(self, noise: float | None = None) -> Tensor | float:
        """Return the standard deviation of the noise current of one step, () or (unit,).

        Args:
            noise: sigma; None for the network's own.
        """
        sigma, alpha = self.noise if noise is None else noise, self.alpha
        top = 2 - alpha if self.noise_scaling == "stationary" else 2.0
        return sigma * (top / alpha) ** 0.5

    def forward(
        self,
        inputs: Tensor | np.ndarray,
        context: Tensor | np.ndarray | Contexts | None = None,
        x0: Tensor | None = None,
        *,
        generator: torch.Generator | int | None = None,
        noise: float | None = None,
        initial_context: Tensor | Contexts | None = None,
    ) -> Trajectory:
        """Run a batch of trials.

        Arrays and tensors of other types, or on another device, are brought to the network's own.
        Under `torch.autocast` the network computes in its own type, too.

        Args:
            inputs: Stimulus u, (trial, time, input).
            context: c, (trial, context), or (trial, time, context) where it varies in time; one
                tensor for both pathways, or `Contexts(excitability, synaptic)`.
            x0: Initial state, (trial, unit) or (unit,); None for the network's own.
            generator: Source of the noise, or a seed; None uses torch's global generator. Noise
                is drawn on the generator's device, so a CPU generator gives the same noise on
                every device.
            noise: sigma in place of the network's own; 0 for a run without noise.
            initial_context: State of the context filters at the first step (`tau_e`, `tau_s`).

        Returns:
            Potentials, rates and outputs after every step.

        Raises:
            ValueError: For shapes that do not fit, NaN or infinite values.
        """
        u = self._cast("inputs", inputs)
        if u.ndim != 3 or u.shape[-1] != self.inputs or 0 in u.shape:
            raise ValueError(
                f"inputs must have shape (trial, time, input={self.inputs}), none of them 0: "
                f"got {tuple(u.shape)}"
            )
        check_finite("inputs", u, "Mend or leave out the trials that hold them.")
        trials, steps, _ = u.shape
        prepared = self.prepare_run(
            context, trials, steps, x0,
            generator=generator, noise=noise, initial_context=initial_context,
        )  # fmt: skip
        # Steps add up over a trial: half precision would change what the network does.
        with torch.autocast(u.device.type, enabled=False):
            return integrate(self, u, *prepared)

    def prepare_run(
        self,
        context: Tensor | np.ndarray | Contexts | None,
        trials: int,
        steps: int,
        x0: Tensor | None = None,
        *,
        generator: torch.Generator | int | None = None,
        noise: float | None = None,
        initial_context: Tensor | Contexts | None = None,
        checked: bool = False,
    ) -> tuple[Contexts | None, Tensor, RecurrentNoise | None]:
        """Check and complete what a run starts from.

        Args:
            context: As for `forward`, likewise the following.
            trials: Number of trials.
            steps: Number of time steps.
            x0: See `forward`.
            generator: See `forward`.
            noise: See `forward`.
            initial_context: See `forward`.
            checked: Whether `context` comes from here and need not be checked again.

        Returns:
            The filtered contexts, the initial state, (trial, unit), and the noise.
        """
        if checked and (context is None or isinstance(context, Contexts)):
            contexts = context
        else:
            contexts = self._contexts(context, trials, steps, initial_context)
        start = self._start(x0, trials)
        sigma = self.noise if noise is None else noise
        check_not_negative("noise", sigma)
        source = None
        if sigma > 0:
            source = self._noise_source((steps, trials, self.units), sigma, generator)
        return contexts, start, source

    def _cast(self, name: str, values: Tensor | np.ndarray) -> Tensor:
        tensor = torch.as_tensor(values)
        if tensor.is_complex():
            raise TypeError(f"{name} must be real: got {tensor.dtype}")
        return tensor.to(device=self.device, dtype=self.dtype)

    def _contexts(
        self,
        context: Tensor | np.ndarray | Contexts | None,
        trials: int,
        steps: int,
        initial: Tensor | Contexts | None,
    ) -> Contexts | None:
        if context is None:
            self._check_no_context()
            return None
        size = self.contexts
        given = context if isinstance(context, Contexts) else Contexts.of(torch.as_tensor(context))
        start = None if initial is None else Contexts.of(initial)
        shared = given.excitability is given.synaptic and self.tau_e == self.tau_s
        shared = shared and (start is None or start.excitability is start.synaptic)
        seen: dict[str, Tensor] = {}
        for name, tau in (("excitability", self.tau_e), ("synaptic", self.tau_s)):
            if shared and seen:
                return Contexts.of(seen["excitability"])
            value = self._cast("context", getattr(given, name))
            width = value.shape[-1] if size is None and value.ndim else size or 0
            label = "context" if given.excitability is given.synaptic else f"{name} context"
            check_context(label, value, trials, steps, width)
            first = None if start is None else self._cast("initial_context", getattr(start, name))
            if first is not None:
                check_finite("initial_context", first, "Give a finite context to start from.")
            seen[name] = filter_context(value, tau, self.dt, steps=steps, initial=first)
        return Contexts(**seen)

    def _check_no_context(self) -> None:
        if len(self.modulation.pathways):
            raise ValueError(
                f"context must be given: the pathways of {self.variant!r} need one of "
                f"{self.contexts} entries per trial"
            )

    def _start(self, x0: Tensor | None, trials: int) -> Tensor:
        if x0 is None and self.x0 is None:
            return self.bias.new_zeros(trials, self.units)
        start = self.x0 if x0 is None else self._cast("x0", x0)
        assert start is not None
        if tuple(start.shape) not in ((self.units,), (trials, self.units)):
            raise ValueError(
                f"x0 must have shape ({self.units},) or ({trials}, {self.units}): "
                f"got {tuple(start.shape)}"
            )
        check_finite("x0", start, "Give a finite initial state.")
        return start.expand(trials, self.units)

    def _noise_source(
        self, shape: tuple[int, int, int], sigma: float, generator: torch.Generator | int | None
    ) -> RecurrentNoise:
        """Fix the noise of a run, (time, trial, unit)."""
        if generator is not None and not isinstance(generator, torch.Generator):
            check_integer("generator", generator)
            generator = make_generator(generator, "noise")
        device = self.device if generator is None else generator.device
        scale = self.noise_scale(sigma)
        if device.type == "cpu":
            return RecurrentNoise(scale, draw_key(generator))
        drawn = torch.randn(shape, generator=generator, device=device, dtype=self.dtype)
        return RecurrentNoise(scale, None, drawn.to(self.device))

    def extra_repr(self) -> str:
        """Return the sizes and the variant for `print(network)`."""
        return (
            f"inputs={self.inputs}, units={self.units}, outputs={self.outputs}, "
            f"variant={self.variant!r}, contexts={self.contexts}, form={self.form!r}, "
            f"nonlinearity={self.nonlinearity_name!r}, tau={brief(self.tau)} ms, dt={self.dt} ms"
        )


def _pathways(
    modulation: str | AbstractModulation | Chain | None,
    units: int,
    contexts: int | None,
    seed: int,
    options: dict[str, Any],
) -> tuple[str, Chain, int | None]:
    """Return the variant's id, its pathways and K."""
    if contexts is not None:
        check_count("contexts", contexts)
    if modulation is None or isinstance(modulation, str):
        _check_options(modulation or "none", options)
    if modulation is None or modulation == "none":
        return "none", Chain(), contexts
    if isinstance(modulation, str):
        if contexts is None:
            raise ValueError(f"contexts must be given to build the pathways of {modulation!r}")
        built = build_modulation(modulation, units, contexts, seed=seed, **options)
        return modulation, built, contexts
    if options:
        raise TypeError(
            f"unknown argument {sorted(options)[0]!r}: options of pathways go with a variant id; "
            "a pathway given as a module has its own"
        )
    if not isinstance(modulation, AbstractModulation | Chain):
        raise TypeError(
            "modulation must be a variant id, a pathway or a Chain: "
            f"got {type(modulation).__name__}"
        )
    chain = modulation if isinstance(modulation, Chain) else Chain(modulation)
    for name, want in (("units", units), ("contexts", contexts)):
        got = getattr(chain, name)
        if got is not None and want is not None and got != want:
            raise ValueError(f"pathways must have {name}={want} as the network: got {got}")
    return "custom", chain, chain.contexts if contexts is None else contexts


def _check_options(variant: str, options: dict[str, Any]) -> None:
    """Refuse an argument that neither the network nor the pathways of the variant know."""
    known = known_options(variant)
    own = [name for name in inspect.signature(CTRNN).parameters if name != "options"]
    for name in sorted(options):
        if name not in known:
            what = f"argument of CTRNN or option of variant {variant!r}"
            raise unknown_name(what, name, [*own, *known])


def _nonlinearity(nonlinearity: str | Nonlinearity) -> tuple[str | None, Nonlinearity]:
    if callable(nonlinearity):
        names = [name for name, known in NONLINEARITIES.items() if known is nonlinearity]
        return (names[0] if names else None), nonlinearity
    if nonlinearity not in NONLINEARITIES:
        raise unknown_name("nonlinearity", nonlinearity, NONLINEARITIES)
    return nonlinearity, NONLINEARITIES[nonlinearity]


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown_name(name, value, known)


def brief(values: Tensor) -> str:
    """Return one number, or the range of several, to print."""
    low, high = float(values.detach().min()), float(values.detach().max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
