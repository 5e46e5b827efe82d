"""Direct effects from interventions: where no gene holds it, the mean rate of a gene is zero in every condition."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perturbflow.dynamics._proximal import group_threshold, proximal_descent
from perturbflow.dynamics._snapshot import Snapshot

Array = NDArray[np.float64]

N_STEPS = 300
TOLERANCE = 1e-4
SMALLEST_PART = 0.05  # of what a saturating response adds to a linear one, below which it is noise
SIGNIFICANT = 4.0  # squared standard error, two of them


def mean_rate_path(cells: Snapshot, strengths: Sequence[float]) -> list[Array]:
    r"""Sparse production that balances the decay of every gene, in cells and in the means of conditions.

    At rest the mean rate of gene i is zero in every condition k that does not hold it, so that its level is
    :math:`x_i = \sum_j g_{ij}(x_j)` in the mean. Each g is a sum of the level and, for levels that are never negative,
    of :math:`x^2 / (x^2 + \bar x^2)`, which saturates. With groups of both,

    .. math::

        \min \tfrac12 \sum_{k: i \notin k} n_k \big( \operatorname{var}_k (x_i - g_i) + \omega
        (\bar x_{ik} - \bar g_{ik})^2 \big) + \lambda \sum_j \|w_{ij}\|.

    Means of a condition are known :math:`\sqrt{n}` times better than cells, but the equation does not hold that well; the
    weight :math:`\omega = \sqrt n` is half way between that of a cell and that of its error.

    Parameters
    ----------
    cells
        Cells.
    strengths
        :math:`\lambda` in units of the smallest that leaves no edge, of every gene, descending.

    Returns
    -------
    Signed coefficients (d, d) for every strength, row i has those of the genes that act on i.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> first = np.repeat([0.0, 4.0], 50) + rng.normal(size=100)
    >>> levels = np.column_stack([first, first + rng.normal(size=100)])
    >>> held = np.array([[False, False], [True, False]])
    >>> cells = Snapshot(levels, np.repeat([0, 1], 50), ("control", "A"), held, (0, 1), np.zeros(100, dtype=int))
    >>> bool(mean_rate_path(cells, [0.1])[0][1, 0] > 0.5)  # gene 0, which was held, acts on gene 1
    True
    """
    few = np.asarray(cells.regulators, dtype=np.intp)
    features = _responses(cells)
    n, size = len(features), features.shape[1] // max(len(few), 1)
    weight = np.sqrt(np.median(cells.n_cells[1:])) if len(cells.names) > 1 else 1.0
    moments = _Moments(features, cells, weight)
    d = cells.n_genes
    path = [np.zeros((d, d)) for _ in strengths]
    free = np.flatnonzero(~cells.held.any(axis=0))
    groups = [(free, np.ones(len(cells.names), dtype=bool))]
    groups += [(np.array([gene]), ~cells.held[:, gene]) for gene in np.flatnonzero(cells.held.any(axis=0))]
    for targets, conditions in groups:
        if not len(targets) or not n:
            continue
        gram, product = moments.of(targets, conditions)
        for found, weights in zip(path, _solve(gram, product, targets, few, size, strengths), strict=True):
            strength = np.linalg.norm(weights, axis=2) * np.where(weights[:, :, 0] < 0, -1.0, 1.0)
            found[np.ix_(targets, few)] = strength
    return path


def total_effect_probability(cells: Snapshot) -> Array:
    """How sure it is that a gene has any effect on another, direct or not: what an edge needs.

    With z the difference of means against unperturbed cells over its standard error, ``z^2 / (z^2 + 4)``; the largest of
    the conditions that hold one gene only. For genes that nothing held, the mean of the others.

    Parameters
    ----------
    cells
        Cells.

    Returns
    -------
    Between 0 and 1, (d, d), row i has the genes that act on i.

    Examples
    --------
    >>> import numpy as np
    >>> levels = np.array([[1.0, 2.0], [3.0, 2.5], [0.0, 6.0], [0.1, 8.0]])
    >>> held = np.array([[False, False], [True, False]])
    >>> cells = Snapshot(levels, np.array([0, 0, 1, 1]), ("control", "A"), held, (0, 1), np.zeros(4, dtype=int))
    >>> total_effect_probability(cells)[1, 0].round(2)
    np.float64(0.9)
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
    if measured.any():
        known[:, ~measured] = known[:, measured].mean()
    return known


def _responses(cells: Snapshot) -> Array:
    """Return what every regulator may do to others (n, r * size): its level, and a response that saturates."""
    few = list(cells.regulators)
    level = np.asarray(cells.standard[:, few], dtype=np.float64)
    level = _scaled(level)
    raw = np.asarray(cells.levels[:, few], dtype=np.float64)
    if not len(few) or raw.min() < 0:
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


class _Moments:
    """Sums of products of responses and levels, of the conditions that are asked for."""

    def __init__(self, features: Array, cells: Snapshot, weight: float) -> None:
        self.cells, self.weight = cells, weight
        self.level = _scaled(np.asarray(cells.standard, dtype=np.float64))
        self.features = features
        m = len(cells.names)
        self.rows = [np.flatnonzero(cells.condition == k) for k in range(m)]
        self.mean = np.array([features[r].mean(axis=0) if len(r) else np.zeros(features.shape[1]) for r in self.rows])
        self.target = np.array([self.level[r].mean(axis=0) if len(r) else np.zeros(cells.n_genes) for r in self.rows])
        deviation, other = features - self.mean[cells.condition], self.level - self.target[cells.condition]
        self.gram, self.product = deviation.T @ deviation, deviation.T @ other

    def of(self, targets: NDArray[np.intp], conditions: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Return the Gram matrix (p, p) and its right-hand sides (targets, p) of some conditions."""
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
