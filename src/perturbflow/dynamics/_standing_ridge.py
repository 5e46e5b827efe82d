"""Ridge regressions of all levels at rest on those of the regulators, with a penalty that predicts genes never held."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from perturbflow.dynamics._snapshot import Snapshot

Array = NDArray[np.float64]

STRENGTHS = tuple(np.geomspace(0.03, 30.0, 7))
FEWEST_GENES = 3  # that were held, to choose with
MAX_FOLDS = 10
MOST_FEEDBACK = 0.95  # real part of an eigenvalue of W; at 1 there is no state of rest


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
        deviation = _within_groups(cells)
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
        choices = list(product(STRENGTHS, (False, True)))
        errors = [self._error(perturbed, folds, strength, shared=shared) for strength, shared in choices]
        return choices[int(np.argmin(errors))] if np.isfinite(errors).any() else (STRENGTHS[-1], False)

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
                found = _rest(weights, shift, self.few, held, measured)
                error += float(((found - measured)[~held] ** 2).mean())
        return error


def _rest(weights: Array, shift: Array, few: NDArray[np.intp], held: NDArray[np.bool_], level: Array) -> Array:
    """Return the mean with held genes at their measured level."""
    mean = np.where(held, level, 0.0)
    free = ~held[few]
    inner = weights[few]
    known = inner[:, ~free] @ mean[few][~free] + shift[few]
    at_rest = mean[few]
    at_rest[free] = np.linalg.solve(np.eye(free.sum()) - inner[np.ix_(free, free)], known[free])
    return np.where(held, mean, weights @ at_rest + shift)


def _within_groups(cells: Snapshot) -> NDArray[np.floating]:
    """Standard levels about the mean of their condition and context (n, d)."""
    deviation = np.array(cells.standard)
    groups = cells.condition * len(cells.centre) + cells.context
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(rows):
            deviation[rows] -= deviation[rows].mean(axis=0)
    return deviation
