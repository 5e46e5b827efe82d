"""Expression of cells in memory, in a file or in a graph of tasks of dask: the one way in which cells are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from importlib.util import find_spec
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_matrix

ROWS_AT_ONCE = 4096
GAP = 16  # rows that are read for nothing rather than to go to the file once more
_GAP_OF_VALUES = 16_384  # of a sparse matrix
_VALUES_AT_ONCE = 1_000_000


MOST_LOOKED_AT = 4096  # cells of a file, where something is checked that only a look at all of them would prove
RUN = 64  # neighbours that are looked at together, since a file gives them at the cost of one


class Source(Protocol):
    """A matrix of cells by genes that gives rows in memory."""

    shape: tuple[int, int]

    def read(self, rows: NDArray[np.intp]) -> Any:
        """Return ascending, distinct rows: an array or a CSR matrix."""
        ...


def source_of(values: Any, *, where: str) -> Source:
    """Find out how a matrix is stored; TypeError if it is neither in memory nor in a file in a form that has rows."""
    if isinstance(values, np.ndarray) or sparse.issparse(values):
        return InMemory(values)
    if hasattr(values, "compute") and hasattr(values, "chunks"):
        return _OfTasks(values)
    from anndata.abc import CSCDataset, CSRDataset  # here, because it takes a second to load

    if isinstance(values, CSCDataset):
        msg = (
            f"Expected `{where}` stored by cells, found a CSC matrix in a file, which has to be read completely for any "
            "cell. Convert it once: "
            f"`adata = adata.to_memory(); {where} = {where}.tocsr(); adata.write_h5ad(path)`."
        )
        raise TypeError(msg)
    if isinstance(values, CSRDataset):
        if values.backend == "zarr" and find_spec("annbatch") is not None:
            from perturbflow.screen._annbatch_rows import AnnbatchRows

            return AnnbatchRows(values)
        return CsrInFile(values)
    is_in_file = type(values).__module__.partition(".")[0] in {"h5py", "zarr"}
    if is_in_file and hasattr(values, "dtype") and len(getattr(values, "shape", ())) == 2:
        return _InFile(values)
    check_matrix(values, where=where)
    return InMemory(values)


class InMemory:
    """An array or a matrix of SciPy; one that is stored by genes is turned once, when cells are first read."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape = values.shape

    def whole(self) -> Any:
        """Return all rows, without a copy where that is possible."""
        if sparse.issparse(self.values) and not isinstance(self.values, sparse.csr_matrix):
            self.values = sparse.csr_matrix(self.values)
        return self.values if sparse.issparse(self.values) else np.asarray(self.values)

    def read(self, rows: NDArray[np.intp]) -> Any:
        """Return rows, in any order."""
        return self.whole()[rows]


class _InFile:
    """A dense matrix in an h5ad or zarr file: neighbouring rows are read together."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape = values.shape

    def read(self, rows: NDArray[np.intp]) -> Any:
        """Return ascending rows, run by run."""
        runs = [rows[run] for run in _runs(rows, rows + 1, gap=GAP, most=ROWS_AT_ONCE)]
        return stacked([_part(self.values[int(run[0]) : int(run[-1]) + 1], run - run[0]) for run in runs])


class CsrInFile:
    """A CSR matrix in a file, read from its arrays: AnnData's slices take milliseconds however few the rows."""

    def __init__(self, values: Any) -> None:
        self.shape: tuple[int, int] = values.shape
        self._group = values.group
        self._starts: NDArray[np.int64] | None = None

    def read(self, rows: NDArray[np.intp]) -> sparse.csr_matrix:
        """Return ascending, distinct rows."""
        if self._starts is None:
            self._starts = np.asarray(self._group["indptr"][:], dtype=np.int64)
        first, last = self._starts[rows], self._starts[rows + 1]
        ends = np.concatenate([[0], np.cumsum(last - first)])
        runs = _runs(first, last, gap=_GAP_OF_VALUES, most=_VALUES_AT_ONCE)
        parts: dict[str, NDArray] = {}
        for name in ("data", "indices"):
            stored = self._group[name]
            parts[name] = np.empty(ends[-1], dtype=stored.dtype)
            for run in runs:
                _fill(parts[name][ends[run.start] : ends[run.stop]], stored, first[run], last[run])
        return sparse.csr_matrix((parts["data"], parts["indices"], ends), shape=(len(rows), self.shape[1]))


class _OfTasks:
    """An array of dask: a chunk is computed once for all rows that are asked of it, and the last one is kept."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape = values.shape
        self._ends = np.cumsum(values.chunks[0])
        self._held: tuple[int, Any] = (-1, None)

    def read(self, rows: NDArray[np.intp]) -> Any:
        """Return ascending rows, chunk by chunk."""
        chunks = np.searchsorted(self._ends, rows, side="right")
        return stacked([self._part(int(chunk), rows[chunks == chunk]) for chunk in np.unique(chunks)])

    def _part(self, chunk: int, rows: NDArray[np.intp]) -> Any:
        first = int(self._ends[chunk - 1]) if chunk else 0
        if self._held[0] != chunk:
            self._held = chunk, self.values[first : int(self._ends[chunk])].compute()
        return _part(self._held[1], rows - first)


def stacked(parts: list[Any]) -> Any:
    """Put blocks of rows below each other."""
    if len(parts) == 1:
        return parts[0]
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


def _part(block: Any, rows: NDArray[np.intp]) -> Any:
    """Rows of a block, which is not copied where it has no others."""
    block = sparse.csr_matrix(block) if sparse.issparse(block) else np.asarray(block)
    return block if block.shape[0] == len(rows) else block[rows]


def _runs(first: NDArray[np.int64], last: NDArray[np.int64], *, gap: int, most: int) -> list[slice]:
    """Rows that are read together: cut where the next begins more than a gap behind, or where a run becomes long."""
    if not len(first):
        return []
    stretch = first // most
    cuts = np.flatnonzero((first[1:] - last[:-1] >= gap) | (stretch[1:] != stretch[:-1])) + 1
    bounds = [0, *cuts.tolist(), len(first)]
    return [slice(begin, end) for begin, end in zip(bounds[:-1], bounds[1:], strict=True)]


def _fill(target: NDArray, stored: Any, first: NDArray[np.int64], last: NDArray[np.int64]) -> None:
    """Read the values of one run of rows, without those between them."""
    if not len(target):
        return
    begin = int(first[0])
    block = np.asarray(stored[begin : int(last[-1])])
    if len(block) > len(target):
        sizes = last - first
        shift = first - begin - np.concatenate([[0], np.cumsum(sizes)[:-1]])
        block = block[np.arange(len(target)) + np.repeat(shift, sizes)]
    target[:] = block


class Expression:
    """Rows of expression wherever it is: ``expression[rows]`` reads these cells alone, as an array or a CSR matrix."""

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
        """Choose rows that stand for all: every so many in memory, and runs of neighbours in a file."""
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
            msg = f"Expected one boolean for each of {n_cells} cells in `rows`, found shape {rows.shape}."
            raise ValueError(msg)
        return np.flatnonzero(rows)
    return rows.astype(np.intp, copy=False).reshape(-1)


def dense(block: Any) -> NDArray[np.float32]:
    """Cells as an array of single precision (n, G)."""
    return np.asarray(block.toarray() if sparse.issparse(block) else block, dtype=np.float32)
