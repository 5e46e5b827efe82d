"""A large sparse screen, drawn block by block, and a prediction of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTROL = "control"
CONTROL_FRACTION = 0.1
CHANGED_GENES = 0.05
EFFECT_SD = 1.0  # of the log rate
MEAN_COUNT = 0.12  # a tenth of the values above 0
RATE_SD = 0.8
DEPTH_SD = 0.3
TARGET_SUM = 1e4
VALUES_PER_BLOCK = 4_000_000


def simulated_screen(
    n_cells: int, n_genes: int, n_perturbations: int, *, shrink: float = 1.0, draw: int = 0, seed: int = 0
) -> AnnData:
    """Draw counts of independent genes, scale them to a common total and log them.

    ``count ~ Poisson(depth rate_g exp(shrink effect_pg))`` with log-normal depths and rates; a perturbation has a normal
    effect on a twentieth of the genes. A tenth of the cells are controls.

    Parameters
    ----------
    n_cells, n_genes, n_perturbations
        Size.
    shrink
        What the effects are multiplied by: 1 for the truth.
    draw
        Cells of other draws are independent, with the same rates and effects.
    seed
        Of rates and effects.

    Returns
    -------
    Cells with ``obs["perturbation"]``, CSR in float32.
    """
    rng = np.random.default_rng(seed)
    rate = rng.lognormal(0.0, RATE_SD, n_genes)
    rate *= MEAN_COUNT / rate.mean()
    effects = np.where(
        rng.random((n_perturbations, n_genes)) < CHANGED_GENES,
        rng.normal(0.0, EFFECT_SD, (n_perturbations, n_genes)),
        0.0,
    )
    rates = (rate * np.exp(shrink * np.vstack([np.zeros(n_genes), effects]))).astype(np.float32)
    codes = conditions_of_cells(n_cells, n_perturbations)
    generator = np.random.default_rng([seed, draw, 1])
    n_blocks = -(-n_cells * n_genes // VALUES_PER_BLOCK)
    blocks = [block(rates[part], generator) for part in np.array_split(codes, n_blocks)]
    names = [CONTROL, *(f"P{k:04d}" for k in range(n_perturbations))]
    obs = pd.DataFrame(
        {"perturbation": pd.Categorical.from_codes(codes, names)}, index=[f"cell_{k}" for k in range(n_cells)]
    )
    var = pd.DataFrame(index=[f"G{k:05d}" for k in range(n_genes)])
    return AnnData(sparse.vstack(blocks, format="csr"), obs=obs, var=var)


def conditions_of_cells(n_cells: int, n_perturbations: int) -> NDArray[np.intp]:
    """Condition of every cell, 0 for the controls; perturbations are equally frequent."""
    n_controls = round(CONTROL_FRACTION * n_cells)
    perturbed = 1 + np.arange(n_cells - n_controls) % n_perturbations
    return np.concatenate([np.zeros(n_controls, dtype=np.intp), perturbed])


def block(rates: NDArray[np.float32], rng: np.random.Generator) -> sparse.csr_matrix:
    """Log-normalised cells (n, G) of rates (n, G)."""
    depth = rng.lognormal(0.0, DEPTH_SD, (len(rates), 1)).astype(np.float32)
    counts = sparse.csr_matrix(rng.poisson(depth * rates), dtype=np.float32)
    total = np.asarray(counts.sum(axis=1)).ravel()
    counts.data *= np.repeat(TARGET_SUM / np.maximum(total, 1.0), np.diff(counts.indptr)).astype(np.float32)
    return counts.log1p()
