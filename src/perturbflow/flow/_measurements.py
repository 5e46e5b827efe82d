"""Measured effects of groups of cells, which components at which doses they are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_VALUES_AT_ONCE = 4_000_000


def members(groups: NDArray[np.integer], number: int) -> sparse.csr_matrix:
    """Which of N rows are of which group, as a matrix (number, N) that sums over them."""
    n = len(groups)
    return sparse.csr_matrix((np.ones(n), (groups, np.arange(n))), shape=(number, n))


def alone(design: sparse.csr_matrix) -> tuple[NDArray[np.intp], NDArray[np.integer]]:
    """Groups of one whole level and no other, ascending, and these levels (n,)."""
    groups = np.flatnonzero(np.diff(design.indptr) == 1)
    groups = groups[design.data[design.indptr[groups]] == 1]
    return groups, design.indices[design.indptr[groups]]


@dataclass(frozen=True, eq=False)
class Measurements:
    """Measured effects of g groups of cells on G genes, and which components they are of.

    Effects and variances, of less than seven digits by their nature, are the largest arrays of a fit: they are stored
    in single and computed with in double precision.
    """

    design: sparse.csr_matrix  # weight of every dose level in every group (g, L), CSR
    levels: NDArray[np.int64]  # component of every level (L,), ascending; within one the doses ascend
    which: NDArray[np.int64]  # context of every group (g,)
    effects: NDArray[np.float32]  # measured (g, G)
    variances: NDArray[np.float32]  # of sampling (g, G)
    lowest: NDArray[np.float64]  # effects that take a gene to the ends of its range, by context (C, G)
    highest: NDArray[np.float64]  # what lies beyond looks the same
    strata: NDArray[np.intp]  # genes that are expressed as much (G,): how large effects are is learned in each
    scales: Sequence[float]  # candidate standard deviations of true effects

    @property
    def n_components(self) -> int:
        """Number of components P."""
        return int(self.levels.max()) + 1 if len(self.levels) else 0

    @cached_property
    def columns(self) -> sparse.csc_matrix:
        """The design by levels (g, L)."""
        return sparse.csc_matrix(self.design)

    @cached_property
    def amount(self) -> NDArray[np.float64]:
        """Weight of all levels of a group together (g,)."""
        return np.asarray(self.design.sum(axis=1)).ravel()

    @cached_property
    def is_seen(self) -> NDArray[np.bool_]:
        """Return whether there are groups of a level (L,)."""
        return np.diff(self.columns.indptr) > 0

    @cached_property
    def seen(self) -> NDArray[np.intp]:
        """Levels of which there are groups."""
        return np.flatnonzero(self.is_seen)

    @cached_property
    def trained(self) -> NDArray[np.bool_]:
        """Components of which there are groups (P,)."""
        return np.bincount(self.levels[self.seen], minlength=self.n_components) > 0

    @cached_property
    def n_active(self) -> NDArray[np.intp]:
        """Number of components of every group (g,)."""
        component = self.levels[self.design.indices]
        row = np.repeat(np.arange(self.design.shape[0]), np.diff(self.design.indptr))
        # Levels ascend with their components, so that those of a component follow each other in a row.
        is_first = np.append(True, (np.diff(component) != 0) | (np.diff(row) != 0))[: len(row)]
        return np.bincount(row[is_first], minlength=self.design.shape[0])

    def of_level(self, level: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Groups with a level and its weights in them, as a column (n,), (n, 1)."""
        own = slice(*self.columns.indptr[level : level + 2])
        return self.columns.indices[own], self.columns.data[own, None]

    def per_unit(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Effects and variances as those of weights of 1 together (g, G)."""
        if (self.amount == 1).all():
            return self.effects, self.variances
        amount = self.amount[:, None].astype(np.float32)
        return self.effects / amount, self.variances / amount**2

    def beyond(self, fitted: NDArray[np.float64], which: NDArray[np.int64], genes: slice) -> NDArray[np.float64]:
        """Return how far fitted effects (n, G') in some contexts lie beyond the ends of the range, where none can be measured."""
        return fitted - np.clip(fitted, self.lowest[which, genes], self.highest[which, genes])

    def gene_blocks(self) -> Iterator[slice]:
        """Genes in blocks of which temporary arrays over all groups are small."""
        n_genes = self.effects.shape[1]
        at_once = max(1, _VALUES_AT_ONCE // max(len(self.effects), 1))
        for first in range(0, n_genes, at_once):
            yield slice(first, min(first + at_once, n_genes))
