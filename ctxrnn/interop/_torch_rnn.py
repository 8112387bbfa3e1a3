"""torch.nn.RNN: a network in the rate form with dt = tau."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ctxrnn._modulation import AbstractModulation, Chain
from ctxrnn._network import CTRNN, brief

from ._folded import Context, copy_all, fold

_NONLINEARITIES = ("tanh", "relu")
# What the RNN settles: its equation and its weights.
_OWN = {
    "form", "tau", "learn_tau", "inputs", "units", "outputs", "device", "dtype", "initial",
    "spectral_radius", "excitatory", "density", "self_connections",
}  # fmt: skip
_KEYS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def from_rnn(
    rnn: nn.RNN | Mapping[str, Tensor],
    readout: nn.Linear | Mapping[str, Tensor] | None = None,
    modulation: str | AbstractModulation | Chain | None = None,
    *,
    nonlinearity: str | None = None,
    dt: float = 20.0,
    **options: Any,
) -> CTRNN:
    """Return the network that computes what a `torch.nn.RNN` does.

    r_t = phi(W r_{t-1} + B u_t + b) is the rate form with tau = dt. Equal up to rounding without
    noise and without pathways; r_0, `x0` of a call, is the RNN's h_0, in the shape (trial, unit).
    The network takes (trial, time, input), whatever the RNN's `batch_first`.

    Args:
        rnn: One layer, forward in time; or its `state_dict()`. The two biases are summed.
        readout: The layer that reads its output, or the `state_dict()` of it; None reads out the
            rates themselves.
        modulation: Pathways to add, as `CTRNN` takes them; `sd=0` makes those neutral that keep W.
        nonlinearity: "tanh" or "relu" of a `state_dict()`, which does not tell it; None for "tanh".
        dt: Time step in ms, and tau.
        options: Further arguments of `CTRNN`: `contexts`, `seed`, `noise` (here 0 by default).

    Returns:
        A network with copies of the weights, on their device and of their type.

    Raises:
        TypeError: If `rnn` or `readout` is something else.
        ValueError: For several layers, both directions, other keys, or shapes that do not fit.

    Example:
        >>> import torch
        >>> from ctxrnn.interop import from_rnn
        >>> rnn, readout = torch.nn.RNN(3, 32, batch_first=True), torch.nn.Linear(32, 2)
        >>> network = from_rnn(rnn, readout)
        >>> u = torch.randn(4, 50, 3)  # (trial, time, input)
        >>> torch.allclose(network(u).outputs, readout(rnn(u)[0]), atol=1e-5)
        True
    """
    if isinstance(rnn, nn.RNN):
        if rnn.bidirectional or rnn.num_layers != 1:
            what = "a bidirectional one" if rnn.bidirectional else f"{rnn.num_layers} layers"
            raise ValueError(f"rnn must be one layer that runs forward in time: got {what}")
        if nonlinearity not in (None, rnn.nonlinearity):
            raise ValueError(
                f"nonlinearity must be the rnn's own, {rnn.nonlinearity!r}: got {nonlinearity!r}; "
                "leave it out"
            )
        nonlinearity = rnn.nonlinearity
    elif not isinstance(rnn, Mapping):
        raise TypeError(f"rnn must be a torch.nn.RNN or its state_dict(): got {type(rnn).__name__}")
    elif nonlinearity is None:
        nonlinearity = "tanh"
    if nonlinearity not in _NONLINEARITIES:
        raise ValueError(f"nonlinearity of an RNN must be tanh or relu: got {nonlinearity!r}")
    own = sorted(_OWN & set(options))
    if own:
        raise TypeError(f"{own[0]} follows from the rnn (rate form, tau = dt, its W): leave it out")
    w, b, bias = _weights(rnn if isinstance(rnn, Mapping) else rnn.state_dict())
    c, d = _readout(readout, w)
    network = CTRNN(
        b.shape[1], len(w), len(c), modulation, tau=dt, dt=dt, form="rate",
        nonlinearity=nonlinearity, device=w.device, dtype=w.dtype, **{"noise": 0.0, **options},
    )  # fmt: skip
    if network.weight is None:
        raise ValueError(f"{modulation!r} has a matrix of its own in place of W: choose another")
    copy_all([
        (network.weight, w), (network.input_weight, b), (network.bias, bias),
        (network.output_weight, c), (network.output_bias, d),
    ])  # fmt: skip
    return network


def to_rnn(network: CTRNN, context: Context | None = None) -> tuple[nn.RNN, nn.Linear, Tensor]:
    """Return the `torch.nn.RNN` that computes what a network with tau = dt does in one context.

    W(c), E c, gain and threshold of the context go into the weights, so that any pathway will do.
    The current form is covered too: with tau = dt its rates follow
    r_t = phi(G (W(c) r_{t-1} + B u_t + b + E c - Theta c)), as those of the rate form. Equal up to
    rounding without noise, which an RNN does not have.

    Args:
        network: A network with tau = dt and tanh or relu.
        context: c, (context,), or `Contexts` with one for each pathway; None for a network without
            pathways.

    Returns:
        The RNN, with `batch_first` and the whole bias in `bias_ih_l0`; the read-out of its output;
        and h_0, (1, 1, unit), which is zero unless the network learnt its `x0` or, in the current
        form, has a threshold: then call `rnn(u, h_0.expand(1, len(u), -1).contiguous())`. They are
        copies.

    Raises:
        ValueError: If the network leaks (dt < tau), has another nonlinearity, reads out potentials
            that are no rates, or `context` is not one context; says which.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.interop import to_rnn
        >>> network = CTRNN(3, 32, 2, "es-gain-sym", contexts=4, form="rate", tau=20, dt=20)
        >>> context = torch.eye(4)[1]
        >>> rnn, readout, _ = to_rnn(network, context)
        >>> u = torch.randn(5, 50, 3)  # (trial, time, input)
        >>> run = network(u, context.expand(5, 4), noise=0.0)
        >>> torch.allclose(readout(rnn(u)[0]), run.outputs, atol=1e-5)
        True
    """
    folded = fold(network, context)
    if bool((folded.alpha != 1).any()):
        raise ValueError(
            f"dt must be tau, as torch.nn.RNN has no leak: got dt={network.dt:g} ms with "
            f"tau={brief(network.tau)} ms; a leaky network in the current form fits nn4n "
            "(to_nn4n), others must be built with tau=dt"
        )
    if network.nonlinearity_name not in _NONLINEARITIES:
        raise ValueError(
            "nonlinearity must be tanh or relu, which torch.nn.RNN has: got "
            f"{network.nonlinearity_name or network.phi!r}"
        )
    if network.form == "current" and network.readout == "potentials":
        raise ValueError(
            "readout must be 'rates', since an RNN tells its rates alone: got 'potentials'; "
            "build the network with readout='rates'"
        )
    rnn = nn.RNN(
        network.inputs, network.units, nonlinearity=network.nonlinearity_name, batch_first=True
    ).to(folded.weight)
    readout = nn.Linear(network.units, network.outputs).to(folded.weight)
    start = network.phi(folded.start) if network.form == "current" else folded.start
    copy_all([
        (rnn.weight_ih_l0, folded.input_weight), (rnn.weight_hh_l0, folded.weight),
        (rnn.bias_ih_l0, folded.bias), (rnn.bias_hh_l0, torch.zeros_like(folded.bias)),
        (readout.weight, network.output_weight), (readout.bias, network.output_bias),
    ])  # fmt: skip
    return rnn, readout, start.reshape(1, 1, -1)


def _weights(state: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return W, B and b of a state dict."""
    given = sorted(state)
    if given not in (sorted(_KEYS), sorted(_KEYS[:2])):
        raise ValueError(
            f"rnn must have the keys of one layer, {', '.join(_KEYS)}, or the first two alone: "
            f"got {', '.join(map(str, given)) or 'none'}; choose the layer, and take prefixes of "
            "a whole model off"
        )
    b, w, *biases = (torch.as_tensor(state[name]).detach() for name in _KEYS if name in state)
    units = w.shape[-1]
    wanted = [(units, b.shape[-1]), (units, units), *[(units,)] * len(biases)]
    for name, value, shape in zip(_KEYS, (b, w, *biases), wanted, strict=False):
        if tuple(value.shape) != shape:
            raise ValueError(
                f"{name} must have shape {shape} for {units} units: got {tuple(value.shape)} "
                "(an LSTM has four such blocks and a GRU three, and neither has this equation)"
            )
    return w, b, biases[0] + biases[1] if biases else w.new_zeros(units)


def _readout(readout: nn.Linear | Mapping[str, Any] | None, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return C and d."""
    units = len(w)
    if readout is None:
        return torch.eye(units).to(w), w.new_zeros(units)
    if not isinstance(readout, nn.Linear | Mapping):
        raise TypeError(
            f"readout must be a torch.nn.Linear or its state_dict(): got {type(readout).__name__}"
        )
    state = readout.state_dict() if isinstance(readout, nn.Linear) else readout
    if set(state) not in ({"weight", "bias"}, {"weight"}):
        raise ValueError(
            f"readout must have the keys weight and bias: got {', '.join(map(str, state))}"
        )
    c = torch.as_tensor(state["weight"]).detach()
    if c.ndim != 2 or c.shape[1] != units:
        raise ValueError(
            f"readout must read {units} units, weight (output, {units}): got {tuple(c.shape)}"
        )
    d = state.get("bias")
    return c, c.new_zeros(len(c)) if d is None else torch.as_tensor(d).detach()
