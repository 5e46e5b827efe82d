"""Memory and time of a whole fit from a file, by the number of cells and of perturbations.

Sparse log-normalised cells with a gene or two changed by each perturbation are written to an h5ad file, a chunk at a time. Then
a process of its own, on one thread, opens the file backed and registers, splits and fits; it also takes batches alone, for
the rate at which cells are read at random. Seconds are CPU seconds. Memory is the highest resident set of the process
beyond what it had after its imports.

    python benchmarks/fit_scale.py [--cells 20000 200000] [--perturbations 100 1000] [--genes 2000] [--max-steps 300]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import markdown, one_thread
from _memory import resident
from predict_scale import apart
from scipy import sparse

CELLS_AT_ONCE = 20_000
EXPRESSED_GENES = 100  # of a cell
CONTROL_FRACTION = 0.1
N_BATCHES = 20


def write_screen(path: Path, n_cells: int, n_genes: int, n_perturbations: int) -> None:
    """Simulate a screen and write it to a file."""
    import anndata
    import h5py

    one_thread()
    rng = np.random.default_rng(0)
    names = np.array(["control", *(f"gene_{i}" for i in range(n_perturbations))])
    codes = rng.integers(1, n_perturbations + 1, n_cells) * (rng.random(n_cells) >= CONTROL_FRACTION)
    obs = pd.DataFrame({"perturbation": pd.Categorical(names[codes], categories=names)})
    obs.index = obs.index.astype(str)
    with h5py.File(path, "w") as file:
        for first in range(0, n_cells, CELLS_AT_ONCE):
            own = codes[first : first + CELLS_AT_ONCE]
            columns = rng.integers(n_genes, size=(len(own), EXPRESSED_GENES)).astype(np.int32)
            columns[:, 0] = np.where(own > 0, own % n_genes, columns[:, 0])
            values = 2.5 * rng.integers(1, 6, size=columns.shape).astype(np.float32)
            indptr = EXPRESSED_GENES * np.arange(len(own) + 1)
            block = sparse.csr_matrix((values.ravel(), columns.ravel(), indptr), shape=(len(own), n_genes))
            block.sum_duplicates()
            block = block.log1p()
            if first == 0:
                anndata.io.write_elem(file, "/", anndata.AnnData(X=block))
            else:
                anndata.io.sparse_dataset(file["X"]).append(block)
        del file["obs"]
        anndata.io.write_elem(file, "obs", obs)


def fit(path: Path, max_steps: int) -> dict[str, Any]:
    """Register, split and fit, and measure each."""
    import anndata

    import perturbflow as pf
    from perturbflow.flow import TrainingSettings
    from perturbflow.screen._fields import read_screen
    from perturbflow.train._fit import fit as fit_model
    from perturbflow.train._flow_data import FlowData

    del fit_model  # the import loads what a fit needs
    one_thread()
    warnings.simplefilter("ignore", UserWarning)
    imported, row = resident(), {}
    started = time.process_time()

    def lap(name: str) -> None:
        nonlocal started
        row[f"{name}, s"] = round(time.process_time() - started, 1)
        started = time.process_time()

    adata = anndata.read_h5ad(path, backed="r")
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    lap("register")
    pf.pp.split_perturbations(adata, task="unseen_perturbation")
    lap("split")
    pf.tl.fit_flow(adata, max_steps=max_steps, progress_bar=False)
    lap("fit")
    row["memory, MB"] = round((resident() - imported) / 1e6)
    prior = adata.uns["flow"]["prior"]
    row["prior, MB"] = round(sum(np.asarray(array).nbytes for array in prior.values()) / 1e6)
    cells = read_screen(adata)
    grouping = cells.grouping()
    data = FlowData(cells, grouping, TrainingSettings())
    started = time.process_time()
    for number in range(N_BATCHES):
        cells.x[data.draw(number).numpy()]
    row["random cells/s"] = round(N_BATCHES * data.settings.batch_size / (time.process_time() - started))
    return row


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--perturbations", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--max-steps", type=int, default=300)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for n_perturbations, n_cells in product(options.perturbations, options.cells):
            path = Path(folder) / "screen.h5ad"
            apart(write_screen, path, n_cells, options.genes, n_perturbations)
            size = {"cells": n_cells, "perturbations": n_perturbations, "file, MB": round(path.stat().st_size / 1e6)}
            rows.append(size | apart(fit, path, options.max_steps))
            print(rows[-1], flush=True)
            path.unlink()
    print(markdown(pd.DataFrame(rows).set_index(["cells", "perturbations"])))


if __name__ == "__main__":
    main()
