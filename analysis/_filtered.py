"""Contexts that went through a pathway's filter: after a switch, and with noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ctxrnn import filter_context
from ctxrnn._checks import check_not_negative


def switched_context(
    task: Tensor, other: Tensor, *, delay: float, tau: float, dt: float, steps: int
) -> Tensor:
    """Return what a pathway sees of a context that switches from e_j to e_k.

    The switch comes `delay` ms before the first step. The filter's state there is

        c^v_0 = e_k + (e_j - e_k) exp(-delay / tau)

    and goes on as `ctxrnn.filter_context` has it. With a negative delay the switch comes in the
    trial: c_t = e_j at times t dt < -delay and e_k from then on, and c^v_0 = e_j.

    Args:
        task: e_k, (trial, context).
        other: e_j, (trial, context).
        delay: Time from the switch to the first step in ms.
        tau: Time constant of the filter in ms; 0 for none.
        dt: Time step in ms.
        steps: Number of steps.

    Returns:
        c^v, (trial, time, context), or (trial, context) where it does not vary.

    Raises:
        ValueError: If a time constant is negative, or shapes do not fit.

    Example:
        >>> import torch
        >>> from ctxrnn.analysis import switched_context
        >>> task, other = torch.eye(2)[[0]], torch.eye(2)[[1]]
        >>> switched_context(task, other, delay=0.0, tau=100.0, dt=100.0, steps=3)  # 1, 1/e, 1/e^2
        tensor([[[0.0000, 1.0000],
                 [0.6321, 0.3679],
                 [0.8647, 0.1353]]])
    """
    check_not_negative("tau", tau, "ms")
    if delay >= 0:
        if tau == 0:
            return task
        start = torch.lerp(task, other, math.exp(-delay / tau))
        return filter_context(task, tau, dt, steps=steps, initial=start)
    times = torch.arange(steps, dtype=torch.float64, device=task.device) * dt
    # Rounding must not put a step at the very time of the switch before it.
    after = (times >= -delay - 1e-9 * dt)[None, :, None]
    raw = torch.where(after, task.unsqueeze(1), other.unsqueeze(1))
    return filter_context(raw, tau, dt, initial=other)


def filtered_noise_variance(tau: float, tau_n: float, dt: float) -> float:
    """Return the variance of Ornstein-Uhlenbeck noise of variance 1 behind a context filter.

    With a = exp(-dt / tau_n) and b = exp(-dt / tau),

        (1 - b)^2 / (1 - b^2) (1 + a b) / (1 - a b),

    which tends to tau_n / (tau_n + tau) for small dt.

    Args:
        tau: Time constant of the filter in ms; 0 for none.
        tau_n: Correlation time of the noise in ms; 0 for white noise.
        dt: Time step in ms.

    Returns:
        The variance, in (0, 1].

    Raises:
        ValueError: If a time constant is negative.

    Example:
        >>> from ctxrnn.analysis import filtered_noise_variance
        >>> round(filtered_noise_variance(tau=100.0, tau_n=100.0, dt=1.0), 3)  # 100 / (100 + 100)
        0.5
        >>> filtered_noise_variance(tau=0.0, tau_n=100.0, dt=1.0)  # no filter
        1.0
    """
    a, b = _decay("tau_n", tau_n, dt), _decay("tau", tau, dt)
    return _covariance(a, b, b)


def _decay(name: str, tau: float, dt: float) -> float:
    check_not_negative(name, tau, "ms")
    return math.exp(-dt / tau) if tau > 0 else 0.0


def _covariance(a: float, b: float, d: float) -> float:
    """Return the covariance of two filters' states, which decay by b and d, of the same noise.

    (1 - b)(1 - d) sum_ij b^i d^j a^|i - j|, summed over the smaller index and the difference.
    """
    return (1 - b) * (1 - d) / (1 - b * d) * (1 + a * b / (1 - a * b) + a * d / (1 - a * d))


def context_noise(
    draws: Tensor, *, tau_n: float, tau_e: float, tau_s: float, dt: float
) -> tuple[Tensor, Tensor]:
    """Make Ornstein-Uhlenbeck noise as the two pathways see it, stationary from the first step.

    eta_t = a eta_{t-1} + sqrt(1 - a^2) xi_t with a = exp(-dt / tau_n), which is exact, has
    variance 1; both pathways filter the same eta. Noise and filters start from their joint
    stationary distribution, which is Gaussian: so no run-in is needed.

    Args:
        draws: Independent N(0, 1), (2 + time, trial, context).
        tau_n: Correlation time in ms; 0 for white noise.
        tau_e: Time constant of the excitability filter in ms; 0 for none.
        tau_s: Likewise of the synaptic one.
        dt: Time step in ms.

    Returns:
        The noise behind each filter, (trial, time, context) each.

    Raises:
        ValueError: If a time constant is negative.

    Example:
        >>> import torch
        >>> from ctxrnn.analysis import context_noise
        >>> draws = torch.randn(2 + 10, 20_000, 1, generator=torch.Generator().manual_seed(0))
        >>> seen_e, seen_s = context_noise(draws, tau_n=100.0, tau_e=0.0, tau_s=100.0, dt=10.0)
        >>> round(seen_e.var().item(), 1), round(seen_s.var().item(), 1)  # unfiltered and filtered
        (1.0, 0.5)
    """
    a, b, d = (
        _decay(name, tau, dt)
        for name, tau in (("tau_n", tau_n), ("tau_e", tau_e), ("tau_s", tau_s))
    )
    eta = [draws[2]]
    for xi in draws[3:]:
        eta.append(a * eta[-1] + math.sqrt(1 - a * a) * xi)
    noise = torch.stack(eta, dim=1)
    # Cholesky factor of the covariance of (eta_0, f^e_0, f^s_0), row by row; it may be singular.
    to_e, to_s = (1 - b) / (1 - a * b), (1 - d) / (1 - a * d)
    own_e = math.sqrt(max(0.0, _covariance(a, b, b) - to_e**2))
    start_e = to_e * noise[:, 0] + own_e * draws[0]
    seen_e = filter_context(noise, tau_e, dt, initial=start_e)
    if tau_s == tau_e:
        return seen_e, seen_e
    shared = (_covariance(a, b, d) - to_e * to_s) / own_e if own_e > 1e-9 else 0.0
    own_s = math.sqrt(max(0.0, _covariance(a, d, d) - to_s**2 - shared**2))
    start_s = to_s * noise[:, 0] + shared * draws[0] + own_s * draws[1]
    return seen_e, filter_context(noise, tau_s, dt, initial=start_s)
