"""Time and memory of the prior as cells, genes, perturbations and contexts grow.

Every row is a screen in a process of its own on one thread: sparse log-normalised counts are simulated, a twentieth of
the genes of a perturbation being changed; then come the sums over the groups of cells, the fit of the prior to these
sums, the laws of all groups, and where asked the calibration. Seconds are CPU seconds. Memory is the highest resident
set of the process, the cells included. Size is that of the arrays that a store holds. Exponents are slopes between the
logarithms of the sizes and of the seconds.

    python benchmarks/prior_scale.py [--of cells genes perturbations contexts] [--quick] [--output FOLDER]
    python benchmarks/prior_scale.py --screen 300000 2000 10000 1 [--calibrate]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _memory import resident
from scipy import sparse

from perturbflow.flow import AdditiveHurdlePrior, Calibration, CellData, GroupSums

CONTROLS = 200  # cells of every context
CELLS_AT_ONCE = 5_000
MEASURED = ("sums", "prior", "laws", "calibration")


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
    "contexts": [replace(START, cells=4_000, genes=50, perturbations=5, contexts=n) for n in (2, 12)],
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


def measure(size: Size, *, calibrate: bool) -> dict[str, Any]:
    """Seconds of every step, memory and size of one screen."""
    cells = screen(size)
    row: dict[str, Any] = asdict(size)
    before = time.process_time()

    def stop(name: str) -> None:
        nonlocal before
        row[name], before = time.process_time() - before, time.process_time()

    sums = GroupSums.of(cells)
    stop("sums")
    prior = AdditiveHurdlePrior.fit(sums)
    stop("prior")
    row["groups"] = len(prior.group_contexts)
    row["stored_mb"] = sum(array.nbytes for array in prior.to_arrays().values()) / 1e6
    row["memory_of_fit_gb"] = resident() / 1e9
    before = time.process_time()
    prior.laws(sums.doses, sums.covariates)
    stop("laws")
    row["calibration"] = np.nan
    if calibrate:
        del prior, sums
        before = time.process_time()
        Calibration.fit(cells)
        stop("calibration")
    row["memory_gb"] = resident() / 1e9
    return row


def apart(size: Size, *, calibrate: bool) -> dict[str, Any]:
    """Measure in a process of its own."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # read when the new process loads NumPy
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, size, calibrate=calibrate).result()


def markdown(table: pd.DataFrame) -> str:
    """Table in Markdown."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """The measurements as text."""
    table = rows[["cells", "genes", "perturbations", "contexts", "groups"]].map("{:,}".format)
    for name in MEASURED:
        table[f"{name}, s"] = rows[name].map("{:,.1f}".format).replace("nan", "")
    table["memory of the fit, GB"] = rows["memory_of_fit_gb"].map("{:.2f}".format)
    table["memory, GB"] = rows["memory_gb"].map("{:.2f}".format)
    table["stored, MB"] = rows["stored_mb"].map("{:,.0f}".format)
    return table


def exponents(rows: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Slopes of the logarithms of the seconds over those of the sizes, between the smallest and the largest."""
    found = []
    for name, table in rows.items():
        ends = table.iloc[[0, -1]]
        steps = [step for step in MEASURED if ends[step].notna().all()]
        slopes = {step: np.diff(np.log(ends[step]))[0] / np.diff(np.log(ends[name]))[0] for step in steps}
        found.append({"with": name} | {step: f"{slope:.2f}" for step, slope in slopes.items()})
    return pd.DataFrame(found)


def main() -> None:
    """Measure, print tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--of", nargs="+", choices=list(GROWTH), default=list(GROWTH))
    parser.add_argument("--screen", nargs=4, type=int, metavar=("CELLS", "GENES", "PERTURBATIONS", "CONTEXTS"))
    parser.add_argument("--calibrate", action="store_true", help="cross-validate the prior too")
    parser.add_argument("--quick", action="store_true", help="small screens, in seconds")
    parser.add_argument("--output", type=Path, help="folder for the table")
    options = parser.parse_args()
    if options.screen:
        rows = pd.DataFrame([apart(Size(*options.screen), calibrate=options.calibrate)])
        print(markdown(shown(rows)))
        return
    grown = {name: sizes for name, sizes in (QUICK if options.quick else GROWTH).items() if name in options.of}
    rows = {
        name: pd.DataFrame([apart(size, calibrate=options.calibrate or options.quick) for size in sizes])
        for name, sizes in grown.items()
    }
    print(markdown(shown(pd.concat(rows.values(), ignore_index=True))))
    print("\nExponents\n")
    print(markdown(exponents(rows)))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        pd.concat(rows).to_csv(options.output / "prior_scale.csv", index=False)


if __name__ == "__main__":
    main()
