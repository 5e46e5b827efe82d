"""Null models of trajectories: predictions that know no dynamics, and continuations that fit no equation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perturbflow._checks import check_whole_number
from perturbflow.baselines._kernel import best_bandwidth, local_mean, pool

if TYPE_CHECKING:
    from perturbflow.dynamics import Trajectory

FloatArray = NDArray[np.float64]

TrajectoryBaseline: TypeAlias = "Callable[..., FloatArray]"
"""Takes training trajectories and a test trajectory, predicts the test trajectory at its times (n, d)."""


def predict_zero(train: Sequence[Trajectory], test: Trajectory) -> FloatArray:
    """Predict 0 for every gene at every time."""
    _check(train, test)
    return np.zeros_like(test.values)


def hold_start(train: Sequence[Trajectory], test: Trajectory, *, n_rows: int = 5) -> FloatArray:
    """Predict that the test trajectory stays where it starts.

    The start is the mean of the first rows, weighted by their cells; it is what every forecast of the test trajectory
    is told. With single cells as rows, the noise of five cells makes this far worse than their mean over all times.
    """
    check_whole_number(n_rows, name="n_rows", least=1)
    _check(train, test)
    level = np.average(test.values[:n_rows], axis=0, weights=test.weight[:n_rows])
    return np.tile(level, (len(test.time), 1))


def training_mean(train: Sequence[Trajectory], test: Trajectory) -> FloatArray:
    """Predict the mean of every gene over the cells of all training trajectories."""
    _check(train, test)
    cells = pool(train)
    return np.tile(np.average(cells.values, axis=0, weights=cells.weight), (len(test.time), 1))


def training_curve(train: Sequence[Trajectory], test: Trajectory, *, bandwidth: float | None = None) -> FloatArray:
    """Predict the smoothed course of the training trajectories, whose times must mean the same in all of them.

    ``sum_k w_k K((t - t_k) / h) x_k / sum_k w_k K((t - t_k) / h)`` over all training rows k with ``w`` cells each, and
    ``K`` the standard normal density (Nadaraya 1964, Watson 1964). An infinite bandwidth h gives :func:`training_mean`, a
    very small one the nearest row. By default it is the one with which the other training rows predict each training row best,
    out of 25 from 0.2 to 100 % of their time span, and infinity.
    """
    _check(train, test, bandwidth)
    cells = pool(train)
    return local_mean(cells, test.time, best_bandwidth(cells) if bandwidth is None else bandwidth)


def own_mean(train: Sequence[Trajectory], test: Trajectory) -> FloatArray:
    """Mean of every gene over the cells of the test trajectory itself, a floor.

    The best constant prediction; to be below it, a prediction has to know how genes change along time.
    """
    _check(train, test)
    return training_mean([test], test)


def leave_one_out_smoother(
    train: Sequence[Trajectory], test: Trajectory, *, bandwidth: float | None = None
) -> FloatArray:
    """Smooth course of the test trajectory itself, at every row from all other rows: the noise floor.

    The kernel smoother of :func:`training_curve`. Its error is the noise of a row, plus what smoothing costs, so no
    prediction of noisy rows can be expected to be far below it.
    """
    _check(train, test, bandwidth)
    cells = pool([test])
    width = best_bandwidth(cells) if bandwidth is None else bandwidth
    return local_mean(cells, cells.time, width, of_others=True)


TRAJECTORY_BASELINES: Mapping[str, TrajectoryBaseline] = MappingProxyType(
    {
        "zero": predict_zero,
        "hold start": hold_start,
        "training mean": training_mean,
        "training curve": training_curve,
    }
)
"""Baselines by name (read-only); of the test trajectory, they use at most the times and the start."""

FLOORS: Mapping[str, TrajectoryBaseline] = MappingProxyType(
    {"own mean": own_mean, "leave-one-out smoother": leave_one_out_smoother}
)
"""Functions of the same form that use the *test values* (read-only): upper bounds rather than competitors."""


def _check(train: Sequence[Trajectory], test: Trajectory, bandwidth: float | None = None) -> None:
    if not train:
        msg = "Expected at least one training trajectory, found none."
        raise ValueError(msg)
    for one in [*train, test]:
        if one.n_genes != test.n_genes:
            msg = f"Expected the {test.n_genes} genes of the test trajectory, found {one.n_genes} in {one.name!r}."
            raise ValueError(msg)
        if not np.isfinite(one.values).all():
            msg = f"Expected finite levels, found NaN or infinity in trajectory {one.name!r}."
            raise ValueError(msg)
    if bandwidth is not None and not bandwidth > 0:
        msg = f"Expected `bandwidth` to be above 0, found {bandwidth!r}."
        raise ValueError(msg)


Continuation: TypeAlias = "Callable[..., FloatArray]"
"""Takes training series (n_k, d), the observed part of a series (m, d) and a number of steps, predicts these (steps, d)."""


def hold_last(train: Sequence[FloatArray], observed: FloatArray, n_steps: int) -> FloatArray:
    """Predict that a series stays where it was last seen."""
    _check_series(train, observed, n_steps)
    return np.tile(observed[-1], (n_steps, 1))


def constant_rate(train: Sequence[FloatArray], observed: FloatArray, n_steps: int) -> FloatArray:
    """Predict that a series changes on as it did between its last two times."""
    _check_series(train, observed, n_steps, least=2)
    return observed[-1] + np.arange(1, n_steps + 1)[:, None] * (observed[-1] - observed[-2])


def observed_mean(train: Sequence[FloatArray], observed: FloatArray, n_steps: int) -> FloatArray:
    """Predict the mean of what was observed of a series; unlike :func:`own_mean` it knows nothing of what is predicted."""
    _check_series(train, observed, n_steps)
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
    _check_series(train, observed, n_steps)
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
    _check_series(train, observed, n_steps)
    check_whole_number(window, name="window", least=1)
    window = min(window, len(observed))
    long = [series for series in train if len(series) >= window + n_steps]
    if not long:
        msg = (
            f"Expected a training series of at least {window + n_steps} times ({window} to compare, {n_steps} to continue), "
            f"found none among {len(train)}. Pass longer series, or predict fewer steps."
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
"""Continuations by name (read-only)."""


def _check_series(train: Sequence[FloatArray], observed: FloatArray, n_steps: int, *, least: int = 1) -> None:
    check_whole_number(n_steps, name="n_steps", least=1)
    if observed.ndim != 2 or len(observed) < least:
        msg = f"Expected `observed` to have shape (times, genes) with at least {least} times, found shape {observed.shape}."
        raise ValueError(msg)
    for series in [*train, observed]:
        if series.ndim != 2 or series.shape[1] != observed.shape[1]:
            msg = f"Expected series of {observed.shape[1]} genes, as in `observed`, found one of shape {series.shape}."
            raise ValueError(msg)
        if not np.isfinite(series).all():
            msg = "Expected finite values in all series, found NaN or infinity. Remove these times, or fill in the values."
            raise ValueError(msg)
