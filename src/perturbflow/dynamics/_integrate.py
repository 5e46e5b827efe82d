"""Solutions of ordinary differential equations, with genes that an intervention holds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Derivative = Callable[[Tensor], Tensor]


def held(derivative: Derivative, clamped: Tensor | None) -> Derivative:
    """Return the derivative under an intervention: what is clamped (B, n_state) or (n_state,) does not change."""
    if clamped is None:
        return derivative
    free = (~clamped).to(torch.get_default_dtype())
    return lambda state: derivative(state) * free.to(state.dtype)


def rk4_step(derivative: Derivative, state: Tensor, step: Tensor) -> Tensor:
    """Return the state (B, n_state) after a classical Runge–Kutta step of order 4; ``step`` has shape (B, 1).

    Parameters
    ----------
    derivative
        Function of states (B, n_state).
    state
        States at the start of the step (B, n_state).
    step
        Length of the step of each (B, 1).

    Returns
    -------
    States at the end of the step.

    Examples
    --------
    One step of 0.1 along ``dx/dt = -x``, which takes 1 to ``exp(-0.1)``:

    >>> import perturbflow as pf
    >>> import torch
    >>> end = pf.dynamics.rk4_step(lambda x: -x, torch.ones(1, 1, dtype=torch.float64), torch.tensor([[0.1]]))
    >>> bool((end - torch.tensor(-0.1).exp()).abs() < 1e-6)
    True
    """
    k1 = derivative(state)
    k2 = derivative(state + step / 2 * k1)
    k3 = derivative(state + step / 2 * k2)
    k4 = derivative(state + step * k3)
    return state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def solve_rk4(derivative: Derivative, start: Tensor, times: Tensor, *, max_step: float) -> Tensor:
    """Solve from every start along its own times with fixed-step RK4, all starts side by side.

    Parameters
    ----------
    derivative
        Function of states (B, n_state).
    start
        States at the first times, shape (B, n_state).
    times
        Times of every solution, ascending; equal times (padding) repeat the state. Shape (B, n).
    max_step
        Largest step; an interval is divided evenly into as many as the longest of the batch needs.

    Returns
    -------
    States at the times, shape (B, n, n_state).

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> start, times = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])  # each has its own times
    >>> pf.dynamics.solve_rk4(lambda x: -x, start, times, max_step=0.1)[..., 0]  # exp(-1) and 2 exp(-2)
    tensor([[1.0000, 0.3679],
            [2.0000, 0.2707]])
    """
    states = [start]
    steps = times.diff(dim=1)
    counts = (steps.amax(dim=0) / max_step).ceil().clamp(min=1).to(torch.long).tolist() if steps.numel() else []
    for interval, count in zip(steps.T, counts, strict=True):
        state = states[-1]
        for _ in range(count):
            state = rk4_step(derivative, state, interval[:, None] / count)
        states.append(state)
    return torch.stack(states, dim=1)
