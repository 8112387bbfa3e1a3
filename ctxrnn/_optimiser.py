"""Adam on all parameters of a network at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Flat:
    """All trained parameters of a network in one array, and their gradients in another.

    One optimiser step, one norm and one clearing then do for all. The parameters stay what they
    are, as views.

    Attributes:
        values: (parameter,).
        gradient: (parameter,).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = parameters
        self.values = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
        self.gradient = torch.zeros_like(self.values)
        values, gradients = self.parts(self.values), self.parts(self.gradient)
        for name, parameter in parameters.items():
            parameter.data, parameter.grad = values[name], gradients[name]

    def parts(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the parts of such an array by the names of the parameters, as views."""
        sizes = [parameter.numel() for parameter in self._parameters.values()]
        return {
            name: part.view(parameter.shape)
            for (name, parameter), part in zip(
                self._parameters.items(), flat.split(sizes), strict=True
            )
        }

    def release(self) -> None:
        """Give the parameters memory of their own, without gradients."""
        for parameter in self._parameters.values():
            parameter.data, parameter.grad = parameter.detach().clone(), None


class Adam:
    """Adam (Kingma and Ba 2015) on one array; what `torch.optim.Adam` does, with less around it.

    Attributes:
        step: Steps taken.
        mean: Running mean of the gradient.
        square: Running mean of its square.
    """

    beta1, beta2, eps = 0.9, 0.999, 1e-8

    def __init__(self, flat: Flat) -> None:
        self.flat = flat
        self.step = 0
        self.mean, self.square = torch.zeros_like(flat.values), torch.zeros_like(flat.values)

    def take_step(self, rate: float) -> None:
        """Take one step at this learning rate."""
        self.step += 1
        gradient = self.flat.gradient
        self.mean.lerp_(gradient, 1 - self.beta1)
        self.square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        scale = self.square.sqrt().div_(math.sqrt(1 - self.beta2**self.step)).add_(self.eps)
        self.flat.values.addcdiv_(self.mean, scale, value=-rate / (1 - self.beta1**self.step))
