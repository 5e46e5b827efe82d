"""Solvers of the flow behind one function: Runge-Kutta with given or chosen steps, and a multistep method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

Field: TypeAlias = Callable[[float, Tensor], Tensor]


_SAFETY = 0.9
_LEAST_FACTOR = 0.2
_LARGEST_FACTOR = 10.0
_LARGEST_SHARE = 0.2


def follow_expectation(velocity: Field, x: Tensor, times: Sequence[float]) -> Tensor:
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


@dataclass(frozen=True)
class Tableau:
    """Coefficients of an explicit Runge-Kutta method with S stages."""

    order: int  # order of convergence
    a: tuple[tuple[float, ...], ...]  # weights of the earlier slopes in every stage (rows of 0, 1, ... S - 1)
    b: tuple[float, ...]  # weights of the slopes in the step (S,)
    c: tuple[float, ...]  # time of every stage, in steps (S,)
    error: tuple[float, ...] | None = None  # weights in the estimate of the error (S + 1,), that of the end last


TABLEAUS = {
    "euler": Tableau(1, ((),), (1.0,), (0.0,)),
    "midpoint": Tableau(2, ((), (0.5,)), (0.0, 1.0), (0.0, 0.5)),
    "heun": Tableau(2, ((), (1.0,)), (0.5, 0.5), (0.0, 1.0)),
    "rk4": Tableau(4, ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 0.5, 0.5, 1.0)),
    # Dormand and Prince 1980; Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, table II.5.2.
    "dopri5": Tableau(
        5,
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
        (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    ),
}
MULTISTEP = "multistep"
METHODS = (*TABLEAUS, MULTISTEP)
ADAPTIVE_METHODS = frozenset(name for name, tableau in TABLEAUS.items() if tableau.error is not None)


def integrate(
    velocity: Field,
    x: Tensor,
    *,
    start: float,
    stop: float,
    n_steps: int | None,
    method: str = "midpoint",
    spacing: Literal["uniform", "sine"] = "uniform",
    rtol: float = 1e-3,
    atol: float = 1e-3,
    max_evaluations: int = 1000,
) -> Tensor:
    """Integrate ``dx/dt = velocity(t, x)`` from ``start`` to ``stop``, which may lie before it; returns the last state.

    ``n_steps`` of a method of ``METHODS``, or, if None, steps as long as ``rtol`` and ``atol`` permit ("dopri5"); their
    defaults are far below the spread between cells and far above the rounding of float32. "multistep", see
    :func:`follow_expectation`, is for straight paths between the times 0 and 1 only. "sine" spacing, ``start + (stop -
    start) sin(pi i / (2 n_steps))``, is closer towards the end, where the values of a cell are decided.

    The error of an adaptive step is the root mean square over all cells of ``error / (atol + rtol max(|x|,
    |x_next|))``. Below 1 it is accepted, and the next is ``0.9 error^(-1/5)`` times as long, but between a fifth and
    ten times, not longer after a rejection, and at most a fifth of the whole way: from noise to cells the estimate of a
    longer one can vanish by chance. The first follows Hairer, Norsett and Wanner, Solving Ordinary Differential
    Equations I, section II.4. Raises ValueError for settings that do not fit, RuntimeError beyond ``max_evaluations``
    or if no step is short enough.
    """
    _check(method, n_steps, rtol, atol)
    if n_steps is None:
        return _adaptive(TABLEAUS[method], velocity, x, start, stop, rtol, atol, max_evaluations)
    times = _times(start, stop, n_steps, spacing)
    if method == MULTISTEP:
        if not 0 <= start <= stop <= 1:
            msg = (
                f"Expected increasing times between 0 and 1 for the method {MULTISTEP!r}, found {start:g} to {stop:g}. Use a "
                "Runge-Kutta method."
            )
            raise ValueError(msg)
        return follow_expectation(velocity, x, times) if start < stop else x
    tableau = TABLEAUS[method]
    for t, following in zip(times, times[1:], strict=False):
        step = following - t
        x = _combine(x, step, tableau.b, _slopes(tableau, velocity, t, step, x, velocity(t, x)))
    return x


def _check(method: str, n_steps: int | None, rtol: float, atol: float) -> None:
    if method not in METHODS:
        msg = f"Expected `method` to be one of {sorted(METHODS)}, found {method!r}."
        raise ValueError(msg)
    if n_steps is not None:
        if n_steps < 1:
            msg = f"Expected at least one step, found `n_steps` {n_steps}."
            raise ValueError(msg)
        return
    if method not in ADAPTIVE_METHODS:
        msg = (
            f"Expected `n_steps` for the method {method!r}, which has fixed steps, found None. Give a number of steps, or use "
            'the method "dopri5".'
        )
        raise ValueError(msg)
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not 0 < value < math.inf:
            msg = f"Expected `{name}` to be positive and finite, found {value!r}."
            raise ValueError(msg)


def _times(start: float, stop: float, n_steps: int, spacing: str) -> list[float]:
    if spacing not in ("uniform", "sine"):
        msg = f"Expected `spacing` to be 'uniform' or 'sine', found {spacing!r}."
        raise ValueError(msg)
    shares = [i / n_steps for i in range(n_steps + 1)]
    if spacing == "sine":
        shares = [math.sin(math.pi / 2 * share) for share in shares]
    return [start + (stop - start) * share for share in shares[:-1]] + [stop]


def _combine(x: Tensor, step: float, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """``x + step * (weights . slopes)``."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + (step * weight) * slope
    return x


def _slopes(tableau: Tableau, velocity: Field, t: float, step: float, x: Tensor, first: Tensor) -> list[Tensor]:
    """Slopes of all stages of a step from x at t, of which the first is known."""
    slopes = [first]
    for weights, node in zip(tableau.a[1:], tableau.c[1:], strict=True):
        slopes.append(velocity(t + node * step, _combine(x, step, weights, slopes)))
    return slopes


def _adaptive(
    tableau: Tableau,
    velocity: Field,
    x: Tensor,
    start: float,
    stop: float,
    rtol: float,
    atol: float,
    max_evaluations: int,
) -> Tensor:
    error_weights = tableau.error or ()
    exponent = -1 / tableau.order
    t, span = start, stop - start
    if span == 0:
        return x
    longest = _LARGEST_SHARE * abs(span)
    slope = velocity(t, x)
    step = _first_step(velocity, x, slope, start, span, rtol, atol, exponent)
    n_evaluations, rejected = 2, False
    while True:
        step = math.copysign(min(abs(step), longest), span)
        is_last = abs(step) >= abs(stop - t) * (1 - 1e-9)
        step = stop - t if is_last else step
        if n_evaluations + len(tableau.b) > max_evaluations:
            msg = (
                f"Expected to reach t = {stop:g} within {max_evaluations} evaluations, found t = {t:.6g} after "
                f"{n_evaluations}. Raise `rtol` and `atol`, or `max_evaluations`, or set `n_steps` for fixed "
                "steps."
            )
            raise RuntimeError(msg)
        if t + step == t:
            msg = (
                f"Expected a field that can be integrated to the tolerance, found no step short enough at t = {t:.6g}. Check "
                "that the field is finite there, or raise `rtol` and `atol`."
            )
            raise RuntimeError(msg)
        slopes = _slopes(tableau, velocity, t, step, x, slope)
        following = _combine(x, step, tableau.b, slopes)
        end_slope = velocity(t + step, following)
        n_evaluations += len(tableau.b)
        scale = atol + rtol * x.abs().maximum(following.abs())
        error = _norm(_combine(x.new_zeros(()), step, error_weights, [*slopes, end_slope]) / scale)
        factor = max(_LEAST_FACTOR, _SAFETY * error**exponent) if error > 0 else _LARGEST_FACTOR
        if not error <= 1:  # also if it is not a number
            step *= min(1.0, factor) if math.isfinite(error) else _LEAST_FACTOR
            rejected = True
            continue
        if is_last:
            return following
        t, x, slope = t + step, following, end_slope
        step *= min(1.0 if rejected else _LARGEST_FACTOR, factor)
        rejected = False


def _norm(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def _first_step(
    field: Field, x: Tensor, slope: Tensor, start: float, span: float, rtol: float, atol: float, exponent: float
) -> float:
    """Length of the first step, with its sign."""
    scale = atol + rtol * x.abs()
    size, speed = _norm(x / scale), _norm(slope / scale)
    guess = 0.01 * size / speed if min(size, speed) > 1e-5 else 1e-6
    guess = math.copysign(min(guess, abs(span)), span)
    bend = _norm((field(start + guess, x + guess * slope) - slope) / scale) / abs(guess)
    largest = max(speed, bend)
    refined = (0.01 / largest) ** -exponent if largest > 1e-15 else max(1e-6, abs(guess) * 1e-3)
    if not math.isfinite(refined):
        refined = abs(guess)
    return math.copysign(min(100 * abs(guess), refined, abs(span)), span)
