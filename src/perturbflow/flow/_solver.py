"""Explicit Runge-Kutta methods with fixed steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True)
class Tableau:
    """Coefficients of an explicit Runge-Kutta method with S stages.

    Parameters
    ----------
    order
        Order of convergence.
    a
        Weights of the earlier slopes in every stage (S rows of 0, 1, ... S - 1).
    b
        Weights of the slopes in the step (S,).
    c
        Time of every stage, in steps (S,).
    """

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]


TABLEAUS = {
    "euler": Tableau(1, ((),), (1.0,), (0.0,)),
    "midpoint": Tableau(2, ((), (0.5,)), (0.0, 1.0), (0.0, 0.5)),
    "heun": Tableau(2, ((), (1.0,)), (0.5, 0.5), (0.0, 1.0)),
    "rk4": Tableau(4, ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 0.5, 0.5, 1.0)),
}


def integrate(
    velocity: Callable[[float, Tensor], Tensor],
    x: Tensor,
    *,
    start: float,
    stop: float,
    n_steps: int,
    method: str = "midpoint",
) -> Tensor:
    """Integrate ``dx/dt = velocity(t, x)`` from ``start`` to ``stop`` in equal steps.

    Parameters
    ----------
    velocity
        Right-hand side; time is a number, the state a tensor.
    x
        State at ``start``, any shape.
    start
        First time.
    stop
        Last time.
    n_steps
        Number of steps; each costs as many evaluations as the method has stages.
    method
        Name of a method in ``TABLEAUS``.

    Returns
    -------
    State at ``stop``.

    Raises
    ------
    ValueError
        If the method is unknown or there is no step.
    """
    if method not in TABLEAUS:
        msg = f"Expected `method` to be one of {sorted(TABLEAUS)}, found {method!r}."
        raise ValueError(msg)
    if n_steps < 1:
        msg = f"Expected at least one step, found `n_steps` {n_steps}."
        raise ValueError(msg)
    tableau = TABLEAUS[method]
    step = (stop - start) / n_steps
    for i in range(n_steps):
        t = start + i * step
        slopes: list[Tensor] = []
        for weights, node in zip(tableau.a, tableau.c, strict=True):
            stage = x
            for weight, slope in zip(weights, slopes, strict=True):
                if weight:
                    stage = stage + (step * weight) * slope
            slopes.append(velocity(t + node * step, stage))
        for weight, slope in zip(tableau.b, slopes, strict=True):
            if weight:
                x = x + (step * weight) * slope
    return x
