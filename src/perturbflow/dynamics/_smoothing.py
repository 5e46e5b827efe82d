"""Smoothing splines of many genes along one trajectory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from perturbflow.dynamics._trajectory import Trajectory

FloatArray = NDArray[np.float64]

N_PENALTIES = 80
NEARLY_INTERPOLATING = 0.5  # degrees of freedom a time
COST_OF_FREEDOM = 1.4  # Cummins, Filloon and Nychka (2001): plain cross-validation (1) often follows the noise
TOO_CLOSE = 1e-3  # of the mean step: what is closer is one time
ROUNDING = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Smoothed:
    """Smooth curves through the observations of a trajectory.

    Attributes
    ----------
    curve
        Natural cubic spline of all d genes; constant derivative beyond the observed times.
    noise
        Standard deviation of the observations (of one cell) about the curve, shape (d,).
    freedom
        Effective degrees of freedom of each curve, shape (d,).

    Examples
    --------
    >>> import perturbflow as pf
    >>> time = np.linspace(0.0, 6.0, 200)
    >>> noisy = np.sin(time) + np.random.default_rng(0).normal(0.0, 0.1, 200)
    >>> run = pf.dynamics.Trajectory("run", time, noisy[:, None], np.ones(200), np.zeros(1, dtype=bool))
    >>> curve = pf.dynamics.smooth(run)
    >>> at = np.array([1.0, 2.0, 3.0])
    >>> (
    ...     bool(abs(curve(at)[:, 0] - np.sin(at)).max() < 0.1),
    ...     bool(abs(curve.derivative(at)[:, 0] - np.cos(at)).max() < 0.2),
    ... )
    (True, True)
    """

    curve: CubicSpline
    noise: FloatArray
    freedom: FloatArray

    def __call__(self, time: FloatArray) -> FloatArray:
        """Return the levels at some times, shape (..., d)."""
        inside = self._inside(time)
        return self.curve(inside) + self.curve(inside, 1) * np.asarray(time - inside)[..., None]

    def derivative(self, time: FloatArray) -> FloatArray:
        """Return the time derivatives at some times, shape (..., d).

        Parameters
        ----------
        time
            Times, any shape.

        Returns
        -------
        Derivatives, with an axis of genes at the end.
        """
        return self.curve(self._inside(time), 1)

    def _inside(self, time: FloatArray) -> FloatArray:
        # `CubicSpline` itself goes on with the cubic of the last interval.
        return np.clip(time, self.curve.x[0], self.curve.x[-1])


def smooth(trajectory: Trajectory, *, cost_of_freedom: float = COST_OF_FREEDOM) -> Smoothed:
    r"""Fit a natural cubic smoothing spline to every gene, each as smooth as generalised cross-validation asks.

    Minimises :math:`\sum_k w_k (y_k - g(t_k))^2 + \lambda \int g''^2`. One eigendecomposition serves all genes and
    penalties (Demmler and Reinsch, 1975), so the cost is :math:`O(n^3 + n^2 d)`. The penalty of every gene minimises
    :math:`RSS / (n - c \cdot df)^2`. With fewer than five times the curve interpolates. Times closer than a thousandth
    of the mean step count as one.

    Parameters
    ----------
    trajectory
        The observations.
    cost_of_freedom
        What a degree of freedom costs, c.

    Returns
    -------
    The curves, with the noise about them.

    Examples
    --------
    >>> import perturbflow as pf
    >>> time = np.linspace(0.0, 6.0, 200)
    >>> noisy = np.sin(time) + np.random.default_rng(0).normal(0.0, 0.1, 200)
    >>> run = pf.dynamics.Trajectory("run", time, noisy[:, None], np.ones(200), np.zeros(1, dtype=bool))
    >>> curve = pf.dynamics.smooth(run)
    >>> round(float(curve.noise[0]), 1), 5 < float(curve.freedom[0]) < 20  # of 200 observations
    (0.1, True)
    """
    time, y, weight = _apart(trajectory)
    n = len(time)
    if n < 5:
        curve = CubicSpline(time, y, bc_type="natural") if n > 2 else _line(time, y)
        return Smoothed(curve, np.zeros(y.shape[1]), np.full(y.shape[1], float(n)))
    root = np.sqrt(weight / weight.mean())
    eigenvalues, basis = np.linalg.eigh(_roughness(time) / np.outer(root, root))
    # The null space, constants and lines, is known; rounding must not give it roughness.
    eigenvalues = np.where(np.arange(n) < 2, 0.0, np.maximum(eigenvalues, 0.0))
    coefficients = basis.T @ (root[:, None] * y)
    penalties = np.logspace(-3, 3, N_PENALTIES) / np.median(eigenvalues[2:])
    # Up to where nothing but a straight line is left, which takes ever more decades the more times there are.
    decades = max(np.log10(np.median(eigenvalues[2:]) / max(eigenvalues[2], ROUNDING * eigenvalues[-1])), 0.0)
    rougher = penalties[0] * np.logspace(-6, -0.1, N_PENALTIES // 4)
    smoother = penalties[-1] * np.logspace(0, decades, 1 + math.ceil(decades * N_PENALTIES / 6))[1:]
    penalties = np.concatenate([rougher, penalties, smoother])
    removed = 1 - 1 / (1 + penalties[:, None] * eigenvalues)
    rss = removed**2 @ coefficients**2
    freedom = n - removed.sum(axis=1)
    allowed = n - cost_of_freedom * freedom > 0
    gcv = np.full_like(rss, np.inf)
    gcv[allowed] = rss[allowed] / (n - cost_of_freedom * freedom[allowed, None]) ** 2
    best = gcv.argmin(axis=0)
    fitted = basis @ ((1 - removed[best].T) * coefficients) / root[:, None]
    genes = np.arange(y.shape[1])
    noise = np.sqrt(rss[best, genes] / (n - freedom[best]) * weight.mean())
    # Through data without noise, a natural end would bend the curve where a not-a-knot one does not.
    ends = "not-a-knot" if np.median(freedom[best]) > NEARLY_INTERPOLATING * n else "natural"
    return Smoothed(CubicSpline(time, fitted, bc_type=ends), noise, freedom[best])


def _apart(trajectory: Trajectory) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return times, values and weights with what is too close in time averaged: rounding would grow with step^-3."""
    time, weight = trajectory.time, trajectory.weight
    far = np.diff(time) > TOO_CLOSE * (time[-1] - time[0]) / (len(time) - 1)
    if far.all():
        return time, trajectory.values, weight
    first = np.concatenate([[0], 1 + np.flatnonzero(far)])
    total = np.add.reduceat(weight, first)
    time = np.add.reduceat(weight * time, first) / total
    return time, np.add.reduceat(weight[:, None] * trajectory.values, first) / total[:, None], total


def _line(time: FloatArray, y: FloatArray) -> CubicSpline:
    """Return the straight line through two points, as a spline."""
    middle = np.linspace(time[0], time[1], 3)
    return CubicSpline(middle, np.linspace(y[0], y[1], 3), bc_type="natural")


def _roughness(time: FloatArray) -> FloatArray:
    """Return the matrix K with g' K g the integral of the squared second derivative (Green and Silverman, 1994)."""
    n, step = len(time), np.diff(time)
    columns = np.arange(n - 2)
    q = np.zeros((n, n - 2))
    q[columns, columns] = 1 / step[:-1]
    q[columns + 1, columns] = -1 / step[:-1] - 1 / step[1:]
    q[columns + 2, columns] = 1 / step[1:]
    r = np.diag((step[:-1] + step[1:]) / 3) + np.diag(step[1:-1] / 6, 1) + np.diag(step[1:-1] / 6, -1)
    return q @ np.linalg.solve(r, q.T)
