"""Solutions that cannot leave what was observed by far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from perturbflow.dynamics._integrate import Derivative

MARGIN = 0.2  # of half the observed range, within which a field is left as it is
RATE = 3.0  # at which what is beyond comes back, per unit of time


@dataclass(frozen=True)
class Guard:
    r"""A range of states beyond which a field is taken at its edge, and leads back.

    Within the range the field is what it was. Beyond, at a state x whose nearest one within is c, the rate of change is
    :math:`f(c) - \rho (x - c)`, and in second order the acceleration, with rates v whose nearest are w,
    :math:`f(c, w) - \rho^2 (x - c) - 2\rho (v - w)`: a damped spring with a bounded force, so that no solution grows
    without bounds, whatever the field is.

    Parameters
    ----------
    low, high
        The range of each part of the state (order * d,), scaled.

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> import torch
    >>> guard = pf.dynamics.Guard.of(np.array([[-1.0], [1.0]]))
    >>> growth = guard.applied(lambda x: x)
    >>> growth(torch.tensor([[0.5], [1.2], [5.0]])).ravel()  # beyond 1.2 the growth is that at 1.2
    tensor([  0.5000,   1.2000, -10.2000])
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, states: NDArray[np.floating]) -> Guard:
        """Return the guard of observed states, with a margin of a fifth of half their range on both sides.

        Parameters
        ----------
        states
            States (n, order * d), scaled.

        Returns
        -------
        The guard.
        """
        low, high = states.min(axis=0).astype(float), states.max(axis=0).astype(float)
        margin = MARGIN * (high - low) / 2
        return cls(low - margin, high + margin)

    def applied(self, derivative: Derivative, *, order: int = 1) -> Derivative:
        """Return the derivative that leads back from beyond the range.

        Parameters
        ----------
        derivative
            Function of states (B, order * d).
        order
            1, or 2 where the second half of the state are the rates of the first.

        Returns
        -------
        The guarded derivative.
        """
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
