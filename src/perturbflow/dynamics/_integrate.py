"""Solutions of ordinary differential equations, with genes that an intervention holds, near what was observed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Derivative = Callable[[Tensor], Tensor]

MARGIN = 0.2  # of half the observed range, within which a field is left as it is
RATE = 3.0  # at which what is beyond comes back, per unit of time


def held(derivative: Derivative, clamped: Tensor) -> Derivative:
    """Return the derivative under an intervention: what is clamped (B, n_state) or (n_state,) does not change."""
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


@dataclass(frozen=True)
class Guard:
    r"""A range of states beyond which a field is taken at its edge, and leads back.

    Within the range the field is what it was. Beyond, at a state x whose nearest one within is c, the rate of change is
    :math:`f(c) - \rho (x - c)`, and in second order the acceleration, with rates v whose nearest are w,
    :math:`f(c, w) - \rho^2 (x - c) - 2\rho (v - w)`: a damped spring with a bounded force, so that no solution grows
    without bounds, whatever the field is.
    """

    low: NDArray[np.float64]  # end of the range of each part of the state (order * d,), scaled
    high: NDArray[np.float64]

    @classmethod
    def of(cls, states: NDArray[np.floating]) -> Guard:
        """Return the guard of observed states, with a margin of a fifth of half their range on both sides."""
        low, high = states.min(axis=0).astype(float), states.max(axis=0).astype(float)
        margin = MARGIN * (high - low) / 2
        return cls(low - margin, high + margin)

    def applied(self, derivative: Derivative, *, order: int = 1) -> Derivative:
        """Return the derivative that leads back from beyond the range."""
        low, high = torch.tensor(self.low), torch.tensor(self.high)

        def guarded(state: Tensor) -> Tensor:
            within = torch.minimum(torch.maximum(state, low.to(state.dtype)), high.to(state.dtype))
            change, beyond = derivative(within), state - within
            if order == 1:
                return change - RATE * beyond
            d = state.shape[1] // 2
            back = RATE**2 * beyond[:, :d] + 2 * RATE * beyond[:, d:]
            return torch.cat([state[:, d:], change[:, d:] - back], dim=1)

        return guarded
