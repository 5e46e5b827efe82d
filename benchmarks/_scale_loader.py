"""How many cells a second random batches have that are read from files."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perturbflow.screen import Expression

BATCH_SIZE = 256
CELLS_OF_A_CHUNK = 64


def write_zarr(h5ad: Path, path: Path) -> None:
    """Write the cells of an h5ad file to a zarr store as annbatch lays it out, where it is installed."""
    import anndata
    import zarr

    adata = anndata.read_h5ad(h5ad)
    if find_spec("annbatch") is None:
        adata.write_zarr(path, chunks=(CELLS_OF_A_CHUNK, adata.n_vars))
        return
    import annbatch

    annbatch.write_sharded(zarr.open_group(path, mode="w", zarr_format=3), adata)


def rates(h5ad: Path, store: Path, n_buffers: int) -> list[dict[str, Any]]:
    """Cells a CPU second, from buffers of cells that are shuffled in memory."""
    import anndata
    import zarr

    from perturbflow.screen import Expression
    from perturbflow.train import BUFFER

    matrices = {
        "h5ad": anndata.read_h5ad(h5ad, backed="r").X,
        "zarr": anndata.io.sparse_dataset(zarr.open_group(store, mode="r")["X"]),
    }
    rows = []
    for width in (64, 512):
        if find_spec("annbatch") is not None:
            seconds = _of_annbatch(matrices["zarr"], width, n_buffers)
            rows.append({"loader": "annbatch", "file": "zarr", "window": width, "seconds": seconds})
        for form, matrix in matrices.items():
            seconds = _of_windows(Expression(matrix, where="X"), width, n_buffers)
            rows.append({"loader": "perturbflow", "file": form, "window": width, "seconds": seconds})
    seconds = _of_single_cells(Expression(matrices["h5ad"], where="X"), n_buffers)
    rows.append({"loader": "perturbflow", "file": "h5ad", "window": "none", "seconds": seconds})
    for row in rows:
        row["cells/s"] = round(n_buffers * BUFFER / row.pop("seconds"))
    return rows


def _of_annbatch(matrix: Any, width: int, n_buffers: int) -> float:
    """Seconds of batches as annbatch's own loader gives them, after the first buffer."""
    from annbatch import Loader

    from perturbflow.train import BUFFER

    loader = Loader(
        chunk_size=width,
        preload_nchunks=BUFFER // width,
        batch_size=BATCH_SIZE,
        shuffle=True,
        preload_to_gpu=False,
        rng=np.random.default_rng(0),
    ).add_dataset(matrix)
    steps = BUFFER // BATCH_SIZE
    batches = iter(loader)
    for _ in range(steps):
        next(batches)
    start = time.process_time()
    for _ in range(n_buffers * steps):
        next(batches)
    return time.process_time() - start


def _of_windows(x: Expression, width: int, n_buffers: int) -> float:
    """Seconds of the same for windows as training draws them."""
    from perturbflow.train import Windows

    windows = Windows(len(x), BATCH_SIZE, width, seed=0)
    return _of_steps(x, windows.rows, windows.n_steps, n_buffers)


def _of_single_cells(x: Expression, n_buffers: int) -> float:
    """Seconds of batches of cells that are drawn one by one."""
    from perturbflow.train import BUFFER

    def rows_of(number: int) -> np.ndarray:
        return np.random.default_rng(number).integers(len(x), size=BATCH_SIZE)

    return _of_steps(x, rows_of, BUFFER // BATCH_SIZE, n_buffers)


def _of_steps(x: Expression, rows_of: Callable[[int], np.ndarray], at_once: int, n_buffers: int) -> float:
    x[np.arange(1)]
    start = time.process_time()
    for buffer in range(n_buffers):
        steps = [rows_of(number) for number in range(buffer * at_once, (buffer + 1) * at_once)]
        distinct = np.unique(np.concatenate(steps))
        block = x[distinct]
        for rows in steps:
            block[np.searchsorted(distinct, rows)]
    return time.process_time() - start
