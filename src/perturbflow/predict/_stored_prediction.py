"""Storage of predicted cells beside the control cells that they started from: written and read here alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from perturbflow._checks import check_key
from perturbflow.screen._annotations import in_memory

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

_AGAIN = "Run `pf.tl.predict_perturbation(adata, ...)` again."


@dataclass(frozen=True, eq=False)
class StoredPrediction:
    """Predicted cells of one perturbation."""

    values: sparse.csr_matrix  # CSR (n_obs, n_vars), empty in rows and genes without a prediction
    has_gene: NDArray[np.bool_]  # whether the flow knew a gene (n_vars,)

    @property
    def has_cell(self) -> NDArray[np.bool_]:
        """Return whether a row has a predicted cell (n_obs,): one that stores any value, be it a zero."""
        return self.values.getnnz(axis=1) > 0

    def cells(self, rows: NDArray[np.integer] | NDArray[np.bool_], genes: NDArray[np.integer]) -> sparse.csr_matrix:
        """Predicted cells of some rows and genes, in their order: CSR (n, G)."""
        return self.values[rows][:, genes]


def scattered(
    blocks: Sequence[sparse.csr_matrix],
    rows: NDArray[np.intp],
    genes: NDArray[np.intp],
    shape: tuple[int, int],
) -> sparse.csr_matrix:
    """Put predicted cells into the rows (n,) of their control cells and the columns (G,) of their genes.

    Other rows store nothing. A cell in which nothing is expressed stores one zero, which tells it from these.
    """
    cells = sparse.vstack(blocks, format="csr")[np.argsort(rows)]
    sizes = np.diff(cells.indptr)
    starts = cells.indptr[:-1][sizes == 0]
    values, columns = np.insert(cells.data, starts, 0), np.asarray(genes)[np.insert(cells.indices, starts, 0)]
    ends = np.zeros(shape[0] + 1, dtype=np.int64)
    ends[np.sort(rows) + 1] = np.maximum(sizes, 1)
    found = sparse.csr_matrix((values, columns, np.cumsum(ends)), shape=shape)
    found.sort_indices()
    return found


def read_prediction(adata: AnnData, key: str, name: str) -> StoredPrediction:
    """Read the predicted cells in ``obsm[name]``, described in ``uns[key]``; KeyError if a part is missing."""
    check_key(name, adata.obsm, where="adata.obsm", hint=_AGAIN)
    check_key(f"{key}_sd", adata.varm, where="adata.varm", hint=_AGAIN)
    known: Any = in_memory(adata.varm[f"{key}_sd"])
    return StoredPrediction(
        values=sparse.csr_matrix(in_memory(adata.obsm[name])),
        has_gene=np.asarray(np.isfinite(np.asarray(known, dtype=np.float64)).all(axis=1)),
    )
