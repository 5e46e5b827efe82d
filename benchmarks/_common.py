"""What the benchmarks share: data sets with registered fields, splits, judging, and tables."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import perturbflow as pf
from perturbflow.evaluation import Condition, judged_conditions, registered_cells, score_samplers
from perturbflow.flow import CellData

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anndata import AnnData

SETS = ("norman", "mcfaline", "kang")
TASKS = {"norman": "combination", "mcfaline": "covariate_transfer", "simulated": "combination"}
KANG_TYPES = ("CD14 Mono", "B", "CD4 Naive T")
METRICS = ("energy_distance", "mmd", "cosine_of_log_fold_changes", "normalised_rank")
ENERGY = METRICS[0]
FLOOR = next(iter(pf.baselines.BASELINES))


def registered(name: str, *, kang_genes: int = 2000) -> AnnData:
    """Cells of a set with registered fields; "simulated" is small and needs no file."""
    if name == "kang":
        cells = pf.datasets.kang_ifnb(n_top_genes=kang_genes)
    elif name == "simulated":
        cells = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=3)
    else:
        cells = pf.datasets.norman_mcfaline_subset(name)
    pf.pp.setup_perturbation(cells, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    return cells


def split_options(name: str, *, cell_type: str | None = None) -> dict[str, Any]:
    """How a set is split; of Kang's, the stimulated cells of one type are left out."""
    if name == "kang":
        return {"task": "covariate_transfer", "held_out": [("IFN-beta", {"cell_type": cell_type})]}
    return {"task": TASKS[name], "test_fraction": 0.4, "valid_fraction": 0.2}


@dataclass(frozen=True, eq=False)
class Problem:
    """A data set under one split, and the conditions that models are judged on.

    ``fitted`` are the rows of training and validation cells: what a flow is chosen on, its final prior and all
    baselines may know both.
    """

    name: str
    seed: int
    adata: AnnData
    cells: CellData
    training: CellData
    fitted: np.ndarray
    conditions: list[Condition]

    @classmethod
    def make(cls, name: str, seed: int, *, max_conditions: int) -> Problem:
        """Split a set, and draw at most so many training and as many held-out conditions to judge."""
        # As many genes as the other two sets have: with more, a U-Net takes too few steps to be compared.
        adata = registered(name, kang_genes=500)
        options = split_options(name, cell_type=KANG_TYPES[seed % len(KANG_TYPES)])
        pf.pp.split_perturbations(adata, seed=seed, **options)
        cells, split = registered_cells(adata), adata.obs["split"].to_numpy(dtype=str)
        fitted = np.flatnonzero(split != "test")
        conditions = judged_conditions(adata, splits=("train", "test"), fitted_splits=("train", "valid"))
        drawn = at_most(conditions, max_conditions, seed=seed)
        return cls(name, seed, adata, cells, cells.subset(split == "train"), fitted, drawn)

    def scores(self, samplers: Mapping[str, Any], *, n_cells: int) -> pd.DataFrame:
        """Scores of every condition, model (the ceiling is added) and metric, as ``pf.tl.evaluate`` has them."""
        return score_samplers(self.cells, self.conditions, samplers, metrics=METRICS, n_cells=n_cells, seed=self.seed)

    def energies(
        self, sampler: Any, *, n_cells: int, max_conditions: int, splits: Sequence[str] = ("train", "test")
    ) -> dict[str, float]:
        """Mean energy distance by split, quickly: two predictions of at most so many conditions, always from one noise."""
        found: dict[str, list[float]] = {split: [] for split in splits}
        for i, condition in enumerate(at_most(self.conditions, max_conditions, seed=self.seed)):
            split = condition.block[0]
            if split in found:
                rng = np.random.default_rng([self.seed, i])
                real, controls = (self._some(rows, n_cells, rng) for rows in (condition.rows, condition.control_rows))
                first, again = (
                    sampler.sample(controls, condition.perturbation, condition.covariates, rng=rng) for _ in range(2)
                )
                # Cells of one stratified prediction are not independent; those of two are.
                found[split].append(pf.metrics.energy_distance(first, real, again=again))
        return {split: float(np.mean(values)) for split, values in found.items() if values}

    def _some(self, rows: np.ndarray, n_cells: int, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(self.cells.x[rng.permutation(rows)[:n_cells]].toarray())

    def baselines(self) -> dict[str, Any]:
        """All baselines, fitted on training and validation cells."""
        return pf.evaluation.fitted_baselines(list(pf.baselines.BASELINES), self.cells.subset(self.fitted))


def at_most(conditions: Sequence[Condition], n: int, *, seed: int) -> list[Condition]:
    """Draw at most n conditions of every split, in their old order."""
    rng, kept = np.random.default_rng(seed), []
    for split in ("train", "test"):
        members = [condition for condition in conditions if condition.block[0] == split]
        kept += [members[i] for i in np.sort(rng.permutation(len(members))[:n])]
    return kept


def with_settings(flow: Any, **changes: Any) -> Any:
    """A flow with settings of prediction, called like a baseline."""
    return SimpleNamespace(sample=lambda *cells, rng: flow.sample(*cells, rng=rng, **changes))


def one_thread() -> None:
    """Have the processes that this one starts compute on one thread each, and this one as well.

    Libraries that are loaded later may undo it here, but not in a process that starts with these variables.
    """
    import torch

    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    torch.set_num_threads(1)


def clock(device: str) -> Callable[[], float]:
    """Seconds of this process: on the CPU those that its one thread has computed, so that others do not count."""
    if device == "cpu":
        return time.process_time
    import torch

    def synchronised() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return synchronised


def markdown(table: pd.DataFrame) -> str:
    """Write a table the way documentation pages take it."""
    flat = table.reset_index().astype(str)
    rows = [list(flat.columns), ["---"] * flat.shape[1], *flat.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def mean_and_spread(mean: float, spread: float) -> str:
    """``mean ± s.d.``, without the latter where there is one value only, and a dash for nothing."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.3f}" if np.isnan(spread) else f"{mean:.3f} ± {spread:.3f}"
