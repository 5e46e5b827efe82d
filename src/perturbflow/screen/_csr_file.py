"""Rows of a CSR matrix in a file, straight from its arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Stored values that are read for nothing rather than to go to the file once more.
_GAP = 16_384
_VALUES_AT_ONCE = 1_000_000


class CsrInFile:
    """A CSR matrix in an h5ad or zarr file: rows near each other are read together.

    To slice the matrix as AnnData offers it takes some milliseconds however few the rows are. Reading the same values from
    its arrays takes a tenth of one, so that cells can be drawn at random; where rows begin is kept in memory.
    """

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
        parts: dict[str, NDArray] = {}
        for name in ("data", "indices"):
            stored = self._group[name]
            parts[name] = np.empty(ends[-1], dtype=stored.dtype)
            for run in _runs(first, last):
                _fill(parts[name][ends[run.start] : ends[run.stop]], stored, first[run], last[run])
        return sparse.csr_matrix((parts["data"], parts["indices"], ends), shape=(len(rows), self.shape[1]))


def _runs(first: NDArray[np.int64], last: NDArray[np.int64]) -> list[slice]:
    """Rows that are read together: cut where the next is far away, or where they become many values."""
    if not len(first):
        return []
    stretch = first // _VALUES_AT_ONCE
    cuts = np.flatnonzero((first[1:] - last[:-1] > _GAP) | (stretch[1:] != stretch[:-1])) + 1
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
