"""Sums over the cells of every perturbation in every context: all that the prior needs to know of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from perturbflow.flow._data import CellData, Expression, Grouping, canonical_order, group_keys

_VALUES_AT_ONCE = 4_000_000
_GROWTH = 1.25


class GroupSums:
    """Number of cells and, gene by gene, of expressing cells, sum and sum of squares, of g groups of cells.

    A group is a perturbation in a context. Cells are added in chunks in any order, and none is kept: memory is that of
    three numbers per group and gene, and time is that of reading the stored values.

    Parameters
    ----------
    doses, covariates, n_cells
        Of every group: doses of all components (g, P), as CSR, codes of the covariates (g, K), number of cells (g,).
    n_expressing, total, squares
        Number of cells that express a gene, sum and sum of squares of its values (g, G).

    Examples
    --------
    >>> import perturbflow as pf
    >>> x, doses = np.array([[0.0, 1.0], [2.0, 1.0], [3.0, 0.0]]), np.array([[0.0], [1.0], [1.0]])
    >>> codes = np.zeros((3, 0), dtype=int)
    >>> sums = pf.flow.GroupSums.empty(n_genes=2, n_components=1, n_covariates=0)
    >>> for rows in (slice(2, 3), slice(0, 2)):  # as chunks of a file
    ...     sums.add(x[rows], doses[rows], codes[rows])
    >>> sums = sums.ordered()  # controls first
    >>> sums.n_cells.tolist(), sums.total.tolist(), sums.n_expressing.tolist()
    ([1, 2], [[0.0, 1.0], [5.0, 1.0]], [[0, 1], [2, 1]])
    >>> bool((pf.flow.GroupSums.of(pf.flow.CellData(x, doses, codes)).total == sums.total).all())
    True
    """

    def __init__(
        self,
        doses: sparse.csr_matrix,
        covariates: NDArray[np.int64],
        n_cells: NDArray[np.int64],
        n_expressing: NDArray[np.int32],
        total: NDArray[np.float64],
        squares: NDArray[np.float64],
    ) -> None:
        self.doses, self.covariates = doses, covariates
        self._size = len(n_cells)
        # There may be room for more groups behind those that there are.
        self._rows: dict[str, NDArray] = {
            "n_cells": n_cells,
            "n_expressing": n_expressing,
            "total": total,
            "squares": squares,
        }
        self._numbers: dict[tuple[bytes, bytes, bytes], int] | None = None

    @classmethod
    def empty(cls, n_genes: int, n_components: int, n_covariates: int) -> Self:
        """Sums over no cells.

        Parameters
        ----------
        n_genes, n_components, n_covariates
            Numbers of genes G, components P and covariates K.

        Returns
        -------
        Sums to add to.
        """
        return cls(
            sparse.csr_matrix((0, n_components), dtype=np.float32),
            np.zeros((0, n_covariates), dtype=np.int64),
            *_zeros(0, n_genes),
        )

    @classmethod
    def of(cls, cells: CellData, rows: NDArray[np.intp] | None = None) -> Self:
        """Sum over cells in memory.

        Parameters
        ----------
        cells, rows
            The cells, and which of them; all where not given.

        Returns
        -------
        The sums, controls first, then ordered by components, doses and covariates.
        """
        rows = np.arange(len(cells)) if rows is None else np.asarray(rows, dtype=np.intp)
        grouping = Grouping.of(cells.perturbations[rows], cells.covariates[rows])
        sums = cls(grouping.doses, grouping.covariates, *_zeros(len(grouping), cells.n_genes))
        sums._accumulate(cells.x, rows[grouping.order], np.repeat(np.arange(len(grouping)), grouping.n_cells))
        return sums

    @classmethod
    def union(cls, parts: Sequence[GroupSums]) -> Self:
        """Sum over the cells of all parts.

        Parameters
        ----------
        parts
            Sums over different cells, with the same genes, components and covariates; at least one.

        Returns
        -------
        New sums, in the order of :meth:`ordered`.
        """
        whole = cls.empty(parts[0].n_genes, parts[0].doses.shape[1], parts[0].covariates.shape[1])
        for part in parts:
            whole.include(part)
        return whole.ordered()

    def __len__(self) -> int:
        return self._size

    @property
    def n_cells(self) -> NDArray[np.int64]:
        """Number of cells of every group (g,)."""
        return self._rows["n_cells"][: self._size]

    @property
    def n_expressing(self) -> NDArray[np.int32]:
        """Number of cells that express a gene (g, G)."""
        return self._rows["n_expressing"][: self._size]

    @property
    def total(self) -> NDArray[np.float64]:
        """Sum of the values of a gene (g, G)."""
        return self._rows["total"][: self._size]

    @property
    def squares(self) -> NDArray[np.float64]:
        """Sum of their squares (g, G)."""
        return self._rows["squares"][: self._size]

    @property
    def n_genes(self) -> int:
        """Number of genes G."""
        return int(self._rows["total"].shape[1])

    @property
    def is_control(self) -> NDArray[np.bool_]:
        """Return whether nothing was done to a group (g,)."""
        return np.diff(self.doses.indptr) == 0

    def add(self, x: Expression, doses: ArrayLike | sparse.csr_matrix, covariates: NDArray[np.int64]) -> None:
        """Count cells in, of groups that are known or new.

        Parameters
        ----------
        x, doses, covariates
            Expression (n, G), doses (n, P) and codes of covariates (n, K), as of :class:`CellData`.

        Raises
        ------
        ValueError
            If they are no :class:`CellData`, or of other genes, components or covariates.
        """
        cells = CellData(x, doses, covariates)
        found = cells.n_genes, cells.perturbations.shape[1], cells.covariates.shape[1]
        expected = self.n_genes, self.doses.shape[1], self.covariates.shape[1]
        if found != expected:
            msg = (
                f"Expected cells with {expected[0]} genes, {expected[1]} components and {expected[2]} covariates, like the "
                f"preceding ones, found {found[0]}, {found[1]} and {found[2]}. Read all chunks with the same columns."
            )
            raise ValueError(msg)
        grouping = cells.grouping()
        numbers = self._numbers_of(grouping.doses, grouping.covariates)
        self._accumulate(cells.x, grouping.order, np.repeat(numbers, grouping.n_cells))

    def include(self, other: GroupSums) -> None:
        """Count in the cells of other sums, such as those of another process or part of the cells.

        Parameters
        ----------
        other
            Sums over other cells with the same genes, components and covariates.
        """
        numbers = self._numbers_of(other.doses, other.covariates)
        for name, rows in self._rows.items():
            _in_blocks(np.add, rows, numbers, other._rows[name])

    def exclude(self, other: GroupSums) -> None:
        """Take cells out that were counted in; their groups stay, if without cells.

        Parameters
        ----------
        other
            Sums over some of the cells.

        Raises
        ------
        ValueError
            If the others have groups or cells that these have not.
        """
        known = self._known()
        places = np.array([known.get(name, -1) for name in group_keys(other.doses, other.covariates)], dtype=np.intp)
        if (places < 0).any() or (self.n_cells[places] < other.n_cells).any():
            msg = "Expected sums over a subset of the cells, found groups or cells that are not among them. Pass a subset."
            raise ValueError(msg)
        for name, rows in self._rows.items():
            _in_blocks(np.subtract, rows, places, other._rows[name])

    def take(self, groups: NDArray[np.integer] | NDArray[np.bool_]) -> Self:
        """Sums of some of the groups.

        Parameters
        ----------
        groups
            Numbers of the groups, or one boolean for each.

        Returns
        -------
        New sums, in the order of ``groups``.
        """
        groups = np.flatnonzero(groups) if np.asarray(groups).dtype == bool else np.asarray(groups)
        rows = (rows[: self._size][groups] for rows in self._rows.values())
        return type(self)(self.doses[groups], self.covariates[groups], *rows)

    def ordered(self) -> Self:
        """The same sums, controls first, then ordered by components, doses and covariates.

        Returns
        -------
        These where they are in order, else new ones.
        """
        order = canonical_order(self.doses, self.covariates)
        return self if (np.diff(order) > 0).all() else self.take(order)

    def _known(self) -> dict[tuple[bytes, bytes, bytes], int]:
        if self._numbers is None:
            self._numbers = {name: i for i, name in enumerate(group_keys(self.doses, self.covariates))}
        return self._numbers

    def _numbers_of(self, doses: sparse.csr_matrix, covariates: NDArray[np.int64]) -> NDArray[np.intp]:
        """Numbers of groups, new ones with room for their sums."""
        known = self._known()
        numbers = np.array(
            [known.setdefault(name, len(known)) for name in group_keys(doses, covariates)], dtype=np.intp
        )
        new = numbers >= self._size
        if new.any():
            self.doses = sparse.csr_matrix(sparse.vstack([self.doses, doses[np.flatnonzero(new)]]))
            self.covariates = np.concatenate([self.covariates, covariates[new]])
            self._size = len(known)
            if self._size > len(self._rows["n_cells"]):
                more = max(self._size, int(_GROWTH * len(self._rows["n_cells"]))) - len(self._rows["n_cells"])
                free = {name: np.zeros((more, *rows.shape[1:]), rows.dtype) for name, rows in self._rows.items()}
                self._rows = {name: np.concatenate([rows, free[name]]) for name, rows in self._rows.items()}
        return numbers

    def _accumulate(self, x: Expression, rows: NDArray[np.intp], numbers: NDArray[np.intp]) -> None:
        """Add some rows of cells to the groups of these numbers, which ascend where groups do."""
        np.add.at(self._rows["n_cells"], numbers, 1)
        at_once = max(1, _VALUES_AT_ONCE // max(self.n_genes, 1))
        if not isinstance(x, np.ndarray):
            at_once = max(1, int(_VALUES_AT_ONCE / max(x.nnz / max(x.shape[0], 1), 1)))
        for first in range(0, len(rows), at_once):
            part, own = x[rows[first : first + at_once]], numbers[first : first + at_once]
            if isinstance(part, np.ndarray):
                self._add_full(part, own)
            else:
                self._add_sparse(part, own)

    def _add_full(self, x: NDArray[np.float32], numbers: NDArray[np.intp]) -> None:
        groups, place = np.unique(numbers, return_inverse=True)
        of_group = sparse.csr_matrix((np.ones(len(place)), (place, np.arange(len(place)))))
        values = x.astype(np.float64)
        self._rows["total"][groups] += of_group @ values
        self._rows["squares"][groups] += of_group @ np.square(values)
        self._rows["n_expressing"][groups] += (of_group @ (x > 0)).astype(np.int32)

    def _add_sparse(self, x: sparse.csr_matrix, numbers: NDArray[np.intp]) -> None:
        places = np.repeat(numbers.astype(np.int64) * self.n_genes, np.diff(x.indptr)) + x.indices
        values = x.data.astype(np.float64)
        np.add.at(self._rows["total"].reshape(-1), places, values)
        np.add.at(self._rows["squares"].reshape(-1), places, np.square(values))
        expressed = places if (values > 0).all() else places[values > 0]
        np.add.at(self._rows["n_expressing"].reshape(-1), expressed, np.int32(1))


def _zeros(n_groups: int, n_genes: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    shape = (n_groups, n_genes)
    return np.zeros(n_groups, dtype=np.int64), np.zeros(shape, dtype=np.int32), np.zeros(shape), np.zeros(shape)


def _in_blocks(change: np.ufunc, rows: NDArray, places: NDArray[np.intp], others: NDArray) -> None:
    """Change some rows by others, without arrays of the size of all."""
    at_once = max(1, _VALUES_AT_ONCE // max(rows[0].size, 1)) if len(rows) else 1
    for first in range(0, len(places), at_once):
        block = slice(first, min(first + at_once, len(places)))
        rows[places[block]] = change(rows[places[block]], others[block])
