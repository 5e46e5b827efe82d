"""Null models of forecasts from observed times: continuations that fit no equation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from perturbflow._checks import check_whole_number

FloatArray = NDArray[np.float64]

Continuation: TypeAlias = "Callable[..., FloatArray]"
"""Takes training series (n_k, d), the observed part of a series (m, d) and a number of steps, predicts these (steps, d)."""


def hold_last(train: Sequence[FloatArray], observed: FloatArray, n_steps: int) -> FloatArray:
    """Predict that a series stays where it was last seen."""
    _check(train, observed, n_steps)
    return np.tile(observed[-1], (n_steps, 1))


def constant_rate(train: Sequence[FloatArray], observed: FloatArray, n_steps: int) -> FloatArray:
    """Predict that a series changes on as it did between its last two times."""
    _check(train, observed, n_steps, least=2)
    return observed[-1] + np.arange(1, n_steps + 1)[:, None] * (observed[-1] - observed[-2])


def observed_mean(train: Sequence[FloatArray], observed: FloatArray, n_steps: int) -> FloatArray:
    """Predict the mean of what was observed of a series; unlike :func:`own_mean` it knows nothing of what is predicted."""
    _check(train, observed, n_steps)
    return np.tile(observed.mean(axis=0), (n_steps, 1))


def repeat_cycle(
    train: Sequence[FloatArray],
    observed: FloatArray,
    n_steps: int,
    *,
    shortest: int = 15,
    overlap: int = 10,
) -> FloatArray:
    """Predict that a series repeats its last cycle.

    The period is the lag L, from ``shortest`` to m - ``overlap``, with the smallest mean squared difference of values that
    are L steps apart; of smooth series neighbouring times are always similar, so that it has to be longer than these. A series
    that is too short for any lag stays where it is, as in :func:`hold_last`.
    """
    _check(train, observed, n_steps)
    check_whole_number(shortest, name="shortest", least=1)
    check_whole_number(overlap, name="overlap", least=1)
    lags = np.arange(shortest, len(observed) - overlap + 1)
    if not len(lags):
        return hold_last(train, observed, n_steps)
    period = int(lags[np.argmin([((observed[lag:] - observed[:-lag]) ** 2).mean() for lag in lags])])
    return observed[len(observed) - period + np.arange(n_steps) % period]


def replay_analogue(
    train: Sequence[FloatArray],
    observed: FloatArray,
    n_steps: int,
    *,
    window: int = 5,
    shifted: bool = False,
) -> FloatArray:
    """Predict what followed the times of the training series that are most similar to the last ``window`` times (Lorenz 1969).

    Only times that are followed by as many as are predicted are compared. With ``shifted``, what followed begins where the
    series was last seen.
    """
    _check(train, observed, n_steps)
    check_whole_number(window, name="window", least=1)
    window = min(window, len(observed))
    long = [series for series in train if len(series) >= window + n_steps]
    if not long:
        msg = (
            f"Expected a training series of {window + n_steps} times, {window} to compare and {n_steps} that follow, found "
            f"none among {len(train)}. Give longer series, or predict fewer steps."
        )
        raise ValueError(msg)
    best, smallest = observed, np.inf
    for series in long:
        windows = np.lib.stride_tricks.sliding_window_view(series[: len(series) - n_steps], window, axis=0)
        error = ((windows - observed[-window:].T) ** 2).mean(axis=(1, 2))
        at = int(error.argmin())
        if error[at] < smallest:
            smallest, best = error[at], series[at + window - 1 : at + window + n_steps]
    return best[1:] + (observed[-1] - best[0]) if shifted else best[1:].copy()


CONTINUATIONS: Mapping[str, Continuation] = MappingProxyType(
    {
        "hold last": hold_last,
        "constant rate": constant_rate,
        "observed mean": observed_mean,
        "repeat cycle": repeat_cycle,
        "replay analogue": replay_analogue,
    }
)
"""Continuations by name, a read-only view."""


def _check(train: Sequence[FloatArray], observed: FloatArray, n_steps: int, *, least: int = 1) -> None:
    check_whole_number(n_steps, name="n_steps", least=1)
    if observed.ndim != 2 or len(observed) < least:
        msg = f"Expected `observed` to have {least} or more rows, times by genes, found shape {observed.shape}."
        raise ValueError(msg)
    for series in [*train, observed]:
        if series.ndim != 2 or series.shape[1] != observed.shape[1]:
            msg = f"Expected series of {observed.shape[1]} genes, as in `observed`, found one of shape {series.shape}."
            raise ValueError(msg)
        if not np.isfinite(series).all():
            msg = "Expected finite values in all series, found NaN or infinity. Leave these times out, or fill them."
            raise ValueError(msg)
