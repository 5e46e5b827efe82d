"""Cells with what was done to them, as plain arrays, and their groups: a perturbation in a context."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Expression: TypeAlias = NDArray[np.float32] | sparse.csr_matrix


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


@dataclass(frozen=True, eq=False)
class CellData:
    """Expression, perturbation and covariates of cells.

    Parameters
    ----------
    x
        Log1p-normalised expression (n, G), an array or a CSR matrix; converted to float32 where it is not.
    perturbations
        Dose of every perturbation component (n, P), at least 0; an all-zero row is a control cell. Stored as CSR.
    covariates
        Codes of the categorical covariates (n, K), K may be 0. A distinct row is a context.

    Raises
    ------
    ValueError
        If shapes disagree, a dose is negative or not finite, or codes are not integers.

    Examples
    --------
    >>> cells = CellData(np.ones((3, 4)), np.array([[0.0], [1.0], [1.0]]), np.zeros((3, 0), dtype=int))
    >>> [group.rows.tolist() for group in cells.groups()]
    [[0], [1, 2]]
    """

    x: Expression
    perturbations: sparse.csr_matrix
    covariates: NDArray[np.int64]

    def __post_init__(self) -> None:
        x = sparse.csr_matrix(self.x) if sparse.issparse(self.x) else np.asarray(self.x)
        x = x.astype(np.float32, copy=False)
        perturbations = sparse.csr_matrix(self.perturbations, dtype=np.float32, copy=True)
        covariates = np.asarray(self.covariates)
        for name, array in (("x", x), ("perturbations", perturbations), ("covariates", covariates)):
            if array.ndim != 2 or array.shape[0] != x.shape[0]:
                msg = (
                    f"Expected `{name}` to have one row for each of the {x.shape[0]} cells, found shape {array.shape}."
                )
                raise ValueError(msg)
        if not (np.isfinite(perturbations.data) & (perturbations.data >= 0)).all():
            msg = "Expected doses in `perturbations` to be finite and at least 0, found other values."
            raise ValueError(msg)
        if covariates.size and covariates.dtype.kind not in "iu":
            msg = f"Expected `covariates` to be integer codes, found dtype {covariates.dtype}."
            raise ValueError(msg)
        perturbations.sum_duplicates()
        perturbations.eliminate_zeros()
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "perturbations", perturbations)
        object.__setattr__(self, "covariates", covariates.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def n_genes(self) -> int:
        """Number of genes G."""
        return int(self.x.shape[1])

    def subset(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> CellData:
        """Cells of some rows.

        Parameters
        ----------
        rows
            Indices of rows, or one boolean per cell.

        Returns
        -------
        New data in the order of ``rows``.
        """
        rows = np.asarray(rows)
        return CellData(self.x[rows], self.perturbations[rows], self.covariates[rows])

    def grouping(self) -> Grouping:
        """Split the cells by perturbation and covariates, in the order of :meth:`groups`, without a list of them.

        Returns
        -------
        Sparse doses and covariates of the groups, and which cells are of them.
        """
        return Grouping.of(self.perturbations, self.covariates)

    def groups(self) -> list[Group]:
        """Split the cells by perturbation and covariates; time O(n log n).

        Returns
        -------
        One group per distinct pair of a perturbation row and a covariate row: controls first, then ordered by
        components, doses and covariates.
        """
        return self.grouping().groups()


@dataclass(frozen=True, eq=False)
class TrainingGroups:
    """Perturbed groups of training cells, found in a time that does not grow with their number."""

    doses: sparse.csr_matrix  # of every component in every group (g, P), CSR
    contexts: NDArray[np.int64]  # of every group (g,)

    def find(self, doses: sparse.csr_matrix, contexts: NDArray[np.integer]) -> NDArray[np.intp]:
        """Groups with these doses (n, P), without stored zeros, in these contexts (n,); -1 where there is none (n,)."""
        codes = np.asarray(contexts, dtype=np.int64).reshape(-1, 1)
        return np.array([self._numbers.get(name, -1) for name in group_keys(doses, codes)], dtype=np.intp)

    def with_component(self, component: int) -> NDArray[np.int32]:
        """Groups that have a component, ascending."""
        starts, groups = self._of_component
        return groups[starts[component] : starts[component + 1]]

    def here(self, component: int, context: int | None) -> NDArray[np.int32]:
        """Groups that have a component in a context."""
        groups = self.with_component(component)
        return groups[self.contexts[groups] == (-1 if context is None else context)]

    def has_components(self, components: NDArray[np.integer], context: int) -> bool:
        """Return whether a group of a context has these components (ascending) and no others, at whatever doses."""
        return (np.asarray(components, dtype=np.int64).tobytes(), context) in self._component_sets

    @cached_property
    def all_contexts(self) -> NDArray[np.int64]:
        """Numbers of the contexts that have groups, ascending."""
        return np.unique(self.contexts)

    @cached_property
    def _numbers(self) -> dict[tuple[bytes, bytes, bytes], int]:
        codes = self.contexts.astype(np.int64).reshape(-1, 1)
        return {name: i for i, name in enumerate(group_keys(self.doses, codes))}

    @cached_property
    def _component_sets(self) -> set[tuple[bytes, int]]:
        return {(name, int.from_bytes(codes, sys.byteorder)) for name, _, codes in self._numbers}

    @cached_property
    def _of_component(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        columns = sparse.csc_matrix(self.doses)
        columns.sort_indices()
        return columns.indptr, columns.indices
