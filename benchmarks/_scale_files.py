"""Large sparse screens in files, written a chunk at a time, and measurements in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from pathlib import Path

CELLS_AT_ONCE = 20_000
EXPRESSED = 0.05  # of the genes of a cell
CONTROL_FRACTION = 0.1


def apart(function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own, on one thread."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"  # read when the new process loads NumPy
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def write_screen(path: Path, n_cells: int, n_genes: int, n_perturbations: int) -> None:
    """Write log-normalised cells to an h5ad file, with one gene changed by each perturbation."""
    import anndata
    import h5py

    rng = np.random.default_rng(0)
    names = np.array(["control", *(f"gene_{i}" for i in range(n_perturbations))])
    codes = rng.integers(1, n_perturbations + 1, n_cells) * (rng.random(n_cells) >= CONTROL_FRACTION)
    n_expressed = max(2, round(EXPRESSED * n_genes))
    obs = pd.DataFrame({"perturbation": pd.Categorical.from_codes(codes, names)})
    obs.index = obs.index.astype(str)
    var = pd.DataFrame(index=[f"gene_{i}" for i in range(n_genes)])
    with h5py.File(path, "w") as file:
        for first in range(0, n_cells, CELLS_AT_ONCE):
            own = codes[first : first + CELLS_AT_ONCE]
            columns = rng.integers(n_genes, size=(len(own), n_expressed)).astype(np.int32)
            columns[:, 0] = np.where(own > 0, own % n_genes, columns[:, 0])
            values = 2.5 * rng.integers(1, 6, size=columns.shape).astype(np.float32)
            ends = n_expressed * np.arange(len(own) + 1)
            block = sparse.csr_matrix((values.ravel(), columns.ravel(), ends), shape=(len(own), n_genes))
            block.sum_duplicates()
            block = block.log1p()
            if first == 0:
                anndata.io.write_elem(file, "/", anndata.AnnData(X=block, var=var))
            else:
                anndata.io.sparse_dataset(file["X"]).append(block)
        del file["obs"]
        anndata.io.write_elem(file, "obs", obs)
