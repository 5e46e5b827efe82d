"""Grouping of cells by perturbation and context."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from numpy.typing import NDArray
    from scipy import sparse


@dataclass(frozen=True, eq=False)
class Group:
    """The cells of one perturbation in one context."""

    perturbation: NDArray[np.float32]  # dose of every component (P,), all zero for controls
    covariates: NDArray[np.int64]  # codes (K,)
    rows: NDArray[np.intp]  # of these cells (m,), ascending


@dataclass(frozen=True, eq=False)
class Grouping:
    """Cells divided by perturbation and covariates, without anything of the size of cells by components."""

    doses: sparse.csr_matrix  # of every component in every group (g, P), CSR; controls have no entries
    covariates: NDArray[np.int64]  # codes of every group (g, K)
    order: NDArray[np.intp]  # cells, group by group, ascending within a group (n,)
    starts: NDArray[np.intp]  # where each group begins in `order`, and the end of the last (g + 1,)

    @classmethod
    def of(cls, doses: sparse.csr_matrix, covariates: NDArray[np.int64]) -> Self:
        """Divide cells by doses (n, P), without stored zeros, and covariates (n, K), in time O(n log n).

        Controls come first, then groups by components, doses and covariates.
        """
        n_cells = doses.shape[0]
        keys = _keys(doses, covariates)
        order = np.lexsort(keys.T[::-1]) if keys.shape[1] else np.arange(n_cells)
        changes = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1, [n_cells]]) if n_cells else np.zeros(1, dtype=int)
        firsts = order[starts[:-1]]
        return cls(doses[firsts], covariates[firsts], order, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def n_cells(self) -> NDArray[np.intp]:
        """Number of cells of every group (g,)."""
        return np.diff(self.starts)

    @property
    def is_control(self) -> NDArray[np.bool_]:
        """Return whether nothing was done to a group (g,)."""
        return np.diff(self.doses.indptr) == 0

    @cached_property
    def codes(self) -> NDArray[np.intp]:
        """Group of every cell (n,)."""
        codes = np.empty(len(self.order), dtype=np.intp)
        codes[self.order] = np.repeat(np.arange(len(self)), self.n_cells)
        return codes

    def rows(self, group: int) -> NDArray[np.intp]:
        """Cells of a group, ascending."""
        return self.order[self.starts[group] : self.starts[group + 1]]

    def groups(self) -> list[Group]:
        """All groups, each with the doses of all components."""
        groups = []
        for i in range(len(self)):
            perturbation = np.zeros(self.doses.shape[1], dtype=np.float32)
            own = slice(*self.doses.indptr[i : i + 2])
            perturbation[self.doses.indices[own]] = self.doses.data[own]
            groups.append(Group(perturbation, self.covariates[i], self.rows(i)))
        return groups


def canonical_order(doses: sparse.csr_matrix, covariates: NDArray[np.int64]) -> NDArray[np.intp]:
    """Order of distinct groups by components, doses and covariates, controls first (g,)."""
    keys = _keys(doses, covariates)
    return np.lexsort(keys.T[::-1]) if keys.shape[1] else np.arange(doses.shape[0])


def group_keys(doses: sparse.csr_matrix, covariates: NDArray[np.int64]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Something to look every group up by: its components, doses and covariates."""
    components, amounts = doses.indices.astype(np.int64), doses.data.astype(np.float32)
    for first, last, codes in zip(doses.indptr[:-1], doses.indptr[1:], covariates, strict=True):
        yield components[first:last].tobytes(), amounts[first:last].tobytes(), codes.tobytes()


def _keys(doses: sparse.csr_matrix, covariates: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows that are equal for cells of the same group, and sort as groups do (n, 2 width + K)."""
    n_components = np.diff(doses.indptr)
    width = int(n_components.max(initial=0))
    row = np.repeat(np.arange(len(n_components)), n_components)
    place = np.arange(len(row)) - np.repeat(doses.indptr[:-1], n_components)
    components, amounts = np.full((len(n_components), width), -1.0), np.zeros((len(n_components), width))
    components[row, place] = doses.indices
    amounts[row, place] = doses.data
    # A code above 2^53 would not survive as a float; covariate codes count categories.
    return np.hstack([components, amounts, covariates])
