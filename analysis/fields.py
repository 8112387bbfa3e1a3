"""Vector fields: a network, or any function, as the autonomous system whose points are sought.

A field has conditions (pairs of a context and a stimulus, both constant in time). It is computed in
float64 from a copy of the network, which is left as it is.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctxrnn import CTRNN, Contexts, Ensemble
from ctxrnn._checks import check_count, check_finite, check_positive
from ctxrnn._kernel import available

from ._solve import newton_steps, solve

Values = Tensor | np.ndarray | Sequence[Any]


class VectorField(ABC):
    """An autonomous system in each of several conditions.

    With the residual R(x), which is zero at fixed points, and the rates 1 / tau of the units,

        dx/dt = R(x) / tau        (continuous)        x <- x + R(x)        (`discrete`)

    Attributes:
        units: N.
        conditions: Number of conditions.
        discrete: Whether it is a map, taken a step at a time.
        step: Duration of a step in ms, if it is a map.
        rates: 1 / tau of the units, (unit,), per ms; of a map 1 / step.
        device: Where it is computed.
        labels: What each condition is, as columns: name -> one value per condition.
        piecewise: Whether R is linear between kinks.
        dtype: Precision, float64 but for what `coarse` returns.

    Example: that of `vector_field`.
    """

    units: int
    conditions: int
    discrete: bool
    step: float
    rates: Tensor
    device: torch.device
    labels: dict[str, list[Any]]
    piecewise: bool = False
    dtype: torch.dtype = torch.float64
    _memory: Tensor | None = None

    @abstractmethod
    def residual(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return R(x), (point, unit).

        Args:
            x: States, (point, unit), float64.
            condition: Number of each state's condition, (point,).
        """

    @abstractmethod
    def jacobian(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return dR/dx, (point, unit, unit), rows by component of R; arguments as `residual`."""

    def solved(self, x: Tensor, condition: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Solve J d = b at every state.

        Args:
            x: States, (point, unit).
            condition: (point,).
            right: b, (point, unit, side).

        Returns:
            d, (point, unit, side), NaN where J is singular; and the norm of what was factorised,
            (point,).
        """
        jacobian = self.jacobian(x, condition)
        return solve(jacobian, right), jacobian.flatten(1).norm(dim=-1)

    def coarse(self) -> VectorField:
        """Return the same field in single precision, where there is one: for following the flow."""
        return self

    def forget(self) -> None:
        """Free the memory that was kept for the next call of `solved`."""
        self._memory = None

    def kinks(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return at which states the Jacobian jumps, (point,); arguments as `residual`."""
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def velocity(self, x: Values, condition: Values | int = 0) -> Tensor:
        """Return dx/dt, (point, unit), per ms; of a map the change of a step over its duration."""
        states, places = self.checked(x, condition)
        return self.residual(states, places) * self.rates

    def linearisation(self, x: Values, condition: Values | int = 0) -> Tensor:
        """Return d(dx/dt)/dx, (point, unit, unit), per ms."""
        states, places = self.checked(x, condition)
        return self.jacobian(states, places) * self.rates[:, None]

    def checked(self, x: Values, condition: Values | int) -> tuple[Tensor, Tensor]:
        """Return states as (point, unit) in float64, and a condition for each.

        Raises:
            ValueError: For a wrong shape, numbers that are not finite, or an unknown condition.
        """
        states = torch.as_tensor(np.asarray(x) if not isinstance(x, Tensor) else x)
        states = states.detach().to(device=self.device, dtype=torch.float64)
        if states.ndim == 1:
            states = states[None]
        if states.ndim != 2 or states.shape[1] != self.units:
            raise ValueError(
                f"states must have shape (point, unit={self.units}): got {tuple(states.shape)}"
            )
        check_finite("states", states, "Leave out those that hold them.")
        places = torch.as_tensor(condition, device=self.device)
        if places.is_floating_point() or places.ndim > 1:
            raise ValueError("condition must be a number, or one number for each state")
        if places.ndim and len(places) != len(states):
            raise ValueError(
                f"condition must be one number for each of {len(states)} states: got {len(places)}"
            )
        if places.numel() and not 0 <= int(places.min()) <= int(places.max()) < self.conditions:
            raise ValueError(
                f"condition must lie between 0 and {self.conditions - 1}: got "
                f"{int(places.min())} to {int(places.max())}"
            )
        return states, places.long().expand(len(states))


def _derivative(function: Callable[[Tensor], Tensor], name: str | None) -> Any:
    """Return the derivative of an elementwise function."""
    known: dict[str | None, Callable[[Tensor], Tensor]] = {
        "tanh": lambda z: 1 - torch.tanh(z) ** 2,
        "relu": lambda z: (z > 0).to(z.dtype),
        "softplus": torch.sigmoid,
        "sigmoid": lambda z: torch.sigmoid(z) * (1 - torch.sigmoid(z)),
    }

    def differentiated(z: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            (found,) = torch.autograd.grad(function(leaf).sum(), leaf)
        return found

    return known.get(name, differentiated)


class NetworkField(VectorField):
    """The vector field of a `CTRNN` in some contexts and with some stimuli, without noise.

    R(x) = -x + W(c) phi(G(c) (x - Theta c)) + B u + b + E c in the current form,
    R(r) = -r + phi(G(c) (W(c) r + B u + b + E c - Theta c)) in the rate form.

    The Jacobian is exact: -1 + W(c) diag(G phi') or -1 + diag(G phi') W(c). At the kink of relu its
    derivative is that from below, 0.

    Args:
        network: The network; it is copied, and neither changed nor kept.
        context: c of each condition, (condition, context) or (context,), or one for each pathway;
            None only for a network without pathways. Filters tau_e, tau_s are at rest: the
            pathways see c itself.
        inputs: u of each condition, (condition, input) or (input,); None is 0. One context is
            combined with several stimuli, and the other way round.

    Raises:
        ValueError: For wrong shapes, contexts or stimuli that vary in time, or numbers that are not
            finite.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import NetworkField
        >>> network = CTRNN(1, 1, 1, "e-gain", contexts=2, tau=100.0, seed=0)
        >>> network.weight.data[:] = 0.5
        >>> network.modulation.pathways[0].Gamma.data[:] = torch.tensor([[0.0, 2.0]])
        >>> field = NetworkField(network, torch.eye(2))  # gain G = 1 in one context, 3 in the other
        >>> field.linearisation([[0.0], [0.0]], [0, 1]).flatten()  # (-1 + 0.5 G) / 100 ms
        tensor([-0.0050,  0.0050], dtype=torch.float64)
    """

    def __init__(
        self,
        network: CTRNN,
        context: Values | Contexts | None = None,
        inputs: Values | None = None,
    ) -> None:
        own = copy.deepcopy(network).to(torch.float64)
        self._set(own, *_conditions(own, context, inputs))

    def _set(self, own: CTRNN, contexts: Contexts | None, stimuli: Tensor) -> None:
        with torch.no_grad():
            circuit = own.circuit(contexts)
            self.units, self.conditions = own.units, len(stimuli)
            self.discrete, self.step, self.device = False, own.dt, own.device
            self.rates = (1 / own.tau.detach()).expand(own.units).clone()
            self._rate_form = own.form == "rate"
            self._phi, self.piecewise = own.phi, own.nonlinearity_name == "relu"
            self._slope = _derivative(own.phi, own.nonlinearity_name)
            self._weight, self._which = _distinct(circuit.dense_weight(), self.conditions)
            current = stimuli @ circuit.input_weight.mT + circuit.current
            self._current = current.expand(self.conditions, -1)
            self._gain, self._threshold = (
                None if value is None else value.expand(self.conditions, -1).contiguous()
                for value in (circuit.gain, circuit.threshold)
            )
        self._given = contexts

    @functools.cached_property
    def labels(self) -> dict[str, list[Any]]:  # type: ignore[override]
        """The contexts, as `vector_field` tells them."""
        return _labels(self._given)

    def coarse(self) -> VectorField:
        """Return the same field in single precision."""
        field = copy.copy(self)
        field.dtype = torch.float32
        for name in ("_weight", "_current", "_gain", "_threshold"):
            value = getattr(self, name)
            setattr(field, name, None if value is None else value.float())
        return field

    def _driven(self, z: Tensor, condition: Tensor) -> Tensor:
        """Return G (z - Theta c)."""
        if self._threshold is not None:
            z = z - self._threshold[condition]
        return z if self._gain is None else self._gain[condition] * z

    def _onto(self, current: Tensor, rates: Tensor, condition: Tensor) -> Tensor:
        """Return W(c) r + current."""
        if len(self._weight) == 1:
            return torch.addmm(current, rates, self._weight[0].mT)
        which = self._which[condition]
        total = current.clone()
        for number in which.unique():
            rows = which == number
            total[rows] += rates[rows] @ self._weight[number].mT
        return total

    def residual(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return R(x); see the class."""
        current = self._current[condition]
        if self._rate_form:
            return self._phi(self._driven(self._onto(current, x, condition), condition)) - x
        return self._onto(current, self._phi(self._driven(x, condition)), condition) - x

    def _slopes(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return G phi', (point, unit)."""
        z = self._onto(self._current[condition], x, condition) if self._rate_form else x
        slope = self._slope(self._driven(z, condition))
        return slope if self._gain is None else slope * self._gain[condition]

    def jacobian(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return dR/dx; see the class."""
        return self._derived(x, condition, None)

    def _derived(self, x: Tensor, condition: Tensor, out: Tensor | None) -> Tensor:
        weight = self._weight[self._which[condition]] if len(self._weight) > 1 else self._weight
        slope = self._slopes(x, condition)
        scale = slope[:, :, None] if self._rate_form else slope[:, None, :]
        found = torch.mul(weight, scale, out=out)
        found.diagonal(dim1=-2, dim2=-1).sub_(1)
        return found

    def solved(self, x: Tensor, condition: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Solve J d = b; of a relu network only the units at work are factorised."""
        if self._weight.device.type == "cpu" and available():
            slope, form = self._slopes(x, condition), "rate" if self._rate_form else "current"
            return newton_steps(self._weight, self._which[condition], slope, right, form)
        # One piece of memory for all calls: to get a new one takes longer than to fill it.
        if self._memory is None or len(self._memory) < len(x):
            self._memory = x.new_empty(len(x), self.units, self.units)
        jacobian = self._derived(x, condition, self._memory[: len(x)])
        return solve(jacobian, right), jacobian.flatten(1).norm(dim=-1)

    def kinks(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return where a unit of a relu network sits at its kink but for rounding, (point,)."""
        if not self.piecewise:
            return super().kinks(x, condition)
        z = self._onto(self._current[condition], x, condition) if self._rate_form else x
        return (self._driven(z, condition).abs() <= 1e-9).any(dim=-1)


class ContextPath:
    """A network along a straight path between two contexts, c(lambda) = (1 - lambda) a + lambda b.

    Call it with lambda for the vector field there; lambda may lie outside [0, 1].

    Args:
        network: The network; it is copied.
        start: a, (context,), or one for each pathway.
        end: b; give one pathway the same context at both ends to move the other alone.
        inputs: u, (input,); None is 0.

    Raises:
        ValueError: For several contexts or stimuli, or a network without contexts.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import ContextPath, find_fixed_points
        >>> network = CTRNN(1, 1, 1, "e-add", contexts=2, seed=0)
        >>> network.weight.data[:] = 2.0
        >>> network.modulation.pathways[0].E.data[:] = torch.tensor([[-1.0, 1.0]])
        >>> path = ContextPath(network, [1.0, 0.0], [0.0, 1.0])
        >>> for share in (0.0, 0.5, 1.0):  # where no context prevails there are two stable points
        ...     points = find_fixed_points(path(share), starts=[[-3.0], [3.0]])
        ...     print(share, points.x[points.stable].round(2).tolist())
        0.0 [[-2.99]]
        0.5 [[-1.92], [1.92]]
        1.0 [[2.99]]
    """

    def __init__(
        self,
        network: CTRNN,
        start: Values | Contexts,
        end: Values | Contexts,
        inputs: Values | None = None,
    ) -> None:
        self._own = copy.deepcopy(network).to(torch.float64)
        ends = [_conditions(self._own, context, inputs) for context in (start, end)]
        if any(len(stimuli) != 1 for _, stimuli in ends):
            raise ValueError("a path runs between two single contexts, with one stimulus")
        (a, self._stimulus), (b, _) = ends
        if a is None or b is None:
            raise ValueError("a path between contexts needs a network with contexts")
        self._ends = a, b

    def __call__(self, parameter: float) -> NetworkField:
        """Return the vector field at lambda."""
        a, b = self._ends
        mixed = Contexts(
            (1 - parameter) * a.excitability + parameter * b.excitability,
            (1 - parameter) * a.synaptic + parameter * b.synaptic,
        )
        field = NetworkField.__new__(NetworkField)
        field._set(self._own, mixed, self._stimulus)
        return field


def _conditions(
    network: CTRNN, context: Values | Contexts | None, inputs: Values | None
) -> tuple[Contexts | None, Tensor]:
    """Check contexts and stimuli; return one of each for every condition."""
    given: list[Tensor] = []
    if context is not None:
        pair = context if isinstance(context, Contexts) else Contexts.of(torch.as_tensor(context))
        for part in (pair.excitability, pair.synaptic):
            given.append(_constant(part, network, network.contexts, "context"))
    stimuli = _constant(
        torch.zeros(network.inputs) if inputs is None else torch.as_tensor(inputs),
        network, network.inputs, "inputs",
    )  # fmt: skip
    count = max([len(stimuli), *(len(part) for part in given)])
    for name, part in (("inputs", stimuli), *(("context", part) for part in given)):
        if len(part) not in (1, count):
            raise ValueError(
                f"contexts and inputs must be one, or one for each of {count} conditions: got "
                f"{len(part)} of {name}"
            )
    stimuli = stimuli.expand(count, -1)
    if not given:
        network.circuit(None)
        return None, stimuli
    excitability, synaptic = (part.expand(count, -1) for part in given)
    return Contexts(excitability, synaptic), stimuli


def _constant(values: Tensor, network: CTRNN, width: int | None, name: str) -> Tensor:
    values = values.detach().to(device=network.device, dtype=torch.float64)
    values = values[None] if values.ndim == 1 else values
    if values.ndim == 3:
        raise ValueError(
            f"{name} must be constant in time: got shape {tuple(values.shape)}, which varies. "
            "A fixed point needs one for each condition; take that of one step, e.g. "
            f"{name}[:, step]"
        )
    if values.ndim != 2 or not len(values) or (width is not None and values.shape[1] != width):
        raise ValueError(
            f"{name} must have shape (condition, {width}) or ({width},): got {tuple(values.shape)}"
        )
    check_finite(name, values, "Give finite numbers.")
    return values


def _distinct(weight: Tensor, conditions: int) -> tuple[Tensor, Tensor]:
    """Return the matrices that differ, (matrix, unit, unit), and which one each condition has."""
    if weight.ndim == 2:
        weight = weight[None]
    if len(weight) == 1:
        return weight.clone(), torch.zeros(conditions, dtype=torch.long, device=weight.device)
    different, which = torch.unique(weight, dim=0, return_inverse=True)
    return different, which.expand(conditions).clone()


def _labels(contexts: Contexts | None) -> dict[str, list[Any]]:
    if contexts is None:
        return {}
    e, s = (part.cpu().numpy() for part in (contexts.excitability, contexts.synaptic))
    pure = (e == np.eye(e.shape[1])[e.argmax(axis=1)]).all(axis=1) & (e == s).all(axis=1)
    return {
        "context": [int(c.argmax()) if one else np.nan for c, one in zip(e, pure, strict=True)],
        "simplex": (_on_simplex(e) & _on_simplex(s)).tolist(),
    }


def _on_simplex(contexts: np.ndarray) -> np.ndarray:
    """Whether each context is a mixture of the pure ones: no negative weight, and a sum of 1."""
    # Mixtures are often given in float32.
    slack = contexts.shape[1] * float(np.finfo(np.float32).eps)
    inside = (contexts >= -slack).all(axis=1) & (np.abs(contexts.sum(axis=1) - 1) <= slack)
    return np.asarray(inside)


class FunctionField(VectorField):
    """The vector field of any function, or of a map.

    Args:
        function: From states (point, unit), float64, to dx/dt per ms, or to the next state if
            `step` is given. It must treat every state by itself. With several conditions it is
            called with (states, condition), condition (point,).
        units: N.
        step: Duration of a step in ms: the function is a map x <- f(x). None: it is dx/dt.
        conditions: Number of conditions.
        jacobian: From the same arguments to the derivative, (point, unit, unit); None has autograd
            find it.
        tau: Time constant in ms that makes dx/dt a residual of the size of x.
        device: Where it is computed.

    Raises:
        ValueError: For sizes below one, times that are not positive, or a function that does not
            return a state for each.

    Example:
        >>> from ctxrnn.analysis import FunctionField, find_fixed_points
        >>> field = FunctionField(lambda x: (x - x**3) / 10, units=1, tau=10.0)  # dx/dt, per ms
        >>> points = find_fixed_points(field, starts=[[-2.0], [2.0]])
        >>> sorted(zip(points.x[:, 0].round(3).tolist(), points.kind))
        [(-1.0, 'stable node'), (0.0, 'unstable node'), (1.0, 'stable node')]
        >>> steps = FunctionField(lambda x: x / 2 + 1, units=1, step=20.0)  # a map, 20 ms a step
        >>> find_fixed_points(steps, starts=[[0.0]]).x.tolist()
        [[2.0]]
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        units: int,
        *,
        step: float | None = None,
        conditions: int = 1,
        jacobian: Callable[..., Tensor] | None = None,
        tau: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        check_count("units", units)
        check_count("conditions", conditions)
        check_positive("tau", tau, "ms")
        if step is not None:
            check_positive("step", step, "ms")
        self.units, self.conditions = units, conditions
        self.discrete, self.step = step is not None, float(step or 0.0)
        self.device = torch.device(device)
        self._function, self._jacobian = function, jacobian
        self._scale = 1.0 if step is not None else float(tau)
        rate = 1 / (float(tau) if step is None else self.step)
        self.rates = torch.full((units,), rate, dtype=torch.float64, device=self.device)
        self.labels = {}

    def _call(self, function: Callable[..., Tensor], x: Tensor, condition: Tensor) -> Tensor:
        found = function(x) if self.conditions == 1 else function(x, condition)
        return torch.as_tensor(found, dtype=torch.float64, device=self.device)

    def _values(self, x: Tensor, condition: Tensor) -> Tensor:
        found = self._call(self._function, x, condition)
        if found.shape != x.shape:
            raise ValueError(
                f"function must return one state for each: got shape {tuple(found.shape)} from "
                f"{tuple(x.shape)}"
            )
        return found - x if self.discrete else found * self._scale

    def residual(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return R(x) = tau f(x), or f(x) - x of a map."""
        with torch.no_grad():
            return self._values(x, condition).detach()

    def jacobian(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return dR/dx, by the function given or by autograd."""
        if self._jacobian is not None:
            with torch.no_grad():
                found = self._call(self._jacobian, x, condition)
            if not self.discrete:
                return found * self._scale
            return found - torch.eye(self.units, dtype=x.dtype, device=x.device)
        return _differentiated(self._values, x, condition)


def _differentiated(function: Callable[..., Tensor], x: Tensor, condition: Tensor) -> Tensor:
    """Differentiate a function of single states: one pass backwards for each component."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        values = function(leaf, condition)
        rows = [
            torch.autograd.grad(values[:, unit].sum(), leaf, retain_graph=True)[0]
            for unit in range(x.shape[1])
        ]
    return torch.stack(rows, dim=1).detach()


def module_field(module: nn.Module, inputs: Values, *, step: float = 1.0) -> FunctionField:
    """Return the map of one step of a torch recurrent layer or cell with constant inputs.

    Layers of several levels have the states of all levels as one, lowest level first; of an LSTM h
    comes first, then c.

    Args:
        module: `nn.RNN`, `nn.GRU`, `nn.LSTM` (in one direction) or their cells; it is copied.
        inputs: u of each condition, (condition, input) or (input,).
        step: Duration of a step in ms.

    Returns:
        The map, whose units are all numbers of the module's state.

    Raises:
        TypeError: For other modules: wrap them in a function and use `FunctionField`.
        ValueError: For two directions, projections, or inputs of a wrong shape.

    Example:
        >>> from torch import nn
        >>> from ctxrnn.analysis import find_fixed_points, module_field
        >>> cell = nn.RNNCell(1, 1, bias=False)
        >>> cell.weight_hh.data[:] = 2.0
        >>> field = module_field(cell, [0.0], step=20.0)  # x <- tanh(2 x), 20 ms a step
        >>> points = find_fixed_points(field, starts=[[-1.0], [1.0]])
        >>> sorted(zip(points.x[:, 0].round(3).tolist(), points.kind))
        [(-0.958, 'stable node'), (0.0, 'unstable node'), (0.958, 'stable node')]
    """
    own: Any = copy.deepcopy(module).to(torch.float64).eval()
    layers = isinstance(own, nn.RNN | nn.GRU | nn.LSTM)
    if not layers and not isinstance(own, nn.RNNCell | nn.GRUCell | nn.LSTMCell):
        raise TypeError(
            "module must be nn.RNN, nn.GRU, nn.LSTM or one of their cells: got "
            f"{type(module).__name__}; wrap it in a function and use FunctionField(function, units)"
        )
    if layers and (own.bidirectional or own.proj_size):
        raise ValueError("module must run in one direction, without projection")
    if layers:
        own.batch_first = False  # One step of many states is given with time first.
    levels = own.num_layers if layers else 1
    width = own.hidden_size
    twice = isinstance(own, nn.LSTM | nn.LSTMCell)
    device = next(own.parameters()).device
    u = torch.as_tensor(inputs).detach().to(device=device, dtype=torch.float64)
    u = u[None] if u.ndim == 1 else u
    if u.ndim != 2 or u.shape[1] != own.input_size or not len(u):
        raise ValueError(
            f"inputs must have shape (condition, {own.input_size}) and be constant in time: got "
            f"{tuple(u.shape)}"
        )
    check_finite("inputs", u, "Give finite numbers.")

    def following(x: Tensor, condition: Tensor | None = None) -> Tensor:
        stimulus = u[condition] if condition is not None else u.expand(len(x), -1)
        parts = x.reshape(len(x), -1, levels, width).permute(1, 2, 0, 3).contiguous()
        if layers:
            state = (parts[0], parts[1]) if twice else parts[0]
            _, after = own(stimulus[None], state)
        else:
            state = (parts[0, 0], parts[1, 0]) if twice else parts[0, 0]
            after = own(stimulus, state)
        pieces = [p if layers else p[None] for p in (after if twice else (after,))]
        return torch.stack(pieces).permute(2, 0, 1, 3).reshape(len(x), -1)

    units = (2 if twice else 1) * levels * width
    return FunctionField(following, units, step=step, conditions=len(u), device=device)


def vector_field(
    system: CTRNN | VectorField | nn.Module,
    context: Values | Contexts | None = None,
    inputs: Values | None = None,
) -> VectorField:
    """Return the vector field of a network, in the conditions given.

    Args:
        system: A `CTRNN` (see `NetworkField`), a torch recurrent layer (`module_field`), or a
            `VectorField`, which has its conditions already.
        context: See `NetworkField`.
        inputs: See `NetworkField`; None is 0.

    Returns:
        The field, with one condition for each context and stimulus.

    Raises:
        TypeError: For another system.
        ValueError: If contexts or inputs do not fit the system.

    Example:
        >>> import torch
        >>> from ctxrnn import CTRNN
        >>> from ctxrnn.analysis import vector_field
        >>> network = CTRNN(1, 2, 1, "e-add", contexts=2, tau=100.0, seed=0)
        >>> network.modulation.pathways[0].E.data[:] = 10 * torch.eye(2)  # a unit for each context
        >>> field = vector_field(network, torch.eye(2))
        >>> field.velocity(torch.zeros(2, 2), [0, 1])  # E c / tau, per ms
        tensor([[0.1000, 0.0000],
                [0.0000, 0.1000]], dtype=torch.float64)
    """
    if isinstance(system, VectorField):
        if context is not None or inputs is not None:
            raise ValueError("a VectorField has its conditions: give context and inputs to it")
        return system
    if isinstance(system, CTRNN):
        return NetworkField(system, context, inputs)
    if isinstance(system, Ensemble):
        raise TypeError(
            "an ensemble has no vector field of its own: give one of its networks, ensemble[0], or "
            "each of those of ensemble.unstack()"
        )
    if isinstance(system, nn.Module):
        if context is not None:
            raise ValueError(f"a {type(system).__name__} has no context: leave it out")
        size = getattr(system, "input_size", 0)
        return module_field(system, torch.zeros(size) if inputs is None else inputs)
    raise TypeError(
        "system must be a CTRNN, a torch recurrent layer or a VectorField: got "
        f"{type(system).__name__}; wrap a function as FunctionField(function, units)"
    )
