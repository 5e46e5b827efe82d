"""Counts of a part of the cells and genes of an h5ad file, read block by block: whole files may not fit in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from anndata.utils import make_index_unique
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

ROWS_AT_ONCE = 4096


def read_counts(
    path: Path,
    *,
    matrix: str = "X",
    cells: Callable[[pd.DataFrame], NDArray[np.bool_]] | None = None,
    genes: Callable[[pd.DataFrame], NDArray[np.bool_]] | None = None,
) -> AnnData:
    """Read CSR counts of float32 from a matrix of an h5ad file, with the annotations of the cells and genes that are kept."""
    import h5py
    from anndata.io import read_elem, sparse_dataset

    with h5py.File(path, "r") as file:
        obs, var = read_elem(file["obs"]), read_elem(file["var"])
        rows = np.ones(len(obs), dtype=bool) if cells is None else cells(obs)
        columns = np.ones(len(var), dtype=bool) if genes is None else genes(var)
        entry = file[matrix]
        is_sparse = isinstance(entry, h5py.Group)
        if is_sparse and entry.attrs["encoding-type"] == "csc_matrix":  # has to be turned as a whole
            x = sparse.csr_matrix(read_elem(entry), dtype=np.float32)[rows][:, columns]
        else:
            source: Any = sparse_dataset(entry) if is_sparse else entry
            x = sparse.vstack(list(_blocks(source, rows, columns)), format="csr")
    obs, var = obs[rows].copy(), var[columns].copy()
    obs.index, var.index = (make_index_unique(names.astype(str)) for names in (obs.index, var.index))
    for column in obs.select_dtypes("category"):
        obs[column] = obs[column].cat.remove_unused_categories()
    return AnnData(x, obs=obs, var=var)


def _blocks(source: Any, rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> list[sparse.csr_matrix]:
    found = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        here = rows[start : start + ROWS_AT_ONCE]
        if here.any():
            block = sparse.csr_matrix(source[start : start + len(here)], dtype=np.float32)[here]
            found.append(block if columns.all() else block[:, columns])
    return found
