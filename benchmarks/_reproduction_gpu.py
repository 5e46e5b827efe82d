"""The paper's preset on a split of PerturBench, judged by its metrics, within minutes on one GPU."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _common import markdown

import perturbflow as pf

METRICS = (
    *("energy_loss", "energy_loss_in_components", "recall_of_top_genes", "cosine_of_log_fold_changes"),
    *("rmse_of_mean_effects", "energy_distance"),
)
GUIDANCES = (1.0, 3.0)
BASELINES = ("control cells", "additive effect")
# Each fit gets this share of the time; the rest is for reading and judging.
SHARES = {"U-Net": 0.55, "MLP": 0.15}
WIDER = {"width": 64, "batch_size": 768}
PROBES = (40, 160)  # steps


def of_gpu(file: Path | None, scenario: str, *, minutes: float, quick: bool, output: Path) -> None:
    """Fit U-Net and MLP with plain velocity from noise, and print PerturBench's metrics on its test conditions.

    Parameters
    ----------
    file
        Log-normalised cells with ``obs["perturbation"]``, "control" among them, and perhaps ``obs["cell_type"]``; 2,000 genes
        at most are kept, the most variable. Simulated cells without it.
    scenario
        Named split, see :func:`perturbflow.pp.split_scenario`.
    minutes
        Time for everything.
    quick
        Small networks and a few steps: the same path on a CPU.
    output
        Where the table goes.
    """
    started = time.perf_counter()
    adata = _read(file, quick=quick)
    pf.pp.split_scenario(adata, scenario)
    print(f"{adata.n_obs:,} cells, {adata.n_vars:,} genes, split {scenario}, torch {torch.__version__}", flush=True)
    rows = []
    for network, share in SHARES.items():
        options: dict[str, Any] = {"max_steps": 20, "batch_size": 64, "width": 8} if quick else dict(WIDER)
        if network == "MLP":
            options |= {"network": "mlp", "width": 32 if quick else 1024}
        begun = time.perf_counter()
        if not quick:
            options["max_steps"] = _steps_within(adata, options, seconds=60 * share * minutes)
        _fit(adata, options)
        history = adata.uns["flow"]["history"]
        seen = int(np.max(history["step"])) * options["batch_size"]
        print(f"{network}: {seen:,} cells seen, {time.perf_counter() - begun:.0f} s", flush=True)
        for weight in GUIDANCES:
            baselines = BASELINES if not rows else BASELINES[:1]
            for model, scores in _means(adata, baselines, guidance=weight, quick=quick).items():
                if model == "flow":
                    rows.append({"model": network, "guidance": f"{weight:g}", "cells seen": f"{seen:,}"} | scores)
                elif model not in {row["model"] for row in rows}:
                    rows.append({"model": model, "guidance": "", "cells seen": ""} | scores)
    table = pd.DataFrame(rows)
    table.to_csv(output / "primeflow_reproduction_gpu.csv", index=False)
    print(f"\n{markdown(table.round(4).set_index('model'))}\n\n{time.perf_counter() - started:.0f} s in all")


def _fit(adata: Any, options: dict[str, Any]) -> float:
    """Fit the preset; the seconds it took."""
    begun = time.perf_counter()
    of_model = {name: options[name] for name in ("network", "width") if name in options}
    pf.tl.fit_flow(
        adata,
        preset="primeflow",
        max_steps=options["max_steps"],
        model_kwargs={"guidance": 1.0, **of_model},
        plan_kwargs={"calibrate": False, "patience": 1_000, "batch_size": options["batch_size"]},
        progress_bar=False,
    )
    return time.perf_counter() - begun


def _steps_within(adata: Any, options: dict[str, Any], *, seconds: float) -> int:
    """How many steps fit into some seconds, so that the schedule of the learning rate ends with them."""
    few, more = (_fit(adata, options | {"max_steps": n_steps}) for n_steps in PROBES)
    # The shorter fit has warmed everything up, and has the costs that do not grow with the steps.
    per_step = max(more - few, 0.1 * more) / (PROBES[1] - PROBES[0])
    return max(PROBES[1], int((seconds - few) / per_step))


def _read(file: Path | None, *, quick: bool) -> Any:
    """Cells of the most variable genes, registered."""
    if file is None:
        size = {"n_cells": 900, "n_genes": 60} if quick else {"n_cells": 20_000, "n_genes": 1_000}
        adata = pf.datasets.simulated_perturb_seq(n_perturbations=6, n_combinations=8, **size)
    else:
        adata = ad.read_h5ad(file)
    n_genes = 60 if quick else 2_000
    if adata.n_vars > n_genes:
        dense = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
        adata = adata[:, np.sort(np.argsort(-dense.var(axis=0), kind="stable")[:n_genes])].copy()
    keys = [key for key in ("cell_type",) if key in adata.obs]
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=keys)
    return adata


def _means(adata: Any, baselines: tuple[str, ...], *, guidance: float, quick: bool) -> dict[str, dict[str, float]]:
    """PerturBench's metrics, means over test conditions, by model."""
    pf.tl.evaluate(
        adata,
        metrics=METRICS,
        baselines=baselines,
        splits="test",
        guidance=guidance,
        n_cells=50 if quick else 1000,
        n_resamples=1,
        n_permutations=0,
        device="cuda" if torch.cuda.is_available() else "cpu",
        progress_bar=False,
    )
    means = adata.uns["evaluation"].groupby(["model", "metric"], sort=False)["value"].mean().unstack("metric")
    return {str(model): {str(name): float(value) for name, value in row.items()} for model, row in means.iterrows()}
