"""What the prior of simulated screens in memory costs, and how registration, prior, distributions and steps grow.

A twentieth of the genes of a perturbation are changed. Memory is the highest resident set, the cells included; the size of a
prior is that of the arrays that a store holds.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from _memory import resident
from anndata import AnnData
from lightning.pytorch.callbacks import Callback
from scipy import sparse

import perturbflow as pf
from perturbflow.flow import AdditiveHurdlePrior, Calibration, CellData, ConditionalFlow, FlowConfig, GroupSums
from perturbflow.train import train_flow

CONTROLS = 200  # cells of every context
CELLS_AT_ONCE = 5_000
N_STEPS = 12
N_LAWS = 200
MEASURED = ("setup", "sums", "prior", "distributions of all groups", "one distribution", "step")


@dataclass(frozen=True)
class Size:
    """A screen of so many cells, genes, perturbations and contexts."""

    cells: int
    genes: int
    perturbations: int
    contexts: int


START = Size(cells=20_000, genes=500, perturbations=100, contexts=1)
GROWTH = {
    "cells": [replace(START, cells=n) for n in (20_000, 60_000, 180_000)],
    "genes": [replace(START, genes=n) for n in (500, 2_000, 8_000)],
    "perturbations": [replace(START, cells=60_000, perturbations=n) for n in (500, 1_500, 4_500)],
    "contexts": [replace(START, cells=60_000, perturbations=20, contexts=n) for n in (10, 20, 40)],
}
QUICK = {
    "cells": [replace(START, genes=50, perturbations=5, cells=n) for n in (1_000, 4_000)],
    "contexts": [replace(START, cells=4_000, genes=50, perturbations=5, contexts=n) for n in (2, 6)],
}


def screen(size: Size, seed: int = 0) -> CellData:
    """Simulate cells: controls of every context first, then every perturbation in every context about equally often."""
    rng = np.random.default_rng(seed)
    common = rng.gamma(0.4, 0.25, size.genes)
    # Contexts are of ten kinds, as cell lines are of tissues.
    kinds = np.exp(rng.normal(0, 0.3, (10, size.genes)))[np.arange(size.contexts) % 10]
    rates = common * kinds * np.exp(rng.normal(0, 0.2, (size.contexts, size.genes)))
    n_changed = max(1, size.genes // 20)
    changed = rng.integers(0, size.genes, (size.perturbations, n_changed))
    factors = np.exp(rng.normal(0, 0.7, changed.shape))
    group = np.concatenate(
        [np.full(CONTROLS * size.contexts, -1), np.arange(size.cells) % (size.perturbations * size.contexts)]
    )
    context = np.where(group < 0, np.arange(len(group)) // CONTROLS, group // size.perturbations)
    component = np.where(group < 0, -1, group % size.perturbations)
    parts = []
    for first in range(0, len(group), CELLS_AT_ONCE):
        rows = slice(first, first + CELLS_AT_ONCE)
        rate = rates[context[rows]]
        own = np.flatnonzero(component[rows] >= 0)
        which = component[rows][own]
        rate[own[:, None], changed[which]] *= factors[which]
        counts = sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
        counts.data = np.log1p(counts.data)
        parts.append(counts)
    perturbed = np.flatnonzero(component >= 0)
    doses = sparse.csr_matrix(
        (np.ones(len(perturbed), dtype=np.float32), (perturbed, component[perturbed])),
        shape=(len(group), size.perturbations),
    )
    return CellData(sparse.vstack(parts, format="csr"), doses, context[:, None])


def contexts(size: Size) -> dict[str, Any]:
    """Sums, prior and calibration of one screen."""
    cells = screen(size)
    row: dict[str, Any] = asdict(size)
    start = time.process_time()
    sums = GroupSums.of(cells)
    prior = AdditiveHurdlePrior.fit(sums)
    row |= {"groups": len(prior.group_contexts), "prior, s": time.process_time() - start}
    row["prior, MB"] = sum(array.nbytes for array in prior.to_arrays().values()) / 1e6
    del prior, sums
    start = time.process_time()
    Calibration.fit(cells)
    row |= {"calibration, s": time.process_time() - start, "peak, GB": resident() / 1e9}
    return {name: round(value, 2) for name, value in row.items()}


def growth(size: Size) -> dict[str, Any]:
    """Seconds of registration, sums, prior, distributions and a step of training for one screen."""
    cells = screen(size)
    adata = AnnData(cells.x)
    components = pd.Index([f"gene_{i}" for i in range(size.perturbations)])
    doses = cells.perturbations
    labels = np.full(len(cells), "control", dtype=object)
    labels[np.repeat(np.arange(len(cells)), np.diff(doses.indptr))] = components[doses.indices]
    adata.obs["perturbation"] = pd.Categorical(labels)
    adata.obs["context"] = pd.Categorical([f"context_{code}" for code in cells.covariates[:, 0]])
    row: dict[str, Any] = asdict(size)
    before = time.process_time()

    def stop(name: str, n: int = 1) -> None:
        nonlocal before
        row[name], before = (time.process_time() - before) / n, time.process_time()

    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["context"])
    stop("setup")
    sums = GroupSums.of(cells)
    stop("sums")
    prior = AdditiveHurdlePrior.fit(sums)
    stop("prior")
    prior.distributions(sums.doses, sums.covariates)
    stop("distributions of all groups")
    context = prior.context(sums.covariates[0])
    for i in np.arange(N_LAWS) % size.perturbations:
        prior.distribution(np.eye(1, size.perturbations, i)[0], context)
    stop("one distribution", N_LAWS)
    config = FlowConfig(n_genes=size.genes, n_components=size.perturbations, n_categories=(size.contexts,))
    steps = _Steps()
    settings = pf.flow.TrainingSettings(max_steps=N_STEPS)
    train_flow(ConditionalFlow(config, prior), cells, settings, trainer_options={"callbacks": [steps]})
    row["step"] = float(np.median(np.diff(steps.ends)[2:]))
    return row


class _Steps(Callback):
    """When steps have ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.ends.append(time.process_time())


def exponents(rows: pd.DataFrame, name: str) -> dict[str, Any]:
    """Slopes of the logarithms of the seconds over that of a size, between the smallest and the largest."""
    ends = rows.iloc[[0, -1]]
    size = np.diff(np.log(ends[name]))[0]
    return {"with": name} | {step: round(np.diff(np.log(ends[step]))[0] / size, 2) for step in MEASURED}
