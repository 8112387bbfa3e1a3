"""nn4n's CTRNN: a network in the current form whose rates are read out."""

from __future__ import annotations

import importlib.metadata
import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from ctxrnn._network import CTRNN, Nonlinearity, brief

from ._folded import Context, copy_all, fold
from ._optional import missing

if TYPE_CHECKING:
    import nn4n.model

logger = logging.getLogger("ctxrnn")


def _retanh(x: Tensor) -> Tensor:
    return torch.relu(torch.tanh(x))


_NONLINEARITIES: dict[str, str | Nonlinearity] = {
    "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "retanh": _retanh,
}  # fmt: skip


def from_nn4n(model: nn4n.model.CTRNN) -> CTRNN:
    """Return the network that computes what a CTRNN of nn4n 1.1.1 does.

    Its equation, v_t = (1 - alpha) v_{t-1} + alpha (W r_{t-1} + b_hid + B u_t + b_in + noise) with
    r = phi(v) and y = C r + d, is the current form. Equal up to rounding without noise; with
    `preact_noise` p the same in distribution, with sigma = p sqrt(alpha / (2 - alpha)). (nn4n
    itself adds noise only once `model.train()` was called, and runs in float32.) The network takes
    (trial, time, input); nn4n's models take (time, trial, input).

    Weights are those that nn4n's next run would use. Its masks act in training alone and do not
    come along; a warning is logged where there are any.

    Args:
        model: The model; "relu", "tanh", "sigmoid" or "retanh", `init_state` "zero" or "learn".

    Returns:
        A network with copies of the weights. One with "retanh" has a callable nonlinearity, which
        `ctxrnn.load` must be given again.

    Raises:
        TypeError: If it is not a CTRNN of nn4n.
        ValueError: For `postact_noise`, or `init_state="keep"`; and for another version of nn4n.

    Example:
        >>> import nn4n.model, torch
        >>> from ctxrnn.interop import from_nn4n
        >>> model = nn4n.model.CTRNN(dims=[3, 32, 2], activation="tanh", tau=100, dt=20)
        >>> network = from_nn4n(model)
        >>> u = torch.randn(5, 50, 3)  # (trial, time, input)
        >>> outputs, _ = model(u.transpose(0, 1))
        >>> torch.allclose(network(u).outputs, outputs.transpose(0, 1), atol=1e-5)
        True
    """
    kind = _theirs()
    if not isinstance(model, kind):
        raise TypeError(f"model must be an nn4n.model.CTRNN: got {type(model).__name__}")
    layer, out = model.recurrent_layer, model.readout_layer
    if layer.init_state not in ("zero", "learn"):
        raise ValueError(
            f"init_state must be 'zero' or 'learn': got {layer.init_state!r}, with which the state "
            "of one run depends on the run before; set model.recurrent_layer.init_state = 'zero'"
        )
    if model.postact_noise:
        raise ValueError(
            f"postact_noise must be 0, since a CTRNN has no noise on its rates: got "
            f"{model.postact_noise}; set model.postact_noise = 0, or use preact_noise"
        )
    if layer.act not in _NONLINEARITIES:
        raise ValueError(
            f"activation must be one of {', '.join(_NONLINEARITIES)}: got {layer.act!r}"
        )
    alpha = float(layer.alpha)
    given = {"dt": 10, "tau": 100, **model.kwargs_checkpoint}
    dt, tau = float(given["dt"]), float(given["tau"])
    if dt / tau != alpha:
        tau = dt / alpha
    if alpha > 1:
        raise ValueError(
            f"dt must be at most tau: got dt={dt:g} ms with tau={tau:g} ms, steps that overshoot"
        )
    parts = [layer.input_layer, layer.hidden_layer, out]
    if any(part.ei_mask is not None or part.sparsity_mask is not None for part in parts):
        logger.warning(
            "masks of the nn4n model do not come along: further training may change the signs of "
            "weights and fill those that are 0"
        )
    b, w, c = (_effective(part, model.training) for part in parts)
    network = CTRNN(
        b.shape[1], len(w), len(c), tau=tau, dt=dt, nonlinearity=_NONLINEARITIES[layer.act],
        noise=float(model.preact_noise) * (alpha / (2 - alpha)) ** 0.5,
        learn_x0=layer.init_state == "learn", seed=0, device=w.device, dtype=w.dtype,
    )  # fmt: skip
    pairs = [
        (network.weight, w), (network.input_weight, b), (network.output_weight, c),
        (network.bias, layer.input_layer.bias + layer.hidden_layer.bias),
        (network.output_bias, out.bias),
    ]  # fmt: skip
    if network.x0 is not None:
        pairs.append((network.x0, layer.hidden_state))
    copy_all(pairs)
    return network


def to_nn4n(network: CTRNN, context: Context | None = None) -> nn4n.model.CTRNN:
    """Return the CTRNN of nn4n 1.1.1 that computes what a network does in one context.

    Covered are networks in the current form that read out rates, and those in the rate form with
    tau = dt, where both forms have the same rates; with one tau, and relu, tanh or sigmoid. W(c),
    E c, gain and threshold of the context go into the weights: nn4n's v is G (x - Theta c). Equal
    up to rounding without noise; with noise the same in distribution, once `model.train()` was
    called.

    Dale's law and masks of the network do not go along; a warning is logged where there are any.

    Args:
        network: The network.
        context: c, (context,), or `Contexts` with one for each pathway; None for a network without
            pathways.

    Returns:
        A model with copies of the weights, in float32, as nn4n computes; it takes
        (time, trial, input).

    Raises:
        ValueError: If nn4n does not have the network's equation; says which condition fails.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.interop import to_nn4n
        >>> network = CTRNN(3, 32, 2, "es-gain-sym", contexts=4, tau=100, dt=20, noise=0.0)
        >>> context = torch.eye(4)[1]
        >>> model = to_nn4n(network, context)
        >>> u = torch.randn(5, 50, 3)  # (trial, time, input)
        >>> run = network(u, context.expand(5, 4))
        >>> outputs, _ = model(u.transpose(0, 1))
        >>> torch.allclose(outputs.transpose(0, 1), run.outputs, atol=1e-5)
        True
    """
    kind = _theirs()
    folded = fold(network, context)
    act = "retanh" if network.phi is _retanh else network.nonlinearity_name
    if act not in _NONLINEARITIES:
        raise ValueError(
            "nonlinearity must be relu, tanh or sigmoid, which nn4n has: got "
            f"{network.nonlinearity_name or network.phi!r}"
        )
    alphas = folded.alpha.unique()
    if len(alphas) > 1:
        raise ValueError(f"tau must be one for all units, as in nn4n: got {brief(network.tau)} ms")
    alpha = float(alphas)
    if network.form == "rate":
        if alpha != 1:
            raise ValueError(
                "form must be 'current', in which nn4n's potentials leak, unless dt = tau: got "
                f"'rate' with dt={network.dt:g} ms and tau={brief(network.tau)} ms"
            )
        if act == "sigmoid" or bool(folded.start.any()):
            raise ValueError(
                "a network in the rate form must start at rates of 0, which nn4n's potentials of "
                "0 give: got sigmoid or a learnt x0; build it in the current form"
            )
    elif network.readout == "potentials":
        raise ValueError("readout must be 'rates', as in nn4n: got 'potentials'")
    with torch.no_grad():
        noise = network.noise_scale() * folded.gain.abs()
    if bool((noise != noise[0]).any()):
        raise ValueError(
            "noise must be 0, since the gain of the context makes it differ between units, which "
            f"nn4n cannot: got {network.noise:g}; set network.noise = 0"
        )
    if parametrize.is_parametrized(network, "weight"):
        logger.warning(
            "Dale's law and masks of the network do not go along: further training of the nn4n "
            "model may change the signs of weights and fill those that are 0"
        )
    model = kind(
        dims=[network.inputs, network.units, network.outputs], activation=act, dt=network.dt,
        tau=float(network.tau.detach().max()), weights="zero", biases=[None, "zero", "zero"],
        init_state="learn" if bool(folded.start.any()) else "zero",
        preact_noise=float(noise[0]),
    )  # fmt: skip
    layer, out = model.recurrent_layer, model.readout_layer
    copy_all([
        (layer.input_layer.weight, folded.input_weight), (layer.hidden_layer.weight, folded.weight),
        (layer.hidden_layer.bias, folded.bias), (layer.hidden_state, folded.start),
        (out.weight, network.output_weight), (out.bias, network.output_bias),
    ])  # fmt: skip
    return model


def _theirs() -> Any:
    """Return nn4n's class, of a version whose equation is known."""
    try:
        from nn4n.model import CTRNN as Theirs
    except ImportError:
        raise missing("nn4n", "nn4n==1.1.1") from None
    version = importlib.metadata.version("nn4n")
    if version != "1.1.1":
        raise ValueError(
            f"nn4n must be 1.1.1, whose equation is known here: got {version}; pip install "
            "nn4n==1.1.1"
        )
    return Theirs


@torch.no_grad()
def _effective(part: Any, training: bool) -> Tensor:
    """Return a layer's weight as its next run uses it: in training mode that applies the masks."""
    weight: Tensor = part.weight.detach().clone()
    if not training:
        return weight
    if part.sparsity_mask is not None:
        weight *= part.sparsity_mask.to(weight.device)
    if part.ei_mask is not None:
        positive = part.ei_mask.to(weight.device) == 1
        weight = torch.where(positive, weight.clamp(min=0), weight.clamp(max=0))
    return weight
