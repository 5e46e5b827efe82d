"""Null models of trajectories: predictions that know no dynamics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perturbflow._checks import check_whole_number
from perturbflow.baselines._kernel import best_bandwidth, local_mean, local_mean_of_others, pool

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
    return _constant(np.average(test.values[:n_rows], axis=0, weights=test.weight[:n_rows]), test)


def training_mean(train: Sequence[Trajectory], test: Trajectory) -> FloatArray:
    """Predict the mean of every gene over the cells of all training trajectories."""
    _check(train, test)
    cells = pool(train)
    return _constant(np.average(cells.values, axis=0, weights=cells.weight), test)


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
    return local_mean_of_others(cells, best_bandwidth(cells) if bandwidth is None else bandwidth)


TRAJECTORY_BASELINES: Mapping[str, TrajectoryBaseline] = MappingProxyType(
    {
        "zero": predict_zero,
        "hold start": hold_start,
        "training mean": training_mean,
        "training curve": training_curve,
    }
)
"""Fair predictions by name, a read-only view: of the test trajectory they know the times and the start at most."""

FLOORS: Mapping[str, TrajectoryBaseline] = MappingProxyType(
    {"own mean": own_mean, "leave-one-out smoother": leave_one_out_smoother}
)
"""Functions of the same form that read the *test values*, by name: what is left to gain, not something to beat."""


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


def _constant(level: FloatArray, test: Trajectory) -> FloatArray:
    return np.tile(level, (len(test.time), 1))
