"""Direct effects from interventions: where no gene holds it, the mean rate of a gene is zero in every condition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perturbflow.dynamics._lyapunov import group_threshold, proximal_descent
from perturbflow.dynamics._snapshot import Snapshot

Array = NDArray[np.float64]

N_STEPS = 300
TOLERANCE = 1e-4
SIGNIFICANT = 4.0  # squared standard error, two of them
RIDGE = 0.02  # of the mean variance of regulators
SMALLEST_PART = 0.05  # of what a saturating response adds to a linear one, below which it is noise


class RateMoments:
    r"""Sums of products of what regulators do with levels, over cells within conditions and over means of conditions.

    What a regulator does is its level and, for levels that are never negative, :math:`x^2 / (x^2 + \bar x^2)`, which
    saturates, without its linear part: ``size`` responses, the level first. The mean of a condition counts :math:`\sqrt
    n` times as much as its cells.
    """

    def __init__(self, cells: Snapshot) -> None:
        self.cells = cells
        self.weight = float(np.sqrt(np.median(cells.n_cells[1:]))) if len(cells.names) > 1 else 1.0
        self.features = _responses(cells)
        self.size = self.features.shape[1] // max(len(cells.regulators), 1)
        self.level = _scaled(np.asarray(cells.standard, dtype=np.float64))
        self.rows = [np.flatnonzero(cells.condition == k) for k in range(len(cells.names))]
        self.mean, self.target = (
            np.array([values[rows].mean(axis=0) if len(rows) else np.zeros(values.shape[1]) for rows in self.rows])
            for values in (self.features, self.level)
        )
        deviation = self.features - self.mean[cells.condition]
        self.gram = deviation.T @ deviation
        self.product = deviation.T @ (self.level - self.target[cells.condition])

    def by_target(self) -> Iterator[tuple[NDArray[np.intp], Array, Array]]:
        """Yield targets that the same conditions leave free, the Gram matrix (p, p) and its right-hand sides (targets, p)."""
        held = self.cells.held
        if not len(self.level):
            return
        free = np.flatnonzero(~held.any(axis=0))
        if len(free):
            yield free, *self._of(free, np.ones(len(held), dtype=bool))
        for gene in np.flatnonzero(held.any(axis=0)):
            yield np.array([gene]), *self._of(np.array([gene]), ~held[:, gene])

    def _of(self, targets: NDArray[np.intp], conditions: NDArray[np.bool_]) -> tuple[Array, Array]:
        gram, product = self.gram.copy(), self.product[:, targets].T.copy()
        for k in np.flatnonzero(~conditions):
            deviation = self.features[self.rows[k]] - self.mean[k]
            gram -= deviation.T @ deviation
            product -= (self.level[np.ix_(self.rows[k], targets)] - self.target[k, targets]).T @ deviation
        share = np.where(conditions, self.cells.n_cells, 0).astype(np.float64)
        total = max(share.sum(), 1.0)
        share /= total
        mean, target = self.mean - share @ self.mean, self.target[:, targets] - share @ self.target[:, targets]
        weighted = self.weight * share[:, None] * mean
        return gram / total + weighted.T @ mean, product / total + target.T @ weighted


def _responses(cells: Snapshot) -> Array:
    """Return what every regulator may do to others (n, r * size): its level, and a response that saturates."""
    few = list(cells.regulators)
    level = _scaled(np.asarray(cells.standard[:, few], dtype=np.float64))
    raw = np.asarray(cells.levels[:, few], dtype=np.float64)
    if not raw.size or raw.min() < 0:
        return level
    middle = np.maximum(raw.mean(axis=0), 1e-12)
    saturating = _scaled(raw**2 / (raw**2 + middle**2))
    rest = saturating - level * (level * saturating).mean(axis=0)
    size = np.sqrt((rest**2).mean(axis=0))
    rest = np.where(size > SMALLEST_PART, rest / np.maximum(size, 1e-12), 0.0)
    return np.stack([level, rest], axis=2).reshape(len(level), -1)


def _scaled(values: Array) -> Array:
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    return np.where(spread > 1e-9, centred / np.where(spread > 1e-9, spread, 1.0), 0.0)


def mean_rate_path(cells: Snapshot, strengths: Sequence[float], *, moments: RateMoments | None = None) -> list[Array]:
    r"""Sparse production that balances the decay of every gene (d, d), in cells and in the means of conditions.

    At rest the mean rate of gene i is zero in every condition k that does not hold it, so that its level is :math:`x_i
    = \sum_j g_{ij}(x_j)` in the mean. Each g is a sum of the level and, for levels that are never negative, of
    :math:`x^2 / (x^2 + \bar x^2)`, which saturates. With groups of both,

    .. math::

        \min \tfrac12 \sum_{k: i \notin k} n_k \big( \operatorname{var}_k (x_i - g_i) + \omega
        (\bar x_{ik} - \bar g_{ik})^2 \big) + \lambda \sum_j \|w_{ij}\|,

    :math:`\lambda` in units of the smallest that leaves no edge. Means are known :math:`\sqrt{n}` times better than
    cells, but the equation does not hold that well: the weight :math:`\omega = \sqrt n` is half way.
    """
    few = np.asarray(cells.regulators, dtype=np.intp)
    d = cells.n_genes
    path = [np.zeros((d, d)) for _ in strengths]
    moments = RateMoments(cells) if moments is None else moments
    for targets, gram, product in moments.by_target():
        for found, weights in zip(path, _solve(gram, product, targets, few, moments.size, strengths), strict=True):
            strength = np.linalg.norm(weights, axis=2) * np.where(weights[:, :, 0] < 0, -1.0, 1.0)
            found[np.ix_(targets, few)] = strength
    return path


def mean_rate_correlations(cells: Snapshot, *, moments: RateMoments | None = None) -> Array:
    """Part correlations in the moments that :func:`mean_rate_path` balances (d, d), rows are targets.

    A part correlation is that of a target with what all other regulators leave of a regulator: how sure an effect is,
    where a coefficient says how large. As means of conditions count more than cells, it may exceed 1.
    """
    few = np.asarray(cells.regulators, dtype=np.intp)
    place = np.full(cells.n_genes, -1)
    place[few] = np.arange(len(few))
    found = np.zeros((cells.n_genes, cells.n_genes))
    moments = RateMoments(cells) if moments is None else moments
    for targets, gram, product in moments.by_target():
        inner = gram[:: moments.size, :: moments.size]
        ridge = RIDGE * max(float(np.diag(inner).mean()), 1e-12) if len(few) else 0.0
        inverse = np.linalg.inv(inner + ridge * np.eye(len(few)))
        slope = product[:, :: moments.size] @ inverse
        left = np.tile(np.diag(inverse), (len(targets), 1))
        for row in np.flatnonzero(place[targets] >= 0):  # a regulator does not explain itself
            own = place[targets[row]]
            column = inverse[own]
            slope[row] -= (product[row, :: moments.size] @ column) * column / column[own]
            left[row] -= column**2 / column[own]
        found[np.ix_(targets, few)] = slope / np.sqrt(np.maximum(left, 1e-12))
    found[few, few] = 0.0
    return found


def total_effect_probability(cells: Snapshot) -> Array:
    """Return how sure it is that a gene has any effect on another, direct or not (d, d): what an edge needs.

    With z the difference of means against unperturbed cells over its standard error, ``z^2 / (z^2 + 4)``; the largest
    of the conditions that hold one gene only. For genes that nothing held alone, the mean of the others; 1 without any.
    """
    d = cells.n_genes
    known = np.zeros((d, d))
    measured = np.zeros(d, dtype=bool)
    error = cells.variance / np.maximum(cells.n_cells, 1)[:, None]
    for condition in np.flatnonzero(cells.held.sum(axis=1) == 1):
        source = int(np.flatnonzero(cells.held[condition])[0])
        square = cells.shift[condition] ** 2 / np.maximum(error[condition] + error[0], 1e-12)
        known[:, source] = np.maximum(known[:, source], square / (square + SIGNIFICANT))
        measured[source] = True
    known[:, ~measured] = known[:, measured].mean() if measured.any() else 1.0
    return known


def _solve(
    gram: Array, product: Array, targets: NDArray[np.intp], few: NDArray[np.intp], size: int, strengths: Sequence[float]
) -> list[Array]:
    """Return the coefficients (targets, r, size) of the group lasso for every strength."""
    shape = (len(targets), len(few), size)
    allowed = (targets[:, None] != few)[:, :, None]
    step = 1 / max(np.linalg.eigvalsh(gram)[-1], 1e-12)
    largest = np.linalg.norm(product.reshape(shape) * allowed, axis=2).max(axis=1)[:, None, None]

    def slope(weights: Array) -> Array:
        return (weights.reshape(len(targets), -1) @ gram - product).reshape(shape) * allowed

    weights = np.zeros(shape)
    path = []
    for strength in strengths:
        cut = strength * step * largest
        weights = proximal_descent(
            weights, slope, partial(group_threshold, threshold=cut), step, n_steps=N_STEPS, tolerance=TOLERANCE
        )
        path.append(weights)
    return path
