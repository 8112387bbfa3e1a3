"""The networks that are timed: torch's own, other libraries', a hand-written loop and ctxrnn's.

Each is built as its documentation shows, with its defaults but for sizes, tau, dt and what a
`Setup` names. `_steps.py` makes training steps of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from ctxrnn import CTRNN

INPUTS, OUTPUTS, CONTEXTS = 65, 17, 10
TAU, DT, NOISE = 100.0, 20.0, 0.05


class Setup(NamedTuple):
    """What a network is built for."""

    units: int
    batch: int
    nonlinearity: str
    noise: float
    inputs: int = INPUTS
    outputs: int = OUTPUTS
    seed: int = 0


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
        variant: Pathway variant, for ctxrnn's rows.
        trained: Whether the step is that of `ctxrnn.train` instead of a plain loop in PyTorch.
    """

    name: str
    build: Callable[[Setup], Network]
    package: str = "torch"
    noise: float = 0.0
    own: str = "relu"
    fixed: bool = False
    variant: str = ""
    trained: bool = False

    def nonlinearity(self, wanted: str) -> str:
        """Return the nonlinearity to use where `wanted` is "own", "tanh" or "relu"."""
        return self.own if self.fixed or wanted == "own" else wanted

    def flops(self, batch: int, steps: int, units: int) -> float:
        """Count the matrix products of a step that every network needs, two per multiply-add.

        Forward W r, B u and the readout; backward the gradients of the three matrices, of r and of
        the outputs. What a variant does to its weights is overhead.
        """
        forward = units + INPUTS + OUTPUTS
        backward = forward + units + OUTPUTS
        return 2.0 * batch * steps * units * (forward + backward)


class _RNN(nn.Module):
    """`torch.nn.RNN` with a linear readout."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.rnn = nn.RNN(
            setup.inputs, setup.units, nonlinearity=setup.nonlinearity, batch_first=True
        )
        self.readout = nn.Linear(setup.units, setup.outputs)

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
        self.input2h = nn.Linear(setup.inputs, setup.units)
        self.h2h = nn.Linear(setup.units, setup.units)
        self.readout = nn.Linear(setup.units, setup.outputs)

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
    from nn4n.model import CTRNN  # type: ignore[import-not-found,unused-ignore]

    module = CTRNN(
        dims=[setup.inputs, setup.units, setup.outputs],
        tau=TAU,
        dt=DT,
        preact_noise=setup.noise,
        activation=setup.nonlinearity,
    )
    module.train()  # The constructor leaves the noise off; this call switches it on.
    return Network(module, lambda inputs: module(inputs)[0], time_first=True)


def _neuralrnn(setup: Setup) -> Network:
    from neuralrnn import (  # type: ignore[import-not-found,unused-ignore]
        AutoConfig,
        AutoModel,
    )

    config = AutoConfig.for_model(
        "ctrnn",
        input_dim=setup.inputs,
        latent_dim=setup.units,
        output_dim=setup.outputs,
        tau=TAU,
        dt=DT,
        sigma_rec=setup.noise,
        activation=setup.nonlinearity,
    )
    module = AutoModel.from_config(config)
    module.train()
    return Network(module, lambda inputs: module(inputs).outputs, time_first=False)


def contexts_of(batch: int, *, shuffled: bool = False) -> Tensor:
    """Return the context of each trial, one-hot, (trial, context).

    Trials lie sorted by task, as every balanced batch of several tasks has them; or shuffled.
    """
    task = torch.arange(batch) * CONTEXTS // batch
    if shuffled:
        task = task[torch.randperm(batch, generator=torch.Generator().manual_seed(0))]
    return functional.one_hot(task, CONTEXTS).float()


def build_ctxrnn(setup: Setup, variant: str) -> CTRNN:
    """Build ctxrnn's network."""
    from ctxrnn import CTRNN

    return CTRNN(
        inputs=setup.inputs,
        units=setup.units,
        outputs=setup.outputs,
        modulation=variant,
        contexts=CONTEXTS,
        tau=TAU,
        dt=DT,
        noise=setup.noise,
        nonlinearity=setup.nonlinearity,
        seed=setup.seed,
    )


def _ctxrnn(setup: Setup, *, variant: str, shuffled: bool = False) -> Network:
    module = build_ctxrnn(setup, variant)
    context = None if variant == "none" else contexts_of(setup.batch, shuffled=shuffled)
    return Network(module, lambda inputs: module(inputs, context).outputs, time_first=False)


def _variant(variant: str, noise: float = NOISE, *, shuffled: bool = False) -> Peer:
    name = f"ctxrnn {variant}" + ("" if noise else ", no noise")
    name += ", trials in random order" if shuffled else ""
    build = partial(_ctxrnn, variant=variant, shuffled=shuffled)
    return Peer(name, build, "ctxrnn", noise, own="tanh", variant=variant)


def _trained(peer: Peer) -> Peer:
    return replace(peer, name=f"{peer.name}, train()", trained=True)


VARIANTS = (
    _variant("none", noise=0.0),
    _variant("none"),
    _variant("e-add"),
    _variant("s-sym"),
    _variant("es-add-sym"),
)
PEERS = (
    Peer("nn.RNN tanh", _rnn, own="tanh", fixed=True),
    Peer("nn.RNN relu", _rnn, own="relu", fixed=True),
    Peer("plain loop", _loop),
    Peer("nn4n CTRNN, no noise", _nn4n, "nn4n"),
    Peer("nn4n CTRNN", _nn4n, "nn4n", NOISE),
    Peer("NeuralRNN ctrnn, no noise", _neuralrnn, "neuralrnn"),
    Peer("NeuralRNN ctrnn", _neuralrnn, "neuralrnn", NOISE),
    *VARIANTS,
    _variant("s-sym", shuffled=True),
    *(_trained(peer) for peer in VARIANTS),
)
