"""Panels on which the paper's network can be trained to the end on a CPU, and how far predictions are from fresh cells."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
from _common import registered
from scipy import sparse

import perturbflow as pf
from perturbflow.flow import CellData, zero_thresholds
from perturbflow.metrics import energy_distance

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from perturbflow.flow import Group

    Sampler = Callable[[int, Group, np.random.Generator], NDArray[np.float32]]

PARTS = {"train": 0.5, "valid": 0.1, "test": 0.4}
MOST_CELLS = 120
FEWEST_CELLS = 8
N_SPLITS = 100


def simulated(n_genes: int) -> AnnData:
    """Cells of a simulated network: four conditions of equally many cells."""
    return pf.datasets.simulated_perturb_seq(
        n_cells=4800, n_genes=n_genes, n_perturbations=3, n_combinations=0, cell_types=1, control_fraction=0.25
    )


def mcfaline(n_genes: int) -> AnnData:
    """Three cell lines; knock-downs of nine kinases, whose effects cannot be told apart, as one perturbation."""
    del n_genes
    adata = registered("mcfaline")
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    adata.obs["perturbation"] = np.where(is_control, "control", "kinase")
    return adata


def cytof(n_genes: int) -> AnnData:
    """Blood cells of four patients, with and without cross-linking of the B-cell receptor: 24 markers of mass cytometry."""
    del n_genes
    adata = ad.read_h5ad(
        Path(os.environ["PERTURBFLOW_DATA"]) / "bcrxl_cytof" / "bcrxl_cytof.h5ad"
    )  # CATALYST of Bioconductor
    is_control = (adata.obs["condition"] == "Ref").to_numpy()
    adata.obs["perturbation"] = np.where(is_control, "control", "BCRXL")
    return adata


# By name: the cells, and the covariates of their conditions. Kang's types are pooled: few cells of each, but mixtures of six.
PANELS: Mapping[str, tuple[Callable[[int], AnnData], tuple[str, ...]]] = {
    "mcfaline": (mcfaline, ("cell_type",)),
    "cytof": (cytof, ("patient",)),
    "simulated": (simulated, ()),
    "kang": (lambda n_genes: registered("kang"), ()),
    "norman": (lambda n_genes: registered("norman"), ()),
}


@dataclass(frozen=True, eq=False)
class Panel:
    """The most variable genes of a set, and which cells are for training, for choices and for the test.

    Every condition is in all three parts: the question is whether the distribution of a condition is learned, not whether another is
    extrapolated.
    """

    cells: CellData
    part: NDArray[np.str_]
    groups: list[Group]

    @classmethod
    def make(cls, name: str, n_genes: int, *, seed: int, max_conditions: int) -> Panel:
        """Choose genes and divide the cells of every condition; judge at most so many conditions."""
        make, covariates = PANELS[name]
        adata = make(n_genes)
        x = adata.X.toarray() if sparse.issparse(adata.X) else np.asarray(adata.X)
        genes = np.sort(np.argsort(-x.var(axis=0), kind="stable")[:n_genes])
        adata = adata[:, genes].copy()
        pf.pp.setup_perturbation(
            adata, perturbation_key="perturbation", control="control", covariate_keys=list(covariates)
        )
        read = pf.evaluation.registered_cells(adata)
        cells = CellData(x[:, genes].astype(np.float32), read.perturbations, read.covariates)
        rng, part = np.random.default_rng(seed), np.empty(len(x), dtype="U5")
        groups = cells.groups()
        for group in groups:
            bounds = np.rint(np.cumsum([0, *PARTS.values()]) * len(group.rows)).astype(int)
            rows = rng.permutation(group.rows)
            for which, first, last in zip(PARTS, bounds, bounds[1:], strict=False):
                part[rows[first:last]] = which
        judged = np.linspace(0, len(groups) - 1, min(max_conditions, len(groups))).astype(int)
        return cls(cells, part, [groups[i] for i in judged])

    @property
    def training(self) -> CellData:
        """The training cells."""
        return self.cells.subset(np.flatnonzero(self.part == "train"))

    def rows(self, group: Group, part: str) -> NDArray[np.intp]:
        """Cells of a condition in a part, at most as many as are judged."""
        rows = group.rows[self.part[group.rows] == part]
        return np.random.default_rng(0).permutation(rows)[:MOST_CELLS]

    def floor(self, part: str) -> tuple[float, float]:
        """Energy distance of two halves of real cells, as many as are judged: mean over conditions and its standard error.

        Halves are drawn anew from the cells of the condition, one of them as large as the part.
        """
        means, variances = [], []
        for group in self.groups:
            n_cells = len(self.rows(group, part))
            if n_cells < FEWEST_CELLS:
                continue
            rng = np.random.default_rng(1)
            found = []
            for _ in range(N_SPLITS):
                rows = rng.permutation(group.rows)[: 2 * n_cells]
                found.append(energy_distance(self.cells.x[rows[:n_cells]], self.cells.x[rows[n_cells:]]))
            means.append(np.mean(found))
            variances.append(np.var(found, ddof=1))
        return float(np.mean(means)), float(np.sqrt(np.sum(variances)) / len(variances))

    def scores(self, sample: Sampler, parts: tuple[str, ...] = ("valid", "test")) -> dict[str, dict[str, Any]]:
        """Energy distances of predictions to the cells of parts, mean over conditions, with and without exact zeros.

        Thresholds are learned from training cells and predictions alone.
        """
        predicted, weights = [], []
        for number, group in enumerate(self.groups):
            n_cells = max(len(self.rows(group, part)) for part in parts)
            predicted.append(np.maximum(sample(n_cells, group, np.random.default_rng([0, number])), 0))
            weights.append((self.cells.x[group.rows[self.part[group.rows] == "train"]] > 0).mean(axis=0))
        expressed = np.average(weights, axis=0, weights=[len(cells) for cells in predicted])
        thresholds = zero_thresholds(np.vstack(predicted), expressed)
        exact = [np.where(cells < thresholds, 0, cells) for cells in predicted]
        table = {}
        for part in parts:
            pairs = [(i, self.cells.x[self.rows(group, part)]) for i, group in enumerate(self.groups)]
            pairs = [(i, real) for i, real in pairs if len(real) >= FEWEST_CELLS]
            table[part] = {
                "energy": float(np.mean([energy_distance(exact[i][: len(real)], real) for i, real in pairs])),
                "energy without zeros": float(
                    np.mean([energy_distance(predicted[i][: len(real)], real) for i, real in pairs])
                ),
                "zeros": float(np.mean([(exact[i] == 0).mean() for i, _ in pairs])),
                "values below 0.1": float(np.mean([(predicted[i] < 0.1).mean() for i, _ in pairs])),
                "real zeros": float(np.mean([(real == 0).mean() for _, real in pairs])),
            }
        return table
