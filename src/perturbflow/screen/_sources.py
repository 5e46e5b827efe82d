"""Sources of expression: memory, a file, or a graph of tasks of dask; all give rows in memory."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import sparse

from perturbflow._checks import check_matrix
from perturbflow.screen._csr_file import CsrInFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS_AT_ONCE = 4096
GAP = 16  # rows that are read for nothing rather than to go to the file once more


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
            f"Expected `{where}` stored by cells, found a CSC matrix in a file, of which every cell takes reading all. "
            "Write it once more by cells, in a line: "
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
        return stacked([self._run(run) for run in _runs(rows, GAP)])

    def _run(self, rows: NDArray[np.intp]) -> Any:
        block = _as_rows(self.values[int(rows[0]) : int(rows[-1]) + 1])
        return block if block.shape[0] == len(rows) else block[rows - rows[0]]


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
            self._held = chunk, _as_rows(self.values[first : int(self._ends[chunk])].compute())
        block = self._held[1]
        return block if block.shape[0] == len(rows) else block[rows - first]


def stacked(parts: list[Any]) -> Any:
    """Put blocks of rows below each other."""
    if len(parts) == 1:
        return parts[0]
    return sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.concatenate(parts)


def _runs(rows: NDArray[np.intp], gap: int) -> list[NDArray[np.intp]]:
    """Cut ascending rows where the next is far away, or where a run becomes long."""
    runs = []
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > gap) + 1):
        stretch = (run - run[0]) // ROWS_AT_ONCE
        runs += np.split(run, np.flatnonzero(np.diff(stretch)) + 1)
    return runs


def _as_rows(block: Any) -> Any:
    return sparse.csr_matrix(block) if sparse.issparse(block) else np.asarray(block)
