"""Fitting linear dynamics at rest to cells of a snapshot, and their responses to perturbations that are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from perturbflow.dynamics._lyapunov import lyapunov_path, lyapunov_residual
from perturbflow.dynamics._snapshot import Snapshot, centre_groups, correlations
from perturbflow.dynamics._standing import StandingDynamics, mean_at_rest

Array = NDArray[np.float64]

RIDGE_STRENGTHS = tuple(np.geomspace(0.03, 30.0, 7))
FEWEST_GENES = 3  # that were held, to choose with
MAX_FOLDS = 10
MOST_FEEDBACK = 0.95  # real part of an eigenvalue of W; at 1 there is no state of rest
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
    unperturbed = np.asarray(cells.standard[cells.condition == 0], dtype=np.float64)
    covariance = unperturbed.T @ unperturbed / len(unperturbed)
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


class StandingRidge:
    r"""Ridge regressions of levels of cells on those of the regulators, of which none explains itself.

    Of a target, all cells count in which it is not held: their deviations from the mean of their condition and context,
    and the means of these conditions, each as much as it has cells. Levels are about unperturbed means, so that there
    is no intercept but, where it is asked for, a shift :math:`\delta` of all perturbed conditions.
    """

    def __init__(self, cells: Snapshot) -> None:
        self.cells, self.few = cells, np.asarray(cells.regulators, dtype=np.intp)
        self.place = np.full(cells.n_genes, -1)
        self.place[self.few] = np.arange(len(self.few))
        patterns, pattern_of = np.unique(cells.held, axis=1, return_inverse=True)
        deviation = np.array(cells.standard)
        centre_groups(deviation, cells)
        gram = (deviation[:, self.few].T @ deviation).astype(np.float64)
        self.parts: list[tuple[NDArray[np.intp], NDArray[np.bool_], Array, Array]] = []
        for number, pattern in enumerate(patterns.T):
            targets = np.flatnonzero(np.ravel(pattern_of) == number)
            rows = deviation[pattern[cells.condition]]  # where these targets were held
            inner = gram[:, self.few] - rows[:, self.few].T @ rows[:, self.few]
            outer = gram[:, targets] - rows[:, self.few].T @ rows[:, targets]
            n = max(len(deviation) - len(rows), 1)
            self.parts.append((targets, pattern, inner / n, outer / n))

    def solve(self, conditions: NDArray[np.intp], *, strength: float, shared: bool) -> tuple[Array, Array]:
        r"""Fit to the means of some conditions and to the covariation of cells: W (d, r) and :math:`\delta` (d,).

        The penalty is in units of the variance of an unperturbed gene; :math:`\delta` is 0 where conditions share no
        shift.
        """
        cells, few = self.cells, self.few
        weights, shift = np.zeros((cells.n_genes, len(few))), np.zeros(cells.n_genes)
        for targets, pattern, inner, outer in self.parts:
            free = conditions[~pattern[conditions]]
            share = cells.n_cells[free] / max(cells.n_cells[~pattern].sum(), 1)
            means, goal = cells.shift[np.ix_(free, few)], cells.shift[np.ix_(free, targets)]
            centre, level = np.zeros(len(few)), np.zeros(len(targets))
            if shared and share.sum() > 0:
                centre, level = share @ means / share.sum(), share @ goal / share.sum()
            weighted = (share[:, None] * (means - centre)).T
            inverse = np.linalg.inv(inner + weighted @ (means - centre) + strength * np.eye(len(few)))
            found = (outer + weighted @ (goal - level)).T @ inverse
            for row in np.flatnonzero(self.place[targets] >= 0):  # the minimum where its own weight is 0
                own = self.place[targets[row]]
                found[row] -= inverse[own] * found[row, own] / inverse[own, own]
                found[row, own] = 0.0
            weights[targets], shift[targets] = found, level - found @ centre
        return weights, shift

    def best(self, perturbed: NDArray[np.intp]) -> tuple[float, bool]:
        """Choose the penalty, and whether conditions share a shift, that predict genes best that were never held.

        That is by squared error on conditions that held one gene, without all that held it, among choices with a state
        of rest; if none has one, the largest strength.
        """
        folds = self._folds(perturbed)
        choices = list(product(RIDGE_STRENGTHS, (False, True)))
        errors = [self._error(perturbed, folds, strength, shared=shared) for strength, shared in choices]
        return choices[int(np.argmin(errors))] if np.isfinite(errors).any() else (RIDGE_STRENGTHS[-1], False)

    def feedback(self, weights: Array) -> float:
        """Return the largest real part of an eigenvalue of W (d, r) among regulators."""
        return float(np.linalg.eigvals(weights[self.few]).real.max(initial=-np.inf))

    def _folds(self, perturbed: NDArray[np.intp]) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Conditions that are left out together, and those of them that are predicted."""
        held = self.cells.held[perturbed]
        alone = held.sum(axis=1) == 1
        genes = np.flatnonzero(held[alone].any(axis=0))
        if len(genes) < FEWEST_GENES:  # combinations are predicted themselves
            genes, alone = np.flatnonzero(held.any(axis=0)), np.ones(len(held), dtype=bool)
        n_folds = min(MAX_FOLDS, len(genes))
        left = [held[:, genes[first::n_folds]].any(axis=1) for first in range(n_folds)]
        return [(perturbed[rows], perturbed[rows & alone]) for rows in left]

    def _error(
        self,
        perturbed: NDArray[np.intp],
        folds: list[tuple[NDArray[np.intp], NDArray[np.intp]]],
        strength: float,
        *,
        shared: bool,
    ) -> float:
        if self.feedback(self.solve(perturbed, strength=strength, shared=shared)[0]) >= MOST_FEEDBACK:
            return np.inf
        error = 0.0
        for left, asked in folds:
            weights, shift = self.solve(np.setdiff1d(perturbed, left), strength=strength, shared=shared)
            if self.feedback(weights) >= MOST_FEEDBACK:
                return np.inf
            for condition in asked:
                held, measured = self.cells.held[condition], self.cells.shift[condition]
                found = mean_at_rest(weights, self.few, held, measured, shift)
                error += float(((found - measured)[~held] ** 2).mean())
        return error


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
    covariances = [correlations(part.within) for part in parts]
    errors = [
        float((lyapunov_residual(rates, covariances[1])[:, few] ** 2).sum())
        for rates in lyapunov_path(covariances[0], few, LYAPUNOV_STRENGTHS)
    ]
    paths = lyapunov_path(correlations(cells.within), few, LYAPUNOV_STRENGTHS)
    best = int(np.argmin(errors))
    for rates in paths[best::-1]:
        decay = np.minimum(np.diag(rates), -1e-3)
        weights = -(rates - np.diag(np.diag(rates)))[:, few] / decay[:, None]
        if np.linalg.eigvals(weights[few]).real.max(initial=-np.inf) < MOST_FEEDBACK:
            return weights
    return np.zeros((cells.n_genes, len(few)))


def left_out_responses(cells: Snapshot, levels: Sequence[Mapping[int, float]], *, seed: int = 0) -> Array:
    """Simulate interventions by dynamics of which no condition held any of their genes.

    Only left-out responses can be compared between measured perturbations and those that were never made. Genes are
    left out in up to ten groups, and what all perturbations have in common is left out, too.

    Parameters
    ----------
    cells
        Cells at rest.
    levels
        Level of every held gene, by its position, of each intervention.
    seed
        Seed of the fits.

    Returns
    -------
    Changes of means in standard deviations of unperturbed cells (interventions, d); 0 of the held genes.

    Examples
    --------
    Gene 0 drives gene 1, and nobody held it:

    >>> rng = np.random.default_rng(0)
    >>> first = rng.normal(size=400)
    >>> levels = np.column_stack([first, 0.8 * first + 0.6 * rng.normal(size=400)])
    >>> none = np.zeros(400, dtype=int)
    >>> cells = Snapshot(levels, none, ("control",), np.zeros((1, 2), dtype=bool), (0,), none)
    >>> left_out_responses(cells, [{0: -2.0}]).round(1).tolist()
    [[0.0, -1.9]]
    """
    measured = np.flatnonzero(cells.held.any(axis=0))
    fold_of = np.full(cells.n_genes, -1)
    fold_of[measured] = np.arange(len(measured)) % MAX_FOLDS
    folds = [tuple(sorted({int(fold_of[gene]) for gene in each} - {-1})) for each in levels]
    responses = np.zeros((len(levels), cells.n_genes))
    for chosen in sorted(set(folds)):
        model = fit_standing(_without(cells, np.isin(fold_of, chosen)), seed=seed)
        # What all perturbations have in common tells none from another, and is not the same in every group.
        model = replace(model, shared=np.zeros(cells.n_genes))
        for row in (k for k, fold in enumerate(folds) if fold == chosen):
            mean, _ = model.hold(levels[row])
            responses[row] = (mean - model.centre) / model.scale
            responses[row, list(levels[row])] = 0.0
    return responses


def _without(cells: Snapshot, genes: NDArray[np.bool_]) -> Snapshot:
    """The cells of all conditions that hold none of these genes."""
    kept = np.flatnonzero(~(cells.held & genes).any(axis=1))
    number = np.full(len(cells.names), -1)
    number[kept] = np.arange(len(kept))
    some = cells.taken(np.flatnonzero(number[cells.condition] >= 0))
    return replace(
        some,
        condition=number[some.condition],
        names=tuple(cells.names[k] for k in kept),
        held=cells.held[kept],
    )
