"""Cholesky decompositions of many small matrices at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class VectorCholesky:
    """Decompositions of positive definite n by n matrices, a matrix for every scale and gene.

    Written over whole vectors of genes, since matrices of a few rows are far too small for a call of LAPACK each.

    Parameters
    ----------
    entries
        The lower triangles, row by row, in the order of :func:`numpy.tril_indices` (S, n (n + 1) / 2, G).
    n
        Number of rows.
    """

    def __init__(self, entries: NDArray[np.float64], n: int) -> None:
        # Rows by scales and genes, so that every step is over memory in one piece; diagonals are stored as inverses.
        self.n, self._factor = n, np.array(entries.swapaxes(0, 1), order="C")
        product = np.empty(self._factor.shape[1:])
        for i in range(n):
            for j in range(i + 1):
                entry = self._factor[_place(i, j)]
                for k in range(j):
                    entry -= np.multiply(self._factor[_place(i, k)], self._factor[_place(j, k)], out=product)
                if i == j:
                    np.reciprocal(np.sqrt(entry, out=entry), out=entry)
                else:
                    entry *= self._factor[_place(j, j)]

    def log_determinant(self) -> NDArray[np.float64]:
        """Logarithms of the determinants (S, G)."""
        return -2 * sum((np.log(self._factor[_place(i, i)]) for i in range(self.n)), start=np.zeros(()))

    def solve(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Solve for right sides (S, n, G)."""
        found = np.array(right.swapaxes(0, 1), dtype=np.float64, order="C")
        product = np.empty(found.shape[1:])
        for i in range(self.n):
            for k in range(i):
                found[i] -= np.multiply(self._factor[_place(i, k)], found[k], out=product)
            found[i] *= self._factor[_place(i, i)]
        for i in reversed(range(self.n)):
            for k in range(i + 1, self.n):
                found[i] -= np.multiply(self._factor[_place(k, i)], found[k], out=product)
            found[i] *= self._factor[_place(i, i)]
        return found.swapaxes(0, 1)

    def inverse(self, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
        """Lower triangles of the inverses at some scales, as ``entries`` has them (K, n (n + 1) / 2, G)."""
        factor = self._factor if len(chosen) == self._factor.shape[1] else self._factor[:, chosen]
        lower = np.empty(factor.shape)  # the inverse of the factor
        product = np.empty(factor.shape[1:])
        for j in range(self.n):
            lower[_place(j, j)] = factor[_place(j, j)]
            for i in range(j + 1, self.n):
                entry = np.multiply(factor[_place(i, j)], lower[_place(j, j)], out=lower[_place(i, j)])
                for k in range(j + 1, i):
                    entry += np.multiply(factor[_place(i, k)], lower[_place(k, j)], out=product)
                np.negative(entry, out=entry)
                entry *= factor[_place(i, i)]
        for i in range(self.n):  # in place: what is overwritten is not needed any more
            for j in range(i + 1):
                entry = lower[_place(i, j)]
                np.multiply(lower[_place(i, i)], entry, out=entry)
                for k in range(i + 1, self.n):
                    entry += np.multiply(lower[_place(k, i)], lower[_place(k, j)], out=product)
        return lower.swapaxes(0, 1)


def _place(i: int, j: int) -> int:
    return i * (i + 1) // 2 + j
