"""Gaussian-kernel smoothing of irregularly spaced observations along time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from perturbflow.dynamics import Trajectory

FloatArray = NDArray[np.float64]

ROWS_AT_ONCE = 1024  # bounds the memory of the kernel matrix
BANDWIDTHS = np.append(np.geomspace(0.002, 1.0, 25), np.inf)  # shares of the time span; the last is the mean


class Observations(NamedTuple):
    """Rows of one or several trajectories: times (n,), levels (n, d) and numbers of cells (n,)."""

    time: FloatArray
    values: FloatArray
    weight: FloatArray


def pool(trajectories: Sequence[Trajectory]) -> Observations:
    """Put the rows of trajectories together."""
    return Observations(
        np.concatenate([one.time for one in trajectories]),
        np.concatenate([one.values for one in trajectories]),
        np.concatenate([one.weight for one in trajectories]),
    )


def local_mean(observed: Observations, at: FloatArray, bandwidth: float, *, of_others: bool = False) -> FloatArray:
    """Weighted means around the times ``at`` (m,), with ``weight exp(-(t - at)^2 / (2 bandwidth^2))`` (m, d).

    With ``of_others`` the times are those of the rows, each of which has the mean of all other rows.
    """
    means = np.empty((len(at), observed.values.shape[1]))
    for start in range(0, len(at), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(at)))
        kernel = _kernel(observed, at[rows], bandwidth, leave_out=rows if of_others else None)
        means[rows] = kernel @ observed.values
    return means


def best_bandwidth(observed: Observations) -> float:
    """Bandwidth whose leave-one-out error is smallest, the mean over genes and, by weight, over rows."""
    options = BANDWIDTHS * np.ptp(observed.time)
    errors = [
        np.average(((means - observed.values) ** 2).mean(axis=1), weights=observed.weight)
        for means in (local_mean(observed, observed.time, h, of_others=True) for h in options)
    ]
    return float(options[np.argmin(errors)])


def local_line(observed: Observations, bandwidth: float) -> tuple[FloatArray, FloatArray]:
    """Levels and slopes (n, d) of the lines fitted around the time of every row with the kernel's weights.

    Where rows are sparse the bandwidth is widened to the distance of the second nearest other row, so that a line is
    always determined and a bandwidth of 0 gives a local finite difference.
    """
    n = len(observed.time)
    level, slope = np.empty_like(observed.values), np.empty_like(observed.values)
    change = observed.values - observed.values[0]  # a gene that does not vary has a slope of exactly 0
    for start in range(0, n, ROWS_AT_ONCE):
        at = observed.time[start : start + ROWS_AT_ONCE]
        offset = observed.time - at[:, None]
        neighbour = np.partition(np.abs(offset), min(2, n - 1), axis=1)[:, min(2, n - 1)]
        kernel = _kernel(observed, at, np.maximum(bandwidth, neighbour))
        mean_offset = (kernel * offset).sum(axis=1, keepdims=True)
        tilted = kernel * (offset - mean_offset)
        rows = slice(start, start + ROWS_AT_ONCE)
        slope[rows] = (tilted @ change) / (tilted * offset).sum(axis=1, keepdims=True)
        level[rows] = observed.values[0] + kernel @ change - slope[rows] * mean_offset
    return level, slope


def _kernel(
    observed: Observations, at: FloatArray, bandwidth: float | FloatArray, leave_out: NDArray[np.intp] | None = None
) -> FloatArray:
    """Weights of the observations (m, n), rows of sum 1; row i leaves out observation ``leave_out[i]``."""
    distance = np.abs(at[:, None] - observed.time)
    own = np.zeros(distance.shape, dtype=bool)
    if leave_out is not None:
        own[np.arange(len(at)), leave_out] = True
    # Relative to the nearest observation, so that small bandwidths do not make all weights underflow.
    nearest = np.where(own, np.inf, distance).min(axis=1, keepdims=True)
    excess = np.where(own, 0.0, (distance - nearest) * (distance + nearest))
    kernel = np.where(own, 0.0, observed.weight * np.exp(-excess / 2 / np.reshape(bandwidth, (-1, 1)) ** 2))
    return kernel / kernel.sum(axis=1, keepdims=True)
