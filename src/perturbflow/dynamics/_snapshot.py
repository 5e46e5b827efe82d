"""Cells without a time: their levels, and which genes were held in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Cells of several conditions at rest, of which the first is unperturbed.

    Parameters
    ----------
    levels
        Levels (n, d), any float type.
    condition
        Number of the condition of every cell (n,); 0 without intervention.
    names
        Names of the m conditions.
    held
        Genes that an intervention holds in each (m, d), none in the first.
    regulators
        Positions of the genes that may regulate others.
    context
        Number of the context of every cell (n,), such as its type: only cells of one context are compared.

    Examples
    --------
    >>> levels = np.array([[1.0, 2.0], [3.0, 2.5], [0.0, 6.0], [0.0, 8.0]])
    >>> held = np.array([[False, False], [True, False]])
    >>> cells = Snapshot(levels, np.array([0, 0, 1, 1]), ("control", "A"), held, (0, 1), np.zeros(4, dtype=int))
    >>> cells.shift[1].round(1).tolist()  # of means against unperturbed cells, in their standard deviations
    [-2.0, 19.0]
    """

    levels: NDArray[np.floating]
    condition: NDArray[np.intp]
    names: tuple[str, ...]
    held: NDArray[np.bool_]
    regulators: tuple[int, ...]
    context: NDArray[np.intp]

    @property
    def n_genes(self) -> int:
        """Number of genes d."""
        return self.levels.shape[1]

    @cached_property
    def n_cells(self) -> NDArray[np.intp]:
        """Number of cells of every condition (m,)."""
        return np.bincount(self.condition, minlength=len(self.names))

    @cached_property
    def centre(self) -> Array:
        """Mean of the unperturbed cells of every context (contexts, d)."""
        free = self.condition == 0
        return _means(self.levels[free], self.context[free], n_groups=int(self.context.max()) + 1)

    @cached_property
    def scale(self) -> Array:
        """Standard deviation of every gene among unperturbed cells, within contexts; 1 where it does not vary (d,)."""
        free = self.condition == 0
        difference = self.levels[free] - self.centre[self.context[free]]
        spread = np.sqrt((difference**2).mean(axis=0, dtype=np.float64))
        if (elsewhere := spread <= 1e-9).any():  # silent unless perturbed
            spread[elsewhere] = (self.levels - self.centre[self.context])[:, elsewhere].std(axis=0)
        return np.where(spread > 1e-9, spread, 1.0)

    @cached_property
    def standard(self) -> NDArray[np.floating]:
        """Levels minus the mean of unperturbed cells of their context, in standard deviations (n, d)."""
        kind = self.levels.dtype
        return (self.levels - self.centre.astype(kind)[self.context]) / self.scale.astype(kind)

    @cached_property
    def shift(self) -> Array:
        """Mean standard level of every condition (m, d); 0 without intervention."""
        return _means(self.standard, self.condition, n_groups=len(self.names))

    @cached_property
    def variance(self) -> Array:
        """Variance of standard levels within every condition (m, d)."""
        squares = _means(self.standard.astype(np.float64) ** 2, self.condition, n_groups=len(self.names))
        return np.maximum(squares - self.shift**2, 0.0)

    @cached_property
    def within(self) -> Array:
        """Covariance of standard levels within conditions (d, d)."""
        deviation = self.standard - self.shift[self.condition]
        return np.asarray(deviation.T @ deviation, dtype=np.float64) / len(deviation)

    @cached_property
    def response_covariance(self) -> Array:
        r"""Covariance within conditions of what every gene does (rows) with standard levels (columns), (d, d).

        What a gene does is its level where levels may be negative, else :math:`x^2 / (x^2 + \bar x^2)`, which
        saturates, in standard deviations within conditions.
        """
        if not self.levels.size or self.levels.min() < 0:
            return self.within
        middle = np.maximum(self.levels.mean(axis=0, dtype=np.float64), 1e-12).astype(self.levels.dtype)
        response = self.levels**2
        response /= response + middle**2
        centre_groups(response, self)
        spread = np.sqrt((response**2).mean(axis=0, dtype=np.float64))
        deviation = self.standard - self.shift[self.condition]
        product = np.asarray(response.T @ deviation, dtype=np.float64) / len(deviation)
        return product / np.where(spread > 1e-9, spread, 1.0)[:, None]

    def resampled(self, rng: np.random.Generator) -> Self:
        """Draw half of the cells of every condition, without replacement.

        Parameters
        ----------
        rng
            Random generator.

        Returns
        -------
        The drawn cells.
        """
        order = rng.permutation(len(self.condition))
        order = order[np.argsort(self.condition[order], kind="stable")]
        place = np.arange(len(order)) - np.repeat(np.cumsum(self.n_cells) - self.n_cells, self.n_cells)
        return self.taken(np.sort(order[place < np.repeat((self.n_cells + 1) // 2, self.n_cells)]))

    def scored(self) -> Self:
        """Replace the levels of every gene by normal scores of their ranks: what no monotone scale changes.

        Returns
        -------
        The same cells; equal levels have equal scores.
        """
        scores = np.empty_like(self.levels)
        for gene in range(self.n_genes):
            _, place, count = np.unique(self.levels[:, gene], return_inverse=True, return_counts=True)
            middle = np.cumsum(count) - count / 2
            scores[:, gene] = ndtri(middle / len(place))[place]
        return replace(self, levels=scores)

    def shuffled(self, rng: np.random.Generator) -> Self:
        """Permute every gene among the cells of its context, each on its own: no gene knows of another or of conditions.

        Parameters
        ----------
        rng
            Random generator.

        Returns
        -------
        Cells of the same marginal distributions.
        """
        levels = np.empty_like(self.levels)
        for context in range(int(self.context.max()) + 1):
            rows = np.flatnonzero(self.context == context)
            for gene in range(self.n_genes):
                levels[rows, gene] = self.levels[rng.permutation(rows), gene]
        return replace(self, levels=levels)

    def taken(self, rows: NDArray[np.intp]) -> Self:
        """Take some of the cells.

        Parameters
        ----------
        rows
            Their numbers.

        Returns
        -------
        These cells, of the same conditions.
        """
        return replace(self, levels=self.levels[rows], condition=self.condition[rows], context=self.context[rows])


def _means(values: NDArray[np.floating], groups: NDArray[np.intp], *, n_groups: int) -> Array:
    """Mean of the rows of every group (n_groups, d), 0 for a group without any."""
    total = np.zeros((n_groups, values.shape[1]))
    for group in range(n_groups):
        rows = groups == group
        if rows.any():
            total[group] = values[rows].mean(axis=0, dtype=np.float64)
    return total


def centre_groups(values: NDArray[np.floating], cells: Snapshot) -> None:
    """Take the mean of every condition and context from values of cells (n, ...), in place."""
    groups = cells.condition * len(cells.centre) + cells.context
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        if len(rows):
            values[rows] -= values[rows].mean(axis=0)


def correlations(covariance: Array, *, shrinkage: float = 0.0) -> Array:
    """Return correlations (d, d) moved towards 0 by a share; 1 on the diagonal, also of what does not vary."""
    spread = np.sqrt(np.diag(covariance))
    spread = np.where(spread > 0, spread, 1.0)
    correlation = (1 - shrinkage) * covariance / spread / spread[:, None]
    np.fill_diagonal(correlation, 1.0)
    return correlation
