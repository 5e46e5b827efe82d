"""Deviations of a trajectory from a solution: Gaussian processes whose variances the observed part tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri

Array = NDArray[np.float64]

OFFSETS = (0.1, 1.0, 10.0)
READOUTS = (0.0, 0.1, 1.0, 10.0)
LENGTHS = (0.25, 0.5)
PASSING = (0.0, 0.1, 1.0)
DURATIONS = (1.0, 4.0)  # of what only fades
MOVING_DURATIONS = (4.0, 16.0)  # of what moves as solutions do
NOISE = 0.1
START = (1, 2, 1, 1, 0)

Choice = tuple[int, ...]


class Deviation(NamedTuple):
    """Expected deviations at the later times (m, d), and the logarithm of the marginal likelihood of what was observed."""

    mean: Array
    evidence: float


class Covariances:
    r"""Covariances of deviations along one solution, of which every trajectory along it has the most likely.

    The deviations of every gene are a Gaussian process along time t and the state z of the solution, of covariance

    .. math:: v\,\bigl(a + b\,e^{-|z - z'|^2 / 2\ell^2} + c\,\rho(t - t')\,e^{-|t - t'| / w} + e\,[t = t']\bigr),

    with a static offset, a readout of the state that differs from that of the fit, so that where solutions recur the
    deviations do, what passes, and noise. What passes only fades, with :math:`\rho = 1`, or moves as solutions do, whose
    autocorrelation is :math:`\rho`, ``correlation`` of lags. The variances a, b, c and lengths are those of a small grid
    that make what was observed most likely, over all genes; the limits are no deviation, an offset, and a trajectory that
    repeats itself. They depend on times (n,), ``later`` ones (m,) and states (n, p), (m, p) alone: what is inverted for
    one residual serves others.
    """

    def __init__(
        self,
        time: Array,
        latent: Array,
        later: Array,
        latent_later: Array,
        *,
        correlation: Callable[[Array], Array] = np.ones_like,
    ) -> None:
        self.n = n = len(time)
        times, states = np.concatenate([time, later]), np.concatenate([latent, latent_later])
        apart = np.abs(times[:, None] - times[None, :n])
        distance = ((states[:, None] - states[None, :n]) ** 2).sum(axis=2)
        distance /= max(latent.var(axis=0).sum(), 1e-12)
        self.same = [np.exp(-distance / (2 * length**2)) for length in LENGTHS]
        self.close = [np.exp(-apart / duration) for duration in DURATIONS]
        moving = correlation(apart)
        self.close += [moving * np.exp(-apart / duration) for duration in MOVING_DURATIONS]
        self.known: dict[Choice, tuple[Array, float]] = {}

    def between(self, rows: slice, at: Choice) -> Array:
        """Return the covariance of deviations at some times and the observed ones, without noise."""
        offset, readout, length, passing, duration = at
        found = np.full_like(self.same[0][rows], OFFSETS[offset])
        if READOUTS[readout]:
            found += READOUTS[readout] * self.same[length][rows]
        if PASSING[passing]:
            found += PASSING[passing] * self.close[duration][rows]
        return found

    def inverse(self, at: Choice) -> tuple[Array, float]:
        """Return the inverse of the covariance of what was observed, with noise, and the logarithm of its determinant."""
        offset, readout, length, passing, duration = at
        # Lengths of what is not there make no difference.
        key = (offset, readout, length if READOUTS[readout] else 0, passing, duration if PASSING[passing] else 0)
        if key not in self.known:
            whole = self.between(slice(self.n), key)
            whole[np.diag_indices(self.n)] += NOISE
            root, _ = dpotrf(whole, lower=True, clean=False)
            half, _ = dpotri(root, lower=True)
            lower = np.tril(half)
            self.known[key] = lower + np.tril(half, -1).T, 2 * float(np.log(np.diag(root)).sum())
        return self.known[key]

    def deviation(self, residual: Array, unit: Array) -> Deviation:
        """Return what is expected after a residual (n, d), with the covariance that makes it most likely; v is ``unit`` (d,)."""
        n, d = residual.shape
        relative = residual / np.sqrt(unit)
        products = relative @ relative.T

        def evidence(at: Choice) -> float:
            inverse, log_determinant = self.inverse(at)
            size = max(float(np.vdot(inverse, products)) / (n * d), 1e-300)
            return -0.5 * d * (n * np.log(size) + log_determinant)

        chosen, best = _climb(evidence, START, tuple(map(len, (OFFSETS, READOUTS, LENGTHS, PASSING, self.close))))
        weights = self.between(slice(n, None), chosen) @ self.inverse(chosen)[0]
        return Deviation(mean=weights @ residual, evidence=best)


def _climb(evidence: Callable[[Choice], float], start: Choice, sizes: Choice) -> tuple[Choice, float]:
    """Return the choice that no change of one of its parts makes better, and its evidence."""
    known = {start: evidence(start)}
    best = start
    while True:
        before = best
        for part, size in enumerate(sizes):
            for value in range(size):
                trial = (*best[:part], value, *best[part + 1 :])
                if trial not in known:
                    known[trial] = evidence(trial)
            best = max(((*best[:part], value, *best[part + 1 :]) for value in range(size)), key=known.__getitem__)
        if best == before:
            return best, known[best]
