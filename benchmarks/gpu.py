"""Speed and convergence of the flow on one GPU, within ten minutes, with nothing but torch, NumPy and SciPy.

Prints the rate of a large matrix product; for the MLP and the U-Net at 2,000 and 18,000 genes the cells trained on a second,
the share of that rate that their matrix products and convolutions reach, and the time of an epoch of 100,000 cells, in single
precision and in bfloat16 where the hardware has it; then trains the paper's preset on real cells until the energy distance to
held-out conditions no longer falls. Seconds are those of the wall.

    python benchmarks/gpu.py --prepare norman.npz          # where the data and all of perturbflow are
    python benchmarks/gpu.py [--cells norman.npz] [--device cuda] [--minutes 10] [--quick]   # where the GPU is
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _gpu_work import HeldOut, Training, converge, measure_training, new_flow, peak, simulated_cells
from scipy import sparse

from perturbflow.flow import CellData
from perturbflow.train import FlowOptions

EPOCH = 100_000
NETWORKS = {"MLP": "default", "U-Net": "primeflow"}


def prepare(path: Path) -> None:
    """Write the Norman cells with what was done to them and which are held out."""
    import perturbflow as pf

    adata = pf.datasets.norman_mcfaline_subset("norman")
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    pf.pp.split_perturbations(adata, task="combination")
    cells = pf.evaluation.registered_cells(adata)
    x, doses = sparse.csr_matrix(cells.x), cells.perturbations
    np.savez_compressed(
        path,
        **{f"x_{name}": getattr(x, name) for name in ("data", "indices", "indptr")},
        **{f"doses_{name}": getattr(doses, name) for name in ("data", "indices", "indptr")},
        shapes=np.array([x.shape, doses.shape]),
        covariates=cells.covariates,
        held_out=(adata.obs["split"] == "valid").to_numpy(),
        left_out=(adata.obs["split"] == "test").to_numpy(),
    )


def read(path: Path) -> tuple[CellData, np.ndarray]:
    """Cells of training and validation, and which are held out."""
    with np.load(path) as file:
        x, doses = (
            sparse.csr_matrix(
                tuple(file[f"{name}_{part}"] for part in ("data", "indices", "indptr")), shape=file["shapes"][place]
            )
            for place, name in enumerate(("x", "doses"))
        )
        kept = np.flatnonzero(~file["left_out"])
        cells = CellData(x, doses, file["covariates"]).subset(kept)
        return cells, file["held_out"][kept]


def speeds(device: torch.device, *, quick: bool, clock: Any) -> None:
    """Print the speed of every network, number of genes, batch and precision."""
    on_gpu = device.type == "cuda"
    precisions = {"single": torch.float32}
    if on_gpu and torch.cuda.is_bf16_supported():
        precisions["bfloat16"] = torch.bfloat16
    rates = {name: peak(device, dtype, 8192 if on_gpu else 512) for name, dtype in precisions.items()}
    for name, rate in rates.items():
        print(f"matrix product in {name}: {rate / 1e12:.3f} TFLOP/s", flush=True)
    header = ("network", "genes", "batch", "precision", "cells/s", "TFLOP/s", "of the peak", "s an epoch", "memory, GB")
    print("\n| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    seconds = 0.2 if quick else 6 if on_gpu else 3
    for n_genes in (60, 80) if quick else (2_000, 18_000):
        cells = simulated_cells(500 if quick else 4_000, n_genes)
        for title, preset in NETWORKS.items():
            for batch_size in (8,) if quick or not on_gpu else (FlowOptions.of(preset).training.batch_size, 1024):
                for name, rate in rates.items():
                    if clock():
                        return
                    options = FlowOptions.of(preset, model_kwargs={"width": 8} if quick else {})
                    flow = new_flow(cells, options.model, device, mixed=name == "bfloat16")
                    settings = replace(options.training, batch_size=batch_size)
                    try:
                        speed = measure_training(Training(flow, cells, settings), seconds)
                    except torch.OutOfMemoryError:
                        print(f"| {title} | {n_genes:,} | {batch_size} | {name} | out of memory |", flush=True)
                        continue
                    reached = speed.cells_per_second * speed.flops_per_cell
                    row = (
                        *(title, f"{n_genes:,}", batch_size, name, f"{speed.cells_per_second:,.0f}"),
                        *(f"{reached / 1e12:.3f}", f"{reached / rate:.0%}", f"{EPOCH / speed.cells_per_second:.1f}"),
                        "" if math.isnan(speed.memory) else f"{speed.memory / 1e9:.1f}",
                    )
                    print("| " + " | ".join(map(str, row)) + " |", flush=True)
                    if on_gpu:
                        torch.cuda.reset_peak_memory_stats(device)


def convergence(cells: CellData, held_out: np.ndarray, device: torch.device, *, quick: bool, clock: Any) -> None:
    """Train the paper's preset, and print the energy distance against the cells seen."""
    options = FlowOptions.of("primeflow", model_kwargs={"width": 8} if quick else {})
    changes: dict[str, Any] = (
        {"max_steps": 20, "batch_size": 24} if quick else {"max_steps": 100_000, "batch_size": 256}
    )
    training_cells = cells.subset(np.flatnonzero(~held_out))
    mixed = device.type == "cuda" and torch.cuda.is_bf16_supported()
    flow = new_flow(training_cells, options.model, device, mixed=mixed)
    scored = HeldOut(cells, held_out, n_cells=20 if quick else 100)
    print(f"\n{len(training_cells):,} training cells, {len(scored.parts)} held-out conditions\n", flush=True)
    names = ("cells seen", "seconds", "loss", "energy distance")
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    training = Training(flow, training_cells, replace(options.training, **changes))
    every = 10 if quick else 500
    for row in converge(
        training, scored, every=every, patience=8, clock=clock, method="multistep", n_steps=4 if quick else 20
    ):
        print("| " + " | ".join(str(row[name]) for name in names) + " |", flush=True)
    print(f"\nstopped after {training.number} steps{', for lack of time' if clock() else ''}")


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, metavar="FILE", help="write the real cells and end")
    parser.add_argument("--cells", type=Path, metavar="FILE", help="what --prepare wrote; simulated cells without")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--quick", action="store_true", help="tiny networks, in seconds")
    options = parser.parse_args()
    if options.prepare is not None:
        prepare(options.prepare)
        return
    started, device = time.perf_counter(), torch.device(options.device)

    def later_than(share: float) -> Any:
        return lambda: time.perf_counter() - started > share * 60 * options.minutes

    print(f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'}, torch {torch.__version__}")
    speeds(device, quick=options.quick, clock=later_than(0.4))
    if options.cells is not None:
        cells, held_out = read(options.cells)
    else:
        cells = simulated_cells(600, 40) if options.quick else simulated_cells(20_000, 1_000)
        held_out = (cells.perturbations[:, :3].toarray() > 0).any(axis=1)
    convergence(cells, held_out, device, quick=options.quick, clock=later_than(0.97))


if __name__ == "__main__":
    main()
