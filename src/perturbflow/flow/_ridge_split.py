"""Ridge regression on a sparse design, solved apart for levels that were never together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RidgeSplit:
    r"""The normal equations :math:`(D^T D + \lambda I) b = D^T y` of a design D (g, L), with a penalty above 0.

    Levels that occur together, or through other levels, form a block; most are alone in theirs. Costs O(sum of b^3) for
    blocks of b levels.
    """

    def __init__(self, design: sparse.csr_matrix, penalty: float) -> None:
        self.design, self.transposed = design, sparse.csr_matrix(design.T)
        gram = sparse.csr_matrix(self.transposed @ design)
        self._diagonal = gram.diagonal() + penalty
        n_blocks, self._block = sparse.csgraph.connected_components(gram, directed=False)
        order = np.argsort(self._block, kind="stable")
        members = np.split(order, np.cumsum(np.bincount(self._block, minlength=n_blocks))[:-1]) if n_blocks else []
        self._levels = {int(self._block[own[0]]): own for own in members if len(own) > 1}
        self._factors = {
            block: cho_factor(gram[own][:, own].toarray() + penalty * np.eye(len(own)), lower=True)
            for block, own in self._levels.items()
        }

    @property
    def is_alone(self) -> NDArray[np.bool_]:
        """Return whether a level was never together with another (L,)."""
        return np.bincount(self._block)[self._block] == 1

    def solve(self, effects: NDArray[np.float64]) -> NDArray[np.float64]:
        """Parts of levels (L, n) from the effects of groups (g, n)."""
        right = self.transposed @ effects
        parts = right / self._diagonal[:, None]
        for block, own in self._levels.items():
            parts[own] = cho_solve(self._factors[block], right[own])
        return parts

    def leverages(self) -> NDArray[np.float64]:
        """Return how far the effect of every group decides its own fit, the diagonal of ``D (D^T D + penalty)^-1 D^T`` (g,)."""
        precision = 1 / self._diagonal
        found = np.asarray(self.design.multiply(self.design) @ precision).ravel()
        first = self.design.indptr[:-1][np.diff(self.design.indptr) > 0]
        block = np.full(self.design.shape[0], -1)
        block[np.diff(self.design.indptr) > 0] = self._block[self.design.indices[first]]
        order = np.argsort(block, kind="stable")
        for number, own in self._levels.items():
            first, last = np.searchsorted(block[order], [number, number + 1])
            groups = order[first:last]
            weights = self.design[groups][:, own].toarray().T
            found[groups] = (weights * cho_solve(self._factors[number], weights)).sum(axis=0)
        return found
