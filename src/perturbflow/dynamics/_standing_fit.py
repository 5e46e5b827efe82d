"""Fitting linear dynamics at rest to cells of a snapshot, with strengths chosen on left-out perturbations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from perturbflow.dynamics._lyapunov import lyapunov_path, lyapunov_residual
from perturbflow.dynamics._snapshot import Snapshot
from perturbflow.dynamics._standing import StandingDynamics
from perturbflow.dynamics._standing_ridge import FEWEST_GENES, MOST_FEEDBACK, StandingRidge

Array = NDArray[np.float64]

LYAPUNOV_STRENGTHS = tuple(np.geomspace(1.0, 1e-2, 10))
LEAST_NOISE = 0.05  # of the variance of a gene
N_ROUNDS = 50
LEAST_SHARE = 1e-3  # of genes that respond, or that do not
SMALLEST_VARIANCE = 1e-4  # of a gene in a condition, in units of that of unperturbed cells


def fit_standing(cells: Snapshot, *, seed: int = 0) -> StandingDynamics:
    r"""Fit what drives every gene at rest.

    With at least three genes held, a ridge regression of every target on the regulators, over all cells in which it is
    not held. Penalty, and whether all perturbed conditions share a shift :math:`\delta`, have the smallest error on
    genes whose conditions are left out. With fewer, W is that of a :func:`lyapunov_path`, at the strength whose
    equation holds best in the other half of the cells.

    Parameters
    ----------
    cells
        Cells.
    seed
        Seed of the halves.

    Returns
    -------
    The dynamics.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> first = rng.normal(size=400)
    >>> levels = np.column_stack([first, 0.8 * first + 0.6 * rng.normal(size=400)])
    >>> none = np.zeros(400, dtype=int)
    >>> cells = Snapshot(levels, none, ("control",), np.zeros((1, 2), dtype=bool), (0,), none)
    >>> fit_standing(cells).weights.round(1).tolist()  # gene 0 drives gene 1
    [[0.0], [1.0]]
    """
    perturbed = np.flatnonzero(cells.held.any(axis=1))
    strength, shared = 0.0, np.zeros(cells.n_genes)
    if cells.held.any(axis=0).sum() >= FEWEST_GENES:
        fit = StandingRidge(cells)
        strength, has_shared = fit.best(perturbed)
        weights, shared = fit.solve(perturbed, strength=strength, shared=has_shared)
    else:
        weights = _balanced(cells, seed)
    few = list(cells.regulators)
    shift, held = cells.shift[perturbed], cells.held[perturbed]
    sampling = cells.variance / np.maximum(cells.n_cells, 1)[:, None]
    response = shift.copy()
    for row, error, free in zip(response, sampling[perturbed] + sampling[0], ~held, strict=True):
        row[free] = shrunken_effects(row[free], error[free])
    offset = np.where(held, 0.0, response - shared - response[:, few] @ weights.T)
    covariance = _unperturbed(cells)
    variance = np.diag(covariance)
    noise = 2 * np.maximum(
        variance - (weights * covariance[:, few]).sum(axis=1), LEAST_NOISE * np.where(variance > 0, variance, 1.0)
    )
    contexts = np.bincount(cells.context, minlength=len(cells.centre)).astype(float)
    plain = StandingDynamics(
        weights=weights,
        regulators=cells.regulators,
        shared=shared,
        held=held,
        shift=shift,
        offset=offset,
        noise=noise,
        stretch=np.zeros(shift.shape),
        shared_stretch=np.zeros(cells.n_genes),
        centre=contexts / contexts.sum() @ cells.centre,
        scale=cells.scale,
        strength=strength,
    )
    stretch = _stretch(plain, cells.variance[perturbed])
    n_free = np.maximum((~held).sum(axis=0), 1)
    return replace(plain, stretch=stretch, shared_stretch=np.where(held, 0.0, stretch).sum(axis=0) / n_free)


def shrunken_effects(effects: Array, error: Array) -> Array:
    """Expected effects (d,) of which an unknown share is zero, given the variance of sampling of each (d,).

    Effects are normal about 0 with one variance, or 0, with one probability: both are found by expectation
    maximisation. Where most genes do not respond, what sampling made of them vanishes; where most do, hardly anything
    changes.
    """
    square, known = effects**2, error > 0
    if not (known & (square > 0)).any():
        return effects
    square, noise = square[known], error[known]
    share, width = 0.5, max(2 * float((square - noise).mean()), float(noise.mean()))
    for _ in range(N_ROUNDS):
        wide = noise + width
        odds = np.log((1 - share) / share) + (np.log(wide / noise) - square / noise + square / wide) / 2
        responds = expit(-odds)
        share = float(np.clip(responds.mean(), LEAST_SHARE, 1 - LEAST_SHARE))
        width = max(float((responds * (square - noise)).sum() / responds.sum()), 1e-3 * float(noise.mean()))
    found = effects.copy()
    found[known] *= responds * width / (width + noise)
    return found


def _stretch(plain: StandingDynamics, variance: Array) -> Array:
    """Logarithm of the spread of every measured condition over the one that held genes explain."""
    usable = np.maximum(variance, SMALLEST_VARIANCE)
    found = np.array(
        [
            np.log(row) / 2 - plain.log_ratio(np.flatnonzero(genes))
            for row, genes in zip(usable, plain.held, strict=True)
        ]
    ).reshape(variance.shape)
    return np.where(plain.held, 0.0, found)


def _balanced(cells: Snapshot, seed: int) -> Array:
    """Return W of the sparse Lyapunov equation that holds best in other cells."""
    few = list(cells.regulators)
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(cells.condition)) % 2 == 0
    parts = [cells.taken(np.flatnonzero(rows)) for rows in (half, ~half)]
    covariances = [_correlation(part) for part in parts]
    errors = [
        float((lyapunov_residual(rates, covariances[1])[:, few] ** 2).sum())
        for rates in lyapunov_path(covariances[0], few, LYAPUNOV_STRENGTHS)
    ]
    paths = lyapunov_path(_correlation(cells), few, LYAPUNOV_STRENGTHS)
    best = int(np.argmin(errors))
    for rates in paths[best::-1]:
        decay = np.minimum(np.diag(rates), -1e-3)
        weights = -(rates - np.diag(np.diag(rates)))[:, few] / decay[:, None]
        if np.linalg.eigvals(weights[few]).real.max(initial=-np.inf) < MOST_FEEDBACK:
            return weights
    return np.zeros((cells.n_genes, len(few)))


def _unperturbed(cells: Snapshot) -> Array:
    """Covariance of the standard levels of unperturbed cells (d, d)."""
    values = np.asarray(cells.standard[cells.condition == 0], dtype=np.float64)
    return values.T @ values / len(values)


def _correlation(cells: Snapshot) -> Array:
    spread = np.sqrt(np.diag(cells.within))
    spread = np.where(spread > 0, spread, 1.0)
    correlation = cells.within / spread / spread[:, None]
    np.fill_diagonal(correlation, 1.0)
    return correlation
