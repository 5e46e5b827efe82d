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
        self.n, self._factor = n, np.empty(entries.shape)  # diagonals are stored as their inverses
        for i in range(n):
            for j in range(i + 1):
                entry = entries[:, _place(i, j)].copy()
                for k in range(j):
                    entry -= self._factor[:, _place(i, k)] * self._factor[:, _place(j, k)]
                if i == j:
                    self._factor[:, _place(i, i)] = 1 / np.sqrt(entry)
                else:
                    np.multiply(entry, self._factor[:, _place(j, j)], out=self._factor[:, _place(i, j)])

    def log_determinant(self) -> NDArray[np.float64]:
        """Logarithms of the determinants (S, G)."""
        return -2 * sum((np.log(self._factor[:, _place(i, i)]) for i in range(self.n)), start=np.zeros(()))

    def solve(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """Solve for right sides (S, n, G)."""
        found = np.array(right, dtype=np.float64)
        for i in range(self.n):
            for k in range(i):
                found[:, i] -= self._factor[:, _place(i, k)] * found[:, k]
            found[:, i] *= self._factor[:, _place(i, i)]
        for i in reversed(range(self.n)):
            for k in range(i + 1, self.n):
                found[:, i] -= self._factor[:, _place(k, i)] * found[:, k]
            found[:, i] *= self._factor[:, _place(i, i)]
        return found

    def inverse(self, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
        """Lower triangles of the inverses at some scales, as ``entries`` has them (K, n (n + 1) / 2, G)."""
        factor = self._factor[chosen]
        lower = np.empty(factor.shape)  # the inverse of the factor
        for j in range(self.n):
            lower[:, _place(j, j)] = factor[:, _place(j, j)]
            for i in range(j + 1, self.n):
                entry = factor[:, _place(i, j)] * lower[:, _place(j, j)]
                for k in range(j + 1, i):
                    entry += factor[:, _place(i, k)] * lower[:, _place(k, j)]
                np.multiply(entry, -factor[:, _place(i, i)], out=lower[:, _place(i, j)])
        found = np.zeros(factor.shape)
        for i in range(self.n):
            for j in range(i + 1):
                for k in range(i, self.n):
                    found[:, _place(i, j)] += lower[:, _place(k, i)] * lower[:, _place(k, j)]
        return found


def _place(i: int, j: int) -> int:
    return i * (i + 1) // 2 + j
