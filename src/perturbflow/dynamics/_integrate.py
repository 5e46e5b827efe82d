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
    """Return the state (B, n_state) after a classical Runge–Kutta step of order 4, of length (B, 1)."""
    k1 = derivative(state)
    k2 = derivative(state + step / 2 * k1)
    k3 = derivative(state + step / 2 * k2)
    k4 = derivative(state + step * k3)
    return state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def solve_rk4(derivative: Derivative, start: Tensor, times: Tensor, *, max_step: float) -> Tensor:
    """Solve from starts (B, n_state) along their own times (B, n) with fixed-step RK4: states (B, n, n_state).

    Equal times, padding, repeat the state. An interval is divided evenly into as many steps as the longest of the batch
    needs.
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
