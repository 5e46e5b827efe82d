"""Memory and time of predictions that go to a file, by the number of perturbations.

A flow is fitted to simulated cells, which are written to an h5ad file and stay there: the control cells that predictions start
from are read from the file too. Every row is a process of its own on one thread. Memory is the highest resident set of the
process beyond what it had after its imports; seconds are CPU seconds.

    python benchmarks/predict_scale.py [--perturbations 10 100 300] [--cells 1000] [--genes 2000] [--form zarr]
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from _common import markdown, one_thread
from _memory import resident

CELLS_A_PERTURBATION = 20
CONTROLS = 2000


def apart(function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def write_screen(path: Path, n_perturbations: int, n_genes: int, max_steps: int) -> list[str]:
    """Simulate a screen, fit a flow to it, write both, and name the perturbations."""
    import perturbflow as pf

    one_thread()
    n_cells = CONTROLS + CELLS_A_PERTURBATION * n_perturbations
    adata = pf.datasets.simulated_perturb_seq(
        n_cells=n_cells,
        n_genes=n_genes,
        n_perturbations=n_perturbations,
        n_combinations=0,
        control_fraction=CONTROLS / n_cells,
    )
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    pf.tl.fit_flow(adata, max_steps=max_steps, calibrate=False, progress_bar=False)
    adata.write_h5ad(path)
    return sorted(set(adata.obs["perturbation"]) - {"control"})


def predict(screen: Path, labels: list[str], n_cells: int, output: Path) -> dict[str, Any]:
    """Predict cells of some perturbations into a file, and measure it."""
    import anndata

    import perturbflow as pf

    one_thread()
    predict_perturbation = pf.tl.predict_perturbation  # which loads what it needs
    adata = anndata.read_h5ad(screen, backed="r")
    imported, started = resident(), time.process_time()
    predict_perturbation(adata, labels, n_cells=n_cells, path=output)
    seconds, peak = time.process_time() - started, resident() - imported
    files = [output] if output.is_file() else [file for file in output.rglob("*") if file.is_file()]
    return {
        "perturbations": len(labels),
        "cells": n_cells * len(labels),
        "memory, MB": round(peak / 1e6),
        "CPU seconds": round(seconds, 1),
        "cells/s": round(n_cells * len(labels) / seconds),
        "file, MB": round(sum(file.stat().st_size for file in files) / 1e6),
        "dense, MB": round(4 * n_cells * len(labels) * adata.n_vars / 1e6),
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perturbations", type=int, nargs="+", default=[10, 100, 300])
    parser.add_argument("--cells", type=int, default=1000, help="of every perturbation")
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--form", choices=("zarr", "h5ad"), default="zarr")
    parser.add_argument("--max-steps", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        screen = Path(folder) / "screen.h5ad"
        labels = apart(write_screen, screen, max(options.perturbations), options.genes, options.max_steps)
        rows = []
        for n in options.perturbations:
            output = Path(folder) / f"predicted_{n}.{options.form}"
            rows.append(apart(predict, screen, labels[:n], options.cells, output))
            print(f"  {rows[-1]}", flush=True)
    table = pd.DataFrame(rows).set_index("perturbations")
    print(markdown(table))


if __name__ == "__main__":
    main()
