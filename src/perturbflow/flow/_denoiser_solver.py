"""A multistep method for straight paths that end in cells: one evaluation per step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


def follow_expectation(velocity: Callable[[float, Tensor], Tensor], x: Tensor, times: Sequence[float]) -> Tensor:
    r"""Follow straight paths from noise to cells by extrapolating the expected end of the path.

    With x_t = (1 - t) x0 + t x1 the velocity is ``(D - x_t) / (1 - t)`` for the expected end of the path
    ``D(t) = E[x1 | x_t]``, which is ``x_t + (1 - t) v`` and changes far more slowly than the velocity. With
    u = 1 - t, the solution between two times is

    ``x_b = (u_b / u_a) x_a + u_b \int_a^b D(t) / (1 - t)^2 dt``,

    and for a D that is linear in time, with slope D',

    ``x_b = (u_b / u_a) x_a + (1 - u_b / u_a) D_a + (u_a - u_b - u_b log(u_a / u_b)) D'``.

    The slope is that since the step before, 0 in the first step: an exponential Adams-Bashforth method of order 2, as
    DPM-Solver++(2M) of Lu et al. 2022 (arXiv 2211.01095) is, but linear in t instead of in the logarithm of the
    signal-to-noise ratio, which is infinite at both ends of the path.

    Parameters
    ----------
    velocity
        Velocity of the flow; time is a number, the state a tensor.
    x
        State at the first time, any shape.
    times
        Rising times between 0 and 1, both included (n + 1,).

    Returns
    -------
    State at the last time.

    Examples
    --------
    Where every path ends in 3, the expected end does not change, and any steps are exact:

    >>> import perturbflow as pf
    >>> import torch
    >>> noise = torch.tensor([-1.0, 0.0, 1.0])
    >>> pf.flow.follow_expectation(lambda t, x: (3 - x) / (1 - t), noise, [0.0, 0.5, 1.0])
    tensor([3., 3., 3.])
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
