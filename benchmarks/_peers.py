"""The networks that are timed: torch's own, other libraries', a hand-written loop and ctxrnn's.

Each is built as its documentation shows, with its defaults but for sizes, tau, dt and what a
`Setup` names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUTS, OUTPUTS, CONTEXTS = 65, 17, 10
TAU, DT, NOISE = 100.0, 20.0, 0.05


class Setup(NamedTuple):
    """What a network is built for."""

    units: int
    batch: int
    nonlinearity: str
    noise: float


class Network(NamedTuple):
    """A network to be trained: its module, what it returns of a batch, and its axis order."""

    module: nn.Module
    outputs: Callable[[Tensor], Tensor]
    time_first: bool


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Attributes:
        name: Row label.
        build: Makes the network.
        package: What must be importable.
        noise: Recurrent noise during training, scaled as its library does.
        own: The nonlinearity that its library chooses by itself.
        fixed: Whether the nonlinearity is part of the row.
        recurrent_products: N x N products of one step of the recurrence.
    """

    name: str
    build: Callable[[Setup], Network]
    package: str = "torch"
    noise: float = 0.0
    own: str = "relu"
    fixed: bool = False
    recurrent_products: int = 1

    def nonlinearity(self, wanted: str) -> str:
        """Return the nonlinearity to use where `wanted` is "own", "tanh" or "relu"."""
        return self.own if self.fixed or wanted == "own" else wanted

    def flops(self, batch: int, steps: int, units: int) -> float:
        """Count matrix products at two per multiply-add, and backward as two forwards."""
        width = self.recurrent_products * units + INPUTS + OUTPUTS
        return 3 * 2.0 * batch * steps * units * width


class _RNN(nn.Module):
    """`torch.nn.RNN` with a linear readout."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.rnn = nn.RNN(INPUTS, setup.units, nonlinearity=setup.nonlinearity, batch_first=True)
        self.readout = nn.Linear(setup.units, OUTPUTS)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.readout(self.rnn(inputs)[0])
        return outputs


class _LeakyLoop(nn.Module):
    """The leaky network that tutorials on neurogym's tasks (nn-brain's, for one) write by hand.

    r <- (1 - alpha) r + alpha phi(B u + b + W r + a): a linear layer per term, a list of rates,
    one stack, and a linear readout of all steps.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.alpha = DT / TAU
        self.phi = getattr(torch, setup.nonlinearity)
        self.input2h = nn.Linear(INPUTS, setup.units)
        self.h2h = nn.Linear(setup.units, setup.units)
        self.readout = nn.Linear(setup.units, OUTPUTS)

    def forward(self, inputs: Tensor) -> Tensor:
        rates = torch.zeros(inputs.shape[1], self.h2h.in_features)
        kept = []
        for step in range(inputs.shape[0]):
            drive = self.phi(self.input2h(inputs[step]) + self.h2h(rates))
            rates = rates * (1 - self.alpha) + drive * self.alpha
            kept.append(rates)
        outputs: Tensor = self.readout(torch.stack(kept, dim=0))
        return outputs


def _rnn(setup: Setup) -> Network:
    module = _RNN(setup)
    return Network(module, module, time_first=False)


def _loop(setup: Setup) -> Network:
    module = _LeakyLoop(setup)
    return Network(module, module, time_first=True)


def _nn4n(setup: Setup) -> Network:
    from nn4n.model import CTRNN

    module = CTRNN(
        dims=[INPUTS, setup.units, OUTPUTS],
        tau=TAU,
        dt=DT,
        preact_noise=setup.noise,
        activation=setup.nonlinearity,
    )
    module.train()  # The constructor leaves the noise off; this call switches it on.
    return Network(module, lambda inputs: module(inputs)[0], time_first=True)


def _neuralrnn(setup: Setup) -> Network:
    from neuralrnn import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        "ctrnn",
        input_dim=INPUTS,
        latent_dim=setup.units,
        output_dim=OUTPUTS,
        tau=TAU,
        dt=DT,
        sigma_rec=setup.noise,
        activation=setup.nonlinearity,
    )
    module = AutoModel.from_config(config)
    module.train()
    return Network(module, lambda inputs: module(inputs).outputs, time_first=False)


def _ctxrnn(setup: Setup, *, variant: str) -> Network:
    from ctxrnn import CTRNN

    module = CTRNN(
        inputs=INPUTS,
        units=setup.units,
        outputs=OUTPUTS,
        modulation=variant,
        contexts=CONTEXTS,
        tau=TAU,
        dt=DT,
        noise=setup.noise,
        nonlinearity=setup.nonlinearity,
        seed=0,
    )
    one_hot = functional.one_hot(torch.arange(setup.batch) % CONTEXTS, CONTEXTS).float()
    context = None if variant == "none" else one_hot
    return Network(module, lambda inputs: module(inputs, context).outputs, time_first=False)


def _variant(variant: str, noise: float = NOISE) -> Peer:
    # W * (1 1^T + h h^T) acts on rates as W r + h * (W (h * r)): two recurrent products.
    products = 2 if variant.endswith("-sym") else 1
    name = f"ctxrnn {variant}" + ("" if noise else ", no noise")
    build = partial(_ctxrnn, variant=variant)
    return Peer(name, build, "ctxrnn", noise, own="tanh", recurrent_products=products)


PEERS = (
    Peer("nn.RNN tanh", _rnn, own="tanh", fixed=True),
    Peer("nn.RNN relu", _rnn, own="relu", fixed=True),
    Peer("plain loop", _loop),
    Peer("nn4n CTRNN, no noise", _nn4n, "nn4n"),
    Peer("nn4n CTRNN", _nn4n, "nn4n", NOISE),
    Peer("NeuralRNN ctrnn, no noise", _neuralrnn, "neuralrnn"),
    Peer("NeuralRNN ctrnn", _neuralrnn, "neuralrnn", NOISE),
    _variant("none", noise=0.0),
    _variant("none"),
    _variant("e-add"),
    _variant("s-sym"),
    _variant("es-add-sym"),
)
