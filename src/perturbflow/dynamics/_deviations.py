"""Deviations of a trajectory from a solution: Gaussian processes whose variances the observed part tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky

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


@dataclass(frozen=True)
class Deviation:
    """Result of the fit of the deviations of a trajectory.

    Attributes
    ----------
    mean
        Expected deviations at the later times (m, d).
    evidence
        Logarithm of the marginal likelihood of what was observed.

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> pf.dynamics.Deviation(mean=np.zeros((10, 3)), evidence=-2.0).mean.shape
    (10, 3)
    """

    mean: Array
    evidence: float


def deviations(
    residual: Array,
    time: Array,
    latent: Array,
    later: Array,
    latent_later: Array,
    unit: Array,
    *,
    correlation: Callable[[Array], Array] = np.ones_like,
) -> Deviation:
    r"""Predict how a trajectory will deviate from a solution by how it has deviated so far.

    The deviations of every gene are a Gaussian process along time t and the state z of the solution, of covariance

    .. math:: v\,\bigl(a + b\,e^{-|z - z'|^2 / 2\ell^2} + c\,\rho(t - t')\,e^{-|t - t'| / w} + e\,[t = t']\bigr),

    with a static offset, a readout of the state that differs from that of the fit, so that where solutions recur the
    deviations do, what passes, and noise. What passes only fades, with :math:`\rho = 1`, or moves as solutions do, whose
    autocorrelation is :math:`\rho`. The variances a, b, c and lengths are those of a small grid that make what was
    observed most likely, over all genes; the limits are no deviation, an offset, and a trajectory that repeats itself.

    Parameters
    ----------
    residual
        Deviations at the observed times (n, d).
    time, later
        Observed (n,) and later (m,) times.
    latent, latent_later
        States of the solution then (n, p) and (m, p).
    unit
        Variance that deviations of each gene are relative to, v (d,).
    correlation
        Autocorrelation of solutions as a function of lags; 1 by default.

    Returns
    -------
    The expected deviations, and the evidence.

    Examples
    --------
    >>> import numpy as np
    >>> import perturbflow as pf
    >>> time = np.arange(0.0, 12.0, 0.5)
    >>> state = np.column_stack([np.cos(time), np.sin(time)])
    >>> found = pf.dynamics.deviations(
    ...     3 + np.cos(2 * time[:16, None]), time[:16], state[:16], time[16:], state[16:], np.ones(1)
    ... )
    >>> bool(np.abs(found.mean[:, 0] - 3 - np.cos(2 * time[16:])).max() < 0.3)
    True
    """
    n, d = residual.shape
    times, states = np.concatenate([time, later]), np.concatenate([latent, latent_later])
    apart = np.abs(times[:, None] - times[None, :n])
    distance = ((states[:, None] - states[None, :n]) ** 2).sum(axis=2)
    distance /= max(latent.var(axis=0).sum(), 1e-12)
    relative = residual / np.sqrt(unit)
    products = relative @ relative.T
    same = [np.exp(-distance / (2 * length**2)) for length in LENGTHS]
    close = [np.exp(-apart / duration) for duration in DURATIONS]
    moving = correlation(apart)
    close += [moving * np.exp(-apart / duration) for duration in MOVING_DURATIONS]

    def covariance(at: Choice) -> Array:
        offset, readout, length, passing, duration = at
        return OFFSETS[offset] + READOUTS[readout] * same[length] + PASSING[passing] * close[duration]

    def evidence(at: Choice) -> float:
        root = cholesky(covariance(at)[:n] + NOISE * np.eye(n), lower=True)
        size = max(float(np.trace(cho_solve((root, True), products))) / (n * d), 1e-300)
        return -0.5 * d * (n * np.log(size) + 2 * float(np.log(np.diag(root)).sum()))

    chosen, best = _climb(evidence, START, tuple(map(len, (OFFSETS, READOUTS, LENGTHS, PASSING, close))))
    whole = covariance(chosen)
    weights = np.linalg.solve(whole[:n] + NOISE * np.eye(n), whole[n:].T).T
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
