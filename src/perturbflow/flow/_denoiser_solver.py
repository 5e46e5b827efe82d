"""A multistep method for straight paths that end in cells: one evaluation per step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


def follow_expectation(velocity: Callable[[float, Tensor], Tensor], x: Tensor, times: Sequence[float]) -> Tensor:
    """Follow straight paths from noise to cells by extrapolating the expected end of the path.

    With x_t = (1 - t) x0 + t x1 the velocity is ``(D - x_t) / (1 - t)`` for ``D(t) = E[x1 | x_t]``, which changes far
    more slowly than the velocity. With u = 1 - t and a D that is linear in time, with slope D' since the step before,

    ``x_b = (u_b / u_a) x_a + (1 - u_b / u_a) D_a + (u_a - u_b - u_b log(u_a / u_b)) D'``:

    an exponential Adams-Bashforth method of order 2, as DPM-Solver++(2M) of Lu et al. 2022 (arXiv 2211.01095) is, but
    linear in t instead of in the logarithm of the signal-to-noise ratio, which is infinite at both ends of the path.
    """
    earlier: tuple[float, Tensor] | None = None
    for a, b in zip(times, times[1:], strict=False):
        left, then = 1 - a, 1 - b
        end = x + left * velocity(a, x)
        moved = end + (then / left) * (x - end)
        if earlier is not None:
            slope = (end - earlier[1]) / (a - earlier[0])
            moved = moved + (left - then - (then * math.log(left / then) if then > 0 else 0.0)) * slope
        earlier, x = (a, end), moved
    return x
