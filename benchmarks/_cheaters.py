"""Simulated conditions with fresh cells of the truth, mixtures with negative controls, and predictors that cheat.

A predictor that cheats makes cells from what an evaluation would not hand out (fresh cells of the truth), so that it is
as good as can be but for its one fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData, concat
from scipy import sparse

import perturbflow as pf
from perturbflow.metrics import WilcoxonAgainst

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]

CONTROL = "control"
REPEATS = 10
INFLATION = 2.0
CONTROLS_PER_CELL = 4  # reference controls for every real cell of a condition


@dataclass(frozen=True, eq=False)
class Truth:
    """Cells of a simulated screen in one context, divided into those that are judged by and fresh ones.

    Attributes
    ----------
    observed
        Real cells of every condition and the controls, with registered fields and a split.
    fresh
        As many further cells of every condition.
    controls
        Reference controls.
    fresh_controls
        Further controls, as many as a condition has cells.
    """

    observed: AnnData
    fresh: dict[str, FloatArray]
    controls: FloatArray
    fresh_controls: FloatArray

    @classmethod
    def simulate(cls, n_cells: int, *, n_genes: int, n_perturbations: int, n_combinations: int, seed: int) -> Truth:
        """Simulate at least twice ``n_cells`` cells of every condition."""
        n_conditions = n_perturbations + n_combinations
        n_controls = (CONTROLS_PER_CELL + 1) * n_cells
        n_all = 2 * n_cells * n_conditions + n_controls
        cells = pf.datasets.simulated_perturb_seq(
            n_cells=n_all + 2 * n_conditions,
            n_genes=n_genes,
            n_perturbations=n_perturbations,
            n_combinations=n_combinations,
            cell_types=1,
            control_fraction=n_controls / n_all,
            seed=seed,
        )
        del cells.layers["counts"]
        rng = np.random.default_rng([seed, 1])
        rows = {
            name: rng.permutation(found)
            for name, found in cells.obs.groupby("perturbation", observed=True).indices.items()
        }
        controls = rows.pop(CONTROL)
        reference, others = controls[: CONTROLS_PER_CELL * n_cells], controls[CONTROLS_PER_CELL * n_cells :]
        kept = np.concatenate([reference, *(found[:n_cells] for found in rows.values())])
        observed = cells[kept].copy()
        observed.obs["split"] = np.where(observed.obs["perturbation"] == CONTROL, "train", "test")
        pf.pp.setup_perturbation(observed, perturbation_key="perturbation", control=CONTROL)
        x = cells.X.toarray()
        return cls(
            observed,
            {str(name): x[found[n_cells : 2 * n_cells]] for name, found in rows.items()},
            x[reference],
            x[others[:n_cells]],
        )

    def predicted(self, predict: Callable[[Truth, str, np.random.Generator], FloatArray], *, seed: int) -> AnnData:
        """Predict every condition."""
        parts = []
        for place, name in enumerate(self.fresh):
            x = predict(self, name, np.random.default_rng([seed, place]))
            obs = pd.DataFrame({"perturbation": name}, index=[f"{name}_{k}" for k in range(len(x))])
            parts.append(AnnData(sparse.csr_matrix(x, dtype=np.float32), obs=obs))
        cells = concat(parts)
        cells.var_names = self.observed.var_names
        return cells

    def n_significant(self, cells: FloatArray) -> int:
        """Number of genes that differ from the reference controls."""
        return int(WilcoxonAgainst(self.controls)(cells).significant().sum())


# Ends of the interpolation


def honest(truth: Truth, name: str, rng: np.random.Generator) -> FloatArray:
    """Fresh cells of the condition: the positive control."""
    return truth.fresh[name]


def copied_controls(truth: Truth, name: str, rng: np.random.Generator) -> FloatArray:
    """Control cells, other ones than the reference."""
    return truth.fresh_controls


def cells_of_others(truth: Truth, name: str, rng: np.random.Generator) -> FloatArray:
    """Cells drawn from all other conditions together."""
    pool = np.concatenate([cells for other, cells in truth.fresh.items() if other != name])
    return pool[rng.choice(len(pool), len(truth.fresh[name]), replace=False)]


NEGATIVES = {"control cells": copied_controls, "mean perturbed": cells_of_others}


def mixture(negative: str, share: float) -> Callable[[Truth, str, np.random.Generator], FloatArray]:
    """Return what predicts ``share`` of the cells by the positive and the rest by a negative control.

    The mean is interpolated along with the distribution. Cells of the positive are kept as the share rises.
    """

    def predict(truth: Truth, name: str, rng: np.random.Generator) -> FloatArray:
        worst, best = NEGATIVES[negative](truth, name, rng), truth.fresh[name]
        order, n_best = rng.permutation(len(best)), round(share * len(best))
        return np.concatenate([best[order[:n_best]], worst[order[n_best:]]])

    return predict


# Cheaters


def collapsed(truth: Truth, name: str, rng: np.random.Generator) -> FloatArray:
    """Every cell is the mean of the fresh cells."""
    cells = truth.fresh[name]
    return np.broadcast_to(cells.mean(axis=0), cells.shape)


def inflated(truth: Truth, name: str, rng: np.random.Generator) -> FloatArray:
    """Fresh cells moved once more by their mean effect."""
    cells = truth.fresh[name]
    return np.maximum(cells + (INFLATION - 1.0) * (cells.mean(axis=0) - truth.controls.mean(axis=0)), 0.0)


def right_count(truth: Truth, name: str, rng: np.random.Generator) -> FloatArray:
    """As many significant genes as the fresh cells have, but others: the response of each lies on a similar gene.

    A significant gene gets the values that an unchanged gene has in the controls, and that gene its response. At most
    half of the genes can be significant; further ones stay as they are.
    """
    cells = truth.fresh[name].copy()
    level = truth.controls.mean(axis=0)
    found = WilcoxonAgainst(truth.controls)(cells)
    changed = np.flatnonzero(found.significant())
    changed = changed[np.argsort(found.p_value[changed], kind="stable")]
    free = set(np.flatnonzero(~found.significant()).tolist())
    for gene in changed:
        if not free:
            break
        other = min(free, key=lambda candidate: abs(level[candidate] - level[gene]))
        free.remove(other)
        cells[:, other] = truth.fresh[name][:, gene]
        cells[:, gene] = truth.fresh_controls[:, gene]
    return cells


def noisy_average(truth: Truth, name: str, rng: np.random.Generator) -> FloatArray:
    """Controls moved by the average effect of all conditions and by noise as large as the differences between effects."""
    effects = np.stack([cells.mean(axis=0) for cells in truth.fresh.values()]) - truth.controls.mean(axis=0)
    noise = effects.std(axis=0) * rng.standard_normal(effects.shape[1])
    return np.maximum(truth.fresh_controls + effects.mean(axis=0) + noise, 0.0).astype(np.float32)


def independent_genes(truth: Truth, name: str, rng: np.random.Generator) -> FloatArray:
    """Fresh cells whose genes are shuffled apart: right marginals, no dependence."""
    return rng.permuted(truth.fresh[name], axis=0)


def few_distinct(truth: Truth, name: str, rng: np.random.Generator) -> FloatArray:
    """A tenth of the fresh cells, each ten times: as many cells, little in them."""
    cells = truth.fresh[name]
    kept = rng.choice(len(cells), max(2, len(cells) // REPEATS), replace=False)
    return np.resize(np.repeat(cells[kept], REPEATS, axis=0), cells.shape)


def many_copies(truth: Truth, name: str, rng: np.random.Generator) -> FloatArray:
    """Every fresh cell ten times: more cells than there are, for smaller p-values."""
    return np.repeat(truth.fresh[name], REPEATS, axis=0)


CHEATERS = {
    "mean collapse": collapsed,
    "inflated effects": inflated,
    "copied controls": copied_controls,
    "right count, wrong genes": right_count,
    "mean of all perturbations": cells_of_others,
    "average effect plus noise": noisy_average,
    "independent genes": independent_genes,
    "few distinct cells": few_distinct,
    "ten copies": many_copies,
}
