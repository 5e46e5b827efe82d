"""What predictions take that go to a file, from control cells in a file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from _memory import resident

if TYPE_CHECKING:
    from pathlib import Path

CELLS_A_PERTURBATION = 20
CONTROLS = 2000


def write_fitted(path: Path, n_perturbations: int, n_genes: int, max_steps: int) -> list[str]:
    """Simulate a screen, fit a flow to it, write both, and name the perturbations."""
    import perturbflow as pf

    n_cells = CONTROLS + CELLS_A_PERTURBATION * n_perturbations
    adata = pf.datasets.simulated_perturb_seq(
        n_cells=n_cells,
        n_genes=n_genes,
        n_perturbations=n_perturbations,
        n_combinations=0,
        control_fraction=CONTROLS / n_cells,
    )
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    pf.tl.fit_flow(adata, max_steps=max_steps, plan_kwargs={"calibrate": False}, progress_bar=False)
    adata.write_h5ad(path)
    return sorted(set(adata.obs["perturbation"]) - {"control"})


def predict(screen: Path, labels: list[str], n_cells: int, output: Path) -> dict[str, Any]:
    """Predict cells of some perturbations into a file, and measure it."""
    import anndata

    import perturbflow as pf

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
