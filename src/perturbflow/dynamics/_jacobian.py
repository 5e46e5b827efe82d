"""Jacobian of a fitted field, averaged over data: how genes act on each other."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perturbflow.dynamics._field import VectorField

_ONE_AT_A_TIME = threading.Lock()  # torch has one level of forward-mode differentiation for all threads


@dataclass(frozen=True)
class MeanJacobian:
    """Averages over states of the derivatives of rates by inputs, all of shape (K, n_inputs).

    Attributes
    ----------
    mean
        Mean of the derivative.
    magnitude
        Mean of its absolute value.

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> found = pf.dynamics.MeanJacobian(mean=torch.tensor([[-0.5]]), magnitude=torch.tensor([[2.0]]))
    >>> found.signed  # strong, and negative more often than not
    tensor([[-2.]])
    """

    mean: Tensor
    magnitude: Tensor

    @property
    def signed(self) -> Tensor:
        """Mean absolute value with the sign of the mean."""
        return torch.sign(self.mean) * self.magnitude


def mean_jacobian(field: VectorField, states: Tensor, weights: Sequence[Tensor] | None = None) -> MeanJacobian:
    """Average the Jacobian of the rates of all targets by all inputs over states, without a gene's own decay.

    One forward-mode product an input: memory does not grow with the number of inputs.
    """
    used = tuple(w.detach() for w in (field.weights() if weights is None else weights))
    means, magnitudes = [], []
    with torch.no_grad():
        for position in field.inputs.tolist():
            direction = torch.zeros_like(states)
            direction[:, position] = 1.0
            slope = _slope(lambda s: field.highest_rates(s, used), states, direction)
            if field.config.decay:
                own = (field.targets == position).to(slope.dtype)
                slope = slope + own * field.decay_rates()
            means.append(slope.mean(dim=0))
            magnitudes.append(slope.abs().mean(dim=0))
    return MeanJacobian(mean=torch.stack(means, dim=1), magnitude=torch.stack(magnitudes, dim=1))


def _slope(function: Callable[[Tensor], Tensor], states: Tensor, direction: Tensor) -> Tensor:
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        # The first forward-mode product makes torch load decompositions in a way that it has deprecated itself.
        warnings.filterwarnings("ignore", "`torch.jit")
        return torch.func.jvp(function, (states,), (direction,))[1]
