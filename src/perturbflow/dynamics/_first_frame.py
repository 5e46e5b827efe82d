"""Forecasts from levels at a single time: a mean of solutions through similar states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perturbflow.dynamics._placement import Solutions

Array = NDArray[np.float64]

BANDWIDTHS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # squares, relative to the mean square distance of states
EVERY = 3  # steps of the grid between states
HORIZONS = (1.0, 2.0, 4.0, 8.0)  # units of time after which bandwidths are judged


class Neighbours:
    """States along the solutions, as starts of new trajectories of which only levels are known.

    Solutions through states with similar levels, weighted by a Gaussian kernel, tell rates as far as that is possible.
    The bandwidth forecasts trajectories of the fit, ``runs`` of times since the first and levels, best from solutions
    of others.
    """

    def __init__(self, solutions: Solutions, runs: Sequence[tuple[Array, Array]]) -> None:
        self.solutions = solutions
        places = [
            (k, shift)
            for k, span in enumerate(solutions.span)
            for shift in np.arange(0.0, max(span, solutions.step), EVERY * solutions.step)
        ]
        self.owner = np.array([k for k, _ in places])
        self.shift = np.array([shift for _, shift in places])
        self.states = self._later(0.0)
        self.typical = float(self.states.var(axis=0).sum()) or 1.0
        self.bandwidth = self._choose(runs)

    def _later(self, after: float) -> Array:
        """Return the leading components of all states some time later (n, p)."""
        found = np.empty((len(self.owner), self.solutions.basis.shape[1]))
        for k, curve in enumerate(self.solutions.projected):
            mine = self.owner == k
            found[mine] = curve(self.shift[mine] + after)
        return found

    def _choose(self, runs: Sequence[tuple[Array, Array]]) -> float:
        """Return the bandwidth with the smallest error."""
        later = {after: self._later(after) for after in HORIZONS}
        errors = np.zeros(len(BANDWIDTHS))
        for k, (time, levels) in enumerate(runs):
            others = self.owner != k
            if not others.any():
                continue
            observed = levels @ self.solutions.basis
            for after in HORIZONS:
                rows = np.flatnonzero(time + after <= time[-1])[::EVERY]
                if not len(rows):
                    continue
                target = np.stack([np.interp(time[rows] + after, time, column) for column in observed.T], axis=1)
                square = self._distances(observed[rows])[:, others]
                for at, bandwidth in enumerate(BANDWIDTHS):
                    mean = _kernel(square, bandwidth * self.typical) @ later[after][others]
                    errors[at] += ((mean - target) ** 2).sum()
        return BANDWIDTHS[int(errors.argmin())]

    def _distances(self, observed: Array) -> Array:
        """Return squared distances of the leading components (m, p) from all states (m, n)."""
        return ((observed[:, None] - self.states[None]) ** 2).sum(axis=2)

    def forecast(self, levels: Array, time: Array) -> Array:
        """Return scaled levels (n, d) at times (n,) since the one at which scaled levels (d,) were observed.

        What the levels differ from those of the mean solution stays, as far as such differences are offsets of whole
        trajectories in the fit, and is forgotten otherwise.
        """
        solutions, spread = self.solutions, self.solutions.spread
        weight = _kernel(self._distances(levels[None] @ solutions.basis), self.bandwidth * self.typical)[0]
        at = np.flatnonzero(weight > 1e-4 * weight.max())
        every = np.append(0.0, time)
        mean = sum(weight[i] * solutions.curves[self.owner[i]](self.shift[i] + every) for i in at) / weight[at].sum()
        residual = levels - mean[0]
        return mean[1:] + residual * spread.offset / (spread.offset + spread.noise)


def _kernel(square: Array, bandwidth: float) -> Array:
    """Return weights that sum to 1 along the second axis."""
    weight = np.exp(-(square - square.min(axis=1, keepdims=True)) / (2 * bandwidth))
    return weight / weight.sum(axis=1, keepdims=True)
