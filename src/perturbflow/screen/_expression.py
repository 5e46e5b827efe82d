"""Expression of cells, wherever it is stored: the one way in which cells are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from perturbflow.screen._sources import ROWS_AT_ONCE, InMemory, source_of

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.screen._sources import Source

MOST_LOOKED_AT = 4096  # cells of a file, where something is checked that only a look at all of them would prove
RUN = 64  # neighbours that are looked at together, since a file gives them at the cost of one


class Expression:
    """Rows of expression, read when they are asked for.

    ``expression[rows]`` gives cells in memory, as an array or a CSR matrix, in the order of the rows, which may be
    indices, booleans or a slice. No more than these cells is in memory at a time.

    Parameters
    ----------
    values
        Array, CSR or CSC matrix in memory; dense or CSR matrix in a file; array of dask.
    where
        How messages call it.

    Examples
    --------
    >>> x = Expression(np.arange(6).reshape(3, 2), where="adata.X")
    >>> x[[2, 0]].tolist(), x.part(rows=np.array([1, 2]))[[0]].tolist()
    ([[4, 5], [0, 1]], [[2, 3]])
    >>> [(rows.tolist(), block.tolist()) for rows, block in x.chunks(n_cells=2)]
    [([0, 1], [[0, 1], [2, 3]]), ([2], [[4, 5]])]
    """

    def __init__(self, values: Any, *, where: str) -> None:
        self._source: Source = source_of(values, where=where)
        self._rows: NDArray[np.intp] | None = None
        self._genes: NDArray[np.intp] | None = None
        self._changes: tuple[Callable[[Any], Any], ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of cells and genes."""
        n_cells, n_genes = self._source.shape
        return (
            n_cells if self._rows is None else len(self._rows),
            n_genes if self._genes is None else len(self._genes),
        )

    @property
    def n_vars(self) -> int:
        """Number of genes."""
        return self.shape[1]

    @property
    def is_in_memory(self) -> bool:
        """Return whether all cells are in memory already."""
        return isinstance(self._source, InMemory)

    def __len__(self) -> int:
        return self.shape[0]

    def part(
        self,
        *,
        rows: NDArray[np.integer] | NDArray[np.bool_] | None = None,
        genes: NDArray[np.integer] | None = None,
    ) -> Self:
        """Choose cells (indices or booleans) and genes (places, in the order that is wanted), without reading any."""
        other = copy(self)
        if rows is not None:
            other._rows = self._places(rows)
        if genes is not None and not np.array_equal(genes, np.arange(self.n_vars)):
            other._genes = np.asarray(genes) if self._genes is None else self._genes[genes]
        return other

    def changed(self, change: Callable[[Any], Any]) -> Self:
        """Return the same cells with values that a function of a block of them gives, once they are read."""
        other = copy(self)
        other._changes = (*self._changes, change)
        return other

    def __getitem__(self, rows: Any) -> Any:
        return self._read(self._places(rows))

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | None = None) -> Any:
        """Read cells into memory (n, G), by default all, which are not copied where they are in memory."""
        if rows is None and self._rows is None and isinstance(self._source, InMemory):
            return self._finished(self._source.whole())
        return self[np.arange(len(self)) if rows is None else rows]

    def chunks(
        self, rows: NDArray[np.integer] | NDArray[np.bool_] | None = None, n_cells: int = ROWS_AT_ONCE
    ) -> Iterator[tuple[NDArray[np.intp], Any]]:
        """Read cells a chunk at a time: its rows (m,), in the order given, and their expression (m, G)."""
        chosen = np.arange(len(self)) if rows is None else _indices(rows, len(self))
        for first in range(0, len(chosen), n_cells):
            some = chosen[first : first + n_cells]
            yield some, self[some]

    def some_rows(self, n_cells: int = MOST_LOOKED_AT) -> NDArray[np.intp]:
        """Choose rows for a check that looks at some cells: every so many in memory, and runs of neighbours in a file.

        There are at most about twice as many as asked for, and they are the same for the same number of cells.
        """
        if len(self) <= n_cells:
            return np.arange(len(self))
        if self.is_in_memory:
            return np.arange(0, len(self), len(self) // n_cells)
        starts = np.arange(0, len(self), RUN)
        chosen = np.sort(np.random.default_rng(0).choice(starts, n_cells // RUN, replace=False))
        rows = (chosen[:, None] + np.arange(RUN)).ravel()
        return rows[rows < len(self)]

    def look(self) -> tuple[NDArray[np.intp], Any]:
        """Return cells to check the scale of: all that are in memory, as they are stored, or some of those in a file."""
        if isinstance(self._source, InMemory):
            is_whole = self._rows is None and self._genes is None and not self._changes
            return np.arange(len(self)), self._source.values if is_whole else self.take()
        rows = self.some_rows()
        return rows, self[rows]

    def _places(self, rows: Any) -> NDArray[np.intp]:
        """Rows of the source."""
        chosen = np.arange(len(self))[rows] if isinstance(rows, slice) else _indices(rows, len(self))
        return chosen if self._rows is None else self._rows[chosen]

    def _read(self, places: NDArray[np.intp]) -> Any:
        if isinstance(self._source, InMemory):
            block = self._source.read(places)
        else:
            distinct, order = np.unique(places, return_inverse=True)
            block = self._source.read(distinct) if len(distinct) else sparse.csr_matrix((0, self._source.shape[1]))
            if not np.array_equal(order, np.arange(len(distinct))):
                block = block[order]
        return self._finished(block)

    def _finished(self, block: Any) -> Any:
        """Choose the genes of cells that were read, and change their values."""
        block = block if self._genes is None else block[:, self._genes]
        for change in self._changes:
            block = change(block)
        return block


def _indices(rows: Any, n_cells: int) -> NDArray[np.intp]:
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (n_cells,):
            msg = f"Expected one boolean for each of {n_cells} cells in `rows`, found shape {rows.shape}. Pass as many."
            raise ValueError(msg)
        return np.flatnonzero(rows)
    return rows.astype(np.intp, copy=False).reshape(-1)


def dense(block: Any) -> NDArray[np.float32]:
    """Cells as an array of single precision (n, G)."""
    return np.asarray(block.toarray() if sparse.issparse(block) else block, dtype=np.float32)
