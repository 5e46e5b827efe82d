"""Moments of cells and of the means of conditions that hold no target: what mean rates are fitted to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from perturbflow.dynamics._snapshot import Snapshot

Array = NDArray[np.float64]

SMALLEST_PART = 0.05  # of what a saturating response adds to a linear one, below which it is noise


class RateMoments:
    r"""Sums of products of what regulators do with levels, over cells within conditions and over means of conditions.

    What a regulator does is its level and, for levels that are never negative, :math:`x^2 / (x^2 + \bar x^2)`, which
    saturates, without its linear part: ``size`` responses, the level first. The mean of a condition counts :math:`\sqrt
    n` times as much as its cells.

    >>> import numpy as np
    >>> levels, none = np.array([[-1.0, -2.0], [1.0, 2.0]]), np.zeros(2, dtype=int)
    >>> cells = Snapshot(levels, none, ("control",), np.zeros((1, 2), dtype=bool), (0,), none)
    >>> [tuple(part.tolist() for part in parts) for parts in RateMoments(cells).by_target()]
    [([0, 1], [[1.0]], [[1.0], [1.0]])]
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
