"""Cholesky decompositions of many small matrices at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class VectorCholesky:
    """Decompositions of positive definite n by n matrices, a matrix for every scale and gene.

    Entries are lower triangles in the order of :func:`numpy.tril_indices` (S, n (n + 1) / 2, G). Written over vectors
    of genes, several entries of a row at a time: matrices of a few rows are far too small for a call of LAPACK each.
    """

    def __init__(self, entries: NDArray[np.floating], n: int) -> None:
        # Rows by scales and genes, so that every step is over memory in one piece; diagonals are stored as inverses.
        self.n, self._factor = n, np.array(entries.swapaxes(0, 1), order="C")
        rows, found = _rows(self._factor), np.empty_like(self._factor[0])
        for i, row in enumerate(rows):
            for j in range(i + 1):
                if j:
                    row[j] -= _dot(row[:j], rows[j][:j], out=found)
                if i == j:
                    np.reciprocal(np.sqrt(row[j], out=row[j]), out=row[j])
                else:
                    row[j] *= rows[j][j]

    def log_determinant(self) -> NDArray[np.floating]:
        """Logarithms of the determinants (S, G)."""
        return -2 * np.log(np.stack([row[-1] for row in _rows(self._factor)])).sum(axis=0)

    def solve(self, right: NDArray[np.floating]) -> NDArray[np.floating]:
        """Solve for right sides (S, n, G)."""
        found = np.array(right.swapaxes(0, 1), dtype=self._factor.dtype, order="C")
        rows, product = _rows(self._factor), np.empty_like(found)
        for i, row in enumerate(rows):
            if i:
                found[i] -= _dot(row[:i], found[:i], out=product[0])
            found[i] *= row[i]
        for i, row in reversed(list(enumerate(rows))):
            found[i] *= row[i]
            found[:i] -= np.multiply(row[:i], found[i], out=product[:i])
        return found.swapaxes(0, 1)

    def inverse(self, chosen: NDArray[np.intp]) -> NDArray[np.floating]:
        """Lower triangles of the inverses at some scales, as ``entries`` has them (K, n (n + 1) / 2, G)."""
        factor = self._factor if len(chosen) == self._factor.shape[1] else self._factor[:, chosen]
        inverse = np.zeros_like(factor)  # of the factor
        rows, product = _rows(inverse), np.empty_like(factor[: self.n])
        for i, row in enumerate(_rows(factor)):
            for k in range(i):
                rows[i][: k + 1] -= np.multiply(rows[k], row[k], out=product[: k + 1])
            rows[i][:i] *= row[i]
            rows[i][i] = row[i]
        for i, own in enumerate(rows):  # in place: what is overwritten is not needed any more
            own *= own[i].copy()
            for row in rows[i + 1 :]:
                own += np.multiply(row[: i + 1], row[i], out=product[: i + 1])
        return inverse.swapaxes(0, 1)


def _rows(triangle: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    """Rows of a lower triangle (n (n + 1) / 2, ...), of 1 to n entries."""
    rows: list[NDArray[np.floating]] = []
    first = 0
    while first < len(triangle):
        rows.append(triangle[first : first + len(rows) + 1])
        first += len(rows)
    return rows


def _dot(x: NDArray[np.floating], y: NDArray[np.floating], out: NDArray[np.floating]) -> NDArray[np.floating]:
    """Sum of the products of entries (k, S, G) over the first axis."""
    return np.einsum("ksg,ksg->sg", x, y, out=out)
